r"""Sums of kernels of the distance over all pairs of two samples, with their gradients.

    S = Σ_ij k(r_ij²),    k(r²) = Σ_t term_t(r²),    r_ij = ‖x_i - y_j‖,
    ∂S/∂x_i = 2 Σ_j w_ij (x_i - y_j) = 2 (x_i Σ_j w_ij - Σ_j w_ij y_j),    w = dk/d(r²).

A program holds BM rows of x and BD coordinates of their gradient, and visits some tiles of BN rows
of y one after another. In each tile it computes the squared distances (`distances`), from them all
terms and their slopes, adds them to sums in registers, and forgets the tile: memory is
O((n + m) d). For the gradient in y the samples change places. Where there are few rows, several
programs share the tiles of a row (`splits`), and torch adds up what they found, so that nothing
depends on the order in which they finish.

Within one sample each pair of tiles is visited once for the value alone, and twice for the
gradient, whose rows then need no sum across programs.

The product w y is formed like that of the distances, and the values and row sums Σ_j w_ij are
summed in float64 over tiles.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from monge._core.numerics import norms
from monge.gpu.distances import (
    DIFFERENCES,
    dot,
    is_in_range,
    is_resolved,
    squared_by_differences,
    squared_by_product,
    thresholds,
    tile,
)
from monge.gpu.launch import on, splits
from monge.gpu.terms import Term, TermKind

GROUP = 32
"""Tiles that are visited before those among them that were not resolved: bits of an integer."""

FEW = 16
"""Columns that are computed at a time where a tile was not resolved."""


@triton.jit
def reciprocal(base):
    """1 / base of values of at least 1."""
    if base.dtype == tl.float64:
        return 1 / base
    else:
        # a division takes twice the instructions
        inverse_root = tl.rsqrt(base)
        return inverse_root * inverse_root


@triton.jit
def value_and_slope(
    squared,
    table,
    GAUSSIANS: tl.constexpr,
    INVERSES: tl.constexpr,
    EXPONENTIALS: tl.constexpr,
    RATIONALS: tl.constexpr,
    DISTANCES: tl.constexpr,
):
    """k and dk/d(r²) of squared distances; a slope with a pole at 0 is 0 there."""
    # loops that stay loops: unrolled, their reciprocals in float64 would spill registers
    value, slope = tl.zeros_like(squared), tl.zeros_like(squared)
    for _ in range(GAUSSIANS):
        k = tl.load(table) * tl.exp(-tl.load(table + 1) * squared)
        value += k
        slope -= tl.load(table + 1) * k
        table += 3
    for _ in range(INVERSES):
        k = reciprocal(1 + tl.load(table + 1) * squared)
        value += tl.load(table) * k
        slope -= tl.load(table + 2) * (k * k)
        table += 3
    if EXPONENTIALS + DISTANCES > 0:
        distance = tl.sqrt(squared)
        half = tl.where(squared == 0, 0.0, 0.5 / tl.where(squared == 0, 1.0, distance))
        for _ in range(EXPONENTIALS):
            k = tl.load(table) * tl.exp(-tl.load(table + 1) * distance)
            value += k
            slope -= tl.load(table + 1) * k * half
            table += 3
        for _ in range(DISTANCES):
            value += tl.load(table) * distance
            slope += tl.load(table) * half
            table += 3
    for _ in range(RATIONALS):
        rate, power = tl.load(table + 1), tl.load(table + 2)
        base = 1 + rate * squared
        k = tl.load(table) * tl.exp2(-power * tl.log2(base))
        value += k
        slope -= power * rate * k / base
        table += 3
    return value, slope


@triton.jit
def weighted_differences(w, x, y, in_x, in_y, start, d, BD: tl.constexpr):
    """Σ_j w_ij (x_i - y_j) in coordinates start … start + BD, in the dtype of w."""
    part = start + tl.arange(0, BD)
    total = tl.zeros((x.shape[0], BD), w.dtype)
    for c in range(start, tl.minimum(start + BD, d)):
        x_c = tl.load(x + c, mask=in_x, other=0.0).to(w.dtype)
        y_c = tl.load(y + c, mask=in_y, other=0.0).to(w.dtype)
        sums = tl.sum(w * (x_c[:, None] - y_c[None, :]), 1)
        total += tl.where((part == c)[None, :], sums[:, None], 0.0)
    return total


@triton.jit
def pairs_of(rows, columns, in_x, in_y, SAME: tl.constexpr, MOVING: tl.constexpr):
    """The pairs of a tile that count: of one sample each once, or twice for a gradient."""
    valid = in_x[:, None] & in_y[None, :]
    if SAME:
        if MOVING:
            valid = valid & (rows[:, None] != columns[None, :])
        else:
            valid = valid & (rows[:, None] < columns[None, :])
    return valid


@triton.jit(do_not_specialize=["n", "m", "share"])
def sum_pairs(
    x,
    y,
    near_x,
    near_y,
    norms_x,
    norms_y,
    table,
    wide_table,
    values,
    gradients,
    n,
    m,
    d,
    share,
    SAME: tl.constexpr,
    MOVING: tl.constexpr,
    PRODUCT: tl.constexpr,
    GAUSSIANS: tl.constexpr,
    INVERSES: tl.constexpr,
    EXPONENTIALS: tl.constexpr,
    RATIONALS: tl.constexpr,
    DISTANCES: tl.constexpr,
    ROUNDING: tl.constexpr,
    LEAST: tl.constexpr,
    LARGEST: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
    FEW: tl.constexpr,
):
    """One row of tiles, or a share of it: grid (rows of tiles, splits, parts of BD coordinates).

    x, y: samples (n, d), (m, d); near_x, near_y: the same about a centre, with squared norms.
    table, wide_table: the terms in the dtype of x and in float64.
    values: float64 (rows of tiles, splits); gradients: (splits, n, d), half of them.
    share: tiles that a program visits. SAME: x is y, without its pairs of equal rows.
    """
    TYPE: tl.constexpr = x.dtype.element_ty
    row, split, start = tl.program_id(0), tl.program_id(1), tl.program_id(2) * BD
    rows = row * BM + tl.arange(0, BM)
    in_x = rows < n
    x_rows, near_rows = x + rows.to(tl.int64) * d, near_x + rows.to(tl.int64) * d
    squared_x = tl.load(norms_x + rows, mask=in_x, other=0.0)
    value, weights = tl.zeros((BM,), tl.float64), tl.zeros((BM,), tl.float64)
    gradient = tl.zeros((BM, BD), TYPE)
    first = split * share
    last = tl.minimum(first + share, tl.cdiv(m, BN))
    if SAME and not MOVING:
        first = tl.maximum(first, row * BM // BN)
    for group in range(first, last, GROUP):
        unresolved = 0
        for j in range(group, tl.minimum(group + GROUP, last)):
            columns = j * BN + tl.arange(0, BN)
            in_y = columns < m
            valid = pairs_of(rows, columns, in_x, in_y, SAME, MOVING)
            if PRODUCT:
                near_columns = near_y + columns.to(tl.int64) * d
                squared_y = tl.load(norms_y + columns, mask=in_y, other=0.0)
                squared = squared_by_product(
                    near_rows, near_columns, in_x, in_y, squared_x, squared_y, d, BK
                )
                right = is_resolved(squared, valid, squared_x, squared_y, ROUNDING, LEAST, LARGEST)
            else:
                y_rows = y + columns.to(tl.int64) * d
                squared, apart = squared_by_differences(x_rows, y_rows, in_x, in_y, d, TYPE)
                right = is_in_range(squared, apart, valid, LEAST, LARGEST)
            if right:
                k, w = value_and_slope(
                    squared, table, GAUSSIANS, INVERSES, EXPONENTIALS, RATIONALS, DISTANCES
                )
                value += tl.sum(tl.where(valid, k, 0.0), 1).to(tl.float64)
                if MOVING:
                    w = tl.where(valid, w, 0.0)
                    if PRODUCT:
                        weights += tl.sum(w, 1).to(tl.float64)
                        gradient -= dot(w, tile(near_columns, in_y, start, d, BD))
                    else:
                        gradient += weighted_differences(
                            w, x_rows, y_rows, in_x, in_y, start, d, BD
                        )
            else:
                unresolved = unresolved | (1 << (j - group))
        # apart from the others, and a few columns at a time: float64 takes many registers
        if unresolved != 0:
            for few in range(group * BN, tl.minimum(group + GROUP, last) * BN, FEW):
                if (unresolved >> (few // BN - group)) & 1 != 0:
                    columns = few + tl.arange(0, FEW)
                    in_y = columns < m
                    valid = pairs_of(rows, columns, in_x, in_y, SAME, MOVING)
                    y_rows = y + columns.to(tl.int64) * d
                    wide, _ = squared_by_differences(x_rows, y_rows, in_x, in_y, d, tl.float64)
                    wide_k, wide_w = value_and_slope(
                        wide, wide_table, GAUSSIANS, INVERSES, EXPONENTIALS, RATIONALS, DISTANCES
                    )
                    value += tl.sum(tl.where(valid, wide_k, 0.0), 1)
                    if MOVING:
                        wide_w = tl.where(valid, wide_w, 0.0)
                        gradient += weighted_differences(
                            wide_w, x_rows, y_rows, in_x, in_y, start, d, BD
                        ).to(TYPE)
    if start == 0:
        total = tl.sum(value, 0) * (2 if SAME and not MOVING else 1)
        tl.store(values + row * tl.num_programs(1) + split, total)
    if MOVING:
        gradient += weights.to(TYPE)[:, None] * tile(near_rows, in_x, start, d, BD)
        part = start + tl.arange(0, BD)
        place = (split * n + rows).to(tl.int64)[:, None] * d + part[None, :]
        tl.store(gradients + place, gradient, mask=in_x[:, None] & (part < d)[None, :])


class Tiles(NamedTuple):
    """Rows and columns of a tile, and the coordinates of a step of its product."""

    rows: int
    columns: int
    step: int


def tiles_for(device: torch.device, dtype: torch.dtype) -> Tiles:
    """What spills few registers: of Hopper the products read a tile from shared memory, of others
    each group of 16 rows keeps it in registers of its own."""
    if dtype == torch.float64:
        return Tiles(64, 32, 16)
    hopper = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9
    return Tiles(64, 64, 16) if hopper else Tiles(128, 32, 16)


ORDER = [
    TermKind.GAUSSIAN,
    TermKind.INVERSE,
    TermKind.EXPONENTIAL,
    TermKind.DISTANCE,
    TermKind.RATIONAL,
]
"""The order of a table's rows, which is that of the loops of `value_and_slope`."""


