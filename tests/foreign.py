"""Models of your own, as a stranger writes them: plain modules that inherit nothing of monge."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monge.data import Kind
from monge.divergences import SlicedWasserstein
from monge.draws import Draws
from monge.models import Model, Pass
from monge.priors import Gaussian

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


class ModelGenerator(Model):
    """A `Model` with `sample` of its own, and neither decoder nor prior."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(DIM, 64)
        self.divergence, self.weight = SlicedWasserstein(16), 1.0

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        noise = draws.rows("noise", lambda n, g: torch.randn(n, DIM, generator=g))
        return Pass({}, (self.network(noise).sigmoid(), x.flatten(1)))

    def sample(self, n, generator=None, prior=None) -> Tensor:
        noise = torch.randn(n, DIM, generator=generator)
        return self.network(noise).sigmoid().view(-1, 1, 8, 8)


class TupleEncoder(TensorAutoEncoder):
    """An auto-encoder that returns mean and log-variance as a pair, which no verb can read."""

    def encode(self, x: Tensor):
        return self.down(x.flatten(1)), torch.zeros(len(x), DIM)


class TopCompleter(nn.Module):
    """A generator that completes the lower halves of digits, with only the methods that this
    takes."""

    def __init__(self):
        super().__init__()
        self.network, self.prior = nn.Linear(64 + DIM, 64), Gaussian(DIM)

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        z = draws.rows("prior", self.prior.sample)
        return Pass({"error": F.mse_loss(self.decode(z, x), x)})

    def known(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        top = torch.zeros(len(x), 1, 8, 8)
        top[:, :, :4] = 1
        return top if known is None else known.expand(len(x), 1, 8, 8)

    def decode(self, z: Tensor, given: Tensor, known: Tensor | None = None) -> Tensor:
        known = self.known(given, known)
        seen = torch.cat([(known * given).flatten(1), z], 1)
        made = self.network(seen).sigmoid().view(-1, 1, 8, 8)
        return known * given + (1 - known) * made

    def complete(self, x, count, generator=None, *, known=None, prior=None) -> Tensor:
        z = (prior or self.prior).sample(len(x) * count, generator)
        known = self.known(x, known).repeat_interleave(count, 0)
        with torch.no_grad():
            made = self.decode(z, x.repeat_interleave(count, 0), known)
        return made.unflatten(0, (len(x), count))


class Series(Kind):
    """Time series (n, T, c), a kind of data that monge does not know."""

    name = "series"
    values = "in volts"

    def accepts(self, samples) -> bool:
        return samples.ndim == 3

    def layout(self, samples, name):
        return samples

    def networks(self, shape, sizes, moments):
        raise ValueError("`recipe` has no networks for series")

    def latent(self, shape, generator) -> int:
        return DIM


class SeriesAutoEncoder(nn.Module):
    """An auto-encoder of series with a prior and a decoder, and no `sample`."""

    def __init__(self, shape: tuple[int, ...] = (6, 2)):
        super().__init__()
        self.shape, self.prior = shape, Gaussian(DIM)
        self.down = nn.Linear(math.prod(shape), DIM)
        self.up = nn.Linear(DIM, math.prod(shape))
        self.divergence, self.weight = SlicedWasserstein(16), 1.0

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        z = self.encode(x)
        terms = {"error": F.mse_loss(self.decode(z), x)}
        return Pass(terms, (z, draws.rows("prior", self.prior.sample)))

    def encode(self, x: Tensor) -> Tensor:
        return self.down(x.flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        return self.up(z).unflatten(1, self.shape)
