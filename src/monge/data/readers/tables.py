"""Tables in text files, by Polars: a row a sample, in any of the dialects that programs write.

Polars parses numbers exactly rounded, over all cores, and fails where a cell is no number. It
does not look for the dialect, and fills short rows, so that both are seen to here.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monge._core.promotion import EXACT_INTEGERS
from monge.data.kinds import unresolved

NUMBER = re.compile(
    r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf(inity)?)\s*", re.IGNORECASE | re.ASCII
)
INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
DIALECTS = ((",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ","), ("|", "."), ("|", ","))
"""Separators with decimal signs, the first of those that fit equally well is taken."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LABELS = ("label", "class")
SAMPLE_LINES, SAMPLE_BYTES = 200, 2**20


class Dialect(NamedTuple):
    """How a file writes its cells."""

    separator: str
    decimal: str
    width: int
    """The cells of a row."""

    def is_number(self, cell: str) -> bool:
        """Whether a cell is a number."""
        if self.decimal == ",":
            if "." in cell:
                return False
            cell = cell.replace(",", ".")
        return NUMBER.fullmatch(cell) is not None


class Table(NamedTuple):
    """A table of numbers, with the names of its columns where the file gives them."""

    values: np.ndarray
    """(n, d), float64, or int64 where float64 would round an integer."""
    labels: np.ndarray | None
    columns: tuple[str, ...]
    summary: str


class _Rows(NamedTuple):
    """The rows of a file below its header."""

    source: Path | bytes
    """The file, or its content in UTF-8 with one newline between lines."""
    before: int
    """How many lines come before them."""
    dialect: Dialect
    names: list[str]
    """Of all columns; empty without a header."""

    def named(self, column: int) -> str:
        """How a message calls a column."""
        return repr(self.names[column]) if self.names else str(column)

    def lines(self) -> list[bytes]:
        """The lines of the rows, without their newlines."""
        source = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        return source.split(b"\n")[self.before :]


def read(path: Path) -> Table:
    """A table of numbers in a text file, separated by commas, semicolons, tabs or bars.

    A first row without any number is a header. Its column `label` or `class` holds classes of any
    type, and a first column without a name, of distinct integers or texts, is an index, which is
    left out.

    Raises:
        ValueError: for rows of unlike lengths, and cells that are empty or no numbers, by line.
    """
    if _is_plain(path):  # Polars maps the file
        source, encoding = path, ""
    else:
        content, encoding = _utf8(path.read_bytes())
        source = _closed(content)
    rows = _opened(source)
    names = [name.lower() for name in rows.names]
    labelled = [i for i, name in enumerate(names) if name in LABELS]
    texts = {i: _texts(rows, i) for i in labelled[:1]}
    index = _is_index(rows)
    rest = [i for i in range(rows.dialect.width) if i not in labelled and not (index and i == 0)]
    values = _values(rows, rest)
    separator, decimal, width = rows.dialect
    summary = f"read {len(values):,} rows of {len(rest):,} column{'s' * (len(rest) != 1)}"
    summary += " below a header" if rows.names else ""
    if width > 1:
        summary += f", separated by {SEPARATORS[separator]}"
    summary += ", with decimal commas" if decimal == "," else ""
    summary += f", in {encoding}" if encoding else ""
    left = [f"column {rows.named(i)}" for i in labelled[1:]] + ["the index column"] * index
    summary += f"; left out {', '.join(left)}" if left else ""
    columns = tuple(rows.names[i] for i in rest) if rows.names else ()
    return Table(values, texts[labelled[0]] if labelled else None, columns, summary)


def _is_plain(path: Path) -> bool:
    """Whether a file is ASCII with single newlines and no quotes."""
    with path.open("rb") as file:
        while block := file.read(2**22):
            if not block.isascii() or any(sign in block for sign in (b"\r", b"\0", b'"')):
                return False
    return True


def _closed(content: bytes) -> bytes:
    """A text whose quotes are all closed; Polars panics at the end of one where they are not.

    Raises:
        ValueError: naming the first line that has an odd number of them.
    """
    if content.count(b'"') % 2:
        lines = enumerate(content.split(b"\n"), 1)
        first = next(number for number, line in lines if line.count(b'"') % 2)
        raise ValueError(f"line {first} has a quote that is not closed")
    return content


