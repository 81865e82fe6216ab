"""Functions of POT that call monge, with POT's arguments and return values: what `pot_tests.py`
puts in the place of POT's own.

A shim refuses, by skipping the test, each argument that monge has no counterpart for. It never
calls the function that it stands for.
"""

import contextlib
import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import ot
import pytest
import torch

from monge import transport as mt

CALLED: list[str] = []
"""The functions of POT that the present test has called."""
SHIMS: dict[str, Callable[..., Any]] = {}
NO_EFFECT = {
    "verbose",
    "processes",
    "numThreads",
    "n_threads",
    "print_period",
    "require_sort",
    "tau",
    "nx",
}
"""Arguments that change how POT computes, but not what."""
SAME_PROBLEM = {
    None,
    "sinkhorn",
    "sinkhorn_log",
    "sinkhorn_stabilized",
    "sinkhorn_epsilon_scaling",
    "greenkhorn",
}
"""Names of POT's algorithms for one and the same problem."""


def refuse(reason: str) -> NoReturn:
    pytest.skip(f"monge: {reason}")


def shim(*paths: str, kept: str) -> Callable[[Callable[..., Any]], None]:
    """Registers a function of the bound arguments as the stand-in of those of POT; it reads the
    arguments `kept`, and the others must have their defaults."""

    def decorate(function: Callable[..., Any]) -> None:
        module, _, name = paths[0].rpartition(".")
        original = getattr(importlib.import_module(f"ot.{module}" if module else "ot"), name)
        signature, reads = inspect.signature(original), set(kept.split()) | NO_EFFECT

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            CALLED.append(paths[0])
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            for argument, value in bound.arguments.items():
                parameter = signature.parameters[argument]
                if parameter.kind is parameter.VAR_KEYWORD:
                    extra = set(value) - reads
                    if extra:
                        refuse(f"no counterpart of `{min(extra)}`")
                elif argument not in reads and not _is_default(value, parameter.default):
                    refuse(f"no counterpart of `{argument}`" + _shown(value))
            return function(SimpleNamespace(**bound.arguments))

        for path in paths:
            SHIMS[path] = call

    return decorate


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (np.isscalar(value) and value == default)


def _shown(value: Any) -> str:
    return f" = {value!r}" if isinstance(value, (str, bool)) else ""


@contextlib.contextmanager
def put_in_place() -> Iterator[None]:
    """Inside, POT's public names are those of the shims. monge's exact solver, whose network
    simplex is POT's, keeps the original."""
    original = ot.emd

    def simplex(cost: Any, a: Any, b: Any, most: int) -> tuple[Any, Any, dict[str, Any]]:
        plan, log = original(a, b, cost, numItermax=most, log=True)
        return plan, log["u"], log

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monge.transport.exact_simplex.network_simplex", simplex)
        for path, function in SHIMS.items():
            module, _, name = path.rpartition(".")
            patch.setattr(
                importlib.import_module(f"ot.{module}" if module else "ot"), name, function
            )
        yield


# What goes in and what comes out


def tensors(*arrays: Any) -> list[Any]:
    """Arrays of any backend as tensors; an empty set of weights is None, as in POT."""
    made = []
    for z in arrays:
        if z is None or (np.ndim(z) == 1 and len(z) == 0):
            made.append(None)
        elif (
            hasattr(z, "nnz") or type(z).__name__ == "LazyTensor" or getattr(z, "is_sparse", False)
        ):
            refuse("no sparse or lazy matrices")
        elif isinstance(z, (torch.Tensor, np.ndarray)):
            made.append(torch.as_tensor(z))
        else:
            made.append(torch.as_tensor(np.asarray(z)))
    return made


