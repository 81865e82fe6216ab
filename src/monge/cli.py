"""The command line: thin verbs over `monge.fit`, `monge.load` and the pictures.

Nothing here imports torch until a verb needs it, so that help is instant. Exit codes: 0 done,
1 the run failed, 2 bad arguments or bad input (one line on stderr), 130 and 143 after SIGINT
and SIGTERM, both with the run saved.
"""

import contextlib
import dataclasses
import errno
import io
import itertools
import json
import os
import re
import signal
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Union

import tyro
from tyro.conf import Positional, arg

from monge.config import ALIASES, DATA, RECIPES, Config, override
from monge.errors import FailedRun, Interrupted

Number = Annotated[int, arg(aliases=["-n"])]
# flags that leave the configuration as it is when they are not given
Int = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
Float = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
Place = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]

# which field of the configuration each flag of `train` sets
FIELDS = {
    "data": "data.name", "data_dir": "data.dir", "size": "data.size", "crop": "data.crop",
    "channels": "data.channels", "cache": "data.cache", "points": "data.points",
    "classes": "data.classes",
    "turn": "data.turn", "jitter": "data.jitter", "seed": "seed", "preset": "preset",
    "latent": "latent",
    "weight": "weight", "epochs": "training.epochs", "steps": "training.steps",
    "batch": "training.batch", "lr": "training.lr", "inner_steps": "training.inner_steps",
    "known": "known", "precision": "training.precision", "micro_batch": "training.micro_batch",
    "device": "device", "threads": "threads",
}  # fmt: skip


@dataclass(frozen=True)
class Train:
    """Train a recipe on data; writes a run directory with a report."""

    recipe: Positional[Text] = None
    """Which recipe; `monge recipes` lists them. May be left out with --resume."""
    data: Text = None
    """digits (default), mnist, fashion-mnist, or a path: folder, zip or tar shards of images,
    folder of idx files or of clouds (.ply, .xyz, .off), .npy, .npz, .csv; or hf:DATASET."""
    data_dir: Text = None
    """Where mnist and fashion-mnist lie; MONGE_DATA by default."""
    out: Place = None
    """The run directory; a new one under runs/ by default."""
    epochs: Int = None
    """Passes over the training data."""
    steps: Int = None
    """Outer steps, in place of epochs; 3,000 by default."""
    seed: Int = None
    """Seed of weights, draws and order; 0 by default."""
    preset: Text = None
    """small (default), or paper: networks, rates and weights as published, for mnist and faces."""
    resume: bool = False
    """Go on with the run in --out from its newest valid checkpoint."""
    size: Int = None
    """Resize images to this side in pixels, after a centre crop."""
    crop: Int = None
    """Side in pixels of the centre crop; the largest square by default."""
    channels: Literal["grey", "colour"] | None = None
    """Read images as grey or in colour; as they are by default."""
    cache: Text = None
    """Keep decoded images in this folder, and map them into memory in place of holding them."""
    points: Int = None
    """Points a cloud, a random part of those given; all by default, 2,048 of a file."""
    classes: tuple[str, ...] = ()
    """Train on some classes of the data alone, by name."""
    turn: bool = False
    """Turn clouds at random about the upright axis, y, whenever they are seen."""
    jitter: Float = None
    """Deviation of Gaussian noise on the points of clouds whenever they are seen; 0 by default."""
    batch: Int = None
    """Samples a step; 100 by default."""
    micro_batch: Int = None
    """Samples that pass at once, for batches that memory does not hold: the same gradient."""
    latent: Int = None
    """Dimension of the codes; 8 for small images, 64 for large ones by default."""
    weight: Float = None
    """λ, the weight of the divergence, in units of the cost."""
    lr: Float = None
    """Learning rate; 0.001 by default."""
    known: Text = None
    """For conditional-wae, the part that it completes images from: top (default), bottom, left,
    right, surround, random, or a mask image, white where known."""
    inner_steps: Int = None
    """Steps of a critic before each step of the model; 1 by default."""
    device: Text = None
    """cpu (default), cuda, …"""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Precision of the networks; divergences are always in fp32."""
    threads: Int = None
    """CPU threads."""
    set: tuple[str, ...] = ()
    """Any other setting, as a.b=c; config.json of a run shows them all."""

    def run(self) -> None:
        from monge.train import fit

        config = self._config()
        try:
            run = fit(config.recipe, config=config, out=self.out, resume=self.resume)
        except Interrupted as stop:
            stop.args = (f"{stop}; the same command with --out RUN --resume goes on",)
            raise
        if _first():
            print(f"report: {run.report}")

    def _config(self) -> Config:
        """The default or, with --resume, the stored configuration with the flags laid over it."""
        stored = None
        if self.resume and self.out and (self.out / "config.json").exists():
            from monge.runs import read_config

            stored = read_config(self.out)
        if self.recipe is None and stored is None:
            raise ValueError(f"`recipe` is missing: give one of {', '.join(RECIPES)}")
        config = stored or Config.of(
            self.recipe or "", self.preset or "small", self.data or "digits"
        )
        if self.recipe is not None:
            config = dataclasses.replace(config, recipe=self.recipe)
        if self.epochs is not None or self.steps is not None:
            config = override(config, "training.epochs", None)
            config = override(config, "training.steps", None)
        for flag, path in FIELDS.items():
            value = getattr(self, flag)
            if not (value is None or value is False or value == ()):
                config = override(config, path, value)
        for setting in self.set:
            path, equals, value = setting.partition("=")
            if not equals:
                raise ValueError(f"`set` must look like a.b=c, got {setting!r}")
            config = override(config, path, value)
        return config


@dataclass(frozen=True)
class Sample:
    """Draw samples from a trained model."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory."""
    out: Path
    """.png: a picture; .npy: the samples; .gif: clouds that turn."""
    n: Number = 64
    """How many."""
    seed: int = 0
    """The first n draws of a seed are the same for every n."""
    sampler: Literal["prior", "mixture"] = "prior"
    """Draw codes from the prior, or from a Gaussian mixture fitted to the training codes."""

    def run(self) -> None:
        _check_out(self.out, ".gif")
        from monge import pictures
        from monge.draws import generator
        from monge.runs import Run

        run = Run(self.path)
        prior = run.mixture() if self.sampler == "mixture" else None
        drawn = run.sample(self.n, generator(self.seed, "sample"), prior)
        _save(self.out, drawn, lambda: pictures.samples(drawn), lambda: pictures.turntable(drawn))


