r"""Measures of samples of a model against held-out samples, for each kind of data.

Samples are seen batch by batch, and only what the wanted measures need is kept of them: moments
for the Fréchet distance, features and projections for the others, never the images.
"""

import abc
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from monge.costs import chamfer
from monge.data import Source, as_floats
from monge.data.kinds import turned
from monge.draws import Draws, generator, permutation
from monge.evaluation.completion import agreement, completed, completion_figures
from monge.evaluation.extractors import Extractor, classifier, random_network
from monge.evaluation.fidelity import (
    memorisation,
    nearest_neighbour_test,
    precision_recall_density_coverage,
)
from monge.evaluation.frechet import (
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
from monge.evaluation.statistics import Figure, Measured, Statistics, figure
from monge.evaluation.summary import errors
from monge.evaluation.two_sample import network_test
from monge.models import evaluating
from monge.models.protocols import Completer, reconstruct, reconstructs
from monge.transport import jensen_shannon, wasserstein, wasserstein_1d
from monge.transport.sliced import uniform_directions

DIRECTIONS = 1000
MOST_EXACT = 2000
PATCHES, MOST_PATCHES = 128, 2**17  # an image, and in all
NEAR = 0.01
"""The share of test samples that counts as near to the training part."""


class Measures(abc.ABC):
    """Measures of samples against as many held-out samples.

    Arguments:
        source: the data.
        real: the held-out samples that are compared with.
        metrics: groups of measures; all of them by default.
        extractor: a feature space for images, in place of the default one.

    Raises:
        ValueError: for an unknown group, or an extractor where samples are not images.
    """

    figures: tuple[str, str]
    """The names of the Fréchet distance and of the scaled sliced distance."""

    def __init__(
        self,
        source: Source,
        real: Tensor,
        metrics: Sequence[str] = (),
        extractor: Extractor | None = None,
    ):
        if extractor is not None and not source.kind.grid:
            raise ValueError(f"`extractor` is for images, and {source.name!r} holds none")
        self.source = source
        groups = self.groups()
        if unknown := [name for name in metrics if name not in groups]:
            raise ValueError(
                f"`metrics` knows no {unknown[0]!r} for {source.name!r}: give some of "
                f"{', '.join(groups)}"
            )
        self.wanted = {name: groups[name] for name in metrics or groups}
        rows = permutation(0, "evaluation memory", len(source.train))[:20_000]
        self.train = self.features(source.train[rows]) if "memory" in self.wanted else None
        self.real = self.statistics(real.split(500), len(real))

    def groups(self) -> dict[str, Callable[[Statistics], Measured]]:
        """The measures by the names of their groups."""
        return {
            "frechet": self._frechet,
            "kernel": self._kernel,
            "neighbours": self._neighbours,
            "tests": self._tests,
            "memory": self._memory,
            "sliced": self._sliced,
        }

    @abc.abstractmethod
    def features(self, x: Tensor) -> Tensor:
        r"""The features (n, d) of samples (n, \*)."""

    @abc.abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What the figures rest on."""

    def of_model(self, model: nn.Module, seed: int = 0) -> dict[str, Figure]:
        """The figures that need the model itself: of completions, reconstructions and codes.

        Arguments:
            model: has them as far as it has the methods.
            seed: of the draws of codes.
        """
        figures: dict[str, Figure] = {}
        if isinstance(model, Completer):
            x, labels, drawn = completed(model, self.source)
            figures |= completion_figures(model, x, drawn)
            if labels is not None:
                figures |= self.agreements(drawn, x, labels)
        numbers = errors(model, self.source, seed)
        if "test reconstruction" in numbers:
            figures["test reconstruction"] = figure(numbers["test reconstruction"])
        if "MMD² of codes" in numbers:
            figures["MMD² of codes"] = figure(numbers["MMD² of codes"], numbers["its floor"])
        return figures

    def agreements(self, completions: Tensor, x: Tensor, labels: Tensor) -> dict[str, Figure]:
        r"""How often completions (n, k, \*) of samples x (n, \*) have their classes (n,), where
        there is a classifier."""
        return {}

    def collect(self, statistics: Statistics, batch: Tensor) -> None:
        """Keeps what the wanted measures need of a batch."""
        if set(self.wanted) == {"sharpness"}:
            return
        features = self.features(batch)
        if "frechet" in self.wanted:
            statistics.moments(features)
        if set(self.wanted) - {"frechet", "sharpness"}:
            statistics.keep("features", features)

    def statistics(self, batches: Iterable[Tensor], n: int) -> Statistics:
        """What is kept of n samples that come in batches."""
        kept = Statistics(n)
        for batch in batches:
            self.collect(kept, batch)
            kept.count += len(batch)
        return kept

    def __call__(self, batches: Iterable[Tensor], n: int) -> Measured:
        r"""The wanted measures of n samples that come in batches (b, \*)."""
        kept = self.statistics(batches, n)
        groups = [group(kept) for group in self.wanted.values()]
        return {name: value for group in groups for name, value in group.items()}

    def _frechet(self, kept: Statistics) -> Measured:
        name = self.figures[0]
        whole, real = (sum(one.fifths[1:], one.fifths[0]) for one in (kept, self.real))
        distances = {name: frechet_of_moments(whole, real)}
        if kept.n > 5 * len(whole.mean):  # a fifth of the samples still has a covariance
            distances[f"{name} extrapolated"] = frechet_extrapolated_of_moments(
                kept.fifths, self.real.fifths
            )
        return distances

    def _kernel(self, kept: Statistics) -> Measured:
        drawn = generator(0, "evaluation subsets")
        distance = kernel_distance(kept["features"], self.real["features"], generator=drawn)
        return {"KD": distance.value}

    def _neighbours(self, kept: Statistics) -> Measured:
        return precision_recall_density_coverage(kept["features"], self.real["features"])._asdict()

    def _tests(self, kept: Statistics) -> Measured:
        x, y = kept["features"], self.real["features"]
        return {
            "1-NN accuracy": nearest_neighbour_test(x, y).value,
            "network accuracy": network_test(x, y).value,
        }

    def _memory(self, kept: Statistics) -> Measured:
        assert self.train is not None
        share = memorisation(kept["features"], self.train, self.real["features"], NEAR)
        return {"near training": share}

    def _sliced(self, kept: Statistics) -> Measured:
        dim = kept["features"].shape[1]
        theta = directions("features", dim).to(kept["features"])
        one, two = (theta @ z["features"].T for z in (kept, self.real))
        return {self.figures[1]: 3 * dim * float(wasserstein_1d(one, two).square().mean())}


def directions(purpose: str, dim: int) -> Tensor:
    """The fixed directions of an evaluation."""
    return uniform_directions(DIRECTIONS, dim, generator=generator(0, "evaluation", purpose))


class ImageMeasures(Measures):
    """Measures of images (n, c, h, w) in [0, 1].

    The features are those of a classifier of the training samples, or of fixed random convolutions
    where the data have no labels, or those of `extractor`.
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
        super().__init__(source, real, metrics, extractor)

    def features(self, x: Tensor) -> Tensor:
        return self.extractor(x)

    def groups(self) -> dict[str, Callable[[Statistics], Measured]]:
        groups = super().groups()
        if self.channels in (1, 3):
            groups["sharpness"] = lambda kept: {"sharpness": kept.sharpness}
        if self.head is not None:
            groups["classes"] = self._classes
        return groups

    def protocol(self) -> dict[str, Any]:
        return {
            "features": self.extractor.name,
            "features sha256": self.extractor.sha256,
            "features accuracy": self.extractor.accuracy,
            "resize": self.extractor.resize,
            "range": "[0, 1], samples clamped",
        }

    def agreements(self, completions: Tensor, x: Tensor, labels: Tensor) -> dict[str, Figure]:
        head = self.head
        if head is None:
            return {}

        def share(candidates: Tensor) -> float:
            return agreement(candidates, labels, lambda batch: head(self.features(batch)))

        return {"class agreement": figure(share(completions), share(x[:, None]))}

    def collect(self, statistics: Statistics, batch: Tensor) -> None:
        batch = as_floats(batch).clamp(0, 1)
        super().collect(statistics, batch)
        if "sharpness" in self.wanted:
            statistics.sharpness += sharpness(batch) * len(batch) / statistics.n
        if "sliced" in self.wanted:
            statistics.keep("pixels", batch.flatten(1) @ self.theta.T)
        if "sliced" in self.wanted and self.levels:
            count = min(PATCHES, max(1, MOST_PATCHES // statistics.n))
            drawn = generator(0, "evaluation patches", statistics.count)
            for i, patches in enumerate(pyramid_patches(batch, count, drawn)):
                statistics.keep(f"pyramid {i}", patches)

    def _sliced(self, kept: Statistics) -> Measured:
        pixels = wasserstein_1d(kept["pixels"].T, self.real["pixels"].T)
        distances = super()._sliced(kept) | {"pixel SW": float(pixels.square().mean().sqrt())}
        if self.levels:
            x, y = ([z[f"pyramid {i}"] for i in range(self.levels)] for z in (kept, self.real))
            scales = pyramid_distances(x, y, generator=generator(0, "evaluation pyramid"))
            distances["pyramid SW"] = fmean(scales)
        return distances

    def _classes(self, kept: Statistics) -> Measured:
        one, two = (self._histogram(z["features"]) for z in (kept, self.real))
        return {"classes JS": float(jensen_shannon(one, two))}

    def _histogram(self, features: Tensor) -> Tensor:
        assert self.head is not None
        with evaluating(self.head):
            scores = self.head(features)
        return torch.bincount(scores.argmax(1), minlength=scores.shape[1]).double() / len(scores)


class VectorMeasures(Measures):
    """Measures of vectors (n, d) in the standard units of the training samples' columns.

    Samples of a kind without such units are compared element by element, as they are.
    """

    figures = "FD", "3 d SW²"

    def __init__(
        self,
        source: Source,
        real: Tensor,
        metrics: Sequence[str] = (),
        extractor: Extractor | None = None,
    ):
        self.moments = source.moments()
        super().__init__(source, real, metrics, extractor)

    def groups(self) -> dict[str, Callable[[Statistics], Measured]]:
        return super().groups() | {"exact": self._exact}

    def features(self, x: Tensor) -> Tensor:
        if self.moments is None:
            return as_floats(x).flatten(1)
        mean, deviation = self.moments
        return (x - mean) / deviation

    def protocol(self) -> dict[str, Any]:
        if self.moments is None:
            return {"features": "elements"}
        return {"features": "columns in standard units of the training part"}

    def _exact(self, kept: Statistics) -> Measured:
        x, y = (z["features"][:MOST_EXACT] for z in (kept, self.real))
        return {"W2 exact": float(wasserstein(x, y))}


class CloudMeasures(Measures):
    """Measures of point clouds (n, N, 3) in the unit sphere, by pairwise distances between clouds.

    The noise floor of reconstruction is the distance between two samplings of one shape: that
    between two halves of its points, halved, because squared distances between nearest points of
    a surface are proportional to 1/N.
    """

    def __init__(
        self,
        source: Source,
        real: Tensor,
        metrics: Sequence[str] = (),
        extractor: Extractor | None = None,
    ):
        self.among: dict[str, Tensor] = {}
        super().__init__(source, real, metrics, extractor)

    def groups(self) -> dict[str, Callable[[Statistics], Measured]]:
        return {
            "chamfer": lambda kept: self._sets("CD", pairwise_chamfer, kept),
            "earth-mover": lambda kept: self._sets("EMD", pairwise_earth_mover, kept),
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

    def of_model(self, model: nn.Module, seed: int = 0) -> dict[str, Figure]:
        figures = super().of_model(model, seed)
        if reconstructs(model):
            x = self.source.test
            floor = float(chamfer(x[:, ::2], x[:, 1::2]).mean()) / 2
            figures["test reconstruction"]["floor"] = floor
            figures |= {name: figure(error, floor) for name, error in _moved(model, x).items()}
        return figures

    def collect(self, statistics: Statistics, batch: Tensor) -> None:
        statistics.keep("clouds", batch)

    def _sets(self, name: str, distances: Callable[..., Tensor], kept: Statistics) -> Measured:
        x, y = kept["clouds"], self.real["clouds"]
        if name not in self.among:
            self.among[name] = distances(y)
        scores = set_scores(distances(x), distances(x, y), self.among[name])
        return {
            f"MMD-{name}": scores.minimum,
            f"coverage-{name}": scores.coverage,
            f"1-NNA-{name}": scores.accuracy,
        }

    def _occupancy(self, kept: Statistics) -> Measured:
        return {"points JS": occupancy_divergence(kept["clouds"], self.real["clouds"])}


def _moved(model: nn.Module, x: Tensor) -> dict[str, float]:
    """The reconstruction errors of clouds x that are rotated about y, and of scaled ones: Chamfer
    distances at the original scale."""
    rotated = turned(x, Draws(0, "evaluation", len(x)), turn=True, jitter=0.0)
    drawn = generator(0, "evaluation moves")
    factor = 1.25 ** (2 * torch.rand(len(x), generator=drawn) - 1)
    errors_of = {}
    with evaluating(model):
        for name, clouds, size in (
            ("turned", rotated, torch.ones(len(x))),
            ("scaled", x * factor[:, None, None], factor),
        ):
            batches = zip(clouds.split(500), size.split(500))
            distances = [chamfer(z, reconstruct(model, z)) / k.square() for z, k in batches]
            errors_of[f"test reconstruction, {name}"] = float(torch.cat(distances).mean())
    return errors_of
