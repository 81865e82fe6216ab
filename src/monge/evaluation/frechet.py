r"""Distances between two samples of features: Fréchet's and a kernel's.

    FD = ‖m_1 - m_2‖² + tr(S_1 + S_2 - 2 (S_1^{1/2} S_2 S_1^{1/2})^{1/2}),

the squared W_2 of two Gaussians with the samples' means and covariances, in float64. Between two
samples of n rows from N(0, I_d) it is not 0 but about d (d + 5) / 2n. Interpret a value only
beside this noise floor, the distance between two real samples of the same size.

Source: Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, "GANs trained by a two time-scale
update rule converge to a local Nash equilibrium", 2017; Bińkowski, Sutherland, Arbel, Gretton,
"Demystifying MMD GANs", 2018; Chong, Forsyth, "Effectively unbiased FID and Inception Score and
where to find them", 2020.
"""

import itertools
import math
import operator
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import dimension, finite, floating, instance
from monge._core.promotion import ANY, promoted

PARTS = 5
"""Into how many parts samples are cut for the extrapolation."""
COLUMNS, ROWS = 4096, 1024
"""How many columns of a wide table, and rows of a kernel matrix, are in float64 at a time."""


class Moments:
    """Mean and covariance of rows (n, d) that come in batches, in float64 and memory O(d²)."""

    def __init__(self, dim: int):
        self.count, dim = 0, dimension("dim", dim)
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, rows: Tensor) -> "Moments":
        """Takes a batch (b, d) in."""
        rows = features("rows", rows).double().cpu()
        if rows.shape[1] != len(self.mean):
            raise ValueError(
                f"`rows` must have {len(self.mean)} features, got shape {tuple(rows.shape)}"
            )
        mean = rows.mean(0)
        centred = rows - mean
        return self._merge(len(rows), mean, centred.T @ centred)

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of the rows of both."""
        both = Moments(len(self.mean))
        for part in (self, other):
            both._merge(part.count, part.mean, part.scatter)
        return both

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> "Moments":
        """Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979."""
        if count == 0:
            return self
        total = self.count + count
        gap = mean - self.mean
        self.scatter += scatter
        self.scatter += torch.outer(gap, gap) * (self.count * count / total)
        self.mean += gap * (count / total)
        self.count = total
        return self

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (d, d)."""
        if self.count < 2:
            raise ValueError(f"`rows` must be at least 2 for a covariance, got {self.count}")
        return self.scatter / (self.count - 1)


def features(name: str, x: Tensor) -> Tensor:
    """`x`, if it is a finite array of features (n, d)."""
    floating(name, x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"`{name}` must be features (n, d), got shape {tuple(x.shape)}")
    return finite(name, x.detach())


def moments(x: Tensor) -> Moments:
    """The moments of an array of features (n, d)."""
    return Moments(x.shape[1]).update(x)


def frechet_of_moments(one: Moments, two: Moments) -> float:
    """FD of two distributions by their moments, without root; never below 0.

    Raises:
        ValueError: for moments of unlike dimensions or of fewer than two rows, and for features
            whose squares are beyond float64.
    """
    for name, moments in (("one", one), ("two", two)):
        instance(name, moments, Moments, "Moments(d).update(features)")
    a, b = one.covariance, two.covariance
    if len(a) != len(b):
        raise ValueError(f"`one` has {len(a)} features and `two` has {len(b)}")
    _warn_of_few(min(one.count, two.count), len(a))
    gap = one.mean - two.mean
    size = float(torch.stack([a.trace(), b.trace(), gap.square().sum()]).amax())
    if not math.isfinite(size):
        raise ValueError("features have squares beyond float64: rescale them")
    # products of two covariances would leave its range long before; by powers of 4, exactly
    length = 2.0 ** (math.frexp(size)[1] // 2)
    a, b, gap = a / length / length, b / length / length, gap / length
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ b @ root).clamp_min(0).sqrt().sum()
    distance = gap.square().sum() + a.trace() + b.trace() - 2 * shared
    return max(float(distance) * length * length, 0.0)


