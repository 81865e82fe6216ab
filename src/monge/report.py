"""The report of a run: one self-contained HTML page, and the comparison of several runs."""

import base64
import dataclasses
import importlib.resources
import io
import json
from collections.abc import Sequence
from pathlib import Path

import jinja2
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import monge
from monge import pictures
from monge.config import RECIPES
from monge.data import as_floats
from monge.divergences import MMD
from monge.draws import generator
from monge.kernels import multiscale_imq
from monge.models import AutoEncoder, evaluating
from monge.runs import Run
from monge.training import checkpoint
from monge.training.checkpoint import write_whole

CAPTIONS = {
    "curves": "Every term over the steps: as logged, and its running mean.",
    "reconstructions": "Test samples, each beside its reconstruction on the right.",
    "samples": "Random samples: prior draws, decoded.",
    "interpolations": "Straight lines between the codes of two test samples, decoded.",
    "latent_map": "Codes of test samples over draws of the prior, in the plane of the codes' "
    "first two principal directions. Where the clouds agree, Q_Z is close to P_Z.",
    "neighbours": "Random samples (above) and the training images nearest to them (below).",
}
MOST_CODES = 2000


def codes_of(model: AutoEncoder, x: Tensor) -> Tensor:
    """The means of Q(Z|x) for samples as they are stored, (n, dim)."""
    with evaluating(model):
        return torch.cat([model.encode(as_floats(part)).mean for part in x.split(500)])


def measure(run: Run) -> dict[str, float]:
    """What a run is summed up by, on its test part.

    `test reconstruction` is the mean of Σ (x - G(z))² at the mean codes. `MMD² of codes` is the
    unbiased multi-scale MMD² between draws of Q_Z and of the prior, its floor the same between
    two samples of the prior, all of one size.
    """
    model, x = run.model, run.source.test
    assert isinstance(model, AutoEncoder)
    with evaluating(model):
        errors = torch.cat([
            (as_floats(part) - model.reconstruct(as_floats(part))).square().flatten(1).sum(1)
            for part in x.split(500)
        ])  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.config.seed)
            codes = model.encode(as_floats(x[:MOST_CODES])).rsample()
    one, two = (
        model.prior.sample(len(codes), generator(run.config.seed, "report", i)) for i in (0, 1)
    )
    mmd = MMD(multiscale_imq(model.prior.spread))
    rows = run.metrics()
    last = rows[-1] if rows else {"step": 0, "seconds": 0.0}
    seen = last["step"] * run.config.training.batch
    return {
        "test reconstruction": float(errors.mean()),
        "MMD² of codes": float(mmd(codes, one)),
        "its floor": float(mmd(two, one)),
        "n of codes": len(codes),
        "steps": last["step"],
        "training seconds": last["seconds"],
        "samples per second": seen / last["seconds"] if last["seconds"] else 0.0,
    }


def draw_all(run: Run) -> dict[str, Image.Image]:
    """The pictures of a run, by name."""
    model, source = run.model, run.source
    assert isinstance(model, AutoEncoder)
    test = as_floats(source.test[pictures.apart(32, len(source.test))])
    if source.kind == "vector":
        test = as_floats(source.test[:1000])
    drawn = model.sample(
        64 if source.kind == "image" else 1000, generator(run.config.seed, "look")
    )
    codes = codes_of(model, source.test[:MOST_CODES])
    prior = model.prior.sample(len(codes), generator(run.config.seed, "map"))
    labels = None if source.test_labels is None else source.test_labels[: len(codes)]
    made = {
        "reconstructions": pictures.reconstructions(model, test),
        "samples": pictures.samples(drawn, source),
        "interpolations": pictures.interpolations(model, test[:16]),
        "latent_map": pictures.latent_map(codes, prior, labels),
    }
    if source.kind == "image":
        made["neighbours"] = pictures.neighbours(drawn[:10], source.train)
    if rows := run.metrics():
        made["curves"] = pictures.curves(rows)
    return {name: made[name] for name in CAPTIONS if name in made}