@functools.lru_cache(maxsize=64)
def _table(terms: tuple[Term, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """The terms in the order of `value_and_slope`; kept, so that a step copies nothing."""
    rows = [
        (t.weight, t.rate, t.power if t.kind is TermKind.RATIONAL else t.weight * t.rate)
        for kind in ORDER
        for t in terms
        if t.kind is kind
    ]
    return torch.tensor(rows or [(0.0, 0.0, 0.0)], dtype=dtype, device=device)


def _fits(terms: Sequence[Term]) -> bool:
    """Whether the constants leave room for their products in the range of float32."""
    numbers = [number for t in terms for number in (t.weight, t.rate, t.weight * t.rate)]
    return all(number == 0 or 1e-15 < abs(number) < 1e15 for number in numbers)


def _one_way(
    terms: tuple[Term, ...],
    points: tuple[Tensor, Tensor],
    near: tuple[Tensor, Tensor],
    same: bool,
    moving: bool,
    tiles: Tiles | None,
) -> tuple[Tensor, Tensor | None]:
    """The sum over all pairs and, if `moving`, its gradient in the first sample."""
    (x, y), ((near_x, norms_x), (near_y, norms_y)) = points, map(norms, near)
    (n, d), m = x.shape, len(y)
    tiles = tiles or tiles_for(x.device, x.dtype)
    rows, columns = triton.cdiv(n, tiles.rows), triton.cdiv(m, tiles.columns)
    width = min(max(16, triton.next_power_of_2(d)), 64)
    parts = triton.cdiv(d, width) if moving else 1
    count = splits(x.device, rows * parts, columns)
    values = x.new_empty((rows, count), dtype=torch.float64)
    gradients = x.new_empty((count, n, d) if moving else (1,))
    counts = {f"{kind.name}S": sum(term.kind is kind for term in terms) for kind in ORDER}
    kernel: Any = sum_pairs  # made subscriptable by Triton
    with on(x.device):
        kernel[(rows, count, parts)](
            x,
            y,
            near_x,
            near_y,
            norms_x,
            norms_y,
            _table(terms, x.device, x.dtype),
            _table(terms, x.device, torch.float64),
            values,
            gradients,
            n,
            m,
            d,
            triton.cdiv(columns, count),
            SAME=same,
            MOVING=moving,
            PRODUCT=d > DIFFERENCES,
            BM=tiles.rows,
            BN=tiles.columns,
            BD=width,
            BK=tiles.step,
            GROUP=GROUP,
            FEW=FEW,
            num_warps=8,
            # products of few steps have nothing to load ahead
            num_stages=1 if d <= width else 3,
            **counts,
            **thresholds(x.dtype),
        )
    total = values.sum()
    return total, 2 * gradients.sum(0) if moving else None


def sum_terms(
    terms: tuple[Term, ...],
    x: Tensor,
    y: Tensor | None,
    wanted: tuple[bool, bool],
    *,
    tiles: Tiles | None = None,
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
    """Σ_ij k(x_i, y_j), or Σ_{i≠j} k(x_i, x_j) where y is None, for k the sum of the terms.

    Args:
        terms: as `kernels.sums.terms_of` finds them.
        x: (n, d), float32 or float64.
        y: (m, d), or None.
        wanted: whether the gradients in x and in y are wanted.
        tiles: powers of 2 of at least 16; by default those of `tiles_for`.

    Returns:
        The sum in float64, and the gradients in the dtype of x.
    """
    dtype, same = x.dtype, y is None
    pairs = len(x) * (len(x) - 1) if y is None else len(x) * len(y)
    constant = sum(t.weight for t in terms if t.kind is TermKind.CONSTANT) * pairs
    x = x.contiguous()
    y = x if y is None else y.contiguous()
    if not _fits(terms):
        x, y = x.double(), y.double()
    centre = x.mean(0, dtype=torch.float64).to(x.dtype)
    near = (x - centre, y - centre)
    value, of_x = _one_way(terms, (x, y), near, same, wanted[0], tiles)
    of_y = None
    if same and of_x is not None:
        of_x = 2 * of_x  # of its points as rows and as columns
    if wanted[1]:
        _, of_y = _one_way(terms, (y, x), (near[1], near[0]), same, True, tiles)
    cast = [z if z is None else z.to(dtype) for z in (of_x, of_y)]
    return value + constant, (cast[0], cast[1])
