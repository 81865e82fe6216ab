"""Models of your own, as a stranger writes them: plain modules that inherit nothing of monge."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monge.divergences import SlicedWasserstein
from monge.draws import Draws
from monge.models import Pass

DIM = 3


class TensorAutoEncoder(nn.Module):
    """An auto-encoder of digits whose codes are tensors, without a prior: samples are decoded
    uniform draws."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(64, DIM), nn.Linear(DIM, 64)

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        return Pass({"error": F.mse_loss(self.decode(self.encode(x)), x)})

    def encode(self, x: Tensor) -> Tensor:
        return self.down(x.flatten(1)).tanh()

    def decode(self, z: Tensor) -> Tensor:
        return self.up(z).sigmoid().view(-1, 1, 8, 8)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.decode(2 * torch.rand(n, DIM, generator=generator) - 1)


class BareGenerator(nn.Module):
    """A generator of digits with nothing but `forward` and `sample`."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(DIM, 64)
        self.divergence, self.weight = SlicedWasserstein(16), 1.0

    def made(self, noise: Tensor) -> Tensor:
        return self.network(noise).sigmoid().view(-1, 1, 8, 8)

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        noise = draws.rows("noise", lambda n, g: torch.randn(n, DIM, generator=g))
        return Pass({}, (self.made(noise).flatten(1), x.flatten(1)))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.made(torch.randn(n, DIM, generator=generator))


class TupleEncoder(TensorAutoEncoder):
    """An auto-encoder that returns mean and log-variance as a pair, which no verb can read."""

    def encode(self, x: Tensor):
        return self.down(x.flatten(1)), torch.zeros(len(x), DIM)
