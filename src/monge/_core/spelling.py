"""Names that were mistyped: what a person may have meant."""

import difflib
from collections.abc import Iterable


def meant(name: str, known: Iterable[str]) -> str:
    """`: did you mean X?` with the known name nearest to `name`, or nothing where none is near."""
    near = difflib.get_close_matches(name.lower(), list(known), 1, cutoff=0.7)
    return f": did you mean {near[0]}?" if near else ""
