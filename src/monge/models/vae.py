"""Variational auto-encoders."""

from torch import Tensor, nn

from monge._core.checks import instance, positive
from monge.draws import Draws
from monge.labels import ClassPrior
from monge.models.base import AutoEncoder, Pass
from monge.networks.codes import Normal
from monge.priors import Gaussian, Prior


class VAE(AutoEncoder):
    r"""Variational auto-encoder: min E[-log p(X|Z)] + beta · E KL(Q(Z|X), P_Z), Z ~ Q(Z|X).

    With beta = 1 the sum of the terms is the negative evidence lower bound, in nats of the units
    in which the likelihood sees x. No divergence is trained, and a pass has no pair.

    Args:
        encoder: x (n, *) to a `Normal` distribution of codes.
        decoder: codes (n, dim) to samples (n, *).
        prior: a `Gaussian`.
        likelihood: -log p(x|z) as a cost of x and G(z): `GaussianLikelihood` or `Bernoulli`.
        beta: weight of the KL term.
        class_prior: P_Y, of a class-conditional model, whose networks are Q(Z|X, Y) and G(Z, Y).

    Source: Kingma, Welling, "Auto-encoding variational Bayes", 2014; beta: Higgins et al.,
    "beta-VAE", 2017; with labels: Kingma, Rezende, Mohamed, Welling, "Semi-supervised learning
    with deep generative models", 2014.
    """

    shown = ("prior", "likelihood", "beta")

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior,
        *,
        likelihood: nn.Module,
        beta: float = 1.0,
        class_prior: ClassPrior | None = None,
    ):
        super().__init__()
        instance("encoder", encoder, nn.Module, "mlp([d, 64, dim])")
        instance("decoder", decoder, nn.Module, "mlp([dim, 64, d])")
        instance("likelihood", likelihood, nn.Module, "GaussianLikelihood()")
        beta = positive("beta", beta)
        if not isinstance(prior, Gaussian):
            raise ValueError(
                f"`prior` must be a Gaussian for the closed-form KL, got {type(prior).__name__}: "
                "use a WAE for other priors"
            )
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.likelihood, self.beta, self.scale = likelihood, beta, prior.scale
        self.divergence, self.weight, self.class_prior = None, 0.0, class_prior

    def forward(self, x: Tensor, draws: Draws, labels: Tensor | None = None) -> Pass:
        q = self.encode(x, labels)
        if not isinstance(q, Normal):
            raise ValueError("`encoder` of a VAE must return a Normal: wrap it in NormalEncoder")
        z = q.rsample(draws)
        terms = {
            "reconstruction": self.likelihood(x, self.decode(z, labels)).mean(),
            "kl": self.beta * q.kl_to(self.scale).mean(),
        }
        return self.compared(Pass(terms), lambda: self._drawn(z, draws, labels), x, labels)

    def _drawn(self, z: Tensor, draws: Draws, labels: Tensor | None) -> Tensor:
        """Samples of the model, as many as codes z."""
        return self.decode(draws.rows("prior", self.prior.sample).to(z), labels)
