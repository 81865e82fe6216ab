r"""The k nearest neighbours of each row of one sample among the rows of another, with indices.

A program holds BM queries, and their k best so far in registers. It visits tiles of BN rows of y
one after another; from each it takes the nearest rows as long as they are nearer than a query's
k-th best, which soon is rarely. Memory is O((n + m) d + n k). Of equally distant rows the one with
the smallest index is nearer. Where there are few queries, several programs share the tiles of y,
and torch merges what they found.

Squared distances are computed as `distances` describes; of sets of points in space always by
differences.
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from monge._core.numerics import norms
from monge.gpu.distances import (
    DIFFERENCES,
    is_in_range,
    is_resolved,
    squared_by_differences,
    squared_by_product,
    thresholds,
)
from monge.gpu.launch import on, splits

MOST = 16
"""The most neighbours that are kept in registers."""

MOST_SETS = 65_535
"""The most programs in the last dimension of a grid."""


@triton.jit
def keep_nearer(best, index, squared, columns):
    """The k best (BM, K) and their indices, after a tile (BM, BN) of rows with larger indices."""
    least = tl.min(squared, 1)
    worst = tl.max(best, 1)
    while tl.max((least < worst).to(tl.int32), 0) != 0:
        # of equals the first enters, and the last leaves
        here = tl.min(tl.where(squared == least[:, None], columns[None, :], 2147483647), 1)
        last = tl.max(tl.where(best == worst[:, None], index, -2147483647), 1)
        place = (best == worst[:, None]) & (index == last[:, None]) & (least < worst)[:, None]
        best = tl.where(place, least[:, None], best)
        index = tl.where(place, here[:, None], index)
        squared = tl.where(columns[None, :] == here[:, None], float("inf"), squared)
        least = tl.min(squared, 1)
        worst = tl.max(best, 1)
    return best, index


@triton.jit(do_not_specialize=["n", "m", "share"])
def search_tiles(
    x,
    y,
    near_x,
    near_y,
    norms_x,
    norms_y,
    distances,
    indices,
    n,
    m,
    d,
    k,
    share,
    PRODUCT: tl.constexpr,
    ROUNDING: tl.constexpr,
    LEAST: tl.constexpr,
    LARGEST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    K: tl.constexpr,
):
    """One row of tiles, or a share of it: grid (rows of tiles, splits, sets).

    x, y: sets (sets, n, d) and (sets, m, d); near_x, near_y: the same about a centre, with squared
    norms, read if PRODUCT. distances, indices: (sets, n, splits, k), in no order.
    """
    TYPE: tl.constexpr = x.dtype.element_ty
    split, one = tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    in_x = rows < n
    x_rows, near_rows = x + (one * n + rows) * d, near_x + (one * n + rows) * d
    squared_x = tl.zeros((BM,), TYPE)
    if PRODUCT:
        squared_x = tl.load(norms_x + one * n + rows, mask=in_x, other=0.0)
    slots = tl.arange(0, K)
    # slots beyond k stay empty: nothing is nearer than -inf
    best = tl.where(slots[None, :] < k, float("inf"), -float("inf")).to(TYPE)
    best = best + tl.zeros((BM, K), TYPE)
    index = tl.zeros((BM, K), tl.int32) - 1 - slots[None, :]
    for j in range(split * share, tl.minimum((split + 1) * share, tl.cdiv(m, BN))):
        columns = j * BN + tl.arange(0, BN)
        in_y = columns < m
        valid = in_x[:, None] & in_y[None, :]
        y_rows = y + (one * m + columns) * d
        if PRODUCT:
            near_columns = near_y + (one * m + columns) * d
            squared_y = tl.load(norms_y + one * m + columns, mask=in_y, other=0.0)
            squared = squared_by_product(
                near_rows, near_columns, in_x, in_y, squared_x, squared_y, d, BK
            )
            right = is_resolved(squared, valid, squared_x, squared_y, ROUNDING, LEAST, LARGEST)
        else:
            squared, apart = squared_by_differences(x_rows, y_rows, in_x, in_y, d, TYPE)
            right = is_in_range(squared, apart, valid, LEAST, LARGEST)
        if not right:
            wide, _ = squared_by_differences(x_rows, y_rows, in_x, in_y, d, tl.float64)
            squared = wide.to(TYPE)
        squared = tl.where(valid, squared, float("inf"))
        best, index = keep_nearer(best, index, squared, columns)
    place = (((one * n + rows) * tl.num_programs(1) + split) * k)[:, None] + slots[None, :]
    kept = in_x[:, None] & (slots < k)[None, :]
    tl.store(distances + place, best, mask=kept)
    tl.store(indices + place, index, mask=kept)


def _units(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Samples divided by a power of 2, and that power: their squares then stay in range."""
    largest = torch.maximum(x.abs().amax(), y.abs().amax())
    exponent = torch.frexp(largest).exponent.clamp(-120, 120)
    unit = torch.ldexp(torch.ones_like(largest), exponent)
    return x / unit, y / unit, unit


def _search(x: Tensor, y: Tensor, k: int, product: bool, block: int) -> tuple[Tensor, Tensor]:
    """The k nearest within each of some pairs of sets (sets, n, d) and (sets, m, d): squared
    distances and indices (sets, n, k), nearest first."""
    (sets, n, d), m = x.shape, y.shape[1]
    x, y, unit = _units(x.contiguous(), y.contiguous())
    near_x, norms_x, near_y, norms_y = x, x, y, y
    if product:
        centre = y[0].mean(0, dtype=torch.float64).to(x.dtype)
        (near_x, norms_x), (near_y, norms_y) = (norms((z - centre)[0]) for z in (x, y))
    rows, tiles = triton.cdiv(n, block), triton.cdiv(m, block)
    count = splits(x.device, rows * sets, tiles)
    squared = x.new_empty((sets, n, count * k))
    index = torch.empty((sets, n, count * k), dtype=torch.int32, device=x.device)
    kernel: Any = search_tiles  # made subscriptable by Triton
    with on(x.device):
        kernel[(rows, count, sets)](
            x,
            y,
            near_x,
            near_y,
            norms_x,
            norms_y,
            squared,
            index,
            n,
            m,
            d,
            k,
            triton.cdiv(tiles, count),
            PRODUCT=product,
            BM=block,
            BN=block,
            BK=16,
            K=triton.next_power_of_2(k),
            num_warps=8,
            **thresholds(x.dtype),
        )
    if count * k > 1:
        # by distance, and among equals by index
        index, order = index.sort(-1)
        squared, order = squared.gather(-1, order).sort(dim=-1, stable=True)
        squared, index = squared[..., :k], index.gather(-1, order[..., :k])
    return squared * unit.square(), index.clamp_min(0).long()


def nearest_rows(x: Tensor, y: Tensor, k: int, *, block: int = 64) -> tuple[Tensor, Tensor]:
    """The k ≤ `MOST` rows of y (m, d) nearest to each row of x (n, d), for k ≤ m.

    Returns:
        (squared distances, indices into y), both (n, k), nearest first.
    """
    squared, index = _search(x[None], y[None], k, x.shape[1] > DIFFERENCES, block)
    return squared[0], index[0]


def nearest_points(x: Tensor, y: Tensor, *, block: int = 64) -> Tensor:
    """The index in y (n, M, d) of the point nearest to each point of x (n, N, d), as (n, N)."""
    parts = zip(x.split(MOST_SETS), y.split(MOST_SETS))
    return torch.cat([_search(some, others, 1, False, block)[1][..., 0] for some, others in parts])
