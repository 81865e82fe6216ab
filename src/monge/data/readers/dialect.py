"""The dialect of a table in a text file: encoding, separator, decimal sign and header."""

import codecs
import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

from monge._core.visible import counted
from monge.data.readers.caps import demand_memory

NUMBER = re.compile(
    # possessive: of a long row of digits no part is tried again
    r"\s*+[+-]?((\d++\.?\d*+|\.\d++)(e[+-]?\d++)?|nan|inf(inity)?)\s*+",
    re.IGNORECASE | re.ASCII,
)
INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
DIALECTS = ((",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ","), ("|", "."), ("|", ","))
"""Separators with decimal signs, the first of those that fit equally well is taken."""
MOST_COLUMNS = 1_000_000
SAMPLE_LINES, SAMPLE_BYTES = 200, 2**20
THOUSANDS = re.compile(r"[+-]?\d{1,3}( \d{3})+([.,]\d+)?")
"""What may be one number whose thousands are separated by blanks, or several numbers."""
NO_TEXT = "\1"
"""A separator that no text contains."""


class Dialect(NamedTuple):
    """The notation of the cells of a file."""

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

    @property
    def signs(self) -> tuple[str, ...]:
        """The decimal signs that the numbers of the file may have: the dialect is chosen by its
        first rows."""
        other = self.decimal == "." and self.separator not in ", " and self.width > 1
        return (".", ",") if other else (self.decimal,)

    def is_number_in_any(self, cell: str) -> bool:
        """Whether a cell is a number with a decimal point or, unless it separates cells, comma."""
        if self.separator != "," and "." not in cell:
            cell = cell.replace(",", ".")
        return NUMBER.fullmatch(cell) is not None


@dataclass(frozen=True)
class Rows:
    """The rows of a file below its header."""

    source: Path | bytes
    """The file, or its content in UTF-8 with one newline between lines."""
    before: int
    """The number of lines before them."""
    dialect: Dialect
    names: list[str]
    """The names of all columns; empty without a header."""
    doubt: str = ""
    """The warning of a first row that may be names or a sample."""

    def named(self, column: int) -> str:
        """The name of a column in messages."""
        return repr(self.names[column]) if self.names else str(column)

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file, to be read from the first row on."""
        source = self.source
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            for _ in range(self.before):
                file.readline()
            yield file

    @cached_property
    def most(self) -> int:
        """At least as many rows as there are: as lines, and as bytes allow, each cell having one
        behind it."""
        lines, size = 1, 1
        with self.opened() as file:
            while block := file.read(2**20):
                lines, size = lines + block.count(b"\n"), size + len(block)
        return min(lines, size // self.dialect.width)

    def cells(self) -> Iterator[tuple[int, list[str]]]:
        """The line of the file where each row ends, and its cells."""
        with self.opened() as file:
            lines = (line.decode().removesuffix("\n") for line in file)
            if self.dialect.width == 1:
                lines = _without_blank_end(lines)
            for last, row in cells_in(lines, self.dialect.separator, self.dialect.width == 1):
                yield self.before + last, row


def _without_blank_end(lines: Iterable[str]) -> Iterator[str]:
    """Lines, without those at the end that are blank."""
    blank: list[str] = []
    for line in lines:
        blank.append(line)
        if line.strip():
            yield from blank
            blank = []


def opened(path: Path) -> tuple[Rows, str]:
    """The rows of a file below its header, if there is one, and its encoding where that is not
    UTF-8. Blanks around cells in quotes are gone.

    Raises:
        ValueError: for no text, a quote that is not closed, nothing at all, or a header of another
            length than the rows.
    """
    demand_memory(path.stat().st_size, "its cells")
    _demand_text(path)
    if _is_plain(path):  # Polars maps the file
        return _opened(path), ""
    content, encoding = _utf8(path.read_bytes())
    return _opened(_closed(content)), encoding


def _without_blanks_at_quotes(content: bytes, separator: str) -> bytes:
    """A text whose quotes begin and end their cells: Polars takes those behind a blank for a part
    of the cell."""
    sign = re.escape(separator.encode())
    if not re.search(rb'(?:^|[\n%b]) +"|" +(?:$|[\n%b])' % (sign, sign), content):
        return content
    cell = rb'(^|[\n%b]) *("(?:[^"]++|"")*+") *(?=$|[\n%b])' % (sign, sign)
    return re.sub(cell, rb"\1\2", content)


def _demand_text(path: Path) -> None:
    """Refuses a file whose beginning or end is not text, before it is read."""
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
        file.seek(max(0, path.stat().st_size - SAMPLE_BYTES))
        tail = file.read(SAMPLE_BYTES)
    # in UTF-16 every other byte may be 0, and no letter is of bytes 0 alone
    if any(4 * b"\0" in part for part in (head, tail)):
        raise ValueError("it holds bytes that are not text")


def _is_plain(path: Path) -> bool:
    """Whether a file is ASCII with single newlines and no quotes."""
    with path.open("rb") as file:
        while block := file.read(2**22):
            if not block.isascii() or any(sign in block for sign in (b"\r", b"\0", b"\1", b'"')):
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
        content = _in_utf8(content, encoding)
    elif not content.isascii():
        # five bytes stand for nothing in windows-1252
        for encoding in ("", "windows-1252", "latin-1"):
            with contextlib.suppress(UnicodeDecodeError):
                content = _in_utf8(content, encoding or "utf-8")
                break
    if b"\0" in content or NO_TEXT.encode() in content:
        raise ValueError("it holds bytes that are not text")
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return content, encoding


def _in_utf8(content: bytes, encoding: str) -> bytes:
    """A text in UTF-8; decoded in pieces, since Python takes up to four bytes a letter."""
    decoder, made = codecs.getincrementaldecoder(encoding)(), bytearray()
    for start in range(0, len(content), 2**20):
        made += decoder.decode(content[start : start + 2**20]).encode()
    made += decoder.decode(b"", final=True).encode()
    return bytes(made)


def cells_in(
    lines: Iterable[str], separator: str, blank: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The number of the last line of each row and its cells; `blank` lines are skipped or are
    empty cells."""
    reader = csv.reader(lines, delimiter=separator)
    try:
        for row in reader:
            if blank or len(row) > 1 or any(cell.strip() for cell in row):
                yield reader.line_num, row or [""]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def _first_lines(source: Path | bytes) -> list[str]:
    """The first whole lines, at least three if the file has them."""
    lines, size = [], 0
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        while len(lines) < SAMPLE_LINES and (size < SAMPLE_BYTES or len(lines) < 3):
            if not (line := file.readline()):
                break
            lines.append(line.decode().removesuffix("\n"))
            size += len(line)
    return lines


def _opened(source: Path | bytes) -> Rows:
    """The rows below the header, if there is one, and their dialect.

    Raises:
        ValueError: for nothing at all, or a header of another length than the rows.
    """
    lines = _first_lines(source)
    declared = re.fullmatch(r"sep=(.)", lines[0].strip(" "), re.IGNORECASE) if lines else None
    before = 1 if declared else 0  # Excel's first line
    while before < len(lines) and not lines[before].strip(" "):
        before += 1
    width = 1 + max((line.count(sign) for line in lines for sign in ",;\t|"), default=0)
    if width > MOST_COLUMNS:
        raise ValueError(f"a line has {width:,} cells, over the cap of {MOST_COLUMNS:,}")
    dialect = _dialect(lines[before:], declared[1] if declared else None)
    blanks = not declared and (
        dialect.width == 1
        or (dialect.separator == "," and not _names_all(lines[before:], dialect))
    )
    if blanks and (columns := _columns_in_blanks(lines[before:], before)):
        source = _with_single_blanks(source)
        lines, dialect = _first_lines(source), Dialect(" ", ".", columns)
    if isinstance(source, bytes):
        tidy = _without_blanks_at_quotes(source, dialect.separator)
        if tidy != source:
            return _opened(tidy)
    rows = list(cells_in(lines[before:], dialect.separator))
    if not rows:
        raise ValueError("it holds nothing")
    (last, first), body = rows[0], [row for _, row in rows[1:]]
    if not _is_header(first, body, dialect):
        return Rows(source, before, dialect, [], _doubt(first, body, is_header=False))
    if body and len(first) != dialect.width:
        raise ValueError(
            f"line {before + last} has {counted(len(first), 'cell')} and the rows below it have "
            f"{dialect.width}: name every column, or remove the line"
        )
    names = [name.strip() for name in first]
    names[0] = names[0].removeprefix("#").strip()  # as NumPy writes it
    if not body:
        dialect = dialect._replace(width=len(first))
    doubt = _doubt(first, body, is_header=True)
    return Rows(source, before + last, dialect, names, doubt)


def _columns_in_blanks(lines: list[str], before: int) -> int:
    """The number of columns that blanks separate, as `numpy.savetxt` writes them: at least two
    numbers in most rows below the first, equally many; 0 for any other table.

    Raises:
        ValueError: for such rows with decimal commas, or in which blanks may separate thousands.
    """
    rows = [(i, line.strip()) for i, line in enumerate(lines, before + 1) if line.strip()]
    rows = rows[1:] or rows
    widths = [_numbers_between_blanks(line) for _, line in rows]
    width, count = Counter(widths).most_common(1)[0] if rows else (0, 0)
    if width < 2 or 2 * count <= len(rows):
        return 0
    rows = [row for row, own in zip(rows, widths) if own == width]
    number, text = next(((i, line) for i, line in rows if "," in line), rows[0])
    if "," in text or all(THOUSANDS.fullmatch(line) for _, line in rows):
        raise ValueError(
            f"line {number}, {text[:80]!r}, may be several numbers with blanks between them, or "
            "numbers whose thousands are separated by blanks: separate the columns by semicolons "
            "or tabs, and leave blanks out"
        )
    return width


def _numbers_between_blanks(line: str) -> int:
    """How many numbers a line holds, with decimal points or commas; 0 if it holds a text."""
    cells = [cell for cell in line.split(" ") if cell]
    plain = (re.sub(r"(?<=\d),(?=\d)", ".", cell) for cell in cells)
    return len(cells) if all(map(NUMBER.fullmatch, plain)) else 0


def _names_all(lines: list[str], dialect: Dialect) -> bool:
    """Whether the first line names every column of a dialect, which is then not in doubt."""
    first = next((row for _, row in cells_in(lines, dialect.separator)), [])
    texts = (cell.split() or ["-"] for cell in first)
    return len(first) == dialect.width and not any(
        all(map(dialect.is_number_in_any, text)) for text in texts
    )


def _with_single_blanks(source: Path | bytes) -> bytes:
    """A text with one blank between cells, without any around rows and NumPy's # before names."""
    content = source.read_bytes() if isinstance(source, Path) else source
    if b'"' in content:
        raise ValueError(
            "its columns are separated by blanks and it has quotes: separate them by commas"
        )
    content = re.sub(rb"\A\s*# *", lambda found: b"\n" * found[0].count(b"\n"), content)
    while b"  " in content:  # ten times faster than a pattern, whatever the length of the runs
        content = content.replace(b"  ", b" ")
    return content.replace(b"\n ", b"\n").replace(b" \n", b"\n").strip(b" ")


def _dialect(lines: list[str], declared: str | None) -> Dialect:
    """The separator and decimal sign by which most rows have one length and most cells are
    numbers."""
    best, most = Dialect(",", ".", 1), (-1.0, False, -1)
    for separator, decimal in DIALECTS:
        if declared is not None and separator != declared:
            continue
        try:
            rows = [row for _, row in cells_in(lines, separator)]
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
    numbers = [dialect.is_number_in_any(cell) for cell in first]
    if not any(numbers):
        return any(cell.strip() for cell in first)
    body = [row for row in body if len(row) == len(first)]
    whole = all(map(is_integer, first))
    if not first[0].strip() and first[1:] == [str(i) for i in range(len(first) - 1)]:
        index = [row[0] for row in body]
        return bool(body) and len(set(index)) == len(index) and all(map(is_integer, index))
    fractions = len(body) > 2 and not any(is_integer(cell) for row in body for cell in row)
    return whole and len(set(first)) == len(first) > 1 and fractions


def _doubt(first: list[str], body: list[list[str]], *, is_header: bool) -> str:
    """The warning of a first row of integers that number the columns, or seem to."""
    if len(first) < 2 or not all(map(is_integer, first)):
        return ""
    some = ", ".join(first[:4]) + (", …" if len(first) > 4 else "")
    if is_header:
        return (
            f"its first row ({some}) is read as names of columns: if it is a sample, write it "
            f"with decimals, as {first[0].strip()}.0"
        )
    counts = _counts(first) and (int(first[0]) == 0 or len(first) > 2)
    if not body or not counts or any(map(_counts, body[:9])):
        return ""
    return (
        f"its first row ({some}) is read as a sample: if it names the columns, give them names "
        "that are not numbers"
    )


def _counts(row: list[str]) -> bool:
    """Whether a row is i, i + 1, i + 2, …"""
    return all(map(is_integer, row)) and [int(cell) - int(row[0]) for cell in row] == [
        *range(len(row))
    ]


def is_integer(cell: str) -> bool:
    """Whether a cell is an integer."""
    return INTEGER.fullmatch(cell) is not None
