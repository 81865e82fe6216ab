"""The parts that a recipe is composed of, for the configuration and the facts of a run."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from monge._core.references import resolve
from monge.adversarial import (
    FeatureSliced,
    GradientPenalty,
    JensenShannon,
    KantorovichRubinstein,
    MatrixSpectralNorm,
    Relativistic,
    ZeroCentredPenalty,
)
from monge.config import Config, Settled
from monge.costs import Cost, Scaled
from monge.data.kind import Kind, Moments
from monge.data.kinds import kind_named
from monge.divergences import (
    MMD,
    Divergence,
    EnergyDistance,
    SinkhornDivergence,
    SlicedWasserstein,
)
from monge.kernels import RBF, Kernel, multiscale_imq
from monge.labels import ClassPrior
from monge.models import VAE, WAE, ImplicitGenerator, Inner, Model
from monge.models.base import AutoEncoder
from monge.models.protocols import classes_of
from monge.networks import (
    Clusters,
    CodeCritic,
    GaussianDecoder,
    JointFeatures,
    LabelledDecoder,
    LabelledEncoder,
    Networks,
    NormalEncoder,
    ProjectionHead,
    PublishedNetworks,
    Standardise,
)
from monge.networks.families import Norm
from monge.priors import Disk, Gaussian, Mixture, Prior, Ring, Sphere, SwissRoll, Uniform
from monge.recipes import Recipe, find
from monge.recipes.options import MMDOptions, VAEOptions
from monge.recipes.recipe import NEEDS
from monge.transport import Circular, Neural, Polynomial, Slicer

FEATURES = 256
"""Features of a class-conditional encoder that its label is added to."""
SHARPEN_LR = 5e-4
"""The rate of a critic of samples that no recipe is tuned for."""


class Parts:
    """The parts from which a recipe's `build` composes its model.

    For a class-conditional run networks and divergences take labels as well: a recipe that takes
    `encoder`, `decoder`, `critic`, `features`, `mmd` and `width` from here has that form at no
    cost.

    Tables are standardised on their way into the networks and back on their way out, so that
    codes, costs and weights mean the same whatever the units of the columns; the moments are
    buffers of the model and are saved with its weights.
    """

    def __init__(self, config: Config, settled: Settled):
        self.config, self.settled = config, settled
        self.kind: Kind = kind_named(settled.kind)
        self.shape, self.latent = settled.shape, settled.latent
        # runs of monge 0.1 have the moments in their weights alone
        self.moments: Moments | None = self.kind.moments(torch.zeros(1, *self.shape))
        if settled.moments is not None:
            dtype = torch.float64 if settled.float64 else torch.float32
            mean, deviation = settled.moments
            self.moments = torch.tensor(mean, dtype=dtype), torch.tensor(deviation, dtype=dtype)
        self.networks: Networks = self.kind.networks(self.shape, config.network, self.moments)
        if config.network.published:
            self.networks = PublishedNetworks(self.shape, config.network)

    @property
    def options(self) -> Any:
        """The recipe's own options, a record of the type that its row names."""
        return self.config.options

    def option(self, name: str) -> Any:
        """An option of the recipe, or its default of the built-in recipes where a recipe of your
        own has none of that name."""
        for record in (self.options, MMDOptions(), VAEOptions()):
            if hasattr(record, name):
                return getattr(record, name)
        raise ValueError(f"`options` of {self.config.recipe} has no {name!r}")

    @property
    def weight(self) -> float:
        """λ in units of the cost."""
        if self.settled.weight is None:
            raise ValueError(
                f"`weight` is missing: the row of {self.config.recipe} gives no λ, give one"
            )
        return self.settled.weight

    @property
    def prior(self) -> Prior:
        """P_Z."""
        asked = self.config
        scale, radius = asked.prior_scale, asked.prior_radius
        made: dict[str, Callable[[], Prior]] = {
            "gaussian": lambda: Gaussian(self.latent, 1.0 if scale is None else scale),
            "uniform": lambda: Uniform(self.latent, 1.0 if radius is None else radius),
            "sphere": lambda: Sphere(self.latent),
            "mixture": lambda: circle_of_gaussians(
                self.latent,
                asked.prior_components or 10,
                1.0 if radius is None else radius,
                0.1 if scale is None else scale,
            ),
            "ring": lambda: Ring(0.8 if asked.prior_inner is None else asked.prior_inner),
            "disk": lambda: Disk(),
            "swiss-roll": lambda: SwissRoll(0.02 if scale is None else scale),
        }
        return made[asked.prior]()

    @property
    def classes(self) -> int:
        """K, how many classes a class-conditional run has; 0 for any other."""
        return len(self.settled.classes)

    def class_prior(self, spread: float) -> ClassPrior | None:
        """P_Y of a class-conditional run, joined with samples of E‖x - x'‖² = spread; of clusters
        it is even until they are found."""
        shares = self.settled.shares or (1.0,) * self.classes
        return ClassPrior(shares, spread) if self.classes else None

    @property
    def width(self) -> int:
        """The elements of a code as a divergence sees it, with its label: dim + K."""
        return self.prior.dim + self.classes

    @property
    def spread(self) -> float:
        """E‖x - x'‖² of data as a generator's divergence sees them."""
        return self.settled.spread or self.kind.spread(self.shape)

    @property
    def standard(self) -> Moments:
        """Mean and deviation that bring samples to the size of N(0, I): of a table its columns',
        of values in [0, 1] those of [-1, 1], otherwise 0 and the root of the mean variance."""
        if self.moments is not None:
            return self.moments
        if self.kind.bounded:
            return torch.tensor(0.5), torch.tensor(0.5)
        return torch.tensor(0.0), torch.tensor(self.spread / (2 * math.prod(self.shape))).sqrt()

    @property
    def kernel(self) -> Kernel:
        """The kernel of an MMD on codes, by the option `kernel`."""
        return self.kernel_of(self.prior.spread)

    def kernel_of(self, spread: float) -> Kernel:
        """The kernel that the option `kernel` names, for samples of E‖x - x'‖² = spread."""
        match self.option("kernel"):
            case "rbf":
                return RBF(math.sqrt(spread))
            case "imq-near":
                # wide kernels are blind to gaps between clusters of codes (docs/evaluate.md)
                return multiscale_imq(spread) + 16.0 * RBF(math.sqrt(spread / 20))
            case _:
                return multiscale_imq(spread)

    def mmd(self, kernel: Kernel) -> MMD:
        """An unbiased MMD: of independent samples, or of joint samples that share their labels."""
        return MMD(kernel, paired=self.classes > 0)

    def critic(self) -> nn.Module:
        """A critic of codes, or of codes with their labels."""
        critic = self.networks.critic(self.prior, self.classes)
        return CodeCritic(critic, self.classes) if self.classes else critic

    def features(
        self, norm: Norm | None = None, *, unit: bool = False
    ) -> tuple[nn.Module, nn.Module]:
        """A critic of data in two stages, features and head; see `Networks.features`. With labels
        it is a projection critic, whose features lie on the unit sphere if `unit`."""
        return self._joint(*self.networks.features(norm), unit)

    def detailed_features(self, *, unit: bool = False) -> tuple[nn.Module, nn.Module]:
        """`features` of a critic that sees the details of images beside them."""
        return self._joint(*self.networks.detailed_features(), unit)

    def _joint(
        self, features: nn.Module, head: nn.Linear, unit: bool
    ) -> tuple[nn.Module, nn.Module]:
        if not self.classes:
            return features, head
        joint = JointFeatures(features, self.shape, unit=unit)
        return joint, ProjectionHead(head, head.in_features, self.classes)

    def slicer(self, slices: int) -> Slicer:
        """The slices of codes that the option `slicer` names; circles have centres on a sphere of
        the prior's size around the origin."""
        return slicer(
            self.options.slicer,
            self.width,
            slices,
            radius=math.sqrt(self.prior.spread),
            degree=self.options.degree,
        )

    def scaled(self, cost: Cost) -> nn.Module:
        """An elementwise cost in standard units of the columns, for tables."""
        return cost if self.moments is None else Scaled(cost, self.moments[1])

    def encoder(self, networks: Networks, random: bool | None = None) -> nn.Module:
        """The encoder to codes, or to the means and variances of Q(Z|x) if `random`, by default as
        the option `encoder` says."""
        if random is None:
            random = self.option("encoder") == "random"
        outputs = (2 if random else 1) * self.prior.dim
        if self.classes:
            features = networks.encoder(FEATURES)
            encoder = LabelledEncoder(features, FEATURES, self.classes, outputs)
        else:
            encoder = networks.encoder(outputs)
        return NormalEncoder(encoder) if random else encoder

    def decoder(self) -> nn.Module:
        """The decoder, of codes or of codes and their labels."""
        decoder = self.networks.decoder(self.width)
        return LabelledDecoder(decoder, self.prior.dim) if self.classes else decoder

    def wae(self, divergence: Divergence) -> Model:
        """A Wasserstein auto-encoder with the divergence between codes and prior."""
        sigma, encoder = self.option("sigma"), self.encoder(self.networks)
        decoder = self.decoder()
        if sigma is not None:
            unit = torch.ones(()) if self.moments is None else self.moments[1]
            decoder = GaussianDecoder(decoder, sigma * unit)
        cost = self.kind.cost(
            self.shape,
            self.moments,
            scale=self.option("scale"),
            name=self.option("cost"),
            directions=self.option("cost_directions"),
        )
        return WAE(
            encoder,
            decoder,
            self.prior,
            divergence,
            cost=cost,
            weight=self.weight,
            noise=self.option("noise"),
            class_prior=self.class_prior(self.prior.spread),
        )

    def vae(self, likelihood: nn.Module) -> Model:
        """A variational auto-encoder."""
        return VAE(
            self.encoder(self.networks, random=True),
            self.decoder(),
            self.prior,
            likelihood=likelihood,
            beta=1.0 if self.option("beta") is None else self.option("beta"),
            class_prior=self.class_prior(self.prior.spread),
        )

    def generator(self, divergence: Divergence) -> Model:
        """A generator, fitted to data by the divergence."""
        return ImplicitGenerator(
            self.decoder(),
            self.prior,
            divergence,
            transform=None if self.moments is None else Standardise(*self.moments),
            class_prior=self.class_prior(self.spread),
        )


