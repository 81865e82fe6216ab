"""The range of seeds: one rule for settings, which are read without torch, and for functions."""

from numbers import Integral

SEEDS = "an integer from -2**63 to 2**63 - 1"


def is_seed(value: object) -> bool:
    """Whether a value is a signed integer of 64 bits, of Python or of NumPy."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        return False
    return -(2**63) <= int(value) < 2**63
