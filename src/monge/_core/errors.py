"""How a run ends that does not end well. Bad input is a plain ValueError."""

import contextlib
import signal
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
