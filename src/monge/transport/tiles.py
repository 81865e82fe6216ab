r"""Soft minima of ‖x - y‖² between many points, without the pairs where the plan is negligible.

Its entries about potentials (f, g) are a_i b_j exp((f_i + g_j - ‖x_i - y_j‖²)/ε). Tiles, which are
pairs of cells of two trees, are left out where none of these exponents exceeds -θ. After the
potentials have moved by δ and δ', the mass that is left out is at most

    exp(-θ) Σ_i a_i exp(δ_i/ε) Σ_j b_j exp(δ'_j/ε).

`TiledMinima` keeps this below a given share: where the potentials have moved too far for it, the
tiles are chosen anew.

Source: Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized transport
problems", 2019.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.tuning import tuning
from monge.transport.ground import Points, log_weights
from monge.transport.penalties import CONSTRAINTS
from monge.transport.reductions import choose_reductions
from monge.transport.tree_cells import TreeCells, active_pairs

REACH = 4.0
"""Rise of the potentials, in units of ε, after which tiles are chosen anew."""
LOWEST, HIGHEST = -40.0, 60.0
"""Exponents below are set to the lowest: it is less than the rounding of float64, and no product
with its exponential is a denormal number. Above the highest the exponential is rescaled."""
FAR = 30.0
"""Rise of a potential, in units of ε, from which it is computed from all pairs: what decides on it
may be below the lowest exponent, or left out."""
MOST_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-11}
"""The largest rounding of an exponent that is computed by a product."""
CHUNK = 2**17
"""Entries whose exponentials are taken at a time."""


class Strip(NamedTuple):
    """A cell of x, and those of y with which it exchanges mass."""

    cell: int
    rows: slice
    columns: Tensor
    """The cells of y, (k,)."""


class PlanSums(NamedTuple):
    """What is summed over a plan, float64."""

    rows: Tensor
    """Σ_j π_ij, (n,)."""
    columns: Tensor
    linear: Tensor
    """⟨C, π⟩."""
    of_x: Tensor
    """2 Σ_j π_ij (x_i - y_j), (n, d)."""
    of_y: Tensor


class TiledMinima:
    """Soft minima by products with the tiles of a Gibbs kernel.

    At most `Tuning.tile_entries` entries of the kernel are stored, the others are computed for
    each product. `dropped` is the share of the mass that may be left out.
    """

    epsilon: float
    last: Tensor | None = None
    """The potentials of the last `rows` for this ε."""
    soft_f: Tensor
    soft_g: Tensor

    def __init__(self, x: TreeCells, y: TreeCells, dtype: torch.dtype, dropped: float):
        self.x, self.y, self.dtype, self.penalties = x, y, dtype, CONSTRAINTS
        (self.flat_x, self.a), (self.flat_y, self.b) = x.flat(), y.flat()
        self.dropped, self.theta = dropped, REACH - math.log(dropped)
        self.store, self.work = (self.a.new_empty(0, dtype=dtype) for _ in range(2))
        self.centres = x.points.mean(1)

    def begin(self, f: Tensor, g: Tensor, epsilon: float) -> None:
        """Chooses the tiles about potentials, and computes what is stored of the kernel."""
        self.epsilon, self.chosen, self.f0, self.g0 = epsilon, (f, g), f.clone(), g
        self.last = None
        first, second = active_pairs(self.x, self.y, f, g, -self.theta * epsilon)
        counts = torch.bincount(first, minlength=len(self.x.points))
        tile, size = self.x.points.shape[1] * self.y.points.shape[1], self.x.points.shape[1]
        room = min(len(first) * tile, tuning(f.device).tile_entries)
        if room > len(self.store):
            self.store = self.store.new_empty(room)
        if int(counts.max()) * tile > len(self.work):
            self.work = self.work.new_empty(int(counts.max()) * tile)
        self.strips: list[Strip] = []
        self.blocks: list[Tensor] = []
        used = 0
        for cell, columns in enumerate(_groups(second, counts)):
            rows = slice(cell * size, (cell + 1) * size)
            strip = self._pruned(Strip(cell, rows, columns))
            self.strips.append(strip)
            entries = len(strip.columns) * tile
            if used + entries <= len(self.store) and len(self.blocks) == cell:
                self.blocks.append(self._kernel(strip, self.store[used : used + entries]))
                used += entries

    def rows(self, g: Tensor) -> Tensor:
        """S_b(g), (n,), and for `columns` of it S_a(S_b(g)), in one pass over the kernel."""
        if g is self.last:
            return self.soft_f
        f, image = self._both(g)
        if not self._covers(f, g):
            self.begin(f, g, self.epsilon)
            f, image = self._both(g)
        self.last, self.soft_f, self.soft_g = g, f, image
        return f

    def columns(self, f: Tensor) -> Tensor:
        """S_a(f), (m,), of the last `rows`."""
        assert f is self.soft_f
        if not self._covers(f, self.soft_g):
            self.begin(f, self.soft_g, self.epsilon)
            self.soft_g = self._columns(f)
        return self.soft_g

    def sums(self, f: Tensor, g: Tensor) -> PlanSums:
        """The sums over the plan of potentials."""
        changes = (f - self.f0).abs().amax(), (g - self.g0).abs().amax()
        if float(max(changes)) > FAR * self.epsilon:  # as of an iteration that did not converge
            self.begin(f, g, self.epsilon)
        left = self.a * ((f - self.f0) / self.epsilon).exp()
        right = (self.b * ((g - self.g0) / self.epsilon).exp()).view(self.y.weights.shape)
        d = self.flat_x.shape[1]
        of_x = self.flat_x.new_zeros(len(self.flat_x), d + 1)
        of_y = self.flat_y.new_zeros(*self.y.weights.shape, d + 1)
        linear = self.flat_x.new_zeros(())
        for strip, kernel in self._kernels():
            x, y = self._about_centre(strip)
            v, w = left[strip.rows, None], right[strip.columns].reshape(-1, 1)
            # float64, since sums of far points leave small differences
            kernel, start = kernel.double(), v * _with_one(x)
            there = v * ((w * _with_one(y)).T @ kernel).T
            # a product with a matrix of so few columns is slower than one with each
            back = w * torch.stack([kernel @ column for column in start.T], 1)
            linear += there[:, -1] @ _squares(x) + back[:, -1] @ _squares(y)
            linear -= 2 * (x * there[:, :-1]).sum()
            of_x[strip.rows] = _pulled(x, there)
            of_y.index_add_(0, strip.columns, _pulled(y, back).view(-1, of_y.shape[1], d + 1))
        of_y = of_y.flatten(0, 1)
        return PlanSums(of_x[:, -1], of_y[:, -1], linear, 2 * of_x[:, :-1], 2 * of_y[:, :-1])

    def _both(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """S_b(g), (n,), and S_a of it, (m,)."""
        scaled = (self.b * ((g - self.g0) / self.epsilon).exp()).to(self.dtype)
        scaled, f = scaled.view(self.y.weights.shape), torch.empty_like(self.f0)
        sums = torch.zeros_like(self.y.weights)
        heights = g + self.epsilon * log_weights(self.b)
        for strip, kernel in self._kernels():
            rows = strip.rows
            total = (scaled[strip.columns].flatten() @ kernel).double()
            some = self.f0[rows] - self.epsilon * total.log()
            f[rows] = self._risen(some, self.f0[rows], (self.flat_x[rows], self.flat_y), heights)
            self._add_columns(sums, strip, kernel, f)
        return f, self._soft_columns(sums, f)

    def _columns(self, f: Tensor) -> Tensor:
        """S_a(f), (m,)."""
        sums = torch.zeros_like(self.y.weights)
        for strip, kernel in self._kernels():
            self._add_columns(sums, strip, kernel, f)
        return self._soft_columns(sums, f)

    def _add_columns(self, sums: Tensor, strip: Strip, kernel: Tensor, f: Tensor) -> None:
        change = (f[strip.rows] - self.f0[strip.rows]) / self.epsilon
        part = kernel @ (self.a[strip.rows] * change.exp()).to(self.dtype)
        sums.index_add_(0, strip.columns, part.double().view(-1, sums.shape[1]))

    def _soft_columns(self, sums: Tensor, f: Tensor) -> Tensor:
        g = self.g0 - self.epsilon * sums.flatten().log()
        heights = f + self.epsilon * log_weights(self.a)
        return self._risen(g, self.g0, (self.flat_y, self.flat_x), heights)

    def _covers(self, f: Tensor, g: Tensor) -> bool:
        """Whether what the tiles leave out is below the share that may be, at potentials."""
        rises = [
            ((new - old) / self.epsilon + log_weights(w)).logsumexp(0)
            for new, old, w in zip((f, g), self.chosen, (self.a, self.b))
        ]
        return float(sum(rises)) <= REACH

    def _risen(
        self, f: Tensor, about: Tensor, samples: tuple[Tensor, Tensor], heights: Tensor
    ) -> Tensor:
        """Potentials, those that are far above the kernel's computed from all pairs."""
        far = ~((f - about <= FAR * self.epsilon) & torch.isfinite(f))
        if far.any():
            cost = Points(samples[0][far], samples[1], 2)
            minima = choose_reductions(cost)
            f[far] = minima.soft_minimum(heights, self.epsilon, f.new_zeros(len(cost.x)))
        return f

    def _kernels(self) -> Iterator[tuple[Strip, Tensor]]:
        """Yields the tiles of exp((f⁰ + g⁰ - C)/ε), (k · size, r) for each cell of x. A block that
        is not stored is overwritten by the next one."""
        yield from zip(self.strips, self.blocks)
        for strip in self.strips[len(self.blocks) :]:
            yield strip, self._kernel(strip, self.work)

    def _pruned(self, strip: Strip) -> Strip:
        """The strip without its negligible tiles. Where exponents are too high for the kernel, f⁰
        is lowered to them."""
        if len(strip.columns) == 0:
            return strip
        cells: list[Tensor] = []
        size = self.y.points.shape[1]
        most = self.f0.new_full((self.x.points.shape[1],), HIGHEST)
        for _, exponents in self._exponents(strip, self.work):
            tiles = exponents.view(-1, size * exponents.shape[1]).amax(1)
            cells.append(tiles)
            if float(tiles.amax()) > HIGHEST:
                most = torch.maximum(most, exponents.amax(0).double())
        self.f0[strip.rows] -= self.epsilon * (most - HIGHEST)
        return strip._replace(columns=strip.columns[torch.cat(cells) > -self.theta])

    def _kernel(self, strip: Strip, space: Tensor) -> Tensor:
        """exp((f⁰ + g⁰ - C)/ε) of a strip's tiles, written into a space."""
        for _, exponents in self._exponents(strip, space):
            exponents.clamp_(min=LOWEST).exp_()
        r = self.x.points.shape[1]
        return space[: len(strip.columns) * self.y.points.shape[1] * r].view(-1, r)

    def _exponents(self, strip: Strip, space: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yields (f⁰_i + g⁰_j - ‖x_i - y_j‖²)/ε of a strip's tiles, (k · size, r) by chunks of
        cells, computed in a dtype that resolves them and written into a space."""
        x, y = self._about_centre(strip)
        if len(y) == 0:
            return
        g = self.g0.view(self.y.weights.shape)[strip.columns].flatten()
        of_y = (g - _squares(y)) / self.epsilon
        of_x = (self.f0[strip.rows] - _squares(x)) / self.epsilon
        # the sum of both is of order 1, each of them may be large
        level = of_y.amax()
        one = torch.ones_like(of_x)[:, None]
        left = torch.cat([x * (2 / self.epsilon), (of_x + level)[:, None], one], 1).T
        right = torch.cat([y, torch.ones_like(y[:, :1]), (of_y - level)[:, None]], 1)
        largest = left[:-2].abs().amax() * y.abs().amax() + left[-2].abs().amax()
        single = torch.finfo(torch.float32).eps * float(largest) <= MOST_ROUNDING[torch.float32]
        exact = torch.finfo(torch.float64).eps * float(largest) > MOST_ROUNDING[torch.float64]
        dtype = self.dtype if single else torch.float64
        left, right, r, size = left.to(dtype), right.to(dtype), len(x), self.y.points.shape[1]
        step = size * max(1, CHUNK // (r * size))
        for first in range(0, len(y), step):
            some = slice(first, min(first + step, len(y)))
            out = space[some.start * r : some.stop * r].view(-1, r)
            if exact:
                cost = torch.cdist(
                    y[some], x, compute_mode="donot_use_mm_for_euclid_dist"
                ).square()
                out.copy_((self.f0[strip.rows] + g[some, None] - cost) / self.epsilon)
            elif dtype == out.dtype:
                torch.mm(right[some], left, out=out)
            else:
                out.copy_(right[some] @ left)
            yield some, out

    def _about_centre(self, strip: Strip) -> tuple[Tensor, Tensor]:
        """The points of a strip about the centre of its cell, (r, d) and (k · size, d)."""
        centre = self.centres[strip.cell]
        x, y = self.x.points[strip.cell], self.y.points[strip.columns]
        return x - centre, y.flatten(0, 1) - centre


def _groups(values: Tensor, counts: Tensor) -> Iterator[Tensor]:
    """Successive parts of values, of these sizes."""
    ends = [int(end) for end in counts.cumsum(0).cpu()]
    for start, end in pairwise([0, *ends]):
        yield values[start:end]


def _squares(x: Tensor) -> Tensor:
    """‖x_i‖² (n,), by a product, which is faster than a sum of few entries."""
    return x.square() @ x.new_ones(x.shape[1])


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def _pulled(x: Tensor, sums: Tensor) -> Tensor:
    """Σ_j π_ij (x_i - y_j) beside Σ_j π_ij, where `sums` holds Σ_j π_ij (y_j, 1)."""
    mass = sums[:, -1:]
    return torch.cat([x * mass - sums[:, :-1], mass], 1)
