r"""Entropic transport: Sinkhorn's algorithm in the log domain, and the Sinkhorn divergence.

    OT_ε(a, b) = min_π ⟨C, π⟩ + ε KL(π | a⊗b)
               = max_{f,g} ⟨a, f⟩ + ⟨b, g⟩ - ε Σ_ij a_i b_j (exp((f_i + g_j - C_ij)/ε) - 1).

At the optimum π_ij = a_i b_j exp((f_i + g_j - C_ij)/ε). ε is in units of the cost d(x, y)^p.
Sinkhorn alternates f = S_b(g), g = S_a(f), with the soft minimum
S_b(g)_i = -ε log Σ_j b_j exp((g_j - C_ij)/ε). With f = S_b(g) the rows of π are exact and the
columns are b_j exp((g_j - S_a(f)_j)/ε), so each iteration yields its marginal error for free.

Gradients are those of the dual at frozen potentials (the envelope theorem): the plan is counted
once. Differentiating the iteration as well would count it twice.

Source: Cuturi, "Sinkhorn distances", 2013; Feydy et al., "Interpolating between optimal transport
and MMD using Sinkhorn divergences", 2019; Peyré, Cuturi, "Computational optimal transport", 2019.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from monge._core.checks import cost_matrix, distribution_weights, points
from monge._core.numerics import Gradients, at_least_zero, with_gradient
from monge._core.promotion import WEIGHTS, promoted, promoted_powers
from monge.transport.accounts import (
    assembled,
    checked_settings,
    is_converged,
    judge_balanced,
    kernel_dtype,
    refuse_hidden,
)
from monge.transport.batched_entropic import (
    sinkhorn_divergence_together,
    sinkhorn_together,
    solve_entropic_together,
)
from monge.transport.dual import Separated, dual, dual_within, newton_dual, separated
from monge.transport.forbidden import feasible_weights, forbidden_pairs, with_forbidden
from monge.transport.ground import Matrix, Points
from monge.transport.penalties import Reach, penalties
from monge.transport.plan import Plan
from monge.transport.potentials import (
    ACCELERATION,
    MOST_ITERATIONS,
    Anderson,
    EntropicProblem,
    Potentials,
    Randkhorn,
    solve_potentials,
)
from monge.transport.reductions import choose_reductions
from monge.transport.unbalanced import divergence_of_points, plan_of_cost, plan_of_points


def _observed(
    rows: Tensor, columns: Tensor, problem: EntropicProblem, solution: Potentials
) -> Potentials:
    """The solution with the marginal error of the plan itself, in place of the solver's."""
    errors = (rows - problem.a).abs().sum(), (columns - problem.b).abs().sum()
    return solution._replace(error=float(max(errors)))


def _problem(samples: Separated, epsilon: float, dtype: torch.dtype) -> EntropicProblem:
    """The samples' problem, whose kernel is in a dtype that holds its costs."""
    problem = samples.problem(dtype)
    wanted = kernel_dtype(problem.cost.mean(), epsilon, dtype)
    refuse_hidden(problem.cost.mean(), lambda: problem.cost.nearest(problem.a), epsilon)
    return problem if wanted == dtype else samples.problem(wanted)


