r"""Costs c(x, y) between a sample and its reconstruction.

A cost takes data x and decoded y, both (n, \*), **sums over the elements of a sample** and
returns one value a sample, (n,). Negative log-likelihoods are costs like any other, which is
how a VAE uses them.
"""

import abc
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cost(nn.Module, abc.ABC):
    """A cost between samples, elementwise sums by default."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        r"""
        Arguments:
            x: data, (n, \*).
            y: decoded samples, of the same shape.

        Returns:
            c(x_i, y_i), (n,).
        """
        if x.shape != y.shape:
            raise ValueError(
                f"`y` must have the shape of `x`, {tuple(x.shape)}, got {tuple(y.shape)}: "
                "does the decoder make samples of the data's shape?"
            )
        return self.between(x.flatten(1), y.flatten(1))

    @abc.abstractmethod
    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """c for flattened samples (n, d), as (n,)."""


class SquaredL2(Cost):
    r"""c(x, y) = scale · Σ_j (x_j - y_j)²."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = scale

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return self.scale * (x - y).square().sum(1)


class L2(Cost):
    r"""c(x, y) = (Σ_j (x_j - y_j)²)^½, with gradient 0 where x = y."""

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x - y, dim=1)


class L1(Cost):
    r"""c(x, y) = Σ_j |x_j - y_j|."""

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().sum(1)


class Bernoulli(Cost):
    r"""Cross-entropy c(x, y) = -Σ_j x_j log y_j + (1 - x_j) log(1 - y_j), in nats.

    The negative log-likelihood of a Bernoulli decoder with probabilities y. Data x outside
    [0, 1] has no such likelihood and is refused.
    """

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        low, high = x.detach().aminmax()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"`x` must lie in [0, 1] for a Bernoulli cost, got [{low:.4g}, {high:.4g}]: "
                "rescale the data or use SquaredL2"
            )
        return F.binary_cross_entropy(y, x, reduction="none").sum(1)


class GaussianLikelihood(Cost):
    r"""-log N(x; y, σ² I) = Σ_j (x_j - y_j)² / 2σ² + d log σ + ½ d log 2π, in nats.

    With `learned=True` σ is a parameter. Its optimum is the root mean squared error, so the
    balance of reconstruction and KL needs no tuning (Rybkin, Daniilidis, Levine, "Simple and
    effective VAE training with calibrated decoders", 2021).
    """

    def __init__(self, sigma: float = 1.0, learned: bool = False):
        super().__init__()
        if not sigma > 0:
            raise ValueError(f"`sigma` must be positive, got {sigma}")
        self.log_sigma = nn.Parameter(torch.tensor(math.log(sigma)), requires_grad=learned)

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        # A floor of e^-7 ≈ 0.001, a quarter of a grey level: constant data must not send σ to 0.
        # Below it the gradient is that at the floor, so that σ can come back.
        floored = self.log_sigma + (self.log_sigma.clamp(min=-7.0) - self.log_sigma).detach()
        log_sigma = floored.to(x.dtype)
        squared = (x - y).square().sum(1) * (-2 * log_sigma).exp()
        return 0.5 * squared + x.shape[1] * (log_sigma + 0.5 * math.log(2 * math.pi))


class Scaled(nn.Module):
    """c(x / s, y / s): a cost in units of its own for each element, e.g. a table's columns."""

    scale: Tensor

    def __init__(self, cost: nn.Module, scale: Tensor):
        super().__init__()
        self.cost = cost
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.cost(x / self.scale, y / self.scale)
