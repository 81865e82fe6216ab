"""Recipes: named methods of the literature as compositions of parts."""

import math
from collections.abc import Callable

import torch
from torch import nn

from monge.adversarial import (
    FeatureSliced,
    GradientPenalty,
    JensenShannon,
    KantorovichRubinstein,
    MaxGeneralizedSliced,
    MaxSliced,
    WeightClipping,
)
from monge.config import Config
from monge.costs import (
    Bernoulli,
    Chamfer,
    EarthMover,
    GaussianLikelihood,
    Scaled,
    SinkhornSets,
    SlicedSets,
    SquaredL2,
)
from monge.divergences import (
    MMD,
    Divergence,
    EnergyDistance,
    GeneralizedSlicedWasserstein,
    SinkhornDivergence,
    SlicedWasserstein,
)
from monge.kernels import RBF, Kernel, multiscale_imq
from monge.models import VAE, WAE, ConditionalWAE, ImplicitGenerator, Model
from monge.models.masks import mask
from monge.networks import (
    BatchNorm,
    CloudNetworks,
    GaussianDecoder,
    ImageNetworks,
    Networks,
    NormalEncoder,
    PublishedNetworks,
    Standardise,
    VectorNetworks,
)
from monge.networks.mlp import mlp
from monge.priors import Disk, Gaussian, Prior, Ring, Sphere, SwissRoll, Uniform
from monge.transport import Circular


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
        if config.kind == "cloud":
            self.networks = CloudNetworks(self.shape, config.network)
        elif config.preset == "paper":
            self.networks = PublishedNetworks(self.shape, config.network)
        elif self.tabular:
            self.networks = VectorNetworks(self.shape, config.network, self.moments)
        else:
            self.networks = ImageNetworks(self.shape, config.network)

    @property
    def weight(self) -> float:
        if self.config.weight is None:
            raise ValueError("`weight` is missing in the configuration: give λ")
        return self.config.weight

    @property
    def prior(self) -> Prior:
        planar = {"ring": Ring, "disk": Disk, "swiss-roll": SwissRoll}
        if self.config.prior in planar:
            return planar[self.config.prior]()
        laws = {"gaussian": Gaussian, "uniform": Uniform, "sphere": Sphere}
        return laws[self.config.prior](self.latent)

    @property
    def spread(self) -> float:
        """E‖x - x'‖² of data as a generator's divergence sees them."""
        d = math.prod(self.shape)
        return self.config.spread or (2.0 * d if self.tabular else d / 6)

    def kernel(self, spread: float) -> Kernel:
        """For samples of E‖x - x'‖² = spread."""
        rbf = self.config.kernel == "rbf"
        return RBF(math.sqrt(spread)) if rbf else multiscale_imq(spread)

    def cost(self, cost: nn.Module) -> nn.Module:
        return Scaled(cost, self.moments[1]) if self.tabular else cost

    def circles(self, slices: int) -> Circular:
        """Distances to points of a sphere of the prior's size around the origin."""
        return Circular(self.prior.dim, slices, radius=math.sqrt(self.prior.spread))

    def door(self) -> nn.Module:
        """Into the coordinates in which a generator is compared with data."""
        return Standardise(*self.moments) if self.tabular else nn.Identity()

    def encoder(self, networks: Networks) -> nn.Module:
        """To codes, or to the means and variances of their laws."""
        if self.config.encoder == "random":
            return NormalEncoder(networks.encoder(2 * self.prior.dim))
        return networks.encoder(self.prior.dim)

    def wae(self, divergence: Divergence) -> Model:
        """An auto-encoder with squared cost, its codes under a penalty."""
        config, prior, encoder = self.config, self.prior, self.encoder(self.networks)
        decoder = self.networks.decoder(prior.dim)
        if config.sigma is not None:
            sigma = config.sigma * (self.moments[1] if self.tabular else torch.ones(()))
            decoder = GaussianDecoder(decoder, sigma)
        return WAE(
            encoder, decoder, prior, divergence, cost=self.squared(), weight=self.weight,
            noise=config.noise,
        )  # fmt: skip

    def squared(self) -> nn.Module:
        """The cost of a WAE: squared errors, of clouds between points that belong together."""
        config = self.config
        if config.kind != "cloud" or config.cost == "elementwise":
            return self.cost(SquaredL2(config.scale))
        scale = config.scale * self.shape[0]
        if config.cost == "sliced":
            # of a set moved by v the sliced cost is |v|² / 3
            return SlicedSets(config.directions, scale=3 * scale)
        if config.cost == "sinkhorn":
            return SinkhornSets(0.01, scale)  # a hundredth of the unit sphere's squared radius
        return Chamfer(scale) if config.cost == "chamfer" else EarthMover(2, scale)

    def ordered(self, what: str) -> None:
        """Refuses clouds, whose points come in any order, for what compares elements."""
        if self.config.kind == "cloud":
            raise ValueError(
                f"`recipe` {self.config.recipe} has {what} for images and tables, not for clouds "
                "of points: use pointcloud-wae or another WAE"
            )

    def vae(self, likelihood: nn.Module) -> Model:
        """A variational auto-encoder."""
        self.ordered("a likelihood")
        encoder = NormalEncoder(self.networks.encoder(2 * self.latent))
        decoder, beta = self.networks.decoder(self.latent), self.config.beta
        return VAE(encoder, decoder, self.prior, likelihood=likelihood, beta=beta)

    def generator(self, divergence: Divergence) -> Model:
        """A generator alone."""
        self.ordered("a divergence")
        decoder = self.networks.decoder(self.prior.dim)
        return ImplicitGenerator(decoder, self.prior, divergence, door=self.door())


