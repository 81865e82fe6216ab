r"""Transport on the circle, exactly.

With the circle cut open and unrolled, a plan that is optimal for a convex cost is monotone, and
which monotone plan it is depends on one number, the level θ at which the quantile functions start:

    W_p^p(μ, ν) = min_θ C(θ),    C(θ) = ∫_0^1 |F_μ^{-1}(t) - F_ν^{-1}(t - θ)|^p dt,

where F_ν^{-1}(t + 1) = F_ν^{-1}(t) + 1 in units of the circumference. C is convex and, for finite
samples, linear between the θ at which two levels meet, so that bisection by the sign of its slope
ends at the minimum. Equally many, equally weighted values meet in cyclic order: θ is k/n.

The plan at the minimum is a staircase around the circle: from each of its cells to the next, u
or v moves on. The derivatives of W_p^p in the weights are the dual potentials f and g, whose sums
f_i + g_j are the costs of the cells: they follow along the staircase, and where u and v move on
together, f rises by what closes its way around the circle.

Source: Delon, Salomon, Sobolevski, "Fast transport optimization for Monge costs on the circle",
2010; Rabin, Delon, Gousseau, "Transportation distances on the circle", 2011; Hundrieser, Klatt,
Munk, "The statistics of circular optimal transport", 2022.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import finite, floating, given_weights, order, positive
from monge._core.numerics import absolute_power, root
from monge._core.promotion import ANY, promoted
from monge._core.typed import broadcast
from monge.transport.line import MOST_EXPONENT, TIE, cells_with_mass

RESOLUTION = 2.0**-46
"""How near θ comes to its minimum."""

HALVINGS = 64
"""Steps of a bisection whose last bits are found in closed form."""


@promoted(u=ANY, v=ANY, a=ANY, b=ANY)
def wasserstein_circle(
    u: Tensor,
    v: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
    period: float = 2 * math.pi,
) -> Tensor:
    r"""W_p between samples on a circle, over the last dimension, batched over the others.

    The cost is |u_i - v_j|^p with the length of the shorter arc. Differentiable in positions and
    weights, with gradient 0 where the distance is 0. Where it has a kink in the weights, as where
    partial sums of `a` and `b` are equal, the gradient is a subgradient of W_p^p; in a weight of 0
    it is the derivative where that weight grows.

    Args:
        u: positions (\*, n), such as angles; any real numbers, taken modulo the period.
        v: positions (\*, m), with batch dimensions that broadcast against those of `u`.
        a: weights (n,) or (\*, n), at least 0 with sum 1; uniform by default.
        b: weights (m,) or (\*, m).
        p: order, at least 1.
        period: the circumference; 2π for angles, 24 for hours.

    Returns:
        W_p, with the root, in the unit of the positions; shaped like the batch dimensions.

    Raises:
        ValueError: for an empty sample, NaN or infinity, positions so far away that their dtype
            does not resolve a period, p < 1, a period ≤ 0, or invalid weights.

    >>> round(float(wasserstein_circle([23.0, 0.5], [0.0, 1.5], period=24)), 6)
    1.0
    """
    p = order(p)
    period = positive("period", period)
    for name, values in (("u", u), ("v", v)):
        floating(name, values)
        if values.ndim < 1 or values.shape[-1] < 1:
            raise ValueError(f"`{name}` must hold a value, got shape {tuple(values.shape)}")
        finite(name, values)
        furthest = float(values.detach().abs().amax()) if values.numel() else 0.0
        dtype = values.dtype
        if torch.finfo(dtype).eps * furthest > period / 16:
            raise ValueError(
                f"`{name}` has positions up to {furthest:.3g}, where {dtype} does not resolve a "
                f"period of {period:.3g}: take them modulo the period before they are rounded"
            )
    a, b = given_weights("a", a, u.shape[-1]), given_weights("b", b, v.shape[-1])
    sides = [z for z in (u, v, a, b) if z is not None]
    try:
        batch = broadcast(*(z.shape[:-1] for z in sides))
    except RuntimeError:
        shapes = ", ".join(str(tuple(z.shape[:-1])) for z in sides)
        raise ValueError(
            f"batch dimensions of `u`, `v` and weights must broadcast, got {shapes}"
        ) from None
    turns = tuple((z.double() / period).expand(*batch, -1) for z in (u, v))
    weights = tuple(None if w is None else w.expand(*batch, -1) for w in (a, b))
    power, unit = power_circle(*turns, *weights, p=p)
    return (period * unit * root(power, p)).to(u.dtype)


def power_circle(
    u: Tensor, v: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, p: float
) -> tuple[Tensor, Tensor]:
    r"""(W_p / unit)^p over the last dimension of (\*, n) and (\*, m), in turns of the circle, and
    the unit (\*): the longest distance of the plan, whose power neither overflows nor vanishes.
    Unchecked."""
    u, v = (z - z.detach().floor() for z in (u, v))
    u, of_u = u.sort(-1)
    v, of_v = v.sort(-1)
    n, m = u.shape[-1], v.shape[-1]
    if a is None and b is None and n == m:
        gap = _shifted(u, v, _best_shift(u.detach(), v.detach(), p))
        unit = _longest(gap)
        return absolute_power(gap / unit, p).mean(-1), unit[..., 0]
    f, g = _levels(u, a, of_u), _levels(v, b, of_v)
    cells = _staircase(u, v, f, g, _best_level(u, v, f, g, p))
    gap = _gap(cells, cells.i, cells.j).masked_fill(cells.widths == 0, 0.0)
    unit = _longest(gap)
    power = (cells.widths * absolute_power(gap / unit, p)).sum(-1)
    if any(w is not None and w.requires_grad for w in (a, b)) and torch.is_grad_enabled():
        of_sides = (
            torch.zeros_like(order, dtype=u.dtype) if w is None else w.gather(-1, order)
            for w, order in ((a, of_u), (b, of_v))
        )
        w = torch.cat(list(of_sides), -1).gather(-1, cells.points)
        # nothing but the derivatives in the weights, which are the potentials
        power = power + ((w - w.detach()) * _potentials(cells, unit, p)).sum(-1)
    return power, unit[..., 0]


def _longest(*gaps: Tensor) -> Tensor:
    r"""The largest distance of rows (\*, n), (\*, 1), without gradient; 1 where all are 0."""
    longest = torch.cat(gaps, -1).detach().abs().amax(-1, keepdim=True)
    return torch.where(longest > 0, longest, 1.0)


def _levels(values: Tensor, weights: Tensor | None, order: Tensor) -> Tensor:
    """The distribution function at sorted values, float64."""
    size = values.shape[-1]
    if weights is None:
        ranks = torch.arange(1, size + 1, dtype=torch.float64, device=values.device)
        return (ranks / size).expand(values.shape)
    levels = weights.detach().gather(-1, order).cumsum(-1)
    return levels / levels[..., -1:]


# Equally many, equally weighted values


def _shifted(u: Tensor, v: Tensor, shift: Tensor) -> Tensor:
    """u_i - v_{i+k} for shifts k (*, 1), where v_{i+n} = v_i + 1."""
    n = u.shape[-1]
    index = torch.arange(n, device=u.device) + shift
    turns = index.div(n, rounding_mode="floor")
    return u - v.gather(-1, index - n * turns) - turns


def _best_shift(u: Tensor, v: Tensor, p: float) -> Tensor:
    """The first k in [-n, n] at which the convex cost does not fall any more, (*, 1)."""
    n = u.shape[-1]
    low = torch.full_like(u[..., :1], -n, dtype=torch.int64)
    high = -low
    for _ in range((2 * n + 1).bit_length()):
        middle = (low + high).div(2, rounding_mode="floor")
        gap, next_gap = _shifted(u, v, middle), _shifted(u, v, middle + 1)
        falls = (_rise(next_gap, gap, _longest(gap, next_gap), p) < 0)[..., None]
        low, high = torch.where(falls, middle + 1, low), torch.where(falls, high, middle)
        low = torch.minimum(low, high)
    return high


# Any weights


def _steps(u: Tensor, v: Tensor, f: Tensor, g: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The distances that come and go where θ rises: where a level of v moves on, v_j takes the
    place of v_{j+1}. The difference of their powers is C'(θ) from above."""
    levels = g + theta[..., None]
    turns = levels.floor()
    index = torch.searchsorted(f.contiguous(), levels - turns, right=True)
    index = index.clamp(max=u.shape[-1] - 1)
    at = u.gather(-1, index) + turns
    after = torch.cat([v[..., 1:], v[..., :1] + 1], -1)
    return at - v, at - after


