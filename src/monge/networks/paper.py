r"""The published networks of the WAE paper, layer by layer, for the preset `paper`.

MNIST, (1, 28, 28): 4×4 convolutions; CelebA, (3, 64, 64): 5×5, with values in [-1, 1] inside.
Strides of 2 keep ⌈side / 2⌉, which for odd sides or kernels pads one pixel more at the end.
Every layer has a bias of 0 at first, also before a batch normalisation; convolutions start from
a normal distribution of deviation 0.01 truncated at two deviations, the other weights from
N(0, 0.01²).

Source: the code released with Tolstikhin et al., "Wasserstein auto-encoders", 2018.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge._core.checks import dimension, dimensions
from monge.networks.mlp import Standardise, Unstandardise
from monge.networks.norm import BatchNorm

DEVIATION = 0.01


class Architecture(NamedTuple):
    """The differences between the two published architectures."""

    kernel: int
    down: tuple[int, ...]
    """Filters of the encoder's convolutions, all of stride 2."""
    up: tuple[int, ...]
    """Filters of the decoder: what the linear layer makes, then transposed convolutions."""
    symmetric: bool
    """Whether the networks see [-1, 1]."""
    knows_prior: bool
    """Whether a critic of codes is given the prior's density."""


NETWORKS: dict[tuple[int, ...], Architecture] = {
    (1, 28, 28): Architecture(
        4, (128, 256, 512, 1024), (1024, 512, 256), symmetric=False, knows_prior=False
    ),
    (3, 64, 64): Architecture(
        5, (128, 256, 512, 1024), (1024, 512, 256, 128), symmetric=True, knows_prior=True
    ),
}


def published(shape: Sequence[int]) -> Architecture:
    """The architecture for images of a shape; a ValueError where none was published."""
    shape = tuple(dimensions("shape", shape))
    if shape not in NETWORKS:
        raise ValueError(
            f"`preset` paper has networks for images of shape (1, 28, 28) and (3, 64, 64), got "
            f"{shape}: use --size 64 --channels colour, or the preset small"
        )
    return NETWORKS[shape]


class Down(nn.Conv2d):
    """A convolution of stride 2, (n, c, h, w) → (n, filters, ⌈h/2⌉, ⌈w/2⌉)."""

    def __init__(self, channels: int, filters: int, kernel: int):
        super().__init__(channels, filters, kernel, stride=2)
        nn.init.trunc_normal_(self.weight, 0.0, DEVIATION, -2 * DEVIATION, 2 * DEVIATION)
        nn.init.zeros_(self.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, input: Tensor) -> Tensor:
        around = []
        for side in reversed(input.shape[-2:]):
            missing = max((-(-side // 2) - 1) * 2 + self.kernel_size[0] - side, 0)
            around += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(input, around))


class Up(nn.ConvTranspose2d):
    """The transposed convolution, (n, c, h, w) → (n, filters, stride h, stride w)."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int):
        super().__init__(channels, filters, kernel, stride)
        nn.init.normal_(self.weight, 0.0, DEVIATION)
        nn.init.zeros_(self.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        first = (self.kernel_size[0] - self.stride[0]) // 2
        h, w = (side * self.stride[0] for side in input.shape[-2:])
        return super().forward(input)[..., first : first + h, first : first + w]


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with the published initial weights."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, 0.0, DEVIATION)
    nn.init.zeros_(layer.bias)
    return layer


def paper_encoder(shape: Sequence[int], outputs: int) -> nn.Sequential:
    """(n, c, h, w) in [0, 1] → (n, outputs)."""
    net, side = published(shape), shape[-1]
    dimension("outputs", outputs)
    half = torch.tensor(0.5)
    layers: list[nn.Module] = [Standardise(half, half)] if net.symmetric else []
    for channels, filters in pairwise([shape[0], *net.down]):
        layers += [Down(channels, filters, net.kernel), BatchNorm(filters), nn.ReLU()]
        side = -(-side // 2)
    return nn.Sequential(*layers, nn.Flatten(), linear(net.down[-1] * side**2, outputs))


def paper_decoder(shape: Sequence[int], inputs: int) -> nn.Sequential:
    """(n, inputs) → (n, c, h, w) in [0, 1]."""
    net = published(shape)
    dimension("inputs", inputs)
    side, first = shape[-1] // 2 ** (len(net.up) - 1), net.up[0]
    half = torch.tensor(0.5)
    layers: list[nn.Module] = [
        linear(inputs, first * side**2),
        nn.Unflatten(1, (first, side, side)),
        nn.ReLU(),
    ]
    for channels, filters in pairwise(net.up):
        layers += [Up(channels, filters, net.kernel, 2), BatchNorm(filters), nn.ReLU()]
    layers.append(Up(net.up[-1], shape[0], net.kernel, 1))
    layers += [nn.Tanh(), Unstandardise(half, half)] if net.symmetric else [nn.Sigmoid()]
    return nn.Sequential(*layers)


def paper_critic(inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """Critic of codes: (n, inputs) → (n, 1), linear layers with ReLU between."""
    hidden = dimensions("hidden", hidden)
    layers: list[nn.Module] = []
    for a, b in pairwise([dimension("inputs", inputs), *hidden]):
        layers += [linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, linear(hidden[-1], 1))
