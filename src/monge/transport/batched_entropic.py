r"""Entropic transport for a batch of problems: values, plans and gradients of each.

What `monge.transport.entropic` computes for one problem is computed here for many at once, with
potentials by `monge.transport.batched_gibbs`. For p = 2 the means of all samples are taken out
(`monge.transport.dual.Separated`), otherwise a common offset.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import point_batches, weight_batch
from monge._core.numerics import (
    Gradients,
    at_least_zero,
    power_of_squared,
    squared_by_differences,
    weighted_differences,
    with_gradient,
)
from monge._core.tuning import tuning
from monge.transport.accounts import (
    checked_settings,
    is_converged,
    judge_balanced,
    kernel_dtype,
    refuse_hidden,
)
from monge.transport.batched_gibbs import Problems, solve_batch
from monge.transport.dual import MOST_LOST, newton_dual
from monge.transport.ground import MOST_ROUNDING, refuse_vanished
from monge.transport.penalties import Reach
from monge.transport.plan import Plan
from monge.transport.potentials import (
    Anderson,
    Potentials,
    Randkhorn,
    SinkhornSettings,
)


class SeparatedBatch(NamedTuple):
    """Points in float64 about their means, and the part of their cost that is separable.

    For p = 2, with x = x̄ + x', y = ȳ + y' and δ = x̄ - ȳ, the cost is
    ‖x' - y'‖² + 2 (x' - y')·δ + ‖δ‖², of which only the first term decides on the plan.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    p: float
    shift: Tensor
    """δ (B, d); 0 for p ≠ 2 and for a sample with itself."""

    def costs(self, epsilon: float) -> Tensor:
        """‖x'_i - y'_j‖^p, (B, n, m), float64: by products where their rounding is far below ε."""
        costs = self._powers(epsilon)
        if self.x is not self.y:
            zero = costs.amax((1, 2)) == 0
            for x, y in zip(self.x[zero], self.y[zero]):
                refuse_vanished(x, y, self.p)
        return costs

    def _powers(self, epsilon: float) -> Tensor:
        if self.p == 2:
            of_x, of_y = self.x.square().sum(2), self.y.square().sum(2)
            largest = float((of_x.amax(1) + of_y.amax(1)).amax())
            if torch.finfo(torch.float64).eps * largest <= MOST_ROUNDING * epsilon:
                # columns in a row, for which products of thin matrices are several times faster
                squared = (-2 * self.x).mT.contiguous().mT @ self.y.mT
                return squared.add_(of_x[:, :, None]).add_(of_y[:, None]).clamp_(min=0)
        mode = "donot_use_mm_for_euclid_dist"
        return torch.cdist(self.x, self.y, compute_mode=mode).pow_(self.p)

    def batch(self, epsilon: float, symmetric: bool = False) -> Problems:
        """The problems without the separable part."""
        return Problems(self.costs(epsilon), self.a, self.b, symmetric)

    def potentials(self, solution: Potentials) -> tuple[Tensor, Tensor]:
        """Those of the whole cost."""
        f = solution.f + 2 * _dot(self.x, self.shift) + self.shift.square().sum(1, keepdim=True)
        return f, solution.g - 2 * _dot(self.y, self.shift)

    def linear(self, rows: Tensor, columns: Tensor, near: Tensor) -> Tensor:
        """⟨C, π⟩ of the whole cost from that of the part that decides, and marginals of plans."""
        moved = (rows * _dot(self.x, self.shift)).sum(1)
        moved = moved - (columns * _dot(self.y, self.shift)).sum(1)
        return near + 2 * moved + self.shift.square().sum(1) * rows.sum(1)


def separated_batch(x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: float) -> SeparatedBatch:
    """Samples (B, n, d) and (B, m, d) without their means."""
    x, y = x.double(), y.double()
    of_x, of_y = _mean(a, x), _mean(b, y)
    if p != 2:
        of_x = of_y
    shift = (of_x - of_y)[:, 0]
    return SeparatedBatch(x - of_x, y - of_y, a, b, p, shift)


def within_batch(x: Tensor, a: Tensor, p: float) -> SeparatedBatch:
    """A sample with itself."""
    x = x.double()
    x = x - _mean(a, x)
    return SeparatedBatch(x, x, a, a, p, x.new_zeros(len(x), x.shape[2]))