def sharpened(model: nn.Module, parts: Parts) -> nn.Module:
    """A model with the second matching that the option `sharpen` names, if it names one.

    Its weight is μ / √d for data of d elements, in units of c = Σ squared error; a squared
    distance is of these units itself.
    """
    options, name = parts.options, getattr(parts.options, "sharpen", None)
    if name is None:
        return model
    if not isinstance(model, AutoEncoder):
        raise ValueError(f"`sharpen` is for auto-encoders, got a {type(model).__name__}")
    spread, root = parts.spread, math.sqrt(math.prod(parts.shape))

    def critic() -> nn.Module:
        return nn.Sequential(*parts.detailed_features())

    critics: dict[str, tuple[float, Callable[[], Divergence]]] = {
        "jensen-shannon": (0.7, lambda: JensenShannon(critic(), constraint=MatrixSpectralNorm())),
        "relativistic": (0.7, lambda: Relativistic(critic(), ZeroCentredPenalty())),
        "wasserstein": (0.7, lambda: KantorovichRubinstein(critic(), GradientPenalty())),
        "feature-sliced": (1.0, lambda: FeatureSliced(*parts.detailed_features(unit=True))),
    }
    elementwise: dict[str, tuple[float, Callable[[], Divergence]]] = {
        "sliced": (root, SlicedWasserstein),
        "mmd": (7.0, lambda: parts.mmd(multiscale_imq(spread))),
        "energy": (1.0, EnergyDistance),
        "sinkhorn": (1 / root, lambda: SinkhornDivergence(spread / 20)),
    }
    if name in elementwise and not parts.kind.ordered:
        raise ValueError(
            f"`sharpen` {name} compares elements, which {parts.kind.name}s have in no order: "
            f"give one of {', '.join(critics)}"
        )
    relative, divergence = (critics | elementwise)[name]
    weight, start = options.sharpen_weight, options.sharpen_from
    return model.sharpen(
        divergence(),
        round(relative * root, 3) if weight is None else weight,
        inner=Inner(options.sharpen_lr or SHARPEN_LR, options.sharpen_steps, (0.5, 0.9)),
        schedule=lambda done: float(done >= start),
        every=options.sharpen_every,
        transform=None if parts.moments is None else Standardise(*parts.moments),
        class_prior=parts.class_prior(spread),
    )


