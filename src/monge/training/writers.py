"""Destinations of the log besides `metrics.jsonl`: TensorBoard, Weights & Biases and MLflow.

A writer receives each logged step. One that fails, e.g. because a server is gone, is closed with a
warning, and the training goes on.
"""

import abc
import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from monge._core.errors import needs, warn
from monge._core.fields import leaves
from monge._core.files import write_whole
from monge._core.names import WriterName
from monge._core.processes import first
from monge._core.untrusted import parsed, read_regular
from monge.config import Config
from monge.config.trust import PLACES

PROJECT = "monge"
NAME = "log.json"
"""The file of a run with the identifiers that services gave it, by which a resumed run continues
there."""


class Writer(abc.ABC):
    """Receives each logged step of a training."""

    @abc.abstractmethod
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the terms of a step, by name."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the log; called once."""


class TensorBoard(Writer):
    """Scalars for TensorBoard, in the folder `tensorboard` of the run.

    Args:
        run: the run directory.
        start: the step that the training goes on from; later ones, of before a kill, are hidden.
    """

    def __init__(self, run: Path, start: int = 0):
        with needs("logging"):
            from torch.utils.tensorboard import SummaryWriter
        self.writer = SummaryWriter(run / "tensorboard", purge_step=start + 1 if start else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases(Writer):
    """A run of the project `monge` of Weights & Biases, by the account that `wandb` has.

    Args:
        run: the run directory.
        config: what is trained.
    """

    def __init__(self, run: Path, config: Config):
        with needs("wandb"):
            import wandb  # pyright: ignore[reportMissingImports]
        self.run: Any = wandb.init(
            project=PROJECT,
            name=run.resolve().name,
            dir=str(run),
            config=settings(config),
            id=identifier(run, "wandb"),
            resume="allow",
        )
        keep(run, "wandb", self.run.id)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow(Writer):
    """A run of the experiment `monge` of MLflow, at its tracking address.

    Args:
        run: the run directory.
        config: what is trained.
    """

    def __init__(self, run: Path, config: Config):
        with needs("mlflow"):
            from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        self.client: Any = MlflowClient()
        self.id = identifier(run, "mlflow")
        if self.id is None:
            found = self.client.get_experiment_by_name(PROJECT)
            experiment = found.experiment_id if found else self.client.create_experiment(PROJECT)
            self.id = self.client.create_run(experiment, run_name=run.resolve().name).info.run_id
            for name, value in settings(config).items():
                self.client.log_param(self.id, name, value)
            keep(run, "mlflow", self.id)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.id, re.sub(r"[^\w\-. :/]", "_", name), value, step=step)

    def close(self) -> None:
        self.client.set_terminated(self.id)


def settings(config: Config) -> dict[str, Any]:
    """A configuration by dotted names, without folders of this machine."""
    return {
        name: re.split(r"[/\\]", value)[-1] if _holds_path(name, value) else value
        for name, value in leaves(config).items()
    }


def _holds_path(name: str, value: object) -> bool:
    return isinstance(value, str) and name.rsplit(".", 1)[-1] in PLACES


def identifier(run: Path, service: str) -> str | None:
    """The identifier of the run at a service, if it has one there."""
    try:
        found = parsed(read_regular(run / NAME, 2**16))
    except (OSError, ValueError):
        return None
    name = found.get(service) if isinstance(found, dict) else None
    return name if isinstance(name, str) and re.fullmatch(r"[\w-]{1,64}", name) else None


def keep(run: Path, service: str, name: str) -> None:
    """Stores the identifier of the run at a service."""
    known = {one: identifier(run, one) for one in ("wandb", "mlflow")} | {service: name}
    write_whole(run / NAME, json.dumps({k: v for k, v in known.items() if v is not None}) + "\n")


class Writers:
    """Several writers as one; a writer that fails is left out from then on."""

    def __init__(self, writers: Sequence[Writer]):
        self.writers = list(writers)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Passes a logged step to each of them."""
        for writer in list(self.writers):
            self._tried(writer, lambda writer=writer: writer.write(step, values))

    def close(self) -> None:
        """Closes each of them."""
        for writer in list(self.writers):
            self._tried(writer, writer.close)

    def _tried(self, writer: Writer, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever a service or a stranger's writer raises
            self.writers.remove(writer)
            reason = f"{type(error).__name__}: {error}"
            warn(
                f"{type(writer).__name__} failed and no longer receives the log: {reason}; "
                "the training goes on"
            )


def check(log_to: object) -> None:
    """Refuses what is neither a writer nor the name of one whose package is installed.

    Raises:
        ValueError: with the known names, or with what to install.
    """
    names = get_args(WriterName)
    if isinstance(log_to, str) or not isinstance(log_to, Sequence):
        raise ValueError(f"`log_to` must be a list, as ['tensorboard'], got {log_to!r}")
    for one in log_to:
        if not isinstance(one, Writer) and one not in names:
            raise ValueError(
                f"`log_to` has {one!r}: give some of {', '.join(names)}, or a "
                "monge.training.writers.Writer"
            )
        if isinstance(one, str) and importlib.util.find_spec(one) is None:
            extra = "logging" if one == "tensorboard" else one
            raise ValueError(
                f"`log_to` {one} needs the package {one}: pip install 'monge[{extra}]'"
            )


@contextmanager
def opened(
    log_to: Sequence[WriterName | Writer], run: Path, config: Config, start: int
) -> Iterator[Writers]:
    """The writers that are asked for, on the first process, until they are closed.

    Raises:
        ValueError: for a writer whose package is not installed.
    """
    makers = {
        "tensorboard": lambda: TensorBoard(run, start),
        "wandb": lambda: WeightsAndBiases(run, config),
        "mlflow": lambda: MLflow(run, config),
    }
    made = Writers([])
    try:
        if first():
            for one in log_to:
                made.writers.append(one if isinstance(one, Writer) else makers[one]())
        yield made
    finally:
        made.close()
