"""The progress display of a training: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Mapping

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from monge._core.visible import visible

PLAIN_SECONDS = 10.0


def say(line: str) -> None:
    """Prints one line; training goes on where standard output is closed or its reader has gone."""
    with contextlib.suppress(OSError, ValueError):
        print(visible(line), flush=True)


class Display:
    """Shows the step, the terms, samples per second and the time left, unless `quiet`.

    Args:
        start: the step from which training goes on.
        steps: those of the whole training.
        per_epoch: steps of an epoch.
        quiet: shows nothing.
        slower: the step from which steps take longer, as those in which a second matching has a
            weight. Until then the time left is a lower bound.
    """

    def __init__(
        self, start: int, steps: int, per_epoch: int, quiet: bool = False, slower: int = 0
    ):
        self.steps, self.per_epoch, self.quiet, self.slower = steps, per_epoch, quiet, slower
        self.began = self.shown = time.monotonic()
        self.timed_from, self.pace = start, 0.0
        self.live: Live | None = None
        if not quiet and _is_terminal():
            rate = TextColumn("{task.description}")
            self.bar = Progress(MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), rate)
            self.task = self.bar.add_task("", total=steps, completed=start)
            self.live = Live(self.bar, refresh_per_second=4)

    def __enter__(self) -> "Display":
        if self.live:
            with contextlib.suppress(OSError):
                self.live.start()
        return self

    def __exit__(self, *_) -> None:
        if self.live:
            with contextlib.suppress(OSError):
                self.live.stop()

    def update(self, step: int, rate: float, terms: Mapping[str, float]) -> None:
        """Shows a logged step, with the samples per second and the terms."""
        if self.quiet:
            return
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        speed, epoch = f"{rate:,.0f} samples/s", f"epoch {step / self.per_epoch:.2f}"
        now = time.monotonic()
        if self.live:
            later = f", slower from step {self.slower:,}" if step < self.slower else ""
            with contextlib.suppress(OSError):
                self.bar.update(self.task, completed=step, description=speed + later)
                self.live.update(Group(self.bar, Text(f"{epoch}  {numbers}")))
            return
        left = self._left(step, now)
        if now - self.shown >= PLAIN_SECONDS or step == self.steps:
            self.shown = now
            say(f"step {step}/{self.steps}  left {left}  {speed}  {epoch}  {numbers}")

    def _left(self, step: int, now: float) -> str:
        """The time left, from the pace of the steps that are like those to come."""
        if self.timed_from < self.slower <= step:
            self.timed_from, self.began = step, now
        known = step > self.timed_from
        if known:
            self.pace = (now - self.began) / (step - self.timed_from)
        left = int(self.pace * (self.steps - step))
        bound = "" if known and self.timed_from >= self.slower else "over "
        return f"{bound}{left // 60}:{left % 60:02d}"

    def note(self, line: str) -> None:
        """Prints a line above the bar, or between the lines."""
        if not self.quiet:
            say(line)


def _is_terminal() -> bool:
    return sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()
