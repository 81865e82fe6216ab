r"""What monge asks of a model, of its own and of a stranger's alike.

Training asks for `forward(x, draws) -> Pass`. A model that shows or measures something has a
method for it: `sample(n, generator)` for samples, `encode(x)` for codes (n, dim) or a
distribution of codes with a `mean` and `rsample()`, `decode(z)` for what codes stand for. A
`prior` (a `monge.priors.Prior`) is what codes are compared with, where there is one. Nothing else
is assumed; what lacks a method is refused by the verb that needs it, by name.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from monge.draws import Draws
from monge.models.base import Pass, evaluating
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
    """A model that completes samples of which a part is known."""

    mask: Callable[[int, torch.Generator | None], Tensor]

    def known(self, x: Tensor, known: Tensor | None = None) -> Tensor: ...

    def complete(
        self,
        x: Tensor,
        count: int,
        generator: torch.Generator | None = None,
        *,
        known: Tensor | None = None,
        prior: Prior | None = None,
    ) -> Tensor: ...


def require(model: nn.Module, method: str, purpose: str) -> None:
    """Refuses a model without a method.

    Raises:
        ValueError: naming the model, the method, and what it is needed for.
    """
    if not callable(getattr(model, method, None)):
        raise ValueError(
            f"`model` {type(model).__name__} has no method `{method}`, which {purpose} needs"
        )


def prior_of(model: nn.Module) -> Prior | None:
    """The model's prior, if it has one."""
    prior = getattr(model, "prior", None)
    return prior if isinstance(prior, Prior) else None


def mean_codes(model: Encoder, x: Tensor) -> Tensor:
    r"""The mean of Q(Z|x) for samples x (n, \*), (n, dim)."""
    q = model.encode(x)
    return q if isinstance(q, Tensor) else q.mean


def drawn_codes(model: Encoder, x: Tensor) -> Tensor:
    r"""A draw of Q(Z|x) for each of x (n, \*), (n, dim), from torch's global generator."""
    q = model.encode(x)
    return q if isinstance(q, Tensor) else q.rsample()


def reconstruct(model: nn.Module, x: Tensor) -> Tensor:
    r"""What becomes of samples x (n, \*): by the model's own `reconstruct`, or its mean codes
    decoded."""
    if hasattr(model, "reconstruct"):
        return model.reconstruct(x)
    require(model, "encode", "reconstruction")
    require(model, "decode", "reconstruction")
    return model.decode(mean_codes(model, x))


def interpolate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    count: int,
    path: Callable[[Tensor, Tensor, Tensor], Tensor] = torch.lerp,
) -> Tensor:
    r"""`count` frames from each of x to each of y (n, \*), as `AutoEncoder.interpolate`."""
    if hasattr(model, "interpolate"):
        return model.interpolate(x, y, count, path)
    require(model, "encode", "interpolation")
    require(model, "decode", "interpolation")
    return model.decode(between(mean_codes(model, x), mean_codes(model, y), count, path))


def traverse(model: nn.Module, x: Tensor, levels: Tensor) -> Tensor:
    r"""The codes of x (n, \*) decoded with each coordinate in turn set to each level (k,)."""
    require(model, "encode", "traversal")
    codes = mean_codes(model, x)
    if isinstance(model, Completer):
        return model.traverse(codes, levels, given=x)
    require(model, "decode", "traversal")
    return model.decode(moved(codes, levels))


def samples(
    model: nn.Module,
    n: int,
    generator: torch.Generator | None = None,
    prior: Prior | None = None,
    given: Tensor | None = None,
) -> Iterator[Tensor]:
    r"""n draws of a model in batches, in evaluation mode and without gradient.

    Arguments:
        prior: draws the codes in place of the model's own prior; needs `decode`.
        given: the samples (n, \*) that a `Completer` completes.
    """
    if given is not None:
        yield from model.samples(n, generator, prior, given=given)
    elif hasattr(model, "samples"):
        yield from model.samples(n, generator, prior)
    elif prior is not None:
        require(model, "decode", "sampling from a fitted prior")
        for z in prior.sample(n, generator).split(500):
            with evaluating(model):
                yield model.decode(z)
    else:
        require(model, "sample", "sampling")
        with evaluating(model):
            drawn = model.sample(n, generator)
        yield drawn
