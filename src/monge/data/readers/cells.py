"""The cells of a text file as Polars reads them, and which row or cell of it is at fault.

Polars parses numbers exactly rounded, and gives null where a cell is none.
"""

import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from monge._core.visible import counted
from monge.data.readers.blocks import Ragged, blocks
from monge.data.readers.dialect import NO_TEXT, Rows
from monge.data.readers.notation import is_complex

if TYPE_CHECKING:
    import polars as pl

MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null"),
)
"""How programs write a missing cell: what pandas reads as such."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
MOST_SPELLINGS = 10_000
"""Different labels above which they are no classes, and are left as they are."""
FILL_LABEL = "fill it in, or remove the row"
FILL_CLASS = "name the class, remove the row, or leave the column out with --leave-out"
FILL = "fill it in, remove the row, or train with --missing indicator"


def read_cells(cells: bytes, kind: Any, decimal_comma: bool = False) -> "pl.Series | None":
    """Cells, a line each, as Polars reads them, null where one is empty or of another kind; None
    where it cannot read them."""
    import polars as pl

    try:
        frame = pl.read_csv(
            cells,
            has_header=False,
            schema={"cells": kind},
            separator=NO_TEXT,
            decimal_comma=decimal_comma,
            ignore_errors=True,
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    return frame.to_series()


def numbers_of(rows: Rows, wanted: Sequence[int], sign: str) -> np.ndarray | None:
    """Some columns as numbers with a decimal sign (n, d), or None where a cell of them is missing
    or no number."""
    import polars as pl

    table, count = np.empty((rows.most, len(wanted))), 0
    for n, cells in _blocks(rows):
        # a decimal comma goes with points for thousands, which Polars would take for decimals
        found = None
        if sign == "." or b"." not in cells:
            found = read_cells(cells, pl.Float64, sign == ",")
        part = None if found is None or len(found) != n * rows.dialect.width else found
        values = None if part is None else _chosen(part, rows, wanted)
        if values is None or values.null_count():
            values = as_numbers(_chosen(_texts(n, cells, rows), rows, wanted), sign)
            if values.null_count():
                return None
        table[count : count + n] = values.to_numpy().reshape(n, -1)
        count += n
    return table[:count]


def as_numbers(texts: "pl.Series", sign: str) -> "pl.Series":
    """Texts as numbers with a decimal sign, null where one is none."""
    import polars as pl

    if sign == ",":  # a point becomes what is not a number
        texts = texts.str.replace(".", "point", literal=True)
        texts = texts.str.replace(",", ".", literal=True)
    return texts.cast(pl.Float64, strict=False)


def text_blocks(rows: Rows, wanted: Sequence[int]) -> "Iterator[pl.Series]":
    """The cells of some columns row by row, without the blanks around them, null where they are
    empty; some rows at a time."""
    for n, cells in _blocks(rows):
        yield _chosen(_texts(n, cells, rows), rows, wanted)


def columns_of(rows: Rows, wanted: Sequence[int]) -> "list[pl.Series]":
    """The cells of some columns, without the blanks around them, null where they are empty.

    Raises:
        ValueError: for a row of another length.
    """
    import polars as pl

    if not wanted:
        return []
    flat = pl.concat([pl.Series("cells", [], pl.String), *text_blocks(rows, wanted)])
    return [flat.gather_every(len(wanted), i) for i in range(len(wanted))]


def texts_of(rows: Rows, column: int) -> np.ndarray:
    """The cells of one column, without the blanks around them.

    Raises:
        ValueError: for a row of another length, or an empty cell.
    """
    (cells,) = columns_of(rows, [column])
    if cells.null_count():
        raise ValueError(fault_in(rows, [], [column], missing=False, fill=FILL_LABEL))
    return cells.to_numpy().astype(str)


def classes_of(rows: Rows, column: int) -> np.ndarray:
    """The cells of a column that holds the classes of samples, without the blanks around them.

    Raises:
        ValueError: for a row of another length, or a missing cell, by its line.
    """
    (cells,) = columns_of(rows, [column])
    if cells.null_count() or cells.is_in(MISSING).any():
        raise ValueError(fault_in(rows, [], [column], missing=False, fill=FILL_CLASS))
    return cells.to_numpy().astype(str)


def one_spelling(labels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Labels (n,) in which equal numbers are one class, under their shortest spelling, and a note
    of those that were written in several ways.

    Only where every label is a number, as pandas reads such a column; beside a name "01" stays.
    """
    spellings: dict[Decimal, list[str]] = {}
    known, of = np.unique(labels, return_inverse=True)
    if len(known) > MOST_SPELLINGS or not all(map(NUMBER.fullmatch, known.tolist())):
        return labels, []
    for text in known.tolist():
        spellings.setdefault(Decimal(text), []).append(text)
    several = [sorted(texts, key=lambda text: (len(text), text)) for texts in spellings.values()]
    shortest = {text: texts[0] for texts in several for text in texts}
    notes = [f"labels {', '.join(texts)} are one class" for texts in several if len(texts) > 1]
    renamed = np.array([shortest[text] for text in known.tolist()], dtype=labels.dtype)
    more = f"{len(notes) - 3:,} more classes are written in several ways"
    return renamed[of.reshape(-1)], notes if len(notes) <= 4 else [*notes[:3], more]


