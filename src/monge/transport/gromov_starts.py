r"""Where descents of Gromov-Wasserstein start, of which the best is kept.

Lower bounds of the objective are linear in the plan, so that their optima are starts:

    FLB   Σ_ij (Σ_k cx_ik a_k - Σ_l cy_jl b_l)² π_ij, the matching of mean distances,
    TLB   Σ_ij W₂²(distances to i, distances to j) π_ij, the matching of sorted distances.

Neither changes under isometries. A fused problem adds its linear cost to each.

Source: Mémoli, "Gromov-Wasserstein distances and the metric approach to object matching", 2011.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from monge._core.checks import dimension
from monge._core.numerics import distances
from monge._core.promotion import as_tensor
from monge.transport.exact import solve
from monge.transport.quadratic import Quadratic

MOST_LEVELS = 64
"""Quantiles that a profile of distances is compared at."""
ROUNDING = 1e-4
"""The L1 error in the marginals of a start that is taken for rounding."""

Starts = int | Tensor | Sequence[Tensor]
"""How many starts, or the plans to start from."""


def starting_plans(
    problem: Quadratic, a: Tensor, b: Tensor, starts: Starts, seed: int
) -> Iterator[Tensor]:
    """Yields the plans given, or as many as asked for."""
    if not (isinstance(starts, (list, tuple)) or getattr(starts, "ndim", 0) > 1):
        yield from _made(problem, a, b, dimension("starts", starts), seed)  # pyright: ignore
        return
    plans = [starts] if getattr(starts, "ndim", 0) == 2 else list(starts)  # pyright: ignore
    if not plans:
        raise ValueError("`starts` must be a number or hold at least one plan, got none")
    for plan in plans:
        yield _checked(as_tensor("starts", plan).to(problem.linear), a, b)


def _checked(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A plan, if it is a coupling of the weights."""
    if plan.shape != (len(a), len(b)):
        raise ValueError(
            f"`starts` must be a number or plans of shape ({len(a)}, {len(b)}), got one of "
            f"{tuple(plan.shape)}"
        )
    error = (plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum()
    if not (error <= ROUNDING and plan.min() >= 0):
        raise ValueError(
            f"`starts` must be couplings of the weights, got one with a least entry of "
            f"{float(plan.min()):.3g} and a marginal error of {float(error):.3g}: scale its rows "
            "and columns, or give a number of starts"
        )
    return plan.detach()


def _made(problem: Quadratic, a: Tensor, b: Tensor, count: int, seed: int) -> Iterator[Tensor]:
    """Two matchings by invariants, the product plan, then matchings by landmarks.

    Two landmarks in x and two in y, as far from one another, are taken for each other's images;
    then distances to them are coordinates, and exact ones for isometric spaces in the plane up to
    a mirror image.
    """
    generator = torch.Generator().manual_seed(seed)
    cx, cy, linear = problem.cx, problem.cy, problem.linear
    if count > 0:
        eccentricity = (cx @ a)[:, None] - cy @ b
        yield solve(linear + eccentricity.square(), a, b).plan
    if count > 1:
        yield a[:, None] * b
    if count > 2:
        size = min(max(cx.shape[0], cy.shape[0]), MOST_LEVELS)
        levels = (torch.arange(size, dtype=cx.dtype, device=cx.device) + 0.5) / size
        of_x, of_y = _profiles(cx, a, levels), _profiles(cy, b, levels)
        yield solve(linear + distances(of_x, of_y).square() / size, a, b).plan
    for _ in range(3, count):
        (first, image), (second, other) = _landmarks(problem, a, b, generator)
        gaps = [cx[:, i, None] - cy[:, k] for i, k in ((first, image), (second, other))]
        yield solve(linear + (gaps[0].square() + gaps[1].square()) / 2, a, b).plan


def _landmarks(
    problem: Quadratic, a: Tensor, b: Tensor, generator: torch.Generator
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two points of x and their images. The linear cost has a say in who is an image of whom, and
    the first landmark is one that it can tell from others."""

    def draw(w: Tensor) -> int:
        return int(torch.multinomial(w.double().cpu(), 1, generator=generator))

    cx, cy, linear = problem.cx, problem.cy, problem.linear
    excess = linear - linear.amin(1, keepdim=True)
    told_apart = a * (excess @ b)
    first = draw(told_apart if told_apart.sum() > 0 else a)
    scale = (excess[first] @ b).clamp_min(torch.finfo(cx.dtype).tiny)
    image = draw(b * (-excess[first] / scale).exp())
    second = draw(a)
    other = int(((cy[image] - cx[first, second]).square() + linear[second]).argmin())
    return (first, image), (second, other)


def _profiles(cost: Tensor, w: Tensor, levels: Tensor) -> Tensor:
    """Quantiles of the distances to each point, (n, levels): the line's view of a space."""
    distances, order = cost.sort(1)
    below = w[order].cumsum(1).contiguous()
    index = torch.searchsorted(below, levels.expand(len(cost), -1).contiguous())
    return distances.gather(1, index.clamp(max=cost.shape[1] - 1))
