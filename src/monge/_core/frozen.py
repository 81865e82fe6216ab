"""Modules that a computation leaves as they are."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


@contextlib.contextmanager
def frozen(parameters: Iterable[Tensor], buffers: Iterable[Tensor]) -> Iterator[None]:
    """Keeps gradients away from `parameters`, and restores `buffers` on exit.

    Batch normalisation moves its statistics, and spectral normalisation its vectors, at every
    forward pass in training mode, with gradients or without.
    """
    active = [p for p in parameters if p.requires_grad]
    kept = [(b, b.clone()) for b in buffers]
    for p in active:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in active:
            p.requires_grad_(True)
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
