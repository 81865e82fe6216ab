r"""Sinkhorn's iteration for small problems in a single launch.

A step of the algorithm on some hundred points takes a GPU a few microseconds, less than a launch.
Here one program does all steps: it alternates the soft minima over rows and columns in the log
domain, decides on convergence and restarts, and extrapolates by Anderson's method as
`monge.transport.fixed_point` does. The host waits for nothing.

The cost, its transpose and the history are in global memory, of which these sizes stay in the L2
cache; vectors that one half of a step writes and the next one reads are separated by barriers.
"""

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from monge.gpu.launch import on

ENTRIES = 4096
"""Entries of a tile of the cost."""


@triton.jit
def _soft_minima(
    cost, heights, out, rows, columns, epsilon,
    SINGLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """-ε log Σ_j exp((heights_j - C_ij)/ε) of all rows of C (rows, columns)."""
    j = tl.arange(0, COLUMNS)
    for first in range(0, rows, ROWS):
        i = first + tl.arange(0, ROWS)
        inside = (i < rows)[:, None] & (j < columns)[None, :]
        entries = tl.load(cost + i[:, None] * columns + j[None, :], mask=inside, other=0.0)
        exponents = (heights[None, :] - entries) / epsilon
        most = tl.max(exponents, 1)
        below = exponents - most[:, None]
        if SINGLE:
            below = below.to(tl.float32)
        total = tl.sum(tl.exp(below), 1).to(tl.float64)
        tl.store(out + i, -epsilon * (most + tl.log(total)), mask=i < rows)
    tl.debug_barrier()


@triton.jit
def _row(matrix, rows, k):
    """Row k of a small matrix, as a vector."""
    return tl.sum(tl.where((rows == k)[:, None], matrix, 0.0), 0)


@triton.jit
def _solved(gram, target, k, MEMORY: tl.constexpr):
    """γ with gram γ = target, by elimination without pivots: the matrix is positive definite."""
    for pivot in tl.static_range(MEMORY):
        row = _row(gram, k, pivot)
        size = tl.sum(tl.where(k == pivot, row, 0.0), 0)
        of_target = tl.sum(tl.where(k == pivot, target, 0.0), 0)
        column = tl.sum(tl.where((k == pivot)[None, :], gram, 0.0), 1)
        factor = tl.where(k == pivot, 0.0, column / size)
        gram = gram - factor[:, None] * row[None, :]
        target = target - factor * of_target
    diagonal = tl.sum(tl.where(k[:, None] == k[None, :], gram, 0.0), 1)
    return target / diagonal


@triton.jit
def _combination(images, residuals, known, j, m, MEMORY: tl.constexpr, COLUMNS: tl.constexpr):
    """The image of the combination of the last `known` iterates with the smallest residual; the
    newest is in row 0."""
    k = tl.arange(0, MEMORY)
    inside = (k < known)[:, None] & (j < m)[None, :]
    places = k[:, None] * m + j[None, :]
    history = tl.load(residuals + places, mask=inside, other=0.0)
    newest = _row(history, k, 0)
    steps = tl.where(inside & (k > 0)[:, None], history - newest[None, :], 0.0)
    gram = tl.zeros((MEMORY, MEMORY), tl.float64)
    for pivot in tl.static_range(MEMORY):
        column = tl.sum(steps * _row(steps, k, pivot)[None, :], 1)
        gram = tl.where((k == pivot)[None, :], column[:, None], gram)
    diagonal = k[:, None] == k[None, :]
    trace = tl.sum(tl.sum(tl.where(diagonal, gram, 0.0), 1), 0)
    ridge = 1e-12 * trace / tl.maximum(known - 1, 1).to(tl.float64)
    # rows of iterates that are not known count nothing
    unused = ((k == 0) | (k >= known))[:, None]
    gram = gram + tl.where(diagonal, tl.where(unused, 1.0, ridge), 0.0)
    gamma = _solved(gram, -tl.sum(steps * newest[None, :], 1), k, MEMORY)
    others = tl.load(images + places, mask=inside, other=0.0)
    image = _row(others, k, 0)
    moves = tl.where(inside & (k > 0)[:, None], others - image[None, :], 0.0)
    # residuals that are (nearly) equal leave nothing to combine
    usable = tl.sum((gamma - gamma == 0.0).to(tl.int32), 0) == MEMORY
    return tl.where(usable, image + tl.sum(gamma[:, None] * moves, 0), image)


@triton.jit
def _remember(history, new, j, m, MEMORY: tl.constexpr):
    """Moves the rows of a history down by one, and writes a new first one."""
    k = tl.arange(0, MEMORY)
    inside = (k < MEMORY - 1)[:, None] & (j < m)[None, :]
    old = tl.load(history + k[:, None] * m + j[None, :], mask=inside, other=0.0)
    tl.debug_barrier()
    tl.store(history + (k[:, None] + 1) * m + j[None, :], old, mask=inside)
    tl.store(history + j, new, mask=j < m)
    tl.debug_barrier()


@triton.jit
def sinkhorn_kernel(
    cost, transposed, log_a, log_b, b, numbers, start, f, g, images, residuals, report,
    n, m, memory, most,
    SYMMETRIC: tl.constexpr, SINGLE: tl.constexpr, MEMORY: tl.constexpr,
    N: tl.constexpr, M: tl.constexpr, ROWS_N: tl.constexpr, ROWS_M: tl.constexpr,
):  # fmt: skip
    """The fixed point h of g ↦ S_a(S_b(g)), or of f ↦ ½ (f + S_a(f)), from `start` into `g`.

    `report` is the marginal error of h and the number of iterations.
    """
    i, j = tl.arange(0, N), tl.arange(0, M)
    epsilon, tolerance = tl.load(numbers), tl.load(numbers + 1)
    of_rows = tl.load(log_a + i, mask=i < n, other=-float("inf"))
    of_columns = tl.load(log_b + j, mask=j < m, other=-float("inf"))
    weights = tl.load(b + j, mask=j < m, other=0.0)
    h = tl.load(start + j, mask=j < m, other=0.0)
    best_image = h
    best, error = tl.load(numbers + 2), tl.load(numbers + 2)  # infinite
    nearest, least = h, tl.load(numbers + 2)
    iteration, known, extrapolated, running = 0, 0, 0, 1
    while running == 1:
        iteration += 1
        heights = h + epsilon * of_columns
        _soft_minima(cost, heights, f, n, m, epsilon, SINGLE, ROWS_N, M)
        if SYMMETRIC:
            image = tl.load(f + j, mask=j < m, other=0.0)
        else:
            along = tl.load(f + i, mask=i < n, other=0.0) + epsilon * of_rows
            _soft_minima(transposed, along, g, m, n, epsilon, SINGLE, ROWS_M, N)
            image = tl.load(g + j, mask=j < m, other=0.0)
        error = tl.sum(weights * tl.abs(tl.exp((h - image) / epsilon) - 1.0), 0)
        if SYMMETRIC:
            image = (h + image) / 2
        if error < least:
            least = error
            nearest = h
        if error <= tolerance:
            running = 0
        elif iteration >= most:
            running = 0
            h = nearest
            error = least
        else:
            if (extrapolated == 1) & ((error <= 2 * best) == 0):
                h = best_image
                known = 0
                best = tl.load(numbers + 2)
                extrapolated = 0
            else:
                if error < best:
                    best = error
                    best_image = image
                _remember(images, image, j, m, MEMORY)
                _remember(residuals, image - h, j, m, MEMORY)
                known = tl.minimum(known + 1, memory + 1)
                if known > 1:
                    h = _combination(images, residuals, known, j, m, MEMORY, M)
                    extrapolated = 1
                else:
                    h = image
                    extrapolated = 0
    tl.debug_barrier()
    tl.store(g + j, h, mask=j < m)
    tl.store(report, error)
    tl.store(report + 1, iteration)


def fixed_point(
    cost: Tensor,
    weights: tuple[Tensor, Tensor],
    log_weights: tuple[Tensor, Tensor],
    start: Tensor,
    epsilon: float,
    tolerance: float,
    most: int,
    *,
    memory: int,
    symmetric: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The fixed point of Sinkhorn's iteration for a cost (n, m), float64.

    Args:
        cost: C (n, m).
        weights: (n,) and (m,).
        log_weights: their logarithms, finite.
        start: the first iterate (m,).
        epsilon: ε.
        tolerance: on the marginal error.
        most: the iteration limit.
        memory: of Anderson's method; 0 for the plain iteration.
        symmetric: whether the iterate is the potential of a sample against itself.
        dtype: of exponentials.

    Returns:
        h (m,), and its marginal error and the number of iterations, (2,).
    """
    (n, m), wide = cost.shape, {"dtype": torch.float64, "device": cost.device}
    f, g = torch.empty(n, **wide), torch.empty(m, **wide)
    history = triton.next_power_of_2(memory + 1)
    images, residuals = (torch.empty(history, m, **wide) for _ in "12")
    report = torch.empty(2, **wide)
    numbers = torch.stack([torch.full((), z, **wide) for z in (epsilon, tolerance, torch.inf)])
    width_n, width_m = triton.next_power_of_2(n), triton.next_power_of_2(m)
    with on(cost.device):
        sinkhorn_kernel[(1,)](
            cost.contiguous(), cost.T.contiguous(), *log_weights, weights[1], numbers, start,
            f, g, images, residuals, report, n, m, memory, most,
            SYMMETRIC=symmetric, SINGLE=dtype == torch.float32, MEMORY=history,
            N=width_n, M=width_m,
            ROWS_N=max(1, ENTRIES // width_m), ROWS_M=max(1, ENTRIES // width_n),
            num_warps=8,
        )  # fmt: skip
    return g, report
