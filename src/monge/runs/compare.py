"""Several runs side by side: one figure and one table."""

import dataclasses
import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from monge._core.files import write_all
from monge.data import as_floats
from monge.draws import generator
from monge.models import AutoEncoder, evaluating
from monge.runs import Run
from monge.show import pictures
from monge.show.report import measure, paired

HIGHER = ("precision", "recall", "density", "coverage", "coverage-CD", "coverage-EMD")
LOWER = (
    "test reconstruction", "KD", "pixel SW", "pyramid SW", "classes JS", "points JS", "W2 exact",
    "MMD-CD", "MMD-EMD", "energy score",
)  # fmt: skip
"""Figures with a best value, in bold; every FD and MIND too. Others are judged by their floors."""


def compare(runs: Sequence[Run], out: Path) -> list[Path]:
    """One figure with a column a group of runs that differ in their seeds alone, and a table of
    the groups' means with standard deviations.

    The rows of the figure are test interpolations, test reconstructions and random samples of the
    first run, the last alone where a run has no encoder. The table has what the report sums a
    run up by and, for evaluated runs, what `monge evaluate` last found.

    Raises:
        ValueError: for runs whose samples differ in shape, or that hold neither images nor clouds.
    """
    first = runs[0].config
    for run in runs:
        if run.config.shape != first.shape or run.config.kind in ("vector", None):
            raise ValueError(
                f"`run` {str(run.path)!r} holds {run.config.kind}s of shape {run.config.shape}, "
                f"the first {first.kind}s of {first.shape}: compare runs of images or clouds of "
                "one shape"
            )
    groups = _groups(runs)
    shown = [group[0] for group in groups]
    encoding = all(isinstance(run.model, AutoEncoder) for run in shown)
    columns = [_column(run, encoding, first.seed) for run in shown]
    table = [_summary(group) for group in groups]
    picture = io.BytesIO()
    heads = [f"{run.name} ({run.config.recipe})" for run in shown]
    _tabulate(columns, heads).save(picture, "PNG", optimize=True)
    contents = {
        "compare.png": picture.getvalue(),
        "compare.md": "".join(f"| {' | '.join(line)} |\n" for line in _lines(table)),
        "compare.json": json.dumps(table, indent=2) + "\n",
    }
    return write_all(out, contents)


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs whose settings differ in the seed alone, together."""
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


def _figures(run: Run) -> dict[str, float]:
    found = run.evaluation() or {"figures": {}}
    return measure(run) | {name: each["value"] for name, each in found["figures"].items()}


def _summary(group: list[Run]) -> dict[str, Any]:
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


def _lines(table: list[dict[str, Any]]) -> list[list[str]]:
    names = list(dict.fromkeys(name for row in table for name in row["figures"]))
    best = {}
    for name in names:
        values = [row["figures"][name]["value"] for row in table if name in row["figures"]]
        if name in HIGHER:
            best[name] = max(values)
        elif name in LOWER or "FD" in name or "MIND" in name:
            best[name] = min(values)
    lines = [["runs", "recipe", *names], ["---"] * (len(names) + 2)]
    for row in table:
        cells = [", ".join(row["runs"]), row["recipe"]]
        for name in names:
            figure = row["figures"].get(name)
            text = "–" if figure is None else f"{figure['value']:,.4g}"
            if figure and figure["deviation"] is not None:
                text += f" ± {figure['deviation']:.2g}"
            if figure and len(table) > 1 and figure["value"] == best.get(name):
                text = f"**{text}**"
            cells.append(text)
        lines.append(cells)
    return lines


def _column(run: Run, encoding: bool, seed: int) -> dict[str, Image.Image]:
    """The pictures of a run, of samples alone where not all have encoders."""
    model, test = run.model, run.source.test
    drawn = run.sample(64, generator(seed, "look"))
    column = {"random samples": pictures.samples(drawn)}
    if not encoding or not isinstance(model, AutoEncoder):
        return column
    x = as_floats(test[pictures.apart(32, len(test))])
    with evaluating(model):
        y = model.reconstruct(x)
    frames = pictures.interpolations(paired(model, x[:16], 8), 8)
    made = pictures.reconstructions(x, y)
    return {"test interpolations": frames, "test reconstructions": made} | column


def _tabulate(columns: list[dict[str, Image.Image]], heads: list[str]) -> Image.Image:
    rows, heights = list(columns[0]), [picture.height for picture in columns[0].values()]
    width = columns[0][rows[0]].width
    left, top, gap = 40, 40, 16
    size = (left + len(columns) * (width + gap), top + sum(heights) + gap * len(heights))
    canvas = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(22)
    for j, (column, head) in enumerate(zip(columns, heads)):
        x, y = left + j * (width + gap), top
        draw.text((x + width // 2, top // 2), head, "black", font, anchor="mm")
        for picture in column.values():
            canvas.paste(picture.convert("RGB"), (x, y))
            y += picture.height + gap
    y = top
    for label, height in zip(rows, heights):
        tile = Image.new("RGB", (height, left), "white")
        ImageDraw.Draw(tile).text((height // 2, left // 2), label, "black", font, anchor="mm")
        canvas.paste(tile.rotate(90, expand=True), (0, y))
        y += height + gap
    return canvas
