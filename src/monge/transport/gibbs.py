r"""Soft minima of a cost, the one thing that Sinkhorn's algorithm does:

    S_b(g)_i = -ε log Σ_j b_j exp((g_j - C_ij)/ε),    S_a(f)_j likewise over the rows.

In the log domain each needs an exponential per entry of the cost. But about potentials (f⁰, g⁰)
near the solution the Gibbs kernel K_ij = exp((f⁰_i + g⁰_j - C_ij)/ε) is of order 1 where it
matters, and then

    S_b(g) = f⁰ - ε log K (b exp((g - g⁰)/ε))

is a product of a matrix and a vector, ten times cheaper. `Stored` keeps such a kernel, sees when
the potentials have left its range, and makes it anew there; `Streamed` keeps nothing.

Potentials and exponents are float64 whatever the points are: an exponent of 1,000 in float32 would
make the plan wrong in its fourth digit. Only the kernel is in the dtype of the points.

Source: Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized transport
problems", 2019 (absorption); Peyré, Cuturi, "Computational optimal transport", 2019, section 4.4.
"""

import abc
import math
from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 2**18
"""Entries of a block on a CPU, which stay in cache; elsewhere blocks are 64 times as large."""
FAR = 20.0
"""Change of a potential, in units of ε, after which a Gibbs kernel is made anew."""
MOST_FOR_MEAN = 500
"""Most points a side whose mean cost is taken: a scale, to a few per cent."""


def smallest(dtype: torch.dtype) -> float:
    """Exponentials below this are taken for 0: about 10⁻³⁰ in float32."""
    return 1e8 * torch.finfo(dtype).tiny


def exponential_(exponents: Tensor) -> Tensor:
    """exp in place, with zeros for what is negligible.

    Otherwise it, or a product with it, would be a denormal number, which processors work out a
    hundred times slower.
    """
    least = smallest(exponents.dtype)
    exponents.clamp_(min=math.log(least) - 1).exp_()
    return torch.threshold_(exponents, least, 0.0)


def log_weights(w: Tensor) -> Tensor:
    """log w in float64, finite where a weight is 0."""
    return w.double().clamp_min(torch.finfo(torch.float64).tiny).log()


