"""All measures of a run, each with its floor: `evaluation.json`.

Samples are seen part by part, and only what the wanted measures need is kept of them: for the
Fréchet distance moments, for the others features and projections, never the images.
"""

import abc
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy
import torch
from torch import Tensor

from monge._core import processes
from monge._core.files import write_whole
from monge._core.version import __version__
from monge.config import Config
from monge.costs import chamfer
from monge.data import Source, as_floats
from monge.data.readers.clouds import augmented
from monge.divergences import MMD
from monge.draws import Draws, generator, permutation
from monge.evaluation.completion import agreement, best_of, diversity, energy_score
from monge.evaluation.extractors import Extractor, classifier, random_network
from monge.evaluation.fidelity import (
    memorisation,
    nearest_neighbour_test,
    precision_recall_density_coverage,
)
from monge.evaluation.frechet import (
    Moments,
    frechet_extrapolated_of_moments,
    frechet_of_moments,
    kernel_distance,
)
from monge.evaluation.pyramid import (
    LEAST,
    laplacian_pyramid,
    pyramid_distances,
    pyramid_patches,
)
from monge.evaluation.sets import (
    CELLS,
    MATCHED,
    occupancy_divergence,
    pairwise_chamfer,
    pairwise_earth_mover,
    set_scores,
)
from monge.evaluation.sharpness import sharpness
from monge.evaluation.two_sample import network_test
from monge.kernels import multiscale_imq
from monge.models import AutoEncoder, ConditionalWAE, evaluating
from monge.priors import Mixture
from monge.runs import Run
from monge.show.report import measure as measured
from monge.transport import jensen_shannon, wasserstein, wasserstein_1d
from monge.transport.sliced import uniform_directions

DIRECTIONS = 1000
MOST_EXACT = 2000
PATCHES, MOST_PATCHES = 128, 2**17  # an image, and in all
COMPLETIONS = 10
NEAR = 0.01
"""The share of test samples that counts as near to the training part."""

Measured = dict[str, float]


