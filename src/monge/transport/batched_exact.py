r"""Exact transport for a batch of problems: costs and gradients of all items at once, and a pool
of threads for the solvers, which do not hold the interpreter's lock.

Equally many, equally weighted points are an assignment (SciPy's); other problems go to the network
simplex, without the points that have no mass. The pairs of all plans are kept as one list.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from monge._core.tuning import threads
from monge._core.typed import Floats, Integers, from_numpy, linear_assignment, to_numpy

T = TypeVar("T")


class Pairs(NamedTuple):
    """The entries of the plans of a batch: which problem, row and column each is from."""

    item: Tensor
    row: Tensor
    column: Tensor
    mass: Tensor


def in_threads(function: Callable[..., T], *items: Iterable[Any]) -> list[T]:
    """function of each item, in as many threads as torch uses."""
    if threads() == 1:
        return list(map(function, *items))
    problems = list(zip(*items))
    share = -(-len(problems) // (4 * threads()))
    shares = [problems[i : i + share] for i in range(0, len(problems), share)]

    def solved(some: list[Any]) -> list[T]:
        return [function(*problem) for problem in some]

    with ThreadPoolExecutor(threads()) as pool:
        return [result for found in pool.map(solved, shares) for result in found]


def relative_lengths(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """‖x_i - y_j‖ (B, n, m) in units of the longest of its problem (B, 1, 1), float64.

    Differences of points in a unit of about their extent neither overflow nor vanish.
    """
    both = torch.cat([x, y], 1).double()
    extent = (both.amax(1, keepdim=True) - both.amin(1, keepdim=True)).amax(2, keepdim=True)
    unit = torch.where(extent > 0, torch.exp2(extent.log2().round().clamp(max=1023)), 1.0)
    mode = "donot_use_mm_for_euclid_dist"
    lengths = torch.cdist(x.double() / unit, y.double() / unit, compute_mode=mode)
    longest = lengths.amax((1, 2), keepdim=True)
    longest = torch.where(longest > 0, longest, 1.0)
    return lengths / longest, unit * longest


def reduced_assignment(cost: Floats) -> Integers:
    """The permutation σ (n,) that minimises Σ C_iσ(i); the cost is overwritten.

    Without the least of each column, SciPy's solver has shorter paths to search.
    """
    cost -= cost.min(0)
    return linear_assignment(cost)


def assignments(costs: Tensor, start: tuple[Tensor, Tensor] | None, most_error: float) -> Pairs:
    """The optimal assignments for costs (B, n, n), of relative errors of at most `most_error`.

    They are found for the costs less potentials (B, n) and (B, n) near those of the optimum. Where
    the rounding of these may outweigh an optimum that is small, they are found without.
    """
    count, n, _ = costs.shape
    reduced = costs if start is None else costs - start[0][:, :, None] - start[1][:, None]
    columns = _columns(reduced)
    if start is not None:
        optima = costs.gather(2, columns[:, :, None]).mean((1, 2))
        (small,) = (optima * most_error < torch.finfo(costs.dtype).eps).nonzero(as_tuple=True)
        columns[small] = _columns(costs[small])
    every = torch.arange(count * n, device=costs.device)
    mass = torch.full((count * n,), 1 / n, dtype=torch.float64, device=costs.device)
    return Pairs(every // n, every % n, columns.flatten(), mass)


def _columns(costs: Tensor) -> Tensor:
    """The optimal assignments (B, n); on the processor the costs are overwritten."""
    found = in_threads(reduced_assignment, to_numpy(costs.cpu()))
    return from_numpy(np.array(found, dtype=np.int64).reshape(costs.shape[:2])).to(costs.device)


def plans(
    simplex: Callable[[Floats, Floats, Floats], tuple[Floats, Floats, Floats]],
    costs: Tensor,
    a: Tensor,
    b: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The optimal plans for costs (B, n, m), and their potentials (B, n) and (B, m), float64."""
    problems = (to_numpy(z.detach().cpu()) for z in (costs, a, b))
    found = zip(*in_threads(simplex, *problems))
    plans, f, g = (from_numpy(np.stack(part)).to(costs.device) for part in found)
    return plans, f, g


def pairs_of(plans: Tensor) -> Pairs:
    """The pairs of plans (B, n, m)."""
    item, row, column = plans.nonzero(as_tuple=True)
    return Pairs(item, row, column, plans[item, row, column])
