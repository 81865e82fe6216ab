"""How a run ends that does not end well. Bad input is a plain ValueError."""

import signal


class FailedRun(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


class NotFinite(ValueError):
    """NaN or infinity where there must be none: bad input, or in training what it has come to."""


class Interrupted(Exception):
    """A signal ended the training; what was done is saved."""

    def __init__(self, number: int, message: str):
        super().__init__(f"{signal.Signals(number).name}: {message}")
        self.number = number
