r"""A map composed of transports along lines, each of which is exact.

In each iteration points move along the axes θ_1 … θ_d of an orthonormal basis,

    x ← x + Σ_k θ_k (T_k(θ_k·x) - θ_k·x),

with T_k the monotone map between the projections of both samples. Their distribution approaches
that of the target (iterative distribution transfer). T_k is kept as quantiles of both sides:
between them new points are moved by interpolation, and back with the sides changed.

Source: Pitié, Kokaram, Dahyot, "Automated colour grading using colour distribution transfer",
2007; Rabin, Peyré, Delon, Bernot, "Wasserstein barycenter and its application to texture mixing",
2011.
"""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from monge._core.checks import dimension, seed
from monge._core.typed import distinct_rows
from monge.maps.estimator import TransportMap
from monge.transport.directions import orthogonal_directions

TIED = 1e-12
"""Projections that are closer than this, in units of their range, are one."""


class AxisMaps(NamedTuple):
    """Monotone maps along the axes of a basis: u[k, q] goes to v[k, q]."""

    basis: Tensor
    """Orthonormal axes as rows, (d, d)."""
    u: Tensor
    """Quantiles (d, q) before, in ascending order along each axis."""
    v: Tensor
    """Quantiles (d, q) after."""
    widths: Tensor
    """The mass (d, q) that each stands for."""

    def moved(self, x: Tensor) -> Tensor:
        """Points (k, d) after all axes."""
        along = x @ self.basis.T
        v = _means_of_ties(self.u, self.v, self.widths)
        return x + (_interpolated(along.T, self.u, v).T - along) @ self.basis

    def inverse(self) -> "AxisMaps":
        """The maps back."""
        return AxisMaps(self.basis, self.v, self.u, self.widths)


