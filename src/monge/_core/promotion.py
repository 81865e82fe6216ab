r"""What every public function of samples does with its inputs: one policy, written once.

`@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)` names the arguments that hold numbers. Before the
function sees them,

- NumPy arrays, lists and integers become tensors, and booleans, as of an adjacency, the numbers 0
  and 1. Integers that float64 cannot tell apart, complex numbers and everything else are refused
  by name. Weights of integers are counts, and are divided by their sum; weights of booleans would
  be a mask, and are refused;
- all are promoted to one floating dtype, of at least float32. A list takes the dtype and the
  device of the others;
- autocast and TF32 are left: their products lose the digits in which close points differ;
- a default device is left: what a function allocates for itself is on the CPU or with its inputs;
- inference mode is left: some functions take derivatives of their own.

Every other argument that is one number, of whatever library, becomes a number of Python.

The result comes back in the promoted dtype of the inputs, which may be half precision.

The 2 in `x=2` is the number of dimensions of one problem. An input with one more is a batch: the
function is called for each item and its results are stacked. `x=ANY` leaves shapes to it.
`@promoted(together, x=2, y=2)` has the whole batch solved by `together`, which is given every
argument, those of numbers with a leading dimension and those left out by their defaults, and
returns what stacking would; or None where it leaves the batch to its items.

Solvers outside torch can read neither the tensors of `torch.func` nor those of a graph that
`torch.compile` traces. Under `torch.func` the function becomes a single differentiable operation;
`torch.compile` runs it eagerly, between the graphs of what surrounds it.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from monge._core.checks import cpu_generator, plain_number, vanished
from monge._core.defaults import default_device_is_set, outside_autocast
from monge._core.errors import NotFinite
from monge._core.products import true_products
from monge._core.results import replaced, stacked
from monge._core.transforms import (
    Tensors,
    as_one_operation,
    is_transformed,
    transforms_are_active,
)

ANY = -1
"""The shape is checked by the function itself."""
WEIGHTS = 1
"""A weight for each sample, (n,)."""
DISTRIBUTIONS = ("a", "b", "p", "q")
"""The names of arguments that sum to 1."""
HISTOGRAMS = ("weights", "histograms", "images")
"""Those that sum to 1 over all dimensions of an item, or over the last one."""
MASSES = (*DISTRIBUTIONS, "weights", "masses", "sample_masses")
"""The names of arguments in which a boolean would be a mask, not a number."""
EXACT_INTEGERS = 2.0**53
"""Every integer below this one is a float64, and no other becomes the same."""

P = ParamSpec("P")
R = TypeVar("R")

Together = Callable[..., Any]
"""Solves a batch of problems, or returns None where its items are to be solved one by one."""


def promoted(
    together: Together | None = None, /, **dimensions: int
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function whose arguments of these names hold numbers."""
    return _decorator(dimensions, _opaque, together)


