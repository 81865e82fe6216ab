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
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import (
    dimension,
    distribution_weights,
    finite,
    floating,
    points,
    positive,
)
from monge._core.errors import warn
from monge._core.numerics import (
    Gradients,
    absolute_power,
    distances,
    root,
    squared_by_differences,
    weighted_differences,
    with_gradient,
)
from monge._core.promotion import WEIGHTS, promoted
from monge._core.typed import symmetric_pseudo_inverse
from monge.transport.gibbs import GroundCost, Matrix, Points, exponential_, log_weights
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

MOST_LOST = {torch.float32: 1e-5, torch.float64: 1e-10}
"""The largest rounding of a point's coordinates, in units of how far points are moved."""

FAR_APART = 10.0
"""How far means must be apart, in units of the largest distance from them, to be taken out."""


class _Samples(NamedTuple):
    """Points (n, d) and (m, d) with weights, and the part of their cost that is separable.

    For p = 2 and samples far apart the means are taken out: with x = x̄ + x', y = ȳ + y' and
    δ = x̄ - ȳ the cost is ‖x' - y'‖² + 2 (x' - y')·δ + ‖δ‖², of which only the first term decides
    on the plan. The others would drown it in rounding.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    p: float
    shift: Tensor
    """δ, (d,); 0 where the means are left in."""

    def problem(self, dtype: torch.dtype) -> EntropicProblem:
        return EntropicProblem(Points(self.x, self.y, self.p, dtype), self.a, self.b)

    def potentials(self, solution: Potentials) -> tuple[Tensor, Tensor]:
        """Those of the whole cost."""
        f = solution.f + 2 * self.x @ self.shift + self.shift.square().sum()
        return f, solution.g - 2 * self.y @ self.shift


def _separated(x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: float) -> _Samples:
    """The samples in float64, their means taken out where they are far apart; differentiable."""
    if y is x:
        x = x.double()
        return _Samples(x, x, a, b, p, x.new_zeros(x.shape[1]))
    x, y = x.double(), y.double()
    if p == 2:
        of_x, of_y = a @ x, b @ y
        spread = max(float((z - c).detach().abs().amax()) for z, c in ((x, of_x), (y, of_y)))
        if float((of_x - of_y).detach().abs().amax()) > FAR_APART * spread:
            return _Samples(x - of_x, y - of_y, a, b, p, of_x - of_y)
    return _Samples(x, y, a, b, p, x.new_zeros(x.shape[1]))


def _dual(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, solution: Potentials, epsilon: float, p: float
) -> Tensor:
    """The dual objective at its optimum, float64, with its gradient in points and weights."""

    def fast(
        x: Tensor, y: Tensor, a: Tensor, b: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        samples = _separated(x, y, a, b, p)
        of_x = of_y = None
        if wanted[0] or wanted[1]:
            of_x, of_y = _in_points(samples, solution, epsilon, x.dtype)
        f, g = (potential - potential.mean() for potential in samples.potentials(solution))
        slopes = zip((of_x, of_y, f, g), wanted)
        value = solution.value + samples.shift.square().sum()
        return value, [slope if need else None for slope, need in slopes]

    def plain(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        samples = _separated(x, y, a, b, p)
        cost = absolute_power(root(squared_by_differences(samples.x, samples.y)), p)
        if p == 2:
            cost = squared_by_differences(samples.x, samples.y)
        return _newton_dual(cost, a, b, solution.g, epsilon) + samples.shift.square().sum()

    return with_gradient(fast, plain, x, y, a, b)


def _dual_within(x: Tensor, a: Tensor, solution: Potentials, epsilon: float, p: float) -> Tensor:
    """The dual objective of a sample with itself: each point counts on both sides."""

    def fast(x: Tensor, a: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        of_x = None
        if wanted[0]:
            of_x = 2 * _in_points(_separated(x, x, a, a, p), solution, epsilon, x.dtype)[0]
        of_a = 2 * (solution.f - solution.f.mean()) if wanted[1] else None
        return solution.value.clone(), [of_x, of_a]

    def plain(x: Tensor, a: Tensor) -> Tensor:
        squared = squared_by_differences(x.double(), x.double())
        cost = squared if p == 2 else absolute_power(root(squared), p)
        return _newton_dual(cost, a, a, solution.g, epsilon)

    return with_gradient(fast, plain, x, a)


def _newton_dual(cost: Tensor, a: Tensor, b: Tensor, g: Tensor, epsilon: float) -> Tensor:
    r"""The optimum of the dual as a function of cost and weights, right to second order.

    Eliminating f, D(g; θ) = ⟨a, S_b(g)⟩ + ⟨b, g⟩ with θ = (C, a, b). At the potentials g of a
    present θ the optimum is D(g̃(θ); θ), g̃(θ) = g - H⁻¹ ∂_g D(g; θ), up to third order: one Newton
    step with the Hessian H held fixed. Its second derivative is D_θθ - D_θg H⁻¹ D_gθ, that of the
    implicit function theorem.
    """
    with torch.no_grad():
        share = b * ((g - cost) / epsilon - _log_sums(cost, b, g, epsilon)[:, None]).exp()
        columns = a @ share
        hessian = columns.diag() - share.T @ (a[:, None] * share)
        inverse = symmetric_pseudo_inverse((hessian + hessian.T) / 2)
    f = -epsilon * _log_sums(cost, b, g, epsilon)
    excess = b - b * (a @ ((f[:, None] + g - cost) / epsilon).exp())
    g = g + epsilon * (inverse @ excess)
    return -epsilon * (a * _log_sums(cost, b, g, epsilon)).sum() + (b * g).sum()


def _log_sums(cost: Tensor, b: Tensor, g: Tensor, epsilon: float) -> Tensor:
    """log Σ_j b_j exp((g_j - C_ij)/ε), (n,), differentiable in weights that are 0 as well."""
    exponents = (g - cost) / epsilon
    most = exponents.detach().masked_fill(b.detach() == 0, -torch.inf).amax(1, keepdim=True)
    return most[:, 0] + (b * (exponents - most).exp()).sum(1).log()


def _in_points(
    samples: _Samples, solution: Potentials, epsilon: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The dual's gradients in the points x (n, d) and y (m, d), float64; of a sample with itself
    only the first is computed.

    They are accumulated by blocks: with W_ij = π_ij p ‖x_i - y_j‖^{p-2} the gradient in x_i is
    Σ_j W_ij (x_i - y_j), two products; or sums of differences, where products of points about
    their mean would hide how little these are moved.
    """
    p, shift = samples.p, samples.shift
    centre = samples.y.mean(0)
    x, y = samples.x - centre, samples.y - centre
    size = float(torch.maximum(x.abs().amax(), y.abs().amax()))
    moved = abs(float(solution.value)) ** (1 / p)
    # for p < 2 the quotient of close points needs the digits of float64
    fine = p != 2 or torch.finfo(dtype).eps * size > MOST_LOST[dtype] * moved
    close = torch.finfo(torch.float64).eps * size > MOST_LOST[torch.float64] * moved
    work = torch.float64 if fine else dtype
    start, end = _with_one(x.to(work)), _with_one(y.to(work))
    sums_x, sums_y = torch.zeros_like(start), torch.zeros_like(end)
    of_x, of_y = torch.zeros_like(x), torch.zeros_like(y)
    for rows, plan in _plans(
        Points(samples.x, samples.y, p, work), samples.a, samples.b, solution, epsilon
    ):
        w = plan.mul_(2) if p == 2 else _slopes(plan, x[rows], y, p)
        if close:
            of_x[rows], part = weighted_differences(w, samples.x[rows], samples.y)
            of_y += part
        else:
            sums_x[rows] = w @ end
            if samples.y is not samples.x:
                sums_y.addmm_(w.T, start[rows])
    if not close:
        of_x, of_y = _pulled(start, sums_x).double(), _pulled(end, sums_y).double()
    if p == 2:
        of_x, of_y = of_x + 2 * samples.a[:, None] * shift, of_y - 2 * samples.b[:, None] * shift
    return of_x, of_y


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], 1)


