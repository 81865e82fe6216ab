"""The arithmetic of matrix products in float32."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import torch

_lock = threading.Lock()
_holders: list[Callable[[], None]] = []
"""How to allow TF32 again, once for everyone who is inside `true_products`."""


@contextlib.contextmanager
def true_products() -> Iterator[None]:
    """Inside, float32 products on NVIDIA GPUs are those of float32, even where TF32 was allowed.

    TF32 keeps 10 bits of each factor. Squared distances |x|² + |y|² - 2 x·y between close points
    have no correct digit then, and Sinkhorn's iterations stop far from their fixed point.

    The setting is global: networks that other threads run meanwhile have true products as well,
    and TF32 is allowed again when the last thread leaves.
    """
    with _lock:
        is_needed = bool(_holders) or torch.backends.cuda.matmul.fp32_precision == "tf32"
        if is_needed:
            _holders.append(_holders[0] if _holders else _forbid())
    try:
        yield
    finally:
        if is_needed:
            with _lock:
                allow = _holders.pop()
                if not _holders:
                    allow()


def _forbid() -> Callable[[], None]:
    """Forbids TF32; returns what puts back the setting as it was."""
    matmul = torch.backends.cuda.matmul
    # it was set by one of two interfaces, and torch refuses to read the other afterwards
    try:
        legacy = torch.get_float32_matmul_precision()
    except RuntimeError:
        legacy = None
    if legacy is not None:
        torch.set_float32_matmul_precision("highest")
        return lambda: torch.set_float32_matmul_precision(legacy)
    # what products inherit from the setting of all operations follows that one again
    inherited = getattr(torch.backends, "fp32_precision", None) == "tf32"
    matmul.fp32_precision = "ieee"

    def allow() -> None:
        matmul.fp32_precision = "none" if inherited else "tf32"

    return allow
