r"""The network simplex for costs of any scale."""

import numpy as np

from monge._core.typed import Floats, network_simplex

MOST_ITERATIONS = 10**9
MOST_RATIO = 1e4
"""The ratio to the median cost above which costs are cut off at first."""
LEAST_RATIO = 1e-9
"""The share of that bound below which rounding hides digits of the mean cost of a plan."""


def simplex(cost: Floats, a: Floats, b: Floats) -> tuple[Floats, Floats, Floats]:
    """The plan and feasible optimal potentials of a cost of any scale.

    The network simplex loses the small ones of costs that differ by many orders of magnitude, as
    beside a far point or an entry that forbids a pair. It is given costs cut off at a bound: a
    plan without mass where they are cut is optimal for the whole, since its potentials, below the
    lower costs, are feasible. Otherwise the bound rises; it falls where the optimum is far below
    it. Points without mass are left out.
    """
    a, b = a / a.sum(), b / b.sum()
    if not (a.all() and b.all()):
        rows, columns = a.nonzero()[0], b.nonzero()[0]
        plan = np.zeros(cost.shape)
        plan[np.ix_(rows, columns)], f, _ = simplex(
            cost[np.ix_(rows, columns)], a[rows], b[columns]
        )
        g = (cost[rows] - f[:, None]).min(0)
        return plan, (cost - g).min(1), g
    least = cost.min()
    # of a random part: the bound rises where it is too low
    some = np.random.default_rng(0).choice(cost.ravel(), 1000) - least
    plan, f, bound = _of_lower_costs(cost, a, b, MOST_RATIO * float(np.median(some)))
    while 0 < (value := float((plan * (cost - least)).sum())) < LEAST_RATIO * bound:
        # most costs are so far above the optimum that it is hidden by their rounding
        lower = _of_lower_costs(cost, a, b, MOST_RATIO * value)
        if lower[2] > bound / MOST_RATIO:
            break
        plan, f, bound = lower
    # two c-transforms keep the value and make f_i + g_j ≤ C_ij hold everywhere
    g = (cost - (f * (bound or 1.0) + least)[:, None]).min(0)
    return plan, (cost - g).min(1), g


def _of_lower_costs(
    cost: Floats, a: Floats, b: Floats, bound: float
) -> tuple[Floats, Floats, float]:
    """The plan and the potential f of costs cut off at a bound above the least, which rises until
    no mass is where they are cut."""
    least, most = cost.min(), cost.max() - cost.min()
    rounding = min(np.finfo(float).eps * sum(cost.shape), min(a.min(), b.min()) / 2)
    while True:
        bound = bound if 0 < bound < most / MOST_RATIO else most
        cut = (cost - least if bound == most else np.minimum(cost - least, bound)) / (bound or 1.0)
        plan, f, log = network_simplex(cut, a, b, MOST_ITERATIONS)
        if log["result_code"] != 1:
            raise ValueError(f"the network simplex failed: {log['warning']}")
        beyond = cost - least > bound
        if plan[beyond].sum() <= rounding:
            plan[beyond] = 0  # all of it rounding
            return plan, f, bound
        bound *= MOST_RATIO
