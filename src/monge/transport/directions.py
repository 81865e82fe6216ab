"""Directions of slices: independent, orthogonal in blocks, or of a Sobol sequence."""

import numpy as np
import torch
from torch import Tensor

from monge._core.checks import cpu_generator, dimension, finite
from monge._core.devices import to_device
from monge._core.promotion import as_tensor
from monge._core.typed import ndtri, qr


def uniform_directions(
    count: int, dim: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Independent uniform directions on the unit sphere.

    Args:
        count: how many.
        dim: d, the dimension of the points.
        generator: a CPU generator; torch's global one by default.

    Returns:
        Unit rows (count, dim), float32.

    Raises:
        ValueError: for a count or a dimension that is not a positive integer.
    """
    normal = torch.randn(
        dimension("count", count),
        dimension("dim", dim),
        generator=cpu_generator(generator),
        dtype=torch.float32,
        device="cpu",
    )
    return torch.nn.functional.normalize(normal, dim=1)


def orthogonal_directions(
    count: int, dim: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Uniform directions that are orthonormal in blocks of `dim`.

    Each is uniform on the sphere, and those of a block are as different as they can be, so that
    their mean over slices varies less than that of independent directions.

    Args:
        count: how many.
        dim: d, the dimension of the points.
        generator: a CPU generator; torch's global one by default.

    Returns:
        Unit rows (count, dim), float32.

    Raises:
        ValueError: for a count or a dimension that is not a positive integer.

    Source: Rowland et al., "Orthogonal estimation of Wasserstein distances", 2019.
    """
    blocks = -(-dimension("count", count) // dimension("dim", dim))
    normal = torch.randn(
        blocks, dim, dim, generator=cpu_generator(generator), dtype=torch.float64, device="cpu"
    )
    q, r = qr(normal)
    # with the signs of R's diagonal taken out, Q follows the Haar measure
    q = q * torch.diagonal(r, dim1=1, dim2=2).sign()[:, None]
    return q.transpose(1, 2).reshape(-1, dim)[:count].float()


def sobol_directions(count: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Quasi-Monte-Carlo directions, each of which is uniform on the sphere.

    A scrambled Sobol sequence is mapped through the normal quantile function and normalised.

    Args:
        count: how many.
        dim: d, the dimension of the points.
        generator: a CPU generator that seeds the scrambling; torch's global one by default.

    Returns:
        Unit rows (count, dim), float32.

    Raises:
        ValueError: for a count or a dimension that is not a positive integer, and for a dimension
            beyond those of the Sobol sequence (21,201).
    """
    dimension("count", count)
    if dimension("dim", dim) > torch.quasirandom.SobolEngine.MAXDIM:
        raise ValueError(
            f"`dim` {dim} is over {torch.quasirandom.SobolEngine.MAXDIM}: use uniform_directions"
        )
    seed = int(torch.randint(2**31, (), generator=cpu_generator(generator), device="cpu"))
    engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed)
    uniform = engine.draw(count, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return torch.nn.functional.normalize(ndtri(uniform), dim=1).float()


def ready_directions(
    directions: int | Tensor, like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Directions (L, d) for points like (n, d), in their dtype: given ones, or as many drawn."""
    dim = like.shape[1]
    if not isinstance(directions, (Tensor, np.ndarray, list, tuple)):
        drawn = uniform_directions(dimension("directions", directions), dim, generator=generator)
        return to_device(drawn, like.device).to(like.dtype)
    theta = as_tensor("directions", directions).detach()
    if theta.ndim != 2 or theta.shape[1] != dim or len(theta) < 1:
        raise ValueError(f"`directions` must have shape (L, {dim}), got {tuple(theta.shape)}")
    return finite("directions", theta.to(like))
