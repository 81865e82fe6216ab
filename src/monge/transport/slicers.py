r"""Slicers: families of functions g(·, θ_l): R^d → R, l = 1 … L, that project samples to the line.

A slicer is a module x (n, d) ↦ (n, L). Its slices are drawn afresh by `resample_()`; after
steps that ascend in them, `project_()` puts them back where a slice must be, so that a worst
slice does not grow without bound.

Source: Kolouri, Nadjahi, Simsekli, Badeau, Rohde, "Generalized sliced Wasserstein distances",
2019.
"""

import abc
import itertools
import math

import torch
from torch import Tensor, nn

from monge._core.checks import cpu_generator, dimension, on_hyperboloid, positive
from monge._core.devices import to_device
from monge._core.errors import NotFinite
from monge._core.numerics import distances
from monge._core.shown import Shown
from monge._core.typed import spectral_norm, vector_norm

MOST_MONOMIALS = 100_000


class Slicer(Shown, nn.Module, abc.ABC):
    """A family of slices, with learnable parameters."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The slices of points (n, d), as (n, L)."""

    @abc.abstractmethod
    def resample_(self, generator: torch.Generator | None = None) -> None:
        """Draws every slice anew, from a CPU generator."""

    @abc.abstractmethod
    def project_(self) -> None:
        """Normalises the slices in place."""


@torch.no_grad()
def _normal_(parameter: Tensor, generator: torch.Generator | None) -> None:
    drawn = torch.randn(
        parameter.shape, generator=cpu_generator(generator), dtype=torch.float32, device="cpu"
    )
    parameter.copy_(to_device(drawn, parameter.device))


def _representable(slices: Tensor) -> Tensor:
    """Slices of finite points, if they are finite."""
    if not torch.isfinite(slices.detach()).all():
        raise NotFinite(
            f"`x` is too large for its slices, which overflow {slices.dtype}: divide all samples "
            "by a common scale"
        )
    return slices


def _of_dimension(x: Tensor, dim: int) -> Tensor:
    """x (n, dim), if it is."""
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"`x` must be points (n, {dim}) for this slicer, got {tuple(x.shape)}")
    return x


class _Normalised(Slicer):
    """Slices that are the rows of one parameter θ, each of norm 1.

    They are θ/‖θ‖ to the gradient too, which then is tangent to the sphere: an optimiser that
    scales each coordinate of the gradient, as Adam does, would otherwise not come to rest where
    the gradient is radial, but at other points.
    """

    def __init__(self, slices: int, size: int):
        super().__init__()
        self.theta = nn.Parameter(torch.empty(dimension("slices", slices), size))
        self.slices = slices
        self.resample_()

    def units(self, like: Tensor) -> Tensor:
        """θ/‖θ‖, (slices, size), in the dtype of `like`."""
        return nn.functional.normalize(self.theta.to(like.dtype), dim=1)

    def resample_(self, generator: torch.Generator | None = None) -> None:
        _normal_(self.theta, generator)
        self.project_()

    @torch.no_grad()
    def project_(self) -> None:
        norms = vector_norm(self.theta, dim=1)[:, None]
        self.theta.div_(norms.clamp_min(1e-30))


class Linear(_Normalised):
    """g(x, θ) = θ·x with ‖θ‖ = 1: the Radon transform, and plain slices.

    Args:
        dim: d, of the points.
        slices: L, how many.
    """

    def __init__(self, dim: int, slices: int = 128):
        super().__init__(slices, dimension("dim", dim))
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return _of_dimension(x, self.dim) @ self.units(x).T


class Circular(_Normalised):
    """g(x, θ) = ‖x - rθ‖ with ‖θ‖ = 1 and a fixed radius r: the circular Radon transform.

    Args:
        dim: d, of the points.
        slices: L, how many.
        radius: r > 0, in units of the points: the distance of the centres from the origin.
    """

    def __init__(self, dim: int, slices: int = 128, radius: float = 2.0):
        super().__init__(slices, dimension("dim", dim))
        self.dim, self.radius = dim, positive("radius", radius)

    def forward(self, x: Tensor) -> Tensor:
        return _representable(distances(_of_dimension(x, self.dim), self.radius * self.units(x)))


