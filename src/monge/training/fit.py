"""From a recipe (or a model of your own) and data to trained weights in a run directory."""

import copy
import dataclasses
import io
import os
import shutil
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
from monge._core.tuning import using_threads
from monge._core.writer_names import WriterName
from monge.builders import build, settle
from monge.builders.settle import MASK, with_kept_mask, with_tuned
from monge.config import (
    CUSTOM,
    PUBLISHED,
    Config,
    Settled,
    TrainingConfig,
    override,
    to_json,
)
from monge.data import Batches, Data, Source, given, identity
from monge.data.kinds import Augmentation
from monge.draws import global_stream, stream
from monge.labels import Labelled, Rows, unlabelled
from monge.models import matchings
from monge.models.masks import is_mask_name
from monge.models.protocols import (
    Completer,
    classes_of,
    clusters_of,
    find_clusters,
    has,
    rows_for,
    trainable,
)
from monge.recipes import RECIPES
from monge.training import checkpoint, loop, resumed, writers
from monge.training.directory import Stored
from monge.training.memory import is_resident, running_out
from monge.training.precision import HALVES, is_convolutional
from monge.training.progress import say
from monge.training.sharding import shard
from monge.training.trainer import Trainer
from monge.training.validation import held_apart
from monge.training.whole_set import NAME as COUPLING
from monge.training.whole_set import fit_coupling

STEPS = 3000
"""Of a training for which neither steps nor epochs were asked."""


class Trained(NamedTuple):
    """What training leaves."""

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
    path: Path,
    stored: Stored,
    *,
    data_changed: bool,
    quiet: bool,
    log_to: Sequence[WriterName | writers.Writer] = (),
) -> Trained:
    """Trains in the group of this run's processes; see `monge.fit`.

    `path` and `stored` are what `directory.opened` gives.
    """
    if stored:
        config = resumed.completed(config, stored[0])
        resumed.refuse_changes(stored[0], config, path)
    device = chosen_device(config.check().device)
    with current(device), using_threads(config.threads):
        return _trained(
            model_or_recipe, data, config, device, path, stored, data_changed, quiet, log_to
        )


def _trained(
    model_or_recipe: nn.Module | str | None,
    data: Data,
    config: Config,
    device: str,
    path: Path,
    stored: Stored,
    data_changed: bool,
    quiet: bool,
    log_to: Sequence[WriterName | writers.Writer],
) -> Trained:
    """Trains on a device, in a run directory that is new or holds the stored configuration."""
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
    _agree(model_or_recipe, config, settled)
    samples, held = training_samples(config, source)
    batches = batches_for(len(samples), config)
    settled = dataclasses.replace(settled, batch=batches.size)
    steps = steps_of(config.training, batches)

    with running_out(0, config.training.batch, config.training.micro_batch):
        built = with_kept_mask(config, path) if stored else config
        model = model_of(model_or_recipe, built, settled, device)
        if config.condition == "clusters":
            find_clusters(model, source.train, config.seed)
        augment = source.kind.augmentation(config.data)
        trainer = trainer_of(model, config, augment, device)
    refuse_idle(model, steps)
    if trainer.foreign:
        trainable(model)
    if trainer.foreign and not config.training.shard:
        rehearse(model, config.training, samples, augment)
    settings = checkpoint.settings_of(config, settled)
    seconds = loop.resume(trainer, path, settings) if stored else 0.0
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
    whole = None if config.training.shard else _whole(model, trainer, path)
    return Trained(path, whole, source, trainer.position > start)


def _agree(model_or_recipe: nn.Module | str | None, config: Config, settled: Settled) -> None:
    """Refuses a model of your own that is conditional without `condition`, or the other way round,
    or has another number of classes than the data, or no clusters of its own."""
    if not isinstance(model_or_recipe, nn.Module):
        return
    name, own, found = (
        type(model_or_recipe).__name__,
        classes_of(model_or_recipe) or 0,
        len(settled.classes),
    )
    if own != found:
        raise ValueError(
            f"`model` {name} has {own} `classes`, and `condition` {config.condition} of these "
            f"data gives {found}: make them agree"
        )
    if config.condition == "clusters" and clusters_of(model_or_recipe) is None:
        raise ValueError(
            f"`condition` is clusters, and the `model` {name} has no `clusters`, a "
            f"monge.networks.Clusters({own}, {settled.shape})"
        )


def training_samples(config: Config, source: Source) -> tuple[Rows, Rows | None]:
    """The training samples, with their labels where a model of labelled classes is asked for, and
    those that are held apart where patience needs them."""
    samples: Rows = source.train
    if config.condition == "labels":
        assert source.train_labels is not None, "data without labels have been refused"
        samples = Labelled(source.train, source.train_labels)
    if config.training.patience is None:
        return samples, None
    contents = None if config.data.split == "position" else source.train_contents
    return held_apart(samples, config.seed, contents, repeats=source.kind.repeats)


