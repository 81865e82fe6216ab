r"""Couplings of noise with data: which pairs (x_0, x_1) a flow is trained on.

Flow matching regresses a velocity on the straight paths between the pairs. The nearer a coupling
is to optimal transport, the straighter are the paths of the flow that it trains, and the fewer
steps it is sampled with. A coupling may choose the pairs, but not the samples: were some data or
some noise to appear more often than they should, the flow would learn another distribution. Each
class says which of the two marginals it keeps exactly, and which on average over its draws.

A coupling is called with noise x0 (n, \*) and data x1 (m, \*) and returns indices (i, j), each
(k,), of the pairs (x0[i], x1[j]). `pairs` returns the samples themselves.

- `Independent`: no transport; the reference.
- `Exact`: the optimal assignment of the batch, or the optimal plan where n and m differ.
- `Sinkhorn`: pairs drawn from the batch's entropic plan.
- `Semidiscrete`: noise with the whole data set, by potentials that were fitted once.

Flows that are conditioned on labels need couplings within them:
`monge.transport.conditional_couplings`.

Source: Pooladian et al., "Multisample flow matching: straightening flows with minibatch
couplings", 2023; Tong et al., "Improving and generalizing flow-based generative models with
minibatch optimal transport", 2024; Mousavi-Hosseini, Zhang, Klein, Cuturi, "Flow matching with
semidiscrete couplings", 2025.
"""

import abc

import torch
from torch import Tensor

from monge._core.checks import dimension, finite, instance, order, positive
from monge._core.devices import to_device
from monge._core.numerics import distances, drawn
from monge._core.promotion import ANY, promoted
from monge._core.shown import Shown
from monge._core.untrusted import memory
from monge.transport.accounts import checked_settings, judge_balanced
from monge.transport.exact import monge_map, solve
from monge.transport.gibbs import draw_columns
from monge.transport.ground import SinglePoints, resolved_mean
from monge.transport.potentials import (
    ACCELERATION,
    MOST_ITERATIONS,
    EntropicProblem,
    gibbs_space,
    solve_minima,
)
from monge.transport.semidiscrete import SemidiscretePlan

Pairs = tuple[Tensor, Tensor]
"""Indices (i, j) of noise and data, or the samples that they choose."""
EXACT_BYTES = 32
"""Bytes for each pair of an exact problem: the costs, their copy in the solver, and the plan."""


class Coupling(Shown, abc.ABC):
    """Chooses which noise is paired with which data."""

    data: Tensor | None = None
    """The data set that noise is paired with, in place of a batch of data, if there is one."""
    _shows_defaults = False

    @abc.abstractmethod
    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator | None = None) -> Pairs:
        r"""The indices of the pairs.

        Args:
            x0: noise (n, \*).
            x1: data (m, \*), of the same shape and on the same device.
            generator: a CPU generator, for those that draw.

        Returns:
            (i, j), int64 and on the device of the samples, for pairs (x0[i], x1[j]).
        """

    def pairs(
        self,
        x0: Tensor,
        x1: Tensor | None = None,
        generator: torch.Generator | None = None,
        **labels: Tensor,
    ) -> Pairs:
        """The pairs themselves, (x0[i], x1[j]), or (x0[i], data[j]) where there is a data set."""
        data = x1 if self.data is None else self.data
        if data is None:
            raise ValueError(f"`x1` is missing: {type(self).__name__} pairs noise with a batch")
        i, j = self(x0, data, generator, **labels)
        return torch.as_tensor(x0)[i], torch.as_tensor(data)[j]


class Independent(Coupling):
    """Noise i with data i, which were drawn independently.

    Where there are fewer data than noise, the first are used; where there are more, noise is used
    again. Each of the data appears once. It reads no values, so it never synchronises with a GPU.
    """

    @promoted(x0=ANY, x1=ANY)
    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator | None = None) -> Pairs:
        refuse_shapes(x0, x1)
        j = torch.arange(len(x1), device=x1.device)
        return j % len(x0), j


class Exact(Coupling):
    """The optimal coupling of the batch for the cost ‖x_0 - x_1‖^p.

    For n = m it is a permutation: each of the noise and each of the data appears once. Otherwise
    the optimal plan splits mass; each of the data appears once, with noise drawn from its column
    of the plan, so that each of the noise appears m/n times on average over the draws.

    Its time grows as n³ at worst and its memory as n m. A batch that does not fit is refused.

    Args:
        p: order, at least 1.

    Example:
        >>> i, j = Exact()(noise, data)
        >>> velocity = data[j] - noise[i]
    """

    def __init__(self, p: float = 2):
        self.p = order(p)

    @promoted(x0=ANY, x1=ANY)
    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator | None = None) -> Pairs:
        x0, x1 = _samples(x0, x1)
        n, m = len(x0), len(x1)
        if EXACT_BYTES * n * m > memory():
            raise ValueError(
                f"`x0` and `x1` have {n:,} × {m:,} pairs, more than memory holds for an exact "
                "coupling: pass smaller batches, or use Sinkhorn() or Semidiscrete(…)"
            )
        x0, x1 = _centred(x0, x1, self.p)
        j = torch.arange(m, device=x1.device)
        if n == m:
            return monge_map(x1, x0, p=self.p), j
        lengths = distances(x1, x0)
        # in units of the longest, of which no power overflows
        longest = lengths.max().clamp_min(torch.finfo(lengths.dtype).tiny)
        plan = solve((lengths / longest).pow(self.p)).plan
        return drawn(plan, _uniform((m,), plan, generator)), j


