"""Checks of public arguments: a ValueError names the argument, its value and the fix."""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from monge._core.errors import NotFinite
from monge._core.numerics import on_host
from monge._core.seeds import SEEDS, is_seed
from monge._core.transforms import is_transformed

T = TypeVar("T")
MOST_ORDER = 1000
MOST = 2**63 - 1
"""The largest count of anything in torch."""
PLAIN = frozenset({float, int, bool, str, type(None)})


def instance(name: str, value: T, kind: type, example: str) -> T:
    """`value`, if it is an object of a class; `example` makes one."""
    if not isinstance(value, kind):
        raise ValueError(f"`{name}` must be a {kind.__name__}, e.g. {example}, got {_got(value)}")
    return value


def _got(value: object) -> str:
    """A value in a message of one line."""
    if isinstance(value, (int, Fraction)):  # Python refuses to write very large ones
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if bits > MOST.bit_length():
            return f"{'an integer' if isinstance(value, int) else 'a fraction'} of {bits:,} bits"
    text = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    return f"a {type(value).__name__}" if "\n" in text else text  # an array takes several lines


def plain_number(value: Any) -> Any:
    """`value` as a number of Python, if it is one number of NumPy, of torch, of `fractions` or of
    `decimal`: those compute in a precision of their own, or not at all with tensors. Anything else
    as it is."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        is_plain = value.ndim == 0 and not value.requires_grad and not is_transformed(value)
        return value.item() if is_plain and value.dtype is not torch.bool else value
    if isinstance(value, (np.generic, np.ndarray)):
        is_plain = value.ndim == 0 and value.dtype.kind in "iuf"
        return (float if value.dtype.kind == "f" else int)(value) if is_plain else value
    try:
        return float(value) if isinstance(value, (Fraction, Decimal)) else value
    except (OverflowError, ValueError):  # beyond floats, or a signalling NaN: for checks to refuse
        return value


def _number(name: str, value: object) -> float:
    """`value` as a float; NaN, which no range holds, for what is not one number."""
    if isinstance(value, Tensor) and value.requires_grad:
        raise ValueError(
            f"`{name}` is a setting, through which no gradient is taken, got a tensor that "
            f"requires one: give a number, or {name}.detach()"
        )
    try:
        dtype = getattr(value, "dtype", None)
        # NumPy would leave out imaginary parts
        of_complex = getattr(dtype, "is_complex", False) or getattr(dtype, "kind", "") == "c"
        of_other = dtype in (torch.bool, np.bool_) or of_complex
        if isinstance(value, (str, bool)) or of_other or getattr(value, "ndim", 0) > 0:
            return math.nan
        return float(value)  # pyright: ignore
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan


def positive(name: str, value: float) -> float:
    """`value` as a float, if it is positive and finite."""
    if not (_number(name, value) > 0 and math.isfinite(value)):
        raise ValueError(f"`{name}` must be positive and finite, got {_got(value)}")
    return float(value)


def nonnegative(name: str, value: float) -> float:
    """`value` as a number of Python, if it is at least 0 and finite."""
    if not (_number(name, value) >= 0 and math.isfinite(value)):
        raise ValueError(f"`{name}` must be at least 0 and finite, got {_got(value)}")
    return plain_number(value)


def share(name: str, value: float) -> float:
    """`value` as a float, if it is in [0, 1]."""
    if not 0 <= _number(name, value) <= 1:
        raise ValueError(f"`{name}` must be in [0, 1], got {_got(value)}")
    return float(value)


def listed(name: str, values: Any, what: str) -> list[Any]:
    """The items of `values`, a list or another collection in an order."""
    several = isinstance(values, Iterable) and getattr(values, "ndim", 1) > 0
    if several and not isinstance(values, (str, bytes, Mapping)):
        return list(values)
    raise ValueError(f"`{name}` must be a list of {what}, got {_got(values)}")


def of_rank(name: str, x: Tensor, rank: int, shape: str) -> Tensor:
    """`x`, if it has as many dimensions as `shape` says."""
    if not isinstance(x, Tensor) or x.ndim != rank:
        got = tuple(x.shape) if isinstance(x, Tensor) else _got(x)
        raise ValueError(f"`{name}` must be a tensor of shape {shape}, got {got}")
    return x


def dimension(name: str, value: int) -> int:
    """`value`, if it is an integer of at least 1."""
    return _count(name, value, 1)


def dimensions(
    name: str, values: Sequence[int], count: int | None = None, *, least: int = 1
) -> list[int]:
    """`values`, if they are a list of integers of at least 1: of `count` or, without one, of
    `least` numbers or more."""
    is_list = isinstance(values, (Sequence, np.ndarray)) and not isinstance(values, (str, bytes))
    size = len(values) if is_list and getattr(values, "ndim", 1) == 1 else -1
    if not (size >= least if count is None else size == count):
        wanted = f"{least} or more integers" if count is None else f"{count} integers"
        raise ValueError(f"`{name}` must be a list of {wanted}, got {_got(values)}")
    return [dimension(name, value) for value in values]


def rows(value: int, name: str = "n") -> int:
    """`value`, a number of samples, if it is an integer of at least 0."""
    return _count(name, value, 0)


def _count(name: str, value: int, least: int) -> int:
    """`value`, if it is an integer of at least `least` that torch can count to."""
    of_bool = isinstance(value, bool) or getattr(value, "dtype", None) is torch.bool
    try:
        number = least - 1 if of_bool else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, got {_got(value)}")
    if number > MOST:
        raise ValueError(f"`{name}` must be at most {MOST}, got {_got(number)}")
    return number


def cpu_generator(value: torch.Generator | None) -> torch.Generator | None:
    """A `generator` on the CPU, or None for torch's global one.

    Random numbers are drawn on the CPU and then moved, so that every device gets the same."""
    if value is None:
        return None
    if not isinstance(value, torch.Generator):
        of_seed = value if isinstance(value, int) and not isinstance(value, bool) else 0
        raise ValueError(
            f"`generator` must be a torch.Generator on the CPU or None, got {_got(value)}: give "
            f"torch.Generator().manual_seed({of_seed})"
        )
    if value.device.type != "cpu":
        raise ValueError(
            "`generator` must be on the CPU, where random numbers are drawn for every device, got "
            f"one on {value.device}: give torch.Generator().manual_seed(0)"
        )
    return value


def seed(value: int, name: str = "seed") -> int:
    """`value` as an int, if it is a signed integer of 64 bits."""
    if not is_seed(value):
        raise ValueError(f"`{name}` must be {SEEDS}, got {_got(value)}")
    return int(value)


def order(p: float) -> float:
    """`p` as a number of Python, if W_p is a distance for it, and its powers of numbers up to 2
    are in float64."""
    if not (_number("p", p) >= 1 and math.isfinite(p)):
        raise ValueError(f"`p` must be a finite number of at least 1, got {_got(p)}")
    if p > MOST_ORDER:
        raise ValueError(
            f"`p` must be at most {MOST_ORDER:,}, got {p!r}: W_p of n points is within a factor "
            f"of n^{{1/{MOST_ORDER}}} of its limit there"
        )
    return plain_number(p)


def floating(name: str, x: Tensor) -> Tensor:
    """`x`, if it is a tensor of real floating point numbers."""
    if not isinstance(x, Tensor) or not torch.is_floating_point(x):
        what = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"`{name}` must be a tensor of floating point numbers, got {what}")
    return x


def finite(name: str, x: Tensor) -> Tensor:
    """`x`, if it holds neither NaN nor infinity."""
    # a finite sum suffices; it may overflow though all values are finite
    if not math.isfinite(float(x.detach().sum())) and not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).sum())
        raise NotFinite(f"`{name}` must be finite, got {bad} NaN or infinite of {x.numel()}")
    return x


def unit_range(name: str, images: Tensor) -> Tensor:
    """`images`, if they are finite and lie in [0, 1]."""
    low, high = finite(name, images).aminmax()
    if low < -1e-6 or high > 1 + 1e-6:
        raise ValueError(f"`{name}` must be in [0, 1], got [{low:.4g}, {high:.4g}]: rescale them")
    return images


def power(value: Tensor, x: Tensor, y: Tensor, p: float, squares: Callable[[], Tensor]) -> Tensor:
    """The powers `value` of an order p > 2 between samples, if their dtype holds them: they are
    neither infinite, nor 0 where the squares are not. Those of smaller orders pass unread: a
    training step is not to wait for an accelerator."""
    if p <= 2:
        return value
    found = value.detach()
    if not bool(torch.isfinite(found).all()):
        finite("x", x)
        finite("y", y)
        raise NotFinite(
            f"`p` {p:g} has powers of distances beyond {value.dtype}: lower it, or rescale the "
            "samples"
        )
    if bool((found == 0).any()) and bool(((found == 0) & (squares() > 0)).any()):
        raise NotFinite(vanished(p, value.dtype))
    return value


def vanished(p: float, dtype: torch.dtype) -> str:
    """The message for powers of an order that a dtype does not hold."""
    return (
        f"`p` {p:g} has powers of distances that vanish in {dtype}: lower it, or rescale the "
        "samples"
    )


def sample_pair(x: Tensor, y: Tensor, least: int = 1) -> tuple[Tensor, Tensor]:
    r"""Two samples (n, \*) and (m, \*) as matrices (n, d) and (m, d), n, m ≥ `least`."""
    for name, sample in (("x", x), ("y", y)):
        floating(name, sample)
        if sample.ndim < 1 or len(sample) < least:
            raise ValueError(
                f"`{name}` must hold at least {least} samples, got shape {tuple(sample.shape)}"
            )
    if x.shape[1:] != y.shape[1:] or x.device != y.device:
        raise ValueError(
            "`x` and `y` must hold samples of one shape on one device, got "
            f"{tuple(x.shape)} on {x.device} and {tuple(y.shape)} on {y.device}"
        )
    if 0 in x.shape[1:]:
        raise ValueError(f"`x` and `y` must have at least one coordinate, got {tuple(x.shape)}")
    # a matrix as it is: a view would be another node of the graph
    return (
        x if x.ndim == 2 else x.reshape(len(x), -1),
        y if y.ndim == 2 else y.reshape(len(y), -1),
    )


def cost_matrix(cost: Tensor) -> Tensor:
    """`cost`, if it is a floating point matrix (n, m) with n, m ≥ 1."""
    floating("cost", cost)
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"`cost` must be a matrix (n, m), got shape {tuple(cost.shape)}")
    return cost


def points(x: Tensor, y: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Two finite samples as matrices (n, d) and (m, d), for a distance of order p."""
    x, y = sample_pair(x, y)
    if not all(map(math.isfinite, on_host(x.detach().sum(), y.detach().sum()))):
        finite("x", x)
        finite("y", y)
    order(p)  # which decorated functions get as a number of Python
    return x, y