def _rise(come: Tensor, go: Tensor, unit: Tensor, p: float) -> Tensor:
    """Σ |come|^p - |go|^p in a unit."""
    return (absolute_power(come / unit, p) - absolute_power(go / unit, p)).sum(-1)


@torch.no_grad()
def _best_level(u: Tensor, v: Tensor, f: Tensor, g: Tensor, p: float) -> Tensor:
    """θ at the minimum of C, (*)."""
    low, high = u.new_full(u.shape[:-1], -1.0), u.new_full(u.shape[:-1], 1.0)
    for _ in range(round(math.log2(2 / RESOLUTION))):
        middle = (low + high) / 2
        steps = _steps(u, v, f, g, middle)
        falls = _rise(*steps, _longest(*steps), p) < 0
        low, high = torch.where(falls, middle, low), torch.where(falls, high, middle)
    return (low + high) / 2


class _Staircase(NamedTuple):
    """The cells (i, j) of a plan around the circle, (*, n + m), each of which ends where u_i or
    v_j has no more mass. Cells without mass lie where levels are equal; there u moves on first."""

    widths: Tensor
    """The mass of each cell; the first one has mass."""
    i: Tensor
    j: Tensor
    u: Tensor
    """Values in the order of the cells, and the first one of the next turn, (*, n + 1)."""
    v: Tensor
    points: Tensor
    """Which value ends each cell: an index into the sorted values of u, then those of v."""