@dataclass(frozen=True)
class Reconstruct:
    """Reconstruct samples of the test part."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory."""
    out: Path
    """.png: samples beside their reconstructions; .npy: the reconstructions."""
    data: Text = None
    """Other data of the same shape, by name or path; the run's own by default."""
    n: Number = 32
    """How many, spread over the test part."""

    def run(self) -> None:
        _check_out(self.out)
        from monge import pictures
        from monge.models import evaluating

        model, x = _test_samples(self.path, self.data, self.n)
        with evaluating(model):
            y = model.reconstruct(x)
        _save(self.out, y, lambda: pictures.reconstructions(x, y))


@dataclass(frozen=True)
class Complete:
    """Complete test images of which a conditional model is shown a part."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory of conditional-wae."""
    out: Path
    """.png: a row an image: its known part, completions, the truth; .npy: the completions,
    (n · samples, …)."""
    data: Text = None
    """Other data of the same shape, by name or path; the run's own by default."""
    known: Text = None
    """The known part: top, bottom, left, right, surround, or a mask image; the run's own by
    default. A model trained with a random box unknown completes any part."""
    n: Number = 10
    """How many images, spread over the test part."""
    samples: int = 5
    """Completions of each."""
    seed: int = 0
    """Seed of the draws."""

    def run(self) -> None:
        _check_out(self.out)
        if self.samples < 1:
            raise ValueError(f"`samples` must be at least 1, got {self.samples}")
        from monge import pictures
        from monge.draws import generator
        from monge.masks import mask
        from monge.models import ConditionalWAE
        from monge.runs import read_config

        trained = read_config(self.path)
        if trained.recipe != "conditional-wae":
            raise ValueError(
                f"`run` {str(self.path)!r} is of {trained.recipe}, which sees whole samples: give "
                "a run of conditional-wae"
            )
        if self.known not in (None, trained.known) and trained.known != "random":
            raise ValueError(
                f"`known` is {self.known!r}, but the run was trained to complete from "
                f"{trained.known!r}: train one with --known {self.known}, or with --known random "
                "for any part"
            )
        model, x = _test_samples(self.path, self.data, self.n)
        assert isinstance(model, ConditionalWAE)
        chosen = mask(self.known or trained.known, x.shape[1:])
        known = chosen(len(x), generator(self.seed, "known"))
        drawn = model.complete(x, self.samples, generator(self.seed, "complete"), known=known)
        _save(self.out, drawn.flatten(0, 1), lambda: pictures.completions(x, known.to(x), drawn))


