"""Recipes: named methods of the literature as compositions of parts."""

from collections.abc import Callable

import torch
from torch import nn

from monge.adversarial import JensenShannon
from monge.config import Config
from monge.costs import GaussianLikelihood, Scaled, SquaredL2
from monge.divergences import MMD, SlicedWasserstein
from monge.kernels import multiscale_imq
from monge.models import VAE, WAE, Model
from monge.networks import (
    NormalEncoder,
    Standardise,
    Unstandardise,
    conv_decoder,
    conv_encoder,
    mlp,
)  # fmt: skip
from monge.priors import Gaussian, Prior, Sphere, Uniform


class Parts:
    """The parts a recipe is composed of, for a settled config and the data's column moments.

    Tables enter and leave their networks through standardising doors, so that codes, costs and
    weights mean the same whatever the units of the columns; the doors' moments are buffers of
    the model and travel with its weights.
    """

    def __init__(self, config: Config, moments: tuple[torch.Tensor, torch.Tensor] | None = None):
        if config.shape is None or config.latent is None:
            raise ValueError("`config` must be settled: use config.settled(kind, shape, samples)")
        self.config, self.shape, self.latent = config, config.shape, config.latent
        self.tabular = config.kind == "vector"
        self.moments = moments or (torch.zeros(self.shape), torch.ones(self.shape))

    @property
    def weight(self) -> float:
        if self.config.weight is None:
            raise ValueError("`weight` is missing in the configuration: give λ")
        return self.config.weight

    @property
    def prior(self) -> Prior:
        laws = {"gaussian": Gaussian, "uniform": Uniform, "sphere": Sphere}
        return laws[self.config.prior](self.latent)

    def encoder(self, outputs: int) -> nn.Module:
        net = self.config.network
        if self.tabular:
            body = mlp([self.shape[0], *net.hidden, outputs])
            return nn.Sequential(Standardise(*self.moments), body)
        return conv_encoder(self.shape, outputs, net.filters)

    def decoder(self) -> nn.Module:
        net = self.config.network
        if self.tabular:
            body = mlp([self.latent, *reversed(net.hidden), self.shape[0]])
            return nn.Sequential(body, Unstandardise(*self.moments))
        return conv_decoder(self.shape, self.latent, net.filters)

    def cost(self, cost: nn.Module) -> nn.Module:
        return Scaled(cost, self.moments[1]) if self.tabular else cost

    def critic(self) -> nn.Module:
        return mlp([self.latent, *self.config.network.critic, 1])


def wae_mmd(parts: Parts) -> Model:
    """Tolstikhin, Bousquet, Gelly, Schölkopf, "Wasserstein auto-encoders", 2018, algorithm 2."""
    prior = parts.prior
    return WAE(
        parts.encoder(prior.dim), parts.decoder(), prior, MMD(multiscale_imq(prior.spread)),
        cost=parts.cost(SquaredL2()), weight=parts.weight,
    )  # fmt: skip


def wae_gan(parts: Parts) -> Model:
    """The same, algorithm 1; with its squared cost this is the adversarial auto-encoder."""
    prior = parts.prior
    return WAE(
        parts.encoder(prior.dim), parts.decoder(), prior, JensenShannon(parts.critic()),
        cost=parts.cost(SquaredL2()), weight=parts.weight,
    )  # fmt: skip


def swae(parts: Parts) -> Model:
    """Kolouri, Pope, Martin, Rohde, "Sliced Wasserstein auto-encoders", 2019."""
    prior = parts.prior
    divergence = SlicedWasserstein(parts.config.directions)
    return WAE(
        parts.encoder(prior.dim), parts.decoder(), prior, divergence,
        cost=parts.cost(SquaredL2()), weight=parts.weight,
    )  # fmt: skip


def vae(parts: Parts) -> Model:
    """Kingma, Welling, "Auto-encoding variational Bayes", 2014."""
    likelihood = parts.cost(GaussianLikelihood(0.3, learned=True))
    encoder = NormalEncoder(parts.encoder(2 * parts.latent))
    return VAE(encoder, parts.decoder(), parts.prior, likelihood=likelihood)


RECIPES: dict[str, Callable[[Parts], Model]] = {
    "wae-mmd": wae_mmd,
    "wae-gan": wae_gan,
    "swae": swae,
    "vae": vae,
}


def build(config: Config, moments: tuple[torch.Tensor, torch.Tensor] | None = None) -> Model:
    """The untrained model of a settled config.

    Arguments:
        config: with `kind`, `shape` and `latent` known.
        moments: mean and standard deviation of the columns, for tables.

    Raises:
        ValueError: for a recipe that does not exist.
    """
    if config.recipe not in RECIPES:
        raise ValueError(f"`recipe` must be one of {', '.join(RECIPES)}, got {config.recipe!r}")
    return RECIPES[config.recipe](Parts(config, moments))
