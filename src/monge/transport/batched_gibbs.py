r"""Sinkhorn's algorithm for a batch of small problems, as one programme of tensors.

Each problem has its own Gibbs kernel K_ij = exp((f⁰_i + g⁰_j - C_ij)/ε) about potentials near its
solution (`monge.transport.gibbs`), computed anew where the potentials have left its range, and its
own acceleration, tolerance and number of iterations. A kernel is kept beside its transpose: the
product of a row with a stack of matrices is many times faster than that of a column. Problems that
have converged are left behind as soon as they are half of the batch.

Points without mass are left out, and problems of like sizes are solved together, so that the
products are at most twice those of the points with mass.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.tuning import tuning
from monge._core.typed import distinct_rows
from monge.transport.fixed_point import Anderson, State, advanced, started
from monge.transport.ground import exponential_, log_weights, smallest
from monge.transport.potentials import ROUGH, Potentials, SinkhornSettings, warm_up_most


class Problems(NamedTuple):
    """Costs (B, n, m) in float64, with the weights of their rows and columns."""

    cost: Tensor
    a: Tensor
    b: Tensor
    symmetric: bool = False
    """Whether each problem is a sample against itself."""

    def means(self) -> Tensor:
        """The mean cost of each problem under the product of its weights, (B,)."""
        # the product of a row with a stack of matrices is faster than that of a column
        of_columns = (self.a[:, None] @ self.cost)[:, 0]
        return (of_columns * self.b).sum(1)

    def nearest(self) -> float:
        """`GroundCost.nearest` of the problem where it is largest."""
        least = self.cost.amin(2).masked_fill(self.a == 0, math.nan)
        return float(least.nanmedian(1).values.max())

    def plans(self, f: Tensor, g: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        """a_i b_j exp((f_i + g_j - C_ij)/ε), (B, n, m)."""
        u, v = f + epsilon * log_weights(self.a), g + epsilon * log_weights(self.b)
        scales = u.new_full((len(u), 1), epsilon)
        plans = exponentials(u, v, self.cost, scales, dtype)
        if not bool((self.a > 0).all() & (self.b > 0).all()):
            plans = plans * (self.a > 0)[:, :, None] * (self.b > 0)[:, None]
        return plans


def exponentials(
    f: Tensor, g: Tensor, cost: Tensor, epsilon: Tensor, dtype: torch.dtype
) -> Tensor:
    """exp((f_i + g_j - C_ij)/ε), (B, n, m), for an ε of each problem (B, 1).

    Exponents are float64, of a few problems at a time: new memory for all would take longer.
    """
    made = torch.empty(cost.shape, dtype=dtype, device=cost.device)
    size = max(1, tuning(cost.device).cost_entries // cost[0].numel())
    buffer = torch.empty_like(cost[:size])
    for first in range(0, len(cost), size):
        part = slice(first, first + size)
        exponents = torch.add(f[part, :, None], g[part, None], out=buffer[: len(f[part])])
        made[part] = exponents.sub_(cost[part]).div_(epsilon[part, :, None])
    return exponential_(made)


def soft_minima(cost: Tensor, b: Tensor, g: Tensor, epsilon: float | Tensor) -> Tensor:
    """-ε log Σ_j b_j exp((g_j - C_ij)/ε), (B, n), in the log domain."""
    heights = (g + (epsilon * log_weights(b)))[:, None] - cost
    epsilon = epsilon[:, :, None] if isinstance(epsilon, Tensor) else epsilon
    return -(epsilon * (heights / epsilon).logsumexp(2, keepdim=True))[:, :, 0]


class Kernels:
    """Soft minima of a batch by products with Gibbs kernels, for an ε of each problem (B, 1)."""

    def __init__(self, batch: Problems, f: Tensor, g: Tensor, epsilon: Tensor, dtype: torch.dtype):
        self.batch, self.epsilon, self.dtype = batch, epsilon, dtype
        self.f0, self.g0 = f, g
        self.kernel = self._gibbs(f, g, batch.cost, epsilon)
        self.transpose = self.kernel.mT.contiguous()
        self.least = smallest(dtype) / torch.finfo(dtype).eps
        self.reach = tuning(batch.cost.device).gibbs_range

    def kept(self, items: Tensor) -> "Kernels":
        """Those of some problems."""
        some = object.__new__(Kernels)
        some.__dict__ |= self.__dict__
        cost, a, b, symmetric = self.batch
        some.batch = Problems(cost[items], a[items], b[items], symmetric)
        for name in ("epsilon", "f0", "g0", "kernel", "transpose"):
            setattr(some, name, getattr(self, name)[items])
        return some

    def begin(self, items: Tensor, f: Tensor, g: Tensor) -> None:
        """Computes the kernels of some problems anew, about potentials f and g of these."""
        kernel = self._gibbs(f, g, self.batch.cost[items], self.epsilon[items])
        self.f0, self.g0 = self.f0.index_copy(0, items, f), self.g0.index_copy(0, items, g)
        self.kernel[items], self.transpose[items] = kernel, kernel.mT

    def into_plans(self, f: Tensor, g: Tensor) -> Tensor:
        """The plans of potentials within range of the kernels, into which they are written."""
        _, a, b, _ = self.batch
        u, v = (
            (w * ((new - old) / self.epsilon).exp()).to(self.dtype)
            for w, new, old in ((a, f, self.f0), (b, g, self.g0))
        )
        return self.kernel.mul_(u[:, :, None]).mul_(v[:, None])

    def _gibbs(self, f: Tensor, g: Tensor, cost: Tensor, epsilon: Tensor) -> Tensor:
        return exponentials(f, g, cost, epsilon, self.dtype)

    def rows(self, g: Tensor) -> Tensor:
        """S_b(g), (B, n)."""
        _, _, b, _ = self.batch
        f, doubtful = self._products(self.transpose, b, self.f0, g - self.g0)
        if bool(doubtful.any()):
            (items,) = doubtful.nonzero(as_tuple=True)
            f[items] = soft_minima(self.batch.cost[items], b[items], g[items], self.epsilon[items])
            self.begin(items, f[items], g[items])
        return f

    def columns(self, f: Tensor) -> Tensor:
        """S_a(f), (B, m)."""
        _, a, _, _ = self.batch
        g, doubtful = self._products(self.kernel, a, self.g0, f - self.f0)
        if bool(doubtful.any()):
            (items,) = doubtful.nonzero(as_tuple=True)
            cost = self.batch.cost[items].mT
            g[items] = soft_minima(cost, a[items], f[items], self.epsilon[items])
            self.begin(items, f[items], g[items])
        return g

    def _products(
        self, kernel: Tensor, w: Tensor, about: Tensor, change: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Soft minima by a product, and which problems are outside their kernel's range."""
        change = change / self.epsilon
        scaled = (w * change.exp()).to(kernel.dtype)
        sums = (scaled[:, None] @ kernel)[:, 0]
        inside = (sums.amin(1) > self.least * scaled.sum(1)) & (sums.amax(1) < math.inf)
        doubtful = ~inside | (change.abs().amax(1) > self.reach)
        return about - self.epsilon * sums.double().log(), doubtful


