"""Results of functions: tensors, tuples of results, and accounts that hold tensors."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Account(Protocol):
    """A result that holds tensors among other things, such as a `Plan`."""

    def tensors(self) -> list[Tensor]:
        """All tensors, also those that are made on request."""
        ...

    def replaced(self, function: Callable[[Tensor], Tensor]) -> Any:
        """The account with `function` applied to each tensor, in the order of `tensors`."""
        ...

    def stacked(self, accounts: Sequence[Any]) -> Any:
        """One account of several, this one the first of them."""
        ...


def stacked(results: Sequence[Any]) -> Any:
    """The results of a batch of problems as one, with a leading dimension."""
    first = results[0]
    if isinstance(first, Tensor):
        return torch.stack(tuple(results))
    if isinstance(first, tuple):
        return _like(first, [stacked(field) for field in zip(*results)])
    return first.stacked(results)


def _like(example: tuple[Any, ...], fields: Sequence[Any]) -> Any:
    """A tuple, or a named tuple, of the example's type."""
    make = getattr(type(example), "_make", tuple)
    return make(fields)


def replaced(result: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A result with `function` applied to each of its tensors, in the order of `leaves`."""
    if isinstance(result, Tensor):
        return function(result)
    if isinstance(result, tuple):
        fields = cast(tuple[Any, ...], result)
        return _like(fields, [replaced(field, function) for field in fields])
    return result.replaced(function) if isinstance(result, Account) else result


def leaves(result: Any) -> list[Tensor]:
    """The tensors of a result."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, tuple):
        return [z for field in cast(tuple[Any, ...], result) for z in leaves(field)]
    return result.tensors() if isinstance(result, Account) else []
