r"""Kinds of data: all that differs between images, vectors and point clouds, an object each.

A kind validates samples, names the networks and costs that suit them, and says how they are
measured, drawn and sent. Another kind is a subclass of `Kind`, in any module that can be imported:
it is handed to `Source`, or named `module:Class` in `data.kind`.
"""

import abc
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from monge._core.fields import demand
from monge._core.promotion import EXACT_INTEGERS
from monge._core.references import is_reference, resolve
from monge.config import DataConfig, NetworkConfig
from monge.costs import (
    L1,
    L2,
    Bernoulli,
    Chamfer,
    Cost,
    EarthMover,
    Scaled,
    SinkhornSets,
    SlicedSets,
    SquaredL2,
)
from monge.draws import Draws, seed_of
from monge.labels import as_floats
from monge.networks import CloudNetworks, ImageNetworks, Networks, VectorNetworks

Moments = tuple[Tensor, Tensor]
"""Mean and standard deviation of the columns of a table."""
Augmentation = Callable[[Tensor, Draws], Tensor]
LARGEST = float(np.finfo(np.float32).max)
DARK = 64
"""Images of bytes that stay below have at most a quarter of the range."""
COLUMN_RESOLUTION = 1e-5
"""A dtype resolves a column if its values are at most this many standard deviations apart."""


class Kind(abc.ABC):
    """What samples of one kind have in common. Kinds hold no data and are equal by their type."""

    name: str
    """What samples are called, in messages and in stored runs: `image`, …"""
    values: str
    """The range or unit of their values, e.g. `in [0, 1]`."""
    ordered: bool = True
    """Whether the elements of two samples correspond, so that elementwise costs make sense."""
    bounded: bool = False
    """Whether values lie in [0, 1], so that they can be probabilities."""
    repeats: bool = False
    """Whether equal samples are draws of their own, as the rows of a table are, of which some may
    be held out; otherwise they are copies of one."""
    dimensions: int | None = None
    """How many sizes the shape of a sample has; None for any number."""
    grid: bool = False
    """Whether samples are images (c, h, w), for convolutions, masks and classifiers of images."""
    shown: int = 64
    """How many samples a picture holds."""
    view: str = "vector"
    """How the explorer draws samples: as `image` (c, h, w), `cloud` (N, 3) or `vector` (d,)."""
    turns: bool = False
    """Whether samples lie in space, so that the explorer adds a view that rotates them."""
    measures: str = "monge.evaluation.vector_measures:VectorMeasures"
    """`module:Class` of the measures of `evaluate`."""
    pictures: str = "monge.show.pictures:VectorPictures"
    """`module:Class` of its pictures."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def unordered(self) -> bool:
        """Whether samples are sets, in no order."""
        return not self.ordered

    @property
    def reference(self) -> str:
        """How a stored run names the kind."""
        if type(self) in map(type, KINDS):
            return self.name
        return f"{type(self).__module__}:{type(self).__qualname__}"

    @abc.abstractmethod
    def accepts(self, samples: np.ndarray) -> bool:
        """Whether an array (n, …) looks like samples of this kind, by its shape."""

    @abc.abstractmethod
    def layout(self, samples: np.ndarray, name: str) -> np.ndarray:
        """An array of finite real numbers as samples (n, …) in the layout of the kind.

        Raises:
            ValueError: for another shape or range, naming the data.
        """

    def read(self, samples: np.ndarray, name: str, config: DataConfig) -> np.ndarray:
        """Samples as they are trained on, in float32.

        Raises:
            ValueError: also for values that float32 cannot hold.
        """
        return in_float32(self.layout(samples, name), name)

    @abc.abstractmethod
    def networks(
        self, shape: tuple[int, ...], sizes: NetworkConfig, moments: Moments | None
    ) -> Networks:
        """The builder of networks for samples of a shape."""

    @abc.abstractmethod
    def latent(self, shape: tuple[int, ...], generator: bool) -> int:
        """The dimension of the codes by default."""

    def spread(self, shape: tuple[int, ...]) -> float:
        """E‖x - x'‖² of two samples, roughly, where it has not been measured."""
        return 2.0 * math.prod(shape)

    def moments(self, train: Tensor) -> Moments | None:
        """Mean and deviation by which networks and costs standardise samples, if they do."""
        return None

    def cost(
        self,
        shape: tuple[int, ...],
        moments: Moments | None,
        *,
        scale: float = 1.0,
        name: str | None = None,
        directions: int = 64,
    ) -> nn.Module:
        """The cost of an auto-encoder, c(x, y) → (n,).

        Arguments:
            shape: of one sample.
            moments: of a table's columns, in whose deviations it is measured.
            scale: its factor.
            name: which cost: squared-l2 (or elementwise), l2, l1, bernoulli.
            directions: random directions of a sliced cost.

        Raises:
            ValueError: for the cost of another kind, or a scale that the cost does not have.
        """
        costs: dict[str, Callable[[], Cost]] = {
            "squared-l2": lambda: SquaredL2(scale),
            "elementwise": lambda: SquaredL2(scale),
            "l2": L2,
            "l1": L1,
            "bernoulli": Bernoulli,
        }
        name = name or "squared-l2"
        if name not in costs:
            raise ValueError(f"`cost` {name!r} is for point clouds, not for {self.name}s")
        if name == "bernoulli" and not self.bounded:
            raise ValueError(f"`cost` bernoulli is for values in [0, 1], not for {self.name}s")
        demand(
            scale == 1.0 or name in ("squared-l2", "elementwise"),
            "scale",
            scale,
            f"left out for the cost {name}: set `weight` instead",
        )
        cost = costs[name]()
        return cost if moments is None else Scaled(cost, moments[1])

    def error(self) -> nn.Module:
        """What a reconstruction is judged by, c(x, y) → (n,)."""
        return SquaredL2()

    def augmentation(self, config: DataConfig) -> Augmentation | None:
        """What training does to every batch before the model sees it, if anything."""
        for name in ("points", "turn", "jitter"):
            value = getattr(config, name)
            demand(not value, name, value, f"left out for {self.name}s: only clouds have points")
        return None

    def pack(self, x: Tensor) -> bytes:
        r"""Samples (n, \*) as the explorer's page reads them: little-endian float32."""
        return x.numpy().astype("<f4").tobytes()

    def unpack(self, content: bytes, shape: tuple[int, ...], name: str) -> Tensor:
        """One sample (1, *shape) from what `pack` makes of it.

        Raises:
            ValueError: for another length, or values that are not finite.
        """
        x = _from_bytes(content, "<f4", shape, name)
        if not (torch.isfinite(x).all() and x.abs().max() <= 1e6):
            raise ValueError(f"`{name}` must be finite and at most 1e6 in size")
        return x


