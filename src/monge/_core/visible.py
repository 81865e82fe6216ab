"""Texts of strangers, such as names of files, classes and columns, on a terminal and in pages."""

import re

UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Characters that move or hide others: controls, directions, separators of lines, halves of
surrogate pairs, which stand for bytes that are no UTF-8."""
BYTES = re.compile("[\udc80-\udcff]+")
"""How Python writes bytes of a name that the encoding of the file system lacks."""
MARKS = re.compile(r"[\\`*\[\]<>|~$]|(?<![^\W_])_|_(?![^\W_])")


def visible(text: str) -> str:
    """A text in one line, its control characters as escapes, e.g. `\\x1b` for ESC.

    Bytes of a name that the encoding of the file system lacks are read as UTF-8, if they are.
    """
    text = BYTES.sub(lambda found: _as_utf8(found[0]), text)
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _as_utf8(escaped: str) -> str:
    return escaped.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def visible_lines(text: str) -> str:
    """A text whose lines stay lines, each `visible`."""
    return "\n".join(map(visible, text.split("\n")))


def brief(text: str, most: int = 100) -> str:
    """A text in one line of at most `most` characters, the middle left out."""
    text = visible(" ".join(text.split()))
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def counted(n: int, noun: str) -> str:
    """How many of something there are: `1 sample`, `1,500 samples`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def markdown(text: str) -> str:
    """A text that Markdown shows as it is, in one line or in a cell of a table."""
    return MARKS.sub(r"\\\g<0>", visible(" ".join(text.split())))
