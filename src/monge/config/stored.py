"""config.json: what was asked and what was found, under keys of their own.

    {"format": 2, "config": {…}, "settled": {…}}

Runs of monge 0.1 kept both in one flat record (format 1); they are read as well.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from monge._core.fields import from_values
from monge.config.asked import CUSTOM, Config, override
from monge.config.settled import Settled
from monge.recipes import find
from monge.recipes.options import NoOptions

FORMAT = 2
NAME = "config.json"


def to_json(config: Config, settled: Settled) -> str:
    """The text of config.json."""
    values = {
        "format": FORMAT,
        "config": dataclasses.asdict(config),
        "settled": dataclasses.asdict(settled),
    }
    return json.dumps(values, indent=2) + "\n"


def from_json(text: str) -> tuple[Config, Settled]:
    """The inverse of `to_json`, also of what monge 0.1 wrote.

    Raises:
        ValueError: for anything else.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}")
    if "format" not in values:
        values = _migrated(values)
    if values["format"] != FORMAT:
        raise ValueError(
            f"its format is {values['format']!r} and this monge reads {FORMAT}: install the "
            "version of monge that wrote it"
        )
    for key in ("config", "settled"):
        if not isinstance(values.get(key), dict):
            raise ValueError(f"it has no record {key!r}")
    asked = dict(values["config"])
    options = asked.pop("options", None)
    name = asked.get("recipe", Config.recipe)
    kind = NoOptions if name == CUSTOM else find(name).options
    record = from_values(kind, {} if options is None else options, "config.options")
    config = dataclasses.replace(from_values(Config, asked, "config"), options=record)
    settled = from_values(Settled, values["settled"], "settled")
    if "fingerprint" not in values["settled"] and config.data.split is None:  # of monge 0.1
        config = override(config, "data.split", "position")
    return config.check(), settled


_FACTS = ("kind", "shape", "samples", "spread", "version")
_OPTIONS = (
    "beta",
    "cost",
    "directions",
    "encoder",
    "kernel",
    "known",
    "noise",
    "scale",
    "sigma",
    "weight",
)


def _migrated(old: dict[str, Any]) -> dict[str, Any]:
    """Format 2 of the flat record of monge 0.1."""
    version = str(old.get("version"))
    if version.split(".")[:2] != ["0", "1"]:
        raise ValueError(f"it was made by monge {version}: install that version to use it")
    network = dict(old.get("network", {}))
    recipe = old.get("recipe", Config.recipe)
    kind = NoOptions if recipe == CUSTOM else find(recipe).options
    names = {field.name for field in dataclasses.fields(kind)}
    asked = {field.name for field in dataclasses.fields(Config)} - {"options"}
    if unknown := old.keys() - asked - set(_FACTS) - set(_OPTIONS):
        raise ValueError(f"it does not know {sorted(unknown)}")
    network["published"] = old.get("preset") == "paper"
    old = {**old, "summary": network.pop("summary", 32), "network": network}
    if old.get("kind") != "cloud":
        old["cost"] = None
    old["cost_directions"] = old.get("directions", 64)
    asked, names = asked & old.keys(), names & old.keys()
    return {
        "format": FORMAT,
        "config": {
            **{name: old[name] for name in asked},
            "options": {name: old[name] for name in names},
        },
        "settled": {name: old[name] for name in (*_FACTS, "latent", "weight") if name in old},
    }


def read_config(run: Path) -> tuple[Config, Settled]:
    """What the run in a folder was asked and found.

    Raises:
        ValueError: if the folder holds no run, or one whose config.json is damaged.
    """
    file = run / NAME
    if not file.is_file():
        raise ValueError(f"`run` {str(run)!r} is no run directory: it has no {NAME}")
    try:
        return from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"`run` {str(run)!r} has a {NAME} that cannot be used: {reason}"
        ) from None
