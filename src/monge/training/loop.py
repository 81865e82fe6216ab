"""The loop around the step: metrics, validation, checkpoints, signals."""

import contextlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any

from torch import Tensor

from monge._core.errors import FIX_OF_DIVERGENCE, FailedRun, Interrupted, warn
from monge._core.files import write_whole
from monge._core.processes import first, largest, means, wait
from monge._core.untrusted import converted, parsed, read_regular, shortened
from monge.data.batches import Batches
from monge.divergences import MomentMatching
from monge.draws import seed_of
from monge.labels import Rows
from monge.models import EncoderPretraining
from monge.training import checkpoint
from monge.training.averages import BATCHES
from monge.training.chance import ChanceWatch
from monge.training.loading import Prefetcher, fetch, rows
from monge.training.memory import running_out
from monge.training.progress import Display
from monge.training.schedule import decay, last_begin
from monge.training.sharding import full_tensors
from monge.training.signals import Signals
from monge.training.trainer import Trainer
from monge.training.validation import figure, out_of_patience, validations

PRETRAINED = 0.1
"""The loss of pretraining at which it stops."""
NO_NOTES: Mapping[str, Any] = {}
NAMED = ("stage",)
"""The fields of a row that are not numbers."""


def run(
    trainer: Trainer,
    samples: Rows,
    batches: Batches,
    steps: int,
    folder: Path,
    *,
    notes: Mapping[str, Any] = NO_NOTES,
    held: Rows | None = None,
    seconds: float = 0.0,
    quiet: bool = False,
    logged: Callable[[int, Mapping[str, float]], None] | None = None,
) -> None:
    """Trains up to step `steps`, and writes metrics and checkpoints to `folder`.

    Args:
        trainer: the model, its optimisers and the step to start from.
        samples: the training data, (n, *), on the trainer's device, or on the host from where each
            batch is copied; with their labels for a class-conditional model.
        batches: which samples each step uses.
        steps: outer steps of the whole training.
        folder: the run directory.
        notes: facts that every checkpoint keeps.
        held: the validation set. Its figure is logged at the end of every epoch; training with
            `patience` stops after that many epochs without a better one.
        seconds: how long the run had trained before it was resumed.
        quiet: shows no progress.
        logged: called with the step and the values of each row of the metrics that has a step.

    Raises:
        FailedRun: for a term that is not finite, or a checkpoint that cannot be written.
        Interrupted: after SIGINT, SIGTERM, SIGHUP or SIGUSR1, with the last step saved.
    """
    config, start = trainer.config, trainer.position
    began = saved = time.monotonic()
    before = read_metrics(folder)
    figures = validations(before)
    watch = ChanceWatch(trainer.model, before)
    stopped, received = out_of_patience(config, figures), 0
    with (
        batches_of(trainer, samples, batches) as next_batches,
        Signals() as signals,
        (folder / "metrics.jsonl" if first() else Path(os.devnull)).open("ab", 0) as metrics,
        Display(
            start, steps, batches.per_epoch, quiet or not first(), last_begin(trainer.model, steps)
        ) as display,
    ):
        if trainer.position == 0 and config.pretrain:
            pretrain(trainer, samples, metrics, folder, signals, began)
        while trainer.position < steps and not stopped and not received:
            terms = trainer.step(
                next_batches(),
                decay(config, trainer.position, batches.per_epoch, steps),
                done=trainer.position / steps,
            )
            step, now = trainer.position, time.monotonic()
            validating = held is not None and step % batches.per_epoch == 0
            if validating:
                finish_average(trainer, samples, batches)
            if step % config.log_every == 0 or step == steps or validating:
                values = means(terms)
                if held is not None and validating and first():
                    values["validation"] = validate(trainer, held, figures, folder, notes)
                row = {
                    "step": step,
                    "epoch": round(step / batches.per_epoch, 4),
                    "seconds": round(seconds + now - began, 3),
                    **values,
                }
                log(metrics, row, folder)
                if logged is not None:
                    logged(step, values)
                display.update(step, (step - start) * batches.size / (now - began), values)
                if watch.follow(row):
                    display.note(f"{watch.remark}")
            if validating:
                stopped = bool(largest(int(out_of_patience(config, figures))))
            # the processes agree on the signal and on saving: one number holds both
            due = now - saved > config.checkpoint_seconds
            received, due = divmod(largest(2 * (signals.received or 0) + due), 2)
            if received or due or stopped or step == steps:
                finish_average(trainer, samples, batches)
                save(trainer, folder, seconds + now - began, notes)
                saved = time.monotonic()
        received = received or largest(signals.received or 0)  # during the last save
        if received:
            raise Interrupted(received, f"saved step {trainer.position} of {steps} in {folder}")
    wait()


