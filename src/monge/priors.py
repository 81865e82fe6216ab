r"""Priors P_Z on the latent space.

One prior object draws the codes of training and of sampling and sets the kernel's scale through
`spread` = E‖z - z'‖² of two independent draws. `sample(n, generator)` draws row by row: n rows
at once are the same rows as n rows in several calls.
"""

import abc
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from monge._core import html
from monge._core.checks import cpu_generator, dimension, finite, nonnegative, positive, rows, share
from monge._core.checks import weights as checked
from monge._core.defaults import outside_autocast
from monge._core.devices import to_device
from monge._core.promotion import ANY, as_tensor, as_weights, promoted
from monge._core.shown import Shown
from monge.draws import generator, standard_normal

MOST_SKEW = 1e-3
"""The largest asymmetry of a correlation that counts as rounding."""


SMALLEST, LARGEST = 1e-37, 1e37
"""Deviations whose draws are normal numbers of float32."""


def _of_draws(name: str, value: float) -> float:
    """`value`, a length of draws in float32, if that holds them."""
    if not SMALLEST <= positive(name, value) <= LARGEST:
        raise ValueError(
            f"`{name}` must be from {SMALLEST} to {LARGEST}, as draws are float32, got {value!r}: "
            "rescale the codes"
        )
    return float(value)


class Prior(Shown, nn.Module, abc.ABC):
    """A distribution on R^dim."""

    _shows_defaults = False

    dim: int

    @abc.abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws, (n, dim), float32, from a CPU generator."""

    @property
    @abc.abstractmethod
    def spread(self) -> float:
        """E‖z - z'‖² for independent z, z'; twice the trace of the covariance."""

    def _repr_html_(self) -> str:
        drawing, rows = "", [("dim", self.dim), ("spread", self.spread)]
        if self.dim >= 2:
            drawn = self.sample(300, generator("a prior in a notebook"))[:, :2]
            drawing = html.dots(drawn.tolist(), "300 draws, their first two coordinates")
        return html.facts(repr(self), rows, drawing)


class Gaussian(Prior):
    """N(0, scale² I); spread 2 dim scale².

    Args:
        dim: of the codes.
        scale: the standard deviation of each coordinate.
    """

    def __init__(self, dim: int, scale: float = 1.0):
        super().__init__()
        self.dim, self.scale = dimension("dim", dim), _of_draws("scale", scale)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.scale * standard_normal((rows(n), self.dim), generator)

    @property
    def spread(self) -> float:
        return 2 * self.dim * self.scale * self.scale

    @promoted(z=ANY)
    def log_prob(self, z: Tensor) -> Tensor:
        """log density at z (n, dim), as (n,)."""
        _codes(z, self.dim)
        constant = self.dim * (math.log(self.scale) + 0.5 * math.log(2 * math.pi))
        return -0.5 * (z / self.scale).square().sum(-1) - constant


class Uniform(Prior):
    """The uniform distribution on the cube [-radius, radius]^dim; spread (2/3) dim radius².

    Args:
        dim: of the codes.
        radius: half the side of the cube.
    """

    def __init__(self, dim: int, radius: float = 1.0):
        super().__init__()
        self.dim, self.radius = dimension("dim", dim), _of_draws("radius", radius)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        uniform = torch.rand(
            rows(n),
            self.dim,
            generator=cpu_generator(generator),
            dtype=torch.float32,
            device="cpu",
        )
        return self.radius * (2 * uniform - 1)

    @property
    def spread(self) -> float:
        return 2 * self.dim * self.radius * self.radius / 3


class Sphere(Prior):
    """The uniform distribution on the unit sphere of R^dim; spread 2."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dimension("dim", dim)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return nn.functional.normalize(standard_normal((rows(n), self.dim), generator), dim=1)

    @property
    def spread(self) -> float:
        return 2.0


def _codes(z: Tensor, dim: int) -> None:
    if z.ndim != 2 or z.shape[1] != dim:
        raise ValueError(f"`z` must have shape (n, {dim}), got {tuple(z.shape)}")


Numbers = Tensor | np.ndarray | Sequence[Any]


