"""Generators that are fitted to data directly."""

from torch import Tensor, nn

from monge._core.checks import instance
from monge.divergences import Divergence
from monge.draws import Draws
from monge.labels import ClassPrior
from monge.models.base import Model, Pass, refuse_unpaired
from monge.priors import Prior


class ImplicitGenerator(Model):
    r"""A generator: min D(P_G, P_X), where P_G is the distribution of G(Z).

    Args:
        decoder: G, codes (n, dim) to samples (n, *).
        prior: P_Z.
        divergence: D, of generated samples and data.
        transform: a fixed map into the coordinates in which D compares them, e.g. standard units
            of a table's columns; the identity by default.
        class_prior: P_Y, of a class-conditional model G(Z, Y), whose divergence takes joint
            samples (G(z, y), y) and (x, y) as rows (n, d + K) that share their labels.

    Source: Goodfellow et al., "Generative adversarial nets", 2014; Li, Swersky, Zemel,
    "Generative moment matching networks", 2015; with labels: Mirza, Osindero, "Conditional
    generative adversarial nets", 2014.
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: Prior,
        divergence: Divergence,
        *,
        transform: nn.Module | None = None,
        class_prior: ClassPrior | None = None,
    ):
        super().__init__()
        instance("decoder", decoder, nn.Module, "mlp([dim, 64, d])")
        instance("prior", prior, Prior, "Gaussian(dim)")
        instance("divergence", divergence, Divergence, "EnergyDistance()")
        if class_prior is not None:
            refuse_unpaired(divergence, "labels")
        self.decoder, self.prior, self.divergence, self.weight = decoder, prior, divergence, 1.0
        self.class_prior = class_prior
        transform = nn.Identity() if transform is None else transform
        self.transform = instance("transform", transform, nn.Module, "Standardise(mean, std)")
        self.register_load_state_dict_pre_hook(_renamed)  # pyright: ignore[reportUnknownMemberType]

    def forward(self, x: Tensor, draws: Draws, labels: Tensor | None = None) -> Pass:
        codes = draws.rows("prior", self.prior.sample)
        # of the decoder's dtype, not of x: tables of timestamps are in float64
        like = next(self.decoder.parameters(), x)
        y = self.decode(codes.to(like.device, like.dtype), labels)
        return Pass({}, self.joint(self.transform(y), self.transform(x), labels))


def _renamed(module: nn.Module, weights: dict[str, Tensor], prefix: str, *_) -> None:
    """Takes weights of monge 0.1, in which `transform` was called `door`."""
    old = f"{prefix}door."
    for name in [name for name in weights if name.startswith(old)]:
        weights[f"{prefix}transform.{name.removeprefix(old)}"] = weights.pop(name)
