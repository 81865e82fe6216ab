"""evaluation.json: the figures of a run, and of which weights and data they are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from monge._core.errors import warn
from monge._core.files import write_whole
from monge._core.untrusted import converted, parsed, read_regular

NAME = "evaluation.json"


@dataclass(frozen=True)
class StoredFigure:
    """A figure; None stands for a number that is not finite, or that there is not."""

    value: float | None
    deviation: float | None
    floor: float | None


@dataclass(frozen=True)
class StoredEvaluation:
    """What the file holds."""

    protocol: dict[str, str | int | float | bool | None]
    figures: dict[str, StoredFigure]
    columns: dict[str, StoredFigure] = field(default_factory=dict)
    classes: dict[str, StoredFigure] = field(default_factory=dict)


def write(run: Path, evaluation: dict[str, Any]) -> None:
    """Writes what `monge.evaluation.evaluate` returns."""
    text = msgspec.json.format(msgspec.json.encode(evaluation), indent=2)  # null for NaN
    write_whole(run / NAME, text + b"\n")


def read(run: Path) -> dict[str, Any] | None:
    """What `write` wrote, or None where there is nothing, or nothing that can be used, of which it
    warns."""
    file = run / NAME
    if not file.exists():
        return None
    try:
        values = parsed(read_regular(file))
        converted(values, StoredEvaluation, "evaluation")
    except (OSError, ValueError) as error:
        warn(f"{str(file)!r} is damaged and left out: {error}: evaluate the run again")
        return None
    for part in (values[name] for name in ("figures", "columns", "classes") if name in values):
        for figure in part.values():
            figure["value"] = math.nan if figure["value"] is None else figure["value"]
    return values


def outdated(protocol: Mapping[str, Any], now: Mapping[str, str]) -> str | None:
    """Why figures are not of the weights and data that a run has now; None if they are.

    Args:
        protocol: what they rest on.
        now: the provenance of the run.
    """
    if "weights" not in protocol:
        return "it does not say of which checkpoint it is: evaluate the run again"
    if protocol["weights"] != now["weights"]:
        return (
            f"it is of {protocol.get('checkpoint')}, and the run is at {now['checkpoint']}: "
            "evaluate it again"
        )
    if protocol.get("fingerprint") != now.get("fingerprint"):
        return "it is of other data than the run has now: evaluate it again"
    return None
