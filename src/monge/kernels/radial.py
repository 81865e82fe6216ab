"""Kernels of the squared distance, and their algebra."""

import abc
import math
import warnings
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from monge._core.checks import (
    dimension,
    finite,
    floating,
    instance,
    nonnegative,
    positive,
    sample_pair,
)
from monge._core.errors import NotFinite
from monge._core.numerics import distances, root, unit_of_length
from monge._core.promotion import ANY, promoted
from monge._core.shown import Shown, described


@promoted(x=ANY)
def median_distance(x: Tensor) -> float:
    """The lower median of ‖x_i - x_j‖ over i < j: the usual scale of a kernel.

    It takes memory n²/2: pass a thousand rows of a larger sample.

    Args:
        x: the sample, (n, d).

    Returns:
        The median, in units of the sample.

    Raises:
        ValueError: for fewer than two rows, or where the median is 0.

    Source: Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A kernel two-sample test", 2012,
    section 8.
    """
    finite("x", floating("x", x))
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"`x` must be at least two rows (n, d), got shape {tuple(x.shape)}")
    x = x.detach().double()
    unit = unit_of_length(x, x)  # in which squares neither overflow nor vanish
    median = unit * float(torch.pdist(x / unit).median())
    if not median > 0:
        raise ValueError("`x` repeats one point in most of its rows: give a scale by hand")
    return median


MOST_LENGTH = 1e154
"""The length whose square is about the largest number of float64."""


def squarable(x: Tensor, y: Tensor) -> None:
    """Refuses samples whose squared distances are beyond float64."""
    if x.dtype != torch.float64 or 0 in (x.numel(), y.numel()):
        return
    most = max(float(z.detach().abs().max()) for z in (x, y))
    if MOST_LENGTH < 2 * most * x.shape[1] ** 0.5 < math.inf:
        raise NotFinite(
            f"`x` and `y` have coordinates up to {most:.3g}, whose squares are beyond float64: "
            "rescale them"
        )


class Kernel(Shown, nn.Module, abc.ABC):
    """A kernel of the distance; `a + b`, `a * b`, `2.0 * a` and `1.0 + a` are kernels again."""

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
        squarable(x, y)
        # neither squares nor the constants of a kernel need stay in the range of float32
        return self.of_squared(distances(x.double(), y.double()).square()).to(x.dtype)

    def __add__(self, other: "Kernel | float") -> "Kernel":
        return Sum([self, other if isinstance(other, Kernel) else Constant(other)])

    def __mul__(self, other: "Kernel | float") -> "Kernel":
        return Product([self, other if isinstance(other, Kernel) else Constant(other)])

    __radd__, __rmul__ = __add__, __mul__


class Constant(Kernel):
    """k = value ≥ 0."""

    def __init__(self, value: float):
        super().__init__()
        self.value = nonnegative("value", value)

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
        instance("kernels", kernels, Iterable, "[IMQ(1.0), IMQ(2.0)]")
        if getattr(kernels, "ndim", 1) == 0:  # an array of one number, which is no list
            instance("kernels", kernels, Kernel, "IMQ(1.0)")
        each = [instance("kernels", kernel, Kernel, "IMQ(1.0)") for kernel in kernels]
        if not each:
            raise ValueError("`kernels` must hold at least one kernel, got none")
        self.kernels = nn.ModuleList(each)

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


def _length(s: float) -> float:
    """`s`, if it is positive and its square is finite."""
    if math.isinf(positive("s", s) * s):
        raise ValueError(f"`s` is {s:.3g}, whose square is beyond float64: rescale the samples")
    return float(s)


def _square(s: float, dtype: torch.dtype) -> float:
    """s², at least the least normal number: 0 / 0 at equal points would be NaN."""
    return max(s * s, torch.finfo(dtype).tiny)


class RBF(Kernel):
    r"""The Gaussian kernel k = exp(-‖x - y‖² / 2s²).

    Args:
        s: the length scale, in units of the samples.

    Raises:
        ValueError: for s that is not positive, or whose square is beyond float64.
    """

    def __init__(self, s: float):
        super().__init__()
        self.s = _length(s)

    def of_squared(self, squared: Tensor) -> Tensor:
        return torch.exp(squared / (-2 * _square(self.s, squared.dtype)))

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        k = self.of_squared(squared)
        return k, k / (-2 * _square(self.s, squared.dtype))


