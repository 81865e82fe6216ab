"""Masks: which part of a sample is known when the rest is completed.

A mask maps (n, generator) to n masks, 1 where a sample is known and 0 where it is not, that
broadcast against the samples: one channel for images, one number a column for vectors.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from monge._core.checks import cpu_generator, dimension, dimensions, instance
from monge._core.errors import silence
from monge._core.files import DAMAGED
from monge._core.formats import FORMATS
from monge._core.shown import Shown

HALVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "top": lambda row, column: row < 0.5,
    "bottom": lambda row, column: row >= 0.5,
    "left": lambda row, column: column < 0.5,
    "right": lambda row, column: column >= 0.5,
    "surround": lambda row, column: torch.maximum((row - 0.5).abs(), (column - 0.5).abs()) >= 0.25,
}
"""By the middles of pixels, from 0 to 1; of `surround` the centre box is unknown."""


class Mask(Shown, nn.Module):
    """A mask with one known part, (1, h, w) or (d,), for every sample.

    Raises:
        ValueError: for values other than 0 and 1, or a part that is everything or nothing.
    """

    known: Tensor

    def __init__(self, known: Tensor):
        super().__init__()
        instance("known", known, Tensor, "torch.tensor([1.0, 0.0])")
        if known.ndim == 0:
            raise ValueError("`known` must have the shape (1, h, w) or (d,), got a single number")
        if not ((known == 0) | (known == 1)).all():
            raise ValueError("`known` must be 1 where a sample is known and 0 elsewhere")
        share = float(known.float().mean())
        if not 0 < share < 1:
            raise ValueError(
                f"`known` is {'everything' if share else 'nothing'}: leave a part of the sample "
                "to complete, and a part to complete it from"
            )
        self.register_buffer("known", known.float())

    def forward(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        cpu_generator(generator)
        return self.known.expand(n, *self.known.shape)


class RandomBox(Shown, nn.Module):
    """All of an image is known except a box with sides of a quarter to three quarters of its
    own."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.height, self.width = dimension("height", height), dimension("width", width)
        if min(self.height, self.width) < 2:
            raise ValueError(
                f"`height` and `width` must be at least 2, got {height} and {width}: a box in a "
                "single row or column would be all of it"
            )

    def forward(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        inside: list[Tensor] = []
        for side, share in zip(
            (self.height, self.width),
            torch.rand(
                2, 2, n, generator=cpu_generator(generator), dtype=torch.float32, device="cpu"
            ),
        ):
            length = (side * (0.25 + 0.5 * share[0])).round().clamp(1, side - 1)
            first = (share[1] * (side - length + 1)).floor()
            at = torch.arange(side)
            inside.append((at >= first[:, None]) & (at < (first + length)[:, None]))
        box = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return 1 - box.float()


def is_mask_name(known: str) -> bool:
    """Whether a text names a part of images, rather than a mask image."""
    return known == "random" or known in HALVES


def mask(known: str, shape: Sequence[int]) -> Mask | RandomBox:
    """The mask that a name stands for, for samples of a shape.

    Args:
        known: of images top, bottom, left, right, surround (all but a centre box), random (all
            but a box drawn anew for each sample) or the path of a mask image, white where known;
            of vectors the numbers of the known columns, as 0,2,3.
        shape: (c, h, w) or (d,).

    Raises:
        ValueError: for another name, a mask image of another size, or a part that is everything
            or nothing.
    """
    instance("known", known, str, "'top'")
    sides = dimensions("shape", shape)
    if len(sides) == 1:
        return _columns(known, sides[0])
    _, height, width = dimensions("shape", shape, 3)
    if known == "random":
        return RandomBox(height, width)
    if known in HALVES:
        row, column = ((torch.arange(side) + 0.5) / side for side in (height, width))
        return Mask(HALVES[known](row[:, None], column[None]).expand(height, width)[None])
    if not os.path.isfile(known):
        raise ValueError(
            f"`known` {known!r} is neither {', '.join(HALVES)}, random nor the file of a mask"
        )
    return Mask(_picture(Path(known), height, width)[None])


def _columns(known: str, dim: int) -> Mask:
    try:
        columns = [int(number) for number in known.split(",")]
    except ValueError:
        columns = [-1]
    if not all(0 <= column < dim for column in columns):
        raise ValueError(
            f"`known` {known!r} must name columns from 0 to {dim - 1} of vectors, as 0,1"
        )
    mask = torch.zeros(dim)
    mask[columns] = 1
    return Mask(mask)


def _picture(path: Path, height: int, width: int) -> Tensor:
    try:
        # Pillow warns of sizes that are refused below
        with silence, Image.open(path, formats=FORMATS) as picture:
            if picture.size != (width, height):
                raise ValueError(
                    f"it is {picture.size[0]} × {picture.size[1]} pixels and the samples are "
                    f"{width} × {height}"
                )
            grey = picture.convert("L").tobytes()
        known = torch.frombuffer(bytearray(grey), dtype=torch.uint8).view(height, width) > 127
        if known.all() or not known.any():
            raise ValueError(f"all of it is {'known' if known.all() else 'unknown'}")
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"`known` {str(path)!r} is not a mask: {reason}") from None
    return known
