"""How a run ends that does not end well. Bad input is a plain ValueError."""

import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator


class FailedRun(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


class NotFinite(ValueError):
    """NaN or infinity where there must be none: bad input, or in training what it has come to."""


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
