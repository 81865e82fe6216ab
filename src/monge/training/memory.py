"""What happens when memory runs out, and how much of a device the data may take."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from monge._core.errors import FailedRun

RESIDENT = 0.5
"""The largest share of a GPU's free memory that training data take; the rest is for networks."""


@contextlib.contextmanager
def running_out(step: int, batch: int, micro_batch: int | None) -> Iterator[None]:
    """Turns an error of a device, or of the host, that is out of memory into a FailedRun.

    Args:
        step: the step, from 1.
        batch: the samples of each step.
        micro_batch: the samples that pass at once, if not all.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        at_once = micro_batch or batch
        part = max(1, min(batch, at_once) // 4)
        reason = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
        raise FailedRun(
            f"step {step}: out of memory with {at_once} of a batch of {batch} samples at once "
            f"({reason}): --micro-batch {part} computes the same gradient in less memory, and "
            "--resume takes it and goes on from the last checkpoint, which is intact; "
            "or start a run with a smaller --batch"
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
