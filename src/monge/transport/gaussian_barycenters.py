r"""Barycenters of Gaussian distributions and of their mixtures.

The barycenter of N(m_k, Σ_k) is N(Σ_k λ_k m_k, S) with S the fixed point of

    S ← A S A,   A = Σ_k λ_k A_k,   A_k the optimal map from N(0, S) to N(0, Σ_k).

With factors Σ_k = F_k F_kᵀ and S = X Xᵀ it is, without an inverse,

    X ← Σ_k λ_k F_k Q_k,   Q_k = U Vᵀ for F_kᵀ X = U s Vᵀ,   A_k X = F_k Q_k,

where Q_k turns F_k as near to X as it can. Each step lowers the objective; they are accelerated.
For mixtures the distance is transport between components with the cost W_2² of Gaussians, and a
component of the barycenter is that of the components it is coupled with.

Source: Álvarez-Esteban, del Barrio, Cuesta-Albertos, Matrán, "A fixed-point approach to
barycenters in Wasserstein space", 2016; Delon, Desolneux, "A Wasserstein-type distance in the
space of Gaussian mixture models", 2020.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monge._core.checks import dimension, distribution_weights, listed, positive
from monge._core.errors import warn
from monge._core.promotion import ANY, WEIGHTS, as_tensor, as_weights, promoted
from monge._core.typed import eigh, svd, vector_norm
from monge.transport.exact import solve
from monge.transport.fixed_point import accelerated
from monge.transport.gaussian import checked_moments, gaussian_wasserstein

MEMORY = 5
"""The memory of Anderson's acceleration."""


class GaussianComponents(NamedTuple):
    """A mixture of Gaussians."""

    means: Tensor
    """(n, d)."""
    covs: Tensor
    """(n, d, d)."""
    masses: Tensor
    """(n,), with sum 1."""


@promoted(means=ANY, covs=ANY, weights=WEIGHTS)
def gaussian_barycenter(
    means: Tensor,
    covs: Tensor,
    weights: Tensor | None = None,
    *,
    tolerance: float = 1e-9,
    max_iterations: int = 1000,
) -> tuple[Tensor, Tensor]:
    """The W_2 barycenter of Gaussian distributions, which is Gaussian.

    Args:
        means: (k, d).
        covs: (k, d, d), symmetric positive semidefinite.
        weights: λ (k,), at least 0 with sum 1; uniform by default.
        tolerance: on the change of the covariance in an iteration, in units of its trace.
        max_iterations: the iteration limit; reaching it warns.

    Returns:
        The mean (d,) and the covariance (d, d), without gradient.

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity, a matrix that is not a covariance,
            or invalid weights.
    """
    tolerance = positive("tolerance", tolerance)
    dimension("max_iterations", max_iterations)
    if means.ndim != 2 or covs.shape != (*means.shape, means.shape[-1]) or means.numel() == 0:
        raise ValueError(
            "`means` and `covs` must have shapes (k, d) and (k, d, d), got "
            f"{tuple(means.shape)} and {tuple(covs.shape)}"
        )
    for k, (mean, cov) in enumerate(zip(means, covs)):
        checked_moments(mean, cov, f"s[{k}]")
    lambdas = distribution_weights("weights", weights, means, len(means)).detach()
    dtype = covs.dtype
    mean = lambdas @ means.detach().double()
    cov = _covariance(covs.detach().double(), lambdas, (tolerance, max_iterations))
    return mean.to(dtype), cov.to(dtype)


def _covariance(covs: Tensor, lambdas: Tensor, limits: tuple[float, int]) -> Tensor:
    """The fixed point, of covariances in units of the largest."""
    tolerance, most = limits
    unit = float(covs.abs().max()) or 1.0
    covs, shares = covs[lambdas > 0] / unit, lambdas[lambdas > 0, None, None]
    values, vectors = eigh(covs)
    factors = vectors * values.clamp(min=0).sqrt()[:, None] @ vectors.mT
    start = (shares * factors).sum(0)  # the solution for covariances that commute

    def step(flat: Tensor) -> tuple[Tensor, Tensor]:
        x = flat.view(start.shape)
        u, _, v = svd(factors.mT @ x)
        image = (shares * (factors @ (u @ v.mT))).sum(0)
        before, after = x @ x.T, image @ image.T
        size = after.trace()
        return image.flatten(), vector_norm(after - before) / torch.where(size > 0, size, 1.0)

    found, moved, iterations = accelerated(step, start.flatten(), MEMORY, tolerance, most)
    if moved > tolerance:
        warn(
            f"the covariance of the barycenter still changes by {moved:.2g} of its trace after "
            f"{iterations} iterations, above `tolerance` {tolerance:.2g}: raise `max_iterations` "
            "or `tolerance`"
        )
    factor = step(found)[0].view(start.shape)
    return factor @ factor.T * unit