class Seen:
    """What is kept of n samples that come in parts."""

    def __init__(self, n: int):
        self.n, self.count = n, 0
        self.fifths: list[Moments] = []
        self.sharpness = 0.0
        self._kept: dict[str, list[Tensor]] = {}

    def keep(self, name: str, rows: Tensor) -> None:
        """Rows of a part."""
        self._kept.setdefault(name, []).append(rows)

    def __getitem__(self, name: str) -> Tensor:
        """All rows that were kept under a name."""
        if len(self._kept[name]) > 1:
            self._kept[name] = [torch.cat(self._kept[name])]
        return self._kept[name][0]

    def moments(self, rows: Tensor) -> None:
        """Takes features of the next samples into the fifth of the n where they belong."""
        self.fifths = self.fifths or [Moments(rows.shape[1]) for _ in range(5)]
        edges = [i * self.n // 5 - self.count for i in range(6)]
        for fifth, first, last in zip(self.fifths, edges, edges[1:]):
            if len(part := rows[max(first, 0) : max(last, 0)]):
                fifth.update(part)


class Measures(abc.ABC):
    """Measures of samples against a test part of the same size, with what they rest on.

    Arguments:
        source: the data.
        real: the samples of its test part that are compared with.
        metrics: groups of measures; all there are by default.
    """

    figures: tuple[str, str]

    def __init__(self, source: Source, real: Tensor, metrics: Sequence[str] = ()):
        groups = self.groups()
        if unknown := [name for name in metrics if name not in groups]:
            raise ValueError(
                f"`metrics` knows no {unknown[0]!r} for {source.name!r}: give some of "
                f"{', '.join(groups)}"
            )
        self.wanted = {name: groups[name] for name in metrics or groups}
        rows = permutation(0, "evaluation memory", len(source.train))[:20_000]
        self.train = self.features(source.train[rows]) if "memory" in self.wanted else None
        self.real = self.see(real.split(500), len(real))

    def groups(self) -> dict[str, Callable[[Seen], Measured]]:
        """The measures by the names of their groups."""
        return {
            "frechet": self._frechet, "kernel": self._kernel, "neighbours": self._neighbours,
            "tests": self._tests, "memory": self._memory, "sliced": self._sliced,
        }  # fmt: skip

    @abc.abstractmethod
    def features(self, x: Tensor) -> Tensor:
        r"""The features (n, d) of samples (n, \*)."""

    @abc.abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What the figures rest on."""

    def look(self, seen: Seen, part: Tensor) -> None:
        """Keeps what the wanted measures need of a part."""
        if set(self.wanted) == {"sharpness"}:
            return
        features = self.features(part)
        if "frechet" in self.wanted:
            seen.moments(features)
        if set(self.wanted) - {"frechet", "sharpness"}:
            seen.keep("features", features)

    def see(self, parts: Iterable[Tensor], n: int) -> Seen:
        """n samples that come in parts."""
        seen = Seen(n)
        for part in parts:
            self.look(seen, part)
            seen.count += len(part)
        return seen

    def __call__(self, parts: Iterable[Tensor], n: int) -> Measured:
        r"""The wanted measures of n samples that come in parts (b, \*)."""
        seen = self.see(parts, n)
        return {
            name: value
            for group in self.wanted.values()
            for name, value in group(seen).items()
        }  # fmt: skip

    def _frechet(self, seen: Seen) -> Measured:
        name = self.figures[0]
        whole, real = (sum(one.fifths[1:], one.fifths[0]) for one in (seen, self.real))
        found = {name: frechet_of_moments(whole, real)}
        if seen.n > 5 * len(whole.mean):  # a fifth of the samples still has a covariance
            found[f"{name} extrapolated"] = frechet_extrapolated_of_moments(
                seen.fifths, self.real.fifths
            )
        return found

    def _kernel(self, seen: Seen) -> Measured:
        drawn = generator(0, "evaluation subsets")
        found = kernel_distance(seen["features"], self.real["features"], generator=drawn)
        return {"KD": found.value}

    def _neighbours(self, seen: Seen) -> Measured:
        return precision_recall_density_coverage(seen["features"], self.real["features"])._asdict()

    def _tests(self, seen: Seen) -> Measured:
        x, y = seen["features"], self.real["features"]
        return {
            "1-NN accuracy": nearest_neighbour_test(x, y).value,
            "network accuracy": network_test(x, y).value,
        }

    def _memory(self, seen: Seen) -> Measured:
        assert self.train is not None
        share = memorisation(seen["features"], self.train, self.real["features"], NEAR)
        return {"near training": share}

    def _sliced(self, seen: Seen) -> Measured:
        dim = seen["features"].shape[1]
        theta = directions("features", dim).to(seen["features"])
        one, two = (theta @ z["features"].T for z in (seen, self.real))
        return {self.figures[1]: 3 * dim * float(wasserstein_1d(one, two).square().mean())}


def directions(purpose: str, dim: int) -> Tensor:
    """The fixed directions of an evaluation."""
    return uniform_directions(DIRECTIONS, dim, generator=generator(0, "evaluation", purpose))


class ImageMeasures(Measures):
    """The measures of images (n, c, h, w) in [0, 1].

    Arguments:
        extractor: the features; by default of a classifier of the training part, or of random
            convolutions where it has no labels.
    """

    def __init__(
        self,
        source: Source,
        real: Tensor,
        metrics: Sequence[str] = (),
        extractor: Extractor | None = None,
    ):
        self.head = None
        if extractor is None and source.train_labels is not None:
            extractor, self.head = classifier(source)
        self.extractor = extractor or random_network(source.shape)
        self.figures = self.extractor.figures
        self.channels, height, width = source.shape
        coloured = self.channels == 3 and min(height, width) >= LEAST
        self.levels = len(laplacian_pyramid(torch.zeros(1, *source.shape))) if coloured else 0
        self.theta = directions("pixels", self.channels * height * width)
        super().__init__(source, real, metrics)

    def features(self, x: Tensor) -> Tensor:
        return self.extractor(x)

    def groups(self) -> dict[str, Callable[[Seen], Measured]]:
        found = super().groups()
        if self.channels in (1, 3):
            found["sharpness"] = lambda seen: {"sharpness": seen.sharpness}
        if self.head is not None:
            found["classes"] = self._classes
        return found

    def protocol(self) -> dict[str, Any]:
        return {
            "features": self.extractor.name,
            "features sha256": self.extractor.sha256,
            "features accuracy": self.extractor.accuracy,
            "resize": self.extractor.resize,
            "range": "[0, 1], samples clamped",
        }

    def look(self, seen: Seen, part: Tensor) -> None:
        part = as_floats(part).clamp(0, 1)
        super().look(seen, part)
        if "sharpness" in self.wanted:
            seen.sharpness += sharpness(part) * len(part) / seen.n
        if "sliced" in self.wanted:
            seen.keep("pixels", part.flatten(1) @ self.theta.T)
        if "sliced" in self.wanted and self.levels:
            count = min(PATCHES, max(1, MOST_PATCHES // seen.n))
            drawn = generator(0, "evaluation patches", seen.count)
            for i, patches in enumerate(pyramid_patches(part, count, drawn)):
                seen.keep(f"pyramid {i}", patches)

    def _sliced(self, seen: Seen) -> Measured:
        pixels = wasserstein_1d(seen["pixels"].T, self.real["pixels"].T)
        found = super()._sliced(seen) | {"pixel SW": float(pixels.square().mean().sqrt())}
        if self.levels:
            x, y = ([z[f"pyramid {i}"] for i in range(self.levels)] for z in (seen, self.real))
            drawn = generator(0, "evaluation pyramid")
            distances = pyramid_distances(x, y, generator=drawn)
            found["pyramid SW"] = statistics.fmean(distances)
        return found

    def _classes(self, seen: Seen) -> Measured:
        one, two = (self._histogram(z["features"]) for z in (seen, self.real))
        return {"classes JS": float(jensen_shannon(one, two))}

    def _histogram(self, features: Tensor) -> Tensor:
        assert self.head is not None
        with evaluating(self.head):
            scores = self.head(features)
        return torch.bincount(scores.argmax(1), minlength=scores.shape[1]).double() / len(scores)


class VectorMeasures(Measures):
    """The measures of rows (n, d), in the standard units of the training part's columns."""

    figures = "FD", "3 d SW²"

    def __init__(self, source: Source, real: Tensor, metrics: Sequence[str] = ()):
        moments = source.moments()
        assert moments is not None
        self.mean, self.deviation = moments
        super().__init__(source, real, metrics)

    def groups(self) -> dict[str, Callable[[Seen], Measured]]:
        return super().groups() | {"exact": self._exact}

    def features(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation

    def protocol(self) -> dict[str, Any]:
        return {"features": "columns in standard units of the training part"}

    def _exact(self, seen: Seen) -> Measured:
        x, y = (z["features"][:MOST_EXACT] for z in (seen, self.real))
        return {"W2 exact": float(wasserstein(x, y))}


class CloudMeasures(Measures):
    """The measures of clouds of points (n, N, 3) in the unit sphere, by distances of each to
    each."""

    def __init__(self, source: Source, real: Tensor, metrics: Sequence[str] = ()):
        self.among: dict[str, Tensor] = {}
        super().__init__(source, real, metrics)

    def groups(self) -> dict[str, Callable[[Seen], Measured]]:
        return {
            "chamfer": lambda seen: self._sets("CD", pairwise_chamfer, seen),
            "earth-mover": lambda seen: self._sets("EMD", pairwise_earth_mover, seen),
            "occupancy": self._occupancy,
        }

    def features(self, x: Tensor) -> Tensor:
        return x

    def protocol(self) -> dict[str, Any]:
        return {
            "CD": "sum of both means of squared nearest distances",
            "EMD": f"mean of unsquared matched distances of {MATCHED} points",
            "JS": f"nats, {CELLS}³ cells of [-1, 1]³",
        }

    def look(self, seen: Seen, part: Tensor) -> None:
        seen.keep("clouds", part)

    def _sets(self, name: str, distances: Callable[..., Tensor], seen: Seen) -> Measured:
        x, y = seen["clouds"], self.real["clouds"]
        if name not in self.among:
            self.among[name] = distances(y)
        found = set_scores(distances(x), distances(x, y), self.among[name])
        return {
            f"MMD-{name}": found.minimum,
            f"coverage-{name}": found.coverage,
            f"1-NNA-{name}": found.accuracy,
        }

    def _occupancy(self, seen: Seen) -> Measured:
        return {"points JS": occupancy_divergence(seen["clouds"], self.real["clouds"])}


def evaluate(
    run: Run,
    n: int = 10_000,
    sampler: str = "prior",
    seeds: int = 1,
    *,
    metrics: Sequence[str] = (),
    extractor: Extractor | None = None,
) -> dict[str, Any]:
    """Measures n samples of a run against n test samples, and writes `evaluation.json`.

    Each figure is a mean over `seeds` draws of samples with their standard deviation, and has a
    floor: the same measure of n random training samples. Where the test part is smaller than n,
    all of it is used. Where torchrun has started several processes they share the draws.

    Arguments:
        run: a trained run.
        n: how many samples, at least 10.
        sampler: prior, or mixture for a Gaussian mixture fitted to the training codes.
        seeds: how many draws.
        metrics: groups of measures (frechet, kernel, neighbours, tests, memory, sliced; for
            images sharpness, classes; for tables exact; for clouds chamfer, earth-mover, occupancy
            and no others); all by default.
        extractor: features of images in place of the default ones, e.g. `inception_network(file)`.

    Raises:
        ValueError: for bad arguments, or a test part of fewer than 10 samples.
    """
    if sampler not in ("prior", "mixture"):
        raise ValueError(f"`sampler` must be prior or mixture, got {sampler!r}")
    if seeds < 1:
        raise ValueError(f"`seeds` must be at least 1, got {seeds}")
    source = run.source
    n = min(n, len(source.test))
    if n < 10:
        raise ValueError(
            f"`n` must be at least 10 samples, got {n} (as many as there are to test)"
        )
    real = source.test[permutation(0, "evaluation test", len(source.test))[:n]]
    if source.kind == "image":
        measure = ImageMeasures(source, real, metrics, extractor)
    elif extractor is not None:
        raise ValueError(f"`extractor` is for images, and {source.name!r} holds none")
    elif source.kind == "cloud":
        measure = CloudMeasures(source, real, metrics)
    else:
        measure = VectorMeasures(source, real, metrics)
    prior = _mixture(run) if sampler == "mixture" else None
    chosen = permutation(0, "evaluation floor", len(source.train))[:n]

    def one(seed: int) -> Measured:
        return measure(run.samples(n, generator(seed, "evaluate"), prior), n)

    floor, *drawn = processes.shared([
        lambda: measure(map(source.train.__getitem__, chosen.split(500)), len(chosen)),
        *(partial(one, seed) for seed in range(seeds)),
    ])  # fmt: skip
    if "near training" in floor:
        # training samples are near training samples; the test part is so by definition
        floor["near training"] = NEAR
    figures = {
        name: {
            "value": statistics.fmean(values := [one[name] for one in drawn]),
            "deviation": statistics.stdev(values) if seeds > 1 else None,
            "floor": floor.get(name),
        }
        for name in drawn[0]
    }
    if isinstance(run.model, ConditionalWAE):
        figures |= _completions(run, measure)
    if isinstance(run.model, AutoEncoder):
        figures |= _codes(run)
        if source.kind == "cloud":
            figures |= (moved := _moved(run, run.model))
            figures["test reconstruction"]["floor"] = next(iter(moved.values()))["floor"]
    config: Config = run.config
    result = {
        "protocol": {
            "run": run.name, "recipe": config.recipe, "data": source.name, "split": "test",
            "sampler": sampler, "seeds": seeds, "n samples": n, "n test": n,
            "n floor": len(chosen), **measure.protocol(), "monge": __version__,
            "torch": torch.__version__, "numpy": numpy.__version__,
        },
        "figures": figures,
    }  # fmt: skip
    if processes.first():
        write_whole(run.path / "evaluation.json", json.dumps(result, indent=2) + "\n")
    return result


def _mixture(run: Run) -> Mixture:
    """The run's mixture, which the first process fits and keeps for all."""
    if processes.first():
        run.mixture()
    processes.wait()
    return run.mixture()


def _completions(run: Run, measure: Measures) -> dict[str, dict[str, float | None]]:
    """What a conditional model makes of up to 1,000 test images, ten completions of each."""
    model, source = run.model, run.source
    assert isinstance(model, ConditionalWAE)
    rows = permutation(0, "evaluation completions", len(source.test))[:1000]
    x = as_floats(source.test[rows])
    drawn = model.complete(x, COMPLETIONS, generator(0, "evaluation completions"))
    with evaluating(model):
        known = model.known(x)
        phi, codes = model.summarise(x, known), model.encode(x, known).mean
    prior, other = (model.prior.sample(len(x), generator(0, "joint", i)) for i in (0, 1))
    joint = [torch.cat([phi, z], 1) for z in (codes, prior, other)]
    mmd = MMD(multiscale_imq(model.prior.spread + 2 * phi.shape[1]))
    found: dict[str, tuple[float, float | None]] = {
        f"best of {COMPLETIONS}": (best_of(drawn, x), None),
        "diversity": (diversity(drawn), None),
        "energy score": (energy_score(drawn, x), None),
        "joint MMD²": (float(mmd(joint[0], joint[1])), float(mmd(joint[2], joint[1]))),
    }
    if (
        isinstance(measure, ImageMeasures)
        and measure.head is not None
        and source.test_labels is not None
    ):
        labels, head, features = source.test_labels[rows], measure.head, measure.features
        found["class agreement"] = (
            agreement(drawn, labels, lambda part: head(features(part))),
            agreement(x[:, None], labels, lambda part: head(features(part))),
        )
    return {
        name: {"value": value, "deviation": None, "floor": floor}
        for name, (value, floor) in found.items()
    }


def _moved(run: Run, model: AutoEncoder) -> dict[str, dict[str, float | None]]:
    """What a model makes of test clouds that are turned about y or scaled, in Chamfer distances of
    the clouds as they were. The floor is the distance of two samplings of one shape: that of two
    halves of its points, halved, since nearest points of a surface are 1/N apart, squared."""
    x = run.source.test
    drawn = generator(0, "evaluation moves")
    draws = Draws(0, "evaluation", len(x))
    turned = augmented(x, draws, turn=True, jitter=0.0)
    factor = 1.25 ** (2 * torch.rand(len(x), generator=drawn) - 1)
    floor = float(chamfer(x[:, ::2], x[:, 1::2]).mean()) / 2
    found = {}
    with evaluating(model):
        for name, clouds, size in (
            ("turned", turned, torch.ones(len(x))),
            ("scaled", x * factor[:, None, None], factor),
        ):
            parts = zip(clouds.split(500), size.split(500))
            errors = [chamfer(one, model.reconstruct(one)) / k.square() for one, k in parts]
            found[f"test reconstruction, {name}"] = float(torch.cat(errors).mean())
    return {
        name: {"value": value, "deviation": None, "floor": floor}
        for name, value in found.items()
    }  # fmt: skip


def _codes(run: Run) -> dict[str, dict[str, float | None]]:
    found = measured(run)
    return {
        "test reconstruction": {
            "value": found["test reconstruction"], "deviation": None, "floor": None,
        },
        "MMD² of codes": {
            "value": found["MMD² of codes"], "deviation": None, "floor": found["its floor"],
        },
    }  # fmt: skip


def lines(result: dict[str, Any]) -> list[str]:
    """The figures as the rows of a Markdown table."""
    rows = ["| figure | value | ± | floor |", "|---|---|---|---|"]
    for name, figure in result["figures"].items():
        cells = (figure["value"], figure["deviation"], figure["floor"])
        shown = ["–" if cell is None else f"{cell:.4g}" for cell in cells]
        rows.append(f"| {name} | {' | '.join(shown)} |")
    return rows