class Cost(abc.ABC):
    """A cost matrix (n, m), stored or computed when it is needed, without gradient."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    @abc.abstractmethod
    def exponents(self, f: Tensor, g: Tensor, epsilon: float) -> Iterator[tuple[slice, Tensor]]:
        """(f_i + g_j - C_ij)/ε by blocks of rows, float64; a block is overwritten by the next."""

    @abc.abstractmethod
    def transposed(self) -> "Cost":
        """The same cost from y to x."""

    @abc.abstractmethod
    def mean(self) -> float:
        """The mean cost; of points evenly taken, if they are many."""

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the rows, each with a float64 buffer for its block."""
        n, m = self.shape
        entries = BLOCK if self.device.type == "cpu" else 64 * BLOCK
        # a product of a few rows only would read all of the other side for them
        size = min(n, max(16, entries // m))
        buffer = torch.empty(size, m, dtype=torch.float64, device=self.device)
        for i in range(0, n, size):
            yield slice(i, min(n, i + size)), buffer[: min(n, i + size) - i]


class Matrix(Cost):
    """A matrix that is stored."""

    def __init__(self, matrix: Tensor):
        self.matrix, self.shape = matrix, (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device

    def exponents(self, f: Tensor, g: Tensor, epsilon: float) -> Iterator[tuple[slice, Tensor]]:
        for part, block in self._blocks():
            torch.add(f[part, None], g, out=block)
            yield part, block.sub_(self.matrix[part]).div_(epsilon)

    def transposed(self) -> "Matrix":
        return Matrix(self.matrix.T)

    def mean(self) -> float:
        return float(self.matrix.mean())


class Points(Cost):
    """‖x_i - y_j‖^p of points (n, d) and (m, d).

    For p = 2 the exponents are one matrix product of vectors of length d + 2.
    """

    def __init__(self, x: Tensor, y: Tensor, p: float, dtype: torch.dtype | None = None):
        self.shape, self.device, self.p = (len(x), len(y)), x.device, p
        self.dtype = dtype or x.dtype
        centre = y.double().mean(0)
        self.x, self.y = x.double() - centre, y.double() - centre

    def exponents(self, f: Tensor, g: Tensor, epsilon: float) -> Iterator[tuple[slice, Tensor]]:
        if self.p != 2:
            for part, block in self._blocks():
                distance = torch.cdist(
                    self.x[part], self.y, compute_mode="donot_use_mm_for_euclid_dist"
                )
                torch.add(f[part, None], g, out=block)
                yield part, block.sub_(distance.pow_(self.p)).div_(epsilon)
            return
        ones = f.new_ones(max(self.shape), 1)
        of_x = ((f - self.x.square().sum(1)) / epsilon)[:, None]
        of_y = ((g - self.y.square().sum(1)) / epsilon)[:, None]
        left = torch.cat([self.x * (2 / epsilon), of_x, ones[: len(f)]], 1)
        right = torch.cat([self.y, ones[: len(g)], of_y], 1).T
        for part, block in self._blocks():
            yield part, torch.mm(left[part], right, out=block)

    def transposed(self) -> "Points":
        return Points(self.y, self.x, self.p, self.dtype)

    def mean(self) -> float:
        x, y = (z[:: -(-len(z) // MOST_FOR_MEAN)] for z in (self.x, self.y))
        return float(torch.cdist(x, y).pow_(self.p).mean())


class Streamed:
    """Soft minima in the log domain, block by block: memory O(n + m)."""

    def __init__(self, cost: Cost, a: Tensor, b: Tensor):
        self.cost, self.back, self.a, self.b = cost, cost.transposed(), a.double(), b.double()
        self.log_a, self.log_b = log_weights(a), log_weights(b)

    def begin(self, f: Tensor, g: Tensor, epsilon: float) -> None:
        """Turns to a regularisation, with potentials from which the first pass will start."""
        self.f0, self.g0, self.epsilon = f, g, epsilon

    def rows(self, g: Tensor) -> Tensor:
        """S_b(g), (n,)."""
        self.f0 = self._soft_minimum(self.cost, self.f0, g + self.epsilon * self.log_b)
        return self.f0

    def columns(self, f: Tensor) -> Tensor:
        """S_a(f), (m,)."""
        self.g0 = self._soft_minimum(self.back, self.g0, f + self.epsilon * self.log_a)
        return self.g0

    def _soft_minimum(self, cost: Cost, about: Tensor, other: Tensor) -> Tensor:
        """-ε log Σ_j exp((other_j - C_ij)/ε), with exponents taken about an estimate of it."""
        out = torch.empty_like(about)
        work = None
        for part, exponents in cost.exponents(about, other, self.epsilon):
            if work is None:
                work = torch.empty_like(exponents, dtype=cost.dtype)
            work = work[: len(exponents)].copy_(exponents)
            most = work.amax(1, keepdim=True)
            sums = exponential_(work.sub_(most)).sum(1)
            out[part] = about[part] - self.epsilon * (most[:, 0].double() + sums.double().log())
        return out


class Stored(Streamed):
    """Soft minima as products with a Gibbs kernel in memory, (n, m) in `space`."""

    def __init__(self, cost: Cost, a: Tensor, b: Tensor, space: Tensor):
        super().__init__(cost, a, b)
        self.kernel = space[: math.prod(cost.shape)].view(cost.shape)
        # the smallest sum, relative to that of the weights, that the kernel's zeros leave exact
        self.least = smallest(cost.dtype) / torch.finfo(cost.dtype).eps

    def begin(self, f: Tensor, g: Tensor, epsilon: float) -> None:
        super().begin(f, g, epsilon)
        for part, exponents in self.cost.exponents(f, g, epsilon):
            exponential_(self.kernel[part].copy_(exponents))

    def rows(self, g: Tensor) -> Tensor:
        change = (g - self.g0) / self.epsilon
        found = self._product(self.kernel, self.b, self.f0, change)
        f = found if found is not None else super().rows(g)
        if found is None or change.abs().max() > FAR:
            self.begin(f, g, self.epsilon)
        return f

    def columns(self, f: Tensor) -> Tensor:
        change = (f - self.f0) / self.epsilon
        found = self._product(self.kernel.T, self.a, self.g0, change)
        g = found if found is not None else super().columns(f)
        if found is None or change.abs().max() > FAR:
            self.begin(f, g, self.epsilon)
        return g

    def _product(self, kernel: Tensor, w: Tensor, about: Tensor, change: Tensor) -> Tensor | None:
        """The soft minimum, or None where the kernel's range does not hold it."""
        scaled = (w * change.exp()).to(kernel.dtype)
        sums = kernel @ scaled
        low, high = sums.aminmax()
        if not (low > self.least * scaled.sum() and torch.isfinite(high)):
            return None
        return about - self.epsilon * sums.double().log()
