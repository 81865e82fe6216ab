r"""A small U-Net for velocity fields of images.

Images are read in patches of 2×2 pixels, so that the first and most expensive level works at half
their size. Each level has a residual block on the way down and one on the way up, with the sides
halved between levels; levels of at most 64 positions attend to all of them.

Source: Ronneberger, Fischer, Brox, "U-Net", 2015; Ho, Jain, Abbeel, "Denoising diffusion
probabilistic models", 2020; patches: Peebles, Xie, "Scalable diffusion models with transformers",
2023.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge._core.checks import dimensions
from monge.networks.velocity import TimeEmbedding

PATCH = 2
ATTENDED = 64
"""The most positions of a level with attention."""


def _norm(channels: int) -> nn.GroupNorm:
    """Over groups of at least two channels, since one value has no variance."""
    groups = math.gcd(8, channels)
    return nn.GroupNorm(groups if groups < channels else max(1, channels // 2), channels)


class ResidualBlock(nn.Module):
    """x (n, inputs, h, w) and an embedding (n, times) to (n, outputs, h, w): two convolutions
    beside a shortcut; the embedding shifts the features between them."""

    def __init__(self, inputs: int, outputs: int, times: int):
        super().__init__()
        self.first = nn.Sequential(_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, 1, 1))
        self.time = nn.Linear(times, outputs)
        self.second = nn.Sequential(
            _norm(outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, 1, 1)
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        y = self.first(x) + self.time(times)[:, :, None, None]
        return self.shortcut(x) + self.second(y)


class SelfAttention(nn.Module):
    """x (n, channels, h, w) plus what each position takes from all others."""

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.heads = math.gcd(heads, channels)
        self.norm = _norm(channels)
        self.queries = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        parts = self.queries(self.norm(x)).reshape(n, 3, self.heads, -1, height * width)
        q, k, v = parts.transpose(3, 4).unbind(1)
        taken = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        return x + self.out(taken.reshape(n, channels, height, width))


class Level(nn.Module):
    """One residual block, followed by attention where `attends`."""

    def __init__(self, inputs: int, outputs: int, times: int, attends: bool):
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, times)
        self.attention = SelfAttention(outputs) if attends else nn.Identity()

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        return self.attention(self.block(x, times))


class ImageVelocity(nn.Module):
    """x (n, c, h, w) and t (n,) to v (n, c, h, w), for images of any size.

    Args:
        shape: (c, h, w).
        filters: channels of the levels, the first at half the size of the images.
        classes: K, where labels (n, K) are taken after t.
    """

    def __init__(self, shape: Sequence[int], filters: Sequence[int], classes: int = 0):
        super().__init__()
        channels, height, width = dimensions("shape", shape, 3)
        filters = dimensions("filters", filters)
        times = 4 * filters[0]
        embedding = TimeEmbedding(classes=classes)
        self.time = nn.Sequential(
            embedding,
            nn.Linear(embedding.size, times),
            nn.SiLU(),
            nn.Linear(times, times),
            nn.SiLU(),
        )
        self.stem = nn.Conv2d(channels * PATCH**2, filters[0], 3, 1, 1)
        height, width = -(-height // PATCH), -(-width // PATCH)
        down, up, shrink, enlarge = [], [], [], []
        before = filters[0]
        for i, count in enumerate(filters):
            attends = height * width <= ATTENDED
            if i:
                shrink.append(nn.Conv2d(before, before, 3, 2, 1))
                enlarge.append(nn.Conv2d(count, before, 3, 1, 1))
            down.append(Level(before, count, times, attends))
            up.append(Level(2 * count, count, times, attends))
            height, width, before = -(-height // 2), -(-width // 2), count
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(reversed(up))
        self.shrink, self.enlarge = nn.ModuleList(shrink), nn.ModuleList(reversed(enlarge))
        self.middle = ResidualBlock(before, before, times)
        self.out = nn.Sequential(
            _norm(filters[0]),
            nn.SiLU(),
            nn.Conv2d(filters[0], channels * PATCH**2, 3, 1, 1),
            nn.PixelShuffle(PATCH),
        )

    def forward(self, x: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        height, width = x.shape[2:]
        times = self.time[1:](self.time[0](t.to(x.dtype), *labels))
        y = self.stem(F.pixel_unshuffle(F.pad(x, (0, width % PATCH, 0, height % PATCH)), PATCH))
        passed: list[Tensor] = []
        for i, level in enumerate(self.down):
            y = level(self.shrink[i - 1](y) if i else y, times)
            passed.append(y)
        y = self.middle(y, times)
        for i, level in enumerate(self.up):
            skip = passed.pop()
            if i:
                y = self.enlarge[i - 1](F.interpolate(y, skip.shape[2:], mode="nearest"))
            y = level(torch.cat([y, skip], 1), times)
        return self.out(y)[:, :, :height, :width]
