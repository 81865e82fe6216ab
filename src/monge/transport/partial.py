r"""Partial transport: the cheapest plan of a given mass, exactly.

    min_π ⟨C, π⟩   over π ≥ 0, π1 ≤ a, πᵀ1 ≤ b, Σ_ij π_ij = s
  = max ⟨a, f⟩ + ⟨b, g⟩ + λ s   over f, g ≤ 0, f_i + g_j + λ ≤ C_ij.

It is balanced transport with one more point on each side, to which the rest goes at no cost: a
column of mass |a| - s and a row of mass |b| - s, between which there is no pair.

Source: Caffarelli, McCann, "Free boundaries in optimal transport and Monge-Ampère obstacle
problems", 2010; Chapel, Alaya, Gasso, "Partial optimal transport with applications on
positive-unlabeled learning", 2020.
"""

import numpy as np
import torch
from torch import Tensor

from monge._core.checks import cost_matrix, masses, points, positive
from monge._core.numerics import envelope, root
from monge._core.promotion import WEIGHTS, promoted
from monge._core.typed import Floats, from_numpy
from monge.transport.exact import as_array, power_of_plan, scaled_lengths
from monge.transport.forbidden import feasible_weights, forbidden_pairs, open_simplex
from monge.transport.plan import Plan

LEAST_SHARE_OF_WEIGHTS = 1e-9
"""The smallest mass, as a share of the weights, of which their rounding leaves enough digits."""
ROUNDING = 1e-6
"""The share of the mass that counts as none."""


def checked_mass(mass: float, a: Tensor, b: Tensor) -> float:
    """The mass, if both sides have as much; up to rounding."""
    mass, most = positive("mass", mass), float(torch.minimum(a.sum(), b.sum()))
    if mass > most * (1 + 1e-6):
        raise ValueError(
            f"`mass` must be at most {most:.7g}, the smaller sum of the weights, got {mass!r}"
        )
    least = LEAST_SHARE_OF_WEIGHTS * float(a.sum() + b.sum())
    if mass < least:
        raise ValueError(
            f"`mass` must be at least {least:.3g}, {LEAST_SHARE_OF_WEIGHTS:g} of the weights, "
            f"whose rounding hides less, got {mass!r}: leave out some of the points"
        )
    return min(mass, most)


def _extended(cost: Floats, a: Floats, b: Floats, mass: float) -> tuple[Floats, Floats, Floats]:
    """The balanced problem with one more point on each side."""
    extended = np.zeros((len(a) + 1, len(b) + 1))
    extended[:-1, :-1], extended[-1, -1] = cost, np.inf
    rest = max(0.0, b.sum() - mass), max(0.0, a.sum() - mass)
    return extended, np.append(a, rest[0]), np.append(b, rest[1])


def _solved(cost: Floats, a: Tensor, b: Tensor, mass: float) -> tuple[Floats, Floats, Floats]:
    """The plan, and potentials f, g ≤ 0."""
    extended, mu, nu = _extended(cost, as_array(a), as_array(b), mass)
    price = _price(cost, mass / max(mu[:-1].sum(), nu[:-1].sum()))
    extended[:-1, -1] = extended[-1, :-1] = price
    total = as_array(a).sum() + as_array(b).sum() - mass
    rounding = ROUNDING * mass / total
    if np.isinf(cost).any():
        mu, nu = _feasible(extended, mu, nu, mass, rounding)
    plan, f, g = open_simplex(extended, mu, nu, min(1e-12, rounding))
    f, g = f[:-1] + g[-1] - price, g[:-1] + f[-1] - price
    return total * plan[:-1, :-1], np.minimum(f, 0), np.minimum(g, 0)


def _price(cost: Floats, share: float) -> float:
    """What it is to cost not to transport: about as much as the dearest of the pairs that are.

    Any price leaves the plan, because the mass that is not transported is given. But the network
    simplex takes half as long at one near λ: at 0 it first sends all to the additional points.
    """
    nearest = (np.quantile(cost.min(side), min(share, 1.0), method="lower") for side in (0, 1))
    price = float(min(nearest))
    return price if np.isfinite(price) else 0.0


