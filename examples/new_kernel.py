"""A kernel of one's own, and an MMD that uses it.

    python examples/new_kernel.py

A kernel is a function of the squared distance r², with its slope in r² for the fast gradient. The
Matérn kernel of smoothness 3/2 is k = (1 + a) exp(-a), a = √3 r / s, so that

    dk / d(r²) = -3 / (2 s²) · exp(-a).

Source: Rasmussen, Williams, "Gaussian processes for machine learning", 2006, section 4.2.
"""

import math

import torch
from torch import Tensor

from monge._core.numerics import root
from monge.divergences import MMD
from monge.kernels import RBF, Kernel


class Matern(Kernel):
    """k = (1 + a) exp(-a) with a = √3 ‖x - y‖ / s."""

    def __init__(self, s: float):
        super().__init__()
        self.s = s

    def of_squared(self, squared: Tensor) -> Tensor:
        a = math.sqrt(3) / self.s * root(squared)  # with gradient 0 where a point meets itself
        return (1 + a) * torch.exp(-a)

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        a = math.sqrt(3) / self.s * squared.sqrt()
        return (1 + a) * torch.exp(-a), -1.5 / self.s**2 * torch.exp(-a)


def main() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(60, 3).double(), torch.randn(50, 3).double() + 0.5
    kernel = Matern(1.0)
    # the slope by finite differences
    squared, step = torch.linspace(0.1, 9, 50).double(), 1e-6
    rise = kernel.of_squared(squared + step) - kernel.of_squared(squared - step)
    assert torch.allclose(rise / (2 * step), kernel.with_slope(squared)[1], atol=1e-8)
    # positive definite, as an MMD needs it
    assert torch.linalg.eigvalsh(kernel(x, x))[0] > 0
    # a gradient, in sums and products with other kernels
    mmd = MMD(kernel + 0.5 * RBF(2.0))
    assert torch.autograd.gradcheck(lambda z: mmd(z, y), (x[:10].requires_grad_(),))
    print(f"MMD² {mmd(x, y).detach():.4f}")


if __name__ == "__main__":
    main()
