"""Classifier two-sample tests: can a classifier tell a model's samples from real ones?

Source: Lopez-Paz, Oquab, "Revisiting classifier two-sample tests", 2017.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from monge._core.defaults import float32_on_cpu, recording
from monge._core.promotion import ANY, promoted
from monge.draws import generator, stream
from monge.evaluation.frechet import features
from monge.networks.mlp import mlp

STEPS, BATCH, RATE, HIDDEN = 300, 500, 3e-3, 64


class Share(NamedTuple):
    """A share of n with its 95 % Wilson interval."""

    value: float
    low: float
    high: float


def wilson(hits: float, n: float, inflation: float = 1.0) -> Share:
    """The share hits / n and its interval: Wilson, "Probable inference", 1927.

    Args:
        hits: how many.
        n: of how many.
        inflation: the variance of the share over that of n independent trials.
    """
    z, share = 1.959964, hits / n
    n = n / inflation
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Share(share, middle - half, middle + half)


@promoted(model=ANY, real=ANY)
def network_test(model: Tensor, real: Tensor) -> Share:
    """The held-out accuracy of a small network that classifies samples: ½ if the distributions
    agree.

    A perceptron with one hidden layer of 64 is trained on half of each sample, in standard units,
    by 300 steps of Adam with weight decay, and tried on the other halves. Its draws are fixed.
    The interval is for the accuracy of this trained network on new samples; it does not cover
    that of networks trained on other halves. The larger sample is cut to the size of the smaller.

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
    halves = [
        z[torch.randperm(len(z), generator=drawn, device="cpu")[:n]].detach().double()
        for z in (model, real)
    ]
    seen, kept = (torch.cat([z[start::2] for z in halves]) for start in (0, 1))
    label = (torch.arange(n) < n // 2).float()  # 1 for the model
    right = (_classifier(seen, label, drawn)(kept) > 0) == (label > 0)
    return wilson(int(right.sum()), n)


@float32_on_cpu()
@recording()
def _classifier(seen: Tensor, label: Tensor, drawn: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Logits (m,) of rows (m, d), by a network that is trained on rows (n, d) and labels (n,)."""
    n = len(seen)
    deviation, mean = torch.std_mean(seen, 0, correction=0)
    # the digits in which samples differ are those about their mean
    deviation = torch.where(deviation == 0, 1.0, deviation)
    seen = ((seen - mean) / deviation).float()
    with stream("two-sample network"):
        network = mlp([seen.shape[1], HIDDEN, 1])
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.1)
    for _ in range(STEPS):
        index = torch.randint(n, (min(BATCH, n),), generator=drawn, device="cpu")
        score = network(seen[index])[:, 0]
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(score, label[index]).backward()
        optimiser.step()
    network.requires_grad_(False)
    return lambda x: network(((x - mean) / deviation).float())[:, 0]
