"""The samples that `monge distance` compares, read from files."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Weights = Optional["Tensor"]
"""The weights of a sample, (n,); None for uniform ones."""
SLICED = ("gsliced", "max-gsliced")
"""Methods that slice along curves, which see where the origin is."""


class FileSamples(NamedTuple):
    """The samples of a file."""

    path: Path
    rows: "np.ndarray"
    """(n, d), in the dtype of the file."""
    scaled: bool
    """Whether they are bytes of images, which are divided by 255."""
    images: bool
    names: tuple[str, ...] | None
    """The columns' names, of a table that gives them."""


def _read(path: Path) -> FileSamples:
    """The samples of a file."""
    from monge.data.kinds import kind_of
    from monge.data.readers.arrays import real

    numbers, names = _numbers(path)
    samples = real(numbers, str(path))
    kind = kind_of(samples, str(path))
    if kind.unordered:
        raise ValueError(
            f"{str(path)!r} holds point clouds, whose order a distance between rows would depend "
            "on: give one cloud as rows (n, 3)"
        )
    rows = kind.layout(samples, str(path)).reshape(len(samples), -1)
    scaled = kind.bounded and samples.dtype == "uint8"
    return FileSamples(path, rows / 255.0 if scaled else rows, scaled, kind.bounded, names)


def read_both(a: Path, b: Path, method: str) -> tuple[FileSamples, FileSamples]:
    """Both samples, the columns of b in the order in which a has them if both name the same."""
    from monge._core.errors import warn

    one, two = _read(a), _read(b)
    if one.names is None or two.names is None or one.names == two.names:
        return one, two
    if sorted(one.names) == sorted(two.names) and len(set(one.names)) == len(one.names):
        order = [two.names.index(name) for name in one.names]
        return one, two._replace(rows=two.rows[:, order], names=one.names)
    if len(one.names) == len(two.names) and method != "gromov":
        here, there = next(pair for pair in zip(one.names, two.names) if pair[0] != pair[1])
        warn(
            f"`b` {str(b)!r} has a column {there!r} where `a` {str(a)!r} has {here!r}: columns "
            "are compared in their order, whatever their names"
        )
    return one, two


def _numbers(path: Path) -> tuple["np.ndarray", tuple[str, ...] | None]:
    """The numbers in a file, and the names of their columns where it gives them."""
    from monge._core.errors import warn
    from monge.data.readers.arrays import left_out, read

    found = read(path)
    for column in () if found.schema is None else found.schema.columns:
        if column.kind == "category":
            raise ValueError(
                f"{str(path)!r} has a column {column.name!r} of texts, such as "
                f"{column.values[0]!r}: distances are between rows of numbers"
            )
    if found.unread:
        warn(f"{str(path)!r}: {left_out(found)}")
    if found.beside:
        warn(
            f"{str(path)!r}: {', '.join(found.beside)} left out, which tables keep for classes "
            "and indices: rename a column to have it compared"
        )
    names = found.schema.names if found.schema is not None and found.schema.header else None
    return found.samples, names


def in_float64(first: FileSamples, second: FileSamples, method: str) -> list["Tensor"]:
    """Both samples in float64; integers that float64 would round are first shifted by one offset,
    which no distance but those along curves sees."""
    import numpy as np
    import torch

    from monge._core.promotion import EXACT_INTEGERS

    if (first.scaled and not second.images) or (second.scaled and not first.images):
        raise ValueError(
            f"`a` {str(first.path)!r} and `b` {str(second.path)!r} are bytes of images, which are "
            "divided by 255, and rows of numbers, which are not: give both in one layout"
        )
    rows = first.rows, second.rows
    wide = [z.dtype.kind in "iu" and abs(z.astype(float)).max() > EXACT_INTEGERS for z in rows]
    if not any(wide):
        return [torch.from_numpy(z.astype(np.float64)) for z in rows]
    if method == "gromov":
        columns = [z.min(0) for z in rows]  # each space has an offset of its own
    elif all(z.dtype.kind in "iu" for z in rows) and method not in SLICED:
        least = [min(map(int, pair)) for pair in zip(*(z.min(0) for z in rows))]
        columns = [np.array(least, dtype=object)] * 2
    else:
        name, path = ("a", first.path) if wide[0] else ("b", second.path)
        raise ValueError(
            f"`{name}` {str(path)!r} holds integers beyond 2^53, which float64 rounds: subtract "
            "one offset from both samples"
        )
    # exact, as Python's integers
    return [
        torch.from_numpy((z.astype(object) - least).astype(np.float64))
        for z, least in zip(rows, columns)
    ]


def read_weights(name: str, path: Path | None, samples: "Tensor", as_given: bool) -> Weights:
    """The weights in a file, as given or divided by their sum; None without a file."""
    import torch

    from monge.data.readers.arrays import real

    if path is None:
        return None
    w = real(_numbers(path)[0], str(path)).astype("float64")
    flag = f"`--{name.replace('_', '-')}` {str(path)!r}"
    if w.size != w.shape[0] or len(w) != len(samples):
        raise ValueError(
            f"{flag} must hold {len(samples)} weights, one for each sample, got shape {w.shape}"
        )
    if not (w.min() >= 0 and 0 < w.sum() < float("inf")):
        raise ValueError(
            f"{flag} must be at least 0 with a positive, finite sum, got {w.min():.3g} to "
            f"{w.max():.3g} with the sum {w.sum():.3g}"
        )
    return torch.from_numpy((w if as_given else w / w.sum()).ravel())
