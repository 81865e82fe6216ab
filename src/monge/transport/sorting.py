r"""Sorting rows: torch's sort on any device, and NumPy's vectorised sort on a CPU.

NumPy sorts rows an order of magnitude faster than torch, in place and without holding the
interpreter's lock, so that threads share the work. For float32 the permutation comes with it: the
values are widened to float64, whose spare mantissa bits hold the index, and one sort gives both.
Equal values come in any order. `choose_sort` picks the implementation.

Source of the sort: Bramas, "A novel hybrid quicksort algorithm vectorized using AVX-512", 2017,
as in NumPy's x86-simd-sort.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monge._core.tuning import CPU, threads
from monge._core.typed import from_numpy, to_numpy

SPARE = 2**28 - 1
"""The mantissa bits of a float64 that a float32 leaves at 0, but for the one that would round."""

ABOVE_ZERO = 2.0**-1000
"""Stands for 0 among keys: below every float32, a normal number of float64, and a power of 2."""


class Sort(NamedTuple):
    """One implementation of both sorts; neither records a graph."""

    values_: Callable[..., tuple[Tensor, ...]]
    r"""Sorts tensors (\*, n) over their last dimension in place, and returns them."""
    with_order: Callable[[Tensor], tuple[Tensor, Tensor]]
    r"""x (\*, n) sorted over the last dimension and the permutation, both as new tensors."""


def choose_sort(*tensors: Tensor) -> Sort:
    """Picks how tensors (…, n) are sorted together.

    The rule: on a CPU float32 and float64 are sorted by NumPy. Its permutation is packed into the
    values of float32 rows of up to 2²⁸ - 1 values, and an argsort of float64 rows; torch sorts
    everything else.
    """
    x = tensors[0]
    dtypes = {z.dtype for z in tensors}
    if x.device.type != "cpu" or not dtypes <= {torch.float32, torch.float64}:
        return Sort(_torch_values_, _torch_with_order)
    if x.dtype == torch.float64:
        return Sort(_numpy_values_, _argsorted)
    return Sort(_numpy_values_, _packed if x.shape[-1] <= SPARE else _torch_with_order)


def sort_(*tensors: Tensor) -> tuple[Tensor, ...]:
    r"""Sorts tensors (\*, n) over their last dimension in place; without gradient."""
    return choose_sort(*tensors).values_(*tensors)


def sorted_with_order(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""x (\*, n) sorted over the last dimension, and the permutation, without gradient."""
    x = x.detach()
    return choose_sort(x).with_order(x)


def _torch_values_(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.copy_(x.sort(-1).values) for x in tensors)


def _torch_with_order(x: Tensor) -> tuple[Tensor, Tensor]:
    values, order = torch.sort(x, -1)
    return values, order


def _numpy_values_(*tensors: Tensor) -> tuple[Tensor, ...]:
    rows = [x.contiguous() for x in tensors]
    _sort_rows(*(to_numpy(x.view(-1, x.shape[-1])) for x in rows))
    return tuple(x if x is row else x.copy_(row) for x, row in zip(tensors, rows))


def _argsorted(x: Tensor) -> tuple[Tensor, Tensor]:
    order = from_numpy(np.argsort(to_numpy(x), axis=-1))
    return x.gather(-1, order), order


def _packed(x: Tensor) -> tuple[Tensor, Tensor]:
    # an index in the bits of 0 would be a denormal number, which a process may flush to 0
    keys = x.double().contiguous().add_(ABOVE_ZERO)
    bits = keys.view(torch.int64)
    bits |= torch.arange(x.shape[-1])
    _sort_rows(to_numpy(keys.view(-1, x.shape[-1])))
    # the index is less than half a unit in float32's last place, so that it is rounded away
    return keys.float(), bits.bitwise_and_(SPARE)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """The threads that share sorts, started by the first large sort."""
    return ThreadPoolExecutor(thread_name_prefix="monge-sort")


def _sort_rows(*arrays: NDArray[Any]) -> None:
    """Sorts the rows of arrays (k, n) in place, in as many threads as torch uses.

    Where there are fewer rows than threads, each is partitioned at its quantiles first, so that
    the threads share one row.
    """
    workers, count = threads(), sum(map(len, arrays))
    if workers == 1 or sum(rows.size for rows in arrays) < CPU.sort_values:
        for rows in arrays:
            rows.sort(axis=-1)
        return
    pool = _pool()
    shares: list[NDArray[Any]] = []
    for rows in arrays:
        k, n = rows.shape
        if count >= workers:
            pieces = min(k, -(-workers * k // count))
            edges = [k * i // pieces for i in range(pieces + 1)]
            shares += [rows[i:j] for i, j in pairwise(edges)]
        else:
            edges = [n * i // workers for i in range(workers + 1)]
            inner = [edges[1:-1]] * k
            list(pool.map(np.ndarray.partition, rows, inner))
            shares += [row[i:j] for row in rows for i, j in pairwise(edges)]
    list(pool.map(_sort_last, shares))


def _sort_last(rows: NDArray[Any]) -> None:
    rows.sort(axis=-1)


class _Sort(torch.autograd.Function):
    """A permutation of the values, whose gradient is that permutation undone: no optimum is
    involved, so this is not a case of `with_gradient`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        values, order = sorted_with_order(x)
        ctx.save_for_backward(order)
        ctx.mark_non_differentiable(order)
        return values, order

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (order,) = ctx.saved_tensors
        return torch.zeros_like(gradients[0]).scatter(-1, order, gradients[0])


def sort(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""x (\*, n) sorted over the last dimension, and the permutation; twice differentiable."""
    return _Sort.apply(x)  # pyright: ignore