def _mean(a: Tensor, x: Tensor) -> Tensor:
    return a[:, None] @ x


def _dot(x: Tensor, shift: Tensor) -> Tensor:
    return (x @ shift[:, :, None])[:, :, 0]


@dataclass(frozen=True)
class Solved:
    """A batch with its potentials and plans, for one ε."""

    batch: Problems
    solution: Potentials
    epsilon: float
    plans: Tensor

    @functools.cached_property
    def marginals(self) -> tuple[Tensor, Tensor]:
        """Those of the plans, (B, n) and (B, m), float64."""
        return self.plans.sum(2).double(), self.plans.sum(1).double()

    def linear(self, cost: Tensor) -> Tensor:
        """⟨C, π⟩ of each problem (B,), float64."""
        return (self.plans * cost.to(self.plans.dtype)).sum((1, 2)).double()

    def observed(self) -> Potentials:
        """The solution with the worst marginal error of the plans, in place of the solver's."""
        rows, columns = self.marginals
        of_rows = (rows - self.batch.a).abs().sum(1)
        of_columns = (columns - self.batch.b).abs().sum(1)
        error = float(torch.maximum(of_rows, of_columns).max())
        return self.solution._replace(error=error)


def solved(
    batch: Problems, epsilon: float, settings: SinkhornSettings, dtype: torch.dtype
) -> Solved:
    """The batch, solved."""
    solution, plans = solve_batch(batch, epsilon, settings, dtype)
    return Solved(batch, solution, epsilon, plans)


