r"""Entropic transport: Sinkhorn's algorithm in the log domain, and the Sinkhorn divergence.

    OT_ε(a, b) = min_π <C, π> + ε KL(π | a⊗b)
               = max_{f,g} <a, f> + <b, g> - ε Σ_ij a_i b_j (exp((f_i + g_j - C_ij)/ε) - 1).

At the optimum π_ij = a_i b_j exp((f_i + g_j - C_ij)/ε). ε is in units of the cost d(x, y)^p.
Sinkhorn alternates f = S_b(g), g = S_a(f), with the soft minimum
S_b(g)_i = -ε log Σ_j b_j exp((g_j - C_ij)/ε). With f = S_b(g) the rows of π are exact and the
columns are b_j exp((g_j - S_a(f)_j)/ε), so each iteration knows its marginal error for nothing.

Gradients are those of the dual at frozen potentials (the envelope theorem): the plan is counted
once. Differentiating the iteration as well would count it twice.

Source: Cuturi, "Sinkhorn distances", 2013; Feydy et al., "Interpolating between optimal transport
and MMD using Sinkhorn divergences", 2019; Peyré, Cuturi, "Computational optimal transport", 2019.
"""

import abc
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from monge.checks import finite, floating, points, positive
from monge.kernels import distances
from monge.transport.exact import law
from monge.transport.plan import Plan

STORED = 2**26
"""Most entries of a cost matrix that is kept; larger ones are recomputed in blocks."""
BLOCK = 2**20
"""Entries of a block."""
HARD = 20.0
"""Above this ratio of mean cost to ε, potentials are first found for larger ε."""
MOST_ITERATIONS = 10_000


# The cost, as the soft minimum sees it


