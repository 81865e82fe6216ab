"""The verbs that draw: samples, reconstructions, completions, and paths through the codes."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from monge.cli.common import Number, OfRun, Text


@dataclass(frozen=True, kw_only=True)
class _Drawing(OfRun):
    """What a verb says of the run whose samples it draws."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory."""
    out: Path
    """A file to write."""

    def _run(self, *more: str) -> Any:
        """The run, once `out` has been checked: .png, .npy, or one of the other suffixes."""
        suffixes = (".png", ".npy", *more)
        if self.out.suffix not in suffixes:
            raise ValueError(f"`out` must end in {' or '.join(suffixes)}, got {str(self.out)!r}")
        return self.open(self.path)

    def _pictures(self, run: Any) -> Any:
        """The pictures of the run's kind of data."""
        from monge.data.kinds import kind_named
        from monge.show.pictures import pictures_of

        return pictures_of(kind_named(run.settled.kind))

    def _save(self, run: Any, samples: Any, picture: Callable[[], Any], film: Any = None) -> None:
        """Writes samples to .npy, their picture to .png, or a film to .gif; all or nothing."""
        from monge.show.stamped import gif, png

        if self.out.suffix == ".npy":
            import numpy as np

            array = io.BytesIO()
            np.save(array, samples.numpy())
            content = array.getvalue()
        elif self.out.suffix == ".gif":
            content = gif(film(), run.provenance)
        else:
            content = png(picture(), run.provenance)
        from monge._core.files import write_all

        write_all(self.out.parent, {self.out.name: content})
        print(self.out)

    def _some(self, run: Any, n: int) -> Any:
        """n held-out samples, spread evenly over them."""
        if n < 1:
            raise ValueError(f"`n` must be at least 1, got {n}")
        from monge.data import as_floats
        from monge.show.pictures import spread_over

        test = run.source.test
        if n > len(test):
            print(f"the test part has {len(test)} samples: using them all")
        return as_floats(test[spread_over(len(test), n)])


@dataclass(frozen=True, kw_only=True)
class Sample(_Drawing):
    """Draw samples from a trained model."""

    out: Path
    """.png: a picture; .npy: the samples; .gif: clouds that turn."""
    n: Number = 64
    """How many."""
    seed: int = 0
    """The first n draws of a seed are the same for every n; samples up to rounding, since batch
    sizes change a network's last digits."""
    sampler: Literal["prior", "mixture"] = "prior"
    """Draw codes from the prior, or from a Gaussian mixture fitted to the training codes."""

    def run(self) -> None:
        run = self._run(".gif")
        from monge.draws import generator

        prior = run.mixture() if self.sampler == "mixture" else None
        drawn = run.sample(self.n, generator(self.seed, "sample"), prior)
        pictures = self._pictures(run)
        self._save(run, drawn, lambda: pictures.samples(drawn), lambda: pictures.turntable(drawn))


@dataclass(frozen=True, kw_only=True)
class Reconstruct(_Drawing):
    """Reconstruct samples of the test part."""

    out: Path
    """.png: samples and their reconstructions; .npy: the reconstructions."""
    n: Number = 32
    """How many, spread over the test part."""

    def run(self) -> None:
        run = self._run()
        from monge.models import evaluating
        from monge.models.protocols import reconstruct, reconstructs, require

        if not reconstructs(run.model):
            require(run.model, "encode", "reconstruction")
            require(run.model, "decode", "reconstruction")
        x = self._some(run, self.n)
        with evaluating(run.model):
            y = reconstruct(run.model, x)
        self._save(run, y, lambda: self._pictures(run).reconstructions(x, y))


