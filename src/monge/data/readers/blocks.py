"""The rows of a text file a few megabytes at a time, each cell on a line of its own.

Polars takes several kilobytes for every column of a file that it reads, and more on more cores; of
one long column it takes what the cells do, however many columns the table has.
"""

from collections.abc import Iterator

import numpy as np

from monge.data.readers.dialect import Rows, cells_in

SIZE = 2**21
"""Bytes that are read at a time."""
NEWLINE, QUOTE, BLANKS = ord("\n"), ord('"'), (ord(" "), ord("\t"))


class Ragged(ValueError):
    """A row has another length than most."""


def blocks(rows: Rows) -> Iterator[tuple[int, bytes]]:
    """How many rows there are in each block, and their cells row by row, a line each.

    Raises:
        Ragged: for a row of another length than most.
    """
    separator, _, width = rows.dialect
    for content in _without_blank_end(rows) if width == 1 else _whole_rows(rows):
        count, cells = _cells(content, separator, width)
        if count:
            yield count, cells


def _whole_rows(rows: Rows) -> Iterator[bytes]:
    """The file below its header, in pieces that end where a row does."""
    kept, inside = [], False
    with rows.opened() as file:
        while block := file.read(SIZE):
            end, inside = _end(block, inside)
            if end:
                yield b"".join([*kept, block[:end]])
                kept = []
            kept.append(block[end:])
    if any(kept):
        yield b"".join(kept) + b"\n"


def _end(block: bytes, inside: bool) -> tuple[int, bool]:
    """Where the last row ends that ends in a block, which begins `inside` quotes or not, 0 where
    none does; and whether the block ends inside quotes."""
    if b'"' not in block:
        return 0 if inside else block.rfind(b"\n") + 1, inside
    last = odd = inside ^ (block.count(b'"') % 2 == 1)
    end = len(block)
    while (at := block.rfind(b"\n", 0, end)) >= 0:
        odd ^= block.count(b'"', at, end) % 2 == 1
        if not odd:
            return at + 1, last
        end = at
    return 0, last


def _without_blank_end(rows: Rows) -> Iterator[bytes]:
    """The pieces of a file of one column, whose blank lines are empty cells, but for those at its
    end."""
    blank: list[bytes] = []
    for content in _whole_rows(rows):
        end = len(content.rstrip(b" \t\n"))
        if end:
            end = content.index(b"\n", end) + 1
            yield b"".join([*blank, content[:end]])
            blank = []
        blank.append(content[end:])


def _cells(content: bytes, separator: str, width: int) -> tuple[int, bytes]:
    """How many rows there are in whole rows, and their cells; blank lines are left out, unless a
    row has a single cell."""
    if b'"' not in content and (count := _rows_of(content, separator, width)):
        return count, content.replace(separator.encode(), b"\n")
    letters = np.frombuffer(bytearray(content), np.uint8)
    ends = (letters == NEWLINE) | (letters == ord(separator))
    if b'"' in content:
        quotes = letters == QUOTE
        inside = np.logical_xor.accumulate(quotes)
        ends &= ~inside
        if not _are_around_cells(quotes, inside, ends):
            return _one_by_one(content, separator, width)
    places = np.flatnonzero(ends)
    last = np.flatnonzero(letters[places] == NEWLINE)
    lengths = np.diff(last, prepend=-1)
    if (lengths == width).all():
        letters[ends] = NEWLINE
        return len(lengths), letters.tobytes()
    starts = np.r_[0, places[last][:-1] + 1]
    filled = np.add.reduceat(~np.isin(letters, (NEWLINE, *BLANKS)), starts, dtype=np.int64)
    blank = (lengths == 1) & (filled == 0)
    if (lengths[~blank] != width).any():
        raise Ragged
    letters[ends] = NEWLINE
    kept = np.repeat(~blank, np.diff(np.r_[starts, len(letters)]))
    return int((~blank).sum()), letters[kept].tobytes()


def _rows_of(content: bytes, separator: str, width: int) -> int:
    """How many rows there are in a text without quotes, if all have one length, else 0."""
    letters = np.frombuffer(content, np.uint8)
    newlines = letters == NEWLINE
    ends = newlines[newlines | (letters == ord(separator))]
    count = len(ends) // width
    whole = count * width == len(ends) and ends[width - 1 :: width].all()
    return count if whole and np.count_nonzero(newlines) == count else 0


def _are_around_cells(quotes: np.ndarray, inside: np.ndarray, ends: np.ndarray) -> bool:
    """Whether quotes open where a cell begins, close where it ends, and are doubled within."""
    beside = ends | quotes
    opening, closing = quotes & inside, quotes & ~inside
    return bool(beside[:-1][opening[1:]].all() and beside[1:][closing[:-1]].all())


def _one_by_one(content: bytes, separator: str, width: int) -> tuple[int, bytes]:
    """`_cells` of a text with quotes inside cells that have none around them."""
    found = list[str]()
    count = 0
    for _, row in cells_in(content.decode().split("\n")[:-1], separator, width == 1):
        if len(row) != width:
            raise Ragged
        count += 1
        found += row
    cells = (f'"{x.replace(chr(34), 2 * chr(34))}"' if '"' in x or "\n" in x else x for x in found)
    return count, "".join(f"{cell}\n" for cell in cells).encode()
