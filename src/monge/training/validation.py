"""The figure of a validation set, by which training can stop early."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from monge.adversarial import Learned
from monge.config import TrainingConfig
from monge.data.identity import combined
from monge.data.source import as_floats, division
from monge.divergences import SlicedWasserstein, arguments
from monge.draws import Draws, permutation, seed_of
from monge.labels import Rows, labels_of, placed, unlabelled
from monge.models import evaluating, matchings, pairs


def held_apart(
    samples: Rows, seed: int, contents: np.ndarray | None = None, *, repeats: bool = False
) -> tuple[Rows, Rows]:
    """Splits samples into a training set and a validation set of a tenth, at least 2 samples.

    Args:
        samples: (n, *), with or without labels.
        seed: of the run.
        contents: the digests of what was read of each sample, uint64 (n,), by which the validation
            set is chosen, so that to add, rename or remove one moves no other; by position without
            them, as monge 0.1 did.
        repeats: see `monge.data.source.division`.

    Raises:
        ValueError: for fewer than 4 samples.
    """
    if len(samples) < 4:
        raise ValueError(
            f"`patience` needs a validation set, and there are only {len(samples)} training "
            "samples: leave it out for fewer than 4"
        )
    if contents is not None:
        drawn = combined(contents, np.full_like(contents, seed_of(seed, "validation")))
        rest, chosen = division("validation", drawn, repeats=repeats)
        return samples[torch.from_numpy(rest)], samples[torch.from_numpy(chosen)]
    order = permutation(seed, "validation", len(samples))
    count = max(2, len(samples) // 10)
    return samples[order[count:].sort().values], samples[order[:count].sort().values]


def figure(model: nn.Module, held: Rows, batch: int, seed: int, *, foreign: bool = True) -> float:
    r"""Σ terms + Σ weight · D(pair) over a validation set, the mean over batches; lower is better.

    It is computed in evaluation mode and with the same draws each time. D is the divergence of
    each matching. The value of a learned divergence says more about its critic than about the
    model, so the squared sliced W_2 along 128 directions replaces it. Weights are those without
    their schedules, so that the figures of different steps can be compared.

    Args:
        model: the model.
        held: the validation set, (n, \*), with labels for a class-conditional model.
        batch: samples at a time.
        seed: the seed of the run.
        foreign: whether the model may draw from torch's global generators.
    """
    matched, total, count = matchings(model), 0.0, 0
    device = next((p.device for p in model.parameters()), held.device)
    for i, x in enumerate(held.split(batch)):
        if len(x) < 2:
            continue
        x = placed(x, device)
        draws = Draws(seed, f"validation {i}", len(x), device=x.device, foreign=foreign)
        with evaluating(model), draws.stream("divergence"):
            made = model(as_floats(unlabelled(x)), draws, *labels_of(x))
            values, named = list(made.terms.values()), pairs(made)
            for one in matched:
                divergence = one.divergence
                if isinstance(divergence, Learned):
                    divergence = SlicedWasserstein(128)
                drawn = draws if len(matched) == 1 else draws.named(one.name)
                value = divergence(*named[one.name], **arguments(divergence, drawn))
                values.append(one.weight * value)
        total += float(torch.stack(values).sum()) * len(x)
        count += len(x)
    return total / count


def since_best(figures: Sequence[float]) -> int:
    """The number of figures after the lowest one."""
    return len(figures) - 1 - figures.index(min(figures)) if figures else 0


def validations(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The figures of the validation set in the rows of a log."""
    return [row["validation"] for row in rows if "validation" in row]


def out_of_patience(config: TrainingConfig, figures: Sequence[float]) -> bool:
    """Whether training ends because figures of the validation set have not become better."""
    return config.patience is not None and since_best(figures) >= config.patience
