"""Estimates what a training would do and cost from a few of its steps; nothing is written."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from monge._core.devices import chosen_device, current, described
from monge._core.tuning import using_threads
from monge._core.visible import counted
from monge.builders import settle
from monge.builders.settle import with_tuned
from monge.config import Config
from monge.data import given
from monge.labels import unlabelled
from monge.models.protocols import rows_for
from monge.recipes import find
from monge.training import loop
from monge.training.prepared import located, prepared, refuse_unusable
from monge.training.whole_set import fit_coupling

DONE = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the training at which a step is timed: weights that are scheduled begin within it."""


class TrainingPlan(NamedTuple):
    """An estimate of a training."""

    lines: dict[str, str]
    """Each fact in words, by its name."""
    steps: int
    seconds: float
    """The duration of the steps, without evaluations, checkpoints and the report."""


def planned(config: Config) -> TrainingPlan:
    """Reads the data, builds the model and times a few steps.

    Raises:
        ValueError: for what `monge.fit` refuses of the configuration and its data.
        FailedRun: for a term that is not finite, or where memory runs out.
    """
    device = chosen_device(config.check().device)
    with current(device), using_threads(config.threads), tempfile.TemporaryDirectory() as folder:
        refuse_unusable(config, device)
        source = given(None, config.data)
        config = with_tuned(located(config), source.kind, source.shape)
        ready = prepared(None, source, config, settle(config, source), device)
        settled, samples, _, batches, steps, trainer, augment = ready
        model = trainer.model
        if config.condition == "clusters":
            samples = rows_for(model, unlabelled(samples))
        fit_coupling(model, samples, config.training, augment, Path(folder), config.seed)
        trainer.position = steps // 2  # beyond the first steps, which may have more inner ones
        model.train()
        took = []
        with loop.batches_of(trainer, samples, batches) as next_batches:
            for done in (DONE[0], *DONE):
                chosen, began = next_batches(), time.perf_counter()
                trainer.step(chosen, done=min(done, 1 - 1 / steps))
                if trainer.device.type == "cuda":
                    torch.cuda.synchronize(trainer.device)
                took.append(time.perf_counter() - began)
        threads = torch.get_num_threads()
    step = statistics.fmean(took[1:])  # the first one also allocates and chooses algorithms
    row, parameters = find(config.recipe), sum(p.numel() for p in model.parameters())
    codes = f", codes of {counted(settled.latent, 'number')}" if row.family != "flow" else ""
    held_out = f"and {len(source.test):,} test" if source.held_out else "and no held-out"
    lines = {
        "recipe": f"{row.name}, {row.line}",
        "data": f"{source.name}: {len(samples):,} training {held_out} samples of shape "
        f"{settled.shape}",
        "model": f"{parameters:,} parameters{codes}",
        "training": f"{steps:,} steps of {batches.size} samples, "
        f"{steps / batches.per_epoch:.3g} epochs",
        "device": f"{described(trainer.device)}, {counted(threads, 'thread')}",
        "time": f"{clock(steps * step)} ({1000 * step:.3g} ms a step), and then the report",
        "memory": memory(trainer.device),
    }
    return TrainingPlan(lines, steps, steps * step)


def clock(seconds: float) -> str:
    """A time in words that are as exact as an estimate: `about 2 min 10 s`."""
    if seconds < 60:
        return f"about {max(1, round(seconds))} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds, -1), 60)
        return f"about {int(minutes)} min {int(rest)} s"
    hours, rest = divmod(seconds / 60, 60)
    return f"about {int(hours)} h {int(rest)} min"


def memory(device: torch.device) -> str:
    """The most memory that the process has taken so far, on its device and on the host."""
    try:
        import resource
        import sys
    except ImportError:  # Windows
        host = "not measured on this system"
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        host = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.2g} GB"
    if device.type != "cuda":
        return host
    return f"{torch.cuda.max_memory_allocated(device) / 1e9:.2g} GB of the GPU, {host} of the host"
