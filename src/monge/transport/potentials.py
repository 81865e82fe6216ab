r"""Sinkhorn's algorithm for the potentials of entropic transport, and its accelerations.

The iteration is h = T(h), with T = S_a ∘ S_b on g, or the average of the identity and S_a for a
sample against itself; `monge.transport.entropic` defines the soft minima and uses the solutions.
Problems whose ε is far below the mean cost pass through larger regularisations first.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.tuning import tuning
from monge._core.typed import linear_solve
from monge.transport.gibbs import GroundCost, Streamed, choose_minima, kept_entries

MOST_ITERATIONS = 10_000


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


ACCELERATION = Anderson(5)
"""The acceleration by default."""


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


class EntropicProblem(NamedTuple):
    """A cost matrix with the weights of its rows and columns."""

    cost: GroundCost
    a: Tensor
    b: Tensor
    symmetric: bool = False
    """Whether it is a sample against itself."""


class SinkhornSettings(NamedTuple):
    """How iterations are accelerated, and when they stop."""

    acceleration: Anderson | Randkhorn | None
    tolerance: float
    most: int


class Potentials(NamedTuple):
    """A solution; its tensors are float64 and share no memory with work space."""

    f: Tensor
    g: Tensor
    value: Tensor
    error: float
    iterations: int
    converged: bool


def _solve(
    problem: EntropicProblem, space: Tensor, epsilon: float, settings: SinkhornSettings
) -> Potentials:
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
    return Potentials(f, g, value, error, used + count, error <= tolerance)


def solve_potentials(
    problems: Sequence[EntropicProblem], epsilon: float, settings: SinkhornSettings
) -> list[Potentials]:
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
    settings = SinkhornSettings(Anderson(), 0.01, iterations)
    (solution,) = solve_potentials([EntropicProblem(cost, a, b)], epsilon, settings)
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
