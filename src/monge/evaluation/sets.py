"""Comparison of one set of point clouds with another.

Conventions differ by factors between codes: here Chamfer distances are sums of both means of
squared nearest distances, earth mover's distances means of unsquared ones, both between clouds as
they are given, and 1-NNA is the accuracy of the leave-one-out test.

Source: Achlioptas, Diamanti, Mitliagkas, Guibas, "Learning representations and generative models
for 3D point clouds", 2018; of 1-NNA Yang et al., "PointFlow", 2019.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from monge._core.checks import dimension, finite, of_rank
from monge._core.promotion import as_tensor
from monge._core.tuning import threads
from monge.transport import jensen_shannon
from monge.transport.neighbours import point_trees

MATCHED = 256
CELLS = 28


class SetScores(NamedTuple):
    """Scores of generated clouds against real ones, under a distance between clouds."""

    minimum: float
    """MMD: the mean over real clouds of the distance to the nearest fake. Lower is better."""
    coverage: float
    """The share of real clouds that are the nearest one of a fake. Higher is better."""
    accuracy: float
    """1-NNA: how often the nearest other cloud is of the same kind. ½ is best."""


def pairwise_chamfer(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Chamfer distances between clouds, by search trees.

    Args:
        x: clouds (n, N, 3).
        y: clouds (m, M, 3); by default those of x, for half of the work.

    Returns:
        (n, m), float64; see `monge.costs.Chamfer`.

    Raises:
        ValueError: for other shapes, clouds of at most three points, NaN or infinity.
    """
    one, two = _clouds(x, y)
    trees = point_trees(one)
    others = trees if y is None else point_trees(two)

    def entry(i: int, j: int) -> float:
        there, back = others[j].query(one[i])[0], trees[i].query(two[j])[0]
        return float(np.square(there).mean() + np.square(back).mean())

    return _matrix(entry, len(one), len(two), y is None)


def pairwise_earth_mover(x: Tensor, y: Tensor | None = None, points: int = MATCHED) -> Tensor:
    """Earth mover's distances between clouds, by some of their points.

    An optimal matching costs the cube of the number of points. The order of the points of a cloud
    is taken to be random, so that the first of them are a random subset.

    Args:
        x: clouds (n, N, 3).
        y: clouds (m, M, 3); by default those of x, for half of the work.
        points: how many points of each cloud are matched, fewer if there are fewer.

    Returns:
        (n, m), float64: means of unsquared distances of matched points.

    Raises:
        ValueError: for other shapes, clouds of at most three points, NaN or infinity.
    """
    one, two = _clouds(x, y)
    count = min(dimension("points", points), one.shape[1], two.shape[1])

    def entry(i: int, j: int) -> float:
        distances = cdist(one[i, :count], two[j, :count])
        return float(distances[linear_sum_assignment(distances)].mean())

    return _matrix(entry, len(one), len(two), y is None)


def set_scores(fake: Tensor, between: Tensor, real: Tensor) -> SetScores:
    """Scores of generated clouds from distances between clouds, of any kind.

    Args:
        fake: distances within the generated clouds, (n, n).
        between: distances of generated and real clouds, (n, m).
        real: distances within the real clouds, (m, m).

    Raises:
        ValueError: for other shapes, fewer than two clouds of a kind, NaN or infinity.

    Example:
        >>> within, across = pairwise_chamfer(clouds), pairwise_chamfer(clouds, others)
        >>> set_scores(within, across, pairwise_chamfer(others)).coverage
    """
    fake, between, real = (
        as_tensor(name, distances)
        for name, distances in (("fake", fake), ("between", between), ("real", real))
    )
    n, m = of_rank("between", between, 2, "(n, m)").shape
    if fake.shape != (n, n) or real.shape != (m, m) or min(n, m) < 2:
        raise ValueError(
            "`fake`, `between` and `real` must be distances (n, n), (n, m) and (m, m) of at least "
            f"2 clouds each, got {tuple(fake.shape)}, {tuple(between.shape)} and "
            f"{tuple(real.shape)}"
        )
    for name, distances in (("fake", fake), ("between", between), ("real", real)):
        finite(name, distances)
    apart = [z.masked_fill(torch.eye(len(z), dtype=torch.bool), torch.inf) for z in (fake, real)]
    hits = (apart[0].amin(1) < between.amin(1)).sum() + (apart[1].amin(1) < between.amin(0)).sum()
    return SetScores(
        minimum=float(between.amin(0).mean()),
        coverage=len(between.argmin(1).unique()) / m,
        accuracy=float(hits) / (n + m),
    )


def occupancy_divergence(x: Tensor, y: Tensor, cells: int = CELLS) -> float:
    """Jensen-Shannon divergence, in nats, of the places of the points of two sets of clouds.

    Args:
        x: clouds (n, N, 3) in the unit sphere.
        y: clouds (m, M, 3) in the unit sphere.
        cells: along each axis of the grid over [-1, 1]³ in which points are counted.

    Raises:
        ValueError: for other shapes, clouds of at most three points, NaN or infinity.
    """
    dimension("cells", cells)
    counts = []
    for clouds in _clouds(x, y):
        index = ((clouds.reshape(-1, 3) + 1) * (cells / 2)).clip(0, cells - 1).astype(int)
        flat = np.ravel_multi_index(tuple(index.T), (cells,) * 3)
        counts.append(torch.from_numpy(np.bincount(flat, minlength=cells**3)).double())
    one, two = (count / count.sum() for count in counts)
    return float(jensen_shannon(one, two))


def _clouds(x: Tensor, y: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    arrays: list[np.ndarray] = []
    for name, value in (("x", x),) if y is None else (("x", x), ("y", y)):
        clouds = finite(name, as_tensor(name, value).detach())
        if clouds.ndim != 3 or clouds.shape[2] != 3 or clouds.shape[1] <= 3 or not len(clouds):
            raise ValueError(
                f"`{name}` must be clouds (n, N, 3) of more than 3 points, n ≥ 1, got "
                f"{tuple(clouds.shape)}"
            )
        arrays.append(clouds.cpu().double().numpy())
    return arrays[0], arrays[-1]


def _matrix(entry: Callable[[int, int], float], n: int, m: int, symmetric: bool) -> Tensor:
    """The entries (i, j) over the threads; of a symmetric matrix those above the diagonal."""
    pairs = list(itertools.combinations(range(n), 2) if symmetric else np.ndindex(n, m))
    with ThreadPoolExecutor(threads()) as pool:
        values = torch.tensor(list(pool.map(lambda ij: entry(*ij), pairs)), dtype=torch.float64)
    rows, columns = torch.tensor(pairs).T
    matrix = torch.zeros(n, m, dtype=torch.float64)
    matrix[rows, columns] = values
    return matrix + matrix.T if symmetric else matrix
