"""A run as its directory is now, while training may go on."""

import dataclasses
import json
import math
from typing import Any

from monge.runs import Run
from monge.show.explore.schemas import Curve, FigureReply, ProgressReply
from monge.show.plots import term_names
from monge.training import checkpoint

MOST_ROWS = 500


def read(run: Run) -> ProgressReply:
    """Curves, evaluation and configuration of a run, read anew."""
    every = [row for row in run.metrics() if "stage" not in row]
    evaluation = run.evaluation() or {"figures": {}, "protocol": {}}
    newest = checkpoint.newest_first(run.path / "checkpoints")
    return ProgressReply(
        step=every[-1]["step"] if every else 0,
        seconds=every[-1]["seconds"] if every else 0.0,
        newest=newest[0].name if newest else "",
        curves=[curve(name, every) for name in term_names(every)],
        figures=[
            FigureReply(name=name, **{key: finite(one[key]) for key in one})
            for name, one in evaluation["figures"].items()
        ],
        protocol=_protocol(run, evaluation),
        config=shown(dataclasses.asdict(run.config)),
    )


def _protocol(run: Run, evaluation: dict[str, Any]) -> dict[str, str]:
    """What the figures rest on, and whether they are of older weights."""
    protocol = {name: str(value) for name, value in evaluation["protocol"].items()}
    outdated = run.outdated(evaluation) if protocol else None
    return protocol if outdated is None else {"out of date": outdated, **protocol}


def curve(name: str, rows: list[dict[str, Any]]) -> Curve:
    """A term over the steps of the rows that have it."""
    having = [row for row in rows if name in row]
    kept = having[:: -(-len(having) // MOST_ROWS)]
    if kept[-1] is not having[-1]:
        kept.append(having[-1])
    return Curve(
        name=name, step=[row["step"] for row in kept], value=[finite(row[name]) for row in kept]
    )


def finite(value: float | None) -> float | None:
    """`value`, or None where JSON cannot express it."""
    return value if value is not None and math.isfinite(value) else None


def shown(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as it is shown: without the folders of this machine."""
    data = {**config["data"], "dir": None, "name": config["data"]["name"].rsplit("/", 1)[-1]}
    return json.loads(json.dumps({**config, "data": data}))