def dual_of_points(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, samples: SeparatedBatch, solved: Solved
) -> Tensor:
    """The dual objectives (B,) at their optima, float64, with gradients in points and weights."""
    solution = solved.solution

    def fast(
        x: Tensor, y: Tensor, a: Tensor, b: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        of_x, of_y = _in_points(samples, solved, x.dtype, wanted)
        f, g = (z - z.mean(1, keepdim=True) for z in samples.potentials(solution))
        slopes = zip((of_x, of_y, f, g), wanted)
        value = solution.value + samples.shift.square().sum(1)
        return value, [slope if need else None for slope, need in slopes]

    def plain(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        moved = separated_batch(x, y, a, b, samples.p)
        costs = torch.stack([_cost(*z, samples.p) for z in zip(moved.x, moved.y)])
        return _newton_duals(costs, a, b, solved) + moved.shift.square().sum(1)

    return with_gradient(fast, plain, x, y, a, b)


def dual_within_samples(x: Tensor, a: Tensor, samples: SeparatedBatch, solved: Solved) -> Tensor:
    """The dual objectives (B,) of samples with themselves: each point counts on both sides."""
    solution = solved.solution

    def fast(x: Tensor, a: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        of_x, _ = _in_points(samples, solved, x.dtype, (wanted[0], False))
        of_x = None if of_x is None else 2 * of_x
        of_a = 2 * (solution.f - solution.f.mean(1, keepdim=True)) if wanted[1] else None
        return solution.value.clone(), [of_x, of_a]

    def plain(x: Tensor, a: Tensor) -> Tensor:
        costs = torch.stack([_cost(z, z, samples.p) for z in x.double()])
        return _newton_duals(costs, a, a, solved)

    return with_gradient(fast, plain, x, a)


def dual_of_costs(cost: Tensor, a: Tensor, b: Tensor, solved: Solved, least: Tensor) -> Tensor:
    """The dual objectives (B,) for costs (B, n, m), of which `least` (B, 1, 1) was taken out."""
    solution, plans = solved.solution, solved.plans

    def fast(
        cost: Tensor, a: Tensor, b: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        f, g = (z - z.mean(1, keepdim=True) for z in (solution.f, solution.g))
        slopes = zip((plans.clone(), f, g), wanted)
        value = solution.value + least[:, 0, 0]
        return value, [slope if need else None for slope, need in slopes]

    def plain(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return _newton_duals(cost.double() - least, a, b, solved) + least[:, 0, 0]

    return with_gradient(fast, plain, cost, a, b)


def _cost(x: Tensor, y: Tensor, p: float) -> Tensor:
    return power_of_squared(squared_by_differences(x, y), p)


def _newton_duals(costs: Tensor, a: Tensor, b: Tensor, solved: Solved) -> Tensor:
    """The optima as functions that are right to second order, item by item."""
    items = zip(costs, a, b, solved.solution.g)
    return torch.stack([newton_dual(*item, solved.epsilon) for item in items])


def _in_points(
    samples: SeparatedBatch, solved: Solved, dtype: torch.dtype, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The duals' gradients in the points x (B, n, d) and y (B, m, d) where `wanted`, float64.

    With W_ij = π_ij p ‖x_i - y_j‖^{p-2} that in x_i is Σ_j W_ij (x_i - y_j), two products; or sums
    of differences, in problems where products would hide how little the points are moved.
    """
    if not (wanted[0] or wanted[1]):
        return None, None
    x, y, a, b, p, shift = samples
    batch, solution, plans = solved.batch, solved.solution, solved.plans
    size = torch.maximum(x.abs().amax((1, 2)), y.abs().amax((1, 2)))
    moved = solution.value.abs() ** (1 / p)
    fine = p != 2 or bool((torch.finfo(dtype).eps * size > MOST_LOST[dtype] * moved).any())
    work = torch.float64 if fine else dtype
    if plans.dtype != work:
        plans = batch.plans(solution.f, solution.g, solved.epsilon, work)
    w = plans if p == 2 else _slopes(plans, x, y, p)
    of_x = _pulled(w, x.to(work), y.to(work)) if wanted[0] else None
    of_y = _pulled(w.mT, y.to(work), x.to(work)) if wanted[1] else None
    close = torch.finfo(torch.float64).eps * size > MOST_LOST[torch.float64] * moved
    for i in range(len(x)) if bool(close.any()) else ():
        if not bool(close[i]):
            continue
        for out, exact in zip((of_x, of_y), weighted_differences(w[i].double(), x[i], y[i])):
            if out is not None:
                out[i] = exact
    if p == 2:
        of_x = None if of_x is None else 2 * (of_x + a[:, :, None] * shift[:, None])
        of_y = None if of_y is None else 2 * (of_y - b[:, :, None] * shift[:, None])
    return of_x, of_y


def _pulled(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Σ_j w_ij (x_i - y_j), (B, n, d), float64."""
    # few rows times a matrix are several times faster than the matrix times few columns
    attracted = (y.mT.contiguous() @ w.mT).mT
    return (x * w.sum(2, keepdim=True) - attracted).double()


def _slopes(plans: Tensor, x: Tensor, y: Tensor, p: float) -> Tensor:
    """π_ij p ‖x_i - y_j‖^{p-2}, 0 where the points coincide."""
    lengths = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.where(lengths == 0, 0.0, p * plans * lengths.pow(p - 2))


# What the functions of one problem are for a batch


def _is_batched(n: int, m: int, like: Tensor, acceleration: object, reach: Reach) -> bool:
    """Whether problems of this size are solved together.

    The rule: small ones, of at most `Tuning.batched_entries` pairs, on every device and in every
    dtype; larger ones, those that `Randkhorn` draws for, and unbalanced ones, one by one.
    """
    small = n * m <= tuning(like.device).batched_entries
    return small and reach is None and not isinstance(acceleration, Randkhorn)


def _solved(batch: Problems, epsilon: float, settings: SinkhornSettings, like: Tensor) -> Solved:
    """The batch, solved with kernels in a dtype that holds the costs of each of its problems."""
    means = batch.means()
    refuse_hidden(float(means.max()), batch.nearest, epsilon)
    positive = means.masked_fill(means == 0, float(means.max()))
    extremes = means.min(), positive.min(), means.max()
    dtypes = {kernel_dtype(float(mean), epsilon, like.dtype) for mean in extremes}
    return solved(batch, epsilon, settings, torch.float64 if len(dtypes) > 1 else dtypes.pop())


def _account(
    value: Tensor,
    linear: Tensor,
    potentials: tuple[Tensor, Tensor],
    found: Solved,
    settings: SinkhornSettings,
) -> Plan:
    """The plans of a batch in the dtype of their values, with the worst of their accounts."""
    observed, dtype = found.observed(), value.dtype
    judge_balanced(observed, found.epsilon, settings, dtype)
    f, g = potentials
    return Plan(
        value=value,
        value_linear=linear.to(dtype),
        potentials=(f.to(dtype), g.to(dtype)),
        marginal_error=observed.error,
        iterations=observed.iterations,
        converged=is_converged(observed, settings, dtype),
        make=lambda: found.plans,
    )


def solve_entropic_together(
    cost: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    *,
    epsilon: float,
    tolerance: float,
    max_iterations: int,
    acceleration: Anderson | Randkhorn | None,
    reach: Reach,
) -> Plan | None:
    """`solve_entropic` of costs (B, n, m)."""
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    _, n, m = cost.shape
    together = n * m > 0 and _is_batched(n, m, cost, acceleration, reach)
    if not (together and torch.isfinite(cost).all()):
        return None
    mu, nu = weight_batch("a", a, cost), weight_batch("b", b, cost.mT)
    least = cost.detach().amin((1, 2), keepdim=True).double()
    batch = Problems(cost.detach().double() - least, mu.detach(), nu.detach())
    found = _solved(batch, epsilon, settings, cost)
    value = dual_of_costs(cost, mu, nu, found, least).to(cost.dtype)
    return _account(
        value,
        found.linear(cost.detach()),
        (found.solution.f + least[:, 0], found.solution.g),
        found,
        settings,
    )


def sinkhorn_together(
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    *,
    epsilon: float,
    p: float,
    tolerance: float,
    max_iterations: int,
    acceleration: Anderson | Randkhorn | None,
    reach: Reach,
) -> Plan | None:
    """`sinkhorn` of points (B, n, d) and (B, m, d)."""
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    x, y = point_batches(x, y, p)
    if not _is_batched(x.shape[1], y.shape[1], x, acceleration, reach):
        return None
    mu, nu = weight_batch("a", a, x), weight_batch("b", b, y)
    samples = separated_batch(x.detach(), y.detach(), mu.detach(), nu.detach(), p)
    found = _solved(samples.batch(epsilon), epsilon, settings, x)
    value = dual_of_points(x, y, mu, nu, samples, found).to(x.dtype)
    linear = samples.linear(*found.marginals, found.linear(found.batch.cost))
    return _account(value, linear, samples.potentials(found.solution), found, settings)


def sinkhorn_divergence_together(
    x: Tensor,
    y: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    *,
    epsilon: float,
    p: float,
    tolerance: float,
    max_iterations: int,
    acceleration: Anderson | Randkhorn | None,
    reach: Reach,
) -> Tensor | None:
    """`sinkhorn_divergence` of points (B, n, d) and (B, m, d)."""
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    x, y = point_batches(x, y, p)
    if not _is_batched(max(x.shape[1], y.shape[1]), y.shape[1], x, acceleration, reach):
        return None
    mu, nu = weight_batch("a", a, x), weight_batch("b", b, y)
    samples = separated_batch(x.detach(), y.detach(), mu.detach(), nu.detach(), p)
    equal = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    if x.shape == y.shape:
        equal = (x == y).all(2).all(1) & (mu == nu).all(1)
    cross = _solved(samples.batch(epsilon), epsilon, settings, x)
    ones = [within_batch(z.detach(), w.detach(), p) for z, w in ((x, mu), (y, nu))]
    dtype = cross.plans.dtype
    within = [solved(z.batch(epsilon, symmetric=True), epsilon, settings, dtype) for z in ones]
    if bool(equal.any()):
        cross = _replaced(cross, equal, within[0])
    for found in (cross, *within):
        judge_balanced(found.solution, epsilon, settings, x.dtype)
    of_x = dual_within_samples(x, mu, ones[0], within[0])
    of_y = dual_within_samples(y, nu, ones[1], within[1])
    value = dual_of_points(x, y, mu, nu, samples, cross) - (of_x + of_y) / 2
    return at_least_zero(value, equal).to(x.dtype)


def _replaced(one: Solved, items: Tensor, by: Solved) -> Solved:
    """The solutions of some problems replaced by others of the same problems.

    Samples that are equal have gradients that cancel only where all three solutions are one.
    """
    solution, other = one.solution, by.solution
    kept = items[:, None]
    f, g = torch.where(kept, other.f, solution.f), torch.where(kept, other.g, solution.g)
    value = torch.where(items, other.value, solution.value)
    plans = torch.where(kept[:, None], by.plans, one.plans)
    return replace(one, solution=solution._replace(f=f, g=g, value=value), plans=plans)