class IMQ(Kernel):
    r"""Inverse multiquadratic k = c / (c + ‖x - y‖²), in the scaling of the WAE paper.

    Args:
        c: the squared distance at which k is ½.

    Raises:
        ValueError: for c that is not positive.
    """

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
    r"""The Laplace kernel k = exp(-‖x - y‖ / s).

    Args:
        s: the length scale, in units of the samples.

    Raises:
        ValueError: for s that is not positive.
    """

    def __init__(self, s: float):
        super().__init__()
        self.s = positive("s", s)

    def of_squared(self, squared: Tensor) -> Tensor:
        return torch.exp(root(squared) / -self.s)

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        distance, k = squared.sqrt(), self.of_squared(squared)
        return k, (k / (-2 * self.s * distance)).masked_fill_(squared == 0, 0.0)


class RationalQuadratic(Kernel):
    r"""k = (1 + ‖x - y‖² / 2αs²)^-α.

    Args:
        s: the length scale, in units of the samples.
        alpha: α > 0, by which the tail falls like ‖x - y‖^-2α; `RBF(s)` in the limit α → ∞.

    Raises:
        ValueError: for s or α that is not positive, or s whose square is beyond float64.
    """

    def __init__(self, s: float, alpha: float):
        super().__init__()
        self.s, self.alpha = _length(s), positive("alpha", alpha)

    def of_squared(self, squared: Tensor) -> Tensor:
        scale = 2 * self.alpha * _square(self.s, squared.dtype)
        return (1 + squared / scale) ** -self.alpha

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        k = self.of_squared(squared)
        square = _square(self.s, squared.dtype)
        return k, k / (1 + squared / (2 * self.alpha * square)) / (-2 * square)


class Energy(Kernel):
    r"""k = -‖x - y‖: conditionally positive definite; its MMD² is the energy distance
    2E‖X - Y‖ - E‖X - X'‖ - E‖Y - Y'‖ (Székely, Rizzo, "Energy statistics", 2013)."""

    def of_squared(self, squared: Tensor) -> Tensor:
        return -root(squared)

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        distance = squared.sqrt()
        return -distance, (-0.5 / distance).masked_fill_(squared == 0, 0.0)


class Compiled(Kernel):
    """A kernel with its value and slope fused by `torch.compile`, when it is first used.

    That takes seconds, once a process, and a C++ compiler; without one a warning says so and the
    kernel works as before. Worth it for long trainings on a CPU with kernels of many terms.

    Args:
        kernel: the kernel, whose values it has.
    """

    def __init__(self, kernel: Kernel):
        super().__init__()
        self.kernel = instance("kernel", kernel, Kernel, "IMQ(1.0)")
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

    The scales are s ∈ {.1, .2, .5, 1, 2, 5, 10}, and k(x, x) = 7.

    Args:
        base: C = E‖z - z'‖² under the prior, `prior.spread`.

    Returns:
        A sum of seven `IMQ`.

    Raises:
        ValueError: for C that is not positive.

    Source: Tolstikhin, Bousquet, Gelly, Schölkopf, "Wasserstein auto-encoders", 2018, and its
    released code.
    """
    base = positive("base", base)
    return Sum(IMQ(scale * base) for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))


def sliced_gaussian(dim: int, s: float) -> Kernel:
    r"""The mean of a Gaussian kernel over slices: E_θ exp(-(θ·(x - y))² / 2s²), θ uniform on the
    sphere of R^dim.

    It is ₁F₁(1/2; dim/2; -‖x - y‖² / 2s²). With t = |θ_1|, ‖x - y‖ t is the length of a slice, so
    that the kernel is a mixture of `RBF(s / t)`. It is summed by the trapezoidal rule in log tan
    of the angle, to 10⁻⁷ for distances up to 10³ √dim s; k(x, x) = 1. It costs as much as about
    fifty kernels.

    Args:
        dim: the dimension of the samples.
        s: the length scale of the kernel on slices, in units of the samples.

    Returns:
        A sum of `RBF`; `RBF(s)` itself in one dimension.

    Raises:
        ValueError: for a dimension below 1, or s that is not positive.

    Source: Knop, Spurek, Tabor, Podolak, Mazur, Jastrzębski, "Cramer-Wold auto-encoder", 2020.
    """
    s = positive("s", s)
    if dimension("dim", dim) == 1:
        return RBF(s)
    step, centre = 0.25, -0.5 * math.log(dim)
    # the angles near a right one, whose share falls like tan^{1-dim}
    above = 9.0 if dim > 2 else 16.0
    places = [centre + step * i for i in range(-round(10 / step), round(above / step))]
    logs = [v - dim / 2 * math.log1p(math.exp(2 * v)) for v in places]
    shares = [math.exp(log - max(logs)) for log in logs]
    # all angles below the first one, as a geometric series
    shares[0] /= 1 - math.exp(-step)
    total = sum(shares)
    sines = [1 / math.sqrt(1 + math.exp(-2 * v)) for v in places]
    kept = [(w / total, t) for w, t in zip(shares, sines) if w > 1e-9 * total]
    return Sum(w * RBF(s / t) for w, t in kept)
