"""Figures of several runs, those that differ only in their seeds together."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from monge._core.fields import leaves
from monge._core.visible import markdown
from monge.evaluation.statistics import best_value, has_best
from monge.runs.run import Run
from monge.training.resumed import FREE

UNCOMPARED = ("run", "recipe", "data", "seeds", "checkpoint", "weights", "torch", "numpy")
"""What a protocol says that may differ between figures that are compared."""


class _Measured(NamedTuple):
    """The figures of one run."""

    values: dict[str, float]
    protocols: dict[str, dict[str, Any]]
    """What each figure rests on."""
    note: str | None
    """Why figures are missing, if any are."""


def grouped(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups whose settings differ only in the seed, and in where they computed, and
    that have come equally far on equal data."""
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            seeds = [other.config.seed for other in group]
            if _settings(group[0]) == _settings(run) and run.config.seed not in seeds:
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def _settings(run: Run) -> dict[str, Any]:
    """What the runs of a group have in common."""
    fingerprint = run.settled.fingerprint or run.config.data.name
    settings = leaves(run.config).items()
    kept = {name: value for name, value in settings if name not in (*FREE, "seed")}
    done = {"data": fingerprint, "changes": run.settled.changes}
    if run.config.training.patience is None:  # which ends runs of one kind at unlike steps
        done["steps"] = run.steps
    return {**kept, **done}


def summarised(group: Sequence[Run]) -> dict[str, Any]:
    """The means of a group's figures, with their standard deviations: what the report sums runs up
    by and, for evaluated runs, what `monge evaluate` last measured.

    Figures of an older checkpoint are left out, and those that the runs of the group have measured
    by unlike protocols; `notes` says so.
    """
    every = [_measured(run) for run in group]
    notes = [measured.note for measured in every if measured.note]
    figures, unlike = {}, dict[str, list[str]]()
    for name in every[0].values:
        if not all(name in measured.values for measured in every):
            continue
        protocols = [measured.protocols[name] for measured in every]
        if difference := _difference(protocols):
            unlike.setdefault(difference, []).append(name)
            continue
        values = [measured.values[name] for measured in every]
        figures[name] = {
            "value": statistics.fmean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else None,
            "protocol": protocols[0],
        }
    names = [run.name for run in group]
    for difference, unlikes in unlike.items():
        of = f"{', '.join(unlikes)} of {', '.join(names)}"
        notes.append(f"{of} are not averaged: {difference}")
    return {
        "runs": names,
        "recipe": group[0].config.recipe,
        "figures": figures,
        "provenance": {run.name: run.provenance for run in group},
        "notes": notes,
    }


def _measured(run: Run) -> _Measured:
    """What a run is summed up by, and its evaluation if that is of the weights it has now."""
    values = run.summary()
    data = {"fingerprint": run.source.identity.fingerprint, "n test": len(run.source.test)}
    protocols = dict.fromkeys(values, data)
    evaluation, note = run.evaluation(), None
    if evaluation is not None and (stale := run.outdated(evaluation)):
        note = f"the evaluation of {run.name} is left out: {stale}"
    elif evaluation is not None:
        rests = evaluation["protocol"].items()
        protocol = {name: value for name, value in rests if name not in UNCOMPARED}
        for name, figure in evaluation["figures"].items():
            if name not in values:
                values[name], protocols[name] = figure["value"], protocol
    return _Measured(values, protocols, note)


def _difference(protocols: Sequence[Mapping[str, Any]]) -> str | None:
    """In what protocols differ, in words, if they do."""
    names = dict.fromkeys(name for protocol in protocols for name in protocol)
    differences = []
    for name in names:
        values = dict.fromkeys(str(protocol.get(name, "–")) for protocol in protocols)
        if len(values) > 1:
            differences.append(f"{name} is {' and '.join(values)}")
    return ", ".join(differences) or None


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The cells of a Markdown table with a row for each figure and a column for each group, the
    best values in bold where all of a figure were measured by one protocol."""
    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    best = {}
    for name in names:
        having = [row["figures"][name] for row in rows if name in row["figures"]]
        values = [figure["value"] for figure in having]
        if len(having) < 2 or _difference([figure["protocol"] for figure in having]):
            continue
        if has_best(name):
            best[name] = best_value(name, values)
    heads = [markdown(", ".join(row["runs"])) for row in rows]
    cells = [["figure", *heads], ["---", *["---:"] * len(rows)]]
    cells.append(["recipe", *[markdown(row["recipe"]) for row in rows]])
    for name in names:
        texts = [_cell(row["figures"].get(name), best.get(name)) for row in rows]
        cells.append([markdown(name), *texts])
    return cells


def notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What a table leaves out, and why figures are not set in bold, a line each."""
    said = [note for row in rows for note in row["notes"]]
    unlike: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row["figures"]):
        protocols = [row["figures"][name]["protocol"] for row in rows if name in row["figures"]]
        if has_best(name) and (difference := _difference(protocols)):
            unlike.setdefault(difference, []).append(name)
    said += [f"no best {', '.join(names)}: {difference}" for difference, names in unlike.items()]
    changed = [
        f"the data of {name} are not those it was trained on: {provenance['data changed']}"
        for row in rows
        for name, provenance in row["provenance"].items()
        if "data changed" in provenance
    ]
    return [markdown(note) for note in said + changed]


def _cell(figure: dict[str, Any] | None, best: float | None) -> str:
    if figure is None:
        return "–"
    text = f"{figure['value']:,.4g}"
    if figure["deviation"] is not None:
        text += f" ± {figure['deviation']:.2g}"
    return f"**{text}**" if figure["value"] == best else text
