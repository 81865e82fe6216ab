"""`monge.fit`: from a recipe (or a model of one's own) and data to a run with its report."""

import dataclasses
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monge._core import processes
from monge._core.files import write_all
from monge.builders import build
from monge.config import Config, override
from monge.data import Batches, Source, load
from monge.data.readers.arrays import from_array, is_clouds
from monge.data.readers.clouds import augmented, from_points
from monge.draws import stream
from monge.models import WAE, Model
from monge.runs import Run, read_config
from monge.training import distributed, loop
from monge.training.sharding import shard
from monge.training.trainer import HALVES, Trainer
from monge.training.validation import held_apart


def fit(
    model_or_recipe: Model | str | None = None,
    data: str | Path | np.ndarray | Tensor | Source | None = None,
    config: Config | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains a model and writes a run directory with checkpoints, metrics, pictures and report.

    Arguments:
        model_or_recipe: a recipe's name, or a model of your own, which is trained in place; by
            default the recipe of `config`.
        data: a name or path as on the command line, an array, or a `Source`; by default what
            `config.data` names.
        config: everything else; by default `Config.of(recipe)`, which holds what the recipe's
            source sets.
        out: the run directory, which must not exist yet unless `resume`; by default a new one
            under `runs/`.
        resume: go on from the newest checkpoint in `out` that verifies, or start it. Epochs and
            steps may grow; every other setting must be as it was, or None.
        quiet: show no progress.

    Where torchrun has started several processes, each calls this alike: they share every batch
    and train what one process would; the first one writes.

    Returns:
        The run; `run.model` is the trained model, `run.report` the page that shows it.

    Raises:
        ValueError: for bad arguments or data, before anything is written.
        FailedRun: if training cannot go on; the last good checkpoint is intact.
        Interrupted: after SIGINT or SIGTERM, with the last step saved.
    """
    if config is None and isinstance(model_or_recipe, str):
        config = Config.of(model_or_recipe)
    config = _asked(model_or_recipe, data, config or Config())
    with distributed.group(config.device):
        return _fit(model_or_recipe, data, config, out, resume, quiet)


def _fit(model_or_recipe, data, config: Config, out, resume: bool, quiet: bool) -> Run:
    """`fit`, in the group of its processes."""
    path, stored = processes.from_first(lambda: _found(config, out, resume))
    if stored:
        config = _onto(stored, config)
        _same(stored, config, path)
    _use(config.check())
    source = _source(data, config)
    config = config.settled(source.kind, source.shape, len(source.train), source.spread())
    if stored:
        _same(stored, config, path)
    samples, held = source.train, None
    if config.training.patience is not None:
        samples, held = held_apart(samples, config.seed)
    size, (_, count) = config.training.batch, processes.world()
    if size < count:
        raise ValueError(
            f"`batch` is {size}, fewer samples than the {count} processes: raise it or start fewer"
        )
    batches = Batches(len(samples), size, config.seed, least=max(2, count))
    epochs, steps = config.training.epochs, config.training.steps
    steps = steps if epochs is None else epochs * batches.per_epoch
    assert steps is not None, "a settled config has one of the two"

    model = model_or_recipe
    if not isinstance(model, Model):
        with stream(config.seed, "initial weights"):
            model = build(config, source.moments())
    if config.training.pretrain and not isinstance(model, WAE):
        raise ValueError(
            f"`pretrain` is {config.training.pretrain}, but a {type(model).__name__} has no codes "
            "under a penalty: leave it 0"
        )
    model.to(config.device)
    if config.training.compile:
        _compile(model, config.device)
    if config.training.shard and config.recipe == "custom":
        raise ValueError("`shard` is for recipes: leave it out for a model of your own")
    if config.training.shard and count > 1:
        shard(model, config.device)
    augment = None
    if config.data.turn or config.data.jitter:
        augment = partial(augmented, turn=config.data.turn, jitter=config.data.jitter)
    trainer = Trainer(
        model, config.training, seed=config.seed, device=config.device, augment=augment
    )
    seconds = loop.resume(trainer, path) if stored else 0.0
    if steps < trainer.position:
        raise ValueError(
            f"`steps` is {steps}, but the run {str(path)!r} has reached {trainer.position}"
        )
    processes.from_first(lambda: write_all(path, {"config.json": config.to_json()}))
    start = trainer.position
    model.train()
    samples = samples.to(config.device)
    held = None if held is None else held.to(config.device)
    loop.run(trainer, samples, batches, steps, path, held=held, seconds=seconds, quiet=quiet)
    run = Run(path)
    run.source = source
    if not config.training.shard:  # otherwise it is read from the checkpoint
        model.load_state_dict(loop.trained(trainer, path))
        run.model = model.to("cpu").eval()
    if processes.first() and not (trainer.position == start and run.report.exists()):
        from monge import report  # with matplotlib: half a second, not before the first step

        report.write(run)
    return run


def _asked(model_or_recipe: Model | str | None, data, config: Config) -> Config:
    """The config with the recipe and the data that the other arguments name."""
    if model_or_recipe is not None:
        recipe = "custom" if isinstance(model_or_recipe, Model) else model_or_recipe
        config = dataclasses.replace(config, recipe=recipe)
    if data is not None:
        name = str(data) if isinstance(data, (str, Path)) else "array"
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, name=name))
    return config


def _found(config: Config, out: str | Path | None, resume: bool) -> tuple[Path, Config | None]:
    """The run directory, and what is stored there of a run that is to be resumed."""
    path = _directory(config, out, resume)
    return path, read_config(path) if resume and (path / "config.json").exists() else None


def _directory(config: Config, out: str | Path | None, resume: bool) -> Path:
    """The run directory, checked to be free, or to hold the run that is to be resumed."""
    if out is None:
        if resume:
            raise ValueError("`resume` needs `out`, the run directory to go on with: give --out")
        data = re.sub(r"[^\w.-]+", "-", Path(config.data.name).stem)  # it may be a pattern
        stem = f"{config.recipe}-{data}"
        numbers = (stem if i == 1 else f"{stem}-{i}" for i in range(1, 10**6))
        return next(p for p in (Path("runs") / name for name in numbers) if not p.exists())
    path = Path(out)
    if os.path.exists(path):  # unlike path.exists(), False for names that are too long
        taken = not path.is_dir() or {p.name for p in path.iterdir()} - {".config.json.part"}
        if taken and not (resume and (path / "config.json").exists()):
            way = "it holds no run to resume" if resume else "go on with --resume"
            raise ValueError(f"`out` {str(path)!r} exists already: {way}, or choose another")
    return path


def _leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted path."""
    leaves: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value)
        name = prefix + field.name
        leaves |= _leaves(value, f"{name}.") if nested else {name: value}
    return leaves


