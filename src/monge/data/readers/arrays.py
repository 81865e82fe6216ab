"""Arrays and tables: the embedded digits, .npy, .npz and .csv."""

import dataclasses
import importlib.metadata
import os
import re
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from monge._core.files import DAMAGED
from monge._core.visible import brief
from monge.config import DataConfig, Schema
from monge.data.identity import digests
from monge.data.kinds import CLOUD, IMAGE, kind_named, kind_of
from monge.data.readers import tables
from monge.data.readers.discovery import HEAD, kind_of_file
from monge.data.readers.numpy_files import array_in, array_of
from monge.data.source import Source, decoded, split, unused_parts

AS_IT_IS = DataConfig()
"""The settings of an array for which none are given."""
BESIDE = ("labels", "class_names", "split")
"""Keys of a .npz that are read beside the samples."""


class Content(NamedTuple):
    """The content of a file of samples."""

    samples: np.ndarray
    labels: np.ndarray | None = None
    parts: np.ndarray | None = None
    """The part of each sample: train, test, …"""
    key: str | None = None
    """The key of the samples."""
    schema: Schema | None = None
    """The columns of a table in a text file."""
    contents: np.ndarray | None = None
    """The digests of its rows where samples are not what was read."""
    summary: str = ""
    """One line on what was read, and what was left out."""
    unread: tuple[str, ...] = ()
    """Keys beside those that are read."""
    beside: tuple[str, ...] = ()
    """Columns of a table that are no part of its samples."""


def digits() -> Source:
    """scikit-learn's 1,797 real 8×8 digits with 17 grey levels; the last 297 are held out."""
    # its file alone: to import scikit-learn takes longer than to train the first hundred steps
    package = importlib.metadata.distribution("scikit-learn")
    file = str(package.locate_file("sklearn/datasets/data/digits.csv.gz"))
    table = np.loadtxt(file, delimiter=",", encoding="utf-8")
    images = np.round(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    parts = np.repeat(["train", "test"], [1500, 297])
    return split("digits", IMAGE, images, table[:, 64].astype(int), parts)


def from_array(
    samples: np.ndarray,
    labels: ArrayLike | None = None,
    parts: ArrayLike | None = None,
    name: str = "array",
    config: DataConfig = AS_IT_IS,
    schema: Schema | None = None,
    summary: str = "",
    contents: np.ndarray | None = None,
) -> Source:
    """A source from an array (n, …), of the kind that `config` names or that its shape says.

    Args:
        labels: a class for each sample, of any type.
        parts: the part each sample belongs to.
        schema: what the columns of a table are.
        summary: one line on what was read and what was left out.
        contents: the digests of what was read of each sample; by default of the samples.

    Raises:
        ValueError: for what `real` refuses, and for other shapes or ranges.
    """
    samples = real(samples, name)
    kind = kind_of(samples, name) if config.kind is None else kind_named(config.kind)
    summary = summary or _summary(kind.name, len(samples), parts)
    return split(
        name,
        kind,
        kind.read(samples, name, config),
        labels,
        parts,
        schema,
        summary,
        digests(samples) if contents is None else contents,
        by_position=config.split == "position",
    )


def _summary(noun: str, n: int, parts: ArrayLike | None) -> str:
    """One line on what was read of an array, e.g. `read 20 vectors; left out 10 of the validation
    part`."""
    unused = Counter(unused_parts(parts, n))
    text = f"read {unused.pop('', 0):,} {noun}s"
    left = ", ".join(f"{count:,} {reason}" for reason, count in unused.items())
    return text + (f"; left out {left}" if left else "")


def real(samples: np.ndarray, name: str) -> np.ndarray:
    """An array, if it holds finite real numbers.

    Raises:
        ValueError: for other types, NaN or infinity, or nothing at all.
    """
    samples = np.asarray(samples)
    if samples.size == 0:
        raise ValueError(f"{name!r} holds nothing: its shape is {samples.shape}")
    if samples.dtype.kind not in "iufb":
        raise ValueError(f"{name!r} must hold real numbers, got {samples.dtype}")
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).sum())
        raise ValueError(f"{name!r} must be finite, got {bad} NaN or infinite values")
    return samples