@dataclass(frozen=True)
class Interpolate:
    """Decode lines between the codes of test samples."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory."""
    out: Path
    """.png: a row a line; .npy: the frames, (n · frames, …); .gif: the lines as a film."""
    data: Text = None
    """Other data of the same shape, by name or path; the run's own by default."""
    n: Number = 8
    """How many lines."""
    frames: int = 10
    """Frames a line, both ends included."""
    path_: Annotated[Literal["linear", "spherical"], arg(name="path")] = "linear"
    """Straight lines, or great circles whose radius goes from one code's to the other's."""

    def run(self) -> None:
        _check_out(self.out, ".gif")
        if self.n < 1 or self.frames < 2:
            raise ValueError(
                f"`n` must be at least 1 and `frames` at least 2, got {self.n} and {self.frames}"
            )
        from torch import lerp

        from monge import pictures, report
        from monge.models import spherical

        model, x = _test_samples(self.path, self.data, 2 * self.n)
        path = spherical if self.path_ == "spherical" else lerp
        frames = report.paired(model, x, self.frames, path)
        _save(
            self.out, frames,
            lambda: pictures.interpolations(frames, self.frames),
            lambda: pictures.film(frames, self.frames),
        )  # fmt: skip


@dataclass(frozen=True)
class Traverse:
    """Decode the code of one test sample with each coordinate in turn moved along the prior."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory."""
    out: Path
    """.png: a row a coordinate; .npy: the frames, (coordinates · frames, …)."""
    data: Text = None
    """Other data of the same shape, by name or path; the run's own by default."""
    index: int = 0
    """Which sample of the test part."""
    frames: int = 10
    """Levels a coordinate."""

    def run(self) -> None:
        _check_out(self.out)
        if self.index < 0 or self.frames < 2:
            raise ValueError(
                f"`index` must be at least 0 and `frames` at least 2, got {self.index} and "
                f"{self.frames}"
            )
        from monge import pictures, report
        from monge.data import as_floats

        model, test = _test_part(self.path, self.data)
        if self.index >= len(test):
            raise ValueError(f"`index` {self.index} is beyond the {len(test)} test samples")
        x = as_floats(test[self.index : self.index + 1])
        frames = report.traversed(model, x, self.frames)
        _save(self.out, frames, lambda: pictures.interpolations(frames, self.frames))


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
        from monge import distributed, report
        from monge.evaluate import evaluate, lines
        from monge.evaluation.inception import inception_network
        from monge.runs import Run

        run, extractor = Run(self.path), None
        if self.inception_weights is not None:
            extractor = inception_network(self.inception_weights, self.inception_resize)
        with distributed.group(run.config.device):
            result = evaluate(
                run, self.n, self.sampler, self.seeds, metrics=self.metrics, extractor=extractor
            )
        if not _first():
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
        from monge.compare import compare
        from monge.runs import Run

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
        from monge.explore import explore
        from monge.runs import Run

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
        from monge import export
        from monge.runs import Run

        run = Run(self.path)
        if self.out is not None:
            for file in export.export(run, self.out):
                print(file)
        if self.hub is not None:
            print(export.hub(run, self.hub))


@dataclass(frozen=True)
class Recipes:
    """List the recipes."""

    def run(self) -> None:
        others = {name: [a for a, r in ALIASES.items() if r == name] for name in RECIPES}
        for name, line in RECIPES.items():
            print(f"{', '.join([name, *others[name]]):19} {line}")


@dataclass(frozen=True)
class Data:
    """List the data sets that are known by name."""

    def run(self) -> None:
        for name, line in DATA.items():
            print(f"{name:19} {line}")
        print(
            f"{'PATH':19} folder, .zip or .tar of images, folder of idx files or clouds, .npy, …"
        )
        print(f"{'hf:DATASET':19} folder of save_to_disk, or a name on the hub of Hugging Face")


