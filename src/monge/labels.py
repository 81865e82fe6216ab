r"""Classes of samples: rows that carry a label, and the distribution P_Y of labels.

A label is a number 0, …, K - 1, with int64 (n,) for n samples. Networks take labels as one-hot
rows (n, K), so that weights of several classes, float (n, K), are labels as well: between two
classes lie their mixtures, and a row of zeros names no class.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from monge._core.checks import cpu_generator, positive, rows
from monge._core.devices import to_device
from monge._core.promotion import as_tensor
from monge._core.transforms import transforms_are_active


@dataclass(frozen=True, eq=False)
class Labelled:
    r"""Samples, or codes, with a label each.

    Args:
        x: (n, \*).
        labels: int64 (n,), or weights of the classes, float (n, K).
    """

    x: Tensor
    labels: Tensor

    def __post_init__(self):
        if len(self.x) != len(self.labels):
            raise ValueError(
                f"`labels` has {len(self.labels)} rows for {len(self.x)} samples: give each one"
            )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> "Labelled":
        return Labelled(self.x[index], self.labels[index])

    @property
    def shape(self) -> torch.Size:
        """The shape of the samples."""
        return self.x.shape

    @property
    def device(self) -> torch.device:
        """Where the samples are."""
        return self.x.device

    @property
    def nbytes(self) -> int:
        """How many bytes they take."""
        return self.x.nbytes + self.labels.nbytes

    def to(self, device: torch.device) -> "Labelled":
        """Moves the rows to a device."""
        return Labelled(to_device(self.x, device), to_device(self.labels, device))

    def split(self, size: int) -> "list[Labelled]":
        """Successive parts of `size` rows, the last one smaller where they do not divide."""
        return [Labelled(*part) for part in zip(self.x.split(size), self.labels.split(size))]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Labelled":
        """Applies a function to the samples and keeps their labels."""
        return Labelled(function(self.x), self.labels)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Tells CUDA's allocator that a stream uses the rows; see `Tensor.record_stream`."""
        self.x.record_stream(stream)
        self.labels.record_stream(stream)


AnyRows = TypeVar("AnyRows", Tensor, Labelled, Tensor | Labelled)
Rows = Tensor | Labelled
"""Samples or codes as a model takes them: with labels where it is class-conditional."""


def as_floats(x: AnyRows) -> AnyRows:
    """Samples as networks take them: uint8 images to float32 in [0, 1], the rest as it is."""
    if isinstance(x, Labelled):
        return x.map(as_floats)
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def placed(x: Rows, device: torch.device) -> Rows:
    """Rows on a device; see `monge._core.devices.to_device`."""
    return x.to(device) if isinstance(x, Labelled) else to_device(x, device)


def unlabelled(x: Rows) -> Tensor:
    """Rows without their labels."""
    return x.x if isinstance(x, Labelled) else x


def labels_of(x: Rows) -> tuple[Tensor, ...]:
    """What a model takes after rows: their labels, or nothing."""
    return (x.labels,) if isinstance(x, Labelled) else ()


def like(x: Tensor, rows: Rows) -> Rows:
    """x with the labels that other rows have, if they have any."""
    return Labelled(x, rows.labels) if isinstance(rows, Labelled) else x


