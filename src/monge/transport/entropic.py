r"""Entropic transport: Sinkhorn's algorithm in the log domain, and the Sinkhorn divergence.

    OT_ε(a, b) = min_π ⟨C, π⟩ + ε KL(π | a⊗b)
               = max_{f,g} ⟨a, f⟩ + ⟨b, g⟩ - ε Σ_ij a_i b_j (exp((f_i + g_j - C_ij)/ε) - 1).

At the optimum π_ij = a_i b_j exp((f_i + g_j - C_ij)/ε). ε is in units of the cost d(x, y)^p.
Sinkhorn alternates f = S_b(g), g = S_a(f), with the soft minimum
S_b(g)_i = -ε log Σ_j b_j exp((g_j - C_ij)/ε). With f = S_b(g) the rows of π are exact and the
columns are b_j exp((g_j - S_a(f)_j)/ε), so each iteration knows its marginal error for nothing.

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
from torch.autograd.function import once_differentiable

from monge._core.checks import finite, floating, law, points, positive
from monge.kernels import distances
from monge.transport.gibbs import (
    Cost,
    Matrix,
    Points,
    Stored,
    Streamed,
    exponential_,
    log_weights,
)
from monge.transport.plan import Plan

STORED = 2**27
"""Most entries of a Gibbs kernel that is kept; larger ones are recomputed in blocks."""
HARD = 20.0
"""Above this ratio of mean cost to ε, potentials are first found for larger ε."""
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
            # the extrapolation went wrong: back to the best plain iterate
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
    gamma = torch.linalg.solve(gram + ridge * eye, steps @ residuals[-1])
    # when the residuals are as good as 0, or as one, there is nothing to combine
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


def _scales(mean: float, epsilon: float) -> list[float]:
    """Larger regularisations to pass through, by factors of 8, for hard problems only."""
    count = math.ceil(math.log(mean / epsilon, 8)) if mean > HARD * epsilon else 0
    return [mean / 8**i for i in range(1, count)]


def _solve(minima: Streamed, epsilon: float, settings: "_Settings", symmetric=False):
    """Sinkhorn's algorithm; the result has f = S_b(g), or f = g if `symmetric`."""
    acceleration, tolerance, most = settings
    step = (_symmetric_step if symmetric else _step)(minima)
    f, g, used = torch.zeros_like(minima.a), torch.zeros_like(minima.b), 0
    # a sample's cost to itself is 0 on the diagonal, and the potentials start near the solution
    for larger in [] if symmetric else _scales(minima.cost.mean(), epsilon):
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


