r"""The cost of transport, a matrix (n, m) that is stored or computed when it is needed.

What is asked of it are exponents e_ij = (f_i + g_j - C_ij)/ε, by blocks of rows; what is computed
from them is `monge.transport.reductions`.
"""

import abc
import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from monge._core.errors import NotFinite
from monge._core.numerics import distances
from monge._core.tuning import tuning
from monge.gpu.exponents import DIFFERENCES, MATRIX, PRODUCT, Exponents

MOST_ROUNDING = 1e-9
"""The largest rounding of squared distances, in units of ε."""
MOST_SINGLE_ROUNDING = 1e-3
"""The same of `SinglePoints`, for the pair that is farthest apart."""


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


def refuse_vanished(x: Tensor, y: Tensor, p: float) -> None:
    """Refuses samples of points whose distances to the power p are all 0, unless they are one
    point."""
    both = torch.cat([x, y])
    extent = float((both.amax(0) - both.amin(0)).amax())
    if extent > 0:
        raise NotFinite(
            f"`x` and `y` have distances of about {extent:.3g}, whose powers of order {p:g} "
            "vanish: rescale them, or lower `p`"
        )


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
        """The cost from y to x."""

    @abc.abstractmethod
    def entries(self, rows: slice) -> Tensor:
        """The cost of some rows, in its dtype."""

    @abc.abstractmethod
    def whole(self) -> Tensor:
        """The cost in float64, which the caller does not change; for small problems."""

    def roughly(self) -> "GroundCost":
        """This cost, to the digits that suffice for potentials near the optimum."""
        return self

    @abc.abstractmethod
    def factors(self, f: Tensor, g: Tensor, epsilon: float) -> Exponents:
        """(f_i + g_j - C_ij)/ε by what they are computed from, which is of size n + m."""

    def plans(
        self, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yields the plan a_i b_j exp((f_i + g_j - C_ij)/ε) by blocks of rows, in its dtype.

        Each block is a new tensor, which the caller may keep or overwrite.
        """
        f, g = f + epsilon * log_weights(a), g + epsilon * log_weights(b)
        empty_rows, empty_columns = (w == 0 if (w == 0).any() else None for w in (a, b))
        for rows, exponents in self.exponents(f, g, epsilon):
            plan = exponential_(exponents.to(self.dtype, copy=True))
            if empty_rows is not None:
                plan[empty_rows[rows]] = 0
            if empty_columns is not None:
                plan[:, empty_columns] = 0
            yield rows, plan

    @abc.abstractmethod
    def mean(self) -> float:
        """The mean cost; for many points, over an evenly spaced subset."""

    @abc.abstractmethod
    def nearest(self, a: Tensor) -> float:
        """The median, over rows that have weight, of a row's least cost; for many points, over an
        evenly spaced subset of the rows."""

    def _blocks(self, dtype: torch.dtype = torch.float64) -> Iterator[tuple[slice, Tensor]]:
        """Yields slices of the rows, each with uninitialised memory for its block."""
        n, m = self.shape
        values = tuning(self.device)
        size = min(n, max(values.cost_rows, values.cost_entries // m))
        buffer = torch.empty(size, m, dtype=dtype, device=self.device)
        for i in range(0, n, size):
            yield slice(i, min(n, i + size)), buffer[: min(n, i + size) - i]


class Matrix(GroundCost):
    """A cost matrix in memory, and its mean, where some entries are not costs but forbid pairs."""

    def __init__(self, matrix: Tensor, mean: float | None = None):
        self.matrix, self.shape = matrix, (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device, self._mean = matrix.dtype, matrix.device, mean

    def exponents(self, f: Tensor, g: Tensor, epsilon: float) -> Iterator[tuple[slice, Tensor]]:
        for rows, block in self._blocks():
            torch.add(f[rows, None], g, out=block)
            yield rows, block.sub_(self.matrix[rows]).div_(epsilon)

    def transposed(self) -> "Matrix":
        return Matrix(self.matrix.T, self._mean)

    def entries(self, rows: slice) -> Tensor:
        return self.matrix[rows]

    def whole(self) -> Tensor:
        return self.matrix.double()

    def factors(self, f: Tensor, g: Tensor, epsilon: float) -> Exponents:
        c = self.matrix
        return Exponents(c, c, f / epsilon, g / epsilon, epsilon, MATRIX)

    def mean(self) -> float:
        return float(self.matrix.mean()) if self._mean is None else self._mean

    def nearest(self, a: Tensor) -> float:
        return float(self.matrix.amin(1)[a > 0].median())


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

    def is_product(self, epsilon: float) -> bool:
        """Whether squared distances by a product are right in units of ε."""
        return self.p == 2 and not self.exact and self.rounding <= MOST_ROUNDING * epsilon

    def exponents(self, f: Tensor, g: Tensor, epsilon: float) -> Iterator[tuple[slice, Tensor]]:
        if not self.is_product(epsilon):
            for rows, block in self._blocks():
                distance = torch.cdist(
                    self.x[rows], self.y, compute_mode="donot_use_mm_for_euclid_dist"
                )
                torch.add(f[rows, None], g, out=block)
                yield rows, block.sub_(distance.pow_(self.p)).div_(epsilon)
            return
        left, right = self._products(f, g, epsilon)
        for rows, block in self._blocks():
            yield rows, torch.mm(left[rows], right, out=block)

    def _products(self, f: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """Matrices (n, d + 2) and (d + 2, m) whose product the exponents are."""
        factors, ones = self.factors(f, g, epsilon), f.new_ones(max(self.shape), 1)
        left = torch.cat([factors.left, factors.rows[:, None], ones[: len(f)]], 1)
        right = torch.cat([factors.right, ones[: len(g)], factors.columns[:, None]], 1)
        return left, right.T

    def factors(self, f: Tensor, g: Tensor, epsilon: float) -> Exponents:
        if not self.is_product(epsilon):
            return Exponents(
                self.x, self.y, f / epsilon, g / epsilon, epsilon, DIFFERENCES, self.p
            )
        u = (f - self.near_x.square().sum(1)) / epsilon
        v = (g - self.near_y.square().sum(1)) / epsilon
        return Exponents(self.near_x * (2 / epsilon), self.near_y, u, v, epsilon, PRODUCT)

    def entries(self, rows: slice) -> Tensor:
        x, y = (z.to(self.dtype) for z in (self.x[rows], self.y))
        return distances(x, y).pow(self.p)

    def whole(self) -> Tensor:
        mode = "donot_use_mm_for_euclid_dist"
        return torch.cdist(self.x, self.y, compute_mode=mode).pow_(self.p)

    def by_differences(self) -> "Points":
        """The cost computed by differences, never by a product."""
        return Points(self.x, self.y, self.p, self.dtype, exact=True)

    def roughly(self) -> "Points":
        return SinglePoints(self.x, self.y) if self.p == 2 else self

    def transposed(self) -> "Points":
        return Points(self.y, self.x, self.p, self.dtype, self.exact)

    def slopes(self, plan: Tensor, rows: slice) -> Tensor:
        """π_ij p ‖x_i - y_j‖^{p-2} of a block of rows, 0 where the points coincide."""
        lengths = distances(self.near_x[rows], self.near_y)
        return torch.where(lengths == 0, 0.0, self.p * plan * lengths.pow(self.p - 2))

    def mean(self) -> float:
        return self._mean

    @functools.cached_property
    def _mean(self) -> float:
        most = tuning(self.device).mean_points
        x, y = (z[:: -(-len(z) // most)] for z in (self.near_x, self.near_y))
        mean = float(torch.cdist(x, y).pow_(self.p).mean())
        if mean == 0:  # by products, which lose the distances of close points
            mode = "donot_use_mm_for_euclid_dist"
            mean = float(torch.cdist(x, y, compute_mode=mode).pow_(self.p).mean())
        if mean == 0:
            refuse_vanished(x, y, self.p)
        return mean

    def nearest(self, a: Tensor) -> float:
        entries = tuning(self.device).mean_points ** 2
        x = self.x[a > 0]
        x = x[:: -(-len(x) * len(self.y) // entries)]
        mode = "donot_use_mm_for_euclid_dist"
        return float(torch.cdist(x, self.y, compute_mode=mode).amin(1).median().pow(self.p))


class SinglePoints(Points):
    """‖x_i - y_j‖² with exponents by products in float32, in half the time.

    For potentials and plans that need be near the optimum and no more, such as a plan that pairs
    are drawn from: they are those of a cost that differs by rounding. Where that could reach a
    thousandth of ε, exponents are those of `Points`.
    """

    def __init__(self, x: Tensor, y: Tensor):
        super().__init__(x, y, 2, torch.float32)

    def exponents(self, f: Tensor, g: Tensor, epsilon: float) -> Iterator[tuple[slice, Tensor]]:
        """Yields (f_i + g_j - C_ij)/ε by blocks of rows, float32 where its digits suffice."""
        wider = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
        if self.rounding * wider > MOST_SINGLE_ROUNDING * epsilon:
            yield from super().exponents(f, g, epsilon)
            return
        left, right = (z.float() for z in self._products(f, g, epsilon))
        for rows, block in self._blocks(torch.float32):
            yield rows, torch.mm(left[rows], right, out=block)

    def transposed(self) -> "SinglePoints":
        return SinglePoints(self.y, self.x)


def about_medians(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Samples (n, d) and (m, d) about the median of each, on which outliers have no influence.

    For squared distances a shift changes no plan, but a far one hides the cost beneath its
    rounding.
    """
    return x - x.median(0).values, y - y.median(0).values


def resolved_mean(cost: GroundCost, *names: str) -> float:
    """The mean cost between samples with names.

    Raises:
        ValueError: for one so large that sums of costs over ε leave the range of float64.
    """
    mean = cost.mean()
    if not mean < 1e-16 * torch.finfo(torch.float64).max:
        raise ValueError(
            f"{' and '.join(f'`{name}`' for name in names)} have a mean squared distance of "
            f"{mean:.3g}, which float64 does not resolve: rescale them"
        )
    return mean
