r"""Barycenters of samples: what is nearest to all of them on average.

    min_μ Σ_k λ_k W_2²(μ, ν_k)

over distributions on n points with given masses, whose positions are free. At a minimum each point
is the mean of its images, so that positions are found by iterating

    x_i ← Σ_k λ_k T_k(x_i),    T_k the barycentric projection of the plan from μ to ν_k.

The objective does not rise; it is not convex in the positions, and the start decides which
minimum is found. On the line the quantile function of the barycenter is Σ_k λ_k F_k^{-1}, exactly.

Source: Agueh, Carlier, "Barycenters in the Wasserstein space", 2011; Cuturi, Doucet, "Fast
computation of Wasserstein barycenters", 2014; Bonneel, Rabin, Peyré, Pfister, "Sliced and Radon
Wasserstein barycenters of measures", 2015; Luise et al., "Sinkhorn barycenters with free support",
2019.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monge._core.checks import dimension, distribution_weights, finite, listed, positive
from monge._core.errors import warn
from monge._core.promotion import as_tensor, as_weights, recordable
from monge._core.shown import described
from monge._core.typed import eigvalsh, linear_solve
from monge.transport.directions import ready_directions
from monge.transport.entropic import sinkhorn
from monge.transport.ground import log_weights
from monge.transport.projections import exact_projections, soft_images
from monge.transport.sliced import sliced_power

LEAST_SPAN = 1e-9
"""The least eigenvalue of the mean of θ θᵀ, whose sum is 1, that directions may have."""
Projections = Callable[[Tensor], Tensor]
"""Where the points (n, d) of a barycenter go in a step."""


@dataclass(frozen=True, repr=False)
class Barycenter:
    """Points with masses, and the convergence of the iteration that found them."""

    points: Tensor
    """(n, d), without gradient."""
    masses: Tensor
    """(n,)."""
    iterations: int
    displacement: float
    """The root mean square displacement of the last iteration."""
    converged: bool
    """Whether that is at most the tolerance, in units of the spread of the samples."""

    def __repr__(self) -> str:
        names = ("iterations", "displacement", "converged")
        fields = (f"{name}={described(getattr(self, name))}" for name in names)
        return f"Barycenter({len(self.points)} points, {', '.join(fields)})"


@dataclass(frozen=True)
class WeightedSets:
    """Checked samples, float64: points with positive masses, and a weight for each sample."""

    points: list[Tensor]
    masses: list[Tensor]
    weights: Tensor
    dtype: torch.dtype

    def start(self, start: Any, masses: Any) -> tuple[Tensor, Tensor]:
        """The points (n, d) and masses (n,) that a barycenter begins with."""
        first = as_tensor("start", start).detach().to(self.points[0])
        if first.ndim != 2 or first.shape[1:] != self.points[0].shape[1:] or len(first) == 0:
            raise ValueError(
                f"`start` must have shape (n, {self.points[0].shape[1]}), got "
                f"{tuple(first.shape)}: give as many points as the barycenter is to have"
            )
        finite("start", first)
        a = distribution_weights("masses", _given("masses", masses, first), first, len(first))
        if not bool((a > 0).all()):
            raise ValueError("`masses` of the barycenter must be positive: leave points out")
        return first, a.detach()

    @property
    def spread(self) -> float:
        """The root mean square distance of the samples to their means."""
        squares = [
            float(w * (b @ (y - b @ y).square().sum(1)))
            for w, y, b in zip(self.weights, self.points, self.masses)
        ]
        return sum(squares) ** 0.5


def _given(name: str, w: Any, like: Tensor) -> Tensor | None:
    return None if w is None else recordable(as_weights(name, w)).to(like.device)


def weighted_sets(samples: Sequence[Any], weights: Any, masses: Any) -> WeightedSets:
    """Samples as matrices (n_k, d) of one dimension, without points of mass 0."""
    samples = listed("samples", samples, "samples")
    masses = None if masses is None else listed("sample_masses", masses, "masses")
    if len(samples) == 0:
        raise ValueError("`samples` must hold at least one sample, got none")
    points = [as_tensor(f"samples[{k}]", sample) for k, sample in enumerate(samples)]
    dtype = functools.reduce(torch.promote_types, (y.dtype for y in points))
    for k, y in enumerate(points):
        wanted = f"(n, {points[0].shape[-1]})" if points[0].ndim == 2 else "(n, d)"
        if y.ndim != 2 or y.numel() == 0 or y.shape[1] != points[0].shape[1]:
            raise ValueError(f"`samples[{k}]` must have shape {wanted}, got {tuple(y.shape)}")
        if y.device != points[0].device:
            raise ValueError(f"`samples[{k}]` must be on {points[0].device}, got {y.device}")
        finite(f"samples[{k}]", y)
    points = [recordable(y.detach().double()) for y in points]
    if masses is not None and len(masses) != len(points):
        raise ValueError(
            f"`sample_masses` must hold masses for each of the {len(points)} samples, got "
            f"{len(masses)}"
        )
    of = [
        distribution_weights(
            f"sample_masses[{k}]",
            None if masses is None else _given(f"sample_masses[{k}]", masses[k], y),
            y,
            len(y),
        ).detach()
        for k, y in enumerate(points)
    ]
    lambdas = distribution_weights(
        "weights", _given("weights", weights, points[0]), points[0], len(points)
    ).detach()
    kept = [(y[b > 0], b[b > 0]) for y, b in zip(points, of)]
    return WeightedSets([y for y, _ in kept], [b for _, b in kept], lambdas, dtype)


def barycenter_1d(
    samples: Sequence[Any], weights: Any = None, *, sample_masses: Sequence[Any] | None = None
) -> tuple[Tensor, Tensor]:
    """The barycenter of samples on the line, exactly: a mean of their quantile functions.

    Args:
        samples: values, (n_k,) each.
        weights: λ (k,), at least 0 with sum 1; uniform by default.
        sample_masses: masses (n_k,) for each sample; uniform by default.

    Returns:
        Values (n,) in ascending order and their masses (n,), without gradient. There are as many
        as in a sample if these are equally many without masses, otherwise at most as many as in
        all of them.

    Raises:
        ValueError: for samples that are empty or no numbers, or invalid weights.
    """
    samples = listed("samples", samples, "samples")
    columns = [as_tensor(f"samples[{k}]", z) for k, z in enumerate(samples)]
    for k, z in enumerate(columns):
        if z.ndim != 1:
            raise ValueError(f"`samples[{k}]` must have shape (n,), got {tuple(z.shape)}")
    sets = weighted_sets([z[:, None] for z in columns], weights, sample_masses)
    ordered = [y[:, 0].sort() for y in sets.points]
    sizes = {len(y) for y in sets.points}
    if sample_masses is None and len(sizes) == 1:
        mean = sum(w * y.values for w, y in zip(sets.weights, ordered))
        assert isinstance(mean, Tensor)
        return mean.to(sets.dtype), sets.masses[0].to(sets.dtype)
    levels = [b[y.indices].cumsum(0) for b, y in zip(sets.masses, ordered)]
    ends = torch.cat(levels).clamp_(max=1).sort().values
    widths = ends.diff(prepend=ends.new_zeros(1))
    kept = widths > len(ends) * torch.finfo(widths.dtype).eps  # others are rounding
    ends, widths = ends[kept], widths[kept] / widths[kept].sum()
    values = torch.zeros_like(ends)
    for w, y, level in zip(sets.weights, ordered, levels):
        index = torch.searchsorted(level, ends - widths / 2).clamp_(max=len(level) - 1)
        values += w * y.values[index]
    return values.to(sets.dtype), widths.to(sets.dtype)


def free_support_barycenter(
    samples: Sequence[Any],
    weights: Any = None,
    *,
    start: Any,
    masses: Any = None,
    sample_masses: Sequence[Any] | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
) -> Barycenter:
    """The Wasserstein barycenter of samples, by exact plans.

    Args:
        samples: points (n_k, d) of each.
        weights: λ (k,), at least 0 with sum 1; uniform by default.
        start: initial points (n, d), whose number is that of the barycenter; e.g. one of the
            samples.
        masses: of the points of the barycenter, (n,); uniform by default.
        sample_masses: masses (n_k,) for each sample; uniform by default.
        tolerance: on the root mean square displacement of an iteration, in units of the spread of
            the samples.
        max_iterations: the iteration limit; reaching it warns.

    Raises:
        ValueError: for samples of different dimensions, NaN or infinity, or invalid weights.

    Example:
        >>> free_support_barycenter([x, y], [0.3, 0.7], start=x).points
    """
    sets = weighted_sets(samples, weights, sample_masses)
    x, a = sets.start(start, masses)

    def means(x: Tensor) -> Tensor:
        return _mean(sets, lambda y, b: exact_projections(x, y, a, b)[0])

    return _iterated(means, x, a, sets, tolerance, max_iterations)


def sinkhorn_barycenter(
    samples: Sequence[Any],
    weights: Any = None,
    *,
    epsilon: float,
    start: Any,
    masses: Any = None,
    sample_masses: Sequence[Any] | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> Barycenter:
    """The barycenter of samples for the Sinkhorn divergence with the cost ‖x - y‖².

    A step is x_i ← x_i + Σ_k λ_k T_k(x_i) - T_x(x_i), with the projections of the entropic plans
    from the barycenter to the samples and to itself. The latter removes the bias by which the
    former shrink it. For larger ε the barycenter loses details of the samples.

    Args:
        samples: points (n_k, d) of each.
        weights: λ (k,), at least 0 with sum 1; uniform by default.
        epsilon: regularisation, in units of the cost.
        start: initial points (n, d), different from each other.
        masses: of the points of the barycenter, (n,); uniform by default.
        sample_masses: masses (n_k,) for each sample; uniform by default.
        tolerance: on the root mean square displacement of an iteration, in units of the spread of
            the samples.
        max_iterations: the iteration limit; reaching it warns.

    Raises:
        ValueError: for samples of different dimensions, NaN or infinity, or invalid settings.
    """
    epsilon = positive("epsilon", epsilon)
    sets = weighted_sets(samples, weights, sample_masses)
    x, a = sets.start(start, masses)

    def projected(x: Tensor, y: Tensor, b: Tensor) -> Tensor:
        plan = sinkhorn(x, y, a, b, epsilon=epsilon, tolerance=min(1e-4, tolerance))
        heights = plan.potentials[1] + epsilon * log_weights(b)
        return soft_images(x, y, lambda rows: heights, epsilon)

    def moved(x: Tensor) -> Tensor:
        return x + _mean(sets, lambda y, b: projected(x, y, b)) - projected(x, x, a)

    return _iterated(moved, x, a, sets, tolerance, max_iterations)


@torch.inference_mode(False)  # a step takes derivatives
def sliced_barycenter(
    samples: Sequence[Any],
    weights: Any = None,
    *,
    start: Any,
    masses: Any = None,
    sample_masses: Sequence[Any] | None = None,
    directions: int | Tensor = 128,
    generator: torch.Generator | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
) -> Barycenter:
    """The barycenter of samples for the sliced distance SW_2 over fixed directions.

    A step is x_i ← x_i + H⁻¹ Σ_k λ_k mean_θ θ (T_θ,k(θ·x_i) - θ·x_i) with the monotone maps T_θ,k
    of the projections and H = mean_θ θ θᵀ. It costs n log n per direction.

    Args:
        samples: points (n_k, d) of each.
        weights: λ (k,), at least 0 with sum 1; uniform by default.
        start: initial points (n, d), different from each other.
        masses: of the points of the barycenter, (n,); uniform by default.
        sample_masses: masses (n_k,) for each sample; uniform by default.
        directions: the number of random directions, or a tensor (L, d) that spans the space.
        generator: a CPU generator for the directions.
        tolerance: on the root mean square displacement of an iteration, in units of the spread of
            the samples.
        max_iterations: the iteration limit; reaching it warns.

    Raises:
        ValueError: for samples of different dimensions, NaN or infinity, or invalid settings.
    """
    sets = weighted_sets(samples, weights, sample_masses)
    x, a = sets.start(start, masses)
    theta = recordable(ready_directions(directions, x, generator))
    spanned = theta.T @ theta / len(theta)
    if float(eigvalsh(spanned)[0]) < LEAST_SPAN:
        raise ValueError(f"`directions` must span {x.shape[1]} dimensions: draw more")

    def moved(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            powers = [
                w * sliced_power(leaf, y, theta, a, b)
                for w, y, b in zip(sets.weights, sets.points, sets.masses)
            ]
            (slope,) = torch.autograd.grad(torch.stack(powers).sum(), leaf)
        return x - linear_solve(spanned, (slope / (2 * a[:, None])).T).T

    return _iterated(moved, x, a, sets, tolerance, max_iterations)


def _mean(sets: WeightedSets, project: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Σ_k λ_k T_k(x) over the samples of positive weight."""
    images = [
        w * project(y, b) for w, y, b in zip(sets.weights, sets.points, sets.masses) if w > 0
    ]
    return torch.stack(images).sum(0)


@torch.no_grad()
def _iterated(
    step: Projections, x: Tensor, a: Tensor, sets: WeightedSets, tolerance: float, most: int
) -> Barycenter:
    """Repeats a step until it hardly moves the points."""
    tolerance = positive("tolerance", tolerance)
    dimension("max_iterations", most)
    scale = sets.spread or 1.0
    if not math.isfinite(scale):
        raise ValueError("`samples` have squared distances beyond float64: rescale them")
    iterations, moved = 0, float("inf")
    while moved > tolerance * scale and iterations < most:
        before, x = x, step(x)
        moved = float((a @ (x - before).square().sum(1)).sqrt())
        iterations += 1
    converged = moved <= tolerance * scale
    if not converged:
        warn(
            f"the barycenter still moves by {moved / scale:.2g} of the spread of the samples "
            f"after {iterations} iterations, above `tolerance` {tolerance:.2g}: raise "
            "`max_iterations` or `tolerance`"
        )
    return Barycenter(x.to(sets.dtype), a.to(sets.dtype), iterations, moved, converged)
