"""Records of settings: frozen dataclasses whose fields are checked, and read from text or JSON."""

import dataclasses
import math
import typing
from typing import Any, Literal


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
            demand(value in known[0], name, value, f"one of {', '.join(known[0])}")


def at_least(record: Any, least: float, *names: str) -> None:
    """Demands of some fields, where they are given, finite numbers of at least `least`."""
    for name in names:
        value = getattr(record, name)
        good = value is None or (value >= least and math.isfinite(value))
        demand(good, name, value, f"at least {least}{' and finite' * isinstance(value, float)}")


def positive(record: Any, *names: str) -> None:
    """Demands of some fields, where they are given, positive and finite numbers."""
    for name in names:
        value = getattr(record, name)
        good = value is None or (value > 0 and math.isfinite(value))
        demand(good, name, value, "positive and finite")


def leaves(record: Any, prefix: str = "") -> dict[str, Any]:
    """Every value of a record and of the records in it, by its dotted name."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value, name = getattr(record, field.name), prefix + field.name
        values |= leaves(value, f"{name}.") if dataclasses.is_dataclass(value) else {name: value}
    return values


def from_values(cls: type, values: Any, where: str) -> Any:
    """The record of a class from parsed JSON; a ValueError for what it does not know."""
    known = {field.name for field in dataclasses.fields(cls)}
    if not isinstance(values, dict) or (unknown := set(values) - known):
        what = sorted(unknown) if isinstance(values, dict) else values
        raise ValueError(f"`{where}` does not know {what!r}")
    types = typing.get_type_hints(cls)
    arguments = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(types[name]):
            value = from_values(typing.cast(type, types[name]), value, f"{where}.{name}")
        arguments[name] = _tupled(value)
    return cls(**arguments)


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def from_text(text: str, annotation: Any, name: str) -> Any:
    """The value of a field from text, as `--set a.b=c` gives it."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        demand(text in arguments, name, text, f"one of {', '.join(map(str, arguments))}")
        return text
    if type(None) in arguments:
        if text.lower() == "none":
            return None
        return from_text(text, next(a for a in arguments if a is not type(None)), name)
    if annotation is bool:
        demand(text.lower() in ("true", "false"), name, text, "true or false")
        return text.lower() == "true"
    try:
        if typing.get_origin(annotation) is tuple:
            return tuple(arguments[0](one) for one in text.strip("()").split(",") if one)
        return annotation(text)
    except ValueError:
        what = getattr(annotation, "__name__", str(annotation))
        raise ValueError(f"`{name}` must be a {what}, got {text!r}") from None
