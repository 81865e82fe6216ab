r"""Flow matching: a velocity field whose flow carries noise to data."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monge._core.checks import cpu_generator, dimension, finite, instance, nonnegative, share
from monge._core.promotion import as_tensor, recordable
from monge.draws import Draws, standard_normal
from monge.labels import ClassPrior
from monge.models.base import Model, Pass
from monge.models.flow_coupling import WholeSet
from monge.models.flow_paths import LinearPath, ProbabilityPath
from monge.models.flow_rates import (
    Counted,
    Hutchinson,
    exact_trace,
    integrated,
    with_divergence,
    with_energy,
)
from monge.models.modes import evaluating
from monge.models.protocols import device_of
from monge.models.sampling import drawn_labels
from monge.models.solvers import Field, FixedStep, Midpoint, Solver
from monge.networks import Standardise
from monge.priors import Prior
from monge.transport.conditional_couplings import PerLabel, SemidiscretePerLabel
from monge.transport.couplings import Coupling, Independent

WITHIN = (PerLabel, SemidiscretePerLabel, WholeSet)
"""The couplings of class-conditional flows."""
Labels = int | Sequence[int] | Tensor | None
"""The class of all samples, one for each (n,), or weights of the classes (n, K)."""

TOGETHER = 500
"""How many samples are integrated at a time."""
EXACT_TRACE = 16
"""The most dimensions in which the divergence of a field is computed exactly."""


class Transported(NamedTuple):
    """Samples of a flow, and what their way there was like."""

    samples: Tensor
    r"""(n, \*)."""
    evaluations: float
    """Evaluations of the velocity a sample; with guidance each takes two passes."""
    path_energy: float
    """∫ E‖v(x_t, t)‖² dt / E‖x_1 - x_0‖² - 1, in standard units: 0 of straight paths of constant
    speed, otherwise positive."""


class FlowMatching(Model):
    r"""Flow matching: min E ‖v(x_t, t) - u_t‖², with x_t and u_t on a path from noise to data.

    The flow dx/dt = v(x, t) carries noise x_0 ~ N(0, I) at t = 0 to samples at t = 1. Training
    integrates nothing; sampling does. Pairs from an optimal coupling make paths straighter, so
    that fewer steps suffice. A batch that passes in micro-batches, or on several processes, is
    coupled a part at a time.

    A class-conditional flow has one velocity v(x, t | y) for each class y, and one, v(x, t | ∅),
    for all of them, on which it is trained where a label is dropped. It is sampled with

        v(x, t | ∅) + w (v(x, t | y) - v(x, t | ∅)).

    A guidance w > 1 leads to samples that are more typical of their class and less diverse.

    Args:
        network: v, called as network(x, t) with x (n, *) in standard units and t (n,), and of a
            class-conditional flow as network(x, t, labels) with rows (n, K), zeros for ∅.
        shape: of one sample.
        path: where x_t lies between x_0 and x_1, by default on a line.
        coupling: which noise belongs to which sample of a batch, by default independent.
        solver: integrates the flow, by default 20 steps of the midpoint method.
        moments: mean and deviation that standardise samples, which broadcast over one sample; by
            default 0 and 1.
        bounded: whether samples are clamped to [0, 1], as images are.
        class_prior: P_Y, of a class-conditional flow, whose coupling is one within labels, e.g.
            PerLabel(Exact()).
        label_dropout: the probability with which a label is dropped in training.
        guidance: w ≥ 0; 1 is none, and 0 ignores labels.

    Source: Lipman, Chen, Ben-Hamu, Nickel, Le, "Flow matching for generative modeling", 2023; Tong
    et al., "Improving and generalizing flow-based generative models with minibatch optimal
    transport", 2024; guidance: Ho, Salimans, "Classifier-free diffusion guidance", 2022.
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
        class_prior: ClassPrior | None = None,
        label_dropout: float = 0.1,
        guidance: float = 1.0,
    ):
        super().__init__()
        self.network = instance("network", network, nn.Module, "VectorVelocity(2, [64, 64])")
        instance("shape", shape, Sequence, "(2,)")
        self.shape = tuple(dimension("shape", size) for size in shape)
        path = LinearPath() if path is None else path
        self.path = instance("path", path, ProbabilityPath, "LinearPath()")
        if coupling is None:
            coupling = Independent() if class_prior is None else PerLabel(Independent())
        self.coupling = instance("coupling", coupling, Coupling, "Exact()")
        solver = Midpoint() if solver is None else solver
        self.solver = instance("solver", solver, Solver, "Midpoint(20)")
        mean, deviation = (torch.zeros(()), torch.ones(())) if moments is None else moments
        flag = instance("bounded", bounded, bool, "True")
        self.units, self.bounded = self._standard_units(mean, deviation), flag
        self.class_prior, self.label_dropout, self.guidance = class_prior, label_dropout, 1.0
        if class_prior is not None:
            instance("class_prior", class_prior, ClassPrior, "ClassPrior([0.5, 0.5])")
        if share("label_dropout", label_dropout) == 1:
            raise ValueError(f"`label_dropout` must be in [0, 1), got {label_dropout!r}")
        if class_prior is None and isinstance(self.coupling, (PerLabel, SemidiscretePerLabel)):
            raise ValueError(
                f"`coupling` {self.coupling!r} pairs within labels, which a flow without "
                "`class_prior` does not take: give Exact()"
            )
        if class_prior is not None and not isinstance(self.coupling, WITHIN):
            raise ValueError(
                f"`coupling` {self.coupling!r} pairs noise with data whatever their labels, which "
                f"biases draws of a class: give PerLabel({self.coupling!r})"
            )
        if class_prior is not None:
            self.shown = (*self.shown, "guidance")
        if class_prior is not None or guidance != 1:
            with_guidance(self, guidance)

    def _standard_units(self, mean: Tensor, deviation: Tensor) -> Standardise:
        """The map to standard units, if the moments are those of samples of this shape."""
        mean, deviation = torch.as_tensor(mean), torch.as_tensor(deviation)
        of_samples = mean.ndim <= len(self.shape) and deviation.ndim <= len(self.shape)
        fits = of_samples and all(
            size in (1, own)
            for z in (mean, deviation)
            for size, own in zip(z.shape[::-1], self.shape[::-1])
        )
        positive = bool(torch.isfinite(mean).all() and (deviation > 0).all())
        if not (fits and positive and torch.isfinite(deviation).all()):
            raise ValueError(
                f"`moments` must be finite means and positive deviations that broadcast over "
                f"{self.shape}, got shapes {tuple(mean.shape)} and {tuple(deviation.shape)} with "
                f"deviations from {float(deviation.min()):.3g}: drop constant coordinates"
            )
        return Standardise(mean, deviation)

    def forward(self, x: Tensor, draws: Draws, labels: Tensor | None = None) -> Pass:
        x0, x1, condition = self.pairs(x, draws, labels)
        t = draws.rows("time", _stratified).to(x1.dtype)
        noise = draws.normal("path", x1) if self.path.noisy else None
        point, target = self.path.at(x0, x1, t, noise)
        error = self.network(point, t, *condition) - target
        return Pass({"regression": error.square().flatten(1).sum(1).mean()})

    def pairs(
        self, x: Tensor, draws: Draws, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        r"""Coupled noise and data, both (n, \*), of samples x (n, \*), in standard units, and what
        the network takes after them and the time: nothing, or rows (n, K) for labels (n,), of
        which some are dropped."""
        x1 = self.units(x)
        x0 = draws.normal("source", x1)
        data = x1 if self.coupling.data is None else self.coupling.data
        generator, of = draws.generator("coupling"), {}
        if (condition := self.condition(labels, x1)) and labels is not None:
            # noise is dealt to the labels of the batch without being looked at
            of = {"labels0": labels, "labels1": labels}
        with torch.autocast(x1.device.type, enabled=False):
            i, j = self.coupling(x0, data, generator, **of)
        if condition:
            kept = draws.rows(
                "labels",
                lambda n, g: torch.rand(n, generator=g, dtype=torch.float32, device="cpu"),
            )
            rows = (kept >= self.label_dropout).to(x1.dtype)[:, None] * condition[0][i]
            condition = (rows,)
        return x0[i], data[j], condition

    def velocity(self, x: Tensor, t: float | Tensor, labels: Tensor | None = None) -> Tensor:
        r"""v(x, t) of samples x (n, \*) in standard units, at one time or a time each (n,); of a
        class-conditional flow with labels (n,) or weights of the classes (n, K), and with
        guidance."""
        times = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        try:
            times = times.expand(x.shape[0])  # which an export keeps open
        except RuntimeError:
            raise ValueError(
                f"`t` must be one time or one for each of {len(x)} samples, got shape "
                f"{tuple(times.shape)}"
            ) from None
        condition = self.condition(labels, x)
        found = self.network(x, times, *condition)
        if self.guidance == 1:
            return found
        return self.network(x, times, torch.zeros_like(condition[0])).lerp(found, self.guidance)

    def _field(self, labels: Tensor | None) -> Field:
        return self.velocity if labels is None else partial(self.velocity, labels=labels)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        prior: Prior | None = None,
        labels: Labels = None,
    ) -> Tensor:
        r"""n draws of the model, (n, \*), in evaluation mode and without gradient.

        Args:
            n: how many, at least 1.
            generator: a CPU generator of the noise; torch's global one by default. The noise of a
                sample does not depend on how many are drawn.
            prior: none; a flow has no codes.
            labels: of a class-conditional flow, the class of all draws, one for each, or weights
                of the classes (n, K); by default draws of its `class_prior`.

        Raises:
            ValueError: for a prior, or an ODE whose solver does not meet its tolerance.
        """
        if prior is not None:
            raise ValueError(
                f"`prior` {prior!r} draws codes, which a {type(self).__name__} does not have: "
                "leave it out"
            )
        return torch.cat(list(self.sampled(n, generator, labels)))

    def sampled(
        self,
        n: int,
        generator: torch.Generator | None = None,
        labels: Labels = None,
        temperature: float = 1.0,
    ) -> Iterator[Tensor]:
        r"""The n draws of `sample` in batches of at most 500, so that n may exceed what memory
        holds; the noise is multiplied by `temperature`."""
        like = next(self.parameters())
        drawn = drawn_labels(self, dimension("n", n), generator, labels)
        for first in range(0, n, TOGETHER):
            # noise is drawn row by row, so that it may come in parts
            z = standard_normal((min(TOGETHER, n - first), *self.shape), generator)
            of = None if drawn is None else drawn[first : first + TOGETHER]
            with evaluating(self):
                x = self.solver(self._field(of), temperature * z.to(like))
            yield self.in_units_of_data(x)

    def in_units_of_data(self, y: Tensor) -> Tensor:
        r"""Samples y (n, \*) in standard units as samples of the data."""
        x = self.units.mean + self.units.deviation * y
        return x.clamp(0, 1) if self.bounded else x

    def transported(
        self, n: int, generator: torch.Generator | None = None, labels: Labels = None
    ) -> Transported:
        """n draws of the model with the number of evaluations and the energy of their paths.

        Args:
            n: how many, at least 1.
            generator: a CPU generator; torch's global one by default.
            labels: of a class-conditional flow; see `sample`.
        """
        drawn = drawn_labels(self, dimension("n", n), generator, labels)
        noise = standard_normal((n, *self.shape), generator)
        ends: list[Tensor] = []
        energies: list[Tensor] = []
        evaluations = 0
        with evaluating(self):
            for z, of in _parts(noise.to(next(self.parameters())), drawn):
                counted = Counted(self._field(of))
                y, energy = integrated(self.solver, with_energy(counted), z, 0.0, 1.0)
                ends.append(y)
                energies.append(energy)
                evaluations += counted.samples
        away = (torch.cat(ends) - noise.to(ends[0])).square().flatten(1).sum(1).mean()
        samples = torch.cat([self.in_units_of_data(y) for y in ends])
        energy = float(torch.cat(energies).mean() / away) - 1
        return Transported(samples, evaluations / n, energy)

    def log_prob(
        self, x: Tensor, generator: torch.Generator | None = None, labels: Labels = None
    ) -> Tensor:
        r"""The log-likelihood of samples x (n, \*) in their units, (n,).

        By the instantaneous change of variables,

            log p(x) = log N(x_0; 0, I) - ∫_0^1 div v(x_t, t) dt - Σ log deviation,

        along the flow back from x. The divergence is an exact trace in up to 16 dimensions, and
        Hutchinson's unbiased estimate with one probe a sample beyond.

        Args:
            x: samples.
            generator: a CPU generator of the probes; torch's global one by default.
            labels: y of a class-conditional flow, for log p(x | y), which it needs: the class of
                all samples, one for each, or weights of the classes (n, K).

        Source: Chen, Rubanova, Bettencourt, Duvenaud, "Neural ordinary differential equations",
        2018; Grathwohl et al., "FFJORD", 2019.
        """
        x = finite("x", as_tensor("x", x))
        if x.ndim < 1 or tuple(x.shape[1:]) != self.shape or not len(x):
            raise ValueError(
                f"`x` must be samples (n, {', '.join(map(str, self.shape))}), got shape "
                f"{tuple(x.shape)}"
            )
        cpu_generator(generator)
        of = None if labels is None else drawn_labels(self, len(x), None, labels)
        # the divergence of the velocity is a derivative, which inference mode does not record
        with torch.inference_mode(False), torch.no_grad():
            together = _parts(recordable(x), recordable(of))
            parts = [self._log_prob(part, generator, some) for part, some in together]
            return torch.cat(parts).to(x.device)

    def _log_prob(
        self, x: Tensor, generator: torch.Generator | None, labels: Tensor | None
    ) -> Tensor:
        x1 = self.units(x.to(device_of(self))).to(next(self.parameters()))
        if x1[0].numel() <= EXACT_TRACE:
            divergence = exact_trace
        else:
            signs = (
                torch.randint(2, x1.shape, generator=generator, device="cpu")
                .mul_(2)
                .sub_(1)
                .to(x1)
            )
            divergence = Hutchinson(signs)
        with evaluating(self):
            field = with_divergence(self._field(labels), divergence)
            x0, change = integrated(self.solver, field, x1, 1.0, 0.0)
        d = x0[0].numel()
        normal = -0.5 * (x0.square().flatten(1).sum(1) + d * math.log(2 * math.pi))
        scale = self.units.deviation.log().expand(self.shape).sum()
        return normal + change - scale.to(normal.dtype)


