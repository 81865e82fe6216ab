"""Codes and the prior: planes and directions, how typical a code is, and the prior's density."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge._core.checks import finite
from monge.data import as_floats
from monge.draws import generator
from monge.labels import Rows
from monge.models import evaluating
from monge.models.protocols import mean_codes, prior_of
from monge.priors import Prior
from monge.transport import max_sliced_wasserstein
from monge.transport.neighbours import nearest

MOST_CODES = 2000
"""The most held-out samples that represent the aggregate posterior Q_Z."""


def encode_all(model: nn.Module, x: Rows) -> Tensor:
    r"""The mean codes (n, dim) of samples x (n, \*), as they are stored."""
    with evaluating(model):
        return torch.cat([mean_codes(model, as_floats(batch)) for batch in x.split(500)])


def coordinate_deviation(model: nn.Module, x: Rows) -> float:
    r"""The standard deviation of one coordinate of the prior; of the mean codes of samples
    x (n, \*) for a model without a prior."""
    prior = prior_of(model)
    if prior is not None:
        return math.sqrt(prior.spread / (2 * prior.dim))
    codes = encode_all(model, x[:MOST_CODES])
    return float((codes - codes.mean(0)).square().mean().sqrt())


def principal_directions(codes: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of codes (n, dim), their first `count` principal directions as orthonormal rows,
    and the deviations of the codes along them.

    Raises:
        ValueError: for codes that are not finite, or too large to be centred.
    """
    mean = codes.mean(0)
    centred, basis = finite("codes", codes - mean), None
    if len(codes) < codes.shape[1]:  # the rows of a wide table span few dimensions
        basis, triangle = torch.linalg.qr(centred.T)
        centred = triangle.T
    _, values, rows = torch.linalg.svd(centred, full_matrices=False)
    rows = rows[:count] if basis is None else rows[:count] @ basis.T
    return mean, rows, values[:count] / math.sqrt(len(codes) - 1)


def principal_plane(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of a sample (n, d) and its first two principal directions (d, 2).

    In at most two dimensions, or for a single sample, they are the origin and the first axes.
    """
    d = x.shape[1]
    if d <= 2 or len(x) < 2:
        return torch.zeros(d).to(x), torch.eye(d, max(2, d))[:, :2].to(x)
    mean, rows, _ = principal_directions(x, 2)
    return mean, rows.T


class Plane(NamedTuple):
    """A plane in the latent space, z = origin + a · axes[0] + b · axes[1]."""

    origin: Tensor
    """(dim,)."""
    axes: Tensor
    """Orthonormal rows (2, dim); the second is 0 where dim is 1."""
    distances: tuple[float, ...]
    """W_2 between codes and prior along each axis, of the plane in which they differ most."""


def plane_of_codes(codes: Tensor) -> Plane:
    """The plane of the first two principal directions of codes (n, dim)."""
    origin, axes = principal_plane(codes)
    return Plane(origin, axes.T, ())


def worst_plane(codes: Tensor, prior: Prior) -> Plane:
    """The plane in which codes (n, dim) differ most from the prior: the worst slice, and the worst
    slice orthogonal to it."""
    dim = prior.dim
    drawn = prior.sample(len(codes), generator(0, "worst plane"))
    across, axes, distances = torch.eye(dim), [], []
    for _ in range(min(2, dim)):
        distance, direction = max_sliced_wasserstein(
            codes @ across.T, drawn @ across.T, generator=generator(0, "worst", len(axes))
        )
        axes.append(direction @ across)
        distances.append(float(distance))
        # the rows of V beyond those of the axes span what is orthogonal to them
        across = torch.linalg.svd(torch.stack(axes)).Vh[len(axes) :]
    axes += [torch.zeros(dim)] * (2 - len(axes))
    return Plane(codes.mean(0), torch.stack(axes), tuple(distances))


def window(points: Tensor) -> tuple[float, float, float, float]:
    """A square around points (n, 2) that leaves out a few: least a, most a, least b, most b."""
    middle = points.median(0).values
    reach = 1.08 * float((points - middle).abs().quantile(0.999, dim=0).max())
    a, b = middle.tolist()
    return a - reach, a + reach, b - reach, b + reach


def density(points: Tensor, extent: tuple[float, float, float, float], cells: int) -> Tensor:
    """The smoothed density of points (n, 2) in a window, as a share of its largest value.

    Returns (cells, cells), the row of the largest b first.
    """
    low, high = torch.tensor(extent[::2]), torch.tensor(extent[1::2])
    place = ((points - low) / (high - low) * cells).floor().long()
    inside = ((place >= 0) & (place < cells)).all(1)
    column, row = place[inside].unbind(1)
    counts = torch.bincount((cells - 1 - row) * cells + column, minlength=cells**2).float()
    bell = torch.exp(-torch.arange(-8, 9).float().square() / 8)
    grid = counts.view(1, 1, cells, cells)
    grid = F.conv2d(grid, bell.view(1, 1, -1, 1), padding=(8, 0))
    grid = F.conv2d(grid, bell.view(1, 1, 1, -1), padding=(0, 8))[0, 0]
    return grid / grid.max().clamp_min(1e-30)


class Typicality(NamedTuple):
    """How typical a code is of the prior."""

    norm: float
    longer_than: float | None
    """The share of prior draws with a smaller norm; None without a prior."""
    sparser_than: float | None
    """The share of prior draws in denser places, by the distance of the tenth nearest draw."""


class Reference:
    """Draws of a prior that codes are compared with, one by one."""

    def __init__(self, prior: Prior):
        self.drawn = prior.sample(5000, generator(0, "typical"))
        others = prior.sample(2000, generator(0, "typical", "others"))
        self.norms, self.distances = others.norm(dim=1), self._tenth_nearest(others)

    def _tenth_nearest(self, codes: Tensor) -> Tensor:
        """The distance of each code (n, dim) to its tenth nearest draw, (n,)."""
        return nearest(codes, self.drawn, 10)[0][:, -1].sqrt()

    def typicality(self, code: Tensor) -> Typicality:
        """How typical a code (dim,) is: two percentiles under the prior."""
        norm, away = code.norm(), self._tenth_nearest(code[None])
        longer = (self.norms < norm).float().mean()
        sparser = (self.distances < away).float().mean()
        return Typicality(float(norm), float(longer), float(sparser))