def _pulled(x: Tensor, sums: Tensor) -> Tensor:
    """Σ_j W_ij (x_i - y_j), where `sums` holds Σ_j W_ij (y_j, 1)."""
    return x[:, :-1] * sums[:, -1:] - sums[:, :-1]


def _slopes(plan: Tensor, x: Tensor, y: Tensor, p: float) -> Tensor:
    """π_ij p ‖x_i - y_j‖^{p-2}, 0 where the points coincide."""
    lengths = distances(x, y)
    return torch.where(lengths == 0, 0.0, p * plan * lengths.pow(p - 2))


def _plans(
    cost: GroundCost, a: Tensor, b: Tensor, solution: Potentials, epsilon: float
) -> Iterator[tuple[slice, Tensor]]:
    """Yields the plan a_i b_j exp((f_i + g_j - C_ij)/ε) by blocks of rows, in the cost's dtype.

    Each block is a new tensor, which the caller may keep or overwrite.
    """
    f, g = solution.f + epsilon * log_weights(a), solution.g + epsilon * log_weights(b)
    empty_rows, empty_columns = (w == 0 if (w == 0).any() else None for w in (a, b))
    for rows, exponents in cost.exponents(f, g, epsilon):
        plan = exponential_(exponents.to(cost.dtype, copy=True))
        if empty_rows is not None:
            plan[empty_rows[rows]] = 0
        if empty_columns is not None:
            plan[:, empty_columns] = 0
        yield rows, plan


def _assembled(problem: EntropicProblem, solution: Potentials, epsilon: float) -> Tensor:
    """The whole plan, (n, m)."""
    blocks = _plans(problem.cost, problem.a, problem.b, solution, epsilon)
    return torch.cat([block for _, block in blocks])


