r"""Where descents of Gromov-Wasserstein start, of which the best is kept.

Lower bounds of the objective are linear in the plan, so that their optima are starts:

    FLB   Σ_ij (Σ_k cx_ik a_k - Σ_l cy_jl b_l)² π_ij, the matching of mean distances,
    TLB   Σ_ij W₂²(distances to i, distances to j) π_ij, the matching of sorted distances.

Neither changes under isometries. A fused problem adds its linear cost to each.

Source: Mémoli, "Gromov-Wasserstein distances and the metric approach to object matching", 2011.
"""

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from monge._core.checks import dimension
from monge._core.numerics import distances
from monge._core.promotion import as_tensor
from monge.transport.exact import solve
from monge.transport.quadratic import Quadratic, Support

MOST_LEVELS = 64
"""Quantiles that a profile of distances is compared at."""
ROUNDING = 1e-4
"""The error in the marginals of a start that is taken for rounding; that of a dtype is added."""

Starts = int | Tensor | Sequence[Tensor]
"""How many starts, or the plans to start from."""


@dataclass(frozen=True)
class FeasiblePlans(abc.ABC):
    """The plans that a problem allows."""

    a: Tensor
    b: Tensor

    @abc.abstractmethod
    def matched(self, cost: Tensor) -> Tensor:
        """The plan of least ⟨cost, π⟩."""

    @abc.abstractmethod
    def product(self) -> Tensor:
        """The plan that is proportional to a⊗b."""

    @abc.abstractmethod
    def error(self, plan: Tensor) -> Tensor:
        """By how much mass a plan is none of these, relative to its own."""

    def among(self, support: Support) -> Self:
        """Those between points with mass."""
        return replace(self, a=self.a[support.rows], b=self.b[support.columns])

    def checked(self, given: Tensor) -> Tensor:
        """A plan in the dtype of the weights, if it is one of these up to the rounding of its own.

        One of a narrower dtype misses the weights by what its entries have lost, and is mended."""
        shape, plan = (len(self.a), len(self.b)), given.detach().to(self.a)
        if plan.shape != shape:
            raise ValueError(
                f"`starts` must be a number or plans of shape {shape}, got one of "
                f"{tuple(plan.shape)}"
            )
        error = self.error(plan)
        if not (error <= ROUNDING + rounding_of(given) and plan.min() >= 0):
            raise ValueError(
                "`starts` must be plans of the weights, got one with a least entry of "
                f"{float(plan.min()):.3g} and a marginal error of {float(error):.3g}: scale its "
                "rows and columns, or give a number of starts"
            )
        if given.dtype.itemsize >= plan.dtype.itemsize:
            return plan
        return _feasible(plan, self.a, self.b, self.product().sum())


def rounding_of(plan: Tensor) -> float:
    """What rounding to its dtype can do to the marginals of a plan, as a share of its mass: half
    of the last place of each entry, of float16 often half of the least subnormal number."""
    kind = torch.finfo(plan.dtype)
    mass = max(float(plan.sum(dtype=torch.float64)), kind.tiny)
    return 2 * kind.eps * (1 + plan.numel() * kind.tiny / mass)


def _feasible(plan: Tensor, a: Tensor, b: Tensor, mass: Tensor) -> Tensor:
    """A plan of the mass near one whose marginals are nearly at most a and b: scaled until none
    exceeds them, it takes the mass it then misses from what is left of both.

    Source: Altschuler, Weed, Rigollet, "Near-linear time approximation algorithms for optimal
    transport via Sinkhorn iteration", 2017, algorithm 2.
    """
    tiny = torch.finfo(plan.dtype).tiny
    plan = plan * (a / plan.sum(1).clamp_min(tiny)).clamp_max(1)[:, None]
    plan = plan * (b / plan.sum(0).clamp_min(tiny)).clamp_max(1)
    missing = mass - plan.sum()
    if missing <= 0:
        return plan * (mass / plan.sum())
    rows, columns = (a - plan.sum(1)).clamp_min(0), (b - plan.sum(0)).clamp_min(0)
    free = (rows.sum() * columns.sum()).clamp_min(tiny)
    return plan + rows[:, None] * (columns * (missing / free))


class Couplings(FeasiblePlans):
    """The plans of marginals a and b, of mass 1."""

    def matched(self, cost: Tensor) -> Tensor:
        return solve(cost, self.a, self.b).plan

    def product(self) -> Tensor:
        return self.a[:, None] * self.b

    def error(self, plan: Tensor) -> Tensor:
        return (plan.sum(1) - self.a).abs().sum() + (plan.sum(0) - self.b).abs().sum()


def _are_plans(starts: Starts) -> bool:
    return isinstance(starts, (list, tuple)) or getattr(starts, "ndim", 0) > 1


def entropic_starting_plans(
    problem: Quadratic, plans: FeasiblePlans, starts: Starts, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """`starting_plans`, but a single start is the product plan."""
    if not _are_plans(starts) and starts == 1:
        yield plans.product()
    else:
        yield from starting_plans(problem, plans, starts, generator)


def starting_plans(
    problem: Quadratic, plans: FeasiblePlans, starts: Starts, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Yields the plans given, or as many as asked for."""
    if not _are_plans(starts):
        count, support = dimension("starts", starts), Support.of(plans.a, plans.b)  # pyright: ignore
        made = _made(problem.among(support), plans.among(support), count, generator)
        yield from map(support.whole, made)
        return
    given = [starts] if getattr(starts, "ndim", 0) == 2 else list(starts)  # pyright: ignore
    if not given:
        raise ValueError("`starts` must be a number or hold at least one plan, got none")
    for plan in given:
        yield plans.checked(as_tensor("starts", plan))


def _made(
    problem: Quadratic, plans: FeasiblePlans, count: int, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Two matchings by invariants, the product plan, then matchings by landmarks.

    Two landmarks in x and two in y, as far from one another, are taken for each other's images;
    then distances to them are coordinates, and exact ones for isometric spaces in the plane up to
    a mirror image.
    """
    generator = generator or torch.Generator().manual_seed(0)
    cx, cy, linear = problem.cx, problem.cy, problem.linear
    a, b = plans.a / plans.a.sum(), plans.b / plans.b.sum()
    if count > 0:
        eccentricity = (cx @ a)[:, None] - cy @ b
        yield plans.matched(linear + eccentricity.square())
    if count > 1:
        yield plans.product()
    if count > 2:
        size = min(max(cx.shape[0], cy.shape[0]), MOST_LEVELS)
        levels = (torch.arange(size, dtype=cx.dtype, device=cx.device) + 0.5) / size
        of_x, of_y = profiles(cx, a, levels), profiles(cy, b, levels)
        yield plans.matched(linear + distances(of_x, of_y).square() / size)
    for _ in range(3, count):
        (first, image), (second, other) = _landmarks(problem, a, b, generator)
        gaps = [cx[:, i, None] - cy[:, k] for i, k in ((first, image), (second, other))]
        yield plans.matched(linear + (gaps[0].square() + gaps[1].square()) / 2)


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


def profiles(cost: Tensor, w: Tensor, levels: Tensor) -> Tensor:
    """Quantiles of the distances to each point, (n, levels): the line's view of a space."""
    distances, order = cost.sort(1)
    below = w[order].cumsum(1).contiguous()
    index = torch.searchsorted(below, levels.expand(len(cost), -1).contiguous())
    return distances.gather(1, index.clamp(max=cost.shape[1] - 1))
