r"""Soft minima of a cost, the one operation of Sinkhorn's algorithm:

    S_b(g)_i = -ε log Σ_j b_j exp((g_j - C_ij)/ε),    S_a(f)_j likewise over the rows.

In the log domain each needs an exponential per entry of the cost. But about potentials (f⁰, g⁰)
near the solution the Gibbs kernel K_ij = exp((f⁰_i + g⁰_j - C_ij)/ε) is of order 1 where it
matters, and then

    S_b(g) = f⁰ - ε log K (b exp((g - g⁰)/ε))

is a product of a matrix and a vector, ten times cheaper. `Stored` keeps such a kernel, notices
when the potentials have left its range, and computes it anew there; `Streamed` keeps nothing.
`choose_minima` picks one of them.

Potentials and exponents are float64 whatever the points are: an exponent of 1,000 in float32 would
make the plan wrong in its fourth digit. Only the kernel is in the dtype of the points.

Source: Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized transport
problems", 2019 (absorption); Peyré, Cuturi, "Computational optimal transport", 2019, section 4.4.
"""

import abc
import math
from typing import Protocol

import torch
from torch import Tensor

from monge._core.numerics import drawn
from monge._core.tuning import tuning
from monge._core.typed import split
from monge.gpu.launch import is_usable
from monge.transport.ground import GroundCost, Points, log_weights, smallest
from monge.transport.penalties import CONSTRAINTS, Penalties, Penalty
from monge.transport.reductions import choose_reductions

STRIP = 64
"""Columns of a Gibbs kernel whose sum is drawn from before one of them is."""


class Minima(Protocol):
    """What computes both soft minima, for the ε of its last `begin`.

    Beside penalties on the marginals it computes the potentials P(S) that are best for them.
    """

    a: Tensor
    b: Tensor
    epsilon: float
    penalties: Penalties
    soft_f: Tensor
    """The last S_b(g)."""
    soft_g: Tensor
    """The last S_a(f)."""

    def rows(self, g: Tensor) -> Tensor:
        """P S_b(g), (n,)."""
        ...

    def columns(self, f: Tensor) -> Tensor:
        """P S_a(f), (m,)."""
        ...