def write(run: Run) -> Path:
    """Draws the pictures of a run and writes its report."""
    folder = run.path / "pictures"
    folder.mkdir(exist_ok=True)
    shown = []
    for name, picture in draw_all(run).items():
        content = io.BytesIO()
        picture.save(content, "PNG")
        (folder / f"{name}.png").write_bytes(content.getvalue())
        encoded = base64.b64encode(content.getvalue()).decode()
        shown.append({"name": name.replace("_", " "), "text": CAPTIONS[name], "png": encoded})
    template = importlib.resources.files("monge").joinpath("report.html").read_text()
    config = run.config
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        template
    )
    newest = checkpoint.newest_first(run.path / "checkpoints")
    text = page.render(
        name=run.name,
        recipe=config.recipe,
        line=RECIPES.get(config.recipe, "a model of one's own"),
        data=f"{run.source.name}: {len(run.source.train):,} training and "
        f"{len(run.source.test):,} test samples of shape {'×'.join(map(str, run.source.shape))}",
        numbers={name: f"{value:,.4g}" for name, value in measure(run).items()},
        pictures=shown,
        config=json.dumps(dataclasses.asdict(config), indent=2),
        checkpoint=newest[0].name if newest else "none",
        version=monge.__version__,
        torch=torch.__version__,
    )
    write_whole(run.report, text)
    return run.report


def compare(runs: Sequence[Run], out: Path) -> list[Path]:
    """One figure with a column a run, its rows test interpolations, test reconstructions and
    random samples, and a table of the runs' numbers.

    Raises:
        ValueError: for runs whose samples differ in shape, or that hold no images.
    """
    first = runs[0].config
    for run in runs:
        if run.config.shape != first.shape or run.config.kind != "image":
            raise ValueError(
                f"`run` {str(run.path)!r} holds {run.config.kind}s of shape {run.config.shape}, "
                f"the first {first.kind}s of {first.shape}: compare image runs of one shape"
            )
    columns = []
    for run in runs:
        model, test = run.model, run.source.test
        assert isinstance(model, AutoEncoder)
        x = as_floats(test[pictures.apart(32, len(test))])
        columns.append([
            pictures.interpolations(model, x[:16], 8),
            pictures.reconstructions(model, x),
            pictures.samples(model.sample(64, generator(first.seed, "look"))),
        ])  # fmt: skip
    table = {run.name: {"recipe": run.config.recipe, **measure(run)} for run in runs}
    heads = ["run", *next(iter(table.values()))]
    lines = [heads, ["---"] * len(heads)]
    for name, row in table.items():
        numbers = [v if isinstance(v, str) else f"{v:,.4g}" for v in row.values()]
        lines.append([name, *numbers])
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "compare.png", out / "compare.md", out / "compare.json"]
    heading = [f"{run.name} ({run.config.recipe})" for run in runs]
    _tabulate(columns, heading).save(files[0], "PNG")
    files[1].write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))
    files[2].write_text(json.dumps(table, indent=2) + "\n")
    return files


def _tabulate(columns: list[list[Image.Image]], heads: list[str]) -> Image.Image:
    rows = ("test interpolations", "test reconstructions", "random samples")
    width, heights = columns[0][0].width, [picture.height for picture in columns[0]]
    left, top, gap = 40, 40, 16
    size = (left + len(columns) * (width + gap), top + sum(heights) + gap * len(heights))
    canvas = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(22)
    for j, (column, head) in enumerate(zip(columns, heads)):
        x, y = left + j * (width + gap), top
        draw.text((x + width // 2, top // 2), head, "black", font, anchor="mm")
        for picture in column:
            canvas.paste(picture.convert("RGB"), (x, y))
            y += picture.height + gap
    y = top
    for label, height in zip(rows, heights):
        tile = Image.new("RGB", (height, left), "white")
        ImageDraw.Draw(tile).text((height // 2, left // 2), label, "black", font, anchor="mm")
        canvas.paste(tile.rotate(90, expand=True), (0, y))
        y += height + gap
    return canvas