@dataclass(frozen=True)
class Distance:
    """Measure how far apart two samples are, each a .npy, .npz or .csv file."""

    a: Positional[Path]
    """The first sample, (n, …)."""
    b: Positional[Path]
    """The second sample, (m, …)."""
    method: Literal[
        "exact", "w1", "sliced", "max-sliced", "gsliced", "sinkhorn", "mmd", "energy", "gromov"
    ] = "sliced"
    """exact: W_p; w1: W_1; sliced: SW_p with its standard error; max-sliced: the worst direction;
    gsliced: circular slices; sinkhorn: the Sinkhorn divergence, on the scale of the cost; mmd:
    unbiased MMD² with the seven-scale inverse multiquadratic kernel whose base is E‖y - y'‖²;
    energy: the energy distance; gromov: Gromov-Wasserstein between Euclidean distances."""
    p: float = 2.0
    """Order, where the method has one."""
    directions: int = 1000
    """Directions or slices drawn, where the method draws any."""
    epsilon: Float = None
    """Regularisation of sinkhorn, in units of the cost; 5 % of its mean by default."""
    seed: int = 0
    """Draws the directions."""
    json: bool = False
    """One JSON object in place of a line."""

    def run(self) -> None:
        x, y = _sample(self.a), _sample(self.b)
        if x.shape[1] != y.shape[1] and self.method != "gromov":
            raise ValueError(
                f"`b` {str(self.b)!r} has samples of {y.shape[1]} numbers, `a` of {x.shape[1]}"
            )
        began = time.perf_counter()
        found = METHODS[self.method](self, x, y)
        seconds = round(time.perf_counter() - began, 4)
        sizes = {"n": len(x), "m": len(y), "d": x.shape[1]}
        result = {"method": self.method, **found, **sizes, "seconds": seconds}
        text = "  ".join(f"{name} {content}" for name, content in result.items())
        print(json.dumps(result) if self.json else text)


def _exact(given: Distance, x, y) -> dict:
    from monge.transport import wasserstein

    p = 1.0 if given.method == "w1" else given.p
    return {"value": float(wasserstein(x, y, p=p)), "p": p}


def _sliced(given: Distance, x, y) -> dict:
    from monge.draws import generator
    from monge.transport import sliced_wasserstein_estimate

    seeded = generator(given.seed, "distance")
    value, error = sliced_wasserstein_estimate(
        x, y, p=given.p, directions=given.directions, generator=seeded
    )
    drawn = {"p": given.p, "directions": given.directions, "seed": given.seed}
    return {"value": float(value), "standard_error": float(error), **drawn}


def _max_sliced(given: Distance, x, y) -> dict:
    from monge.draws import generator
    from monge.transport import max_sliced_wasserstein

    value, _ = max_sliced_wasserstein(x, y, p=given.p, generator=generator(given.seed, "distance"))
    return {"value": float(value), "p": given.p, "seed": given.seed}


def _gsliced(given: Distance, x, y) -> dict:
    from monge.draws import generator
    from monge.transport import Circular, generalized_sliced_wasserstein

    slicer = Circular(x.shape[1], given.directions)
    slicer.resample_(generator(given.seed, "distance"))
    value = generalized_sliced_wasserstein(x, y, slicer, p=given.p).item()
    drawn = {"p": given.p, "slices": given.directions, "seed": given.seed}
    return {"value": value, "radius": slicer.radius, **drawn}


def _sinkhorn(given: Distance, x, y) -> dict:
    from monge.transport import sinkhorn, sinkhorn_divergence
    from monge.transport.gibbs import Points

    epsilon = given.epsilon
    if epsilon is None:
        epsilon = 0.05 * Points(x, y, given.p).mean()
        if not epsilon > 0:
            raise ValueError("`epsilon` has no default for a sample of one point: give --epsilon")
    plan = sinkhorn(x, y, epsilon=epsilon, p=given.p)
    value = float(sinkhorn_divergence(x, y, epsilon=epsilon, p=given.p))
    account = {"marginal_error": plan.marginal_error, "iterations": plan.iterations}
    return {"value": value, "epsilon": epsilon, "p": given.p, **account}


def _mmd(given: Distance, x, y) -> dict:
    from monge.divergences import MMD
    from monge.kernels import multiscale_imq

    base = 2 * float(y.var(0, correction=0).sum())
    if not base > 0:
        raise ValueError(f"`b` {str(given.b)!r} holds one point only: no scale for the kernel")
    return {"value": float(MMD(multiscale_imq(base))(x, y)), "base": base}


def _energy(given: Distance, x, y) -> dict:
    from monge.divergences import MMD
    from monge.kernels import Energy

    return {"value": float(MMD(Energy(), unbiased=False)(x, y))}


def _gromov(given: Distance, x, y) -> dict:
    from monge.kernels import distances
    from monge.transport import gromov_wasserstein

    plan = gromov_wasserstein(distances(x, x), distances(y, y), seed=given.seed)
    return {"value": float(plan.value), "iterations": plan.iterations, "seed": given.seed}


