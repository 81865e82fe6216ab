r"""The dual objective of entropic transport as a function of points, costs and weights.

    D = max_{f,g} ⟨a, f⟩ + ⟨b, g⟩ - ε Σ_ij a_i b_j (exp((f_i + g_j - C_ij)/ε) - 1).

First derivatives are those at frozen potentials (the envelope theorem), in which the plan is
counted once; differentiating the iteration as well would count it twice. Second derivatives are
those of one Newton step of the potentials (the implicit function theorem).

Source: Feydy et al., "Interpolating between optimal transport and MMD using Sinkhorn divergences",
2019; Peyré, Cuturi, "Computational optimal transport", 2019, section 9.1.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.numerics import (
    Gradients,
    power_of_squared,
    squared_by_differences,
    weighted_differences,
    with_gradient,
)
from monge._core.typed import symmetric_pseudo_inverse
from monge.transport.ground import Points
from monge.transport.potentials import EntropicProblem, Potentials
from monge.transport.reductions import choose_reductions

MOST_LOST = {torch.float32: 1e-5, torch.float64: 1e-10}
"""The largest rounding of a point's coordinates, in units of how far points are moved."""

FAR_APART = 10.0
"""How far means must be apart, in units of the largest distance from them, to be taken out."""


class Separated(NamedTuple):
    """Points (n, d) and (m, d) with weights, and the part of their cost that is separable.

    For p = 2 and samples far apart the means are taken out: with x = x̄ + x', y = ȳ + y' and
    δ = x̄ - ȳ the cost is ‖x' - y'‖² + 2 (x' - y')·δ + ‖δ‖², of which only the first term decides
    on the plan. The others would drown it in rounding.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    p: float
    shift: Tensor
    """δ, (d,); 0 where the means are left in."""

    def problem(self, dtype: torch.dtype) -> EntropicProblem:
        return EntropicProblem(Points(self.x, self.y, self.p, dtype), self.a, self.b)

    def linear(self, rows: Tensor, columns: Tensor, linear: Tensor) -> Tensor:
        """⟨C, π⟩ of the whole cost, for a plan with these marginals and this ⟨C', π⟩."""
        moved = rows @ (self.x @ self.shift) - columns @ (self.y @ self.shift)
        return linear + 2 * moved + self.shift.square().sum() * rows.sum()

    def potentials(self, solution: Potentials) -> tuple[Tensor, Tensor]:
        """Those of the whole cost."""
        f = solution.f + 2 * self.x @ self.shift + self.shift.square().sum()
        return f, solution.g - 2 * self.y @ self.shift


def separated(x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: float) -> Separated:
    """The samples in float64, their means taken out where they are far apart; differentiable."""
    if y is x:
        x = x.double()
        return Separated(x, x, a, b, p, x.new_zeros(x.shape[1]))
    x, y = x.double(), y.double()
    if p == 2:
        of_x, of_y = a @ x, b @ y
        spread = max(float((z - c).detach().abs().amax()) for z, c in ((x, of_x), (y, of_y)))
        if float((of_x - of_y).detach().abs().amax()) > FAR_APART * spread:
            return Separated(x - of_x, y - of_y, a, b, p, of_x - of_y)
    return Separated(x, y, a, b, p, x.new_zeros(x.shape[1]))


