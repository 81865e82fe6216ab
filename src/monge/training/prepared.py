"""Builds the model, the batches and the trainer of a configuration and its data.

`monge.training.fit` trains it, `monge.training.planned` times a few of its steps.
"""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from monge._core import processes
from monge.builders import build
from monge.builders.settle import with_kept_mask
from monge.config import CUSTOM, PUBLISHED, Config, Settled, TrainingConfig, override
from monge.data import Batches, Source
from monge.data.kind import Augmentation
from monge.draws import stream
from monge.labels import Labelled, Rows
from monge.models import matchings
from monge.models.masks import is_mask_name
from monge.models.protocols import classes_of, clusters_of, find_clusters
from monge.recipes import RECIPES
from monge.training.memory import running_out
from monge.training.precision import HALVES, is_convolutional
from monge.training.sharding import shard
from monge.training.trainer import Trainer
from monge.training.validation import held_apart

STEPS = 3000
"""The steps of a training for which neither steps nor epochs are given."""


class Prepared(NamedTuple):
    """A training before its first step."""

    settled: Settled
    """The facts of the run, its batch among them."""
    samples: Rows
    held: Rows | None
    """The validation set, which `patience` needs."""
    batches: Batches
    steps: int
    """The outer steps of the whole training."""
    trainer: Trainer
    augment: Augmentation | None


def prepared(
    model_or_recipe: nn.Module | str | None,
    source: Source,
    config: Config,
    settled: Settled,
    device: str,
    run: Path | None = None,
) -> Prepared:
    """The model of a configuration on its device, with all that trains it.

    Args:
        model_or_recipe: a model of your own, or what `config` names.
        source: the data.
        config: what was asked, with the rates of its recipe.
        settled: what is known from the data.
        device: cpu, cuda or cuda:n.
        run: the run that is resumed, which keeps its mask image.

    Raises:
        ValueError: for a model that does not suit the configuration, a batch of too few samples,
            or a matching that has weight in no step.
        FailedRun: where memory runs out.
    """
    _agree(model_or_recipe, config, settled)
    samples, held = training_samples(config, source)
    batches = batches_for(len(samples), config)
    settled = dataclasses.replace(settled, batch=batches.size)
    steps = steps_of(config.training, batches)
    with running_out(0, config.training.batch, config.training.micro_batch):
        built = config if run is None else with_kept_mask(config, run)
        model = model_of(model_or_recipe, built, settled, device)
        if config.condition == "clusters":
            find_clusters(model, source.train, config.seed)
        augment = source.kind.augmentation(config.data)
        trainer = trainer_of(model, config, augment, device)
    refuse_idle(model, steps)
    if run is None:
        _refuse_idle_steps(trainer)
    return Prepared(settled, samples, held, batches, steps, trainer, augment)


def _refuse_idle_steps(trainer: Trainer) -> None:
    """Refuses a number of inner steps where no critic takes them."""
    count, first = trainer.config.inner_steps, trainer.config.inner_first
    if (count, first) == (1, (0, 0)) or any(one.steps is None for one in trainer.learned):
        return
    name, value = ("inner_steps", count) if count != 1 else ("inner_first", first)
    own = " but that of a second matching, which takes `sharpen_steps`" if trainer.learned else ""
    raise ValueError(
        f"`{name}` is {value}, but this {type(trainer.model).__name__} has no critic{own}: leave "
        "it out"
    )


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


def located(config: Config) -> Config:
    """With the folder of a published data set, and the whole path of a mask image."""
    if config.data.name in PUBLISHED and config.data.dir is None:
        config = override(config, "data.dir", os.environ.get("MONGE_DATA"))
    known = getattr(config.options, "known", None)
    if known is not None and not is_mask_name(known) and os.path.isfile(known):
        config = override(config, "known", os.path.abspath(known))
    return config


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
    those that are held out where patience needs them."""
    samples: Rows = source.train
    if config.condition == "labels":
        assert source.train_labels is not None, "data without labels have been refused"
        samples = Labelled(source.train, source.train_labels)
    if config.training.patience is None:
        return samples, None
    contents = None if config.data.split == "position" else source.train_contents
    return held_apart(samples, config.seed, contents, repeats=source.kind.repeats)


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
    """The outer steps of a training."""
    if training.epochs is not None:
        return training.epochs * batches.per_epoch
    return training.steps or STEPS


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
    # channels-last in bf16 on a CPU, group normalisation takes ten times as long
    slow = device == "cpu" and any(isinstance(one, nn.GroupNorm) for one in model.modules())
    if ours and is_convolutional(model) and not slow:
        # the fastest order for convolutions; shards and the code of a stranger may not take it
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if config.training.compile:
        _compile(model, device)
    if config.training.shard and processes.world()[1] > 1:
        shard(model, device)
    return model


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
