"""A run directory: what was run, what it measured, and the trained model rebuilt from it."""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from monge._core import processes
from monge._core.defaults import each_inside, float32_on_cpu, outside_autocast
from monge._core.devices import chosen_device
from monge._core.files import write_whole
from monge._core.locks import NotWritable, alone
from monge._core.references import resolve
from monge.config import (
    CUSTOM,
    Config,
    Schema,
    Settled,
    read_sealed,
    to_json,
)
from monge.config.stored import NAME as CONFIG
from monge.data import Data, Source
from monge.evaluation import summary
from monge.evaluation.extractors import Extractor
from monge.evaluation.figures import evaluate_fitted
from monge.evaluation.samplers import FLOW_STEPS, checked_temperature, draw
from monge.labels import Rows, numbers_of
from monge.models.flow_prior import FlowPrior
from monge.models.protocols import Completer, prior_of, rows_for
from monge.priors import Mixture, Prior
from monge.recipes import find
from monge.runs import code_samplers, evaluated, located, notebook
from monge.runs.rebuilt import Given, named, rebuilt, trained
from monge.training import checkpoint
from monge.training.loop import read_metrics

if TYPE_CHECKING:
    import polars


class Run:
    """A run directory.

    Args:
        path: the directory.
        model: of a run that was fitted to a model of your own, that model, untrained or trained:
            an instance, a class or function that makes one, or `package.module:name`. An instance
            is copied, so that several runs can be opened with it.
        data: where the data of the run are now, by name or path, or themselves as an array or
            `Source`; by default where they were last. They must be the same samples, in any
            order; that they have moved is recorded in the run.
        data_changed: goes on although the data have changed, which what is written then says.
        trust_data: opens the data that the run names although the run has no seal of this account.
        device: where the model computes: auto, cpu, cuda, cuda:1, … or mps.

    Raises:
        ValueError: if `path` is no run, or the device is not there.
    """

    def __init__(
        self,
        path: str | Path,
        model: Given = None,
        *,
        data: Data = None,
        data_changed: bool = False,
        trust_data: bool = False,
        device: str = "cpu",
    ):
        self.path, self._given = Path(os.path.expanduser(path)), model
        self._data, self.data_changed = data, data_changed
        self.device = torch.device(chosen_device(device))
        self.config: Config
        self.settled: Settled
        self.config, self.settled, foreign = read_sealed(self.path)
        self._foreign = {} if trust_data else foreign
        """Paths that its configuration names and that are not opened."""

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, recipe={self.config.recipe!r})"

    def _repr_html_(self) -> str:
        config = self.config
        facts = [("recipe", f"{config.recipe}: {self.line}"), ("data", config.data.name)]
        return notebook.shown(self.name, facts, self.metrics(), self.evaluation(), self.path)

    @property
    def report(self) -> Path:
        """Where the report lies."""
        return self.path / "report.html"

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.resolve().name

    @property
    def batch(self) -> int:
        """Samples a step."""
        return self.settled.batch or self.config.training.batch

    def defaults(self) -> contextlib.AbstractContextManager[None]:
        """Inside, new tensors are as recipes expect them; a model of your own keeps the defaults
        of its program. Autocast is left."""
        own = self.config.recipe == CUSTOM
        return outside_autocast() if own else float32_on_cpu()

    @property
    def line(self) -> str:
        """What its recipe is, in a line."""
        if self.config.recipe == CUSTOM:
            return "a model of your own"
        return find(self.config.recipe).line

    def metrics(self) -> list[dict[str, Any]]:
        """The logged rows."""
        return read_metrics(self.path)

    @property
    def steps(self) -> int:
        """The steps that the trained model has taken, fewer than the run's where an earlier model
        was the best on the validation set."""
        name = self.provenance["checkpoint"]
        if name.startswith("step-"):
            return checkpoint.step_of(Path(name))
        rows = self.metrics()
        return rows[-1]["step"] if rows else 0

    @functools.cached_property
    def model(self) -> nn.Module:
        """The trained model in evaluation mode, from the newest checkpoint that verifies."""
        found = trained(self.path)
        self._weights = named(found)
        config, settled = self.config, self.settled
        model = rebuilt(self.path, config, settled, self._given, found).to(self.device)
        if (prior := prior_of(model)) is not None:
            prior.cpu()  # codes are drawn there, so that they do not depend on the device
        return model

    @functools.cached_property
    def _weights(self) -> dict[str, str]:
        return named(trained(self.path))

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the run's data: of those that were given in their place, or that may
        have changed, as they are read here; None in older runs."""
        if self.data_changed or self._data is not None:
            return self.source.identity.fingerprint
        return self.settled.fingerprint

    @property
    def provenance(self) -> dict[str, str]:
        """What tells the weights and the data of the run from others: `checkpoint`, the newest one
        that verifies, `weights`, their digest, and `fingerprint`, of the data as they were
        read here, or else as the run knows them; `data changed` where those differ, and `trained
        on`, the fingerprint of the data of the weights, where the run has gone on to others."""
        made = dict(self._weights)
        if made.get("trained on") in (None, self.settled.fingerprint):
            made.pop("trained on", None)
        if "source" not in self.__dict__:
            fingerprint, change = self.settled.fingerprint, None
        else:
            fingerprint, change = self.source.identity.fingerprint, self._change()
        made |= {} if fingerprint is None else {"fingerprint": fingerprint}
        return made if change is None else {**made, "data changed": change}

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps other processes from writing into the directory; reading needs no lock.

        With several processes, each calls this in the same way, and the first one holds the lock.

        Raises:
            ValueError: if another process is writing, or the directory is read-only.
        """
        with contextlib.ExitStack() as stack:
            processes.from_first(lambda: stack.enter_context(alone(self.path, "run")))
            yield

    def evaluation(self) -> dict[str, Any] | None:
        """What `monge evaluate` last wrote, or None."""
        return evaluated.read(self.path)

    def outdated(self, evaluation: dict[str, Any]) -> str | None:
        """Why an evaluation is not of the weights and data that the run has now; None if it is."""
        return evaluated.outdated(evaluation["protocol"], self.provenance)

    def summary(self) -> dict[str, float]:
        """The numbers that sum it up; see `monge.evaluation.summary`."""
        seed = self.config.seed
        rows = [row for row in self.metrics() if row["step"] <= self.steps]
        with self.defaults():
            return summary(self.model, self.source, rows, batch=self.batch, seed=seed)

    def evaluate(
        self,
        n: int = 10_000,
        sampler: str = "prior",
        seeds: int = 1,
        *,
        components: int | None = None,
        temperature: float = 1.0,
        metrics: Sequence[str] = (),
        extractor: Extractor | None = None,
    ) -> dict[str, Any]:
        """Measures the model and writes evaluation.json; see
        `monge.evaluation.evaluate_samplers`.

        Args:
            n: how many samples, compared with as many held-out ones.
            sampler: prior, mixture or flow for a Gaussian mixture or a flow fitted to the training
                codes, or all for each of `samplers`.
            seeds: how many independent draws; figures are their means.
            components: of the mixture, if it is among the samplers; see `mixture`.
            temperature: of every sampler; see `sampler`.
            metrics: groups of measures, all by default.
            extractor: a feature space for images in place of the default one.

        Raises:
            ValueError: for bad arguments, a model without samples, or a directory that is
                read-only or into which another process writes.
        """
        wanted = code_samplers.chosen(self.samplers, sampler, components)
        temperature, counts = checked_temperature(temperature), {"mixture": components}
        samplers: dict[str, Prior | None] = {}

        def fit() -> dict[str, Prior | None]:
            for name in wanted:
                one = partial(self.sampler, name, counts.get(name), temperature)
                samplers[name] = processes.from_first(one)
            return samplers

        with self.defaults(), self.writing():
            result = evaluate_fitted(
                self.model,
                self.source,
                fit,
                n,
                seeds,
                metrics=metrics,
                extractor=extractor,
                seed=self.config.seed,
                name=self.name,
                recipe=self.config.recipe,
            )
            result["protocol"] |= self.provenance
            if isinstance(mixture := samplers.get("mixture"), Mixture):
                result["protocol"]["components"] = len(mixture.means)
            if temperature != 1:
                result["protocol"]["temperature"] = temperature
            if processes.first():
                evaluated.write(self.path, result)
        return result

    def explore(self, height: int = 800) -> Any:
        """The explorer of the run inside a notebook, as a frame with a height in pixels; see
        `monge.show.explore.embedded.Embedded`. The notebook's kernel stays free.

        Raises:
            ValueError: without the packages of the extra `explore`.
        """
        return resolve("monge.show.explore.embedded:Embedded", "explore")(self, height)

    def fresh(self) -> "Run":
        """The run as its directory is now, with the newest weights and the same data."""
        given = self._given
        if given is None and self.config.recipe == CUSTOM:
            given = self.__dict__.get("model")  # which `monge.fit` has trained
        run = Run(self.path, given, data_changed=self.data_changed, device=str(self.device))
        run._foreign = self._foreign
        run.source = self.source
        return run

    @property
    def samplers(self) -> list[str]:
        """The names of the samplers that the model has: its own prior, if it can be sampled, and
        those that are fitted to the codes, if it has any."""
        return code_samplers.names(self.model)

    def sampler(
        self, name: str, components: int | None = None, temperature: float = 1.0
    ) -> Prior | None:
        """The distribution of codes that a sampler draws, fitted where it is not kept beside the
        run; None for the model's own prior at temperature 1.

        Args:
            name: of the sampler.
            components: of a mixture; see `mixture`.
            temperature: T > 0, which multiplies the deviations of draws; see
                `monge.evaluation.samplers.tempered`.

        Raises:
            ValueError: for a model without codes, a damaged file, `components` of a sampler
                without, or a temperature of a model without prior.
        """
        temperature = checked_temperature(temperature)
        if name != "mixture":
            code_samplers.refuse_components(components, name)
        if name == "prior" and temperature == 1:
            return None
        made = {
            "prior": lambda: prior_of(self.model),
            "mixture": lambda: self.mixture(components),
            "flow": self.flow,
        }
        return code_samplers.at_temperature(made[name](), temperature, self.model)

    def mixture(self, components: int | None = None) -> Mixture:
        """A Gaussian mixture fitted to the codes of the training part, kept beside the run.

        Args:
            components: how many; by default as many as held-out codes ask for, see
                `monge.evaluation.samplers.best_components`. That takes half a minute for 20,000
                codes.

        Raises:
            ValueError: for a model without codes, or a damaged file.
        """
        with self.defaults():
            return self._fitted_samplers.mixture(components)

    def flow(self, steps: int = FLOW_STEPS) -> FlowPrior:
        """A flow fitted to the codes of the training part, kept beside the run.

        It takes about a minute to fit on a CPU, and milliseconds to sample.

        Raises:
            ValueError: for a model without codes, or a damaged file.
        """
        with self.defaults():
            return self._fitted_samplers.flow(steps)

    @property
    def _fitted_samplers(self) -> code_samplers.FittedSamplers:
        """Those of the model, the data and the directory as they are now."""
        return code_samplers.FittedSamplers(
            self.path,
            self.model,
            self.config.seed,
            train=lambda: self.rows("train"),
            fingerprint=lambda: self.fingerprint,
        )

    def samples(
        self,
        n: int,
        generator: torch.Generator | None = None,
        prior: Prior | None = None,
        labels: Any = None,
    ) -> Iterator[Tensor]:
        """n draws of the model in batches; a model that completes samples completes those of the
        test part in turn. For `labels` see `sample`."""
        source = self.source if isinstance(self.model, Completer) else None
        batches = draw(self.model, source, n, generator, prior, labels)
        return each_inside(self.defaults, batches)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        prior: Prior | None = None,
        labels: Any = None,
    ) -> Tensor:
        r"""n draws of the model in one tensor (n, \*).

        Args:
            n: how many.
            generator: a CPU generator; torch's global one by default.
            prior: draws the codes in place of the model's own prior, e.g. the run's
                `sampler("prior", temperature=0.8)`.
            labels: of a class-conditional run: the number of the class of all draws, a number for
                each (n,), or weights of the classes (n, K); see `class_numbers` for names. By
                default classes are drawn in the proportions of the training part.
        """
        return torch.cat(list(self.samples(n, generator, prior, labels)))

    def class_numbers(self, wanted: Sequence[str]) -> list[int]:
        """The numbers of classes that are given by name, or by number where no name is a number.

        Raises:
            ValueError: for a run that is not class-conditional, or a class that it does not have.
        """
        names = self.settled.classes
        if not names:
            raise ValueError(
                f"`class` is given, and the run {str(self.path)!r} is not class-conditional: "
                "train one with --condition labels"
            )
        return numbers_of(names, wanted, f"the run {str(self.path)!r}")

    def rows(self, part: Literal["train", "test"]) -> Rows:
        """The samples of a part of the data as the model takes them, as they are stored: with
        their labels where it is class-conditional."""
        x, labels = getattr(self.source, part), getattr(self.source, f"{part}_labels")
        return rows_for(self.model, x, labels)

    @property
    def schema(self) -> Schema:
        """What the columns of the run's table are; plain numbers without names for vectors that
        come from no table in a text file.

        Raises:
            ValueError: for data that are no table.
        """
        settled = self.settled
        if settled.schema is not None:
            return settled.schema
        if len(settled.shape) != 1:
            raise ValueError(
                f"`run` {str(self.path)!r} is of {settled.kind}s, which are not rows of a table: "
                "give .png or .npy"
            )
        return Schema.unnamed(settled.shape[0])

    def table(
        self, n: int, generator: torch.Generator | None = None, prior: Prior | None = None
    ) -> "polars.DataFrame":
        """n draws of the model as rows of the table that it was trained on: a Polars frame in the
        units of its columns, with their names and labels; see `Schema.decode`.

        Raises:
            ValueError: for data that are no table.
        """
        schema = self.schema
        return schema.decode(self.sample(n, generator, prior))

    @functools.cached_property
    def source(self) -> Source:
        """The data of the run.

        Raises:
            ValueError: if they cannot be read, are not those of the run (unless `data_changed`),
                or were an array in memory.
        """
        source = located.read(self.path, self.config, self._data, self._foreign)
        source = source if self.settled.float64 else source.single()
        change = self._change(source)
        if change is not None:
            located.refuse_others(self.path, self.settled, source, change, self.data_changed)
        elif isinstance(self._data, (str, Path)):
            self._record_place(str(self._data))
        return source

    def _change(self, source: Source | None = None) -> str | None:
        """How the data differ from those that the run was trained on, if they do."""
        return located.change(self.path, self.settled, source or self.source)

    def _record_place(self, name: str) -> None:
        """Keeps in the run where its data have moved to, unless it cannot be written now."""
        moved = located.placed(self.config, name, self._foreign)
        kept = moved == self.config and not self._foreign
        if kept or not (self.path / "checkpoints").is_dir():
            return  # a folder of the hub names no folder of this machine
        with contextlib.suppress(NotWritable), alone(self.path, "run"):
            write_whole(self.path / CONFIG, to_json(moved, self.settled))
            self.config, self._foreign = moved, {}
