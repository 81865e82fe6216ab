r"""Solvers of ordinary differential equations dx/dt = f(x, t) for batches x (n, \*).

`Euler`, `Midpoint` and `Heun` take a fixed number of equal steps, so that each sample is computed
by itself. `Adaptive` chooses its steps for a batch together, by a tolerance.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from monge._core.checks import dimension, positive
from monge._core.errors import needs

Field = Callable[[Tensor, float], Tensor]
r"""f(x, t): the derivative (n, \*) of samples x (n, \*) at a time t."""


class Solver(abc.ABC):
    """Integrates dx/dt = f(x, t)."""

    @abc.abstractmethod
    def __call__(self, field: Field, x: Tensor, start: float = 0.0, end: float = 1.0) -> Tensor:
        r"""x (n, \*) at time `start`, moved to time `end`, which may come before it."""


@dataclasses.dataclass(frozen=True)
class FixedStep(Solver):
    """A solver of equal steps.

    Args:
        steps: how many.
    """

    steps: int = 20

    def __post_init__(self):
        dimension("steps", self.steps)

    def __call__(self, field: Field, x: Tensor, start: float = 0.0, end: float = 1.0) -> Tensor:
        size = (end - start) / self.steps
        for k in range(self.steps):
            x = self.step(field, x, start + k * size, size)
        return x

    @abc.abstractmethod
    def step(self, field: Field, x: Tensor, t: float, size: float) -> Tensor:
        r"""x (n, \*) at time t, moved to time t + size."""


class Euler(FixedStep):
    """x + h f(x, t): order 1, one evaluation a step."""

    def step(self, field: Field, x: Tensor, t: float, size: float) -> Tensor:
        return x + size * field(x, t)


class Midpoint(FixedStep):
    """x + h f(x + h/2 f(x, t), t + h/2): order 2, two evaluations a step."""

    def step(self, field: Field, x: Tensor, t: float, size: float) -> Tensor:
        middle = x + 0.5 * size * field(x, t)
        return x + size * field(middle, t + 0.5 * size)


class Heun(FixedStep):
    """The mean of the slopes at both ends of an Euler step: order 2, two evaluations a step."""

    def step(self, field: Field, x: Tensor, t: float, size: float) -> Tensor:
        first = field(x, t)
        second = field(x + size * first, t + size)
        return x + 0.5 * size * (first + second)


@dataclasses.dataclass(frozen=True)
class Adaptive(Solver):
    """The method of Dormand and Prince (dopri5) of the package torchdiffeq, the extra `ode`.

    Steps are chosen for a batch together: in another batch, a sample is the same up to the
    tolerance.

    Args:
        tolerance: of the error, relative and absolute.
        most: steps at most.

    Source: Dormand, Prince, "A family of embedded Runge-Kutta formulae", 1980; Chen,
    torchdiffeq, 2018.
    """

    tolerance: float = 1e-5
    most: int = 10_000

    def __post_init__(self):
        object.__setattr__(self, "tolerance", positive("tolerance", self.tolerance))
        dimension("most", self.most)

    def __call__(self, field: Field, x: Tensor, start: float = 0.0, end: float = 1.0) -> Tensor:
        r"""x (n, \*) at time `start`, moved to time `end`.

        Raises:
            ValueError: without torchdiffeq, and where the tolerance is not met.
        """
        if start == end:
            return x
        with needs("ode"):
            import torchdiffeq  # pyright: ignore[reportMissingTypeStubs]

        integrate = cast(Any, torchdiffeq).odeint

        def rate(t: Tensor, x: Tensor) -> Tensor:
            return field(x, float(t))

        ends = torch.tensor([start, end], dtype=torch.float64, device=x.device)
        try:
            path = integrate(
                rate,
                x,
                ends,
                rtol=self.tolerance,
                atol=self.tolerance,
                method="dopri5",
                options={"max_num_steps": self.most, "dtype": torch.float64},
            )
        except AssertionError as error:  # how torchdiffeq reports that it gives up
            raise ValueError(
                f"`tolerance` {self.tolerance:g} is not met in {self.most:,} steps "
                f"({' '.join(str(error).split())}): raise it, or take a solver of fixed steps"
            ) from None
        return path[-1]