def weights(name: str, w: Tensor, count: int) -> Tensor:
    r"""`w` (\*, count) divided by its sum, in float64, if it is at least 0 and sums to 1 over its
    last dimension up to rounding.

    The sum takes no gradient: derivatives in weights are those along changes that keep it.
    """
    floating(name, w)
    if w.shape[-1:] != (count,):
        raise ValueError(
            f"`{name}` must hold a weight for each of the {count} values, got {tuple(w.shape)}"
        )
    if count == 0:
        raise ValueError(f"`{name}` must hold at least one weight, got shape {tuple(w.shape)}")
    w = w.double()
    total = w.detach().sum(-1, keepdim=True)
    least = w.detach().amin(-1, keepdim=True)
    valid = (least >= 0) & ((total - 1).abs() <= 1e-5)
    if not valid.all():
        worst = int(valid.flatten().to(torch.uint8).argmin())
        of = f" in item {worst}" if valid.numel() > 1 else ""
        raise ValueError(
            f"`{name}` must be at least 0 and sum to 1, got a least weight of "
            f"{float(least.flatten()[worst]):.4g} and a sum of "
            f"{float(total.flatten()[worst]):.7g}{of}: divide it by its sum"
        )
    w = w / total
    # the mean takes the gradient's own mean away and leaves the weights as they are
    return (
        w + (w.detach().mean(-1, keepdim=True) - w.mean(-1, keepdim=True))
        if w.requires_grad
        else w
    )


