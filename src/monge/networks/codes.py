r"""The distributions Q(Z|X) that encoders return.

A distribution has a mean and `rsample(draws)`, a reparametrised draw through which gradients flow.
"""

import math

import torch
from torch import Tensor, nn

from monge._core.checks import floating, instance, nonnegative, plain_number
from monge._core.promotion import as_tensor
from monge.draws import Draws


def at_least_float32(name: str, x: Tensor) -> Tensor:
    """Casts codes to at least float32, because divergences lose accuracy below it."""
    return floating(name, x).to(torch.promote_types(x.dtype, torch.float32))


class Dirac:
    """A point mass at `mean` (n, d): the distribution of a deterministic encoder."""

    def __init__(self, mean: Tensor):
        self.mean = at_least_float32("mean", mean)

    def rsample(self, draws: Draws | None = None) -> Tensor:
        """The mean."""
        return self.mean


class Normal:
    """N(mean, diag exp(log_variance)), both (n, d)."""

    def __init__(self, mean: Tensor, log_variance: Tensor):
        self.mean = at_least_float32("mean", mean)
        self.log_variance = at_least_float32("log_variance", log_variance)

    def rsample(self, draws: Draws | None = None) -> Tensor:
        """mean + σ ξ, with ξ from the step's draws, or from torch's global generator."""
        noise = torch.randn_like(self.mean) if draws is None else draws.normal("codes", self.mean)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl_to(self, scale: float) -> Tensor:
        """KL to N(0, scale² I), in nats, (n,)."""
        log_variance = self.log_variance - 2 * math.log(scale)
        squared = (self.mean / scale).square()
        return 0.5 * (log_variance.exp() + squared - 1 - log_variance).sum(1)


class NormalEncoder(nn.Module):
    """A network x ↦ (n, 2d) read as mean and log-variance of a `Normal`.

    The log-variance is kept in [-16, 16], which keeps its exponential well scaled.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = instance("network", network, nn.Module, "mlp([d, 64, 2 * dim])")

    def forward(self, x: Tensor, *condition: Tensor) -> Normal:
        mean, log_variance = self.network(x, *condition).chunk(2, dim=1)
        return Normal(mean, log_variance.clamp(-16, 16))


class GaussianDecoder(nn.Module):
    """A random decoder: z ↦ N(network(z), diag σ²).

    Its squared transport cost is at most Σ_i σ_i² + inf E‖X - G(Z)‖², over the couplings whose
    codes follow the prior; with σ = 0 they are equal.

    Args:
        network: G, codes (n, dim) to samples (n, *).
        sigma: σ ≥ 0, a number or a tensor that broadcasts over one sample.

    Source: Tolstikhin, Bousquet, Gelly, Schölkopf, "Wasserstein auto-encoders", 2018, section 2.
    """

    sigma: Tensor

    def __init__(self, network: nn.Module, sigma: float | Tensor):
        super().__init__()
        number = plain_number(sigma)
        if isinstance(number, (int, float)):
            sigma = torch.tensor(nonnegative("sigma", number), dtype=torch.float32)
        else:
            sigma = as_tensor("sigma", number).to(torch.float32)
        if not ((sigma >= 0) & torch.isfinite(sigma)).all():
            raise ValueError(f"`sigma` must be at least 0 and finite, got {sigma.tolist()}")
        self.network = instance("network", network, nn.Module, "mlp([dim, 64, d])")
        self.register_buffer("sigma", sigma)

    def forward(self, z: Tensor, *condition: Tensor) -> Normal:
        mean = self.network(z, *condition)
        log_variance = 2 * self.sigma.clamp_min(1e-30).log()
        return Normal(mean, log_variance.expand_as(mean))
