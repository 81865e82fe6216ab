r"""Velocity fields v(x, t) of flows, for vectors and for sets of points."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

FASTEST = 64.0
"""The largest angular frequency of a time embedding, for t in [0, 1]."""


class TimeEmbedding(nn.Module):
    """Times t (n,) in [0, 1] to (n, size): cosines and sines of frequencies from 1 to 64.

    Args:
        size: how many numbers, even.

    Source: Vaswani et al., "Attention is all you need", 2017, section 3.5.
    """

    frequencies: Tensor

    def __init__(self, size: int = 32):
        super().__init__()
        half = size // 2
        powers = [FASTEST ** (k / max(1, half - 1)) for k in range(half)]
        self.register_buffer("frequencies", torch.tensor(powers))

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], 1)


def smooth_mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with SiLU between, whose derivatives are continuous, (n, sizes[0]) →
    (n, sizes[-1])."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class VectorVelocity(nn.Module):
    """x (n, d) and t (n,) to v (n, d): a perceptron on x and the embedded time.

    Args:
        dim: d.
        hidden: sizes of the hidden layers.
    """

    def __init__(self, dim: int, hidden: Sequence[int]):
        super().__init__()
        self.time = TimeEmbedding()
        times = 2 * len(self.time.frequencies)
        self.body = smooth_mlp([dim + times, *hidden, dim])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.body(torch.cat([x, self.time(t).to(x.dtype)], 1))


class CloudVelocity(nn.Module):
    """x (n, N, d) and t (n,) to v (n, N, d), equivariant to the order of the points.

    A perceptron applied to each point sees the embedded time; a second one sees what the first
    makes of a point beside the maxima over all points, as in PointNet.

    Args:
        dim: d.
        filters: layers of the first perceptron; the second has its last two sizes.

    Source: Qi, Su, Mo, Guibas, "PointNet: Deep learning on point sets", 2017, section 4.2 (the
    network for segmentation).
    """

    def __init__(self, dim: int, filters: Sequence[int]):
        super().__init__()
        self.time = TimeEmbedding()
        times, last = 2 * len(self.time.frequencies), filters[-1]
        self.points = smooth_mlp([dim + times, *filters])
        self.body = smooth_mlp([2 * last + times, *filters[-2:], dim])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        times = self.time(t).to(x.dtype)[:, None].expand(-1, x.shape[1], -1)
        features = self.points(torch.cat([x, times], 2))
        whole = features.amax(1, keepdim=True).expand_as(features)
        return self.body(torch.cat([features, whole, times], 2))
