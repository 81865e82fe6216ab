"""A run directory: what was run, what it measured, and the trained model rebuilt from it."""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from monge._core.files import write_whole
from monge._core.version import __version__
from monge.builders import build
from monge.config import Config
from monge.data import Source, as_floats
from monge.data import load as load_data
from monge.evaluation.samplers import draw_codes, fit_mixture
from monge.models import AutoEncoder, ConditionalWAE, Model
from monge.priors import Mixture, Prior
from monge.training import checkpoint
from monge.training.loop import read_metrics


class Run:
    """A run directory.

    Raises:
        ValueError: if `path` is no run, or one of a version of monge that differs.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = read_config(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def report(self) -> Path:
        """Where the report lies."""
        return self.path / "report.html"

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.resolve().name

    def metrics(self) -> list[dict[str, Any]]:
        """The logged rows."""
        return read_metrics(self.path)

    @functools.cached_property
    def model(self) -> Model:
        """The trained model in evaluation mode, from the newest checkpoint that verifies."""
        return load(self.path)

    def evaluation(self) -> dict[str, Any] | None:
        """What `monge evaluate` last wrote, or None."""
        file = self.path / "evaluation.json"
        return json.loads(file.read_text()) if file.exists() else None

    def mixture(self, components: int = 10) -> Mixture:
        """A Gaussian mixture fitted to the codes of the training part, kept beside the run.

        It is fitted again when the run has been trained further. Of more than 20,000 training
        samples, so many that lie evenly apart are used.

        Raises:
            ValueError: for a generator, which has no codes, or a damaged file.
        """
        model = self.model
        if not isinstance(model, AutoEncoder):
            raise ValueError(
                f"`sampler` mixture is fitted to codes, and {self.config.recipe} has no encoder: "
                "use prior"
            )
        file = self.path / "sampler-mixture.safetensors"
        checkpoints = checkpoint.newest_first(self.path / "checkpoints")
        made_for = {"checkpoint": checkpoints[0].name, "components": str(components)}
        if file.exists():
            try:
                with safe_open(file, "pt") as stored:
                    if stored.metadata() == made_for:
                        factors = stored.get_tensor("factors")
                        covariances = factors @ factors.mT
                        means, weights = map(stored.get_tensor, ("means", "weights"))
                        return Mixture(means, covariances, weights)
            except SafetensorError as error:
                raise ValueError(f"{str(file)!r} is damaged: {error}: remove it") from None
        train = self.source.train
        x = train[torch.linspace(0, len(train) - 1, min(20_000, len(train))).long()]
        found = fit_mixture(draw_codes(model, x, self.config.seed), components, self.config.seed)
        write_whole(file, save_tensors(dict(found.state_dict()), made_for))
        return found

    def samples(
        self, n: int, generator: torch.Generator | None = None, prior: Prior | None = None
    ) -> Iterator[Tensor]:
        """n draws of the model in parts; of a conditional one, completions of test samples, of
        each in turn."""
        model = self.model
        if isinstance(model, ConditionalWAE):
            test = self.source.test
            given = as_floats(test[torch.arange(n) % len(test)])
            return model.samples(n, generator, prior, given=given)
        return model.samples(n, generator, prior)

    def sample(
        self, n: int, generator: torch.Generator | None = None, prior: Prior | None = None
    ) -> Tensor:
        r"""The same in one tensor (n, \*)."""
        return torch.cat(list(self.samples(n, generator, prior)))

    @functools.cached_property
    def source(self) -> Source:
        """The data of the run; a ValueError if it was fitted to an array in memory."""
        if self.config.data.name == "array":
            raise ValueError(f"`run` {str(self.path)!r} was fitted to an array: give its data")
        return load_data(self.config.data)


def read_config(path: Path) -> Config:
    """The configuration of the run in `path`; a ValueError if it is no run of this version."""
    file = path / "config.json"
    if not file.is_file():
        raise ValueError(f"`run` {str(path)!r} is no run directory: it has no config.json")
    try:
        text = file.read_text()
        made_by = json.loads(text).get("version")
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"`run` {str(path)!r} has a damaged config.json: {error}") from None
    if str(made_by).split(".")[:2] != __version__.split(".")[:2]:
        raise ValueError(
            f"`run` {str(path)!r} was made by monge {made_by}, this is {__version__}: "
            f"install monge=={made_by} to use it"
        )
    try:
        return Config.from_json(text).check()
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"`run` {str(path)!r} has a damaged config.json: {error}") from None


def load(run_directory: str | Path) -> Model:
    """Rebuilds a trained model, in evaluation mode, on the CPU.

    Arguments:
        run_directory: a run, or a folder that `monge export --hub` wrote.

    Raises:
        ValueError: if the directory is no run, was made by another version, holds no checkpoint
            that verifies, or was fitted to a model that no recipe rebuilds.
    """
    path = Path(run_directory)
    config = read_config(path)
    published = path / "model.safetensors"
    if published.is_file() and not (path / "checkpoints").is_dir():
        return _load_published(published, config)
    if config.recipe == "custom":
        raise ValueError(
            f"`run` {str(path)!r} was fitted to a model of your own: build it, then load "
            "model.safetensors of its newest checkpoint into it"
        )
    found = checkpoint.newest(path / "best") or checkpoint.newest(path / "checkpoints")
    if found is None:
        damaged = checkpoint.newest_first(path / "checkpoints")
        if damaged:
            checkpoint.verified(damaged[0])  # says what is wrong with it
        raise ValueError(f"`run` {str(path)!r} has no checkpoint: train it with --resume")
    model = build(config)
    model.load_state_dict(checkpoint.tensors(found[1], "model.safetensors"))
    return model.eval()


def _load_published(file: Path, config: Config) -> Model:
    """The model of a folder in the hub's layout."""
    mask = file.with_name(config.known)
    if mask.is_file():
        config = dataclasses.replace(config, known=str(mask))
    model = build(config)
    try:
        model.load_state_dict(load_tensors(file.read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{str(file)!r} is damaged or of another model: {reason}") from None
    return model.eval()
