"""The generators of the recipes: a composition of parts each."""

import math

from torch import nn

from monge.adversarial import (
    FeatureSliced,
    GradientPenalty,
    JensenShannon,
    KantorovichRubinstein,
    MaxSliced,
    WeightClipping,
)
from monge.builders.parts import Parts
from monge.divergences import SinkhornDivergence, SlicedWasserstein
from monge.models import Model
from monge.networks import BatchNorm


def gan(parts: Parts) -> Model:
    """Samples by a critic, normalised over the batch, without which the generator collapses to a
    single sample."""
    critic = nn.Sequential(*parts.features(BatchNorm))
    return parts.generator(JensenShannon(critic))


def wgan(parts: Parts) -> Model:
    """Samples by W_1, with a critic of clipped weights."""
    critic = nn.Sequential(*parts.features())
    return parts.generator(KantorovichRubinstein(critic, WeightClipping(0.01)))


def wgan_gp(parts: Parts) -> Model:
    """Samples by W_1, with a critic under a gradient penalty."""
    critic = nn.Sequential(*parts.features())
    return parts.generator(KantorovichRubinstein(critic, GradientPenalty(10.0)))


def swg(parts: Parts) -> Model:
    """Samples by sliced W_2²."""
    return parts.generator(SlicedWasserstein(parts.options.directions))


def swgan(parts: Parts) -> Model:
    """Samples by sliced W_2² of the features of a discriminator."""
    return parts.generator(FeatureSliced(*parts.features(unit=True), parts.options.directions))


def max_swg(parts: Parts) -> Model:
    """Samples by W_2² on a learned worst slice."""
    return parts.generator(MaxSliced(math.prod(parts.shape) + parts.classes))


def mmd_generator(parts: Parts) -> Model:
    """Samples by an MMD."""
    return parts.generator(parts.mmd(parts.kernel_of(parts.spread)))


def sinkhorn_generator(parts: Parts) -> Model:
    """Samples by a Sinkhorn divergence, whose ε is a twentieth of the data's spread."""
    return parts.generator(SinkhornDivergence(parts.spread / 20))
