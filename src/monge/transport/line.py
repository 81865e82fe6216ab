r"""Transport on the line, in closed form.

    W_p^p(μ, ν) = ∫_0^1 |F_μ^{-1}(t) - F_ν^{-1}(t)|^p dt,

attained by the monotone map F_ν^{-1} ∘ F_μ. For samples of equal size and weight both quantile
functions jump at the same levels and the integral is a mean over sorted values; otherwise it is
a sum over the merged levels of the two distribution functions.

Source: Santambrogio, "Optimal transport for applied mathematicians", 2015, chapter 2.
"""

import torch
from torch import Tensor

from monge.checks import finite, floating, order, weights
from monge.numerics import root
from monge.transport.sorting import sort, sorted_rows


def _levels(values: Tensor, weights: Tensor | None, order: Tensor | None) -> Tensor:
    """The distribution function at sorted values, in float64.

    Uniform levels are quotients of integers, so that equal levels of two sizes are equal numbers.
    """
    n = values.shape[-1]
    if weights is None or order is None:
        ranks = torch.arange(1, n + 1, dtype=torch.float64, device=values.device)
        return (ranks / n).expand(values.shape)
    return weights.double().expand(values.shape).gather(-1, order).cumsum(-1)


def _sorted(values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Sorted values, with the permutation where a gradient or weights need it."""
    if weights is None and not (values.requires_grad and torch.is_grad_enabled()):
        return sorted_rows(values), None
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
    batch = torch.broadcast_shapes(u.shape[:-1], v.shape[:-1])
    levels_u = _levels(u, a, order_u).expand(*batch, -1).contiguous()
    levels_v = _levels(v, b, order_v).expand(*batch, -1).contiguous()
    u, v = u.expand(*batch, -1), v.expand(*batch, -1)
    levels = torch.cat([levels_u, levels_v], -1).sort(-1).values.clamp(max=1)
    widths = levels.diff(dim=-1, prepend=torch.zeros_like(levels[..., :1]))
    # the quantile at a level is the first value whose distribution function reaches it
    i = torch.searchsorted(levels_u.detach(), levels.detach()).clamp(max=u.shape[-1] - 1)
    j = torch.searchsorted(levels_v.detach(), levels.detach()).clamp(max=v.shape[-1] - 1)
    return widths.to(u.dtype), u.gather(-1, i), v.gather(-1, j)


def power_1d(
    u: Tensor, v: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, p: float = 2
) -> Tensor:
    """W_p^p over the last dimension, unchecked: what `wasserstein_1d` takes the root of."""
    widths, u, v = merged(u, v, a, b)
    return (widths * (u - v).abs().pow(p)).sum(-1)


def _values(name: str, values: Tensor) -> Tensor:
    floating(name, values)
    if values.ndim < 1 or values.shape[-1] < 1:
        raise ValueError(f"`{name}` must hold a value, got shape {tuple(values.shape)}")
    return finite(name, values)


def wasserstein_1d(
    u: Tensor, v: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, p: float = 2
) -> Tensor:
    r"""W_p between samples on the line, over the last dimension, batched over the others.

    Arguments:
        u: values (\*, n).
        v: values (\*, m), with batch dimensions that broadcast against those of `u`.
        a: weights (n,) or (\*, n), at least 0 with sum 1; uniform by default.
        b: weights (m,) or (\*, m).
        p: order, at least 1.

    Returns:
        W_p, with the root, shaped like the batch dimensions.

    Raises:
        ValueError: for an empty sample, NaN or infinity, p < 1, or weights that are no law.
    """
    order(p)
    u, v = _values("u", u), _values("v", v)
    a = None if a is None else weights("a", a, u.shape[-1])
    b = None if b is None else weights("b", b, v.shape[-1])
    return root(power_1d(u, v, a, b, p=p), p)


def quantile_map(u: Tensor, v: Tensor) -> Tensor:
    r"""The monotone map F_ν^{-1} ∘ F_μ of samples u (\*, n) and v (\*, m), at each u: (\*, n).

    With n = m it is a permutation of v, the optimal assignment for every convex cost; equal
    values of u share out their images in the order of their indices.
    """
    u, v = _values("u", u), _values("v", v)
    n, m = u.shape[-1], v.shape[-1]
    rank = u.argsort(dim=-1, stable=True).argsort(-1)
    # F_ν reaches the level (rank + 1) / n at its ⌈(rank + 1) m / n⌉-th value
    index = torch.div((rank + 1) * m + n - 1, n, rounding_mode="floor") - 1
    batch = torch.broadcast_shapes(u.shape[:-1], v.shape[:-1])
    return v.sort(-1).values.expand(*batch, -1).gather(-1, index.expand(*batch, -1))
