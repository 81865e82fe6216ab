"""What a solver returns: the plan between two samples, and an account of the solver."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from monge._core.shown import described


@dataclass(frozen=True, repr=False)
class Plan:
    """A coupling π of weights a (n,) and b (m,) for a cost C (n, m)."""

    value: Tensor
    """The objective, a p-th power: ⟨C, π⟩, entropic ⟨C, π⟩ + ε KL(π | a⊗b). It equals
    ⟨a, f⟩ + ⟨b, g⟩; differentiable in the cost (or the points) and in the weights."""
    value_linear: Tensor
    """⟨C, π⟩, without gradient."""
    potentials: tuple[Tensor, Tensor]
    """The dual potentials (f, g), (n,) and (m,), without gradient."""
    marginal_error: float
    """The larger of |π1 - a|_1 and |πᵀ1 - b|_1."""
    iterations: int | None
    """Iterations; None where the solver does not say."""
    converged: bool
    make: Callable[[], Tensor]
    """Computes π; `plan` calls it once."""

    def __repr__(self) -> str:
        names = ("value", "marginal_error", "iterations", "converged")
        values = (float(self.value.detach()), self.marginal_error, self.iterations, self.converged)
        shown = (f"{name}={described(value)}" for name, value in zip(names, values))
        return f"Plan({', '.join(shown)})"

    @functools.cached_property
    def plan(self) -> Tensor:
        """π (n, m), made when first asked for."""
        return self.make()
