"""One-line descriptions of objects by the parameters that they were made with."""

import inspect
from typing import ClassVar

from torch import Tensor, nn

MOST_NUMBERS = 8
"""Numbers of a tensor that are shown one by one."""


def described(value: object) -> str:
    """A parameter's value on one line: floats to six digits, tensors by shape, foreign modules
    by name."""
    if isinstance(value, float):
        return repr(float(f"{value:.6g}"))
    if isinstance(value, Tensor):
        return f"Tensor{tuple(value.shape)}"
    if isinstance(value, nn.Module) and not isinstance(value, Shown):
        return f"{type(value).__name__}(…)"
    return repr(value)


def numbers(x: Tensor, digits: int) -> str:
    """The number of a tensor, or a list of them, of which a long one shows both of its ends."""
    flat = x.detach().reshape(-1)
    ends = (flat,) if len(flat) <= MOST_NUMBERS else (flat[:3], flat[-3:])
    texts = (", ".join(repr(float(f"{float(one):.{digits}g}")) for one in end) for end in ends)
    text = ", …, ".join(texts)
    return text if x.ndim == 0 else f"[{text}]"


def of_attributes(thing: object, *names: str) -> str:
    """An object on one line by its type and some attributes; tensors show their numbers."""
    fields: list[str] = []
    for name in names:
        value = getattr(thing, name)
        shown = numbers(value, 6) if isinstance(value, Tensor) else described(value)
        fields.append(f"{name}={shown}")
    return f"{type(thing).__name__}({', '.join(fields)})"


class Shown:
    """Mixin whose `repr` is the call that makes the object.

    Parameters of the constructor are read from the attributes of the same names: those without a
    default as positions, the others as keywords. A parameter without such an attribute is left
    out. It comes before `nn.Module` among the bases.
    """

    _shows_defaults: ClassVar[bool] = True
    """Whether parameters are shown that have their default values."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._shown())})"

    def _shown(self) -> list[str]:
        shown: list[str] = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name, inspect.Parameter.empty)
            if value is inspect.Parameter.empty:
                continue
            if parameter.default is inspect.Parameter.empty:
                shown.append(described(value))
            elif self._shows_defaults or value != parameter.default:
                shown.append(f"{name}={described(value)}")
        return shown
