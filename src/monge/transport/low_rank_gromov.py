r"""Gromov-Wasserstein by plans of low rank, for squared Euclidean distances: memory O(n r).

    min_π Σ_ijkl (‖x_i - x_k‖² - ‖y_j - y_l‖²)² π_ij π_kl   over π = Q diag(1/g) Rᵀ.

The matrix of squared distances is a product of matrices with d + 2 columns. With D = diag(1/g) the
objective is a constant of the marginals minus 2 tr(A D B D), A = Qᵀ cx Q and B = Rᵀ cy R. A step
of mirror descent takes O(n r (d + r)), and no matrix of distances is formed.

Descents start from plans of low rank between features that do not depend on coordinates: quantiles
of the distances to other points (as in the lower bound TLB), then distances to two landmarks and
their presumed images. The best is kept.

Source: Scetbon, Peyré, Cuturi, "Linear-time Gromov Wasserstein distances using low rank couplings
and costs", 2022; Mémoli, "Gromov-Wasserstein distances and the metric approach to object
matching", 2011 (the lower bound).
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monge._core.checks import (
    dimension,
    distribution_weights,
    finite,
    floating,
    instance,
    positive,
)
from monge._core.numerics import envelope, power_of_two
from monge._core.promotion import WEIGHTS, promoted
from monge.transport.gromov_starts import ROUNDING, profiles, rounding_of
from monge.transport.low_rank import LowRankPlan, LowRankProblem, first_clusters
from monge.transport.low_rank_descent import (
    Factors,
    LowRankObjective,
    descended,
    feasible,
    warn_unless_converged,
)

LEVELS = 16
"""Quantiles of distances that make the features of a point."""
MOST_OTHERS = 256
"""Points to which these distances are taken."""
LOOSE = 1e-2
"""The tolerance of a start."""

LowRankStarts = int | LowRankPlan | Sequence[LowRankPlan]
"""How many starts, or the plans to start from."""


def _within(z: Tensor, w: Tensor) -> Tensor:
    """Σ_ik ‖z_i - z_k‖⁴ w_i w_k, by moments."""
    squares, heavy = z.square().sum(1), w[:, None] * z
    of_squares = 2 * w.sum() * (w @ squares.square()) + 2 * (w @ squares).square()
    of_means = (heavy.T @ squares) * heavy.sum(0)
    return of_squares - 8 * of_means.sum() + 4 * (z.T @ heavy).square().sum()


def _between_clusters(z: Tensor, q: Tensor) -> Tensor:
    """Qᵀ C Q (r, r) of the squared distances C within z."""
    sums, means = q.sum(0), q.T @ z
    of_squares = torch.outer(q.T @ z.square().sum(1), sums)
    return of_squares + of_squares.T - 2 * means @ means.T


def _to_clusters(z: Tensor, q: Tensor, w: Tensor) -> Tensor:
    """C Q W (n, k), W (r, k)."""
    squares = z.square().sum(1)
    of_squares = torch.outer(squares, w.T @ q.sum(0)) + w.T @ (q.T @ squares)
    return of_squares - 2 * z @ ((z.T @ q) @ w)


def _objective(x: Tensor, y: Tensor, factors: Factors) -> Tensor:
    """The objective of any plan of this form, differentiable in the points."""
    rows, columns = factors.marginals()
    of_x, of_y = _between_clusters(x, factors.q), _between_clusters(y, factors.r)
    shares = torch.outer(factors.g, factors.g)
    return _within(x, rows) + _within(y, columns) - 2 * (of_x * of_y / shares).sum()


@dataclass(frozen=True)
class LowRankGromov(LowRankObjective):
    """The objective at marginals a and b, of points about their means."""

    fixed: Tensor
    """Its constant, float64."""

    def value(self, factors: Factors) -> Tensor:
        of_x, of_y = _between_clusters(self.x, factors.q), _between_clusters(self.y, factors.r)
        # g² of a cluster that is nearly empty is 0 in float32
        return self.fixed - 2 * (of_x / factors.g[:, None] * (of_y / factors.g)).sum().double()

    def slopes(self, factors: Factors) -> Factors:
        q, r, g = factors
        of_x, of_y = _between_clusters(self.x, q), _between_clusters(self.y, r)
        of_x, of_y = of_x / g[:, None] / g, of_y / g[:, None] / g  # whose g² may be 0
        return Factors(
            -4 * _to_clusters(self.x, q, of_y),
            -4 * _to_clusters(self.y, r, of_x),
            4 * (of_x * of_y * g).sum(1),
        )

    def extent(self) -> Tensor:
        return self.fixed


# Starts


def _made(
    problem: LowRankGromov, rank: int, count: int, generator: torch.Generator | None
) -> Iterator[Factors]:
    """Plans of low rank between features of points that no isometry changes."""
    x, y, a, b = problem.x, problem.y, problem.a, problem.b
    yield _linear(_profiles(x, a, generator), _profiles(y, b, generator), problem, rank, generator)
    for _ in range(1, count):
        (i, k), (j,) = _drawn(a, 2, generator), _drawn(b, 1, generator)
        others = _squares(y, y[j : j + 1])[:, 0]
        image = int((others - _squares(x[i : i + 1], x[k : k + 1])[0, 0]).abs().argmin())
        yield _linear(_squares(x, x[[i, k]]), _squares(y, y[[j, image]]), problem, rank, generator)


def _squares(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y).square()


def _drawn(w: Tensor, count: int, generator: torch.Generator | None) -> list[int]:
    """Indices drawn by weight, with replacement."""
    host = w.double().cpu()
    return list(map(int, torch.multinomial(host, count, replacement=True, generator=generator)))


def _profiles(z: Tensor, w: Tensor, generator: torch.Generator | None) -> Tensor:
    """Quantiles of the squared distances to other points, (n, levels)."""
    others = z
    if len(z) > MOST_OTHERS:
        others = z[_drawn(w, MOST_OTHERS, generator)]
        w = w.new_full((MOST_OTHERS,), 1 / MOST_OTHERS)
    levels = (torch.arange(LEVELS, dtype=z.dtype, device=z.device) + 0.5) / LEVELS
    return profiles(_squares(z, others), w, levels)


def _linear(
    u: Tensor, v: Tensor, problem: LowRankGromov, rank: int, generator: torch.Generator | None
) -> Factors:
    """The plan of low rank between features u (n, k) and v (m, k)."""
    middle = problem.a @ u
    linear = LowRankProblem(u - middle, v - middle, problem.a, problem.b)
    first = first_clusters(linear, rank, LOOSE / 10, generator)
    return descended(linear, first, LOOSE, 100)[0]


def _given(
    starts: LowRankStarts,
    problem: LowRankGromov,
    masks: tuple[Tensor, Tensor],
    rank: int,
    generator: torch.Generator | None,
) -> Iterator[Factors]:
    """The plans to start from, as many as asked for or those given, which are between all points:
    masks say which of them have mass and are in the problem."""
    if not isinstance(starts, (LowRankPlan, list, tuple)):
        yield from _made(problem, rank, dimension("starts", starts), generator)  # pyright: ignore
        return
    plans = [starts] if isinstance(starts, LowRankPlan) else starts
    if not plans:
        raise ValueError("`starts` must be a number or hold at least one plan, got none")
    for plan in plans:
        instance("starts", plan, LowRankPlan, "low_rank_gromov_wasserstein(x, y, rank=2)")
        yield _checked(plan, problem, masks, rank)


def _checked(
    plan: LowRankPlan, problem: LowRankGromov, masks: tuple[Tensor, Tensor], rank: int
) -> Factors:
    rows, columns = masks
    shapes = [(len(rows), rank), (len(columns), rank), (rank,)]
    given = [tuple(z.shape) for z in (plan.q, plan.r, plan.g)]
    if given != shapes:
        raise ValueError(
            f"`starts` must be a number or plans with factors of shapes {shapes}, got {given}"
        )
    q, r, g = (z.detach().to(problem.x) for z in (plan.q, plan.r, plan.g))
    stray = float(q[~rows].sum() + r[~columns].sum())
    factors = Factors(q[rows], r[columns], g)
    error, least = problem.marginal_error(factors) + stray, min(float(z.min()) for z in (q, r, g))
    rounding = sum(rounding_of(z) for z in (plan.q, plan.r, plan.g))
    if not (error <= ROUNDING + rounding and least >= 0):
        raise ValueError(
            "`starts` must be plans of the weights, got one with a least factor of "
            f"{least:.3g} and a marginal error of {error:.3g}: fit it with these weights and a "
            "smaller `tolerance`, or give a number of starts"
        )
    return factors


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def low_rank_gromov_wasserstein(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    rank: int,
    starts: LowRankStarts = 4,
    tolerance: float = 1e-3,
    max_iterations: int = 1000,
    generator: torch.Generator | None = None,
) -> LowRankPlan:
    r"""Gromov-Wasserstein by a plan of rank at most r, for squared Euclidean distances.

        min Σ_ijkl (‖x_i - x_k‖² - ‖y_j - y_l‖²)² π_ij π_kl
        over π = Q diag(1/g) Rᵀ with marginals a and b.

    The samples need not have the same dimension. Up to the marginal error the value is an upper
    bound of `gromov_wasserstein` of the matrices of squared distances. Memory is
    O((n + m)(d + r)) and the time of an iteration O((n + m)(d + r) r): for points by the hundred
    thousand. The plan matches clusters, not points.

    Args:
        x: points (n, d).
        y: points (m, e), of any dimension.
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        rank: the largest rank r; at most min(n, m) is taken.
        starts: the number of starting plans: one between quantiles of distances, then those
            between distances to random landmarks and their presumed images; or the plans
            themselves, of this rank. The best stationary point is returned; it need not be the
            global minimum.
        tolerance: on the marginal error in L1, and on the relative decrease of the value in ten
            iterations, at which the descent stops.
        max_iterations: the iteration limit of a start; a returned plan that reached it warns.
        generator: a CPU generator, which draws clusters and landmarks.

    Returns:
        The plan as its factors; `value` is the objective, no root, differentiable in the points,
        once and at the plan that was found.

    Raises:
        ValueError: for an empty sample, NaN or infinity, invalid weights, a rank below 1, or
            starts of another shape or other weights.

    Example:
        >>> plan = low_rank_gromov_wasserstein(x, y, rank=10)
        >>> matched = plan.apply(y) * len(x)
    """
    rank = dimension("rank", rank)
    tolerance = positive("tolerance", tolerance)
    dimension("max_iterations", max_iterations)
    for name, z in (("x", x), ("y", y)):
        _points(name, z)
    mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
    mu, nu = mu.detach().double(), nu.detach().double()
    rank = min(rank, len(x), len(y))
    # as in low_rank_sinkhorn, points without mass are left out
    masks = rows, columns = mu > 0, nu > 0
    x, y, mu, nu = x[rows], y[columns], mu[rows], nu[columns]
    at_x, at_y = x.detach().double(), y.detach().double()
    at_x, at_y = at_x - mu @ at_x, at_y - nu @ at_y
    # fourth powers of distances, in a unit in which they are of order 1
    unit = power_of_two(max(float(z.abs().max()) for z in (at_x, at_y)))
    if not 16 * unit * max(x.shape[1], y.shape[1]) < sys.float_info.max**0.25:
        raise ValueError("`x` and `y` have fourth powers beyond float64: rescale them")
    at_x, at_y = at_x / unit, at_y / unit
    fixed = _within(at_x, mu) + _within(at_y, nu)
    of_x, of_y, of_a, of_b = (z.to(x.dtype) for z in (at_x, at_y, mu, nu))
    problem = LowRankGromov(of_x, of_y, of_a, of_b, fixed)
    found = [
        descended(problem, feasible(problem, start, tolerance / 10), tolerance, max_iterations)
        for start in _given(starts, problem, masks, rank, generator)
    ]
    factors, iterations, settled = min(found, key=lambda one: float(problem.value(one[0])))
    error = problem.marginal_error(factors)
    converged = warn_unless_converged(iterations, settled, error, tolerance)
    value = _value(factors, at_x, at_y, unit, x, y)
    return LowRankPlan(value, *factors.among(*masks), error, iterations, converged)


def _points(name: str, z: Tensor) -> None:
    finite(name, floating(name, z))
    if z.ndim != 2 or 0 in z.shape:
        raise ValueError(f"`{name}` must be points (n, d), at least one, got {tuple(z.shape)}")


def _value(
    factors: Factors, at_x: Tensor, at_y: Tensor, unit: float, x: Tensor, y: Tensor
) -> Tensor:
    """The objective of the plan, with its gradient in the points at this plan."""
    q, r, g = (z.double() for z in factors)
    at_x, at_y = at_x.clone().requires_grad_(), at_y.clone().requires_grad_()
    with torch.enable_grad():
        value = _objective(at_x, at_y, Factors(q, r, g))
    slopes = torch.autograd.grad(value, (at_x, at_y))
    terms = ((z.double(), slope * unit**3) for z, slope in zip((x, y), slopes))
    return envelope(value.detach() * unit**4, *terms, linear=False)
