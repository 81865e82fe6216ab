r"""The optimal map between the Gaussians that have the moments of two samples.

    T(x) = m1 + A (x - m0),   A = Σ0^{-½} (Σ0^½ Σ1 Σ0^½)^½ Σ0^{-½}.

Source: Flamary, Lounici, Ferrari, "Concentration bounds for linear Monge mapping estimation and
optimal transport domain adaptation", 2019.
"""

from typing import Any, Self

import torch
from torch import Tensor

from monge._core.checks import nonnegative
from monge.maps.estimator import TransportMap, refuse_near
from monge.transport.gaussian import gaussian_map


class LinearMap(TransportMap):
    """The affine map that gives X the mean and the covariance of Y.

    It is the optimal map between Gaussians, and between all distributions that an affine map with
    a symmetric positive definite matrix moves onto each other. It takes O(n d² + d³) operations,
    extrapolates, and ignores everything beyond second moments.

    Args:
        regularisation: the multiple of the mean variance that is added to the variances of each
            sample, at least 0. Samples of fewer points than columns, or with constant columns,
            need one. Along a direction without variance in X the map has a gain of about
            σ / √regularisation, in units of the mean deviation of X, with σ that of Y: raise it
            where points to be moved leave the plane of X. A sample of one point is moved by the
            difference of the means.

    Attributes:
        matrix_: A (d, d), symmetric.
        shift_: m1 - A m0, (d,).
        inverse_matrix_: the matrix (d, d) of the map back, A⁻¹.
        inverse_shift_: its shift (d,).

    Example:
        >>> LinearMap().fit(X, Y).matrix_
    """

    matrix_: Tensor
    shift_: Tensor
    inverse_matrix_: Tensor
    inverse_shift_: Tensor

    def __init__(self, regularisation: float = 1e-6):
        self.regularisation = regularisation

    def fit(self, X: Any, Y: Any, *, a: Any = None, b: Any = None) -> Self:
        """Estimates means and covariances of two samples, and the map between them.

        Args:
            X: points (n, d).
            Y: points (m, d).
            a: weights (n,), at least 0 with sum 1; uniform by default.
            b: weights (m,).

        Raises:
            ValueError: for samples of unlike columns, NaN or infinity, invalid weights, or
                singular covariances without a regularisation.
        """
        ridge = nonnegative("regularisation", self.regularisation)
        x, y, a, b, _, _ = self._samples(X, Y, a, b)
        mean0, cov0 = _moments(x, a, ridge)
        mean1, cov1 = _moments(y, b, ridge)
        refuse_near(float(cov0.trace() + cov1.trace()), x, y)
        self.matrix_, self.shift_ = _affine(mean0, cov0, mean1, cov1)
        self.inverse_matrix_, self.inverse_shift_ = _affine(mean1, cov1, mean0, cov0)
        return self

    def _forth(self, x: Tensor) -> Tensor:
        return x @ self.matrix_ + self.shift_

    def _back(self, y: Tensor) -> Tensor:
        return y @ self.inverse_matrix_ + self.inverse_shift_


def _moments(x: Tensor, w: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The mean (d,) and the covariance (d, d), regularised by `ridge` times its mean variance."""
    # from one of the points, so that points which coincide have no variance by rounding
    first, x = x[0], x - x[0]
    mean = w @ x
    about = x - mean
    cov = about.T @ (w[:, None] * about)
    variance = ridge * cov.trace() / len(mean)
    return first + mean, cov + variance * torch.eye(len(mean), dtype=cov.dtype, device=cov.device)


def _affine(mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix and the shift of the map; a point has only a translation."""
    if cov0.any():
        return gaussian_map(mean0, cov0, mean1, cov1)
    return torch.eye(len(mean0), dtype=cov0.dtype, device=cov0.device), mean1 - mean0
