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
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import distribution_weights, finite, floating, points, positive
from monge._core.numerics import Gradients, distances, envelope, with_gradient
from monge._core.tuning import tuning
from monge._core.typed import linear_solve
from monge.transport.gibbs import (
    GroundCost,
    Matrix,
    Points,
    Streamed,
    choose_minima,
    exponential_,
    kept_entries,
    log_weights,
)
from monge.transport.plan import Plan

MOST_ITERATIONS = 10_000


# Iterations


@dataclass(frozen=True)
class Anderson:
    """Anderson acceleration of the fixed point iteration, over the last `memory` iterates.

    The next iterate is the combination of the last ones whose residuals cancel best; when the
    marginal error grows, it starts again from the best plain iterate.

    Source: Anderson, "Iterative procedures for nonlinear integral equations", 1965; Walker, Ni,
    "Anderson acceleration for fixed-point iterations", 2011.
    """

    memory: int = 5


@dataclass(frozen=True)
class Randkhorn:
    """Randomised, gradient-extrapolated Sinkhorn.

    Offered because the literature names it. It takes about as many iterations as the plain
    algorithm, at about three passes over the cost each, so it is the slower one.

    Source: Lin, Ho, Jordan, "On the acceleration of the Sinkhorn and Greenkhorn algorithms for
    optimal transport", 2019.
    """

    seed: int = 0


def _iterate(
    step: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    acceleration: Anderson | None,
    tolerance: float,
    most: int,
) -> tuple[Tensor, float, int]:
    """Finds h = T(h) by `step`, h ↦ (T(h), marginal error of h).

    Returns h, its error and the number of iterations, at most `most`.
    """
    memory = 0 if acceleration is None else acceleration.memory
    h, best, best_image, extrapolated = start, math.inf, start, False
    images: list[Tensor] = []
    residuals: list[Tensor] = []
    for iteration in range(1, most + 1):
        image, error = step(h)
        size = float(error)
        if size <= tolerance or iteration == most:
            return h, size, iteration
        if extrapolated and not size <= 2 * best:
            # the extrapolation overshot: return to the best plain iterate
            h, images, residuals, best, extrapolated = best_image, [], [], math.inf, False
            continue
        if size < best:
            best, best_image = size, image
        images, residuals = [*images, image][-memory - 1 :], [*residuals, image - h][-memory - 1 :]
        extrapolated = memory > 0 and len(images) > 1
        h = _extrapolated(images, residuals) if extrapolated else image
    raise AssertionError("unreachable: the last iteration returns")


def _extrapolated(images: list[Tensor], residuals: list[Tensor]) -> Tensor:
    """The image of the combination of iterates with the smallest residual."""
    steps = torch.stack([b - a for a, b in pairwise(residuals)])
    moves = torch.stack([b - a for a, b in pairwise(images)])
    gram = steps @ steps.T
    ridge = 1e-12 * gram.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    gamma = linear_solve(gram + ridge * eye, steps @ residuals[-1])
    # residuals that are (nearly) 0 or (nearly) equal leave nothing to combine
    return images[-1] - gamma @ moves if torch.isfinite(gamma).all() else images[-1]


def _step(minima: Streamed) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """g ↦ (S_a(S_b(g)), the marginal error of (S_b(g), g))."""

    def step(g: Tensor) -> tuple[Tensor, Tensor]:
        image = minima.columns(minima.rows(g))
        return image, (minima.b * ((g - image) / minima.epsilon).expm1().abs()).sum()

    return step


def _symmetric_step(minima: Streamed) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """f ↦ (½ (f + S_a(f)), its marginal error), the averaged update between a sample and itself:
    it has no oscillation to damp."""

    def step(f: Tensor) -> tuple[Tensor, Tensor]:
        image = minima.rows(f)
        return (f + image) / 2, (minima.a * ((f - image) / minima.epsilon).expm1().abs()).sum()

    return step


def _scales(cost: GroundCost, epsilon: float) -> list[float]:
    """Larger regularisations to pass through, by factors of 8, for hard problems only."""
    mean, ratio = cost.mean(), tuning(cost.device).warm_up_ratio
    count = math.ceil(math.log(mean / epsilon, 8)) if mean > ratio * epsilon else 0
    return [mean / 8**i for i in range(1, count)]


class _Problem(NamedTuple):
    cost: GroundCost
    a: Tensor
    b: Tensor
    symmetric: bool = False
    """Whether it is a sample against itself."""


