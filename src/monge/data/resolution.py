"""The choice of a floating dtype for samples, by its range and its resolution of columns."""

from typing import Any

import numpy as np

from monge._core.promotion import EXACT_INTEGERS

COLUMN_RESOLUTION = 1e-5
"""A dtype resolves a column if its values are at most this many standard deviations apart."""


def in_float32(samples: np.ndarray, name: str) -> np.ndarray:
    """An array in float32, if that holds its values."""
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(samples, dtype=np.float32)
    if not np.isfinite(single).all():
        raise ValueError(f"{name!r} holds values beyond float32, up to {abs(samples).max():.4g}")
    return single


def unresolved(table: np.ndarray, dtype: type[np.floating[Any]]) -> np.ndarray:
    """Which columns of a table (n, d) a dtype rounds by more than `COLUMN_RESOLUTION` of their
    standard deviation, (d,)."""
    step = max(1, 2**20 // len(table))  # of a few columns at a time: it makes several copies
    parts = [table[:, k : k + step] for k in range(0, table.shape[1], step)]
    return np.concatenate([_unresolved(part, dtype) for part in parts])


def _unresolved(table: np.ndarray, dtype: type[np.floating[Any]]) -> np.ndarray:
    wide = table.astype(np.float64)
    inexact = (wide.astype(dtype) != wide).any(0)
    if table.dtype.kind in "iu":  # differences modulo 2^64 are exact where float64 is not
        inexact |= (abs(wide) > EXACT_INTEGERS).any(0)
        whole = table.astype(np.uint64)
        offsets = (whole - table.min(0).astype(np.uint64)).astype(np.float64)
    else:
        offsets = wide - wide[0]
    magnitude = abs(wide).max(0)
    lost = np.spacing(magnitude.astype(dtype)) > COLUMN_RESOLUTION * np.std(offsets, 0)
    # float64 is the last resort, and all that it could lose of a constant column is a rounding
    return inexact & lost & (offsets.any(0) | (dtype is not np.float64))
