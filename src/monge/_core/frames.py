"""Arrays and data frames of estimators with the interface of scikit-learn, without losses.

Columns of data frames are told apart by their names, whatever type these have. scikit-learn
compares names that are texts only. pandas numbers the columns of a frame that is made of an array,
and these come in another order as easily.
"""

from typing import Any

import numpy as np
from torch import Tensor

from monge._core.promotion import EXACT_INTEGERS, as_tensor


def columns(X: Any) -> list[Any]:
    """The names of the columns of a data frame; none for anything else."""
    return [] if isinstance(X, Tensor) else list(getattr(X, "columns", ()))


def refuse_reordered(names: list[Any], X: Any, name: str = "X") -> None:
    """Refuses a data frame that has the columns of the frame of a fit in another order.

    Args:
        names: those of the fit, none for an array.
        X: points to be moved or predicted at, or the second sample of the fit.
        name: of this argument.
    """
    there = {str(one): one for one in columns(X)}
    here = [str(one) for one in names]
    if here != list(there) and sorted(here) == sorted(there):
        way = [there[one] for one in here]
        raise ValueError(
            f"`{name}` has the columns {list(there.values())} where `X` of the fit has {names}: "
            f"reorder them, {name}[{way}]"
        )


def refuse_lossy(name: str, X: Any) -> None:
    """Refuses what scikit-learn would take with a loss, masked values and integers that float64
    does not tell apart, and complex numbers, of which it would write out all."""
    if np.ma.is_masked(X):
        raise ValueError(
            f"`{name}` has {np.ma.count_masked(X)} masked values: fill them, "
            f"{name}.filled(value), or leave their rows out"
        )
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise ValueError(f"`{name}` must have shape (n, d): {error}") from None
    if array.dtype.kind == "c" or (array.dtype.kind == "O" and any(map(_is_complex, array.flat))):
        raise ValueError(
            f"Complex data not supported: `{name}` must hold real numbers, got complex ones"
        )
    names = columns(X)
    # a frame's columns have types of their own, which the whole would round to one
    parts = [np.asarray(X[one]) for one in names] if len(set(names)) == len(names) else []
    if any(map(_is_lossy, parts or [array])):
        raise ValueError(
            f"`{name}` holds integers beyond 2⁵³, which floating point does not tell apart: "
            "subtract a common offset first"
        )


def _is_lossy(array: np.ndarray) -> bool:
    """Whether an array holds integers that float64 may round."""
    if array.dtype.kind == "O":
        return any(isinstance(one, int) and abs(one) >= EXACT_INTEGERS for one in array.flat)
    whole = array.dtype.kind in "iu" and array.size > 0
    return whole and max(int(array.max()), -int(array.min())) >= EXACT_INTEGERS


def _is_complex(one: Any) -> bool:
    return isinstance(one, (complex, np.complexfloating))


def real_array(name: str, X: Any) -> Any:
    """What scikit-learn can take without a loss: a tensor as an array, anything else as it is."""
    if isinstance(X, Tensor):
        return as_tensor(name, X).detach().double().cpu().numpy()
    refuse_lossy(name, X)
    return X
