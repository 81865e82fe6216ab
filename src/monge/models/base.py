r"""Models: a decoder G and a prior P_Z, fitted by making two samples indistinguishable.

A model's `forward` is one `Pass`: the means it decreases itself (reconstruction, KL), and the
pair of samples that its divergence compares. The trainer adds `weight · divergence(*pair)` and
calls backward; a loop of your own does the same in five lines. `monge.models.protocols` says what
is asked of a model that is no `Model`.
"""

import abc
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from monge._core.checks import dimension, floating, instance, nonnegative, positive, share
from monge._core.shown import described
from monge.divergences import MMD, Divergence
from monge.draws import Draws
from monge.labels import ClassPrior, Labelled, Rows, one_hot
from monge.models import protocols, sampling
from monge.models.modes import evaluating
from monge.models.paths import Path
from monge.models.protocols import combines
from monge.networks.clusters import Clusters
from monge.networks.codes import Dirac, Normal
from monge.priors import Prior

__all__ = [
    "AutoEncoder",
    "Inner",
    "Matching",
    "Model",
    "Pair",
    "Pass",
    "checked",
    "evaluating",
    "matchings",
    "pairs",
]

Pair = tuple[Tensor, Tensor]
"""(model sample, target sample), as a divergence compares them."""


class Pass(NamedTuple):
    """The result of one batch, for the trainer."""

    terms: dict[str, Tensor]
    """The model's own means over its samples, weighted."""
    pair: Pair | Mapping[str, Pair | Callable[[], Pair]] | None = None
    """What the divergence compares; of a model with several matchings a pair for each, by name, or
    a function that makes it where the matching has a weight; None without a divergence."""


@dataclass(frozen=True)
class Inner:
    """How a learned divergence is fitted; None uses the settings of the training."""

    lr: float | None = None
    steps: int | None = None
    betas: tuple[float, float] | None = None

    def __post_init__(self):
        if self.lr is not None:
            object.__setattr__(self, "lr", positive("lr", self.lr))
        if self.steps is not None:
            dimension("steps", self.steps)
        if self.betas is not None:
            object.__setattr__(self, "betas", _decay_rates(self.betas))


def _decay_rates(betas: tuple[float, float]) -> tuple[float, ...]:
    rates = tuple(share("betas", it) for it in instance("betas", betas, Sequence, "(0.5, 0.9)"))
    if len(rates) != 2 or 1 in rates:
        raise ValueError(f"`betas` must be two numbers in [0, 1), got {betas!r}")
    return rates


@dataclass(frozen=True)
class Matching:
    """A pair of samples that training makes indistinguishable.

    Args:
        name: of the pair in `Pass.pair`, and of the logged term.
        divergence: D.
        weight: λ ≥ 0.
        inner: how a learned divergence is fitted.
        schedule: the share of training that is done, in [0, 1], to a factor of the weight; by
            default 1.
        every: the samples are compared only in every N-th step, with N times the weight, which is
            as good on average and costs less.
    """

    name: str
    divergence: Divergence
    weight: float = 1.0
    inner: Inner = Inner()
    schedule: Callable[[float], float] | None = None
    every: int = 1

    def __post_init__(self):
        instance("name", self.name, str, "'codes'")
        instance("inner", self.inner, Inner, "Inner(lr=1e-3)")
        if not (self.schedule is None or callable(self.schedule)):
            raise ValueError(
                "`schedule` must be None or a function of the share of training that is done, "
                f"e.g. lambda done: done, got {self.schedule!r}"
            )
        dimension("every", self.every)


ONLY, SAMPLES = "divergence", "samples"
"""The names of a model's divergence, and of the second matching of an auto-encoder."""


def matchings(model: nn.Module) -> Sequence[Matching]:
    """The matchings of a model: those that it names, or its divergence with its weight, if any."""
    named = getattr(model, "matchings", None)
    if named is not None:
        return tuple(named)
    divergence, second = (getattr(model, name, None) for name in ("divergence", "second"))
    weight = getattr(model, "weight", 1.0)
    first = () if divergence is None else (Matching(ONLY, divergence, weight),)
    return first if second is None else (*first, second)


def named_pairs(made: Pass) -> dict[str, Pair | Callable[[], Pair]]:
    """The pairs of a pass, or what makes them, by the names of their matchings."""
    if made.pair is None:
        return {}
    return dict(made.pair) if isinstance(made.pair, Mapping) else {ONLY: made.pair}


def pairs(made: Pass, wanted: Collection[str] | None = None) -> dict[str, Pair]:
    """The pairs of a pass by the names of their matchings; of those that a function makes all, or
    only the wanted ones."""
    return {
        name: pair() if callable(pair) else pair
        for name, pair in named_pairs(made).items()
        if wanted is None or name in wanted or not callable(pair)
    }