def given_weights(name: str, w: Tensor | None, count: int) -> Tensor | None:
    """The weights w, or None for uniform ones."""
    return None if w is None else weights(name, w, count)


def distribution_weights(name: str, w: Tensor | None, like: Tensor, count: int) -> Tensor:
    """The weights w (count,) in float64, uniform if there are none."""
    if w is None:
        return torch.full((count,), 1 / count, dtype=torch.float64, device=like.device)
    if w.ndim != 1 or w.device != like.device:
        raise ValueError(f"`{name}` must have shape ({count},) on {like.device}, got {w.shape}")
    return weights(name, w, count)


# Points of surfaces

MOST_OFF = 1e-2
"""The tolerance for points off their surface, which half precision needs."""


def on_sphere(name: str, x: Tensor) -> Tensor:
    """Unit vectors (n, d) in float64, if they are up to rounding."""
    wide = of_rank(name, x, 2, "(n, d)").double()
    norms = wide.norm(dim=1, keepdim=True)
    low, high = (float(z.detach()) for z in norms.aminmax())
    if x.shape[1] < 2 or low < 1 - MOST_OFF or high > 1 + MOST_OFF:
        raise ValueError(
            f"`{name}` must be unit vectors (n, d) with d ≥ 2, got {tuple(x.shape)} with norms in "
            f"[{low:.4g}, {high:.4g}]: divide them by their norms"
        )
    return wide / norms


