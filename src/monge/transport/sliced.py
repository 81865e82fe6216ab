r"""Sliced Wasserstein distances: the line's closed form, averaged over directions.

    SW_p^p(μ, ν) = ∫_{S^{d-1}} W_p^p(θ_# μ, θ_# ν) dθ,    θ_# the projection x ↦ θ·x,

estimated by a mean over drawn directions θ_1 … θ_L. Directions are worked off in chunks, and the
gradient in the points is accumulated with the value, so that memory does not grow with L.

Source: Bonneel, Rabin, Peyré, Pfister, "Sliced and Radon Wasserstein barycenters of measures",
2015; Kolouri et al., "Generalized sliced Wasserstein distances", 2019; Nguyen, Bariletto, Ho,
"Quasi-Monte Carlo for 3D sliced Wasserstein", 2024.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import dimension, given_weights, points, power
from monge._core.numerics import Gradients, on_host, rooted, unit_of_power, with_gradient
from monge._core.promotion import WEIGHTS, promoted
from monge._core.tuning import threads, tuning
from monge._core.typed import checkpointed, split
from monge.transport.directions import ready_directions
from monge.transport.line import plain_power, power_1d, power_with_slopes
from monge.transport.slicers import Slicer


def sliced_power(
    x: Tensor,
    y: Tensor,
    theta: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
) -> Tensor:
    """SW_p^p over the directions theta (L, d), unchecked: the mean of W_p^p of the projections.

    The gradient of a chunk of directions is carried back to the points before the next chunk
    begins, so nothing of size n × L is kept.
    """
    theta = theta.to(x.dtype)
    if any(w is not None and w.requires_grad for w in (a, b)):
        return _plain_power(x, y, theta, a, b, p)

    def fast(x: Tensor, y: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        value, gradients = _power_with_gradients(x, y, theta, a, b, p, wanted)
        if not is_projection_resolved(value, p, x, y):
            x, y, directions = x.double(), y.double(), theta.double()
            value, gradients = _power_with_gradients(x, y, directions, a, b, p, wanted)
        return value.to(theta.dtype), gradients

    def plain(x: Tensor, y: Tensor) -> Tensor:
        return _plain_power(x, y, theta, a, b, p)

    return with_gradient(fast, plain, x, y)


def _sliced_distance(
    x: Tensor, y: Tensor, theta: Tensor, a: Tensor | None, b: Tensor | None, p: float
) -> Tensor:
    """SW_p, unchecked: the root of `sliced_power`, with which it shares one node of the graph."""

    def power(x: Tensor, y: Tensor, q: float) -> Tensor:
        return _plain_power(x, y, theta, a, b, q)

    def plain(x: Tensor, y: Tensor) -> Tensor:
        return rooted(power, x, y, p)

    if any(w is not None and w.requires_grad for w in (a, b)):
        return plain(x, y)

    def fast(x: Tensor, y: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        value, gradients = _power_with_gradients(x, y, theta, a, b, p, wanted)
        (size, *most), dtype, unit = _sizes(value, x, y), x.dtype, 1.0
        info = torch.finfo(dtype)
        in_range = info.tiny / info.eps < size <= info.max
        if not (in_range and _resolves(size, most, p, dtype)):
            x, y, dtype = x.double(), y.double(), torch.float64
            unit = float(unit_of_power(power, x, y, p))
            x, y, directions = x / unit, y / unit, theta.double()
            value, gradients = _power_with_gradients(x, y, directions, a, b, p, wanted)
            (size,) = on_host(value)
        distance = size ** (1 / p)
        slope = distance / (p * size) if size > 0 else 0.0
        scaled = [None if z is None else z.mul_(slope) for z in gradients]
        return torch.full((), unit * distance, dtype=dtype, device=x.device), scaled

    return with_gradient(fast, plain, x, y)


def _power_with_gradients(
    x: Tensor,
    y: Tensor,
    theta: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    p: float,
    wanted: Sequence[bool],
) -> tuple[Tensor, Gradients]:
    """SW_p^p, float64, and its gradients in the points that are `wanted`; without graph."""
    total: Tensor | None = None
    sums: list[Tensor | None] = [None, None]
    rows = _rows(x, y)
    for chunk in [theta] if len(theta) <= rows else split(theta, rows):
        powers, slopes = power_with_slopes(chunk @ x.T, chunk @ y.T, a, b, p, wanted)
        total = powers.sum() if total is None else total.add_(powers.sum())
        # (d, n): the other order would read slopes (L, n) against the grain
        sums = [_added(of_points, chunk.T, slope) for of_points, slope in zip(sums, slopes)]
    assert total is not None
    count = len(theta)
    return total / count, [None if z is None else z.T.div_(count) for z in sums]


def _added(total: Tensor | None, left: Tensor, right: Tensor | None) -> Tensor | None:
    """total + left · right, into `total`; None where there is no `right`."""
    if right is None:
        return None
    return left @ right if total is None else total.addmm_(left, right)


def _plain_power(
    x: Tensor, y: Tensor, theta: Tensor, a: Tensor | None, b: Tensor | None, p: float
) -> Tensor:
    """SW_p^p with a graph, whose projections are computed again in the backward pass."""

    def total(x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None, chunk: Tensor) -> Tensor:
        return plain_power(chunk @ x.T, chunk @ y.T, a, b, p).sum()

    theta = theta.to(x.dtype)
    chunks = split(theta, _rows(x, y))
    totals = [checkpointed(total, x, y, a, b, chunk) for chunk in chunks]
    return torch.stack(totals).sum() / len(theta)


LOST = 1e-4
"""The rounding of projections that is allowed, in units of how far they are moved."""


def is_projection_resolved(power: Tensor, p: float, *values: Tensor) -> bool:
    """Whether values or their projections, of the size that they have, show a W_p^p this small;
    otherwise they are projected in float64."""
    if values[0].dtype == torch.float64:
        return True
    size, *most = _sizes(power.detach(), *values)
    return _resolves(size, most, p, values[0].dtype)


def _sizes(power: Tensor, *values: Tensor) -> list[float]:
    """W_p^p, and the largest value of each tensor where it says whether W_p^p is resolved."""
    if values[0].dtype == torch.float64:
        return on_host(power)
    return on_host(power, *(z.detach().abs().amax() for z in values))


def _resolves(size: float, most: Sequence[float], p: float, dtype: torch.dtype) -> bool:
    """Whether values of a dtype, of at most these sizes, show a W_p^p of this size."""
    rounding = torch.finfo(dtype).eps * max(most, default=0.0)
    return rounding <= LOST * size ** (1 / p) < math.inf


def _rows(x: Tensor, y: Tensor) -> int:
    """Directions in a chunk, at least one per thread."""
    return max(threads(), 2 * tuning(x.device).slice_values // (len(x) + len(y)))


class Estimate(NamedTuple):
    """A Monte-Carlo estimate and its standard error."""

    value: Tensor
    error: Tensor


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
    directions: int | Tensor = 128,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The sliced distance SW_p, with the root.

    Args:
        x: points (n, d).
        y: points (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        p: order, at least 1.
        directions: the number to draw, or a tensor (L, d) of unit directions, used as they are.
        generator: draws the directions, on the CPU; torch's global one by default.

    Raises:
        ValueError: for an empty sample, NaN or infinity, different dimensions, p < 1, or
            invalid weights.
    """
    x, y, theta = _ready(x, y, p, directions, generator)
    a, b = given_weights("a", a, len(x)), given_weights("b", b, len(y))
    return _sliced_distance(x, y, theta, a, b, p)


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
@torch.no_grad()
def sliced_wasserstein_estimate(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
    directions: int | Tensor = 128,
    draw: Callable[..., Tensor] | None = None,
    replicates: int = 16,
    generator: torch.Generator | None = None,
) -> Estimate:
    """SW_p with the standard error of its Monte-Carlo mean.

    The error is that of the mean of W_p^p over independent slices, carried through the root:
    σ / (√L p SW_p^{p-1}). Orthogonal and Sobol directions depend on each other, which makes SW_p
    more precise and this formula wrong. With `draw` they are drawn in independent replicates, and
    the error is that of the mean of the replicates.

    Args:
        x: points (n, d).
        y: points (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        p: order, at least 1.
        directions: the number to draw, or a tensor (L, d) of unit directions, whose rows are
            assumed independent.
        draw: `orthogonal_directions`, `sobol_directions` or another function
            `draw(count, dim, generator=generator)`; independent uniform directions by default.
        replicates: the number of calls of `draw`, each time for an equal share of the
            directions. With few replicates the error is rough: a 95 % interval from 16 is ±2.13
            errors, by Student's t with 15 degrees of freedom.
        generator: draws the directions, on the CPU; torch's global one by default.

    Returns:
        (value, error), without gradient.

    Raises:
        ValueError: as `sliced_wasserstein`; for fewer than 2 directions or replicates, and for
            directions that replicates do not divide.
    """
    x, y = points(x, y, p)
    if draw is not None:
        directions = _replicated(x.shape[1], directions, draw, replicates, generator)
    x, y, theta = _ready(x, y, p, directions, generator)
    if len(theta) < 2:
        raise ValueError(f"`directions` must be at least 2 for a standard error, got {len(theta)}")
    a, b = given_weights("a", a, len(x)), given_weights("b", b, len(y))
    chunks = split(theta, _rows(x, y))
    slices = torch.cat([_slice_distances(chunk @ x.T, chunk @ y.T, a, b, p) for chunk in chunks])
    largest = slices.max()
    if largest == 0:
        return Estimate(largest, torch.zeros_like(largest))
    # powers in units of the largest: they neither overflow nor all vanish
    powers = (slices / largest) ** p
    if draw is not None:
        powers = powers.view(replicates, -1).mean(1)
    value = largest * powers.mean() ** (1 / p)
    return Estimate(value, value * powers.std() / (p * len(powers) ** 0.5 * powers.mean()))