def refuse_idle(model: nn.Module, steps: int) -> None:
    """Refuses a schedule under which a matching has no weight, first or last, or in no step."""
    for one in matchings(model):
        if one.every > steps:
            raise ValueError(
                f"the matching {one.name!r} is of one in {one.every} steps, and there are "
                f"{steps}: train longer, or lower --sharpen-every"
            )
        if one.schedule and one.weight and not (one.schedule(0.0) or one.schedule(1 - 1 / steps)):
            raise ValueError(
                f"the matching {one.name!r} would begin after the last of {steps} steps: train "
                "longer, or let it begin earlier, as with --sharpen-from"
            )


def trainer_of(
    model: nn.Module, config: Config, augment: Augmentation | None, device: str
) -> Trainer:
    """The trainer of a model."""
    return Trainer(
        model,
        config.training,
        seed=config.seed,
        device=device,
        augment=augment,
        foreign=config.recipe not in RECIPES,
    )


def _whole(model: nn.Module, trainer: Trainer, path: Path) -> nn.Module:
    """The trained model in evaluation mode, on the CPU; one that was sharded is read from the
    checkpoint instead."""
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


def model_of(
    model_or_recipe: nn.Module | str | None, config: Config, settled: Settled, device: str
) -> nn.Module:
    """The model to train, on its device, its networks compiled or sharded as asked."""
    model = model_or_recipe
    if not isinstance(model, nn.Module):
        with stream(config.seed, "initial weights"):
            model = build(config, settled)
    if config.training.pretrain and not hasattr(model, "codes"):
        raise ValueError(
            f"`pretrain` is {config.training.pretrain}, but a {type(model).__name__} has no codes "
            "under a penalty: leave it 0"
        )
    if config.training.shard and config.recipe == CUSTOM:
        raise ValueError("`shard` is for recipes: leave it out for a model of your own")
    model.to(device)
    ours = config.recipe in RECIPES and not config.training.shard
    if device.startswith("cuda") and ours and is_convolutional(model):
        # tensor cores take convolutions in this order; shards and code of a stranger may not
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if config.training.compile:
        _compile(model, device)
    if config.training.shard and processes.world()[1] > 1:
        shard(model, device)
    return model


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


def batches_for(count: int, config: Config) -> Batches:
    """The batches of `count` samples. All of them are one batch where there are fewer than in a
    batch by default; a batch of another size was asked for, and is refused."""
    size, (_, world) = config.training.batch, processes.world()
    if size > count and size in _default_batches(config):
        size = count
    if size < world:
        raise ValueError(
            f"`batch` is {size}, fewer samples than the {world} processes: raise it or start fewer"
        )
    return Batches(count, size, config.seed, least=max(2, world))


def _default_batches(config: Config) -> set[int]:
    """The batches of configurations that do not set it: of any, and of the recipe's."""
    sizes = {TrainingConfig.batch}
    if config.recipe != CUSTOM:
        asked = Config.of(config.recipe, config.preset, config.data.name)
        sizes.add(asked.training.batch)
    return sizes


def steps_of(training: TrainingConfig, batches: Batches) -> int:
    """How many outer steps a training has."""
    if training.epochs is not None:
        return training.epochs * batches.per_epoch
    return training.steps or STEPS


def refuse_unusable(config: Config, device: str) -> None:
    """Refuses a device, or a precision that it cannot compute in."""
    half, kind = HALVES.get(config.training.precision), device.split(":")[0]
    tried = (("device", device, None), ("precision", config.training.precision, half))
    for name, value, dtype in tried:
        try:
            x = torch.ones(8, 8, device=device, dtype=dtype)
            with torch.autocast(kind, dtype, enabled=dtype is not None):
                float((x @ x).sum())
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"`{name}` {value!r} cannot be used: {reason}") from None


def _compile(model: nn.Module, device: str) -> None:
    """Compiles a model's networks in place; on a GPU their graphs are replayed whole."""
    compiler = os.environ.get("CXX", "g++")
    if device == "cpu" and shutil.which(compiler) is None:
        raise ValueError(f"`compile` needs a C++ compiler, and there is no {compiler}: set CXX")
    aside: list[Any] = [one.divergence for one in matchings(model)]
    aside += [getattr(model, "prior", None), clusters_of(model)]
    for network in model.children():
        if not any(network is other for other in aside):
            network.compile(mode="reduce-overhead" if device.startswith("cuda") else None)


def located(config: Config) -> Config:
    """With the folder of a published data set, and the whole path of a mask image."""
    if config.data.name in PUBLISHED and config.data.dir is None:
        config = override(config, "data.dir", os.environ.get("MONGE_DATA"))
    known = getattr(config.options, "known", None)
    if known is not None and not is_mask_name(known) and os.path.isfile(known):
        config = override(config, "known", os.path.abspath(known))
    return config
