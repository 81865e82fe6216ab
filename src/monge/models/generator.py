"""Generators that are fitted to data directly."""

from torch import Tensor, nn

from monge.divergences import Divergence
from monge.draws import Draws
from monge.models.base import Model, Pass
from monge.priors import Prior


class ImplicitGenerator(Model):
    r"""A generator alone: min D(P_G, P_X), P_G the law of G(Z).

    Arguments:
        decoder: G, codes (n, dim) to samples (n, *).
        prior: P_Z.
        divergence: D, of generated samples and data.
        door: a fixed map into the coordinates in which D sees both; as they are by default.

    Source: Goodfellow et al., "Generative adversarial nets", 2014; Li, Swersky, Zemel,
    "Generative moment matching networks", 2015.
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: Prior,
        divergence: Divergence,
        *,
        door: nn.Module | None = None,
    ):
        super().__init__()
        self.decoder, self.prior, self.divergence, self.weight = decoder, prior, divergence, 1.0
        self.door = door or nn.Identity()

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        codes = draws.rows("prior", self.prior.sample)
        return Pass({}, (self.door(self.decode(codes.to(x.dtype))), self.door(x)))