def _blocks(rows: Rows) -> Iterator[tuple[int, bytes]]:
    """`blocks`, with the row that has another length than most named by its line."""
    try:
        yield from blocks(rows)
    except Ragged:
        raise ValueError(fault_in(rows, [], [], missing=True)) from None


def _texts(n: int, cells: bytes, rows: Rows) -> "pl.Series":
    import polars as pl

    found = read_cells(cells, pl.String)
    if found is None or len(found) != n * rows.dialect.width:
        raise ValueError(fault_in(rows, [], [], missing=True))
    found = found.str.strip_chars()
    return found.set(found == "", None)


def _chosen(cells: "pl.Series", rows: Rows, wanted: Sequence[int]) -> "pl.Series":
    """The cells of some columns, row by row."""
    width = rows.dialect.width
    if list(wanted) == [*range(width)]:
        return cells
    places = np.arange(0, len(cells), width)[:, None] + np.asarray(wanted)
    return cells.gather(places.ravel())


def fault_in(
    rows: Rows,
    numbers: Sequence[int],
    texts: Sequence[int],
    *,
    missing: bool,
    fill: str = FILL,
) -> str:
    """The first row of another length, or cell that is not a finite number or, unless cells may be
    `missing`, is missing, by its line."""
    for line, row in rows.cells():
        if len(row) != rows.dialect.width:
            here, most = counted(len(row), "cell"), rows.dialect.width
            return f"line {line} has {here}, and most rows have {most}"
        for column in sorted((*numbers, *texts)):
            cell, place = row[column].strip(), f"line {line}, column {rows.named(column)}"
            if cell in MISSING:
                if not missing:
                    return f"{place} is {f'missing, {cell!r}' if cell else 'empty'}: {fill}"
            elif column in numbers and is_complex(cell):
                return (
                    f"{place} is complex, {cell[:60]!r}: give real and imaginary parts as columns "
                    "of their own, or train with --categorical or --leave-out and its name"
                )
            elif column in numbers and not rows.dialect.is_number(cell):
                return (
                    f"could not convert string {cell[:40]!r} to a number in {place}: correct it, "
                    "or train with --categorical or --leave-out and its name"
                )
            elif column in numbers and math.isinf(float(cell.replace(",", "."))):
                reason = "not finite in float64: correct it, or remove the row"
                return f"{place} is {cell[:40]!r}, {reason}"
    return "it has quotes that do not match, or numbers in several notations"
