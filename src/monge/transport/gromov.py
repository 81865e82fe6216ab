r"""Gromov-Wasserstein: transport between spaces that share no coordinates, by their distances.

    GW = min_π Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl   over couplings π of a and b.

The problem is not convex: the best stationary point of several starts is returned
(`monge.transport.gromov_starts`, `monge.transport.quadratic`).

Source: Mémoli, "Gromov-Wasserstein distances and the metric approach to object matching", 2011;
Peyré, Cuturi, Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", 2016.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from monge._core.checks import dimension, distribution_weights, positive
from monge._core.errors import warn
from monge._core.promotion import WEIGHTS, promoted
from monge.transport.exact import solve
from monge.transport.gromov_starts import (
    Couplings,
    Starts,
    entropic_starting_plans,
    starting_plans,
)
from monge.transport.linearised import (
    LOOSENESS,
    Alternated,
    entropic_plan_of,
    most_in_all,
)
from monge.transport.plan import Plan
from monge.transport.quadratic import (
    Oracle,
    Quadratic,
    Support,
    couplings,
    epsilon_in_units,
    in_given_units,
    in_units,
    space,
    stationary,
)


def warn_of(what: str, iterations: int) -> None:
    """Warns of a descent that was stopped."""
    warn(
        f"Gromov-Wasserstein stopped after {iterations} iterations with a {what}: raise "
        "`tolerance` or `max_iterations`"
    )


def best_stationary(
    problem: Quadratic, plans: Iterable[Tensor], oracle: Oracle, tolerance: float, most: int
) -> tuple[Tensor, int, bool]:
    """The best of the plans that starts lead to, its iterations, and whether it converged; a plan
    that did not warns."""
    results = [stationary(problem, plan, oracle, tolerance, most) for plan in plans]
    plan, iterations, converged = min(results, key=lambda found: float(problem.value(found[0])))
    if not converged:
        warn_of(f"gap to the linearised problem above `tolerance` {tolerance:.2g}", iterations)
    return plan, iterations, converged


def exact_plan(
    problem: tuple[Tensor, Tensor, Tensor],
    weights: tuple[Tensor | None, Tensor | None],
    starts: Starts,
    tolerance: float,
    most: int,
    generator: torch.Generator | None,
) -> Plan:
    """The best stationary point of a quadratic problem (cx, cy, linear) from several starts."""
    tolerance = positive("tolerance", tolerance)
    dimension("max_iterations", most)
    a, b = _weights(problem[0], problem[1], weights)
    moving, unit = in_units(*problem, a, b)
    dtype = problem[0].dtype
    fixed, mu, nu = moving.detached(dtype), a.detach().to(dtype), b.detach().to(dtype)
    support = Support.of(mu, nu)
    some = fixed.among(support)
    oracle = couplings(some, mu[support.rows], nu[support.columns])
    begun = map(support.part, starting_plans(fixed, Couplings(mu, nu), starts, generator))
    found, iterations, converged = best_stationary(some, begun, oracle, tolerance, most)
    plan = support.whole(found)
    f, g = solve(fixed.slope(plan), mu, nu).potentials
    value = fixed.value(plan)
    # squares of differences, of which rounding may leave less than nothing
    value = value if bool(fixed.linear.any()) else value.clamp(min=0)
    error = max((plan.sum(1) - mu).abs().sum(), (plan.sum(0) - nu).abs().sum())
    solved = Plan(value, value, (f, g), float(error), iterations, converged, make=lambda: plan)
    return in_given_units(solved, moving, unit, (a, f - f.mean()), (b, g - g.mean()))


def entropic_plan(
    problem: tuple[Tensor, Tensor, Tensor],
    weights: tuple[Tensor | None, Tensor | None],
    epsilon: float,
    starts: Starts,
    tolerance: float,
    most: int,
    generator: torch.Generator | None,
) -> Plan:
    """The best fixed point of Sinkhorn on the slope of a quadratic problem."""
    tolerance = positive("tolerance", tolerance)
    dimension("max_iterations", most)
    a, b = _weights(problem[0], problem[1], weights)
    moving, unit = in_units(*problem, a, b)
    epsilon = epsilon_in_units(epsilon, unit, problem[0].dtype)
    dtype = problem[0].dtype
    fixed, mu, nu = moving.detached(dtype), a.detach().to(dtype), b.detach().to(dtype)
    product = a.detach()[:, None] * b.detach()
    plans = entropic_starting_plans(fixed, Couplings(mu, nu), starts, generator)

    def regularised(plan: Tensor) -> Tensor:
        wide = plan.double()
        ratio = wide / product.clamp_min(torch.finfo(torch.float64).tiny)
        # with both masses, whose rounding a large ε would multiply; those of a plan are equal
        divergence = (torch.xlogy(wide, ratio) - wide + product).sum()
        return fixed.value(plan) + epsilon * divergence

    results = [_alternated(fixed, mu, nu, plan, epsilon, tolerance, most) for plan in plans]
    found = min(results, key=lambda result: float(regularised(result.last.plan)))
    converged = found.warn_unless_standing(tolerance, most, "a marginal error")
    plan, (f, g) = found.last.plan, found.last.potentials
    f = f + fixed.slope(plan).min()
    solved = Plan(
        value=regularised(plan),
        value_linear=fixed.value(plan),
        potentials=(f, g),
        marginal_error=found.last.error,
        iterations=found.iterations,
        converged=converged,
        make=lambda: plan,
    )
    return in_given_units(solved, moving, unit, (a, f - f.mean()), (b, g - g.mean()))


def _alternated(
    problem: Quadratic,
    a: Tensor,
    b: Tensor,
    plan: Tensor,
    epsilon: float,
    tolerance: float,
    most: int,
) -> Alternated:
    """Sinkhorn on the slope, until the plan stands."""
    iteration, used, start, change = 0, 0, None, 1.0
    while True:
        loose, left = max(tolerance, LOOSENESS * change), most_in_all(most) - used
        inner = entropic_plan_of(problem.slope(plan), (a, b), epsilon, loose, start, left)
        change = float((inner.plan - plan).abs().sum())
        iteration, used = iteration + 1, used + inner.iterations
        now = Alternated(inner, iteration, used, change)
        if now.is_over(tolerance, most):
            return now
        plan, start = inner.plan, now.start()


def _weights(
    cx: Tensor, cy: Tensor, weights: tuple[Tensor | None, Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Both weights in float64."""
    return (
        distribution_weights("a", weights[0], cx, len(cx)),
        distribution_weights("b", weights[1], cy, len(cy)),
    )


