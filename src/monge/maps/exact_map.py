r"""The barycentric projection of an exact plan, and its extension to new points.

    T(x_i) = Σ_j π_ij y_j / a_i,    T(x) = x + T(x_i) - x_i with the nearest x_i.

Source: Ferradans, Papadakis, Peyré, Aujol, "Regularized discrete optimal transport", 2014.
"""

from typing import Any, Self

import torch
from torch import Tensor

from monge._core.typed import distinct_rows
from monge.maps.estimator import TransportMap, refuse_near
from monge.transport.neighbours import nearest
from monge.transport.projections import exact_projections

Displacements = tuple[Tensor, Tensor]
"""Distinct points (k, d) and their displacements (k, d)."""


class ExactMap(TransportMap):
    """The map of the exact plan for the cost ‖x - y‖².

    A point of the fit goes to the mean of the points among which the plan divides its mass, so
    that equally many points without weights are matched one to one. A new point takes the
    displacement of the nearest point of the fit, hence T has jumps where the nearest point
    changes, and its derivative is the identity elsewhere.

    The fit takes n³ operations at worst and n² memory, a transform n times as many distances as
    there are points.

    Attributes:
        forth_: the distinct points of X and their displacements, both (k, d).
        back_: those of Y, towards X.

    Example:
        >>> mapped = ExactMap().fit(X, Y).transform(X_new)
    """

    forth_: Displacements
    back_: Displacements

    def fit(self, X: Any, Y: Any, *, a: Any = None, b: Any = None) -> Self:
        """Solves the transport problem between two samples.

        Args:
            X: points (n, d).
            Y: points (m, d).
            a: weights (n,), at least 0 with sum 1; uniform by default.
            b: weights (m,).

        Raises:
            ValueError: for samples of unlike columns, NaN or infinity, or invalid weights.
        """
        x, y, a, b, _, _ = self._samples(X, Y, a, b)
        # of which nearest points are found
        refuse_near(float((x - x[0]).square().sum() + (y - y[0]).square().sum()), x, y)
        images, origins = exact_projections(x, y, a, b)
        self.forth_ = _displacements(x, images, a)
        self.back_ = _displacements(y, origins, b)
        return self

    def _forth(self, x: Tensor) -> Tensor:
        return _displaced(x, self.forth_)

    def _back(self, y: Tensor) -> Tensor:
        return _displaced(y, self.back_)


def _displacements(points: Tensor, images: Tensor, weights: Tensor) -> Displacements:
    """The displacement of each distinct point: the mean of those of points that coincide."""
    distinct, of, _ = distinct_rows(points)
    moves = torch.zeros_like(distinct).index_add_(0, of, weights[:, None] * (images - points))
    masses = weights.new_zeros(len(distinct)).index_add_(0, of, weights)
    return distinct, moves / masses[:, None]


def _displaced(x: Tensor, displacements: Displacements) -> Tensor:
    points, moves = displacements
    _, index = nearest(x, points)
    return x + moves[index[:, 0]]
