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
    cpu_generator,
    dimension,
    given_weights,
    of_rank,
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

NEAR = 100.0
"""The product of first coordinates up to which points are near the origin of the hyperboloid:
their differences lose two digits at most."""


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

    No digits are lost in cancellation: near the origin it is 2 arsinh(√⟨x - y, x - y⟩ / 2); of
    points at radii r and s whose directions u and v are far from it,

        2 arsinh √(sinh²((r - s)/2) + sinh r sinh s ‖u - v‖² / 4).

    Differentiable, with gradient 0 where points are equal.

    Args:
        x: points (n, d + 1) of the hyperboloid, ⟨x, x⟩ = -1, x_0 > 0.
        y: points (m, d + 1).

    Raises:
        ValueError: for points off the hyperboloid.
    """
    dtype = points(x, y, 1)[0].dtype
    x, y = on_hyperboloid("x", x), on_hyperboloid("y", y)
    heights = x[:, None, 0] * y[:, 0]
    lower = torch.minimum(x[:, None, 0], y[:, 0])
    near, one_near = heights <= NEAR, lower <= 2
    distance = torch.where(one_near, _of_product(x, y, one_near & ~near), _of_directions(x, y))
    return torch.where(near, _of_differences(x, y, near), distance).to(dtype)


def _of_differences(x: Tensor, y: Tensor, valid: Tensor) -> Tensor:
    """Distances, where they are valid, by √⟨x - y, x - y⟩."""
    space = (x[:, None, 1:] - y[:, 1:]).square().sum(2)
    # x_0 - y_0 = (‖x‖² - ‖y‖²) / (x_0 + y_0) of the other coordinates
    time = ((x[:, None, 1:] - y[:, 1:]) * (x[:, None, 1:] + y[:, 1:])).sum(2)
    time = time / (x[:, None, 0] + y[:, 0])
    squared = torch.where(valid, space - time.square(), 0.0).clamp_min(0)
    return 2 * torch.asinh(root(squared) / 2)


def _of_product(x: Tensor, y: Tensor, valid: Tensor) -> Tensor:
    """Distances, where they are valid, by -⟨x, y⟩: of one point near the origin to a far one."""
    product = x[:, None, 0] * y[:, 0] - x[:, 1:] @ y[:, 1:].T
    return torch.acosh(torch.where(valid, product, 2.0))


def _of_directions(x: Tensor, y: Tensor) -> Tensor:
    """Distances by radii and directions, of points off the origin."""
    of_x, of_y = (root(z[:, 1:].square().sum(1, keepdim=True)) for z in (x, y))  # sinh r, sinh s
    u, v = (z[:, 1:] / torch.where(n > 0, n, 1.0) for z, n in ((x, of_x), (y, of_y)))
    apart = (u[:, None] - v).square().sum(2)
    radial = torch.sinh((of_x.asinh() - of_y.asinh().T) / 2).square()
    return 2 * torch.asinh(root(radial + of_x * of_y.T * apart / 4))


# Slices of the sphere


def great_circles(count: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Independent uniform great circles of the sphere S^{dim-1}.

    Args:
        count: how many.
        dim: of the space around the sphere, at least 2.
        generator: a CPU generator; torch's global one by default.

    Returns:
        Orthonormal pairs of vectors that span the planes of the circles, (count, dim, 2), float64.

    Raises:
        ValueError: for a count that is not a positive integer, or a dimension under 2.
    """
    if dimension("dim", dim) < 2:
        raise ValueError(f"`dim` must be at least 2 for a circle, got {dim}")
    shape = (dimension("count", count), dim, 2)
    return qr(
        torch.randn(shape, generator=cpu_generator(generator), dtype=torch.float64, device="cpu")
    )[0]


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
    point is projected to the nearest one of a great circle. Differentiable in points and weights,
    as `wasserstein_circle` is.

    Args:
        x: unit vectors (n, d), d ≥ 2.
        y: unit vectors (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        p: order, at least 1.
        circles: the number of great circles to draw, or a tensor (L, d, 2) of orthonormal pairs.
        generator: draws the circles, on the CPU; torch's global one by default.

    Raises:
        ValueError: for vectors whose norms are not 1, and as `sliced_wasserstein`.

    Source: Bonet, Berg, Courty, Septier, Drumetz, Pham, "Spherical sliced-Wasserstein", 2023.
    """
    x, y = of_rank("x", x, 2, "(n, d)"), of_rank("y", y, 2, "(m, d)")
    points(x, y, order(p))
    a, b = given_weights("a", a, len(x)), given_weights("b", b, len(y))
    dtype, planes = x.dtype, _planes(circles, x, generator)
    u, v = (_turns(on_sphere(name, z), planes) for name, z in (("x", x), ("y", y)))
    weights = tuple(None if w is None else w.expand(len(planes), -1) for w in (a, b))
    powers, units = power_circle(u, v, *weights, p=p)
    # in the unit of the circle on which the samples are farthest apart
    units = torch.where(powers.detach() > 0, units, 0.0)
    unit = torch.where(units.amax() > 0, units.amax(), 1.0)
    power = (powers * (units / unit) ** p).mean()
    return (2 * math.pi * unit * root(power, p)).to(dtype)


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
