"""Where Triton's kernels can be launched."""

import contextlib
import functools
import importlib.util
import os

import torch


@functools.cache
def _is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def is_usable(device: torch.device) -> bool:
    """Whether Triton's kernels serve tensors on this device.

    They do on GPUs of compute capability 8.0 (Ampere) and newer. With TRITON_INTERPRET=1 Triton
    interprets them on the CPU, which is slow and made for tests.
    """
    if not _is_installed():
        return False
    if os.environ.get("TRITON_INTERPRET") == "1":
        return device.type == "cpu"
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Inside, kernels run on this device: Triton takes the current one, not that of a tensor."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


PROGRAMS = 4
"""Programs for each multiprocessor, so that few stand idle at the end."""


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def splits(device: torch.device, rows: int, tiles: int) -> int:
    """Among how many programs the `tiles` of each row of tiles are divided, so that `rows` of them
    keep the device busy."""
    return max(1, min(tiles, PROGRAMS * _processors(device) // max(1, rows)))
