"""The verbs that draw: samples, reconstructions, completions, and paths through the codes."""

import io
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from monge._core.names import SamplerName
from monge._core.visible import counted
from monge.cli.common import Float, Int, Number, OfRun, Text, tell

MOST_FRAMES = 5000
"""Frames of a path, and how many frames are decoded at a time."""


@dataclass(frozen=True, kw_only=True)
class _Drawing(OfRun):
    """Flags for the run whose samples a verb draws."""

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

    def _pictures(self, run: Any, count: int, columns: int = 8, frames: int = 1) -> Any:
        """The pictures of the run's kind of data; a ValueError where `count` samples in `columns`
        and `frames` are more than a picture or a film holds, the rows of a table more than the
        memory, or a file more than its folder."""
        from monge.data.kinds import kind_named
        from monge.data.readers.caps import demand_memory
        from monge.show.pictures import pictures_of

        shape, pictures = run.settled.shape, pictures_of(kind_named(run.settled.kind))
        size = 4 * count * math.prod(shape)
        if self.out.suffix == ".csv":
            demand_memory(2 * size, f"`n` {count:,} rows")
        elif self.out.suffix == ".npy":
            _refuse_beyond_room(size, self.out.parent)
        else:
            pictures.check_size(shape, count, columns, frames)
        return pictures

    def _save(
        self,
        run: Any,
        batches: Iterable[Any],
        count: int,
        picture: Callable[[Any], Any],
        film: Callable[[Any], Any] | None = None,
        labels: Any = None,
    ) -> None:
        """Writes `count` samples that come in batches to .npy as they come, rows of a table to
        .csv, their picture to .png, or a film to .gif; all or nothing. Samples with labels have
        them in a file of their own beside .npy, and in a column of .csv."""
        from monge._core.files import write_all

        batches = self._finite(batches)
        if self.out.suffix == ".npy":
            contents = {self.out.name: _npy(batches, count, self.out.parent)}
            if labels is not None:
                contents[f"{self.out.stem}.labels.npy"] = _npy([labels], count, self.out.parent)
            for written in write_all(self.out.parent, contents):
                tell(written)
            return
        import torch

        from monge.show.stamped import gif, png

        samples = torch.cat(list(batches))
        if self.out.suffix == ".csv":
            content = run.schema.to_csv(samples, self._of_class(run, labels))
        elif self.out.suffix == ".gif" and film is not None:
            content = gif(film(samples), run.provenance)
        else:
            content = png(picture(samples), run.provenance)
        write_all(self.out.parent, {self.out.name: content})
        tell(self.out)

    def _finite(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches; a ValueError for one that holds NaN or infinity."""
        for batch in batches:
            if not batch.isfinite().all():
                raise ValueError(
                    f"`run` {str(self.path)!r} gives samples with NaN or infinity: has the "
                    "training diverged, or is a setting of this command too large?"
                )
            yield batch

    def _of_class(self, run: Any, labels: Any) -> tuple[str, list[str]] | None:
        """The name and the cells of the column of a table that holds the classes of its rows."""
        if labels is None:
            return None
        taken, names = run.schema.names, run.settled.classes
        name = next(one for one in ("label", "class", "classes") if one not in taken)
        return name, [names[i] for i in labels.tolist()]

    def _some(self, run: Any, n: int) -> Any:
        """n held-out samples as they are stored, spread evenly over them, with their labels for a
        class-conditional model."""
        if n < 1:
            raise ValueError(f"`n` must be at least 1, got {n}")
        from monge.show.pictures import spread_over

        test = run.rows("test")
        if n > len(test):
            tell(f"the test part has {counted(len(test), 'sample')}: using them all")
        return test[spread_over(len(test), n)]


def _refuse_beyond_room(size: int, folder: Path) -> None:
    """Refuses a file for which the disk of its folder, which need not exist yet, has no room."""
    existing = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise ValueError(
            f"`out` would be a file of {size:,} bytes, and '{folder}' has {free:,} left: ask for "
            "fewer samples"
        )


def _npy(batches: Iterable[Any], count: int, folder: Path) -> Iterator[bytes]:
    """The bytes of a .npy file of `count` samples that come in batches, if the folder has room for
    it."""
    import numpy as np

    left = count
    for batch in batches:
        array = np.ascontiguousarray(batch.numpy())
        if left == count:
            _refuse_beyond_room(count * array[0].nbytes, folder)
            header = io.BytesIO()
            shape = (count, *array.shape[1:])
            fields = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(header, fields)
            yield header.getvalue()
        left -= len(array)
        yield array.tobytes()
    if left:
        raise ValueError(f"`model` returns {count - left:,} samples where {count:,} are asked for")


@dataclass(frozen=True, kw_only=True)
class Sample(_Drawing):
    """Draw samples from a trained model."""

    out: Path
    """.png: a picture; .npy: any number of samples, written as they are drawn; .gif: rotating
    clouds; .csv: rows of a table, with its names, labels and units. For a class-conditional run
    the labels are written to STEM.labels.npy beside .npy, or as a column of .csv."""
    n: Annotated[int | None, arg(aliases=["-n"], metavar="INT", help_behavior_hint="")] = None
    """Number of samples, 64 by default; with --class, number per class, 8 by default."""
    class_: Annotated[tuple[str, ...], arg(name="class")] = ()
    """For a run trained with --condition: the classes or clusters to draw from, by name or number,
    one row of the picture each; by default in the proportions of the training set."""
    seed: int = 0
    """Seed of the draws. The first n samples are the same for every n, up to rounding, which
    depends on batch sizes."""
    sampler: SamplerName = "prior"
    """Draw codes from the prior, or from a Gaussian mixture or a flow fitted to the training
    codes; fitting a flow takes a minute, once."""
    components: Int = None
    """Components of a mixture; by default chosen by the likelihood of held-out codes."""
    temperature: float = 1.0
    """T > 0, a factor of the standard deviations of the prior or of mixture components, and of the
    noise of a flow; below 1, samples are more typical and less diverse."""
    ode_steps: Int = None
    """Steps to integrate a flow, instead of those it was trained with; fewer are faster and less
    accurate."""
    guidance: Float = None
    """Guidance of a class-conditional flow, instead of the run's own; 1 is none, larger values
    give more typical and less diverse samples."""

    def run(self) -> None:
        run = self._run(".gif", ".csv")
        import torch

        from monge._core.checks import dimension
        from monge.draws import generator
        from monge.models.flow import with_guidance, with_steps
        from monge.models.protocols import clusters_of
        from monge.models.sampling import drawn_labels
        from monge.show.pictures import TURN, TURNING

        classes = run.class_numbers(self.class_) if self.class_ else []
        each = self.n if self.n is not None else 8 if classes else 64
        if each < 1:
            raise ValueError(f"`n` must be at least 1, got {each}")
        if self.ode_steps is not None:
            dimension("ode_steps", self.ode_steps)  # before a flow is fitted
        if self.guidance is not None:
            with_guidance(run.model, self.guidance)
        count, columns = each * max(1, len(classes)), each if classes else 8
        pictures = self._pictures(run, count, columns)
        if self.out.suffix == ".gif" and pictures.kind.turns:
            pictures.check_size(run.settled.shape, count, TURNING, TURN)
        prior = run.sampler(self.sampler, self.components, self.temperature)
        if self.ode_steps is not None:
            with_steps(run.model if prior is None else prior, self.ode_steps)
        seeded = generator(self.seed, "sample")
        wanted = torch.tensor(classes).repeat_interleave(each) if classes else None
        labels = drawn_labels(run.model, count, seeded, wanted)
        labelled = bool(classes) or clusters_of(run.model) is None
        drawn = run.samples(count, seeded, prior, labels)
        self._save(
            run,
            drawn,
            count,
            lambda x: pictures.samples(x, columns=columns),
            pictures.turntable,
            labels if labelled else None,
        )


@dataclass(frozen=True, kw_only=True)
class Reconstruct(_Drawing):
    """Reconstruct test samples."""

    out: Path
    """.png: samples and their reconstructions; .npy: the reconstructions."""
    n: Number = 32
    """Number of test samples, spread over the test set."""

    def run(self) -> None:
        run = self._run()
        from monge.data import as_floats
        from monge.labels import unlabelled
        from monge.models import evaluating
        from monge.models.protocols import reconstruct, reconstructs, require

        if not reconstructs(run.model):
            require(run.model, "encode", "reconstruction")
            require(run.model, "decode", "reconstruction")
        x = self._some(run, self.n)
        pictures = self._pictures(run, 2 * len(x))

        def reconstructed() -> Iterator[Any]:
            for batch in map(as_floats, x.split(500)):
                with evaluating(run.model):
                    yield reconstruct(run.model, batch)

        self._save(
            run,
            reconstructed(),
            len(x),
            lambda y: pictures.reconstructions(as_floats(unlabelled(x)), y),
        )


@dataclass(frozen=True, kw_only=True)
class Complete(_Drawing):
    """Complete partly known test images with a conditional model."""

    path: Annotated[Positional[Path], arg(name="run")]
    """A run directory of a model that completes samples, e.g. of conditional-wae."""
    out: Path
    """.png: for each image a row with its known part, completions and original; .npy: the
    completions, (n · samples, …)."""
    known: Text = None
    """The known part: top, bottom, left, right, surround, or a mask image; the run's own by
    default. A model trained with a random unknown box completes any part."""
    n: Number = 10
    """Number of test images, spread over the test set."""
    samples: int = 5
    """Completions per image."""
    seed: int = 0
    """Seed of the draws."""

    def run(self) -> None:
        run = self._run()
        if self.samples < 1:
            raise ValueError(f"`samples` must be at least 1, got {self.samples}")
        import torch

        from monge.data import as_floats
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
        x = as_floats(self._some(run, self.n))
        count = len(x) * self.samples
        pictures = self._pictures(run, count + 2 * len(x), self.samples + 2)
        part = self.known or trained
        if part == trained != "random":
            part = None  # the model has its own mask, whatever has become of the image
        known = known_part(model, x, self._mask(x, part))
        seeded = generator(self.seed, "complete")

        def completed() -> Iterator[Any]:
            # one completion of each of some repeated samples: the draws are those of all at once
            for first in range(0, count, 500):
                rows = torch.arange(first, min(first + 500, count)) // self.samples
                yield complete(model, x[rows], 1, seeded, known=known[rows])[:, 0]

        def picture(drawn: Any) -> Any:
            return pictures.completions(x, known.to(x), drawn.unflatten(0, (len(x), -1)))

        self._save(run, completed(), count, picture)

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
    """Number of paths."""
    frames: int = 10
    """Frames of a path, both ends included."""
    path_: Annotated[Literal["linear", "spherical"], arg(name="path")] = "linear"
    """Straight lines, or great circles whose radius changes linearly from end to end."""

    def run(self) -> None:
        run = self._run(".gif")
        if self.n < 1 or not 2 <= self.frames <= MOST_FRAMES:
            raise ValueError(
                f"`n` must be at least 1 and `frames` from 2 to {MOST_FRAMES:,}, got {self.n} and "
                f"{self.frames}"
            )
        from torch import lerp

        from monge.data import as_floats
        from monge.models import spherical
        from monge.models.protocols import require
        from monge.show.drawn import paired

        for method in ("encode", "decode"):
            require(run.model, method, "interpolation")
        x = self._some(run, 2 * self.n)
        count, path = len(x) // 2, spherical if self.path_ == "spherical" else lerp
        if self.out.suffix == ".gif":
            pictures = self._pictures(run, count, math.ceil(math.sqrt(count)), self.frames)
        else:
            pictures = self._pictures(run, count * self.frames, self.frames)
        some = 2 * max(1, MOST_FRAMES // self.frames)
        parts = x[: 2 * count].split(some)
        self._save(
            run,
            (paired(run.model, as_floats(pairs), self.frames, path) for pairs in parts),
            count * self.frames,
            lambda frames: pictures.interpolations(frames, self.frames),
            lambda frames: pictures.film(frames, self.frames),
        )


@dataclass(frozen=True, kw_only=True)
class Traverse(_Drawing):
    """Decode the code of one test sample while each coordinate in turn moves along the prior."""

    out: Path
    """.png: a row for each coordinate; .npy: the frames, (coordinates · frames, …)."""
    index: int = 0
    """Index of the test sample."""
    frames: int = 10
    """Values of a coordinate."""

    def run(self) -> None:
        run = self._run()
        if self.index < 0 or not 2 <= self.frames <= MOST_FRAMES:
            raise ValueError(
                f"`index` must be at least 0 and `frames` from 2 to {MOST_FRAMES:,}, got "
                f"{self.index} and {self.frames}"
            )
        from monge.data import as_floats
        from monge.models.protocols import latent_of, require
        from monge.show.drawn import traversed

        for method in ("encode", "decode"):
            require(run.model, method, "traversal")
        test = run.rows("test")
        if self.index >= len(test):
            raise ValueError(
                f"`index` {self.index} is beyond the {counted(len(test), 'test sample')}"
            )
        x = as_floats(test[self.index : self.index + 1])
        count = (latent_of(run.model, x) or 0) * self.frames
        pictures = self._pictures(run, count, self.frames)
        frames = traversed(run.model, x, test, self.frames)
        self._save(run, frames, count, lambda drawn: pictures.interpolations(drawn, self.frames))
