r"""Unbalanced entropic transport: penalties on the marginals in place of constraints.

    OT_ε(a, b) = min_π ⟨C, π⟩ + ε KL(π | a⊗b) + D_1(π1 | a) + D_2(πᵀ1 | b)
               = max_{f,g} Σ_i a_i d_1(f_i) + Σ_j b_j d_2(g_j)
                           - ε Σ_ij a_i b_j (exp((f_i + g_j - C_ij)/ε) - 1),

with the duals d of `monge.transport.penalties` and KL(π | r) = Σ π log(π/r) - π + r. Weights may
have any mass. Sinkhorn's iteration is f = P_1(S_b(g)), g = P_2(S_a(f)), followed by the best
translation (f + λ, g - λ). It has converged where potentials are fixed points; the residual is
given in units of a marginal error, Σ_i a_i |exp((f_i - P_1(S_b(g))_i)/ε) - 1| / Σ_i a_i, to which
it is equal for constraints.

Gradients are those of the dual at frozen potentials (the envelope theorem), second derivatives
those of one Newton step.

Source: Chizat, Peyré, Schmitzer, Vialard, "Scaling algorithms for unbalanced optimal transport
problems", 2018; Séjourné, Feydy, Vialard, Trouvé, Peyré, "Sinkhorn divergences for unbalanced
optimal transport", 2019.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import masses
from monge._core.numerics import (
    Gradients,
    at_least_zero,
    power_of_squared,
    squared_by_differences,
    with_gradient,
)
from monge._core.typed import symmetric_pseudo_inverse
from monge.transport.accounts import (
    assembled,
    is_converged,
    judge_unbalanced,
    kernel_dtype,
    refuse_hidden,
)
from monge.transport.dual import Separated, in_points, log_sums
from monge.transport.forbidden import forbidden_pairs, with_forbidden
from monge.transport.gibbs import Streamed, kept_entries
from monge.transport.ground import Matrix, Points
from monge.transport.penalties import HardMarginal, Penalties, Penalty, one_penalty
from monge.transport.plan import Plan
from monge.transport.potentials import (
    EntropicProblem,
    Potentials,
    Randkhorn,
    SinkhornSettings,
    gibbs_space,
    iterated,
)
from monge.transport.reductions import choose_reductions

RESIDUAL = "a residual of its potentials"
"""What the error of a solution is called."""
SINGULAR = 1e-12
"""Eigenvalues of a Hessian that are 0, in units of the largest: those of a translation that a
total variation leaves free. Along it a step would leave the domain of the potentials."""


class Solution(NamedTuple):
    """Potentials, and which shares of their weights the marginals of their plan are."""

    potentials: Potentials
    rows: Tensor
    """(π1)_i / a_i, (n,)."""
    columns: Tensor
    """(πᵀ1)_j / b_j, (m,)."""
    slopes: tuple[Tensor, Tensor] | None = None
    """The gradients of the dual in the points of both sides, while the kernel was at hand."""


def solve_penalised(
    problems: Sequence[EntropicProblem],
    epsilon: float,
    settings: SinkhornSettings,
    wanted: Sequence[torch.dtype | None],
) -> list[Solution]:
    """The solutions of problems of one device, one after the other.

    Args:
        problems: of one dtype.
        epsilon: regularisation.
        settings: of the iteration.
        wanted: for each problem the dtype of its points, if gradients in them are wanted.
    """
    if isinstance(settings.acceleration, Randkhorn):
        raise ValueError(
            "`acceleration` Randkhorn() is for constraints on the marginals: use Anderson(memory) "
            "or None with `reach`"
        )
    space = gibbs_space(max((problem.cost for problem in problems), key=kept_entries))
    return [
        _solved(problem, space, epsilon, settings, dtype)
        for problem, dtype in zip(problems, wanted)
    ]


def _solved(
    problem: EntropicProblem,
    space: Tensor,
    epsilon: float,
    settings: SinkhornSettings,
    dtype: torch.dtype | None,
) -> Solution:
    f, g, _, iterations, minima = iterated(problem, space, epsilon, settings)
    (first, second), a, b = problem.penalties, minima.a, minima.b
    rows = minima.row_shares(f, g)
    columns = rows if problem.symmetric else minima.column_shares(f, g)
    excess = (a * rows).sum() - a.sum() * b.sum()
    value = (a * first.dual(f)).sum() + (b * second.dual(g)).sum() - epsilon * excess
    errors = _residual(first, a, f, rows, epsilon), _residual(second, b, g, columns, epsilon)
    potentials = Potentials(f, g, value, max(errors), iterations)
    slopes = None if dtype is None else _slopes(problem, minima, potentials, dtype)
    return Solution(potentials, rows, columns, slopes)


def _residual(side: Penalty, w: Tensor, f: Tensor, shares: Tensor, epsilon: float) -> float:
    """How far potentials are from those that are best for the marginal of their plan."""
    best = side.potential(f - epsilon * shares.log(), epsilon)
    return float((w * ((f - best) / epsilon).expm1().abs()).sum() / w.sum())


# The dual objective as a function of points, costs and weights


def _in_weights(
    sides: Penalties, a: Tensor, b: Tensor, solution: Solution, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The dual's gradients in the weights."""
    f, g = solution.potentials.f, solution.potentials.g
    of_a = sides[0].dual(f) - epsilon * (solution.rows - b.sum())
    of_b = sides[1].dual(g) - epsilon * (solution.columns - a.sum())
    return of_a, of_b


