"""What a solver returns: the plan between two samples, and an account of the solver."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from monge._core import html
from monge._core.numerics import rounding_of_masses
from monge._core.shown import numbers, of_attributes

MOST_SHADES = 64 * 64
"""Cells of a plan that a notebook draws."""


@dataclass(frozen=True, repr=False)
class Plan:
    """A coupling π of weights a (n,) and b (m,) for a cost C (n, m).

    For a batch of problems all tensors have a leading dimension, and `marginal_error`,
    `iterations` and `converged` are those of the worst of them."""

    value: Tensor
    """The objective, a p-th power: ⟨C, π⟩, entropic ⟨C, π⟩ + ε KL(π | a⊗b), unbalanced with the
    penalties as well. It equals ⟨a, f⟩ + ⟨b, g⟩, except for Gromov-Wasserstein, which is
    quadratic, and for unbalanced and partial transport. Differentiable in the cost (or the points)
    and in the weights."""
    value_linear: Tensor
    """⟨C, π⟩, without gradient."""
    potentials: tuple[Tensor, Tensor]
    """The dual potentials (f, g), (n,) and (m,), without gradient."""
    marginal_error: float
    """The larger of |π1 - a|_1 and |πᵀ1 - b|_1. In half precision it is a bound: the error of the
    plan that was found in float32, and by how much rounding its entries can move the marginals, at
    most half an eps of the dtype and, in float16, whose least number is 6e-8, n m 3e-8 more.

    Of unbalanced transport, whose marginals are not the weights, it is the observed residual of
    the potentials as fixed points, in the same units: Σ_i a_i |exp((f_i - f'_i)/ε) - 1| / Σ_i a_i
    with f' the best potentials for g, or the same of g. It is 0 at the optimum."""
    iterations: int | None
    """Iterations; None where the solver does not say."""
    converged: bool
    make: Callable[[], Tensor]
    """Computes π; `plan` calls it once."""
    total: Tensor | None = None
    """Σ_ij π_ij, where the solver knows it without the plan."""

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle or a copy holds the plan in place of the closure that makes it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["make"] = functools.partial(_as_it_is, self.plan)
        return type(self), tuple(values.values())

    def __repr__(self) -> str:
        return of_attributes(self, "value", "marginal_error", "iterations", "converged")

    def _repr_html_(self) -> str:
        names = ("value", "value_linear", "marginal_error", "iterations", "converged")
        values: list[object] = [getattr(self, name) for name in names]
        rows = [(k, numbers(v, 4) if isinstance(v, Tensor) else v) for k, v in zip(names, values)]
        n, m = (len(potential) for potential in self.potentials)
        drawing = ""
        if self.value.ndim == 0 and 0 < n * m <= MOST_SHADES:
            shown: list[list[float]] = self.plan.detach().double().clamp(min=0).tolist()  # pyright: ignore
            drawing = html.shades(shown, f"The plan, {n} × {m}")
        return html.facts("Plan", rows, drawing)

    @functools.cached_property
    def plan(self) -> Tensor:
        """π (n, m), made when first asked for."""
        return self.make()

    @property
    def mass(self) -> Tensor:
        """Σ_ij π_ij: 1 in balanced transport, and what is left of the masses in unbalanced."""
        return self.plan.sum((-2, -1)) if self.total is None else self.total

    def tensors(self) -> list[Tensor]:
        """All tensors, the plan among them."""
        known = [] if self.total is None else [self.total]
        return [self.value, self.value_linear, *self.potentials, *known, self.plan]

    def replaced(self, function: Callable[[Tensor], Tensor]) -> "Plan":
        """This plan with `function` applied to each tensor; to the plan when it is made."""
        f, g = self.potentials
        value = function(self.value)
        return replace(
            self,
            value=value,
            value_linear=function(self.value_linear),
            marginal_error=self.marginal_error + self._rounding(value.dtype),
            potentials=(function(f), function(g)),
            total=None if self.total is None else function(self.total),
            make=lambda: function(self.plan),
        )

    def _rounding(self, dtype: torch.dtype) -> float:
        """A bound in L1 on how far π rounded to a dtype of half precision has other marginals."""
        if self.value.dtype is dtype:
            return 0.0
        mass = 1 + self.marginal_error if self.total is None else float(self.total.max())
        n, m = (potential.shape[-1] for potential in self.potentials)
        return rounding_of_masses(dtype, mass, n * m)

    def stacked(self, accounts: Sequence["Plan"]) -> "Plan":
        """The plans of a batch of problems, and the worst of their accounts."""
        totals = [plan.total for plan in accounts if plan.total is not None]
        counts = [plan.iterations for plan in accounts if plan.iterations is not None]
        return Plan(
            value=torch.stack([plan.value for plan in accounts]),
            value_linear=torch.stack([plan.value_linear for plan in accounts]),
            potentials=(
                torch.stack([plan.potentials[0] for plan in accounts]),
                torch.stack([plan.potentials[1] for plan in accounts]),
            ),
            marginal_error=max(plan.marginal_error for plan in accounts),
            iterations=max(counts) if counts else None,
            converged=all(plan.converged for plan in accounts),
            make=lambda: torch.stack([plan.plan for plan in accounts]),
            total=torch.stack(totals) if totals else None,
        )


def _as_it_is(plan: Tensor) -> Tensor:
    return plan
