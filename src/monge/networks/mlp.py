"""Networks for vectors."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from monge._core.checks import dimensions


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of the given sizes with ReLU between: (n, sizes[0]) → (n, sizes[-1])."""
    sizes = dimensions("sizes", sizes)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Standardise(nn.Module):
    """x ↦ (x - mean) / deviation, column by column, on the way into a network for tables.

    With moments in float64 the units of the table are in float64, as timestamps need, and standard
    units in float32, as the network is.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor):
        super().__init__()
        self.register_buffer("mean", _moments("mean", mean))
        self.register_buffer("deviation", _moments("deviation", deviation))
        self.narrow = self.mean.dtype == torch.float64

    def forward(self, x: Tensor) -> Tensor:
        standard = (x - self.mean) / self.deviation
        return standard.float() if self.narrow else standard


def _moments(name: str, values: Tensor) -> Tensor:
    try:
        # a clone, since torch.export cannot tell buffers that share memory apart
        return torch.as_tensor(values).clone()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"`{name}` must be a tensor of numbers, got {values!r}") from None


class Unstandardise(Standardise):
    """y ↦ mean + deviation · y: on the way out of it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mean + self.deviation * x