def circle_of_gaussians(dim: int, components: int, radius: float, scale: float) -> Mixture:
    """An even mixture of N(m_k, scale² I) with the m_k evenly on a circle of the first two axes.

    Source: Makhzani, Shlens, Jaitly, Goodfellow, Frey, "Adversarial autoencoders", 2015, section
    2.3, whose priors are such mixtures in the plane.
    """
    angle = 2 * math.pi * torch.arange(components) / components
    means = torch.zeros(components, dim)
    means[:, :2] = radius * torch.stack([angle.cos(), angle.sin()], 1)
    covariances = (scale * scale * torch.eye(dim)).expand(components, dim, dim)
    return Mixture(means, covariances, torch.full((components,), 1 / components))


def slicer(name: str, dim: int, slices: int, *, radius: float = 2.0, degree: int = 3) -> Slicer:
    """The slices with a name: circular (of a radius), polynomial (of a degree) or neural."""
    made: dict[str, Callable[[], Slicer]] = {
        "circular": lambda: Circular(dim, slices, radius),
        "polynomial": lambda: Polynomial(dim, degree, slices),
        "neural": lambda: Neural(dim, slices),
    }
    return made[name]()


def required(row: Recipe, kind: Kind) -> None:
    """Refuses data of a kind that a recipe is not for."""
    for need in row.needs:
        if not getattr(kind, need):
            raise ValueError(f"`recipe` {row.name} needs {NEEDS[need]}; got {kind.name}s")


