r"""Transport on the line, in closed form.

    W_p^p(μ, ν) = ∫_0^1 |F_μ^{-1}(t) - F_ν^{-1}(t)|^p dt,

attained by the monotone map F_ν^{-1} ∘ F_μ. For samples of equal size and weight both quantile
functions jump at the same levels and the integral is a mean over sorted values; otherwise it is
a sum over the merged levels of the two distribution functions.

Source: Santambrogio, "Optimal transport for applied mathematicians", 2015, chapter 2.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from monge._core.checks import finite, floating, given_weights, order
from monge._core.numerics import absolute_power, rooted, with_gradient
from monge._core.promotion import ANY, promoted
from monge._core.tuning import tuning
from monge._core.typed import broadcast
from monge.gpu.launch import is_usable
from monge.transport.sorting import sort, sort_, sorted_with_order

TIE = 2.0**-43
"""Levels that are nearer than this are equal, but for the rounding of sums of weights."""
MOST_EXPONENT = 1000
"""The largest exponent of 2 in derivatives in weights of 0, which may be those of a far point."""


def _levels(values: Tensor, weights: Tensor | None, order: Tensor | None) -> Tensor:
    """The distribution function at sorted values, in float64.

    Uniform levels are quotients of integers, so that equal levels of two sizes are equal numbers.
    """
    n = values.shape[-1]
    if weights is None or order is None:
        ranks = torch.arange(1, n + 1, dtype=torch.float64, device=values.device)
        return (ranks / n).expand(values.shape)
    levels = weights.double().expand(values.shape).gather(-1, order).cumsum(-1)
    # at 1 exactly, so that values without mass behind the last one get none by rounding
    return levels / levels[..., -1:].detach()


def _sorted(values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Sorted values, with the permutation where a gradient or weights need it."""
    if weights is None and not (values.requires_grad and torch.is_grad_enabled()):
        return sort_(values.detach().clone())[0], None
    return sort(values)