def _without_linear(cx: Tensor, cy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    cx, cy = space("cx", cx), space("cy", cy)
    return cx, cy, cx.new_zeros(len(cx), len(cy))


@promoted(cx=2, cy=2, a=WEIGHTS, b=WEIGHTS)
def gromov_wasserstein(
    cx: Tensor,
    cy: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    starts: Starts = 4,
    tolerance: float = 1e-9,
    max_iterations: int = 1000,
    generator: torch.Generator | None = None,
) -> Plan:
    """Gromov-Wasserstein with square loss, by conditional gradient from several starts.

    Args:
        cx: distances within the first space, (n, n); of a directed graph they need not be
            symmetric.
        cy: distances within the second, (m, m).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        starts: the number of starting plans: the matching of mean distances, the product plan, the
            matching of sorted distances, then matchings by distances to random landmarks; or the
            plans themselves, (n, m) or several of them. The best stationary point is returned; it
            need not be the global minimum. For 100 planar clouds of 6 points it was the best
            permutation in 93 cases with 4 starts (at most 18 % above it in the others), and in all
            100 with 16.
        tolerance: on the duality gap of the linearised problem, relative to its value.
        max_iterations: the limit of conditional gradient steps per start; a returned plan that
            reached it warns.
        generator: draws the landmarks, on the CPU; by default one of seed 0, so that equal
            arguments give equal plans.

    Returns:
        The plan; `value` is the objective, no root, differentiable in cx, cy and the weights at
        the returned plan. `potentials` are those of the problem linearised at the plan.

    Raises:
        ValueError: for a cost that is not square and finite, invalid weights, or starts that are
            no couplings of them.
    """
    problem = _without_linear(cx, cy)
    return exact_plan(problem, (a, b), starts, tolerance, max_iterations, generator)


@promoted(cx=2, cy=2, a=WEIGHTS, b=WEIGHTS)
def entropic_gromov_wasserstein(
    cx: Tensor,
    cy: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    starts: Starts = 1,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
    generator: torch.Generator | None = None,
) -> Plan:
    """Gromov-Wasserstein + ε KL(π | a⊗b), by Sinkhorn on the linearised cost.

    A single start is the product plan; more are those of `gromov_wasserstein`, of which the best
    fixed point is returned.

    Args:
        cx: distances within the first space, (n, n); of a directed graph they need not be
            symmetric.
        cy: distances within the second, (m, m).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        epsilon: regularisation, in units of the squared difference of distances.
        starts: the number of starting plans, or the plans themselves.
        tolerance: on the change of the plan between iterations, in L1.
        max_iterations: the iteration limit of a start, whose iterations together take at most
            10,000 of Sinkhorn, or as many as this limit if it is larger; reaching either warns.
        generator: draws the landmarks, on the CPU; by default one of seed 0, so that equal
            arguments give equal plans.

    Returns:
        The plan; `value` is the objective with its entropic term, differentiable in costs and
        weights at the returned plan, and `value_linear` the objective without that term and
        without gradient.

    Raises:
        ValueError: for a cost that is not square and finite, ε ≤ 0, invalid weights, or starts
            that are no couplings of them.
    """
    problem = _without_linear(cx, cy)
    return entropic_plan(problem, (a, b), epsilon, starts, tolerance, max_iterations, generator)
