r"""Flow matching: a velocity field whose flow carries noise to data."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monge._core.checks import dimension, instance
from monge.draws import Draws, standard_normal
from monge.models.base import Model, Pass
from monge.models.flow_paths import LinearPath, ProbabilityPath
from monge.models.modes import evaluating
from monge.models.protocols import device_of
from monge.models.solvers import Field, FixedStep, Midpoint, Solver
from monge.networks import Standardise
from monge.priors import Prior
from monge.transport.couplings import Coupling, Independent

TOGETHER = 500
"""How many samples are integrated at a time."""
EXACT_TRACE = 16
"""The most dimensions in which the divergence of a field is computed exactly."""


class Transported(NamedTuple):
    """Samples of a flow, and what their way there was like."""

    samples: Tensor
    r"""(n, \*)."""
    evaluations: float
    """Evaluations of the velocity a sample."""
    path_energy: float
    """∫ E‖v(x_t, t)‖² dt / E‖x_1 - x_0‖² - 1, in standard units: 0 of straight paths of constant
    speed, otherwise positive."""


class FlowMatching(Model):
    r"""Flow matching: min E ‖v(x_t, t) - u_t‖², with x_t and u_t on a path from noise to data.

    The flow dx/dt = v(x, t) carries noise x_0 ~ N(0, I) at t = 0 to samples at t = 1. Training
    integrates nothing; sampling does. Pairs from an optimal coupling make paths straighter, so
    that fewer steps suffice. A batch that passes in micro-batches, or on several processes, is
    coupled a part at a time.

    Arguments:
        network: v, called as network(x, t) with x (n, *) in standard units and t (n,).
        shape: of one sample.
        path: where x_t lies between x_0 and x_1, by default on a line.
        coupling: which noise belongs to which sample of a batch, by default independent.
        solver: integrates the flow, by default 20 steps of the midpoint method.
        moments: mean and deviation that standardise samples, which broadcast over one sample; by
            default 0 and 1.
        bounded: whether samples are clamped to [0, 1], as images are.

    Source: Lipman, Chen, Ben-Hamu, Nickel, Le, "Flow matching for generative modeling", 2023; Tong
    et al., "Improving and generalizing flow-based generative models with minibatch optimal
    transport", 2024.
    """

    shown = ("path", "coupling", "solver")
    divergence = None
    weight = 1.0

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        path: ProbabilityPath | None = None,
        coupling: Coupling | None = None,
        solver: Solver | None = None,
        moments: tuple[Tensor, Tensor] | None = None,
        bounded: bool = False,
    ):
        super().__init__()
        self.network = instance("network", network, nn.Module, "VectorVelocity(2, [64, 64])")
        self.shape = tuple(dimension("shape", size) for size in shape)
        self.path = instance("path", path or LinearPath(), ProbabilityPath, "LinearPath()")
        self.coupling = instance("coupling", coupling or Independent(), Coupling, "Exact()")
        self.solver = instance("solver", solver or Midpoint(), Solver, "Midpoint(20)")
        mean, deviation = moments or (torch.zeros(()), torch.ones(()))
        self.units, self.bounded = Standardise(mean, deviation), bounded

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, draws: Draws
    ) -> Pass:
        x0, x1 = self.pairs(x, draws)
        t = draws.rows("time", _stratified).to(x1.dtype)
        noise = draws.normal("path", x1) if self.path.noisy else None
        point, target = self.path.at(x0, x1, t, noise)
        error = self.network(point, t) - target
        return Pass({"regression": error.square().flatten(1).sum(1).mean()})

    def pairs(self, x: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        r"""Coupled noise and data, both (n, \*), of samples x (n, \*), in standard units."""
        x1 = self.units(x)
        x0 = draws.normal("source", x1)
        with torch.autocast(x1.device.type, enabled=False):
            return self.coupling.pairs(x0, x1, draws.generator("coupling"))

    def velocity(self, x: Tensor, t: float) -> Tensor:
        r"""v(x, t) of samples x (n, \*) in standard units, at one time."""
        return self.network(x, x.new_full((len(x),), t))

    def sample(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, n: int, generator: torch.Generator | None = None, prior: Prior | None = None
    ) -> Tensor:
        r"""n draws of the model, (n, \*), in evaluation mode and without gradient.

        Arguments:
            n: how many, at least 1.
            generator: a CPU generator of the noise; torch's global one by default. The noise of a
                sample does not depend on how many are drawn.
            prior: none; a flow has no codes.

        Raises:
            ValueError: for a prior, or an ODE whose solver does not meet its tolerance.
        """
        if prior is not None:
            raise ValueError(
                f"`prior` {prior!r} draws codes, which a {type(self).__name__} does not have: "
                "leave it out"
            )
        return torch.cat(list(self.sampled(n, generator)))

    def sampled(
        self, n: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Iterator[Tensor]:
        r"""The n draws of `sample` in batches of at most 500, so that n may exceed what memory
        holds; the noise is multiplied by `temperature`."""
        like = next(self.parameters())
        for first in range(0, dimension("n", n), TOGETHER):
            # noise is drawn row by row, so that it may come in parts
            z = standard_normal((min(TOGETHER, n - first), *self.shape), generator)
            with evaluating(self):
                x = self.solver(self.velocity, temperature * z.to(like))
            yield self.in_units_of_data(x)

    def in_units_of_data(self, y: Tensor) -> Tensor:
        r"""Samples y (n, \*) in standard units as samples of the data."""
        x = self.units.mean + self.units.deviation * y
        return x.clamp(0, 1) if self.bounded else x

    def transported(self, n: int, generator: torch.Generator | None = None) -> Transported:
        """n draws of the model with the number of evaluations and the energy of their paths.

        Arguments:
            n: how many, at least 1.
            generator: a CPU generator; torch's global one by default.
        """
        noise = standard_normal((dimension("n", n), *self.shape), generator)
        counted = _Counted(self.velocity)
        ends: list[Tensor] = []
        energies: list[Tensor] = []
        with evaluating(self):
            for z in _parts(noise.to(next(self.parameters()))):
                y, energy = integrated(self.solver, _with_energy(counted), z, 0.0, 1.0)
                ends.append(y)
                energies.append(energy)
        away = (torch.cat(ends) - noise.to(ends[0])).square().flatten(1).sum(1).mean()
        samples = torch.cat([self.in_units_of_data(y) for y in ends])
        energy = float(torch.cat(energies).mean() / away) - 1
        return Transported(samples, counted.samples / n, energy)

    def log_prob(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""The log-likelihood of samples x (n, \*) in their units, (n,).

        By the instantaneous change of variables,

            log p(x) = log N(x_0; 0, I) - ∫_0^1 div v(x_t, t) dt - Σ log deviation,

        along the flow back from x. The divergence is an exact trace in up to 16 dimensions, and
        Hutchinson's unbiased estimate with one probe a sample beyond.

        Arguments:
            x: samples.
            generator: a CPU generator of the probes; torch's global one by default.

        Source: Chen, Rubanova, Bettencourt, Duvenaud, "Neural ordinary differential equations",
        2018; Grathwohl et al., "FFJORD", 2019.
        """
        if tuple(x.shape[1:]) != self.shape or not len(x):
            raise ValueError(
                f"`x` must be samples (n, {', '.join(map(str, self.shape))}), got shape "
                f"{tuple(x.shape)}"
            )
        parts = [self._log_prob(part, generator) for part in _parts(x)]
        return torch.cat(parts).to(x.device)

    def _log_prob(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        x1 = self.units(x.to(device_of(self))).to(next(self.parameters()))
        if x1[0].numel() <= EXACT_TRACE:
            divergence = _exact_trace
        else:
            signs = torch.randint(2, x1.shape, generator=generator).mul_(2).sub_(1).to(x1)
            divergence = _Hutchinson(signs)
        with evaluating(self):
            field = _with_divergence(self.velocity, divergence)
            x0, change = integrated(self.solver, field, x1, 1.0, 0.0)
        d = x0[0].numel()
        normal = -0.5 * (x0.square().flatten(1).sum(1) + d * math.log(2 * math.pi))
        scale = self.units.deviation.log().expand(self.shape).sum()
        return normal + change - scale.to(normal.dtype)


def with_steps(flow: Any, steps: int) -> None:
    """Sets the number of equal steps in which a flow is integrated.

    Args:
        flow: what has a `solver`: a `FlowMatching`, or a sampler of codes that is one.
        steps: at least 1.

    Raises:
        ValueError: for anything else, and for a solver that chooses its steps itself.
    """
    solver = getattr(flow, "solver", None)
    if not isinstance(solver, Solver):
        raise ValueError(
            f"`ode_steps` is {steps}, but {type(flow).__name__} integrates no flow: leave it out"
        )
    if not isinstance(solver, FixedStep):
        raise ValueError(
            f"`ode_steps` is {steps}, but the solver {solver!r} chooses its steps by its "
            "tolerance: leave it out"
        )
    flow.solver = dataclasses.replace(solver, steps=dimension("ode_steps", steps))


def _parts(x: Tensor) -> Iterator[Tensor]:
    """At most 500 rows at a time."""
    for first in range(0, len(x), TOGETHER):
        yield x[first : first + TOGETHER]


def _stratified(n: int, generator: torch.Generator) -> Tensor:
    """One uniform time in each of n equal parts of [0, 1], (n,): less variance than n independent
    times, and the same mean."""
    return (torch.arange(n) + torch.rand(n, generator=generator)) / n


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


class _Counted:
    """A field that counts the samples it has been evaluated at."""

    def __init__(self, field: Field):
        self.field, self.samples = field, 0

    def __call__(self, x: Tensor, t: float) -> Tensor:
        self.samples += len(x)
        return self.field(x, t)


def _with_energy(field: Field) -> RateField:
    def rates(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        velocity = field(x, t)
        return velocity, velocity.square().flatten(1).sum(1)

    return rates


def _with_divergence(field: Field, divergence: Callable[[Tensor, Tensor], Tensor]) -> RateField:
    def rates(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            velocity = field(x, t)
            rate = divergence(velocity, x)
        return velocity.detach(), rate

    return rates


def _exact_trace(velocity: Tensor, x: Tensor) -> Tensor:
    """Σ_i ∂v_i/∂x_i, (n,), by a backward pass for each coordinate."""
    flat = velocity.flatten(1)
    total = flat.new_zeros(len(flat))
    for i in range(flat.shape[1]):
        (gradient,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)
        total += gradient.flatten(1)[:, i]
    return total


class _Hutchinson:
    r"""ε · (∂v/∂x) ε, (n,), for signs ε (n, \*): its mean is the trace."""

    def __init__(self, signs: Tensor):
        self.signs = signs

    def __call__(self, velocity: Tensor, x: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad((velocity * self.signs).sum(), x)
        return (gradient * self.signs).flatten(1).sum(1)
