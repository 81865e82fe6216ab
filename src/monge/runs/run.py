"""A run directory: what was run, what it measured, and the trained model rebuilt from it."""

import contextlib
import copy
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from monge._core import processes
from monge._core.files import write_whole
from monge._core.locks import NotWritable, alone
from monge._core.references import resolve
from monge.builders import build
from monge.config import CUSTOM, Config, Settled, override, read_config
from monge.data import Source
from monge.data import load as load_data
from monge.evaluation import evaluate, summary
from monge.evaluation.extractors import Extractor
from monge.evaluation.samplers import draw, draw_codes, fit_mixture
from monge.models.masks import is_mask_name
from monge.models.protocols import Completer, require
from monge.priors import Mixture, Prior
from monge.recipes import find
from monge.training import checkpoint
from monge.training.loop import read_metrics

Given = nn.Module | Callable[[], nn.Module] | str | None
"""A model of your own: an instance, which is copied, a class or function that makes one, or
`package.module:name` of either."""


class Run:
    """A run directory.

    Arguments:
        path: the directory.
        model: of a run that was fitted to a model of your own, that model, untrained or trained:
            an instance, a class or function that makes one, or `package.module:name`. An instance
            is copied, so that several runs can be opened with it.

    Raises:
        ValueError: if `path` is no run.
    """

    def __init__(self, path: str | Path, model: Given = None):
        self.path, self._given = Path(path), model
        self.config: Config
        self.settled: Settled
        self.config, self.settled = read_config(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, recipe={self.config.recipe!r})"

    @property
    def report(self) -> Path:
        """Where the report lies."""
        return self.path / "report.html"

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.resolve().name

    @property
    def line(self) -> str:
        """What its recipe is, in a line."""
        if self.config.recipe == CUSTOM:
            return "a model of your own"
        return find(self.config.recipe).line

    def metrics(self) -> list[dict[str, Any]]:
        """The logged rows."""
        return read_metrics(self.path)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The trained model in evaluation mode, from the newest checkpoint that verifies."""
        return load(self.path, self._given)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps other processes from writing into the directory; reading needs no lock.

        Of several processes each calls this alike, and the first one holds the lock.

        Raises:
            ValueError: if another process is writing, or the directory is read-only.
        """
        with contextlib.ExitStack() as stack:
            processes.from_first(lambda: stack.enter_context(alone(self.path, "run")))
            yield

    def evaluation(self) -> dict[str, Any] | None:
        """What `monge evaluate` last wrote, or None."""
        file = self.path / "evaluation.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    def summary(self) -> dict[str, float]:
        """The numbers that sum it up; see `monge.evaluation.summary`."""
        batch, seed = self.config.training.batch, self.config.seed
        return summary(self.model, self.source, self.metrics(), batch=batch, seed=seed)

    def evaluate(
        self,
        n: int = 10_000,
        sampler: str = "prior",
        seeds: int = 1,
        *,
        metrics: Sequence[str] = (),
        extractor: Extractor | None = None,
    ) -> dict[str, Any]:
        """Measures the model and writes evaluation.json; see `monge.evaluation.evaluate`.

        Arguments:
            n: how many samples, compared with as many held-out ones.
            sampler: prior, or mixture for a Gaussian mixture fitted to the training codes.
            seeds: how many independent draws; figures are their means.
            metrics: groups of measures, all by default.
            extractor: a feature space for images in place of the default one.

        Raises:
            ValueError: for bad arguments, a model without samples, or a directory that is
                read-only or into which another process writes.
        """
        if sampler not in ("prior", "mixture"):
            raise ValueError(f"`sampler` must be prior or mixture, got {sampler!r}")
        with self.writing():
            result = evaluate(
                self.model,
                self.source,
                n,
                None if sampler == "prior" else processes.from_first(self.mixture),
                seeds,
                metrics=metrics,
                extractor=extractor,
                seed=self.config.seed,
                name=self.name,
                recipe=self.config.recipe,
            )
            if processes.first():
                write_whole(self.path / "evaluation.json", json.dumps(result, indent=2) + "\n")
        return result

    def fresh(self) -> "Run":
        """The run as its directory is now, with the newest weights and the same data."""
        given = self._given
        if given is None and self.config.recipe == CUSTOM:
            given = self.__dict__.get("model")  # which `monge.fit` has trained
        run = Run(self.path, given)
        run.source = self.source
        return run

    def mixture(self, components: int = 10) -> Mixture:
        """A Gaussian mixture fitted to the codes of the training part, kept beside the run.

        The file names the weights that `model` has, by their sha256, and the mixture is fitted
        again for others. If there are more than 20,000 training samples, an evenly spaced subset
        of 20,000 is used. It is not kept while another process writes into the directory, or
        where that is read-only.

        Raises:
            ValueError: for a model without codes, or a damaged file.
        """
        model = self.model
        require(model, "encode", "the mixture sampler")
        file = self.path / "sampler-mixture.safetensors"
        made_for = {"weights": _digest(model), "components": str(components)}
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
        fitted = fit_mixture(draw_codes(model, x, self.config.seed), components, self.config.seed)
        with contextlib.suppress(NotWritable), alone(self.path, "run"):
            write_whole(file, save_tensors(dict(fitted.state_dict()), made_for))
        return fitted

    def samples(
        self, n: int, generator: torch.Generator | None = None, prior: Prior | None = None
    ) -> Iterator[Tensor]:
        """n draws of the model in batches; a conditional model completes the test samples in
        turn."""
        source = self.source if isinstance(self.model, Completer) else None
        return draw(self.model, source, n, generator, prior)

    def sample(
        self, n: int, generator: torch.Generator | None = None, prior: Prior | None = None
    ) -> Tensor:
        r"""n draws of the model in one tensor (n, \*)."""
        return torch.cat(list(self.samples(n, generator, prior)))

    @functools.cached_property
    def source(self) -> Source:
        """The data of the run; a ValueError if it was fitted to an array in memory."""
        if self.config.data.name == "array":
            raise ValueError(f"`run` {str(self.path)!r} was fitted to an array: give its data")
        source = load_data(self.config.data)
        return source if self.settled.float64 else source.single()