def checked(model: nn.Module, made: object) -> Pass:
    """The value of a model's `forward`, if it is a `Pass`.

    Raises:
        ValueError: naming the model's class and what it returned.
    """
    if not isinstance(made, Pass):
        raise ValueError(
            f"`model` {type(model).__name__} returns a {type(made).__name__} from `forward`: "
            "return a monge.models.Pass(terms, pair)"
        )
    return made


def refuse_unpaired(divergence: Divergence, shared: str) -> None:
    """Refuses an unbiased MMD of independent samples for joint samples that share something."""
    if isinstance(divergence, MMD) and divergence.unbiased and not divergence.paired:
        raise ValueError(
            "`divergence` is an unbiased MMD of independent samples, but joint samples share "
            f"{shared}: give MMD(kernel, paired=True)"
        )


class Model(nn.Module, abc.ABC):
    """A decoder, a prior, and the divergence (with its weight) that fits them to data.

    A model with several matchings has an attribute or property `matchings` instead of
    `divergence` and `weight`. A model without decoder or prior has a `sample` of its own.

    A model with a `class_prior` is class-conditional: its methods take `labels`, its networks take
    them as one-hot rows after their input, and its divergence compares joint samples.
    """

    decoder: nn.Module
    prior: Prior
    class_prior: ClassPrior | None
    """P_Y, of a class-conditional model."""
    clusters: Clusters
    """The clusters that label samples, in a model that is conditioned on them."""
    divergence: Divergence | None
    weight: float
    shown: tuple[str, ...] = ("prior", "divergence", "weight")
    """The attributes that `repr` tells, besides the number of parameters."""

    def __repr__(self) -> str:
        absent = object()
        values = [(name, getattr(self, name, absent)) for name in self.shown]
        shown = [f"{name}={described(value)}" for name, value in values if value is not absent]
        named = {one.name: described(one.divergence) for one in matchings(self)}
        if named.keys() - {ONLY}:
            shown.append(f"matchings=({', '.join(f'{k}={v}' for k, v in named.items())})")
        count = sum(parameter.numel() for parameter in self.parameters())
        return f"{type(self).__name__}({', '.join([*shown, f'parameters={count:,}'])})"

    @abc.abstractmethod
    def forward(self, x: Tensor, draws: Draws, labels: Tensor | None = None) -> Pass:
        r"""The pass of a batch x (n, \*), this process's rows of the draws' global batch, with the
        labels (n,) that a class-conditional model takes."""

    @property
    def classes(self) -> int | None:
        """The number of classes of a class-conditional model; None for any other."""
        prior = getattr(self, "class_prior", None)
        return None if prior is None else prior.classes

    def condition(self, labels: Tensor | None, x: Tensor) -> tuple[Tensor, ...]:
        """What the networks take after their input x: nothing, or labels as rows (n, K).

        Raises:
            ValueError: for labels that a class-conditional model lacks, or another is given.
        """
        if (labels is None) == (self.classes is None):
            return () if labels is None else (one_hot(labels, self.classes or 0, x),)
        name = type(self).__name__
        if labels is None:
            raise ValueError(f"`labels` is missing: this {name} is class-conditional")
        raise ValueError(f"`labels` are given to a {name} that is not class-conditional")

    def joint(self, x: Tensor, y: Tensor, labels: Tensor | None) -> Pair:
        r"""The pair (x, y) of samples (n, \*), joined with the labels that both have, if any."""
        if labels is None or self.class_prior is None:
            return x, y
        return self.class_prior.joint(x, labels), self.class_prior.joint(y, labels)

    def _own_codes(self, z: Tensor) -> Tensor:
        """Floating point codes in a dtype of the decoder's parameters."""
        return _in_own_dtype("z", z, self.decoder.parameters())

    @combines("decoder")
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        r"""G(z), or G(z, labels): codes (n, dim) to samples (n, \*); of a random decoder, the
        mean."""
        z = self._own_codes(z)
        y = self.decoder(z, *self.condition(labels, z))
        return y.mean if isinstance(y, Normal) else y

    @combines("decode", "prior")
    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        prior: Prior | None = None,
        labels: int | Sequence[int] | Tensor | None = None,
    ) -> Tensor:
        r"""n draws of the model, (n, \*), in evaluation mode and without gradient.

        Args:
            n: how many, at least 1.
            generator: a CPU generator; torch's global one by default. The draws do not depend
                on the batches in which they are decoded.
            prior: draws the codes in place of the model's own prior.
            labels: of a class-conditional model, the class of all draws, one for each, or weights
                of the classes (n, K); by default draws of its `class_prior`.
        """
        prior = self.prior if prior is None else prior
        return torch.cat(list(sampling.decoded(self, prior, n, generator, labels)))


