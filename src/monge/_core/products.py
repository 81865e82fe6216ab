"""The arithmetic of matrix products in float32."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def true_products() -> Iterator[None]:
    """Inside, float32 products on NVIDIA GPUs are those of float32, even where TF32 was allowed.

    TF32 keeps 10 bits of each factor. Squared distances |x|² + |y|² - 2 x·y between close points
    have no correct digit then, and Sinkhorn's iterations stop far from their fixed point.

    The setting is global: networks that other threads run meanwhile have true products as well.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    if before != "tf32":
        yield
        return
    # it was set by one of two interfaces, and torch refuses to read the other afterwards
    try:
        legacy = torch.get_float32_matmul_precision()
    except RuntimeError:
        legacy = None
    try:
        if legacy is None:
            matmul.fp32_precision = "ieee"
        else:
            torch.set_float32_matmul_precision("highest")
        yield
    finally:
        if legacy is None:
            matmul.fp32_precision = before
        else:
            torch.set_float32_matmul_precision(legacy)
