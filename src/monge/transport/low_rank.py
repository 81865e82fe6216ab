r"""Transport by plans of low rank: memory O(n r) in any dimension.

Plans are restricted to π = Q diag(1/g) Rᵀ, which send the mass of x to r clusters of masses g, and
on to y:

    min_{Q,R,g} ⟨C, Q diag(1/g) Rᵀ⟩   over Q1 = a, R1 = b, Qᵀ1 = Rᵀ1 = g.

The problem is not convex. It is solved by mirror descent (`monge.transport.low_rank_descent`). The
cost ‖x - y‖² is a product of matrices with d + 2 columns, and never formed.

The minimum decreases in r, from that of the independent plan at r = 1 to W_2² at r = min(n, m).

Source: Scetbon, Cuturi, Peyré, "Low-rank Sinkhorn factorization", 2021; Scetbon, Cuturi, "Low-rank
optimal transport: approximation, statistics and debiasing", 2022; Forrow et al., "Statistical
optimal transport via factored couplings", 2019.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monge._core.checks import dimension, distribution_weights, points, positive
from monge._core.devices import to_device
from monge._core.numerics import Gradients, with_gradient
from monge._core.promotion import WEIGHTS, promoted
from monge._core.shown import of_attributes
from monge.transport.low_rank_descent import (
    Factors,
    Logits,
    LowRankObjective,
    descended,
    projected,
    warn_unless_converged,
)
from monge.transport.neighbours import nearest

FIRST_LEAD = 4.0
"""How far the logarithm of a point's largest share is above their mean at first."""
LLOYD = 5
"""Iterations for the first clusters."""
MOST_CENTRES = 20_000
"""Points among which the first clusters are found."""


@dataclass(frozen=True, repr=False)
class LowRankPlan:
    """A plan π = Q diag(1/g) Rᵀ of rank at most r, and an account of the solver."""

    value: Tensor
    """⟨C, π⟩, differentiable in the points at the plan that was found."""
    q: Tensor
    """Q (n, r): how the mass of x is divided among clusters."""
    r: Tensor
    """R (m, r)."""
    g: Tensor
    """The masses of the clusters, (r,)."""
    marginal_error: float
    """The larger of |π1 - a|_1 and |πᵀ1 - b|_1 for these factors. In half precision it is a bound:
    the error of the factors that were found in float32, and how far rounding has moved the
    marginals."""
    iterations: int
    converged: bool
    """Whether the marginal error, and the relative decrease of the value in the last iterations,
    were within the tolerance before the factors were rounded to the dtype of the points."""

    def __repr__(self) -> str:
        return of_attributes(self, "value", "marginal_error", "iterations", "converged")

    @property
    def value_linear(self) -> Tensor:
        """⟨C, π⟩, without gradient."""
        return self.value.detach()

    @property
    def rank(self) -> int:
        return self.g.shape[-1]

    @property
    def plan(self) -> Tensor:
        """π (n, m), for small problems."""
        q, r, g = self._wide()
        return ((q / g[..., None, :]) @ r.mT).to(self.q.dtype)

    def apply(self, v: Tensor) -> Tensor:
        r"""π v (n, \*) of v (m, \*), without π: y gives barycentric projections, times a.

        The plans of a batch take (B, m, \*).

        Raises:
            ValueError: for another number of rows than the plan has columns.
        """
        rows = self.r.shape[:-1]
        if v.shape[: len(rows)] != rows:
            raise ValueError(
                f"`v` must have shape {(*rows, '*')}, got {tuple(v.shape)}".replace("'", "")
            )
        q, r, g = self._wide()
        moved = q @ ((r.mT @ v.to(q.dtype).reshape(*rows, -1)) / g[..., None])
        return moved.reshape(*q.shape[:-1], *v.shape[len(rows) :]).to(self.q.dtype)

    def _wide(self) -> list[Tensor]:
        """The factors in at least float32, in which products of half precision keep theirs."""
        wide = torch.promote_types(self.q.dtype, torch.float32)
        return [z.to(wide) for z in (self.q, self.r, self.g)]

    def _marginals(self) -> tuple[Tensor, Tensor]:
        """π1 and πᵀ1, float64."""
        q, r, g = (z.detach().double() for z in (self.q, self.r, self.g))
        rows, columns = ((z.sum(-2) / g)[..., None] for z in (r, q))
        return (q @ rows)[..., 0], (r @ columns)[..., 0]

    def transposed(self) -> "LowRankPlan":
        """The plan from y to x."""
        return replace(self, q=self.r, r=self.q)

    def tensors(self) -> list[Tensor]:
        """All tensors."""
        return [self.value, self.q, self.r, self.g]

    def replaced(self, function: Callable[[Tensor], Tensor]) -> "LowRankPlan":
        """The plan with `function` applied to each of its tensors."""
        value, q, r, g = map(function, self.tensors())
        other = replace(self, value=value, q=q, r=r, g=g)
        if q.dtype is self.q.dtype:
            return other
        moved = [
            float((one - two).abs().sum(-1).max())
            for one, two in zip(self._marginals(), other._marginals())
        ]
        return replace(other, marginal_error=self.marginal_error + max(moved))

    def stacked(self, accounts: Sequence["LowRankPlan"]) -> "LowRankPlan":
        """The plans of a batch of problems, and the worst of their accounts."""
        value, q, r, g = (torch.stack(z) for z in zip(*(plan.tensors() for plan in accounts)))
        return LowRankPlan(
            *(value, q, r, g),
            marginal_error=max(plan.marginal_error for plan in accounts),
            iterations=max(plan.iterations for plan in accounts),
            converged=all(plan.converged for plan in accounts),
        )


