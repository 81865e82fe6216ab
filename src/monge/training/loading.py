"""The batches of a training, from data on the device or on the host."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from monge._core.devices import to_device
from monge._core.processes import world
from monge.data.batches import Batches
from monge.labels import Rows, placed
from monge.training.schedule import inner_batches
from monge.training.trainer import Trainer

Loaded = tuple[list[Rows], torch.cuda.Event | None]
"""The batches of a step, and on a GPU the event of their copies being done."""


def step_indices(trainer: Trainer, batches: Batches, position: int) -> list[Tensor]:
    """Which samples the step at `position` uses: fresh inner batches, then the outer one.

    An auto-encoder with one inner step shows its critics the outer batch.
    """
    fixed = [objective.steps for objective in trainer.learned]
    inner = inner_batches(trainer.config, position, fixed)
    if len(inner) == 1 and hasattr(trainer.model, "encode"):
        inner = range(0)
    return [batches.inner(i) for i in inner] + [batches.outer(position)]


def rows(samples: Rows, index: Tensor, device: torch.device) -> Rows:
    """On the device, this process's rows of the global batch with the indices `index`."""
    rank, count = world()
    return placed(samples[to_device(index[rank::count], samples.device)], device)


def fetch(trainer: Trainer, samples: Rows, batches: Batches) -> list[Rows]:
    """The batches of the next step, on the device: the inner ones, then the outer one."""
    indices = step_indices(trainer, batches, trainer.position)
    return [rows(samples, index, trainer.device) for index in indices]


class Prefetcher:
    """The batches of each step from samples on the host, loaded during the step before it.

    A thread gathers the rows of the next step and copies them on a stream of its own, so that
    neither the host nor the device waits. The batches are those of `fetch`.
    """

    def __init__(self, trainer: Trainer, samples: Rows, batches: Batches):
        self.trainer, self.samples, self.batches = trainer, samples, batches
        cuda = trainer.device.type == "cuda"
        self.stream = torch.cuda.Stream(trainer.device) if cuda else None
        self.thread = ThreadPoolExecutor(1)
        self.coming: dict[int, Future[Loaded]] = {}

    def fetch(self) -> list[Rows]:
        """The batches of the trainer's next step; starts to load those of the step after it."""
        position, coming = self.trainer.position, self.coming
        loading = coming.get(position) or self._start(position)
        self.coming = {position + 1: self._start(position + 1)}
        loaded, copied = loading.result()
        if copied is not None:
            current = torch.cuda.current_stream(self.trainer.device)
            current.wait_event(copied)
            for x in loaded:
                x.record_stream(current)
        return loaded

    def close(self) -> None:
        """Ends the thread."""
        self.thread.shutdown(cancel_futures=True)

    def _start(self, position: int) -> Future[Loaded]:
        indices = step_indices(self.trainer, self.batches, position)
        return self.thread.submit(self._loaded, indices)

    def _loaded(self, indices: Sequence[Tensor]) -> Loaded:
        with torch.cuda.stream(self.stream):
            loaded = [rows(self.samples, index, self.trainer.device) for index in indices]
        if self.stream is None:
            return loaded, None
        copied = torch.cuda.Event()
        copied.record(self.stream)
        return loaded, copied
