"""The loop around the step: logs, checkpoints, signals. Reads like what it does."""

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
import warnings
from io import RawIOBase
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from monge._core.errors import FailedRun, Interrupted
from monge._core.files import write_whole
from monge._core.processes import first, largest, means, wait, world
from monge.config import TrainingConfig
from monge.data.batches import Batches
from monge.divergences import MomentMatching
from monge.draws import seed_of
from monge.models import WAE, AutoEncoder, CodesAlone
from monge.training import checkpoint
from monge.training.progress import Display
from monge.training.sharding import whole
from monge.training.trainer import Trainer
from monge.training.validation import figure, since_best


class Signals:
    """Inside, the first SIGINT, SIGTERM or SIGUSR1 is only noted; a second acts as usual.

    Schedulers of clusters send the last before they end a job.
    """

    def __enter__(self) -> "Signals":
        self.received: int | None = None
        # Python lets only its main thread set handlers; elsewhere signals act as usual
        mine = threading.current_thread() is threading.main_thread()
        numbers = [signal.SIGINT, signal.SIGTERM] if mine else []
        if mine and sys.platform != "win32":
            numbers.append(signal.SIGUSR1)
        self.previous = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for known, handler in self.previous.items():
            signal.signal(known, handler)

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def inner_batches(config: TrainingConfig, step: int) -> range:
    """The numbers of the inner batches before an outer step: more of them in the first steps."""
    first, count = config.inner_first
    before = min(step, first) * count + max(0, step - first) * config.inner_steps
    return range(before, before + (count if step < first else config.inner_steps))


def fetch(trainer: Trainer, samples: Tensor, batches: Batches) -> list[Tensor]:
    """The batches of the trainer's next step: fresh inner ones, then the outer one.

    An auto-encoder with one inner step shows its critic the outer batch.
    """
    rank, count = world()
    step, inner = trainer.position, inner_batches(trainer.config, trainer.position)
    if trainer.inner is None or (len(inner) == 1 and isinstance(trainer.model, AutoEncoder)):
        inner = range(0)
    indices = [batches.inner(i) for i in inner] + [batches.outer(step)]
    return [samples[index[rank::count].to(samples.device)] for index in indices]