@dataclass(frozen=True)
class LowRankProblem(LowRankObjective):
    """⟨C, π⟩ for the cost ‖x - y‖², of points about their means."""

    def value(self, factors: Factors) -> Tensor:
        """⟨C, π⟩, float64."""
        q, r, g = factors
        of_x, of_y = (
            w.sum(1).double() @ z.double().square().sum(1)
            for z, w in ((self.x, q * (r.sum(0) / g)), (self.y, r * (q.sum(0) / g)))
        )
        return of_x + of_y - 2 * ((q.T @ self.x) * (r.T @ self.y) / g[:, None]).sum().double()

    def extent(self) -> Tensor:
        """⟨C, a⊗b⟩."""
        return self.a @ self.x.square().sum(1) + self.b @ self.y.square().sum(1)

    def slopes(self, factors: Factors) -> Factors:
        """The gradient of the value, that of Q and R up to a constant in each row."""
        q, r, g = factors
        of_x, of_y = self.x.square().sum(1), self.y.square().sum(1)
        means_x, means_y = (q.T @ self.x) / g[:, None], (r.T @ self.y) / g[:, None]
        heights_x, heights_y = (q.T @ of_x) / g, (r.T @ of_y) / g
        of_g = heights_x * r.sum(0) / g + heights_y * q.sum(0) / g - 2 * (means_x * means_y).sum(1)
        return Factors(
            heights_y - 2 * self.x @ means_y.T, heights_x - 2 * self.y @ means_x.T, -of_g
        )


