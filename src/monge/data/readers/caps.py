"""The caps of readers: all that bounds memory and time is in this place.

Honest data may be compressed a thousand times, as masks are, so that no ratio is capped: what is
unpacked is bounded in bytes, and what a header promises is compared with what the file can hold
and with the memory there is.
"""

from monge._core.untrusted import memory

MOST_BYTES = 256 * 2**20
"""Bytes of one sample in a file of its own, unpacked: an image, a cloud."""
MOST_PIXELS = 50_000_000
"""Pixels of one image."""
LARGEST_SIDE = 512
"""Pixels a side of one image as it is trained on."""
MOST_VALUES = 2**34
"""In an idx file."""
MOST_RATIO = 1100
"""No stream of deflate, which gzip, zip and PNG use, unpacks to more than 1,032 times its
bytes."""


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
