"""`monge.fit`: from a recipe (or a model of one's own) and data to a run with its report."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import monge
from monge import report
from monge.config import Config
from monge.data import Batches, Source, load
from monge.data.arrays import from_array
from monge.draws import stream
from monge.models import Model
from monge.recipes import build
from monge.runs import Run, read_config
from monge.training import loop
from monge.training.checkpoint import write_whole
from monge.training.trainer import Trainer


def fit(
    model_or_recipe: Model | str = "wae-mmd",
    data: str | Path | np.ndarray | Tensor | Source | None = None,
    config: Config | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains a model and writes a run directory with checkpoints, metrics, pictures and report.

    Arguments:
        model_or_recipe: a recipe's name, or a model of your own, which is trained in place.
        data: a name or path as on the command line, an array, or a `Source`; by default what
            `config.data` names.
        config: everything else; its recipe and data name give way to the two before.
        out: the run directory, which must not exist yet unless `resume`; by default a new one
            under `runs/`.
        resume: go on from the newest checkpoint in `out` that verifies, or start it.
        quiet: show no progress.

    Returns:
        The run; `run.model` is the trained model, `run.report` the page that shows it.

    Raises:
        ValueError: for bad arguments or data, before anything is written.
        FailedRun: if training cannot go on; the last good checkpoint is intact.
    """
    custom = model_or_recipe if isinstance(model_or_recipe, Model) else None
    config = config or Config()
    recipe = "custom" if custom is not None else str(model_or_recipe)
    config = dataclasses.replace(config, recipe=recipe)
    if isinstance(data, (str, Path)):
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, name=str(data)))
    elif data is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, name="array"))
    config.check()
    path = _directory(config, out, resume)
    _use(config)

    source = _source(data, config)
    config = config.settled(source.kind, source.shape, monge.__version__)
    batches = Batches(len(source.train), config.training.batch, config.seed)
    epochs, steps = config.training.epochs, config.training.steps
    steps = steps if epochs is None else epochs * batches.per_epoch
    assert steps is not None, "a settled config has one of the two"
    with stream(config.seed, "initial weights"):
        model = build(config, source.moments()) if custom is None else custom
    model.to(config.device)
    trainer = Trainer(model, config.training, seed=config.seed, device=config.device)

    _open(path, config)
    seconds = loop.resume(trainer, path) if resume else 0.0
    finished = trainer.position >= steps
    samples = source.train.to(config.device)
    model.train()
    loop.run(trainer, samples, batches, steps, path, seconds=seconds, quiet=quiet)
    run = Run(path)
    run.model, run.source = model.to("cpu").eval(), source
    if not (finished and run.report.exists()):
        report.write(run)
    return run


def _directory(config: Config, out: str | Path | None, resume: bool) -> Path:
    """The run directory, checked to be free, or to hold the run that is to be resumed."""
    if out is None:
        if resume:
            raise ValueError("`resume` needs `out`, the run directory to go on with: give --out")
        stem = f"{config.recipe}-{Path(config.data.name).stem}"
        numbers = (stem if i == 1 else f"{stem}-{i}" for i in range(1, 10**6))
        return next(p for p in (Path("runs") / name for name in numbers) if not p.exists())
    path = Path(out)
    if not resume:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(
                f"`out` {str(path)!r} exists already: go on with --resume or choose another"
            )
    elif (path / "config.json").exists():
        stored = read_config(path)
        if changed := _changes(stored, config):
            raise ValueError(
                f"`out` {str(path)!r} was started with other settings of {', '.join(changed)}: "
                "a resumed run may only change epochs or steps"
            )
    return path


def _changes(stored: Config, given: Config) -> list[str]:
    """Names of the settings that `given` sets and `stored` has otherwise."""

    def flat(values: dict, prefix: str = "") -> dict:
        out = {}
        for name, value in values.items():
            if isinstance(value, dict):
                out |= flat(value, f"{prefix}{name}.")
            else:
                out[prefix + name] = value
        return out

    free = {"training.epochs", "training.steps", "version", "kind", "shape"}
    old, new = flat(dataclasses.asdict(stored)), flat(dataclasses.asdict(given))
    return [k for k, v in new.items() if k not in free and v is not None and v != old[k]]


def _use(config: Config) -> None:
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        torch.empty(1, device=config.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"`device` {config.device!r} cannot be used: {reason}") from None


def _source(data, config: Config) -> Source:
    if isinstance(data, Source):
        return data
    if isinstance(data, Tensor):
        data = data.detach().cpu().numpy()
    return from_array(data) if isinstance(data, np.ndarray) else load(config.data)


def _open(path: Path, config: Config) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError("permission denied")
        write_whole(path / "config.json", config.to_json())
    except OSError as error:
        raise ValueError(f"`out` {str(path)!r} cannot be written: {error}") from None
