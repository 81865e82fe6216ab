r"""Sorting rows: torch's on any device, and NumPy's vectorised sort for float32 on a CPU.

NumPy sorts float32 rows an order of magnitude faster than torch, in place and without holding
the interpreter's lock, so that threads share the rows. It returns no permutation; where one is
needed, the values are widened to float64, whose 29 spare mantissa bits hold the index: one sort
then gives both. Equal values come in any order.

Source of the sort: Bramas, "A novel hybrid quicksort algorithm vectorized using AVX-512", 2017,
as in NumPy's x86-simd-sort.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch
from torch import Tensor

SPARE = 2**29 - 1
"""The mantissa bits of a float64 that a float32 leaves at 0."""
LEAST = 2**15
"""Values below which threads cost more than they save."""

_pool: ThreadPoolExecutor | None = None


def _over_rows(work: Callable[[slice], None], rows: int, values: int) -> None:
    """Calls `work` on slices of the rows, in as many threads as torch uses."""
    global _pool
    threads = min(torch.get_num_threads(), rows)
    if threads == 1 or values < LEAST:
        work(slice(0, rows))
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(thread_name_prefix="monge-sort")
    edges = [rows * i // threads for i in range(threads + 1)]
    list(_pool.map(work, (slice(a, b) for a, b in pairwise(edges))))


def _vectorised(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.shape[-1] <= SPARE


def sorted_rows(x: Tensor) -> Tensor:
    r"""x (\*, n) sorted over the last dimension, without gradient."""
    if not _vectorised(x):
        return x.detach().sort(-1).values
    out = x.detach().clone(memory_format=torch.contiguous_format)
    rows = out.view(-1, x.shape[-1]).numpy()
    _over_rows(lambda part: rows[part].sort(axis=-1), len(rows), rows.size)
    return out


def sorted_with_order(x: Tensor) -> tuple[Tensor, Tensor]:
    r"""x (\*, n) sorted over the last dimension, and the permutation, without gradient."""
    if not _vectorised(x):
        return torch.sort(x.detach(), -1)
    keys = x.detach().double().contiguous()
    bits, rows = keys.view(torch.int64), keys.view(-1, x.shape[-1]).numpy()
    bits |= torch.arange(x.shape[-1])
    _over_rows(lambda part: rows[part].sort(axis=-1), len(rows), rows.size)
    order = bits & SPARE
    bits ^= order
    return keys.float(), order


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