class Polynomial(_Normalised):
    """g(x, θ) = Σ_{|α| = degree} θ_α x^α with ‖θ‖ = 1: homogeneous of odd degree.

    Args:
        dim: d, of the points.
        degree: odd, without which the transform is not injective.
        slices: L, how many.

    Raises:
        ValueError: for an even degree, or more than 100,000 monomials.
    """

    factors: Tensor

    def __init__(self, dim: int, degree: int = 3, slices: int = 128):
        dimension("dim", dim)
        if dimension("degree", degree) % 2 == 0:
            raise ValueError(
                f"`degree` must be odd for the transform to be injective, got {degree}"
            )
        count = math.comb(dim + degree - 1, degree)
        if count > MOST_MONOMIALS:
            raise ValueError(
                f"`dim` {dim} and `degree` {degree} have {count:,} monomials, over "
                f"{MOST_MONOMIALS:,}: reduce the dimension first"
            )
        super().__init__(slices, count)
        self.dim, self.degree = dim, degree
        factors = torch.tensor(list(itertools.combinations_with_replacement(range(dim), degree)))
        self.register_buffer("factors", factors)

    def forward(self, x: Tensor) -> Tensor:
        return _representable(
            _of_dimension(x, self.dim)[:, self.factors].prod(-1) @ self.units(x).T
        )


class _Hyperbolic(_Normalised):
    """Slices in directions at the origin of the hyperboloid."""

    def __init__(self, dim: int, slices: int = 128):
        super().__init__(slices, dimension("dim", dim))
        self.dim = dim

    def products(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_0, (n, 1), s = θ·(x_1 … x_d) and x_0² - s² ≥ 1, (n, slices), float64."""
        x = on_hyperboloid("x", _of_dimension(x, self.dim + 1))
        along = x[:, 1:] @ self.units(x).T
        across = x[:, 1:].square().sum(1, keepdim=True) - along.square()
        return x[:, :1], along, 1 + across.clamp_min(0)


class Geodesic(_Hyperbolic):
    """g(x, θ) = artanh(θ·(x_1 … x_dim) / x_0) of points (n, dim + 1) of the hyperboloid: the place
    of the nearest point on the geodesic through the origin in direction θ.

    Points satisfy x_0² = 1 + ‖(x_1 … x_dim)‖². `generalized_sliced_wasserstein` with this slicer
    is the geodesic hyperbolic sliced distance.

    Source: Bonet, Chapel, Drumetz, Courty, "Hyperbolic sliced-Wasserstein via geodesic and
    horospherical projections", 2023.
    """

    def forward(self, x: Tensor) -> Tensor:
        _, along, across = self.products(x)
        # artanh(s/x_0) without a quotient near 1
        return torch.asinh(along / across.sqrt()).to(x.dtype)


class Horospherical(_Hyperbolic):
    """g(x, θ) = log(x_0 - θ·(x_1 … x_dim)) of points (n, dim + 1) of the hyperboloid: the Busemann
    function of direction θ, whose level sets are horospheres.

    Points satisfy x_0² = 1 + ‖(x_1 … x_dim)‖². `generalized_sliced_wasserstein` with this slicer
    is the horospherical hyperbolic sliced distance.

    Source: Bonet, Chapel, Drumetz, Courty, "Hyperbolic sliced-Wasserstein via geodesic and
    horospherical projections", 2023.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, along, across = self.products(x)
        # x_0 - s = (x_0² - s²) / (x_0 + s), without cancellation where s is near x_0
        ahead = across / (height + along.clamp_min(0))
        return torch.where(along > 0, ahead, height - along).log().to(x.dtype)


class Neural(Slicer):
    """g(x, θ_l) = w_l·φ(Ax + c): a shared hidden layer of spectral norm ≤ 1, unit vectors w_l.

    Each slice is 1-Lipschitz on its own, so that its distribution does not depend on `slices`.

    Args:
        dim: d, of the points.
        slices: L, how many.
        hidden: the size of the hidden layer.
    """

    def __init__(self, dim: int, slices: int = 128, hidden: int = 64):
        super().__init__()
        self.inner = nn.Linear(dimension("dim", dim), dimension("hidden", hidden))
        self.outer = nn.Linear(hidden, dimension("slices", slices), bias=False)
        self.dim, self.slices, self.hidden = dim, slices, hidden
        self.resample_()

    def forward(self, x: Tensor) -> Tensor:
        x = _of_dimension(x, self.dim)
        inner = nn.functional.linear(x, self.inner.weight.to(x.dtype), self.inner.bias.to(x.dtype))
        return nn.functional.leaky_relu(inner, 0.2) @ self.outer.weight.to(x.dtype).T

    def resample_(self, generator: torch.Generator | None = None) -> None:
        for parameter in self.parameters():
            _normal_(parameter.data, generator)
        self.project_()

    @torch.no_grad()
    def project_(self) -> None:
        self.inner.weight.div_(spectral_norm(self.inner.weight).clamp_min(1.0))
        norms = vector_norm(self.outer.weight, dim=1)[:, None]
        self.outer.weight.div_(norms.clamp_min(1e-30))
