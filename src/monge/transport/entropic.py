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

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from monge._core.checks import (
    dimension,
    distribution_weights,
    finite,
    floating,
    point_batches,
    points,
    positive,
    weight_batch,
)
from monge._core.errors import warn
from monge._core.numerics import Gradients, with_gradient
from monge._core.promotion import WEIGHTS, promoted
from monge._core.tuning import tuning
from monge.transport.batched_entropic import (
    Solved,
    dual_of_costs,
    dual_of_points,
    dual_within_samples,
    separated_batch,
    solved,
    within_batch,
)
from monge.transport.batched_gibbs import Problems
from monge.transport.dual import Separated, dual, dual_within, newton_dual, separated
from monge.transport.ground import Matrix, Points
from monge.transport.plan import Plan
from monge.transport.potentials import (
    ACCELERATION,
    MOST_ITERATIONS,
    Anderson,
    EntropicProblem,
    Potentials,
    Randkhorn,
    SinkhornSettings,
    solve_potentials,
)
from monge.transport.reductions import choose_reductions


def _assembled(problem: EntropicProblem, solution: Potentials, epsilon: float) -> Tensor:
    """The whole plan, (n, m)."""
    blocks = problem.cost.plans(problem.a, problem.b, solution.f, solution.g, epsilon)
    return torch.cat([block for _, block in blocks])


def _observed(
    rows: Tensor, columns: Tensor, problem: EntropicProblem, solution: Potentials
) -> Potentials:
    """The solution with the marginal error of the plan itself, in place of the solver's."""
    errors = (rows - problem.a).abs().sum(), (columns - problem.b).abs().sum()
    return solution._replace(error=float(max(errors)))


def _is_converged(solution: Potentials, settings: SinkhornSettings, dtype: torch.dtype) -> bool:
    return solution.error <= settings.tolerance + 10 * torch.finfo(dtype).eps


def warn_unless_converged(
    solution: Potentials, epsilon: float, settings: SinkhornSettings, dtype: torch.dtype
) -> None:
    """Warns where the marginal error is above the tolerance."""
    if not _is_converged(solution, settings, dtype):
        warn(
            f"Sinkhorn with `epsilon` {epsilon:.4g} stopped after {solution.iterations} "
            f"iterations with a marginal error of {solution.error:.2g}, above `tolerance` "
            f"{settings.tolerance:.2g}: raise `epsilon`, `tolerance` or `max_iterations`"
        )


