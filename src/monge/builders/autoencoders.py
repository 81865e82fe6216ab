"""The auto-encoders of the recipes: a composition of parts each."""

from monge.adversarial import (
    GradientPenalty,
    JensenShannon,
    KantorovichRubinstein,
    MaxGeneralizedSliced,
    MaxSliced,
)
from monge.builders.parts import Parts
from monge.constraints import ZeroCentredPenalty
from monge.costs import Bernoulli, GaussianLikelihood
from monge.divergences import (
    EnergyDistance,
    GeneralizedSlicedWasserstein,
    SinkhornDivergence,
    SlicedWasserstein,
)
from monge.models import ConditionalWAE, Model, mask
from monge.networks import ImageNetworks, mlp


def wae_mmd(parts: Parts) -> Model:
    """Codes by an MMD."""
    return parts.wae(parts.mmd(parts.kernel))


def wae_gan(parts: Parts) -> Model:
    """Codes by a critic, under a penalty in units of the prior."""
    penalty = (parts.options.penalty or 0.0) * parts.prior.spread / (2 * parts.prior.dim)
    constraint = ZeroCentredPenalty(penalty) if penalty else None
    return parts.wae(JensenShannon(parts.critic(), constraint=constraint))


def wae_wgan_gp(parts: Parts) -> Model:
    """Codes by W_1, with a critic under a gradient penalty."""
    return parts.wae(KantorovichRubinstein(parts.critic(), GradientPenalty(10.0)))


def swae(parts: Parts) -> Model:
    """Codes by sliced W_2²."""
    return parts.wae(SlicedWasserstein(parts.options.directions))


def max_swae(parts: Parts) -> Model:
    """Codes by W_2² on a learned worst slice."""
    return parts.wae(MaxSliced(parts.width))


def gswae(parts: Parts) -> Model:
    """Codes by generalized sliced W_2², along circles by default."""
    return parts.wae(GeneralizedSlicedWasserstein(parts.slicer(parts.options.directions)))


def max_gswae(parts: Parts) -> Model:
    """Codes by max-GSW over a few learned slices, circular by default; a single slice lags behind
    the encoder."""
    return parts.wae(MaxGeneralizedSliced(parts.slicer(parts.options.slices)))


def sinkhorn_ae(parts: Parts) -> Model:
    """Codes by a Sinkhorn divergence, with ε by the option `epsilon`."""
    return parts.wae(SinkhornDivergence(parts.prior.spread * parts.options.epsilon))


def energy_ae(parts: Parts) -> Model:
    """Codes by the energy distance."""
    return parts.wae(EnergyDistance())


def vae(parts: Parts) -> Model:
    """A VAE with a Gaussian likelihood."""
    sigma = parts.options.sigma
    likelihood = GaussianLikelihood(sigma or 0.3, learned=sigma is None)
    return parts.vae(parts.scaled(likelihood))


def vae_bernoulli(parts: Parts) -> Model:
    """A VAE with cross-entropy."""
    return parts.vae(Bernoulli())


def conditional_wae(parts: Parts) -> Model:
    """Joint samples of codes and a summary of the known part, by a critic."""
    options, sizes, dim = parts.options, parts.config.network, parts.prior.dim
    channels, height, width = parts.shape
    masked = ImageNetworks((channels + 1, height, width), sizes)
    return ConditionalWAE(
        parts.encoder(masked),
        parts.networks.decoder(options.summary + dim),
        parts.prior,
        JensenShannon(mlp([options.summary + dim, *sizes.critic, 1])),
        mask=mask(options.known, parts.shape),
        summary=masked.encoder(options.summary),
        size=options.summary,
        cost=parts.kind.cost(parts.shape, None, scale=options.scale, name=options.cost),
        weight=parts.weight,
    )