def on_hyperboloid(name: str, x: Tensor) -> Tensor:
    """Points (n, d + 1) of the hyperboloid in float64: x_0 is that of the other coordinates."""
    wide = of_rank(name, x, 2, "(n, d + 1)").double()
    height = (1 + wide[:, 1:].square().sum(1, keepdim=True)).sqrt()
    off = float(((wide[:, :1] - height) / height).detach().abs().amax())
    if x.shape[1] < 2 or off > MOST_OFF:
        raise ValueError(
            f"`{name}` must be points (n, d + 1) of the hyperboloid, got {tuple(x.shape)} with "
            f"x_0 off by a factor of {1 + off:.4g}: let x_0 = √(1 + ‖x_1…x_d‖²)"
        )
    return torch.cat([height, wide[:, 1:]], 1)


# Batches of problems


def point_batches(x: Tensor, y: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Samples (B, n, d) and (B, m, d), if each pair of items is two finite samples of points."""
    floating("x", x)
    floating("y", y)
    points(x[0], y[0], p)
    return finite("x", x), finite("y", y)


def weight_batch(name: str, w: Tensor | None, like: Tensor) -> Tensor:
    """The weights (B, n) of the rows of `like` (B, n, m) in float64, uniform if there are none."""
    count, size = like.shape[:2]
    if w is None:
        return torch.full((count, size), 1 / size, dtype=torch.float64, device=like.device)
    if w.device != like.device:
        raise ValueError(f"`{name}` must be on {like.device}, got {w.device}")
    return weights(name, w, size)


def masses(name: str, w: Tensor | None, like: Tensor, count: int) -> Tensor:
    """The weights w (count,) in float64, of any mass; uniform with sum 1 if there are none."""
    if w is None:
        return torch.full((count,), 1 / count, dtype=torch.float64, device=like.device)
    floating(name, w)
    if w.shape != (count,) or w.device != like.device:
        raise ValueError(
            f"`{name}` must have shape ({count},) on {like.device}, got {tuple(w.shape)} on "
            f"{w.device}"
        )
    w = w.double()
    low, total = on_host(w.detach().amin(), w.detach().sum())
    if not (low >= 0 and 0 < total < math.inf):
        raise ValueError(
            f"`{name}` must be at least 0 with a positive, finite sum, got a least weight of "
            f"{low:.4g} and a sum of {total:.7g}"
        )
    return w