def with_steps(flow: Any, steps: int) -> None:
    """Sets the number of equal steps in which a flow is integrated.

    Args:
        flow: a `FlowMatching`, or a distribution of codes that samples one, its `flow`.
        steps: at least 1.

    Raises:
        ValueError: for anything else, and for a solver that chooses its steps itself.
    """
    integrated_flow = getattr(flow, "flow", flow)
    solver = getattr(integrated_flow, "solver", None)
    if not isinstance(solver, Solver):
        raise ValueError(
            f"`ode_steps` is {steps}, but {type(flow).__name__} integrates no flow: leave it out"
        )
    if not isinstance(solver, FixedStep):
        raise ValueError(
            f"`ode_steps` is {steps}, but the solver {solver!r} chooses its steps by its "
            "tolerance: leave it out"
        )
    integrated_flow.solver = dataclasses.replace(solver, steps=dimension("ode_steps", steps))


def with_guidance(flow: Any, guidance: float) -> None:
    """Sets the guidance with which a class-conditional flow is sampled.

    Args:
        flow: a class-conditional `FlowMatching`.
        guidance: w ≥ 0; 1 is none.

    Raises:
        ValueError: for anything else, and for a flow that was trained with every label.
    """
    guidance = nonnegative("guidance", guidance)
    if not isinstance(flow, FlowMatching) or flow.classes is None:
        raise ValueError(
            f"`guidance` is {guidance:g}, but this {type(flow).__name__} is not a "
            "class-conditional flow: leave it out, or train one with --condition labels"
        )
    if guidance != 1 and flow.label_dropout == 0:
        raise ValueError(
            f"`guidance` is {guidance:g}, but the flow was trained with every label: leave it out,"
            " or train one with --label-dropout 0.1"
        )
    flow.guidance = float(guidance)


def _parts(x: Tensor, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """At most 500 rows at a time, with their labels if there are any."""
    for first in range(0, len(x), TOGETHER):
        rows = slice(first, first + TOGETHER)
        yield x[rows], None if labels is None else labels[rows]


def _stratified(n: int, generator: torch.Generator) -> Tensor:
    """One uniform time in each of n equal parts of [0, 1], (n,): less variance than n independent
    times, and the same mean."""
    return (
        torch.arange(n) + torch.rand(n, generator=generator, dtype=torch.float32, device="cpu")
    ) / n
