r"""Measures of completions (n, k, \*) of n samples, whose truth (n, \*) is known."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from monge._core.checks import finite, floating
from monge._core.devices import to_device
from monge._core.numerics import unit_of_length
from monge._core.promotion import ANY, promoted
from monge.data import Source, as_floats
from monge.divergences import MMD
from monge.draws import generator, permutation
from monge.evaluation.statistics import Figure, figure
from monge.kernels import multiscale_imq
from monge.models import evaluating
from monge.models.protocols import Completer, complete, device_of, has, prior_of

COMPLETIONS = 10


def _pairs(completions: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, float]:
    """Completions (n, k, d) and truth (n, d) in a unit in which squares stay in range, and it."""
    for name, x in (("completions", completions), ("truth", truth)):
        finite(name, floating(name, x))
    if completions.ndim < 3 or 0 in completions.shape or completions[:, 0].shape != truth.shape:
        raise ValueError(
            "`completions` must have shape (n, k, *) with n and k of at least 1, for a `truth` "
            "(n, *), got "
            f"{tuple(completions.shape)} and {tuple(truth.shape)}"
        )
    y, t = completions.detach().flatten(2), truth.detach().flatten(1)
    unit = unit_of_length(y, t)
    return y / unit, t / unit, unit


@promoted(completions=ANY, truth=ANY)
def best_of(completions: Tensor, truth: Tensor) -> float:
    """The mean squared error Σ (y - t)² of the best of the k completions.

    Args:
        completions: (n, k, *).
        truth: (n, *).

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity.
    """
    y, t, unit = _pairs(completions, truth)
    return unit * unit * float((y - t[:, None]).square().sum(2).amin(1).mean())


@promoted(completions=ANY)
def diversity(completions: Tensor) -> float:
    """The mean Σ (y - y')² of two completions of one sample; 0 where all are the same.

    Args:
        completions: (n, k, *).

    Raises:
        ValueError: for fewer than two completions of each sample, NaN or infinity.
    """
    if completions.ndim < 3 or completions.shape[1] < 2:
        raise ValueError(
            "`completions` must have shape (n, k, *) with k of at least 2, got "
            f"{tuple(completions.shape)}"
        )
    y, _, unit = _pairs(completions, completions[:, 0])
    return 2 * unit * unit * float(y.var(1).sum(1).mean())


@promoted(completions=ANY, truth=ANY)
def energy_score(completions: Tensor, truth: Tensor) -> float:
    """E ‖Y - t‖ - ½ E ‖Y - Y'‖ over completions Y, Y' of a sample, averaged over samples.

    A strictly proper score: no distribution of completions has a lower expected score than the
    conditional distribution of the truth. The second mean is over distinct pairs, so the score is
    unbiased in k.

    Args:
        completions: (n, k, *).
        truth: (n, *).

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity.

    Source: Gneiting, Raftery, "Strictly proper scoring rules, prediction, and estimation", 2007.
    """
    y, t, unit = _pairs(completions, truth)
    k = y.shape[1]
    near = torch.linalg.vector_norm(y - t[:, None], dim=2).mean()
    if k == 1:
        return unit * float(near)
    apart = torch.cdist(y, y, compute_mode="donot_use_mm_for_euclid_dist")
    return unit * float(near - 0.5 * apart.sum((1, 2)).mean() / (k * (k - 1)))


def agreement(completions: Tensor, labels: Tensor, classify: Callable[[Tensor], Tensor]) -> float:
    """The share of completions whose class is that of the truth.

    Args:
        completions: (n, k, *).
        labels: classes of the truth (n,).
        classify: samples (b, *) to scores (b, classes).

    Raises:
        ValueError: for labels of another number.
    """
    if not isinstance(completions, Tensor) or completions.ndim < 2:
        raise ValueError(f"`completions` must be a tensor (n, k, *), got {completions!r}"[:300])
    k, labels = completions.shape[1], torch.as_tensor(labels)
    if labels.shape != completions.shape[:1]:
        raise ValueError(
            f"`labels` must hold a class for each of {len(completions)} samples, got shape "
            f"{tuple(labels.shape)}"
        )
    with torch.no_grad():
        parts = completions.flatten(0, 1).split(500)
        guessed = torch.cat([classify(part).argmax(1) for part in parts])
    return float((guessed == labels.repeat_interleave(k)).float().mean())


def completed(model: Completer, source: Source) -> tuple[Tensor, Tensor | None, Tensor]:
    """Up to 1,000 held-out samples, their classes if any, and ten completions of each."""
    rows = permutation(0, "evaluation completions", len(source.test))[:1000]
    x = as_floats(source.test[rows])
    drawn = complete(model, x, COMPLETIONS, generator(0, "evaluation completions"))
    return x, None if source.test_labels is None else source.test_labels[rows], drawn


def completion_figures(model: Completer, x: Tensor, drawn: Tensor) -> dict[str, Figure]:
    r"""The figures of completions `drawn` (n, k, \*) of samples x (n, \*)."""
    return {
        f"best of {drawn.shape[1]}": figure(best_of(drawn, x)),
        "diversity": figure(diversity(drawn)),
        "energy score": figure(energy_score(drawn, x)),
        **_joint(model, x),
    }


def _joint(model: Any, x: Tensor) -> dict[str, Figure]:
    """MMD² between the joint samples (φ, z) of codes and of prior draws, for a model with a
    summary φ of the known part."""
    prior = prior_of(model)
    if prior is None or not has(model, "summarise", "encode"):
        return {}
    with evaluating(model):
        x = to_device(x, device_of(model))
        known = model.known(x)
        phi, codes = model.summarise(x, known).cpu(), model.encode(x, known).mean.cpu()
    drawn, other = (prior.sample(len(x), generator(0, "joint", i)) for i in (0, 1))
    joint = [torch.cat([phi, z], 1) for z in (codes, drawn, other)]
    mmd = MMD(multiscale_imq(prior.spread + 2 * phi.shape[1]), paired=True)
    return {"joint MMD²": figure(float(mmd(joint[0], joint[1])), float(mmd(joint[2], joint[1])))}
