r"""Partial Gromov-Wasserstein: the best plan of a given mass between two spaces.

    PGW = min_π Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl   over π ≥ 0, π1 ≤ a, πᵀ1 ≤ b, Σ_ij π_ij = s.

Points that stand in relations to which nothing corresponds are left out, as the outliers of a
shape or the other half of it. Each step of the conditional gradient is partial transport of the
slope (`monge.transport.partial`).

Source: Chapel, Alaya, Gasso, "Partial optimal transport with applications on positive-unlabeled
learning", 2020.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from monge._core.checks import dimension, masses, positive
from monge._core.promotion import WEIGHTS, promoted
from monge.transport.gromov import best_stationary
from monge.transport.gromov_starts import FeasiblePlans, Starts, starting_plans
from monge.transport.partial import checked_mass, solve_partial
from monge.transport.plan import Plan
from monge.transport.quadratic import Support, in_given_units, in_units, space


@dataclass(frozen=True)
class PartialPlans(FeasiblePlans):
    """The plans of a mass with marginals of at most a and b."""

    mass: float

    def matched(self, cost: Tensor) -> Tensor:
        return solve_partial(cost, self.a, self.b, mass=self.mass).plan

    def product(self) -> Tensor:
        return self.a[:, None] * self.b * (self.mass / (self.a.sum() * self.b.sum()))

    def error(self, plan: Tensor) -> Tensor:
        excess = (plan.sum(1) - self.a).clamp_min(0).sum()
        excess = excess + (plan.sum(0) - self.b).clamp_min(0).sum()
        return (excess + (plan.sum() - self.mass).abs()) / self.mass


@promoted(cx=2, cy=2, a=WEIGHTS, b=WEIGHTS)
def partial_gromov_wasserstein(
    cx: Tensor,
    cy: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    mass: float,
    starts: Starts = 8,
    tolerance: float = 1e-9,
    max_iterations: int = 1000,
    generator: torch.Generator | None = None,
) -> Plan:
    """Gromov-Wasserstein of a part of the mass, by conditional gradient from several starts.

    Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl, the smallest that is found over plans of the mass that leave
    the rest of both sides where it is.

    Args:
        cx: distances within the first space, (n, n); of a directed graph they need not be
            symmetric.
        cy: distances within the second, (m, m).
        a: weights (n,), at least 0, of any sum; uniform with sum 1 by default.
        b: weights (m,).
        mass: the mass s that is transported, at most the smaller sum of the weights.
        starts: how many starting plans, those of `gromov_wasserstein` as partial matchings; or
            plans of the mass. Mean and sorted distances depend on the points that will be left
            out, those to landmarks do not: more starts pay sooner than for whole spaces.
        tolerance: on the duality gap of the linearised problem, relative to its value.
        max_iterations: most conditional gradient steps of a start; a returned plan that reached
            the limit warns.
        generator: draws the landmarks, on the CPU; by default one of seed 0, so that equal
            arguments give equal plans.

    Returns:
        The plan; `value` is the objective, no root and not divided by s², differentiable in cx, cy
        and the weights at the returned plan. `potentials`, at most 0, are those of the partial
        problem linearised at the plan; `marginal_error` is the mass by which π exceeds the weights
        or misses s.

    Raises:
        ValueError: for a cost that is not square and finite, invalid weights, a mass that is not
            positive or more than either side has, or starts that are no plans of it.
    """
    tolerance = positive("tolerance", tolerance)
    dimension("max_iterations", max_iterations)
    cx, cy = space("cx", cx), space("cy", cy)
    mu, nu = masses("a", a, cx, len(cx)), masses("b", b, cy, len(cy))
    moving, unit = in_units(cx, cy, cx.new_zeros(len(cx), len(cy)), mu, nu)
    mass = checked_mass(mass, mu.detach(), nu.detach())
    fixed = moving.detached(cx.dtype)
    plans = PartialPlans(mu.detach().to(cx), nu.detach().to(cx), mass)
    support = Support.of(plans.a, plans.b)
    some, of_some = fixed.among(support), plans.among(support)

    def vertex(slope: Tensor) -> tuple[Tensor, Tensor]:
        plan = of_some.matched(slope)
        return plan, some.product(plan)

    begun = map(support.part, starting_plans(fixed, plans, starts, generator))
    found, iterations, converged = best_stationary(some, begun, vertex, tolerance, max_iterations)
    plan = support.whole(found)
    f, g = solve_partial(fixed.slope(plan), plans.a, plans.b, mass=mass).potentials
    value = fixed.value(plan).clamp(min=0)
    solved = Plan(
        value=value,
        value_linear=value,
        potentials=(f, g),
        marginal_error=float(plans.error(plan)) * mass,
        iterations=iterations,
        converged=converged,
        make=lambda: plan,
        total=torch.full_like(value, mass),
    )
    return in_given_units(solved, moving, unit, (mu, f), (nu, g))
