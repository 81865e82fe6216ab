"""Pictures of samples: what a picture shows, by the kind of data.

Images and clouds are shown in grids, which Pillow makes pixel by pixel; vectors in scatter plots.
All pictures are Pillow images.
"""

import abc
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from monge._core.references import resolve
from monge.data import Kind, as_floats
from monge.evaluation.nearest import nearest_samples
from monge.show.plots import BLUE, GREY, scatter
from monge.show.rendering import VIEWS, render

WIDEST = 900


def pictures_of(kind: Kind) -> "Pictures":
    """The pictures of a kind of data."""
    return resolve(kind.pictures, "pictures")(kind)


def spread_over(n: int, count: int) -> Tensor:
    """`count` indices (or n, if fewer) spread evenly over 0 … n - 1."""
    return torch.linspace(0, n - 1, min(count, n)).long()


def grid(images: Tensor, columns: int) -> Image.Image:
    """Images (n, c, h, w) in [0, 1], row by row; small ones are enlarged by whole pixels."""
    n, c, h, w = images.shape
    gap = 1 if h < 16 else 2
    rows = -(-n // columns)
    canvas = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, c), 255, np.uint8)
    pixels = (images.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (h + gap), (i % columns) * (w + gap)
        canvas[top : top + h, left : left + w] = np.moveaxis(image, 0, -1)
    picture = Image.fromarray(canvas[..., 0] if c == 1 else canvas)
    scale = max(1, WIDEST // picture.width) if h < 64 else 1
    return picture.resize(
        (picture.width * scale, picture.height * scale), Image.Resampling.NEAREST
    )


class Pictures(abc.ABC):
    """Pictures of samples of one kind of data."""

    reconstructed: int = 32
    """How many held-out samples the report reconstructs."""

    def __init__(self, kind: Kind):
        self.kind = kind

    @abc.abstractmethod
    def samples(self, drawn: Tensor, test: Tensor | None = None) -> Image.Image:
        r"""Samples (n, \*); vectors over the held-out samples, if they are given."""

    @abc.abstractmethod
    def reconstructions(self, x: Tensor, y: Tensor) -> Image.Image:
        r"""Samples x (n, \*) and their reconstructions y."""

    @abc.abstractmethod
    def interpolations(self, frames: Tensor, count: int) -> Image.Image:
        r"""Paths of `count` frames each, in rows (n · count, \*)."""

    def neighbours(self, drawn: Tensor, train: Tensor) -> Image.Image | None:
        """Drawn samples and the nearest training samples, if they can be compared by eye."""
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

    def grid(self, x: Tensor, columns: int = 8) -> Image.Image:
        r"""Samples (n, \*), row by row."""
        return grid(self.tiles(x), columns)

    def samples(self, drawn: Tensor, test: Tensor | None = None) -> Image.Image:
        return self.grid(drawn)

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

    def views(self, drawn: Tensor) -> Image.Image | None:
        """Clouds from three sides each, two clouds in a row."""
        return grid(render(drawn, VIEWS), 2)

    def turntable(self, drawn: Tensor, columns: int = 4, frames: int = 36) -> list[Image.Image]:
        """The frames of a turn about the upright axis."""
        turns = [2 * math.pi * i / frames for i in range(frames)]
        return [grid(render(drawn, (turn,)), columns) for turn in turns]


class VectorPictures(Pictures):
    """Pictures of vectors (n, d), in the plane of their first two principal directions."""

    reconstructed = 1000

    def samples(self, drawn: Tensor, test: Tensor | None = None) -> Image.Image:
        groups = [("samples", drawn.flatten(1), BLUE)]
        if test is not None:
            groups.insert(0, ("test", as_floats(test[: len(drawn)]).flatten(1), GREY))
        return scatter(groups, "samples")

    def reconstructions(self, x: Tensor, y: Tensor) -> Image.Image:
        groups = [("test", x.flatten(1), GREY), ("reconstruction", y.flatten(1), BLUE)]
        return scatter(groups, "reconstructions")

    def interpolations(self, frames: Tensor, count: int) -> Image.Image:
        """All frames in one plane."""
        return scatter([("interpolation", frames.flatten(1), BLUE)], "interpolations")
