r"""Transport between Gaussian distributions, in closed form.

    W_2² = ‖m0 - m1‖² + tr Σ0 + tr Σ1 - 2 tr (Σ0^½ Σ1 Σ0^½)^½,

attained by the linear map T(x) = m1 + A (x - m0), A = Σ0^{-½} (Σ0^½ Σ1 Σ0^½)^½ Σ0^{-½}.

Source: Dowson, Landau, "The Fréchet distance between multivariate normal distributions", 1982;
Bhatia, Jain, Lim, "On the Bures-Wasserstein distance between positive definite matrices", 2019.
"""

import torch
from torch import Tensor

from monge._core.checks import finite, floating
from monge._core.numerics import root
from monge._core.typed import eigh, eigvalsh, is_positive_definite


def _moments(mean: Tensor, cov: Tensor, which: str) -> tuple[Tensor, Tensor]:
    for name, value in ((f"mean{which}", mean), (f"cov{which}", cov)):
        finite(name, floating(name, value))
    d = mean.shape[-1] if mean.ndim == 1 else -1
    if cov.shape != (d, d):
        raise ValueError(
            f"`mean{which}` and `cov{which}` must have shapes (d,) and (d, d), "
            f"got {tuple(mean.shape)} and {tuple(cov.shape)}"
        )
    size = cov.detach().abs().max().clamp(min=torch.finfo(cov.dtype).tiny)
    if (cov - cov.T).detach().abs().max() > 1e-5 * size:
        raise ValueError(f"`cov{which}` must be symmetric")
    values = eigvalsh(cov.detach())
    if values[0] < -1e-5 * values[-1].abs():
        raise ValueError(
            f"`cov{which}` must be positive semidefinite, its least eigenvalue is {values[0]:.3g}"
        )
    return mean, cov


def _powers(cov: Tensor) -> tuple[Tensor, Tensor]:
    """Σ^½ and its pseudo-inverse."""
    values, vectors = eigh(cov)
    cut = values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    roots = values.clamp(min=0).sqrt()
    inverse = torch.where(values > cut, 1 / roots.clamp(min=torch.finfo(values.dtype).tiny), 0.0)
    return (vectors * roots) @ vectors.T, (vectors * inverse) @ vectors.T


def _linear_part(cov0: Tensor, cov1: Tensor) -> Tensor:
    half, inverse = _powers(cov0)
    middle, _ = _powers(half @ cov1 @ half)
    return inverse @ middle @ inverse


def gaussian_wasserstein(mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor) -> Tensor:
    """W_2 between N(mean0, cov0) and N(mean1, cov1), with the root.

    Args:
        mean0: (d,).
        cov0: (d, d), symmetric positive semidefinite; singular is allowed.
        mean1: (d,).
        cov1: (d, d).

    Differentiable in all four, at nonsingular covariances, with gradient 0 at equality: at the
    optimal maps A0 (from 0 to 1) and A1 (back), W_2² = ‖m0 - m1‖² + tr (I - A0) Σ0 +
    tr (I - A1) Σ1 is the dual problem, whose gradient is taken at frozen maps.

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity, or a cov that is none.
    """
    mean0, cov0 = _moments(mean0, cov0, "0")
    mean1, cov1 = _moments(mean1, cov1, "1")
    if mean0.shape != mean1.shape:
        raise ValueError(f"`mean1` must have shape {tuple(mean0.shape)}, got {tuple(mean1.shape)}")
    eye = torch.eye(len(mean0), dtype=cov0.dtype, device=cov0.device)
    with torch.no_grad():
        dual0, dual1 = eye - _linear_part(cov0, cov1), eye - _linear_part(cov1, cov0)
    bures = (dual0 * cov0).sum() + (dual1 * cov1).sum()
    return root(((mean0 - mean1).square().sum() + bures).clamp(min=0))


def gaussian_map(
    mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor
) -> tuple[Tensor, Tensor]:
    """The optimal map T(x) = A x + b from N(mean0, cov0) to N(mean1, cov1), as (A, b).

    A (d, d) is symmetric positive semidefinite; b (d,). `x @ A + b` maps points (n, d).
    """
    mean0, cov0 = _moments(mean0, cov0, "0")
    mean1, cov1 = _moments(mean1, cov1, "1")
    linear = _linear_part(cov0, cov1)
    return linear, mean1 - linear @ mean0


def gaussian_kl(mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor) -> Tensor:
    """KL(N(mean0, cov0) ‖ N(mean1, cov1)) in nats; covariances must be positive definite."""
    normals: list[torch.distributions.Distribution] = []
    for which, mean, cov in (("0", mean0, cov0), ("1", mean1, cov1)):
        mean, cov = _moments(mean, cov, which)
        if not is_positive_definite(cov.detach()):
            raise ValueError(f"`cov{which}` must be positive definite: the divergence is infinite")
        normals.append(torch.distributions.MultivariateNormal(mean, cov, validate_args=False))
    return torch.distributions.kl_divergence(*normals)