def _observed(
    plans: Iterable[tuple[slice, Tensor]], problem: EntropicProblem, solution: Potentials
) -> Potentials:
    """The solution with the marginal error of the plan itself, in place of the solver's."""
    rows_sum, columns_sum = torch.zeros_like(problem.a), torch.zeros_like(problem.b)
    for rows, plan in plans:
        rows_sum[rows] = plan.sum(1, dtype=torch.float64)
        columns_sum += plan.sum(0, dtype=torch.float64)
    errors = (rows_sum - problem.a).abs().sum(), (columns_sum - problem.b).abs().sum()
    return solution._replace(error=float(max(errors)))


def _is_converged(solution: Potentials, settings: SinkhornSettings, dtype: torch.dtype) -> bool:
    return solution.error <= settings.tolerance + 10 * torch.finfo(dtype).eps


def _warn_unless_converged(
    solution: Potentials, epsilon: float, settings: SinkhornSettings, dtype: torch.dtype
) -> None:
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


def _settings(
    epsilon: float, tolerance: float, most: int, acceleration: object
) -> SinkhornSettings:
    positive("epsilon", epsilon)
    positive("tolerance", tolerance)
    dimension("max_iterations", most)
    if not isinstance(acceleration, (Anderson, Randkhorn, type(None))):
        raise ValueError(
            f"`acceleration` must be Anderson(memory), Randkhorn() or None, got {acceleration!r}"
        )
    return SinkhornSettings(acceleration, tolerance, most)


@promoted(cost=2, a=WEIGHTS, b=WEIGHTS)
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
    settings = _settings(epsilon, tolerance, max_iterations, acceleration)
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
    solution = _observed([(slice(None), plan)], problem, solution)
    _warn_unless_converged(solution, epsilon, settings, cost.dtype)
    f = solution.f + least.double()

    def fast(
        cost: Tensor, a: Tensor, b: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        slopes = zip((plan.clone(), f - f.mean(), solution.g - solution.g.mean()), wanted)
        return solution.value + least, [slope if need else None for slope, need in slopes]

    def plain(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return _newton_dual(cost.double() - least, a, b, solution.g, epsilon) + least

    return Plan(
        value=with_gradient(fast, plain, cost, mu, nu),
        value_linear=(plan * cost.detach()).sum(),
        potentials=(f.to(cost), solution.g.to(cost)),
        marginal_error=solution.error,
        iterations=solution.iterations,
        converged=_is_converged(solution, settings, cost.dtype),
        make=lambda: plan,
    )


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
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
    settings = _settings(epsilon, tolerance, max_iterations, acceleration)
    x, y = points(x, y, p)
    mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
    samples = _separated(x.detach(), y.detach(), mu.detach(), nu.detach(), p)
    problem = samples.problem(x.dtype)
    dtype = _kernel_dtype(problem.cost.mean(), epsilon, x.dtype)
    problem = problem if dtype == x.dtype else samples.problem(dtype)
    (solution,) = solve_potentials([problem], epsilon, settings)
    linear = torch.zeros((), dtype=torch.float64, device=x.device)

    def plans() -> Iterator[tuple[slice, Tensor]]:
        nonlocal linear
        for rows, plan in _plans(problem.cost, problem.a, problem.b, solution, epsilon):
            linear += (plan * distances(x.detach()[rows], y.detach()).pow(p)).sum()
            yield rows, plan

    observed = _observed(plans(), problem, solution)
    _warn_unless_converged(observed, epsilon, settings, x.dtype)
    f, g = samples.potentials(solution)
    return Plan(
        value=_dual(x, y, mu, nu, solution, epsilon, p),
        value_linear=linear.to(x.dtype),
        potentials=(f.to(x), g.to(x)),
        marginal_error=observed.error,
        iterations=solution.iterations,
        converged=_is_converged(observed, settings, x.dtype),
        make=lambda: _assembled(problem, solution, epsilon),
    )


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
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
    settings = _settings(epsilon, tolerance, max_iterations, acceleration)
    x, y = points(x, y, p)
    mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
    samples = _separated(x.detach(), y.detach(), mu.detach(), nu.detach(), p)
    problem = samples.problem(x.dtype)
    dtype = _kernel_dtype(problem.cost.mean(), epsilon, x.dtype)
    problems = [problem if dtype == x.dtype else samples.problem(dtype)] + [
        EntropicProblem(Points(z, z, p, dtype), w, w, symmetric=True)
        for z, w in ((samples.x, samples.a), (samples.y, samples.b))
    ]
    cross, of_x, of_y = solve_potentials(problems, epsilon, settings)
    for solution in (cross, of_x, of_y):
        _warn_unless_converged(solution, epsilon, settings, x.dtype)

    within = _dual_within(x, mu, of_x, epsilon, p) + _dual_within(y, nu, of_y, epsilon, p)
    return _dual(x, y, mu, nu, cross, epsilon, p) - within / 2
