r"""Divergences between discrete distributions p and q on a shared support.

Both are (\*, k), at least 0 with sum 1 over the last dimension; the divergence is (\*). The
reverse Kullback-Leibler divergence is `kullback_leibler(q, p)`; W_1 on a line of points is
`wasserstein_1d(points, points, p, q, p=1)`.
"""

import torch
from torch import Tensor

from monge._core.checks import weights


def _checked(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    count = p.shape[-1] if p.ndim else 0
    return weights("p", p, count), weights("q", q, count)


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """½ Σ |p - q|, between 0 and 1."""
    p, q = _checked(p, q)
    return 0.5 * (p - q).abs().sum(-1)


def kullback_leibler(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p log(p / q) in nats, infinite where p has mass that q has not."""
    p, q = _checked(p, q)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½ (p + q), in nats, between 0 and log 2."""
    p, q = _checked(p, q)
    middle = 0.5 * (p + q)
    both = torch.xlogy(p, p) + torch.xlogy(q, q) - torch.xlogy(2 * middle, middle)
    return 0.5 * both.sum(-1)
