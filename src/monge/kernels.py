r"""Positive definite kernels k(x, y) that depend on ‖x - y‖, and their algebra.

A kernel is written as a function of the squared distance alone; distances are computed once,
however many kernels are added or multiplied:

>>> kernel = RBF(1.0) + 0.5 * IMQ(2.0) * Laplace(1.0)
>>> kernel(x, y)  # (n, d), (m, d) -> (n, m)
"""

import abc
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from monge.checks import positive
from monge.numerics import root


def distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i - y_j‖ as (n, m) from (n, d) and (m, d), exact at 0 and with gradient 0 there.

    Differences are taken before squaring. The expansion ‖x‖² + ‖y‖² - 2x·y loses half of the
    digits of small distances, which a square root then makes visible.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


class Kernel(nn.Module, abc.ABC):
    """A kernel of the distance; `a + b`, `a * b` and `2.0 * a` are kernels again."""

    @abc.abstractmethod
    def of_squared(self, squared: Tensor) -> Tensor:
        """k as a function of the squared distance, elementwise."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The matrix k(x_i, y_j), (n, m), of samples (n, d) and (m, d)."""
        return self.of_squared(distances(x, y).square())

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

    def of_squared(self, squared: Tensor) -> Tensor:
        return torch.full_like(squared, self.value)


class Sum(Kernel):
    """k = Σ_i k_i."""

    def __init__(self, kernels: Iterable[Kernel]):
        super().__init__()
        self.kernels = nn.ModuleList(kernels)

    def of_squared(self, squared: Tensor) -> Tensor:
        return sum(of_squared(self.kernels, squared), torch.zeros_like(squared))


class Product(Kernel):
    """k = Π_i k_i."""

    def __init__(self, kernels: Iterable[Kernel]):
        super().__init__()
        self.kernels = nn.ModuleList(kernels)

    def of_squared(self, squared: Tensor) -> Tensor:
        return math.prod(of_squared(self.kernels, squared), start=torch.ones_like(squared))


def of_squared(kernels: nn.ModuleList, squared: Tensor) -> Iterator[Tensor]:
    """Each kernel's values at the same squared distances."""
    for kernel in kernels:
        assert isinstance(kernel, Kernel)
        yield kernel.of_squared(squared)


class RBF(Kernel):
    r"""k = exp(-‖x - y‖² / 2s²)."""

    def __init__(self, s: float):
        super().__init__()
        self.s = positive("s", s)

    def of_squared(self, squared: Tensor) -> Tensor:
        return torch.exp(squared / (-2 * self.s**2))


class IMQ(Kernel):
    r"""Inverse multiquadratic k = c / (c + ‖x - y‖²), in the scaling of the WAE paper."""

    def __init__(self, c: float):
        super().__init__()
        self.c = positive("c", c)

    def of_squared(self, squared: Tensor) -> Tensor:
        return self.c / (self.c + squared)


class Laplace(Kernel):
    r"""k = exp(-‖x - y‖ / s)."""

    def __init__(self, s: float):
        super().__init__()
        self.s = positive("s", s)

    def of_squared(self, squared: Tensor) -> Tensor:
        return torch.exp(root(squared) / -self.s)


class RationalQuadratic(Kernel):
    r"""k = (1 + ‖x - y‖² / 2αs²)^-α."""

    def __init__(self, s: float, alpha: float):
        super().__init__()
        self.s, self.alpha = positive("s", s), positive("alpha", alpha)

    def of_squared(self, squared: Tensor) -> Tensor:
        return (1 + squared / (2 * self.alpha * self.s**2)) ** -self.alpha


class Energy(Kernel):
    r"""k = -‖x - y‖: conditionally positive definite; its MMD² is the energy distance
    2E‖X - Y‖ - E‖X - X'‖ - E‖Y - Y'‖ (Székely, Rizzo, "Energy statistics", 2013)."""

    def of_squared(self, squared: Tensor) -> Tensor:
        return -root(squared)


def multiscale_imq(base: float) -> Kernel:
    r"""The kernel of the WAE paper: Σ_s sC / (sC + ‖x - y‖²) over seven scales s, **summed**.

    `base` is C = E‖z - z'‖² under the prior, `prior.spread`; the scales are
    s ∈ {.1, .2, .5, 1, 2, 5, 10}. k(x, x) = 7.

    Source: Tolstikhin, Bousquet, Gelly, Schölkopf, "Wasserstein auto-encoders", 2018, and its
    released code.
    """
    positive("base", base)
    return Sum(IMQ(scale * base) for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))
