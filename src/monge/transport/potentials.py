r"""Sinkhorn's algorithm for the potentials of entropic transport, and its accelerations.

The iteration is h = T(h), with T = S_a ∘ S_b on g, or the average of the identity and S_a for a
sample against itself; `monge.transport.entropic` defines the soft minima and uses the solutions.
Problems whose ε is far below the mean cost pass through larger regularisations first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import seed as checked_seed
from monge._core.tuning import tuning
from monge.transport.fixed_point import Anderson, choose_iteration
from monge.transport.gibbs import Streamed, choose_minima, kept_entries
from monge.transport.ground import GroundCost
from monge.transport.penalties import CONSTRAINTS, Penalties

MOST_ITERATIONS = 10_000


@dataclass(frozen=True)
class Randkhorn:
    """Sinkhorn with Nesterov's momentum and a randomised choice of the block.

    Both potentials are extrapolated along their last move. One of them, chosen at random, is held
    while the other is maximised exactly, and is then maximised itself: two passes over the cost.
    The momentum restarts from 0 whenever the last move decreased the dual.

    For small ε and tight tolerances it takes a fraction of the plain algorithm's passes, though
    seldom fewer than `Anderson`, and it needs no memory of earlier iterates. A sample against
    itself is solved by the plain, averaged update.

    The published scheme (Lin, Ho, Jordan) takes the better of the extrapolated and the plain
    iterate, which in practice is always the plain one, at three times the passes. This variant
    always takes the extrapolated one. The seed affects the iterates, not their limit.

    Source: Lin, Ho, Jordan, "On the efficiency of entropic regularized algorithms for optimal
    transport", 2022; Guminov, Dvurechensky, Tupitsa, Gasnikov, "On a combination of alternating
    minimization and Nesterov's momentum", 2021; O'Donoghue, Candès, "Adaptive restart for
    accelerated gradient schemes", 2015.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_seed(self.seed))


ACCELERATION = Anderson(5)
"""The acceleration by default."""


ROUGH = 0.03
"""Marginal error at which a larger regularisation is left, as a share of the mass."""


def warm_up_most(most: int) -> int:
    """The iteration limit at a larger regularisation, where `most` is that of the last one.

    Nearly always a few suffice. Where far clusters exchange mass, their potentials drift apart by
    about ε an iteration: what they have not gone here would take many times as many at the end.
    """
    return min(500, max(20, most))


def warm_up_scales(
    cost: GroundCost, epsilon: float, penalties: Penalties, factor: int = 8
) -> list[float]:
    """Larger regularisations to pass through, by a factor, for hard problems only."""
    mean, ratio = cost.mean(), tuning(cost.device).warm_up_ratio
    # mass does not move at a cost that is far above the price of leaving it out
    mean = min(mean, sum(penalty.price for penalty in penalties))
    count = math.ceil(math.log(mean / epsilon, factor)) if mean > ratio * epsilon else 0
    return [mean / factor**i for i in range(1, count)]


class EntropicProblem(NamedTuple):
    """A cost matrix with the weights of its rows and columns."""

    cost: GroundCost
    a: Tensor
    b: Tensor
    symmetric: bool = False
    """Whether it is a sample against itself."""
    penalties: Penalties = CONSTRAINTS
    """What holds the marginals to the weights."""
    start: tuple[Tensor, Tensor] | None = None
    """Potentials near the solution, float64, from which the iteration starts."""

    def mass(self) -> float:
        """The unit of errors: 1 where the weights have to sum to 1, else the mass of b."""
        return 1.0 if self.penalties is CONSTRAINTS else float(self.b.sum())


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


class Iterated(NamedTuple):
    """Where Sinkhorn's iteration has ended."""

    f: Tensor
    g: Tensor
    error: float
    iterations: int
    minima: Streamed
    """The soft minima that found the potentials, which hold a Gibbs kernel about potentials near
    the solution if that was stored."""


