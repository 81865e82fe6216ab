"""Tables in text files, by Polars: a row a sample, in any of the dialects that programs write.

Polars parses numbers exactly rounded, over all cores, and fails where a cell is no number. It
does not look for the dialect, and fills short rows, so that both are seen to here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from monge._core.promotion import EXACT_INTEGERS
from monge.config import DataConfig
from monge.config.schema import Column, Schema, number_columns
from monge.data.identity import combined, digests, digests_of_texts
from monge.data.kinds import unresolved
from monge.data.readers.dialect import Rows, cells_in, cells_of, is_integer, opened

if TYPE_CHECKING:
    import polars as pl

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LABELS = ("label", "class")
MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null"),
)
"""How programs write a missing cell: what pandas reads as such."""
FILL = "fill it in, remove the row, or train with --missing indicator"
MOST_CATEGORIES = 1000
NOTATION = r"^[+-]?[\s\d.,'_%$€£]*\d[\s\d.,'_%$€£]*([eE][+-]?\d+)?$"
"""What may be a number in a notation that is not read: `1.234,50`, `12 %`."""


class Table(NamedTuple):
    """A table as samples of a model, and what its columns are."""

    values: np.ndarray
    """(n, d'), float64, or int64 where float64 would round an integer."""
    labels: np.ndarray | None
    schema: Schema
    summary: str
    contents: np.ndarray | None
    """The digests of cells (n,) where values are not what the cells hold: labels, missing cells;
    they do not depend on what other rows hold."""


def read(path: Path, config: DataConfig | None = None) -> Table:
    """A table in a text file, separated by commas, semicolons, tabs or bars.

    A first row without any number is a header. Its column `label` or `class` holds classes of any
    type, and a first column without a name, of distinct integers or texts, is an index; neither
    is part of the samples. Columns of texts below a header are categories.

    Args:
        path: the file.
        config: its columns `categorical` and `leave_out`, by their names, or by their numbers in
            a table without a header, and what becomes of `missing` cells.

    Raises:
        ValueError: for rows of unlike lengths, cells that are missing or no numbers, by line, and
            columns that there are not.
    """
    config = config or DataConfig()
    rows, encoding = opened(path)
    categorical, left_out = (_places(rows, config, f) for f in ("categorical", "leave_out"))
    names = [name.lower() for name in rows.names]
    modelled = {*range(rows.dialect.width)} - set(left_out)
    labelled = [
        i for i in sorted(modelled - set(categorical)) if i < len(names) and names[i] in LABELS
    ]
    texts = {i: _texts(rows, i) for i in labelled[:1]}
    index = 0 in modelled and 0 not in categorical and _is_index(rows)
    rest = sorted(modelled - {*labelled} - ({0} if index else set()))
    if not rest:
        raise ValueError("no column is left to train on")
    missing = config.missing == "indicator"
    values, schema, contents = _modelled(rows, rest, set(categorical), missing)
    left = [f"column {rows.named(i)}" for i in (*left_out, *labelled[1:])]
    left += ["the index column"] * index
    summary = _summary(rows, encoding, len(values), schema, left)
    return Table(values, texts[labelled[0]] if labelled else None, schema, summary, contents)


def _places(rows: Rows, config: DataConfig, field: str) -> list[int]:
    """The columns that a setting names.

    Raises:
        ValueError: for a name that no column has, or several have.
    """
    names = rows.names or [str(i) for i in range(rows.dialect.width)]
    for name in getattr(config, field):
        if (count := names.count(name)) != 1:
            few = f"{', '.join(names[:20])}{', …' if len(names) > 20 else ''}"
            problem = "no column" if count == 0 else f"{count} columns"
            raise ValueError(f"`{field}` {name!r} names {problem} of the table: {few}")
    return [names.index(name) for name in getattr(config, field)]


def _summary(rows: Rows, encoding: str, n: int, schema: Schema, left: list[str]) -> str:
    """One line on what was read, and what was left out."""
    separator, decimal, width = rows.dialect
    count = len(schema.columns)
    text = f"read {n:,} rows of {count:,} column{'s' * (count != 1)}"
    text += " below a header" if rows.names else ""
    if width > 1:
        text += f", separated by {SEPARATORS[separator]}"
    text += ", with decimal commas" if decimal == "," else ""
    text += f", in {encoding}" if encoding else ""
    categories = [c for c in schema.columns if c.kind == "category"]
    if categories:
        few = [f"{c.name!r} ({len(c.values)})" for c in categories[:10]]
        text += f"; categories {', '.join(few)}{', …' if len(categories) > 10 else ''}"
    missing = sum(c.fill is not None or "" in c.values for c in schema.columns)
    text += f"; missing cells in {missing:,} column{'s' * (missing != 1)}" if missing else ""
    return text + (f"; left out {', '.join(left)}" if left else "")


def _is_index(rows: Rows) -> bool:
    """Whether the first column numbers or names the rows: one without a name of distinct integers
    or texts, or `index` of 0, 1, …"""
    name = rows.names[0].lower() if rows.names else None
    if name not in ("", "unnamed: 0", "index") or rows.dialect.width < 2:
        return False
    column = _texts(rows, 0)
    whole = all(map(is_integer, column))
    if name == "index":
        return whole and column.tolist() == [str(i) for i in range(len(column))]
    texts = not any(map(rows.dialect.is_number, column))
    return (whole or texts) and len(set(column)) == len(column)


def _modelled(
    rows: Rows, wanted: list[int], categorical: set[int], missing: bool
) -> tuple[np.ndarray, Schema, np.ndarray | None]:
    """Some columns as elements of samples (n, d'), what they are, and the digests of their cells
    where these are not the elements.

    Arguments:
        categorical: columns that are categories whatever they hold.
        missing: whether cells may be missing.

    Raises:
        ValueError: for a row of another length, a cell that is missing or no number, a category of
            too many values, or a column without any cell.
    """
    names = [rows.names[i] if rows.names else str(i) for i in wanted]
    if not categorical:
        table = _numbers(rows, wanted)
        if table is not None and not np.isnan(table).any():
            return table, Schema(tuple(number_columns(table, names)), bool(rows.names)), None
    import polars as pl

    texts = _all_texts(rows)
    parsed = _parsed(rows, texts)
    named = {i for i in wanted if i in categorical or _is_text(rows, texts[i], parsed[i])}
    bad = [i for i in wanted if i not in named and parsed[i].null_count() > texts[i].null_count()]
    if bad or (not missing and any(texts[i].null_count() for i in wanted)):
        numbers = [i for i in wanted if i not in named]
        raise ValueError(_fault(rows, numbers, sorted(named), missing=missing))
    columns = []
    for i, name in zip(wanted, names):
        if texts[i].null_count() == len(texts[i]):
            raise ValueError(
                f"column {rows.named(i)} is empty in every row: leave it out with --leave-out"
            )
        if i in named:
            columns.append(_category(name, texts[i]))
        else:
            numbers = parsed[i].fill_null(np.nan).to_numpy()
            columns += number_columns(numbers[:, None], [name])
    schema = Schema(tuple(columns), bool(rows.names))
    cells = [(texts if i in named else parsed)[i].alias(str(i)) for i in wanted]
    digest = [
        digests_of_texts(one.fill_null("").to_list())
        if one.dtype == pl.String
        else digests(one.fill_null(np.nan).to_numpy())
        for one in cells
    ]
    return schema.encode(pl.DataFrame(cells)), schema, combined(*digest)


def _frame(rows: Rows, wanted: Sequence[int], kind: Any, decimal_comma: bool = False) -> Any:
    """Some columns as Polars reads them, null where a cell is empty; None where it cannot."""
    import polars as pl

    chosen = set(wanted)
    try:
        return pl.read_csv(
            rows.source,
            has_header=False,
            skip_lines=rows.before,
            schema={str(i): kind if i in chosen else pl.String for i in range(rows.dialect.width)},
            columns=list(wanted),
            separator=rows.dialect.separator,
            decimal_comma=decimal_comma,
        )
    except pl.exceptions.NoDataError:
        return pl.DataFrame(schema={str(i): kind for i in wanted})
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None


def _is_full(frame: "pl.DataFrame | None") -> bool:
    """Whether a frame was read and no cell of it is empty."""
    return frame is not None and not sum(frame.null_count().row(0))


def _without_blank_lines(rows: Rows) -> Rows:
    content = b"\n".join(line for line in rows.lines() if line.strip())
    return rows._replace(source=content, before=0)


def _texts(rows: Rows, column: int) -> np.ndarray:
    """The cells of one column, without the blanks around them.

    Raises:
        ValueError: for a row of another length, or an empty cell.
    """
    import polars as pl

    frame = _frame(rows, [column], pl.String)
    if not _is_full(frame):
        frame = _frame(_without_blank_lines(rows), [column], pl.String)
    if not _is_full(frame):
        raise ValueError(_fault(rows, [], [column], missing=False))
    return frame.to_series().str.strip_chars().to_numpy().astype(str)


def _all_texts(rows: Rows) -> "list[pl.Series]":
    """The cells of every column, without the blanks around them; null where they are missing.

    Raises:
        ValueError: for a row of another length.
    """
    import polars as pl

    width = rows.dialect.width
    frame = _frame(_without_blank_lines(rows), range(width), pl.String)
    # Polars fills short rows with nulls, of which the last cell is one
    if frame is None or (frame[str(width - 1)].null_count() and _is_ragged(rows)):
        raise ValueError(_fault(rows, [], [], missing=True))
    cell = pl.all().str.strip_chars()
    return frame.select(pl.when(~cell.is_in(MISSING)).then(cell)).get_columns()


def _is_ragged(rows: Rows) -> bool:
    lines = [line.decode() for line in rows.lines()]
    cells = cells_in(lines, rows.dialect.separator)
    return any(len(row) != rows.dialect.width for _, row in cells)


def _parsed(rows: Rows, texts: "list[pl.Series]") -> "list[pl.Series]":
    """All columns as numbers, null where a cell is none, with the decimal sign of most."""
    import polars as pl

    frame = pl.DataFrame(texts)
    best, most = [], -1
    for sign in _signs(rows):
        cell = pl.all()
        if sign == ",":  # a point becomes what is no number
            cell = cell.str.replace(".", "point", literal=True)
            cell = cell.str.replace(",", ".", literal=True)
        found = frame.select(cell.cast(pl.Float64, strict=False).fill_nan(None)).get_columns()
        whole = sum(one.null_count() == text.null_count() for one, text in zip(found, texts))
        if whole > most:
            best, most = found, whole
    return best


def _signs(rows: Rows) -> tuple[str, ...]:
    """The decimal signs that the numbers of a file may have."""
    separator, decimal, _ = rows.dialect
    return (decimal, ",") if decimal == "." and separator != "," else (decimal,)


def _is_text(rows: Rows, texts: "pl.Series", parsed: "pl.Series") -> bool:
    """Whether a column is a category by its cells: below a header that names it, with no cell that
    is a number, in this notation or another."""
    name = rows.names[int(texts.name)] if rows.names else ""
    if not name or parsed.null_count() < len(parsed) or texts.null_count() == len(texts):
        return False
    return not texts.drop_nulls().str.contains(NOTATION).any()


def _category(name: str, texts: "pl.Series") -> Column:
    """A column of categories, whose values are sorted; a missing cell is one more.

    Raises:
        ValueError: for more than 1,000 values, or more than half as many as rows.
    """
    values = sorted(texts.drop_nulls().unique().to_list())
    if len(values) > min(MOST_CATEGORIES, max(20, len(texts) // 2)):
        raise ValueError(
            f"column {name!r} has {len(values):,} different values in {len(texts):,} rows, too "
            f"many for categories: leave it out with --leave-out {name!r}"
        )
    return Column(name, "category", (*values, "") if texts.null_count() else tuple(values))


def _numbers(rows: Rows, wanted: list[int]) -> np.ndarray | None:
    """Some columns as numbers (n, d), or None where a cell is missing or no number."""
    import polars as pl

    for sign in () if _has_lone_quotes(rows) else _signs(rows):
        # a decimal comma goes with points for thousands, which Polars would take for decimals
        if sign == "." or not any(b"." in line for line in rows.lines()):
            frame = _frame(rows, wanted, pl.Float64, sign == ",")
            if _is_full(frame):
                return _exact(frame.to_numpy(order="c"), rows, wanted)
    texts = _frame(_without_blank_lines(rows), wanted, pl.String)
    if not _is_full(texts):
        return None
    for sign in _signs(rows):
        cell = pl.all().str.strip_chars()
        if sign == ",":  # a point becomes what is no number
            cell = cell.str.replace(".", "point", literal=True)
            cell = cell.str.replace(",", ".", literal=True)
        frame = texts.select(cell.cast(pl.Float64, strict=False))
        if _is_full(frame):
            return _exact(frame.to_numpy(order="c"), rows, wanted)
    return None


def _has_lone_quotes(rows: Rows) -> bool:
    """Whether a cell may be a single quote, at which Polars panics if it is to be a number."""
    if isinstance(rows.source, Path):
        return False
    ends = (rows.dialect.separator.encode(), b"\n")
    lone = any(one + b'"' + other in rows.source for one in ends for other in ends)
    return lone or rows.source.endswith(tuple(one + b'"' for one in ends))


def _exact(table: np.ndarray, rows: Rows, wanted: list[int]) -> np.ndarray:
    """A table in float64, or in int64 where float64 would round an integer.

    Raises:
        ValueError: for a column of integers that float64 does not resolve beside other columns.
    """
    if table.size == 0 or max(table.max(), -table.min()) <= EXACT_INTEGERS:
        return table
    large = np.abs(table).max(0) > EXACT_INTEGERS
    cells = [_texts(rows, k) for k in wanted]
    whole = {
        k: np.array([int(cell) for cell in column])
        for k, column in enumerate(cells)
        if all(map(is_integer, column))
    }
    if len(whole) == len(wanted) and all(c.dtype.kind in "iu" for c in whole.values()):
        return np.stack([whole[k] for k in range(len(wanted))], 1)
    for k, column in whole.items():
        exact = column.dtype.kind in "iu"
        if large[k] and exact and unresolved(column[:, None], np.float64).any():
            raise ValueError(
                f"column {k} holds integers beyond 2^53 that vary by less than float64 can "
                "resolve: subtract its first value"
            )
    return table


def _fault(rows: Rows, numbers: Sequence[int], texts: Sequence[int], *, missing: bool) -> str:
    """The first row of another length, or cell that is no number or, unless cells may be
    `missing`, is missing, by its line."""
    lines = [line.decode() for line in rows.lines()]
    for last, row in cells_in(lines, rows.dialect.separator):
        line = rows.before + last
        if len(row) != rows.dialect.width:
            return f"line {line} has {cells_of(row)}, and most rows have {rows.dialect.width}"
        for column in sorted((*numbers, *texts)):
            cell, place = row[column].strip(), f"line {line}, column {rows.named(column)}"
            if cell in MISSING:
                if not missing:
                    return f"{place} is {f'missing, {cell!r}' if cell else 'empty'}: {FILL}"
            elif column in numbers and not rows.dialect.is_number(cell):
                return (
                    f"could not convert string {cell[:40]!r} to a number in {place}: correct it, "
                    "or train with --categorical or --leave-out and its name"
                )
    return "it has quotes that do not match, or numbers in several notations"
