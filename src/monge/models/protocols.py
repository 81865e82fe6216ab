r"""The interface of a model, for monge's own models and yours alike.

Training calls `forward(x, draws) -> Pass`. Every other use calls a method:

- `sample(n, generator)` returns n samples;
- `encode(x)` returns codes (n, dim), or a distribution of codes with `mean` and `rsample()`;
- `decode(z)` returns the samples that codes stand for.

A `prior` (a `monge.priors.Prior`) is optional; it is what codes are compared with. A model with an
attribute `classes`, the number of classes, is class-conditional: `forward`, `encode` and `decode`
take labels after their other arguments, and `sample` by the name `labels`. The functions below
then take `Labelled` rows in place of tensors.

Nothing else is assumed: the functions below work with whatever a model has, and where a method is
missing they raise a ValueError that names it. They take samples and codes from any device to the
model's, and return what it makes of them where those are.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from monge._core.devices import to_device
from monge.labels import (
    ClassPrior,
    Labelled,
    Rows,
    labels_of,
    like,
    one_hot,
    placed,
    unlabelled,
)
from monge.models.modes import evaluating
from monge.models.paths import Path, between, moved
from monge.networks.clusters import Clusters
from monge.priors import Prior

F = TypeVar("F", bound=Callable[..., Any])
MARK = "_combines"
TRAVERSED = 5000
"""How many codes of a traversal are decoded at a time."""
BATCH = 500
"""How many samples are decoded at a time."""


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


def combines(*parts: str) -> Callable[[F], F]:
    """Marks a method that is inherited by models of which some lack the parts it combines.

    A model without one of the parts does not have the method, for the functions below.
    """

    def mark(method: F) -> F:
        setattr(method, MARK, parts)
        return method

    return mark


def combined(value: object) -> tuple[str, ...]:
    """The parts that an inherited method combines; none for any other value."""
    return getattr(value, MARK, ())


def _present(model: object, name: str) -> bool:
    value = getattr(model, name, None)
    return value is not None and all(_present(model, part) for part in combined(value))


def has(model: object, *methods: str) -> bool:
    """Whether a model has methods of these names, and what they combine."""
    return all(callable(getattr(model, name, None)) and _present(model, name) for name in methods)


def classes_of(model: object) -> int | None:
    """The number of classes of a class-conditional model; None for any other."""
    classes = getattr(model, "classes", None)
    return classes if isinstance(classes, int) else None


def clusters_of(model: object) -> Clusters | None:
    """The clusters that label samples, for a model that is conditioned on them."""
    found = getattr(model, "clusters", None)
    return found if isinstance(found, Clusters) else None


def find_clusters(model: nn.Module, x: Tensor, seed: int) -> None:
    r"""Fits the clusters of a model to stored samples x (n, \*), and its distribution of labels to
    their sizes.

    Raises:
        ValueError: for fewer samples that differ than clusters.
    """
    clusters = clusters_of(model)
    assert clusters is not None, "a model that is conditioned on clusters has them"
    sizes = clusters.fit(x, seed)
    for module in model.modules():
        if isinstance(module, ClassPrior):
            module.shares.copy_(sizes / sizes.sum())


def rows_for(model: object, x: Tensor, labels: Tensor | None = None) -> Rows:
    r"""Stored samples x (n, \*) as a model takes them: with their labels where it is
    class-conditional, or those of the clusters in which they are.

    Raises:
        ValueError: for samples without labels that such a model needs.
    """
    if classes_of(model) is None:
        return x
    if (clusters := clusters_of(model)) is not None:
        return Labelled(x, clusters.of_stored(x))
    if labels is None:
        raise ValueError("`data` has no labels, which a class-conditional model needs")
    return Labelled(x, labels)


def trainable(model: object) -> nn.Module:
    """A model that training can call as `model(x, draws)`, or `model(x, draws, labels)`.

    Raises:
        ValueError: for anything but a torch.nn.Module, and for one whose `forward` takes other
            arguments than a batch and its draws.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    name = type(model).__name__
    if getattr(model.forward, "__func__", None) is nn.Module.forward:
        raise ValueError(f"`model` {name} has no method `forward`, which training needs")
    signature = inspect.signature(model.forward)
    arguments = ("x", "draws", "labels")[: 2 if classes_of(model) is None else 3]
    try:
        signature.bind(*arguments)
    except TypeError:
        raise ValueError(
            f"`model` {name} has forward{signature}: training calls "
            f"forward({', '.join(arguments)})"
        ) from None
    return model