@promoted(solve_entropic_together, cost=2, a=WEIGHTS, b=WEIGHTS)
def solve_entropic(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    tolerance: float = 1e-4,
    max_iterations: int = MOST_ITERATIONS,
    acceleration: Anderson | Randkhorn | None = ACCELERATION,
    reach: Reach = None,
) -> Plan:
    """Entropic transport for a cost matrix C (n, m).

    Args:
        cost: C (n, m); +∞ forbids a pair.
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        epsilon: regularisation, in units of the cost.
        tolerance: on the marginal error, in L1.
        max_iterations: the iteration limit; reaching it warns. An iteration takes two passes over
            the cost.
        acceleration: `Anderson(memory)`, `Randkhorn()`, or None for the plain algorithm.
        reach: the price of marginals that differ from the weights: `KL(rho)`, `TV(rho)` or a
            number, the ρ of a KL, for both sides, or a pair for rows and columns in which None is
            a constraint. Weights may then have any mass, and `tolerance` is on the residual of
            the potentials, in units of the marginal error (`monge.transport.unbalanced`).

    Returns:
        The plan; `value` = ⟨C, π⟩ + ε KL(π | a⊗b), plus the penalties of `reach`, differentiable
        in cost and weights.

    Raises:
        ValueError: for a cost that is not a matrix, NaN or -∞ in it, invalid weights, ε ≤ 0, an ε
            below the rounding of the costs in float64, an invalid `reach`, or forbidden pairs that
            leave no plan.
    """
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    cost_matrix(cost)
    sides = penalties(reach)
    if sides is not None:
        return plan_of_cost(cost, (a, b), sides, epsilon, settings)
    mu = distribution_weights("a", a, cost, cost.shape[0])
    nu = distribution_weights("b", b, cost, cost.shape[1])
    closed = forbidden_pairs(cost)
    if closed is not None:
        feasible_weights(closed, mu, nu)
    # a constant is no cost, but could hide one
    least = cost.detach().amin()
    matrix = cost.detach() - least
    mean = float((matrix if closed is None else matrix[~closed]).mean())
    matrix = matrix.to(kernel_dtype(mean, epsilon, cost.dtype))
    if closed is not None:
        matrix = with_forbidden(matrix, closed, epsilon)
    problem = EntropicProblem(Matrix(matrix, mean), mu.detach(), nu.detach())
    refuse_hidden(problem.cost.mean(), lambda: problem.cost.nearest(problem.a), epsilon)
    (solution,) = solve_potentials([problem], epsilon, settings)
    plan = assembled(problem, solution, epsilon)
    rows, columns = (plan.sum(side, dtype=torch.float64) for side in (1, 0))
    solution = _observed(rows, columns, problem, solution)
    judge_balanced(solution, epsilon, settings, cost.dtype)
    f = solution.f + least.double()

    def fast(
        cost: Tensor, a: Tensor, b: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        slopes = zip((plan.clone(), f - f.mean(), solution.g - solution.g.mean()), wanted)
        return solution.value + least, [slope if need else None for slope, need in slopes]

    def plain(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        moved = cost.double() - least
        if closed is not None:
            moved = torch.where(closed, matrix.double(), moved)
        return newton_dual(moved, a, b, solution.g, epsilon) + least

    return Plan(
        value=with_gradient(fast, plain, cost, mu, nu),
        value_linear=(plan * cost.detach().nan_to_num(posinf=0.0)).sum(),
        potentials=(f.to(cost), solution.g.to(cost)),
        marginal_error=solution.error,
        iterations=solution.iterations,
        converged=is_converged(solution, settings, cost.dtype),
        make=lambda: plan,
    )


@promoted_powers(sinkhorn_together, x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def sinkhorn(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    p: float = 2,
    tolerance: float = 1e-4,
    max_iterations: int = MOST_ITERATIONS,
    acceleration: Anderson | Randkhorn | None = ACCELERATION,
    reach: Reach = None,
) -> Plan:
    """Entropic transport between weighted points, for the cost ‖x_i - y_j‖^p.

    Memory is O(n + m) beyond a bounded size; the plan's matrix is made only on request.

    Args:
        x: points (n, d).
        y: points (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        epsilon: regularisation, in units of the cost; GeomLoss's is p blur^p.
        p: order of the cost, at least 1.
        tolerance: on the marginal error, in L1.
        max_iterations: the iteration limit; reaching it warns.
        acceleration: `Anderson(memory)`, `Randkhorn()`, or None for the plain algorithm.
        reach: the price of marginals that differ from the weights, as for `solve_entropic`; its ρ
            is p reach^p in GeomLoss's units.

    Returns:
        The plan; `value` is differentiable in points and weights.

    Raises:
        ValueError: for an empty sample, NaN or infinity, different dimensions, ε ≤ 0, an ε below
            the rounding of the costs in float64, or invalid weights.

    Example:
        >>> plan = sinkhorn(x, y, epsilon=0.1)
        >>> plan.value, plan.converged
    """
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    x, y = points(x, y, p)
    sides = penalties(reach)
    if sides is not None:
        return plan_of_points((x, y), (a, b), sides, epsilon, p, settings)
    mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
    samples = separated(x.detach(), y.detach(), mu.detach(), nu.detach(), p)
    problem = _problem(samples, epsilon, x.dtype)
    (solution,) = solve_potentials([problem], epsilon, settings)
    rows, columns, linear = choose_reductions(problem.cost).account(
        (problem.a, problem.b, solution.f, solution.g, epsilon)
    )
    observed = _observed(rows, columns, problem, solution)
    judge_balanced(observed, epsilon, settings, x.dtype)
    f, g = samples.potentials(solution)
    return Plan(
        value=dual(x, y, mu, nu, solution, epsilon, p),
        value_linear=samples.linear(rows, columns, linear).to(x.dtype),
        potentials=(f.to(x), g.to(x)),
        marginal_error=observed.error,
        iterations=solution.iterations,
        converged=is_converged(observed, settings, x.dtype),
        make=lambda: assembled(problem, solution, epsilon),
    )


@promoted_powers(sinkhorn_divergence_together, x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    p: float = 2,
    tolerance: float = 1e-4,
    max_iterations: int = MOST_ITERATIONS,
    acceleration: Anderson | Randkhorn | None = ACCELERATION,
    reach: Reach = None,
) -> Tensor:
    """OT_ε(x, y) - ½ OT_ε(x, x) - ½ OT_ε(y, y), on the scale of the cost ‖x - y‖^p, no root.

    At least 0, and 0 at equality. Elsewhere its error is that of the `tolerance` of the potentials
    and, for large ε, rounding: a value below that, which would come out negative, is 0 with the
    gradient that it has. It is W_p^p as ε → 0, half of the energy distance (p = 1) or
    ‖E x - E y‖² (p = 2) as ε → ∞. Differentiable in points and weights.

    With `reach`, one penalty for both sides, it is the divergence of unbalanced transport,
    which adds ε/2 (Σ a - Σ b)²: also at least 0, and 0 at equality of points and masses.

    Args:
        x: points (n, d).
        y: points (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        epsilon: regularisation, in units of the cost; GeomLoss's is p blur^p.
        p: order of the cost, at least 1.
        tolerance: on the marginal error of each of the three plans, in L1.
        max_iterations: the iteration limit; reaching it warns.
        acceleration: `Anderson(memory)`, `Randkhorn()`, or None for the plain algorithm.
        reach: `KL(rho)`, `TV(rho)` or the ρ of a KL, with ρ in units of the cost.

    Raises:
        ValueError: for an empty sample, NaN or infinity, different dimensions, ε ≤ 0, an ε below
            the rounding of the costs in float64, or invalid weights.

    Example:
        >>> loss = sinkhorn_divergence(model_samples, data, epsilon=0.1)
        >>> loss.backward()
    """
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    x, y = points(x, y, p)
    sides = penalties(reach)
    if sides is not None:
        return divergence_of_points((x, y), (a, b), sides, epsilon, p, settings)
    mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
    samples = separated(x.detach(), y.detach(), mu.detach(), nu.detach(), p)
    problem = _problem(samples, epsilon, x.dtype)
    within_x, within_y = (
        EntropicProblem(Points(z, z, p, problem.cost.dtype), w, w, symmetric=True)
        for z, w in ((samples.x, samples.a), (samples.y, samples.b))
    )
    equal = torch.equal(x, y) and torch.equal(mu, nu)
    if equal:
        cross = of_x = of_y = solve_potentials([within_x], epsilon, settings)[0]
    else:
        problems = [problem, within_x, within_y]
        cross, of_x, of_y = solve_potentials(problems, epsilon, settings)
    for solution in (cross, of_x, of_y):
        judge_balanced(solution, epsilon, settings, x.dtype)

    within = dual_within(x, mu, of_x, epsilon, p) + dual_within(y, nu, of_y, epsilon, p)
    value = dual(x, y, mu, nu, cross, epsilon, p) - within / 2
    return at_least_zero(value, equal)
