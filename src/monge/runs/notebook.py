"""What a notebook shows of a run."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monge._core import html
from monge._core.untrusted import read_regular
from monge.evaluation.statistics import has_best

MOST_THUMBNAIL = 2**21
"""Bytes of a picture."""
MOST_FIGURES = 4


def shown(
    name: str,
    facts: Sequence[tuple[str, object]],
    rows: Sequence[Mapping[str, Any]],
    evaluation: Mapping[str, Any] | None,
    folder: Path,
) -> str:
    """What a run is, how far it is, its first figures and a picture of samples, as HTML.

    Args:
        name: of the run.
        facts: what it is.
        rows: its log.
        evaluation: its evaluation, if there is one.
        folder: its directory.
    """
    table = [
        *facts,
        ("steps", f"{rows[-1]['step']:,}" if rows else "none is logged"),
        ("seconds", float(rows[-1]["seconds"]) if rows else None),
    ]
    if evaluation is not None:
        figures = evaluation["figures"].items()
        table += [(k, figure["value"]) for k, figure in figures if has_best(k)][:MOST_FIGURES]
    return html.facts(name, table, _picture(folder / "pictures" / "samples.png"))


def _picture(file: Path) -> str:
    """A picture of the run, if there is one."""
    try:
        content = base64.b64encode(read_regular(file, MOST_THUMBNAIL)).decode()
    except (OSError, ValueError):
        return ""
    return f'<img alt="Samples" width="240" src="data:image/png;base64,{content}">'
