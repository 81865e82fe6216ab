r"""Measures of samples of a model against held-out samples: what all kinds of data share.

Samples are seen batch by batch, and only what the wanted measures need is kept of them: moments
for the Fréchet distance, features and projections for the others, never the images.
"""

import abc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from monge.data import Source
from monge.draws import generator, permutation
from monge.evaluation.completion import completed, completion_figures
from monge.evaluation.extractors import Extractor
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
from monge.evaluation.statistics import Figure, Measured, Statistics, figure
from monge.evaluation.summary import errors
from monge.evaluation.two_sample import network_test
from monge.models.protocols import Completer
from monge.transport import wasserstein_1d
from monge.transport.sliced import uniform_directions

DIRECTIONS = 1000
NEAR = 0.01
"""The share of test samples that counts as near to the training part."""


class Measures(abc.ABC):
    """Measures of samples against as many held-out samples.

    Args:
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

        Args:
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
