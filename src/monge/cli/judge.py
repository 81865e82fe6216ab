"""The verbs that judge runs and hand them on: evaluate, compare, explore, export."""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from monge.cli.common import Number, Place, first


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained model: every figure with its floor, to evaluation.json and the report."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory."""
    n: Number = 10_000
    """How many samples, against as many of the test part; all of it where it is smaller."""
    sampler: Literal["prior", "mixture"] = "prior"
    """Draw codes from the prior, or from a Gaussian mixture fitted to the training codes."""
    seeds: int = 1
    """Draws of samples: figures are their means, with standard deviations."""
    metrics: tuple[str, ...] = ()
    """Groups of figures, all by default: frechet, kernel, neighbours, tests, memory, sliced; for
    images sharpness, classes; for tables exact; for clouds chamfer, earth-mover, occupancy."""
    inception_weights: Path | None = None
    """Compare images in the features of FID, from this file of weights."""
    inception_resize: Literal["tf1", "clean"] = "tf1"
    """How images come to 299 × 299: as in the first implementation, or with antialiasing."""

    def run(self) -> None:
        from monge.evaluation.inception import inception_network
        from monge.evaluation.measures import evaluate, lines
        from monge.runs import Run
        from monge.show import report
        from monge.training import distributed

        run, extractor = Run(self.path), None
        if self.inception_weights is not None:
            extractor = inception_network(self.inception_weights, self.inception_resize)
        with distributed.group(run.config.device):
            result = evaluate(
                run, self.n, self.sampler, self.seeds, metrics=self.metrics, extractor=extractor
            )
        if not first():
            return
        protocol = result["protocol"]
        if protocol["n test"] < self.n:
            print(f"the test part has {protocol['n test']} samples: using them all")
        print("\n".join(lines(result)))
        print("  ".join(f"{name} {value}" for name, value in protocol.items()))
        print(f"report: {report.write(run)}")


@dataclass(frozen=True)
class Compare:
    """Put trained models side by side: one figure and one table, runs that differ only in their
    seeds together."""

    paths: Annotated[Positional[tuple[Path, ...]], arg(name="runs")]
    """Run directories."""
    out: Path
    """The folder to write compare.png, compare.md and compare.json to."""

    def run(self) -> None:
        if not self.paths:
            raise ValueError("`runs` is empty: give at least one run directory")
        from monge.runs import Run
        from monge.runs.compare import compare

        for file in compare([Run(path) for path in self.paths], self.out):
            print(file)


@dataclass(frozen=True)
class Explore:
    """Open a page on which trained models are looked at and steered."""

    paths: Annotated[Positional[tuple[Path, ...]], arg(name="runs")]
    """Run directories."""
    host: str = "127.0.0.1"
    """The address of this machine by which the page is opened; whoever reaches it may look."""
    port: int = 8642
    """0 for a free one."""
    browser: bool = False
    """Open the page in the browser."""

    def run(self) -> None:
        # shells that start it in the background have interrupts ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not self.paths:
            raise ValueError("`runs` is empty: give at least one run directory")
        from monge.runs import Run
        from monge.show.explore import explore

        explore([Run(path) for path in self.paths], self.host, self.port, browser=self.browser)


@dataclass(frozen=True)
class Export:
    """Write a trained model for use elsewhere: ONNX, torch.export, or the layout of the hub."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory."""
    out: Place = None
    """NAME.onnx or NAME.pt2: writes NAME.encoder.onnx and NAME.decoder.onnx, checked against
    PyTorch; a generator has the decoder alone."""
    hub: Place = None
    """A new folder for weights, configuration and a model card, which monge.load reads back."""

    def run(self) -> None:
        if self.out is None and self.hub is None:
            raise ValueError("`out` is missing: give --out NAME.onnx, NAME.pt2 or --hub DIR")
        from monge.runs import Run, export

        run = Run(self.path)
        if self.out is not None:
            for file in export.export(run, self.out):
                print(file)
        if self.hub is not None:
            print(export.hub(run, self.hub))
