"""One thread that computes, behind a bounded queue in which the newest question of a view wins."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any


class Full(Exception):
    """The queue has no place left."""


class Worker:
    """Runs jobs one by one, in the order of their views' first questions.

    Arguments:
        most: how many jobs may wait.
    """

    def __init__(self, most: int = 32):
        self.most = most
        self._waiting: dict[Hashable, tuple[Future, Callable[[], Any]]] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="monge worker", daemon=True).start()

    def submit(self, view: Hashable, job: Callable[[], Any]) -> Future:
        """The future of a job; what waited for the same view is cancelled and gives its place.

        Raises:
            Full: when so many jobs wait.
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

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                future, job = self._waiting.pop(next(iter(self._waiting)))
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except BaseException as error:  # it belongs to whoever asked
                future.set_exception(error)
            # a job holds what it was asked with: not until the next one comes
            del future, job