def load(run_directory: str | Path, model: Given = None) -> nn.Module:
    """Rebuilds a trained model, in evaluation mode, on the CPU.

    Arguments:
        run_directory: a run, or a folder that `monge export --hub` wrote.
        model: of a run that was fitted to a model of your own, that model with any weights: an
            instance, which is copied and not changed, a class or function that makes one, or
            `package.module:name`.

    Raises:
        ValueError: if the directory is no run, holds no checkpoint that verifies, or weights that
            are not the model's.
    """
    path = Path(run_directory)
    config, settled = read_config(path)
    published = path / "model.safetensors"
    if published.is_file() and not (path / "checkpoints").is_dir():
        return _load_published(published, config, settled)
    newest = checkpoint.newest(path / "best") or checkpoint.newest(path / "checkpoints")
    if newest is None:
        damaged = checkpoint.newest_first(path / "checkpoints")
        if damaged:
            checkpoint.verified(damaged[0])  # says what is wrong with it
        raise ValueError(f"`run` {str(path)!r} has no checkpoint: train it with --resume")
    if config.recipe == CUSTOM:
        built = _given(model, path)
    elif model is not None:
        raise ValueError(f"`model` is for runs of a model of your own, and {path} is of a recipe")
    else:
        built = build(config, settled)
    weights = checkpoint.tensors(newest[1], "model.safetensors")
    checkpoint.load_weights(built, weights, repr(str(newest[0])))
    return built.eval()


def _digest(model: nn.Module) -> str:
    """The sha256 of a model's weights, as safetensors hold them."""
    weights = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(save_tensors(weights)).hexdigest()


def _given(model: Given, path: Path) -> nn.Module:
    """The model of one's own that a person has given."""
    if model is None:
        raise ValueError(
            f"`run` {str(path)!r} was fitted to a model of your own: give it as `model`, or as "
            "--model package.module:name"
        )
    if isinstance(model, str):
        model = resolve(model, "model", beside=os.getcwd())
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)  # otherwise two runs opened with it would share their weights
    if callable(model):
        model = model()
    if not isinstance(model, nn.Module):
        raise ValueError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    return model


def _load_published(file: Path, config: Config, settled: Settled) -> nn.Module:
    """The model of a folder in the hub's layout."""
    known = getattr(config.options, "known", None)
    if known is not None and not is_mask_name(known) and Path(known).name == known:
        config = override(config, "known", str(file.absolute().with_name(known)))
    try:
        weights = load_tensors(file.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{str(file)!r} is damaged: {error}") from None
    model = build(config, settled)
    checkpoint.load_weights(model, weights, repr(str(file)))
    return model.eval()
