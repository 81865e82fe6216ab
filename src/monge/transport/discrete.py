r"""Divergences between discrete distributions p and q on a shared support.

Both are (\*, k), at least 0 with sum 1 over the last dimension; the divergence is (\*). The
reverse Kullback-Leibler divergence is `kullback_leibler(q, p)`; W_1 on a line of points is
`wasserstein_1d(points, points, p, q, p=1)`.
"""

import torch
from torch import Tensor

from monge._core.checks import weights
from monge._core.numerics import xlog_ratio
from monge._core.promotion import ANY, promoted


def _checked(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    count = p.shape[-1] if p.ndim else 0
    return weights("p", p, count), weights("q", q, count)


@promoted(p=ANY, q=ANY)
def total_variation(p: Tensor, q: Tensor) -> Tensor:
    r"""½ Σ |p - q|, between 0 and 1.

    Args:
        p: (\*, k), at least 0 with sum 1 over the last dimension.
        q: (\*, k).

    Returns:
        (\*).

    Raises:
        ValueError: for other shapes, NaN, a negative entry, or a sum that is not 1.
    """
    p, q = _checked(p, q)
    return 0.5 * (p - q).abs().sum(-1)


def _on_support(p: Tensor) -> Tensor:
    """p with gradient 0 in empty bins, and the mean over the others taken from theirs.

    Mass that enters an empty bin changes p log p at an infinite rate, so no derivative along
    changes of the sum exists there; along those that keep the bin empty it does.
    """
    full = p > 0
    inside = torch.where(full, p, 0.0)
    mean = inside.sum(-1, keepdim=True) / full.sum(-1, keepdim=True)
    return torch.where(full, inside + (mean.detach() - mean), 0.0)


@promoted(p=ANY, q=ANY)
def kullback_leibler(p: Tensor, q: Tensor) -> Tensor:
    r"""KL(p ‖ q) = Σ p log(p / q) in nats, infinite where p has mass and q has none.

    The gradient in p is 0 in its empty bins, where the derivative is infinite.

    Args:
        p: (\*, k), at least 0 with sum 1 over the last dimension.
        q: (\*, k).

    Returns:
        (\*).

    Raises:
        ValueError: for other shapes, NaN, a negative entry, or a sum that is not 1.
    """
    p, q = _checked(p, q)
    return xlog_ratio(_on_support(p), q).sum(-1)


@promoted(p=ANY, q=ANY)
def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    r"""½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½ (p + q), in nats, between 0 and log 2.

    The gradient in p is 0 in its empty bins, and that in q in those of q, where the derivative
    is infinite or, for a bin that is empty in both, does not exist.

    Args:
        p: (\*, k), at least 0 with sum 1 over the last dimension.
        q: (\*, k).

    Returns:
        (\*).

    Raises:
        ValueError: for other shapes, NaN, a negative entry, or a sum that is not 1.
    """
    p, q = (_on_support(w) for w in _checked(p, q))
    middle = 0.5 * (p + q)
    return 0.5 * (xlog_ratio(p, middle) + xlog_ratio(q, middle)).sum(-1)