def _staircase(u: Tensor, v: Tensor, f: Tensor, g: Tensor, theta: Tensor) -> _Staircase:
    """The plan at the level θ."""
    n = u.shape[-1]
    u, f, of_u = _from_zero(u, f)
    v, g, of_v = _from_zero(v, g + theta[..., None])
    levels, place = torch.cat([f, g], -1).sort(dim=-1, stable=True)
    widths = levels.diff(dim=-1, prepend=torch.zeros_like(levels[..., :1]))
    widths = widths.masked_fill(widths < TIE, 0.0)
    # equal levels once more in the order u, v
    group = torch.empty_like(place).scatter_(-1, place, (widths > 0).cumsum(-1))
    group = 2 * group
    group[..., n:] += 1
    place = group.argsort(dim=-1, stable=True)
    of_v_side = (place >= n).long()
    j = of_v_side.cumsum(-1) - of_v_side
    i = torch.arange(place.shape[-1], device=u.device) - j
    points = torch.cat([of_u, n + of_v], -1).gather(-1, place)
    return _Staircase(widths, i, j, u, v, points)


def _from_zero(values: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values of the turn whose levels are in (0, 1], followed by the next one; their levels, and
    their indices. A level that equals 0 is 1 of the turn before."""
    turns = (levels - TIE).ceil() - 1
    order = (-turns).argsort(dim=-1, stable=True)
    values = (values - turns).gather(-1, order)
    return torch.cat([values, values[..., :1] + 1], -1), (levels - turns).gather(-1, order), order


def _gap(cells: _Staircase, i: Tensor, j: Tensor) -> Tensor:
    return cells.u.gather(-1, i) - cells.v.gather(-1, j)


def _potentials(cells: _Staircase, unit: Tensor, p: float) -> Tensor:
    """The potential of the value that ends each cell, in the unit of the power, (*, n + m).

    Between a cell (i, j) with mass and the next one (i', j'), f rises by

        c(i', j') - c(i, j') ≤ f_{i'} - f_i ≤ c(i', j) - c(i, j),

    which are equal unless both move on. The rises sum to 0: those between their bounds are equal.
    Values without mass in between have the largest potentials that no cost forbids.
    """
    size = cells.widths.shape[-1]
    full = cells.widths > 0
    here, after = cells_with_mass(full)
    i, j = cells.i.gather(-1, here), cells.j.gather(-1, here)
    next_i, next_j = (
        torch.cat([k, torch.full_like(k[..., :1], z.shape[-1] - 1)], -1).gather(-1, after)
        for k, z in ((cells.i, cells.u), (cells.j, cells.v))
    )

    def costs(i: Tensor, j: Tensor, most: float) -> Tensor:
        longest = most ** (1 / p)
        return absolute_power((_gap(cells, i, j) / unit).clamp(-longest, longest), p)

    # costs of cells with mass are at most 1, so that rises beyond the number of cells are not met
    most = 2.0 * size + 2
    cost, next_cost = costs(i, j, most), costs(next_i, next_j, most)
    low, high = next_cost - costs(i, next_j, most), costs(next_i, j, most) - cost
    rise = _closing(low, high, full, most)
    f = rise.masked_fill(~full, 0.0).cumsum(-1) - rise
    own_i, own_j, far = cells.i, cells.j, 2.0**MOST_EXPONENT
    of_u = torch.minimum(costs(own_i, j, far) - cost, costs(own_i, next_j, far) - next_cost + rise)
    of_v = torch.minimum(costs(i, own_j, far), costs(next_i, own_j, far) - rise)
    of_u = f + torch.where(own_i == i, 0.0, of_u)
    of_v = torch.where(own_j == j, cost, of_v) - f
    return torch.where(cells.points < cells.u.shape[-1] - 1, of_u, of_v)


def _closing(low: Tensor, high: Tensor, full: Tensor, most: float) -> Tensor:
    """Rises between bounds, of which those of full cells sum to 0: one number, cut by bounds."""

    def cut(level: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(level, low), high)

    with torch.no_grad():
        below, above = (torch.full_like(low[..., :1], sign * most) for sign in (-1, 1))
        for _ in range(HALVINGS):
            level = (below + above) / 2
            falls = cut(level).masked_fill(~full, 0.0).sum(-1, keepdim=True) < 0
            below, above = torch.where(falls, level, below), torch.where(falls, above, level)
        level = (below + above) / 2
        free = full & (low < level) & (level < high)
    others = cut(level).masked_fill(free | ~full, 0.0).sum(-1, keepdim=True)
    count = free.sum(-1, keepdim=True)
    # exact, and with the derivatives of the bounds
    level = torch.where(count > 0, -others / count.clamp(min=1), level)
    return cut(level)
