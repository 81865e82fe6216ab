"""Records of settings: frozen dataclasses whose fields are checked, and read from text."""

import dataclasses
import math
import numbers
import types
import typing
from typing import Any, Literal

LARGEST = 2**31 - 1
"""The largest count or size; no tensor holds more of anything."""
WEAKEST, STRONGEST = 1e-9, 1e9
"""Bounds of weights, scales and deviations, which are about 1 in their units: networks are trained
in float32, which does not hold the squares of gradients far beyond."""
_WORDS = {int: "an integer", float: "a number", bool: "True or False", str: "a text"}


def demand(ok: bool, name: str, value: Any, wanted: str) -> None:
    """A ValueError that names a field, its value and what it must be, unless `ok`."""
    if not ok:
        raise ValueError(f"`{name}` must be {wanted}, got {value!r}")


def choices(record: Any) -> None:
    """Demands of the fields that have a list of values one of it."""
    for name, annotation in typing.get_type_hints(type(record)).items():
        members = (annotation, *typing.get_args(annotation))
        known = [typing.get_args(one) for one in members if typing.get_origin(one) is Literal]
        value = getattr(record, name)
        if known and not (value is None and type(None) in members):
            demand(value in known[0], name, value, f"one of {', '.join(map(str, known[0]))}")


def of_types(record: Any) -> None:
    """Demands of every field a value of its type."""
    for name, annotation in typing.get_type_hints(type(record)).items():
        value = getattr(record, name)
        demand(_is_of(value, annotation), name, value, _in_words(annotation))


def _is_of(value: Any, annotation: Any) -> bool:
    """Whether a value has a type that fields have; what lists its values is left to `choices`."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return len(kinds) == len(value) and all(map(_is_of, value, kinds))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_is_of(value, one) for one in arguments)
    if annotation in (int, float):
        kind = numbers.Integral if annotation is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool)
    if annotation is Any or not isinstance(annotation, type):
        return True
    return isinstance(value, annotation)


def _in_words(annotation: Any) -> str:
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple:
        if arguments[-1] is Ellipsis:
            return f"a tuple, each of which is {_in_words(arguments[0])}"
        return f"a tuple of {len(arguments)}: {', '.join(map(_in_words, arguments))}"
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join("None" if one is type(None) else _in_words(one) for one in arguments)
    return _WORDS.get(annotation, f"a {getattr(annotation, '__name__', annotation)}")


def at_least(record: Any, least: float, *names: str) -> None:
    """Demands of some fields, where they are given, finite numbers of at least `least`, and of
    counts that they are no larger than `LARGEST`."""
    for name in names:
        value = getattr(record, name)
        whole = isinstance(value, int) or least == 0  # counts are integers
        good = value is None or (whole and value >= least and math.isfinite(value))
        demand(good, name, value, f"{'' if whole else 'an integer of '}at least {least}")
        small = not isinstance(value, int) or value <= LARGEST
        demand(small, name, value, f"at most {LARGEST:,}")


def positive(record: Any, *names: str) -> None:
    """Demands of some fields, where they are given, positive and finite numbers."""
    for name in names:
        value = getattr(record, name)
        good = value is None or (value > 0 and math.isfinite(value))
        demand(good, name, value, "positive and finite")


def bounded(record: Any, *names: str, most: float = STRONGEST) -> None:
    """Demands of weights, scales and deviations, where they are given and not 0, a size that
    float32 can train with."""
    for name in names:
        value = getattr(record, name)
        good = value is None or value == 0 or WEAKEST <= value <= most
        demand(good, name, value, f"from {WEAKEST:g} to {most:g}")


def idle(record: Any, used: bool, wanted: str, *names: str) -> None:
    """Demands that some fields are left at their defaults, unless they are used: a value without
    an effect is a mistake."""
    defaults = {field.name: field.default for field in dataclasses.fields(record)}
    for name in names:
        value = getattr(record, name)
        demand(used or value == defaults[name], name, value, f"left out {wanted}")


def leaves(record: Any, prefix: str = "") -> dict[str, Any]:
    """Every value of a record and of the records in it, by its dotted name."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value, name = getattr(record, field.name), prefix + field.name
        values |= leaves(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value}
    return values


def readable(annotation: Any) -> bool:
    """Whether a field of this type can be a flag, be stored, and be read again."""
    arguments, origin = typing.get_args(annotation), typing.get_origin(annotation)
    if origin is Literal:
        return len({type(one) for one in arguments}) == 1
    if origin is tuple:
        return all(one is Ellipsis or one in (int, float, str) for one in arguments)
    members = [one for one in arguments if one is not type(None)]
    if members and type(None) in arguments:
        return len(members) == 1 and readable(members[0])
    return annotation in (bool, int, float, str)


def from_text(text: str, annotation: Any, name: str) -> Any:
    """The value of a field from text, as `--set a.b=c` gives it."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        values = {str(one): one for one in arguments}
        demand(text in values, name, text, f"one of {', '.join(values)}")
        return values[text]
    if type(None) in arguments:
        if text.lower() == "none":
            return None
        return from_text(text, next(a for a in arguments if a is not type(None)), name)
    if annotation is bool:
        demand(text.lower() in ("true", "false"), name, text, "true or false")
        return text.lower() == "true"
    if typing.get_origin(annotation) is tuple:
        words = [one.strip() for one in text.strip("()[]").split(",") if one.strip()]
        kinds = arguments[:1] * len(words) if arguments[-1] is Ellipsis else arguments
        demand(len(kinds) == len(words), name, text, f"{len(kinds)} values")
        return tuple(from_text(one, kind, name) for one, kind in zip(words, kinds))
    try:
        return annotation(text)
    except ValueError:
        what = _WORDS.get(annotation, f"a {annotation}")
        raise ValueError(f"`{name}` must be {what}, got {text!r}") from None
