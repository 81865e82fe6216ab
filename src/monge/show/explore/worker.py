"""A thread that computes, behind a bounded queue that keeps the newest job of each view."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any


class Full(Exception):
    """The queue is full."""


class Worker:
    """Runs jobs one by one, in the order in which their views first asked.

    Args:
        most: how many jobs may wait.
    """

    def __init__(self, most: int = 32):
        self.most = most
        self._waiting: dict[Hashable, tuple[Future, Callable[[], Any]]] = {}
        self._changed, self._closed = threading.Condition(), False
        threading.Thread(target=self._work, name="monge worker", daemon=True).start()

    def submit(self, view: Hashable, job: Callable[[], Any]) -> Future:
        """The future of a job, which takes the place of a job that waits for the same view.

        Raises:
            Full: when too many jobs wait.
        """
        future = Future()
        with self._changed:
            if view in self._waiting:
                self._waiting[view][0].cancel()
            elif len(self._waiting) >= self.most:
                raise Full
            self._waiting[view] = future, job
            self._changed.notify()
        return future

    def close(self) -> None:
        """Ends the thread, after the job that it computes; those that wait are cancelled."""
        with self._changed:
            for future, _ in self._waiting.values():
                future.cancel()
            self._waiting.clear()
            self._closed = True
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                future, job = self._waiting.pop(next(iter(self._waiting)))
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except BaseException as error:  # for the caller, who awaits the future
                future.set_exception(error)
            # frees the job's arguments now rather than when the next job arrives
            del future, job
