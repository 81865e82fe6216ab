r"""Kinds of data: all that differs between images, vectors and point clouds.

A kind validates samples, names the networks and costs that suit them, and says how they are
measured, drawn and sent. Another kind is a subclass of `Kind`, in any module that can be imported:
it is handed to `Source`, or named `module:Class` in `data.kind`.
"""

import abc
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from monge._core.fields import demand
from monge.config import DataConfig, NetworkConfig
from monge.costs import L1, L2, Bernoulli, Cost, ElasticNet, Scaled, SquaredL2
from monge.data.resolution import in_float32
from monge.draws import Draws
from monge.networks import Networks

Moments = tuple[Tensor, Tensor]
"""Mean and standard deviation of the columns of a table."""
Augmentation = Callable[[Tensor, Draws], Tensor]


class Kind(abc.ABC):
    """The properties of samples of one kind. Kinds hold no data and are equal by their type."""

    name: str
    """The name of a sample in messages and in stored runs: `image`, …"""
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
    """The number of dimensions of a sample's shape; None for any number."""
    grid: bool = False
    """Whether samples are images (c, h, w), for convolutions, masks and classifiers of images."""
    shown: int = 64
    """The number of samples in a picture."""
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
        """The name of the kind in a stored run."""
        if type(self).__module__.startswith("monge."):
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

        Args:
            shape: of one sample.
            moments: of a table's columns, in whose deviations it is measured.
            scale: its factor.
            name: which cost: squared-l2 (or elementwise), l2, l1, elastic-net, bernoulli.
            directions: random directions of a sliced cost.

        Raises:
            ValueError: for the cost of another kind, or a scale that the cost does not have.
        """
        costs: dict[str, Callable[[], Cost]] = {
            "squared-l2": lambda: SquaredL2(scale),
            "elementwise": lambda: SquaredL2(scale),
            "l2": L2,
            "l1": L1,
            "elastic-net": lambda: ElasticNet(scale=scale),
            "bernoulli": Bernoulli,
        }
        name = name or "squared-l2"
        if name not in costs:
            raise ValueError(f"`cost` {name!r} is for point clouds, not for {self.name}s")
        if name == "bernoulli" and not self.bounded:
            raise ValueError(f"`cost` bernoulli is for values in [0, 1], not for {self.name}s")
        demand(
            scale == 1.0 or name in ("squared-l2", "elementwise", "elastic-net"),
            "scale",
            scale,
            f"left out for the cost {name}: set `weight` instead",
        )
        cost = costs[name]()
        return cost if moments is None else Scaled(cost, moments[1])

    def error(self) -> nn.Module:
        """The error of a reconstruction, c(x, y) → (n,)."""
        return SquaredL2()

    def augmentation(self, config: DataConfig) -> Augmentation | None:
        """The augmentation of every training batch, if there is one."""
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
        x = from_bytes(content, "<f4", shape, name)
        if not (torch.isfinite(x).all() and x.abs().max() <= 1e6):
            raise ValueError(f"`{name}` must be finite and at most 1e6 in size")
        return x


def from_bytes(content: bytes, dtype: str, shape: tuple[int, ...], name: str) -> Tensor:
    """One sample (1, *shape) from the bytes of its numbers in a dtype of NumPy.

    Raises:
        ValueError: for another length.
    """
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if len(content) != expected:
        raise ValueError(f"`{name}` has {len(content)} bytes: a sample of the run has {expected}")
    return torch.from_numpy(np.frombuffer(content, dtype).copy()).view(1, *shape)
