r"""Positive definite kernels k(x, y) that depend on ‖x - y‖, and their algebra.

A kernel is a function of the squared distance, and distances are computed once however many
kernels are added or multiplied:

>>> kernel = RBF(1.0) + 0.5 * IMQ(2.0) * Laplace(1.0)
>>> kernel(x, y)  # (n, d), (m, d) -> (n, m)
"""

import abc
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from monge._core.checks import finite, floating, positive, sample_pair
from monge._core.numerics import (
    RESOLVED,
    Gradients,
    Norms,
    is_resolved,
    norms,
    root,
    squared_by_differences,
    squared_by_product,
    weighted_differences,
    with_gradient,
)
from monge._core.numerics import distances as distances
from monge._core.promotion import ANY, promoted
from monge._core.shown import Shown, described
from monge._core.tuning import tuning


@promoted(x=ANY)
def median_distance(x: Tensor) -> float:
    """The lower median of ‖x_i - x_j‖ over i < j: the usual scale of a kernel for (n, d).

    It takes memory n²/2: pass a thousand rows of a larger sample.

    Raises:
        ValueError: for fewer than two rows, or where the median is 0.

    Source: Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A kernel two-sample test", 2012,
    section 8.
    """
    finite("x", floating("x", x))
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"`x` must be at least two rows (n, d), got shape {tuple(x.shape)}")
    median = float(torch.pdist(x.detach()).median())
    if not median > 0:
        raise ValueError("`x` repeats one point in most of its rows: give a scale by hand")
    return median


