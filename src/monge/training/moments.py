"""The moments that layers of batch normalisation share over the micro-batches of a batch."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge._core.processes import sum_of_all
from monge.models import matchings
from monge.networks.norm import BatchNorm


def layers(model: nn.Module) -> list[BatchNorm]:
    """The layers of batch normalisation in training mode, without those of divergences, which the
    model does not call.

    Raises:
        ValueError: for layers that are not `monge.networks.BatchNorm`.
    """
    critics = {layer for one in matchings(model) for layer in one.divergence.modules()}
    layers: list[BatchNorm] = []
    for name, layer in model.named_modules():
        if not layer.training or layer in critics:
            continue
        if isinstance(layer, BatchNorm):
            layers.append(layer)
        elif isinstance(layer, nn.modules.batchnorm._NormBase):
            raise ValueError(
                f"`micro_batch` needs monge.networks.BatchNorm, but {name!r} is a "
                f"{type(layer).__name__}, which would normalise each micro-batch on its own"
            )
    return layers


class Record:
    """The contribution of one micro-batch to the moments of the layers that it reaches."""

    def __init__(self, first: int):
        self.first, self.calls = first, 0
        self.means: list[Tensor] = []
        """(2, c) for each layer with known moments from number `first` on: the terms of this
        micro-batch in both means."""
        self.unknown: list[tuple[BatchNorm, Tensor]] = []
        """The first layer without moments, and the sums of both and the count, (2, c + 1)."""


class SharedMoments:
    """The moments of a batch at each layer, in the order in which a pass reaches the layers.

    `values[k]` (2, c) holds the means of x - r and (x - r)² at the k-th layer, where r is its
    running mean: near r the squares lose no digits. `gradients[k]` is the gradient of the loss
    with respect to them.
    """

    def __init__(self, layers: Sequence[BatchNorm]):
        self.layers = layers
        self.order: list[BatchNorm] = []
        self.values: list[Tensor] = []
        self.counts: list[Tensor] = []
        self.gradients: dict[int, Tensor] = {}

    @contextlib.contextmanager
    def shared(self, first: int) -> Iterator[Record]:
        """Normalises one micro-batch by the moments of the batch, as far as they are known, and
        records what it contributes to those from number `first` on.

        Layers whose moments are not known yet use their running moments. What comes out of them is
        discarded: such a pass only collects the sums of the first of them.
        """
        record = Record(first)
        for layer in self.layers:
            layer.override = lambda layer, x: self._normalised(layer, x, record)
        try:
            yield record
        finally:
            for layer in self.layers:
                layer.override = None

    def _normalised(self, layer: BatchNorm, x: Tensor, record: Record) -> Tensor:
        k, known = record.calls, len(self.values)
        record.calls += 1
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        if k > known:
            return F.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)
        d = x.to(layer.running_mean.dtype) - layer.running_mean.view(shape)
        if k >= record.first:
            sums = torch.stack([d.sum(axes), d.square().sum(axes)])
            if k == known:
                count = sums.new_full((2, 1), d.numel() / d.shape[1])
                record.unknown.append((layer, torch.cat([sums, count], 1)))
                return x
            record.means.append(sums / self.counts[k])
        mean, square = (m.view(shape) for m in self.values[k])
        out = (d - mean) * (square - mean.square() + layer.eps).rsqrt()
        if layer.weight is not None and layer.bias is not None:
            out = out * layer.weight.view(shape) + layer.bias.view(shape)
        return out.to(x.dtype)

    def add(self, sums: Sequence[tuple[BatchNorm, Tensor]]) -> None:
        """Adds the moments of the next layer, from the sums of every micro-batch."""
        totals = sum_of_all(torch.stack([one for _, one in sums]).sum(0))
        self.order.append(sums[0][0])
        self.counts.append(totals[0, -1])
        self.values.append(totals[:, :-1] / totals[0, -1])

    @torch.no_grad()
    def update_running(self) -> None:
        """Moves the running moments as one pass of the whole batch would."""
        shifts = [layer.running_mean.clone() for layer in self.order]
        for layer, shift, n, (mean, square) in zip(self.order, shifts, self.counts, self.values):
            variance = (square - mean.square()) * n / (n - 1)
            layer.running_mean.lerp_(shift + mean, layer.momentum)
            layer.running_var.lerp_(variance, layer.momentum)
