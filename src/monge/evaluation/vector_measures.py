r"""Measures of a model's vectors, in standard units."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from monge.data import Source, as_floats
from monge.evaluation.extractors import Extractor, floor_rows
from monge.evaluation.marginals import Marginals, as_outside
from monge.evaluation.measures import Measures
from monge.evaluation.statistics import Estimator, Measured, Statistics
from monge.transport import wasserstein

MOST_EXACT = 2000


class VectorMeasures(Measures):
    """Measures of vectors (n, d) in the standard units of the training samples' columns.

    Samples of a kind without such units are compared element by element, as they are. Those of a
    table with categories or missing cells are compared as they are outside, and every table column
    by column as well.
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
        self.schema = source.schema
        super().__init__(source, real, metrics, extractor)
        self.marginals = Marginals(source, real) if "columns" in self.wanted else None

    def groups(self) -> dict[str, list[Estimator]]:
        groups = super().groups() | {"exact": [Estimator(("W2 exact",), 1, self._exact)]}
        if self.source.train_labels is not None:
            groups["classes"] = []  # see `monge.evaluation.of_classes`
        if self.moments is None:
            return groups
        return groups | {"columns": [Estimator(("figures of columns",), 2, self._columns)]}

    def features(self, x: Tensor) -> Tensor:
        if self.moments is None:
            return as_floats(x).flatten(1)
        if self.schema is not None and not self.schema.is_numeric:
            x = as_outside(self.schema, x)  # labels, not the shares of which they are the largest
        mean, deviation = self.moments
        return (x - mean) / deviation

    def predicted(self, features: Tensor) -> Tensor | None:
        if self.source.train_labels is None:
            return None
        return torch.from_numpy(self._classifier.predict(features.numpy()))

    @functools.cached_property
    def _classifier(self) -> Any:
        """Boosted trees, fitted to the training samples that give no noise floor, of which there
        are at least half."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        source, seen = self.source, torch.ones(len(self.source.train), dtype=torch.bool)
        assert source.train_labels is not None, "there is a classifier for labelled samples only"
        seen[floor_rows(source)[: len(seen) // 2]] = False
        trees = HistGradientBoostingClassifier(random_state=0)
        return trees.fit(self.features(source.train[seen]).numpy(), source.train_labels[seen])

    def collect(self, statistics: Statistics, batch: Tensor) -> None:
        super().collect(statistics, batch)
        if "columns" in self.wanted:
            statistics.keep("samples", batch)

    def protocol(self) -> dict[str, Any]:
        if self.moments is None:
            return {"features": "elements"}
        return {"features": "columns in standard units of the training part"}

    def _columns(self, kept: Statistics) -> Measured:
        assert self.marginals is not None
        return self.marginals(kept["samples"])

    def _exact(self, kept: Statistics) -> Measured:
        x, y = (z["features"][:MOST_EXACT] for z in (kept, self.real))
        return {"W2 exact": float(wasserstein(x, y))}
