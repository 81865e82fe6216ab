"""Draws of any model that can be sampled, in batches and for any number of them."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from monge._core.checks import cpu_generator, dimension
from monge.draws import standard_normal
from monge.labels import ClassPrior, Labelled, checked_labels
from monge.models.modes import evaluating
from monge.models.protocols import (
    BATCH,
    batches,
    classes_of,
    combined,
    complete,
    decode,
    device_of,
    has,
    lacks,
    prior_of,
    require,
)
from monge.networks.codes import GaussianDecoder
from monge.priors import Prior

CODES = 100_000
"""The most codes of a prior that are held at a time; they are decoded in smaller batches."""


def samples(
    model: Any,
    n: int,
    generator: torch.Generator | None = None,
    prior: Prior | None = None,
    given: Tensor | None = None,
    labels: Any = None,
) -> Iterator[Tensor]:
    r"""n draws of a model in batches of at most 500, without gradient and on the CPU.

    A model with a method `sampled` yields its draws in batches, and one with a `sample` of its own
    draws all of them at once. Otherwise a batch of codes of the prior is decoded at a time. But
    for `sample`, n may exceed what memory holds.

    Args:
        model: any model with `sample`, or with `decode` and a prior.
        n: how many.
        generator: a CPU generator; torch's global one by default.
        prior: draws the codes in place of the model's own prior; needs `decode`.
        given: the n samples (n, \*) that a `Completer` completes.
        labels: of a class-conditional model: the class of all draws, one for each, or weights of
            the classes (n, K); by default draws of its `class_prior`, or of all classes alike.

    Raises:
        ValueError: for labels that do not fit, or that the model does not take.
    """
    cpu_generator(generator)
    if given is not None:
        yield from batches(complete(model, given, 1, generator, prior=prior)[:, 0])
    elif prior is None and (has(model, "sampled") or _draws_itself(model)):
        labels = drawn_labels(model, dimension("n", n), generator, labels)
        options = {} if labels is None else {"labels": labels}
        if has(model, "sampled"):
            for batch in model.sampled(n, generator, **options):
                yield batch.cpu()
        else:
            with evaluating(model):
                drawn = model.sample(n, generator, **options)
            yield from batches(drawn.cpu())
    else:
        prior = prior_of(model) if prior is None else prior
        if prior is None:
            raise lacks(model, "sample", "sampling")
        require(model, "decode", "sampling from a prior")
        for batch in decoded(model, prior, n, generator, labels):
            yield batch.cpu()


def _draws_itself(model: Any) -> bool:
    """Whether a model has a `sample` that does not decode draws of its prior."""
    return has(model, "sample") and not combined(model.sample)


def drawn_labels(
    model: Any, n: int, generator: torch.Generator | None, labels: Any
) -> Tensor | None:
    """The labels of n draws of a class-conditional model: those given, or draws of P_Y; None for
    any other model.

    Labels follow a generator of their own, which the next number of `generator` seeds and which
    leaves that as it is: codes are the same whatever the labels are.

    Raises:
        ValueError: for labels that do not fit, or that the model does not take.
    """
    classes = classes_of(model)
    cpu_generator(generator)
    if classes is None:
        if labels is not None:
            raise ValueError(
                f"`labels` are given, but this {type(model).__name__} is not class-conditional: "
                'train one with condition="labels" (--condition labels)'
            )
        return None
    if labels is not None:
        return checked_labels(labels, n, classes)
    state = (torch.default_generator if generator is None else generator).get_state()
    seed = int(
        torch.randint(2**62, (), generator=torch.Generator().set_state(state), device="cpu")
    )
    class_prior = getattr(model, "class_prior", None) or ClassPrior([1.0] * classes)
    return class_prior.draw(n, torch.Generator().manual_seed(seed))


def decoded(
    model: Any,
    prior: Prior,
    n: int,
    generator: torch.Generator | None = None,
    labels: Any = None,
) -> Iterator[Tensor]:
    """n draws of a prior, decoded in batches of at most 500; a random decoder adds its noise.

    Memory does not depend on n, but for the labels of a class-conditional model: a prior draws row
    by row, so that its draws may come in parts.
    """
    device = device_of(model)
    labels = drawn_labels(model, dimension("n", n), generator, labels)
    decoder = getattr(model, "decoder", None)
    # noise follows a generator of its own, so that the first draws are the same for every n
    noisy = isinstance(decoder, GaussianDecoder)
    seed = int(torch.randint(2**62, (), generator=generator, device="cpu")) if noisy else 0
    noise = torch.Generator().manual_seed(seed)
    for first in range(0, n, CODES):
        codes = prior.sample(min(CODES, n - first), generator).to(device)
        for at, z in zip(range(first, n, BATCH), batches(codes)):
            of = None if labels is None else labels[at : at + BATCH]
            with evaluating(model):
                x = decode(model, z if of is None else Labelled(z, of))
                if isinstance(decoder, GaussianDecoder):
                    x = x + decoder.sigma * standard_normal(tuple(x.shape), noise).to(x)
            yield x
