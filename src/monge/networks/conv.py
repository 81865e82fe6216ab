"""Convolutional networks for images of any size.

Each block halves the sides (4×4 kernel, stride 2); the decoder mirrors the sizes the encoder
went through, odd ones included. Layers before a batch normalisation have no bias: it would have
no effect on the function, and rounding in its gradient grows through Adam.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge._core.checks import dimension, dimensions, nonnegative
from monge._core.visible import counted
from monge.networks.norm import BatchNorm


def _sides(side: int, blocks: int) -> list[int]:
    sides = [side]
    for _ in range(blocks):
        sides.append(sides[-1] // 2)
    if sides[-1] < 1:
        raise ValueError(
            f"images with a side of {counted(side, 'pixel')} are too small for {blocks} halvings: "
            f"resize them, as with --size {2**blocks}, or use fewer filters"
        )
    return sides


def conv_encoder(shape: Sequence[int], outputs: int, filters: Sequence[int]) -> nn.Sequential:
    """(n, c, h, w) → (n, outputs): a block of each number of filters, then a linear layer."""
    shape, filters = dimensions("shape", shape, 3), dimensions("filters", filters)
    layers: list[nn.Module] = []
    for inputs, count in zip([shape[0], *filters], filters):
        layers += [nn.Conv2d(inputs, count, 4, 2, 1, bias=False), BatchNorm(count), nn.ReLU()]
    last = nn.Linear(conv_features(shape, filters), dimension("outputs", outputs))
    return nn.Sequential(*layers, nn.Flatten(), last)


def conv_decoder(shape: Sequence[int], inputs: int, filters: Sequence[int]) -> nn.Sequential:
    """(n, inputs) → (n, c, h, w) in [0, 1]: the mirror of `conv_encoder` with the same filters."""
    channels, height, width = dimensions("shape", shape, 3)
    filters = dimensions("filters", filters)
    heights, widths = _sides(height, len(filters)), _sides(width, len(filters))
    counts = [channels, *filters]
    start = (filters[-1], heights[-1], widths[-1])
    layers: list[nn.Module] = [
        nn.Linear(dimension("inputs", inputs), start[0] * start[1] * start[2]),
        nn.Unflatten(1, start),
        nn.ReLU(),
    ]
    for i in reversed(range(len(filters))):
        odd = (heights[i] - 2 * heights[i + 1], widths[i] - 2 * widths[i + 1])
        last = i == 0
        layers.append(
            nn.ConvTranspose2d(counts[i + 1], counts[i], 4, 2, 1, output_padding=odd, bias=last)
        )
        layers += [nn.Sigmoid()] if last else [BatchNorm(counts[i]), nn.ReLU()]
    return nn.Sequential(*layers)


def conv_critic(
    shape: Sequence[int],
    filters: Sequence[int],
    norm: Callable[[int], nn.Module] | None = None,
) -> nn.Sequential:
    """(n, c, h, w) → (n, features): the encoder's blocks without batch normalisation.

    A critic under a gradient penalty must see each sample by itself, and a clipped one would
    have its normalisation clipped too. `norm(filters)` makes one, for all layers but the first.
    """
    channels, height, width = dimensions("shape", shape, 3)
    filters = dimensions("filters", filters)
    _sides(min(height, width), len(filters))
    layers: list[nn.Module] = []
    for inputs, count in zip([channels, *filters], filters):
        middle = [norm(count)] if norm and layers else []
        layers += [nn.Conv2d(inputs, count, 4, 2, 1), *middle, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten())


class Details(nn.Module):
    """(n, c, h, w) → (n, 2c, h, w): images, and beside them `gain` times what a mean of 3×3 pixels
    leaves of each.

    The strides of a critic average over neighbours, and a critic that is bounded in slope spends
    little of it on what is faint: so it overlooks texture, and the decoder leaves it out.

    Args:
        gain: how much larger details are made, at least 0.

    Source: Chen, Li, Jin, Liu, Li, "SSD-GAN: measuring the realness in the spatial and spectral
    domains", 2021, which finds high frequencies to be lost in the strides of a critic.
    """

    def __init__(self, gain: float):
        super().__init__()
        self.gain = nonnegative("gain", gain)

    def forward(self, x: Tensor) -> Tensor:
        blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return torch.cat([x, self.gain * (x - blurred)], 1)


def conv_features(shape: Sequence[int], filters: Sequence[int]) -> int:
    """The number of elements in the last block of `conv_encoder` and `conv_critic`."""
    _, height, width = dimensions("shape", shape, 3)
    filters = dimensions("filters", filters)
    return filters[-1] * _sides(height, len(filters))[-1] * _sides(width, len(filters))[-1]