def gaussian_mixture_barycenter(
    mixtures: Sequence[tuple[Any, Any, Any]],
    weights: Any = None,
    *,
    start: tuple[Any, Any, Any],
    tolerance: float = 1e-6,
    max_iterations: int = 100,
) -> GaussianComponents:
    """The barycenter of Gaussian mixtures, among mixtures of components with given masses.

    Transport is between components, as wholes, with the cost W_2² of Gaussians.

    Args:
        mixtures: means (n_k, d), covariances (n_k, d, d) and masses (n_k,) of each.
        weights: λ (k,), at least 0 with sum 1; uniform by default.
        start: means (n, d), covariances (n, d, d) and masses (n,) to begin with; the masses stay.
        tolerance: on the root mean square move of a component, in W_2, in units of the mixtures'
            root mean square distance to their means.
        max_iterations: the iteration limit; reaching it warns.

    Returns:
        The components of the barycenter, without gradient.

    Raises:
        ValueError: for shapes that do not fit, NaN or infinity, a matrix that is not a covariance,
            or invalid weights.

    Example:
        >>> gaussian_mixture_barycenter([first, second], [0.3, 0.7], start=first).means
    """
    tolerance = positive("tolerance", tolerance)
    dimension("max_iterations", max_iterations)
    mixtures = listed("mixtures", mixtures, "mixtures (means, covariances, masses)")
    if len(mixtures) == 0:
        raise ValueError("`mixtures` must hold at least one, got none")
    given = [_components(f"mixtures[{k}]", mixture) for k, mixture in enumerate(mixtures)]
    now = _components("start", start)
    like = now.means
    lambdas = weights if weights is None else as_weights("weights", weights).to(like.device)
    lambdas = distribution_weights("weights", lambdas, like, len(given)).detach()
    if not bool((now.masses > 0).all()):
        raise ValueError("`start` must have positive masses: leave components out")
    iterations, moved, scale = 0, float("inf"), _spread(given, lambdas)
    while moved > tolerance * scale and iterations < max_iterations:
        plans = _plans(now, given, lambdas)
        before, now = now, _means_of_components(now, given, plans)
        squares = [
            gaussian_wasserstein(m0, c0, m1, c1).square()
            for m0, c0, m1, c1 in zip(before.means, before.covs, now.means, now.covs)
        ]
        moved = float(now.masses @ torch.stack(squares)) ** 0.5
        iterations += 1
    if moved > tolerance * scale:
        warn(
            f"the barycenter of mixtures still moves by {moved / scale:.2g} after "
            f"{iterations} iterations, above `tolerance` {tolerance:.2g}: raise "
            "`max_iterations` or `tolerance`"
        )
    dtypes = (as_tensor("mixtures", mixture[0]).dtype for mixture in (*mixtures, start))
    dtype = functools.reduce(torch.promote_types, dtypes)
    return GaussianComponents(*(z.to(dtype) for z in now))


def _components(name: str, mixture: Any) -> GaussianComponents:
    """Checked components, float64."""
    mixture = tuple(listed(name, mixture, "means, covariances and masses"))
    if len(mixture) != 3:
        raise ValueError(f"`{name}` must be (means, covariances, masses), got {len(mixture)}")
    means, covs = (as_tensor(name, z).detach() for z in mixture[:2])
    # of half precision there is no arithmetic
    means, covs = (z.to(torch.promote_types(z.dtype, torch.float32)) for z in (means, covs))
    masses = as_weights(f"masses of {name}", mixture[2]).detach()
    if means.ndim != 2 or covs.shape != (*means.shape, means.shape[-1]) or means.numel() == 0:
        raise ValueError(
            f"`{name}` must have means (n, d) and covariances (n, d, d), got shapes "
            f"{tuple(means.shape)} and {tuple(covs.shape)}"
        )
    for mean, cov in zip(means, covs):
        checked_moments(mean, cov, f" of `{name}`")
    masses = distribution_weights(f"masses of {name}", masses, means, len(means))
    return GaussianComponents(means.double(), covs.double(), masses)


def _plans(
    now: GaussianComponents, given: list[GaussianComponents], lambdas: Tensor
) -> list[Tensor]:
    """λ_k π_k (n, n_k) for each mixture."""
    plans: list[Tensor] = []
    for w, mixture in zip(lambdas, given):
        rows = [
            torch.stack(
                [
                    gaussian_wasserstein(mean, cov, other, its_cov).square()
                    for other, its_cov in zip(mixture.means, mixture.covs)
                ]
            )
            for mean, cov in zip(now.means, now.covs)
        ]
        plan = solve(torch.stack(rows), now.masses, mixture.masses)
        plans.append(w * plan.plan)
    return plans


def _spread(given: list[GaussianComponents], lambdas: Tensor) -> float:
    """The root mean square distance of mixtures to their means.

    Raises:
        ValueError: for squares beyond float64.
    """
    squares = [
        w * (one.masses @ (one.means - one.masses @ one.means).square().sum(1))
        + w * (one.masses @ one.covs.diagonal(dim1=1, dim2=2).sum(1))
        for w, one in zip(lambdas, given)
    ]
    spread = float(torch.stack(squares).sum()) ** 0.5
    if not math.isfinite(spread):
        raise ValueError("`mixtures` have squared distances beyond float64: rescale them")
    return spread or 1.0


def _means_of_components(
    now: GaussianComponents, given: list[GaussianComponents], plans: list[Tensor]
) -> GaussianComponents:
    """Each component as the barycenter of those it is coupled with."""
    means = torch.cat([mixture.means for mixture in given])
    covs = torch.cat([mixture.covs for mixture in given])
    shares = torch.cat(plans, 1) / now.masses[:, None]
    shares = shares / shares.sum(1, keepdim=True)
    made = [gaussian_barycenter(means[w > 0], covs[w > 0], w[w > 0]) for w in shares]
    return GaussianComponents(
        torch.stack([mean for mean, _ in made]), torch.stack([cov for _, cov in made]), now.masses
    )
