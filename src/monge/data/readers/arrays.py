"""Arrays and tables: the embedded digits, .npy, .npz and .csv."""

import dataclasses
import importlib.metadata
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monge._core.files import DAMAGED
from monge._core.promotion import EXACT_INTEGERS
from monge.config import DataConfig
from monge.data.kinds import (
    CLOUD,
    IMAGE,
    kind_named,
    kind_of,
    unresolved,
)
from monge.data.source import Source, split

AS_IT_IS = DataConfig()
"""Of an array, without settings."""


class Content(NamedTuple):
    """What a file of samples holds."""

    samples: np.ndarray
    labels: np.ndarray | None = None
    parts: np.ndarray | None = None
    """The part of each sample: train, test, …"""
    key: str | None = None
    """What the samples are called."""


def digits() -> Source:
    """scikit-learn's 1,797 real 8×8 digits with 17 grey levels; the last 297 are held out."""
    # its file alone: to import scikit-learn takes longer than to train the first hundred steps
    package = importlib.metadata.distribution("scikit-learn")
    file = str(package.locate_file("sklearn/datasets/data/digits.csv.gz"))
    table = np.loadtxt(file, delimiter=",")
    images = np.round(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    parts = np.repeat(["train", "test"], [1500, 297])
    return split("digits", IMAGE, images, table[:, 64].astype(int), parts)


def from_array(
    samples: np.ndarray,
    labels=None,
    parts=None,
    name: str = "array",
    config: DataConfig = AS_IT_IS,
) -> Source:
    """A source from an array (n, …), of the kind that `config` names or that its shape says.

    Raises:
        ValueError: for what `real` refuses, and for other shapes or ranges.
    """
    samples = real(samples, name)
    kind = kind_of(samples, name) if config.kind is None else kind_named(config.kind)
    return split(name, kind, kind.read(samples, name, config), labels, parts)


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
    """A source from a .npy, .npz or .csv file."""
    samples, labels, parts, key = read(path)
    if key == "points" and config.kind is None:
        config = dataclasses.replace(config, kind=CLOUD.name)
    return from_array(samples, labels, parts, path.name, config)


def read(path: Path) -> Content:
    """What a .npy, .npz or .csv file holds.

    Raises:
        ValueError: for another kind of file, or one that is damaged.
    """
    reader = {".npy": _npy, ".npz": _npz, ".csv": _csv}.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise ValueError(f"{str(path)!r} is no file of samples: give a .npy, .npz or .csv file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty table, which is refused by its size
            return reader(path)
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{str(path)!r} is not readable: {reason}") from None


def _npy(path: Path) -> Content:
    with path.open("rb") as file:  # which NumPy itself leaves open where it is damaged
        array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it holds several arrays: name it .npz")
    return Content(array)


def _npz(path: Path) -> Content:
    """Samples under the key `images`, `points` or `x`; optional `labels`, their
    `class_names`, and `split` of train / test."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        content = {key: archive[key] for key in archive.files}
    key = next((key for key in ("images", "points", "x") if key in content), None)
    if key is None:
        raise ValueError(f"of the keys {sorted(content)} none is images, points or x")
    for other in ("labels", "split"):
        if other in content and content[other].shape != content[key].shape[:1]:
            raise ValueError(
                f"{key} of shape {content[key].shape} and {other} of {content[other].shape}"
            )
    labels, names = content.get("labels"), content.get("class_names")
    if labels is not None and names is not None:
        labels = names[labels]
    return Content(content[key], labels, content.get("split"), key)


def _csv(path: Path) -> Content:
    """A table of numbers, a row a sample. A first row without any number is a header; its column
    `label` or `class` holds classes of any type."""
    options: dict[str, Any] = {"delimiter": ",", "quotechar": '"', "comments": None, "ndmin": 2}
    with path.open(encoding="utf-8-sig") as file:
        lines = file.readlines()
    lines = [line for line in lines if line.strip()]
    first = np.loadtxt(lines[:1], dtype=str, **options)[0] if lines else np.empty(0, str)
    names = [cell.strip().lower() for cell in first]
    if any(map(_is_number, names)) or not any(names):
        return Content(_numbers(lines, options))
    labelled = [i for i, name in enumerate(names) if name in ("label", "class")]
    rest = [i for i in range(len(names)) if i not in labelled]
    table = _numbers(lines[1:], {"usecols": rest, **options})
    if not labelled:
        return Content(table)
    return Content(table, np.loadtxt(lines[1:], usecols=labelled[:1], dtype=str, **options)[:, 0])


def _numbers(lines: list[str], options: dict[str, Any]) -> np.ndarray:
    """A table in float64, or in int64 where float64 would round an integer.

    Raises:
        ValueError: for a column of integers that float64 does not resolve beside other columns.
    """
    table = np.loadtxt(lines, **options)
    if table.size == 0 or np.abs(table).max() <= EXACT_INTEGERS:
        return table
    large = np.abs(table).max(0) > EXACT_INTEGERS
    cells = np.loadtxt(lines, dtype=str, **options)
    whole = [k for k in range(table.shape[1]) if all(map(_is_integer, cells[:, k]))]
    columns = {k: np.array([int(cell) for cell in cells[:, k]]) for k in whole}
    if len(whole) == table.shape[1] and all(c.dtype.kind in "iu" for c in columns.values()):
        return np.stack([columns[k] for k in whole], 1)
    for k in whole:
        column = columns[k][:, None]
        if large[k] and column.dtype.kind in "iu" and unresolved(column, np.float64).any():
            raise ValueError(
                f"column {k} holds integers beyond 2^53 that vary by less than float64 can "
                "resolve: subtract its first value"
            )
    return table


def _is_integer(cell: str) -> bool:
    return cell.strip().lstrip("+-").isdecimal()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
