"""The verbs that judge runs and publish them: evaluate, compare, explore, export."""

import contextlib
import dataclasses
import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from monge._core.names import SamplerName
from monge._core.visible import counted, visible
from monge.cli.common import Int, Number, OfRun, Place, Text, first, tell


def _opened(verb: OfRun, paths: tuple[Path, ...]) -> list[Any]:
    if not paths:
        raise ValueError("`runs` is empty: give at least one run directory")
    from monge.config import CUSTOM, read_config

    recipes = dataclasses.replace(verb, model=None)  # whose models are known
    own = [read_config(path)[0].recipe == CUSTOM for path in paths]
    return [(verb if of_own else recipes).open(path) for path, of_own in zip(paths, own)]


@dataclass(frozen=True)
class Evaluate(OfRun):
    """Measure a trained model, each figure with its noise floor; writes evaluation.json and the
    report."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory."""
    n: Number = 10_000
    """Number of samples, compared with as many test samples, or with all if there are fewer."""
    sampler: Literal[SamplerName, "all"] = "prior"
    """Draw codes from the prior, from a Gaussian mixture or a flow fitted to the training codes,
    or from each in turn (all), and name the best by the Fréchet distance."""
    components: Int = None
    """Components of the mixture; by default chosen by the likelihood of held-out codes."""
    temperature: float = 1.0
    """T > 0, a factor of the standard deviations of the prior or of mixture components, and of the
    noise of a flow; below 1, samples are more typical and less diverse."""
    seeds: int = 1
    """Number of repeated draws of samples; figures are means with standard deviations."""
    metrics: tuple[str, ...] = ()
    """Groups of figures, all by default: frechet, kernel, neighbours, tests, memory, sliced; for
    images sharpness, classes; for tables exact, columns; for clouds chamfer, earth-mover,
    occupancy."""
    inception_weights: Place = None
    """Compare images in the features of FID, from this file of weights."""
    inception_resize: Literal["tf1", "clean"] = "tf1"
    """How images are resized to 299 × 299: as the first implementation does, or antialiased."""

    def run(self) -> None:
        from monge.evaluation.figures import lines, shown_protocol, verdict
        from monge.evaluation.inception import inception_network
        from monge.show import report
        from monge.training import distributed

        run, extractor = self.open(self.path), None
        if self.inception_weights is not None:
            extractor = inception_network(self.inception_weights, self.inception_resize)
        # figures are computed on the CPU, wherever the model is
        with _progress(), distributed.group("cpu"), run.writing():
            result = run.evaluate(
                self.n,
                self.sampler,
                self.seeds,
                components=self.components,
                temperature=self.temperature,
                metrics=self.metrics,
                extractor=extractor,
            )
            if not first():
                return
            protocol = dict(shown_protocol(result))
            if protocol["n test"] < self.n:
                tell(f"the test part has {counted(protocol['n test'], 'sample')}: using them all")
            for line in lines(result):
                tell(line)
            if best := verdict(result):
                tell(best)
            if 0 < protocol["n floor"] < protocol["n test"]:
                few = counted(protocol["n floor"], "training sample")
                tell(f"the noise floor uses only {few}, because there are no more")
            for remark in ("left out", "without floor"):
                if remark in protocol:
                    tell(f"{remark}: {protocol.pop(remark)}")
            tell("  ".join(f"{name} {value}" for name, value in protocol.items()))
            tell(f"report: {report.write(run)}")


@contextlib.contextmanager
def _progress() -> Iterator[None]:
    """Shows progress messages on standard error, apart from the figures."""
    log, handler = logging.getLogger("monge"), logging.StreamHandler(sys.stderr)
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


@dataclass(frozen=True)
class Compare(OfRun):
    """Compare trained models in one picture and one table, which is also printed; runs that differ
    only in their seeds are averaged."""

    paths: Annotated[Positional[tuple[Path, ...]], arg(name="runs")]
    """Run directories."""
    out: Path
    """The folder to write compare.png, compare.md and compare.json to."""

    def run(self) -> None:
        runs = _opened(self, self.paths)
        from monge.show import comparison

        files = comparison.write(runs, self.out)
        for line in (self.out / "compare.md").read_text("utf-8").splitlines():
            tell(line)
        for file in files:
            tell(file)
        # a run may be given twice
        if missing := list(dict.fromkeys(run.name for run in runs if run.evaluation() is None)):
            have = "has" if len(missing) == 1 else "have"
            text = (
                f"{', '.join(missing)} {have} no figures of samples, which monge evaluate RUN adds"
            )
            print(visible(f"{text} to this table"), file=sys.stderr)


@dataclass(frozen=True)
class Explore(OfRun):
    """Open a page to inspect and steer trained models."""

    paths: Annotated[Positional[tuple[Path, ...]], arg(name="runs")]
    """Run directories."""
    host: str = "127.0.0.1"
    """The address to serve the page at, to anyone who can reach it and has the token."""
    port: int = 8642
    """The port; 0 for a free one."""
    browser: bool = False
    """Open the page in the browser."""
    no_token: bool = False
    """Serve everyone who can reach this machine's loopback address. By default the page requires
    the token in the printed address, which the variable MONGE_TOKEN can set."""

    def run(self) -> None:
        # shells that start it in the background have interrupts ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        runs = _opened(self, self.paths)
        from monge.show.explore import explore

        token = "" if self.no_token else None
        explore(runs, self.host, self.port, browser=self.browser, token=token)


@dataclass(frozen=True)
class Export:
    """Write a trained model for use elsewhere: ONNX, torch.export, or the layout of the hub."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory."""
    out: Place = None
    """NAME.onnx or NAME.pt2: writes NAME.encoder.onnx and NAME.decoder.onnx, checked against
    PyTorch; a generator has only the decoder, and a flow NAME.velocity and NAME.units."""
    hub: Place = None
    """A new folder for weights, configuration and a model card, which monge.load reads back."""
    model: Text = None
    """PACKAGE.MODULE:NAME of the model, for a run fitted to a model of your own: a class, function
    or object."""

    def run(self) -> None:
        if self.out is None and self.hub is None:
            raise ValueError("`out` is missing: give --out NAME.onnx, NAME.pt2 or --hub DIR")
        from monge.runs import Run, export
        from monge.show import card

        run = Run(self.path, self.model)
        places = [place.resolve() for place in (self.out, self.hub) if place is not None]
        inside = any(run.path.resolve() in place.parents for place in places)
        with run.writing() if inside else contextlib.nullcontext():
            if self.out is not None:
                for file in export.export(run, self.out):
                    tell(file)
            if self.hub is not None:
                tell(card.write(run, self.hub))