class _Settings(NamedTuple):
    acceleration: Anderson | Randkhorn | None
    tolerance: float
    most: int


class _Potentials(NamedTuple):
    """A solution; its tensors are float64 and share no memory with work space."""

    f: Tensor
    g: Tensor
    value: Tensor
    error: float
    iterations: int
    converged: bool


def _solve(problem: _Problem, space: Tensor, epsilon: float, settings: _Settings) -> _Potentials:
    """Sinkhorn's algorithm; the result has f = S_b(g), or f = g for a symmetric problem."""
    cost, a, b, symmetric = problem
    minima = choose_minima(cost, a, b, space)
    acceleration, tolerance, most = settings
    step = (_symmetric_step if symmetric else _step)(minima)
    f, g, used = torch.zeros_like(minima.a), torch.zeros_like(minima.b), 0
    # a sample's cost to itself is 0 on the diagonal, and the potentials start near the solution
    for larger in [] if symmetric else _scales(minima.cost, epsilon):
        minima.begin(f, g, larger)
        g, _, count = _iterate(step, g, Anderson(), 0.03, 20)
        f, used = minima.rows(g), used + count
    minima.begin(f, g, epsilon)
    if isinstance(acceleration, Randkhorn) and not symmetric:
        f, g, error, count = _randkhorn(minima, g, acceleration, tolerance, most)
    else:
        plain = None if isinstance(acceleration, Randkhorn) else acceleration
        g, error, count = _iterate(step, g, plain, tolerance, most)
        f = g if symmetric else minima.rows(g)
    mass = (minima.a * ((f - minima.rows(g)) / epsilon).exp()).sum()
    value = (minima.a * f).sum() + (minima.b * g).sum() - epsilon * (mass - 1)
    return _Potentials(f, g, value, error, used + count, error <= tolerance)


def _solutions(
    problems: Sequence[_Problem], epsilon: float, settings: _Settings
) -> list[_Potentials]:
    """The potentials of problems of one dtype and device.

    They are solved one after the other, so that their Gibbs kernels take turns in one piece of
    memory, to which no solution refers.
    """
    cost = problems[0].cost
    most = max(kept_entries(problem.cost) for problem in problems)
    space = torch.empty(most, dtype=cost.dtype, device=cost.device)
    return [_solve(problem, space, epsilon, settings) for problem in problems]


