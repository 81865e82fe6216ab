r"""What monge asks of a model: of its own models and of yours alike.

Training calls `forward(x, draws) -> Pass`. Every other use calls a method:

- `sample(n, generator)` returns n samples;
- `encode(x)` returns codes (n, dim), or a distribution of codes with `mean` and `rsample()`;
- `decode(z)` returns the samples that codes stand for.

A `prior` (a `monge.priors.Prior`) is optional; it is what codes are compared with. Nothing else is
assumed: the functions below work with whatever a model has, and where a method is missing they
raise a ValueError that names it.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from monge._core.checks import dimension
from monge.draws import Draws
from monge.models.base import Model, Pass, evaluating
from monge.models.paths import between, moved
from monge.priors import Prior


@runtime_checkable
class Trainable(Protocol):
    """A model that can be trained."""

    def forward(self, x: Tensor, draws: Draws) -> Pass: ...


@runtime_checkable
class Sampler(Protocol):
    """A model that can be sampled and evaluated."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor: ...


@runtime_checkable
class Encoder(Protocol):
    """A model with codes."""

    def encode(self, x: Tensor) -> Any: ...


@runtime_checkable
class Decoder(Protocol):
    """A model whose codes can be decoded."""

    def decode(self, z: Tensor) -> Tensor: ...


@runtime_checkable
class Completer(Protocol):
    """A model that completes partly known samples.

    Its `decode(z, given)` takes the sample that a code completes as well.
    """

    def known(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        r"""A mask for each sample of x (n, \*), 1 where it is known; by default those of training,
        with fixed draws."""
        ...

    def complete(
        self,
        x: Tensor,
        count: int,
        generator: torch.Generator | None = None,
        *,
        known: Tensor | None = None,
        prior: Prior | None = None,
    ) -> Tensor:
        r"""`count` completions of each sample of x (n, \*), as (n, count, \*)."""
        ...


def has(model: object, *methods: str) -> bool:
    """Whether a model has methods of these names."""
    return all(callable(getattr(model, method, None)) for method in methods)


def require(model: object, method: str, purpose: str) -> None:
    """Refuses a model without a method.

    Raises:
        ValueError: naming the model, the method, and what it is needed for.
    """
    if not has(model, method):
        raise ValueError(
            f"`model` {type(model).__name__} has no method `{method}`, which {purpose} needs"
        )


def prior_of(model: object) -> Prior | None:
    """The model's prior, if it has one."""
    prior = getattr(model, "prior", None)
    return prior if isinstance(prior, Prior) else None


def posterior(model: Any, x: Tensor) -> Any:
    r"""What `model.encode` makes of samples x (n, \*): codes (n, dim), or a distribution of codes.

    Raises:
        ValueError: for a model without `encode`, or one that returns anything else.
    """
    require(model, "encode", "a code")
    q = model.encode(x)
    codes = q if isinstance(q, Tensor) else getattr(q, "mean", None)
    if not isinstance(codes, Tensor) or codes.ndim != 2:
        shape = f" of shape {tuple(codes.shape)}" if isinstance(codes, Tensor) else ""
        raise ValueError(
            f"`model` {type(model).__name__} encodes samples as a {type(q).__name__}{shape}: "
            "return codes (n, dim), or a distribution of codes with `mean` and `rsample()`"
        )
    return q


def mean_codes(model: Any, x: Tensor) -> Tensor:
    r"""The mean of Q(Z|x) for samples x (n, \*), (n, dim)."""
    q = posterior(model, x)
    return q if isinstance(q, Tensor) else q.mean


def drawn_codes(model: Any, x: Tensor) -> Tensor:
    r"""A draw of Q(Z|x) for each of x (n, \*), (n, dim), from torch's global generator."""
    q = posterior(model, x)
    return q if isinstance(q, Tensor) else q.rsample()


def latent_of(model: Any, x: Tensor) -> int | None:
    r"""The dimension of a model's codes, by its prior or by the code of samples x (n, \*); None
    for a model without codes."""
    prior = prior_of(model)
    if prior is not None:
        return prior.dim
    if not has(model, "encode"):
        return None
    with evaluating(model):
        return mean_codes(model, x[:1]).shape[1]


def decode(model: Any, z: Tensor, given: Tensor | None = None) -> Tensor:
    r"""The samples that codes z (n, dim) stand for; a `Completer` completes `given` (n, \*)."""
    require(model, "decode", "decoding")
    return model.decode(z) if given is None else model.decode(z, given)


def reconstructs(model: object) -> bool:
    """Whether `reconstruct` can be called with a model."""
    return has(model, "reconstruct") or has(model, "encode", "decode")


def reconstruct(model: Any, x: Tensor) -> Tensor:
    r"""The reconstructions of samples x (n, \*): by the model's `reconstruct` if it has one, else
    its mean codes decoded."""
    if has(model, "reconstruct"):
        return model.reconstruct(x)
    for method in ("encode", "decode"):
        require(model, method, "reconstruction")
    return decode(model, mean_codes(model, x), x if isinstance(model, Completer) else None)


def interpolate(
    model: Any,
    x: Tensor,
    y: Tensor,
    count: int,
    path: Callable[[Tensor, Tensor, Tensor], Tensor] = torch.lerp,
) -> Tensor:
    r"""`count` frames from each of x to each of y (n, \*), as `AutoEncoder.interpolate`."""
    if has(model, "interpolate"):
        return model.interpolate(x, y, count, path)
    for method in ("encode", "decode"):
        require(model, method, "interpolation")
    codes = between(mean_codes(model, x), mean_codes(model, y), count, path)
    given = x.repeat_interleave(count, 0) if isinstance(model, Completer) else None
    return decode(model, codes, given)


def traverse(model: Any, x: Tensor, levels: Tensor) -> Tensor:
    r"""The codes of x (n, \*) decoded with each coordinate in turn set to each level (k,)."""
    for method in ("encode", "decode"):
        require(model, method, "traversal")
    z = mean_codes(model, x)
    codes, given = moved(z, levels), None
    if isinstance(model, Completer):
        given = x.repeat_interleave(len(codes) // len(z), 0)
    return decode(model, codes, given)


def generates(model: object) -> bool:
    """Whether `samples` can be called with a model."""
    from_prior = prior_of(model) is not None and has(model, "decode")
    return has(model, "sample") or has(model, "complete") or from_prior


def samples(
    model: Any,
    n: int,
    generator: torch.Generator | None = None,
    prior: Prior | None = None,
    given: Tensor | None = None,
) -> Iterator[Tensor]:
    r"""n draws of a model in batches, in evaluation mode and without gradient.

    Arguments:
        model: any model with `sample`, or with `decode` and a prior.
        n: how many.
        generator: a CPU generator; torch's global one by default.
        prior: draws the codes in place of the model's own prior; needs `decode`.
        given: the n samples (n, \*) that a `Completer` completes.
    """
    if given is not None:
        yield from model.complete(given, 1, generator, prior=prior)[:, 0].split(500)
    elif isinstance(model, Model):
        yield from model.samples(n, generator, prior)
    elif prior is None and has(model, "sample"):
        with evaluating(model):
            drawn = model.sample(dimension("n", n), generator)
        yield from drawn.split(500)
    else:
        prior = prior or prior_of(model)
        if prior is None:
            require(model, "sample", "sampling")
        require(model, "decode", "sampling from a prior")
        assert prior is not None, "a model without prior and `sample` has been refused"
        for z in prior.sample(dimension("n", n), generator).split(500):
            with evaluating(model):
                yield model.decode(z)
