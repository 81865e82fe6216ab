"""The group of processes that torchrun started: connecting them, and the loss of one."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from monge._core.errors import FailedRun
from monge._core.processes import world

MEETING = timedelta(minutes=2)


@contextlib.contextmanager
def group(device: str) -> Iterator[None]:
    """Joins the processes that torchrun started into a group while the block runs.

    Tensors of the host are sent through gloo, those of GPUs through NCCL. On cuda each process has
    the GPU of its local rank. Nothing is done for a single process, or inside a group.

    Raises:
        ValueError: if they do not connect, because another program has their port, or one of them
            was not started.
        FailedRun: if another process ends before its work is done.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    _meet(device)
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or "by peer" in str(error)
        if isinstance(error, FailedRun) or not lost:
            raise
        rank, count = world()
        raise FailedRun(
            f"process {rank} of {count} has lost another: see what that one says; "
            "torchrun with --max-restarts starts all again, and --resume goes on"
        ) from None
    finally:
        dist.destroy_process_group()


def _meet(device: str) -> None:
    backend = "gloo"
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, count = next(dist.rendezvous("env://", timeout=MEETING))  # pyright: ignore
        # torchrun keeps one store over its restarts, with the addresses of processes that are gone
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt {attempt}", store)  # pyright: ignore
        store.set(f"here {rank}", "")
        store.wait([f"here {other}" for other in range(count)], MEETING)
    except (dist.DistError, ValueError) as error:
        place = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        reason = str(error).split("Exception raised from")[0].strip().splitlines()[0]
        raise ValueError(
            f"`WORLD_SIZE` is {os.environ['WORLD_SIZE']}, but that many processes did not meet at "
            f"{place} ({reason}): start all of them, or choose another port"
        ) from None
    dist.init_process_group(backend, store=store, rank=rank, world_size=count)