def _replicated(
    dim: int,
    directions: int | Tensor,
    draw: Callable[..., Tensor],
    replicates: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Directions in independent blocks, one after the other."""
    if isinstance(directions, Tensor):
        raise ValueError("`draw` draws directions: pass their number as `directions`")
    if dimension("replicates", replicates) < 2:
        raise ValueError("`replicates` must be at least 2 for a standard error, got 1")
    if dimension("directions", directions) % replicates:
        raise ValueError(
            f"`directions` must be a multiple of `replicates`, {replicates}, got {directions}"
        )
    count = directions // replicates
    return torch.cat([draw(count, dim, generator=generator) for _ in range(replicates)])


def _slice_distances(u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None, p: float) -> Tensor:
    """W_p of the rows u (l, n) and v (l, m), with the root, at every magnitude."""
    return rooted(lambda u, v, q: power_1d(u, v, a, b, p=q), u, v, p)


def _ready(
    x: Tensor, y: Tensor, p: float, directions: int | Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    x, y = points(x, y, p)
    return x, y, ready_directions(directions, x, generator)


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def generalized_sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    slicer: Slicer,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
) -> Tensor:
    """GSW_p = (mean_l W_p^p(g(x, θ_l), g(y, θ_l)))^{1/p} for the slicer's present slices, with the
    root. With `Linear` this is SW_p. Differentiable in the points, the weights and the slices.

    Args:
        x: points (n, d).
        y: points (m, d).
        slicer: maps points to their slices.
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        p: order, at least 1.

    Raises:
        ValueError: as `sliced_wasserstein`, and for points that the slicer does not take.
    """
    x, y = points(x, y, p)
    a, b = given_weights("a", a, len(x)), given_weights("b", b, len(y))

    def distance(u: Tensor, v: Tensor) -> Tensor:
        return rooted(lambda u, v, q: power_1d(u, v, a, b, p=q).mean(), u, v, p)

    if not callable(slicer):
        raise ValueError(f"`slicer` must be a slicer, e.g. Circular(dim), got {slicer!r}")
    return of_slices(distance, slicer, x, y, 1)


def of_slices(
    distance: Callable[[Tensor, Tensor], Tensor],
    slicer: Slicer,
    x: Tensor,
    y: Tensor,
    degree: float,
) -> Tensor:
    """A distance of slices (L, n) and (L, m), homogeneous of a degree in them.

    Where slices in the dtype of the samples would hide how small it is, they are float64.
    """
    u, v = slicer(x).T, slicer(y).T
    value = distance(u, v)
    if not is_projection_resolved(value.mean(), degree, u, v):
        value = distance(slicer(x.double()).T, slicer(y.double()).T)
    return value.to(x.dtype)


def slice_powers(x: Tensor, y: Tensor, slicer: Slicer, p: float) -> Tensor:
    """W_p^p on each of a slicer's slices, (L,), of unchecked samples."""

    def squares() -> Tensor:
        return slice_powers(x.detach().double(), y.detach().double(), slicer, 2)

    value = of_slices(lambda u, v: power_1d(u, v, p=p), slicer, x, y, p)
    return power(value, x, y, p, squares)
