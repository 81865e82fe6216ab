"""Wasserstein auto-encoders."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from monge._core.checks import instance, nonnegative, positive
from monge.costs import Scaled, SquaredL2
from monge.divergences import Divergence
from monge.draws import Draws, truncated_normal
from monge.labels import ClassPrior
from monge.models.base import AutoEncoder, Model, Pass, refuse_unpaired
from monge.models.protocols import prior_of
from monge.networks.codes import GaussianDecoder
from monge.priors import Prior


class WAE(AutoEncoder):
    r"""Wasserstein auto-encoder: min E c(X, G(Z)) + weight · D(Q_Z, P_Z), Z ~ Q(Z|X).

    The penalty matches the aggregate posterior Q_Z, rather than each Q(Z|x), to the prior. With
    Q_Z = P_Z the first term bounds the transport cost W_c(P_X, P_G) from above, and its infimum
    over encoders attains it.

    Args:
        encoder: x (n, *) to a distribution of codes, or to a tensor (n, dim) of codes.
        decoder: codes (n, dim) to samples (n, *), or a `GaussianDecoder`.
        prior: P_Z.
        divergence: D, of codes and prior draws.
        cost: c(x, y) → (n,).
        weight: λ > 0, in the units of the cost.
        noise: deviation of the noise, normal within two deviations, that is added to what the
            encoder sees in training; the decoder's target stays clean.
        class_prior: P_Y, of a class-conditional model, whose divergence takes samples (n, dim + K)
            that share their labels, row by row. For an MMD, `MMD(kernel, paired=True)` is unbiased
            for them.

    With a `class_prior`, a label y comes with each sample: the encoder is Q(Z|X, Y), the decoder
    G(Z, Y), and D compares the *joint* samples (codes, y) and (prior draws, y). Where it is zero
    Q(Z|y) = P_Z for every class, so that codes say nothing about the class, and G(z, y) with
    z ~ P_Z is a draw of class y.

    A random decoder N(G(z), diag σ²) adds the term `variance` = c(0, σ) = Σ σ_i² to the loss:
    with it the terms sum to E c(X, Y), the bound on the transport cost where Q_Z = P_Z.

    Source: Tolstikhin, Bousquet, Gelly, Schölkopf, "Wasserstein auto-encoders", 2018.
    """

    shown = ("prior", "divergence", "cost", "weight")

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior,
        divergence: Divergence,
        *,
        cost: nn.Module,
        weight: float,
        noise: float = 0.0,
        class_prior: ClassPrior | None = None,
    ):
        super().__init__()
        instance("encoder", encoder, nn.Module, "mlp([d, 64, dim])")
        instance("decoder", decoder, nn.Module, "mlp([dim, 64, d])")
        instance("prior", prior, Prior, "Gaussian(dim)")
        instance("divergence", divergence, Divergence, "EnergyDistance()")
        if class_prior is not None:
            refuse_unpaired(divergence, "labels")
        instance("cost", cost, nn.Module, "SquaredL2()")
        squared = cost.cost if isinstance(cost, Scaled) else cost
        if isinstance(decoder, GaussianDecoder) and not isinstance(squared, SquaredL2):
            raise ValueError(
                f"`cost` must be SquaredL2 under a GaussianDecoder, got {type(squared).__name__}: "
                "the bound holds only for it"
            )
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.divergence, self.cost, self.class_prior = divergence, cost, class_prior
        self.weight, self.noise = positive("weight", weight), nonnegative("noise", noise)

    def codes(
        self, x: Tensor, draws: Draws, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The pair (codes of x, prior draws), both (n, dim)."""
        if self.training and self.noise:
            rows = draws.rows("noise", lambda n, g: truncated_normal((n, *x.shape[1:]), g))
            x = x + self.noise * rows.to(x)
        z = self.encode(x, labels).rsample(draws)
        target = draws.rows("prior", self.prior.sample).to(z.dtype)
        if z.shape != target.shape:
            raise ValueError(
                f"`encoder` makes codes of shape {tuple(z.shape)}, `prior` draws of "
                f"{tuple(target.shape)}: give both one dimension"
            )
        return z, target

    def forward(self, x: Tensor, draws: Draws, labels: Tensor | None = None) -> Pass:
        z, target = self.codes(x, draws, labels)
        y = self.decode(z, labels)
        terms = {"reconstruction": self.cost(x, y).mean()}
        if isinstance(self.decoder, GaussianDecoder):
            sigma = self.decoder.sigma.expand_as(y[:1])
            terms["variance"] = self.cost(torch.zeros_like(sigma), sigma).mean()
        made = Pass(terms, self.joint(z, target, labels))
        return self.compared(made, lambda: self.decode(target, labels), x, labels)


class EncoderPretraining(Model):
    """The encoder of a model, fitted by min D(Q_Z, P_Z): a stage before the whole is trained.

    Args:
        model: with a module `encoder`, a `prior`, and `codes(x, draws)`, or
            `codes(x, draws, labels)` where it is class-conditional, which returns the pair
            (codes of x, prior draws), as `WAE.codes` does.
        divergence: D.

    Raises:
        ValueError: naming what the model lacks.
    """

    def __init__(self, model: nn.Module, divergence: Divergence):
        super().__init__()
        encoder, prior = getattr(model, "encoder", None), prior_of(model)
        codes: Callable[..., tuple[Tensor, Tensor]] | None
        codes = getattr(model, "codes", None)
        if not isinstance(encoder, nn.Module) or prior is None or not callable(codes):
            parts = {
                "module `encoder`": isinstance(encoder, nn.Module),
                "`prior`": prior is not None,
                "method `codes`": callable(codes),
            }
            missing = [part for part, present in parts.items() if not present]
            raise ValueError(
                f"`model` {type(model).__name__} has no {' and no '.join(missing)}, which "
                "`pretrain` needs"
            )
        self.encoder, self.prior, self.divergence = encoder, prior, divergence
        self.weight, self.codes = 1.0, codes

    def forward(self, x: Tensor, draws: Draws, labels: Tensor | None = None) -> Pass:
        return Pass({}, self.codes(x, draws, *(() if labels is None else (labels,))))