def rough_potentials(cost: Cost, epsilon: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Potentials (f, g) after at most so many iterations, uniform weights, float64."""
    n, m = cost.shape
    laws = (torch.full((k,), 1 / k, dtype=torch.float64, device=cost.device) for k in (n, m))
    (minima,) = _minima([cost], [(next(laws), next(laws))])
    found = _solve(minima, epsilon, _Settings(Anderson(), 0.01, iterations))
    return found.f, found.g


def _minima(costs: Sequence[Cost], laws: list[tuple[Tensor, Tensor]]) -> Iterator[Streamed]:
    """The soft minima of several costs, one at a time, in one piece of memory."""
    stored = [size for cost in costs if (size := math.prod(cost.shape)) <= STORED]
    space = torch.empty(max(stored, default=0), dtype=costs[0].dtype, device=costs[0].device)
    for cost, (a, b) in zip(costs, laws):
        small = math.prod(cost.shape) <= STORED
        yield Stored(cost, a, b, space) if small else Streamed(cost, a, b)


class _Settings(NamedTuple):
    acceleration: "Anderson | Randkhorn | None"
    tolerance: float
    most: int


class _Potentials(NamedTuple):
    f: Tensor
    g: Tensor
    value: Tensor
    error: float
    iterations: int
    converged: bool


def _randkhorn(minima: Streamed, start: Tensor, choice: Randkhorn, tolerance: float, most: int):
    """The published scheme, line by line, in u = f/ε, v = g/ε, from the plain iterate `start`."""
    coins = torch.Generator().manual_seed(choice.seed)
    a, b, epsilon = minima.a, minima.b, minima.epsilon

    def best_u(v: Tensor) -> Tensor:
        return minima.rows(epsilon * v) / epsilon

    def best_v(u: Tensor) -> Tensor:
        return minima.columns(epsilon * u) / epsilon

    def marginals(u: Tensor, v: Tensor):
        u_new, v_new = best_u(v), best_v(u)
        return a * (u - u_new).exp(), b * (v - v_new).exp(), u_new, v_new

    def excess(target: Tensor, got: Tensor) -> Tensor:
        return (got - target + torch.xlogy(target, target / got)).sum()

    def dual(pair: tuple[Tensor, Tensor], mass: Tensor) -> float:
        return float((a * pair[0]).sum() + (b * pair[1]).sum() - mass)

    def improved(u, v, r, c, u_new, v_new):
        rows = excess(a, r) >= excess(b, c)
        return (u_new, v) if rows else (u, v_new)

    v = start / epsilon
    u = best_u(v)
    y, theta, extra = (u, v), 2.0, (torch.zeros_like(u), torch.zeros_like(v))
    error, iteration = math.inf, 0
    while error > tolerance and iteration < most:
        iteration += 1
        theta = theta / 2 * (math.sqrt(theta**2 + 4) - theta)
        middle = tuple((1 - theta) * s + theta * e for s, e in zip(y, extra))
        r, c, u_new, v_new = marginals(*middle)
        hat = improved(*middle, r, c, u_new, v_new)
        if torch.rand((), generator=coins) < 0.5:
            extra = (extra[0] - (r - a) / (8 * theta), extra[1])
        else:
            extra = (extra[0], extra[1] - (c - b) / (8 * theta))
        candidates = [(pair, marginals(*pair)) for pair in (y, hat)]
        (u, v), (r, c, u_new, v_new) = max(
            candidates, key=lambda item: dual(item[0], item[1][0].sum())
        )
        error = float(max((r - a).abs().sum(), (c - b).abs().sum()))
        found = u, v
        y = improved(u, v, r, c, u_new, v_new)
    u, v = found
    return epsilon * u, epsilon * v, error, iteration


# Values with their gradients


class _Dual(torch.autograd.Function):
    """The dual objective at frozen potentials, float64, with its gradient in points and weights.

    Without y it is that of a sample with itself. The gradient in the points is made block by
    block in the forward pass: with W_ij = π_ij p ‖x_i - y_j‖^{p-2} it is Σ_j W_ij (x_i - y_j).
    """

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor | None, a: Tensor, b: Tensor | None, found, epsilon, p):
        moving = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        b, f, g = a if b is None else b, found.f, found.g
        # for p < 2 the quotient of close points needs the digits of float64
        start = x if p == 2 else x.double()
        end = start if y is None else y.to(start)
        centre = end.mean(0)
        start, end = _with_one(start - centre), _with_one(end - centre)
        gx, gy = torch.zeros_like(start), torch.zeros_like(end)
        cost = Points(x, x if y is None else y, p)
        for part, plan in _plans(cost, a, b, f, g, epsilon) if moving else ():
            rows = start[part]
            w = plan.mul_(2) if p == 2 else _slopes(plan.double(), rows, end, p)
            gx[part] = w @ end
            if y is not None:
                gy.addmm_(w.T, rows)
        gx = _pulled(start, gx).to(x)
        ctx.save_for_backward(gx, _pulled(end, gy).to(x), f - f.mean(), g - g.mean())
        ctx.alone = y is None
        return found.value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, outer: Tensor):
        gx, gy, f, g = ctx.saved_tensors
        if ctx.alone:
            return (2 * outer * gx).to(gx), None, (2 * outer * f).to(gx), None, None, None, None
        slopes = zip((gx, gy, f, g), ctx.needs_input_grad)
        scaled = [(outer * s).to(gx) if need else None for s, need in slopes]
        return *scaled, None, None, None


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], 1)


def _pulled(x: Tensor, sums: Tensor) -> Tensor:
    """Σ_j W_ij (x_i - y_j), where `sums` holds Σ_j W_ij (y_j, 1)."""
    return x[:, :-1] * sums[:, -1:] - sums[:, :-1]


def _slopes(plan: Tensor, x: Tensor, y: Tensor, p: float) -> Tensor:
    """π_ij p ‖x_i - y_j‖^{p-2}, 0 where the points coincide."""
    lengths = distances(x, y)
    return torch.where(lengths == 0, 0.0, p * plan * lengths.pow(p - 2))


def _plans(cost: Cost, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float):
    """The plan a_i b_j exp((f_i + g_j - C_ij)/ε) by blocks of rows, in the cost's dtype."""
    f, g = f + epsilon * log_weights(a), g + epsilon * log_weights(b)
    for part, exponents in cost.exponents(f, g, epsilon):
        yield part, exponential_(exponents.to(cost.dtype, copy=True))


def _assembled(cost: Cost, a: Tensor, b: Tensor, found: "_Potentials", epsilon: float) -> Tensor:
    """The whole plan, (n, m)."""
    return torch.cat([block for _, block in _plans(cost, a, b, found.f, found.g, epsilon)])


def _warn_unless(found: _Potentials, epsilon: float, settings: _Settings) -> None:
    if not found.converged:
        warnings.warn(
            f"Sinkhorn with `epsilon` {epsilon:.4g} stopped after {found.iterations} iterations "
            f"with a marginal error of {found.error:.2g}, above `tolerance` "
            f"{settings.tolerance:.2g}: raise `epsilon`, `tolerance` or `max_iterations`",
            stacklevel=4,
        )


def _found(
    cost: Cost, laws: tuple[Tensor, Tensor], epsilon: float, settings: _Settings
) -> _Potentials:
    """The potentials of one problem, with a warning if they have not converged."""
    (minima,) = _minima([cost], [laws])
    found = _solve(minima, epsilon, settings)
    _warn_unless(found, epsilon, settings)
    return found


def _settings(epsilon: float, tolerance: float, most: int, acceleration) -> _Settings:
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
        max_iterations: most iterations, of two passes over the cost each; a warning tells when
            they did not suffice.
        acceleration: `Anderson(memory)`, `Randkhorn()`, or None for the plain algorithm.

    Returns:
        The plan; `value` = ⟨C, π⟩ + ε KL(π | a⊗b), differentiable in cost and weights.

    Raises:
        ValueError: for a cost that is no finite matrix, weights that are no law, or ε ≤ 0.
    """
    settings = _settings(epsilon, tolerance, max_iterations, acceleration)
    finite("cost", floating("cost", cost))
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"`cost` must be a matrix (n, m), got shape {tuple(cost.shape)}")
    mu, nu = law("a", a, cost, cost.shape[0]), law("b", b, cost, cost.shape[1])
    fixed = Matrix(cost.detach())
    laws = mu.detach(), nu.detach()
    found = _found(fixed, laws, epsilon, settings)
    plan = _assembled(fixed, *laws, found, epsilon)
    slopes = ((found.f - found.f.mean()) * (mu - mu.detach())).sum()
    slopes = slopes + ((found.g - found.g.mean()) * (nu - nu.detach())).sum()
    return Plan(
        value=found.value.to(cost.dtype) + (plan * (cost - cost.detach())).sum() + slopes,
        value_linear=(plan * cost.detach()).sum(),
        potentials=(found.f.to(cost), found.g.to(cost)),
        marginal_error=found.error,
        iterations=found.iterations,
        converged=found.converged,
        make=lambda: plan,
    )


def _samples(x: Tensor, y: Tensor, a, b, p: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y = points(x, y, p)
    return x, y, law("a", a, x, len(x)), law("b", b, y, len(y))


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
    cost = Points(x.detach(), y.detach(), p)
    laws = mu.detach(), nu.detach()
    found = _found(cost, laws, epsilon, settings)
    value = _Dual.apply(x, y, mu, nu, found, epsilon, p)
    assert isinstance(value, Tensor)
    linear = torch.zeros((), dtype=torch.float64, device=x.device)
    for part, plan in _plans(cost, *laws, found.f, found.g, epsilon):
        linear += (plan * distances(x[part], y).pow(p)).sum(dtype=torch.float64)
    return Plan(
        value=value.to(x.dtype),
        value_linear=linear.to(x.dtype),
        potentials=(found.f.to(x), found.g.to(x)),
        marginal_error=found.error,
        iterations=found.iterations,
        converged=found.converged,
        make=lambda: _assembled(cost, *laws, found, epsilon),
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
    fixed_x, fixed_y = x.detach(), y.detach()
    pairs = [(fixed_x, fixed_y), (fixed_x, fixed_x), (fixed_y, fixed_y)]
    costs = [Points(first, second, p) for first, second in pairs]
    laws = [(mu.detach(), nu.detach()), (mu.detach(),) * 2, (nu.detach(),) * 2]
    cross, of_x, of_y = (
        _solve(minima, epsilon, settings, symmetric=i > 0)
        for i, minima in enumerate(_minima(costs, laws))
    )
    for found in (cross, of_x, of_y):
        _warn_unless(found, epsilon, settings)

    def dual(x: Tensor, y: Tensor | None, a: Tensor, b: Tensor | None, found) -> Tensor:
        return _Dual.apply(x, y, a, b, found, epsilon, p)  # pyright: ignore

    within = dual(x, None, mu, None, of_x) + dual(y, None, nu, None, of_y)
    return (dual(x, y, mu, nu, cross) - within / 2).to(x.dtype)
