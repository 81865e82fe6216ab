r"""Entropic partial transport: the regularised plan of a given mass.

    min_π ⟨C, π⟩ + ε KL(π | a⊗b)   over π ≥ 0, π1 ≤ a, πᵀ1 ≤ b, Σ_ij π_ij = s
  = max ⟨a, f⟩ + ⟨b, g⟩ + λ s - ε Σ_ij a_i b_j (exp((f_i + g_j + λ - C_ij)/ε) - 1)   over f, g ≤ 0,

with KL(π | r) = Σ π log(π/r) - π + r. Split λ = μ + ν and let F = f + μ ≤ μ, G = g + ν ≤ ν: then
π_ij = a_i b_j exp((F_i + G_j - C_ij)/ε), and the best F and μ for a G are F = min(S_b(G), μ),
with the μ at which the plan has the mass s. This is Sinkhorn's iteration with potentials that are
cut off at a level, which a sort finds. Each half step is an exact maximisation in two of the
three dual variables of the source, whose projections treat them one by one.

Source: Benamou, Carlier, Cuturi, Nenna, Peyré, "Iterative Bregman projections for regularized
transportation problems", 2015.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import cost_matrix, masses
from monge._core.numerics import envelope
from monge._core.promotion import WEIGHTS, promoted
from monge.transport.accounts import (
    assembled,
    checked_settings,
    is_converged,
    judge_unbalanced,
    kernel_dtype,
)
from monge.transport.fixed_point import Anderson, advanced, started
from monge.transport.forbidden import forbidden_pairs, with_forbidden
from monge.transport.gibbs import Streamed, choose_minima
from monge.transport.ground import Matrix, log_weights
from monge.transport.partial import checked_mass, refuse_infeasible
from monge.transport.plan import Plan
from monge.transport.potentials import (
    ACCELERATION,
    MOST_ITERATIONS,
    EntropicProblem,
    Potentials,
    Randkhorn,
    SinkhornSettings,
    gibbs_space,
    warm_up_scales,
)

WARM_UP_FACTOR, WARM_UP = 2, SinkhornSettings(Anderson(), 0.01, 50)
"""Small steps from one regularisation to the next: which points are cut off is decided on the way,
and where a step of 8 leaves most of the mass but little of it out, undoing it takes thousands of
iterations."""


class Levels(NamedTuple):
    """Potentials F (n,) that are cut off at a level, and the level."""

    potentials: Tensor
    level: Tensor


def cut_off(soft: Tensor, w: Tensor, mass: float, epsilon: float) -> Levels:
    """Soft minima S cut off at the level μ at which the marginal w_i min(1, exp((μ - S_i)/ε)) has
    the mass.

    With the k smallest soft minima below μ the mass is their weight and exp(μ/ε) times a sum over
    the others; the first k for which μ is below the next soft minimum is right.
    """
    minima, order = soft.sort()
    sorted_w = w[order]
    left = mass - (sorted_w.cumsum(0) - sorted_w)
    others = (log_weights(sorted_w) - minima / epsilon).flip(0).logcumsumexp(0).flip(0)
    levels = torch.where(left > 0, epsilon * (left.clamp_min(0).log() - others), torch.inf)
    fits = levels <= minima
    # rounding may leave none, by a last place: then it is the last one from which mass is left
    index = torch.where(fits.any(), fits.int().argmax(), (left > 0).sum() - 1)
    level = torch.minimum(levels[index], minima[-1])
    return Levels(soft.clamp_max(level), level)


def _step(minima: Streamed, g: Tensor, mass: float) -> tuple[Levels, Levels, Tensor]:
    """The best potentials for g, the best for those, and the L1 distance of both marginals of the
    second side, as a share of the mass."""
    first = cut_off(minima.rows(g), minima.a, mass, minima.epsilon)
    soft = minima.columns(first.potentials)
    second = cut_off(soft, minima.b, mass, minima.epsilon)
    before, after = (((z - soft) / minima.epsilon).exp() for z in (g, second.potentials))
    return first, second, (minima.b * (before - after).abs()).sum() / mass


def _iterated(
    minima: Streamed, g: Tensor, mass: float, settings: SinkhornSettings
) -> tuple[Tensor, int]:
    """The fixed point of the step, with Anderson's acceleration, and the number of steps."""
    memory = settings.acceleration.memory if isinstance(settings.acceleration, Anderson) else 0
    state = started(g, memory)
    for iteration in range(1, settings.most + 1):
        _, second, error = _step(minima, state.h, mass)
        last = iteration == settings.most
        state = advanced(state, second.potentials, error, settings.tolerance, last)
        if bool(state.done):
            break
    return state.h, int(state.iteration)


