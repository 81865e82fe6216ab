"""Pictures of samples: what a picture shows, by the kind of data.

Images and clouds are shown in grids, which Pillow makes pixel by pixel; vectors in scatter plots.
All pictures are Pillow images.
"""

import abc
import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from monge._core.references import resolve
from monge.config import Schema
from monge.data import Kind, as_floats
from monge.evaluation.nearest import nearest_samples
from monge.show.plots import BLUE, GREY, marginals, scatter
from monge.show.rendering import SIDE, VIEWS, render

WIDEST = 900
MOST_MARGINALS = 24
"""Columns of a table that the report draws."""
TURN, TURNING = 36, 4
"""Frames of a turntable, and the samples in a row of it."""
MOST_PIXELS = 2**26
"""Pixels of a picture, or of all frames of a film."""
MOST_POINTS, MOST_NUMBERS = 10**6, 2**26
"""Points of a scatter plot, and the numbers they are made of."""


def pictures_of(kind: Kind) -> "Pictures":
    """The pictures of a kind of data."""
    return resolve(kind.pictures, "pictures")(kind)


def spread_over(n: int, count: int) -> Tensor:
    """`count` indices (or n, if fewer) spread evenly over 0 … n - 1."""
    return torch.linspace(0, n - 1, min(count, n)).long()


