"""The training samples nearest to given samples."""

import torch
from torch import Tensor

from monge.data import Kind, as_floats
from monge.transport.neighbours import nearest

MOST_SETS, MOST_POINTS = 500, 200
"""Sets that are searched, the first ones, and about how many points of each."""


def nearest_samples(x: Tensor, train: Tensor, kind: Kind, count: int = 1) -> tuple[Tensor, Tensor]:
    r"""Distances to the training samples nearest to each of x (n, \*), and their indices.

    Distances are squared Euclidean ones, or those of `kind.error()` where samples are sets.
    Both results have shape (n, count), nearest first.
    """
    if kind.unordered:
        return _nearest_sets(x, train, kind, count)
    return nearest(x.flatten(1), train, count, convert=lambda z: as_floats(z).flatten(1))


def _nearest_sets(x: Tensor, train: Tensor, kind: Kind, count: int) -> tuple[Tensor, Tensor]:
    step = max(1, train.shape[1] // MOST_POINTS)
    candidates, error = train[:MOST_SETS, ::step], kind.error()
    distances = torch.stack([error(one.expand_as(candidates), candidates) for one in x[:, ::step]])
    best = distances.topk(min(count, len(candidates)), largest=False)
    return best.values, best.indices
