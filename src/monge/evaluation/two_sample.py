"""Classifier two-sample tests: can a classifier tell a model's samples from real ones?

Source: Lopez-Paz, Oquab, "Revisiting classifier two-sample tests", 2017.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from monge.draws import generator, stream
from monge.evaluation.frechet import features
from monge.networks.mlp import mlp

STEPS, BATCH, RATE, HIDDEN = 300, 500, 3e-3, 64


class Share(NamedTuple):
    """A share of n with its 95 % Wilson interval."""

    value: float
    low: float
    high: float


def wilson(hits: int, n: int) -> Share:
    """The share hits / n and its interval: Wilson, "Probable inference", 1927."""
    z, share = 1.959964, hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Share(share, middle - half, middle + half)


def network_test(model: Tensor, real: Tensor) -> Share:
    """The held-out accuracy of a small network that classifies samples: ½ if the distributions
    agree.

    A perceptron with one hidden layer of 64 is trained on half of each sample, in standard units,
    by 300 steps of Adam with weight decay, and tried on the other halves. Its draws are fixed.
    The larger sample is cut to the size of the smaller.

    Args:
        model: (n, d).
        real: (m, d); n, m at least 4.

    Raises:
        ValueError: for other shapes, NaN, or fewer rows.
    """
    features("model", model)
    features("real", real)
    n = min(len(model), len(real)) // 2 * 2
    if n < 4 or model.shape[1] != real.shape[1]:
        raise ValueError(
            "`model` and `real` must have at least 4 rows of one length, got "
            f"{tuple(model.shape)} and {tuple(real.shape)}"
        )
    drawn = generator(0, "two-sample halves")
    halves = [z[torch.randperm(len(z), generator=drawn)[:n]].float() for z in (model, real)]
    seen, kept = (torch.cat([z[start::2] for z in halves]) for start in (0, 1))
    label = (torch.arange(n) < n // 2).float()  # 1 for the model
    deviation, mean = torch.std_mean(seen, 0, correction=0)
    seen, kept = ((z - mean) / deviation.clamp_min(1e-12) for z in (seen, kept))
    with stream("two-sample network"):
        network = mlp([model.shape[1], HIDDEN, 1])
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.1)
    with torch.enable_grad():
        for _ in range(STEPS):
            index = torch.randint(n, (min(BATCH, n),), generator=drawn)
            score = network(seen[index])[:, 0]
            optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(score, label[index]).backward()
            optimiser.step()
    with torch.no_grad():
        right = (network(kept)[:, 0] > 0) == (label > 0)
    return wilson(int(right.sum()), n)
