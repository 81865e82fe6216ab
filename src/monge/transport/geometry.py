r"""Transport on the sphere and on hyperbolic space: geodesic distances and slices.

Geodesic distances, (n, m), make costs: `solve(spherical_distances(x, y) ** p)` is exact transport
on the sphere. A slice of the sphere is a great circle, to which points are projected along
geodesics; a slice of hyperbolic space is a line, by the slicers `Geodesic` and `Horospherical`
(`monge.transport.slicers`).

Points of the sphere S^{d-1} are unit vectors in R^d. Points of hyperbolic space are those of the
hyperboloid in R^{d+1}: ⟨x, x⟩ = -1 and x_0 > 0, for the form ⟨x, y⟩ = Σ_{i≥1} x_i y_i - x_0 y_0.

Source: Bonet, Berg, Courty, Septier, Drumetz, Pham, "Spherical sliced-Wasserstein", 2023; Bonet,
Chapel, Drumetz, Courty, "Hyperbolic sliced-Wasserstein via geodesic and horospherical
projections", 2023.
"""

import math

import torch
from torch import Tensor

from monge._core.checks import (
    MOST_OFF,
    dimension,
    given_weights,
    on_hyperboloid,
    on_sphere,
    order,
    points,
)
from monge._core.devices import to_device
from monge._core.numerics import distances, root
from monge._core.promotion import WEIGHTS, as_tensor, promoted
from monge._core.typed import qr
from monge.transport.circle import power_circle


@promoted(x=2, y=2)
def spherical_distances(x: Tensor, y: Tensor) -> Tensor:
    """Great-circle distances arccos(x_i·y_j), (n, m), in radians.

    Computed as 2 arctan(‖x - y‖ / ‖x + y‖), which loses no digits of close or opposite points.
    Differentiable, with gradient 0 where points are equal or opposite.

    Args:
        x: unit vectors (n, d).
        y: unit vectors (m, d).

    Raises:
        ValueError: for vectors whose norms are not 1.
    """
    dtype = points(x, y, 1)[0].dtype
    x, y = on_sphere("x", x), on_sphere("y", y)
    return (2 * torch.atan2(distances(x, y), distances(x, -y))).to(dtype)


@promoted(x=2, y=2)
def hyperbolic_distances(x: Tensor, y: Tensor) -> Tensor:
    """Distances arcosh(-⟨x_i, y_j⟩) on the hyperboloid, (n, m).

    Computed as 2 arsinh(√⟨x - y, x - y⟩ / 2), which loses no digits of close points near the
    origin. Differentiable, with gradient 0 where points are equal.

    Args:
        x: points (n, d + 1) of the hyperboloid, ⟨x, x⟩ = -1, x_0 > 0.
        y: points (m, d + 1).

    Raises:
        ValueError: for points off the hyperboloid.
    """
    dtype = points(x, y, 1)[0].dtype
    x, y = on_hyperboloid("x", x), on_hyperboloid("y", y)
    space = (x[:, None, 1:] - y[:, 1:]).square().sum(2)
    # x_0 - y_0 = (‖x‖² - ‖y‖²) / (x_0 + y_0) of the other coordinates
    time = ((x[:, None, 1:] - y[:, 1:]) * (x[:, None, 1:] + y[:, 1:])).sum(2)
    time = time / (x[:, None, 0] + y[:, 0])
    return (2 * torch.asinh(root((space - time.square()).clamp_min(0)) / 2)).to(dtype)


# Slices of the sphere


def great_circles(count: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """`count` independent uniform great circles of S^{dim-1}, as orthonormal pairs of vectors,
    (count, dim, 2), float64."""
    if dimension("dim", dim) < 2:
        raise ValueError(f"`dim` must be at least 2 for a circle, got {dim}")
    shape = (dimension("count", count), dim, 2)
    return qr(torch.randn(shape, generator=generator, dtype=torch.float64))[0]


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def spherical_sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
    circles: int | Tensor = 128,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The spherical sliced distance SSW_p, with the root, in radians.

        SSW_p^p(μ, ν) = ∫ W_p^p(P^U_# μ, P^U_# ν) dU,    P^U(x) = U^T x / ‖U^T x‖,

    over great circles, the planes spanned by orthonormal pairs U; W_p is that of the circle. A
    point is projected to the nearest one of a great circle. Differentiable in points and weights.

    Args:
        x: unit vectors (n, d), d ≥ 2.
        y: unit vectors (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        p: order, at least 1.
        circles: how many great circles to draw, or a tensor (L, d, 2) of orthonormal pairs.
        generator: draws the circles, on the CPU; torch's global one by default.

    Raises:
        ValueError: for vectors whose norms are not 1, and as `sliced_wasserstein`.

    Source: Bonet, Berg, Courty, Septier, Drumetz, Pham, "Spherical sliced-Wasserstein", 2023.
    """
    points(x, y, order(p))
    a, b = given_weights("a", a, len(x)), given_weights("b", b, len(y))
    dtype, planes = x.dtype, _planes(circles, x, generator)
    u, v = (_turns(on_sphere(name, z), planes) for name, z in (("x", x), ("y", y)))
    weights = (None if w is None else w.expand(len(planes), -1) for w in (a, b))
    return (2 * math.pi * root(power_circle(u, v, *weights, p=p).mean(), p)).to(dtype)


def _planes(circles: int | Tensor, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Orthonormal pairs (L, d, 2), float64."""
    dim = x.shape[1]
    if isinstance(circles, int):
        dimension("circles", circles)
        return to_device(great_circles(circles, dim, generator=generator), x.device)
    planes = as_tensor("circles", circles).detach().to(x.device, torch.float64)
    if planes.ndim != 3 or planes.shape[1:] != (dim, 2) or len(planes) < 1:
        raise ValueError(f"`circles` must have shape (L, {dim}, 2), got {tuple(planes.shape)}")
    eye = torch.eye(2, dtype=torch.float64, device=x.device)
    off = float((planes.mT @ planes - eye).abs().amax())
    if not off <= MOST_OFF:
        raise ValueError(
            f"`circles` must be orthonormal pairs, got products that are off by {off:.3g}: take Q "
            "of their QR factorisation"
        )
    return planes


def _turns(x: Tensor, planes: Tensor) -> Tensor:
    """The place of each point on each great circle, in turns, (L, n). The axis of a circle, which
    is as near to each of its points, counts as its first one, without gradient."""
    flat = planes.mT @ x.T
    away = flat.square().sum(1) > 1e-30
    first, second = torch.where(away, flat[:, 0], 1.0), torch.where(away, flat[:, 1], 0.0)
    return torch.atan2(second, first) / (2 * math.pi)