def first_clusters(
    problem: LowRankProblem, rank: int, tolerance: float, generator: torch.Generator | None
) -> Factors:
    """Both samples divided among the clusters of their union, about their means."""
    both = torch.cat([problem.x, problem.y])
    mixed = to_device(torch.randperm(len(both), generator=generator, device="cpu"), both.device)
    some = both[mixed[:MOST_CENTRES]]
    # again from the first, where fewer points have mass than there are clusters
    centres = some[torch.arange(rank, device=some.device) % len(some)]
    for _ in range(LLOYD):
        index = nearest(some, centres)[1][:, 0]
        count = torch.bincount(index, minlength=rank).to(some)
        sums = torch.zeros_like(centres).index_add_(0, index, some)
        centres = torch.where(count[:, None] > 0, sums / count[:, None], centres)
    q, r = (2 * z @ centres.T - centres.square().sum(1) for z in (problem.x, problem.y))
    # near equal shares, next to a saddle, the descent would be slow and seem to have settled; each
    # point has its own unit, so that a far one does not decide on all
    leads = ((z.amax(1) - z.mean(1))[:, None] for z in (q, r))
    q, r = (z * (FIRST_LEAD / torch.where(lead > 0, lead, 1.0)) for z, lead in zip((q, r), leads))
    masses = torch.full((rank,), 1 / rank, dtype=torch.float64, device=both.device)
    start = masses.new_zeros(2, rank)
    logits = Logits(q, r, masses.log())
    return projected(logits, problem.a, problem.b, start, tolerance)[0]


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def low_rank_sinkhorn(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    rank: int,
    tolerance: float = 1e-3,
    max_iterations: int = 1000,
    generator: torch.Generator | None = None,
) -> LowRankPlan:
    r"""Transport by a plan of rank at most r, for the cost ‖x - y‖².

        min ⟨C, π⟩   over π = Q diag(1/g) Rᵀ with marginals a and b.

    Up to the marginal error the value is at least W_2², which it approaches as the rank grows.
    The plan is a stationary point, which depends on the first clusters: the best of several
    generators is better by some per cent at times. Memory is O((n + m)(d + r)),
    and the time of an iteration O((n + m)(d + r) r), in any dimension.

    Args:
        x: points (n, d).
        y: points (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        rank: the largest rank r; at most min(n, m) is taken.
        tolerance: on the marginal error in L1, and on the relative decrease of the value in ten
            iterations, at which the descent stops.
        max_iterations: the iteration limit, which warns where it is reached.
        generator: a CPU generator, which draws the first clusters.

    Returns:
        The plan as its factors; `plan.apply(v)` is π v. `value` is differentiable in the points,
        once and at the plan that was found.

    Raises:
        ValueError: for an empty sample, NaN or infinity, unlike dimensions, invalid weights, or a
            rank below 1.

    Example:
        >>> plan = low_rank_sinkhorn(x, y, rank=20)
        >>> projected = plan.apply(y) * len(x)
    """
    rank = dimension("rank", rank)
    tolerance = positive("tolerance", tolerance)
    dimension("max_iterations", max_iterations)
    x, y = points(x, y, 2)
    mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
    mu, nu = mu.detach(), nu.detach()
    rank = min(rank, len(x), len(y))
    # points without mass are left out: a far one would take a cluster, and shorten all steps
    rows, columns = mu > 0, nu > 0
    x, y, mu, nu = x[rows], y[columns], mu[rows], nu[columns]
    means = mu @ x.detach().double(), nu @ y.detach().double()
    at_x, at_y = ((z.detach().double() - mean).to(x.dtype) for z, mean in zip((x, y), means))
    problem = LowRankProblem(at_x, at_y, mu.to(x.dtype), nu.to(x.dtype))
    if not float(problem.extent()) < torch.finfo(x.dtype).max:
        raise ValueError(
            f"`x` and `y` have costs beyond {str(x.dtype).removeprefix('torch.')}: divide them by "
            "a common number"
        )
    first = first_clusters(problem, rank, tolerance / 10, generator)
    factors, iterations, settled = descended(problem, first, tolerance, max_iterations)
    error = problem.marginal_error(factors)
    converged = warn_unless_converged(iterations, settled, error, tolerance)
    value = _value(problem, factors, means, x, y)
    return LowRankPlan(value, *factors.among(rows, columns), error, iterations, converged)


def _value(
    problem: LowRankProblem, factors: Factors, means: tuple[Tensor, Tensor], x: Tensor, y: Tensor
) -> Tensor:
    """⟨C, π⟩ with its gradient in the points at this plan."""
    shift = means[0] - means[1]

    def fast(x: Tensor, y: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        q, r, g = factors
        rows, columns = q @ (r.sum(0) / g), r @ (q.sum(0) / g)
        of_x = rows[:, None] * (problem.x + shift) - q @ ((r.T @ problem.y) / g[:, None])
        of_y = columns[:, None] * (problem.y - shift) - r @ ((q.T @ problem.x) / g[:, None])
        return problem.value(factors) + shift.square().sum(), [2 * of_x, 2 * of_y]

    return with_gradient(fast, None, x, y)