class AutoEncoder(Model):
    """A model with an encoder Q(Z|X).

    Its loss compares data only with their reconstructions, whose details a squared cost blurs.
    `sharpen` adds a second matching, of decoded draws of the prior and data.
    """

    encoder: nn.Module
    second: Matching | None = None
    """The matching of samples and data, if there is one."""

    def sharpen(
        self,
        divergence: Divergence,
        weight: float,
        *,
        inner: Inner = Inner(),
        schedule: Callable[[float], float] | None = None,
        every: int = 1,
        transform: nn.Module | None = None,
        class_prior: ClassPrior | None = None,
    ) -> Self:
        """Adds `weight` · D(P_G, P_X) to what training decreases, and returns the model.

        Args:
            divergence: D, of samples and data.
            weight: its weight μ ≥ 0, in units of the cost.
            inner: how a learned divergence is fitted.
            schedule: the share of training that is done, in [0, 1], to a factor of μ. While it is
                0 no samples are drawn.
            every: samples and data are compared only in every N-th step, with N times μ.
            transform: a fixed map into the coordinates in which D compares them, e.g. standard
                units of a table's columns; the identity by default.
            class_prior: of a class-conditional model, P_Y on the scale of data, with which samples
                are joined; by default the model's own, on the scale of codes.

        Source: Larsen, Sønderby, Larochelle, Winther, "Autoencoding beyond pixels using a learned
        similarity metric", 2016.
        """
        if getattr(self, "class_prior", None) is not None:
            refuse_unpaired(divergence, "labels")
        self.sharpening = instance("divergence", divergence, Divergence, "EnergyDistance()")
        weight = nonnegative("weight", weight)
        self.second = Matching(SAMPLES, divergence, weight, inner, schedule, every)
        self.transform = transform or nn.Identity()
        self.data_classes = class_prior
        return self

    def compared(
        self,
        made: Pass,
        samples: Callable[[], Tensor],
        x: Tensor,
        labels: Tensor | None = None,
    ) -> Pass:
        r"""A pass with the pair of samples (n, \*) and data x, joined with the labels of both, if
        there is a second matching."""
        if self.second is None:
            return made

        def pair() -> Pair:
            y, real = self.transform(samples()), self.transform(x)
            joined = self.data_classes or getattr(self, "class_prior", None)
            if labels is None or joined is None:
                return y, real
            return joined.joint(y, labels), joined.joint(real, labels)

        return Pass(made.terms, {**named_pairs(made), SAMPLES: pair})

    @combines("encoder")
    def encode(self, x: Tensor, labels: Tensor | None = None) -> Dirac | Normal:
        """The distribution Q(Z|x), or Q(Z|x, labels), by default with the labels of the clusters
        in which x is. A network that returns a tensor is a deterministic encoder."""
        x = self._own_samples("x", x)
        labels = self._labels(x, labels)
        q = self.encoder(x, *self.condition(labels, x))
        return Dirac(q) if isinstance(q, Tensor) else q

    def _own_samples(self, name: str, x: Tensor) -> Tensor:
        """Floating point samples in a dtype of the encoder: of its parameters, or of the units of
        a table, which may be wider."""
        held = itertools.chain(self.encoder.parameters(), self.encoder.buffers())
        return _in_own_dtype(name, x, held)

    def _labels(self, x: Tensor, labels: Tensor | None) -> Tensor | None:
        """The labels given, or those of the clusters in which x is, where there are clusters."""
        clusters = protocols.clusters_of(self)
        return labels if labels is not None or clusters is None else clusters(x)

    def _rows(self, name: str, x: Rows, labels: Tensor | None = None) -> Rows:
        """Samples with their `_labels`, if they have any."""
        if isinstance(x, Labelled):
            return x
        x = self._own_samples(name, x)
        labels = self._labels(x, labels)
        return x if labels is None else Labelled(x, labels)

    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """G at the mean of Q(Z|x)."""
        return protocols.reconstructed(self, self._rows("x", x, labels))

    def interpolate(
        self,
        x: Rows,
        y: Rows,
        count: int = 10,
        path: Path = torch.lerp,
    ) -> Tensor:
        r"""Decoded lines between the mean codes of x and y, both (n, \*).

        Args:
            x, y: where the lines begin and end, `Labelled` for a class-conditional model. Between
                two classes the weights of the classes change linearly, too.
            count: frames a line, both ends included.
            path: (a, b, t) to the code at t in [0, 1] of the way; `spherical` keeps to the
                sphere on which draws of a Gaussian prior lie in high dimension.

        Returns (n · count, \*), line by line.
        """
        return protocols.interpolated(self, self._rows("x", x), self._rows("y", y), count, path)


def _in_own_dtype(name: str, x: Tensor, held: Iterable[Tensor]) -> Tensor:
    """Floating point numbers; in the dtype of the first tensor that a network holds, unless they
    are in that of another one."""
    x, kinds = floating(name, x), [z.dtype for z in held if z.is_floating_point()]
    return x.to(kinds[0]) if kinds and x.dtype not in kinds else x
