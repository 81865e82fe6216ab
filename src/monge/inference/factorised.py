r"""The best product of densities q(x) = Π_j q_j(x_j) for a Gaussian p = N(μ, Λ^{-1}).

Under KL(q ‖ p) the best factor given the others is log q_j = E[log p] + const over the others,
which is the Gaussian N(m_j, 1 / Λ_jj) with

    m_j = μ_j - Σ_{i≠j} Λ_ji (m_i - μ_i) / Λ_jj.

These *mean-field equations* have the one solution m = μ, so that q_j = N(μ_j, 1 / Λ_jj): the
variance of x_j given all others. Under KL(p ‖ q) the best factor is p's marginal
N(μ_j, Σ_jj), Σ = Λ^{-1}. As 1 / Λ_jj ≤ Σ_jj, with equality for independent coordinates only, the
first is never wider than the second.

Source: Bishop, "Pattern recognition and machine learning", 2006, section 10.1.2.
"""

import torch
from torch import Tensor

from monge._core.checks import dimension, finite
from monge._core.promotion import promoted


def _in_own_units(mean: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """Units u_j = Λ_jj^{-½} of the coordinates (d,), and the precision in them, u_i Λ_ij u_j, if
    it is that of a Gaussian with a density."""
    finite("mean", mean)
    finite("precision", precision)
    if mean.ndim != 1 or not len(mean) or precision.shape != (len(mean), len(mean)):
        raise ValueError(
            "`mean` and `precision` must have shapes (d,) and (d, d) with d ≥ 1, "
            f"got {tuple(mean.shape)} and {tuple(precision.shape)}"
        )
    diagonal = precision.diagonal()
    if (least := float(diagonal.detach().min())) <= 0:
        raise ValueError(
            f"`precision` must be positive definite, but has {least:.3g} on its diagonal: add a "
            "multiple of the identity, or drop the coordinates that it says nothing of"
        )
    units = diagonal.rsqrt()
    scaled = units[:, None] * precision * units
    if (apart := float((scaled - scaled.T).detach().abs().max())) > 1e-5:
        raise ValueError(
            f"`precision` must be symmetric, but differs from its transpose by {apart:.3g} of its "
            "diagonal: take (P + P.T) / 2 if that is rounding"
        )
    values = torch.linalg.eigvalsh(scaled.detach())
    # what rounding leaves of an eigenvalue 0
    if values[0] <= values[-1] * len(values) * torch.finfo(values.dtype).eps:
        raise ValueError(
            f"`precision` must be positive definite, but with a diagonal of ones it has the "
            f"eigenvalue {values[0]:.3g} beside {values[-1]:.3g}: add a multiple of the identity, "
            "or drop the coordinates that the others determine"
        )
    return units, scaled


@promoted(mean=1, precision=2)
def mean_field(mean: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """The product of densities that minimises KL(q ‖ N(mean, precision^{-1})).

    Args:
        mean: μ (d,).
        precision: Λ (d, d), symmetric positive definite.

    A leading dimension of either is one of several Gaussians.

    Returns:
        (mean, variances), both (d,): q_j = N(μ_j, 1 / Λ_jj).

    Raises:
        ValueError: for shapes that do not fit, NaN, or a precision that is singular, indefinite
            or not symmetric.
    """
    _in_own_units(mean, precision)
    return mean.clone(), precision.diagonal().reciprocal()


@promoted(mean=1, precision=2)
def moment_matched(mean: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """The product of densities that minimises KL(N(mean, precision^{-1}) ‖ q): the marginals.

    Args:
        mean: μ (d,).
        precision: Λ (d, d), symmetric positive definite.

    A leading dimension of either is one of several Gaussians.

    Returns:
        (mean, variances), both (d,): q_j = N(μ_j, (Λ^{-1})_jj).

    Raises:
        ValueError: as `mean_field`.
    """
    units, scaled = _in_own_units(mean, precision)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(scaled))
    return mean.clone(), inverse.diagonal() * units.square()


@promoted(mean=1, precision=2, start=1)
def coordinate_updates(mean: Tensor, precision: Tensor, start: Tensor, sweeps: int) -> Tensor:
    """The means m while the mean-field equations are solved in turn, one coordinate at a time.

    KL(q ‖ p) never rises, and m → μ for every positive definite precision. With two coordinates
    of correlation ρ each sweep brings m nearer by the factor ρ².

    Args:
        mean, precision: as of `mean_field`.
        start: the first m (d,).
        sweeps: how many times each coordinate is updated.

    Returns:
        m before the first and after each sweep, (sweeps + 1, d).

    Raises:
        ValueError: as `mean_field`, and for a start of another shape.
    """
    _in_own_units(mean, precision)
    if finite("start", start).shape != mean.shape:
        raise ValueError(f"`start` must have shape {tuple(mean.shape)}, got {tuple(start.shape)}")
    # updates in turn: coordinate j sees the new values before it and the old ones after it
    before, after = precision.tril(), precision.triu(1)
    away = [start - mean]
    for _ in range(dimension("sweeps", sweeps)):
        rest = -(after @ away[-1])[:, None]
        away.append(torch.linalg.solve_triangular(before, rest, upper=False)[:, 0])
    return mean + torch.stack(away)
