r"""Forbidden pairs: entries +∞ of a cost, where a plan has no mass.

Whether there is a plan at all is a flow problem. Its least mass on forbidden pairs is the optimum
of the cost that is 1 there and 0 elsewhere, whose dual names rows that hold more mass than the
columns open to them (Hall's condition).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monge._core.errors import NotFinite
from monge._core.typed import Floats, Integers, from_numpy, network_simplex, to_numpy
from monge.transport.exact_simplex import MOST_ITERATIONS, simplex

MOST_FORBIDDEN = 1e-6
"""The mass on forbidden pairs that is taken for rounding of the weights."""
MOST_NAMED = 5
"""How many rows a message names."""

Mask = NDArray[np.bool_]


def forbidden_pairs(cost: Tensor) -> Tensor | None:
    """Where a cost is +∞, (n, m), or None where it is finite.

    Raises:
        ValueError: for NaN and -∞.
    """
    cost = cost.detach()
    if bool(torch.isfinite(cost.sum())) or bool(torch.isfinite(cost).all()):
        return None
    closed = cost == torch.inf
    bad = int((~(torch.isfinite(cost) | closed)).sum())
    if bad:
        raise NotFinite(
            f"`cost` must be finite, or +inf for pairs that carry no mass, got {bad} NaN or -inf "
            f"of {cost.numel()}"
        )
    return closed


def feasible_weights(
    closed: Tensor, a: Tensor, b: Tensor, rounding: float = MOST_FORBIDDEN
) -> tuple[Tensor, Tensor]:
    """The weights between which there is a plan without forbidden pairs: the given ones, up to
    `rounding`, a share of their sum.

    Raises:
        ValueError: where there is none, with rows that cannot be served.
    """
    mask = to_numpy(closed.cpu())
    mu, nu = (to_numpy(w.detach().double().cpu()) for w in (a, b))
    mu, nu = mu / mu.sum(), nu / nu.sum()
    rows, columns = mu.nonzero()[0], nu.nonzero()[0]
    part = np.ix_(rows, columns)
    plan, f, _ = network_simplex(mask[part].astype(float), mu[rows], nu[columns], MOST_ITERATIONS)
    excess = plan[mask[part]].sum()
    if excess > rounding:
        raise ValueError(_unserved(mask, mu, nu, rows, columns, f))
    if excess > 0:
        plan[mask[part]] = 0
        mu[rows], nu[columns] = plan.sum(1), plan.sum(0)
    return from_numpy(mu / mu.sum()).to(a.device), from_numpy(nu / nu.sum()).to(a.device)


def _unserved(
    mask: Mask, mu: Floats, nu: Floats, rows: Integers, columns: Integers, f: Floats
) -> str:
    """Which rows hold more mass than the columns open to them."""
    part = mask[np.ix_(rows, columns)].astype(float)
    f = (part - (part - f[:, None]).min(0)).min(1)
    short = rows[f > (f.min() + f.max()) / 2] if f.max() > f.min() else rows
    reached = columns[~mask[np.ix_(short, columns)].all(0)]
    named = ", ".join(map(str, short[:MOST_NAMED])) + (", …" if len(short) > MOST_NAMED else "")
    return (
        f"`cost` forbids every plan: rows {named} hold {mu[short].sum():.4g} of the mass, the "
        f"columns open to them {nu[reached].sum():.4g}: allow more pairs, or use `solve_partial` "
        "or `solve_entropic` with `reach`"
    )


def open_simplex(
    cost: Floats, a: Floats, b: Floats, rounding: float = 1e-12
) -> tuple[Floats, Floats, Floats]:
    """The plan and feasible optimal potentials of a cost with entries +∞, of a feasible problem.

    Forbidden pairs get a finite cost, which rises until they carry no mass: then the plan and the
    potentials are optimal, since nothing else depends on it. `rounding` is the share of the mass
    that counts as none.
    """
    closed = np.isinf(cost)
    if not closed.any():
        return simplex(cost, a, b)
    most = cost[~closed].max() if not closed.all() else 0.0
    extent = most - cost.min() if most > cost.min() else abs(most) or 1.0
    price = 2.0
    while True:
        plan, f, g = simplex(np.where(closed, most + price * extent, cost), a, b)
        if plan[closed].sum() <= rounding or price > 1e3 * sum(cost.shape):
            plan[closed] = 0
            return plan, f, g
        price *= 10


def with_forbidden(cost: Tensor, closed: Tensor, epsilon: float, bound: float = 0.0) -> Tensor:
    """The cost with a finite one for forbidden pairs, at which no plan has mass that a float
    holds: beyond all potentials, which differ by at most a cost along each pair of a path.

    Args:
        bound: a bound on potentials beyond those costs.
    """
    allowed = cost.detach()[~closed]
    extent = float(allowed.abs().amax()) if allowed.numel() else 0.0
    high = sum(cost.shape) * (2 * extent + 100 * epsilon) + 1000 * epsilon + bound
    return cost.masked_fill(closed, high)
