r"""Measures by nearest neighbours between features of a model's samples and of real ones.

All work through blocks of rows, so memory is O(n + m) times a block, not n m.

Source: Kynkäänniemi et al., "Improved precision and recall metric for assessing generative
models", 2019; Naeem, Oh, Uh, Choi, Yoo, "Reliable fidelity and diversity metrics for generative
models", 2020.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from monge.evaluation.frechet import features
from monge.evaluation.two_sample import Share, wilson

BLOCK = 2**22
"""Distances a block."""


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the squared distances of centred x (n, d) and y (m, d): a slice, and (b, m)."""
    norms, rows = y.square().sum(1), max(1, BLOCK // len(y))
    buffer = x.new_empty(min(rows, len(x)), len(y))
    for first in range(0, len(x), rows):
        part = x[first : first + rows]
        squared = torch.addmm(norms, part, y.T, alpha=-2, out=buffer[: len(part)])
        yield slice(first, first + len(part)), squared.add_(part.square().sum(1, keepdim=True))


def _others(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The same within one sample, where a row's distance to itself is infinite."""
    for part, squared in _blocks(x, x):
        squared.diagonal(part.start).fill_(math.inf)
        yield part, squared


def _prepared(x: Tensor, y: Tensor, names: tuple[str, str]) -> tuple[Tensor, Tensor]:
    for name, z in zip(names, (x, y)):
        features(name, z)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"`{names[1]}` must have {x.shape[1]} features, got {y.shape[1]}")
    # products lose the digits of distances far from the origin
    centre = y.mean(0)
    return x - centre, y - centre


def radii(x: Tensor, k: int) -> Tensor:
    """The squared distance of each row of x (n, d) to its k-th nearest other row, (n,)."""
    found = x.new_empty(len(x))
    for part, squared in _others(x):
        found[part] = squared.topk(k, largest=False).values[:, -1]
    return found


class PRDC(NamedTuple):
    """Precision, recall, density and coverage."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_density_coverage(model: Tensor, real: Tensor, k: int = 5) -> PRDC:
    """How well balls around samples, as wide as to their k-th neighbour, cover the others.

    precision: the share of model samples in the ball of any real one; recall: the share of real
    samples in the ball of any of the model's; density: the mean number of real balls around a
    model sample, over k; coverage: the share of real balls with a model sample inside. For a
    perfect model precision and recall are not 1: print the floor beside them.

    Arguments:
        model: features of a model's samples, (n, d).
        real: features of real samples, (m, d).
        k: which neighbour makes the radius; less than n and m.

    Raises:
        ValueError: for other shapes, NaN, or k out of range.
    """
    model, real = _prepared(model, real, ("model", "real"))
    if not 1 <= k < min(len(model), len(real)):
        raise ValueError(
            f"`k` must be from 1 to less than {min(len(model), len(real))} samples, got {k}"
        )
    around_real, around_model = radii(real, k), radii(model, k)
    inside = torch.empty(len(model))
    recalled = torch.zeros(len(real), dtype=torch.bool)
    covered = torch.zeros(len(real), dtype=torch.bool)
    for part, squared in _blocks(model, real):
        within = squared <= around_real
        inside[part] = within.sum(1).float()
        covered |= within.any(0)
        recalled |= (squared <= around_model[part, None]).any(0)
    return PRDC(
        float((inside > 0).float().mean()),
        float(recalled.float().mean()),
        float(inside.mean()) / k,
        float(covered.float().mean()),
    )


def nearest_neighbour_test(model: Tensor, real: Tensor) -> Share:
    """How often the nearest other sample is of the same kind, of n model and n real samples.

    ½ if the laws agree, 1 if they are apart, less than ½ if the model repeats the real samples.
    The larger sample is cut to the size of the smaller.
    """
    model, real = _prepared(model, real, ("model", "real"))
    n = min(len(model), len(real))
    pooled = torch.cat([model[:n], real[:n]])
    hits = 0
    of_model = torch.arange(2 * n) < n
    for part, squared in _others(pooled):
        hits += int((of_model[squared.argmin(1)] == of_model[part]).sum())
    return wilson(hits, 2 * n)


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """The distance of each row of x (n, d) to the nearest row of y (m, d), (n,)."""
    x, y = _prepared(x, y, ("x", "y"))
    found = x.new_empty(len(x))
    for part, squared in _blocks(x, y):
        found[part] = squared.amin(1).clamp_min(0).sqrt()
    return found


def memorisation(model: Tensor, train: Tensor, test: Tensor, quantile: float = 0.01) -> float:
    """The share of model samples that lie as near to training samples as the nearest `quantile`
    of test samples do; a share far above `quantile` says that the model repeats its data.

    Arguments:
        model: (n, d).
        train: (m, d).
        test: (k, d), which the model has not seen.
    """
    edge = torch.quantile(nearest(test, train), quantile)
    return float((nearest(model, train) <= edge).float().mean())
