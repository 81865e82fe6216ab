"""OTT-JAX (Cuturi et al. 2022), compiled; its arrays share memory with torch's through DLPack.

Its plan is exp((f_i + g_j - C_ij)/ε), with the weights in the potentials.
"""

import functools
import math
import os
from typing import Any

import torch
from torch import Tensor

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
MOST_ITERATIONS = 10_000
ONLINE = 20_000
"""Most points whose costs are stored; of more, a block of rows at a time."""
ACCELERATIONS = ("momentum 1.5", "default")


def serves(device: torch.device) -> bool:
    """Whether JAX runs on this kind of device."""
    import jax

    return device.type == "cpu" or jax.default_backend() == "gpu"


def _options(name: str) -> dict[str, Any]:
    from ott.solvers.linear import acceleration

    return {"momentum": acceleration.Momentum(value=1.5)} if name == "momentum 1.5" else {}


def _geometry(n: int) -> dict[str, Any]:
    return {"batch_size": 4096} if n > ONLINE else {}


def _to_jax(x: Tensor) -> Any:
    import jax

    return jax.dlpack.from_dlpack(x.detach().contiguous())


def _to_torch(x: Any) -> Tensor:
    return torch.from_dlpack(x)


@functools.cache
def _solver(n: int, epsilon: float, threshold: float, least: int, most: int, name: str) -> Any:
    import jax
    from ott.geometry import pointcloud
    from ott.solvers import linear

    def solve(x, y):
        geometry = pointcloud.PointCloud(x, y, epsilon=epsilon, **_geometry(n))
        made = linear.solve(
            geometry,
            threshold=threshold,
            min_iterations=least,
            max_iterations=most,
            **_options(name),
        )
        return made.f, made.g

    return jax.jit(solve)


def _potentials(solver: Any, x: Tensor, y: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    f, g = (_to_torch(z) for z in solver(_to_jax(x), _to_jax(y)))
    return f + epsilon * math.log(len(x)), g + epsilon * math.log(len(y))


def potentials(x: Tensor, y: Tensor, epsilon: float, threshold: float, name: str):
    solver = _solver(len(x), epsilon, threshold, 0, MOST_ITERATIONS, name)
    return _potentials(solver, x, y, epsilon)


def fixed(x: Tensor, y: Tensor, epsilon: float, iterations: int):
    solver = _solver(len(x), epsilon, 0.0, iterations, iterations, "default")
    return _potentials(solver, x, y, epsilon)


@functools.cache
def _differentiated(n: int, epsilon: float, threshold: float, name: str) -> Any:
    import jax
    from ott.geometry import pointcloud
    from ott.tools import sinkhorn_divergence

    options = {"threshold": threshold, "max_iterations": MOST_ITERATIONS, **_options(name)}

    def value(x, y):
        made, _ = sinkhorn_divergence.sinkhorn_divergence(
            pointcloud.PointCloud, x, y, epsilon=epsilon, solve_kwargs=options, **_geometry(n)
        )
        return made

    return jax.jit(jax.value_and_grad(value))


class _Divergence(torch.autograd.Function):
    """The value, with the gradient that JAX computed beside it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, run: Any) -> Tensor:
        value, gradient = run(_to_jax(x), _to_jax(y))
        ctx.save_for_backward(_to_torch(gradient))
        return _to_torch(value).clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return slope * gradient, None, None


def divergence(x: Tensor, y: Tensor, epsilon: float, threshold: float, name: str) -> Tensor:
    made = _Divergence.apply(x, y, _differentiated(len(x), epsilon, threshold, name))
    assert isinstance(made, Tensor)
    return made
