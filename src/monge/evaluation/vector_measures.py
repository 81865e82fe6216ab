r"""Measures of a model's vectors, in standard units."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from monge.data import Source, as_floats
from monge.evaluation.extractors import Extractor
from monge.evaluation.measures import Measures
from monge.evaluation.statistics import Estimator, Measured, Statistics
from monge.transport import wasserstein

MOST_EXACT = 2000


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

    def groups(self) -> dict[str, list[Estimator]]:
        return super().groups() | {"exact": [Estimator(("W2 exact",), 1, self._exact)]}

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