def decay(config: TrainingConfig, step: int, per_epoch: int, steps: int) -> float:
    """What rates are multiplied by in a step of a training of `steps`."""
    rise = min(1.0, (step + 1) / (config.warmup or 1))
    epoch, share = step // per_epoch, step / steps
    if config.schedule == "smooth":
        return rise * 0.01**share
    if config.schedule == "cosine":
        return rise * (1 + math.cos(math.pi * share)) / 2
    if config.schedule == "step":
        return rise * 0.1 ** (epoch // config.drop_every)
    drops = ((30, 2), (50, 5), (100, 10)) if config.schedule == "drops" else ()
    return rise / math.prod(divisor for first, divisor in drops if epoch >= first)


def run(
    trainer: Trainer,
    samples: Tensor,
    batches: Batches,
    steps: int,
    folder: Path,
    *,
    held: Tensor | None = None,
    seconds: float = 0.0,
    quiet: bool = False,
) -> None:
    """Trains up to step `steps`, with metrics and checkpoints in `folder`.

    Arguments:
        held: samples held apart; each epoch ends with a figure of them, and training with
            `patience` epochs that have none better.
        seconds: how long the run had trained before it was resumed.

    Raises:
        FailedRun: for a term that is not finite, or a checkpoint that cannot be written.
        Interrupted: after SIGINT, SIGTERM or SIGUSR1, with the last step saved.
    """
    config = trainer.config
    start = trainer.position
    began = saved = time.monotonic()
    figures = [row["validation"] for row in read_metrics(folder) if "validation" in row]
    over = config.patience is not None and since_best(figures) >= config.patience
    with (
        Signals() as signals,
        (folder / "metrics.jsonl" if first() else Path(os.devnull)).open("ab", 0) as metrics,
        Display(start, steps, batches.per_epoch, quiet or not first()) as display,
    ):
        if trainer.position == 0 and config.pretrain:
            pretrain(trainer, samples, metrics, signals, began)
        received = 0
        while trainer.position < steps and not over and not received:
            factor = decay(config, trainer.position, batches.per_epoch, steps)
            terms = trainer.step(fetch(trainer, samples, batches), factor)
            step, now = trainer.position, time.monotonic()
            ended = held is not None and step % batches.per_epoch == 0
            if step % config.log_every == 0 or step == steps or ended:
                values = means(terms)
                if held is not None and ended and first():
                    values["validation"] = validate(trainer, held, figures, folder)
                row = {
                    "step": step,
                    "epoch": round(step / batches.per_epoch, 4),
                    "seconds": round(seconds + now - began, 3),
                    **values,
                }
                log(metrics, row)
                display.update(step, (step - start) * batches.size / (now - began), values)
            if ended and config.patience is not None:
                over = bool(largest(int(since_best(figures) >= config.patience)))
            late = now - saved > config.checkpoint_seconds
            received, late = divmod(largest(2 * (signals.received or 0) + late), 2)
            if received or late or over or step == steps:
                save(trainer, folder, seconds + now - began)
                saved = time.monotonic()
        received = received or largest(signals.received or 0)  # in the last save
        if received:
            raise Interrupted(received, f"saved step {trainer.position} of {steps} in {folder}")
    wait()


def validate(trainer: Trainer, held: Tensor, figures: list[float], folder: Path) -> float:
    """The figure of the samples held apart, added to those before; the best model is kept."""
    value = figure(trainer.trained, held, trainer.config.batch, trainer.seed)
    if value < min(figures, default=math.inf):
        write(folder / "best", trainer, {}, {"validation": value})
    figures.append(value)
    return value


def trained(trainer: Trainer, folder: Path) -> dict[str, Tensor]:
    """The tensors of the model that training ends with: the last, or the best on samples held
    apart."""
    found = checkpoint.newest(folder / "best")
    if found is None:
        return trainer.trained.state_dict()
    return checkpoint.tensors(found[1], "model.safetensors")


def pretrain(
    trainer: Trainer, samples: Tensor, metrics: RawIOBase, signals: Signals, began: float
) -> None:
    """The stage before step 0 in which the encoder alone matches two moments of the prior.

    Its rows have a `stage` and stand at step 0. A run that is stopped within it starts again.
    """
    config, model = trainer.config, trainer.model
    assert isinstance(model, WAE)
    size = min(config.pretrain_batch, len(samples))
    batches = Batches(len(samples), size, seed_of(trainer.seed, "pretraining"))
    stage = Trainer(
        CodesAlone(model, MomentMatching()), config, seed=batches.seed, device=trainer.device
    )
    rank, count = world()
    while stage.position < config.pretrain:
        index = batches.outer(stage.position)[rank::count].to(samples.device)
        loss = means(stage.step([samples[index]]))["divergence"]
        row = {
            "step": 0,
            "epoch": 0.0,
            "seconds": round(time.monotonic() - began, 3),
            "stage": "pretraining",
            "stage_step": stage.position,
            "moments": loss,
        }
        log(metrics, row)
        if received := largest(signals.received or 0):
            raise Interrupted(received, "stopped while pretraining, which starts again")
        if loss < 0.1:
            break


def log(metrics: RawIOBase, row: dict[str, Any]) -> None:
    """A line of the log, whole and not buffered; its failure is the run's."""
    line = (json.dumps(row) + "\n").encode()
    try:
        while line:  # a disk that is nearly full takes a part without a word
            line = line[metrics.write(line) :]
    except OSError as error:
        raise FailedRun(
            f"step {row['step']}: no line could be logged: {error}; the last checkpoint is intact"
        ) from None


def save(trainer: Trainer, folder: Path, seconds: float) -> None:
    """A checkpoint of the trainer as it stands, which the first process writes."""
    notes = {"seconds": round(seconds, 3)}
    write(folder / "checkpoints", trainer, trainer.state(), notes)


def write(folder: Path, trainer: Trainer, state: dict[str, Tensor], notes: dict) -> None:
    """`checkpoint.save` of the trained model, whose failure is the run's."""
    step, weights = trainer.position, whole(trainer.trained.state_dict())
    state = whole(state)
    if not first():
        return
    try:
        checkpoint.save(folder, step, weights, state, notes)
    except (OSError, ValueError) as error:
        raise FailedRun(
            f"step {step}: no checkpoint could be saved: {error}; "
            "the checkpoint before it is intact"
        ) from None


def resume(trainer: Trainer, folder: Path) -> float:
    """Restores the newest checkpoint that verifies, if there is one; the seconds trained so far.

    Metrics after its step are cut off, and damaged checkpoints newer than it are removed.
    """
    found = checkpoint.newest(folder / "checkpoints")
    seconds, step = 0.0, 0
    if found:
        _, contents = found
        notes = checkpoint.notes(contents)
        seconds, step = notes["seconds"], notes["step"]
        weights, state = (
            checkpoint.tensors(contents, f"{name}.safetensors") for name in ("model", "training")
        )
        trainer.restore(weights, state, step)
    elif checkpoint.newest_first(folder / "checkpoints"):
        warnings.warn(f"no checkpoint in {folder} verifies: starting at step 0", stacklevel=2)
    wait()
    if not first():
        return seconds
    for kept in ("checkpoints", "best"):
        checkpoint.discard_newer(folder / kept, step)
    metrics = folder / "metrics.jsonl"
    if metrics.exists():
        kept = [row for row in read_metrics(folder) if found and row["step"] <= step]
        write_whole(metrics, "".join(json.dumps(row) + "\n" for row in kept))
    return seconds


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The logged rows of a run, without the torn last line of one that was killed."""
    file = folder / "metrics.jsonl"
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows
