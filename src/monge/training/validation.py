"""The figure of a validation set, by which training can stop early."""

import torch
from torch import Tensor, nn

from monge._core.devices import to_device
from monge.adversarial import Learned
from monge.data.source import as_floats
from monge.divergences import SlicedWasserstein
from monge.draws import Draws, permutation
from monge.models import evaluating, matchings, pairs
from monge.training.objective import arguments


def held_apart(samples: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Splits samples into a training set and a validation set of a tenth, at least 2 samples.

    Raises:
        ValueError: for fewer than 4 samples.
    """
    if len(samples) < 4:
        raise ValueError(
            f"`patience` holds samples apart to judge by, and there are {len(samples)} in all: "
            "leave it out for fewer than 4"
        )
    order = permutation(seed, "validation", len(samples))
    count = max(2, len(samples) // 10)
    return samples[order[count:].sort().values], samples[order[:count].sort().values]


def figure(model: nn.Module, held: Tensor, batch: int, seed: int) -> float:
    r"""Σ terms + Σ weight · D(pair) over a validation set, the mean over batches; lower is better.

    It is computed in evaluation mode and with the same draws each time. D is the divergence of
    each matching. The value of a learned divergence says more about its critic than about the
    model, so the squared sliced W_2 along 128 directions replaces it. Weights are those without
    their schedules, so that the figures of different steps can be compared.

    Args:
        model: the model.
        held: the validation set, (n, \*).
        batch: samples at a time.
        seed: the seed of the run.
    """
    matched, total, count = matchings(model), 0.0, 0
    device = next((p.device for p in model.parameters()), held.device)
    for i, x in enumerate(held.split(batch)):
        if len(x) < 2:
            continue
        x = to_device(x, device)
        draws = Draws(seed, f"validation {i}", len(x), device=x.device)
        with evaluating(model), draws.stream("divergence"):
            made = model(as_floats(x), draws)
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


def since_best(figures: list[float]) -> int:
    """How many figures came after the lowest one."""
    return len(figures) - 1 - figures.index(min(figures)) if figures else 0
