"""What happens when memory runs out, and how much of a device the data may take."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from monge._core.errors import FailedRun
from monge._core.processes import world

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
        reason = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
        smaller = "start a run with a smaller --batch or smaller networks"
        if at_once > 1:
            smaller = (
                f"--micro-batch {max(1, at_once // 4)} computes the same gradient in less memory, "
                "and --resume takes it and goes on from the last checkpoint, if there is one; or "
                "start a run with a smaller --batch"
            )
        raise FailedRun(
            f"step {step}: out of memory with {at_once} of a batch of {batch} samples at once "
            f"({reason}): {smaller}"
        ) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation has failed; on a CPU torch has no type for it."""
    if isinstance(error, FailedRun):  # which may quote one
        return False
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or "can't allocate memory" in str(error)


def is_resident(samples: Tensor, device: torch.device) -> bool:
    """Whether training data are kept on the device: always on a CPU, and on a GPU where they take
    at most half of its free memory."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return samples.nbytes <= RESIDENT * free
