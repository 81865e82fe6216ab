r"""A step of Sinkhorn's algorithm with a Gibbs kernel K, without the passes of its small parts:

    f = f⁰ - ε log K s,    s = b exp((g - g⁰)/ε).

One kernel computes s, and one the potential of the product. What a host would have to know is
noted on the device: by how much potentials have moved, and whether a sum has left the range in
which the zeros of K do not show.
"""

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from monge.gpu.launch import on

BLOCK = 1024


@triton.jit
def scale_kernel(weights, g, g0, epsilon, scaled, totals, moved, m, BLOCK: tl.constexpr):
    """s, its sum over a block, and the largest |g - g⁰|/ε of a block, if it is a new largest."""
    block = tl.program_id(0)
    j = block * BLOCK + tl.arange(0, BLOCK)
    change = (tl.load(g + j, mask=j < m, other=0.0) - tl.load(g0 + j, mask=j < m, other=0.0)) / (
        tl.load(epsilon)
    )
    entries = tl.load(weights + j, mask=j < m, other=0.0) * tl.exp(change)
    entries = entries.to(scaled.dtype.element_ty)
    tl.store(scaled + j, entries, mask=j < m)
    tl.store(totals + block, tl.sum(entries.to(tl.float64), 0))
    tl.store(moved + block, tl.maximum(tl.load(moved + block), tl.max(tl.abs(change), 0)))


@triton.jit
def potential_kernel(
    sums, f0, epsilon, totals, least, f, outside, n, blocks,
    BLOCK: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """f of a block, and whether a sum is at most `least` of the sum of s, or not finite."""
    block = tl.program_id(0)
    i = block * BLOCK + tl.arange(0, BLOCK)
    k = tl.arange(0, BLOCKS)
    total = tl.sum(tl.load(totals + k, mask=k < blocks, other=0.0), 0)
    some = tl.load(sums + i, mask=i < n, other=1.0).to(tl.float64)
    inside = (some > tl.load(least) * total) & (some < float("inf"))
    doubtful = tl.max(((i < n) & ~inside).to(tl.int32), 0)
    tl.store(outside + block, tl.load(outside + block) | doubtful)
    positive = tl.where(some > 0, some, 1.0)
    about = tl.load(f0 + i, mask=i < n, other=0.0)
    tl.store(f + i, about - tl.load(epsilon) * tl.log(positive), mask=i < n)


class Notes:
    """What has been noted about one side of a kernel, (n,) sums of (m,) scaled weights."""

    def __init__(self, n: int, m: int, epsilon: float, least: float, device: torch.device):
        self.blocks: int = triton.cdiv(m, BLOCK)
        self.totals: Tensor = torch.zeros(self.blocks, dtype=torch.float64, device=device)
        self.moved: Tensor = torch.zeros_like(self.totals)
        self.outside: Tensor = torch.zeros(triton.cdiv(n, BLOCK), dtype=torch.int32, device=device)
        # numbers in Python would reach a kernel as float32
        self.epsilon, self.least = (self.totals.new_full((1,), z) for z in (epsilon, least))

    def worst(self) -> tuple[Tensor, Tensor]:
        """Whether any sum was outside, and the largest move."""
        return self.outside.any(), self.moved.amax()


def soft_minimum(
    kernel: Tensor, weights: Tensor, g: Tensor, g0: Tensor, f0: Tensor, notes: Notes
) -> Tensor:
    """f (n,) of a kernel (n, m), weights and potentials g (m,), about the potentials f⁰ and g⁰."""
    n, m = kernel.shape
    scaled, f = torch.empty(m, dtype=kernel.dtype, device=kernel.device), torch.empty_like(f0)
    with on(kernel.device):
        scale_kernel[(notes.blocks,)](
            weights, g, g0, notes.epsilon, scaled, notes.totals, notes.moved, m, BLOCK=BLOCK
        )
        sums = torch.mv(kernel, scaled)
        potential_kernel[(len(notes.outside),)](
            sums, f0, notes.epsilon, notes.totals, notes.least, f, notes.outside, n, notes.blocks,
            BLOCK=BLOCK, BLOCKS=triton.next_power_of_2(notes.blocks),
        )  # fmt: skip
    return f
