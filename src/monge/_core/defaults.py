"""The state of torch that recipes are written for, whatever a program has set: the defaults of new
tensors, no autocast, and gradients while something is trained."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

T = TypeVar("T")

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
    process, so the last of several threads to leave restores it. Autocast is left as well.
    """
    with _lock:
        _inside.append(_inside[0] if _inside else torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    try:
        # the context is asked about every operation, which takes time
        device = torch.device("cpu") if default_device_is_set() else contextlib.nullcontext()
        with device, outside_autocast():
            yield
    finally:
        with _lock:
            before = _inside.pop()
            if not _inside:
                torch.set_default_dtype(before)


def outside_autocast() -> contextlib.AbstractContextManager[Any]:
    """Inside, operations keep the dtype of their tensors."""
    if not torch._C._is_any_autocast_enabled():  # pyright: ignore
        return contextlib.nullcontext()
    stack = contextlib.ExitStack()
    for kind in ("cpu", "cuda", "mps", "xpu"):
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """Inside, gradients are recorded: a training inside `torch.no_grad` would change nothing."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def each_inside(
    context: Callable[[], contextlib.AbstractContextManager[None]], items: Iterator[T]
) -> Iterator[T]:
    """Items that are each made inside a context, which is left while the caller has them."""
    while True:
        with context():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item