def _feasible(
    extended: Floats, a: Floats, b: Floats, mass: float, rounding: float
) -> tuple[Floats, Floats]:
    """Weights of the extended problem between which there is a plan."""
    closed = from_numpy(np.isinf(extended))
    try:
        mu, nu = feasible_weights(closed, from_numpy(a), from_numpy(b), rounding)
    except ValueError:
        raise ValueError(
            f"`mass` {mass:.7g} is more than the pairs that `cost` leaves open can carry: lower "
            "it, or allow more pairs"
        ) from None
    return as_array(mu), as_array(nu)


def refuse_infeasible(closed: Tensor, a: Tensor, b: Tensor, mass: float) -> None:
    """Raises where forbidden pairs leave no plan of the mass."""
    cost = np.where(as_array(closed) > 0, np.inf, 0.0)
    total = float(a.detach().sum() + b.detach().sum()) - mass
    extended, mu, nu = _extended(cost, as_array(a), as_array(b), mass)
    _feasible(extended, mu, nu, mass, ROUNDING * mass / total)


@promoted(cost=2, a=WEIGHTS, b=WEIGHTS)
def solve_partial(
    cost: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, mass: float
) -> Plan:
    """The cheapest plan of a given mass, for a cost matrix.

    Args:
        cost: C (n, m), of any sign; +∞ forbids a pair.
        a: weights (n,), at least 0, of any sum; uniform with sum 1 by default.
        b: weights (m,).
        mass: the mass s that is transported, at most the smaller sum of the weights.

    Returns:
        The plan, with π1 ≤ a, πᵀ1 ≤ b and `value` = ⟨C, π⟩, differentiable in the cost and the
        weights. Its potentials (f, g) are at most 0, and 0 where weight is left; its
        `marginal_error` is the mass by which π exceeds the weights or misses s.

    Raises:
        ValueError: for a cost that is not a matrix, NaN or -∞ in it, invalid weights, or a mass
            that is not positive or more than can be transported.
    """
    cost_matrix(cost)
    closed = forbidden_pairs(cost)
    mu, nu = masses("a", a, cost, cost.shape[0]), masses("b", b, cost, cost.shape[1])
    mass = checked_mass(mass, mu.detach(), nu.detach())
    pi, f, g = _solved(as_array(cost), mu, nu, mass)
    plan, f, g = (from_numpy(z).to(cost) for z in (pi, f, g))
    open_cost = cost if closed is None else cost.masked_fill(closed, 0.0)
    moves = any(w is not None and w.requires_grad for w in (a, b))
    value = envelope(
        (plan * open_cost).sum(),
        (open_cost, plan),
        (a, f),
        (b, g),
        linear=not (cost.requires_grad and moves),
    )
    excess = [(plan.sum(side) - w.detach()).clamp_min(0).sum() for side, w in ((1, mu), (0, nu))]
    return Plan(
        value=value,
        value_linear=value.detach(),
        potentials=(f, g),
        marginal_error=max(abs(float(plan.sum()) - mass), *map(float, excess)),
        iterations=None,
        converged=True,
        make=lambda: plan,
        total=plan.sum(),
    )


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def partial_wasserstein(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    mass: float,
    p: float = 2,
) -> Tensor:
    """The partial Wasserstein distance between weighted points, with the root.

    (min_π Σ_ij π_ij ‖x_i - y_j‖^p)^{1/p} over plans that transport the given mass and leave the
    rest of both samples in place. Outliers are left out first. Differentiable in points and
    weights, with gradient 0 where the distance is 0. If all of equal masses is transported, it is
    W_p.

    Args:
        x: points (n, d).
        y: points (m, d).
        a: weights (n,), at least 0, of any sum; uniform with sum 1 by default.
        b: weights (m,).
        mass: the mass that is transported, at most the smaller sum of the weights.
        p: order, at least 1.

    Raises:
        ValueError: for an empty sample, NaN or infinity, different dimensions, p < 1, invalid
            weights, or a mass that is not positive or more than either side has.
    """
    x, y = points(x, y, p)
    mu, nu = masses("a", a, x, len(x)), masses("b", b, y, len(y))
    mass = checked_mass(mass, mu.detach(), nu.detach())
    lengths, scale = scaled_lengths(x.detach().double(), y.detach().double())
    plan, f, g = _solved(lengths**p, mu, nu, mass)
    rows, columns = plan.nonzero()
    in_weights = [(a, from_numpy(f).to(x.device)), (b, from_numpy(g).to(x.device))]
    sparse = rows, columns, plan[rows, columns]
    return scale * root(power_of_plan((x, y), sparse, scale, p, in_weights), p)
