"""Signals that end a training after its current step."""

import signal
import sys
import threading
from types import FrameType


class Signals:
    """Records the first SIGINT, SIGTERM or SIGUSR1 in `received`; a second one acts as usual.

    Cluster schedulers send SIGUSR1 before they end a job.
    """

    def __enter__(self) -> "Signals":
        self.received: int | None = None
        # Python lets only its main thread set handlers; elsewhere signals act as usual
        main = threading.current_thread() is threading.main_thread()
        numbers = [signal.SIGINT, signal.SIGTERM] if main else []
        if main and sys.platform != "win32":
            numbers.append(signal.SIGUSR1)
        self.previous = {number: signal.signal(number, self._record) for number in numbers}
        return self

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for known, handler in self.previous.items():
            signal.signal(known, handler)

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