def _slopes(
    problem: EntropicProblem, minima: Streamed, found: Potentials, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The dual's gradients in the points."""
    cost = problem.cost
    assert isinstance(cost, Points)
    x, y = cost.x, cost.x if problem.symmetric else cost.y
    # means are not taken out, on which the mass of the plan depends
    samples = Separated(x, y, minima.a, minima.b, cost.p, x.new_zeros(x.shape[1]))
    # the value is a price of mass, not a length; points are moved by √ε at least
    value = found.value.abs().clamp_max(minima.epsilon)

    def sums(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor | None]:
        if start.dtype != cost.dtype:
            wide = Points(cost.x, cost.y, cost.p, start.dtype)
            plan = minima.a, minima.b, found.f, found.g, minima.epsilon
            return choose_reductions(wide).slope_sums(plan, start, end)
        return minima.slope_sums(found.f, found.g, start, end)

    return in_points(samples, found._replace(value=value), minima.epsilon, dtype, sums)


def penalised_dual(
    points: tuple[Tensor, Tensor, Tensor, Tensor],
    solution: Solution,
    sides: Penalties,
    epsilon: float,
    p: float,
) -> Tensor:
    """The dual objective at its optimum, float64, as a function of points and weights."""

    def fast(
        x: Tensor, y: Tensor, a: Tensor, b: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        in_points = solution.slopes or (None, None)
        slopes = zip((*in_points, *_in_weights(sides, a, b, solution, epsilon)), wanted)
        value = solution.potentials.value.clone()
        return value, [slope if need else None for slope, need in slopes]

    def plain(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        cost = power_of_squared(squared_by_differences(x.double(), y.double()), p)
        return newton_dual(cost, a, b, solution.potentials.g, sides, epsilon)

    return with_gradient(fast, plain, *points)


def penalised_dual_within(
    x: Tensor, a: Tensor, solution: Solution, side: Penalty, epsilon: float, p: float
) -> Tensor:
    """The dual objective of a sample with itself: each point counts on both sides."""

    def fast(x: Tensor, a: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        of_x = of_a = None
        if solution.slopes is not None and wanted[0]:
            of_x = 2 * solution.slopes[0]
        if wanted[1]:
            of_a = 2 * _in_weights((side, side), a, a, solution, epsilon)[0]
        return solution.potentials.value.clone(), [of_x, of_a]

    def plain(x: Tensor, a: Tensor) -> Tensor:
        cost = power_of_squared(squared_by_differences(x.double(), x.double()), p)
        return newton_dual(cost, a, a, solution.potentials.g, (side, side), epsilon)

    return with_gradient(fast, plain, x, a)


def newton_dual(
    cost: Tensor, a: Tensor, b: Tensor, g: Tensor, sides: Penalties, epsilon: float
) -> Tensor:
    r"""The optimum of the dual as a function of cost and weights, right to second order.

    Eliminating f, D(g; θ) = Σ a_i e(S_b(g)_i) + Σ b_j d_2(g_j) + ε |a| |b| with the envelope
    e(S) = max_f d_1(f) - ε exp((f - S)/ε). As for constraints (`monge.transport.dual`), one Newton
    step of g with the Hessian held fixed gives the second derivatives. Potentials at the bounds
    of their domain do not move.
    """
    first, second = sides

    def envelope(soft: Tensor) -> Tensor:
        f = first.potential(soft, epsilon)
        return first.dual(f) - epsilon * ((f - soft) / epsilon).exp()

    with torch.no_grad():
        sums = log_sums(cost, b, g, epsilon)
        share = b * ((g - cost) / epsilon - sums[:, None]).exp()
        slope, bend = _derivatives(envelope, -epsilon * sums)
        _, own = _derivatives(second.dual, g)
        free = second.is_free(g)
        hessian = (share.T @ (a * slope) / epsilon - b * own).diag()
        hessian = hessian - share.T @ ((a * (bend + slope / epsilon))[:, None] * share)
        hessian = (hessian + hessian.T) / 2 * (free[:, None] & free)
        inverse = symmetric_pseudo_inverse(hessian, rtol=SINGULAR)
    f = first.potential(-epsilon * log_sums(cost, b, g, epsilon), epsilon)
    asked, _ = _derivatives(second.dual, g)
    excess = b * (asked - a @ ((f[:, None] + g - cost) / epsilon).exp())
    g = g + inverse @ (free * excess)
    soft = -epsilon * log_sums(cost, b, g, epsilon)
    return (a * envelope(soft)).sum() + (b * second.dual(g)).sum() + epsilon * a.sum() * b.sum()


def _derivatives(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """The first two derivatives of a function of numbers, one by one."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        # the square keeps the graph of what is linear
        value = (function(z) + 0 * z.square()).sum()
        (first,) = torch.autograd.grad(value, z, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), z)
    return first.detach(), second


# Plans and the divergence


def plan_of_points(
    points: tuple[Tensor, Tensor],
    weights: tuple[Tensor | None, Tensor | None],
    sides: Penalties,
    epsilon: float,
    p: float,
    settings: SinkhornSettings,
) -> Plan:
    """The plan between weighted points."""
    x, y = points
    a, b = masses("a", weights[0], x, len(x)), masses("b", weights[1], y, len(y))
    problem = _problem(x.detach(), y.detach(), a.detach(), b.detach(), p, epsilon, sides)
    (solution,) = solve_penalised([problem], epsilon, settings, [_wanted(x, y)])
    found = solution.potentials
    judge_unbalanced(found, epsilon, settings, x.dtype, RESIDUAL)
    rows, _, linear = choose_reductions(problem.cost).account(
        (problem.a, problem.b, found.f, found.g, epsilon)
    )
    return Plan(
        value=penalised_dual((x, y, a, b), solution, sides, epsilon, p),
        value_linear=linear.to(x.dtype),
        potentials=(found.f.to(x), found.g.to(x)),
        marginal_error=found.error,
        iterations=found.iterations,
        converged=is_converged(found, settings, x.dtype),
        make=lambda: assembled(problem, found, epsilon),
        total=rows.sum().to(x.dtype),
    )


def plan_of_cost(
    cost: Tensor,
    weights: tuple[Tensor | None, Tensor | None],
    sides: Penalties,
    epsilon: float,
    settings: SinkhornSettings,
) -> Plan:
    """The plan for a cost matrix."""
    a = masses("a", weights[0], cost, cost.shape[0])
    b = masses("b", weights[1], cost, cost.shape[1])
    matrix, closed = cost.detach(), forbidden_pairs(cost)
    allowed = matrix if closed is None else matrix[~closed]
    mean = float(allowed.abs().mean()) if allowed.numel() else 0.0
    matrix = matrix.to(kernel_dtype(mean, epsilon, cost.dtype))
    if closed is not None:
        _refuse_unserved(closed, a.detach(), b.detach(), sides)
        highest = sum(side.highest for side in sides if math.isfinite(side.highest))
        matrix = with_forbidden(matrix, closed, epsilon, highest)
    problem = EntropicProblem(Matrix(matrix, mean), a.detach(), b.detach(), penalties=sides)
    price = sum(side.price for side in sides)
    refuse_hidden(problem.cost.mean(), lambda: problem.cost.nearest(problem.a), epsilon, price)
    (solution,) = solve_penalised([problem], epsilon, settings, [None])
    found = solution.potentials
    judge_unbalanced(found, epsilon, settings, cost.dtype, RESIDUAL)
    plan = assembled(problem, found, epsilon)

    def fast(
        cost: Tensor, a: Tensor, b: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        slopes = zip((plan.clone(), *_in_weights(sides, a, b, solution, epsilon)), wanted)
        return found.value.clone(), [slope if need else None for slope, need in slopes]

    def plain(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        moved = cost.double()
        if closed is not None:
            moved = torch.where(closed, matrix.double(), moved)
        return newton_dual(moved, a, b, found.g, sides, epsilon)

    return Plan(
        value=with_gradient(fast, plain, cost, a, b),
        value_linear=(plan * cost.detach().nan_to_num(posinf=0.0)).sum(),
        potentials=(found.f.to(cost), found.g.to(cost)),
        marginal_error=found.error,
        iterations=found.iterations,
        converged=is_converged(found, settings, cost.dtype),
        make=lambda: plan,
        total=plan.sum(),
    )


def _refuse_unserved(closed: Tensor, a: Tensor, b: Tensor, sides: Penalties) -> None:
    """Refuses points that a constraint asks to be served, but to which no pair is open."""
    for name, side, mask, own, other in (
        ("a", sides[0], closed, a, b),
        ("b", sides[1], closed.T, b, a),
    ):
        unserved = (own > 0) & (mask | (other == 0)).all(1)
        if isinstance(side, HardMarginal) and bool(unserved.any()):
            first = int(unserved.nonzero()[0])
            raise ValueError(
                f"`cost` forbids every pair of point {first} of `{name}`, which a constraint asks "
                "to be served: allow one, or give `reach` a penalty for that side"
            )


def divergence_of_points(
    points: tuple[Tensor, Tensor],
    weights: tuple[Tensor | None, Tensor | None],
    sides: Penalties,
    epsilon: float,
    p: float,
    settings: SinkhornSettings,
) -> Tensor:
    """OT_ε(x, y) - ½ OT_ε(x, x) - ½ OT_ε(y, y) + ε/2 (|a| - |b|)²."""
    side = one_penalty(sides)
    x, y = points
    a, b = masses("a", weights[0], x, len(x)), masses("b", weights[1], y, len(y))
    cross = _problem(x.detach(), y.detach(), a.detach(), b.detach(), p, epsilon, sides)
    problems = [cross] + [
        EntropicProblem(Points(z, z, p, cross.cost.dtype), w, w, symmetric=True, penalties=sides)
        for z, w in ((x.detach().double(), cross.a), (y.detach().double(), cross.b))
    ]
    equal = torch.equal(x, y) and torch.equal(a, b)
    if equal:
        # gradients cancel only where all three solutions are one
        (within,) = solve_penalised(problems[1:2], epsilon, settings, [_wanted(x, y)])
        both = None if within.slopes is None else (within.slopes[0], within.slopes[0])
        solutions = [within._replace(slopes=both), within, within]
    else:
        wanted = _wanted(x, y), _wanted(x), _wanted(y)
        solutions = solve_penalised(problems, epsilon, settings, wanted)
    for solution in solutions:
        judge_unbalanced(solution.potentials, epsilon, settings, x.dtype, RESIDUAL)
    of_x = penalised_dual_within(x, a, solutions[1], side, epsilon, p)
    of_y = penalised_dual_within(y, b, solutions[2], side, epsilon, p)
    across = penalised_dual((x, y, a, b), solutions[0], sides, epsilon, p)
    value = across - (of_x + of_y) / 2 + epsilon / 2 * (a.sum() - b.sum()).square()
    return at_least_zero(value, equal)


def _wanted(*points: Tensor) -> torch.dtype | None:
    """The dtype of points that take gradients, or None."""
    return points[0].dtype if any(z.requires_grad for z in points) else None


def _problem(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: float, epsilon: float, sides: Penalties
) -> EntropicProblem:
    """The samples' problem, whose kernel is in a dtype that holds its costs."""
    cost = Points(x.double(), y.double(), p, x.dtype)
    wanted = kernel_dtype(cost.mean(), epsilon, x.dtype)
    price = sum(side.price for side in sides)
    refuse_hidden(cost.mean(), functools.partial(cost.nearest, a), epsilon, price)
    if wanted != x.dtype:
        cost = Points(x.double(), y.double(), p, wanted)
    return EntropicProblem(cost, a, b, penalties=sides)
