r"""Sorting rows: torch's on any device, and NumPy's vectorised sort on a CPU.

NumPy sorts rows an order of magnitude faster than torch, in place and without holding the
interpreter's lock, so that threads share the work. For float32 the permutation comes with it: the
values are widened to float64, whose spare mantissa bits hold the index, and one sort gives both.
Equal values come in any order.

Source of the sort: Bramas, "A novel hybrid quicksort algorithm vectorized using AVX-512", 2017,
as in NumPy's x86-simd-sort.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

SPARE = 2**28 - 1
"""The mantissa bits of a float64 that a float32 leaves at 0, but for the one that would round."""
LEAST = 2**15
"""Values below which threads cost more than they save."""

_pool: ThreadPoolExecutor | None = None


def _sort(*arrays: np.ndarray) -> None:
    """Sorts the rows of arrays (k, n) in place, in as many threads as torch uses.

    Where there are fewer rows than threads, each is partitioned at its quantiles first, so that
    the threads share one row.
    """
    global _pool
    threads, count = torch.get_num_threads(), sum(map(len, arrays))
    if threads == 1 or sum(rows.size for rows in arrays) < LEAST:
        for rows in arrays:
            rows.sort(axis=-1)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(thread_name_prefix="monge-sort")
    parts = []
    for rows in arrays:
        k, n = rows.shape
        if count >= threads:
            shares = min(k, -(-threads * k // count))
            edges = [k * i // shares for i in range(shares + 1)]
            parts += [rows[i:j] for i, j in pairwise(edges)]
        else:
            edges = [n * i // threads for i in range(threads + 1)]
            inner = [edges[1:-1]] * k
            list(_pool.map(np.ndarray.partition, rows, inner))
            parts += [row[i:j] for row in rows for i, j in pairwise(edges)]
    list(_pool.map(lambda part: part.sort(axis=-1), parts))


def _vectorised(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def sort_(*tensors: Tensor) -> tuple[Tensor, ...]:
    r"""Sorts tensors (\*, n) over their last dimension in place; without gradient."""
    if not all(map(_vectorised, tensors)):
        return tuple(x.copy_(x.sort(-1).values) for x in tensors)
    rows = [x.contiguous() for x in tensors]
    _sort(*(x.view(-1, x.shape[-1]).numpy() for x in rows))
    return tuple(x if x is row else x.copy_(row) for x, row in zip(tensors, rows))


def sorted_with_order(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""x (\*, n) sorted over the last dimension, and the permutation, without gradient."""
    x = x.detach()
    if not _vectorised(x) or (x.dtype == torch.float32 and x.shape[-1] > SPARE):
        return torch.sort(x, -1)
    if x.dtype == torch.float64:
        order = torch.from_numpy(np.argsort(x.numpy(), axis=-1))
        return x.gather(-1, order), order
    keys = x.double().contiguous()
    bits = keys.view(torch.int64)
    bits |= torch.arange(x.shape[-1])
    _sort(keys.view(-1, x.shape[-1]).numpy())
    # the index is less than half a unit in float32's last place, so that it is rounded away
    return keys.float(), bits.bitwise_and_(SPARE)


class _Sort(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> tuple[Tensor, Tensor]:
        values, order = sorted_with_order(x)
        ctx.save_for_backward(order)
        ctx.mark_non_differentiable(order)
        return values, order

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        (order,) = ctx.saved_tensors
        return torch.zeros_like(gradients[0]).scatter(-1, order, gradients[0])


def sort(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""x (\*, n) sorted over the last dimension, and the permutation; twice differentiable."""
    return _Sort.apply(x)  # pyright: ignore
