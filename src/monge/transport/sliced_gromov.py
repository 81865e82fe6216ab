r"""Gromov-Wasserstein on slices: between squared distances on the line two sorts suffice.

Source: Vayer et al., "Sliced Gromov-Wasserstein", 2019.
"""

import torch
from torch import Tensor

from monge._core.checks import finite, sample_pair
from monge._core.promotion import promoted
from monge.transport.directions import ready_directions
from monge.transport.line import merged


def _monotone(u: Tensor, v: Tensor) -> Tensor:
    """The objective between squared distances on the line for the increasing matching, batched.

    With centred values and moments over the matching, E(u - u')⁴ = 2 E u⁴ + 6 (E u²)² and
    E (u - u')² (v - v')² = 2 E u²v² + 2 E u² E v² + 4 (E uv)²: two sorts, no double sum.
    """
    widths, u, v = merged(u - u.mean(-1, keepdim=True), v - v.mean(-1, keepdim=True))

    def mean(values: Tensor) -> Tensor:
        return (widths * values).sum(-1)

    uu, vv = mean(u.square()), mean(v.square())
    squares = 2 * mean(u**4 + v**4) + 6 * (uu.square() + vv.square())
    return squares - 2 * (2 * mean((u * v).square()) + 2 * uu * vv + 4 * mean(u * v).square())


@promoted(x=2, y=2)
def sliced_gromov_wasserstein(
    x: Tensor,
    y: Tensor,
    *,
    directions: int | Tensor = 128,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sliced Gromov-Wasserstein between squared distances: the objective, no root.

    On each direction the better of the increasing and the decreasing matching is taken. These are
    two sorts, and optimal in many cases (Vayer et al., 2019) but not in all (Beinert, Heiss,
    Steidl, "On assignment problems related to Gromov-Wasserstein distances on the real line",
    2023), so the value is an upper bound of the mean over directions.

    Args:
        x: points (n, d).
        y: points (m, e); the one of lower dimension is padded with zeros.
        directions: the number to draw, or a tensor (L, max(d, e)).
        generator: draws the directions, on the CPU.

    Raises:
        ValueError: for NaN or infinity, or samples whose fourth powers leave their dtype.
    """
    x, y = (sample_pair(z, z)[0] for z in (x, y))
    if x.device != y.device:
        raise ValueError(f"`x` and `y` must be on one device, got {x.device} and {y.device}")
    finite("x", x)
    finite("y", y)
    dim = max(x.shape[1], y.shape[1])
    x, y = (torch.nn.functional.pad(z, (0, dim - z.shape[1])) for z in (x, y))
    # fourth powers cancel
    theta = ready_directions(directions, x, generator).double()
    u, v = theta @ x.double().T, theta @ y.double().T
    extent = max(float((z.amax(1) - z.amin(1)).amax()) for z in (u.detach(), v.detach()))
    if not extent <= torch.finfo(x.dtype).max ** 0.25:
        raise ValueError(
            f"`x` and `y` have an extent of {extent:.3g}, whose fourth power is beyond {x.dtype}: "
            "rescale them or use float64"
        )
    return torch.minimum(_monotone(u, v), _monotone(u, -v)).mean()
