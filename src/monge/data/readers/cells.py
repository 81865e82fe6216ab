"""The cells of a text file as Polars reads them, and which row or cell of it is at fault.

Polars parses numbers exactly rounded, over all cores, and fails where a cell is no number. It
does not look for the dialect, and fills short rows, so that both are seen to here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monge.data.readers.dialect import Rows, cells_of

if TYPE_CHECKING:
    import polars as pl

MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null"),
)
"""How programs write a missing cell: what pandas reads as such."""
FILL_LABEL = "fill it in, or remove the row"
FILL = "fill it in, remove the row, or train with --missing indicator"


def frame_of(rows: Rows, wanted: Sequence[int], kind: Any, decimal_comma: bool = False) -> Any:
    """Some columns as Polars reads them, null where a cell is empty; None where it cannot, or
    where a row has another length."""
    import polars as pl

    width, chosen = rows.dialect.width, set(wanted)
    # all columns are read: Polars does not see whether a row goes on behind the last that is
    schema = {str(i): kind if i in chosen else pl.String for i in range(width)}
    options = (schema, rows.dialect.separator, decimal_comma)
    frame = _read_csv(rows.source, rows.before, *options)
    if frame is None or frame[str(width - 1)].null_count():
        frame = _read_csv(rows.body, 0, *options)
        # Polars fills short rows with nulls, of which the last cell is one
        if frame is None or (frame[str(width - 1)].null_count() and rows.is_ragged):
            return None
    return frame.select(map(str, wanted))


def _read_csv(
    source: Path | bytes, before: int, schema: dict, separator: str, decimal_comma: bool
) -> Any:
    """A frame of the lines behind some; None where Polars cannot read them."""
    import polars as pl

    try:
        return pl.read_csv(
            source,
            has_header=False,
            skip_lines=before,
            schema=schema,
            separator=separator,
            decimal_comma=decimal_comma,
        )
    except pl.exceptions.NoDataError:
        return pl.DataFrame(schema=schema)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None


def is_full(frame: "pl.DataFrame | None") -> bool:
    """Whether a frame was read and no cell of it is empty."""
    return frame is not None and not sum(frame.null_count().row(0))


def texts_of(rows: Rows, column: int) -> np.ndarray:
    """The cells of one column, without the blanks around them.

    Raises:
        ValueError: for a row of another length, or an empty cell.
    """
    import polars as pl

    frame = frame_of(rows, [column], pl.String)
    cells = frame.to_series().str.strip_chars() if is_full(frame) else None
    if cells is None or (cells == "").any():
        raise ValueError(fault_in(rows, [], [column], missing=False, fill=FILL_LABEL))
    return cells.to_numpy().astype(str)


def columns_of(rows: Rows, wanted: Sequence[int]) -> "list[pl.Series]":
    """The cells of some columns that are read already, without the blanks around them."""
    import polars as pl

    frame = frame_of(rows, wanted, pl.String) if wanted else pl.DataFrame()
    return frame.select(pl.all().str.strip_chars().fill_null("")).get_columns()


def all_texts(rows: Rows) -> "list[pl.Series]":
    """The cells of every column, without the blanks around them; null where they are missing.

    Raises:
        ValueError: for a row of another length.
    """
    import polars as pl

    frame = frame_of(rows, range(rows.dialect.width), pl.String)
    if frame is None:
        raise ValueError(fault_in(rows, [], [], missing=True))
    cell = pl.all().str.strip_chars()
    return frame.select(pl.when(~cell.is_in(MISSING)).then(cell)).get_columns()


def fault_in(
    rows: Rows,
    numbers: Sequence[int],
    texts: Sequence[int],
    *,
    missing: bool,
    fill: str = FILL,
) -> str:
    """The first row of another length, or cell that is no number or, unless cells may be
    `missing`, is missing, by its line."""
    for line, row in rows.cells():
        if len(row) != rows.dialect.width:
            return f"line {line} has {cells_of(row)}, and most rows have {rows.dialect.width}"
        for column in sorted((*numbers, *texts)):
            cell, place = row[column].strip(), f"line {line}, column {rows.named(column)}"
            if cell in MISSING:
                if not missing:
                    return f"{place} is {f'missing, {cell!r}' if cell else 'empty'}: {fill}"
            elif column in numbers and not rows.dialect.is_number(cell):
                return (
                    f"could not convert string {cell[:40]!r} to a number in {place}: correct it, "
                    "or train with --categorical or --leave-out and its name"
                )
    return "it has quotes that do not match, or numbers in several notations"
