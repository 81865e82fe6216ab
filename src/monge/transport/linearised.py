"""Entropic transport of a linearised cost, one after the other as a plan moves.

What the iterations of Gromov-Wasserstein solve again and again: each problem starts from the
potentials of the last one, if the plan has not moved far, and is solved, without a warning, to
what its movement leaves to be gained. All of them together take as many iterations at most as one
entropic problem.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.errors import warn
from monge.transport.accounts import assembled, kernel_dtype
from monge.transport.ground import Matrix
from monge.transport.penalties import CONSTRAINTS, Penalties
from monge.transport.potentials import (
    ACCELERATION,
    MOST_ITERATIONS,
    EntropicProblem,
    SinkhornSettings,
    gibbs_space,
    solve_minima,
)
from monge.transport.unbalanced import solve_penalised

LOOSENESS = 0.03
"""The tolerance of an intermediate problem, in units of the last move of the plan."""

ROUNDINGS = 8
"""The differences of a cost, in roundings of numbers of order 1, up to which it is constant."""

NEARBY = 0.3
"""The most that a plan may have moved for the potentials of its problem to start the next. Beyond
it the cost has changed by many ε, which thousands of iterations would have to undo; a solution
from larger ε down, as of a single problem, takes a few dozen."""


class Linearised(NamedTuple):
    """The entropic plan of a cost."""

    plan: Tensor
    potentials: tuple[Tensor, Tensor]
    """The potentials of the cost less its least entry."""
    error: float
    """The marginal error of the plan, or the residual of the potentials beside penalties."""
    iterations: int
    """The iterations of Sinkhorn, with those of its warm-up."""

    def stands(self, change: float, tolerance: float) -> bool:
        """Whether it has converged, and the plan does not move any more."""
        rounding = 10 * torch.finfo(self.plan.dtype).eps
        return max(self.error, change) <= tolerance + rounding


class Alternated(NamedTuple):
    """The end of a sequence of linearised problems."""

    last: Linearised
    iterations: int
    """The number of problems that were solved."""
    used: int
    """The iterations of Sinkhorn in all of them."""
    change: float
    """The last change of the plan in L1, as a share of its mass."""

    def start(self) -> tuple[Tensor, Tensor] | None:
        """The potentials from which the next problem starts."""
        return self.last.potentials if self.change < NEARBY else None

    def is_over(self, tolerance: float, most: int) -> bool:
        """Whether the plan stands, or the limits on problems or on iterations are reached."""
        spent = self.iterations >= most or self.used >= most_in_all(most)
        return spent or self.last.stands(self.change, tolerance)

    def warn_unless_standing(self, tolerance: float, most: int, error: str) -> bool:
        """Whether the plan stands; warns of one that does not, whose error has this name."""
        stands, limit = self.last.stands(self.change, tolerance), most_in_all(most)
        if not stands:
            beyond = "" if self.iterations >= most else f" beyond {limit:,}"
            warn(
                f"Gromov-Wasserstein stopped after {self.iterations} iterations, which took "
                f"{self.used:,} of Sinkhorn, with a plan that still moved by {self.change:.2g} "
                f"and {error} of {self.last.error:.2g}, `tolerance` is {tolerance:.2g}: raise "
                f"`epsilon`, `tolerance` or `max_iterations`{beyond}"
            )
        return stands


def most_in_all(most: int) -> int:
    """The limit on the iterations of Sinkhorn in all problems of a start, for a limit on their
    number."""
    return max(most, MOST_ITERATIONS)


def entropic_plan_of(
    cost: Tensor,
    weights: tuple[Tensor, Tensor],
    epsilon: float,
    tolerance: float,
    start: tuple[Tensor, Tensor] | None,
    most: int,
    sides: Penalties = CONSTRAINTS,
) -> Linearised:
    """The entropic plan of a cost (n, m) between weights, in the dtype of the cost.

    Args:
        cost: a cost, in units in which its terms are of order 1, whose least entry is taken out.
        weights: a (n,) and b (m,).
        epsilon: regularisation.
        tolerance: on the marginal error, or the residual of the potentials.
        start: potentials to start from, those of a problem nearby.
        most: the limit of iterations, without those of a warm-up.
        sides: what holds the marginals to the weights.
    """
    # a constant is no cost, but could hide one
    cost = cost - cost.min()
    # what rounding leaves of differences of numbers of order 1 is none either
    if float(cost.max()) <= ROUNDINGS * torch.finfo(cost.dtype).eps:
        cost = torch.zeros_like(cost)
    mean = float(cost.mean())
    matrix = Matrix(cost.to(kernel_dtype(mean, epsilon, cost.dtype)), mean)
    wide = None if start is None else (start[0].double(), start[1].double())
    problem = EntropicProblem(matrix, *weights, penalties=sides, start=wide)
    settings = SinkhornSettings(ACCELERATION, tolerance, most)
    if sides is CONSTRAINTS:
        found, _ = solve_minima(problem, gibbs_space(matrix), epsilon, settings)
        plan = assembled(problem, found, epsilon)
        sums = (plan.sum(side, dtype=torch.float64) for side in (1, 0))
        errors = [(total - w).abs().sum() for total, w in zip(sums, weights)]
        found = found._replace(error=float(max(errors)))
    else:
        (solution,) = solve_penalised([problem], epsilon, settings, [None])
        found = solution.potentials
        plan = assembled(problem, found, epsilon)
    potentials = found.f.to(cost), found.g.to(cost)
    return Linearised(plan.to(cost), potentials, found.error, found.iterations)
