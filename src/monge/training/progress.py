"""What a person sees of a training: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0


class Display:
    """Shows step, terms, samples per second and time left; nothing at all when `quiet`."""

    def __init__(self, start: int, steps: int, per_epoch: int, quiet: bool = False):
        self.start, self.steps, self.per_epoch, self.quiet = start, steps, per_epoch, quiet
        self.began = self.shown = time.monotonic()
        self.bar: Progress | None = None
        if not quiet and sys.stdout.isatty():
            self.bar = Progress(
                TextColumn("{task.completed}/{task.total}"),
                BarColumn(bar_width=24),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self.task = self.bar.add_task("", total=steps, completed=start)

    def __enter__(self) -> "Display":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, step: int, rate: float, terms: Mapping[str, float]) -> None:
        """Called at each logged step."""
        if self.quiet:
            return
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        text = f"epoch {step / self.per_epoch:.2f}  {rate:,.0f} samples/s  {numbers}"
        now = time.monotonic()
        if self.bar:
            self.bar.update(self.task, completed=step, description=text)
        elif now - self.shown >= PLAIN_SECONDS or step == self.steps:
            self.shown = now
            left = (now - self.began) / (step - self.start) * (self.steps - step)
            clock = f"{int(left) // 60}:{int(left) % 60:02d}"
            print(f"step {step}/{self.steps}  left {clock}  {text}", flush=True)
