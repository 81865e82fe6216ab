"""The texts of a verb's help, in addition to what tyro reads from the types of flags."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

POSITIONAL = get_args(Positional[str])[1]


def documented(record: type) -> dict[str, str]:
    """The texts below the fields of a dataclass, those of its bases included."""
    texts: dict[str, str] = {}
    for cls in reversed(record.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
        except (OSError, TypeError):  # made without a source file
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for field, text in itertools.pairwise(body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[field.target.id] = " ".join(str(text.value.value).split())
    return texts


def explained(verb: type) -> type:
    """A verb whose help fills its lines, calls arguments by their names instead of their types,
    and shows no default that says nothing: None, False or an empty list."""
    texts, kinds = documented(verb), get_type_hints(verb, include_extras=True)
    fields = []
    for field in dataclasses.fields(verb):
        kind, default = _chosen(kinds[field.name]), field.default
        known = getattr(kind, "__metadata__", ())
        options: dict[str, Any] = {"metavar": _metavar(field, kind, known)}
        if not any(getattr(one, "help", None) for one in known):
            options["help"] = texts.get(field.name)
        if default is None or default is False or default == ():
            options["help_behavior_hint"] = ""
        elif default is dataclasses.MISSING:
            options["help_behavior_hint"] = "(required)"
        again = dataclasses.field(default=default, kw_only=field.kw_only)
        fields.append((field.name, Annotated[kind, arg(**options)], again))
    space = {"__doc__": verb.__doc__}
    return dataclasses.make_dataclass(
        verb.__name__, fields, bases=(verb,), frozen=True, namespace=space
    )


def _metavar(field: dataclasses.Field[Any], kind: Any, known: tuple[Any, ...]) -> str | None:
    """The placeholder for the value of a flag; None for the one that tyro chooses."""
    if POSITIONAL in known:
        bare = get_args(kind)[0]
        names = (getattr(one, "name", None) for one in known)
        called = next(filter(None, names), field.name).upper()
        if get_origin(bare) is tuple:  # runs
            return f"{called[:-1]} [{called[:-1]} ...]"
        return called if field.default is dataclasses.MISSING else f"[{called}]"
    return None


def _chosen(kind: Any) -> Any:
    """A type whose listed choices leave out None, which is not for typing."""
    known = getattr(kind, "__metadata__", ())
    bare = get_args(kind)[0] if known else kind
    named = [one for one in get_args(bare) if get_origin(one) is Literal]
    if not named or NoneType not in get_args(bare):
        return kind
    names = tuple(map(str, get_args(named[0])))
    spec = PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(names) + "}",
        instance_from_str=lambda typed: typed[0],
        is_instance=lambda _: True,
        str_from_instance=lambda one: [str(one)],
        choices=names,
    )
    return Annotated[str | None, spec, *known]
