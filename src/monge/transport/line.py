r"""Transport on the line, in closed form.

    W_p^p(μ, ν) = ∫_0^1 |F_μ^{-1}(t) - F_ν^{-1}(t)|^p dt,

attained by the monotone map F_ν^{-1} ∘ F_μ. For samples of equal size and weight both quantile
functions jump at the same levels and the integral is a mean over sorted values; otherwise it is
a sum over the merged levels of the two distribution functions.

Source: Santambrogio, "Optimal transport for applied mathematicians", 2015, chapter 2.
"""

import torch
from torch import Tensor

from monge.checks import finite, floating, order


def root(value: Tensor, p: float) -> Tensor:
    """value^{1/p}, with gradient 0 where the value is 0."""
    if p == 1:
        return value
    zero = value == 0
    return torch.where(zero, 1.0, value).pow(1 / p).masked_fill(zero, 0.0)


def _weights(name: str, w: Tensor, values: Tensor) -> Tensor:
    if w.shape[-1:] != values.shape[-1:]:
        raise ValueError(
            f"`{name}` must hold a weight for each of the {values.shape[-1]} values, "
            f"got shape {tuple(w.shape)}"
        )
    total = w.detach().double().sum(-1)
    if not (torch.all(w >= 0) and torch.allclose(total, torch.ones_like(total), atol=1e-5)):
        raise ValueError(f"`{name}` must be at least 0 and sum to 1: divide it by its sum")
    return w.expand(values.shape)


def power_1d(
    u: Tensor, v: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, p: float = 2
) -> Tensor:
    """W_p^p over the last dimension, unchecked: what `wasserstein_1d` takes the root of."""
    u, order_u = u.sort(-1)
    v, order_v = v.sort(-1)
    if a is None and b is None and u.shape[-1] == v.shape[-1]:
        return (u - v).abs().pow(p).mean(-1)
    a = torch.full_like(u, 1 / u.shape[-1]) if a is None else a.expand(u.shape).gather(-1, order_u)
    b = torch.full_like(v, 1 / v.shape[-1]) if b is None else b.expand(v.shape).gather(-1, order_v)
    levels_u, levels_v = a.cumsum(-1), b.cumsum(-1)
    batch = torch.broadcast_shapes(u.shape[:-1], v.shape[:-1])
    u, levels_u = u.expand(*batch, -1), levels_u.expand(*batch, -1).contiguous()
    v, levels_v = v.expand(*batch, -1), levels_v.expand(*batch, -1).contiguous()
    levels = torch.cat([levels_u, levels_v], -1).sort(-1).values.clamp(max=1)
    widths = levels.diff(dim=-1, prepend=torch.zeros_like(levels[..., :1]))
    # the quantile at a level is the first value whose distribution function reaches it
    i = torch.searchsorted(levels_u.detach(), levels.detach()).clamp(max=u.shape[-1] - 1)
    j = torch.searchsorted(levels_v.detach(), levels.detach()).clamp(max=v.shape[-1] - 1)
    return (widths * (u.gather(-1, i) - v.gather(-1, j)).abs().pow(p)).sum(-1)


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
    for name, values in (("u", u), ("v", v)):
        floating(name, values)
        if values.ndim < 1 or values.shape[-1] < 1:
            raise ValueError(f"`{name}` must hold a value, got shape {tuple(values.shape)}")
        finite(name, values)
    a = None if a is None else _weights("a", a, u)
    b = None if b is None else _weights("b", b, v)
    return root(power_1d(u, v, a, b, p=p), p)


def quantile_map(u: Tensor, v: Tensor) -> Tensor:
    r"""The monotone map F_ν^{-1} ∘ F_μ of samples u (\*, n) and v (\*, m), at each u: (\*, n).

    With n = m it is a permutation of v, the optimal assignment for every convex cost.
    """
    n, m = u.shape[-1], v.shape[-1]
    rank = u.argsort(-1).argsort(-1)
    # F_ν reaches the level (rank + 1) / n at its ⌈(rank + 1) m / n⌉-th value
    index = torch.div((rank + 1) * m + n - 1, n, rounding_mode="floor") - 1
    return v.sort(-1).values.gather(-1, index)