def load(path: Path, config: DataConfig) -> Source:
    """A source from a .npy, .npz or .csv file, or another table in text."""
    found = read(path, config)
    if found.key == "points" and config.kind is None:
        config = dataclasses.replace(config, kind=CLOUD.name)
    source = from_array(
        found.samples,
        found.labels,
        found.parts,
        path.name,
        config,
        found.schema,
        found.summary,
        found.contents,
    )
    if not found.unread:
        return source
    left = left_out(found)
    if found.labels is None:  # one of them may hold the labels
        warnings.warn(f"{str(path)!r}: {left}", stacklevel=2)
    return dataclasses.replace(source, summary=f"{source.summary}; {left}")


def left_out(found: Content) -> str:
    """Which keys of a file were not read, and why."""
    few = [repr(brief(key)) for key in found.unread[:5]] + ["…"] * (len(found.unread) > 5)
    return (
        f"left out the keys {', '.join(few)}: beside {found.key!r} only {', '.join(BESIDE)} are "
        "read"
    )


def format_of(path: Path) -> str | None:
    """The suffix that the content of a file of samples should have, whatever it has: .npy, .npz
    or .csv, or None for another kind of file."""
    suffix = path.suffix.lower()
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(HEAD)
    kind, stands_for = kind_of_file("", head)  # by content alone
    if kind is not None:
        return stands_for if kind == "arrays" else None
    if suffix in (*TEXTS, *READERS) and _is_text(head):
        return ".csv"
    return suffix if suffix in READERS else None


def _is_text(head: bytes) -> bool:
    """Whether a file may be a table by its first bytes."""
    text = head.startswith((b"\xff\xfe", b"\xfe\xff")) or not re.search(
        rb"[\0-\x08\x0e-\x1f]", head
    )
    return text and re.search(rb"\d", head) is not None


def read(path: Path, config: DataConfig = AS_IT_IS) -> Content:
    """What a .npy, .npz or .csv file holds, or another table in text.

    Args:
        config: of a table, which columns are categories or left out, and missing cells.

    Raises:
        ValueError: for another kind of file, or one that is damaged.
    """
    try:
        kind = format_of(path)
        if kind is not None:
            return READERS[kind](path, config)
    except DAMAGED as error:
        reason = brief(str(error), 300) or type(error).__name__
        raise ValueError(f"{str(path)!r} is not readable: {reason}") from None
    if not os.path.lexists(path):
        raise ValueError(f"{str(path)!r} is not there: give a .npy, .npz or .csv file")
    raise ValueError(f"{str(path)!r} is not a file of samples: give a .npy, .npz or .csv file")


def _npy(path: Path, _: DataConfig) -> Content:
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise ValueError("it holds several arrays: name it .npz")
        file.seek(0)
        return Content(array_in(file, path.stat().st_size))


def _npz(path: Path, _: DataConfig) -> Content:
    """Samples under the key `images`, `points` or `x`; optional `labels`, their
    `class_names`, and `split` of train / test. Other keys are not unpacked."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
        key = next((key for key in ("images", "points", "x") if key in members), None)
        if key is None:
            raise ValueError(f"of the keys {sorted(members)[:20]} none is images, points or x")
        content = {
            name: array_of(archive, members[name]) for name in (key, *BESIDE) if name in members
        }
    for other in ("labels", "split"):
        if other in content and content[other].shape != content[key].shape[:1]:
            raise ValueError(
                f"{key} of shape {content[key].shape} and {other} of {content[other].shape}"
            )
    labels, names = content.get("labels"), content.get("class_names")
    if labels is not None and names is not None:
        labels = _named(labels, decoded(names))
    unread = tuple(sorted(members.keys() - content.keys()))
    return Content(content[key], labels, content.get("split"), key, unread=unread)


def _named(labels: np.ndarray, names: np.ndarray) -> np.ndarray:
    """The names of labels 0, 1, …

    Raises:
        ValueError: for labels that are no places in the names, or names that are not distinct.
    """
    if names.ndim != 1 or len(set(names.tolist())) < len(names):
        raise ValueError("class_names must be a list of distinct names, one a class")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype}: integers are needed to choose class_names")
    if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}, but there are {len(names)} "
            f"class_names, for labels from 0 to {len(names) - 1}"
        )
    return names[labels]


def _table(path: Path, config: DataConfig) -> Content:
    found = tables.read(path, config)
    return Content(
        found.values,
        found.labels,
        schema=found.schema,
        contents=found.contents,
        summary=found.summary,
        beside=found.beside,
    )


READERS = {".npy": _npy, ".npz": _npz, ".csv": _table, ".tsv": _table}
"""The readers of files of samples, by suffix."""
TEXTS = (".txt", ".dat", ".tab", "")
"""Suffixes that a table may have if it is a text."""