def _utf8(content: bytes) -> tuple[bytes, str]:
    """A text in UTF-8, whatever its encoding was, and what that was if it was another."""
    encoding = ""
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
    elif content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif len(head := content[:200]) > 3 and head[1::2].count(0) > 0.9 * len(head[1::2]):
        encoding = "utf-16-le"
    elif len(head) > 3 and head[::2].count(0) > 0.9 * len(head[::2]):
        encoding = "utf-16-be"
    if encoding:
        content = content.decode(encoding).encode()
    elif not content.isascii():
        try:
            content.decode()
        except UnicodeDecodeError:
            encoding = "latin-1"
            content = content.decode(encoding).encode()
    if b"\0" in content:
        raise ValueError("it holds bytes that are no text")
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return content, encoding


def _cells(lines: Sequence[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the last line of each row and its cells; blank lines are skipped."""
    reader = csv.reader(lines, delimiter=separator)
    try:
        for row in reader:
            if len(row) > 1 or any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def _cells_of(row: list[str]) -> str:
    return "1 cell" if len(row) == 1 else f"{len(row):,} cells"


def _first_lines(source: Path | bytes) -> list[str]:
    """The first whole lines, at least three where there are so many."""
    lines, size = [], 0
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        while len(lines) < SAMPLE_LINES and (size < SAMPLE_BYTES or len(lines) < 3):
            if not (line := file.readline()):
                break
            lines.append(line.decode().removesuffix("\n"))
            size += len(line)
    return lines


def _opened(source: Path | bytes) -> _Rows:
    """The rows below the header, if there is one, and their dialect.

    Raises:
        ValueError: for nothing at all, or a header of another length than the rows.
    """
    lines = _first_lines(source)
    declared = re.fullmatch(r"sep=(.)", lines[0].strip(" "), re.IGNORECASE) if lines else None
    before = 1 if declared else 0  # Excel's first line
    dialect = _dialect(lines[before:], declared[1] if declared else None)
    rows = list(_cells(lines[before:], dialect.separator))
    if not rows:
        raise ValueError("it holds nothing")
    (last, first), body = rows[0], [row for _, row in rows[1:]]
    if not _is_header(first, body, dialect):
        return _Rows(source, before, dialect, [])
    if body and len(first) != dialect.width:
        raise ValueError(
            f"line {before + last} has {_cells_of(first)} and the rows below it have "
            f"{dialect.width}: name every column, or remove the line"
        )
    names = [name.strip() for name in first]
    names[0] = names[0].removeprefix("#").strip()  # as NumPy writes it
    if not body:
        dialect = dialect._replace(width=len(first))
    return _Rows(source, before + last, dialect, names)


def _dialect(lines: list[str], declared: str | None) -> Dialect:
    """The separator and decimal sign by which most rows have one length and most cells are
    numbers."""
    best, most = Dialect(",", ".", 1), (-1.0, False, -1)
    for separator, decimal in DIALECTS:
        if declared is not None and separator != declared:
            continue
        try:
            rows = [row for _, row in _cells(lines, separator)]
        except ValueError:  # one cell of a long line
            continue
        body = rows[1:] or rows
        if not body:
            continue
        width, count = Counter(map(len, body)).most_common(1)[0]
        if width == 1 and decimal == ",":
            continue  # without a separator beside it, a comma is one itself
        dialect = Dialect(separator, decimal, width)
        cells = [cell for row in body if len(row) == width for cell in row if cell.strip()]
        share = sum(map(dialect.is_number, cells)) / max(1, len(cells))
        score = (share * count / len(body), len(rows[0]) == width, width)
        if score > most:
            best, most = dialect, score
    return best


def _is_header(first: list[str], body: list[list[str]], dialect: Dialect) -> bool:
    """Whether the first row has no numbers, or integers that number the columns: of an index and
    columns 0, 1, … as pandas writes them, or above columns that hold no integers."""
    numbers = [dialect.is_number(cell) for cell in first]
    if not any(numbers):
        return any(cell.strip() for cell in first)
    body = [row for row in body if len(row) == len(first)]
    whole = all(map(_is_integer, first))
    if not first[0].strip() and first[1:] == [str(i) for i in range(len(first) - 1)]:
        index = [row[0] for row in body]
        return bool(body) and len(set(index)) == len(index) and all(map(_is_integer, index))
    fractions = len(body) > 2 and not any(_is_integer(cell) for row in body for cell in row)
    return whole and len(set(first)) == len(first) > 1 and fractions


def _is_integer(cell: str) -> bool:
    return INTEGER.fullmatch(cell) is not None


def _is_index(rows: _Rows) -> bool:
    """Whether the first column numbers or names the rows: one without a name of distinct integers
    or texts, or `index` of 0, 1, …"""
    name = rows.names[0].lower() if rows.names else None
    if name not in ("", "unnamed: 0", "index") or rows.dialect.width < 2:
        return False
    column = _texts(rows, 0)
    whole = all(map(_is_integer, column))
    if name == "index":
        return whole and column.tolist() == [str(i) for i in range(len(column))]
    texts = not any(map(rows.dialect.is_number, column))
    return (whole or texts) and len(set(column)) == len(column)


def _frame(rows: _Rows, wanted: Sequence[int], kind: Any, decimal_comma: bool = False) -> Any:
    """Some columns as Polars reads them, or None where it cannot, or leaves cells empty."""
    import polars as pl

    chosen = set(wanted)
    try:
        frame = pl.read_csv(
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
    return None if sum(frame.null_count().row(0)) else frame


def _without_blank_lines(rows: _Rows) -> _Rows:
    content = b"\n".join(line for line in rows.lines() if line.strip())
    return rows._replace(source=content, before=0)


def _texts(rows: _Rows, column: int) -> np.ndarray:
    """The cells of one column, without the blanks around them."""
    import polars as pl

    frame = _frame(rows, [column], pl.String)
    if frame is None:
        frame = _frame(_without_blank_lines(rows), [column], pl.String)
    if frame is None:
        raise ValueError(_fault(rows, [], [column]))
    return frame.to_series().str.strip_chars().to_numpy().astype(str)


def _values(rows: _Rows, wanted: list[int]) -> np.ndarray:
    """Some columns as numbers (n, d).

    Raises:
        ValueError: for a row of another length, or a cell that is empty or no number.
    """
    import polars as pl

    separator, decimal, _ = rows.dialect
    signs = (decimal, ",") if decimal == "." and separator != "," else (decimal,)
    for sign in () if _has_lone_quotes(rows) else signs:
        # a decimal comma goes with points for thousands, which Polars would take for decimals
        if sign == "." or not any(b"." in line for line in rows.lines()):
            frame = _frame(rows, wanted, pl.Float64, sign == ",")
            if frame is not None:
                return _exact(frame.to_numpy(order="c"), rows, wanted)
    texts = _frame(_without_blank_lines(rows), wanted, pl.String)
    if texts is None:
        raise ValueError(_fault(rows, wanted, []))
    for sign in signs:
        cell = pl.all().str.strip_chars()
        if sign == ",":  # a point becomes what is no number
            cell = cell.str.replace(".", "point", literal=True)
            cell = cell.str.replace(",", ".", literal=True)
        frame = texts.select(cell.cast(pl.Float64, strict=False))
        if not sum(frame.null_count().row(0)):
            return _exact(frame.to_numpy(order="c"), rows, wanted)
    raise ValueError(_fault(rows, wanted, []))


def _has_lone_quotes(rows: _Rows) -> bool:
    """Whether a cell may be a single quote, at which Polars panics if it is to be a number."""
    if isinstance(rows.source, Path):
        return False
    ends = (rows.dialect.separator.encode(), b"\n")
    lone = any(one + b'"' + other in rows.source for one in ends for other in ends)
    return lone or rows.source.endswith(tuple(one + b'"' for one in ends))


def _exact(table: np.ndarray, rows: _Rows, wanted: list[int]) -> np.ndarray:
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
        if all(map(_is_integer, column))
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


def _fault(rows: _Rows, numbers: Sequence[int], texts: Sequence[int]) -> str:
    """The first row of another length, or cell that is empty or no number, by its line."""
    separator, _, width = rows.dialect
    lines = [line.decode() for line in rows.lines()]
    for last, row in _cells(lines, separator):
        line = rows.before + last
        if len(row) != width:
            return f"line {line} has {_cells_of(row)}, and most rows have {width}"
        for column in (*numbers, *texts):
            cell = row[column]
            if not cell.strip():
                return (
                    f"line {line}, column {rows.named(column)} is empty: fill it in, or remove "
                    "the row"
                )
            if column in numbers and not rows.dialect.is_number(cell):
                return (
                    f"could not convert string {cell.strip()[:40]!r} to a number in line {line}, "
                    f"column {rows.named(column)}"
                )
    return "it has quotes that do not match, or numbers in several notations"
