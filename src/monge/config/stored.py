"""config.json: what was asked and what was found, under keys of their own.

    {"format": 2, "config": {…}, "settled": {…}, "seal": "…"}

Runs of monge 0.1 kept both in one flat record (format 1); they are read as well. Whoever has made
a run, its config.json is checked whole: types, ranges, and that nothing in it is unknown.
"""

import dataclasses
import importlib.util
import json
import os
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monge._core.references import is_reference
from monge._core.untrusted import converted, parsed, read_regular, refuse_links, shortened
from monge._core.visible import brief
from monge.config.asked import CUSTOM, Config, override
from monge.config.settled import Settled
from monge.config.trust import is_own, paths_of, seal_of
from monge.recipes import find
from monge.recipes.options import NoOptions

FORMAT = 2
NAME = "config.json"
FILES = (
    NAME,
    "metrics.jsonl",
    "evaluation.json",
    "report.html",
    "identity.npy",
    "known.png",
    "sampler-mixture.safetensors",
    "sampler-flow.safetensors",
    "model.safetensors",
    "samples.png",
    "README.md",
    ".lock",
    ".lock.json",
)
"""The files that monge reads and writes in a run, or in a folder of the hub."""
FOLDERS = ("checkpoints", "best", "pictures")
"""The folders."""
SUFFIXES = {Path(file).suffix for file in FILES} - {""}
"""The suffixes of those files, and of the others in the folders."""


def to_json(config: Config, settled: Settled) -> str:
    """The text of config.json."""
    values = {
        "format": FORMAT,
        "config": dataclasses.asdict(config),
        "settled": dataclasses.asdict(settled),
    }
    if (seal := seal_of(config)) is not None:
        values["seal"] = seal
    return json.dumps(values, indent=2) + "\n"


def from_json(text: str | bytes) -> tuple[Config, Settled]:
    """The inverse of `to_json`, also of what monge 0.1 wrote.

    Raises:
        ValueError: for anything else.
    """
    return _from_values(parsed(text))


def _from_values(values: Any) -> tuple[Config, Settled]:
    if not isinstance(values, dict):
        raise ValueError(f"it holds {shortened(values)} in place of a record")
    if "format" not in values:
        values = _migrated(values)
    if values["format"] != FORMAT:
        raise ValueError(
            f"its format is {shortened(values['format'])} and this monge reads {FORMAT}: install "
            "the version of monge that wrote it"
        )
    if unknown := sorted(values.keys() - {"format", "config", "settled", "seal"}):
        raise ValueError(f"it does not know {shortened(unknown[0])}")
    for key in ("config", "settled"):
        if not isinstance(values.get(key), dict):
            raise ValueError(f"it has no record {key!r}")
    asked = dict(values["config"])
    options = asked.pop("options", None)
    name = asked.get("recipe", Config.recipe)
    kind = NoOptions if name == CUSTOM else find(name).options
    record = _record(kind, {} if options is None else options, "config.options")
    config = dataclasses.replace(_record(Config, asked, "config"), options=record)
    settled = _record(Settled, values["settled"], "settled")
    if "fingerprint" not in values["settled"] and config.data.split is None:  # of monge 0.1
        config = override(config, "data.split", "position")
    settled.check()
    return config.check(), settled


def _record(kind: type, values: Any, where: str) -> Any:
    _refuse_unknown(kind, values, where)
    return converted(values, kind, where)


