"""How much a reader takes from one file: all that bounds memory and time is in this place.

Honest data may be compressed a thousand times, as masks are, so that no ratio is capped: what is
unpacked is bounded in bytes, and what a header promises is compared with what the file can hold
and with the memory there is.
"""

import os
import stat

MOST_BYTES = 256 * 2**20
"""Of one sample in a file of its own, unpacked: an image, a cloud."""
MOST_PIXELS = 50_000_000
"""Of one image."""
LARGEST_SIDE = 512
"""Pixels a side of one image as it is trained on."""
MOST_VALUES = 2**34
"""In an idx file."""
MOST_RATIO = 1100
"""No stream of deflate, which gzip, zip and PNG use, unpacks to more than 1,032 times its
bytes."""


def memory() -> int:
    """Bytes of memory that the machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**63


def demand_memory(size: int, what: str) -> None:
    """Refuses what would take more than the memory of the machine.

    Raises:
        ValueError: naming what is too large, and the cap.
    """
    if size > memory():
        raise ValueError(
            f"{what} take {size / 1e9:,.1f} GB, over the {memory() / 1e9:,.1f} GB of memory of "
            "this machine"
        )


def demand_packed(size: int, packed: int, what: str) -> None:
    """Refuses what is said to hold more than deflate can pack into its bytes.

    Raises:
        ValueError: naming it, and the cap.
    """
    if size > MOST_RATIO * packed + 2**16:
        raise ValueError(
            f"{what} promises {size:,} bytes in {packed:,}: at most {MOST_RATIO:,} times as many "
            "can be packed into them"
        )


def read_regular(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """The bytes of a file, at most so many.

    Raises:
        ValueError: for more, or for a pipe, device or folder, which is not waited for.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb", buffering=0) as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("no regular file")
        if found.st_size > most:
            raise ValueError(f"over {most:,} bytes")
        return file.read(found.st_size + 1)  # no more, though it may grow meanwhile
