"""Samples of a model for evaluation, and samplers fitted to its codes after training.

A sampler is a prior: `model.sample(n, prior=sampler)` decodes its draws. A sampler fitted to the
codes helps an auto-encoder whose aggregate posterior Q_Z differs from its prior.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from monge._core.checks import dimension, finite, floating
from monge.data import Source, as_floats
from monge.draws import stream
from monge.labels import Rows
from monge.models import evaluating
from monge.models.protocols import Completer, drawn_codes, samples
from monge.priors import Mixture, Prior

COMPLETED = 10_000
"""How many samples are completed at a time."""


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
        labels: of a class-conditional model; see `monge.models.protocols.samples`.
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
