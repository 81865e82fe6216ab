"""The training samples nearest to given samples."""

import torch
from torch import Tensor

from monge.data import Kind, as_floats

MOST_SETS, MOST_POINTS = 500, 200
"""Of sets the first 500 are searched, by some 200 points of each."""


def nearest_samples(x: Tensor, train: Tensor, kind: Kind, count: int = 1) -> tuple[Tensor, Tensor]:
    r"""Distances to the training samples nearest to each of x (n, \*), and their indices.

    Distances are squared Euclidean ones, or those of `kind.error()` where samples are sets.
    Both results have shape (n, count), nearest first.
    """
    count = min(count, len(train))
    return _nearest(x, train, count) if kind.ordered else _nearest_sets(x, train, kind, count)


def _nearest_sets(x: Tensor, train: Tensor, kind: Kind, count: int) -> tuple[Tensor, Tensor]:
    step = max(1, train.shape[1] // MOST_POINTS)
    candidates, error = train[:MOST_SETS, ::step], kind.error()
    distances = torch.stack([error(one.expand_as(candidates), candidates) for one in x[:, ::step]])
    best = distances.topk(min(count, len(candidates)), largest=False)
    return best.values, best.indices


def _nearest(x: Tensor, train: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """By blocks of the training samples, for more of them than memory holds as floats."""
    flat = x.flatten(1)
    best, index = torch.full((len(x), 0), float("inf")), torch.zeros(len(x), 0).long()
    rows = max(count, 2**23 // flat.shape[1])
    for first in range(0, len(train), rows):
        block = as_floats(train[first : first + rows]).flatten(1)
        values, places = (block.square().sum(1) - 2 * flat @ block.T).topk(
            min(count, len(block)), largest=False
        )
        best, index = torch.cat([best, values], 1), torch.cat([index, places + first], 1)
        best, kept = best.topk(min(count, best.shape[1]), largest=False)
        index = index.gather(1, kept)
    return (best + flat.square().sum(1, keepdim=True)).clamp_min(0), index