def require(model: object, method: str, purpose: str) -> None:
    """Refuses a model without a method.

    Raises:
        ValueError: naming the model, the method, and what it is needed for.
    """
    if not has(model, method):
        raise lacks(model, method, purpose)


def lacks(model: object, method: str, purpose: str) -> ValueError:
    """The error that `require` raises."""
    return ValueError(
        f"`model` {type(model).__name__} has no method `{method}`, which {purpose} needs"
    )


def prior_of(model: object) -> Prior | None:
    """The model's prior, if it has one."""
    prior = getattr(model, "prior", None)
    return prior if isinstance(prior, Prior) else None


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters; the CPU for a model without any."""
    return next(model.parameters(), torch.empty(0)).device


def posterior(model: Any, x: Rows) -> Any:
    r"""`model.encode` of samples x (n, \*): codes (n, dim), or a distribution of codes,
    on the model's device.

    Raises:
        ValueError: for a model without `encode`, or one that returns anything else.
    """
    require(model, "encode", "a code")
    there = placed(x, device_of(model))
    q = model.encode(unlabelled(there), *labels_of(there))
    codes = q if isinstance(q, Tensor) else getattr(q, "mean", None)
    if not isinstance(codes, Tensor) or codes.ndim != 2:
        shape = f" of shape {tuple(codes.shape)}" if isinstance(codes, Tensor) else ""
        raise ValueError(
            f"`model` {type(model).__name__} encodes samples as a {type(q).__name__}{shape}: "
            "return codes (n, dim), or a distribution of codes with `mean` and `rsample()`"
        )
    return q


def mean_codes(model: Any, x: Rows) -> Tensor:
    r"""The mean of Q(Z|x) for samples x (n, \*), (n, dim)."""
    q = posterior(model, x)
    return (q if isinstance(q, Tensor) else q.mean).to(x.device)


def drawn_codes(model: Any, x: Rows) -> Tensor:
    r"""A draw of Q(Z|x) for each of x (n, \*), (n, dim), from torch's global generator."""
    q = posterior(model, x)
    return (q if isinstance(q, Tensor) else q.rsample()).to(x.device)


def latent_of(model: Any, x: Rows) -> int | None:
    r"""The dimension of a model's codes, by its prior or by the code of samples x (n, \*); None
    for a model without codes."""
    prior = prior_of(model)
    if prior is not None:
        return prior.dim
    if not has(model, "encode"):
        return None
    with evaluating(model):
        return mean_codes(model, x[:1]).shape[1]


def batches(x: Tensor) -> tuple[Tensor, ...]:
    """Rows in the batches in which they are decoded."""
    return torch.split(x, BATCH)


def decode(model: Any, z: Rows, given: Tensor | None = None) -> Tensor:
    r"""The samples that codes z (n, dim) stand for; a `Completer` completes `given` (n, \*)."""
    require(model, "decode", "decoding")
    device = device_of(model)
    given_too = [unlabelled(z), *labels_of(z), *([] if given is None else [given])]
    return model.decode(*(to_device(one, device) for one in given_too)).to(z.device)


def reconstructs(model: object) -> bool:
    """Whether `reconstruct` can be called with a model."""
    return has(model, "reconstruct") or has(model, "encode", "decode")


def reconstruct(model: Any, x: Rows) -> Tensor:
    r"""The reconstructions of samples x (n, \*): by the model's `reconstruct` if it has one, else
    its mean codes decoded."""
    if not has(model, "reconstruct"):
        return reconstructed(model, x)
    there = placed(x, device_of(model))
    return model.reconstruct(unlabelled(there), *labels_of(there)).to(x.device)


