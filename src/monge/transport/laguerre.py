r"""Laguerre diagrams: the division of space among weighted points by potentials.

z belongs to the point that attains min_j (‖z - y_j‖² - g_j): its cell. With ε > 0 the minimum is
soft, and z belongs to y_j with probability ∝ b_j exp((g_j - ‖z - y_j‖²)/ε). Cells are found by one
product of a block of z with the points.

Source: Aurenhammer, Hoffmann, Aronov, "Minkowski-type theorems and least-squares clustering",
1998.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.numerics import drawn, first_least
from monge._core.tuning import tuning
from monge._core.typed import distinct_rows, vector_norm
from monge.transport.ground import log_weights

MOST_ROUNDING = 1e-3
"""The largest rounding of costs, in units of the differences that decide."""


class Cells(NamedTuple):
    """Distinct points (k, d) with masses b (k,), among which noise is divided by potentials."""

    points: Tensor
    masses: Tensor
    epsilon: float
    resolution: float
    """The difference of costs that decides: the mean gap, and ε."""

    def assign(self, z: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """The (soft) minimum and the cell of each z (n, d), which u (n,) draws for ε > 0."""
        least, index = u.new_empty(len(z)), torch.empty(len(z), dtype=torch.int64, device=z.device)
        for rows, costs in self.prepared(z, g).blocks(z, g):
            if self.epsilon == 0:
                index[rows] = first_least(costs)
                least[rows] = costs.gather(1, index[rows, None])[:, 0].to(u.dtype)
            else:
                logits = self._logits(costs)
                least[rows] = -self.epsilon * logits.double().logsumexp(1)
                index[rows] = drawn(logits.softmax(1), u[rows])
        return z.double().square().sum(1) + least, index

    def hits(self, costs: Tensor) -> Tensor:
        """How much of a block of noise each cell has, (k,), with the block's length as its sum."""
        if self.epsilon == 0:
            return torch.bincount(first_least(costs), minlength=len(self.points))
        return self._logits(costs).softmax(1).sum(0, dtype=torch.float64)

    def gaps(self, z: Tensor, g: Tensor) -> Tensor:
        """The differences (n,) of the two least of ‖z - y_j‖² - g_j."""
        blocks = self.prepared(z, g).blocks(z, g)
        two = torch.cat([costs.topk(2, largest=False).values for _, costs in blocks])
        return two[:, 1] - two[:, 0]

    def prepared(self, z: Tensor, g: Tensor) -> "CellProducts":
        """These points for products with noise like z at potentials near g: in float32 where its
        rounding is far below the resolution."""
        y = self.points.double()
        squares = y.square().sum(1)
        lengths = [vector_norm(x, dim=1).amax() for x in (z.double(), y)]
        largest = 2 * lengths[0] * lengths[1] + (squares - g).abs().amax()
        info, decides = torch.finfo(torch.float32), MOST_ROUNDING * self.resolution
        single = (
            info.eps * float(largest) <= decides and info.tiny <= decides < info.eps * info.max
        )
        return CellProducts(self.points.to(torch.float32 if single else torch.float64), squares)

    def _logits(self, costs: Tensor) -> Tensor:
        return costs.mul_(-1 / self.epsilon).add_(log_weights(self.masses).to(costs.dtype))


class CellProducts(NamedTuple):
    """Points (k, d) in the dtype of products, with their squared norms in float64."""

    points: Tensor
    squares: Tensor

    def blocks(self, z: Tensor, g: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yields ‖y_j‖² - 2 z_i·y_j - g_j by blocks of rows, which are overwritten: the least is
        the nearest."""
        values = tuning(z.device)
        size = max(values.cost_rows, values.cost_entries // len(self.points))
        buffer = self.points.new_empty(min(size, len(z)), len(self.points))
        for first in range(0, len(z), size):
            some = z[first : first + size]
            yield slice(first, first + len(some)), self.costs(some, g, buffer[: len(some)])

    def costs(self, z: Tensor, g: Tensor, out: Tensor) -> Tensor:
        """One such block."""
        y = self.points
        heights = (self.squares - g).to(y.dtype)
        return torch.addmm(heights, z.to(y.dtype), y.T, alpha=-2, out=out)


def distinct_cells(
    data: Tensor, epsilon: float, resolution: float
) -> tuple[Cells, tuple[Tensor, Tensor, Tensor]]:
    """The distinct points with their masses, and the data in their order."""
    distinct, of, count = distinct_rows(data)
    members = of.argsort(stable=True), count.cumsum(0) - count, count
    return Cells(distinct, count.double() / len(data), epsilon, resolution), members
