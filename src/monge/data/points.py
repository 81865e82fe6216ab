"""Point clouds: checked, put into the unit sphere, and turned."""

import math

import numpy as np
import torch
from torch import Tensor

from monge._core.promotion import EXACT_INTEGERS
from monge.draws import Draws

LARGEST = float(np.finfo(np.float32).max)


def finite_points(points: np.ndarray) -> np.ndarray:
    """Coordinates in float64, of which squares are finite as well."""
    whole = points.dtype.kind in "iu"
    with np.errstate(invalid="ignore"):  # casting some NaNs warns
        points = points.astype(np.float64)
    if whole and points.size and abs(points).max() > EXACT_INTEGERS:
        raise ValueError("integers beyond 2^53, which float64 rounds: subtract an offset")
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points)).sum())
        raise ValueError(f"{bad} NaN or infinite coordinates")
    if points.size and abs(points).max() > LARGEST:
        raise ValueError(f"coordinates beyond float32, up to {abs(points).max():.4g}")
    return points


def in_unit_sphere(points: np.ndarray) -> np.ndarray:
    """Clouds (…, N, 3) centred on their means and divided by their largest norms, in float32.

    Raises:
        ValueError: for NaN, infinity, or a cloud whose points coincide.
    """
    points = finite_points(points)
    points = points - points.mean(-2, keepdims=True)
    size = np.linalg.norm(points, axis=-1).max(-1)
    if not (size > 0).all():
        raise ValueError("all points of a cloud coincide")
    return (points / size[..., None, None]).astype(np.float32)


def turned(x: Tensor, draws: Draws, *, turn: bool, jitter: float) -> Tensor:
    """Clouds (n, N, 3), each rotated about y by a random angle where `turn`, and with noise
    of deviation `jitter` on every point."""
    if turn:
        angle = (
            2
            * math.pi
            * draws.rows(
                "turn", lambda n, g: torch.rand(n, generator=g, dtype=torch.float32, device="cpu")
            ).to(x)
        )
        c, s, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        rows = [c, zero, s, zero, zero + 1, zero, -s, zero, c]
        x = x @ torch.stack(rows, 1).view(-1, 3, 3).mT
    return x + jitter * draws.normal("jitter", x) if jitter else x
