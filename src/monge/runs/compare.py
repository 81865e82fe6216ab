"""Figures of several runs, those that differ only in their seeds together."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from monge.runs.run import Run

HIGHER = ("precision", "recall", "density", "coverage", "coverage-CD", "coverage-EMD")
LOWER = (
    "test reconstruction",
    "KD",
    "pixel SW",
    "pyramid SW",
    "classes JS",
    "points JS",
    "W2 exact",
    "MMD-CD",
    "MMD-EMD",
    "energy score",
)
"""Figures with a best value, which is set in bold, as is that of every FD and MIND. Other figures
are judged by their noise floors."""


def grouped(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups whose settings differ only in the seed."""
    groups: list[list[Run]] = []
    for run in runs:
        unseeded = dataclasses.replace(run.config, seed=0)
        for group in groups:
            alike = dataclasses.replace(group[0].config, seed=0) == unseeded
            if alike and run.config.seed not in [other.config.seed for other in group]:
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def summarised(group: Sequence[Run]) -> dict[str, Any]:
    """The means of a group's figures, with their standard deviations: what the report sums runs up
    by and, for evaluated runs, what `monge evaluate` last measured."""
    every = [_figures(run) for run in group]
    common = [name for name in every[0] if all(name in figures for figures in every)]
    return {
        "runs": [run.name for run in group],
        "recipe": group[0].config.recipe,
        "figures": {
            name: {
                "value": statistics.fmean(values := [figures[name] for figures in every]),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
            }
            for name in common
        },
    }


def _figures(run: Run) -> dict[str, float]:
    evaluation = run.evaluation() or {"figures": {}}
    values = {name: each["value"] for name, each in evaluation["figures"].items()}
    return run.summary() | values


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The cells of a Markdown table of the summaries of groups, the best values in bold."""
    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    best = {}
    for name in names:
        values = [row["figures"][name]["value"] for row in rows if name in row["figures"]]
        if name in HIGHER:
            best[name] = max(values)
        elif name in LOWER or "FD" in name or "MIND" in name:
            best[name] = min(values)
    cells = [["runs", "recipe", *names], ["---"] * (len(names) + 2)]
    for row in rows:
        texts = [_cell(row["figures"].get(name), len(rows) > 1, best.get(name)) for name in names]
        cells.append([", ".join(row["runs"]), row["recipe"], *texts])
    return cells


def _cell(figure: dict[str, float | None] | None, several: bool, best: float | None) -> str:
    if figure is None:
        return "–"
    text = f"{figure['value']:,.4g}"
    if figure["deviation"] is not None:
        text += f" ± {figure['deviation']:.2g}"
    return f"**{text}**" if several and figure["value"] == best else text
