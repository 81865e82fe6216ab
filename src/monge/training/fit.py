"""Trains a recipe, or a model of your own, on data and writes a run directory."""

import copy
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from monge._core import processes
from monge._core.devices import chosen_device, current, described
from monge._core.errors import FailedRun
from monge._core.files import write_all
from monge._core.locks import ReadOnly
from monge._core.names import WriterName
from monge._core.tuning import using_threads
from monge.builders import settle
from monge.builders.settle import MASK, with_tuned
from monge.config import (
    CUSTOM,
    Config,
    Settled,
    TrainingConfig,
    to_json,
)
from monge.data import Batches, Data, Source, given, identity
from monge.data.kind import Augmentation
from monge.draws import global_stream
from monge.labels import Rows, unlabelled
from monge.models.masks import is_mask_name
from monge.models.protocols import (
    Completer,
    classes_of,
    has,
    rows_for,
    trainable,
)
from monge.training import checkpoint, loop, resumed, writers
from monge.training.directory import Directory, Stored
from monge.training.memory import is_resident
from monge.training.prepared import located, prepared, refuse_unusable
from monge.training.progress import say
from monge.training.trainer import Trainer
from monge.training.whole_set import NAME as COUPLING
from monge.training.whole_set import fit_coupling


class Trained(NamedTuple):
    """The result of a training."""

    path: Path
    """The run directory."""
    model: nn.Module | None
    """The trained model in evaluation mode, on the CPU; None where its networks were sharded."""
    source: Source
    further: bool
    """Whether there was anything left to train."""


def asked(model_or_recipe: nn.Module | str | None, data: Data, config: Config | None) -> Config:
    """The configuration with the recipe and the data that the other arguments name."""
    if not isinstance(model_or_recipe, (nn.Module, str, type(None))):
        raise ValueError(
            "`model_or_recipe` must be a recipe's name, or a model (a torch Module, not its "
            f"class), got {model_or_recipe!r}"
        )
    if not isinstance(config, (Config, type(None))):
        raise ValueError(f"`config` must be a monge.Config, got {type(config).__name__}")
    recipe = CUSTOM if isinstance(model_or_recipe, nn.Module) else model_or_recipe
    if config is None:
        config = Config.of(recipe) if recipe not in (None, CUSTOM) else Config()
    if recipe is not None:
        config = dataclasses.replace(config, recipe=recipe)
    if data is not None:
        name = str(data) if isinstance(data, (str, Path)) else "array"
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, name=name))
    return config


def train(
    model_or_recipe: nn.Module | str | None,
    data: Data,
    config: Config,
    directory: Directory,
    *,
    data_changed: bool,
    quiet: bool,
    log_to: Sequence[WriterName | writers.Writer] = (),
) -> Trained:
    """Trains in the group of this run's processes; see `monge.fit`.

    `directory` is what `monge.training.directory.opened` gives.
    """
    path, stored, _ = directory
    if stored:
        config = resumed.completed(config, stored[0])
        resumed.refuse_changes(stored[0], config, path)
    device = chosen_device(config.check().device)
    with current(device), using_threads(config.threads):
        return _trained(
            model_or_recipe, data, config, device, directory, data_changed, quiet, log_to
        )


def _trained(
    model_or_recipe: nn.Module | str | None,
    data: Data,
    config: Config,
    device: str,
    directory: Directory,
    data_changed: bool,
    quiet: bool,
    log_to: Sequence[WriterName | writers.Writer],
) -> Trained:
    """Trains on a device, in a run directory that is new or holds the stored configuration."""
    path, stored, read_only = directory
    refuse_unusable(config, device)
    source = given(data, config.data)
    if stored and not stored[1].float64:
        source = source.single()
    config = located(config)
    if not stored:  # a run goes on as it was started, also one of before recipes were tuned
        config = with_tuned(config, source.kind, source.shape)
    settled, change = settle(config, source), None
    if stored:
        config = resumed.placed(config, stored[0])
        settled, change = resumed.facts(stored[1], settled, source, path, data_changed)
    ready = prepared(model_or_recipe, source, config, settled, device, path if stored else None)
    settled, samples, held, batches, steps, trainer, augment = ready
    model = trainer.model
    if trainer.foreign:
        trainable(model)
    if trainer.foreign and not config.training.shard:
        rehearse(model, config.training, samples, augment)
    settings = checkpoint.settings_of(config, settled)
    seconds = loop.resume(trainer, path, settings, not read_only) if stored else 0.0
    if read_only:
        if change is not None or not loop.finished(trainer, steps, path):
            raise ReadOnly(read_only)
        return Trained(path, _whole(trainer, path), source, further=False)
    if config.condition == "clusters":  # those of the checkpoint, if there is one
        samples = rows_for(model, unlabelled(samples))
        held = None if held is None else rows_for(model, unlabelled(held))
    kept = fit_coupling(model, samples, config.training, augment, path, config.seed)
    if steps < trainer.position:
        raise ValueError(
            f"`steps` is {steps}, but the run {str(path)!r} has reached {trainer.position}"
        )
    start = trainer.position
    settled = _as_trained(settled, trainer)
    if change is not None:
        settled = resumed.changed(settled, change, start, steps, path)
    if stored and start:
        resumed.warn_of_bits(stored[1], settled)
    records = _records(config, settled, source, stored)
    if kept is not None:
        records[COUPLING] = kept.content
    processes.from_first(lambda: write_all(path, records))
    model.train()
    resident = is_resident(samples, trainer.device)
    if not quiet and processes.first():
        for line in _said(trainer, samples, resident, source, batches):
            say(line)
        if kept is not None:
            say(kept.line)
    if resident:
        samples = samples.to(trainer.device)
    with writers.opened(log_to, path, config, start) as logged:
        loop.run(
            trainer,
            samples,
            batches,
            steps,
            path,
            notes={"data": settled.fingerprint, "settings": settings},
            held=held,
            seconds=seconds,
            quiet=quiet,
            logged=logged,
        )
    return Trained(path, _whole(trainer, path), source, trainer.position > start)