class Kernel(Shown, nn.Module, abc.ABC):
    """A kernel of the distance; `a + b`, `a * b` and `2.0 * a` are kernels again."""

    @abc.abstractmethod
    def of_squared(self, squared: Tensor) -> Tensor:
        """k as a function of the squared distance, elementwise."""

    @abc.abstractmethod
    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """(k, dk/d squared), elementwise and without graph; the slope is 0 where it has a pole.

        Both are new tensors, which the caller may overwrite.
        """

    def accumulate_(self, squared: Tensor, value: Tensor, slope: Tensor) -> None:
        """Adds k and its slope to `value` and `slope`, without graph."""
        k, dk = self.with_slope(squared)
        value.add_(k)
        slope.add_(dk)

    @promoted(x=2, y=2)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The matrix k(x_i, y_j), (n, m), of samples (n, d) and (m, d)."""
        x, y = sample_pair(x, y)
        # neither squares nor the constants of a kernel need stay in the range of float32
        return self.of_squared(distances(x.double(), y.double()).square()).to(x.dtype)

    def __add__(self, other: "Kernel") -> "Kernel":
        return Sum([self, other])

    def __mul__(self, other: "Kernel | float") -> "Kernel":
        return Product([self, other if isinstance(other, Kernel) else Constant(other)])

    __rmul__ = __mul__


class Constant(Kernel):
    """k = value ≥ 0."""

    def __init__(self, value: float):
        super().__init__()
        if not value >= 0:
            raise ValueError(f"`value` of a constant kernel must be at least 0, got {value}")
        self.value = value

    def __repr__(self) -> str:
        return described(float(self.value))

    def of_squared(self, squared: Tensor) -> Tensor:
        return torch.full_like(squared, self.value)

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(squared, self.value), torch.zeros_like(squared)


class _Combined(Kernel):
    """A kernel made of others."""

    def __init__(self, kernels: Iterable[Kernel]):
        super().__init__()
        self.kernels = nn.ModuleList(kernels)

    def parts(self) -> Iterator[Kernel]:
        for kernel in self.kernels:
            assert isinstance(kernel, Kernel)
            yield kernel


class Sum(_Combined):
    """k = Σ_i k_i."""

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.parts()))

    def of_squared(self, squared: Tensor) -> Tensor:
        return sum((part.of_squared(squared) for part in self.parts()), torch.zeros_like(squared))

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = torch.zeros_like(squared), torch.zeros_like(squared)
        for part in self.parts():
            part.accumulate_(squared, value, slope)
        return value, slope


class Product(_Combined):
    """k = Π_i k_i."""

    def __repr__(self) -> str:
        factors = sorted(self.parts(), key=lambda part: not isinstance(part, Constant))
        return " * ".join(f"({k!r})" if isinstance(k, Sum) else repr(k) for k in factors)

    def of_squared(self, squared: Tensor) -> Tensor:
        parts = (part.of_squared(squared) for part in self.parts())
        return math.prod(parts, start=torch.ones_like(squared))

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        first, *rest = self.parts()
        value, slope = first.with_slope(squared)
        for part in rest:
            k, dk = part.with_slope(squared)
            slope = slope.mul_(k).addcmul_(value, dk)
            value = value.mul_(k)
        return value, slope


class RBF(Kernel):
    r"""k = exp(-‖x - y‖² / 2s²)."""

    def __init__(self, s: float):
        super().__init__()
        self.s = positive("s", s)

    def of_squared(self, squared: Tensor) -> Tensor:
        return torch.exp(squared / (-2 * self.s**2))

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        k = self.of_squared(squared)
        return k, k / (-2 * self.s**2)


class IMQ(Kernel):
    r"""Inverse multiquadratic k = c / (c + ‖x - y‖²), in the scaling of the WAE paper."""

    def __init__(self, c: float):
        super().__init__()
        self.c = positive("c", c)

    def of_squared(self, squared: Tensor) -> Tensor:
        return self.c / (self.c + squared)

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        k = (squared / self.c).add_(1).reciprocal_()
        return k, k.square().div_(-self.c)

    def accumulate_(self, squared: Tensor, value: Tensor, slope: Tensor) -> None:
        k, rate = (squared / self.c).add_(1).reciprocal_(), 1 / self.c
        value.add_(k)
        beyond = rate > torch.finfo(slope.dtype).max
        slope.addcmul_(k, k, value=-math.inf if beyond else -rate)


class Laplace(Kernel):
    r"""k = exp(-‖x - y‖ / s)."""

    def __init__(self, s: float):
        super().__init__()
        self.s = positive("s", s)

    def of_squared(self, squared: Tensor) -> Tensor:
        return torch.exp(root(squared) / -self.s)

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        distance, k = squared.sqrt(), self.of_squared(squared)
        return k, (k / (-2 * self.s * distance)).masked_fill_(squared == 0, 0.0)


class RationalQuadratic(Kernel):
    r"""k = (1 + ‖x - y‖² / 2αs²)^-α."""

    def __init__(self, s: float, alpha: float):
        super().__init__()
        self.s, self.alpha = positive("s", s), positive("alpha", alpha)

    def of_squared(self, squared: Tensor) -> Tensor:
        return (1 + squared / (2 * self.alpha * self.s**2)) ** -self.alpha

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        k = self.of_squared(squared)
        return k, k / (1 + squared / (2 * self.alpha * self.s**2)) / (-2 * self.s**2)


class Energy(Kernel):
    r"""k = -‖x - y‖: conditionally positive definite; its MMD² is the energy distance
    2E‖X - Y‖ - E‖X - X'‖ - E‖Y - Y'‖ (Székely, Rizzo, "Energy statistics", 2013)."""

    def of_squared(self, squared: Tensor) -> Tensor:
        return -root(squared)

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        distance = squared.sqrt()
        return -distance, (-0.5 / distance).masked_fill_(squared == 0, 0.0)


class Compiled(Kernel):
    """The same kernel with value and slope fused by `torch.compile`, when it is first used.

    That takes seconds, once a process, and a C++ compiler; without one a warning says so and the
    kernel works as before. Worth it for long trainings on a CPU with kernels of many terms.
    """

    def __init__(self, kernel: Kernel):
        super().__init__()
        self.kernel = kernel
        self.fused = torch.compile(kernel.with_slope, dynamic=True)

    def of_squared(self, squared: Tensor) -> Tensor:
        return self.kernel.of_squared(squared)

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        from torch._dynamo.exc import BackendCompilerFailed

        try:
            return self.fused(squared)
        except BackendCompilerFailed as error:
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"the kernel is not compiled: {reason}", stacklevel=2)
            self.fused = self.kernel.with_slope
            return self.fused(squared)


def multiscale_imq(base: float) -> Kernel:
    r"""The kernel of the WAE paper: Σ_s sC / (sC + ‖x - y‖²) over seven scales s, **summed**.

    `base` is C = E‖z - z'‖² under the prior, `prior.spread`; the scales are
    s ∈ {.1, .2, .5, 1, 2, 5, 10}. k(x, x) = 7.

    Source: Tolstikhin, Bousquet, Gelly, Schölkopf, "Wasserstein auto-encoders", 2018, and its
    released code.
    """
    positive("base", base)
    return Sum(IMQ(scale * base) for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))


def pair_sum(kernel: Kernel, x: Tensor, y: Tensor | None = None) -> Tensor:
    """Σ_ij k(x_i, y_j) of samples (n, d) and (m, d), or Σ_{i≠j} k(x_i, x_j) of one sample.

    Equal to `kernel(x, y).sum()`, without the matrix: memory is O((n + m) d). The value is
    float64. The gradient is computed with it; second derivatives need the matrix.
    """
    sums = choose_pair_sum(x)
    if y is None:

        def within(x: Tensor) -> Tensor:
            k = kernel.of_squared(_squared_graph(x, x, same=True))
            return k.sum(dtype=torch.float64) - k.diagonal().sum(dtype=torch.float64)

        def fast_within(x: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
            value, (of_x, _) = sums(kernel, x, None, any(wanted))
            return value, [of_x]

        return with_gradient(fast_within, within, x)

    def across(x: Tensor, y: Tensor) -> Tensor:
        return kernel.of_squared(_squared_graph(x, y, same=False)).sum(dtype=torch.float64)

    def fast_across(x: Tensor, y: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        return sums(kernel, x, y, any(wanted))

    return with_gradient(fast_across, across, x, y)


def _squared_graph(x: Tensor, y: Tensor, same: bool) -> Tensor:
    """‖x_i - y_j‖², differentiable twice: by a product where that resolves it."""
    centre = x.detach().mean(0)
    near_x, near_y = x - centre, y - centre
    of_x, of_y = norms(near_x), norms(near_y)
    squared = torch.addmm(of_y.squared, near_x, near_y.T, alpha=-2) + of_x.squared[:, None]
    off = squared.detach().clone()
    least = (off.fill_diagonal_(torch.inf) if same else off).amin()
    if is_resolved(least, of_x, of_y, RESOLVED[x.dtype]):
        return squared - torch.diag(squared.diagonal()) if same else squared
    return squared_by_differences(x.double(), y.double())


PairSum = Callable[
    [Kernel, Tensor, Tensor | None, bool], tuple[Tensor, tuple[Tensor | None, Tensor | None]]
]
"""(kernel, x, y or None for x with itself, whether gradients are wanted) -> the sum in float64,
and its gradients in x and y."""


def choose_pair_sum(x: Tensor) -> PairSum:
    """Picks how a kernel is summed over all pairs of samples on the device of x (n, d).

    The rule: by blocks of matrix products on every device, in every dtype and at every size. A
    fused implementation for one device is returned from here.
    """
    return _by_blocks


def _by_blocks(
    kernel: Kernel, x: Tensor, y: Tensor | None, moving: bool
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
    """A `PairSum`: with w = dk/d(squared distance) the gradient is 2 Σ_j w_ij (x_i - y_j)."""
    # far from the origin x_i Σ w - Σ w y would lose its digits
    centre, size = x.double().mean(0), tuning(x.device).kernel_rows
    a = norms(x - centre.to(x.dtype))
    b = a if y is None else norms(y - centre.to(x.dtype))
    # of one sample, what its points contribute as rows and as columns adds up in one gradient
    gx = torch.zeros_like(a.rows)
    gy = gx if y is None else torch.zeros_like(b.rows)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for i in range(0, len(a.rows), size):
        for j in range(i if y is None else 0, len(b.rows), size):
            rows, columns = slice(i, i + size), slice(j, j + size)
            times = 2 if y is None and j > i else 1
            pair, same = (a.part(rows), b.part(columns)), y is None and i == j
            block = _block(kernel, *pair, same, moving, RESOLVED[x.dtype])
            if block is None:
                wide = x[rows], (x if y is None else y)[columns]
                block = _block_in_double(kernel, wide, centre, same, moving, RESOLVED[x.dtype])
            value, slopes = block
            total += times * value
            if slopes is not None:
                gx[rows] += times * slopes[0]
                gy[columns] += times * slopes[1]
    if y is None:
        total -= len(x) * kernel.of_squared(x.new_zeros(1, dtype=torch.float64)).sum()
    of_x, of_y = (gx if moving else None), (gy if moving and y is not None else None)
    return total, (of_x, of_y)


Block = tuple[Tensor, tuple[Tensor, Tensor] | None]
"""The sum of k over a block of pairs, and its gradients in x and y."""


def _block(
    kernel: Kernel, one: Norms, two: Norms, same: bool, moving: bool, accuracy: float
) -> Block | None:
    """A block by a matrix product, or None where close points lie too far from the centre to be
    told apart by it, or where the kernel leaves the range of the dtype."""
    x, y = one.rows, two.rows
    squared = squared_by_product(one, two)
    least = (squared.fill_diagonal_(torch.inf) if same else squared).amin()
    if not is_resolved(least, one, two, accuracy):
        return None
    if same:
        squared.fill_diagonal_(0)
    if not moving:
        value = kernel.of_squared(squared).sum()
        return (value, None) if math.isfinite(float(value)) else None
    k, w = kernel.with_slope(squared)
    value, w = k.sum(), w.mul_(2)
    of_x = torch.addmm(w.sum(1, keepdim=True) * x, w, y, alpha=-1)
    of_y = torch.addmm(w.sum(0)[:, None] * y, w.T, x, alpha=-1)
    return (value, (of_x, of_y)) if math.isfinite(float(value + of_x.sum() + of_y.sum())) else None


def _block_in_double(
    kernel: Kernel,
    points: tuple[Tensor, Tensor],
    centre: Tensor,
    same: bool,
    moving: bool,
    accuracy: float,
) -> Block:
    """A block in float64: by a product, or by differences if that does not resolve it either."""
    x, y = (z.double() - centre for z in points)
    block = _block(kernel, norms(x), norms(y), same, moving, accuracy)
    if block is not None:
        return block
    x, y = (z.double() for z in points)
    squared = distances(x, y).square_()
    if not moving:
        return kernel.of_squared(squared).sum(), None
    k, w = kernel.with_slope(squared)
    return k.sum(), weighted_differences(w.mul_(2), x, y)