def finished(trainer: Trainer, steps: int, folder: Path) -> bool:
    """Whether a run that was resumed has no step left to train."""
    figures = validations(read_metrics(folder))
    return trainer.position >= steps or out_of_patience(trainer.config, figures)


@contextlib.contextmanager
def batches_of(
    trainer: Trainer, samples: Rows, batches: Batches
) -> Iterator[Callable[[], list[Rows]]]:
    """A function that returns the batches of the trainer's next step, loaded ahead where the
    samples are not on its device."""
    if samples.device.type == trainer.device.type:
        yield lambda: fetch(trainer, samples, batches)
        return
    prefetcher = Prefetcher(trainer, samples, batches)
    try:
        yield prefetcher.fetch
    finally:
        prefetcher.close()


def finish_average(trainer: Trainer, samples: Rows, batches: Batches) -> None:
    """Makes a moving average fit for use by the first batches of the first epoch."""
    count = min(BATCHES, batches.per_epoch)
    trainer.finish_average(rows(samples, batches.outer(i), trainer.device) for i in range(count))


def validate(
    trainer: Trainer,
    held: Rows,
    figures: list[float],
    folder: Path,
    notes: Mapping[str, Any],
) -> float:
    """The figure of the validation set, appended to `figures`; saves the model if it is the best
    so far."""
    config = trainer.config
    with running_out(trainer.position, config.batch, config.micro_batch):
        value = figure(trainer.trained, held, config.batch, trainer.seed, foreign=trainer.foreign)
    if value < min(figures, default=math.inf):
        write(folder / "best", trainer, {}, {**notes, "validation": value})
    figures.append(value)
    return value


def trained(trainer: Trainer, folder: Path) -> dict[str, Tensor]:
    """The tensors of the final model: the best one on the validation set, if there is a validation
    set, otherwise the last one."""
    best = checkpoint.newest(folder / "best")
    if best is None:
        return trainer.trained.state_dict()
    _, contents = best
    return checkpoint.tensors(contents, "model.safetensors")


def pretrain(
    trainer: Trainer,
    samples: Rows,
    metrics: RawIOBase,
    folder: Path,
    signals: Signals,
    began: float,
) -> None:
    """Trains the encoder, before step 0, to match the codes' mean and covariance to the prior's.

    Its rows in the metrics have a `stage` and the step 0. A run that is stopped meanwhile starts
    pretraining again.

    Raises:
        ValueError: for a model without what `EncoderPretraining` needs.
    """
    config, model = trainer.config, trainer.model
    alone = EncoderPretraining(model, MomentMatching())
    size = min(config.pretrain_batch, len(samples))
    batches = Batches(len(samples), size, seed_of(trainer.seed, "pretraining"))
    stage = Trainer(
        alone, config, seed=batches.seed, device=trainer.device, foreign=trainer.foreign
    )
    while stage.position < config.pretrain:
        terms = stage.step([rows(samples, batches.outer(stage.position), trainer.device)])
        loss = means(terms)["divergence"]
        row = {
            "step": 0,
            "epoch": 0.0,
            "seconds": round(time.monotonic() - began, 3),
            "stage": "pretraining",
            "stage_step": stage.position,
            "moments": loss,
        }
        log(metrics, row, folder)
        if received := largest(signals.received or 0):
            raise Interrupted(received, "stopped while pretraining, which starts again")
        if loss < PRETRAINED:
            break


def log(metrics: RawIOBase, row: dict[str, Any], folder: Path) -> None:
    """Writes a whole line to the metrics of the run in `folder`, without a buffer; the run fails
    if it cannot."""
    line = (json.dumps(row) + "\n").encode()
    try:
        while line:  # on a disk that is nearly full, `write` may write less without an error
            line = line[metrics.write(line) :]
    except OSError as error:
        raise FailedRun(
            f"step {row['step']}: no line could be logged: {error}; "
            + remaining(folder, row["step"])
        ) from None