def wae_mmd(parts: Parts) -> Model:
    """Tolstikhin, Bousquet, Gelly, Schölkopf, "Wasserstein auto-encoders", 2018, algorithm 2."""
    return parts.wae(MMD(parts.kernel(parts.prior.spread)))


def wae_gan(parts: Parts) -> Model:
    """The same, algorithm 1; with its squared cost this is the adversarial auto-encoder."""
    return parts.wae(JensenShannon(parts.networks.critic(parts.prior)))


def wae_wgan_gp(parts: Parts) -> Model:
    """The same with W_1 and the penalty of Gulrajani et al., 2017, on the critic of codes."""
    critic = parts.networks.critic(parts.prior)
    return parts.wae(KantorovichRubinstein(critic, GradientPenalty(10.0)))


def swae(parts: Parts) -> Model:
    """Kolouri, Pope, Martin, Rohde, "Sliced Wasserstein auto-encoders", 2019."""
    return parts.wae(SlicedWasserstein(parts.config.directions))


def max_swae(parts: Parts) -> Model:
    """The same with the slice of Deshpande et al., "Max-sliced Wasserstein distance", 2019."""
    return parts.wae(MaxSliced(parts.prior.dim))


def gswae(parts: Parts) -> Model:
    """Kolouri et al., "Generalized sliced Wasserstein distances", 2019: distances to a circle."""
    return parts.wae(GeneralizedSlicedWasserstein(parts.circles(parts.config.directions)))


def max_gswae(parts: Parts) -> Model:
    """The same with the worst of eight learned circles: one alone is late wherever it goes."""
    return parts.wae(MaxGeneralizedSliced(parts.circles(8)))


def sinkhorn_ae(parts: Parts) -> Model:
    """Patrini et al., "Sinkhorn autoencoders", 2019; ε is a twentieth of the prior's spread."""
    return parts.wae(SinkhornDivergence(parts.prior.spread / 20))


def energy_ae(parts: Parts) -> Model:
    """The energy distance of Székely, Rizzo, "Energy statistics", 2013, on codes."""
    return parts.wae(EnergyDistance())


def vae(parts: Parts) -> Model:
    """Kingma, Welling, "Auto-encoding variational Bayes", 2014."""
    sigma = parts.config.sigma
    likelihood = GaussianLikelihood(sigma or 0.3, learned=sigma is None)
    return parts.vae(parts.cost(likelihood))


def vae_bernoulli(parts: Parts) -> Model:
    """The same with cross-entropy."""
    if parts.config.kind != "image":
        raise ValueError("`recipe` vae-bernoulli needs images, whose values are in [0, 1]")
    return parts.vae(Bernoulli())


