r"""The nearest-neighbour search.

Between two samples (n, d) and (m, d) squared distances are computed as ‖x‖² + ‖y‖² - 2 x·y, one
matrix product per block of rows, so that memory is O((n + m) d) plus a block and never n m. For
sets of few points in space, a batch of them at a time, a tree per set is faster on a CPU.

- `nearest`: the k nearest rows of one sample for each row of another; `nearest_squared`: the
  distance to the nearest one only.
- `nearest_in_sets`: the nearest point within each pair of a batch of point sets.
- `visit_distances`, `visit_distances_within`: call a function with all squared distances, block by
  block, for statistics that need more than the nearest.

Source of the trees: Maneewongvatana, Mount, "Analysis of approximate nearest neighbor searching
with clustered point sets", 1999, as in SciPy.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monge._core.checks import dimension
from monge._core.numerics import (
    RESOLVED,
    Norms,
    first_least,
    is_resolved,
    norms,
    power_of_two,
    squared_by_product,
)
from monge._core.tuning import threads, tuning
from monge._core.typed import Tree, from_numpy, split, to_numpy, tree
from monge.gpu.launch import is_usable

Neighbours = tuple[Tensor, Tensor]
"""Squared distances and indices."""
Visit = Callable[[slice, Tensor], object]
"""Called with each block of squared distances: some rows, and the block."""


def nearest(
    x: Tensor, y: Tensor, k: int = 1, *, convert: Callable[[Tensor], Tensor] | None = None
) -> Neighbours:
    r"""The k rows of y nearest to each row of x, nearest first, in Euclidean distance.

    Args:
        x: queries (n, d), floating point.
        y: the rows that are searched, (m, d); anything of length m where there is a `convert`.
        k: how many neighbours; at most m are returned.
        convert: turns some successive rows y[i:j] into a floating point matrix (j - i, d). It
            is called block by block, so that a large sample of bytes is never held as floats.

    Returns:
        (squared distances, indices into y), both (n, min(k, m)), without gradient. Squared
        distances are at least 0; those of rows that are far from the mean of y and close to one
        another are computed in float64.

    Example:
        >>> squared, index = nearest(codes, draws, k=10)
        >>> tenth = squared[:, -1].sqrt()
        >>> squared, index = nearest(x.flatten(1), images, convert=lambda z: z.flatten(1) / 255)
    """
    k = min(dimension("k", k), len(y))
    return choose_search(x.device, batched=False)(x.detach(), y.detach(), k, convert)


def nearest_squared(x: Tensor, y: Tensor) -> Tensor:
    """The squared distance of each row of x (n, d) to the nearest row of y (m, d), as (n,).

    `nearest` also says which row that is, and takes a third longer.
    """
    x, y = x.detach(), y.detach()
    if is_usable(x.device):
        return choose_search(x.device, batched=False)(x, y, 1, None)[0][:, 0]
    centre, least = y.mean(0), x.new_empty(len(x))

    def visit(rows: slice, squared: Tensor) -> None:
        least[rows] = squared.amin(1)

    visit_distances(x - centre, y - centre, visit)
    return least.clamp_min_(0)


def nearest_in_sets(x: Tensor, y: Tensor) -> Tensor:
    """The index in y (n, M, d) of the point nearest to each point of x (n, N, d), as (n, N)."""
    return choose_search(x.device, batched=True)(x.detach(), y.detach())


def choose_search(device: torch.device, batched: bool) -> Callable[..., Any]:
    """Picks how neighbours are searched for.

    The rule: on a GPU with Triton both are searched by tiles of distances that are never stored.
    Elsewhere batches of point sets (`batched`) are searched by a tree per set on a CPU and by
    blocks of distances on other devices; two samples of rows, of any dimension, by blocks of
    matrix products.
    """
    if is_usable(device):
        if batched:
            from monge.gpu.search import nearest_points

            return nearest_points
        return _nearest_by_tiles
    if not batched:
        return _nearest_by_blocks
    return _in_sets_by_trees if device.type == "cpu" else _in_sets_by_blocks


def visit_distances(x: Tensor, y: Tensor, visit: Visit) -> None:
    """Calls visit(rows, squared) with the squared distances of x (n, d) and y (m, d) by blocks of
    rows: a slice of x, and the block (b, m).

    Rounding may leave small negative numbers. Blocks of float32 in which it could hide the least
    distance are computed in float64. Far from the origin that is all of them: subtract a mean from
    both samples first.

    All blocks share one piece of memory, which is lent for the duration of the call: `visit` may
    overwrite a block, and stores what it computes from it, never the block or a view of it.
    """
    _visit(norms(x), norms(y), visit, within=False)


def visit_distances_within(x: Tensor, visit: Visit) -> None:
    """Calls visit(rows, squared) with the squared distances within one sample x (n, d) by blocks
    of rows, as `visit_distances` does; the distance of a row to itself is infinite."""
    of_x = norms(x)
    _visit(of_x, of_x, visit, within=True)


def _visit(x: Norms, y: Norms, visit: Visit, within: bool) -> None:
    n, m = len(x.rows), len(y.rows)
    size = max(1, tuning(x.rows.device).neighbour_entries // m)
    buffer = x.rows.new_empty(min(size, n), m)
    for first in range(0, n, size):
        rows = slice(first, min(first + size, n))
        some = x.part(rows)
        squared = torch.addmm(
            y.squared, some.rows, y.rows.T, alpha=-2, out=buffer[: len(some.rows)]
        ).add_(some.squared[:, None])
        if within:
            squared.diagonal(first).fill_(math.inf)
        accuracy = RESOLVED[squared.dtype]
        if squared.dtype == torch.float32 and not is_resolved(squared.amin(), some, y, accuracy):
            squared.copy_(squared_by_product(some.double(), y.double()))
            if within:
                squared.diagonal(first).fill_(math.inf)
        visit(rows, squared)


def point_trees(sets: NDArray[Any]) -> list[Tree]:
    """A search tree for each set of points of (n, N, d)."""
    return [tree(points) for points in sets]


def _nearest_by_tiles(
    x: Tensor, y: Tensor, k: int, convert: Callable[[Tensor], Tensor] | None
) -> Neighbours:
    from monge.gpu.search import MOST, nearest_rows

    if convert is not None or k > MOST:
        return _nearest_by_blocks(x, y, k, convert)
    return nearest_rows(x, y, k)


def _nearest_by_blocks(
    x: Tensor, y: Tensor, k: int, convert: Callable[[Tensor], Tensor] | None
) -> Neighbours:
    step = len(y)
    if convert is not None:
        step = max(k, tuning(x.device).converted_values // x.shape[1])
    centre, best = None, None
    for shift in range(0, len(y), step):
        block = y if convert is None else convert(y[shift : shift + step])
        centre = block.mean(0) if centre is None else centre
        squared, index = _nearest_of_block(x - centre, block - centre, min(k, len(block)))
        best = _better(best, (squared, index.add_(shift)), k)
    assert best is not None
    return best[0].clamp_min_(0), best[1]


def _nearest_of_block(x: Tensor, y: Tensor, k: int) -> Neighbours:
    values = x.new_empty(len(x), k)
    index = torch.empty(len(x), k, dtype=torch.int64, device=x.device)

    def visit(rows: slice, squared: Tensor) -> None:
        if k > 1:
            values[rows], index[rows] = squared.topk(k, largest=False)
            return
        index[rows, 0] = first_least(squared)
        values[rows] = squared.gather(1, index[rows])

    visit_distances(x, y, visit)
    return values, index


def _better(one: Neighbours | None, two: Neighbours, k: int) -> Neighbours:
    """The k nearest of two selections."""
    if one is None:
        return two
    values, index = (torch.cat(pair, 1) for pair in zip(one, two))
    values, kept = values.topk(min(k, values.shape[1]), largest=False)
    return values, index.gather(1, kept)


def _in_sets_by_trees(x: Tensor, y: Tensor) -> Tensor:
    def index(pair: tuple[NDArray[Any], NDArray[Any]]) -> NDArray[Any]:
        points, others = pair
        return np.asarray(tree(others).query(points)[1])

    # in a unit in which squared distances neither overflow nor vanish
    x, y = x.double(), y.double()
    unit = power_of_two(max(float(z.abs().amax()) for z in (x, y)))
    with ThreadPoolExecutor(threads()) as pool:
        indices = list(pool.map(index, zip(to_numpy(x / unit), to_numpy(y / unit))))
    return from_numpy(np.stack(indices))


def _in_sets_by_blocks(x: Tensor, y: Tensor) -> Tensor:
    size = tuning(x.device).sets
    blocks = zip(split(x, size), split(y, size))
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(a, b, compute_mode=mode).argmin(2) for a, b in blocks])