def dual(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, solution: Potentials, epsilon: float, p: float
) -> Tensor:
    """The dual objective at its optimum, float64, with its gradient in points and weights."""

    def fast(
        x: Tensor, y: Tensor, a: Tensor, b: Tensor, wanted: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        samples = separated(x, y, a, b, p)
        of_x = of_y = None
        if wanted[0] or wanted[1]:
            of_x, of_y = in_points(samples, solution, epsilon, x.dtype)
        f, g = (potential - potential.mean() for potential in samples.potentials(solution))
        slopes = zip((of_x, of_y, f, g), wanted)
        value = solution.value + samples.shift.square().sum()
        return value, [slope if need else None for slope, need in slopes]

    def plain(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        samples = separated(x, y, a, b, p)
        cost = power_of_squared(squared_by_differences(samples.x, samples.y), p)
        return newton_dual(cost, a, b, solution.g, epsilon) + samples.shift.square().sum()

    return with_gradient(fast, plain, x, y, a, b)


def dual_within(x: Tensor, a: Tensor, solution: Potentials, epsilon: float, p: float) -> Tensor:
    """The dual objective of a sample with itself: each point counts on both sides."""

    def fast(x: Tensor, a: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        of_x = None
        if wanted[0]:
            of_x = 2 * in_points(separated(x, x, a, a, p), solution, epsilon, x.dtype)[0]
        of_a = 2 * (solution.f - solution.f.mean()) if wanted[1] else None
        return solution.value.clone(), [of_x, of_a]

    def plain(x: Tensor, a: Tensor) -> Tensor:
        cost = power_of_squared(squared_by_differences(x.double(), x.double()), p)
        return newton_dual(cost, a, a, solution.g, epsilon)

    return with_gradient(fast, plain, x, a)


def newton_dual(cost: Tensor, a: Tensor, b: Tensor, g: Tensor, epsilon: float) -> Tensor:
    r"""The optimum of the dual as a function of cost and weights, right to second order.

    Eliminating f, D(g; θ) = ⟨a, S_b(g)⟩ + ⟨b, g⟩ with θ = (C, a, b). At the potentials g of a
    present θ the optimum is D(g̃(θ); θ), g̃(θ) = g - H⁻¹ ∂_g D(g; θ), up to third order: one Newton
    step with the Hessian H held fixed. Its second derivative is D_θθ - D_θg H⁻¹ D_gθ, that of the
    implicit function theorem.
    """
    with torch.no_grad():
        share = b * ((g - cost) / epsilon - log_sums(cost, b, g, epsilon)[:, None]).exp()
        columns = a @ share
        hessian = columns.diag() - share.T @ (a[:, None] * share)
        inverse = symmetric_pseudo_inverse((hessian + hessian.T) / 2)
    f = -epsilon * log_sums(cost, b, g, epsilon)
    excess = b - b * (a @ ((f[:, None] + g - cost) / epsilon).exp())
    g = g + epsilon * (inverse @ excess)
    return -epsilon * (a * log_sums(cost, b, g, epsilon)).sum() + (b * g).sum()


def log_sums(cost: Tensor, b: Tensor, g: Tensor, epsilon: float) -> Tensor:
    """log Σ_j b_j exp((g_j - C_ij)/ε), (n,), differentiable in weights that are 0 as well."""
    exponents = (g - cost) / epsilon
    most = exponents.detach().masked_fill(b.detach() == 0, -torch.inf).amax(1, keepdim=True)
    return most[:, 0] + (b * (exponents - most).exp()).sum(1).log()


Sums = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""`Reductions.slope_sums` of a plan that is known, by whoever holds its Gibbs kernel."""


def in_points(
    samples: Separated,
    solution: Potentials,
    epsilon: float,
    dtype: torch.dtype,
    slope_sums: Sums | None = None,
) -> tuple[Tensor, Tensor]:
    """The dual's gradients in the points x (n, d) and y (m, d), float64; of a sample with itself
    only the first is computed.

    They are accumulated by blocks: with W_ij = π_ij p ‖x_i - y_j‖^{p-2} the gradient in x_i is
    Σ_j W_ij (x_i - y_j), two products; or sums of differences, where products of points about
    their mean would hide how little these are moved.
    """
    p, shift = samples.p, samples.shift
    centre = samples.y.mean(0)
    x, y = samples.x - centre, samples.y - centre
    size = float(torch.maximum(x.abs().amax(), y.abs().amax()))
    moved = abs(float(solution.value)) ** (1 / p)
    # for p < 2 the quotient of close points needs the digits of float64
    fine = p != 2 or torch.finfo(dtype).eps * size > MOST_LOST[dtype] * moved
    close = torch.finfo(torch.float64).eps * size > MOST_LOST[torch.float64] * moved
    work = torch.float64 if fine else dtype
    cost = Points(samples.x, samples.y, p, work)
    problem = samples.a, samples.b, solution.f, solution.g, epsilon
    if close:
        of_x, of_y = torch.zeros_like(x), torch.zeros_like(y)
        for rows, plan in cost.plans(*problem):
            w = plan.mul_(2) if p == 2 else cost.slopes(plan, rows)
            of_x[rows], part = weighted_differences(w, samples.x[rows], samples.y)
            of_y += part
    else:
        start = _with_one(x.to(work))
        end = start if samples.y is samples.x else _with_one(y.to(work))
        if slope_sums is None:
            sums_x, sums_y = choose_reductions(cost).slope_sums(problem, start, end)
        else:
            sums_x, sums_y = slope_sums(start, end)
        of_x = _pulled(start, sums_x).double()
        of_y = torch.zeros_like(y) if sums_y is None else _pulled(end, sums_y).double()
    if p == 2:
        of_x, of_y = of_x + 2 * samples.a[:, None] * shift, of_y - 2 * samples.b[:, None] * shift
    return of_x, of_y


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], 1)


def _pulled(x: Tensor, sums: Tensor) -> Tensor:
    """Σ_j W_ij (x_i - y_j), where `sums` holds Σ_j W_ij (y_j, 1)."""
    return x[:, :-1] * sums[:, -1:] - sums[:, :-1]