def merged(
    u: Tensor, v: Tensor, a: Tensor | None = None, b: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The monotone plan of samples (\*, n) and (\*, m): widths of levels, and both values there.

    All three are (\*, k), with k = n for equal sizes without weights, else n + m.
    """
    u, order_u = _sorted(u, a)
    v, order_v = _sorted(v, b)
    if a is None and b is None and u.shape[-1] == v.shape[-1]:
        return u.new_full((1,), 1 / u.shape[-1]), u, v
    batch = broadcast(u.shape[:-1], v.shape[:-1])
    levels_u = _levels(u, a, order_u).expand(*batch, -1).contiguous()
    levels_v = _levels(v, b, order_v).expand(*batch, -1).contiguous()
    u, v = u.expand(*batch, -1), v.expand(*batch, -1)
    levels, place = torch.cat([levels_u, levels_v], -1).sort(dim=-1, stable=True)
    widths = levels.diff(dim=-1, prepend=torch.zeros_like(levels[..., :1]))
    # The quantiles up to a level are the values after all levels that come before it. Where levels
    # of both sides are equal, u moves on before v: the pair between them has no width, but without
    # it the derivative in the weights would miss a cell of the plan.
    of_v = (place >= u.shape[-1]).long()
    j = of_v.cumsum(-1) - of_v
    i = torch.arange(levels.shape[-1], device=u.device) - j
    i, j = i.clamp(max=u.shape[-1] - 1), j.clamp(max=v.shape[-1] - 1)
    return widths.to(u.dtype), u.gather(-1, i), v.gather(-1, j)


def plain_power(u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None, p: float) -> Tensor:
    """W_p^p over the last dimension, as a graph."""
    widths, u, v = merged(u, v, a, b)
    gap = u - v
    if p != 2:
        # pairs at equal levels are no part of the plan, and their powers may overflow
        gap = gap.masked_fill(widths == 0, 0.0)
    power = (widths.detach() * absolute_power(gap, p)).sum(-1)
    if not widths.requires_grad:
        return power
    # nothing but the derivatives in the weights
    moved = (widths - widths.detach()).double() * _sums_of_potentials(widths, u, v, p)
    return power + moved.sum(-1).to(power)


def _sums_of_potentials(widths: Tensor, u: Tensor, v: Tensor, p: float) -> Tensor:
    r"""f_i + g_j of all cells (i, j) of the monotone plan, float64, (\*, k): derivatives of W_p^p
    in widths of levels.

    They are the costs where there is mass. Between such a cell (i, j) and the next one (i', j'),
    where levels of both sides are equal, f rises by the number nearest to 0 in

        c(i', j') - c(i, j') ≤ f_{i'} - f_i ≤ c(i', j) - c(i, j).

    The costs of cells in between may be far larger than those of the plan, and would leave no
    digits of it. Points without mass have the largest potentials that no cost forbids.
    """
    u, v = u.double(), v.double()
    full = widths.detach() > TIE
    unit = (u - v).detach().masked_fill(~full, 0.0).abs().amax(-1, keepdim=True)
    unit = torch.where(unit > 0, unit, 1.0)
    here, after = cells_with_mass(full.expand(u.shape))
    # before the first cell with mass, and behind the last one, there is no other
    here = torch.where(here < 0, after, here)
    after = torch.where(after < full.shape[-1], after, here)
    u_here, v_here, u_next, v_next = (z.gather(-1, k) for k in (here, after) for z in (u, v))

    def costs(u: Tensor, v: Tensor) -> Tensor:
        longest = 2.0 ** (MOST_EXPONENT / p)
        return absolute_power(((u - v) / unit).clamp(-longest, longest), p)

    cost, next_cost = costs(u_here, v_here), costs(u_next, v_next)
    low = next_cost - costs(u_here, v_next)
    high = costs(u_next, v_here) - cost
    rise = torch.minimum(torch.maximum(torch.zeros_like(low), low), high)
    f = torch.minimum(costs(u, v_here) - cost, costs(u, v_next) - next_cost + rise)
    g = torch.minimum(costs(u_here, v), costs(u_next, v) - rise)
    return torch.where(full, cost, f + g) * unit**p


def cells_with_mass(full: Tensor) -> tuple[Tensor, Tensor]:
    r"""The last cell with mass up to each of them (\*, k), or -1, and the next one, or k."""
    size = full.shape[-1]
    place = torch.arange(size, device=full.device).expand(full.shape)
    here = place.masked_fill(~full, -1).cummax(-1).values
    after = place.masked_fill(~full, size).flip(-1).cummin(-1).values.flip(-1)
    return here, torch.cat([after[..., 1:], torch.full_like(here[..., :1], size)], -1)


Slopes = list[Tensor | None]


def power_with_slopes(
    u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None, p: float, wanted: Sequence[bool]
) -> tuple[Tensor, Slopes]:
    r"""W_p^p of the rows u (l, n) and v (l, m), and its gradient in u and in v where `wanted`.

    Weights are (n,) or (l, n). Powers are float64, whatever the rows are.

    The caller gives the rows away: for large ones most of the time goes into allocating memory, so
    they are overwritten, and a gradient may be returned in their memory.
    """
    if a is None and b is None and u.shape[-1] == v.shape[-1]:
        return choose_matching(u)(u, v, p, wanted)
    u, order_u = sorted_with_order(u) if wanted[0] or a is not None else (*sort_(u), None)
    v, order_v = sorted_with_order(v) if wanted[1] or b is not None else (*sort_(v), None)
    # rows without weights share their levels
    levels_u = _levels(u[:1] if a is None else u, a, order_u)
    levels_v = _levels(v[:1] if b is None else v, b, order_v)
    widths, i, j = _merged_levels(levels_u, levels_v)
    gap = _taken(u, i).sub_(_taken(v, j))
    if p != 2:
        # pairs at equal levels are no part of the plan, and their powers may overflow
        gap.masked_fill_(widths == 0, 0.0)
    slope = gap if p == 2 else gap.abs().pow_(p - 1).mul_(gap.sign())
    slope = slope * widths.to(slope)
    powers = (slope * gap).sum(-1, dtype=torch.float64)
    sides = ((u, order_u, i, p, wanted[0]), (v, order_v, j, -p, wanted[1]))
    return powers, [
        None if order is None or not need else _spread(z, order, index, slope).mul_(factor)
        for z, order, index, factor, need in sides
    ]


Matching = Callable[[Tensor, Tensor, float, Sequence[bool]], tuple[Tensor, Slopes]]


def choose_matching(u: Tensor) -> Matching:
    """Picks how rows (l, n) of equally many values are matched.

    The rule: short rows of float32 by a kernel that sorts in registers, where kernels run; others
    by sorting all rows at once.
    """
    is_short = u.dtype == torch.float32 and u.shape[-1] <= tuning(u.device).row_values
    if is_short and is_usable(u.device):
        from monge.gpu.short_rows import matched

        return matched
    return _matched


def _spread(rows: Tensor, order: Tensor, index: Tensor, slope: Tensor) -> Tensor:
    """The slopes at levels, summed at the places of the values that are taken there."""
    return torch.zeros_like(rows).scatter_add_(-1, _taken(order, index), slope)


def _taken(rows: Tensor, index: Tensor) -> Tensor:
    """rows[l, index[l, k]], where one row of indices may serve all."""
    return rows[:, index[0]] if len(index) == 1 else rows.gather(-1, index)


def _merged_levels(levels_u: Tensor, levels_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Widths (l, n + m) between the merged levels (l, n) and (l, m), and the indices of both
    quantiles there.

    The last bit of a level says which side it is from, so that one sort without a permutation
    suffices: the running count of the tags is the index. Levels are raised by 1, since a tag on a
    level of 0 would be a denormal number, which a process may flush to 0.
    """
    rows = max(len(levels_u), len(levels_v))
    n, m = levels_u.shape[-1], levels_v.shape[-1]
    levels = torch.cat([levels_u.expand(rows, n), levels_v.expand(rows, m)], 1).add_(1)
    bits = levels.view(torch.int64)
    bits[:, :n] &= -2
    bits[:, n:] |= 1
    sort_(levels)
    tags = bits & 1
    # equal levels of both sides are equal again, and the width between them is 0
    bits ^= tags
    j = tags.cumsum(1).sub_(tags)
    i = torch.arange(n + m, device=levels.device) - j
    widths = levels.diff(dim=1, prepend=levels.new_ones(rows, 1))
    return widths, i.clamp_(max=n - 1), j.clamp_(max=m - 1)


def _matched(u: Tensor, v: Tensor, p: float, wanted: Sequence[bool]) -> tuple[Tensor, Slopes]:
    """`power_with_slopes` of equal sizes without weights: the k-th smallest values meet."""
    of_u = of_v = None
    if not any(wanted):
        u, v = sort_(u, v)
    else:
        u, of_u = sorted_with_order(u) if wanted[0] else (*sort_(u), None)
        v, of_v = sorted_with_order(v) if wanted[1] else (*sort_(v), None)
    gap, n = u.sub_(v), u.shape[-1]
    slope = gap if p == 2 else gap.abs().pow_(p - 1).mul_(gap.sign())
    # v is no longer needed: its memory takes the products, then the gradient in u
    powers = torch.mul(gap, slope, out=v).sum(-1, dtype=torch.float64) / n
    slope.mul_(p / n)
    du = None if of_u is None else v.scatter_(-1, of_u, slope)
    dv = None if of_v is None else torch.empty_like(slope).scatter_(-1, of_v, slope).neg_()
    return powers, [du, dv]


def power_1d(
    u: Tensor, v: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, p: float = 2
) -> Tensor:
    """W_p^p over the last dimension, unchecked: what `wasserstein_1d` takes the root of."""
    batch = u.shape[:-1]
    weighted = any(w is not None and (w.requires_grad or w.ndim > 1) for w in (a, b))
    if batch != v.shape[:-1] or weighted:
        return plain_power(u, v, a, b, p)

    def fast(u: Tensor, v: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Slopes]:
        shapes = u.shape, v.shape
        # `power_with_slopes` overwrites rows only where it sorts them in place, for no gradient
        u, v = (
            (z if need else z.clone()).reshape(-1, z.shape[-1]) for z, need in zip((u, v), wanted)
        )
        powers, slopes = power_with_slopes(u, v, a, b, p, wanted)
        back = [None if s is None else s.view(shape) for s, shape in zip(slopes, shapes)]
        return powers.view(batch).to(u.dtype), back

    def plain(u: Tensor, v: Tensor) -> Tensor:
        return plain_power(u, v, a, b, p)

    return with_gradient(fast, plain, u, v)


def _values(name: str, values: Tensor) -> Tensor:
    floating(name, values)
    if values.ndim < 1 or values.shape[-1] < 1:
        raise ValueError(f"`{name}` must hold a value, got shape {tuple(values.shape)}")
    return finite(name, values)


def _batched(u: Tensor, v: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """u and v with the batch dimensions of all, if these broadcast."""
    shapes = [z.shape[:-1] for z in (u, v, *others)]
    try:
        batch = broadcast(*shapes)
    except RuntimeError:
        raise ValueError(
            "batch dimensions of `u`, `v` and weights must broadcast, got "
            f"{', '.join(str(tuple(shape)) for shape in shapes)}"
        ) from None
    u, v = (z if z.shape[:-1] == batch else z.expand(*batch, -1) for z in (u, v))
    return u, v


@promoted(u=ANY, v=ANY, a=ANY, b=ANY)
def wasserstein_1d(
    u: Tensor, v: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, p: float = 2
) -> Tensor:
    r"""W_p between samples on the line, over the last dimension, batched over the others.

    Args:
        u: values (\*, n).
        v: values (\*, m), with batch dimensions that broadcast against those of `u`.
        a: weights (n,) or (\*, n), at least 0 with sum 1; uniform by default.
        b: weights (m,) or (\*, m).
        p: order, at least 1.

    Returns:
        W_p, with the root, shaped like the batch dimensions.

    Raises:
        ValueError: for an empty sample, NaN or infinity, p < 1, or invalid weights.
    """
    p = order(p)
    u, v = _values("u", u), _values("v", v)
    a, b = given_weights("a", a, u.shape[-1]), given_weights("b", b, v.shape[-1])
    u, v = _batched(u, v, *(w for w in (a, b) if w is not None))
    return rooted(lambda u, v, q: power_1d(u, v, a, b, p=q), u, v, p)


@promoted(u=ANY, v=ANY)
def quantile_map(u: Tensor, v: Tensor) -> Tensor:
    r"""The monotone map F_ν^{-1} ∘ F_μ between samples on the line, at each value of the first.

    With n = m it is a permutation of v, the optimal assignment for every convex cost; equal
    values of u share out their images in the order of their indices.

    Args:
        u: values (\*, n).
        v: values (\*, m), with the same leading dimensions or ones that broadcast.

    Returns:
        The image of each value of u, (\*, n).

    Raises:
        ValueError: for empty samples, NaN or infinity, or leading dimensions that do not fit.
    """
    u, v = _batched(_values("u", u), _values("v", v))
    n, m = u.shape[-1], v.shape[-1]
    rank = u.argsort(dim=-1, stable=True).argsort(-1)
    # F_ν reaches the level (rank + 1) / n at its ⌈(rank + 1) m / n⌉-th value
    index = torch.div((rank + 1) * m + n - 1, n, rounding_mode="floor") - 1
    batch = broadcast(u.shape[:-1], v.shape[:-1])
    return v.sort(-1).values.expand(*batch, -1).gather(-1, index.expand(*batch, -1))
