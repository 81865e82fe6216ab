"""A figure of samples that training does not see, by which it can stop."""

import torch
from torch import Tensor

from monge.adversarial import Learned
from monge.data.source import as_floats
from monge.divergences import SlicedWasserstein
from monge.draws import Draws, permutation
from monge.models import Model, evaluating


def held_apart(samples: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """(the samples to train on, a tenth of them held apart, at least 2)."""
    order = permutation(seed, "validation", len(samples))
    count = max(2, len(samples) // 10)
    return samples[order[count:].sort().values], samples[order[:count].sort().values]


def figure(model: Model, held: Tensor, batch: int, seed: int) -> float:
    """Σ terms + weight · D(pair) of samples held apart, the mean over batches; lower is better.

    In evaluation mode, with the same draws each time. D is the model's divergence; of a learned
    one, whose value measures its critic, the sliced W_2² along 128 directions.
    """
    divergence = model.divergence
    if isinstance(divergence, Learned):
        divergence = SlicedWasserstein(128)
    total = 0.0
    parts = [part for part in held.split(batch) if len(part) > 1]
    for i, x in enumerate(parts):
        draws = Draws(seed, f"validation {i}", len(x), device=x.device)
        with evaluating(model), draws.stream("divergence"):
            terms, pair = model(as_floats(x), draws)
            values = list(terms.values())
            if divergence is not None:
                values.append(model.weight * divergence(*pair))
        total += float(torch.stack(values).sum()) * len(x)
    return total / sum(map(len, parts))


def since_best(figures: list[float]) -> int:
    """How many figures were seen after the lowest one."""
    return len(figures) - 1 - figures.index(min(figures)) if figures else 0