def _kernel_dtype(mean: float, epsilon: float, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a Gibbs kernel that still holds costs of this mean.

    A kernel exp(-C/ε) near 1 has lost the digits of C/ε that are below its last place.
    """
    if not math.isfinite(mean):
        raise ValueError("`x` and `y` have costs beyond float64: rescale them")
    if torch.finfo(torch.float64).eps * epsilon > 1e-6 * mean > 0:
        raise ValueError(
            f"`epsilon` {epsilon:.3g} is over 10⁹ times the mean cost {mean:.3g}, where rounding "
            "hides the cost: take the limit, the product plan"
        )
    return torch.float64 if epsilon > mean else dtype


def _problem(samples: Separated, epsilon: float, dtype: torch.dtype) -> EntropicProblem:
    """The samples' problem, whose kernel is in a dtype that holds its costs."""
    problem = samples.problem(dtype)
    wanted = _kernel_dtype(problem.cost.mean(), epsilon, dtype)
    return problem if wanted == dtype else samples.problem(wanted)


def checked_settings(
    epsilon: float, tolerance: float, most: int, acceleration: object
) -> SinkhornSettings:
    """The settings of the solver, if they are valid."""
    positive("epsilon", epsilon)
    positive("tolerance", tolerance)
    dimension("max_iterations", most)
    if not isinstance(acceleration, (Anderson, Randkhorn, type(None))):
        raise ValueError(
            f"`acceleration` must be Anderson(memory), Randkhorn() or None, got {acceleration!r}"
        )
    return SinkhornSettings(acceleration, tolerance, most)


# Batches


def _is_batched(n: int, m: int, like: Tensor, acceleration: object) -> bool:
    """Whether problems of this size are solved together.

    The rule: small ones, of at most `Tuning.batched_entries` pairs, on every device and in every
    dtype; larger ones, and those that `Randkhorn` draws for, one by one.
    """
    small = n * m <= tuning(like.device).batched_entries
    return small and not isinstance(acceleration, Randkhorn)


def _solved(batch: Problems, epsilon: float, settings: SinkhornSettings, like: Tensor) -> Solved:
    """The batch, solved with kernels in a dtype that holds the costs of each of its problems."""
    means = batch.means()
    positive = means.masked_fill(means == 0, float(means.max()))
    extremes = means.min(), positive.min(), means.max()
    dtypes = {_kernel_dtype(float(mean), epsilon, like.dtype) for mean in extremes}
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
    warn_unless_converged(observed, found.epsilon, settings, dtype)
    f, g = potentials
    return Plan(
        value=value,
        value_linear=linear.to(dtype),
        potentials=(f.to(dtype), g.to(dtype)),
        marginal_error=observed.error,
        iterations=observed.iterations,
        converged=_is_converged(observed, settings, dtype),
        make=lambda: found.plans,
    )


def _solve_entropic_together(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    tolerance: float = 1e-4,
    max_iterations: int = MOST_ITERATIONS,
    acceleration: Anderson | Randkhorn | None = ACCELERATION,
) -> Plan | None:
    """`solve_entropic` of costs (B, n, m)."""
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    _, n, m = cost.shape
    if n * m == 0 or not _is_batched(n, m, cost, acceleration):
        return None
    if not bool(torch.isfinite(cost).all()):
        return None  # an item is told what is wrong with it
    mu, nu = weight_batch("a", a, cost), weight_batch("b", b, cost.mT)
    least = cost.detach().amin((1, 2), keepdim=True).double()
    batch = Problems(cost.detach().double() - least, mu.detach(), nu.detach())
    found = _solved(batch, epsilon, settings, cost)
    value = dual_of_costs(cost, mu, nu, found, least).to(cost.dtype)
    linear = (found.plans * cost.detach()).sum((1, 2))
    return _account(
        value, linear, (found.solution.f + least[:, 0], found.solution.g), found, settings
    )


def _sinkhorn_together(
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
) -> Plan | None:
    """`sinkhorn` of points (B, n, d) and (B, m, d)."""
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    x, y = point_batches(x, y, p)
    if not _is_batched(x.shape[1], y.shape[1], x, acceleration):
        return None
    mu, nu = weight_batch("a", a, x), weight_batch("b", b, y)
    samples = separated_batch(x.detach(), y.detach(), mu.detach(), nu.detach(), p)
    found = _solved(samples.batch(epsilon), epsilon, settings, x)
    value = dual_of_points(x, y, mu, nu, samples, found).to(x.dtype)
    linear = samples.linear(found.batch.cost, found.plans)
    return _account(value, linear, samples.potentials(found.solution), found, settings)


def _sinkhorn_divergence_together(
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
) -> Tensor | None:
    """`sinkhorn_divergence` of points (B, n, d) and (B, m, d)."""
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    x, y = point_batches(x, y, p)
    if not _is_batched(max(x.shape[1], y.shape[1]), y.shape[1], x, acceleration):
        return None
    mu, nu = weight_batch("a", a, x), weight_batch("b", b, y)
    samples = separated_batch(x.detach(), y.detach(), mu.detach(), nu.detach(), p)
    cross = _solved(samples.batch(epsilon), epsilon, settings, x)
    warn_unless_converged(cross.solution, epsilon, settings, x.dtype)
    within: list[Tensor] = []
    for z, w in ((x, mu), (y, nu)):
        one = within_batch(z.detach(), w.detach(), p)
        found = solved(one.batch(epsilon, symmetric=True), epsilon, settings, cross.plans.dtype)
        warn_unless_converged(found.solution, epsilon, settings, x.dtype)
        within.append(dual_within_samples(z, w, one, found))
    value = dual_of_points(x, y, mu, nu, samples, cross) - (within[0] + within[1]) / 2
    return value.to(x.dtype)


# One problem


@promoted(_solve_entropic_together, cost=2, a=WEIGHTS, b=WEIGHTS)
def solve_entropic(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    tolerance: float = 1e-4,
    max_iterations: int = MOST_ITERATIONS,
    acceleration: Anderson | Randkhorn | None = ACCELERATION,
) -> Plan:
    """Entropic transport for a cost matrix C (n, m).

    Args:
        cost: C (n, m).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        epsilon: regularisation, in units of the cost.
        tolerance: on the marginal error, in L1.
        max_iterations: the iteration limit, which warns where it is reached; an iteration takes
            two passes over the cost.
        acceleration: `Anderson(memory)`, `Randkhorn()`, or None for the plain algorithm.

    Returns:
        The plan; `value` = ⟨C, π⟩ + ε KL(π | a⊗b), differentiable in cost and weights.

    Raises:
        ValueError: for a cost that is no finite matrix, invalid weights, or ε ≤ 0.
    """
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    finite("cost", floating("cost", cost))
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"`cost` must be a matrix (n, m), got shape {tuple(cost.shape)}")
    mu = distribution_weights("a", a, cost, cost.shape[0])
    nu = distribution_weights("b", b, cost, cost.shape[1])
    # a constant is no cost, but could hide one
    least = cost.detach().amin()
    matrix = cost.detach() - least
    matrix = matrix.to(_kernel_dtype(float(matrix.mean()), epsilon, cost.dtype))
    problem = EntropicProblem(Matrix(matrix), mu.detach(), nu.detach())
    (solution,) = solve_potentials([problem], epsilon, settings)
    plan = _assembled(problem, solution, epsilon)
    rows, columns = (plan.sum(side, dtype=torch.float64) for side in (1, 0))
    solution = _observed(rows, columns, problem, solution)
    warn_unless_converged(solution, epsilon, settings, cost.dtype)
    f = solution.f + least.double()

    def fast(
        cost: Tensor, a: Tensor, b: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        slopes = zip((plan.clone(), f - f.mean(), solution.g - solution.g.mean()), wanted)
        return solution.value + least, [slope if need else None for slope, need in slopes]

    def plain(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return newton_dual(cost.double() - least, a, b, solution.g, epsilon) + least

    return Plan(
        value=with_gradient(fast, plain, cost, mu, nu),
        value_linear=(plan * cost.detach()).sum(),
        potentials=(f.to(cost), solution.g.to(cost)),
        marginal_error=solution.error,
        iterations=solution.iterations,
        converged=_is_converged(solution, settings, cost.dtype),
        make=lambda: plan,
    )


@promoted(_sinkhorn_together, x=2, y=2, a=WEIGHTS, b=WEIGHTS)
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
) -> Plan:
    """Entropic transport between weighted points, for the cost ‖x_i - y_j‖^p.

    Memory is O(n + m) beyond a bounded size; the plan's matrix is made on request only. Arguments
    as for `solve_entropic`; `value` is differentiable in points and weights.
    """
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    x, y = points(x, y, p)
    mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
    samples = separated(x.detach(), y.detach(), mu.detach(), nu.detach(), p)
    problem = _problem(samples, epsilon, x.dtype)
    (solution,) = solve_potentials([problem], epsilon, settings)
    rows, columns, linear = choose_reductions(problem.cost).account(
        (problem.a, problem.b, solution.f, solution.g, epsilon)
    )
    observed = _observed(rows, columns, problem, solution)
    warn_unless_converged(observed, epsilon, settings, x.dtype)
    f, g = samples.potentials(solution)
    return Plan(
        value=dual(x, y, mu, nu, solution, epsilon, p),
        value_linear=samples.linear(rows, columns, linear).to(x.dtype),
        potentials=(f.to(x), g.to(x)),
        marginal_error=observed.error,
        iterations=solution.iterations,
        converged=_is_converged(observed, settings, x.dtype),
        make=lambda: _assembled(problem, solution, epsilon),
    )


@promoted(_sinkhorn_divergence_together, x=2, y=2, a=WEIGHTS, b=WEIGHTS)
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
) -> Tensor:
    """OT_ε(x, y) - ½ OT_ε(x, x) - ½ OT_ε(y, y), on the scale of the cost ‖x - y‖^p, no root.

    At least 0, and 0 at equality, up to the `tolerance` of the potentials and, for large ε, its
    rounding; W_p^p as ε → 0, half of the energy distance (p = 1) or
    ‖E x - E y‖² (p = 2) as ε → ∞. Differentiable in points and weights. Arguments as for
    `solve_entropic`.
    """
    settings = checked_settings(epsilon, tolerance, max_iterations, acceleration)
    x, y = points(x, y, p)
    mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
    samples = separated(x.detach(), y.detach(), mu.detach(), nu.detach(), p)
    problem = _problem(samples, epsilon, x.dtype)
    problems = [problem] + [
        EntropicProblem(Points(z, z, p, problem.cost.dtype), w, w, symmetric=True)
        for z, w in ((samples.x, samples.a), (samples.y, samples.b))
    ]
    cross, of_x, of_y = solve_potentials(problems, epsilon, settings)
    for solution in (cross, of_x, of_y):
        warn_unless_converged(solution, epsilon, settings, x.dtype)

    within = dual_within(x, mu, of_x, epsilon, p) + dual_within(y, nu, of_y, epsilon, p)
    return dual(x, y, mu, nu, cross, epsilon, p) - within / 2