class SlicedMap(TransportMap):
    """A composition of exact transports along lines.

    The fit takes O(n (log n + d)) operations for each axis and iteration, also for millions of
    points, and a transform little more than a product of matrices. T is continuous and piecewise
    affine, and beyond the points of the fit it moves points as the outermost ones. It is no
    optimal map in more than one dimension, but one that reaches the target, and close to optimal
    for distributions that differ little.

    Args:
        iterations: how many bases are drawn, more for more dimensions. Each multiplies
            the rounding of the inverse by about six. In one dimension the first suffices.
        quantiles: most quantiles that are kept for each axis. If they are as many as there are
            points, of both samples together where weights or sizes differ, lines are exact.
        seed: draws the bases.

    Attributes:
        centre_: the mean of X, (d,), from which steps measure.
        steps_: the maps along the axes of each basis.
        displacements_: the root mean square displacement of each iteration.

    Example:
        >>> mapped = SlicedMap(iterations=50).fit(X, Y).transform(X_new)
    """

    centre_: Tensor
    steps_: list[AxisMaps]
    displacements_: list[float]

    def __init__(self, iterations: int = 20, quantiles: int = 1000, seed: int = 0):
        self.iterations = iterations
        self.quantiles = quantiles
        self.seed = seed

    def fit(self, X: Any, Y: Any, *, a: Any = None, b: Any = None) -> Self:
        """Moves one sample onto another, and keeps how.

        Args:
            X: points (n, d).
            Y: points (m, d).
            a: weights (n,), at least 0 with sum 1; uniform by default.
            b: weights (m,).

        Raises:
            ValueError: for samples of unlike columns, NaN or infinity, or invalid weights.
        """
        dimension("iterations", self.iterations)
        dimension("quantiles", self.quantiles)
        x, y, a, b, _, _ = self._samples(X, Y, a, b)
        (x, a), (y, b) = _combined(x, a), _combined(y, b)
        generator = torch.Generator().manual_seed(seed(self.seed))
        self.centre_ = a @ x
        x, y = x - self.centre_, y - self.centre_
        self.steps_, self.displacements_ = [], []
        for _ in range(self.iterations if x.shape[1] > 1 else 1):
            basis = _basis(x.shape[1], generator).to(x.device)
            u, v, widths = self._quantiles(basis @ x.T, basis @ y.T, a, b)
            step = AxisMaps(basis, u, v, widths)
            moved = step.moved(x)
            self.steps_.append(step)
            self.displacements_.append(float((a @ (moved - x).square()).sum().sqrt()))
            x = moved
        return self

    def _quantiles(
        self, x: Tensor, y: Tensor, a: Tensor, b: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Quantiles of the rows of x (d, n) and y (d, m) at common levels, and their widths."""
        (x, order_x), (y, order_y) = x.sort(dim=1), y.sort(dim=1)
        levels_x, levels_y = a[order_x].cumsum(1), b[order_y].cumsum(1)
        n, m = x.shape[1], y.shape[1]
        are_matching = n == m and bool((a == a[0]).all() and (b == b[0]).all())
        if not are_matching and n + m <= self.quantiles:
            ends = torch.cat([levels_x, levels_y], 1).sort(dim=1).values.clamp_(max=1)
            widths = ends.diff(dim=1, prepend=torch.zeros_like(ends[:, :1]))
        else:
            count = min(n, self.quantiles) if are_matching else self.quantiles
            widths = x.new_full((len(x), count), 1 / count)
            ends = (torch.arange(count, device=x.device) + 1).to(x).div(count).expand(len(x), -1)
        middles = ends - widths / 2
        u, v = (
            z.gather(1, torch.searchsorted(levels, middles).clamp_(max=z.shape[1] - 1))
            for z, levels in ((x, levels_x), (y, levels_y))
        )
        return u, v, widths

    def _forth(self, x: Tensor) -> Tensor:
        x = x - self.centre_
        for step in self.steps_:
            x = step.moved(x)
        return x + self.centre_

    def _back(self, y: Tensor) -> Tensor:
        y = y - self.centre_
        for step in reversed(self.steps_):
            y = step.inverse().moved(y)
        return y + self.centre_


def _basis(dim: int, generator: torch.Generator) -> Tensor:
    """A random orthonormal basis as rows, float64."""
    drawn = orthogonal_directions(dim, dim, generator=generator).double()
    q, r = torch.linalg.qr(drawn.T)  # float32 axes are orthonormal to seven digits only
    return (q * r.diagonal().sign()).T


def _combined(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct points with the sums of their weights, so that a map sees each as one."""
    distinct, of, _ = distinct_rows(points)
    return distinct, weights.new_zeros(len(distinct)).index_add_(0, of, weights)


def _means_of_ties(u: Tensor, v: Tensor, widths: Tensor) -> Tensor:
    """v (d, q), averaged over mass where successive u differ by no more than rounding."""
    run = (u.diff(dim=1) > TIED * (u[:, -1:] - u[:, :1])).long().cumsum(1)
    run = torch.nn.functional.pad(run, (1, 0))
    widths = widths.clamp(min=torch.finfo(v.dtype).tiny)  # a run may consist of rounding
    sums, masses = (torch.zeros_like(v).scatter_add_(1, run, z) for z in (widths * v, widths))
    return sums.gather(1, run) / masses.gather(1, run)


def _interpolated(x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """The piecewise linear functions through (u, v), both (d, q), at x (d, k).

    Beyond the first and the last knot a function goes on with slope 1.
    """
    inside = torch.minimum(torch.maximum(x, u[:, :1]), u[:, -1:])
    right = torch.searchsorted(u, inside.detach().contiguous(), right=True)
    low = (right - 1).clamp_(0, max(u.shape[1] - 2, 0))
    high = (low + 1).clamp_(max=u.shape[1] - 1)
    start, end, first, last = (z.gather(1, i) for z, i in zip((u, u, v, v), (low, high) * 2))
    width = end - start
    slope = torch.where(width > 0, (last - first) / width.where(width > 0, 1.0), 0.0)
    # beyond the knots x - inside is the distance to the last one, elsewhere exactly 0
    return first + slope * (inside - start) + (x - inside)
