r"""Potentials of the optimal map between Gaussians, from which exact assignments start.

For any positive definite A and points about their means,

    f(x) = ‖x‖² - x·A x,   g(y) = ‖y‖² - y·A⁻¹ y,   ‖x - y‖² - f(x) - g(y) = ‖A^½ x - A^{-½} y‖².

An assignment that is optimal for the one cost is optimal for the other, which is small where y is
near A x. A is here the optimal map between Gaussians with the moments of the samples, so that what
is left to a solver is what distinguishes the samples from Gaussians.
"""

import torch
from torch import Tensor

from monge._core.typed import eigh

POINTS_PER_DIMENSION = 8
"""Fewest points for each dimension whose covariance says something about an assignment."""
LEAST_SHARE = 1e-3
"""The share of the identity in covariances, for samples that do not span the space."""


def _powers(cov: Tensor) -> tuple[Tensor, Tensor]:
    """Σ^½ and Σ^{-½} of covariances (B, d, d); that of 0 is 0."""
    values, vectors = eigh(cov)
    roots = values.clamp(min=0).sqrt()
    inverse = torch.where(roots > 0, 1 / roots, 0.0)
    return (vectors * roots[:, None]) @ vectors.mT, (vectors * inverse[:, None]) @ vectors.mT


def _covariances(x: Tensor) -> Tensor:
    """(B, d, d), of points (B, n, d) about their means."""
    covs = x.mT @ x / x.shape[1]
    sizes = covs.diagonal(dim1=1, dim2=2).mean(1)
    eye = torch.eye(x.shape[2], dtype=x.dtype, device=x.device)
    return covs + LEAST_SHARE * sizes[:, None, None] * eye


def gaussian_potentials(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """f (B, n) and g (B, m) of points (B, n, d) and (B, m, d) in float64; zeros where there are
    too few points for their dimension."""
    if min(x.shape[1], y.shape[1]) < POINTS_PER_DIMENSION * x.shape[2]:
        return x.new_zeros(x.shape[:2]), y.new_zeros(y.shape[:2])
    origin = x[:, :1]  # sums of points far from 0 might overflow
    x, y = x - origin, y - origin
    centres = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    apart = centres[0] - centres[1]
    x, y = x - centres[0], y - centres[1]
    half, back = _powers(_covariances(x))
    root, inverse = _powers(half @ _covariances(y) @ half)
    # ‖x - y‖² of points has the mixed term 2 apart·(x - y), besides that about their means
    images = 2 * apart + x - x @ (back @ root @ back)
    origins = y - y @ (half @ inverse @ half) - 2 * apart
    return (x * images).sum(2), (y * origins).sum(2)