class Cost(abc.ABC):
    """A cost matrix (n, m), stored or not, without gradient."""

    shape: tuple[int, int]

    @abc.abstractmethod
    def rows(self, part: slice) -> Tensor:
        """The rows of the matrix in a slice, (k, m)."""

    @abc.abstractmethod
    def transposed(self) -> "Cost":
        """The same cost from y to x."""

    def parts(self) -> list[slice]:
        """Slices of the rows that make blocks of bounded size."""
        n, m = self.shape
        size = max(1, BLOCK // m)
        return [slice(i, min(n, i + size)) for i in range(0, n, size)]

    def soft_minimum(self, potential: Tensor, log_weights: Tensor, epsilon: float) -> Tensor:
        """-ε log Σ_j w_j exp((h_j - C_ij)/ε) for each row i, (n,)."""
        scaled = log_weights + potential / epsilon
        return torch.cat([
            -epsilon * torch.logsumexp(scaled - self.rows(part) / epsilon, 1)
            for part in self.parts()
        ])  # fmt: skip

    def mean(self) -> float:
        """The mean entry of the first block of rows: a scale, not a statistic."""
        return float(self.rows(self.parts()[0]).mean())


class Matrix(Cost):
    """A matrix that is stored."""

    def __init__(self, matrix: Tensor):
        self.matrix, self.shape = matrix, (matrix.shape[0], matrix.shape[1])

    def rows(self, part: slice) -> Tensor:
        return self.matrix[part]

    def transposed(self) -> "Matrix":
        return Matrix(self.matrix.T.contiguous())


class Points(Cost):
    """‖x_i - y_j‖^p of points, computed when it is needed: memory O(n + m)."""

    def __init__(self, x: Tensor, y: Tensor, p: float):
        self.x, self.y, self.p, self.shape = x, y, p, (len(x), len(y))

    def rows(self, part: slice) -> Tensor:
        return powers(self.x[part], self.y, self.p)

    def transposed(self) -> "Points":
        return Points(self.y, self.x, self.p)


def powers(x: Tensor, y: Tensor, p: float) -> Tensor:
    """‖x_i - y_j‖^p, (n, m), from differences, so that close points keep their digits."""
    lengths = distances(x, y)
    return lengths if p == 1 else lengths.pow(p)


def _cost(x: Tensor, y: Tensor, p: float) -> Cost:
    cost = Points(x.detach(), y.detach(), p)
    return cost if len(x) * len(y) > STORED else Matrix(cost.rows(slice(None)))


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
    h, best, best_image = start, math.inf, start
    images: list[Tensor] = []
    residuals: list[Tensor] = []
    for iteration in range(1, most + 1):
        image, error = step(h)
        size = float(error)
        if size <= tolerance or iteration == most:
            return h, size, iteration
        if size > 2 * best or not math.isfinite(size):
            # the extrapolation went wrong: back to the best plain iterate
            h, images, residuals, best = best_image, [], [], math.inf
            continue
        if size < best:
            best, best_image = size, image
        images, residuals = [*images, image][-memory - 1 :], [*residuals, image - h][-memory - 1 :]
        h = image if memory == 0 or len(images) == 1 else _extrapolated(images, residuals)
    raise AssertionError("unreachable: the last iteration returns")


def _extrapolated(images: list[Tensor], residuals: list[Tensor]) -> Tensor:
    """The image of the combination of iterates with the smallest residual."""
    steps = torch.stack([b - a for a, b in pairwise(residuals)])
    moves = torch.stack([b - a for a, b in pairwise(images)])
    gram = (steps @ steps.T).double()
    ridge = 1e-12 * gram.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    gamma = torch.linalg.solve(gram + ridge * eye, (steps @ residuals[-1]).double())
    return images[-1] - gamma.to(moves.dtype) @ moves


class _Problem:
    """A cost, its transpose and the weights of both sides."""

    def __init__(self, cost: Cost, a: Tensor, b: Tensor):
        self.cost, self.back, self.a, self.b = cost, cost.transposed(), a, b
        self.log_a, self.log_b = a.log(), b.log()

    def f(self, g: Tensor, epsilon: float) -> Tensor:
        """S_b(g)."""
        return self.cost.soft_minimum(g, self.log_b, epsilon)

    def g(self, f: Tensor, epsilon: float) -> Tensor:
        """S_a(f)."""
        return self.back.soft_minimum(f, self.log_a, epsilon)

    def step(self, epsilon: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """g ↦ (S_a(S_b(g)), the marginal error of (S_b(g), g))."""

        def step(g: Tensor) -> tuple[Tensor, Tensor]:
            image = self.g(self.f(g, epsilon), epsilon)
            return image, (self.b * ((g - image) / epsilon).expm1().abs()).sum()

        return step


def _scales(cost: Cost, epsilon: float) -> list[float]:
    """Larger regularisations to pass through, by factors of 4, for hard problems only."""
    mean = cost.mean()
    count = math.ceil(math.log(mean / epsilon, 4)) if mean > HARD * epsilon else 0
    return [mean / 4**i for i in range(1, count)]


def _warmed(step_at: Callable, start: Tensor, cost: Cost, epsilon: float) -> tuple[Tensor, int]:
    """`start` carried through the larger regularisations, and the iterations that took."""
    used = 0
    for larger in _scales(cost, epsilon):
        start, _, count = _iterate(step_at(larger), start, Anderson(), 0.1, 20)
        used += count
    return start, used


def _solve(problem: _Problem, epsilon: float, settings: "_Settings") -> "_Potentials":
    """Sinkhorn between two samples; the result has f = S_b(g)."""
    acceleration, tolerance, most = settings
    g, used = _warmed(problem.step, torch.zeros_like(problem.b), problem.cost, epsilon)
    if isinstance(acceleration, Randkhorn):
        f, g, error, count = _randkhorn(problem, g, epsilon, settings)
    else:
        g, error, count = _iterate(problem.step(epsilon), g, acceleration, tolerance, most)
        f = problem.f(g, epsilon)
    return _Potentials(f, g, error, used + count, error <= tolerance)


def _solve_symmetric(cost: Cost, a: Tensor, epsilon: float, settings: "_Settings"):
    """The single potential between a sample and itself, by the averaged update
    f ← ½ (f + S_a(f)), which has no oscillation to damp."""
    log_a = a.log()

    def step(size: float):
        def step(f: Tensor) -> tuple[Tensor, Tensor]:
            image = cost.soft_minimum(f, log_a, size)
            return (f + image) / 2, (a * ((f - image) / size).expm1().abs()).sum()

        return step

    acceleration, tolerance, most = settings
    if isinstance(acceleration, Randkhorn):
        acceleration = None
    f, used = _warmed(step, torch.zeros_like(a), cost, epsilon)
    f, error, count = _iterate(step(epsilon), f, acceleration, tolerance, most)
    return _Potentials(f, f, error, used + count, error <= tolerance)


class _Settings(NamedTuple):
    acceleration: "Anderson | Randkhorn | None"
    tolerance: float
    most: int


class _Potentials(NamedTuple):
    f: Tensor
    g: Tensor
    error: float
    iterations: int
    converged: bool


def _randkhorn(problem: _Problem, start: Tensor, epsilon: float, settings: _Settings):
    """The published scheme, line by line, in u = f/ε, v = g/ε, from the plain iterate `start`."""
    assert isinstance(settings.acceleration, Randkhorn)
    coins = torch.Generator().manual_seed(settings.acceleration.seed)
    a, b = problem.a, problem.b

    def best_u(v: Tensor) -> Tensor:
        return problem.f(epsilon * v, epsilon) / epsilon

    def best_v(u: Tensor) -> Tensor:
        return problem.g(epsilon * u, epsilon) / epsilon

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
    while error > settings.tolerance and iteration < settings.most:
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

    The gradient in the points is made block by block in the forward pass.
    """

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor, a: Tensor, b: Tensor, f, g, epsilon: float, p: float):
        moving = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        gx, gy = torch.zeros_like(x), torch.zeros_like(y)
        mass = torch.zeros((), dtype=torch.float64, device=x.device)
        log_a, log_b = a.log(), b.log()
        for part in Points(x, y, p).parts():
            with torch.set_grad_enabled(moving):
                xs = x[part].detach().requires_grad_(moving)
                ys = y.detach().requires_grad_(moving)
                cost = powers(xs, ys, p)
                plan = _plan(cost.detach(), log_a[part], log_b, f[part], g, epsilon)
                linear = (plan * cost).sum()
            mass += plan.sum()
            if moving:
                of_x, of_y = torch.autograd.grad(linear, (xs, ys))
                gx[part] += of_x
                gy += of_y
        ctx.save_for_backward(gx, gy, f - f.mean(), g - g.mean())
        return _dual(a, b, f, g, mass, epsilon)

    @staticmethod
    def backward(ctx, *gradients):
        slopes = zip(ctx.saved_tensors, ctx.needs_input_grad)
        scaled = [(gradients[0] * s).to(s.dtype) if need else None for s, need in slopes]
        return *scaled, None, None, None, None


def _plan(cost: Tensor, log_a: Tensor, log_b: Tensor, f: Tensor, g: Tensor, epsilon: float):
    return ((f / epsilon + log_a)[:, None] + (g / epsilon + log_b) - cost / epsilon).exp()


def _dual(a: Tensor, b: Tensor, f: Tensor, g: Tensor, mass: Tensor, epsilon: float) -> Tensor:
    linear = (a.double() * f.double()).sum() + (b.double() * g.double()).sum()
    return linear - epsilon * (mass - 1)


def _warn_unless(found: _Potentials, epsilon: float, settings: _Settings) -> None:
    if not found.converged:
        warnings.warn(
            f"Sinkhorn with `epsilon` {epsilon:.4g} stopped after {found.iterations} iterations "
            f"with a marginal error of {found.error:.2g}, above `tolerance` "
            f"{settings.tolerance:.2g}: raise `epsilon`, `tolerance` or `max_iterations`",
            stacklevel=3,
        )


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
        The plan; `value` = <C, π> + ε KL(π | a⊗b), differentiable in cost and weights.

    Raises:
        ValueError: for a cost that is no finite matrix, weights that are no law, or ε ≤ 0.
    """
    settings = _settings(epsilon, tolerance, max_iterations, acceleration)
    finite("cost", floating("cost", cost))
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"`cost` must be a matrix (n, m), got shape {tuple(cost.shape)}")
    mu, nu = law("a", a, cost, cost.shape[0]), law("b", b, cost, cost.shape[1])
    fixed = cost.detach()
    problem = _Problem(Matrix(fixed), mu.detach(), nu.detach())
    found = _solve(problem, epsilon, settings)
    _warn_unless(found, epsilon, settings)
    plan = _plan(fixed, problem.log_a, problem.log_b, found.f, found.g, epsilon)
    value = _dual(problem.a, problem.b, found.f, found.g, plan.double().sum(), epsilon)
    slopes = ((found.f - found.f.mean()) * (mu - mu.detach())).sum()
    slopes = slopes + ((found.g - found.g.mean()) * (nu - nu.detach())).sum()
    return Plan(
        value=value.to(cost.dtype) + (plan * (cost - fixed)).sum() + slopes,
        value_linear=(plan * fixed).sum(),
        potentials=(found.f, found.g),
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
    problem = _Problem(_cost(x, y, p), mu.detach(), nu.detach())
    found = _solve(problem, epsilon, settings)
    _warn_unless(found, epsilon, settings)
    value = _Dual.apply(x, y, mu, nu, found.f, found.g, epsilon, p)
    assert isinstance(value, Tensor)

    def make() -> Tensor:
        cost = powers(x.detach(), y.detach(), p)
        return _plan(cost, problem.log_a, problem.log_b, found.f, found.g, epsilon)

    linear = torch.zeros((), dtype=torch.float64, device=x.device)
    for part in problem.cost.parts():
        rows = problem.cost.rows(part)
        plan = _plan(rows, problem.log_a[part], problem.log_b, found.f[part], found.g, epsilon)
        linear += (plan * rows).sum()
    return Plan(
        value=value.to(x.dtype),
        value_linear=linear.to(x.dtype),
        potentials=(found.f, found.g),
        marginal_error=found.error,
        iterations=found.iterations,
        converged=found.converged,
        make=make,
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
    cross = _solve(_Problem(_cost(x, y, p), mu.detach(), nu.detach()), epsilon, settings)
    of_x = _solve_symmetric(_cost(x, x, p), mu.detach(), epsilon, settings)
    of_y = _solve_symmetric(_cost(y, y, p), nu.detach(), epsilon, settings)
    for found in (cross, of_x, of_y):
        _warn_unless(found, epsilon, settings)

    def dual(x: Tensor, y: Tensor, a: Tensor, b: Tensor, found: _Potentials) -> Tensor:
        return _Dual.apply(x, y, a, b, found.f, found.g, epsilon, p)  # pyright: ignore

    within = dual(x, x, mu, mu, of_x) + dual(y, y, nu, nu, of_y)
    return (dual(x, y, mu, nu, cross) - within / 2).to(x.dtype)
