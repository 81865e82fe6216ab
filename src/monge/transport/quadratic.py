r"""Quadratic transport problems: the objective of Gromov-Wasserstein plus a linear cost.

    E(π) = Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl + ⟨L, π⟩.

With the square loss the sum is ⟨K, π⟩ - 2 ⟨cx π cyᵀ, π⟩, K_ij = Σ_k cx_ik² r_k + Σ_l cy_jl² s_l
with r, s the marginals of π, which costs n²m + nm² instead of n²m². The problem is not convex:
solvers find stationary points. Matrices need not be symmetric, as those of directed graphs: the
quadratic form is that of the symmetric parts plus that of the antisymmetric ones.

Source: Peyré, Cuturi, Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices",
2016; Vayer, Chapel, Flamary, Tavenard, Courty, "Optimal transport for structured data with
application on graphs", 2019 (the conditional gradient with exact line search).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import finite, floating, positive
from monge._core.numerics import envelope, power_of_two
from monge._core.typed import from_numpy
from monge.transport.exact import assignment, solve
from monge.transport.ground import Matrix
from monge.transport.plan import Plan

MOST_OF_COSTS = 1e-5
"""The most that the rounding of ε may be, in the unit of costs, whose mean is a few at most."""
MOST_SWAPPED = 100
"""Points up to which pairs of images are exchanged, at n³ a step."""


def space(name: str, cost: Tensor) -> Tensor:
    """The matrix of a space, if it is square and finite."""
    finite(name, floating(name, cost))
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1] or cost.shape[0] < 1:
        raise ValueError(f"`{name}` must be a square matrix, got shape {tuple(cost.shape)}")
    return cost


class Support(NamedTuple):
    """The points with mass, as masks (n,) and (m,)."""

    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, a: Tensor, b: Tensor) -> "Support":
        return cls(a.detach() > 0, b.detach() > 0)

    def part(self, plan: Tensor) -> Tensor:
        """The entries (n', m') of a matrix (n, m) between points with mass."""
        return plan[self.rows][:, self.columns]

    def whole(self, part: Tensor) -> Tensor:
        """The plan (n, m) with these entries, and 0 for points without mass."""
        wide = part.new_zeros(len(part), len(self.columns))
        wide[:, self.columns] = part
        return wide.new_zeros(len(self.rows), len(self.columns)).index_put((self.rows,), wide)


def _squares(cost: Tensor) -> Tensor:
    """½ (c_ik² + c_ki²), (n, n)."""
    squares = cost.square()
    return (squares + squares.T) / 2


def objective(cx: Tensor, cy: Tensor, plan: Tensor) -> Tensor:
    """Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl for any π (n, m), differentiable in all three."""
    rows, columns = plan.sum(1), plan.sum(0)
    squares = ((cx.square() @ rows) * rows).sum() + ((cy.square() @ columns) * columns).sum()
    return squares - 2 * ((cx @ plan @ cy.T) * plan).sum()


@dataclass(frozen=True)
class Quadratic:
    """A quadratic problem, in units in which its numbers are of order 1."""

    cx: Tensor
    cy: Tensor
    linear: Tensor
    """L (n, m)."""

    @functools.cached_property
    def squares(self) -> tuple[Tensor, Tensor]:
        return _squares(self.cx), _squares(self.cy)

    @functools.cached_property
    def symmetric(self) -> bool:
        return torch.equal(self.cx, self.cx.T) and torch.equal(self.cy, self.cy.T)

    def sizes(self) -> list[float]:
        """The largest absolute entries of cx and cy, and the root of that of L."""
        x, y, of_linear = (float(z.detach().abs().max()) for z in (self.cx, self.cy, self.linear))
        return [x, y, of_linear**0.5]

    def value(self, plan: Tensor) -> Tensor:
        """E(π)."""
        return objective(self.cx, self.cy, plan) + (self.linear * plan).sum()

    def product(self, plan: Tensor) -> Tensor:
        """½ (cx π cyᵀ + cxᵀ π cy), a quarter of what it takes from the slope."""
        cx, cy = self.cx, self.cy
        if self.symmetric:
            return cx @ plan @ cy
        return (cx @ plan @ cy.T + cx.T @ plan @ cy) / 2

    def product_of_images(self, image: Tensor) -> Tensor:
        """`product` of the permutation that maps i to image_i."""
        cx, cy = self.cx, self.cy
        if self.symmetric:
            return cx @ cy[image] / len(image)
        return (cx @ cy[:, image].T + cx.T @ cy[image]) / (2 * len(image))

    def fixed(self, plan: Tensor) -> Tensor:
        """K, which depends on the plan's marginals only."""
        of_x, of_y = self.squares
        return (of_x @ plan.sum(1))[:, None] + of_y @ plan.sum(0)

    def slope(self, plan: Tensor) -> Tensor:
        """The gradient of E, 2 K - 4 `product` + L, (n, m)."""
        return 2 * (self.fixed(plan) - 2 * self.product(plan)) + self.linear

    def among(self, support: Support) -> "Quadratic":
        """The problem of the points with mass."""
        rows, columns = support
        cx, cy = self.cx[rows][:, rows], self.cy[columns][:, columns]
        return Quadratic(cx, cy, support.part(self.linear))

    def detached(self, dtype: torch.dtype) -> "Quadratic":
        """The problem that is solved, in a dtype and without gradient."""
        matrices = self.cx, self.cy, self.linear
        return Quadratic(*(matrix.detach().to(dtype) for matrix in matrices))


