r"""All randomness of monge.

No generator has a state that must be saved. The draws of a training step are a function of
(seed, step, purpose), and the order of the data is a function of (seed, epoch), so a run that is
killed and resumed draws the same numbers as one that was not.

Draws are made for the *global* batch and cut to the rows of this process: with `world`
processes, process `rank` has the rows `rank, rank + world, rank + 2 world, …`. Several processes
together draw exactly what one process would.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from monge._core.devices import to_device


def seed_of(*keys: int | str) -> int:
    """A 63-bit seed from integers and strings, e.g. `seed_of(seed, step, "prior")`."""
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A fresh CPU generator seeded from `keys`."""
    return torch.Generator().manual_seed(seed_of(*keys))


def permutation(seed: int, epoch: int | str, n: int) -> Tensor:
    """The order (n,) in which an epoch visits n samples."""
    return torch.randperm(n, generator=generator(seed, "permutation", epoch))


def standard_normal(shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """N(0, 1) draws by inversion, in float32.

    One uniform number makes one normal number, so n rows are the same whether they are drawn at
    once or a few at a time from the same generator. `torch.randn` does not promise that.
    """
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
    return torch.special.ndtri(uniform.clamp_(min=2.0**-54)).float()


def truncated_normal(shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """N(0, 1) draws within two deviations, by inversion, in float32."""
    low = 0.5 * math.erfc(math.sqrt(2))
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
    return torch.special.ndtri(low + (1 - 2 * low) * uniform).float()


@contextlib.contextmanager
def stream(*keys: int | str, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seeds torch's global generators from `keys`, and restores them on exit."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of(*keys))
        yield


class Draws:
    """The random numbers of one training step over a global batch of `total` samples.

    Two `Draws` made from the same arguments give the same numbers. Each purpose has a generator of
    its own, so drawing for one purpose does not change what another one gets.

    Args:
        seed: the seed of the run.
        step: the step, or a string that no other step of the run has.
        total: the size of the global batch.
        rank: the first row of the global batch that belongs to this process.
        world: the distance between two rows of this process.
        device: where the rows are needed.
        name: a prefix of every purpose; see `named`.
    """

    def __init__(
        self,
        seed: int,
        step: int | str,
        total: int,
        *,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        name: str = "",
    ):
        self.seed, self.step, self.total = seed, step, total
        self.rank, self.world, self.device = rank, world, torch.device(device)
        self.name = name

    def micro_batch(self, index: int, count: int) -> "Draws":
        """The draws of rows index, index + count, index + 2 count, … among those of `self`."""
        return Draws(
            self.seed,
            self.step,
            self.total,
            rank=self.rank + self.world * index,
            world=self.world * count,
            device=self.device,
            name=self.name,
        )

    def named(self, name: str) -> "Draws":
        """The draws of the same step in which every purpose p becomes `"<name> <p>"`.

        A model with several matchings gives each of them draws under its name, so that two
        divergences with the same purposes draw different numbers.
        """
        return Draws(
            self.seed,
            self.step,
            self.total,
            rank=self.rank,
            world=self.world,
            device=self.device,
            name=f"{self.name}{name} ",
        )

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator seeded from (seed, step, purpose), the same on every process."""
        return generator(self.seed, self.step, self.name + purpose)

    def rows(self, purpose: str, sampler: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        """This process's rows of `sampler(total, generator)`, on the device."""
        everything = sampler(self.total, self.generator(purpose))
        return to_device(everything[self.rank :: self.world], self.device)

    def normal(self, purpose: str, like: Tensor) -> Tensor:
        """N(0, 1) draws with the shape and dtype of `like`, a tensor of this process's rows."""
        noise = self.rows(purpose, lambda n, g: torch.randn(n, *like.shape[1:], generator=g))
        return noise.to(like.dtype)

    def stream(self, purpose: str) -> contextlib.AbstractContextManager[None]:
        """Seeds torch's global generators from (seed, step, purpose), and restores them on exit.

        For layers that take no generator, such as dropout. The seed is the same on every process.
        """
        return stream(self.seed, self.step, self.name + purpose, device=self.device)
