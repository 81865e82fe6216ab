"""A process that decodes images which strangers send, and may be killed while it does.

    python -P -m monge._core.decoding

reads jobs from its standard input until it ends, and answers each on its standard output. A job
is a line of JSON (`length`, `name` of the format, `size`, `channels`) and the bytes of a file; an
answer is a line of JSON, with `error` or `length`, and the bytes of the pixels, row by row.

A file of a few hundred kilobytes can make a decoder take gigabytes or minutes. Here the operating
system limits the memory, and ends the process at the time limit.
"""

import contextlib
import io
import json
import re
import signal
import sys
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from monge._core.files import DAMAGED
from monge._core.pixels import cropped, eight_bits

MOST_PIXELS = 24_000_000
MOST_MEMORY = 2**30
"""Bytes of addresses for the interpreter, a file and its pixels."""
MOST_KEPT = 2**28
"""A process that has held more bytes than this ends; another takes its place."""
SECONDS = 5
"""The time limit of one image."""


def pixels(content: bytes, name: str, size: int, channels: str) -> bytes:
    """The pixels (size, size, c) of an image in the format with a name.

    Raises:
        ValueError: if the content is not of this format, damaged or too large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=(name,)) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise ValueError(f"{width}×{height} pixels are over the cap of {MOST_PIXELS:,}")
            image.load()
            image = eight_bits(ImageOps.exif_transpose(image))
        return cropped(image, size, channels).tobytes()
    except UnidentifiedImageError:  # whose message is the address of a buffer
        raise ValueError(f"it is not in the format {name}, as which it was sent") from None
    except MemoryError:
        raise
    except DAMAGED as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(reason) from None


def limit_memory() -> None:
    """Limits the memory of this process, where the operating system can."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))


def most_memory() -> int:
    """Bytes, the most memory that this process has had; 0 where the system does not say."""
    status = Path("/proc/self/status")  # what `resource` tells includes the parent's
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text("utf-8")) if status.exists() else None
    return 1024 * int(found[1]) if found else 0


def serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Answers jobs until there are no more, or the memory is full."""
    while line := jobs.readline():
        job = json.loads(line)
        content = jobs.read(job.pop("length"))
        if hasattr(signal, "alarm"):
            signal.alarm(SECONDS + 1)  # should the server be gone that watches the clock
        try:
            made, answer = pixels(content, **job), {}
        except ValueError as error:
            made, answer = b"", {"error": str(error)}
        except MemoryError:
            made, answer = b"", {"error": "it takes too much memory"}
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        # what a large file has left behind stays with this process
        ends = most_memory() > MOST_KEPT
        answer |= {"length": len(made), "ends": ends}
        answers.write(json.dumps(answer).encode() + b"\n" + made)
        answers.flush()
        if ends:
            return


if __name__ == "__main__":
    limit_memory()
    warnings.simplefilter("ignore")
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    serve(sys.stdin.buffer, sys.stdout.buffer)
