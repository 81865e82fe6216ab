r"""Entropic transport that keeps classes together, for domain adaptation.

    min_π ⟨C, π⟩ + ε KL(π | a⊗b) + η Σ_j b_j Σ_c √s_cj,   s_cj = Σ_{i in class c} π_ij / b_j.

The last term is least where each point of the target takes its mass from one class of the source.
It is concave, so its tangent at the last plan bounds it from above: each round solves an entropic
problem with the cost C_ij + η / (2√s_cj) for i in class c, and the objective does not rise.

Source: Courty, Flamary, Tuia, Rakotomamonjy, "Optimal transport for domain adaptation", 2017, with
masses in place of the shares s_cj, hence η of theirs is that here over √m.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from monge._core.errors import warn
from monge.maps.estimator import WeightedSamples
from monge.transport.entropic import solve_entropic
from monge.transport.ground import Points

MOST_ROUNDS = 100
LEAST_SHARE = 1e-3
"""What is added to shares, so that the slope of √s is finite at 0."""
ROUNDS_TOLERANCE = 10.0
"""The mass between classes that the last round may move, in units of the marginal tolerance."""
UNKNOWN = -1


class Classes(NamedTuple):
    """The classes of the points of both samples, as numbers from 0 on."""

    of_source: Tensor
    """(n,)."""
    of_target: Tensor
    """(m,), `UNKNOWN` where a class is not known or not one of the source."""
    count: int


class ClassPlan(NamedTuple):
    """The plan of the last round, which is entropic for the cost C_ij + penalty[class of i, j]."""

    potentials: tuple[Tensor, Tensor]
    penalty: Tensor
    """(k, m)."""
    marginal_error: float


def classes_of(labels: Any, target_labels: Any, samples: WeightedSamples) -> Classes:
    """The classes of the points that have weight.

    Raises:
        ValueError: for labels that are not one for each point, or NaN, and for those of the target
            if none is a class of the source.
    """
    source = _labels("labels", labels, len(samples.of_x))
    names, numbers = np.unique(source, return_inverse=True)
    of_source = torch.from_numpy(numbers.astype(np.int64))
    of_target = torch.full((len(samples.of_y),), UNKNOWN)
    if target_labels is not None:
        target = _labels("target_labels", target_labels, len(of_target)).tolist()
        number = {name: i for i, name in enumerate(names.tolist()) if name != UNKNOWN}
        of_target = torch.tensor([number.get(name, UNKNOWN) for name in target])
        if bool((of_target == UNKNOWN).all()):
            raise ValueError(
                f"`target_labels` has none of the classes of `labels`, {names[:10].tolist()}, got "
                f"{np.unique(target)[:10].tolist()}: give them alike, or leave them out"
            )
    place = samples.x.device
    return Classes(
        of_source.to(place)[samples.of_x], of_target.to(place)[samples.of_y], len(names)
    )


def _labels(name: str, labels: Any, count: int) -> np.ndarray:
    values = labels.numpy(force=True) if isinstance(labels, Tensor) else np.asarray(labels)
    if values.shape != (count,):
        raise ValueError(
            f"`{name}` must hold a label for each of the {count} points, got shape {values.shape}"
        )
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError(
            f"`{name}` has NaN, which names no class: give a class for each point of `X`, and -1 "
            "for unknown ones of `Y`"
        )
    return values


def solve_classes(
    samples: WeightedSamples, classes: Classes, epsilon: float, eta: float, tolerance: float
) -> ClassPlan:
    """The class-regularised plan, found by rounds until they hardly move mass between classes.

    A point of the target with a known class costs those of other classes as much more as the
    costliest pair, so that a plan exists whatever the masses of the classes are.
    """
    x, y, a, b = samples.x, samples.y, samples.a, samples.b
    of_source, of_target, count = classes
    cost = Points(x, y, 2).whole()
    numbers = torch.arange(count, device=x.device)[:, None]
    other = (of_target != UNKNOWN) & (of_target != numbers)
    fixed = other.double() * cost.max()
    penalty, masses, rounds = fixed, torch.zeros_like(fixed), 0
    while True:
        solved = solve_entropic(
            cost + penalty[of_source], a, b, epsilon=epsilon, tolerance=tolerance
        )
        before, rounds = masses, rounds + 1
        masses = torch.zeros_like(fixed).index_add_(0, of_source, solved.plan)
        moved = float((masses - before).abs().sum())
        if eta == 0 or moved <= ROUNDS_TOLERANCE * tolerance or rounds == MOST_ROUNDS:
            break
        penalty = fixed + eta / 2 * (masses / b + LEAST_SHARE).rsqrt()
    if eta > 0 and moved > ROUNDS_TOLERANCE * tolerance:
        warn(
            f"class-regularised transport still moves a mass of {moved:.2g} between classes after "
            f"{MOST_ROUNDS} rounds: lower `class_penalty` or raise `epsilon`"
        )
    return ClassPlan(solved.potentials, penalty, solved.marginal_error)
