r"""All randomness of monge.

Nothing here has a state that must be saved: the draws of a training step are a function of
(seed, step, purpose), the order of the data one of (seed, epoch). A run that is killed and
resumed therefore draws the same numbers as one that was not.

Draws are made for the *global* batch and cut to the rows of this process: with `world`
processes, process `rank` owns the rows `rank, rank + world, rank + 2 world, …`. Several
processes together draw exactly what one process would.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from any parts, e.g. `seed_of(seed, step, "prior")`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A fresh CPU generator seeded from `parts`."""
    return torch.Generator().manual_seed(seed_of(*parts))


def permutation(seed: int, epoch: int | str, n: int) -> Tensor:
    """The order (n,) in which an epoch visits n samples."""
    return torch.randperm(n, generator=generator(seed, "permutation", epoch))


def standard_normal(shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """N(0, 1) draws by inversion, in float32.

    One uniform number makes one normal number, so n rows drawn at once and n rows drawn in
    parts from the same generator are the same rows. `torch.randn` does not promise that.
    """
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
    return torch.special.ndtri(uniform.clamp_(min=2.0**-54)).float()


def truncated_normal(shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """N(0, 1) draws within two deviations, by inversion, in float32."""
    low = 0.5 * math.erfc(math.sqrt(2))
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
    return torch.special.ndtri(low + (1 - 2 * low) * uniform).float()


@contextlib.contextmanager
def stream(*parts: int | str, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, torch's global generators are seeded from `parts`; outside, they are as before."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of(*parts))
        yield


class Draws:
    """The draws of one training step over a global batch of `total` samples.

    Two `Draws` made from the same numbers give the same draws; asking for one purpose does not
    move another.
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
    ):
        self.seed, self.step, self.total = seed, step, total
        self.rank, self.world, self.device = rank, world, device

    def part(self, index: int, count: int) -> "Draws":
        """The same for rows index, index + count, index + 2 count, … of this process's."""
        return Draws(
            self.seed,
            self.step,
            self.total,
            rank=self.rank + self.world * index,
            world=self.world * count,
            device=self.device,
        )

    def generator(self, purpose: str) -> torch.Generator:
        """A CPU generator seeded from (seed, step, purpose), the same on every process."""
        return generator(self.seed, self.step, purpose)

    def rows(self, purpose: str, sampler: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        """This process's rows of `sampler(total, generator)`, on the device."""
        everything = sampler(self.total, self.generator(purpose))
        return everything[self.rank :: self.world].to(self.device)

    def normal(self, purpose: str, like: Tensor) -> Tensor:
        """N(0, 1) draws with the shape and dtype of `like`, a tensor of this process's rows."""
        noise = self.rows(purpose, lambda n, g: torch.randn(n, *like.shape[1:], generator=g))
        return noise.to(like.dtype)

    def stream(self, purpose: str) -> contextlib.AbstractContextManager[None]:
        """Inside, torch's global generators follow (seed, step, purpose) on every process."""
        return stream(self.seed, self.step, purpose, device=self.device)