def like(result: Any, *given: Any) -> Any:
    """A result in the backend and dtype of what was given."""
    if isinstance(result, dict):
        return {key: like(value, *given) for key, value in result.items()}
    if isinstance(result, (tuple, list)):
        return type(result)(like(z, *given) for z in result)
    if not isinstance(result, torch.Tensor):
        return result
    dtype = next(
        (z.dtype for z in tensors(*given) if z is not None and z.is_floating_point()), None
    )
    result = result if dtype is None else result.to(dtype)
    if any(isinstance(z, torch.Tensor) for z in given):
        return result
    array = result.detach().numpy()
    return array[()] if array.ndim == 0 else array


class NoLog(dict[str, Any]):
    """The log of a function whose intermediate results monge does not return."""

    def __missing__(self, key: str) -> NoReturn:
        refuse("no log of intermediate results")

    def __contains__(self, key: object) -> bool:
        refuse("no log of intermediate results")


def with_log(v: SimpleNamespace, *results: Any) -> Any:
    """The results, with a log where it is asked for."""
    made = (*results, NoLog()) if v.log else results
    return made if len(made) > 1 else made[0]


def weighted(*weights: torch.Tensor | None) -> None:
    for w in weights:
        if w is not None and not torch.allclose(
            w.sum(0).double(), torch.ones(()).double(), atol=1e-5
        ):
            refuse("weights must sum to 1")


def without_gradient(what: str, *arrays: Any) -> None:
    if any(isinstance(z, torch.Tensor) and z.requires_grad for z in arrays):
        refuse(f"no gradient of {what}")


