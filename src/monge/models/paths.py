"""Paths through the latent space: lines, great circles, and one coordinate at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from monge._core.promotion import as_tensor
from monge._core.typed import vector_norm

Path = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(a, b, t) to the code at t in [0, 1] of the way from a to b."""


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """From a to b (*, dim) at t in [0, 1]: the direction on a great circle at constant speed, the
    length linearly. Opposite directions, which have no unique great circle, go straight.

    Source: White, "Sampling generative networks", 2016.
    """
    a, b, t = as_tensor("a", a), as_tensor("b", b), as_tensor("t", t)
    near, far = _length(a), _length(b)
    u, v = a / near.clamp_min(1e-30), b / far.clamp_min(1e-30)
    # exact for small and for straight angles
    angle = 2 * torch.atan2(_length(u - v), _length(u + v))
    sine = angle.sin()
    turned = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / sine.clamp_min(1e-30)
    curved = torch.lerp(near, far, t) * turned
    return torch.where((sine > 1e-4) & (near * far > 0), curved, torch.lerp(a, b, t))


def _length(z: Tensor) -> Tensor:
    """The Euclidean norms of z (*, dim), (*, 1)."""
    return vector_norm(z, -1)[..., None]


def moved(z: Tensor, levels: Tensor) -> Tensor:
    """Codes z (n, dim) with each coordinate in turn set to each level (k,): (n · dim · k, dim)."""
    dim = z.shape[1]
    codes = z[:, None, None].repeat(1, dim, len(levels), 1)
    coordinate = torch.arange(dim, device=z.device)
    codes[:, coordinate, :, coordinate] = levels.to(z)
    return codes.flatten(0, 2)


def between(a: Tensor, b: Tensor, count: int, path: Path) -> Tensor:
    """`count` codes from each of a to each of b (n, dim) along a path: (n · count, dim)."""
    t = torch.linspace(0, 1, count, device=a.device, dtype=a.dtype)[None, :, None]
    return path(a[:, None], b[:, None], t).flatten(0, 1)
