r"""Reductions of exp((f_i + g_j - C_ij)/ε) over the rows of a cost, without its matrix.

A program has a tile of rows and walks over the columns. Exponents are float64 throughout: those of
plans at small ε are differences of numbers a thousand times as large. For squared distances they
are products on the double-precision tensor cores of data-centre GPUs, which are as fast as single
precision without them; only the exponential itself is in the dtype that is asked for.

`monge.gpu.exponents` names the three ways in which a cost is given.

Source: Milakov, Gimelshein, "Online normalizer calculation for softmax", 2018, for the running
maximum; Feydy, Glaunès, Charlier, Bronstein, "Fast geometric learning with symbolic matrices",
2020, for reductions without a matrix.
"""

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from monge.gpu.exponents import Exponents
from monge.gpu.launch import on

ROWS, COLUMNS, DEPTH, WARPS = 64, 64, 32, 8
"""The sides of a tile, the coordinates that are multiplied at a time, and the warps of a tile."""


@triton.jit
def _squared_by_differences(left, right, i, j, n, m, d, stride_i, stride_j, squared):
    for c in range(0, d):
        x = tl.load(left + i * stride_i + c, mask=i < n, other=0.0)
        y = tl.load(right + j * stride_j + c, mask=j < m, other=0.0)
        gap = x[:, None] - y[None, :]
        squared += gap * gap
    return squared


@triton.jit
def _power(squared, p, P: tl.constexpr):
    if P == 2:
        power = squared
    elif P == 1:
        power = tl.sqrt(squared)
    else:
        away = tl.where(squared > 0, squared, 1.0)
        power = tl.where(squared > 0, tl.exp(tl.log(away) * (p / 2)), 0.0)
    return power


@triton.jit
def _inner_products(left, right, i, j, n, m, d, stride_i, stride_j, products, DEPTH: tl.constexpr):
    for c in range(0, d, DEPTH):
        k = c + tl.arange(0, DEPTH)
        x = tl.load(
            left + i[:, None] * stride_i + k[None, :],
            mask=(i < n)[:, None] & (k < d)[None, :],
            other=0.0,
        )
        y = tl.load(
            right + j[None, :] * stride_j + k[:, None],
            mask=(j < m)[None, :] & (k < d)[:, None],
            other=0.0,
        )
        products = tl.dot(x, y, acc=products, out_dtype=tl.float64)
    return products