FREE = ("training.epochs", "training.steps")
# what changes no number
INDIFFERENT = (
    "version", "data.cache", "training.micro_batch", "training.shard", "training.compile",
)  # fmt: skip


def _onto(stored: Config, given: Config) -> Config:
    """`given`, with what it leaves open as it is stored."""
    old = _leaves(stored)
    if given.training.epochs is None and given.training.steps is None:
        given = override(given, FREE[0], stored.training.epochs)
        given = override(given, FREE[1], stored.training.steps)
    for name, value in _leaves(given).items():
        if value is None and name not in FREE:
            given = override(given, name, old[name])
    return given


def _same(stored: Config, given: Config, path: Path) -> None:
    old, new = _leaves(stored), _leaves(given)
    fixed_end = stored.training.schedule in ("smooth", "cosine")
    free = (*INDIFFERENT, *(() if fixed_end else FREE))
    changed = [name for name in old if name not in free and old[name] != new[name]]
    if changed:
        may = "nothing, since its rates depend on its end" if fixed_end else "epochs or steps only"
        raise ValueError(
            f"`out` {str(path)!r} was started with other settings of {', '.join(changed)}: "
            f"a resumed run may change {may}"
        )


def _use(config: Config) -> None:
    """Threads, and whether the device and its precision can be used."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    half, kind = HALVES.get(config.training.precision), config.device.split(":")[0]
    for name, value, dtype in (
        ("device", config.device, None), ("precision", config.training.precision, half),
    ):  # fmt: skip
        try:
            x = torch.ones(8, 8, device=config.device, dtype=dtype)
            with torch.autocast(kind, dtype, enabled=dtype is not None):
                float((x @ x).sum())
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"`{name}` {value!r} cannot be used: {reason}") from None


def _compile(model: Model, device: str) -> None:
    """Compiles a model's networks in place; on a GPU their graphs are replayed whole."""
    compiler = os.environ.get("CXX", "g++")
    if device == "cpu" and shutil.which(compiler) is None:
        raise ValueError(f"`compile` needs a C++ compiler, and there is no {compiler}: set CXX")
    for network in model.children():
        if network is not model.divergence and network is not model.prior:
            network.compile(mode="reduce-overhead" if device.startswith("cuda") else None)


def _source(data, config: Config) -> Source:
    if isinstance(data, Source):
        return data.checked()
    if isinstance(data, Tensor):
        data = data.detach().cpu().numpy()
    if data is None or isinstance(data, (str, Path)):
        return load(config.data)
    if is_clouds(np.asarray(data)):
        return from_points(np.asarray(data), config.data, "array")
    return from_array(data)