@dataclass(frozen=True, kw_only=True)
class Complete(_Drawing):
    """Complete test images of which a conditional model sees a part."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory of a model that completes samples, e.g. of conditional-wae."""
    out: Path
    """.png: a row for each image: its known part, completions, the truth; .npy: the completions,
    (n · samples, …)."""
    known: Text = None
    """The known part: top, bottom, left, right, surround, or a mask image; the run's own by
    default. A model trained with a random unknown box completes any part."""
    n: Number = 10
    """How many images, spread over the test part."""
    samples: int = 5
    """Completions of each."""
    seed: int = 0
    """Seed of the draws."""

    def run(self) -> None:
        run = self._run()
        if self.samples < 1:
            raise ValueError(f"`samples` must be at least 1, got {self.samples}")
        from monge.draws import generator
        from monge.models.protocols import Completer, complete, known_part

        trained = getattr(run.config.options, "known", None)
        if self.known not in (None, trained) and trained not in (None, "random"):
            raise ValueError(
                f"`known` is {self.known!r}, but the run was trained to complete from "
                f"{trained!r}: train one with --known {self.known}, or with --known random "
                "for any part"
            )
        model = run.model
        if not isinstance(model, Completer):
            raise ValueError(
                f"`run` {str(self.path)!r} is of {run.config.recipe}, whose model has no method "
                "`complete`: give a run of conditional-wae"
            )
        x = self._some(run, self.n)
        known = self._mask(x, self.known or trained)
        drawn = complete(model, x, self.samples, generator(self.seed, "complete"), known=known)
        known = known_part(model, x, known)
        pictures = self._pictures(run)
        self._save(run, drawn.flatten(0, 1), lambda: pictures.completions(x, known.to(x), drawn))

    def _mask(self, x: Any, known: str | None) -> Any:
        """A mask for each of x; None for that of the model."""
        if known is None:
            return None
        from monge.draws import generator
        from monge.models.masks import mask

        return mask(known, x.shape[1:])(len(x), generator(self.seed, "known"))


@dataclass(frozen=True, kw_only=True)
class Interpolate(_Drawing):
    """Decode paths between the codes of test samples."""

    out: Path
    """.png: a row for each path; .npy: the frames, (n · frames, …); .gif: the paths as a film."""
    n: Number = 8
    """How many paths."""
    frames: int = 10
    """Frames of a path, both ends included."""
    path_: Annotated[Literal["linear", "spherical"], arg(name="path")] = "linear"
    """Straight lines, or great circles whose radius changes linearly from end to end."""

    def run(self) -> None:
        run = self._run(".gif")
        if self.n < 1 or self.frames < 2:
            raise ValueError(
                f"`n` must be at least 1 and `frames` at least 2, got {self.n} and {self.frames}"
            )
        from torch import lerp

        from monge.models import spherical
        from monge.models.protocols import require
        from monge.show.report import paired

        for method in ("encode", "decode"):
            require(run.model, method, "interpolation")
        x = self._some(run, 2 * self.n)
        path = spherical if self.path_ == "spherical" else lerp
        frames, pictures = paired(run.model, x, self.frames, path), self._pictures(run)
        self._save(
            run,
            frames,
            lambda: pictures.interpolations(frames, self.frames),
            lambda: pictures.film(frames, self.frames),
        )


@dataclass(frozen=True, kw_only=True)
class Traverse(_Drawing):
    """Decode the code of one test sample with each coordinate in turn moved along the prior."""

    out: Path
    """.png: a row for each coordinate; .npy: the frames, (coordinates · frames, …)."""
    index: int = 0
    """Which sample of the test part."""
    frames: int = 10
    """Levels of a coordinate."""

    def run(self) -> None:
        run = self._run()
        if self.index < 0 or self.frames < 2:
            raise ValueError(
                f"`index` must be at least 0 and `frames` at least 2, got {self.index} and "
                f"{self.frames}"
            )
        from monge.data import as_floats
        from monge.models.protocols import require
        from monge.show.report import traversed

        for method in ("encode", "decode"):
            require(run.model, method, "traversal")
        test = run.source.test
        if self.index >= len(test):
            raise ValueError(f"`index` {self.index} is beyond the {len(test)} test samples")
        x = as_floats(test[self.index : self.index + 1])
        frames = traversed(run.model, x, test, self.frames)
        self._save(run, frames, lambda: self._pictures(run).interpolations(frames, self.frames))