def in_units(
    cx: Tensor, cy: Tensor, linear: Tensor, a: Tensor, b: Tensor
) -> tuple[Quadratic, float]:
    """The problem in a unit of length in which its numbers are of order 1, a power of 2, at the
    points with mass. Matrices are made symmetric where they are up to rounding.

    E is in units of its square. It is in float64, which holds the gradient in each unit."""
    given = Quadratic(cx, cy, linear)
    sizes = given.among(Support.of(a, b)).sizes()
    unit = power_of_two(max(sizes))
    if math.isinf(16 * unit * unit):
        raise ValueError("`cx` and `cy` have squared differences beyond float64: rescale them")
    for name, far in zip(("cx", "cy", "cost"), given.sizes()):
        if not 16 * (far / unit) ** 2 < torch.finfo(cx.dtype).max:
            raise ValueError(
                f"`{name}` has an entry at a point without mass that is beyond {cx.dtype} in the "
                f"unit of those between the others, {unit:.3g}: leave that point out"
            )
    cx, cy = (_undirected(z.double(), size) for z, size in zip((cx, cy), sizes))
    return Quadratic(cx / unit, cy / unit, linear.double() / unit / unit), unit


def _undirected(cost: Tensor, size: float) -> Tensor:
    """A matrix that is made symmetric if it is up to the rounding of entries of a size, and of
    larger ones, at points without mass: what rounding has made asymmetric is no directed graph."""
    own = cost.detach()
    near = ((own - own.T).abs() <= 1e-5 * own.abs().clamp_min(size)).all()
    return (cost + cost.T) / 2 if bool(near) else cost


def epsilon_in_units(epsilon: float, unit: float, dtype: torch.dtype) -> float:
    """ε in the unit of the objective, if it is not below the rounding of costs, nor so large that
    it hides them."""
    scaled = positive("epsilon", epsilon) / unit / unit
    if unit * unit == 0 or torch.finfo(torch.float64).eps * scaled > MOST_OF_COSTS:
        raise ValueError(
            f"`epsilon` {epsilon:.3g} is over 10⁹ times costs of the order of {unit:.3g}², where "
            "rounding hides them: rescale the matrices, or take the limit, the product plan"
        )
    if scaled < torch.finfo(dtype).eps:
        raise ValueError(
            f"`epsilon` {epsilon:.3g} is below the rounding of costs of the order of "
            f"{unit:.3g}² in {dtype}: raise it, or take the exact problem"
        )
    return scaled


# Conditional gradient

Oracle = Callable[[Tensor], tuple[Tensor, Tensor]]
"""For a slope the feasible plan of least ⟨slope, π⟩, and `product` of it."""


def couplings(problem: Quadratic, a: Tensor, b: Tensor) -> Oracle:
    """The oracle of all couplings of two weights."""
    permutations = len(a) == len(b) and bool((a == a[0]).all() and (b == b[0]).all())

    def vertex(slope: Tensor) -> tuple[Tensor, Tensor]:
        if not permutations:
            plan = solve(slope, a, b).plan
            return plan, problem.product(plan)
        image = from_numpy(assignment(Matrix(slope - slope.min()))).to(slope.device)
        plan = torch.zeros_like(slope).scatter_(1, image[:, None], 1 / len(a))
        return plan, problem.product_of_images(image)

    return vertex


def descend(
    problem: Quadratic, plan: Tensor, oracle: Oracle, tolerance: float, most: int
) -> tuple[Tensor, int, bool]:
    """Conditional gradient with exact line search: (plan, iterations, converged).

    Products and squares are linear in the plan, so that a step takes one product.
    """
    product, eps = problem.product(plan), torch.finfo(plan.dtype).eps
    for iteration in range(1, most + 1):
        fixed = problem.fixed(plan)
        slope = 2 * (fixed - 2 * product) + problem.linear
        vertex, of_vertex = oracle(slope)
        move, of_move = vertex - plan, of_vertex - product
        gap = -(slope * move).sum()
        rounding = 10 * eps * ((fixed + problem.linear.abs()) * plan).sum()
        if gap <= torch.maximum(tolerance * (slope * plan).sum().abs(), rounding):
            return plan, iteration, True
        # along the segment the objective is E - gap t + curvature t²
        curvature = ((problem.fixed(move) - 2 * of_move) * move).sum()
        length = (gap / (2 * curvature)).clamp(max=1.0) if curvature > 0 else 1.0
        plan, product = plan + length * move, product + length * of_move
    return plan, most, False


