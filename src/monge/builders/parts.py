"""The parts that a recipe is composed of, for the configuration and the facts of a run."""

import math
from typing import Any

import torch
from torch import nn

from monge._core.references import resolve
from monge.config import Config, Settled
from monge.costs import Cost, Scaled
from monge.data.kinds import Kind, Moments, kind_named
from monge.kernels import RBF, Kernel, multiscale_imq
from monge.models import VAE, WAE, ImplicitGenerator, Model
from monge.networks import GaussianDecoder, Networks, NormalEncoder, PublishedNetworks, Standardise
from monge.priors import Disk, Gaussian, Prior, Ring, Sphere, SwissRoll, Uniform
from monge.recipes import Recipe, find
from monge.recipes.options import MMDOptions, VAEOptions
from monge.recipes.recipe import NEEDS
from monge.transport import Circular


class Parts:
    """What a recipe's `build` composes its model of.

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
            mean, deviation = map(torch.tensor, settled.moments)
            self.moments = mean, deviation
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
        planar = {"ring": Ring, "disk": Disk, "swiss-roll": SwissRoll}
        if self.config.prior in planar:
            return planar[self.config.prior]()
        priors = {"gaussian": Gaussian, "uniform": Uniform, "sphere": Sphere}
        return priors[self.config.prior](self.latent)

    @property
    def spread(self) -> float:
        """E‖x - x'‖² of data as a generator's divergence sees them."""
        return self.settled.spread or self.kind.spread(self.shape)

    @property
    def kernel(self) -> Kernel:
        """The kernel of an MMD on codes, by the option `kernel`."""
        return self.kernel_of(self.prior.spread)

    def kernel_of(self, spread: float) -> Kernel:
        """The kernel that the option `kernel` names, for samples of E‖x - x'‖² = spread."""
        rbf = self.option("kernel") == "rbf"
        return RBF(math.sqrt(spread)) if rbf else multiscale_imq(spread)

    def circles(self, slices: int) -> Circular:
        """Distances to points of a sphere of the prior's size around the origin."""
        return Circular(self.prior.dim, slices, radius=math.sqrt(self.prior.spread))

    def scaled(self, cost: Cost) -> nn.Module:
        """An elementwise cost in standard units of the columns, for tables."""
        return cost if self.moments is None else Scaled(cost, self.moments[1])

    def encoder(self, networks: Networks) -> nn.Module:
        """To codes, or to the means and variances of Q(Z|x), by the option `encoder`."""
        if self.option("encoder") == "random":
            return NormalEncoder(networks.encoder(2 * self.prior.dim))
        return networks.encoder(self.prior.dim)

    def wae(self, divergence) -> Model:
        """A Wasserstein auto-encoder with the divergence between codes and prior."""
        sigma, encoder = self.option("sigma"), self.encoder(self.networks)
        decoder = self.networks.decoder(self.prior.dim)
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
        )

    def vae(self, likelihood: nn.Module) -> Model:
        """A variational auto-encoder."""
        encoder = NormalEncoder(self.networks.encoder(2 * self.latent))
        decoder, beta = self.networks.decoder(self.latent), self.option("beta")
        return VAE(encoder, decoder, self.prior, likelihood=likelihood, beta=beta)

    def generator(self, divergence) -> Model:
        """A generator, fitted to data by the divergence."""
        decoder = self.networks.decoder(self.prior.dim)
        transform = None if self.moments is None else Standardise(*self.moments)
        return ImplicitGenerator(decoder, self.prior, divergence, transform=transform)


def required(row: Recipe, kind: Kind) -> None:
    """Refuses data of a kind that a recipe is not for."""
    for need in row.needs:
        if not getattr(kind, need):
            raise ValueError(f"`recipe` {row.name} needs {NEEDS[need]}; got {kind.name}s")


def build(config: Config, settled: Settled) -> Any:
    """The untrained model of a run's recipe.

    Raises:
        ValueError: for data of a kind that the recipe is not for, or a row whose `build` cannot
            be imported or returns no model.
    """
    row = find(config.recipe)
    required(row, kind_named(settled.kind))
    function = resolve(row.build, "build")
    if not callable(function):
        raise ValueError(f"`build` {row.build!r} of the recipe {row.name} is no function")
    model = function(Parts(config, settled))
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"`build` {row.build!r} of the recipe {row.name} must return a model, got "
            f"{type(model).__name__}"
        )
    return model