def reconstructed(model: Any, x: Rows) -> Tensor:
    r"""The mean codes of samples x (n, \*), decoded."""
    _require_codes(model, "reconstruction")
    given = unlabelled(x) if isinstance(model, Completer) else None
    return decode(model, like(mean_codes(model, x), x), given)


def interpolate(model: Any, x: Rows, y: Rows, count: int, path: Path = torch.lerp) -> Tensor:
    r"""`count` frames from each of x to each of y (n, \*), line by line: by the model's
    `interpolate` if it has one, else by `interpolated`."""
    if has(model, "interpolate"):
        ends = [placed(one, device_of(model)) for one in (x, y)]
        return model.interpolate(*ends, count, path).to(x.device)
    return interpolated(model, x, y, count, path)


def interpolated(model: Any, x: Rows, y: Rows, count: int, path: Path) -> Tensor:
    r"""Paths between the mean codes of x and y (n, \*), decoded, as (n · count, \*).

    A `Completer` completes the samples x along each path. Between the classes of `Labelled` rows
    the weights of the classes change linearly.
    """
    _require_codes(model, "interpolation")
    codes = between(mean_codes(model, x), mean_codes(model, y), count, path)
    if isinstance(x, Labelled) and isinstance(y, Labelled):
        one, two = (one_hot(end.labels, classes_of(model) or 0, end.x) for end in (x, y))
        codes = Labelled(codes, between(one, two, count, torch.lerp).to(codes))
    given = None
    if isinstance(model, Completer):
        given = unlabelled(x).repeat_interleave(count, 0)
    return decode(model, codes, given)


def traverse(model: Any, x: Rows, levels: Tensor) -> Tensor:
    r"""The codes of x (n, \*) decoded with each coordinate in turn set to each level (k,).

    Returns (n · dim · k, \*): code by code, coordinate by coordinate, level by level.
    """
    return torch.cat(list(traversals(model, x, levels)))


def traversals(model: Any, x: Rows, levels: Tensor) -> Iterator[Tensor]:
    r"""The result of `traverse` in batches of at most 5,000."""
    _require_codes(model, "traversal")
    with evaluating(model):
        codes = moved(mean_codes(model, x), levels)
    completes, given = bool(isinstance(model, Completer)), None
    for first in range(0, len(codes), TRAVERSED):
        z = codes[first : first + TRAVERSED]
        of = x[torch.arange(first, first + len(z), device=x.device) // (len(codes) // len(x))]
        if completes:
            given = unlabelled(of)
        with evaluating(model):
            yield decode(model, like(z, of), given)


def _require_codes(model: object, purpose: str) -> None:
    """Refuses a model that does not both encode and decode."""
    for method in ("encode", "decode"):
        require(model, method, purpose)


def complete(
    model: Completer,
    x: Tensor,
    count: int,
    generator: torch.Generator | None = None,
    *,
    known: Tensor | None = None,
    prior: Prior | None = None,
) -> Tensor:
    r"""`count` completions of each of the samples x (n, \*), as (n, count, \*)."""
    there = to_device(x, _device_of_completer(model))
    return model.complete(there, count, generator, known=known, prior=prior).to(x.device)


def known_part(model: Completer, x: Tensor, known: Tensor | None = None) -> Tensor:
    r"""A mask for each sample of x (n, \*), 1 where it is known; by default those of training."""
    return model.known(to_device(x, _device_of_completer(model)), known).to(x.device)


def _device_of_completer(model: Completer) -> torch.device:
    return device_of(model) if isinstance(model, nn.Module) else torch.device("cpu")


def generates(model: object) -> bool:
    """Whether `monge.models.sampling.samples` can be called with a model."""
    from_prior = prior_of(model) is not None and has(model, "decode")
    return has(model, "sample") or has(model, "complete") or from_prior