METHODS = {
    "exact": _exact, "w1": _exact, "sliced": _sliced, "max-sliced": _max_sliced,
    "gsliced": _gsliced, "sinkhorn": _sinkhorn, "mmd": _mmd, "energy": _energy, "gromov": _gromov,
}  # fmt: skip


def _check_out(out: Path, *more: str) -> None:
    if out.suffix not in (suffixes := (".png", ".npy", *more)):
        raise ValueError(f"`out` must end in {' or '.join(suffixes)}, got {str(out)!r}")


def _save(out: Path, samples, picture, film=None) -> None:
    """Writes samples to .npy, their picture to .png, or a film to .gif, whole or not at all."""
    content = io.BytesIO()
    if out.suffix == ".npy":
        import numpy as np

        np.save(content, samples.numpy())
    elif film is not None and out.suffix == ".gif":
        first, *rest = film()
        first.save(content, "GIF", save_all=True, append_images=rest, duration=100, loop=0)
    else:
        picture().save(content, "PNG")
    from monge.files import write_all

    write_all(out.parent, {out.name: content.getvalue()})
    print(out)


def _sample(path: Path):
    """The samples of a file as rows (n, d) in float64; uint8 images in [0, 1]."""
    import torch

    from monge.data import arrays

    kind, samples = arrays.normalised(arrays.read(path).samples, str(path))
    scale = 255.0 if kind == "image" and samples.dtype == "uint8" else 1.0
    return torch.from_numpy(samples.astype("float64")).flatten(1) / scale


def _test_part(path: Path, data: str | None):
    """The auto-encoder of a run and the test part of its data, or of others of the same shape."""
    from monge.data import load
    from monge.models import AutoEncoder
    from monge.runs import Run

    run = Run(path)
    if not isinstance(run.model, AutoEncoder):
        raise ValueError(f"`run` {str(path)!r} ({run.config.recipe}) has no encoder")
    if data is None:
        return run.model, run.source.test
    source = load(dataclasses.replace(run.config.data, name=data, cache=None))
    if source.shape != run.config.shape:
        raise ValueError(
            f"`data` {data!r} has samples of shape {source.shape}, the run needs "
            f"{run.config.shape}"
        )
    return run.model, source.test


def _test_samples(path: Path, data: str | None, n: int):
    """The model of a run and n test samples, spread over the test part."""
    from monge.data import as_floats
    from monge.pictures import apart

    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}")
    model, test = _test_part(path, data)
    if n > len(test):
        print(f"the test part has {len(test)} samples: using them all")
    return model, as_floats(test[apart(n, len(test))])


Verb = Union[  # noqa: UP007
    Train,
    Sample,
    Reconstruct,
    Complete,
    Interpolate,
    Traverse,
    Evaluate,
    Compare,
    Explore,
    Export,
    Recipes,
    Data,
    Distance,
]


def parse(argv: list[str]) -> Verb:
    """The verb that the arguments name; tyro's boxed messages become one line and exit code 2."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                Verb,  # pyright: ignore
                prog="monge",
                args=argv or ["--help"],
                description="Optimal-transport generative modelling.",
                config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code == 0:
            raise
        # a title, with or without a box around, then the reason up to the next rule
        lines = [line.strip("│| \n") for line in complaint.getvalue().splitlines()[1:]]
        rest = itertools.dropwhile(_is_rule, lines)
        reason = " ".join(itertools.takewhile(lambda line: not _is_rule(line), rest))
        verb = f"monge {argv[0]}" if argv[0].isalpha() else "monge"
        reason = " ".join(reason.split()).partition(" Got errors")[0]
        raise ValueError(f"{reason}: see {verb} --help") from None


def _is_rule(line: str) -> bool:
    return re.fullmatch(r"[─╰╯+-]*", line) is not None


def _first() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _warn(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"monge: warning: {message}", file=sys.stderr)


def main() -> None:
    """The console script."""
    warnings.showwarning = _warn
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    code, complaint = 0, None
    try:
        parse(sys.argv[1:]).run()
    except ValueError as error:
        code, complaint = 2, f"error: {error}"
    except FailedRun as error:
        code, complaint = 1, f"error: {error}"
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT)
        code, complaint = 1 if full else 2, f"error: {error}"
    except Interrupted as error:
        code, complaint = 128 + error.number, str(error)
    except KeyboardInterrupt:
        code, complaint = 130, "interrupted"
    # what a user did wrong all processes see alike, a failure perhaps one alone
    if complaint and (code == 1 or _first()):
        print(f"monge: {' '.join(complaint.split())}", file=sys.stderr)
    sys.exit(code)
