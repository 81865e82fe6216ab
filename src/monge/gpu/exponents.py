"""What kernels over pairs of points are given: a matrix of exponents, by what it is made of."""

from typing import NamedTuple

import torch
from torch import Tensor

PRODUCT, DIFFERENCES, MATRIX = 0, 1, 2
PLAN, SLOPE, COST = 0, 1, 2
"""What entries are multiplied by: 1, p ‖x - y‖^{p-2}, or ‖x - y‖^p."""


class Exponents(NamedTuple):
    """Exponents e_ij = (f_i + g_j - C_ij)/ε (n, m), in one of three ways; everything is float64.

    - PRODUCT: e_ij = l_i · r_j + u_i + v_j, which is (f_i + g_j - ‖x_i - y_j‖²)/ε for l = 2x/ε,
      r = y, u = (f - ‖x‖²)/ε and v = (g - ‖y‖²)/ε;
    - DIFFERENCES: e_ij = u_i + v_j - ‖x_i - y_j‖^p/ε;
    - MATRIX: e_ij = u_i + v_j - C_ij/ε.
    """

    left: Tensor
    """l or x (n, d), or C (n, m)."""
    right: Tensor
    """r or y (m, d); of a matrix, itself."""
    rows: Tensor
    """u, (n,)."""
    columns: Tensor
    """v, (m,)."""
    epsilon: float
    ground: int
    p: float = 2.0

    def arguments(self, least: float = 0.0) -> tuple[object, ...]:
        """What kernels take, in their order; entries of at most `least` count as 0."""
        left, right = self.left, self.right
        if self.ground != MATRIX:
            left, right = left.contiguous(), right.contiguous()
        sizes = len(self.rows), len(self.columns), left.shape[1]
        strides = left.stride(0), left.stride(1), right.stride(0)
        # a number in Python would reach a kernel as float32, a tensor of three from the host waits
        numbers = self.epsilon, self.p, least
        settings = torch.stack([torch.full_like(self.rows[0], z) for z in numbers])
        return left, right, self.rows, self.columns, *sizes, *strides, settings
