r"""The laws Q(Z|X) that encoders return.

A law has a mean and `rsample(draws)`, a reparametrised draw through which gradients flow.
"""

import torch
from torch import Tensor, nn

from monge.draws import Draws


class Dirac:
    """A point mass at `mean` (n, d): the law of a deterministic encoder."""

    def __init__(self, mean: Tensor):
        self.mean = mean

    def rsample(self, draws: Draws | None = None) -> Tensor:
        """The mean."""
        return self.mean


class Normal:
    """N(mean, diag exp(log_variance)), both (n, d)."""

    def __init__(self, mean: Tensor, log_variance: Tensor):
        self.mean, self.log_variance = mean, log_variance

    def rsample(self, draws: Draws | None = None) -> Tensor:
        """mean + σ ξ, with ξ from the step's draws, or from torch's global generator."""
        noise = torch.randn_like(self.mean) if draws is None else draws.normal("codes", self.mean)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl_to(self, scale: float) -> Tensor:
        """KL to N(0, scale² I), in nats, (n,)."""
        variance = self.log_variance.exp() / scale**2
        squared = (self.mean / scale).square()
        return 0.5 * (variance + squared - 1 - variance.log()).sum(1)


class NormalEncoder(nn.Module):
    """A network x ↦ (n, 2d) read as mean and log-variance of a `Normal`.

    The log-variance is kept in [-16, 16], beyond which its exponential helps nobody.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Normal:
        mean, log_variance = self.network(x).chunk(2, dim=1)
        return Normal(mean, log_variance.clamp(-16, 16))
