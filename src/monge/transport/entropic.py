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

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from monge._core.checks import distribution_weights, finite, floating, points, positive
from monge._core.numerics import Gradients, distances, envelope, with_gradient
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


def _dual(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, solution: Potentials, epsilon: float, p: float
) -> Tensor:
    """The dual objective at fixed potentials, float64, with its gradient in points and weights."""

    def fast(
        x: Tensor, y: Tensor, a: Tensor, b: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        of_x = of_y = None
        if wanted[0] or wanted[1]:
            of_x, of_y = _in_points(x, y, a, b, solution, epsilon, p)
        f, g = (potential - potential.mean() for potential in (solution.f, solution.g))
        slopes = zip((of_x, of_y, f, g), wanted)
        return solution.value.clone(), [slope if need else None for slope, need in slopes]

    return with_gradient(fast, None, x, y, a, b)


def _dual_within(x: Tensor, a: Tensor, solution: Potentials, epsilon: float, p: float) -> Tensor:
    """The dual objective of a sample with itself: each point counts on both sides."""

    def fast(x: Tensor, a: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        of_x = 2 * _in_points(x, None, a, a, solution, epsilon, p)[0] if wanted[0] else None
        of_a = 2 * (solution.f - solution.f.mean()) if wanted[1] else None
        return solution.value.clone(), [of_x, of_a]

    return with_gradient(fast, None, x, a)


def _in_points(
    x: Tensor,
    y: Tensor | None,
    a: Tensor,
    b: Tensor,
    solution: Potentials,
    epsilon: float,
    p: float,
) -> tuple[Tensor, Tensor | None]:
    """The dual's gradients in the points x (n, d) and y (m, d), or in x as one side of itself.

    They are accumulated by blocks: with W_ij = π_ij p ‖x_i - y_j‖^{p-2} the gradient in x_i is
    Σ_j W_ij (x_i - y_j).
    """
    # for p < 2 the quotient of close points needs the digits of float64
    start = x if p == 2 else x.double()
    end = start if y is None else y.to(start)
    centre = end.mean(0)
    start, end = _with_one(start - centre), _with_one(end - centre)
    sums_x = torch.zeros_like(start)
    sums_y = None if y is None else torch.zeros_like(end)
    cost = Points(x, x if y is None else y, p)
    for rows, plan in _plans(cost, a, b, solution, epsilon):
        w = plan.mul_(2) if p == 2 else _slopes(plan.double(), start[rows], end, p)
        sums_x[rows] = w @ end
        if sums_y is not None:
            sums_y.addmm_(w.T, start[rows])
    of_y = None if sums_y is None else _pulled(end, sums_y).to(x)
    return _pulled(start, sums_x).to(x), of_y


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
    for rows, exponents in cost.exponents(f, g, epsilon):
        yield rows, exponential_(exponents.to(cost.dtype, copy=True))


def _assembled(problem: EntropicProblem, solution: Potentials, epsilon: float) -> Tensor:
    """The whole plan, (n, m)."""
    blocks = _plans(problem.cost, problem.a, problem.b, solution, epsilon)
    return torch.cat([block for _, block in blocks])


def _warn_unless_converged(
    solution: Potentials, epsilon: float, settings: SinkhornSettings
) -> None:
    if not solution.converged:
        warnings.warn(
            f"Sinkhorn with `epsilon` {epsilon:.4g} stopped after {solution.iterations} "
            f"iterations with a marginal error of {solution.error:.2g}, above `tolerance` "
            f"{settings.tolerance:.2g}: raise `epsilon`, `tolerance` or `max_iterations`",
            stacklevel=3,
        )


def _settings(
    epsilon: float, tolerance: float, most: int, acceleration: object
) -> SinkhornSettings:
    positive("epsilon", epsilon)
    positive("tolerance", tolerance)
    if most < 1:
        raise ValueError(f"`max_iterations` must be at least 1, got {most}")
    if not isinstance(acceleration, (Anderson, Randkhorn, type(None))):
        raise ValueError(
            f"`acceleration` must be Anderson(memory), Randkhorn() or None, got {acceleration!r}"
        )
    return SinkhornSettings(acceleration, tolerance, most)


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
    mu, nu = (
        distribution_weights("a", a, cost, cost.shape[0]),
        distribution_weights("b", b, cost, cost.shape[1]),
    )
    problem = EntropicProblem(Matrix(cost.detach()), mu.detach(), nu.detach())
    (solution,) = solve_potentials([problem], epsilon, settings)
    _warn_unless_converged(solution, epsilon, settings)
    plan = _assembled(problem, solution, epsilon)
    return Plan(
        value=envelope(
            solution.value.to(cost.dtype),
            (cost, plan),
            (mu, solution.f - solution.f.mean()),
            (nu, solution.g - solution.g.mean()),
            linear=False,
        ),
        value_linear=(plan * cost.detach()).sum(),
        potentials=(solution.f.to(cost), solution.g.to(cost)),
        marginal_error=solution.error,
        iterations=solution.iterations,
        converged=solution.converged,
        make=lambda: plan,
    )


def _samples(
    x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None, p: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y = points(x, y, p)
    return x, y, distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))


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
    x, y, mu, nu = _samples(x, y, a, b, p)
    problem = EntropicProblem(Points(x.detach(), y.detach(), p), mu.detach(), nu.detach())
    (solution,) = solve_potentials([problem], epsilon, settings)
    _warn_unless_converged(solution, epsilon, settings)
    value = _dual(x, y, mu, nu, solution, epsilon, p)
    linear = torch.zeros((), dtype=torch.float64, device=x.device)
    for rows, plan in _plans(problem.cost, problem.a, problem.b, solution, epsilon):
        linear += (plan * distances(x[rows], y).pow(p)).sum(dtype=torch.float64)
    return Plan(
        value=value.to(x.dtype),
        value_linear=linear.to(x.dtype),
        potentials=(solution.f.to(x), solution.g.to(x)),
        marginal_error=solution.error,
        iterations=solution.iterations,
        converged=solution.converged,
        make=lambda: _assembled(problem, solution, epsilon),
    )


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

    At least 0, and 0 exactly at equality; W_p^p as ε → 0, half of the energy distance (p = 1) or
    ‖E x - E y‖² (p = 2) as ε → ∞. Differentiable in points and weights. Arguments as for
    `solve_entropic`.
    """
    settings = _settings(epsilon, tolerance, max_iterations, acceleration)
    x, y, mu, nu = _samples(x, y, a, b, p)
    sides = {"x": (x.detach(), mu.detach()), "y": (y.detach(), nu.detach())}
    problems = [
        EntropicProblem(Points(first, second, p), a, b, symmetric=first is second)
        for (first, a), (second, b) in (
            (sides["x"], sides["y"]),
            (sides["x"], sides["x"]),
            (sides["y"], sides["y"]),
        )
    ]
    cross, of_x, of_y = solve_potentials(problems, epsilon, settings)
    for solution in (cross, of_x, of_y):
        _warn_unless_converged(solution, epsilon, settings)

    within = _dual_within(x, mu, of_x, epsilon, p) + _dual_within(y, nu, of_y, epsilon, p)
    return (_dual(x, y, mu, nu, cross, epsilon, p) - within / 2).to(x.dtype)