def _from_bytes(content: bytes, dtype: str, shape: tuple[int, ...], name: str) -> Tensor:
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if len(content) != expected:
        raise ValueError(f"`{name}` has {len(content)} bytes: a sample of the run has {expected}")
    return torch.from_numpy(np.frombuffer(content, dtype).copy()).view(1, *shape)


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
        return as_floats(_from_bytes(content, "u1", shape, name))


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


def in_float32(samples: np.ndarray, name: str) -> np.ndarray:
    """An array in float32, if that holds its values."""
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(samples, dtype=np.float32)
    if not np.isfinite(single).all():
        raise ValueError(f"{name!r} holds values beyond float32, up to {abs(samples).max():.4g}")
    return single


def unresolved(table: np.ndarray, dtype: type[np.floating[Any]]) -> np.ndarray:
    """Which columns of a table (n, d) a dtype rounds by more than `COLUMN_RESOLUTION` of their
    standard deviation, (d,)."""
    step = max(1, 2**20 // len(table))  # of a few columns at a time: it makes several copies
    parts = [table[:, k : k + step] for k in range(0, table.shape[1], step)]
    return np.concatenate([_unresolved(part, dtype) for part in parts])


def _unresolved(table: np.ndarray, dtype: type[np.floating[Any]]) -> np.ndarray:
    wide = table.astype(np.float64)
    inexact = (wide.astype(dtype) != wide).any(0)
    if table.dtype.kind in "iu":  # differences modulo 2^64 are exact where float64 is not
        inexact |= (abs(wide) > EXACT_INTEGERS).any(0)
        whole = table.astype(np.uint64)
        offsets = (whole - table.min(0).astype(np.uint64)).astype(np.float64)
    else:
        offsets = wide - wide[0]
    magnitude = abs(wide).max(0)
    lost = np.spacing(magnitude.astype(dtype)) > COLUMN_RESOLUTION * np.std(offsets, 0)
    # float64 is the last resort, and all that it could lose of a constant column is a rounding
    return inexact & lost & (offsets.any(0) | (dtype is not np.float64))


def finite_points(points: np.ndarray) -> np.ndarray:
    """Coordinates in float64, of which squares are finite as well."""
    whole = points.dtype.kind in "iu"
    with np.errstate(invalid="ignore"):  # casting some NaNs warns
        points = points.astype(np.float64)
    if whole and points.size and abs(points).max() > EXACT_INTEGERS:
        raise ValueError("integers beyond 2^53, which float64 rounds: subtract an offset")
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points)).sum())
        raise ValueError(f"{bad} NaN or infinite coordinates")
    if points.size and abs(points).max() > LARGEST:
        raise ValueError(f"coordinates beyond float32, up to {abs(points).max():.4g}")
    return points


def in_unit_sphere(points: np.ndarray) -> np.ndarray:
    """Clouds (…, N, 3) centred on their means and divided by their largest norms, in float32.

    Raises:
        ValueError: for NaN, infinity, or a cloud whose points coincide.
    """
    points = finite_points(points)
    points = points - points.mean(-2, keepdims=True)
    size = np.linalg.norm(points, axis=-1).max(-1)
    if not (size > 0).all():
        raise ValueError("all points of a cloud coincide")
    return (points / size[..., None, None]).astype(np.float32)


def turned(x: Tensor, draws: Draws, *, turn: bool, jitter: float) -> Tensor:
    """Clouds (n, N, 3), each rotated about y by a random angle where `turn`, and with noise
    of deviation `jitter` on every point."""
    if turn:
        angle = 2 * math.pi * draws.rows("turn", lambda n, g: torch.rand(n, generator=g)).to(x)
        c, s, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        rows = [c, zero, s, zero, zero + 1, zero, -s, zero, c]
        x = x @ torch.stack(rows, 1).view(-1, 3, 3).mT
    return x + jitter * draws.normal("jitter", x) if jitter else x


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
