r"""Samples of several processes as one global batch.

Process r of K has the rows r, r + K, r + 2K, … of the global batch. Every process computes a
divergence on the gathered rows; the backward pass sums the gradients of all processes and returns
to each the gradient of its rows. With the gradients of parameters averaged over the processes, as
DDP does, this is the gradient of the divergence of the global batch.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


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
        gathered = [torch.empty_like(padded) for _ in range(count)]
        dist.all_gather(gathered, padded)
        # row i of process r is row i·K + r of the global batch
        return torch.stack(gathered, 1).flatten(0, 1)[:total]

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient[ctx.rank :: ctx.count], None


def global_sizes(counts: Sequence[int]) -> list[int]:
    """The sizes of the global batches of which this process has `counts` rows, in one message."""
    if world()[1] == 1:
        return list(counts)
    sizes = torch.tensor(counts)
    dist.all_reduce(sizes)
    return sizes.tolist()


def first() -> bool:
    """Whether this is process 0, which alone writes files."""
    return world()[0] == 0


def from_first(make: Callable[[], T]) -> T:
    """The result of `make`, called on the first process only; its error is raised on all."""
    if world()[1] == 1:
        return make()
    outcome: list = [None, None]
    if first():
        try:
            outcome[0] = make()
        except Exception as error:  # raised below, on every process
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    result, error = outcome
    if error is not None:
        raise error
    return result


def shared(work: Sequence[Callable[[], T]]) -> list[T]:
    """The results of all calls in `work`; process r of K makes the calls r, r + K, r + 2 K, …"""
    rank, count = world()
    results = {i: work[i]() for i in range(rank, len(work), count)}
    if count > 1:
        gathered: list = [None] * count
        dist.all_gather_object(gathered, results)
        results = {i: value for one in gathered for i, value in one.items()}
    return [results[i] for i in range(len(work))]


def wait() -> None:
    """Blocks until every process has called this."""
    if world()[1] > 1:
        dist.barrier()


def largest(value: int) -> int:
    """The largest value of any process."""
    if world()[1] == 1:
        return value
    most = torch.tensor([value])
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def read(values: dict[str, Tensor]) -> dict[str, float]:
    """Scalars as numbers of the host, which waits for their device once."""
    stacked = torch.stack([value.double() for value in values.values()])
    return dict(zip(values, stacked.tolist()))


def means(values: dict[str, Tensor]) -> dict[str, float]:
    """The mean of each value over the processes."""
    if world()[1] == 1:
        return read(values)
    stacked = torch.stack([value.double() for value in values.values()])
    dist.all_reduce(stacked)
    return dict(zip(values, (stacked / world()[1]).tolist()))


def sum_of_all(x: Tensor) -> Tensor:
    """The sum of tensors of one shape over the processes, differentiably."""
    return x if world()[1] == 1 else _Sum.apply(x)  # pyright: ignore


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        # the sum is used on every process
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces each gradient by its mean over the processes; one message for all of them."""
    _, count = world()
    gradients = [p.grad for p in parameters if p.grad is not None]
    if count == 1 or not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= count
    for g, mean in zip(gradients, flat.split([g.numel() for g in gradients])):
        g.copy_(mean.view_as(g))


def gather(x: Tensor, total: int) -> Tensor:
    """The `total` rows of the global batch, from this process's rows x, differentiably."""
    return x if world()[1] == 1 else _Gather.apply(x, total)  # pyright: ignore
