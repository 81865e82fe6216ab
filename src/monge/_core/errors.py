"""Errors and warnings: failed and interrupted runs, and missing packages.

Invalid input raises a plain ValueError.
"""

import contextlib
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator

FIX_OF_DIVERGENCE = (
    "lower the learning rate, the weight, or another setting that is large, and check the data"
)


class FailedRun(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


class NotFinite(ValueError):
    """NaN or infinity where there must be none: invalid input or, in training, divergence."""


class Interrupted(Exception):
    """A signal ended the training; what was done is saved."""

    def __init__(self, number: int, message: str):
        super().__init__(f"{signal.Signals(number).name}: {message}")
        self.number = number


def warn(message: str) -> None:
    """Warns at the line outside the package that led here, through however many decorators."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("monge."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


class _Silence:
    """Hides the warnings and the logs of other libraries, from the first thread that enters to
    the last that leaves.

    Filters and levels are common to all threads: were each to restore what it found, one that
    entered in another's silence would leave that silence behind.
    """

    LOGGERS = ("torch.onnx", "huggingface_hub")

    def __init__(self):
        self.lock, self.inside, self.undo = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside > 1:
                return
            self.undo.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            for logger in map(logging.getLogger, self.LOGGERS):
                self.undo.callback(logger.setLevel, logger.level)
                logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.undo.close()


silence = _Silence()
"""Entered with `with`, by any number of threads at once."""


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Inside, packages of an extra are imported; a ValueError where they are not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("monge"):
            raise
        raise ValueError(
            f"`{extra}` needs the package {error.name}: pip install 'monge[{extra}]'"
        ) from None