def rough_potentials(cost: GroundCost, epsilon: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Potentials (f, g) after at most `iterations`, for uniform weights, float64."""
    a, b = (torch.full((k,), 1 / k, dtype=torch.float64, device=cost.device) for k in cost.shape)
    settings = _Settings(Anderson(), 0.01, iterations)
    (solution,) = _solutions([_Problem(cost, a, b)], epsilon, settings)
    return solution.f, solution.g


def _randkhorn(minima: Streamed, start: Tensor, choice: Randkhorn, tolerance: float, most: int):
    """The published scheme, line by line, in u = f/ε, v = g/ε, from the plain iterate `start`."""
    coins = torch.Generator().manual_seed(choice.seed)
    a, b, epsilon = minima.a, minima.b, minima.epsilon

    def best_u(v: Tensor) -> Tensor:
        return minima.rows(epsilon * v) / epsilon

    def best_v(u: Tensor) -> Tensor:
        return minima.columns(epsilon * u) / epsilon

    def marginals(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        u_new, v_new = best_u(v), best_v(u)
        return a * (u - u_new).exp(), b * (v - v_new).exp(), u_new, v_new

    def excess(target: Tensor, got: Tensor) -> Tensor:
        return (got - target + torch.xlogy(target, target / got)).sum()

    def dual(pair: tuple[Tensor, Tensor], mass: Tensor) -> float:
        return float((a * pair[0]).sum() + (b * pair[1]).sum() - mass)

    def improved(
        pair: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        (u, v), (r, c, u_new, v_new) = pair, after
        return (u_new, v) if excess(a, r) >= excess(b, c) else (u, v_new)

    v = start / epsilon
    u = best_u(v)
    y, theta, extra = (u, v), 2.0, (torch.zeros_like(u), torch.zeros_like(v))
    error, iteration = math.inf, 0
    while error > tolerance and iteration < most:
        iteration += 1
        theta = theta / 2 * (math.sqrt(theta**2 + 4) - theta)
        first, second = ((1 - theta) * s + theta * e for s, e in zip(y, extra))
        after = marginals(first, second)
        hat, (r, c, _, _) = improved((first, second), after), after
        if torch.rand((), generator=coins) < 0.5:
            extra = (extra[0] - (r - a) / (8 * theta), extra[1])
        else:
            extra = (extra[0], extra[1] - (c - b) / (8 * theta))
        candidates = [(pair, marginals(*pair)) for pair in (y, hat)]
        (u, v), after = max(candidates, key=lambda item: dual(item[0], item[1][0].sum()))
        r, c, _, _ = after
        error = float(max((r - a).abs().sum(), (c - b).abs().sum()))
        y = improved((u, v), after)
    return epsilon * u, epsilon * v, error, iteration


# Values with their gradients


def _dual(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, solution: _Potentials, epsilon: float, p: float
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


def _dual_within(x: Tensor, a: Tensor, solution: _Potentials, epsilon: float, p: float) -> Tensor:
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
    solution: _Potentials,
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
    cost: GroundCost, a: Tensor, b: Tensor, solution: _Potentials, epsilon: float
) -> Iterator[tuple[slice, Tensor]]:
    """Yields the plan a_i b_j exp((f_i + g_j - C_ij)/ε) by blocks of rows, in the cost's dtype.

    Each block is a new tensor, which the caller may keep or overwrite.
    """
    f, g = solution.f + epsilon * log_weights(a), solution.g + epsilon * log_weights(b)
    for rows, exponents in cost.exponents(f, g, epsilon):
        yield rows, exponential_(exponents.to(cost.dtype, copy=True))


def _assembled(problem: _Problem, solution: _Potentials, epsilon: float) -> Tensor:
    """The whole plan, (n, m)."""
    blocks = _plans(problem.cost, problem.a, problem.b, solution, epsilon)
    return torch.cat([block for _, block in blocks])


def _warn_unless_converged(solution: _Potentials, epsilon: float, settings: _Settings) -> None:
    if not solution.converged:
        warnings.warn(
            f"Sinkhorn with `epsilon` {epsilon:.4g} stopped after {solution.iterations} "
            f"iterations with a marginal error of {solution.error:.2g}, above `tolerance` "
            f"{settings.tolerance:.2g}: raise `epsilon`, `tolerance` or `max_iterations`",
            stacklevel=3,
        )


def _settings(epsilon: float, tolerance: float, most: int, acceleration: object) -> _Settings:
    positive("epsilon", epsilon)
    positive("tolerance", tolerance)
    if most < 1:
        raise ValueError(f"`max_iterations` must be at least 1, got {most}")
    if not isinstance(acceleration, (Anderson, Randkhorn, type(None))):
        raise ValueError(
            f"`acceleration` must be Anderson(memory), Randkhorn() or None, got {acceleration!r}"
        )
    return _Settings(acceleration, tolerance, most)


def solve_entropic(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    tolerance: float = 1e-4,
    max_iterations: int = MOST_ITERATIONS,
    acceleration: Anderson | Randkhorn | None = Anderson(5),
) -> Plan:
    """Entropic transport for a cost matrix C (n, m).

    Arguments:
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
    problem = _Problem(Matrix(cost.detach()), mu.detach(), nu.detach())
    (solution,) = _solutions([problem], epsilon, settings)
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
    acceleration: Anderson | Randkhorn | None = Anderson(5),
) -> Plan:
    """Entropic transport between weighted points, for the cost ‖x_i - y_j‖^p.

    Memory is O(n + m) beyond a bounded size; the plan's matrix is made on request only. Arguments
    as for `solve_entropic`; `value` is differentiable in points and weights.
    """
    settings = _settings(epsilon, tolerance, max_iterations, acceleration)
    x, y, mu, nu = _samples(x, y, a, b, p)
    problem = _Problem(Points(x.detach(), y.detach(), p), mu.detach(), nu.detach())
    (solution,) = _solutions([problem], epsilon, settings)
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
    acceleration: Anderson | Randkhorn | None = Anderson(5),
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
        _Problem(Points(first, second, p), a, b, symmetric=first is second)
        for (first, a), (second, b) in (
            (sides["x"], sides["y"]),
            (sides["x"], sides["x"]),
            (sides["y"], sides["y"]),
        )
    ]
    cross, of_x, of_y = _solutions(problems, epsilon, settings)
    for solution in (cross, of_x, of_y):
        _warn_unless_converged(solution, epsilon, settings)

    within = _dual_within(x, mu, of_x, epsilon, p) + _dual_within(y, nu, of_y, epsilon, p)
    return (_dual(x, y, mu, nu, cross, epsilon, p) - within / 2).to(x.dtype)
