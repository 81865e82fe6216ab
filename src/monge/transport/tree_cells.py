r"""Points in cells of a balanced tree, and the pairs of cells between which a plan has mass.

A tree halves the points of a cell along its longest side until few are left. All cells of a depth
hold equally many points, in one piece of memory, so that a cell is a slice and a depth a view.

The exponent of the plan at a pair of points, f_i + g_j - ‖x_i - y_j‖², is bounded for a pair of
cells from few numbers. With x = c + u, y = c' + v and w = 2(c - c') it is

    (f_i - w·u) + (g_j + w·v) - ‖c - c'‖² - ‖u - v‖²,

and beside affine functions f ≤ α + s·u + ρ and g ≤ α' + s'·v + ρ' of the cells it is at most

    α + ρ + Σ_k |s - w|_k h_k + α' + ρ' + Σ_k |s' + w|_k h'_k - ‖c - c'‖²

for cells of half-widths h and h'. Potentials of the squared distance are nearly affine where the
transport map is nearly a translation, and then the bound is sharp to the square of a cell's width.

Source: Bentley, "Multidimensional binary search trees used for associative searching", 1975;
Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized transport problems", 2019.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.typed import unchecked_solve

CELL = 32
"""Points of a cell, or up to twice as many."""
FIRST_DEPTH = 5
"""Depth of the cells between which all pairs are looked at."""


class TreeCells(NamedTuple):
    """Points in 2^depth cells of equally many, float64; those of weight 0 may be copies."""

    points: Tensor
    """(cells, size, d)."""
    weights: Tensor
    """(cells, size)."""
    order: Tensor
    """The points' indices in the sample, (cells · size,)."""

    @property
    def depth(self) -> int:
        return len(self.points).bit_length() - 1

    def flat(self) -> tuple[Tensor, Tensor]:
        """The points (cells · size, d) and their weights, in the order of the tree."""
        return self.points.flatten(0, 1), self.weights.flatten()

    def to_sample(self, values: Tensor, count: int) -> Tensor:
        """Values (cells · size, *) of the points, in the order of the sample (count, *)."""
        out = values.new_empty(count, *values.shape[1:])
        out[self.order] = values
        return out

    def summed(self, values: Tensor, count: int) -> Tensor:
        """`to_sample` of values that are added up over the copies of a point."""
        out = values.new_zeros(count, *values.shape[1:])
        return out.index_add_(0, self.order, values)


def cells_of(x: Tensor, w: Tensor, size: int = CELL) -> TreeCells:
    """The points x (n, d) with weights w (n,) in cells of `size` to twice as many."""
    x, n = x.double(), len(x)
    depth = max(0, math.floor(math.log2(n / size)))
    padding = -n % 2**depth
    order = torch.arange(n + padding, device=x.device) % n
    weights = torch.cat([w.double(), w.new_zeros(padding, dtype=torch.float64)])
    kept = torch.arange(n + padding, device=x.device)
    for level in range(depth):
        kept = kept.view(2**level, -1)
        points = x[order[kept]]
        side = (points.amax(1) - points.amin(1)).argmax(1)
        along = points.gather(2, side[:, None, None].expand(-1, points.shape[1], 1))[..., 0]
        kept = kept.gather(1, along.argsort(1))
    kept = kept.reshape(2**depth, -1)
    return TreeCells(x[order[kept]], weights[kept], order[kept].flatten())


def coarser(cells: TreeCells, depth: int, size: int) -> tuple[TreeCells, Tensor]:
    """The means of the cells of a smaller depth, themselves in cells, and the mean square (,) of
    a coordinate of the points about them."""
    points, weights = (z.reshape(2**depth, -1, *z.shape[2:]) for z in cells[:2])
    masses = weights.sum(1)
    # the mean of cells without mass is that of their points
    shares = torch.where(masses[:, None] > 0, weights, 1.0)
    shares = shares / shares.sum(1, keepdim=True)
    means = (shares[..., None] * points).sum(1)
    spread = (weights * (points - means[:, None]).square().mean(2)).sum() / masses.sum()
    size = min(size, 2**depth)
    order = torch.arange(2**depth, device=points.device)
    coarse = TreeCells(means.view(-1, size, means.shape[1]), masses.view(-1, size), order)
    return coarse, spread


class Affine(NamedTuple):
    """Upper bounds of a function on cells: height + slope · (x - centre) for |x - centre| ≤ half,
    of one depth."""

    centre: Tensor
    half: Tensor
    height: Tensor
    slope: Tensor


def affine_bounds(points: Tensor, values: Tensor, depth: int) -> Affine:
    """Affine functions above the values of the points in each cell of a depth."""
    points, values = points.reshape(2**depth, -1, points.shape[-1]), values.reshape(2**depth, -1)
    low, high = points.amin(1), points.amax(1)
    centre, half = (low + high) / 2, (high - low) / 2
    u = points - centre[:, None]
    mean, level = u.mean(1, keepdim=True), values.mean(1, keepdim=True)
    moved = u - mean
    gram = moved.mT @ moved
    ridge = 1e-9 * gram.diagonal(dim1=1, dim2=2).sum(1) + torch.finfo(torch.float64).tiny
    gram = gram + ridge[:, None, None] * torch.eye(u.shape[2], dtype=u.dtype, device=u.device)
    slope = unchecked_solve(gram, (moved.mT @ (values - level)[..., None])[..., 0])
    slope = torch.where(torch.isfinite(slope), slope, 0.0)
    height = (values - (u @ slope[..., None])[..., 0]).amax(1)
    return Affine(centre, half, height, slope)


def active_pairs(
    x: TreeCells, y: TreeCells, f: Tensor, g: Tensor, least: float
) -> tuple[Tensor, Tensor]:
    """The pairs of cells of x and y, sorted by the first, between which f_i + g_j - ‖x_i - y_j‖²
    may exceed `least`. Between all others it does not."""
    depths = min(x.depth, FIRST_DEPTH), min(y.depth, FIRST_DEPTH)
    first = torch.arange(2 ** depths[0], device=f.device).repeat_interleave(2 ** depths[1])
    second = torch.arange(2 ** depths[1], device=f.device).repeat(2 ** depths[0])
    while True:
        of_x, of_y = affine_bounds(x.points, f, depths[0]), affine_bounds(y.points, g, depths[1])
        kept = _bound(of_x, of_y, first, second) > least
        first, second = first[kept], second[kept]
        if depths == (x.depth, y.depth):
            return first, second
        if depths[0] < x.depth:
            first = (2 * first[:, None] + torch.arange(2, device=f.device)).flatten()
            second = second.repeat_interleave(2)
        if depths[1] < y.depth:
            second = (2 * second[:, None] + torch.arange(2, device=f.device)).flatten()
            first = first.repeat_interleave(2)
        depths = min(depths[0] + 1, x.depth), min(depths[1] + 1, y.depth)
        order = first.argsort(stable=True)
        first, second = first[order], second[order]


def _bound(of_x: Affine, of_y: Affine, first: Tensor, second: Tensor) -> Tensor:
    """The bound of the module's docstring, for pairs of cells (t,)."""
    apart = of_x.centre[first] - of_y.centre[second]
    rise_x = ((of_x.slope[first] - 2 * apart).abs() * of_x.half[first]).sum(1)
    rise_y = ((of_y.slope[second] + 2 * apart).abs() * of_y.half[second]).sum(1)
    heights = of_x.height[first] + of_y.height[second]
    return heights + rise_x + rise_y - apart.square().sum(1)
