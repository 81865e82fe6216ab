r"""Models: a decoder G and a prior P_Z, fitted by making two samples indistinguishable.

A model's `forward` is one `Pass`: the means it decreases itself (reconstruction, KL), and one
pair of samples for its divergence. The trainer adds `weight · divergence(*pair)` and calls
backward; a user's own loop does the same in five lines.
"""

import abc
import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from monge._core.checks import dimension
from monge.divergences import Divergence
from monge.draws import Draws, standard_normal
from monge.models.paths import between, moved
from monge.networks.codes import Dirac, GaussianDecoder, Normal
from monge.priors import Prior


class Pass(NamedTuple):
    """What one batch gives to the trainer."""

    terms: dict[str, Tensor]
    """The model's own means over its samples, weighted."""
    pair: tuple[Tensor, Tensor]
    """(model sample, target sample), for the divergence."""


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, evaluation mode without gradients; outside, each module's mode as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class Model(nn.Module, abc.ABC):
    """A decoder, a prior, and the divergence (with its weight) that fits them to data."""

    decoder: nn.Module
    prior: Prior
    divergence: Divergence | None
    weight: float

    @abc.abstractmethod
    def forward(self, x: Tensor, draws: Draws) -> Pass:
        r"""The pass of a batch x (n, \*), this process's rows of the draws' global batch."""

    def decode(self, z: Tensor) -> Tensor:
        r"""G(z): codes (n, dim) to samples (n, \*); of a random decoder, the mean."""
        law = self.decoder(z)
        return law.mean if isinstance(law, Normal) else law

    def sample(
        self, n: int, generator: torch.Generator | None = None, prior: Prior | None = None
    ) -> Tensor:
        r"""n draws of the model, (n, \*), in evaluation mode and without gradient.

        Arguments:
            n: how many, at least 1.
            generator: a CPU generator; torch's global one by default. The draws do not depend
                on the batches in which they are decoded.
            prior: draws the codes in place of the model's own prior.
        """
        return torch.cat(list(self.samples(n, generator, prior)))

    def samples(
        self, n: int, generator: torch.Generator | None = None, prior: Prior | None = None
    ) -> Iterator[Tensor]:
        """The same n draws in parts of at most 500, for more samples than memory holds."""
        device = next(self.parameters(), torch.empty(0)).device
        noisy = isinstance(self.decoder, GaussianDecoder)
        # noise follows a generator of its own, so that the first draws are the same for every n
        seed = int(torch.randint(2**62, (), generator=generator)) if noisy else 0
        noise = torch.Generator().manual_seed(seed)
        codes = (prior or self.prior).sample(dimension("n", n), generator).to(device)
        for z in codes.split(500):
            with evaluating(self):
                x = self.decode(z)
                if isinstance(self.decoder, GaussianDecoder):
                    x = x + self.decoder.sigma * standard_normal(tuple(x.shape), noise).to(x)
            yield x

    def traverse(self, z: Tensor, levels: Tensor) -> Tensor:
        r"""Codes z (n, dim) decoded with each coordinate in turn set to each level (k,).

        Returns (n · dim · k, \*): code by code, coordinate by coordinate, level by level.
        """
        return self.decode(moved(z, levels))


class AutoEncoder(Model):
    """A model with an encoder Q(Z|X)."""

    encoder: nn.Module

    def encode(self, x: Tensor) -> Dirac | Normal:
        """The law Q(Z|x). A network that returns a plain tensor is a deterministic encoder."""
        law = self.encoder(x)
        return Dirac(law) if isinstance(law, Tensor) else law

    def reconstruct(self, x: Tensor) -> Tensor:
        """G at the mean of Q(Z|x)."""
        return self.decode(self.encode(x).mean)

    def interpolate(
        self,
        x: Tensor,
        y: Tensor,
        count: int = 10,
        path: Callable[[Tensor, Tensor, Tensor], Tensor] = torch.lerp,
    ) -> Tensor:
        r"""Decoded lines between the mean codes of x and y, both (n, \*).

        Arguments:
            count: frames a line, both ends included.
            path: (a, b, t) to the code at t in [0, 1] of the way; `spherical` keeps to the
                sphere on which draws of a Gaussian prior lie in high dimension.

        Returns (n · count, \*), line by line.
        """
        return self.decode(between(self.encode(x).mean, self.encode(y).mean, count, path))
