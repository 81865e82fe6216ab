"""The defaults of new tensors that recipes are written for, whatever a program has set."""

import contextlib
import threading
from collections.abc import Iterator

import torch

_lock = threading.Lock()
_inside: list[torch.dtype] = []
"""The default dtype that the first block found, once for each block that is entered."""


def default_device_is_set() -> bool:
    """Whether new tensors are on another device than the CPU if none is named."""
    modes = torch._C._len_torch_function_stack()  # pyright: ignore
    return modes > 0 and torch.get_default_device().type != "cpu"


@contextlib.contextmanager
def float32_on_cpu() -> Iterator[None]:
    """Inside, new tensors are float32 and on the CPU where nothing else is said, as torch has it.

    `torch.set_default_dtype` and `torch.set_default_device` would otherwise make networks of
    another dtype than their data, and draw other weights. The default dtype is one of the whole
    process, so the last of several threads to leave restores it.
    """
    with _lock:
        _inside.append(_inside[0] if _inside else torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    try:
        # the context is asked about every operation, which takes time
        with torch.device("cpu") if default_device_is_set() else contextlib.nullcontext():
            yield
    finally:
        with _lock:
            before = _inside.pop()
            if not _inside:
                torch.set_default_dtype(before)
