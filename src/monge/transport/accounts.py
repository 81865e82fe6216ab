"""Settings and convergence accounts that all solvers of entropic transport share."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from monge._core.checks import dimension, positive
from monge._core.errors import warn
from monge.transport.potentials import (
    Anderson,
    EntropicProblem,
    Potentials,
    Randkhorn,
    SinkhornSettings,
)

MOST_HIDDEN = 1e3 * torch.finfo(torch.float64).eps
"""Below this share of the mean cost, ε may be below the rounding of the nearest costs."""
MOST_ERROR = 2.1
"""The L1 distance of marginals of mass 1 is at most 2, and rounding."""


def assembled(problem: EntropicProblem, solution: Potentials, epsilon: float) -> Tensor:
    """The whole plan, (n, m)."""
    blocks = problem.cost.plans(problem.a, problem.b, solution.f, solution.g, epsilon)
    return torch.cat([block for _, block in blocks])


def is_converged(solution: Potentials, settings: SinkhornSettings, dtype: torch.dtype) -> bool:
    """Whether the error is within the tolerance, or the rounding of the dtype."""
    return solution.error <= settings.tolerance + 10 * torch.finfo(dtype).eps


def judge_balanced(
    solution: Potentials, epsilon: float, settings: SinkhornSettings, dtype: torch.dtype
) -> None:
    """Warns where the marginal error is above the tolerance. Refuses what no plan of these
    marginals has, an error of more than all mass or a value below 0, the least cost: so far from
    the optimum, or from what rounding shows of it, are potentials of costs far above ε."""
    converged, error = is_converged(solution, settings, dtype), "a marginal error"
    # the value is read, which a GPU waits for, only where it may be wrong
    least = 0.0 if converged else float(solution.value.min())
    if not (solution.error <= MOST_ERROR and -epsilon <= least < math.inf):
        raise ValueError(
            f"Sinkhorn with `epsilon` {epsilon:.4g} stopped after {solution.iterations} "
            f"iterations at a value of {least:.3g} with {error} of {solution.error:.2g}, "
            f"{_NO_PLAN}"
        )
    if not converged:
        warn(_stopped(solution, epsilon, settings, error))


def judge_unbalanced(
    solution: Potentials,
    epsilon: float,
    settings: SinkhornSettings,
    dtype: torch.dtype,
    error: str,
) -> None:
    """Warns where the error, of which this is the name, is above the tolerance, and refuses one
    that is not finite; where masses are free, neither it nor the value has other bounds."""
    if not math.isfinite(solution.error):
        raise ValueError(
            f"Sinkhorn with `epsilon` {epsilon:.4g} stopped after {solution.iterations} "
            f"iterations with {error} of {solution.error:.2g}, {_NO_PLAN}"
        )
    if not is_converged(solution, settings, dtype):
        warn(_stopped(solution, epsilon, settings, error))


_NO_PLAN = (
    "which no plan has: `epsilon` is too far below the costs; raise it, or take the exact problem"
)


def _stopped(solution: Potentials, epsilon: float, settings: SinkhornSettings, error: str) -> str:
    """The warning of an iteration that ended early."""
    return (
        f"Sinkhorn with `epsilon` {epsilon:.4g} stopped after {solution.iterations} iterations "
        f"with {error} of {solution.error:.2g}, above `tolerance` {settings.tolerance:.2g}: raise "
        "`epsilon`, `tolerance` or `max_iterations`"
    )


def kernel_dtype(mean: float, epsilon: float, dtype: torch.dtype) -> torch.dtype:
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


def refuse_hidden(
    mean: float, nearest: Callable[[], float], epsilon: float, price: float = math.inf
) -> None:
    """Refuses an ε below the rounding of costs of which half of the points find none smaller:
    exponents of their plan would have errors of more than 1.

    Args:
        mean: of the costs. The nearest are hardly beyond it, and it is cheaper to look at.
        nearest: `GroundCost.nearest` of them.
        epsilon: regularisation.
        price: at which mass may be left out.
    """
    if not epsilon < MOST_HIDDEN * mean:
        return
    least = min(nearest(), price)
    if epsilon < torch.finfo(torch.float64).eps * least < math.inf:
        raise ValueError(
            f"`epsilon` {epsilon:.3g} is below the rounding of costs of about {least:.3g} in "
            "float64: raise it, or take the exact problem"
        )


def checked_settings(
    epsilon: float, tolerance: float, most: int, acceleration: object
) -> SinkhornSettings:
    """The settings of the solver, if they are valid."""
    epsilon = positive("epsilon", epsilon)
    tolerance = positive("tolerance", tolerance)
    dimension("max_iterations", most)
    if not isinstance(acceleration, (Anderson, Randkhorn, type(None))):
        raise ValueError(
            f"`acceleration` must be Anderson(memory), Randkhorn() or None, got {acceleration!r}"
        )
    return SinkhornSettings(acceleration, tolerance, most)