class Sinkhorn(Coupling):
    """Pairs drawn from the entropic plan of the batch for the cost ‖x_0 - x_1‖².

    Each of the data appears once, with noise drawn from its column of the plan. Each of the noise
    appears m/n times on average over the draws, up to `tolerance`: that is the marginal error of
    the plan in L1. A single draw leaves out some of the noise and repeats others. ε → 0 is
    `Exact`, ε → ∞ independent pairs with the noise drawn with replacement.

    Memory is that of one matrix (m, n) in float32, and bounded for large batches.

    Args:
        epsilon: regularisation, in units of the mean cost between the noise and the data of the
            batch, which is estimated from at most 500 of each.
        absolute: whether `epsilon` is in units of the cost instead, as POT's `reg`. A Schrödinger
            bridge with noise σ has ε = 2 σ².
        tolerance: on the marginal error.
        max_iterations: the iteration limit; reaching it warns.
    """

    def __init__(
        self,
        epsilon: float = 0.05,
        absolute: bool = False,
        tolerance: float = 1e-3,
        max_iterations: int = MOST_ITERATIONS,
    ):
        self.epsilon = positive("epsilon", epsilon)
        self.absolute = instance("absolute", absolute, bool, "True")
        self.tolerance = positive("tolerance", tolerance)
        self.max_iterations = dimension("max_iterations", max_iterations)

    @promoted(x0=ANY, x1=ANY)
    def __call__(self, x0: Tensor, x1: Tensor, generator: torch.Generator | None = None) -> Pairs:
        x0, x1 = _centred(*_samples(x0, x1), 2)
        settings = checked_settings(
            self.epsilon, self.tolerance, self.max_iterations, ACCELERATION
        )
        cost = SinglePoints(x1, x0)
        mean = resolved_mean(cost, "x0", "x1")
        # a mean cost of 0 is that of points that all coincide, where any plan is optimal
        epsilon = self.epsilon * (1.0 if self.absolute else mean or 1.0)
        a, b = (torch.full((k,), 1 / k, dtype=torch.float64, device=x0.device) for k in cost.shape)
        problem = EntropicProblem(cost, a, b)
        solution, minima = solve_minima(problem, gibbs_space(cost), epsilon, settings)
        judge_balanced(solution, epsilon, settings, torch.float32)
        u = _uniform((len(x1), 2), x1, generator)
        return draw_columns(minima, solution.f, solution.g, u), torch.arange(
            len(x1), device=x1.device
        )


class Semidiscrete(Coupling):
    r"""Noise with the data point of the whole data set in whose cell it lies.

    Each of the noise appears once. Each of the data appears equally often on average over the
    noise, up to `plan.marginal_error`. A pairing takes one nearest-neighbour search, whatever
    the size of a batch, and does not have the bias of plans between small batches.

    Args:
        data: the data set (m, \*) that the plan was fitted to.
        plan: `solve_semidiscrete(source, data)`.

    Example:
        >>> plan = solve_semidiscrete(Gaussian(2).sample, data)
        >>> noise, matched = Semidiscrete(data, plan).pairs(torch.randn(256, 2))
    """

    def __init__(self, data: Tensor, plan: SemidiscretePlan):
        instance("plan", plan, SemidiscretePlan, "solve_semidiscrete(source, data)")
        data = torch.as_tensor(data)
        if not plan.is_of(data):
            raise ValueError(
                f"`data` must be the {len(plan)} samples of `plan`, in their order, got others of "
                f"shape {tuple(data.shape)}: fit another"
            )
        self.data, self.plan = data, plan

    def __call__(
        self, x0: Tensor, x1: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Pairs:
        """The indices of the pairs (x0[i], data[j]); x1, a batch of data, is not looked at."""
        j = self.plan.assign(x0, generator)
        return torch.arange(len(j), device=j.device), j


def _samples(x0: Tensor, x1: Tensor) -> Pairs:
    """Noise and data as matrices without graph, if they are finite samples of one shape."""
    refuse_shapes(x0, x1)
    x0, x1 = finite("x0", x0), finite("x1", x1)
    return x0.detach().reshape(len(x0), -1), x1.detach().reshape(len(x1), -1)


def refuse_shapes(x0: Tensor, x1: Tensor) -> None:
    """Refuses what are not samples of one shape on one device."""
    for name, x in (("x0", x0), ("x1", x1)):
        if x.ndim < 1 or x.numel() == 0:
            raise ValueError(f"`{name}` must hold at least one sample, got shape {tuple(x.shape)}")
    if x0.shape[1:] != x1.shape[1:] or x0.device != x1.device:
        raise ValueError(
            "`x0` and `x1` must hold samples of one shape on one device, got "
            f"{tuple(x0.shape)} on {x0.device} and {tuple(x1.shape)} on {x1.device}"
        )


def _centred(x0: Tensor, x1: Tensor, p: float) -> Pairs:
    """Samples in float64, about their means for p = 2, which decide on no optimal pair."""
    x0, x1 = x0.double(), x1.double()
    return (x0 - x0.mean(0), x1 - x1.mean(0)) if p == 2 else (x0, x1)


def _uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1), float64."""
    return to_device(
        torch.rand(shape, dtype=torch.float64, generator=generator, device="cpu"), like.device
    )