def pointcloud_wae(parts: Parts) -> Model:
    """Achlioptas, Diamanti, Mitliagkas, Guibas, "Learning representations and generative models
    for 3D point clouds", 2018, with the penalty of `wae_mmd` on the codes."""
    if parts.config.kind != "cloud":
        raise ValueError(
            "`recipe` pointcloud-wae needs clouds of points: give an array (n, N, 3), or a folder "
            "of .ply, .xyz or .off files"
        )
    return wae_mmd(parts)


def conditional_wae(parts: Parts) -> Model:
    """As `wae_gan` with joint samples: the critic sees codes beside a summary of the known
    part."""
    config, prior = parts.config, parts.prior
    if config.kind != "image" or config.preset == "paper":
        raise ValueError(
            "`recipe` conditional-wae is for images and the preset small: compose a "
            "monge.models.ConditionalWAE of networks of your own"
        )
    channels, height, width = parts.shape
    marked = ImageNetworks((channels + 1, height, width), config.network)
    size = config.network.summary
    return ConditionalWAE(
        parts.encoder(marked), parts.networks.decoder(size + prior.dim), prior,
        JensenShannon(mlp([size + prior.dim, *config.network.critic, 1])),
        mask=mask(config.known, parts.shape), summary=marked.encoder(size), size=size,
        cost=SquaredL2(config.scale), weight=parts.weight,
    )  # fmt: skip


def gan(parts: Parts) -> Model:
    """Goodfellow et al., "Generative adversarial nets", 2014; the critic of images is normalised
    as in Radford, Metz, Chintala, "Deep convolutional GANs", 2016, or all samples are one."""
    critic = nn.Sequential(*parts.networks.features(BatchNorm))
    return parts.generator(JensenShannon(critic))


def wgan(parts: Parts) -> Model:
    """Arjovsky, Chintala, Bottou, "Wasserstein generative adversarial networks", 2017."""
    critic = nn.Sequential(*parts.networks.features())
    return parts.generator(KantorovichRubinstein(critic, WeightClipping(0.01)))


def wgan_gp(parts: Parts) -> Model:
    """Gulrajani et al., "Improved training of Wasserstein GANs", 2017."""
    critic = nn.Sequential(*parts.networks.features())
    return parts.generator(KantorovichRubinstein(critic, GradientPenalty(10.0)))


def swg(parts: Parts) -> Model:
    """Deshpande, Zhang, Schwing, "Generative modeling using the sliced Wasserstein distance"."""
    return parts.generator(SlicedWasserstein(parts.config.directions))


def swgan(parts: Parts) -> Model:
    """The same, 2018, on the features of a discriminator."""
    return parts.generator(FeatureSliced(*parts.networks.features(), parts.config.directions))


def max_swg(parts: Parts) -> Model:
    """Deshpande et al., "Max-sliced Wasserstein distance and its use for GANs", 2019."""
    return parts.generator(MaxSliced(math.prod(parts.shape)))


def mmd_generator(parts: Parts) -> Model:
    """Li, Swersky, Zemel, "Generative moment matching networks", 2015."""
    return parts.generator(MMD(parts.kernel(parts.spread)))


def sinkhorn_generator(parts: Parts) -> Model:
    """Genevay, Peyré, Cuturi, "Learning generative models with Sinkhorn divergences", 2018."""
    return parts.generator(SinkhornDivergence(parts.spread / 20))


RECIPES: dict[str, Callable[[Parts], Model]] = {
    "wae-mmd": wae_mmd,
    "wae-gan": wae_gan,
    "wae-wgan-gp": wae_wgan_gp,
    "swae": swae,
    "max-swae": max_swae,
    "gswae": gswae,
    "max-gswae": max_gswae,
    "sinkhorn-ae": sinkhorn_ae,
    "energy-ae": energy_ae,
    "vae": vae,
    "vae-bernoulli": vae_bernoulli,
    "pointcloud-wae": pointcloud_wae,
    "conditional-wae": conditional_wae,
    "gan": gan,
    "wgan": wgan,
    "wgan-gp": wgan_gp,
    "swg": swg,
    "swgan": swgan,
    "max-swg": max_swg,
    "mmd-generator": mmd_generator,
    "sinkhorn-generator": sinkhorn_generator,
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
