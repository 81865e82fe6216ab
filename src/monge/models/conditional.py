"""Wasserstein auto-encoders that complete samples of which a part is known."""
# they take masks and known samples where other models take labels
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Callable

import torch
from torch import Tensor, nn

from monge._core.checks import dimension, instance, positive
from monge.divergences import Divergence
from monge.draws import Draws
from monge.draws import generator as seeded
from monge.models.base import AutoEncoder, Pass, evaluating, refuse_unpaired
from monge.networks.codes import Dirac, Normal
from monge.networks.norm import BatchNorm
from monge.priors import Prior


class ConditionalWAE(AutoEncoder):
    r"""Wasserstein auto-encoder that completes samples of which a part is known.

    min E c(X, G(φ, Z)) + weight · D(P_(φ, Z), P_φ × P_Z), φ = φ(X_known), Z ~ Q(Z|X):
    the divergence compares the *joint* samples (φ, z̃) of codes and (φ, z) of prior draws, so that
    where it is zero Q(Z|φ) = P_Z for almost every φ. Codes then contain only what the known part
    does not, and G(φ(x_known), z) with z ~ P_Z is a draw of the unknown part given the known one,
    also for samples that were never encoded. If only the codes were compared, Z could repeat the
    content of φ, and contradict it in a completion.

    The cost covers only the unknown part; the known part is copied. φ takes no gradient from the
    divergence, which would make it constant; it is trained through the decoder only. Each
    coordinate has mean 0 and variance 1 over a batch, as the prior's have, so that distances of
    joint samples weigh φ and z by their numbers of coordinates.

    Args:
        encoder: samples with their masks, (n, c + 1, h, w) or (n, 2 d), to codes or a distribution
            of codes.
        decoder: (n, size + dim) to samples (n, \*).
        prior: P_Z.
        divergence: D, of joint samples (n, size + dim), whose rows i share φ_i. For an MMD,
            `MMD(kernel, paired=True)` is unbiased for them.
        mask: (n, generator) to n masks, 1 where a sample is known.
        summary: masked samples with their masks to φ (n, size), before it is standardised.
        size: numbers of φ.
        cost: c(x, y) → (n,).
        weight: λ > 0, in the units of the cost.

    Raises:
        ValueError: for a weight that is not positive, or an unbiased MMD of independent samples,
            which would be too low.

    Source: Tolstikhin, Bousquet, Gelly, Schölkopf, "Wasserstein auto-encoders", 2018; of joint
    matching Makhzani et al., "Adversarial autoencoders", 2015.
    """

    shown = ("prior", "divergence", "mask", "cost", "weight")

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior,
        divergence: Divergence,
        *,
        mask: Callable[[int, torch.Generator | None], Tensor],
        summary: nn.Module,
        size: int,
        cost: nn.Module,
        weight: float,
    ):
        super().__init__()
        instance("encoder", encoder, nn.Module, "mlp([d, 64, dim])")
        instance("decoder", decoder, nn.Module, "mlp([dim, 64, d])")
        instance("prior", prior, Prior, "Gaussian(dim)")
        instance("divergence", divergence, Divergence, "EnergyDistance()")
        instance("summary", summary, nn.Module, "mlp([d, 32])")
        instance("cost", cost, nn.Module, "SquaredL2()")
        refuse_unpaired(divergence, "φ")
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.summary = nn.Sequential(summary, BatchNorm(size, affine=False))
        self.divergence, self.cost, self.mask = divergence, cost, mask
        self.weight = positive("weight", weight)

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        known = draws.rows("known", self.mask).to(x)
        phi = self.summarise(x, known)
        z = self.encode(x, known).rsample(draws)
        y = self._decoded(phi, z, x)
        term = self.cost((1 - known) * x, (1 - known) * y).mean()
        target = draws.rows("prior", self.prior.sample).to(z.dtype)
        joint = [torch.cat([phi.detach().to(z.dtype), codes], 1) for codes in (z, target)]
        made = Pass({"reconstruction": term}, (joint[0], joint[1]))

        def completed() -> Tensor:
            return torch.where(known == 0, self._decoded(phi, target, x), x)

        return self.compared(made, completed, x)

    def known(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        r"""One mask for each sample of x (n, \*); by default the model's own, with fixed draws.

        Raises:
            ValueError: for masks of another shape.
        """
        if known is None:
            known = self.mask(len(x), seeded(0, "known"))
        channels = known.shape[1] if known.ndim == x.ndim else 0
        if channels not in (1, x.shape[1]) or known.shape[2:] != x.shape[2:]:
            raise ValueError(
                f"`known` has shape {tuple(known.shape)}: give masks for samples {tuple(x.shape)}"
            )
        # by shape, because `len` would fix the number of samples of an exported graph
        return known.to(x).expand(x.shape[0], *known.shape[1:])

    def summarise(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """φ of the known part, (n, size)."""
        known = self.known(x, known)
        # what is missing may be NaN
        return self.summary(torch.cat([torch.where(known == 0, 0.0, x), known], 1))

    def encode(self, x: Tensor, known: Tensor | None = None) -> Dirac | Normal:
        """Q(Z|x) of whole samples."""
        x = self._own_samples("x", x)
        q = self.encoder(torch.cat([x, self.known(x, known)], 1))
        return Dirac(q) if isinstance(q, Tensor) else q

    def decode(
        self, z: Tensor, given: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        r"""G(φ, z) where a sample `given` (n, \*) is not known, and `given` where it is."""
        if given is None:
            raise ValueError("`given` is missing: a ConditionalWAE completes samples")
        z, given = self._own_codes(z), self._own_samples("given", given)
        known = self.known(given, known)
        y = self._decoded(self.summarise(given, known), z, given)
        return torch.where(known == 0, y, given)

    def _decoded(self, phi: Tensor, z: Tensor, like: Tensor) -> Tensor:
        y = self.decoder(torch.cat([phi, z], 1))
        if y.shape != like.shape:
            raise ValueError(
                f"`decoder` must return samples {tuple(like.shape)}, got {tuple(y.shape)}: does "
                "it make samples of the data's shape?"
            )
        return y

    def reconstruct(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """x with its unknown part decoded from its own code."""
        known = self.known(x, known)
        return self.decode(self.encode(x, known).mean, x, known)

    def complete(
        self,
        x: Tensor,
        count: int,
        generator: torch.Generator | None = None,
        *,
        known: Tensor | None = None,
        prior: Prior | None = None,
    ) -> Tensor:
        r"""`count` completions of each of the samples x (n, \*), as (n, count, \*).

        In evaluation mode and without gradient. Only the known part of x is used.
        """
        x = self._own_samples("x", x)
        codes = (prior or self.prior).sample(len(x) * dimension("count", count), generator).to(x)
        repeated = (
            torch.split(z.repeat_interleave(count, 0), 500) for z in (x, self.known(x, known))
        )
        with evaluating(self):
            completed = [self.decode(*one) for one in zip(torch.split(codes, 500), *repeated)]
        return torch.unflatten(torch.cat(completed), 0, (len(x), count))

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        prior: Prior | None = None,
        *,
        given: Tensor | None = None,
    ) -> Tensor:
        """Completions of n samples `given`, one of each."""
        if given is None or len(given) != n:
            raise ValueError(
                f"`given` must be {n} samples to complete, got "
                f"{'none' if given is None else len(given)}"
            )
        return self.complete(given, 1, generator, prior=prior)[:, 0]
