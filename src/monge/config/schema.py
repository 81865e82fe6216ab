"""The columns of a table, and the conversion between its rows and the numbers of a model.

Inside, a sample is a vector: a number takes one element, a category one for each of its values,
exactly one of which is 1 (one-hot), and a column with missing cells one more, which is 1 where the
cell is missing. Outside are the names, units and labels of the table.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from monge._core.fields import demand

if TYPE_CHECKING:
    import polars as pl

MOST_DECIMALS = 6
LARGEST_INTEGER = 2.0**63


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    """As the file gives it; the column's number, from 0, in a table without a header."""
    kind: Literal["float", "integer", "category"]
    values: tuple[str, ...] = ()
    """Labels of a category in the order of their elements; of missing cells the label is empty."""
    decimals: int | None = None
    """Decimals to which samples of a float are rounded, where no value has more than 6."""
    constant: float | None = None
    """The only value that a number has."""
    fill: float | None = None
    """What stands for missing cells of a number inside, the mean of the others; None where no
    cell is missing."""

    @property
    def width(self) -> int:
        """How many elements of a vector the column takes."""
        return len(self.values) if self.kind == "category" else 1 + (self.fill is not None)

    @property
    def elements(self) -> list[str]:
        """Names of those elements."""
        if self.kind == "category":
            return [f"{self.name}={value or 'missing'}" for value in self.values]
        return [self.name] if self.fill is None else [self.name, f"{self.name} missing"]

    def encode(self, cells: pl.Series) -> np.ndarray:
        """Cells, null where they are missing, as elements (n, width).

        Raises:
            ValueError: for a label that the column does not have, or missing cells of a number
                that had none.
        """
        import polars as pl

        if self.kind == "category":
            labels = cells.cast(pl.String).fill_null("").to_numpy().astype(str)
            order = np.argsort(np.array(self.values))
            place = np.searchsorted(np.array(self.values)[order], labels)
            found = order[place.clip(max=len(order) - 1)]
            if (wrong := np.array(self.values)[found] != labels).any():
                raise ValueError(
                    f"column {self.name!r} has no value {str(labels[wrong][0])!r}: it is one of "
                    f"{', '.join(map(repr, self.values[:10]))}"
                    + (", …" if len(self.values) > 10 else "")
                )
            return (found[:, None] == np.arange(len(self.values))).astype(np.float64)
        numbers = cells.cast(pl.Float64).fill_null(np.nan).to_numpy()
        missing = np.isnan(numbers)
        if self.fill is None:
            if missing.any():
                raise ValueError(f"column {self.name!r} has {int(missing.sum())} missing cells")
            return numbers[:, None]
        return np.stack([np.where(missing, self.fill, numbers), missing.astype(np.float64)], 1)

    def decode(self, elements: np.ndarray) -> pl.Series:
        """Elements (n, width) as cells: the largest element of a category, numbers rounded as the
        column's are, null where the indicator of a missing cell exceeds ½. Numbers are not clipped
        to the range of the table."""
        import polars as pl

        if self.kind == "category":
            labels = np.array(self.values)[elements.argmax(1)]
            cells = pl.Series(self.name, labels.tolist(), pl.String)
            return cells.replace({"": None}) if "" in self.values else cells
        x = elements[:, 0]
        if self.constant is not None:
            x = np.full(len(x), self.constant)
        if self.kind == "integer":
            x = np.rint(x.astype(np.float64))
            if len(x) and abs(x).max() >= LARGEST_INTEGER:
                raise ValueError(
                    f"column {self.name!r} has samples up to {abs(x).max():.4g}, which are no "
                    "64-bit integers: has the training diverged?"
                )
            x = x.astype(np.int64)
        elif self.decimals is not None:
            x = np.round(x.astype(np.float64), self.decimals)
        cells = pl.Series(self.name, x)
        if self.fill is None:
            return cells
        return cells.set(pl.Series(elements[:, 1] > 0.5), None)


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in order.

    `encode` and `decode` are inverse to each other on the rows of the table::

        run = monge.fit("wae-mmd", "people.csv")
        frame = run.settled.schema.decode(run.sample(1000))  # a Polars frame
        frame.write_csv("synthetic.csv")
    """

    columns: tuple[Column, ...]
    header: bool = True
    """Whether the file gives their names."""

    @classmethod
    def unnamed(cls, width: int) -> Schema:
        """The schema of plain vectors: `width` columns of numbers without names."""
        return cls(tuple(Column(str(i), "float") for i in range(width)), header=False)

    @property
    def width(self) -> int:
        """d', how many elements a sample has."""
        return sum(column.width for column in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def elements(self) -> tuple[str, ...]:
        """Names of the elements of a sample: columns, `column=value` and `column missing`."""
        return tuple(name for column in self.columns for name in column.elements)

    @property
    def blocks(self) -> list[slice]:
        """Which elements of a sample belong to each column."""
        ends = np.cumsum([0, *(column.width for column in self.columns)]).tolist()
        return [slice(*ends[i : i + 2]) for i in range(len(self.columns))]

    @property
    def is_numeric(self) -> bool:
        """Whether every column is one number, so that samples are the table as it is."""
        return all(c.kind != "category" and c.fill is None for c in self.columns)

    def difference(self, other: Schema | None) -> str | None:
        """How the elements of samples mean something else in another table, if they do."""
        if other is None:
            return "no table in a text file"
        for here, there in zip(self.columns, other.columns):
            if here.name != there.name:
                return f"column {there.name!r} in place of {here.name!r}"
            if here.elements != there.elements:
                few = [", ".join(one.elements[:10]) for one in (there, here)]
                return f"column {here.name!r} is {few[0]} in place of {few[1]}"
        count, others = len(self.columns), len(other.columns)
        return None if count == others else f"{others} columns in place of {count}"

    def encode(self, frame: pl.DataFrame) -> np.ndarray:
        """The rows of a table as samples of a model.

        Args:
            frame: n rows, with the columns in order; null where a cell is missing.

        Returns:
            float64 (n, d').

        Raises:
            ValueError: for other columns than the table's, or labels that it does not have.
        """
        if frame.width != len(self.columns):
            raise ValueError(
                f"`frame` has {frame.width} columns, the table has {len(self.columns)}: "
                f"{', '.join(self.names[:10])}"
            )
        cells = frame.get_columns()
        return np.concatenate([c.encode(one) for c, one in zip(self.columns, cells)], 1)

    def decode(self, samples: Any) -> pl.DataFrame:
        """Samples of a model as rows of a table, in its units and with its names and labels.

        A category is the label of its largest element, integers and decimals are rounded, and a
        cell is null where its indicator exceeds ½. Numbers are not clipped to the table's range.

        Args:
            samples: (n, d'), a tensor or an array.

        Returns:
            A Polars frame of n rows, with a column for each of the table's.

        Raises:
            ValueError: for samples of another shape, or that are not finite.
        """
        import polars as pl

        x = np.asarray(samples)
        if x.ndim != 2 or x.shape[1] != self.width:
            raise ValueError(
                f"`samples` must have shape (n, {self.width}), the elements of the table's "
                f"columns, got {x.shape}"
            )
        if not np.isfinite(x).all():
            raise ValueError("`samples` holds NaN or infinite values: has the training diverged?")
        cells = [column.decode(x[:, block]) for column, block in zip(self.columns, self.blocks)]
        return pl.DataFrame([one.alias(name) for one, name in zip(cells, self.distinct_names)])

    def to_csv(self, samples: Any, further: tuple[str, list[str]] | None = None) -> bytes:
        """Samples (n, d') as a table in UTF-8, separated by commas, below a header where the file
        had one; missing cells are empty.

        Args:
            samples: (n, d').
            further: the name and the n cells of a last column, e.g. of the classes of samples.
        """
        import polars as pl

        lines, frame, names = io.StringIO(), self.decode(samples), list(self.names)
        if further is not None:
            names.append(further[0])
            # an unnamed place, since the name may be that of a column
            frame = frame.hstack([pl.Series("\0", further[1], pl.String)])
        if self.header:
            csv.writer(lines, lineterminator="\n").writerow(names)
        return (lines.getvalue() + frame.write_csv(include_header=False)).encode()

    def check(self) -> None:
        """A ValueError for a column that no table has."""
        for column in self.columns:
            if column.kind == "category":
                demand(len(column.values) > 0, "values", column.values, "labels, of a category")
            numbers = (column.fill, column.constant)
            finite = all(one is None or math.isfinite(one) for one in numbers)
            demand(finite, "fill", numbers, "finite, as must be `constant`")
            decimals = column.decimals
            known = decimals is None or 0 <= decimals <= MOST_DECIMALS
            demand(known, "decimals", decimals, f"from 0 to {MOST_DECIMALS}")

    @property
    def distinct_names(self) -> list[str]:
        """Names of the columns, of which no two are alike."""
        seen: set[str] = set()
        names = []
        for i, name in enumerate(self.names):
            names.append(name if name not in seen else f"{name} ({i})")
            seen.add(name)
        return names


def number_columns(table: np.ndarray, names: list[str]) -> list[Column]:
    """What the columns of a table of numbers (n, d) are: integers where every value is one,
    otherwise floats; NaN is a missing cell."""
    missing = np.any(np.isnan(table), axis=0)
    with np.errstate(invalid="ignore", over="ignore"):
        return [
            _number_column(table[:, i], name, bool(missing[i])) for i, name in enumerate(names)
        ]


def _number_column(x: np.ndarray, name: str, missing: bool) -> Column:
    fill = float(np.nanmean(x)) if missing else None
    x = x[~np.isnan(x)] if missing else x
    constant = x[0].item() if len(x) and _every(x, lambda part: part == x[0]) else None
    if _every(x, lambda part: (part == np.rint(part)) & (abs(part) < LARGEST_INTEGER)):
        constant = None if constant is None else int(constant)
        return Column(name, "integer", constant=constant, fill=fill)
    return Column(name, "float", decimals=_decimals(x), constant=constant, fill=fill)


def _decimals(x: np.ndarray) -> int | None:
    """The fewest decimals that write all values exactly; None for more than `MOST_DECIMALS`."""
    for k in range(1, MOST_DECIMALS + 1):
        if _every(x, lambda part, k=k: np.round(part, k) == part):
            return k
    return None


def _every(x: np.ndarray, holds: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether something holds of all values, the first of which mostly decide."""
    return bool(holds(x[:100]).all()) and bool(holds(x).all())
