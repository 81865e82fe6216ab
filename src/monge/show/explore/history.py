"""A run as its directory is now, while training may go on."""

import dataclasses
import json
import math
import re
from typing import Any

from monge.config.trust import PLACES
from monge.runs import Run
from monge.show.explore.schemas import Curve, FigureReply, ProgressReply
from monge.show.plots import term_names
from monge.training import checkpoint

MOST_ROWS = 500
MOST_TERMS = 100
MOST_STEP = 2**53
"""Larger integers are not exact in the page."""
QUOTED = re.compile(r"""(['"`])(?:[A-Za-z]:)?[^'"`\n]*[/\\]([^'"`/\\\n]+)\1""")
PLAIN = re.compile(
    r"""(?<![\w/\\.:])(?:~|[A-Za-z]:)?[/\\](?:[^\s'"`/\\]+[/\\]+)*(?=[^\s'"`/\\])"""
)
LONGEST = 1000
"""Characters of a text; the time that expressions take grows faster."""


def read(run: Run) -> ProgressReply:
    """Curves, evaluation and configuration of a run, read anew.

    Lines and figures that are not as monge writes them are left out.

    Raises:
        ValueError: for a directory that has been removed, or holds what is no run.
    """
    if not run.path.is_dir():
        raise ValueError(f"`run` {run.name!r} is not there any more: only what is loaded is shown")
    every = [row for row in run.metrics() if is_row(row)]
    evaluation = run.evaluation() or {"figures": {}, "protocol": {}}
    newest = checkpoint.newest_first(run.path / "checkpoints")
    return ProgressReply(
        step=every[-1]["step"] if every else 0,
        seconds=finite(every[-1].get("seconds")) or 0.0 if every else 0.0,
        newest=newest[0].name if newest else "",
        curves=[curve(name, every) for name in term_names(every)[:MOST_TERMS]],
        figures=[
            FigureReply(
                name=without_folders(name)[:100],
                value=finite(one.get("value")),
                deviation=finite(one.get("deviation")),
                floor=finite(one.get("floor")),
            )
            for name, one in evaluation["figures"].items()
            if isinstance(one, dict)
        ],
        protocol=_protocol(run, evaluation),
        config=shown(dataclasses.asdict(run.config)),
    )


def is_row(row: Any) -> bool:
    """Whether a line of the log is a step of the training."""
    step = row.get("step") if isinstance(row, dict) else None
    return type(step) is int and 0 <= step <= MOST_STEP and "stage" not in row


def _protocol(run: Run, evaluation: dict[str, Any]) -> dict[str, str]:
    """What the figures rest on, and whether they are of older weights."""
    protocol = {name: without_folders(str(one)) for name, one in evaluation["protocol"].items()}
    if not protocol:
        return protocol
    try:
        outdated = run.outdated(evaluation)
    except (KeyError, TypeError):
        outdated = "it does not say of which checkpoint it is: evaluate the run again"
    if outdated is None:
        return protocol
    return {"out of date": without_folders(outdated), **protocol}


def curve(name: str, rows: list[dict[str, Any]]) -> Curve:
    """A term over the steps of the rows that have it."""
    having = [row for row in rows if name in row]
    kept = having[:: -(-len(having) // MOST_ROWS)]
    if kept[-1] is not having[-1]:
        kept.append(having[-1])
    return Curve(
        name=without_folders(name)[:100],
        step=[row["step"] for row in kept],
        value=[finite(row[name]) for row in kept],
    )


def finite(value: Any) -> float | None:
    """`value` as a float, or None where it is no number, or none that JSON can express."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def shown(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as it is shown: without the folders of this machine."""

    def without(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: without(value[key], key) for key in value}
        if isinstance(value, list | tuple):
            return [without(one, name) for one in value]
        if isinstance(value, str):
            return re.split(r"[/\\]", value)[-1] if name in PLACES else without_folders(value)
        return value if value is None or isinstance(value, bool | int | float) else str(value)

    config = without(config)
    return json.loads(json.dumps({**config, "data": {**config["data"], "dir": None}}))


def without_folders(text: str) -> str:
    """A text in which paths are their last names: where a file lies is not for the page."""
    return PLAIN.sub("", QUOTED.sub(r"\1\2\1", text[:LONGEST]))
