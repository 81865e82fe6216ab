r"""Unbalanced Gromov-Wasserstein: penalties on the marginals in place of constraints.

    UGW = min_π Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl + ρ_1 KL⊗(π1 | a) + ρ_2 KL⊗(πᵀ1 | b)
                + ε KL⊗(π | a⊗b),
    KL⊗(r | w) = KL(r⊗r | w⊗w) = 2 |r| KL(r | w) + (|r| - |w|)².

All terms but the last grow with the square of the mass, so that the plan of masses s a and s b is
s times that of a and b, up to ε. With π⊗γ in place of π⊗π the problem is convex in π, and for a
fixed γ of mass m it is m times unbalanced transport (`monge.transport.unbalanced`) with ε, ρ_1,
ρ_2 and the cost

    (Σ_kl (cx_ik - cy_jl)² γ_kl + ρ_1 Σ_k r_k log(r_k/a_k) + ρ_2 Σ_l s_l log(s_l/b_l)
     + ε Σ_kl γ_kl log(γ_kl/(a_k b_l))) / m,   r and s the marginals of γ.

The best π is the next γ, once both have one mass; a π that stays is a stationary point of UGW.

Source: Séjourné, Vialard, Peyré, "The unbalanced Gromov Wasserstein distance: conic formulation
and relaxation", 2021.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import dimension, masses, positive
from monge._core.promotion import WEIGHTS, promoted
from monge.transport.exact import solve
from monge.transport.gromov_starts import FeasiblePlans, Starts, entropic_starting_plans
from monge.transport.linearised import (
    LOOSENESS,
    Alternated,
    Linearised,
    entropic_plan_of,
    most_in_all,
)
from monge.transport.penalties import KL, HardMarginal, Penalties, Penalty, Reach, penalties
from monge.transport.plan import Plan
from monge.transport.quadratic import (
    Quadratic,
    epsilon_in_units,
    in_given_units,
    in_units,
    space,
)
from monge.transport.unbalanced import RESIDUAL

LEAST_SHARE = 1e-30
"""The share of the mass below which none is kept."""


@dataclass(frozen=True)
class PlansOfMass(FeasiblePlans):
    """Plans of any marginals, scaled to a mass."""

    mass: float

    def matched(self, cost: Tensor) -> Tensor:
        return self.mass * solve(cost, self.a / self.a.sum(), self.b / self.b.sum()).plan

    def product(self) -> Tensor:
        return self.a[:, None] * self.b * (self.mass / (self.a.sum() * self.b.sum()))

    def error(self, plan: Tensor) -> Tensor:
        return torch.where(plan.sum() > 0, 0.0, torch.inf)


@dataclass(frozen=True)
class UnbalancedProblem:
    """A quadratic problem with weights, penalties and ε in its units, without gradient."""

    spaces: Quadratic
    a: Tensor
    b: Tensor
    sides: Penalties
    epsilon: float

    def terms(self, plan: Tensor) -> list[tuple[float, Tensor, Tensor]]:
        """The price of each divergence, and what it compares with what."""
        compared = (plan.sum(1), self.a), (plan.sum(0), self.b)
        soft = [
            (side.price, *pair)
            for side, pair in zip(self.sides, compared)
            if not isinstance(side, HardMarginal)
        ]
        return [*soft, (self.epsilon, plan, self.a[:, None] * self.b)]

    def value(self, plan: Tensor) -> Tensor:
        """The objective, at least 0."""
        total = self.spaces.value(plan).double()
        for price, *pair in self.terms(plan):
            r, w = (z.double() for z in pair)  # a large price multiplies their rounding
            # 2 |r| KL + (|r| - |w|)², in which |r|² cancels once
            total = total + price * (
                2 * r.sum() * _relative(r, w) - r.sum().square() + w.sum().square()
            )
        return total.clamp(min=0)

    def next(
        self, plan: Tensor, tolerance: float, start: tuple[Tensor, Tensor] | None, most: int
    ) -> "Step":
        """The best plan beside this one, with the mass that both have in common.

        A constant of the cost changes the mass only, which is the exponential of a mean cost: it
        is left out, so that Sinkhorn meets costs of the order of ρ where there are any.
        """
        mass, epsilon = plan.sum(), self.epsilon
        constant = sum(price * _relative(r, w) for price, r, w in self.terms(plan))
        cost = (self.spaces.fixed(plan) - 2 * self.spaces.product(plan)) / mass
        constant = constant / mass + cost.min()
        weights = self.a, self.b
        inner = entropic_plan_of(cost, weights, epsilon, tolerance, start, most, self.sides)
        following, potentials = inner.plan, inner.potentials
        if self.constrained():
            f, g = (
                z + constant if isinstance(side, HardMarginal) else z
                for side, z in zip(self.sides, potentials)
            )
            return Step(following, (f, g), inner)
        shape = following / following.sum()
        mean_cost = ((cost - cost.min()) * shape).sum() + constant
        mean_cost = mean_cost + sum(price * _relative(r, w) for price, r, w in self.terms(shape))
        own = -mean_cost / sum(price for price, _, _ in self.terms(shape))
        kept = ((mass.log() + own) / 2).exp()
        if not float(kept) > LEAST_SHARE * _first_mass(self):
            raise ValueError(
                f"`reach` is so small beside `cx` and `cy` that a mass of {float(kept):.1g} would "
                "be kept: raise it, or divide the matrices"
            )
        scale = kept / following.sum()
        f, g = (z - side.price * scale.log() for side, z in zip(self.sides, potentials))
        return Step(scale * following, (f, g), inner)

    def constrained(self) -> bool:
        """Whether a marginal is a constraint, which is then all of the mass."""
        return any(isinstance(side, HardMarginal) for side in self.sides)


class Step(NamedTuple):
    """A plan beside another one."""

    plan: Tensor
    potentials: tuple[Tensor, Tensor]
    inner: Linearised
    """The problem that was solved for it."""


def _relative(r: Tensor, w: Tensor) -> Tensor:
    """Σ r log(r/w)."""
    return torch.xlogy(r, r / w.clamp_min(torch.finfo(w.dtype).tiny)).sum()


def _kl_or_constraint(reach: Reach) -> Penalties:
    sides = penalties(reach)
    if sides is None:
        raise ValueError(
            "`reach` must have a penalty for one side at least, got None: for constraints use "
            "`entropic_gromov_wasserstein`"
        )
    for side in sides:
        if not isinstance(side, (KL, HardMarginal)):
            raise ValueError(
                f"`reach` must be KL(rho), a number or None for Gromov-Wasserstein, got {side}: "
                "to leave points out as a whole use `partial_gromov_wasserstein`"
            )
    return sides


def _first_mass(problem: UnbalancedProblem) -> float:
    """The mass of starts: what a constraint asks for, or else the mean of both."""
    totals = float(problem.a.sum()), float(problem.b.sum())
    for total, side in zip(totals, problem.sides):
        if isinstance(side, HardMarginal):
            return total
    return (totals[0] * totals[1]) ** 0.5


def _in_unit(side: Penalty, unit: float) -> Penalty:
    return KL(side.rho / unit) if isinstance(side, KL) else side


def _alternated(
    problem: UnbalancedProblem, plan: Tensor, tolerance: float, most: int
) -> tuple[Step, Alternated]:
    """The last step, and where the iteration has ended.

    Two plans may be the best beside each other without being one, which are not what is looked
    for: where the iteration returns to the plan before, its steps are halved from then on.
    """
    before, iteration, used, length, start, change = plan, 0, 0, 1.0, None, 1.0
    while True:
        left = most_in_all(most) - used
        step = problem.next(plan, max(tolerance, LOOSENESS * change), start, left)
        moved = (step.plan - plan).abs().sum()
        change = float(moved / step.plan.sum())
        iteration, used = iteration + 1, used + step.inner.iterations
        now = Alternated(step.inner, iteration, used, change)
        if now.is_over(tolerance, most):
            return step, now
        start = now.start()
        if iteration > 1 and 2 * (step.plan - before).abs().sum() < moved:
            length /= 2
        before, plan = plan, plan + length * (step.plan - plan)


def _in_weights(problem: UnbalancedProblem, step: Step) -> tuple[Tensor, Tensor]:
    """The gradients of the objective in both weights at a stationary plan."""
    (first, second), (f, g), plan = problem.sides, step.potentials, step.plan
    return (
        _in_weight(first, f, problem.a, plan.sum(1), problem.b.sum(), problem.epsilon),
        _in_weight(second, g, problem.b, plan.sum(0), problem.a.sum(), problem.epsilon),
    )


def _in_weight(
    side: Penalty, f: Tensor, w: Tensor, r: Tensor, other: Tensor, epsilon: float
) -> Tensor:
    """The gradient in the weights w with marginal r, beside weights of another total."""
    mass = r.sum()
    # what a point without weight would keep of it
    kept = (-f / side.price).exp() if isinstance(side, KL) else torch.ones_like(f)
    share = torch.where(w > 0, r / w, kept)
    slope = 2 * epsilon * (w.sum() * other.square() - mass * share)
    if isinstance(side, KL):
        return slope + 2 * side.price * (w.sum() - mass * share)
    return slope + 2 * mass * f


@promoted(cx=2, cy=2, a=WEIGHTS, b=WEIGHTS)
def unbalanced_gromov_wasserstein(
    cx: Tensor,
    cy: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    reach: Reach,
    starts: Starts = 1,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    generator: torch.Generator | None = None,
) -> Plan:
    """Entropic Gromov-Wasserstein with penalties on the marginals.

    The objective at the top of `monge.transport.unbalanced_gromov`: points that stand in relations
    to which little corresponds keep a small share of their mass.

    Args:
        cx: distances within the first space, (n, n).
        cy: distances within the second, (m, m).
        a: weights (n,), at least 0, of any sum; uniform with sum 1 by default.
        b: weights (m,).
        epsilon: regularisation, in units of the squared difference of distances.
        reach: what marginals that are not the weights cost: `KL(rho)` or a number, its ρ, for both
            sides, or a pair for x and y in which None is a constraint. ρ is in units of the
            squared difference of distances.
        starts: how many starting plans: one is the product plan, more are those of
            `gromov_wasserstein`; or plans of your own, scaled to the mass √(|a| |b|).
        tolerance: on the L1 change of the plan between iterations, as a share of its mass.
        max_iterations: most unbalanced problems of a start, which together take at most 10,000
            iterations, or as many as this limit if it is larger; reaching either warns.
        generator: draws the landmarks, on the CPU; by default one of seed 0, so that equal
            arguments give equal plans.

    Returns:
        The plan; `value` is the objective, differentiable in costs and weights at the returned
        plan, `value_linear` its first term without gradient, `mass` what is transported.
        `potentials` and `marginal_error` are those of the last unbalanced problem.

    Raises:
        ValueError: for a cost that is not square and finite, invalid weights, ε ≤ 0, or a `reach`
            that is no KL, or at which next to no mass is kept.
    """
    tolerance = positive("tolerance", tolerance)
    dimension("max_iterations", max_iterations)
    sides = _kl_or_constraint(reach)
    cx, cy = space("cx", cx), space("cy", cy)
    mu, nu = masses("a", a, cx, len(cx)), masses("b", b, cy, len(cy))
    moving, unit = in_units(cx, cy, cx.new_zeros(len(cx), len(cy)), mu, nu)
    scaled = epsilon_in_units(epsilon, unit, cx.dtype)
    first, second = (_in_unit(side, unit**2) for side in sides)
    problem = UnbalancedProblem(
        moving.detached(cx.dtype),
        mu.detach().to(cx),
        nu.detach().to(cx),
        (first, second),
        scaled,
    )
    plans = PlansOfMass(problem.a, problem.b, _first_mass(problem))
    results = [
        _alternated(problem, plan * (plans.mass / plan.sum()), tolerance, max_iterations)
        for plan in entropic_starting_plans(problem.spaces, plans, starts, generator)
    ]
    step, found = min(results, key=lambda result: float(problem.value(result[0].plan)))
    converged = found.warn_unless_standing(tolerance, max_iterations, RESIDUAL)
    plan = step.plan
    solved = Plan(
        value=problem.value(plan),
        value_linear=problem.spaces.value(plan),
        potentials=step.potentials,
        marginal_error=step.inner.error,
        iterations=found.iterations,
        converged=converged,
        make=lambda: plan,
        total=plan.sum(),
    )
    return in_given_units(solved, moving, unit, *zip((mu, nu), _in_weights(problem, step)))
