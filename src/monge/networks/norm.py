r"""Batch normalisation over the global batch.

With several processes the moments are all-reduced, with gradient, so that the layer sees what
one process with the whole batch would. `nn.SyncBatchNorm` does this for CUDA tensors only.

Source: Ioffe, Szegedy, "Batch normalization", 2015.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge.distributed import sum_of_all, world


class BatchNorm(nn.Module):
    r"""Normalises each channel of (n, c, \*) by the moments of the batch, then scales and shifts
    it, unless it is not `affine`.

    In training mode the running moments move by `momentum`; in evaluation mode they are used.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, channels: int, momentum: float = 0.1, eps: float = 1e-5, *, affine: bool = True
    ):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and world()[1] > 1:
            return self._over_processes(x)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training, self.momentum, self.eps,
        )  # fmt: skip

    def _over_processes(self, x: Tensor) -> Tensor:
        axes = [0, *range(2, x.ndim)]
        count = torch.full_like(x[0, :1].flatten()[:1], x.numel() / x.shape[1])
        totals = sum_of_all(torch.cat([x.sum(axes), count]))
        n = totals[-1]
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean = totals[:-1] / n
        centred = x - mean.view(shape)
        variance = sum_of_all(centred.square().sum(axes)) / n
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        x = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is None or self.bias is None:
            return x
        return x * self.weight.view(shape) + self.bias.view(shape)
