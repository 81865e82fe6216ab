"""Objects named by text, `module:name`: a stranger's recipe, a model's class, a kind of data."""

import importlib
import sys
from typing import Any


def is_reference(text: str) -> bool:
    """Whether a text has the form `module:name`."""
    module, colon, name = text.partition(":")
    dotted = all(part.isidentifier() for part in module.split("."))
    return bool(colon) and dotted and all(part.isidentifier() for part in name.split("."))


def resolve(reference: str, argument: str, *, beside: str | None = None) -> Any:
    """The object that `module:name` names.

    Args:
        reference: what to import.
        argument: which argument named it, for the message.
        beside: a folder to look for the module in after Python's own path. Only for what a person
            has typed: a stored run must not choose code from the folder it is opened in.

    Raises:
        ValueError: for another form, a module that does not import, or one without that name.
    """
    if not is_reference(reference):
        raise ValueError(f"`{argument}` must look like package.module:name, got {reference!r}")
    module, _, name = reference.partition(":")
    if beside is not None and beside not in sys.path:
        sys.path.append(beside)
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a stranger's module raises is bad input
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"`{argument}` {reference!r} cannot be imported: {reason}: mend it, install its "
            "package, or add its folder to PYTHONPATH"
        ) from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"`{argument}` {reference!r}: {module} has no {name!r}")
        found = getattr(found, part)
    return found