def one_hot(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """Labels of the n rows of `like` as rows (n, K) of its dtype and device; weights (n, K) as
    they are.

    Raises:
        ValueError: as `checked_labels`, for labels on the CPU. To read those of a GPU would wait
            for it, and those of a graph that is compiled or transformed have no numbers yet.
    """
    traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
    elsewhere = isinstance(labels, Tensor) and labels.device.type != "cpu"
    if not (elsewhere or traced or transforms_are_active()):
        labels = checked_labels(labels, len(like), classes)
    if labels.ndim == 2:
        return labels.to(like)
    every = torch.arange(classes, device=labels.device)
    return (labels[:, None] == every).to(like)


class ClassPrior(nn.Module):
    r"""P_Y, the distribution of labels, and joint samples (x, s · one-hot y).

    A divergence between joint samples (x̃_i, y_i) and (x_i, y_i) is zero where x̃ and x have one
    distribution *given each label*. Two samples of different classes are s √2 apart in the last K
    columns. With 2 s² = E‖x - x'‖², the spread of the samples, labels weigh as much as samples do.

    Args:
        shares: P(Y = k), or counts, (K,), at least 0.
        spread: E‖x - x'‖² of two of the samples that are joined with labels.

    Raises:
        ValueError: for shares that are no distribution, or a spread that is not positive.
    """

    shares: Tensor
    classes: int
    """K."""

    def __init__(self, shares: Sequence[float] | Tensor, spread: float = 2.0):
        super().__init__()
        counts = as_tensor("shares", shares).detach().double()
        valid = counts.ndim == 1 and bool(torch.isfinite(counts).all() and (counts >= 0).all())
        if not valid or not counts.sum() > 0:
            raise ValueError(
                f"`shares` must be numbers (K,) of at least 0, of which one is positive, got "
                f"{shares!r}"
            )
        counts = counts / counts.max()  # whose sum is finite
        self.register_buffer("shares", (counts / counts.sum()).float())
        self.scale = (positive("spread", spread) / 2) ** 0.5
        # a number of its own: an exported graph leaves out buffers that it does not use
        self.classes = len(counts)

    def joint(self, x: Tensor, labels: Tensor) -> Tensor:
        r"""(x, s · one-hot y) as (n, d + K), for samples x (n, \*) of d elements."""
        return torch.cat([x.flatten(1), self.scale * one_hot(labels, self.classes, x)], 1)

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent labels, int64 (n,), from a CPU generator; the first of them are the same
        for every n."""
        uniform = torch.rand(
            rows(n), dtype=torch.float64, generator=cpu_generator(generator), device="cpu"
        )
        drawn = torch.searchsorted(self.shares.cpu().double().cumsum(0), uniform, right=True)
        return drawn.clamp(max=int(self.shares.nonzero().max()))


def checked_labels(labels: Any, n: int, classes: int) -> Tensor:
    """Labels of n samples: from one number for all, n numbers, or weights (n, K).

    Raises:
        ValueError: for another count, or a number that is no class.
    """
    try:
        given = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"`labels` must be integers from 0 to {classes - 1}, or weights (n, {classes}), got "
            f"{labels!r}: `run.class_numbers` gives the numbers of names"
        ) from None
    if given.ndim == 2 and given.dtype != torch.bool:
        if given.shape != (n, classes) or not torch.isfinite(given).all():
            raise ValueError(
                f"`labels` must be finite weights of shape {(n, classes)}, got shape "
                f"{tuple(given.shape)}"
            )
        return given
    if given.is_floating_point() or given.dtype == torch.bool or given.ndim > 1:
        raise ValueError(
            f"`labels` must be integers from 0 to {classes - 1}, or weights (n, {classes}), got "
            f"{given.dtype} of shape {tuple(given.shape)}"
        )
    given = given.long().expand(n) if given.ndim == 0 else given.long()
    if len(given) != n:
        raise ValueError(f"`labels` has {len(given)} numbers for {n} samples: give one for each")
    if n and not 0 <= int(given.min()) <= int(given.max()) < classes:
        wrong = given[(given < 0) | (given >= classes)][0]
        raise ValueError(f"`labels` has {int(wrong)}, and the classes are 0 to {classes - 1}")
    return given


def numbers_of(names: Sequence[str], wanted: Sequence[str], where: str) -> list[int]:
    """The numbers of classes that are given by name, or by number where no name is a number.

    Args:
        names: of all classes.
        wanted: the names or numbers.
        where: whose classes they are, for the message.

    Raises:
        ValueError: for one that is no class.
    """
    numbers, numbered = [], not any(re.fullmatch(r"[-+.\d]+", name) for name in names)
    for one in wanted:
        by_number = numbered and one.isdecimal() and int(one) < len(names)
        if one not in names and not by_number:
            few = ", ".join(names[:20]) + ", …" * (len(names) > 20)
            raise ValueError(f"`class` {one!r} is none of {where}, whose classes are {few}")
        numbers.append(names.index(one) if one in names else int(one))
    return numbers
