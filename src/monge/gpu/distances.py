r"""Squared distances of a tile of pairs, for the kernels that visit all pairs of two samples.

    ‖x_i - y_j‖² = ‖x_i‖² + ‖y_j‖² - 2 x_i·y_j,

about a common centre, with the product on the tensor cores, is right to `ACCURACY` for a pair
that is not much closer than its points are to the centre. Each tile of BM rows and BN columns
compares its least squared distance with the rounding error of its largest norms, and is computed
anew where it does not pass: from differences of coordinates, in float64. In a few dimensions
differences cost no more than the product, and are taken from the start.

float32 products take three passes in TF32, which keep about 22 bits of each factor, and float64
products the tensor cores of float64.
"""

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from monge._core.numerics import RESOLVED

DIFFERENCES = 8
"""The most dimensions in which differences are taken from the start. In so few, tiles of large
samples hold pairs that a product does not resolve."""
ULPS = 4
"""Rounding error of a product, in units of the last place: tensor cores truncate their sums."""


def thresholds(dtype: torch.dtype) -> dict[str, float]:
    """The constants of `is_resolved` and `is_in_range`."""
    info, accuracy = torch.finfo(dtype), RESOLVED[dtype]
    return {
        "ROUNDING": ULPS * info.eps / accuracy,
        "LEAST": info.tiny / info.eps / accuracy,
        "LARGEST": info.eps * info.max,
    }


@triton.jit
def leading_bits(a):
    """float32 values without the 13 bits that TF32 leaves out."""
    return (a.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def dot(a, b):
    """a @ b in the accuracy of its dtype."""
    if a.dtype == tl.float64:
        return tl.dot(a, b, out_dtype=tl.float64)
    else:
        # as `tf32x3`, without its care for infinite factors, which costs as much again
        leading_a, leading_b = leading_bits(a), leading_bits(b)
        product = tl.dot(leading_a, b - leading_b, input_precision="tf32")
        product = tl.dot(a - leading_a, leading_b, product, input_precision="tf32")
        return tl.dot(leading_a, leading_b, product, input_precision="tf32")


@triton.jit
def tile(rows, inside, start, d, BD: tl.constexpr):
    """Coordinates start … start + BD of some rows, given by pointers to their first; 0 beyond."""
    part = start + tl.arange(0, BD)
    return tl.load(
        rows[:, None] + part[None, :], mask=inside[:, None] & (part < d)[None, :], other=0.0
    )


@triton.jit
def squared_by_product(x, y, in_x, in_y, squared_x, squared_y, d, BK: tl.constexpr):
    """‖x_i - y_j‖² of rows about a centre, BK coordinates at a time."""
    product = tl.zeros((x.shape[0], y.shape[0]), squared_x.dtype)
    for start in range(0, d, BK):
        product += dot(tile(x, in_x, start, d, BK), tl.trans(tile(y, in_y, start, d, BK)))
    return tl.maximum(squared_x[:, None] + squared_y[None, :] - 2 * product, 0.0)


@triton.jit
def squared_by_differences(x, y, in_x, in_y, d, TYPE: tl.constexpr):
    """‖x_i - y_j‖², and max_c |x_ic - y_jc|, which tells equal points from close ones."""
    squared = tl.zeros((x.shape[0], y.shape[0]), TYPE)
    apart = tl.zeros((x.shape[0], y.shape[0]), TYPE)
    for c in range(0, d):
        x_c = tl.load(x + c, mask=in_x, other=0.0).to(TYPE)
        y_c = tl.load(y + c, mask=in_y, other=0.0).to(TYPE)
        move = x_c[:, None] - y_c[None, :]
        squared += move * move
        apart = tl.maximum(apart, tl.abs(move))
    return squared, apart


@triton.jit
def least_of(values, valid):
    """The least valid entry of a tile."""
    return tl.min(tl.min(tl.where(valid, values, float("inf")), 1), 0)


@triton.jit
def is_resolved(
    squared,
    valid,
    squared_x,
    squared_y,
    ROUNDING: tl.constexpr,
    LEAST: tl.constexpr,
    LARGEST: tl.constexpr,
):
    """Whether a product gave all valid squared distances of a tile; see `numerics.is_resolved`."""
    largest = tl.max(squared_x, 0) + tl.max(squared_y, 0)
    return (least_of(squared, valid) > ROUNDING * largest + LEAST) & (largest < LARGEST)


@triton.jit
def is_in_range(squared, apart, valid, LEAST: tl.constexpr, LARGEST: tl.constexpr):
    """Whether no square of a difference over- or underflowed."""
    least = least_of(squared, valid & (apart > 0))
    return (least > LEAST) & (tl.max(tl.max(tl.where(valid, squared, 0.0), 1), 0) < LARGEST)
