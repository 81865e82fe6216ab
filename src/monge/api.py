"""The Python interface: `monge.fit` trains, `monge.load` gives a trained model back."""

from collections.abc import Sequence
from pathlib import Path

import torch

from monge._core.defaults import float32_on_cpu, outside_autocast, recording
from monge._core.devices import chosen_device
from monge._core.errors import FIX_OF_DIVERGENCE, FailedRun, NotFinite
from monge._core.names import WriterName
from monge._core.processes import first
from monge.config import Config
from monge.data import Data
from monge.runs import Run, load
from monge.training.directory import opened
from monge.training.distributed import group
from monge.training.fit import asked, train
from monge.training.writers import Writer
from monge.training.writers import check as check_writers

__all__ = ["Run", "fit", "load"]


def fit(
    model_or_recipe: torch.nn.Module | str | None = None,
    data: Data = None,
    config: Config | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    data_changed: bool = False,
    trust_data: bool = False,
    quiet: bool = False,
    log_to: Sequence[WriterName | Writer] = (),
) -> Run:
    """Trains a model and writes a run directory with checkpoints, metrics, pictures and report.

    Args:
        model_or_recipe: a recipe's name, `package.module:name` of a recipe of your own, or a
            model of your own (`monge.models.protocols`), which is trained in place; by default
            the recipe of `config`.
        data: a name or path as on the command line, an array, or a `Source`; by default what
            `config.data` names.
        config: everything else; by default `Config.of(recipe)`, which holds what the recipe's
            source sets.
        out: the run directory, which must not exist yet unless `resume`; by default a new one
            under `runs/`.
        resume: go on from the newest checkpoint in `out` that verifies, or start it. Epochs and
            steps may grow, and the place of the data, device, threads, `log_every` and
            `checkpoint_seconds` may be others; every other setting must be as it was, or None.
            The data must be the same samples.
        data_changed: go on although the data have changed, which the run then records.
        trust_data: with `resume`, open folders that the run names although it has no seal of
            this account.
        quiet: show no progress.
        log_to: where the log goes besides `metrics.jsonl`: names of tensorboard, wandb and mlflow,
            or writers of your own (`monge.training.writers`). The run does not remember them.

    `config.device` is auto by default: a GPU if there is one, otherwise the CPU. The chosen device
    is kept in `run.settled.device`, and the precision of the networks in `run.settled.precision`.

    The run directory is locked meanwhile: another process that would write into it gets an error
    that names this one.

    Under torchrun every process makes the same call: they share each batch and train what a single
    process would, and the first one writes.

    Returns:
        The run; `run.model` is the trained model, `run.report` the page that shows it.

    Raises:
        ValueError: for bad arguments or data, or a directory into which another process writes,
            before anything is written.
        FailedRun: if training cannot go on; the last good checkpoint, if there is one, is intact.
        Interrupted: after SIGINT, SIGTERM, SIGHUP or SIGUSR1, with the last step saved.
    """
    check_writers(log_to)
    config = asked(model_or_recipe, data, config)
    own = isinstance(model_or_recipe, torch.nn.Module)  # keeps the defaults of its program
    with (
        outside_autocast() if own else float32_on_cpu(),
        recording(),
        group(chosen_device(config.check().device)),
        opened(config, out, resume, trust_data) as directory,
    ):
        trained = train(
            model_or_recipe,
            data,
            config,
            directory,
            data_changed=data_changed,
            quiet=quiet,
            log_to=log_to,
        )
        run = Run(trained.path, trust_data=True)
        run.source = trained.source
        if trained.model is not None:
            run.model = trained.model
        missing = not directory.read_only and not run.report.exists()
        if first() and (trained.further or missing):
            from monge.show import report  # with matplotlib: half a second, after the training

            try:
                report.write(run)
            except NotFinite as error:
                raise FailedRun(
                    f"the training is done and saved in {str(run.path)!r}, but it has diverged "
                    f"and has no report: {error}: {FIX_OF_DIVERGENCE}"
                ) from None
            except OSError as error:
                raise FailedRun(
                    f"the training is done and saved in {str(run.path)!r}, but its report could "
                    f"not be written: {error}; --resume writes it"
                ) from None
    return run
