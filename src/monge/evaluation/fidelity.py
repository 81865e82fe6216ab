r"""Measures by nearest neighbours between features of a model's samples and of real ones.

All work through blocks of distances, so that memory is never n m.

Source: Kynkäänniemi et al., "Improved precision and recall metric for assessing generative
models", 2019; Naeem, Oh, Uh, Choi, Yoo, "Reliable fidelity and diversity metrics for generative
models", 2020.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import dimension
from monge._core.numerics import unit_of_length
from monge._core.promotion import ANY, promoted
from monge.draws import generator
from monge.evaluation.frechet import features
from monge.evaluation.two_sample import Share, wilson
from monge.transport import neighbours


def _checked(x: Tensor, y: Tensor, names: tuple[str, str]) -> None:
    for name, z in zip(names, (x, y)):
        features(name, z)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"`{names[1]}` must have {x.shape[1]} features, got {y.shape[1]}")


def _centred(model: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Checked features about a mean, in a unit in which squares stay in range: products lose the
    digits of distances far from the origin."""
    _checked(model, real, ("model", "real"))
    model, real = model.detach(), real.detach()
    unit = unit_of_length(model, real)
    model, real = model / unit, real / unit
    centre = real.mean(0)
    return model - centre, real - centre


def radii(x: Tensor, k: int) -> Tensor:
    """The squared distance of each row of x (n, d) to its k-th nearest other row, (n,)."""
    kth = x.new_empty(len(x))

    def visit(rows: slice, squared: Tensor) -> None:
        kth[rows] = squared.topk(k, largest=False).values[:, -1]

    neighbours.visit_distances_within(x, visit)
    return kth


class PRDC(NamedTuple):
    """Precision, recall, density and coverage."""

    precision: float
    recall: float
    density: float
    coverage: float


@promoted(model=ANY, real=ANY)
def precision_recall_density_coverage(model: Tensor, real: Tensor, k: int = 5) -> PRDC:
    """How well balls around samples, as wide as to their k-th neighbour, cover the others.

    precision: the share of model samples in the ball of any real one; recall: the share of real
    samples in the ball of any of the model's; density: the mean number of real balls around a
    model sample, over k; coverage: the share of real balls with a model sample inside. For a
    perfect model precision and recall are not 1: print the floor beside them.

    Args:
        model: features of a model's samples, (n, d).
        real: features of real samples, (m, d).
        k: which neighbour makes the radius; less than n and m.

    Raises:
        ValueError: for other shapes, NaN, or k out of range.
    """
    model, real = _centred(model, real)
    if not 1 <= dimension("k", k) < min(len(model), len(real)):
        raise ValueError(
            f"`k` must be from 1 to less than {min(len(model), len(real))} samples, got {k}"
        )
    around_real, around_model = radii(real, k), radii(model, k)
    inside = torch.empty(len(model))
    recalled = torch.zeros(len(real), dtype=torch.bool)
    covered = torch.zeros(len(real), dtype=torch.bool)

    def visit(rows: slice, squared: Tensor) -> None:
        within = squared <= around_real
        inside[rows] = within.sum(1).float()
        covered.logical_or_(within.any(0))
        recalled.logical_or_((squared <= around_model[rows, None]).any(0))

    neighbours.visit_distances(model, real, visit)
    return PRDC(
        float((inside > 0).float().mean()),
        float(recalled.float().mean()),
        float(inside.mean()) / k,
        float(covered.float().mean()),
    )


@promoted(model=ANY, real=ANY)
def nearest_neighbour_test(model: Tensor, real: Tensor) -> Share:
    """How often the nearest other sample is of the same kind, of n model and n real samples.

    ½ if the distributions agree, 1 if they are apart, less than ½ if the model repeats the
    real samples. The larger sample is cut to the size of the smaller.

    The interval is for the expected share at this n. Hits of samples that share a neighbour are
    dependent (mutual neighbours hit together), so their covariances are part of its variance:
    Wilson's interval has the number of independent hits that would have this variance. Among
    nearest samples at the same distance, as among counts or categories, one is drawn for each
    sample, with fixed draws.

    Args:
        model: features of a model's samples, (n, d).
        real: features of real samples, (m, d).

    Returns:
        (value, low, high): the share with its 95 % interval.

    Raises:
        ValueError: for other shapes, NaN or infinity.
    """
    model, real = _centred(model, real)
    n = min(len(model), len(real))
    pooled = torch.cat([model[:n], real[:n]])
    of_model = torch.arange(2 * n) < n
    near = torch.empty(2 * n, dtype=torch.long)

    drawn = generator(0, "ties of neighbours")

    def visit(rows: slice, squared: Tensor) -> None:
        near[rows] = squared.argmin(1)
        tied = squared == squared.amin(1, keepdim=True)
        some = tied.sum(1) > 1
        if some.any():
            shares = tied[some].float().cpu()
            near[rows][some] = torch.multinomial(shares, 1, generator=drawn)[:, 0]

    neighbours.visit_distances_within(pooled, visit)
    same = of_model[near] == of_model
    return wilson(float(same.sum()), 2 * n, _inflation(same, near))


def _inflation(same: Tensor, near: Tensor) -> float:
    """The variance of the sum of hits (n,) over that of independent ones, at least 1.

    It adds the products of the centred hits d of all pairs i, j for which the edges (i, near[i])
    and (j, near[j]) share a sample; other hits are nearly independent. The sum over samples of
    (Σ d of edges there)² has such pairs once, and twice those that share both ends.
    """
    d = same.double() - same.double().mean()
    at = d.index_add(0, near, d)
    mutual = near[near] == torch.arange(len(near))
    total = at.square().sum() - d.square().sum() - (d * d[near])[mutual].sum()
    alone = float(d.square().sum())
    # all alike: mutual neighbours hit together, so that two count as one at most
    return max(float(total) / alone, 1.0) if alone else 2.0


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """The distance of each row of x (n, d) to the nearest row of y (m, d), (n,)."""
    _checked(x, y, ("x", "y"))
    unit = unit_of_length(x, y)
    return unit * neighbours.nearest_squared(x / unit, y / unit).sqrt()


@promoted(model=ANY, train=ANY, test=ANY)
def memorisation(model: Tensor, train: Tensor, test: Tensor, quantile: float = 0.01) -> float:
    """The share of model samples that lie as near to training samples as the nearest `quantile`
    of test samples do; a share far above `quantile` says that the model repeats its data.

    Args:
        model: (n, d).
        train: (m, d).
        test: (k, d), which the model has not seen.
        quantile: which share of the test samples counts as near, in [0, 1].

    Raises:
        ValueError: for other shapes, NaN or infinity, or a quantile outside [0, 1].
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"`quantile` must be in [0, 1], got {quantile}")
    edge = torch.quantile(nearest(test, train), quantile)
    return float((nearest(model, train) <= edge).float().mean())
