"""Notations of numbers that tables are not read in.

A column of them is refused rather than taken for categories: 5 % and 6 % would be as far apart as
5 % and 90 %. What counts or dates as well as names, such as `1/2`, `12:30` or `5 kg`, may be a
category, and is pointed out.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_PLAIN = r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_PART = rf"({_PLAIN}|nan|inf)"
COMPLEX = rf"^(\(?[+-]?({_PART}[+-]{_PART}|{_PLAIN})[ij]\)?\s*)+$"
"""As Python and NumPy write them, `(1.0e+00+2.0e+00j)`; `j` is a letter."""
NOTATION = "|".join(
    [
        # a sign, thousands, a unit of money or a share, Fortran's exponent, an accountant's (5)
        r"^\(?[+\-−\s$€£¥₹₩₽₺]*[\s\d.,'’_%‰$€£¥₹₩₽₺]*\d[\s\d.,'’_%‰$€£¥₹₩₽₺]*([eEdD][+\-−]?\d+)?[)\-]?$",
        COMPLEX,
        r"^[+-]?0[xX][\da-fA-F]+\.?[\da-fA-F]*([pP][+-]?\d+)?$",
        rf"^[+\-−]?{_PLAIN}\s*[x×*·]\s*10\s*(\^|\*\*)?\s*[+\-−⁻]?[\d⁰¹²³⁴⁵⁶⁷⁸⁹]+$",
        r"^[+\-−]?∞$",
        rf"^(np\.\w+|tensor|array)\([+-]?{_PLAIN}\)$",  # what NumPy and torch print
    ]
)
AMBIGUOUS = r"^[~≈<>≤≥±+\-−]*\s*\d"
"""A text that begins as a number does."""


def is_complex(cell: str) -> bool:
    """Whether a cell holds complex numbers, by Python's own parser: a pattern would take long for
    a long cell."""
    parts = [part.removesuffix(")").removeprefix("(") for part in cell.split()]
    if not parts or not all(part[:-1] and part[-1] in "ij" for part in parts):
        return False
    try:
        return all(complex(part[:-1] + "j") is not None for part in parts)
    except ValueError:
        return False


def are_numbers(cells: "pl.Series") -> bool:
    """Whether any of some texts is a number in a notation that is not read."""
    return bool(cells.str.contains(NOTATION).any())


def ambiguous(values: Iterable[str]) -> bool:
    """Whether all of some texts begin with a number."""
    texts = [value for value in values if value]
    return len(texts) > 0 and all(re.match(AMBIGUOUS, text) for text in texts)
