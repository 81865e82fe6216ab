r"""Models: a decoder G and a prior P_Z, fitted by making two samples indistinguishable.

A model's `forward` is one `Pass`: the means it decreases itself (reconstruction, KL), and one
pair of samples for its divergence. The trainer adds `weight · divergence(*pair)` and calls
backward; a user's own loop does the same in five lines.
"""

import abc
import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from monge.checks import dimension, positive
from monge.costs import Scaled, SquaredL2
from monge.divergences import Divergence
from monge.draws import Draws, standard_normal, truncated_normal
from monge.draws import generator as seeded
from monge.networks.codes import Dirac, GaussianDecoder, Normal
from monge.networks.norm import BatchNorm
from monge.priors import Gaussian, Prior


class Pass(NamedTuple):
    """What one batch gives to the trainer."""

    terms: dict[str, Tensor]
    """The model's own means over its samples, weighted."""
    pair: tuple[Tensor, Tensor]
    """(model sample, target sample), for the divergence."""


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """From a to b (*, dim) at t in [0, 1]: the direction on a great circle at constant speed, the
    length linearly. Opposite directions have no great circle of their own and go straight.

    Source: White, "Sampling generative networks", 2016.
    """
    near, far = (torch.linalg.vector_norm(z, dim=-1, keepdim=True) for z in (a, b))
    u, v = a / near.clamp_min(1e-30), b / far.clamp_min(1e-30)
    gap, reach = (torch.linalg.vector_norm(w, dim=-1, keepdim=True) for w in (u - v, u + v))
    angle = 2 * torch.atan2(gap, reach)  # exact for small and for straight angles
    sine = angle.sin()
    turned = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / sine.clamp_min(1e-30)
    curved = torch.lerp(near, far, t) * turned
    return torch.where((sine > 1e-4) & (near * far > 0), curved, torch.lerp(a, b, t))


def moved(z: Tensor, levels: Tensor) -> Tensor:
    """Codes z (n, dim) with each coordinate in turn set to each level (k,): (n · dim · k, dim)."""
    dim = z.shape[1]
    codes = z[:, None, None].repeat(1, dim, len(levels), 1)
    coordinate = torch.arange(dim, device=z.device)
    codes[:, coordinate, :, coordinate] = levels.to(z)
    return codes.flatten(0, 2)


def between(a: Tensor, b: Tensor, count: int, path: Callable) -> Tensor:
    """`count` codes from each of a to each of b (n, dim) along a path: (n · count, dim)."""
    t = torch.linspace(0, 1, count, device=a.device, dtype=a.dtype)[None, :, None]
    return path(a[:, None], b[:, None], t).flatten(0, 1)


class Model(nn.Module, abc.ABC):
    """A decoder, a prior, and the divergence (with its weight) that fits them to data."""

    decoder: nn.Module
    prior: Prior
    divergence: Divergence | None
    weight: float

    @abc.abstractmethod
    def forward(self, x: Tensor, draws: Draws) -> Pass:
        r"""The pass of a batch x (n, \*), this process's rows of the draws' global batch."""

    def decode(self, z: Tensor) -> Tensor:
        r"""G(z): codes (n, dim) to samples (n, \*); of a random decoder, the mean."""
        law = self.decoder(z)
        return law.mean if isinstance(law, Normal) else law

    def sample(
        self, n: int, generator: torch.Generator | None = None, prior: Prior | None = None
    ) -> Tensor:
        r"""n draws of the model, (n, \*), in evaluation mode and without gradient.

        Arguments:
            n: how many, at least 1.
            generator: a CPU generator; torch's global one by default. The draws do not depend
                on the batches in which they are decoded.
            prior: draws the codes in place of the model's own prior.
        """
        return torch.cat(list(self.samples(n, generator, prior)))

    def samples(
        self, n: int, generator: torch.Generator | None = None, prior: Prior | None = None
    ) -> Iterator[Tensor]:
        """The same n draws in parts of at most 500, for more samples than memory holds."""
        device = next(self.parameters(), torch.empty(0)).device
        noisy = isinstance(self.decoder, GaussianDecoder)
        # noise follows a generator of its own, so that the first draws are the same for every n
        seed = int(torch.randint(2**62, (), generator=generator)) if noisy else 0
        noise = torch.Generator().manual_seed(seed)
        codes = (prior or self.prior).sample(dimension("n", n), generator).to(device)
        for z in codes.split(500):
            with evaluating(self):
                x = self.decode(z)
                if isinstance(self.decoder, GaussianDecoder):
                    x = x + self.decoder.sigma * standard_normal(tuple(x.shape), noise).to(x)
            yield x

    def traverse(self, z: Tensor, levels: Tensor) -> Tensor:
        r"""Codes z (n, dim) decoded with each coordinate in turn set to each level (k,).

        Returns (n · dim · k, \*): code by code, coordinate by coordinate, level by level.
        """
        return self.decode(moved(z, levels))


