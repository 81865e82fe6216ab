r"""Measures of a model's images: in features, in pixels, and of their classes."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from monge.data import Source, as_floats
from monge.draws import generator
from monge.evaluation.completion import agreement
from monge.evaluation.extractors import Extractor, classifier, random_network
from monge.evaluation.measures import Measures, directions, refuse_unknown
from monge.evaluation.pyramid import (
    LEAST,
    laplacian_pyramid,
    pyramid_distances,
    pyramid_patches,
)
from monge.evaluation.sharpness import sharpness
from monge.evaluation.statistics import Estimator, Figure, Measured, Statistics, figure
from monge.models import evaluating
from monge.transport import jensen_shannon, wasserstein_1d

GROUPS = ("frechet", "kernel", "neighbours", "tests", "memory", "sliced")
"""The measures of all images."""
PATCHES, MOST_PATCHES = 128, 2**17
"""Patches per level of the pyramid: of each image, and at most of all images together."""


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
        self.head, labelled = None, extractor is None and source.train_labels is not None
        groups = [*GROUPS]
        if source.shape[0] in (1, 3):
            groups.append("sharpness")
        if labelled:
            groups.append("classes")
        refuse_unknown(metrics, groups, source)  # before a classifier is trained
        if labelled:
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

    def groups(self) -> dict[str, list[Estimator]]:
        groups = super().groups()
        groups["sliced"].append(Estimator(("pixel SW",), 1, self._pixels))
        if self.levels:
            groups["sliced"].append(Estimator(("pyramid SW",), 1, self._pyramid))
        if self.channels in (1, 3):
            sharp = Estimator(("sharpness",), 1, lambda kept: {"sharpness": kept.sharpness})
            groups["sharpness"] = [sharp]
        if self.head is not None:
            groups["classes"] = [Estimator(("classes JS",), 1, self._classes)]
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

    def predicted(self, features: Tensor) -> Tensor | None:
        if self.head is None:
            return None
        with evaluating(self.head):
            return self.head(features).argmax(1)

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

    def _pixels(self, kept: Statistics) -> Measured:
        pixels = wasserstein_1d(kept["pixels"].T, self.real["pixels"].T)
        return {"pixel SW": float(pixels.square().mean().sqrt())}

    def _pyramid(self, kept: Statistics) -> Measured:
        x, y = ([z[f"pyramid {i}"] for i in range(self.levels)] for z in (kept, self.real))
        drawn = generator(0, "evaluation pyramid")
        return {"pyramid SW": fmean(pyramid_distances(x, y, generator=drawn))}

    def _classes(self, kept: Statistics) -> Measured:
        one, two = (self._histogram(z["features"]) for z in (kept, self.real))
        return {"classes JS": float(jensen_shannon(one, two))}

    def _histogram(self, features: Tensor) -> Tensor:
        assert self.head is not None
        with evaluating(self.head):
            scores = self.head(features)
        return torch.bincount(scores.argmax(1), minlength=scores.shape[1]).double() / len(scores)
