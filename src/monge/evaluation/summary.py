"""The few numbers that sum up a trained model: reconstruction, codes, and cost of training."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monge._core.checks import seed as checked_seed
from monge.data import Source, as_floats
from monge.divergences import MMD
from monge.draws import generator, stream
from monge.evaluation.latent import MOST_CODES
from monge.kernels import multiscale_imq
from monge.labels import unlabelled
from monge.models import evaluating
from monge.models.protocols import (
    drawn_codes,
    has,
    prior_of,
    reconstruct,
    reconstructs,
    rows_for,
)
from monge.priors import Prior


def summary(
    model: nn.Module,
    source: Source,
    rows: Sequence[Mapping[str, Any]] = (),
    *,
    batch: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """The numbers that sum up a model, on the held-out samples of its data.

    `test reconstruction` is the mean of Σ (x - G(z))² at the mean codes, of a table in standard
    units of its columns; for sets it is their Chamfer distance. `MMD² of codes` is the unbiased
    multi-scale MMD² between draws of Q_Z and of the prior; `noise floor` is the same estimate
    between two samples of the prior. A model has the numbers for which it has methods and a prior.

    Args:
        model: the trained model.
        source: its data.
        rows: the logged rows of its training.
        batch: samples a step.
        seed: of the draws.
    """
    return errors(model, source, seed) | _training(rows, batch)


def errors(model: nn.Module, source: Source, seed: int = 0) -> dict[str, float]:
    """The numbers of `summary` that come from held-out samples."""
    prior = prior_of(model) if has(model, "encode") else None
    error = source.error() if reconstructs(model) else None
    if error is None and prior is None:
        return {}
    distances, codes = [], []
    with evaluating(model), stream(checked_seed(seed), "report codes"):
        test = rows_for(model, source.test, source.test_labels)
        for x in map(as_floats, test.split(500)):
            if error is not None:
                distances.append(error(unlabelled(x), reconstruct(model, x)))
            if prior is not None:
                codes.append(drawn_codes(model, x))
    numbers = {}
    if error is not None:
        numbers["test reconstruction"] = float(torch.cat(distances).mean())
    if prior is not None:
        numbers |= _matching(torch.cat(codes)[:MOST_CODES], prior, seed)
    return numbers


def _matching(codes: Tensor, prior: Prior, seed: int) -> dict[str, float]:
    one, two = (prior.sample(len(codes), generator(seed, "report", i)) for i in (0, 1))
    mmd = MMD(multiscale_imq(prior.spread))
    return {
        "MMD² of codes": float(mmd(codes, one)),
        "noise floor": float(mmd(two, one)),
        "n of codes": len(codes),
    }


def _training(rows: Sequence[Mapping[str, Any]], batch: int) -> dict[str, float]:
    last = rows[-1] if rows else {"step": 0, "seconds": 0.0}
    seconds = last["seconds"]
    return {
        "steps": last["step"],
        "training seconds": seconds,
        "samples per second": last["step"] * batch / seconds if seconds else 0.0,
    }
