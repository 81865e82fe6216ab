r"""Transport between short rows on the line: W_p^p of equally many values, and its slopes.

A program sorts a row of each sample in registers. A value and its index share one integer of 64
bits, of which the upper half orders like the float32: a sort gives both, and equal values come in
the order of their indices. Then

    W_p^p = 1/n Σ_k |u_(k) - v_(k)|^p,    ∂W_p^p/∂u_(k) = p/n |u_(k) - v_(k)|^{p-1} sign,

and the slopes are written where the values were.
"""

from collections.abc import Sequence

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from monge.gpu.launch import on


@triton.jit
def _ordered(bits):
    """Integers that order like the floats of which these are the bits; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _sorted_with_order(rows, row, n, i):
    """A row in ascending order, padded by anything, and the permutation."""
    values = tl.load(rows + row * n + i, mask=i < n, other=0.0)
    keys = _ordered(values.to(tl.int32, bitcast=True)).to(tl.int64)
    keys = tl.where(i < n, (keys << 32) | i.to(tl.int64), 0x7FFFFFFFFFFFFFFF)
    keys = tl.sort(keys)
    values = _ordered((keys >> 32).to(tl.int32)).to(tl.float32, bitcast=True)
    return values, (keys & 0xFFFFFFFF).to(tl.int32)


@triton.jit
def matched_kernel(
    u, v, powers, of_u, of_v, n, p, P: tl.constexpr, U: tl.constexpr, V: tl.constexpr,
    N: tl.constexpr,
):  # fmt: skip
    """The power of a row, and the slopes in u and v where U and V say that they are wanted."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, N)
    one, order_u = _sorted_with_order(u, row, n, i)
    two, order_v = _sorted_with_order(v, row, n, i)
    gap = tl.where(i < n, one - two, 0.0)
    if P == 2:
        slope = gap
    else:
        away = tl.where(gap == 0.0, 1.0, tl.abs(gap))
        size = tl.exp((p - 1) * tl.log(away)) if P == 0 else tl.where(gap == 0.0, 0.0, 1.0)
        slope = tl.where(gap == 0.0, 0.0, tl.where(gap > 0.0, size, -size))
    total = tl.sum((gap * slope).to(tl.float64), 0)
    tl.store(powers + row, total / n)
    slope = slope * (p / n)
    if U:
        tl.store(of_u + row * n + order_u, slope, mask=i < n)
    if V:
        tl.store(of_v + row * n + order_v, -slope, mask=i < n)


def matched(
    u: Tensor, v: Tensor, p: float, wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """W_p^p of the rows of u and v (l, n), float64, and the slopes that are wanted, float32."""
    u, v = u.contiguous(), v.contiguous()
    rows, n = u.shape
    powers = torch.empty(rows, dtype=torch.float64, device=u.device)
    of_u, of_v = (torch.empty_like(z) if need else None for z, need in zip((u, v), wanted))
    with on(u.device):
        matched_kernel[(rows,)](
            u, v, powers, u if of_u is None else of_u, v if of_v is None else of_v, n, float(p),
            P=int(p) if p in (1, 2) else 0, U=wanted[0], V=wanted[1],
            N=triton.next_power_of_2(n),
        )  # fmt: skip
    return powers, [of_u, of_v]
