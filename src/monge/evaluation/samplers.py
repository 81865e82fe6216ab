"""Samples of a model for evaluation, and samplers fitted to its codes after training.

A sampler is a prior: `model.sample(n, prior=sampler)` decodes its draws. A sampler fitted to the
codes helps an auto-encoder whose aggregate posterior Q_Z differs from its prior.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from monge._core.checks import dimension, finite, floating
from monge.data import Source, as_floats
from monge.data.batches import Batches
from monge.draws import Draws, stream
from monge.labels import Rows
from monge.models import evaluating
from monge.models.flow_prior import FlowPrior
from monge.models.protocols import Completer, drawn_codes
from monge.models.sampling import samples
from monge.priors import Mixture, Prior
from monge.training.averages import Average

COMPLETED = 10_000
"""How many samples are completed at a time."""
FLOW_STEPS = 4000
"""Steps of `fit_flow`."""
FLOW_BATCH, FLOW_RATE = 192, 2e-3


def draw(
    model: nn.Module,
    source: Source | None,
    n: int,
    generator: torch.Generator | None = None,
    prior: Prior | None = None,
    labels: Any = None,
) -> Iterator[Tensor]:
    """n samples of a model in batches, so that n may exceed what memory holds.

    Arguments:
        model: any model that can be sampled.
        source: the data, whose held-out samples a `Completer` completes in turn; None for other
            models.
        n: how many.
        generator: a CPU generator; torch's global one by default.
        prior: draws the codes in place of the model's own prior.
        labels: of a class-conditional model; see `monge.models.sampling.samples`.
    """
    if source is None or not isinstance(model, Completer):
        yield from samples(model, n, generator, prior, labels=labels)
        return
    for rows in torch.arange(dimension("n", n)).split(COMPLETED):
        given = as_floats(source.test[rows % len(source.test)])
        yield from samples(model, len(rows), generator, prior, given)


def draw_codes(model: nn.Module, x: Rows, seed: int = 0) -> Tensor:
    r"""A draw of Q(Z|x) for each row of x (n, \*), images as they are stored, as (n, dim)."""
    with evaluating(model), stream(seed, "codes"):
        return torch.cat([drawn_codes(model, as_floats(batch)) for batch in x.split(500)])


def fit_mixture(codes: Tensor, components: int = 10, seed: int = 0) -> Mixture:
    """A mixture of Gaussians with full covariances, fitted to codes (n, dim) by EM.

    Raises:
        ValueError: for codes that are not finite, or fewer than components.
    """
    finite("codes", floating("codes", codes))
    if not 1 <= components <= len(codes):
        raise ValueError(
            f"`components` must be from 1 to the {len(codes)} codes, got {components}"
        )
    from sklearn.mixture import GaussianMixture

    fitted = GaussianMixture(components, random_state=seed).fit(codes.double().cpu().numpy())
    weights = torch.from_numpy(fitted.weights_)
    means, covariances = torch.from_numpy(fitted.means_), torch.from_numpy(fitted.covariances_)
    return Mixture(means, covariances, weights / weights.sum())


def fit_flow(codes: Tensor, steps: int = FLOW_STEPS, seed: int = 0) -> FlowPrior:
    """A flow fitted to codes (n, dim): a linear path, exact couplings of batches of 192, and rates
    along half a cosine.

    Raises:
        ValueError: for codes that are not finite, or fewer than two.
    """
    finite("codes", floating("codes", codes))
    if len(codes) < 2:
        raise ValueError(f"`codes` must be at least two, got {len(codes)}")
    codes = codes.detach().float().cpu()
    deviation, mean = torch.std_mean(codes, 0, correction=0)
    moments = mean, torch.where(deviation > 0, deviation, 1.0)
    with stream(seed, "flow of codes"):
        prior = FlowPrior(codes.shape[1], moments)
    flow, average = prior.flow, Average(prior.flow, decay=0.999)
    optimiser = torch.optim.Adam(flow.parameters(), lr=FLOW_RATE)
    batches = Batches(len(codes), min(FLOW_BATCH, len(codes)), seed)
    # a loop of its own, since of several processes the first one alone fits
    for step in range(dimension("steps", steps)):
        x = codes[batches.outer(step)]
        optimiser.param_groups[0]["lr"] = FLOW_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        flow(x, Draws(seed, step, len(x))).terms["regression"].backward()
        optimiser.step()
        average.update(flow)
    flow.load_state_dict(average.module.state_dict())
    return prior.eval()


class Tempered(Prior):
    """A prior whose draws are multiplied by a temperature."""

    def __init__(self, prior: Prior, temperature: float):
        super().__init__()
        self.prior, self.temperature, self.dim = prior, temperature, prior.dim

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.temperature * self.prior.sample(n, generator)

    @property
    def spread(self) -> float:
        return self.temperature**2 * self.prior.spread


def tempered(prior: Prior, temperature: float) -> Prior:
    """A prior at a temperature: scales the draws, or the deviations of a mixture's components."""
    if temperature == 1:
        return prior
    if isinstance(prior, Mixture):
        covariances = temperature**2 * prior.factors @ prior.factors.mT
        return Mixture(prior.means, covariances, prior.weights)
    return Tempered(prior, temperature)