def frechet_of_rows(x: Tensor, y: Tensor) -> float:
    r"""FD between features x (n, d) and y (m, d), without root, at the cost of n × m matrices.

    With the centred samples A = (x - m_1) / √(n - 1) and B likewise, S_1 = AᵀA and S_2 = BᵀB, so
    that tr (S_1^{1/2} S_2 S_1^{1/2})^{1/2} is the sum of the singular values of A Bᵀ. It never
    forms a d × d matrix, and is exact where the covariances are singular.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"`x` and `y` must have at least 2 rows, got {n} and {m}")
    _warn_of_few(min(n, m), x.shape[1])
    product = torch.zeros(n, m, dtype=torch.float64)
    distance = 0.0
    for columns in zip(x.split(COLUMNS, 1), y.split(COLUMNS, 1)):
        a, b = (part.detach().double().cpu() for part in columns)
        means = [a.mean(0), b.mean(0)]
        a, b = (a - means[0]) / (n - 1) ** 0.5, (b - means[1]) / (m - 1) ** 0.5
        product += a @ b.T
        distance += float((means[0] - means[1]).square().sum())
        distance += float(a.square().sum() + b.square().sum())
    return max(distance - 2 * float(torch.linalg.svdvals(product).sum()), 0.0)


def _warn_of_few(n: int, d: int) -> None:
    if n <= d:
        warnings.warn(
            f"the Fréchet distance of {n} samples in {d} dimensions rests on singular "
            "covariances: it is far too large; compare it with its floor only",
            stacklevel=3,
        )


@promoted(x=ANY, y=ANY)
def frechet_distance(x: Tensor, y: Tensor) -> float:
    """FD between features x (n, d) and y (m, d), without root.

    Raises:
        ValueError: for other shapes, fewer than two rows, or NaN.
    """
    x, y = features("x", x), features("y", y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"`y` must have {x.shape[1]} features, got {y.shape[1]}")
    if min(len(x), len(y)) <= x.shape[1]:
        return frechet_of_rows(x, y)
    return frechet_of_moments(moments(x), moments(y))


@promoted(x=ANY, y=ANY)
def frechet_extrapolated(x: Tensor, y: Tensor) -> float:
    """FD at n → ∞: the intercept of a line in 1/n through the FDs of the first one to five fifths
    of both samples, whose bias is linear in 1/n.

    Args:
        x: features (n, d), in random order.
        y: features (m, d), in random order.

    Raises:
        ValueError: for fewer than ten rows, unlike dimensions, NaN or infinity.
    """
    for name, z in (("x", x), ("y", y)):
        if len(features(name, z)) < 10:
            raise ValueError(f"`{name}` must have at least 10 rows, two a fifth, got {len(z)}")
    one, two = ([moments(part) for part in fifths(z)] for z in (x, y))
    return frechet_extrapolated_of_moments(one, two)


def fifths(x: Tensor) -> list[Tensor]:
    """x (n, d) cut into five successive parts of as equal size as can be."""
    edges = [i * len(x) // PARTS for i in range(PARTS + 1)]
    return [x[a:b] for a, b in itertools.pairwise(edges)]


def frechet_extrapolated_of_moments(one: Sequence[Moments], two: Sequence[Moments]) -> float:
    """FD at n → ∞ by the moments of successive fifths of the samples; see
    `frechet_extrapolated`."""
    grown = [list(itertools.accumulate(parts, operator.add)) for parts in (one, two)]
    values = torch.tensor([frechet_of_moments(*pair) for pair in zip(*grown)], dtype=torch.float64)
    sizes = torch.tensor([part.count for part in grown[0]], dtype=torch.float64)
    design = torch.stack([torch.ones_like(sizes), sizes[-1] / sizes], 1)
    return float(torch.linalg.lstsq(design, values[:, None]).solution[0])


class Spread(NamedTuple):
    """A mean over subsets and their standard deviation."""

    value: float
    deviation: float


@promoted(x=ANY, y=ANY)
def kernel_distance(
    x: Tensor,
    y: Tensor,
    *,
    subsets: int = 100,
    size: int = 1000,
    generator: torch.Generator | None = None,
) -> Spread:
    """The kernel distance: unbiased MMD² of k(x, y) = (x·y / d + 1)³ between features.

    A mean over subsets of the rows, in float64; it may be below 0. Its expectation does not depend
    on how many rows there are.

    Args:
        x: features (n, d).
        y: features (m, d).
        subsets: how many pairs of subsets are drawn.
        size: rows of each; all of them if there are fewer.
        generator: a CPU generator; torch's global one by default.

    Returns:
        (value, deviation): the mean, and the standard deviation between subsets.

    Raises:
        ValueError: for other shapes, fewer than two rows, NaN or infinity, or invalid settings.
    """
    x, y = features("x", x).double(), features("y", y).double()
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"`y` must have {x.shape[1]} features, got {y.shape[1]}")
    dimension("subsets", subsets)
    if dimension("size", size) < 2:
        raise ValueError(f"`size` must be at least 2, got {size}")
    n = min(size, len(x), len(y))
    if n < 2:
        raise ValueError(f"`x` and `y` must have at least 2 rows, got {len(x)} and {len(y)}")
    chosen = [
        [torch.randperm(len(z), generator=generator, device="cpu")[:n] for z in (x, y)]
        for _ in range(subsets)
    ]
    if (len(x) + len(y)) ** 2 <= 4 * subsets * n**2:  # all pairs are fewer than the subsets'
        values = _estimates_at_once(x, y, *(torch.stack(index) for index in zip(*chosen)))
    else:
        values = torch.stack([_estimate(x[i], y[j]) for i, j in chosen])
    return Spread(float(values.mean()), float(values.std(correction=0)))


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _estimate(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased MMD² of rows x (n, d) and y (n, d)."""
    within = sum(k.sum() - k.diagonal().sum() for k in (_cubic(x, x), _cubic(y, y)))
    return within / (len(x) * (len(x) - 1)) - 2 * _cubic(x, y).mean()


def _estimates_at_once(x: Tensor, y: Tensor, of_x: Tensor, of_y: Tensor) -> Tensor:
    """The unbiased MMD² of each of the subsets of rows with the indices of_x and of_y (s, n), as
    (s,): each pair's kernel is computed once, and added to the subsets that hold both."""
    n = of_x.shape[1]
    a, b = (
        torch.zeros(len(index), len(z), dtype=z.dtype, device=z.device).scatter_(
            1, index.to(z.device), 1.0
        )
        for z, index in ((x, of_x), (y, of_y))
    )
    within = _sums(x, x, a, a) - a @ (x.square().mean(1) + 1) ** 3
    within += _sums(y, y, b, b) - b @ (y.square().mean(1) + 1) ** 3
    return within / (n * (n - 1)) - 2 * _sums(x, y, a, b) / n**2


def _sums(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Σ_ij a_si k(x_i, y_j) b_sj for indicators a (s, n) and b (s, m) of rows, as (s,)."""
    blocks = zip(x.split(ROWS), a.split(ROWS, 1))
    return torch.stack([((w @ _cubic(z, y)) * b).sum(1) for z, w in blocks]).sum(0)