class Mixture(Prior):
    """A mixture of Gaussians Σ_k w_k N(m_k, C_k); spread twice the trace of its covariance.

    Args:
        means: (k, dim).
        covariances: (k, dim, dim), symmetric positive definite.
        weights: (k,), at least 0 with sum 1.

    Each is a tensor, whose gradient is not taken, an array, or lists of numbers.

    Raises:
        ValueError: for other shapes, means or covariances that are not finite in float32, or
            covariances that are not symmetric positive definite.
    """

    means: Tensor
    factors: Tensor
    weights: Tensor

    def __init__(self, means: Numbers, covariances: Numbers, weights: Numbers):
        super().__init__()
        m, c = as_tensor("means", means).detach(), as_tensor("covariances", covariances).detach()
        w = as_weights("weights", weights).detach()
        if m.ndim != 2 or m.numel() == 0:
            raise ValueError(f"`means` must have shape (k, dim), got {tuple(m.shape)}")
        k, self.dim = m.shape
        if w.ndim != 1:
            raise ValueError(f"`weights` must have shape ({k},), got {tuple(w.shape)}")
        if c.shape != (k, self.dim, self.dim):
            raise ValueError(
                f"`covariances` must have shape {(k, self.dim, self.dim)} for means of shape "
                f"{(k, self.dim)}, got {tuple(c.shape)}"
            )
        finite("means", m.float())
        finite("covariances", c.float())
        if (most := float(m.abs().max())) > LARGEST:
            raise ValueError(
                f"`means` must be up to {LARGEST}, as draws are float32, got {most:.3g}: rescale "
                "the codes"
            )
        c = c.double()
        skew = (c - c.mT).abs()
        sizes = c.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        if (skew > MOST_SKEW * sizes[:, :, None] * sizes[:, None]).any():
            raise ValueError(
                f"`covariances` must be symmetric, but differ from their transposes by "
                f"{skew.max():.3g}: give (C + C.mT) / 2 if that is rounding"
            )
        factors, failed = torch.linalg.cholesky_ex((c + c.mT) / 2)
        if failed.any():
            raise ValueError("`covariances` must be symmetric positive definite: add to diagonals")
        if (factors.float().diagonal(dim1=1, dim2=2) == 0).any():
            raise ValueError("`covariances` have standard deviations below float32: rescale them")
        self.register_buffer("means", m.float())
        self.register_buffer("factors", factors.float().contiguous())
        self.register_buffer("weights", checked("weights", w.float(), k).float())

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        # one row of numbers a draw, the first of which chooses the component
        normal = to_device(standard_normal((rows(n), 1 + self.dim), generator), self.means.device)
        levels = torch.special.ndtr(normal[:, 0].double())
        k = torch.searchsorted(self.weights.double().cumsum(0), levels)
        k = k.clamp(max=len(self.weights) - 1)
        with outside_autocast():
            return self.means[k] + torch.einsum("nij,nj->ni", self.factors[k], normal[:, 1:])

    def _shown(self) -> list[str]:
        return [f"components={len(self.means)}", f"dim={self.dim}"]

    @property
    def spread(self) -> float:
        # squares of float32 are numbers of float64
        means, factors, weights = (z.double() for z in (self.means, self.factors, self.weights))
        between = (means - weights @ means).square().sum(1)
        return 2 * float(weights @ (factors.square().sum((1, 2)) + between))

    @promoted(z=ANY)
    def log_prob(self, z: Tensor) -> Tensor:
        """log density at z (n, dim), as (n,)."""
        _codes(z, self.dim)
        means, factors, weights = (w.double() for w in (self.means, self.factors, self.weights))
        away = (z.double()[:, None] - means).unsqueeze(-1)
        scaled = torch.linalg.solve_triangular(factors, away, upper=False).squeeze(-1)
        logdet = factors.diagonal(dim1=1, dim2=2).log().sum(1)
        logs = -0.5 * scaled.square().sum(-1) - logdet - 0.5 * self.dim * math.log(2 * math.pi)
        return torch.logsumexp(logs + weights.log(), 1).to(z.dtype)


class Ring(Prior):
    """The uniform distribution on the ring between the radii `inner` and 1 in the plane."""

    dim = 2

    def __init__(self, inner: float = 0.8):
        super().__init__()
        if share("inner", inner) == 1:
            raise ValueError(f"`inner` must be in [0, 1), got {inner}")
        self.inner = float(inner)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        uniform = torch.rand(
            rows(n), 2, generator=cpu_generator(generator), dtype=torch.float64, device="cpu"
        )
        # the share of the area within a radius grows with its square
        radius = (self.inner**2 + (1 - self.inner**2) * uniform[:, 0]).sqrt()
        angle = 2 * math.pi * uniform[:, 1]
        return torch.stack([radius * angle.cos(), radius * angle.sin()], 1).float()

    @property
    def spread(self) -> float:
        return 1 + self.inner**2


class Disk(Ring):
    """The uniform distribution on the unit disk; E r = 2/3, spread 1."""

    def __init__(self):
        super().__init__(0.0)


class SwissRoll(Prior):
    """A spiral (t cos t, t sin t)/4.5π in the plane, t uniform on [1.5π, 4.5π], with noise."""

    dim = 2

    def __init__(self, noise: float = 0.02):
        super().__init__()
        self.noise = nonnegative("noise", noise)
        if self.noise > LARGEST:
            raise ValueError(f"`noise` must be at most {LARGEST:g}, as draws are float32")

    @staticmethod
    def _curve(u: Tensor) -> Tensor:
        t = 1.5 * math.pi * (1 + 2 * u)
        return torch.stack([t * t.cos(), t * t.sin()], 1) / (4.5 * math.pi)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        normal = standard_normal((rows(n), 3), generator)
        curve = self._curve(torch.special.ndtr(normal[:, 0].double())).float()
        return curve + self.noise * normal[:, 1:]

    @property
    def spread(self) -> float:
        levels = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
        return 2 * float(self._curve(levels).var(0, correction=0).sum()) + 4 * self.noise**2