@triton.jit
def _tile(
    left, right, v, u, i, j, n, m, d, stride_i, stride_k, stride_j, settings,
    GROUND: tl.constexpr, P: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Exponents of a tile and what they were made of: squared distances, products or costs."""
    epsilon, p = tl.load(settings), tl.load(settings + 1)
    start = tl.zeros((ROWS, COLUMNS), tl.float64)
    both = u[:, None] + tl.load(v + j, mask=j < m, other=-float("inf"))[None, :]
    if GROUND == 0:
        made = _inner_products(left, right, i, j, n, m, d, stride_i, stride_j, start, DEPTH)
        exponents = made + both
    elif GROUND == 1:
        made = _squared_by_differences(left, right, i, j, n, m, d, stride_i, stride_j, start)
        exponents = both - _power(made, p, P) / epsilon
    else:
        made = tl.load(
            left + i[:, None] * stride_i + j[None, :] * stride_k,
            mask=(i < n)[:, None] & (j < m)[None, :],
            other=0.0,
        ).to(tl.float64)
        exponents = both - made / epsilon
    return exponents, made


@triton.jit
def log_sum_exp_kernel(
    left, right, u, v, n, m, d, stride_i, stride_k, stride_j, settings, out,
    GROUND: tl.constexpr, P: tl.constexpr, SINGLE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """log Σ_j exp(e_ij) of a tile of rows, with a running maximum."""
    i = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    of_rows = tl.load(u + i, mask=i < n, other=0.0)
    most = tl.full((ROWS,), -float("inf"), tl.float64)
    total = tl.zeros((ROWS,), tl.float64)
    for first in range(0, m, COLUMNS):
        j = first + tl.arange(0, COLUMNS).to(tl.int64)
        exponents, _ = _tile(
            left, right, v, of_rows, i, j, n, m, d, stride_i, stride_k, stride_j, settings,
            GROUND, P, ROWS, COLUMNS, DEPTH,
        )  # fmt: skip
        higher = tl.maximum(most, tl.max(exponents, 1))
        below = exponents - higher[:, None]
        if SINGLE:
            below = below.to(tl.float32)
        part = tl.sum(tl.exp(below), 1).to(tl.float64)
        total = total * tl.exp(most - higher) + part
        most = higher
    tl.store(out + i, most + tl.log(total), mask=i < n)


@triton.jit
def gibbs_kernel(
    left, right, u, v, n, m, d, stride_i, stride_k, stride_j, settings, out,
    GROUND: tl.constexpr, P: tl.constexpr, SINGLE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """A tile of exp(e_ij), with zeros for what is at most the least."""
    # in one dimension of the grid, of which the others have at most 65,535 programs
    across = tl.cdiv(m, COLUMNS)
    i = (tl.program_id(0) // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    j = (tl.program_id(0) % across).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    of_rows = tl.load(u + i, mask=i < n, other=-float("inf"))
    exponents, _ = _tile(
        left, right, v, of_rows, i, j, n, m, d, stride_i, stride_k, stride_j, settings,
        GROUND, P, ROWS, COLUMNS, DEPTH,
    )  # fmt: skip
    if SINGLE:
        exponents = exponents.to(tl.float32)
    entries = tl.exp(exponents)
    entries = tl.where(entries > tl.load(settings + 2).to(entries.dtype), entries, 0.0)
    tl.store(out + i[:, None] * m + j[None, :], entries, mask=(i < n)[:, None] & (j < m)[None, :])


@triton.jit
def weighted_sums_kernel(
    left, right, u, v, n, m, d, stride_i, stride_k, stride_j, settings, values, out, width,
    GROUND: tl.constexpr, P: tl.constexpr, SINGLE: tl.constexpr, FACTOR: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Σ_j w_ij values_jk of a tile of rows and of coordinates k, w_ij = exp(e_ij) · factor."""
    i = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    k = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    of_rows = tl.load(u + i, mask=i < n, other=-float("inf"))
    sums = tl.zeros((ROWS, WIDTH), tl.float64)
    for first in range(0, m, COLUMNS):
        j = first + tl.arange(0, COLUMNS).to(tl.int64)
        exponents, made = _tile(
            left, right, v, of_rows, i, j, n, m, d, stride_i, stride_k, stride_j, settings,
            GROUND, P, ROWS, COLUMNS, DEPTH,
        )  # fmt: skip
        if SINGLE:
            exponents = exponents.to(tl.float32)
        weights = tl.exp(exponents).to(tl.float64)
        p = tl.load(settings + 1)
        if FACTOR == 1:
            away = tl.where(made > 0, made, 1.0)
            weights = tl.where(made > 0, weights * p * tl.exp(tl.log(away) * (p / 2 - 1)), 0.0)
        if FACTOR == 2:
            weights = weights * (made if GROUND == 2 else _power(made, p, P))
        some = tl.load(
            values + j[:, None] * width + k[None, :],
            mask=(j < m)[:, None] & (k < width)[None, :],
            other=0.0,
        )
        sums = tl.dot(weights, some, acc=sums, out_dtype=tl.float64)
    tl.store(
        out + i[:, None] * width + k[None, :],
        sums,
        mask=(i < n)[:, None] & (k < width)[None, :],
    )


def _constants(exponents: Exponents, dtype: torch.dtype) -> dict[str, object]:
    named = int(exponents.p) if exponents.p in (1, 2) else 0
    return {
        "GROUND": exponents.ground,
        "P": named,
        "SINGLE": dtype == torch.float32,
        "ROWS": ROWS,
        "COLUMNS": COLUMNS,
        "DEPTH": DEPTH,
        "num_warps": WARPS,
    }


def log_sum_exp(exponents: Exponents, dtype: torch.dtype) -> Tensor:
    """log Σ_j exp(e_ij), (n,), float64; the exponentials are in `dtype`."""
    out = torch.empty_like(exponents.rows)
    grid = (triton.cdiv(len(out), ROWS),)
    with on(out.device):
        log_sum_exp_kernel[grid](*exponents.arguments(), out, **_constants(exponents, dtype))
    return out


def write_gibbs_(kernel: Tensor, exponents: Exponents, least: float) -> None:
    """Writes exp(e_ij) into a contiguous matrix (n, m), with zeros below `least`."""
    grid = (triton.cdiv(kernel.shape[0], ROWS) * triton.cdiv(kernel.shape[1], COLUMNS),)
    constants = _constants(exponents, kernel.dtype)
    with on(kernel.device):
        gibbs_kernel[grid](*exponents.arguments(least), kernel, **constants)


def weighted_sums(exponents: Exponents, values: Tensor, factor: int, dtype: torch.dtype) -> Tensor:
    """Σ_j exp(e_ij) · factor_ij · values_jk as (n, width), of `values` (m, width), float64."""
    values = values.contiguous()
    n, width = len(exponents.rows), values.shape[1]
    out = values.new_empty(n, width)
    tile = min(64, max(16, triton.next_power_of_2(width)))
    grid = (triton.cdiv(n, ROWS), triton.cdiv(width, tile))
    constants = {**_constants(exponents, dtype), "FACTOR": factor, "WIDTH": tile}
    with on(out.device):
        weighted_sums_kernel[grid](*exponents.arguments(), values, out, width, **constants)
    return out
