r"""Samples of several processes as one global batch.

Process r of K owns the rows r, r + K, r + 2K, … of the global batch. A divergence is computed on
the gathered rows by every process alike; the backward pass sums the processes' gradients and
hands each its own rows. With parameters' gradients averaged over processes, as DDP does, this
is the gradient of the divergence of the global batch.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) outside a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, total: int) -> Tensor:
        rank, count = world()
        ctx.rank, ctx.count = rank, count
        most = -(-total // count)
        padded = x.new_zeros(most, *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in range(count)]
        dist.all_gather(parts, padded)
        # row i of process r is row i·K + r of the whole
        return torch.stack(parts, 1).flatten(0, 1)[:total]

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient[ctx.rank :: ctx.count], None


def global_size(n: int) -> int:
    """The size of the global batch of which this process has n rows."""
    if world()[1] == 1:
        return n
    sizes = torch.tensor([n])
    dist.all_reduce(sizes)
    return int(sizes)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces each gradient by its mean over the processes."""
    _, count = world()
    if count > 1:
        for p in parameters:
            if p.grad is not None:
                dist.all_reduce(p.grad)
                p.grad /= count


def gather(x: Tensor, total: int) -> Tensor:
    """The `total` rows of the global batch from every process's own, differentiably."""
    return x if world()[1] == 1 else _Gather.apply(x, total)  # pyright: ignore
