"""Signals that end a training after its current step."""

import signal
import sys
import threading
from types import FrameType


class Signals:
    """Records the first SIGINT, SIGTERM, SIGHUP or SIGUSR1 in `received`; a second one acts as
    usual.

    Cluster schedulers send SIGUSR1 before they end a job. A terminal that is closed sends SIGHUP,
    often twice (once by its shell, once by the kernel), so one after the first signal is ignored;
    under `nohup` all are.
    """

    def __enter__(self) -> "Signals":
        self.received: int | None = None
        # Python lets only its main thread set handlers; elsewhere signals act as usual
        main = threading.current_thread() is threading.main_thread()
        numbers = [signal.SIGINT, signal.SIGTERM] if main else []
        if main and sys.platform != "win32":
            numbers.append(signal.SIGUSR1)
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
                numbers.append(signal.SIGHUP)
        self.previous = {number: signal.signal(number, self._record) for number in numbers}
        return self

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for known, handler in self.previous.items():
            hangup = sys.platform != "win32" and known == signal.SIGHUP
            signal.signal(known, signal.SIG_IGN if hangup else handler)

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
