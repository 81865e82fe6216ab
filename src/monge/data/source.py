"""A data set in memory: its training and test parts, labels, and identity."""

import dataclasses
import functools
import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from monge._core.visible import counted
from monge.config import DataConfig, Schema
from monge.costs import Scaled
from monge.data.consistency import demand_part, demand_plain
from monge.data.identity import (
    Identity,
    combined,
    digests,
    digests_of_texts,
    form_of,
    occurrences,
)
from monge.data.kind import Kind, Moments
from monge.data.kinds import kind_named
from monge.data.mapped import demand_whole
from monge.draws import permutation
from monge.labels import as_floats

HELD_OUT = 0.1
LEAST = 2
"""The fewest samples of a part: divergences compare samples."""
PARTS = {
    "train": {"train", "training"},
    "test": {"test", "testing", "holdout"},
    "val": {"val", "valid", "validation", "dev", "eval"},
}
"""The names of official parts, in upper or lower case."""


@dataclass(frozen=True)
class Source:
    """Samples in memory: a training part and a test part that training never sees.

    Images are uint8 (n, c, h, w), or float32 in [0, 1]; vectors are float32 (n, d); point clouds
    are float32 (n, N, 3), centred and in the unit sphere. Vectors are float64 where float32 does
    not resolve a column. The kind may be given by its name.
    """

    name: str
    kind: Kind
    train: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    """The names of the labels 0, 1, …"""
    schema: Schema | None = None
    """The columns of a table in a text file, by which samples become its rows."""
    summary: str = ""
    """One line on what was read, and what was left out and why."""
    contents: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)
    """Digests of what was read of the training and the test samples, uint64 (n,) and (m,); by
    default of the samples themselves."""

    def __post_init__(self):
        object.__setattr__(self, "kind", kind_named(self.kind))

    @functools.cached_property
    def identity(self) -> Identity:
        """The identity of the data: content, part and label of each sample, in no order."""
        form = form_of(self.kind.reference, self.shape)
        return Identity(np.sort(np.concatenate(self._digests)), form)

    @functools.cached_property
    def order(self) -> str:
        """A digest of the order of the training samples, by which batches are made."""
        return hashlib.sha256(self._digests[0].astype("<u8").tobytes()).hexdigest()[:16]

    @functools.cached_property
    def _digests(self) -> list[np.ndarray]:
        """A digest of each sample with its part and its label, a part at a time."""
        labels, made = (self.train_labels, self.test_labels), []
        known = [named for named in labels if named is not None and len(named)]
        count = 1 + max((int(named.max()) for named in known), default=-1)
        # labels without names are named by their numbers
        names = digests_of_texts([*self.classes, *map(str, range(len(self.classes), count))])
        for part, content in enumerate(self._contents):
            named = labels[part]
            label = np.zeros_like(content) if named is None else names[named.numpy()]
            made.append(combined(content, label, np.full_like(content, part)))
        return made

    @functools.cached_property
    def _contents(self) -> tuple[np.ndarray, np.ndarray]:
        return self.contents or (digests(self.train.numpy()), digests(self.test.numpy()))

    @property
    def train_contents(self) -> np.ndarray:
        """The digests of what was read of the training samples, uint64 (n,)."""
        return self._contents[0]

    @property
    def held_out(self) -> bool:
        """Whether the test samples are others than the training samples."""
        return not np.array_equal(*self._contents)

    def single(self) -> "Source":
        """The source with its samples cast to float32 if they are in float64: as older runs saw
        them."""
        if self.train.dtype != torch.float64:
            return self
        return dataclasses.replace(self, train=self.train.float(), test=self.test.float())

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of a table's columns, where its file gives them."""
        return self.schema.names if self.schema is not None and self.schema.header else ()

    def heeding(self, config: DataConfig) -> "Source":
        """The source itself.

        Raises:
            ValueError: for settings of tables, if the data are not a table.
        """
        for name in ("categorical", "leave_out", "missing"):
            value = getattr(config, name)
            if self.schema is None and value != getattr(DataConfig, name):
                raise ValueError(
                    f"`{name}` is for tables in text files, got {value!r} for {self.name!r}"
                )
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.train.shape[1:])

    def of_classes(self, wanted: Sequence[str]) -> "Source":
        """Only the samples of some classes, labelled in the order of `wanted`.

        Raises:
            ValueError: for data without labels, or an unknown class.
        """
        for name in wanted:
            if name not in self.classes:
                raise ValueError(
                    f"`classes` {name!r} is none of {self.name!r}, whose classes are "
                    f"{', '.join(self.classes) or 'not labelled'}"
                )
        order = [self.classes.index(name) for name in wanted]
        parts = []
        for x, labels, content in zip(
            (self.train, self.test), (self.train_labels, self.test_labels), self._contents
        ):
            assert labels is not None
            new = torch.full((len(self.classes),), -1)
            new[order] = torch.arange(len(order))
            relabelled = new[labels]
            chosen = relabelled >= 0
            parts.append((x[chosen], relabelled[chosen], content[chosen.numpy()]))
        (train, train_labels, ours), (test, test_labels, theirs) = parts
        name = f"{self.name} ({', '.join(wanted)})"
        return dataclasses.replace(
            self,
            name=name,
            train=train,
            test=test,
            train_labels=train_labels,
            test_labels=test_labels,
            classes=tuple(wanted),
            contents=(ours, theirs),
        ).checked()

    def checked(self) -> "Source":
        """The source itself.

        Raises:
            ValueError: for a part with fewer than two samples, NaN or infinity, or samples of
                another shape or range; for labels or contents that are not one for each sample.
        """
        demand_whole()
        demand_plain("train", self.train)
        demand_plain("test", self.test)
        _enough(self.name, len(self.train), len(self.test))
        ours, theirs = self.contents or (None, None)
        demand_part("train", self.train, self.train_labels, ours, self.kind, self.train)
        demand_part("test", self.test, self.test_labels, theirs, self.kind, self.train)
        return self

    def spread(self) -> float:
        """E‖x - x'‖² of two training samples, a table's in standard units of its columns.

        Twice the summed variances, of a thousand samples evenly taken.
        """
        some = self.train[:: -(-len(self.train) // 1000)].flatten(1)
        moments = self.moments()
        if moments is not None:
            some = some / moments[1]
        # in blocks of columns: a thousand large images as floats are gigabytes
        blocks = map(as_floats, some.split(2**14, 1))
        return 2 * float(torch.cat([block.var(0, correction=0) for block in blocks]).sum())

    def error(self) -> nn.Module:
        """The error of reconstructions, c(x, y) → (n,): that of the kind of data, and for a table
        in standard units of its columns, as its cost is."""
        error, moments = self.kind.error(), self.moments()
        return error if moments is None else Scaled(error, moments[1])

    def moments(self) -> Moments | None:
        """Mean and standard deviation of a table's columns; None for images and clouds."""
        return self.kind.moments(self.train)


Data = str | Path | np.ndarray | Tensor | Source | None
"""Data: a name or path, an array (n, …), or a `Source`."""


def division(
    name: str,
    contents: np.ndarray,
    parts: ArrayLike | None = None,
    *,
    labels: np.ndarray | None = None,
    repeats: bool = False,
    by_position: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Which samples are the training part and which the test part, as masks (n,).

    Without parts a tenth is held out, the samples whose digests are in the lowest tenth, so that
    to add, rename or remove one moves no other. Where that leaves fewer than two in a part, the
    lowest digests fill it, with all copies of a sample as long as both parts then have two. With
    two or three samples none is held out: both parts are all of them.

    Args:
        name: of the data.
        contents: the digests of what was read of each sample, uint64 (n,).
        parts: the part each sample belongs to, by any of the names in `PARTS`. The test part is
            held out, or the validation part where there is no test part; all others are left out.
        labels: the digests of their labels, by which equal samples that `repeats` holds out one
            by one are told apart.
        repeats: equal samples are held out one by one, and not all or none of them.
        by_position: holds out the rows that monge 0.1 did, a tenth or 10,000.
    """
    n = len(contents)
    if parts is not None:
        names, which = np.unique(decoded(parts), return_inverse=True)
        known = np.array([part_named(str(part)) or "" for part in names])
        parts = known[which]
        train, test = parts == "train", parts == ("test" if "test" in known else "val")
        if not (known != "").any():
            shown = ", ".join(repr(str(part)) for part in names[:3])
            raise ValueError(
                f"`data` {name!r} has parts called {shown}: call them train, test and val"
            )
        others = [repr(str(part)) for part, one in zip(names, known) if not one]
        _enough(name, train.sum(), test.sum(), others[:3])
        return train, test
    if n < LEAST:
        raise ValueError(
            f"`data` {name!r} holds {counted(n, 'sample')}: at least {LEAST} are needed"
        )
    if n < 2 * LEAST:
        return np.full(n, True), np.full(n, True)
    if by_position:
        count = min(max(LEAST, int(HELD_OUT * n)), 10_000)
        test = np.isin(np.arange(n), permutation(0, "held out", n)[:count].numpy())
        return ~test, test
    drawn = contents
    if repeats:
        named = contents if labels is None else combined(contents, labels)
        drawn = combined(named, occurrences(named))
    test = drawn < HELD_OUT * 2.0**64
    if not LEAST <= test.sum() <= n - LEAST:
        test = _lowest(drawn, LEAST if test.sum() < LEAST else n - LEAST)
    return ~test, test


def _lowest(drawn: np.ndarray, count: int) -> np.ndarray:
    """The samples with the `count` lowest of (n,) digests, as a mask; all with the same digest, or
    none, if each part still has `LEAST`."""
    ordered = np.sort(drawn)
    whole = drawn <= ordered[count - 1]
    below = drawn < ordered[count - 1]
    for test in (whole, below):
        if LEAST <= test.sum() <= len(drawn) - LEAST:
            return test
    return np.isin(np.arange(len(drawn)), np.argsort(drawn, kind="stable")[:count])


def part_named(name: str) -> str | None:
    """The part, train, test or val, that a name stands for, if any."""
    return next((part for part, names in PARTS.items() if name.strip().lower() in names), None)


def unused_parts(parts: ArrayLike | None, n: int) -> list[str]:
    """Why each of n samples is in neither part, as `of the validation part`; empty where it is in
    one."""
    if parts is None:
        return [""] * n
    names, which = np.unique(decoded(parts), return_inverse=True)
    known = {part_named(str(name)) for name in names}
    reasons = {"train": "", "test": "", "val": "of the validation part" * ("test" in known)}
    said = [
        reasons.get(part_named(str(name)) or "", f"of the part {str(name)!r}") for name in names
    ]
    return [said[i] for i in which]


def _enough(name: str, train: int, test: int, others: Sequence[str] = ()) -> None:
    if min(train, test) < LEAST:
        parts = f", beside parts called {', '.join(others)}" if others else ""
        way = ": call parts train, test and val" if others else ""
        raise ValueError(
            f"`data` {name!r} has {train} training and {test} test samples{parts}, of which at "
            f"least {LEAST} each are needed{way}"
        )


def numbered(name: str, labels: ArrayLike) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of any type as numbers 0, 1, …, and the names of the classes, with accents in one
    form.

    Raises:
        ValueError: for labels that are not finite, not whole, or empty.
    """
    labels = _whole(name, decoded(labels))
    names, numbers = np.unique(labels, return_inverse=True)
    if labels.dtype.kind == "U":
        blank = np.flatnonzero(np.char.strip(labels) == "")
        if len(blank):
            raise ValueError(
                f"`data` {name!r} has an empty class name, first that of sample {blank[0]} "
                "(from 0): name the class"
            )
        called = [unicodedata.normalize("NFC", name) for name in names.tolist()]
        names, merged = np.unique(called, return_inverse=True)
        numbers = merged[numbers]
    return numbers, tuple(map(str, names))


def _whole(name: str, labels: np.ndarray) -> np.ndarray:
    """Labels, those that are floats as integers."""
    if labels.dtype.kind != "f":
        return labels
    if not np.isfinite(labels).all():
        raise ValueError(f"`data` {name!r} has labels that are NaN or infinite")
    fractions = np.flatnonzero(labels != np.rint(labels))
    if len(fractions):
        raise ValueError(
            f"`data` {name!r} has labels that are not whole numbers, first "
            f"{labels[fractions[0]]:g} of sample {fractions[0]} (from 0): give classes as whole "
            "numbers or names, or leave `labels` out"
        )
    return labels.astype(np.int64) if np.abs(labels).max(initial=0) < 2**53 else labels


def decoded(texts: ArrayLike) -> np.ndarray:
    """Labels or names as an array, bytes decoded from UTF-8."""
    texts = np.asarray(texts)
    return np.char.decode(texts, "utf-8") if texts.dtype.kind == "S" else texts


def split(
    name: str,
    kind: Kind,
    samples: np.ndarray,
    labels: ArrayLike | None = None,
    parts: ArrayLike | None = None,
    schema: Schema | None = None,
    summary: str = "",
    contents: np.ndarray | None = None,
    by_position: bool = False,
) -> Source:
    """A source from samples (n, …), a held-out part set apart by `division`.

    Args:
        name: of the data.
        kind: of the samples.
        samples: (n, …), in the layout of the kind.
        labels: a class for each sample, of any type.
        parts: the part each sample belongs to.
        schema: what the columns of a table are.
        summary: one line on what was read and what was left out.
        contents: the digests of what was read of each sample, uint64 (n,); by default of the
            samples themselves.
        by_position: see `division`.
    """
    contents = digests(samples) if contents is None else contents
    numbers, classes = (None, ()) if labels is None else numbered(name, labels)
    train, test = division(
        name,
        contents,
        parts,
        labels=None if numbers is None else digests_of_texts(classes)[numbers],
        repeats=kind.repeats,
        by_position=by_position,
    )
    train_labels = test_labels = None
    if numbers is not None:
        train_labels, test_labels = (torch.from_numpy(numbers[part]) for part in (train, test))
    x = torch.from_numpy(samples[train])
    y = torch.from_numpy(samples[test]) if (train != test).any() else x
    if y is x:
        summary += f"{'; ' * bool(summary)}none of {len(x)} samples is held out"
    if len(contents) > 1 and (contents == contents[0]).all():
        summary += f"{'; ' * bool(summary)}all {len(contents):,} samples are the same"
    return Source(
        name,
        kind,
        x,
        y,
        train_labels,
        test_labels,
        classes,
        schema,
        summary,
        (contents[train], contents[test]),
    )
