r"""One Gaussian for a mixture p = Σ_k w_k N(m_k, C_k), under both Kullback-Leibler divergences.

*Mass-covering*, min KL(p ‖ q): the moments of p,

    m = Σ_k w_k m_k,    C = Σ_k w_k (C_k + (m_k - m)(m_k - m)ᵀ).

*Mode-seeking*, min KL(q ‖ p): with q the distribution of m + Lε, ε ~ N(0, I),

    KL(q ‖ p) = -E log p(m + Lε) - log det L - d/2 (1 + log 2π),

a smooth function of m and L with a local minimum near each mode that stands apart. Among modes far
apart, the deepest has the largest weight w_k, and KL = -log w_k there.

Source: Bishop, "Pattern recognition and machine learning", 2006, section 10.1.2.
"""

import copy
import math
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from monge._core.checks import finite, instance
from monge._core.promotion import as_tensor
from monge.priors import Mixture


@torch.inference_mode(False)  # a descent takes derivatives
def fit_gaussian(
    mixture: Mixture,
    direction: Literal["mode-seeking", "mass-covering"],
    *,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The Gaussian nearest to a mixture in Kullback-Leibler divergence.

    Args:
        mixture: p, in d dimensions.
        direction: "mode-seeking" for KL(q ‖ p), "mass-covering" for KL(p ‖ q).
        start: for mode-seeking only, a mean (d,) to descend from, with the covariance of the
            nearest component, to a local minimum; by default the least of the minima reached
            from every component and from the moments of p.

    Returns:
        (mean, covariance), (d,) and (d, d), of the mixture's dtype and device. Mass-covering is
        exact. The expectation of mode-seeking is a Gauss-Hermite sum for d ≤ 3, and one of 4,096
        Sobol points beyond.

    Raises:
        ValueError: for another direction, or a start that does not fit.
    """
    instance("mixture", mixture, Mixture, "Mixture(means, covariances, weights)")
    p = copy.deepcopy(mixture).cpu().double()
    means, weights, covariances = p.means, p.weights, p.factors @ p.factors.mT
    mean = weights @ means
    away = means - mean
    within = torch.einsum("k,kij->ij", weights, covariances)
    moments = mean, within + torch.einsum("k,ki,kj->ij", weights, away, away)
    if direction == "mass-covering":
        if start is not None:
            raise ValueError("`start` is for mode-seeking: the mass-covering fit has one minimum")
        fit = moments
    elif direction == "mode-seeking":
        if start is None:
            starts = [*zip(means, covariances), moments]
        elif (start := finite("start", as_tensor("start", start))).shape != mean.shape:
            raise ValueError(
                f"`start` must have shape {tuple(mean.shape)}, got {tuple(start.shape)}"
            )
        else:
            start = start.detach().to(means)
            starts = [(start, covariances[(means - start).square().sum(1).argmin()])]
        rule = _standard_normal(p.dim)
        minima = [_descend(p, *rule, *one) for one in starts]
        _, *fit = min(minima, key=lambda minimum: minimum[0])
    else:
        raise ValueError(
            f"`direction` must be mode-seeking or mass-covering, got {direction!r}: "
            "min KL(q ‖ p) or min KL(p ‖ q)"
        )
    return fit[0].to(mixture.means), fit[1].to(mixture.means)


def _standard_normal(dim: int) -> tuple[Tensor, Tensor]:
    """Nodes (n, dim) and masses (n,) of a quadrature for N(0, I)."""
    if dim <= 3:
        x, w = np.polynomial.hermite_e.hermegauss((0, 128, 48, 20)[dim])
        nodes = torch.cartesian_prod(*[torch.from_numpy(x)] * dim).view(-1, dim)
        masses = torch.cartesian_prod(*[torch.from_numpy(w / w.sum())] * dim).view(-1, dim)
        return nodes, masses.prod(1)
    uniform = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0).draw(
        2048, dtype=torch.float64
    )
    half = torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12))
    # with their opposites the first moments are exact
    return torch.cat([half, -half]), torch.full((4096,), 1 / 4096, dtype=torch.float64)


def _descend(
    p: Mixture, nodes: Tensor, masses: Tensor, mean: Tensor, covariance: Tensor
) -> tuple[float, Tensor, Tensor]:
    """(KL(q ‖ p), mean, covariance) at the local minimum near a start."""
    d, scale = len(mean), torch.linalg.cholesky(covariance)
    lower = torch.tril_indices(d, d)

    def unpacked(parameters: Tensor) -> tuple[Tensor, Tensor]:
        # in units of the start, so that all parameters are of order one
        triangle = torch.zeros(d, d, dtype=torch.float64)
        triangle = triangle.index_put((lower[0], lower[1]), parameters[d:])
        diagonal = triangle.diagonal()
        factor = scale @ (triangle - diagonal.diag() + diagonal.exp().diag())
        return mean + scale @ parameters[:d], factor

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(flat, requires_grad=True)
        m, factor = unpacked(parameters)
        entropy = factor.diagonal().log().sum() + d / 2 * (1 + math.log(2 * math.pi))
        kl = -(masses @ p.log_prob(m + nodes @ factor.mT)) - entropy
        kl.backward()
        assert parameters.grad is not None
        return float(kl.detach()), parameters.grad.numpy()

    size = d + lower.shape[1]
    best = minimize(objective, np.zeros(size), jac=True, method="BFGS", options={"gtol": 1e-8})
    m, factor = unpacked(torch.from_numpy(best.x))
    return float(best.fun), m, factor @ factor.mT
