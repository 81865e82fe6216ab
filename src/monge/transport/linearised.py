"""Entropic transport of a linearised cost, one after the other as a plan moves.

What the iterations of Gromov-Wasserstein solve again and again: each problem starts from the
potentials of the last one, and is solved, without a warning, to what the movement of the plan
leaves to be gained.
"""

from typing import NamedTuple

import torch
from torch import Tensor

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
"""The tolerance of an intermediate problem, in units of how far the plan has moved last."""


class Linearised(NamedTuple):
    """The entropic plan of a cost."""

    plan: Tensor
    potentials: tuple[Tensor, Tensor]
    """Those of the cost less its least entry."""
    error: float
    """The marginal error of the plan, or the residual of the potentials beside penalties."""

    def stands(self, change: float, tolerance: float) -> bool:
        """Whether it has converged, and the plan does not move any more."""
        rounding = 10 * torch.finfo(self.plan.dtype).eps
        return max(self.error, change) <= tolerance + rounding


def entropic_plan_of(
    cost: Tensor,
    weights: tuple[Tensor, Tensor],
    epsilon: float,
    tolerance: float,
    start: tuple[Tensor, Tensor] | None,
    sides: Penalties = CONSTRAINTS,
) -> Linearised:
    """The entropic plan of a cost (n, m) between weights, in the dtype of the cost.

    Args:
        cost: a cost, of which the least entry is taken out.
        weights: a (n,) and b (m,).
        epsilon: regularisation.
        tolerance: on the marginal error, or the residual of the potentials.
        start: potentials to start from, those of a problem nearby.
        sides: what holds the marginals to the weights.
    """
    # a constant is no cost, but could hide one
    cost = cost - cost.min()
    mean = float(cost.mean())
    matrix = Matrix(cost.to(kernel_dtype(mean, epsilon, cost.dtype)), mean)
    wide = None if start is None else (start[0].double(), start[1].double())
    problem = EntropicProblem(matrix, *weights, penalties=sides, start=wide)
    settings = SinkhornSettings(ACCELERATION, tolerance, MOST_ITERATIONS)
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
    return Linearised(plan.to(cost), potentials, found.error)
