r"""Quantities that are integrated along with the samples of a flow: energy and log density."""

from collections.abc import Callable

import torch
from torch import Tensor

from monge.models.solvers import Field, Solver

RateField = Callable[[Tensor, float], tuple[Tensor, Tensor]]
r"""(x, t) to the derivative (n, \*) of x and the derivative (n,) of a number that goes with it."""


def integrated(
    solver: Solver, field: RateField, x: Tensor, start: float, end: float
) -> tuple[Tensor, Tensor]:
    r"""x (n, \*) and a number of each sample that begins at 0, moved from `start` to `end`."""

    def joint(state: Tensor, t: float) -> Tensor:
        velocity, rate = field(state[:, :-1].view(x.shape), t)
        return torch.cat([velocity.flatten(1), rate[:, None]], 1)

    state = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1)
    state = solver(joint, state, start, end)
    return state[:, :-1].view(x.shape), state[:, -1]


class Counted:
    """A field that counts the samples it has been evaluated at."""

    def __init__(self, field: Field):
        self.field, self.samples = field, 0

    def __call__(self, x: Tensor, t: float) -> Tensor:
        self.samples += len(x)
        return self.field(x, t)


def with_energy(field: Field) -> RateField:
    """A velocity with ‖v‖², the rate of the path energy."""

    def rates(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        velocity = field(x, t)
        return velocity, velocity.square().flatten(1).sum(1)

    return rates


def with_divergence(field: Field, divergence: Callable[[Tensor, Tensor], Tensor]) -> RateField:
    """A velocity with its divergence, of (v, x) to (n,), the rate at which log density falls."""

    def rates(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            velocity = field(x, t)
            rate = divergence(velocity, x)
        return velocity.detach(), rate

    return rates


def exact_trace(velocity: Tensor, x: Tensor) -> Tensor:
    """Σ_i ∂v_i/∂x_i, (n,), by a backward pass for each coordinate."""
    flat = velocity.flatten(1)
    total = flat.new_zeros(len(flat))
    for i in range(flat.shape[1]):
        (gradient,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)
        total += gradient.flatten(1)[:, i]
    return total


class Hutchinson:
    r"""ε · (∂v/∂x) ε, (n,), for signs ε (n, \*): its mean is the trace."""

    def __init__(self, signs: Tensor):
        self.signs = signs

    def __call__(self, velocity: Tensor, x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad((velocity * self.signs).sum(), x)
        return (gradient * self.signs).flatten(1).sum(1)
