r"""Positive definite kernels k(x, y) that depend on ‖x - y‖, their algebra, and their sums.

A kernel is a function of the squared distance, and distances are computed once however many
kernels are added or multiplied:

>>> kernel = RBF(1.0) + 0.5 * IMQ(2.0) * Laplace(1.0)
>>> kernel(x, y)  # (n, d), (m, d) -> (n, m)
>>> pair_sum(kernel, x, y)  # the sum of that matrix, which is never stored
"""

from monge._core.numerics import distances
from monge.kernels.radial import (
    IMQ,
    RBF,
    Compiled,
    Constant,
    Energy,
    Kernel,
    Laplace,
    Product,
    RationalQuadratic,
    Sum,
    median_distance,
    multiscale_imq,
    sliced_gaussian,
)
from monge.kernels.sums import choose_pair_sum, pair_sum

__all__ = [
    "IMQ",
    "RBF",
    "Compiled",
    "Constant",
    "Energy",
    "Kernel",
    "Laplace",
    "Product",
    "RationalQuadratic",
    "Sum",
    "choose_pair_sum",
    "distances",
    "median_distance",
    "multiscale_imq",
    "pair_sum",
    "sliced_gaussian",
]