@contextlib.contextmanager
def warned(warn: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        if not warn:
            warnings.simplefilter("ignore")
        yield


def settings(v: SimpleNamespace) -> dict[str, Any]:
    """Tolerance and iterations of an iterative solver of POT, for monge's."""
    stop = getattr(v, "stopThr", 1e-9)
    most = getattr(v, "numItermax", None) or getattr(v, "numIterMax", 1000)
    return {"tolerance": max(stop, 1e-300), "max_iterations": int(most)}


# Plans


def exact(v: SimpleNamespace) -> tuple[Any, Any, Any, list[mt.Plan]]:
    """The plans of a, and each column of b."""
    a, b, cost = tensors(v.a, v.b, v.M)
    if v.numItermax < 1000:
        refuse("no limit of the network simplex")
    if b is not None and b.ndim == 2:
        weighted(a, b)
        return a, b, cost, [mt.solve(cost, a, column) for column in b.T]
    weighted(a, b)
    return a, b, cost, [mt.solve(cost, a, b)]


@shim("emd", "lp.emd", kept="a b M numItermax log center_dual check_marginals")
def emd(v: SimpleNamespace) -> Any:
    without_gradient("a plan", v.M, v.a, v.b)
    *_, plans = exact(v)
    matrix, log = like(mt.to_pot(plans[0]), v.M)
    return (matrix, log) if v.log else matrix


@shim("emd2", "lp.emd2", kept="a b M numItermax log return_matrix center_dual check_marginals")
def emd2(v: SimpleNamespace) -> Any:
    _, b, _, plans = exact(v)
    values, logs = [plan.value for plan in plans], []
    for plan in plans if v.log or v.return_matrix else []:
        matrix, log = mt.to_pot(plan)
        logs.append(like(log | ({"G": matrix} if v.return_matrix else {}), v.M))
    if b is not None and b.ndim == 2:
        made = [(like(z, v.M, v.a, v.b), log) for z, log in zip(values, logs)]
        return made if logs else like(torch.stack(values), v.M, v.a, v.b)
    value = like(values[0], v.M, v.a, v.b)
    return (value, logs[0]) if logs else value


def _method(v: SimpleNamespace) -> None:
    if getattr(v, "method", None) not in SAME_PROBLEM:
        refuse("its one solver has no names of methods")


def entropic(v: SimpleNamespace) -> tuple[Any, Any, mt.Plan]:
    _method(v)
    a, b, cost = tensors(v.a, v.b, v.M)
    weighted(a, b)
    b = b.T if b is not None and b.ndim == 2 else b
    with warned(v.warn):
        return a, b, mt.solve_entropic(cost, a, b, epsilon=v.reg, **settings(v))


SINKHORN = "a b M reg method numItermax stopThr log warn"


def sinkhorn(v: SimpleNamespace) -> Any:
    if np.ndim(v.b) == 2:
        return sinkhorn2(v)
    without_gradient("a plan", v.M, v.a, v.b)
    a, b, plan = entropic(v)
    if not v.log:
        return like(plan.plan, v.M)
    return like(mt.to_pot(plan, a, b, epsilon=v.reg), v.M)


def sinkhorn2(v: SimpleNamespace) -> Any:
    without_gradient("⟨C, π⟩, only of the entropic value", v.M, v.a, v.b)
    a, b, plan = entropic(v)
    if not v.log:
        return like(plan.value_linear, v.M)
    if not plan.value.ndim:
        return like((plan.value_linear, mt.to_pot(plan, a, b, epsilon=v.reg)[1]), v.M)
    # several histograms: the columns of u and v are theirs
    cost = tensors(v.M)[0]
    with warned(v.warn):
        plans = [mt.solve_entropic(cost, a, w, epsilon=v.reg, **settings(v)) for w in b]
    logs = [mt.to_pot(one, a, w, epsilon=v.reg)[1] for one, w in zip(plans, b)]
    log = {key: torch.stack([one[key] for one in logs], 1) for key in ("u", "v", "log_u", "log_v")}
    log |= {"err": [max(one["err"][0] for one in logs)], "niter": plan.iterations}
    return like((plan.value_linear, log), v.M)


shim("sinkhorn", "bregman.sinkhorn", kept=SINKHORN)(sinkhorn)
shim("sinkhorn2", "bregman.sinkhorn2", kept=SINKHORN)(sinkhorn2)
for _name in ("sinkhorn_knopp", "sinkhorn_log", "greenkhorn", "sinkhorn_stabilized"):
    shim(f"bregman.{_name}", kept=SINKHORN)(sinkhorn)


def _power(metric: Any, p: float = 2) -> float:
    powers = {"sqeuclidean": 2, "euclidean": 1, "cityblock": 1, "minkowski": p}
    if metric not in powers:
        refuse("no other costs of points than ‖x - y‖^p")
    return powers[metric]


EMPIRICAL = "X_s X_t reg a b metric numIterMax stopThr isLazy batchSize log warn"


def of_points(v: SimpleNamespace, x: Any, y: Any, a: Any, b: Any) -> mt.Plan:
    p = _power(v.metric) if v.metric != "cityblock" else _power(None)
    x, y, a, b = tensors(x, y, a, b)
    weighted(a, b)
    with warned(v.warn):
        return mt.sinkhorn(x, y, a, b, epsilon=v.reg, p=p, **settings(v))


@shim("bregman.empirical_sinkhorn", kept=EMPIRICAL)
def empirical_sinkhorn(v: SimpleNamespace) -> Any:
    without_gradient("a plan", v.X_s, v.X_t)
    plan = of_points(v, v.X_s, v.X_t, v.a, v.b)
    matrix, log = like(mt.to_pot(plan, *tensors(v.a, v.b), epsilon=v.reg), v.X_s)
    first = (log["log_u"], log["log_v"]) if v.isLazy else (matrix,)
    result = (*first, log) if v.log else first
    return result if len(result) > 1 else result[0]


@shim("bregman.empirical_sinkhorn2", kept=EMPIRICAL)
def empirical_sinkhorn2(v: SimpleNamespace) -> Any:
    without_gradient("⟨C, π⟩, only of the entropic value", v.X_s, v.X_t)
    plan = of_points(v, v.X_s, v.X_t, v.a, v.b)
    value = like(plan.value_linear, v.X_s)
    if not v.log:
        return value
    matrix, log = mt.to_pot(plan, *tensors(v.a, v.b), epsilon=v.reg)
    return value, like(log | {"lazy_plan": matrix}, v.X_s)


@shim("bregman.empirical_sinkhorn_divergence", kept=EMPIRICAL)
def empirical_sinkhorn_divergence(v: SimpleNamespace) -> Any:
    without_gradient("⟨C, π⟩, only of the entropic value", v.X_s, v.X_t)
    pairs = (v.X_s, v.X_t, v.a, v.b), (v.X_s, v.X_s, v.a, v.a), (v.X_t, v.X_t, v.b, v.b)
    cross, of_x, of_y = (of_points(v, *pair).value_linear for pair in pairs)
    return with_log(v, like((cross - (of_x + of_y) / 2).clamp(min=0), v.X_s))


# The line and slices


@shim("emd_1d", "lp.emd_1d", kept="x_a x_b a b metric p log check_marginals")
def emd_1d(v: SimpleNamespace) -> Any:
    x, y, a, b = tensors(v.x_a, v.x_b, v.a, v.b)
    if (x.ndim == 2 and x.shape[1] != 1) or (y.ndim == 2 and y.shape[1] != 1):
        refuse("its error for points that are not on the line is a ValueError")
    weighted(a, b)
    p = _power(v.metric, v.p)
    cost = (x.reshape(-1, 1) - y.reshape(1, -1)).abs() ** p
    plan = like(mt.solve(cost, a, b).plan, v.x_a)
    return (plan, {"cost": like(mt.solve(cost, a, b).value, v.x_a)}) if v.log else plan


@shim("emd2_1d", "lp.emd2_1d", kept="x_a x_b a b metric p")
def emd2_1d(v: SimpleNamespace) -> Any:
    x, y, a, b = tensors(v.x_a, v.x_b, v.a, v.b)
    if (x.ndim == 2 and x.shape[1] != 1) or (y.ndim == 2 and y.shape[1] != 1):
        refuse("its error for points that are not on the line is a ValueError")
    weighted(a, b)
    p = _power(v.metric, v.p)
    return like(mt.wasserstein_1d(x.reshape(-1), y.reshape(-1), a, b, p=p) ** p, v.x_a)


@shim("wasserstein_1d", "lp.wasserstein_1d", kept="u_values v_values u_weights v_weights p")
def wasserstein_1d(v: SimpleNamespace) -> Any:
    x, y, a, b = tensors(v.u_values, v.v_values, v.u_weights, v.v_weights)
    weighted(a, b)
    if v.p < 1:
        refuse("p is at least 1")
    x, y, a, b = (None if z is None else z.movedim(0, -1) for z in (x, y, a, b))
    return like(mt.wasserstein_1d(x, y, a, b, p=v.p) ** v.p, v.u_values)


@shim(
    "sliced_wasserstein_distance",
    "sliced.sliced_wasserstein_distance",
    kept="X_s X_t a b n_projections p projections seed",
)
def sliced_wasserstein_distance(v: SimpleNamespace) -> Any:
    return _sliced(v, mt.sliced_wasserstein)


@shim(
    "max_sliced_wasserstein_distance",
    "sliced.max_sliced_wasserstein_distance",
    kept="X_s X_t a b n_projections p seed",
)
def max_sliced_wasserstein_distance(v: SimpleNamespace) -> Any:
    x, y, a, b = tensors(v.X_s, v.X_t, v.a, v.b)
    weighted(a, b)
    return like(mt.max_sliced_wasserstein(x, y, a, b, p=v.p)[0], v.X_s)


def _sliced(v: SimpleNamespace, function: Callable[..., torch.Tensor]) -> Any:
    x, y, a, b, theta = tensors(v.X_s, v.X_t, v.a, v.b, v.projections)
    weighted(a, b)
    seed = v.seed if isinstance(v.seed, int) else 0
    generator = torch.Generator().manual_seed(seed)
    directions = v.n_projections if theta is None else theta.T
    return like(function(x, y, a, b, p=v.p, directions=directions, generator=generator), v.X_s)
