r"""Measures of a model's point clouds, by distances between clouds."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monge.costs import chamfer
from monge.data import Source
from monge.data.points import turned
from monge.draws import Draws, generator
from monge.evaluation.extractors import Extractor
from monge.evaluation.measures import Measures
from monge.evaluation.sets import (
    CELLS,
    MATCHED,
    occupancy_divergence,
    pairwise_chamfer,
    pairwise_earth_mover,
    set_scores,
)
from monge.evaluation.statistics import Estimator, Figure, Measured, Statistics, figure
from monge.labels import unlabelled
from monge.models import evaluating
from monge.models.protocols import reconstruct, reconstructs, rows_for


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

    def groups(self) -> dict[str, list[Estimator]]:
        return {
            "chamfer": [self._of_sets("CD", pairwise_chamfer)],
            "earth-mover": [self._of_sets("EMD", pairwise_earth_mover)],
            "occupancy": [Estimator(("points JS",), 1, self._occupancy)],
        }

    def _of_sets(self, name: str, distances: Callable[..., Tensor]) -> Estimator:
        names = (f"MMD-{name}", f"coverage-{name}", f"1-NNA-{name}")
        return Estimator(names, 2, lambda kept: self._sets(name, distances, kept))

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
            moved = _moved(model, x, self.source.test_labels)
            figures |= {name: figure(error, floor) for name, error in moved.items()}
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


def _moved(model: nn.Module, x: Tensor, labels: Tensor | None) -> dict[str, float]:
    """The reconstruction errors of clouds x that are rotated about y, and of scaled ones: Chamfer
    distances at the original scale. A class-conditional model takes their labels with them."""
    rotated = turned(x, Draws(0, "evaluation", len(x)), turn=True, jitter=0.0)
    drawn = generator(0, "evaluation moves")
    factor = 1.25 ** (
        2 * torch.rand(len(x), generator=drawn, dtype=torch.float32, device="cpu") - 1
    )
    errors_of = {}
    with evaluating(model):
        for name, clouds, size in (
            ("turned", rotated, torch.ones(len(x))),
            ("scaled", x * factor[:, None, None], factor),
        ):
            batches = zip(rows_for(model, clouds, labels).split(500), size.split(500))
            distances = [
                chamfer(unlabelled(z), reconstruct(model, z)) / k.square() for z, k in batches
            ]
            errors_of[f"test reconstruction, {name}"] = float(torch.cat(distances).mean())
    return errors_of