def promoted_powers(
    together: Together | None = None, /, **dimensions: int
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function, or method, that returns powers, of the order `p`, or `self.p`, of
    distances between its samples: float16 in which they vanish is refused."""
    return _decorator(dimensions, _opaque, together, _refuse_vanished)


def _refuse_vanished(result: Any, dtype: torch.dtype, arguments: dict[str, Any]) -> None:
    """As `checks.power` does in the dtype of the computation, for orders above 2: where distances
    beyond the rounding of their samples have powers that are 0 in the dtype of the result."""
    p = arguments.get("p", getattr(arguments.get("self"), "p", 2))
    if p <= 2 or dtype.itemsize >= 4:
        return
    powers = getattr(result, "value", result).detach()
    extent = max(float(arguments[name].detach().abs().max()) for name in ("x", "y"))
    rounding = 10 * torch.finfo(torch.float32).eps * extent
    distances = powers.double().clamp(min=0) ** (1 / p)
    if bool(((powers.to(dtype) == 0) & (distances > rounding)).any()):
        raise NotFinite(vanished(p, dtype))


def promoted_critic(**dimensions: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function that consists of operations of torch, through which the transforms of
    `torch.func` reach the parameters of a network."""
    return _decorator(dimensions, _transparent, None)


def _opaque(problems: Callable[[Tensors], Any], tensors: Tensors, arguments: Any) -> Any:
    if not transforms_are_active():
        return _with_true_products(problems, tensors)
    for argument in arguments.values():
        if isinstance(argument, torch.nn.Module) and any(
            map(is_transformed, argument.parameters())
        ):
            raise RuntimeError(
                f"torch.func reaches the samples of {type(argument).__name__} or its parameters, "
                "not both: use torch.autograd"
            )
    return as_one_operation(problems, tensors, arguments.get("generator"))


def _with_true_products(problems: Callable[[Tensors], Any], tensors: Tensors) -> Any:
    if not any(z.is_cuda for z in tensors.values()):
        return problems(tensors)
    with true_products():
        return problems(tensors)


def _transparent(problems: Callable[[Tensors], Any], tensors: Tensors, arguments: Any) -> Any:
    return problems(tensors)


def _decorator(
    dimensions: dict[str, int],
    run: Callable[[Callable[[Tensors], Any], Tensors, Any], Any],
    together: Together | None,
    refuse: Callable[[Any, torch.dtype, dict[str, Any]], None] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters
        positional = [n for n, it in parameters.items() if it.kind is not it.KEYWORD_ONLY]
        defaults = {n: it.default for n, it in parameters.items() if it.default is not it.empty}

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling():
                return cast(R, torch.compiler.disable(call)(*args, **kwargs))  # pyright: ignore
            if run is _opaque and default_device_is_set():
                with torch.device("cpu"):
                    return call(*args, **kwargs)
            if torch.is_inference_mode_enabled():
                return _recorded(call, args, kwargs)
            arguments: dict[str, Any] = dict(zip(positional, args)) | kwargs
            known = arguments.keys() <= parameters.keys()
            if len(arguments) < len(args) + len(kwargs) or not known:
                return function(*args, **kwargs)  # which raises Python's own TypeError
            cpu_generator(arguments.get("generator"))
            for name in dimensions:
                if name not in defaults and name in arguments and arguments[name] is None:
                    as_tensor(name, None)  # which says what it must be
            given = {n: arguments[n] for n in dimensions if arguments.get(n) is not None}
            arguments |= {n: plain_number(v) for n, v in arguments.items() if n not in dimensions}
            if _are_plain(given, dimensions):
                result = cast(Callable[..., R], function)(**arguments)
                dtype = next(iter(given.values())).dtype
                if isinstance(result, Tensor) and result.dtype is dtype:
                    return result
                return replaced(result, functools.partial(_in_dtype, dtype=dtype, names=given))
            of_mass = any(arguments.get(name) is not None for name in ("mass", "reach"))
            tensors, dtype = _tensors(given, dimensions, counts=not of_mass)

            def solved(solver: Callable[..., Any], tensors: Tensors) -> Any:
                every = defaults | arguments | tensors
                result = solver(**every)
                if refuse is not None and result is not None:
                    refuse(result, dtype, every)
                return replaced(result, functools.partial(_in_dtype, dtype=dtype, names=given))

            problem = functools.partial(solved, function)
            batch = functools.partial(solved, together) if together else None

            def problems(tensors: Tensors) -> Any:
                return _by_items(problem, batch, tensors, dimensions)

            with outside_autocast():
                return cast(R, run(problems, tensors, arguments))

        return call

    return decorate


def _recorded(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call outside inference mode, where functions may take derivatives of their own."""
    with torch.inference_mode(False), torch.no_grad():
        args = tuple(map(recordable, args))
        return call(*args, **{name: recordable(value) for name, value in kwargs.items()})


def recordable(value: Any) -> Any:
    """`value`, or a copy of a tensor of inference mode, which a graph may hold."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


# Conversion


def _are_plain(given: dict[str, Any], dimensions: dict[str, int]) -> bool:
    """Whether nothing is to be done: one problem in tensors of one dtype, as mostly on a CPU."""
    if torch._C._is_any_autocast_enabled() or transforms_are_active():  # pyright: ignore
        return False
    dtype = None
    for name, z in given.items():
        if not _is_ready(z) or z.is_cuda or (dtype or z.dtype) is not z.dtype:
            return False
        if z.ndim > dimensions[name] != ANY:
            return False
        dtype = z.dtype
    return dtype is not None


def _tensors(
    given: dict[str, Any], dimensions: dict[str, int], *, counts: bool
) -> tuple[Tensors, torch.dtype]:
    """The arguments as tensors of one dtype of at least float32, and the dtype of the result.

    Weights of integers are divided by their sum if they are `counts`."""
    dtypes = {z.dtype if _is_ready(z) else None for z in given.values()}
    if len(dtypes) == 1 and None not in dtypes:
        return given, next(iter(given.values())).dtype
    values = {name: as_tensor(name, z) for name, z in given.items()}
    lists = {name for name, z in given.items() if isinstance(z, (list, tuple))}
    strong = [z.dtype for name, z in values.items() if name not in lists]
    dtype = functools.reduce(torch.promote_types, strong) if strong else torch.float64
    working = torch.promote_types(dtype, torch.float32)
    devices = [z.device for z in given.values() if isinstance(z, Tensor)]
    for name, z in values.items():
        device = z.device if isinstance(given[name], Tensor) or not devices else devices[0]
        wide = z.to(device=device, dtype=working)
        if name in (*DISTRIBUTIONS, *HISTOGRAMS) and z.dtype.itemsize < 4:
            wide = _normalised_half(wide, z.dtype, all_axes=name == "images")
        elif counts and name in DISTRIBUTIONS and _holds_integers(given[name]):
            wide = wide / wide.sum(-1, keepdim=True).clamp_min(1)
        values[name] = wide
    return values, dtype


def _is_ready(value: Any) -> bool:
    """Whether nothing is to be done with an argument, as with most."""
    return (
        isinstance(value, Tensor)
        and value.dtype in (torch.float32, torch.float64)
        and value.layout is torch.strided
        and not value.is_nested
        and not value.is_inference()
    )


def _holds_integers(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point()
    return np.asarray(value).dtype.kind in "iu"


def as_tensor(name: str, value: Any) -> Tensor:
    """A floating point tensor; integers and booleans as float64."""
    if name in ("a", "b") and isinstance(value, (int, float)):
        raise ValueError(
            f"`{name}` must hold a weight for each sample, got {value}: an order is passed by "
            f"name, p={value}"
        )
    if not isinstance(value, Tensor):
        value = _of_array(name, value)
    if value.is_nested or value.is_quantized:
        what = "a nested tensor" if value.is_nested else str(value.dtype)
        way = "pad it" if value.is_nested else f"give {name}.dequantize()"
        raise ValueError(f"`{name}` must hold real numbers in a dense tensor, got {what}: {way}")
    value = recordable(value)
    if value.is_floating_point() and value.dtype.itemsize < 2:
        raise ValueError(
            f"`{name}` is of {value.dtype}, which torch promotes to nothing: give {name}.float()"
        )
    if value.is_floating_point() and value.layout is torch.strided:
        return value
    if value.dtype is torch.bool and name.partition("[")[0] in MASSES:
        raise ValueError(f"`{name}` must hold weights, got booleans: divide a mask by its sum")
    if value.is_complex() or value.layout is not torch.strided:
        what = value.dtype if value.layout is torch.strided else value.layout
        raise ValueError(f"`{name}` must hold real numbers in a dense tensor, got {what}")
    doubles = value.double()
    if value.numel() and float(doubles.abs().amax()) >= EXACT_INTEGERS:
        raise ValueError(
            f"`{name}` holds integers beyond 2⁵³, which floating point does not tell apart: "
            "subtract a common offset from all samples first"
        )
    return doubles


def _of_array(name: str, value: Any) -> Tensor:
    if isinstance(value, (str, bytes, dict, set, np.ma.MaskedArray)) or not (
        isinstance(value, (list, tuple)) or hasattr(value, "__array__")
    ):
        raise ValueError(
            f"`{name}` must be a tensor, a NumPy array or a list of numbers, got "
            f"{type(value).__name__}"
        )
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must hold numbers, in rows of one length") from None
    if array.dtype.kind == "f":
        known = array.dtype.itemsize in (2, 4, 8)
        native = array.dtype.newbyteorder("=") if known else np.dtype(np.float64)
        return torch.from_numpy(array.astype(native, copy=True))
    if array.dtype.kind == "b":
        return torch.from_numpy(array.astype(np.bool_, copy=True))
    if array.dtype.kind in "iu":
        wide = np.uint64 if array.dtype.kind == "u" else np.int64
        return torch.from_numpy(array.astype(wide, copy=True))
    raise ValueError(f"`{name}` must hold real numbers, got an array of {array.dtype}")


def as_weights(name: str, value: Any) -> Tensor:
    """Weights as a tensor of at least float32, those of half precision divided by their sum;
    integers are counts."""
    w = as_tensor(name, value)
    if _holds_integers(value):
        return w / w.sum(-1, keepdim=True).clamp_min(1)
    return _normalised_half(w.float(), w.dtype) if w.dtype.itemsize < 4 else w


def _normalised_half(w: Tensor, dtype: torch.dtype, all_axes: bool = False) -> Tensor:
    """Weights whose sum is as near to 1 as their half precision could write it, divided by it;
    the sum over the last dimension, or over all but the first."""
    axes = tuple(range(1, w.ndim)) if all_axes else (-1,)
    total = w.detach().double().sum(axes, keepdim=True)
    near = ((total - 1).abs() <= 4 * torch.finfo(dtype).eps).all()
    return w / total.to(w.dtype) if near else w


# Batches and results


def _by_items(
    problem: Callable[[Tensors], Any],
    batch: Callable[[Tensors], Any] | None,
    tensors: Tensors,
    dimensions: dict[str, int],
) -> Any:
    """The results of a batch of problems, or that of one problem."""
    counts: dict[str, int] = {}
    for name, z in tensors.items():
        if dimensions[name] == ANY or z.ndim <= dimensions[name]:
            continue
        if len(z) == 0:
            raise ValueError(
                f"`{name}` has shape {tuple(z.shape)}, a batch of no problems: pass at least one"
            )
        if z.ndim > dimensions[name] + 1:
            raise ValueError(
                f"`{name}` must have {dimensions[name]} dimensions, or one more for a batch of "
                f"problems, got shape {tuple(z.shape)}: flatten a sample's own by .flatten(1)"
            )
        counts[name] = len(z)
    if not counts:
        return problem(tensors)
    if len(set(counts.values())) > 1:
        raise ValueError(f"batches must hold equally many problems, got {counts}")
    count = next(iter(counts.values()))
    if batch is not None:
        whole = {n: z if n in counts else z.expand(count, *z.shape) for n, z in tensors.items()}
        result = batch(whole)
        if result is not None:
            return result
    items = [{n: z[i] if n in counts else z for n, z in tensors.items()} for i in range(count)]
    return stacked([problem(item) for item in items])


def _in_dtype(z: Tensor, dtype: torch.dtype, names: Iterable[str]) -> Tensor:
    """A result of the arguments with these names, in the dtype in which they came."""
    if z.dtype is dtype or not z.is_floating_point():
        return z
    cast = z.to(dtype)
    if not torch.isfinite(cast.detach()).all() and torch.isfinite(z.detach()).all():
        largest = float(z.detach().abs().amax())
        given = " and ".join(f"`{name}`" for name in names if name not in MASSES)
        raise NotFinite(
            f"{given} give a result of {largest:.3g}, beyond {dtype}: rescale them or use a wider "
            "dtype"
        )
    return cast
