r"""Priors P_Z on the latent space.

One prior object draws the codes of training and of sampling and sets the kernel's scale through
`spread` = E‖z - z'‖² of two independent draws. `sample(n, generator)` draws row by row: n rows
at once and n rows in parts are the same rows.
"""

import abc
import math

import torch
from torch import Tensor, nn

from monge.checks import dimension, positive
from monge.draws import standard_normal


class Prior(nn.Module, abc.ABC):
    """A law on R^dim."""

    dim: int

    @abc.abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws, (n, dim), float32, from a CPU generator."""

    @property
    @abc.abstractmethod
    def spread(self) -> float:
        """E‖z - z'‖² for independent z, z'; twice the trace of the covariance."""


class Gaussian(Prior):
    """N(0, scale² I); spread 2 dim scale²."""

    def __init__(self, dim: int, scale: float = 1.0):
        super().__init__()
        self.dim, self.scale = dimension("dim", dim), positive("scale", scale)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.scale * standard_normal((n, self.dim), generator)

    @property
    def spread(self) -> float:
        return 2 * self.dim * self.scale**2

    def log_prob(self, z: Tensor) -> Tensor:
        """log density at z (n, dim), as (n,)."""
        constant = self.dim * (math.log(self.scale) + 0.5 * math.log(2 * math.pi))
        return -0.5 * (z / self.scale).square().sum(-1) - constant


class Uniform(Prior):
    """The uniform law on the cube [-radius, radius]^dim; spread (2/3) dim radius²."""

    def __init__(self, dim: int, radius: float = 1.0):
        super().__init__()
        self.dim, self.radius = dimension("dim", dim), positive("radius", radius)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.radius * (2 * torch.rand(n, self.dim, generator=generator) - 1)

    @property
    def spread(self) -> float:
        return 2 * self.dim * self.radius**2 / 3


class Sphere(Prior):
    """The uniform law on the unit sphere of R^dim; spread 2."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dimension("dim", dim)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return nn.functional.normalize(standard_normal((n, self.dim), generator), dim=1)

    @property
    def spread(self) -> float:
        return 2.0