def _whole(trainer: Trainer, path: Path) -> nn.Module | None:
    """The trained model in evaluation mode, on the CPU; None for one that was sharded, which is
    read from the checkpoint instead."""
    if trainer.config.shard:
        return None
    model = trainer.model
    model.load_state_dict(loop.trained(trainer, path))
    order = torch.contiguous_format
    return model.to("cpu", memory_format=order).eval()  # pyright: ignore[reportCallIssue]


def _as_trained(settled: Settled, trainer: Trainer) -> Settled:
    """The facts with where and how a run is trained, on which its bits depend."""
    return dataclasses.replace(
        settled,
        device=str(trainer.device),
        precision=trainer.precision,
        threads=torch.get_num_threads(),
        processor=torch.backends.cpu.get_cpu_capability(),
        torch=str(torch.__version__),
    )


def _records(
    config: Config, settled: Settled, source: Source, stored: Stored
) -> dict[str, str | bytes]:
    """The files that a run is rebuilt from and knows its data by."""
    digests = io.BytesIO()
    np.save(digests, source.identity.digests)
    records: dict[str, str | bytes] = {
        "config.json": to_json(config, settled),
        identity.NAME: digests.getvalue(),
    }
    known = getattr(config.options, "known", None)
    if known is not None and not is_mask_name(known) and not stored:
        records[MASK] = Path(known).read_bytes()
    return records


def _said(
    trainer: Trainer, samples: Rows, resident: bool, source: Source, batches: Batches
) -> list[str]:
    """The lines that say how a run is trained, and on what."""
    lines, asked = [_opening(trainer, samples, resident)], trainer.config.batch
    if source.summary:
        lines.append(f"data: {source.summary}")
    if batches.size < asked:
        lines.append(
            f"batch: all {batches.size} training samples, fewer than the {asked} of a batch by "
            "default"
        )
    return lines


def _opening(trainer: Trainer, samples: Rows, resident: bool) -> str:
    """The line that says where and how a run is trained."""
    parts = [f"device: {described(trainer.device)}"]
    if trainer.device.type != "cpu":
        place = "the device" if resident else "the host, loaded a batch ahead"
        parts.append(f"data: on {place}, {samples.nbytes / 1e6:,.0f} MB")
    if trainer.precision != "fp32":
        parts.append(f"networks: in {trainer.precision}")
    if trainer.config.compile:
        slower = ", and on a CPU seldom faster steps" if trainer.device.type == "cpu" else ""
        parts.append(f"compiling: seconds to minutes before the first steps{slower}")
    return "; ".join(parts)


def rehearse(
    model: nn.Module,
    config: TrainingConfig,
    samples: Rows,
    augment: Augmentation | None,
) -> None:
    """Trains a copy of a stranger's model for one step and samples it, before a run is written.

    Raises:
        ValueError: in one line, for a model that cannot be trained, or whose samples are not of
            the shape of the data.
    """
    name, device = type(model).__name__, next(iter(model.parameters()), torch.empty(0)).device
    batch = samples[: config.batch].to(device)
    draws = has(model, "sample") and not isinstance(model, Completer)  # which needs samples given
    with global_stream("rehearsal", device=device):
        try:
            copied: Any = copy.deepcopy(model)
            Trainer(copied.train(), config, device=device, augment=augment).step([batch])
            labels = {} if classes_of(model) is None else {"labels": torch.zeros(2).long()}
            drawn = copied.eval().sample(2, torch.Generator(), **labels) if draws else None
        except FailedRun:
            return  # numbers that are not finite: the run itself says at which step
        except Exception as error:  # whatever a stranger's code raises is bad input
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"`model` {name} cannot be trained and sampled: {reason}") from None
    found = tuple(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
    if drawn is not None and found != (2, *samples.shape[1:]):
        raise ValueError(
            f"`model` {name} returns {found} for sample(2), and the data have samples of shape "
            f"{tuple(samples.shape[1:])}"
        )
