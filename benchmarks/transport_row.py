"""What a row of `transport.py` is, and what its subjects are made with."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import torch
from torch import Tensor

ERROR = 1e-3
"""The L1 marginal error at which entropic solvers stop."""


class Row(NamedTuple):
    """A workload: each subject computes a value, and what it returns is thrown away when timed."""

    subjects: dict[str, Callable[[], float]]
    tolerance: float = 1e-3
    target: float = 1.0


def differentiated(function: Callable[..., Tensor], x: Tensor, *others: Tensor):
    """Value and gradient in x."""

    def run() -> float:
        leaf = x.clone().requires_grad_()
        value = function(leaf, *others)
        torch.autograd.grad(value, leaf)
        return float(value.detach())

    return run


def jitted(function: Callable, x: Tensor, *others: Tensor):
    """Value and gradient in x of a JAX function."""
    arrays = [jnp.asarray(z.numpy()) for z in (x, *others)]
    compiled = jax.jit(jax.value_and_grad(function))
    return lambda: float(jax.block_until_ready(compiled(*arrays))[0])


def of_unit_variance(n: int, d: int, generator: torch.Generator | None = None):
    """Two samples of E‖x - E x‖² = 1, the second moved by 0.5."""
    x, y = (torch.randn(n, d, generator=generator) / d**0.5 for _ in range(2))
    return x, y + 0.5 / d**0.5