def stationary(
    problem: Quadratic, plan: Tensor, oracle: Oracle, tolerance: float, most: int
) -> tuple[Tensor, int, bool]:
    """A plan that neither a descent nor an exchange of two images improves."""
    iterations = 0
    while True:
        plan, count, converged = descend(problem, plan, oracle, tolerance, most)
        iterations += count
        other = _swapped(problem, plan) if converged else plan
        if other is plan or not problem.value(other) < problem.value(plan):
            return plan, iterations, converged
        plan = other


def _swapped(problem: Quadratic, plan: Tensor) -> Tensor:
    """The plan, if it is a permutation, after the best exchanges of two images, one by one.

    The objective falls with Σ_ik cx_ik c_ik, c the matrix cy in the order of the images. With
    M = cx cᵀ + cxᵀ c, two products give what each exchange adds to it.
    """
    mass, image = plan.max(1)
    if len(plan) > MOST_SWAPPED or plan.shape[0] != plan.shape[1]:
        return plan
    if (mass * len(plan) - 1).abs().max() > 1e-6 or (plan.sum(0) == 0).any():
        return plan
    cx, cy, linear = problem.cx, problem.cy, problem.linear * len(plan) / 2
    start, place = image, torch.arange(len(plan), device=plan.device)
    scale = (cx.square().sum() * cy.square().sum()).sqrt() + linear.abs().sum()
    for _ in range(len(plan) ** 2):
        c, p = cy[image][:, image], linear[:, image]
        m, x, y = cx @ c.T + cx.T @ c, cx.diagonal(), c.diagonal()
        gain = m + m.T - m.diagonal() - m.diagonal()[:, None]
        # without the entries between the two themselves
        for one, other in ((cx, c), (cx.T, c.T)):
            gain = gain + (x[:, None] - one) * (y[:, None] - other) + (one - x) * (other - y)
        gain = gain + (x[:, None] - x) * (y - y[:, None]) + (cx - cx.T) * (c.T - c)
        gain = gain - (p + p.T - p.diagonal() - p.diagonal()[:, None])
        best = int(gain.argmax())
        if gain.flatten()[best] <= 10 * torch.finfo(cx.dtype).eps * scale:
            break
        i, k = divmod(best, len(plan))
        image = torch.where(place == i, image[k], torch.where(place == k, image[i], image))
    if torch.equal(image, start):
        return plan
    return torch.zeros_like(plan).scatter_(1, image[:, None], 1 / len(plan))


# The plan of the given matrices


def in_given_units(
    solved: Plan, problem: Quadratic, unit: float, *in_weights: tuple[Tensor, Tensor]
) -> Plan:
    """The plan of a problem, in the units of the matrices from which `in_units` made it.

    Args:
        solved: the plan in the units of the problem, without gradient.
        problem: the differentiable problem of `in_units`.
        unit: its unit of length.
        in_weights: each side's weights and the gradient of the value in them, in the units of the
            problem.

    Returns:
        The plan, its value differentiable in matrices and weights.
    """
    f, g = solved.potentials
    return replace(
        solved,
        value=_with_slopes(solved.value, problem, solved.plan, *in_weights) * unit**2,
        value_linear=solved.value_linear.double() * unit**2,
        potentials=(f.double() * unit**2, g.double() * unit**2),
    )


def _with_slopes(
    value: Tensor, problem: Quadratic, plan: Tensor, *in_weights: tuple[Tensor, Tensor]
) -> Tensor:
    """The value with its gradient in the problem at the fixed plan, and with given ones in the
    weights: the multipliers of the marginals."""
    plan = plan.double()
    rows, columns = plan.sum(1), plan.sum(0)
    cx, cy = problem.cx.detach(), problem.cy.detach()
    of_x = 2 * (cx * rows[:, None] * rows - plan @ cy @ plan.T)
    of_y = 2 * (cy * columns[:, None] * columns - plan.T @ cx @ plan)
    terms = (problem.cx, of_x), (problem.cy, of_y), (problem.linear, plan)
    wide = [(w, slope.double()) for w, slope in in_weights]
    return envelope(value.double(), *terms, *wide, linear=False)
