"""The generators of the recipes: a composition of parts each."""

import math
from collections.abc import Callable

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
from monge.divergences import MMD, EnergyDistance, SinkhornDivergence, SlicedWasserstein
from monge.models import Model
from monge.models.flow import FlowMatching
from monge.models.flow_coupling import WholeSet
from monge.models.flow_paths import BridgePath, LinearPath, VariancePreservingPath
from monge.models.solvers import Adaptive, Euler, Heun, Midpoint
from monge.networks import BatchNorm
from monge.particles import Drifting, Field, GradientField, LearnedDrifting, MeanShift
from monge.transport.conditional_couplings import PerLabel
from monge.transport.couplings import Exact, Independent, Sinkhorn


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


def flow_matching(parts: Parts) -> Model:
    """A flow from noise to samples, by its velocity along paths between paired noise and data."""
    options = parts.options
    paths = {
        "linear": lambda: LinearPath(options.sigma),
        "sb": lambda: BridgePath(options.sigma),
        "vp": VariancePreservingPath,
    }
    solvers = {
        "euler": lambda: Euler(options.ode_steps),
        "midpoint": lambda: Midpoint(options.ode_steps),
        "heun": lambda: Heun(options.ode_steps),
        "dopri5": lambda: Adaptive(options.tolerance),
    }
    couplings = {
        "independent": Independent,
        "exact": Exact,
        # the plan whose bridges are those of the Schrödinger bridge
        "sinkhorn": lambda: (
            Sinkhorn(2 * options.sigma**2, absolute=True) if options.path == "sb" else Sinkhorn()
        ),
        "semidiscrete": WholeSet,
    }
    coupling = couplings[options.coupling]()
    if parts.classes and options.coupling != "semidiscrete":
        coupling = PerLabel(coupling)
    return FlowMatching(
        parts.networks.velocity(parts.classes),
        parts.shape,
        path=paths[options.path](),
        coupling=coupling,
        solver=solvers[options.solver](),
        moments=parts.standard,
        bounded=parts.kind.bounded,
        class_prior=parts.class_prior(parts.spread),
        label_dropout=options.label_dropout,
        guidance=options.guidance,
    )


def drifting(parts: Parts) -> Model:
    """Samples regressed on where they drift, by the option `drift`."""
    options, spread = parts.options, parts.spread
    if options.drift == "critic":
        critic = nn.Sequential(*parts.networks.features())
        learned = KantorovichRubinstein(critic, GradientPenalty(10.0))
        return parts.generator(LearnedDrifting(learned, options.rate, options.moves))
    fields: dict[str, Callable[[], Field]] = {
        "mean-shift": lambda: MeanShift(options.temperatures),
        "mmd": lambda: GradientField(MMD(parts.kernel_of(spread))),
        "energy": lambda: GradientField(EnergyDistance()),
        "sinkhorn": lambda: GradientField(SinkhornDivergence(spread / 20)),
        "sliced": lambda: GradientField(SlicedWasserstein(options.directions)),
    }
    return parts.generator(Drifting(fields[options.drift](), options.rate, options.moves))
