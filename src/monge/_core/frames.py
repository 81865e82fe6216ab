"""Columns of data frames, which are told apart by their names, whatever type these have.

scikit-learn compares names that are texts only. pandas numbers the columns of a frame that is made
of an array, and these come in another order as easily.
"""

from typing import Any

from torch import Tensor


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
