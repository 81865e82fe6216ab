r"""Transport on the circle, exactly.

With the circle cut open and unrolled, a plan that is optimal for a convex cost is monotone, and
which monotone plan it is depends on one number, the level θ at which the quantile functions start:

    W_p^p(μ, ν) = min_θ C(θ),    C(θ) = ∫_0^1 |F_μ^{-1}(t) - F_ν^{-1}(t - θ)|^p dt,

where F_ν^{-1}(t + 1) = F_ν^{-1}(t) + 1 in units of the circumference. C is convex and, for finite
samples, linear between the θ at which two levels meet, so that bisection by the sign of its slope
ends at the minimum. Equally many, equally weighted values meet in cyclic order: θ is k/n.

Source: Delon, Salomon, Sobolevski, "Fast transport optimization for Monge costs on the circle",
2010; Rabin, Delon, Gousseau, "Transportation distances on the circle", 2011; Hundrieser, Klatt,
Munk, "The statistics of circular optimal transport", 2022.
"""

import math

import torch
from torch import Tensor

from monge._core.checks import finite, floating, given_weights, order, positive
from monge._core.numerics import absolute_power, root
from monge._core.promotion import ANY, promoted
from monge._core.typed import broadcast

RESOLUTION = 2.0**-46
"""How near θ comes to its minimum. Levels that are nearer than a few of these to each other are
equal: they are sums of weights, which have rounding of their own."""

MOST_EXPONENT = 500
"""Of powers of 2 that are no part of a plan."""


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
    weights, with gradient 0 where the distance is 0; that in weights loses its digits at orders
    above 20 or so.

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
    order(p)
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
    low, high = _brackets(u, v, f, g, p)
    # the slopes on both sides of the minimum, whose level moves with the weights: the convex
    # combination of both sides with slope 0 has the derivatives of the minimum
    steps = [_steps(u, v, f, g, theta) for theta in (low, high)]
    unit = _longest(*(z for pair in steps for z in pair))
    down, up = (_rise(*pair, unit, p) for pair in steps)
    share = torch.where(up > down, up / (up - down), 0.0)
    plans = [_at_level(u, v, f, g, theta) for theta in (low, high)]
    unit = _longest(*(gap.masked_fill(widths == 0, 0.0) for widths, gap in plans))
    at_low, at_high = (_mean_power(*plan, unit, p) for plan in plans)
    return share * at_low + (1 - share) * at_high, unit[..., 0]


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
    levels = weights.gather(-1, order).cumsum(-1)
    return levels / levels[..., -1:].detach()


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
    levels = g.detach() + theta.detach()[..., None]
    turns = levels.floor()
    index = torch.searchsorted(f.detach().contiguous(), levels - turns, right=True)
    index = index.clamp(max=u.shape[-1] - 1)
    at = u.gather(-1, index) + turns
    after = torch.cat([v[..., 1:], v[..., :1] + 1], -1)
    return at - v, at - after


def _rise(come: Tensor, go: Tensor, unit: Tensor, p: float) -> Tensor:
    """Σ |come|^p - |go|^p in a unit."""
    return (absolute_power(come / unit, p) - absolute_power(go / unit, p)).sum(-1)


@torch.no_grad()
def _brackets(u: Tensor, v: Tensor, f: Tensor, g: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """θ just before and just after the minimum of C, (*)."""
    low, high = u.new_full(u.shape[:-1], -1.0), u.new_full(u.shape[:-1], 1.0)
    for _ in range(round(math.log2(2 / RESOLUTION))):
        middle = (low + high) / 2
        steps = _steps(u, v, f, g, middle)
        falls = _rise(*steps, _longest(*steps), p) < 0
        low, high = torch.where(falls, middle, low), torch.where(falls, high, middle)
    # rounding may put the levels that meet at the minimum on the wrong side of one of both
    return low - RESOLUTION, high + RESOLUTION


def _at_level(u: Tensor, v: Tensor, f: Tensor, g: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Widths of the merged levels, v's of three turns, and how far both quantile functions are
    apart there."""
    n = u.shape[-1]
    turns = torch.cat([v - 1, v, v + 1], -1)
    shifted = torch.cat([g - 1, g, g + 1], -1) + theta[..., None]
    levels, place = torch.cat([f, shifted.clamp(0, 1)], -1).sort(dim=-1, stable=True)
    widths = levels.diff(dim=-1, prepend=torch.zeros_like(levels[..., :1]))
    # no mass where levels are equal, but a derivative in the weights
    widths = widths - torch.where(widths.detach() < 8 * RESOLUTION, widths.detach(), 0.0)
    of_v = (place >= n).long()
    j = of_v.cumsum(-1) - of_v
    i = torch.arange(levels.shape[-1], device=u.device) - j
    i, j = i.clamp(max=n - 1), j.clamp(max=turns.shape[-1] - 1)
    return widths, u.gather(-1, i) - turns.gather(-1, j)


def _mean_power(widths: Tensor, gap: Tensor, unit: Tensor, p: float) -> Tensor:
    """Σ widths |gap|^p in a unit; what has no width may be far longer."""
    beyond = (widths == 0) & (p * (gap.detach() / unit).abs().log2() > MOST_EXPONENT)
    return (widths * absolute_power((gap / unit).masked_fill(beyond, 0.0), p)).sum(-1)
