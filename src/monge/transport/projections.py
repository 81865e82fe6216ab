r"""Where a plan sends each point on average: the barycentric projection Σ_j π_ij y_j / a_i."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from monge._core.numerics import distances
from monge._core.tuning import tuning
from monge._core.typed import checkpointed, split
from monge.transport.exact import monge_map, solve
from monge.transport.ground import MOST_ROUNDING, Points, about_medians


def exact_projections(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Where the exact plan for the cost ‖x - y‖² sends points x (n, d) of positive weights a (n,),
    and where those of y (m, d) come from; float64, without gradient."""
    x, y = x.detach(), y.detach()
    if len(x) == len(y) and all(bool((w == w[0]).all()) for w in (a, b)):
        index = monge_map(x, y)
        return y[index], x[index.argsort()]
    plan = solve(Points(*about_medians(x, y), 2).whole(), a, b).plan
    return (plan @ y) / a[:, None], (plan.T @ x) / b[:, None]


def soft_images(
    x: Tensor, y: Tensor, heights: Callable[[slice], Tensor], epsilon: float
) -> Tensor:
    """Σ_j softmax_j((h_j - ‖x_i - y_j‖²)/ε) y_j as (k, d), from points x (k, d) and y (m, d).

    `heights` gives the h of some rows of x, (m,) or a row for each; with g + ε log b of an
    entropic plan the images are its projection. It is differentiable in x; memory is that of a
    block.
    """
    centre = y[:: len(y) // 100 + 1].median(0).values
    x, y = x - centre, y - centre
    of_y = y.square().sum(1)
    rounding = torch.finfo(x.dtype).eps * float(x.detach().square().sum(1).amax() + of_y.amax())
    is_product = rounding <= MOST_ROUNDING * epsilon

    def images(some: Tensor, h: Tensor) -> Tensor:
        # ‖x‖² is the same for all j, to which a softmax is blind
        scores = h - of_y + 2 * some @ y.T if is_product else h - distances(some, y).square()
        return (scores / epsilon).softmax(1) @ y

    size = max(1, tuning(x.device).cost_entries // len(y))
    # for a gradient blocks are computed again, so that none is stored
    call = partial(checkpointed, images) if x.requires_grad else images
    blocks = [
        call(some, heights(slice(first, first + len(some))))
        for first, some in zip(range(0, len(x), size), split(x, size))
    ]
    return torch.cat(blocks) + centre
