"""A run as its directory is now, while training may go on."""

import dataclasses
import json
import math
from typing import Any

from monge.runs import Run
from monge.show.explore.schemas import Curve, Figure, Progress
from monge.show.pictures import term_names
from monge.training import checkpoint

MOST_ROWS = 500


def read(run: Run) -> Progress:
    """Curves, evaluation and configuration of a run, read anew."""
    every = [row for row in run.metrics() if "stage" not in row]
    found = run.evaluation() or {"figures": {}, "protocol": {}}
    newest = checkpoint.newest_first(run.path / "checkpoints")
    return Progress(
        step=every[-1]["step"] if every else 0,
        seconds=every[-1]["seconds"] if every else 0.0,
        newest=newest[0].name if newest else "",
        curves=[curve(name, every) for name in term_names(every)],
        figures=[
            Figure(name=name, **{part: finite(one[part]) for part in one})
            for name, one in found["figures"].items()
        ],
        protocol={name: str(value) for name, value in found["protocol"].items()},
        config=shown(dataclasses.asdict(run.config)),
    )


def curve(name: str, rows: list[dict[str, Any]]) -> Curve:
    """A term over the steps of the rows that have it."""
    own = [row for row in rows if name in row]
    kept = own[:: -(-len(own) // MOST_ROWS)]
    if kept[-1] is not own[-1]:
        kept.append(own[-1])
    return Curve(
        name=name, step=[row["step"] for row in kept], value=[finite(row[name]) for row in kept]
    )


def finite(value: float | None) -> float | None:
    """`value`, or None where JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None


def shown(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as it is shown: without the folders of this machine."""
    data = {**config["data"], "dir": None, "name": config["data"]["name"].rsplit("/", 1)[-1]}
    return json.loads(json.dumps({**config, "data": data}))