def build(config: Config, settled: Settled) -> Any:
    """The untrained model of a run's recipe.

    Raises:
        ValueError: for data of a kind that the recipe is not for, or of another shape than the
            kind's, or a row whose `build` cannot be imported or returns no model.
    """
    row, kind = find(config.recipe), kind_named(settled.kind)
    required(row, kind)
    if kind.dimensions not in (None, len(settled.shape)):
        raise ValueError(f"`shape` {settled.shape} is none of {kind.name}s")
    function = resolve(row.build, "build")
    if not callable(function):
        raise ValueError(f"`build` {row.build!r} of the recipe {row.name} is not a function")
    parts = Parts(config, settled)
    model = function(parts)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"`build` {row.build!r} of the recipe {row.name} must return a model, got "
            f"{type(model).__name__}"
        )
    if settled.classes and classes_of(model) is None:
        raise ValueError(
            f"`condition` is {config.condition}, and {row.name} has no class-conditional form: "
            "leave it out"
        )
    if config.condition == "clusters":
        if not kind.ordered:
            raise ValueError(
                f"`condition` is clusters, and the elements of {kind.name}s have no order by "
                "which to compare them: leave it out"
            )
        standard = None if parts.moments is None else Standardise(*parts.moments)
        model.clusters = Clusters(parts.classes, parts.shape, standard)
    return sharpened(model, parts)
