r"""Samples of several processes as one global batch.

Process r of K owns the rows r, r + K, r + 2K, … of the global batch. A divergence is computed on
the gathered rows by every process alike; the backward pass sums the processes' gradients and
hands each its own rows. With parameters' gradients averaged over processes, as DDP does, this
is the gradient of the divergence of the global batch.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def first() -> bool:
    """Whether this process is the one that writes."""
    return world()[0] == 0


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns on the first process, or the ValueError that it raises there, on all."""
    if world()[1] == 1:
        return make()
    found: list = [None, None]
    if first():
        try:
            found[0] = make()
        except ValueError as error:
            found[1] = error
    dist.broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    return found[0]


def shared(work: Sequence[Callable[[], T]]) -> list[T]:
    """What each piece of work returns; process r of K does the pieces r, r + K, r + 2 K, …"""
    rank, count = world()
    done = {i: work[i]() for i in range(rank, len(work), count)}
    if count > 1:
        parts: list = [None] * count
        dist.all_gather_object(parts, done)
        done = {i: value for part in parts for i, value in part.items()}
    return [done[i] for i in range(len(work))]


def wait() -> None:
    """Until every process is here."""
    if world()[1] > 1:
        dist.barrier()


def largest(value: int) -> int:
    """The largest value of any process."""
    if world()[1] == 1:
        return value
    found = torch.tensor([value])
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def means(values: dict[str, Tensor]) -> dict[str, float]:
    """The means of numbers over the processes."""
    if world()[1] == 1:
        return {name: float(value) for name, value in values.items()}
    stacked = torch.stack([value.double() for value in values.values()])
    dist.all_reduce(stacked)
    return dict(zip(values, (stacked / world()[1]).tolist()))


_part: tuple[int, int, int] | None = None


@contextlib.contextmanager
def part(first: int, stride: int, total: int) -> Iterator[None]:
    """Inside, `own_rows` are first, first + stride, first + 2 stride, … of a batch of `total`."""
    global _part
    before, _part = _part, (first, stride, total)
    try:
        yield
    finally:
        _part = before


def own_rows(draw: Callable[[int], Tensor], n: int) -> Tensor:
    """This process's n rows of `draw(n of the global batch)`, for draws from a shared stream."""
    rank, count = world()
    first, stride, total = _part or (rank, count, 0)
    return draw(total or global_size(n))[first::stride]


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
        # every process uses what each has contributed
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces each gradient by its mean over the processes, all of them in one message."""
    _, count = world()
    gradients = [p.grad for p in parameters if p.grad is not None]
    if count == 1 or not gradients:
        return
    whole = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(whole)
    whole /= count
    for g, mean in zip(gradients, whole.split([g.numel() for g in gradients])):
        g.copy_(mean.view_as(g))


def gather(x: Tensor, total: int) -> Tensor:
    """The `total` rows of the global batch from every process's own, differentiably."""
    return x if world()[1] == 1 else _Gather.apply(x, total)  # pyright: ignore