def _refuse_unknown(kind: Any, values: Any, where: str) -> None:
    """Refuses keys that are not fields of a record or of the records in it."""
    records = [one for one in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(one)]
    if not records:
        return
    if isinstance(values, list):
        for i, one in enumerate(values):
            _refuse_unknown(records[0], one, f"{where}[{i}]")
    if not isinstance(values, dict):
        return
    types = typing.get_type_hints(records[0])
    if unknown := sorted(values.keys() - types.keys()):
        raise ValueError(f"`{where}` does not know {shortened(unknown[0])}")
    for name, value in values.items():
        _refuse_unknown(types[name], value, f"{where}.{name}")


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
        raise ValueError(f"it was made by monge {brief(version)}: install that version to use it")
    network = old.get("network", {})
    if not isinstance(network, dict):
        raise ValueError(f"`network` is {shortened(network)}: expected a record")
    network = dict(network)
    recipe = old.get("recipe", Config.recipe)
    kind = NoOptions if recipe == CUSTOM else find(recipe).options
    names = {field.name for field in dataclasses.fields(kind)}
    asked = {field.name for field in dataclasses.fields(Config)} - {"options"}
    if unknown := sorted(old.keys() - asked - set(_FACTS) - set(_OPTIONS)):
        raise ValueError(f"it does not know {shortened(unknown[0])}")
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


def _refuse_code(values: Any, run: Path) -> None:
    """Refuses a record that names code in its own folder, which Python may find there, or a module
    of Python's own, which is neither a recipe nor a kind of data.

    Nothing is imported to see that.
    """
    for name in ("recipe", "kind"):
        for text in _values_of(values, name):
            if not isinstance(text, str) or not is_reference(text):
                continue
            parts = text.partition(":")[0].split(".")
            if parts[0] in sys.stdlib_module_names:
                raise ValueError(f"`{name}` {text!r} is in a module of Python's own")
            home = Path(os.path.realpath(run))
            if any(_is_inside(place, home) for place in _places_of(parts)):
                raise ValueError(
                    f"`{name}` {text!r} is code in the folder of the run itself, which is not "
                    "imported: install it, if you trust it"
                )


def _places_of(parts: list[str]) -> Iterator[Path]:
    """Where the module with a dotted name may lie, and the packages that it is in."""
    try:
        spec = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        spec = None
    found = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    yield from (Path(place) for place in found if place is not None)
    bases = [Path(place, parts[0]) for place in sys.path]
    bases += [Path(place) for place in found[1:] if place is not None]
    for base in bases:
        for part in (None, *parts[1:]):
            base = base if part is None else base / part
            yield from (base, base / "__init__.py", base.with_name(f"{base.name}.py"))


def _is_inside(place: Path, home: Path) -> bool:
    """Whether what there is at a place lies in a folder, or is it."""
    return place.exists() and Path(os.path.realpath(place)).is_relative_to(home)


def _is_folder(name: str) -> bool | None:
    """Whether what has a name in a run is a folder, or a file; None for what monge does not
    write."""
    if name in FOLDERS or name.startswith("step-"):
        return True
    return False if name in FILES or Path(name).suffix in SUFFIXES else None


def _values_of(values: Any, name: str) -> Iterator[Any]:
    """The values of a key in a record and in the records in it."""
    if isinstance(values, dict):
        yield from ([values[name]] if name in values else [])
        for value in values.values():
            yield from _values_of(value, name)


def read_config(run: Path) -> tuple[Config, Settled]:
    """The configuration and the facts of the run in a folder.

    Raises:
        ValueError: if the folder holds no run, one whose config.json cannot be used, or entries
            of a run that are links or no regular files.
    """
    return read_sealed(run)[:2]


def read_sealed(run: Path) -> tuple[Config, Settled, dict[str, str]]:
    """The stored configuration, with the paths that it names and that were not put there by this
    account, by the setting; see `monge.config.trust`."""
    if not os.path.lexists(run / NAME):
        raise ValueError(f"`run` {str(run)!r} is not a run directory: it has no {NAME}")
    refuse_links(run, (*FILES, *FOLDERS), "run", _is_folder)
    try:
        values = parsed(read_regular(run / NAME))
        _refuse_code(values, run)
        config, settled = _from_values(values)
        seal = values.get("seal")
        foreign = {} if is_own(config, seal) else paths_of(config)
        return config, settled, foreign
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`run` {str(run)!r} has a {NAME} that cannot be used: {brief(str(error), 500)}"
        ) from None
