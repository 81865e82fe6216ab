"""Tables in text files, by Polars: a row a sample, in any of the dialects that programs write."""

import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monge._core.promotion import EXACT_INTEGERS
from monge.config import DataConfig
from monge.config.schema import Column, Schema, number_columns
from monge.data.identity import combined, digests, digests_of_texts
from monge.data.readers.caps import demand_memory
from monge.data.readers.cells import (
    MISSING,
    as_numbers,
    classes_of,
    columns_of,
    fault_in,
    numbers_of,
    one_spelling,
    text_blocks,
    texts_of,
)
from monge.data.readers.dialect import Rows, is_integer, opened
from monge.data.readers.layout import too_many
from monge.data.readers.notation import ambiguous, are_numbers
from monge.data.resolution import COLUMN_RESOLUTION

if TYPE_CHECKING:
    import polars as pl

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
LABELS = ("label", "class")
MOST_CATEGORIES = 1000
FEWEST_COUNTED = 20
"""Rows from which on consecutive integers, each once, are no coincidence."""


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
    beside: tuple[str, ...]
    """The columns that are no part of samples, e.g. `column 'label'`."""


def read(path: Path, config: DataConfig | None = None) -> Table:
    """A table in a text file, separated by commas, semicolons, tabs or bars, or numbers by blanks.

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
    labels = classes_of(rows, labelled[0]) if labelled else None
    index = 0 in modelled and 0 not in categorical and _is_index(rows)
    rest = sorted(modelled - {*labelled} - ({0} if index else set()))
    if not rest:
        gone = [f"column {rows.named(i)}" for i in sorted({*left_out, *labelled})]
        gone += ["the index column"] * index
        raise ValueError(
            f"no column is left beside {', '.join(gone)}: classes, indices and columns that are "
            "left out are no part of samples"
        )
    missing = config.missing == "indicator"
    values, schema, contents, sign = _modelled(rows, rest, set(categorical), missing)
    notes = [rows.doubt] if rows.doubt else []
    if labels is not None:
        labels, spelled = one_spelling(labels)
        notes += spelled
    if labels is not None and (many := too_many(labels.tolist())):
        labels, notes = None, notes + many
    notes += _thousands(rows, schema, rest, values)
    if notes:
        warnings.warn(f"{str(path)!r}: {'; '.join(notes)}", stacklevel=2)
    left = [f"column {rows.named(i)}" for i in (*left_out, *labelled[1:])]
    left += ["the index column"] * index
    summary = _summary(rows, encoding, sign, len(values), schema, left)
    notes += _counters(rows, schema, rest, values)  # said, without a warning
    notes += [
        f"column {rows.named(i)} holds categories such as {column.values[0]!r}: if they are "
        "quantities, write plain numbers"
        for i, column in zip(rest, schema.columns)
        if column.kind == "category" and i not in categorical and ambiguous(column.values)
    ]
    beside = (*(f"column {rows.named(i)}" for i in labelled[:1]), *left)
    return Table(values, labels, schema, "; ".join([summary, *notes]), contents, beside)


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


def _summary(rows: Rows, encoding: str, sign: str, n: int, schema: Schema, left: list[str]) -> str:
    """One line on what was read, and what was left out."""
    separator, _, width = rows.dialect
    count = len(schema.columns)
    text = f"read {n:,} rows of {count:,} column{'s' * (count != 1)}"
    text += " below a header" if rows.names else ""
    if width > 1:
        text += f", separated by {SEPARATORS[separator]}"
    text += ", with decimal commas" if sign == "," else ""
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
    column = texts_of(rows, 0)
    whole = all(map(is_integer, column))
    if name == "index":
        return whole and column.tolist() == [str(i) for i in range(len(column))]
    texts = not any(map(rows.dialect.is_number, column))
    return (whole or texts) and len(set(column)) == len(column)


def _modelled(
    rows: Rows, wanted: list[int], categorical: set[int], missing: bool
) -> tuple[np.ndarray, Schema, np.ndarray | None, str]:
    """Some columns as elements of samples (n, d'), what they are, the digests of their cells where
    these are not the elements, and the decimal sign.

    Args:
        categorical: columns that are categories whatever they hold.
        missing: whether cells may be missing.

    Raises:
        ValueError: for a row of another length, a cell that is missing or no number, a category of
            too many values, or a column without any cell.
    """
    names = [rows.names[i] if rows.names else str(i) for i in wanted]
    if not categorical:
        table, sign = _numbers(rows, wanted)
        if table is not None and not np.isnan(table).any():
            return table, Schema(tuple(number_columns(table, names)), bool(rows.names)), None, sign
    import polars as pl

    parsed, absent, sign = _parsed(rows, wanted)
    n, gaps, unread = len(parsed), absent.sum(0), np.isnan(parsed).sum(0)
    where = {i: k for k, i in enumerate(wanted)}
    if n and len(empty := np.flatnonzero(gaps == n)) and missing:
        raise ValueError(
            f"column {rows.named(wanted[empty[0]])} is empty in every row: remove it, or train "
            f"with --leave-out {shlex.quote(names[empty[0]])}"
        )
    maybe = [
        i
        for i in wanted
        if i in categorical or (names[where[i]] and rows.names and unread[where[i]] == n)
    ]
    texts = {
        i: column.set(column.is_in(MISSING), None)
        for i, column in zip(maybe, columns_of(rows, maybe))
        if i in categorical or _is_text(column)
    }
    bad = [i for i in wanted if i not in texts and unread[where[i]] > gaps[where[i]]]
    numbers = [i for i in wanted if i not in texts]
    beyond = np.isinf(parsed[:, [where[i] for i in numbers]]).any()
    if bad or (not missing and gaps.any()) or beyond:
        raise ValueError(fault_in(rows, numbers, sorted(texts), missing=missing))
    columns = []
    for i, name in zip(wanted, names):
        if i in texts:
            columns.append(_category(name, texts[i]))
        else:
            columns += number_columns(parsed[:, [where[i]]], [name])
    schema = Schema(tuple(columns), bool(rows.names))
    demand_memory(8 * n * schema.width, f"{n:,} rows of {schema.width:,} elements")
    digest = [
        digests_of_texts(texts[i].fill_null("").to_list())
        if i in texts
        else digests(parsed[:, where[i]])
        for i in wanted
    ]
    contents = combined(*digest)
    del digest
    values, step = np.empty((n, schema.width)), max(1, 2**18 // len(wanted))
    for start in range(0, n, step):
        part = slice(start, start + step)
        cells = [
            texts[i][part].alias(str(i))
            if i in texts
            else pl.Series(str(i), parsed[part, where[i]], nan_to_null=True)
            for i in wanted
        ]
        values[part] = schema.encode(pl.DataFrame(cells))
    return values, schema, contents, sign


def _thousands(rows: Rows, schema: Schema, wanted: Sequence[int], values: np.ndarray) -> list[str]:
    """Notes on columns whose numbers may have separators of thousands, which are read as decimal
    signs: three digits behind each, and no number of 1,000 or more."""
    suspects = [
        i
        for i, column, block in zip(wanted, schema.columns, schema.blocks)
        if column.kind == "float" and _may_be_thousands(values[:, block.start], column.fill)
    ]
    said = []
    for i, cells in zip(suspects, columns_of(rows, suspects)):
        cells = cells.filter(~cells.is_in(MISSING))
        signed = cells.filter(cells.str.contains(r"^[+-]?[1-9]\d{0,2}[.,]\d{3}$"))
        plain = cells.str.contains(r"^[+-]?\d{1,3}$").sum()
        if len(signed) + plain < len(cells) or len(signed) < 2:
            continue
        if plain or "," in signed[0]:  # points with three digits behind each are common
            said.append(
                f"column {rows.named(i)} may separate thousands, and {signed[0]} is read as "
                f"{signed[0].replace(',', '.')}: if it is a thousand, leave the sign out"
            )
    return said


def _counters(rows: Rows, schema: Schema, wanted: Sequence[int], values: np.ndarray) -> list[str]:
    """Notes on columns that number the rows, as identifiers do, with consecutive integers."""
    n, said = len(values), []
    for i, column, block in zip(wanted, schema.columns, schema.blocks):
        if n < FEWEST_COUNTED or column.kind == "category" or column.fill is not None:
            continue
        x = values[:, block.start]
        if x.max() - x.min() == n - 1 and np.array_equal(np.sort(x), x.min() + np.arange(n)):
            name = rows.names[i] if rows.names else str(i)
            said.append(
                f"column {rows.named(i)} numbers the rows and is modelled like any other column: "
                f"if it is an identifier, leave it out with --leave-out {shlex.quote(name)}"
            )
    return said


def _may_be_thousands(x: np.ndarray, fill: float | None) -> bool:
    """Whether numbers are integers below 1,000, or have three decimals and are at least 1; the
    first mostly decide."""
    for part in (x[:100], x):
        part = abs(part if fill is None else part[part != fill])
        if not (part < 1000).all():
            return False
        whole = part == np.rint(part)
        thousandths = abs(1000 * part - np.rint(1000 * part)) < 1e-6
        if not (whole | (thousandths & (part >= 1))).all():
            return False
    return True


def _parsed(rows: Rows, wanted: list[int]) -> tuple[np.ndarray, np.ndarray, str]:
    """Some columns as numbers (n, d), NaN where a cell is none, with the decimal sign that most
    columns are written with; and which cells are missing (n, d)."""
    best, absent, chosen, most = np.empty((0, len(wanted))), np.empty(0, bool), "", -1
    for sign in rows.dialect.signs:
        values = np.empty((rows.most, len(wanted)))
        gone, count = np.empty(values.shape, bool), 0
        for cells in text_blocks(rows, wanted):
            cells = cells.set(cells.is_in(MISSING), None)
            n = len(cells) // len(wanted)
            part = slice(count, count + n)
            values[part] = as_numbers(cells, sign).to_numpy().reshape(n, -1)
            gone[part] = cells.is_null().to_numpy().reshape(n, -1)
            count += n
        values, gone = values[:count], gone[:count]
        whole = int((np.isnan(values).sum(0) == gone.sum(0)).sum())
        if whole > most:
            best, absent, chosen, most = values, gone, sign, whole
    return best, absent, chosen


def _is_text(cells: "pl.Series") -> bool:
    """Whether cells of which none is a number are texts, and no numbers in another notation."""
    cells = cells.filter(~cells.is_in(MISSING))
    return len(cells) > 0 and not are_numbers(cells)


def _category(name: str, texts: "pl.Series") -> Column:
    """A column of categories, whose values are sorted; a missing cell is one more.

    Raises:
        ValueError: for more than 1,000 values, or more than half as many as rows.
    """
    values = sorted(texts.drop_nulls().unique().to_list())
    if len(values) > min(MOST_CATEGORIES, max(20, len(texts) // 2)):
        raise ValueError(
            f"column {name!r} has {len(values):,} different values in {len(texts):,} rows, too "
            f"many for categories: remove it, or train with --leave-out {shlex.quote(name)}"
        )
    return Column(name, "category", (*values, "") if texts.null_count() else tuple(values))


def _numbers(rows: Rows, wanted: list[int]) -> tuple[np.ndarray | None, str]:
    """Some columns as numbers (n, d), or None where a cell is missing or no number; and their
    decimal sign."""
    for sign in rows.dialect.signs:
        if (table := numbers_of(rows, wanted, sign)) is not None:
            return _exact(table, rows, wanted), sign
    return None, ""


def _exact(table: np.ndarray, rows: Rows, wanted: list[int]) -> np.ndarray:
    """A table in float64, or in int64 where float64 would round an integer.

    Raises:
        ValueError: for a cell beyond float64, and for a column of integers that float64 does not
            resolve beside other columns.
    """
    if np.isinf(table).any():
        raise ValueError(fault_in(rows, wanted, [], missing=True))
    if table.size == 0 or max(table.max(), -table.min()) <= EXACT_INTEGERS:
        return table
    large = np.abs(table).max(0) > EXACT_INTEGERS
    whole = {
        k: [int(cell) for cell in column]
        for k, column in enumerate(columns_of(rows, wanted))
        if all(map(is_integer, column))
    }
    if len(whole) == len(wanted):
        least, most = min(map(min, whole.values())), max(map(max, whole.values()))
        for dtype in (np.int64, np.uint64):
            if np.iinfo(dtype).min <= least and most <= np.iinfo(dtype).max:
                return np.stack([np.array(column, dtype) for column in whole.values()], 1)
    for k, column in whole.items():
        if large[k] and _is_lost(column):
            raise ValueError(
                f"column {rows.named(wanted[k])} holds integers beyond 2^53 that vary by less "
                "than float64 can resolve: subtract its first value"
            )
    return table


def _is_lost(column: list[int]) -> bool:
    """Whether float64 does not resolve a column of integers of any size."""
    least = min(column)
    deviation = np.std([float(value - least) for value in column])
    spacing = np.spacing(float(max(map(abs, column))))
    return len(set(column)) > 1 and bool(spacing > COLUMN_RESOLUTION * deviation)
