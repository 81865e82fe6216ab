"""The kinds of monge itself, images, vectors and point clouds, and a kind by its name."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from monge._core.fields import demand
from monge._core.references import is_reference, resolve
from monge.config import DataConfig, NetworkConfig
from monge.costs import Chamfer, EarthMover, SinkhornSets, SlicedSets, SquaredL2
from monge.data.kind import Augmentation, Kind, Moments, from_bytes
from monge.data.points import in_unit_sphere, turned
from monge.data.resolution import in_float32, unresolved
from monge.draws import seed_of
from monge.labels import as_floats
from monge.networks import CloudNetworks, ImageNetworks, Networks, VectorNetworks

DARK = 64
"""Images of bytes that stay below have at most a quarter of the range."""


class Image(Kind):
    """Images (n, c, h, w): uint8, or floats in [0, 1]."""

    name = "image"
    dimensions = 3
    values = "in [0, 1]"
    bounded = True
    grid = True
    view = "image"
    measures = "monge.evaluation.image_measures:ImageMeasures"
    pictures = "monge.show.pictures:ImagePictures"

    def accepts(self, samples: np.ndarray) -> bool:
        return samples.ndim in (3, 4)

    def layout(self, samples: np.ndarray, name: str) -> np.ndarray:
        """(n, h, w), (n, c, h, w) and (n, h, w, c) with c = 1 or 3, as (n, c, h, w)."""
        if samples.ndim == 3 and samples.shape[-1] != 3:
            samples = samples[:, None]
        elif samples.ndim == 4 and samples.shape[-1] in (1, 3) and samples.shape[1] not in (1, 3):
            samples = np.moveaxis(samples, -1, 1)
        if samples.ndim != 4 or samples.shape[1] not in (1, 3):
            raise ValueError(
                f"{name!r} has shape {samples.shape}: give vectors (n, d) or images (n, h, w), "
                "(n, c, h, w) or (n, h, w, c) with c = 1 or 3"
            )
        if samples.dtype != np.uint8 and not 0 <= samples.min() <= samples.max() <= 1:
            raise ValueError(
                f"{name!r}: images that are not uint8 must lie in [0, 1], "
                f"got [{samples.min():.4g}, {samples.max():.4g}]"
            )
        return samples

    def read(self, samples: np.ndarray, name: str, config: DataConfig) -> np.ndarray:
        """Bytes stay bytes, which take a quarter of the memory."""
        if samples.dtype == np.uint8:
            warn_of_dark(samples, name)
            return np.ascontiguousarray(self.layout(samples, name))
        return super().read(samples, name, config)

    def networks(
        self, shape: tuple[int, ...], sizes: NetworkConfig, moments: Moments | None
    ) -> Networks:
        return ImageNetworks(shape, sizes)

    def latent(self, shape: tuple[int, ...], generator: bool) -> int:
        return 64 if generator or math.prod(shape) > 1024 else 8

    def spread(self, shape: tuple[int, ...]) -> float:
        return math.prod(shape) / 6  # of uniform pixels

    def pack(self, x: Tensor) -> bytes:
        r"""Images (n, c, h, w) as bytes from 0 to 255."""
        if x.dtype != torch.uint8:
            x = (x.clamp(0, 1) * 255).round().to(torch.uint8)
        return x.numpy().tobytes()

    def unpack(self, content: bytes, shape: tuple[int, ...], name: str) -> Tensor:
        return as_floats(from_bytes(content, "u1", shape, name))


class Vector(Kind):
    """Vectors (n, d), the rows of a table."""

    name = "vector"
    dimensions = 1
    values = "in the units of the table"
    repeats = True
    shown = 1000

    def accepts(self, samples: np.ndarray) -> bool:
        return samples.ndim in (1, 2)

    def layout(self, samples: np.ndarray, name: str) -> np.ndarray:
        """(n,) and (n, d), as (n, d)."""
        if samples.ndim > 2:
            raise ValueError(f"{name!r} has shape {samples.shape}: give vectors (n, d)")
        return samples.reshape(len(samples), -1)

    def read(self, samples: np.ndarray, name: str, config: DataConfig) -> np.ndarray:
        """In float32, or in float64 where float32 does not resolve a column, as with timestamps
        and map coordinates.

        Raises:
            ValueError: also for a column that float64 does not resolve.
        """
        samples = self.layout(samples, name)
        single = in_float32(samples, name)
        if samples.dtype == np.float32 or not unresolved(samples, np.float32).any():
            return single
        if (lost := unresolved(samples, np.float64)).any():
            raise ValueError(
                f"{name!r}: column {int(lost.argmax())} varies by less than float64 can resolve: "
                "subtract its first value"
            )
        return np.ascontiguousarray(samples, dtype=np.float64)

    def networks(
        self, shape: tuple[int, ...], sizes: NetworkConfig, moments: Moments | None
    ) -> Networks:
        return VectorNetworks(shape, sizes, moments or (torch.zeros(shape), torch.ones(shape)))

    def latent(self, shape: tuple[int, ...], generator: bool) -> int:
        return max(2, min(8, math.prod(shape) // 2))

    def moments(self, train: Tensor) -> Moments | None:
        """The standard deviation of a constant column is set to 1: it is shifted, not blown up."""
        deviation, mean = torch.std_mean(train, 0, correction=0)
        return mean, torch.where(deviation > 0, deviation, 1.0)


class Cloud(Kind):
    """Clouds of points (n, N, 3), centred and in the unit sphere."""

    name = "cloud"
    dimensions = 2
    values = "in the unit sphere"
    ordered = False
    shown = 16
    view = "cloud"
    turns = True
    measures = "monge.evaluation.cloud_measures:CloudMeasures"
    pictures = "monge.show.pictures:CloudPictures"

    def accepts(self, samples: np.ndarray) -> bool:
        return samples.ndim == 3 and samples.shape[2] == 3

    def layout(self, samples: np.ndarray, name: str) -> np.ndarray:
        if samples.ndim != 3 or samples.shape[2] != 3 or samples.dtype.kind not in "iuf":
            transposed = samples.ndim == 3 and samples.shape[1] == 3
            raise ValueError(
                f"{name!r} has points of shape {samples.shape}: give numbers (n, N, 3)"
                + (", transpose the last two axes" if transposed else "")
            )
        return samples

    def read(self, samples: np.ndarray, name: str, config: DataConfig) -> np.ndarray:
        """Centred and scaled, with the same random `config.points` points of every cloud."""
        samples = self.layout(samples, name)
        count = config.points or samples.shape[1]
        if count > samples.shape[1]:
            raise ValueError(
                f"`points` is {count}, but the clouds of {name!r} have {samples.shape[1]} points"
            )
        if count < samples.shape[1]:
            generator = np.random.default_rng(seed_of("points", samples.shape[1]))
            samples = samples[:, np.sort(generator.permutation(samples.shape[1])[:count])]
        made, step = np.empty(samples.shape, np.float32), max(1, 2**18 // samples[0].size)
        try:  # some at a time: it makes several copies in float64
            for start in range(0, len(samples), step):
                some = slice(start, start + step)
                made[some] = in_unit_sphere(samples[some])
            return made
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from None

    def networks(
        self, shape: tuple[int, ...], sizes: NetworkConfig, moments: Moments | None
    ) -> Networks:
        return CloudNetworks(shape, sizes)

    def latent(self, shape: tuple[int, ...], generator: bool) -> int:
        return 16

    def spread(self, shape: tuple[int, ...]) -> float:
        return math.prod(shape) / 6

    def cost(
        self,
        shape: tuple[int, ...],
        moments: Moments | None,
        *,
        scale: float = 1.0,
        name: str | None = None,
        directions: int = 64,
    ) -> nn.Module:
        """Squared errors between points that belong together; `elementwise` between those of one
        place in the array."""
        total = scale * shape[0]
        costs: dict[str, Callable[[], nn.Module]] = {
            "chamfer": lambda: Chamfer(total),
            "earth-mover": lambda: EarthMover(2, total),
            # a hundredth of the unit sphere's squared radius
            "sinkhorn": lambda: SinkhornSets(0.01, total),
            # of a set moved by v the sliced cost is |v|² / 3
            "sliced": lambda: SlicedSets(directions, scale=3 * total),
            "elementwise": lambda: SquaredL2(scale),
        }
        name = name or "chamfer"
        demand(name in costs, "cost", name, f"one of {', '.join(costs)} for {self.name}s")
        return costs[name]()

    def error(self) -> nn.Module:
        return Chamfer()

    def augmentation(self, config: DataConfig) -> Augmentation | None:
        if not (config.turn or config.jitter):
            return None
        return lambda x, draws: turned(x, draws, turn=config.turn, jitter=config.jitter)


def warn_of_dark(images: np.ndarray, name: str) -> None:
    """Warns of images of bytes in another range than 0 to 255, such as masks of 0 and 1."""
    if 0 < (most := int(images.max())) < DARK:
        warnings.warn(
            f"{name!r} has bytes from {images.min()} to {most}, which are read as if from 0 to "
            f"255: multiply them, or give {'booleans' if most == 1 else 'floats in [0, 1]'}",
            stacklevel=3,
        )


IMAGE, VECTOR, CLOUD = Image(), Vector(), Cloud()
KINDS: tuple[Kind, ...] = (CLOUD, IMAGE, VECTOR)
"""The kinds of monge itself, in the order in which an array is tried as each."""


def kind_named(name: "str | Kind") -> Kind:
    """The kind with a name, or of a class `module:Class`; a kind is itself.

    Raises:
        ValueError: for a name that stands for none.
    """
    if isinstance(name, Kind):
        return name
    for kind in KINDS:
        if kind.name == name:
            return kind
    if not isinstance(name, str) or not is_reference(name):
        known = ", ".join(kind.name for kind in KINDS)
        raise ValueError(f"`kind` must be one of {known}, or module:Class, got {name!r}")
    kind = resolve(name, "kind")
    if not (isinstance(kind, type) and issubclass(kind, Kind)):
        raise ValueError(f"`kind` {name!r} is not a subclass of monge.data.Kind")
    return kind()


def kind_of(samples: np.ndarray, name: str) -> Kind:
    """The kind that an array looks like.

    Raises:
        ValueError: if it looks like none.
    """
    for kind in KINDS:
        if kind.accepts(samples):
            return kind
    raise ValueError(
        f"{name!r} has shape {samples.shape}: give vectors (n, d), images (n, h, w), "
        "(n, c, h, w) or (n, h, w, c) with c = 1 or 3, or clouds (n, N, 3)"
    )
