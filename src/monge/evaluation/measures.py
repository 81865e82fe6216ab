r"""Measures of samples of a model against held-out samples: what all kinds of data share.

Samples are seen batch by batch, and only what the wanted measures need is kept of them: moments
for the Fréchet distance, features and projections for the others, never the images.
"""

import abc
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from monge.data import Source
from monge.draws import generator, permutation
from monge.evaluation.completion import completed, completion_figures
from monge.evaluation.extractors import Extractor
from monge.evaluation.fidelity import (
    PRDC,
    memorisation,
    nearest_neighbour_test,
    precision_recall_density_coverage,
)
from monge.evaluation.frechet import (
    PARTS,
    frechet_distance,
    frechet_extrapolated_of_moments,
    frechet_of_moments,
    kernel_distance,
)
from monge.evaluation.statistics import Estimator, Figure, Measured, Statistics, figure
from monge.evaluation.summary import errors
from monge.evaluation.two_sample import network_test
from monge.models.protocols import Completer
from monge.transport import wasserstein_1d
from monge.transport.directions import uniform_directions

DIRECTIONS = 1000
NEIGHBOUR = 5
"""Precision, recall, density and coverage are of balls as wide as to this neighbour."""
NEAR = 0.01
"""The share of test samples that counts as near to the training part."""
LEAST_NEAR = round(1 / NEAR)
"""The fewest test samples of which that share is at least one."""


def refuse_unknown(metrics: Sequence[str], groups: Collection[str], source: Source) -> None:
    """Refuses a name that none of the groups of measures has."""
    if unknown := [name for name in metrics if name not in groups]:
        raise ValueError(
            f"`metrics` knows no {unknown[0]!r} for {source.name!r}: give some of "
            f"{', '.join(groups)}"
        )


class Measures(abc.ABC):
    """Measures of samples against as many held-out samples.

    A figure for which there are too few samples is left out.

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
        self.dim = self.features(source.train[:1]).shape[1]
        # without a covariance of full rank the Fréchet distance is computed from the rows, which
        # take less memory than moments
        self.by_rows = len(real) <= self.dim
        groups = self.groups()
        refuse_unknown(metrics, groups, source)
        self.wanted = {name: groups[name] for name in metrics or groups}
        rows = permutation(0, "evaluation memory", len(source.train))[:20_000]
        memory = "memory" in self.wanted and len(real) >= LEAST_NEAR
        self.train = self.features(source.train[rows]) if memory else None
        self.real = self.statistics(real.split(500), len(real))

    def groups(self) -> dict[str, list[Estimator]]:
        """The measures by the names of their groups."""
        frechet, sliced = self.figures
        return {
            "frechet": [
                Estimator((frechet,), 2, self._frechet),
                Estimator((f"{frechet} extrapolated",), self._least_extrapolated, self._limit),
            ],
            "kernel": [Estimator(("KD",), 2, self._kernel)],
            "neighbours": [Estimator(PRDC._fields, NEIGHBOUR + 1, self._neighbours)],
            "tests": [
                Estimator(("1-NN accuracy",), 2, self._nearest),
                Estimator(("network accuracy",), 4, self._network),
            ],
            "memory": [Estimator(("near training",), LEAST_NEAR, self._memory)],
            "sliced": [Estimator((sliced,), 1, self._sliced)],
        }

    @property
    def _least_extrapolated(self) -> int:
        """The fewest samples whose parts have covariances of full rank."""
        return PARTS * (self.dim + 1)

    @property
    def estimators(self) -> list[Estimator]:
        """The estimators of the wanted groups."""
        return [one for group in self.wanted.values() for one in group]

    @abc.abstractmethod
    def features(self, x: Tensor) -> Tensor:
        r"""The features (n, d) of samples (n, \*)."""

    @abc.abstractmethod
    def protocol(self) -> dict[str, Any]:
        """The conditions under which the figures were measured, for the protocol."""

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
            figures["MMD² of codes"] = figure(numbers["MMD² of codes"], numbers["noise floor"])
        return figures

    def agreements(self, completions: Tensor, x: Tensor, labels: Tensor) -> dict[str, Figure]:
        r"""How often completions (n, k, \*) of samples x (n, \*) have their classes (n,), where
        there is a classifier."""
        return {}

    def predicted(self, features: Tensor) -> Tensor | None:
        """The classes (n,) of samples by their features (n, d), as a classifier of real training
        samples sees them, where there is one."""
        return None

    def collect(self, statistics: Statistics, batch: Tensor) -> None:
        """Keeps what the wanted measures need of a batch."""
        if set(self.wanted) == {"sharpness"}:
            return
        features = self.features(batch)
        if "frechet" in self.wanted and not self.by_rows:
            parts = PARTS if statistics.n >= self._least_extrapolated else 1
            statistics.moments(features, parts)
        if self.by_rows or set(self.wanted) - {"frechet", "sharpness"}:
            statistics.keep("features", features)

    def statistics(self, batches: Iterable[Tensor], n: int) -> Statistics:
        """The statistics of n samples that come in batches."""
        kept = Statistics(n)
        for batch in batches:
            self.collect(kept, batch)
            kept.count += len(batch)
        return kept

    def __call__(self, batches: Iterable[Tensor], n: int) -> Measured:
        r"""The wanted measures of n samples that come in batches (b, \*), as far as n suffices."""
        kept, measured = self.statistics(batches, n), {}
        for one in self.estimators:
            if one.least <= min(n, self.real.n):
                measured |= one.compute(kept)
        return measured

    def _frechet(self, kept: Statistics) -> Measured:
        if self.by_rows:
            distance = frechet_distance(kept["features"], self.real["features"])
        else:
            whole, real = (sum(one.parts[1:], one.parts[0]) for one in (kept, self.real))
            distance = frechet_of_moments(whole, real)
        return {self.figures[0]: distance}

    def _limit(self, kept: Statistics) -> Measured:
        distance = frechet_extrapolated_of_moments(kept.parts, self.real.parts)
        return {f"{self.figures[0]} extrapolated": distance}

    def _kernel(self, kept: Statistics) -> Measured:
        drawn = generator(0, "evaluation subsets")
        distance = kernel_distance(kept["features"], self.real["features"], generator=drawn)
        return {"KD": distance.value}

    def _neighbours(self, kept: Statistics) -> Measured:
        x, y = kept["features"], self.real["features"]
        return precision_recall_density_coverage(x, y, NEIGHBOUR)._asdict()

    def _nearest(self, kept: Statistics) -> Measured:
        share = nearest_neighbour_test(kept["features"], self.real["features"])
        return {"1-NN accuracy": share.value}

    def _network(self, kept: Statistics) -> Measured:
        return {"network accuracy": network_test(kept["features"], self.real["features"]).value}

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
