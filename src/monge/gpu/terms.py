"""The terms that `pair_sums` sums over all pairs."""

import enum
from typing import NamedTuple


class TermKind(enum.Enum):
    """A term as a function of r = ‖x - y‖, in the order of a table's rows."""

    CONSTANT = "weight"
    GAUSSIAN = "weight · exp(-rate r²)"
    INVERSE = "weight / (1 + rate r²)"
    EXPONENTIAL = "weight · exp(-rate r)"
    RATIONAL = "weight · (1 + rate r²)^-power"
    DISTANCE = "weight · r"


class Term(NamedTuple):
    """A term of a kernel, in float64."""

    kind: TermKind
    weight: float
    rate: float = 0.0
    power: float = 0.0