class AutoEncoder(Model):
    """A model with an encoder Q(Z|X)."""

    encoder: nn.Module

    def encode(self, x: Tensor) -> Dirac | Normal:
        """The law Q(Z|x). A network that returns a plain tensor is a deterministic encoder."""
        law = self.encoder(x)
        return Dirac(law) if isinstance(law, Tensor) else law

    def reconstruct(self, x: Tensor) -> Tensor:
        """G at the mean of Q(Z|x)."""
        return self.decode(self.encode(x).mean)

    def interpolate(
        self,
        x: Tensor,
        y: Tensor,
        count: int = 10,
        path: Callable[[Tensor, Tensor, Tensor], Tensor] = torch.lerp,
    ) -> Tensor:
        r"""Decoded lines between the mean codes of x and y, both (n, \*).

        Arguments:
            count: frames a line, both ends included.
            path: (a, b, t) to the code at t in [0, 1] of the way; `spherical` keeps to the
                sphere on which draws of a Gaussian prior lie in high dimension.

        Returns (n · count, \*), line by line.
        """
        return self.decode(between(self.encode(x).mean, self.encode(y).mean, count, path))


class WAE(AutoEncoder):
    r"""Wasserstein auto-encoder: min E c(X, G(Z)) + weight · D(Q_Z, P_Z), Z ~ Q(Z|X).

    The penalty asks the aggregate posterior Q_Z, not each Q(Z|x), to be the prior. With
    Q_Z = P_Z the first term bounds the transport cost W_c(P_X, P_G) from above, and its infimum
    over encoders attains it.

    Arguments:
        encoder: x (n, *) to a law of codes, or to a tensor (n, dim) of codes.
        decoder: codes (n, dim) to samples (n, *), or a `GaussianDecoder`.
        prior: P_Z.
        divergence: D, of codes and prior draws.
        cost: c(x, y) → (n,).
        weight: λ > 0, in the units of the cost.
        noise: deviation of the noise, normal within two deviations, that is added to what the
            encoder sees in training; the decoder's target stays clean.

    A random decoder N(G(z), diag σ²) adds the term `variance` = c(0, σ) = Σ σ_i² to the loss:
    with it the terms sum to E c(X, Y), the bound on the transport cost where Q_Z = P_Z.

    Source: Tolstikhin, Bousquet, Gelly, Schölkopf, "Wasserstein auto-encoders", 2018.
    """

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
    ):
        super().__init__()
        squared = cost.cost if isinstance(cost, Scaled) else cost
        if isinstance(decoder, GaussianDecoder) and not isinstance(squared, SquaredL2):
            raise ValueError(
                f"`cost` must be SquaredL2 under a GaussianDecoder, got {type(squared).__name__}: "
                "the bound holds for it alone"
            )
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.divergence, self.cost = divergence, cost
        self.weight, self.noise = positive("weight", weight), noise

    def codes(self, x: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """The pair (codes of x, prior draws), both (n, dim)."""
        if self.training and self.noise:
            rows = draws.rows("noise", lambda n, g: truncated_normal((n, *x.shape[1:]), g))
            x = x + self.noise * rows.to(x)
        z = self.encode(x).rsample(draws)
        target = draws.rows("prior", self.prior.sample).to(z.dtype)
        if z.shape != target.shape:
            raise ValueError(
                f"`encoder` makes codes of shape {tuple(z.shape)}, `prior` draws of "
                f"{tuple(target.shape)}: give both one dimension"
            )
        return z, target

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        z, target = self.codes(x, draws)
        y = self.decode(z)
        terms = {"reconstruction": self.cost(x, y).mean()}
        if isinstance(self.decoder, GaussianDecoder):
            sigma = self.decoder.sigma.expand_as(y[:1])
            terms["variance"] = self.cost(torch.zeros_like(sigma), sigma).mean()
        return Pass(terms, (z, target))


class ConditionalWAE(AutoEncoder):
    r"""Wasserstein auto-encoder that completes samples of which a part is known.

    min E c(X, G(φ, Z)) + weight · D(law of (φ, Z), law of φ × P_Z), φ = φ(X_known), Z ~ Q(Z|X):
    the divergence compares the *joint* samples (φ, z̃) of codes and (φ, z) of prior draws, so that
    where it is zero Q(Z|φ) = P_Z for almost every φ. Codes then say what the known part does not,
    and G(φ(x_known), z) with z ~ P_Z is a draw of the unknown part given the known one, also for
    samples that were never encoded. Were the codes compared alone, Z could repeat what φ says, and
    would contradict it at completion.

    The cost is of the unknown part alone; the known one is copied. φ takes no gradient from the
    divergence, which would make it a constant: it is trained as what the decoder sees of the known
    part. Each coordinate has mean 0 and variance 1 over a batch, as the prior's have, so that
    distances of joint samples weigh φ and z by their numbers of coordinates.

    Arguments:
        encoder: samples with their masks, (n, c + 1, h, w) or (n, 2 d), to codes or their law.
        decoder: (n, size + dim) to samples (n, \*).
        prior: P_Z.
        divergence: D, of joint samples (n, size + dim).
        mask: (n, generator) to n masks, 1 where a sample is known.
        summary: masked samples with their masks to φ (n, size), before it is standardised.
        size: numbers of φ.
        cost: c(x, y) → (n,).
        weight: λ > 0, in the units of the cost.

    Source: Tolstikhin, Bousquet, Gelly, Schölkopf, "Wasserstein auto-encoders", 2018; of joint
    matching Makhzani et al., "Adversarial autoencoders", 2015.
    """

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
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.summary = nn.Sequential(summary, BatchNorm(size, affine=False))
        self.divergence, self.cost, self.mask = divergence, cost, mask
        self.weight = positive("weight", weight)

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        known = draws.rows("known", self.mask).to(x)
        phi = self.summarise(x, known)
        z = self.encode(x, known).rsample(draws)
        y = self.decoder(torch.cat([phi, z], 1))
        term = self.cost((1 - known) * x, (1 - known) * y).mean()
        target = draws.rows("prior", self.prior.sample).to(z.dtype)
        joint = [torch.cat([phi.detach().to(z.dtype), codes], 1) for codes in (z, target)]
        return Pass({"reconstruction": term}, (joint[0], joint[1]))

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
        return known.to(x).expand(len(x), *known.shape[1:])

    def summarise(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """φ of the known part, (n, size)."""
        known = self.known(x, known)
        return self.summary(torch.cat([known * x, known], 1))

    def encode(self, x: Tensor, known: Tensor | None = None) -> Dirac | Normal:
        """Q(Z|x) of whole samples."""
        law = self.encoder(torch.cat([x, self.known(x, known)], 1))
        return Dirac(law) if isinstance(law, Tensor) else law

    def decode(
        self, z: Tensor, given: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        r"""G(φ, z) where a sample `given` (n, \*) is not known, and `given` where it is."""
        if given is None:
            raise ValueError("`given` is missing: a ConditionalWAE completes samples")
        known = self.known(given, known)
        y = self.decoder(torch.cat([self.summarise(given, known), z], 1))
        return known * given + (1 - known) * y

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

        In evaluation mode and without gradient. Of x only what is known is used.
        """
        codes = (prior or self.prior).sample(len(x) * dimension("count", count), generator).to(x)
        repeated = (z.repeat_interleave(count, 0).split(500) for z in (x, self.known(x, known)))
        with evaluating(self):
            parts = [self.decode(*one) for one in zip(codes.split(500), *repeated)]
        return torch.cat(parts).unflatten(0, (len(x), count))

    def samples(
        self,
        n: int,
        generator: torch.Generator | None = None,
        prior: Prior | None = None,
        *,
        given: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Completions of n samples `given`, one of each."""
        if given is None or len(given) != n:
            raise ValueError(
                f"`given` must be {n} samples to complete, got "
                f"{'none' if given is None else len(given)}"
            )
        yield from self.complete(given, 1, generator, prior=prior)[:, 0].split(500)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        prior: Prior | None = None,
        *,
        given: Tensor | None = None,
    ) -> Tensor:
        """Completions of n samples `given`, one of each."""
        return torch.cat(list(self.samples(n, generator, prior, given=given)))

    def traverse(self, z: Tensor, levels: Tensor, *, given: Tensor | None = None) -> Tensor:
        """As of any model, each code beside its row of the samples `given`."""
        codes = moved(z, levels)
        if given is not None:
            given = given.repeat_interleave(len(codes) // len(z), 0)
        return self.decode(codes, given)

    def interpolate(
        self,
        x: Tensor,
        y: Tensor,
        count: int = 10,
        path: Callable[[Tensor, Tensor, Tensor], Tensor] = torch.lerp,
    ) -> Tensor:
        """The known part of x beside the codes on a line from that of x to that of y."""
        return self.decode(
            between(self.encode(x).mean, self.encode(y).mean, count, path),
            x.repeat_interleave(count, 0),
        )


class CodesAlone(Model):
    """The encoder of a WAE under a divergence of its own, min D(Q_Z, P_Z): a stage before the
    training of the whole."""

    def __init__(self, model: WAE, divergence: Divergence):
        super().__init__()
        self.encoder, self.prior, self.divergence = model.encoder, model.prior, divergence
        self.weight, self.codes = 1.0, model.codes

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        return Pass({}, self.codes(x, draws))


class VAE(AutoEncoder):
    r"""Variational auto-encoder: min E[-log p(X|Z)] + beta · E KL(Q(Z|X), P_Z), Z ~ Q(Z|X).

    With beta = 1 the sum of the terms is the negative evidence lower bound, in nats of the units
    in which the likelihood sees x. There is no divergence to train on; the pair (codes, prior
    draws) makes D(Q_Z, P_Z) a metric.

    Arguments:
        encoder: x (n, *) to a `Normal` law of codes.
        decoder: codes (n, dim) to samples (n, *).
        prior: a `Gaussian`.
        likelihood: -log p(x|z) as a cost of x and G(z): `GaussianLikelihood` or `Bernoulli`.
        beta: weight of the KL term.

    Source: Kingma, Welling, "Auto-encoding variational Bayes", 2014; beta: Higgins et al.,
    "beta-VAE", 2017.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        prior: Prior,
        *,
        likelihood: nn.Module,
        beta: float = 1.0,
    ):
        super().__init__()
        if not isinstance(prior, Gaussian):
            raise ValueError(
                f"`prior` must be a Gaussian for the closed-form KL, got {type(prior).__name__}: "
                "use a WAE for other priors"
            )
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.likelihood, self.beta, self.scale = likelihood, beta, prior.scale
        self.divergence, self.weight = None, 0.0

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        law = self.encode(x)
        if not isinstance(law, Normal):
            raise ValueError("`encoder` of a VAE must return a Normal: wrap it in NormalEncoder")
        z = law.rsample(draws)
        terms = {
            "reconstruction": self.likelihood(x, self.decode(z)).mean(),
            "kl": self.beta * law.kl_to(self.scale).mean(),
        }
        return Pass(terms, (z, draws.rows("prior", self.prior.sample).to(z.dtype)))


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


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, evaluation mode without gradients; outside, each module's mode as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