def layout(count: int, columns: int, height: int, width: int) -> tuple[int, int, int]:
    """The height and width in pixels of a grid of tiles, and by how much it is enlarged."""
    gap = _gap(height)
    high, wide = -(-count // columns) * (height + gap) - gap, columns * (width + gap) - gap
    return high, wide, max(1, WIDEST // wide) if height < 64 else 1


def _gap(height: int) -> int:
    return 1 if height < 16 else 2


def grid(
    x: Tensor, columns: int, tiles: Callable[[Tensor], Tensor] = lambda images: images
) -> Image.Image:
    r"""Samples (n, \*), row by row; small ones are enlarged by whole pixels.

    The picture has an alpha channel, in which the gaps between samples are transparent; without it
    they are white. `tiles` makes images (b, c, h, w) in [0, 1] of b samples; a few hundred of them
    are held.
    """
    parts = map(tiles, x.split(500))
    first = next(parts)
    _, c, h, w = first.shape
    gap = _gap(h)
    high, wide, scale = layout(len(x), columns, h, w)
    canvas = np.full((high, wide, c + 1), 255, np.uint8)
    canvas[..., c] = 0
    places = itertools.product(range(0, high, h + gap), range(0, wide, w + gap))
    for images in itertools.chain([first], parts):
        pixels = (images.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        for image, (top, left) in zip(pixels, places):
            canvas[top : top + h, left : left + w, :c] = np.moveaxis(image, 0, -1)
            canvas[top : top + h, left : left + w, c] = 255
    picture = Image.fromarray(canvas)
    return picture.resize((wide * scale, high * scale), Image.Resampling.NEAREST)


class Pictures(abc.ABC):
    """Pictures of samples of one kind of data."""

    reconstructed: int = 32
    """How many held-out samples the report reconstructs."""

    def __init__(self, kind: Kind):
        self.kind = kind

    def check_size(
        self, shape: tuple[int, ...], count: int, columns: int = 8, frames: int = 1
    ) -> None:
        """Refuses what is too large to be drawn, before it is made.

        Args:
            shape: of one sample.
            count: samples of a picture.
            columns: samples in a row.
            frames: pictures of a film.

        Raises:
            ValueError: with the size that it would have.
        """
        most = min(MOST_POINTS, MOST_NUMBERS // math.prod(shape))
        if count > most:
            raise ValueError(
                f"`out` would be a plot of {count:,} points, and at most {most:,} of "
                f"{math.prod(shape):,} numbers are drawn: ask for fewer, or give .npy"
            )

    @abc.abstractmethod
    def samples(self, drawn: Tensor, test: Tensor | None = None, columns: int = 8) -> Image.Image:
        r"""Samples (n, \*), `columns` in a row; vectors in one plot, over the held-out samples if
        they are given."""

    @abc.abstractmethod
    def reconstructions(self, x: Tensor, y: Tensor) -> Image.Image:
        r"""Samples x (n, \*) and their reconstructions y."""

    @abc.abstractmethod
    def interpolations(self, frames: Tensor, count: int) -> Image.Image:
        r"""Paths of `count` frames each, in rows (n · count, \*)."""

    def neighbours(self, drawn: Tensor, train: Tensor) -> Image.Image | None:
        """Drawn samples and the nearest training samples, if they can be compared by eye."""
        return None

    def marginals(self, drawn: Tensor, test: Tensor, schema: Schema) -> Image.Image | None:
        """The columns of samples and of held-out samples, if they are rows of a table."""
        return None

    def views(self, drawn: Tensor) -> Image.Image | None:
        """Samples from several sides, if they have sides."""
        return None

    def turntable(self, drawn: Tensor) -> list[Image.Image]:
        """The frames of a film in which samples turn.

        Raises:
            ValueError: for samples that do not turn.
        """
        raise ValueError("`out` .gif shows clouds that turn: give .png for other samples")

    def film(self, frames: Tensor, count: int) -> list[Image.Image]:
        """The frames of a film of paths of `count` frames each.

        Raises:
            ValueError: for samples that are not shown one by one.
        """
        raise ValueError("`out` .gif plays images or clouds: give .png for vectors")


class GridPictures(Pictures):
    """Pictures of samples that are shown one by one, as tiles of a grid."""

    @abc.abstractmethod
    def tiles(self, x: Tensor) -> Tensor:
        r"""Samples (n, \*) as images (n, c, h, w) in [0, 1]."""

    def tile(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width in pixels of one of the tiles."""
        h, w = self.tiles(torch.zeros(1, *shape)).shape[2:]
        return h, w

    def check_size(
        self, shape: tuple[int, ...], count: int, columns: int = 8, frames: int = 1
    ) -> None:
        high, wide, scale = layout(count, columns, *self.tile(shape))
        high, wide = high * scale, wide * scale
        if high * wide * frames > MOST_PIXELS:
            what = "a picture" if frames == 1 else f"{frames:,} pictures"
            raise ValueError(
                f"`out` would be {what} of {wide:,} × {high:,} pixels, and at most "
                f"{MOST_PIXELS:,} pixels are drawn: ask for fewer samples, or give .npy"
            )

    def grid(self, x: Tensor, columns: int = 8) -> Image.Image:
        r"""Samples (n, \*), row by row."""
        return grid(x, columns, self.tiles)

    def samples(self, drawn: Tensor, test: Tensor | None = None, columns: int = 8) -> Image.Image:
        return self.grid(drawn, columns)

    def reconstructions(self, x: Tensor, y: Tensor) -> Image.Image:
        """Each sample with its reconstruction on its right."""
        return self.grid(torch.stack([x, y], 1).flatten(0, 1))

    def interpolations(self, frames: Tensor, count: int) -> Image.Image:
        """A row for each path."""
        return self.grid(frames, count)

    def completions(self, x: Tensor, known: Tensor, completed: Tensor) -> Image.Image:
        r"""A row for each sample of x (n, \*): the known part on grey, the completions
        (n, k, \*), the whole."""
        shown = known * x + (1 - known) * 0.5
        rows = torch.cat([shown[:, None], completed, x[:, None]], 1)
        return self.grid(rows.flatten(0, 1), rows.shape[1])

    def neighbours(self, drawn: Tensor, train: Tensor) -> Image.Image | None:
        """Drawn samples above the training samples nearest to them."""
        index = nearest_samples(drawn, train, self.kind)[1][:, 0]
        return self.grid(torch.cat([drawn, as_floats(train[index])]), len(drawn))

    def film(self, frames: Tensor, count: int) -> list[Image.Image]:
        """All paths side by side, there and back."""
        paths = frames.unflatten(0, (-1, count))
        columns = math.ceil(math.sqrt(len(paths)))
        there = [self.grid(paths[:, i], columns) for i in range(count)]
        return there + there[-2:0:-1]


class ImagePictures(GridPictures):
    """Pictures of images (n, c, h, w) in [0, 1]."""

    def tiles(self, x: Tensor) -> Tensor:
        return x


class CloudPictures(GridPictures):
    """Pictures of point clouds (n, N, 3) in the unit sphere."""

    def tiles(self, x: Tensor) -> Tensor:
        return render(x)

    def tile(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return SIDE, SIDE

    def views(self, drawn: Tensor) -> Image.Image | None:
        """Clouds from three sides each, two clouds in a row."""
        return grid(drawn, 2, lambda clouds: render(clouds, VIEWS))

    def turntable(self, drawn: Tensor) -> list[Image.Image]:
        """The frames of a turn about the upright axis."""
        turns = [2 * math.pi * i / TURN for i in range(TURN)]
        return [grid(drawn, TURNING, partial(render, views=(turn,))) for turn in turns]


class VectorPictures(Pictures):
    """Pictures of vectors (n, d), in the plane of their first two principal directions."""

    reconstructed = 1000

    def samples(self, drawn: Tensor, test: Tensor | None = None, columns: int = 8) -> Image.Image:
        groups = [("samples", drawn.flatten(1), BLUE)]
        if test is not None:
            groups.insert(0, ("test", as_floats(test[: len(drawn)]).flatten(1), GREY))
        return scatter(groups, "samples")

    def marginals(self, drawn: Tensor, test: Tensor, schema: Schema) -> Image.Image | None:
        """The distributions of the first columns, in the units of the table."""
        first = dataclasses.replace(schema, columns=schema.columns[:MOST_MARGINALS])
        real, samples = (first.decode(x.flatten(1)[:, : first.width]) for x in (test, drawn))
        return marginals(real, samples)

    def reconstructions(self, x: Tensor, y: Tensor) -> Image.Image:
        groups = [("test", x.flatten(1), GREY), ("reconstruction", y.flatten(1), BLUE)]
        return scatter(groups, "reconstructions")

    def interpolations(self, frames: Tensor, count: int) -> Image.Image:
        """All frames in one plane."""
        return scatter([("interpolation", frames.flatten(1), BLUE)], "interpolations")
