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
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from monge._core.checks import cpu_generator
from monge._core.checks import seed as checked_seed
from monge._core.devices import to_device

_globally = threading.RLock()
"""Held by the one thread that uses torch's global generators."""
DROPOUTS = ("dropout_p", "dropout")
"""The arguments that say how much an operation without a generator draws."""


def seed_of(*keys: int | str) -> int:
    """A 63-bit seed from integers and strings, e.g. `seed_of(seed, step, "prior")`."""
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A fresh CPU generator seeded from `keys`."""
    return torch.Generator().manual_seed(seed_of(*keys))


def permutation(seed: int, epoch: int | str, n: int) -> Tensor:
    """The order (n,) in which an epoch visits n samples."""
    return torch.randperm(
        n, generator=generator(checked_seed(seed), "permutation", epoch), device="cpu"
    )


def standard_normal(shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """N(0, 1) draws by inversion, in float32.

    One uniform number makes one normal number, so n rows are the same whether they are drawn at
    once or a few at a time from the same generator. `torch.randn` does not promise that.
    """
    uniform = torch.rand(
        shape, dtype=torch.float64, generator=cpu_generator(generator), device="cpu"
    )
    return torch.special.ndtri(uniform.clamp_(min=2.0**-54)).float()


def truncated_normal(shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """N(0, 1) draws within two deviations, by inversion, in float32."""
    low = 0.5 * math.erfc(math.sqrt(2))
    uniform = torch.rand(
        shape, dtype=torch.float64, generator=cpu_generator(generator), device="cpu"
    )
    return torch.special.ndtri(low + (1 - 2 * low) * uniform).float()


@contextlib.contextmanager
def stream(*keys: int | str) -> Iterator[None]:
    """Inside, this thread's random numbers come from generators of its own, seeded from `keys`.

    Initialisers and layers that take no generator draw what they would after
    `torch.manual_seed(seed_of(*keys))`; torch's global generators, which all threads share, stay
    as they are. An operation takes some five microseconds longer, and a compiled network runs
    without its compilation. What a backward pass draws outside the block is not seeded; see
    `global_stream`.
    """
    with _OwnGenerators(seed_of(*keys)):
        yield


class _OwnGenerators(TorchDispatchMode):
    """Gives every random operation of this thread that has no generator one for its device."""

    def __init__(self, seed: int):
        super().__init__()
        self.seed, self.generators = seed, {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args)) | kwargs
        device = _device_of(given)
        if "generator" in names:
            if given.get("generator") is None:
                given["generator"] = self._generator(device)
                args, kwargs = (), given
            return func(*args, **kwargs)
        overload = _WITH_GENERATOR.get(str(func))
        if overload is not None:
            return overload(*args, **kwargs, generator=self._generator(device))
        if any(given.get(name) == 0 for name in DROPOUTS):
            return func(*args, **kwargs)
        # fused dropout of GPUs draws from the global generators alone
        devices = [device] if device.type == "cuda" else []
        with _globally, torch.random.fork_rng(devices):
            following = torch.randint(
                2**62, (), generator=self._generator(torch.device("cpu")), device="cpu"
            )
            torch.manual_seed(int(following))
            return func(*args, **kwargs)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]


def _device_of(arguments: Mapping[str, Any]) -> torch.device:
    """The device of an operation."""
    named = arguments.get("device")
    if named is not None:
        return torch.device(named)
    tensors = (value for value in arguments.values() if isinstance(value, Tensor))
    return next((x.device for x in tensors), torch.device("cpu"))


def _overloads_with_generator() -> dict[str, Any]:
    """The overloads that take a generator, by the name of those that do not."""
    aten = torch.ops.aten
    overloads = (
        (aten.rand.default, aten.rand.generator),
        (aten.randn.default, aten.randn.generator),
        (aten.randint.default, aten.randint.generator),
        (aten.randint.low, aten.randint.low_generator),
        (aten.randperm.default, aten.randperm.generator),
        (aten.rand.out, aten.rand.generator_out),
        (aten.randn.out, aten.randn.generator_out),
        (aten.randint.out, aten.randint.generator_out),
        (aten.randint.low_out, aten.randint.low_generator_out),
        (aten.randperm.out, aten.randperm.generator_out),
    )
    found = {str(without): taking for without, taking in overloads}
    likes = (
        ("rand_like", "default", "generator"),
        ("randn_like", "default", "generator"),
        ("randint_like", "default", "generator"),
        ("randint_like", "low_dtype", "low_generator_dtype"),
    )
    for name, without, taking in likes:  # of torch 2.11 and later
        packet = getattr(aten, name)
        if taking in packet.overloads():
            found[str(getattr(packet, without))] = getattr(packet, taking)
    return found


_WITH_GENERATOR = _overloads_with_generator()


@contextlib.contextmanager
def alone_with_global_generators() -> Iterator[None]:
    """Inside, no other thread of monge uses torch's global generators."""
    with _globally:
        yield


@contextlib.contextmanager
def global_stream(*keys: int | str, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seeds torch's global generators from `keys`, and restores them on exit.

    For code of others in training, whose recomputed and compiled passes know these generators
    only. Other threads that ask for them wait meanwhile.
    """
    device = torch.device(device)
    with (
        _globally,
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
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
        foreign: whether code is called that may draw from torch's global generators. What monge
            brings draws from `Draws` only.
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
        foreign: bool = True,
    ):
        self.seed, self.step, self.total = checked_seed(seed), step, total
        self.rank, self.world, self.device = rank, world, torch.device(device)
        self.name, self.foreign = name, foreign

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
            foreign=self.foreign,
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
            foreign=self.foreign,
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
        noise = self.rows(
            purpose,
            lambda n, g: torch.randn(
                n, *like.shape[1:], generator=g, dtype=torch.float32, device="cpu"
            ),
        )
        return noise.to(like.dtype)

    def stream(self, purpose: str) -> contextlib.AbstractContextManager[None]:
        """Seeds torch's global generators from (seed, step, purpose), and restores them on exit,
        where code that is not monge's is called.

        For layers that take no generator, such as dropout. The seed is the same on every process.
        """
        if not self.foreign:
            return contextlib.nullcontext()
        return global_stream(self.seed, self.step, self.name + purpose, device=self.device)
