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
import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from monge._core.tuning import tuning

MOST_ROUNDING = 1e-9
"""The largest rounding of squared distances, in units of ε."""


def smallest(dtype: torch.dtype) -> float:
    """The least exponential that is not rounded to 0: about 10⁻³⁰ in float32."""
    return 1e8 * torch.finfo(dtype).tiny


def exponential_(exponents: Tensor) -> Tensor:
    """exp in place, with zeros for what is negligible.

    Otherwise it, or a product with it, would be a denormal number, on which processors are a
    hundred times slower.
    """
    least = smallest(exponents.dtype)
    exponents.clamp_(min=math.log(least) - 1).exp_()
    return torch.threshold_(exponents, least, 0.0)


def log_weights(w: Tensor) -> Tensor:
    """log w in float64, finite where a weight is 0."""
    return w.double().clamp_min(torch.finfo(torch.float64).tiny).log()


class GroundCost(abc.ABC):
    """A cost matrix (n, m), stored or computed when it is needed, without gradient."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    @abc.abstractmethod
    def exponents(self, f: Tensor, g: Tensor, epsilon: float) -> Iterator[tuple[slice, Tensor]]:
        """Yields (f_i + g_j - C_ij)/ε by blocks of rows, float64.

        A block belongs to the iterator, which overwrites it with the next one: use it or copy it
        before going on, and do not collect the blocks in a list.
        """

    @abc.abstractmethod
    def transposed(self) -> "GroundCost":
        """The same cost from y to x."""

    @abc.abstractmethod
    def mean(self) -> float:
        """The mean cost; for many points, over an evenly spaced subset."""

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yields slices of the rows, each with uninitialised float64 memory for its block."""
        n, m = self.shape
        values = tuning(self.device)
        size = min(n, max(values.cost_rows, values.cost_entries // m))
        buffer = torch.empty(size, m, dtype=torch.float64, device=self.device)
        for i in range(0, n, size):
            yield slice(i, min(n, i + size)), buffer[: min(n, i + size) - i]


class Matrix(GroundCost):
    """A cost matrix in memory."""

    def __init__(self, matrix: Tensor):
        self.matrix, self.shape = matrix, (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device

    def exponents(self, f: Tensor, g: Tensor, epsilon: float) -> Iterator[tuple[slice, Tensor]]:
        for rows, block in self._blocks():
            torch.add(f[rows, None], g, out=block)
            yield rows, block.sub_(self.matrix[rows]).div_(epsilon)

    def transposed(self) -> "Matrix":
        return Matrix(self.matrix.T)

    def mean(self) -> float:
        return float(self.matrix.mean())


class Points(GroundCost):
    """‖x_i - y_j‖^p of points (n, d) and (m, d).

    For p = 2 the exponents are one matrix product of vectors of length d + 2, as long as its
    rounding is far below ε; otherwise, or where `exact` asks for it, differences are taken.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        p: float,
        dtype: torch.dtype | None = None,
        exact: bool = False,
    ):
        self.shape, self.device, self.p = (len(x), len(y)), x.device, p
        self.dtype, self.exact = dtype or x.dtype, exact
        self.x, self.y = x.double(), y.double()
        centre = self.y.mean(0)
        self.near_x, self.near_y = self.x - centre, self.y - centre
        largest = self.near_x.square().sum(1).amax() + self.near_y.square().sum(1).amax()
        self.rounding = torch.finfo(torch.float64).eps * float(largest)

    def exponents(self, f: Tensor, g: Tensor, epsilon: float) -> Iterator[tuple[slice, Tensor]]:
        if self.p != 2 or self.exact or not self.rounding <= MOST_ROUNDING * epsilon:
            for rows, block in self._blocks():
                distance = torch.cdist(
                    self.x[rows], self.y, compute_mode="donot_use_mm_for_euclid_dist"
                )
                torch.add(f[rows, None], g, out=block)
                yield rows, block.sub_(distance.pow_(self.p)).div_(epsilon)
            return
        ones = f.new_ones(max(self.shape), 1)
        of_x = ((f - self.near_x.square().sum(1)) / epsilon)[:, None]
        of_y = ((g - self.near_y.square().sum(1)) / epsilon)[:, None]
        left = torch.cat([self.near_x * (2 / epsilon), of_x, ones[: len(f)]], 1)
        right = torch.cat([self.near_y, ones[: len(g)], of_y], 1).T
        for rows, block in self._blocks():
            yield rows, torch.mm(left[rows], right, out=block)

    def transposed(self) -> "Points":
        return Points(self.y, self.x, self.p, self.dtype, self.exact)

    def mean(self) -> float:
        return self._mean

    @functools.cached_property
    def _mean(self) -> float:
        most = tuning(self.device).mean_points
        x, y = (z[:: -(-len(z) // most)] for z in (self.x, self.y))
        return float(torch.cdist(x, y).pow_(self.p).mean())


class Streamed:
    """Soft minima in the log domain, block by block: memory O(n + m)."""

    epsilon: float

    def __init__(self, cost: GroundCost, a: Tensor, b: Tensor):
        self.cost, self.back, self.a, self.b = cost, cost.transposed(), a.double(), b.double()
        self.log_a, self.log_b = log_weights(a), log_weights(b)
        self.f0, self.g0 = torch.zeros_like(self.a), torch.zeros_like(self.b)

    def begin(self, f: Tensor, g: Tensor, epsilon: float) -> None:
        """Sets the regularisation, and the potentials near which the next minima are expected."""
        self.f0, self.g0, self.epsilon = f, g, epsilon

    def rows(self, g: Tensor) -> Tensor:
        """S_b(g), (n,)."""
        self.f0 = self._soft_minimum(self.cost, self.f0, g + self.epsilon * self.log_b)
        return self.f0

    def columns(self, f: Tensor) -> Tensor:
        """S_a(f), (m,)."""
        self.g0 = self._soft_minimum(self.back, self.g0, f + self.epsilon * self.log_a)
        return self.g0

    def _soft_minimum(self, cost: GroundCost, about: Tensor, other: Tensor) -> Tensor:
        """-ε log Σ_j exp((other_j - C_ij)/ε), with exponents taken about an estimate of it."""
        out = torch.empty_like(about)
        work = None
        for rows, exponents in cost.exponents(about, other, self.epsilon):
            if work is None:
                work = torch.empty_like(exponents, dtype=cost.dtype)
            work = work[: len(exponents)].copy_(exponents)
            most = work.amax(1, keepdim=True)
            sums = exponential_(work.sub_(most)).sum(1)
            out[rows] = about[rows] - self.epsilon * (most[:, 0].double() + sums.double().log())
        return out


class Stored(Streamed):
    """Soft minima as products with a Gibbs kernel (n, m) in memory.

    The kernel is written into `space`, which the caller lends to one object at a time. Potentials
    never share memory with it.
    """

    def __init__(self, cost: GroundCost, a: Tensor, b: Tensor, space: Tensor):
        super().__init__(cost, a, b)
        self.kernel = space[: math.prod(cost.shape)].view(cost.shape)
        # the smallest sum, relative to that of the weights, that the kernel's zeros leave exact
        self.least = smallest(cost.dtype) / torch.finfo(cost.dtype).eps
        self.reach = tuning(cost.device).gibbs_range

    def begin(self, f: Tensor, g: Tensor, epsilon: float) -> None:
        super().begin(f, g, epsilon)
        for rows, exponents in self.cost.exponents(f, g, epsilon):
            exponential_(self.kernel[rows].copy_(exponents))

    def rows(self, g: Tensor) -> Tensor:
        change = (g - self.g0) / self.epsilon
        product = self._product(self.kernel, self.b, self.f0, change)
        f = product if product is not None else super().rows(g)
        if product is None or change.abs().max() > self.reach:
            self.begin(f, g, self.epsilon)
        return f

    def columns(self, f: Tensor) -> Tensor:
        change = (f - self.f0) / self.epsilon
        product = self._product(self.kernel.T, self.a, self.g0, change)
        g = product if product is not None else super().columns(f)
        if product is None or change.abs().max() > self.reach:
            self.begin(f, g, self.epsilon)
        return g

    def _product(self, kernel: Tensor, w: Tensor, about: Tensor, change: Tensor) -> Tensor | None:
        """The soft minimum, or None where it is outside the kernel's range."""
        scaled = (w * change.exp()).to(kernel.dtype)
        sums = kernel @ scaled
        low, high = sums.aminmax()
        if not (low > self.least * scaled.sum() and torch.isfinite(high)):
            return None
        return about - self.epsilon * sums.double().log()


def kept_entries(cost: GroundCost) -> int:
    """Entries of the Gibbs kernel that is kept in memory: all n m, or 0 if that is too many."""
    entries = math.prod(cost.shape)
    return entries if entries <= tuning(cost.device).gibbs_entries else 0


def choose_minima(cost: GroundCost, a: Tensor, b: Tensor, space: Tensor) -> Streamed:
    """Picks how the soft minima of a cost are computed.

    The rule: a Gibbs kernel of at most `Tuning.gibbs_entries` entries is stored (`Stored`), a
    larger one is recomputed block by block (`Streamed`); on every device and in every dtype.

    Args:
        cost: the cost (n, m).
        a: weights (n,).
        b: weights (m,).
        space: memory for at least `kept_entries(cost)` entries of the cost's dtype. It is lent:
            use the result no longer when the memory is lent again.
    """
    return Stored(cost, a, b, space) if kept_entries(cost) else Streamed(cost, a, b)
