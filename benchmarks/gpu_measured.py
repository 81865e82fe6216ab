"""How the sections of gpu.py time, weigh and record what they measure."""

import functools
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Value = Callable[..., Tensor]


class Record:
    """A section's figures, written into the file of results as they come.

    Args:
        path: the JSON file, {section: {name: figures}}.
        section: the section's name.
        seconds: the time the section has.
    """

    def __init__(self, path: Path, section: str, seconds: float):
        self.path, self.section = path, section
        self.until = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left for the section."""
        return self.until - time.monotonic()

    def forget(self) -> None:
        """Removes the section's figures of an earlier run."""
        self._replace({})

    def write(self, name: str, value: Any) -> None:
        """Adds one entry."""
        self._replace(self._read().get(self.section, {}) | {name: value})
        print(f"{self.section}: {name}: {json.dumps(value, ensure_ascii=False)}", flush=True)

    def _read(self) -> dict[str, Any]:
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def _replace(self, figures: dict[str, Any]) -> None:
        # whole, so that a section killed meanwhile leaves a valid file
        draft = self.path.with_suffix(".part")
        found = self._read() | {self.section: figures}
        draft.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        os.replace(draft, self.path)

    def attempt(self, name: str, work: Callable[[], Any], needs: float = 2.0) -> None:
        """Records what `work` returns, or how it failed; nothing that fails ends the section.

        Args:
            name: the entry.
            work: what is measured.
            needs: the seconds without which it is not begun.
        """
        if self.left() < needs:
            self.write(name, {"left out": "no time left"})
            return
        try:
            value = work()
        except Exception as error:
            value = {"error": traceback.format_exception_only(error)[-1].strip()[:300]}
        self.write(name, value)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, until the device has finished it."""
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def milliseconds(work: Callable[[], object], device: torch.device, seconds: float = 0.6) -> float:
    """The median milliseconds of a call, over calls that fill `seconds`.

    After two calls that do not count, which compile and tune kernels. Fast calls are timed several
    together. By events of the stream on a GPU, so that a launch overlaps the work before it, as in
    use; by the clock elsewhere.
    """
    work()
    once = seconds_of(work, device)
    together = min(200, max(1, round(0.005 / once)))
    groups = min(30, max(1 if once > 0.5 * seconds else 3, round(seconds / (once * together))))
    times = [_of_group(work, device, together) for _ in range(groups)]
    return round(statistics.median(times), 4)


def _of_group(work: Callable[[], object], device: torch.device, together: int) -> float:
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(together):
            work()
        return 1e3 * (time.perf_counter() - began) / together
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    began.record()
    for _ in range(together):
        work()
    ended.record()
    torch.cuda.synchronize(device)
    return began.elapsed_time(ended) / together


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """The most bytes that a call holds beyond those held before; None on a CPU."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def differentiated(value: Value, x: Tensor, *others: Tensor) -> Callable[[], Tensor]:
    """Computes a value and its gradient in x, and returns the value on the device."""

    def run() -> Tensor:
        leaf = x.detach().clone().requires_grad_()
        made = value(leaf, *others)
        torch.autograd.grad(made, leaf)
        return made.detach()

    return run


def compared(
    ours: Value, theirs: dict[str, Value], device: torch.device, *samples: Tensor
) -> dict[str, float | str]:
    """Milliseconds and the value of each, value and gradient in the first sample.

    A peer that fails or runs out of memory is recorded as such, and stops no other.
    """
    found: dict[str, float | str] = {}
    for name, function in {"monge": ours, **theirs}.items():
        run = differentiated(function, *samples)
        try:
            found[f"{name}, value"] = float(f"{float(run()):.6g}")
            found[f"{name}, ms"] = milliseconds(run, device)
        except Exception as error:
            if name == "monge":
                raise
            found[f"{name}, error"] = traceback.format_exception_only(error)[-1].strip()[:200]
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


@functools.cache
def importable(name: str) -> bool:
    """Whether a library is there and can be imported."""
    try:
        __import__(name)
    except Exception:
        return False
    return True