def iterated(
    problem: EntropicProblem, space: Tensor, epsilon: float, settings: SinkhornSettings
) -> Iterated:
    """Sinkhorn's algorithm; the result has f = P S_b(g), or f = g for a symmetric problem."""
    (cost, a, b, symmetric, penalties, near), mass = problem, problem.mass()
    minima = choose_minima(cost, a, b, space, penalties)
    acceleration, tolerance, most = settings
    iterate = choose_iteration(cost, penalties)
    f, g = near or (torch.zeros_like(minima.a), torch.zeros_like(minima.b))
    used = 0
    # a sample's cost to itself is 0 on the diagonal, and the potentials start near the solution
    for larger in [] if symmetric or near else warm_up_scales(minima.cost, epsilon, penalties):
        minima.begin(f, g, larger)
        g, _, count = iterate(minima, symmetric, g, Anderson(), ROUGH * mass, warm_up_most(most))
        f, used = minima.rows(g), used + count
    minima.begin(f, g, epsilon)
    if isinstance(acceleration, Randkhorn) and not symmetric:
        g, error, count = _randkhorn(minima, g, acceleration.seed, tolerance, most)
    else:
        plain = None if isinstance(acceleration, Randkhorn) else acceleration
        g, error, count = iterate(minima, symmetric, g, plain, tolerance * mass, most)
    f = g if symmetric else minima.rows(g)
    return Iterated(f, g, error / mass, used + count, minima)


def solve_minima(
    problem: EntropicProblem, space: Tensor, epsilon: float, settings: SinkhornSettings
) -> tuple[Potentials, Streamed]:
    """The potentials of a problem whose marginals are constraints.

    Beside them it returns the soft minima that found them, which hold a Gibbs kernel about
    potentials near the solution if that was stored, in `space`.
    """
    f, g, error, iterations, minima = iterated(problem, space, epsilon, settings)
    image = minima.rows(g)
    mass = (minima.a * ((f - image) / epsilon).exp()).sum()
    value = (minima.a * f).sum() + (minima.b * g).sum() - epsilon * (mass - 1)
    if problem.symmetric:
        # the averaged update stops where points with mass have converged
        f = g = torch.where(minima.a > 0, g, image)
    return Potentials(f, g, value, error, iterations), minima


def gibbs_space(cost: GroundCost) -> Tensor:
    """Memory for the Gibbs kernel of a cost, if it is stored."""
    return torch.empty(kept_entries(cost), dtype=cost.dtype, device=cost.device)


def solve_potentials(
    problems: Sequence[EntropicProblem], epsilon: float, settings: SinkhornSettings
) -> list[Potentials]:
    """The potentials of problems of one dtype and device.

    They are solved one after the other, so that their Gibbs kernels take turns in one piece of
    memory, to which no solution refers.
    """
    largest = max((problem.cost for problem in problems), key=kept_entries)
    space = gibbs_space(largest)
    return [solve_minima(problem, space, epsilon, settings)[0] for problem in problems]


def rough_potentials(cost: GroundCost, epsilon: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Potentials (f, g) after at most `iterations`, for uniform weights, float64."""
    a, b = (torch.full((k,), 1 / k, dtype=torch.float64, device=cost.device) for k in cost.shape)
    settings = SinkhornSettings(Anderson(), 0.01, iterations)
    (solution,) = solve_potentials([EntropicProblem(cost, a, b)], epsilon, settings)
    return solution.f, solution.g


def _randkhorn(
    minima: Streamed, start: Tensor, seed: int, tolerance: float, most: int
) -> tuple[Tensor, float, int]:
    """Finds g = S_a(S_b(g)) with momentum; returns g, its error and the number of iterations."""
    coins, epsilon = torch.Generator().manual_seed(seed), minima.epsilon
    f, g = minima.rows(start), start
    ahead_f, ahead_g, theta = f, g, 1.0
    for iteration in range(1, most + 1):
        if torch.rand((), generator=coins, dtype=torch.float32, device="cpu") < 0.5:
            f_new = minima.rows(ahead_g)
            g_new = minima.columns(f_new)
            found, excess = ahead_g, minima.b * ((ahead_g - g_new) / epsilon).expm1()
            turn = (excess * (g_new - g)).sum()
        else:
            g_new = minima.columns(ahead_f)
            f_new = minima.rows(g_new)
            # with f = S_b(g) instead of the extrapolated one the error is not larger
            found, excess = g_new, minima.a * ((ahead_f - f_new) / epsilon).expm1()
            turn = (excess * (f_new - f)).sum()
        error = float(excess.abs().sum())
        if error <= tolerance or iteration == most:
            return found, error, iteration
        momentum = 0.0
        if turn <= 0:
            theta, before = (1 + math.sqrt(1 + 4 * theta**2)) / 2, theta
            momentum = (before - 1) / theta
        else:
            # the last move went down the dual: the momentum has overshot
            theta = 1.0
        ahead_f, ahead_g = f_new + momentum * (f_new - f), g_new + momentum * (g_new - g)
        f, g = f_new, g_new
    raise AssertionError("unreachable: the last iteration returns")
