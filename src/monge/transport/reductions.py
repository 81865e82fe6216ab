r"""Reductions of exp((f_i + g_j - C_ij)/ε) over the rows and columns of a cost.

These are the soft minima of Sinkhorn's algorithm, its Gibbs kernel, and the sums over a plan of
which gradients and marginals are made. `Blocked` computes them from blocks of rows, `Fused` by
kernels that keep no block; `choose_reductions` picks one of them.
"""

import abc

import torch
from torch import Tensor

from monge.gpu.exponents import COST, PLAN, SLOPE, Exponents
from monge.gpu.launch import is_usable
from monge.transport.ground import GroundCost, Points, exponential_, log_weights, smallest

Problem = tuple[Tensor, Tensor, Tensor, Tensor, float]
"""(a, b, f, g, ε), of which the plan is π_ij = a_i b_j exp((f_i + g_j - C_ij)/ε)."""


class Reductions(abc.ABC):
    """What is computed from a cost (n, m)."""

    @abc.abstractmethod
    def soft_minimum(self, g: Tensor, epsilon: float, about: Tensor) -> Tensor:
        """-ε log Σ_j exp((g_j - C_ij)/ε), (n,), of which `about` is an estimate."""

    @abc.abstractmethod
    def write_gibbs_(self, kernel: Tensor, f: Tensor, g: Tensor, epsilon: float) -> None:
        """Writes exp((f_i + g_j - C_ij)/ε) into a matrix, with zeros for what is negligible."""

    @abc.abstractmethod
    def account(self, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
        """Σ_j π_ij, (n,), Σ_i π_ij, (m,), and ⟨C, π⟩, float64."""

    @abc.abstractmethod
    def slope_sums(
        self, problem: Problem, start: Tensor, end: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Σ_j w_ij end_j and Σ_i w_ij start_i with w_ij = π_ij p ‖x_i - y_j‖^{p-2}, 0 where the
        points coincide; only the first of them where `start` is `end`."""


class Blocked(Reductions):
    """On any device, by blocks of rows."""

    def __init__(self, cost: GroundCost):
        self.cost = cost

    def soft_minimum(self, g: Tensor, epsilon: float, about: Tensor) -> Tensor:
        out = torch.empty_like(about)
        work = None
        for rows, exponents in self.cost.exponents(about, g, epsilon):
            if work is None:
                work = torch.empty_like(exponents, dtype=self.cost.dtype)
            work = work[: len(exponents)].copy_(exponents)
            most = work.amax(1, keepdim=True)
            sums = exponential_(work.sub_(most)).sum(1)
            out[rows] = about[rows] - epsilon * (most[:, 0].double() + sums.double().log())
        return out

    def write_gibbs_(self, kernel: Tensor, f: Tensor, g: Tensor, epsilon: float) -> None:
        for rows, exponents in self.cost.exponents(f, g, epsilon):
            exponential_(kernel[rows].copy_(exponents))

    def account(self, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
        rows_sum, columns_sum = (torch.zeros_like(w) for w in problem[:2])
        linear = torch.zeros((), dtype=torch.float64, device=self.cost.device)
        for rows, plan in self.cost.plans(*problem):
            linear += (plan * self.cost.entries(rows)).sum()
            rows_sum[rows] = plan.sum(1, dtype=torch.float64)
            columns_sum += plan.sum(0, dtype=torch.float64)
        return rows_sum, columns_sum, linear

    def slope_sums(
        self, problem: Problem, start: Tensor, end: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        cost = _of_points(self.cost)
        of_start, of_end = torch.zeros_like(start), torch.zeros_like(end)
        for rows, plan in cost.plans(*problem):
            w = plan.mul_(2) if cost.p == 2 else cost.slopes(plan, rows)
            of_start[rows] = w @ end
            if start is not end:
                of_end.addmm_(w.T, start[rows])
        return of_start, None if start is end else of_end


class Fused(Reductions):
    """On a GPU, by kernels that walk over the pairs and store none of them."""

    def __init__(self, cost: GroundCost):
        from monge.gpu import soft_minimum

        self.cost, self.kernels = cost, soft_minimum

    def soft_minimum(self, g: Tensor, epsilon: float, about: Tensor) -> Tensor:
        factors = self.cost.factors(torch.zeros_like(about), g, epsilon)
        return -epsilon * self.kernels.log_sum_exp(factors, self.cost.dtype)

    def write_gibbs_(self, kernel: Tensor, f: Tensor, g: Tensor, epsilon: float) -> None:
        factors = self.cost.factors(f, g, epsilon)
        self.kernels.write_gibbs_(kernel, factors, smallest(kernel.dtype))

    def account(self, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
        there, back = self._plan(self.cost, problem)
        ones = [z.new_ones(len(z), 1) for z in problem[:2]]
        rows_sum, columns_sum = (
            self.kernels.weighted_sums(factors, one, PLAN, self.cost.dtype)[:, 0]
            for factors, one in ((there, ones[1]), (back, ones[0]))
        )
        cost = self.cost.by_differences() if isinstance(self.cost, Points) else self.cost
        there, _ = self._plan(cost, problem)
        linear = self.kernels.weighted_sums(there, ones[1], COST, self.cost.dtype).sum()
        return rows_sum, columns_sum, linear

    def slope_sums(
        self, problem: Problem, start: Tensor, end: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        p = _of_points(self.cost).p
        factor, scale = (PLAN, 2.0) if p == 2 else (SLOPE, 1.0)
        there, back = self._plan(self.cost, problem)
        dtype = self.cost.dtype
        of_start = scale * self.kernels.weighted_sums(there, end.double(), factor, dtype)
        if start is end:
            return of_start, None
        return of_start, scale * self.kernels.weighted_sums(back, start.double(), factor, dtype)

    @staticmethod
    def _plan(cost: GroundCost, problem: Problem) -> tuple[Exponents, Exponents]:
        """The exponents of the plan and of its transpose."""
        a, b, f, g, epsilon = problem
        f, g = f + epsilon * log_weights(a), g + epsilon * log_weights(b)
        return cost.factors(f, g, epsilon), cost.transposed().factors(g, f, epsilon)


def _of_points(cost: GroundCost) -> Points:
    assert isinstance(cost, Points)
    return cost


def choose_reductions(cost: GroundCost) -> Reductions:
    """Picks how a cost is reduced.

    The rule: by Triton's kernels where these run (`monge.gpu.launch`), by blocks elsewhere; in
    every dtype and at every size.
    """
    return Fused(cost) if is_usable(cost.device) else Blocked(cost)
