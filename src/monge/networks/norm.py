r"""Batch normalisation over the global batch.

With several processes the moments are all-reduced, with gradient, so that the layer computes what
it would compute in one process with the whole batch. `nn.SyncBatchNorm` does this for CUDA
tensors only.

Source: Ioffe, Szegedy, "Batch normalization", 2015.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge._core.checks import dimension, nonnegative, share
from monge._core.processes import gather, sum_of_all, world


class BatchNorm(nn.Module):
    r"""Normalises each channel of (n, c, \*) by the moments of the batch.

    In training mode the running moments move by `momentum`; in evaluation mode they replace those
    of the batch.

    Args:
        channels: c.
        momentum: the weight of a batch in the running moments.
        eps: added to the variance.
        affine: whether each channel is then scaled and shifted by learned numbers.
    """

    running_mean: Tensor
    running_var: Tensor
    override: Callable[["BatchNorm", Tensor], Tensor] | None
    """Replaces `forward`, if not None; `monge.training` sets it while the micro-batches of a batch
    share their moments."""

    def __init__(
        self, channels: int, momentum: float = 0.1, eps: float = 1e-5, *, affine: bool = True
    ):
        super().__init__()
        dimension("channels", channels)
        self.momentum, self.eps = share("momentum", momentum), nonnegative("eps", eps)
        self.override = None
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.override is not None:
            return self.override(self, x)
        if self.training and world()[1] > 1:
            return self._over_processes(x)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )

    def _over_processes(self, x: Tensor) -> Tensor:
        wide = x.to(self.running_mean.dtype)
        out, mean, variance = _OverProcesses.apply(wide, self.weight, self.bias, self.eps)  # pyright: ignore
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        return out.to(x.dtype)


class _OverProcesses(torch.autograd.Function):
    """Normalises the rows of this process by the moments of all: one message each way."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float):
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        count = x.numel() / x.shape[1]
        mean = x.sum(axes) / count
        squares = (x - mean.view(shape)).square_().sum(axes)
        local = torch.cat([x.new_full((1,), count), mean, squares])
        every = gather(local[None], world()[1])
        # Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979
        counts, means, squares = every.split([1, len(mean), len(mean)], 1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (squares + counts * (means - mean).square()).sum(0) / total
        inverse = (variance + eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        centred = x - mean.view(shape)
        out = centred * scale.view(shape)
        if bias is not None:
            out += bias.view(shape)
        unbiased = variance * total / (total - 1)
        ctx.save_for_backward(centred, inverse, scale, total)
        ctx.affine = weight is not None
        ctx.mark_non_differentiable(mean, unbiased)
        return out, mean, unbiased

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients: Tensor):
        centred, inverse, scale, total = ctx.saved_tensors
        axes, shape = [0, *range(2, centred.ndim)], (1, -1, *[1] * (centred.ndim - 2))
        sums = torch.stack([gradients[0].sum(axes), (gradients[0] * centred).sum(axes)])
        sums[1] *= inverse
        first, second = sum_of_all(sums) / total
        back = gradients[0] - first.view(shape)
        back.addcmul_(centred, (inverse * second).view(shape), value=-1).mul_(scale.view(shape))
        return back, *((sums[1], sums[0]) if ctx.affine else (None, None)), None
