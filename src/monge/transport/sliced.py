r"""Sliced Wasserstein distances: the line's closed form, averaged over directions.

    SW_p^p(μ, ν) = ∫_{S^{d-1}} W_p^p(θ_# μ, θ_# ν) dθ,    θ_# the projection x ↦ θ·x,

estimated by a mean over drawn directions θ_1 … θ_L.

Source: Bonneel, Rabin, Peyré, Pfister, "Sliced and Radon Wasserstein barycenters of measures",
2015; Deshpande, Zhang, Schwing, "Generative modeling using the sliced Wasserstein distance", 2018.
"""

import torch
from torch import Tensor

from monge.checks import dimension, finite, order, sample_pair, weights
from monge.numerics import root
from monge.transport.line import power_1d


def uniform_directions(
    count: int, dim: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """`count` independent uniform directions on the unit sphere, (count, dim), float32."""
    normal = torch.randn(dimension("count", count), dimension("dim", dim), generator=generator)
    return torch.nn.functional.normalize(normal, dim=1)


def sliced_powers(x: Tensor, y: Tensor, directions: Tensor, p: float) -> Tensor:
    """W_p^p of the projections on each direction, (L,), unchecked."""
    return power_1d(directions @ x.T, directions @ y.T, p=p)


def sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
    directions: int | Tensor = 128,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The sliced distance SW_p, with the root.

    Arguments:
        x: points (n, d).
        y: points (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        p: order, at least 1.
        directions: how many to draw, or a tensor (L, d) of unit directions, used as they are.
        generator: draws the directions, on the CPU; torch's global one by default.

    Raises:
        ValueError: for an empty sample, NaN or infinity, unlike dimensions, p < 1, or weights
            that are no law.
    """
    x, y = sample_pair(x, y)
    finite("x", x)
    finite("y", y)
    order(p)
    if not isinstance(directions, Tensor):
        directions = uniform_directions(directions, x.shape[1], generator=generator)
    elif directions.ndim != 2 or directions.shape[1] != x.shape[1]:
        raise ValueError(
            f"`directions` must have shape (L, {x.shape[1]}), got {tuple(directions.shape)}"
        )
    theta = directions.to(x)
    a = None if a is None else weights("a", a, len(x))
    b = None if b is None else weights("b", b, len(y))
    return root(power_1d(theta @ x.T, theta @ y.T, a, b, p=p).mean(), p)