def _solved(
    problem: EntropicProblem, mass: float, epsilon: float, settings: SinkhornSettings
) -> tuple[Potentials, tuple[Tensor, Tensor]]:
    """The potentials F and G, and the levels μ and ν."""
    cost = problem.cost
    minima = choose_minima(cost, problem.a, problem.b, gibbs_space(cost))
    f, g, used = torch.zeros_like(minima.a), torch.zeros_like(minima.b), 0
    for larger in warm_up_scales(cost, epsilon, problem.penalties, WARM_UP_FACTOR):
        minima.begin(f, g, larger)
        g, count = _iterated(minima, g, mass, WARM_UP)
        f, used = minima.rows(g), used + count
    minima.begin(f, g, epsilon)
    g, count = _iterated(minima, g, mass, settings)
    _, second, _ = _step(minima, g, mass)
    first, _, error = _step(minima, second.potentials, mass)
    (f, mu), (g, nu) = first, second
    total = minima.a.sum() * minima.b.sum()
    value = (minima.a * (f - mu)).sum() + (minima.b * (g - nu)).sum()
    value = value + (mu + nu) * mass - epsilon * (mass - total)
    return Potentials(f, g, value, float(error), used + count), (mu, nu)


def _shares(marginal: Tensor, w: Tensor) -> Tensor:
    """marginal / w, for the gradient in weights; 0 where there is none."""
    return torch.where(w > 0, marginal / w, 0.0)


@promoted(cost=2, a=WEIGHTS, b=WEIGHTS)
def solve_entropic_partial(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    mass: float,
    epsilon: float,
    tolerance: float = 1e-4,
    max_iterations: int = MOST_ITERATIONS,
    acceleration: Anderson | None = ACCELERATION,
) -> Plan:
    """The entropic plan of a given mass, for a cost matrix.

    Args:
        cost: C (n, m), of any sign; +∞ forbids a pair.
        a: weights (n,), at least 0, of any sum; uniform with sum 1 by default.
        b: weights (m,).
        mass: the mass s that is transported, at most the smaller sum of the weights.
        epsilon: regularisation, in units of the cost.
        tolerance: on the L1 change of a marginal by another iteration, as a share of the mass.
        max_iterations: the iteration limit, which warns where it is reached.
        acceleration: `Anderson(memory)`, or None for the plain algorithm.

    Returns:
        The plan, with π1 ≤ a, πᵀ1 ≤ b and `value` = ⟨C, π⟩ + ε KL(π | a⊗b), differentiable in cost
        and weights. Its potentials (f, g) are at most 0, and 0 where weight is left; its
        `marginal_error` is the change on which `tolerance` is, or the mass by which π exceeds the
        weights or misses s, as a share of s, if that is larger. POT's
        `entropic_partial_wasserstein` takes Σ π log π in place of KL(π | a⊗b), whose plan is the
        same for uniform weights.

    Raises:
        ValueError: for a cost that is no matrix, NaN or -∞ in it, invalid weights, ε ≤ 0, or a
            mass that is not positive or more than can be transported.
    """
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    if isinstance(settings.acceleration, Randkhorn):
        raise ValueError(
            "`acceleration` Randkhorn() is for constraints on the marginals: use Anderson(memory) "
            "or None for a partial plan"
        )
    cost_matrix(cost)
    closed = forbidden_pairs(cost)
    mu, nu = masses("a", a, cost, cost.shape[0]), masses("b", b, cost, cost.shape[1])
    mass = checked_mass(mass, mu.detach(), nu.detach())
    # a constant is no cost, but could hide one
    least = cost.detach().amin().nan_to_num(posinf=0.0)
    matrix = cost.detach() - least
    mean = float((matrix if closed is None else matrix[~closed]).mean())
    matrix = matrix.to(kernel_dtype(mean, epsilon, cost.dtype))
    if closed is not None:
        refuse_infeasible(closed, mu, nu, mass)
        matrix = with_forbidden(matrix, closed, epsilon)
    problem = EntropicProblem(Matrix(matrix, mean), mu.detach(), nu.detach())
    found, levels = _solved(problem, mass, epsilon, settings)
    plan = assembled(problem, found, epsilon)
    f, g = found.f - levels[0], found.g - levels[1]
    rows, columns = plan.sum(1, dtype=torch.float64), plan.sum(0, dtype=torch.float64)
    # what the plan itself shows, where ε is below the rounding of the potentials
    excess = [(z - w.detach()).clamp_min(0).sum() for z, w in ((rows, mu), (columns, nu))]
    observed = float(max(*excess, (rows.sum() - mass).abs())) / mass
    found = found._replace(error=max(found.error, observed))
    judge_unbalanced(found, epsilon, settings, cost.dtype, "an error of a marginal")
    shares = [_shares(z, w.detach()) for z, w in ((rows, mu), (columns, nu))]
    return Plan(
        value=envelope(
            found.value + least * mass,
            (cost, plan),
            (mu, f - epsilon * (shares[0] - nu.detach().sum())),
            (nu, g - epsilon * (shares[1] - mu.detach().sum())),
            linear=False,
        ),
        value_linear=(plan * cost.detach().nan_to_num(posinf=0.0)).sum(),
        potentials=(f.to(cost), g.to(cost)),
        marginal_error=found.error,
        iterations=found.iterations,
        converged=is_converged(found, settings, cost.dtype),
        make=lambda: plan,
        total=plan.sum(),
    )
