"""Several runs side by side: one picture and one table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from monge._core.files import write_all
from monge._core.visible import visible
from monge.data import as_floats
from monge.data.kinds import kind_named
from monge.draws import generator
from monge.labels import unlabelled
from monge.models import evaluating
from monge.models.protocols import has, reconstruct
from monge.runs import Run
from monge.runs.compare import grouped, notes, summarised, table
from monge.show.drawn import paired
from monge.show.pictures import GridPictures, pictures_of, spread_over
from monge.show.stamped import png


def write(runs: Sequence[Run], out: Path) -> list[Path]:
    """Writes compare.png, compare.md and compare.json: a picture and a table of means, each with a
    column for each group of runs that differ only in their seeds.

    The rows of the picture are test interpolations, test reconstructions and random samples of the
    first run of each group; only random samples if any of the models cannot reconstruct. See
    `monge.runs.compare` for the table.

    Raises:
        ValueError: for runs whose samples differ in shape or kind, or are not shown one by one.
    """
    pictures = _pictures(runs)
    groups = grouped(runs)
    shown = [group[0] for group in groups]
    encoding = all(has(run.model, "encode", "decode") for run in shown)
    seed = runs[0].config.seed
    columns = [_column(run, pictures, encoding, seed) for run in shown]
    rows = [summarised(group) for group in groups]
    heads = [f"{run.name} ({run.config.recipe})" for run in shown]
    made_of = json.dumps({run.name: run.provenance for run in shown}, ensure_ascii=False)
    contents = {
        "compare.png": png(_arranged(columns, heads), {"runs": made_of}),
        "compare.md": _markdown(rows),
        "compare.json": json.dumps(rows, indent=2) + "\n",
    }
    return write_all(out, contents)


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table, and what it leaves out."""
    lines = [f"| {' | '.join(cells)} |\n" for cells in table(rows)]
    said = [f"- {note}.\n" for note in notes(rows)]
    return "".join([*lines, *(["\n", *said] if said else [])])


def _pictures(runs: Sequence[Run]) -> GridPictures:
    """The pictures of the runs' samples, if all have one shape and are shown one by one."""
    first, kind = runs[0].settled, kind_named(runs[0].settled.kind)
    pictures = pictures_of(kind)
    if not isinstance(pictures, GridPictures):
        raise ValueError(
            f"`run` {str(runs[0].path)!r} holds samples of the kind {kind.name}, which have no "
            "pictures to compare: compare runs of images or clouds, and tables by `monge evaluate`"
        )
    for run in runs:
        shape, other = run.settled.shape, kind_named(run.settled.kind)
        alike = (shape, other) == (first.shape, kind)
        if not alike:
            raise ValueError(
                f"`run` {str(run.path)!r} holds samples of the kind {other.name} and shape "
                f"{shape}, the first {kind.name} and {first.shape}: compare runs of images or "
                "clouds of one shape"
            )
    assert isinstance(pictures, GridPictures)
    return pictures


def _column(run: Run, pictures: GridPictures, encoding: bool, seed: int) -> dict[str, Image.Image]:
    """The pictures of one run, from top to bottom."""
    model, test = run.model, run.rows("test")
    drawn = run.sample(64, generator(seed, "look"))
    column = {"random samples": pictures.samples(drawn)}
    if not encoding:
        return column
    x = as_floats(test[spread_over(len(test), 32)])
    with evaluating(model):
        y = reconstruct(model, x)
    return {
        "test interpolations": pictures.interpolations(paired(model, x[:16], 8), 8),
        "test reconstructions": pictures.reconstructions(unlabelled(x), y),
        **column,
    }


def _arranged(columns: list[dict[str, Image.Image]], heads: list[str]) -> Image.Image:
    """The columns beside each other, with their heads and the names of the rows."""
    rows, heights = list(columns[0]), [picture.height for picture in columns[0].values()]
    width = columns[0][rows[0]].width
    left, top, gap = 40, 40, 16
    size = (left + len(columns) * (width + gap), top + sum(heights) + gap * len(heights))
    canvas = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(22)
    for j, (column, head) in enumerate(zip(columns, heads)):
        x, y = left + j * (width + gap), top
        draw.text((x + width // 2, top // 2), visible(head), "black", font, anchor="mm")
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
