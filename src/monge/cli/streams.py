"""Standard output and error that may be closed or break: what a verb does goes on without them."""

import errno
import io
import os
import sys


class Lasting(io.FileIO):
    """A file descriptor for writing. After the first error all that is written to it is discarded,
    so that a reader that has gone, as in `monge train | head -1`, stops nothing."""

    error: OSError | None = None

    def write(self, content) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            return super().write(content)
        except OSError as error:
            self.error = error
        discarding = os.open(os.devnull, os.O_WRONLY)
        os.dup2(discarding, self.fileno())
        os.close(discarding)
        return len(content)


def protect() -> None:
    """Opens standard streams that are closed as the null device, and lets none that breaks raise.

    Streams that are not those of the process, as under a test or in a notebook, stay as they are.
    """
    # in this order, since each takes the lowest free number: otherwise the next file that is
    # opened, such as a checkpoint, would be standard output, to which libraries in C print
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
        elif mode == "w" and stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _lasting(stream))


def _lasting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(Lasting(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )


def lost() -> OSError | None:
    """Why something that was printed is not where it should be, unless its reader did not want
    it."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = raw.error if isinstance(raw, Lasting) else None
    return None if error is None or error.errno == errno.EPIPE else error
