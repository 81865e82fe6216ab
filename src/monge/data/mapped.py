"""Files that are mapped into memory."""

import math
import mmap
import sys
import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from monge._core.errors import FailedRun

# without it Linux refuses a private map of more bytes than there are memory and swap
NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
_MAPS: weakref.WeakKeyDictionary[mmap.mmap, Path] = weakref.WeakKeyDictionary()


def mapped(path: Path) -> Tensor:
    """A uint8 .npy file as a tensor: read when it is used, never written to."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
        if sys.platform == "win32":
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        else:
            # a tensor may be written to, so its map may, too; NumPy's mode "c" is one without
            # NORESERVE
            allowed = mmap.PROT_READ | mmap.PROT_WRITE
            whole = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | NORESERVE, allowed)
        if len(whole) != file.tell() + math.prod(shape):
            raise ValueError(f"{str(path)!r} has {len(whole):,} bytes, and its header {shape}")
        _MAPS[whole] = path
        return torch.frombuffer(whole, dtype=torch.uint8, offset=file.tell()).view(shape)


def demand_whole() -> None:
    """Stops where a mapped file was cut short: to read what is gone would end the process.

    Asked before each batch, so that only a file cut within one still ends the process.

    Raises:
        FailedRun: naming the file.
    """
    for whole, path in list(_MAPS.items()):
        if whole.size() < len(whole):
            raise FailedRun(f"`cache` {str(path)!r} was cut short while it was read: start again")