def save(
    trainer: Trainer, folder: Path, seconds: float, notes: Mapping[str, Any] = NO_NOTES
) -> None:
    """Writes a checkpoint of the trainer, on the first process."""
    kept = {**notes, "seconds": round(seconds, 3)}
    write(folder / "checkpoints", trainer, trainer.state(), kept)


def write(
    folder: Path, trainer: Trainer, state: dict[str, Tensor], notes: Mapping[str, Any]
) -> None:
    """Writes the trained model and `state` as a checkpoint; the run fails if it cannot."""
    step, weights = trainer.position, full_tensors(trainer.trained.state_dict())
    state = full_tensors(state)
    if not first():
        return
    try:
        checkpoint.save(folder, step, weights, state, notes)
    except (OSError, ValueError) as error:
        diverged = isinstance(error, ValueError)
        way = f": {FIX_OF_DIVERGENCE}" if diverged else ""
        raise FailedRun(
            f"step {step}: no checkpoint could be saved: {error}{way}; "
            + remaining(folder.parent, step)
        ) from None


def remaining(folder: Path, step: int) -> str:
    """The checkpoint from which a run that failed at `step` can be resumed, in words."""
    newest = checkpoint.newest(folder / "checkpoints", before=step)
    return f"{newest[0].name} is intact" if newest else "there is no checkpoint to go on from"


def resume(
    trainer: Trainer,
    folder: Path,
    settings: Mapping[str, str] = NO_NOTES,
    writable: bool = True,
) -> float:
    """Restores the newest valid checkpoint, if there is one; returns the seconds trained so far.

    Cuts the metrics back to its step, and removes newer checkpoints, which are damaged, where the
    folder is writable.

    Raises:
        ValueError: for a checkpoint of another model, or of other settings, see
            `checkpoint.refuse_settings`.
    """
    newest = checkpoint.newest(folder / "checkpoints")
    seconds, step = 0.0, 0
    if newest:
        _, contents = newest
        notes = checkpoint.notes(contents)
        checkpoint.refuse_settings(notes, settings, folder)
        seconds, step = notes.seconds, notes.step
        weights = checkpoint.tensors(contents, "model.safetensors")
        trainer.restore(weights, checkpoint.tensors(contents, "training.safetensors"), step)
    elif checkpoint.newest_first(folder / "checkpoints"):
        warnings.warn(f"no checkpoint in {folder} verifies: starting at step 0", stacklevel=2)
    wait()
    if first() and writable:
        for kept in ("checkpoints", "best"):
            checkpoint.discard_newer(folder / kept, step)
        metrics = folder / "metrics.jsonl"
        if metrics.exists():
            rows = [row for row in read_metrics(folder) if newest and row["step"] <= step]
            write_whole(metrics, "".join(json.dumps(row) + "\n" for row in rows))
    return seconds


@dataclass(frozen=True)
class Logged:
    """The fields of every row of metrics.jsonl, besides its terms."""

    step: int
    epoch: float
    seconds: float
    stage: str | None = None


MOST_LOGGED = 2**30
"""Bytes of metrics.jsonl."""


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The logged rows of a run. Lines that are no rows are left out, with a warning unless it is
    the last one, which a kill may have cut off.

    Raises:
        ValueError: for what is not a regular file, or has over 2³⁰ bytes.
    """
    file = folder / "metrics.jsonl"
    if not file.exists():
        return []
    rows, damaged = [], []
    lines = read_regular(file, MOST_LOGGED).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_row(line))
        except ValueError as error:
            damaged.append(f"line {number} of {str(file)!r} is not a row: {error}")
    if damaged and not damaged[0].startswith(f"line {len(lines)} "):
        warn(f"{damaged[0]}; {len(damaged)} of {len(lines)} lines are left out")
    return rows


def _row(line: bytes) -> dict[str, Any]:
    row = parsed(line)
    converted(row, Logged, "row")
    for name, value in row.items():
        small = isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)
        if name not in NAMED and not small:
            raise ValueError(f"{shortened(name)} is {shortened(value)} in place of a number")
    if row["step"] < 0:
        raise ValueError(f"its step is {row['step']}")
    return row
