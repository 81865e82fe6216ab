"""The verbs that draw: samples, reconstructions, completions, lines and axes of codes."""

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from monge.cli.common import Number, Text


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
        from monge.draws import generator
        from monge.runs import Run
        from monge.show import pictures

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
        from monge.models import evaluating
        from monge.show import pictures

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
        from monge.draws import generator
        from monge.models import ConditionalWAE
        from monge.models.masks import mask
        from monge.runs import read_config
        from monge.show import pictures

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

        from monge.models import spherical
        from monge.show import pictures, report

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
        from monge.data import as_floats
        from monge.show import pictures, report

        model, test = _test_part(self.path, self.data)
        if self.index >= len(test):
            raise ValueError(f"`index` {self.index} is beyond the {len(test)} test samples")
        x = as_floats(test[self.index : self.index + 1])
        frames = report.traversed(model, x, self.frames)
        _save(self.out, frames, lambda: pictures.interpolations(frames, self.frames))


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
    from monge._core.files import write_all

    write_all(out.parent, {out.name: content.getvalue()})
    print(out)


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
    from monge.show.pictures import apart

    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}")
    model, test = _test_part(path, data)
    if n > len(test):
        print(f"the test part has {len(test)} samples: using them all")
    return model, as_floats(test[apart(n, len(test))])