class Streamed:
    """Soft minima in the log domain, block by block: memory O(n + m)."""

    epsilon: float

    def __init__(self, cost: GroundCost, a: Tensor, b: Tensor, penalties: Penalties = CONSTRAINTS):
        self.cost, self.a, self.b, self.penalties = cost, a.double(), b.double(), penalties
        self.of_rows = choose_reductions(cost)
        self.of_columns = choose_reductions(cost.transposed())
        self.log_a, self.log_b = log_weights(a), log_weights(b)
        self.f0, self.g0 = torch.zeros_like(self.a), torch.zeros_like(self.b)
        self.soft_f, self.soft_g = self.f0, self.g0

    def begin(self, f: Tensor, g: Tensor, epsilon: float) -> None:
        """Sets the regularisation, and the potentials near which the next minima are expected."""
        self.f0, self.g0, self.epsilon = f, g, epsilon

    def in_log_domain(self) -> "Streamed":
        """This problem without a stored kernel, in the log domain."""
        streamed = Streamed(self.cost, self.a, self.b, self.penalties)
        streamed.begin(self.f0, self.g0, self.epsilon)
        return streamed

    def rows(self, g: Tensor) -> Tensor:
        """P S_b(g), (n,)."""
        self.soft_f = self.soft_rows(g)
        return self.penalties[0].potential(self.soft_f, self.epsilon)

    def columns(self, f: Tensor) -> Tensor:
        """P S_a(f), (m,)."""
        self.soft_g = self.soft_columns(f)
        return self.penalties[1].potential(self.soft_g, self.epsilon)

    def soft_rows(self, g: Tensor) -> Tensor:
        """S_b(g), (n,)."""
        heights = g + self.epsilon * self.log_b
        self.f0 = self.of_rows.soft_minimum(heights, self.epsilon, self.f0)
        return self.f0

    def soft_columns(self, f: Tensor) -> Tensor:
        """S_a(f), (m,)."""
        self.g0 = self.of_columns.soft_minimum(
            f + self.epsilon * self.log_a, self.epsilon, self.g0
        )
        return self.g0

    def row_shares(self, f: Tensor, g: Tensor) -> Tensor:
        """(π1)_i / a_i = exp((f_i - S_b(g)_i)/ε) of the plan of potentials, (n,)."""
        return ((f - self.soft_rows(g)) / self.epsilon).exp()

    def column_shares(self, f: Tensor, g: Tensor) -> Tensor:
        """(πᵀ1)_j / b_j = exp((g_j - S_a(f)_j)/ε), (m,)."""
        return ((g - self.soft_columns(f)) / self.epsilon).exp()

    def slope_sums(
        self, f: Tensor, g: Tensor, start: Tensor, end: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """`Reductions.slope_sums` of the plan of potentials."""
        return self.of_rows.slope_sums((self.a, self.b, f, g, self.epsilon), start, end)


class Stored(Streamed):
    """Soft minima as products with a Gibbs kernel (n, m) in memory.

    The kernel is written into `space`, which the caller lends to one object at a time. Potentials
    never share memory with it.
    """

    def __init__(
        self,
        cost: GroundCost,
        a: Tensor,
        b: Tensor,
        space: Tensor,
        penalties: Penalties = CONSTRAINTS,
    ):
        super().__init__(cost, a, b, penalties)
        self.kernel = space[: math.prod(cost.shape)].view(cost.shape)
        # the smallest sum, relative to that of the weights, that the kernel's zeros leave exact
        self.least = smallest(cost.dtype) / torch.finfo(cost.dtype).eps
        self.reach = tuning(cost.device).gibbs_range

    def begin(self, f: Tensor, g: Tensor, epsilon: float) -> None:
        super().begin(f, g, epsilon)
        self.of_rows.write_gibbs_(self.kernel, f, g, epsilon)

    def rows(self, g: Tensor) -> Tensor:
        change = (g - self.g0) / self.epsilon
        soft = self._product(self.kernel, self.b, self.f0, change, self.penalties[0])
        if soft is None:
            f = super().rows(g)
        else:
            self.soft_f, f = soft, self.penalties[0].potential(soft, self.epsilon)
        if soft is None or change.abs().max() > self.reach:
            self.begin(f, g, self.epsilon)
        return f

    def columns(self, f: Tensor) -> Tensor:
        change = (f - self.f0) / self.epsilon
        soft = self._product(self.kernel.T, self.a, self.g0, change, self.penalties[1])
        if soft is None:
            g = super().columns(f)
        else:
            self.soft_g, g = soft, self.penalties[1].potential(soft, self.epsilon)
        if soft is None or change.abs().max() > self.reach:
            self.begin(f, g, self.epsilon)
        return g

    def row_shares(self, f: Tensor, g: Tensor) -> Tensor:
        shares = self._shares(self.kernel, self.b, g - self.g0, f - self.f0)
        return super().row_shares(f, g) if shares is None else shares

    def column_shares(self, f: Tensor, g: Tensor) -> Tensor:
        shares = self._shares(self.kernel.T, self.a, f - self.f0, g - self.g0)
        return super().column_shares(f, g) if shares is None else shares

    def slope_sums(
        self, f: Tensor, g: Tensor, start: Tensor, end: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        changes = (f - self.f0) / self.epsilon, (g - self.g0) / self.epsilon
        near = all(bool(change.abs().max() <= self.reach) for change in changes)
        square = isinstance(self.cost, Points) and self.cost.p == 2
        if not (near and square and start.dtype == self.kernel.dtype):
            return super().slope_sums(f, g, start, end)
        left, right = (
            (w * change.exp()).to(self.kernel.dtype)[:, None]
            for w, change in zip((self.a, self.b), changes)
        )
        of_start = (self.kernel @ (right * end)).mul_(2 * left)
        if start is end:
            return of_start, None
        return of_start, (self.kernel.T @ (left * start)).mul_(2 * right)

    def _shares(self, kernel: Tensor, w: Tensor, change: Tensor, own: Tensor) -> Tensor | None:
        """The sums of a plan's rows in units of their weights, or None if they overflow."""
        scaled = (w * (change / self.epsilon).exp()).to(kernel.dtype)
        shares = (kernel @ scaled).double() * (own / self.epsilon).exp()
        return shares if torch.isfinite(shares).all() else None

    def _product(
        self, kernel: Tensor, w: Tensor, about: Tensor, change: Tensor, penalty: Penalty
    ) -> Tensor | None:
        """The soft minimum, or None where that is outside the kernel's range."""
        scaled = (w * change.exp()).to(kernel.dtype)
        sums = kernel @ scaled
        low, high = sums.aminmax()
        least = self.least * scaled.sum()
        if not torch.isfinite(high):
            return None
        if not low > least:
            if ((sums <= least) & (about < penalty.highest)).any():
                return None
            # points that keep no mass: their potentials stay the highest
            sums = sums.clamp_min(least)
        return about - self.epsilon * sums.double().log()


class Deferred(abc.ABC):
    """Products with the kernel of a `Stored`, whose doubts are noted on the device.

    Nothing is read by the host, and no product replaced: who uses the minima looks at `doubts`
    from time to time, and discards what was outside of the kernel's range.
    """

    def __init__(self, stored: Stored):
        self.stored, self.a, self.b, self.epsilon = stored, stored.a, stored.b, stored.epsilon
        self.penalties = stored.penalties
        self.soft_f, self.soft_g = stored.f0, stored.g0
        self.f = stored.f0
        """The last soft minimum over rows."""

    @abc.abstractmethod
    def rows(self, g: Tensor) -> Tensor:
        """P S_b(g), (n,)."""

    @abc.abstractmethod
    def columns(self, f: Tensor) -> Tensor:
        """P S_a(f), (m,)."""

    @abc.abstractmethod
    def doubts(self) -> tuple[Tensor, Tensor]:
        """Whether a product was outside of the range in which the kernel's zeros do not show, and
        the largest change of a potential, in units of ε, since the kernel was computed."""


class DeferredByTensors(Deferred):
    """On any device."""

    def __init__(self, stored: Stored):
        super().__init__(stored)
        self.outside = torch.zeros((), dtype=torch.bool, device=self.f.device)
        self.moved = torch.zeros((), dtype=self.f.dtype, device=self.f.device)

    def rows(self, g: Tensor) -> Tensor:
        one = self.stored
        self.soft_f = self._product(one.kernel, self.b, one.f0, g - one.g0, self.penalties[0])
        self.f = self.penalties[0].potential(self.soft_f, self.epsilon)
        return self.f

    def columns(self, f: Tensor) -> Tensor:
        one = self.stored
        self.soft_g = self._product(one.kernel.T, self.a, one.g0, f - one.f0, self.penalties[1])
        return self.penalties[1].potential(self.soft_g, self.epsilon)

    def doubts(self) -> tuple[Tensor, Tensor]:
        return self.outside, self.moved

    def _product(
        self, kernel: Tensor, w: Tensor, about: Tensor, change: Tensor, penalty: Penalty
    ) -> Tensor:
        change = change / self.epsilon
        scaled = (w * change.exp()).to(kernel.dtype)
        sums = kernel @ scaled
        least = self.stored.least * scaled.sum()
        inside = (sums > least) | (about >= penalty.highest)
        self.outside = self.outside | ~(inside & torch.isfinite(sums)).all()
        self.moved = torch.maximum(self.moved, change.abs().amax())
        return about - self.epsilon * sums.clamp_min(least).double().log()


class DeferredByKernels(Deferred):
    """On a GPU, with three launches a product."""

    def __init__(self, stored: Stored):
        from monge.gpu import gibbs_product

        super().__init__(stored)
        (n, m), place = stored.cost.shape, self.f.device
        self.of_rows = gibbs_product.Notes(n, m, stored.epsilon, stored.least, place)
        self.of_columns = gibbs_product.Notes(m, n, stored.epsilon, stored.least, place)
        self.product = gibbs_product.soft_minimum

    def rows(self, g: Tensor) -> Tensor:
        one = self.stored
        self.soft_f = self.product(one.kernel, self.b, g, one.g0, one.f0, self.of_rows)
        self.f = self.penalties[0].potential(self.soft_f, self.epsilon)
        return self.f

    def columns(self, f: Tensor) -> Tensor:
        one = self.stored
        self.soft_g = self.product(one.kernel.T, self.a, f, one.f0, one.g0, self.of_columns)
        return self.penalties[1].potential(self.soft_g, self.epsilon)

    def doubts(self) -> tuple[Tensor, Tensor]:
        (outside, moved), (its_outside, its_moved) = self.of_rows.worst(), self.of_columns.worst()
        return outside | its_outside, torch.maximum(moved, its_moved)


def choose_deferred(stored: Stored) -> Deferred:
    """Picks how products with a kernel are computed that the host does not look at.

    The rule: by Triton's kernels where these run, by tensors elsewhere.
    """
    usable = is_usable(stored.kernel.device)
    return DeferredByKernels(stored) if usable else DeferredByTensors(stored)


def is_small(cost: GroundCost) -> bool:
    """Whether a problem is iterated by one program on a GPU, which needs no Gibbs kernel."""
    return max(cost.shape) <= tuning(cost.device).program_points and is_usable(cost.device)


def kept_entries(cost: GroundCost) -> int:
    """Entries of the Gibbs kernel that is kept in memory: all n m, or 0 if that is too many, or
    if the problem needs none."""
    entries = math.prod(cost.shape)
    kept = entries <= tuning(cost.device).gibbs_entries and not is_small(cost)
    return entries if kept else 0


def choose_minima(
    cost: GroundCost, a: Tensor, b: Tensor, space: Tensor, penalties: Penalties = CONSTRAINTS
) -> Streamed:
    """Picks how the soft minima of a cost are computed.

    The rule: a Gibbs kernel of at most `Tuning.gibbs_entries` entries is stored (`Stored`), a
    larger one is recomputed block by block (`Streamed`), on every device and in every dtype; nor
    is that of a problem that one program solves.

    Args:
        cost: the cost (n, m).
        a: weights (n,).
        b: weights (m,).
        space: memory for at least `kept_entries(cost)` entries of the cost's dtype. It is lent:
            use the result no longer when the memory is lent again.
        penalties: what holds the marginals to a and b; by default they are constraints.
    """
    if kept_entries(cost):
        return Stored(cost, a, b, space, penalties)
    return Streamed(cost, a, b, penalties)


def draw_columns(minima: Streamed, f: Tensor, g: Tensor, u: Tensor) -> Tensor:
    """For each row of the cost (n, m) a column (n,), drawn by u (n, 2) from that row of the plan
    of potentials that the minima have found.

    Rows of a plan that are 0 in its dtype, as for an ε that no dtype resolves, are drawn from by
    their logarithms, which leaves the most likely column.
    """
    drawn_by_strips = _by_strips(minima, g, u) if isinstance(minima, Stored) else None
    if drawn_by_strips is not None:
        return drawn_by_strips
    exponents = minima.cost.exponents(
        f, g + minima.epsilon * log_weights(minima.b), minima.epsilon
    )
    return torch.cat([drawn(block.double().softmax(1), u[rows, 0]) for rows, block in exponents])


def _by_strips(minima: Stored, g: Tensor, u: Tensor) -> Tensor | None:
    """`draw_columns` of a stored kernel: a strip of columns is drawn first, and then a column of
    it, by one product instead of a matrix of levels. None where a row of the plan is 0."""
    kernel, m = minima.kernel, minima.cost.shape[1]
    weights = (minima.b * ((g - minima.g0) / minima.epsilon).exp()).to(kernel.dtype)
    strips = zip(split(kernel.T, STRIP), split(weights, STRIP))
    sums = torch.stack([w @ part for part, w in strips], 1)
    total = sums.sum(1)
    if not ((total > 0) & torch.isfinite(total)).all():
        return None
    strip = drawn(sums, u[:, 0])
    columns = STRIP * strip[:, None] + torch.arange(STRIP, device=kernel.device)
    inside = columns < m
    columns = columns.clamp_(max=m - 1)
    within = kernel.gather(1, columns) * weights[columns] * inside
    return STRIP * strip + drawn(within, u[:, 1])