def _step(kernels: Kernels, g: Tensor) -> tuple[Tensor, Tensor]:
    """S_a(S_b(g)), and the marginal errors of (S_b(g), g)."""
    image = kernels.columns(kernels.rows(g))
    excess = ((g - image) / kernels.epsilon).expm1_().abs_()
    return image, excess.mul_(kernels.batch.b).sum(1)


def _symmetric_step(kernels: Kernels, f: Tensor) -> tuple[Tensor, Tensor]:
    """½ (f + S_a(f)) and its marginal errors."""
    image = kernels.rows(f)
    excess = ((f - image) / kernels.epsilon).expm1_().abs_()
    return (f + image) / 2, excess.mul_(kernels.batch.a).sum(1)


def _iterate(
    kernels: Kernels, start: Tensor, memory: int, tolerance: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Finds h = T(h) of every problem: h (B, n), its marginal errors and numbers of iterations."""
    h, errors = start.clone(), start.new_zeros(len(start))
    counts = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    items, state = torch.arange(len(start), device=start.device), started(start, memory)
    advance = _symmetric_step if kernels.batch.symmetric else _step
    for iteration in range(1, most + 1):
        image, error = advance(kernels, state.h)
        state = advanced(state, image, error, tolerance, iteration == most)
        still = ~state.done
        count = int(still.sum())
        if 2 * count > len(items):
            continue
        h[items], errors[items], counts[items] = state.h, state.size, state.iteration
        if count == 0:
            break
        # those that are still open are written again when they are done
        items, kernels, state = items[still], kernels.kept(still), _kept(state, still)
    return h, errors, counts


def _kept(state: State, items: Tensor) -> State:
    return State(*(z[items] for z in state))


def _scales(batch: Problems, epsilon: float) -> list[Tensor]:
    """Regularisations (B, 1) to pass through, by factors of 8, for hard problems; those of easier
    ones are at ε from the beginning."""
    means = batch.means()[:, None]
    hard = means > tuning(means.device).warm_up_ratio * epsilon
    counts = torch.where(hard, ((means / epsilon).log() / math.log(8)).ceil(), 0.0)
    larger = [torch.where(counts > i, means / 8**i, epsilon) for i in range(1, int(counts.max()))]
    return [] if batch.symmetric else larger


def _solved(
    batch: Problems, epsilon: float, settings: SinkhornSettings, dtype: torch.dtype
) -> tuple[Potentials, Kernels]:
    """The potentials of problems all of whose points have mass, and kernels about them."""
    acceleration, tolerance, most = settings
    memory = acceleration.memory if isinstance(acceleration, Anderson) else 0
    f, g = torch.zeros_like(batch.a), torch.zeros_like(batch.b)
    used = torch.zeros(len(f), dtype=torch.int64, device=f.device)
    for larger in _scales(batch, epsilon):
        kernels = Kernels(batch, f, g, larger, dtype)
        g, _, counts = _iterate(kernels, g, Anderson().memory, ROUGH, warm_up_most(most))
        f, used = kernels.rows(g), used + counts
    kernels = Kernels(batch, f, g, f.new_full((len(f), 1), epsilon), dtype)
    g, errors, counts = _iterate(kernels, g, memory, tolerance, most)
    f, mass = kernels.rows(g), 1.0
    if batch.symmetric:
        f, mass = g, (batch.a * ((g - f) / epsilon).exp()).sum(1)
    values = (batch.a * f).sum(1) + (batch.b * g).sum(1) - epsilon * (mass - 1)
    solution = Potentials(f, g, values, float(errors.max()), int((used + counts).max()))
    return solution, kernels


def _like_sizes(w: Tensor) -> Tensor:
    """The number of points with mass to within a factor √2, as an exponent (B,)."""
    return (2 * (w > 0).sum(1).log2()).ceil()


def _points_with_mass(w: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (B, k) of the points with mass, of some a first one again, and their weights."""
    counts = (w > 0).sum(1, keepdim=True)
    most = int(counts.max())
    places = (w == 0).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    filled = torch.arange(most, device=w.device) < counts
    places = torch.where(filled, places, places[:, :1])
    return places, w.gather(1, places) * filled


def _parts(batch: Problems) -> Iterator[tuple[Tensor, Tensor, Tensor, Problems]]:
    """Yields which problems are solved together, which of their rows and columns, and a batch of
    these, of a bounded size."""
    sizes = torch.stack([_like_sizes(batch.a), _like_sizes(batch.b)], 1)
    kinds, kind, _ = distinct_rows(sizes)
    for index in range(len(kinds)):
        (group,) = (kind == index).nonzero(as_tuple=True)
        rows, a = _points_with_mass(batch.a[group])
        columns, b = _points_with_mass(batch.b[group])
        entries = rows.shape[1] * columns.shape[1]
        size = max(1, tuning(a.device).batch_entries // entries)
        for i in range(0, len(group), size):
            part = slice(i, i + size)
            items, of_rows, of_columns = group[part], rows[part], columns[part]
            cost = batch.cost[items[:, None, None], of_rows[:, :, None], of_columns[:, None]]
            yield items, of_rows, of_columns, Problems(cost, a[part], b[part], batch.symmetric)


def solve_batch(
    batch: Problems, epsilon: float, settings: SinkhornSettings, dtype: torch.dtype
) -> tuple[Potentials, Tensor]:
    """The potentials of a batch, also at points without mass, with the values (B,) and the worst
    of the errors and numbers of iterations; and the plans (B, n, m)."""
    size = batch.a.shape[1] * batch.b.shape[1] * len(batch.a)
    full = bool((batch.a > 0).all() & (batch.b > 0).all())
    if full and size <= tuning(batch.a.device).batch_entries:
        solution, kernels = _solved(batch, epsilon, settings, dtype)
        return solution, kernels.into_plans(solution.f, solution.g)
    f, g = torch.zeros_like(batch.a), torch.zeros_like(batch.b)
    values, error, iterations = f.new_zeros(len(f)), 0.0, 0
    for items, rows, columns, part in _parts(batch):
        solution, _ = _solved(part, epsilon, settings, dtype)
        f[items[:, None], rows], g[items[:, None], columns] = solution.f, solution.g
        values[items] = solution.value
        error, iterations = max(error, solution.error), max(iterations, solution.iterations)
    if not full:
        f = torch.where(batch.a > 0, f, soft_minima(batch.cost, batch.b, g, epsilon))
        g = torch.where(batch.b > 0, g, soft_minima(batch.cost.mT, batch.a, f, epsilon))
    solution = Potentials(f, g, values, error, iterations)
    return solution, batch.plans(f, g, epsilon, dtype)
