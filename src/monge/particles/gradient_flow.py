r"""Particle flows: samples that descend a divergence themselves, without a network.

The Wasserstein gradient flow of x ↦ D(x, y) moves every point of a distribution along minus the
gradient of the first variation of D. A sample x_1, …, x_n stands for the distribution
(1/n) Σ δ_{x_i}, of which each point has the mass 1/n, so the velocity of a particle is

    v_i = -n ∇_{x_i} D(x, y).

The factor n makes velocities, and the rates that suit them, independent of the number of
particles.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import cpu_generator, dimension, finite, instance, positive, sample_pair
from monge._core.errors import NotFinite
from monge._core.frozen import frozen
from monge._core.promotion import ANY, promoted
from monge.adversarial import Learned
from monge.divergences import Divergence, arguments
from monge.draws import Draws


class Trajectory(NamedTuple):
    """Where a flow has moved particles."""

    particles: Tensor
    r"""The particles at the end, (n, \*)."""
    path: Tensor
    r"""The particles as they were recorded, the first ones and the last among them, (k, n, \*)."""
    values: Tensor
    """The divergence before each step, (steps,)."""


@promoted(x=ANY, y=ANY)
def velocity(
    x: Tensor, divergence: Divergence, y: Tensor, *, draws: Draws | None = None
) -> Tensor:
    r"""The velocity of each particle in the Wasserstein gradient flow of a divergence.

        v_i = -n ∇_{x_i} D(x, y)

    It does not depend on n: for W_2² between equally many points it is 2 (T(x_i) - x_i), where T
    is the optimal map.

    Args:
        x: the particles, (n, \*).
        divergence: D; one that is learned is taken as it is.
        y: the target sample, (m, \*).
        draws: the random numbers of D, where it takes any; torch's global generator by default.

    Returns:
        (n, \*), in the units of D per unit of x, without graph.

    Raises:
        ValueError: for samples that D does not take.
    """
    instance("divergence", divergence, Divergence, "EnergyDistance()")
    sample_pair(x, y)
    return _descent(x, divergence, y, draws)[1]


@promoted(x=ANY, target=ANY)
def flow(
    x: Tensor,
    divergence: Divergence,
    target: Tensor,
    *,
    steps: int = 100,
    rate: float = 0.1,
    batch: int | None = None,
    record: int | None = None,
    inner_steps: int = 1,
    inner_lr: float = 1e-3,
    generator: torch.Generator | None = None,
) -> Trajectory:
    r"""Moves particles by the Wasserstein gradient flow of a divergence towards a target sample.

        x_i ← x_i - rate · n ∇_{x_i} D(x, target)

    These are explicit Euler steps of length `rate` in the time of the flow. The factor n makes the
    rate independent of the number of particles. For W_2², a rate of ½ jumps to the matched points
    in one step, and every rate below 1 converges; sliced W_2² in d dimensions allows d times as
    much. The energy distance moves a particle by at most 2 · rate.

    A learned divergence is fitted in place, by `inner_steps` steps of Adam before each step of the
    particles, with its `inner_loss` and `project_`.

    Args:
        x: the particles at the start, (n, \*).
        divergence: D, any divergence between samples of that shape.
        target: the target sample, (m, \*).
        steps: how many steps.
        rate: the length of a step in time.
        batch: how many rows of the target each step sees, drawn afresh without replacement; all
            of them by default.
        record: every how many steps the particles are recorded; only first and last by default.
        inner_steps: steps of a learned divergence for each step of the particles; 0 leaves it as
            it is.
        inner_lr: their learning rate.
        generator: a CPU generator for all random numbers; torch's global one by default.

    Returns:
        The particles, their recorded path, and the divergence before each step, without graph. In
        half precision particles move in float32, and are rounded at the end.

    Raises:
        ValueError: for bad arguments, or a rate with which the particles leave all bounds.

    Example:

        x, y = torch.randn(200, 2), torch.randn(200, 2) + 3
        moved = monge.flow(x, monge.EnergyDistance(), y, steps=50, rate=0.5)
        moved.particles.mean(0)  # about (3, 3)

    Source: Jordan, Kinderlehrer, Otto, "The variational formulation of the Fokker-Planck
    equation", 1998; of the MMD Arbel, Korba, Salim, Gretton, "Maximum mean discrepancy gradient
    flow", 2019; of sliced W_2² Liutkus et al., "Sliced-Wasserstein flows", 2019; of the Sinkhorn
    divergence Feydy et al., "Interpolating between optimal transport and MMD", 2019.
    """
    instance("divergence", divergence, Divergence, "EnergyDistance()")
    sample_pair(x, target)
    finite("x", x)
    finite("target", target)
    dimension("steps", steps)
    rate = positive("rate", rate)
    every = steps if record is None else dimension("record", record)
    count = len(target) if batch is None else dimension("batch", batch)
    if count > len(target):
        raise ValueError(f"`batch` must be at most the {len(target)} of `target`, got {batch}")
    fit = None
    if isinstance(divergence, Learned) and inner_steps != 0:
        count_inner = dimension("inner_steps", inner_steps)
        fit = _Fit(divergence, count_inner, positive("inner_lr", inner_lr))
    seed = int(torch.randint(2**62, (), generator=cpu_generator(generator), device="cpu"))
    x, path, values = x.detach().clone(), [x.detach().clone()], []
    for step in range(steps):
        draws = Draws(seed, step, len(x), device=x.device)
        y = target.detach()
        if count < len(y):
            rows = torch.randperm(len(y), generator=draws.generator("target"), device="cpu")[
                :count
            ]
            y = y[rows.to(y.device)]
        if fit is not None:
            fit(x, y, draws)
        value, moving = _descent(x, divergence, y, draws)
        x = x + rate * moving
        # squares of distances must stay in range as well
        if not torch.isfinite(x.square().sum()):
            raise NotFinite(
                f"`rate` {rate} moves particles out of all bounds in step {step + 1}: lower it"
            )
        values.append(value)
        if (step + 1) % every == 0 or step + 1 == steps:
            path.append(x)
    return Trajectory(x, torch.stack(path), torch.stack(values))


def _descent(
    x: Tensor, divergence: Divergence, y: Tensor, draws: Draws | None
) -> tuple[Tensor, Tensor]:
    """D(x, y), and -n times its gradient in x; the divergence stays as it is."""
    x = x.detach().requires_grad_()
    random = {} if draws is None else arguments(divergence, draws)
    with torch.enable_grad(), frozen(divergence.parameters(), divergence.buffers()):
        value = divergence(x, y.detach(), **random)
        (gradient,) = torch.autograd.grad(value, x)
    return value.detach(), -len(x) * gradient


class _Fit:
    """The inner steps of a learned divergence."""

    def __init__(self, divergence: Learned, steps: int, lr: float):
        self.divergence, self.steps = divergence, steps
        parameters = [p for p in divergence.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(parameters, lr=lr)

    def __call__(self, x: Tensor, y: Tensor, draws: Draws) -> None:
        """Fits the divergence to particles that stay where they are."""
        for i in range(self.steps):
            random = arguments(self.divergence, draws.named(f"inner {i}"))
            self.optimiser.zero_grad()
            with torch.enable_grad():
                self.divergence.inner_loss(x, y, **random).backward()
            self.optimiser.step()
            self.divergence.project_()
