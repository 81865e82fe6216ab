r"""Velocity fields v(x, t) of flows, for vectors and for sets of points.

Those of class-conditional flows take labels as rows (n, K) after the time: one-hot, or weights of
the classes. A row of zeros names no class; its velocity is that of all classes together.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge._core.checks import dimension, dimensions, rows

FASTEST = 64.0
"""The largest angular frequency of a time embedding, for t in [0, 1]."""


class TimeEmbedding(nn.Module):
    """Times t (n,) in [0, 1] to (n, size): cosines and sines of frequencies from 1 to 64.

    Labels (n, K) are appended, scaled so that a class is as long as the embedding of a time. The
    linear layer that follows then has a vector for each class.

    Args:
        size: how many numbers, even.
        classes: K, 0 without labels.

    Source: Vaswani et al., "Attention is all you need", 2017, section 3.5.
    """

    frequencies: Tensor

    def __init__(self, size: int = 32, classes: int = 0):
        super().__init__()
        half, classes = size // 2, rows(classes, "classes")
        self.size, self.length = 2 * half + classes, math.sqrt(half)
        powers = [FASTEST ** (k / max(1, half - 1)) for k in range(half)]
        self.register_buffer("frequencies", torch.tensor(powers))

    def forward(self, t: Tensor, *labels: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        scaled = [self.length * rows for rows in labels]
        return torch.cat([angles.cos(), angles.sin(), *scaled], 1)


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
        classes: K, where labels (n, K) are taken after t.
    """

    def __init__(self, dim: int, hidden: Sequence[int], classes: int = 0):
        super().__init__()
        self.time = TimeEmbedding(classes=classes)
        sizes = dimensions("hidden", hidden, least=0)
        self.body = smooth_mlp([dimension("dim", dim) + self.time.size, *sizes, dim])

    def forward(self, x: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        return self.body(torch.cat([x, self.time(t, *labels).to(x.dtype)], 1))


class SetLayer(nn.Module):
    """Features (n, N, inputs) of points and an embedding (n, times) to (n, N, outputs): each point
    sees itself, and the maximum and the mean over all points.

    Source: Zaheer et al., "Deep sets", 2017; Qi, Su, Mo, Guibas, "PointNet", 2017.
    """

    def __init__(self, inputs: int, outputs: int, times: int):
        super().__init__()
        self.own = nn.Linear(inputs, outputs)
        self.whole = nn.Linear(2 * inputs + times, outputs)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        whole = self.whole(torch.cat([x.amax(1), x.mean(1), times], 1))
        return F.silu(self.own(x) + whole[:, None])


class CloudVelocity(nn.Module):
    """x (n, N, d) and t (n,) to v (n, N, d), equivariant to the order of the points.

    Args:
        dim: d.
        filters: features of a point after each layer.
        classes: K, where labels (n, K) are taken after t.
    """

    def __init__(self, dim: int, filters: Sequence[int], classes: int = 0):
        super().__init__()
        self.time = TimeEmbedding(classes=classes)
        filters = dimensions("filters", filters)
        sizes = [dimension("dim", dim), *filters]
        layers = [SetLayer(a, b, self.time.size) for a, b in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.out = nn.Linear(filters[-1] + dim, dim)

    def forward(self, x: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        times, features = self.time(t, *labels).to(x.dtype), x
        for layer in self.layers:
            features = layer(features, times)
        return self.out(torch.cat([features, x], 2))
