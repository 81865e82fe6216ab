"""Errors when memory runs out, and the share of a device's memory that data may take."""

import contextlib
from collections.abc import Iterator

import torch

from monge._core.errors import FailedRun
from monge._core.processes import world
from monge.labels import Rows

RESIDENT = 0.5
"""The largest share of a GPU's free memory that training data take; the rest is for networks."""


@contextlib.contextmanager
def running_out(step: int, batch: int, micro_batch: int | None) -> Iterator[None]:
    """Turns an error of a device, or of the host, that is out of memory into a FailedRun.

    Args:
        step: the step, from 1.
        batch: the samples of each step, of all processes.
        micro_batch: the samples that pass at once in a process, if not all of its own.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        own = -(-batch // world()[1])
        at_once = min(micro_batch or own, own)
        smaller = "start a run with a smaller --batch or smaller networks"
        if at_once > 1:
            smaller = (
                f"--micro-batch {max(1, at_once // 4)} computes the same gradient in less memory, "
                "and --resume takes it and goes on from the last checkpoint, or from the start "
                "where there is none; or start a run with a smaller --batch"
            )
        raise FailedRun(
            f"step {step}: out of memory with {at_once} of a batch of {batch} samples at "
            f"once{reason_of(error)}: {smaller}"
        ) from None


SIGNS = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
"""Parts of messages of errors without a type of their own: of a CPU, of CUDA, of its libraries."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, says that an allocation has failed."""
    if error is None or isinstance(error, FailedRun):  # which may quote one
        return False
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    named = isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    return known or named or is_out_of_memory(error.__cause__)


def reason_of(error: BaseException) -> str:
    """The first sentence of what an allocator says, in parentheses; nothing if it says nothing."""
    said = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
    return f" ({said})" if said else ""


def is_resident(samples: Rows, device: torch.device) -> bool:
    """Whether training data are kept on the device: always on a CPU, and on a GPU where they take
    at most half of its free memory."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return samples.nbytes <= RESIDENT * free
