r"""Transport between Gaussian distributions, in closed form.

    W_2² = ‖m0 - m1‖² + tr Σ0 + tr Σ1 - 2 tr (Σ0^½ Σ1 Σ0^½)^½,

attained by the linear map T(x) = m1 + A (x - m0), A = Σ0^{-½} (Σ0^½ Σ1 Σ0^½)^½ Σ0^{-½}.

Source: Dowson, Landau, "The Fréchet distance between multivariate normal distributions", 1982;
Bhatia, Jain, Lim, "On the Bures-Wasserstein distance between positive definite matrices", 2019.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import finite, floating
from monge._core.numerics import Gradients, root, with_gradient
from monge._core.promotion import promoted
from monge._core.typed import eigh, eigvalsh, is_positive_definite, linear_solve, svd


def checked_moments(mean: Tensor, cov: Tensor, which: str) -> tuple[Tensor, Tensor]:
    """The moments (d,) and (d, d) of a Gaussian, or a ValueError that names them with `which`."""
    for name, value in ((f"mean{which}", mean), (f"cov{which}", cov)):
        finite(name, floating(name, value))
    d = mean.shape[-1] if mean.ndim == 1 else -1
    if cov.shape != (d, d):
        raise ValueError(
            f"`mean{which}` and `cov{which}` must have shapes (d,) and (d, d), "
            f"got {tuple(mean.shape)} and {tuple(cov.shape)}"
        )
    size = cov.detach().abs().max().clamp(min=torch.finfo(cov.dtype).tiny)
    if (skew := (cov - cov.T).detach().abs().max()) > 1e-5 * size:
        raise ValueError(
            f"`cov{which}` must be symmetric, but differs from its transpose by {skew:.3g}: give "
            "(C + C.T) / 2 if that is rounding"
        )
    values = eigvalsh(cov.detach())
    if values[0] < -1e-5 * values[-1].abs():
        raise ValueError(
            f"`cov{which}` must be positive semidefinite, its least eigenvalue is {values[0]:.3g}"
        )
    return mean, cov


def _checked(
    mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean0, cov0 = checked_moments(mean0, cov0, "0")
    mean1, cov1 = checked_moments(mean1, cov1, "1")
    if mean0.shape != mean1.shape:
        raise ValueError(f"`mean1` must have shape {tuple(mean0.shape)}, got {tuple(mean1.shape)}")
    return mean0.double(), cov0.double(), mean1.double(), cov1.double()


def powers(cov: Tensor, accuracy: float) -> tuple[Tensor, Tensor, bool]:
    """Σ^½, its pseudo-inverse, and whether that is an inverse.

    Eigenvalues below `accuracy` times the largest are taken for 0.
    """
    values, vectors = eigh(cov)
    kept = values > values[-1].clamp(min=0) * len(values) * accuracy
    roots = values.clamp(min=0).sqrt()
    inverse = torch.where(kept, 1 / roots.masked_fill(~kept, 1.0), 0.0)
    return (vectors * roots) @ vectors.T, (vectors * inverse) @ vectors.T, bool(kept.all())


class _Maps(NamedTuple):
    """The linear parts of the optimal maps, both (d, d)."""

    forth: Tensor
    back: Tensor
    fidelity: Tensor
    """tr (Σ0^½ Σ1 Σ0^½)^½."""
    invertible: bool


@torch.no_grad()
def _optimal_maps(cov0: Tensor, cov1: Tensor, accuracy: float) -> _Maps:
    half0, inverse0, regular0 = powers(cov0, accuracy)
    half1, inverse1, regular1 = powers(cov1, accuracy)
    # Σ0^½ Σ1^½ = U S Vᵀ keeps the digits of small singular values, which squares would lose
    u, s, v = svd(half0 @ half1)
    forth = inverse0 @ ((u * s) @ u.T) @ inverse0
    back = inverse1 @ ((v * s) @ v.T) @ inverse1
    return _Maps(forth, back, s.sum(), regular0 and regular1)


def _newton(linear: Tensor, cov0: Tensor, cov1: Tensor, steps: int) -> Tensor:
    """Newton steps for the optimal map from the optimum itself, at its fixed Hessian.

    They leave A as it is, and each gives it one more order of derivatives in Σ0 and Σ1. The dual
    tr (I - A) Σ0 + tr (I - A⁻¹) Σ1 has the gradient R = A⁻¹ Σ1 A⁻¹ - Σ0, and the step Δ solves
    A⁻¹ Δ Σ0 + Σ0 Δ A⁻¹ = R. With A^½ Σ0 A^½ = U λ Uᵀ and F = A^½ U it is
    Δ = F ((Fᵀ R F)_ij / (λ_i + λ_j)) Fᵀ, regular also where eigenvalues coincide.
    """
    with torch.no_grad():
        half, _, _ = powers(linear, 0.0)
        values, vectors = eigh(half @ cov0 @ half)
        frame, sums = half @ vectors, values[:, None] + values
    for _ in range(steps):
        residual = linear_solve(linear, linear_solve(linear, cov1).T) - cov0
        linear = linear + frame @ ((frame.T @ residual @ frame) / sums) @ frame.T
    return linear


@promoted(mean0=1, cov0=2, mean1=1, cov1=2)
def gaussian_wasserstein(mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor) -> Tensor:
    """W_2 between N(mean0, cov0) and N(mean1, cov1), with the root.

    Args:
        mean0: (d,).
        cov0: (d, d), symmetric positive semidefinite; singular is allowed.
        mean1: (d,).
        cov1: (d, d).

    Differentiable in all four, with gradient 0 at equality: at the optimal maps A0 (from 0 to 1)
    and A1 (back), W_2² = ‖m0 - m1‖² + tr (I - A0) Σ0 + tr (I - A1) Σ1 is the dual problem, whose
    gradient is taken at frozen maps. At singular covariances it is that within their ranges, and
    second derivatives, which do not exist there, raise a RuntimeError.

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity, or a matrix that is not a
            covariance.
    """
    checked = _checked(mean0, cov0, mean1, cov1)
    dtype, accuracy = mean0.dtype, torch.finfo(cov0.dtype).eps
    mean0, cov0, mean1, cov1 = checked
    move = mean0 - mean1
    # squares of standard units can neither overflow nor vanish
    size = max(float(z.detach().abs().max()) for z in (cov0, cov1)) ** 0.5
    unit = max(float(move.detach().abs().max()), size) or 1.0
    cov0, cov1 = cov0 / unit / unit, cov1 / unit / unit
    maps = _optimal_maps(cov0, cov1, accuracy)
    eye = torch.eye(len(move), dtype=torch.float64, device=move.device)

    def fast(cov0: Tensor, cov1: Tensor, _: Sequence[bool]) -> tuple[Tensor, Gradients]:
        value = cov0.trace() + cov1.trace() - 2 * maps.fidelity
        if value < 1e-4 * cov0.trace() and maps.invertible:
            # E ‖x - A x‖², of which no digits cancel
            value = ((eye - maps.forth) @ cov0 @ (eye - maps.forth)).trace()
        return value, [eye - maps.forth, eye - maps.back]

    def plain(cov0: Tensor, cov1: Tensor) -> Tensor:
        linear = _newton(maps.forth, cov0, cov1, 1)
        return ((eye - linear) * cov0).sum() + cov1.trace() - linear_solve(linear, cov1).trace()

    bures = with_gradient(fast, plain if maps.invertible else None, cov0, cov1)
    return (unit * root((move / unit).square().sum() + bures.clamp(min=0))).to(dtype)


@promoted(mean0=1, cov0=2, mean1=1, cov1=2)
def gaussian_map(
    mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor
) -> tuple[Tensor, Tensor]:
    """The optimal map T(x) = A x + b from N(mean0, cov0) to N(mean1, cov1).

    Args:
        mean0: (d,).
        cov0: (d, d), symmetric positive semidefinite.
        mean1: (d,).
        cov1: (d, d).

    Returns:
        (A, b): A (d, d), symmetric positive semidefinite, and b (d,), so that `x @ A + b` maps
        points (n, d). Both are differentiable twice at nonsingular covariances.

    Raises:
        ValueError: as for `gaussian_wasserstein`; for a singular cov0 whose range does not hold
            that of cov1, since no symmetric map pushes the one forward to the other; and for
            singular covariances that require a gradient.
    """
    checked = _checked(mean0, cov0, mean1, cov1)
    dtype, accuracy = cov0.dtype, torch.finfo(cov0.dtype).eps
    mean0, cov0, mean1, cov1 = checked
    size0, size1 = (float(cov.detach().abs().max()) or 1.0 for cov in (cov0, cov1))
    cov0, cov1 = cov0 / size0, cov1 / size1
    maps = _optimal_maps(cov0, cov1, accuracy)
    linear = maps.forth
    missed = linear @ cov0.detach() @ linear - cov1.detach()
    if missed.abs().max() > accuracy**0.5:
        raise ValueError(
            "`cov0` is singular and its range does not hold that of `cov1`, so that no map pushes "
            "the one forward to the other: add a multiple of the identity to `cov0`"
        )
    if maps.invertible:
        linear = _newton(linear, cov0, cov1, 2)
    elif torch.is_grad_enabled() and (cov0.requires_grad or cov1.requires_grad):
        raise ValueError(
            "`cov0` and `cov1` must be positive definite for a gradient of the map: detach them "
            "or add a multiple of the identity"
        )
    linear = linear * (size1**0.5 / size0**0.5)
    return linear.to(dtype), (mean1 - linear @ mean0).to(dtype)


@promoted(mean0=1, cov0=2, mean1=1, cov1=2)
def gaussian_kl(mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor) -> Tensor:
    """KL(N(mean0, cov0) ‖ N(mean1, cov1)) in nats.

    Args:
        mean0: (d,).
        cov0: (d, d), symmetric positive definite.
        mean1: (d,).
        cov1: (d, d).

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity, or a covariance that is not
            positive definite.
    """
    normals: list[torch.distributions.Distribution] = []
    for which, mean, cov in (("0", mean0, cov0), ("1", mean1, cov1)):
        mean, cov = checked_moments(mean, cov, which)
        if not is_positive_definite(cov.detach()):
            raise ValueError(f"`cov{which}` must be positive definite: the divergence is infinite")
        normals.append(torch.distributions.MultivariateNormal(mean, cov, validate_args=False))
    return torch.distributions.kl_divergence(*normals)
