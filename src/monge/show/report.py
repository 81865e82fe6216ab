"""The report of a run: one self-contained HTML page."""

import base64
import dataclasses
import importlib.resources
import io
import json
import math
from pathlib import Path

import jinja2
import torch
from PIL import Image
from torch import Tensor

from monge._core.files import write_whole
from monge._core.version import __version__
from monge.costs import SquaredL2, chamfer
from monge.data import as_floats
from monge.divergences import MMD
from monge.draws import generator, stream
from monge.kernels import multiscale_imq
from monge.models import AutoEncoder, ConditionalWAE, evaluating
from monge.recipes import RECIPES
from monge.runs import Run
from monge.show import pictures
from monge.training import checkpoint

CAPTIONS = {
    "curves": "Every term over the steps: as logged, and its running mean.",
    "reconstructions": "Test samples, each beside its reconstruction on the right.",
    "completions": "Test samples: the known part, five completions by draws of the prior, the "
    "whole.",
    "samples": "Random samples: prior draws, decoded.",
    "views": "Random samples from three sides.",
    "interpolations": "Straight lines between the codes of two test samples, decoded.",
    "traversals": "One test sample whose code is moved, a row a coordinate, over two standard "
    "deviations of the prior to either side.",
    "latent_map": "Codes of test samples over draws of the prior, in the plane of the codes' "
    "first two principal directions. Where the clouds agree, Q_Z is close to P_Z.",
    "neighbours": "Random samples (above) and the training images nearest to them (below).",
}
MOST_CODES = 2000
MOST_TRAVERSED = 16


def measure(run: Run) -> dict[str, float]:
    """What a run is summed up by, on its test part.

    `test reconstruction` is the mean of Σ (x - G(z))² at the mean codes, of clouds their Chamfer
    distance. `MMD² of codes` is the
    unbiased multi-scale MMD² between draws of Q_Z and of the prior, its floor the same between
    two samples of the prior, all of one size.
    """
    rows = run.metrics()
    last = rows[-1] if rows else {"step": 0, "seconds": 0.0}
    seen = last["step"] * run.config.training.batch
    result = {
        "steps": last["step"],
        "training seconds": last["seconds"],
        "samples per second": seen / last["seconds"] if last["seconds"] else 0.0,
    }
    return result if not isinstance(run.model, AutoEncoder) else _errors(run, run.model) | result


def _errors(run: Run, model: AutoEncoder) -> dict[str, float]:
    x, seed = run.source.test, run.config.seed
    error = chamfer if run.source.kind == "cloud" else SquaredL2()
    errors, codes = [], []
    with evaluating(model), stream(seed, "report codes"):
        for part in map(as_floats, x.split(500)):
            law = model.encode(part)
            errors.append(error(part, model.reconstruct(part)))
            codes.append(law.rsample())
    drawn = torch.cat(codes)[:MOST_CODES]
    one, two = (model.prior.sample(len(drawn), generator(seed, "report", i)) for i in (0, 1))
    mmd = MMD(multiscale_imq(model.prior.spread))
    return {
        "test reconstruction": float(torch.cat(errors).mean()),
        "MMD² of codes": float(mmd(drawn, one)),
        "its floor": float(mmd(two, one)),
        "n of codes": len(drawn),
    }


def paired(model: AutoEncoder, x: Tensor, count: int, path=torch.lerp) -> Tensor:
    """The lines between successive samples of x, an odd last one left out."""
    with evaluating(model):
        return model.interpolate(x[0 : len(x) // 2 * 2 : 2], x[1::2], count, path)


def traversed(model: AutoEncoder, x: Tensor, count: int) -> Tensor:
    """The code of each x with every coordinate moved over two deviations of the prior."""
    deviation = math.sqrt(model.prior.spread / (2 * model.prior.dim))
    with evaluating(model):
        codes, levels = model.encode(x).mean, deviation * torch.linspace(-2, 2, count)
        if isinstance(model, ConditionalWAE):
            return model.traverse(codes, levels, given=x)
        return model.traverse(codes, levels)


def draw_all(run: Run) -> dict[str, Image.Image]:
    """The pictures of a run, by name."""
    model, source, seed = run.model, run.source, run.config.seed
    count = {"image": 64, "cloud": 16, "vector": 1000}[source.kind]
    drawn = run.sample(count, generator(seed, "look"))
    made = {"samples": pictures.samples(drawn, source)}
    if isinstance(model, ConditionalWAE):
        x = as_floats(source.test[pictures.apart(10, len(source.test))])
        completions = model.complete(x, 5, generator(seed, "look"))
        made["completions"] = pictures.completions(x, model.known(x), completions)
    if isinstance(model, AutoEncoder):
        test = source.test[
            pictures.apart(1000 if source.kind == "vector" else 32, len(source.test))
        ]
        x = as_floats(test)
        with evaluating(model):
            y = model.reconstruct(x)
            parts = source.test[:MOST_CODES].split(500)
            codes = torch.cat([model.encode(as_floats(part)).mean for part in parts])
        prior = model.prior.sample(len(codes), generator(seed, "map"))
        labels = None if source.test_labels is None else source.test_labels[: len(codes)]
        made["reconstructions"] = pictures.reconstructions(x, y)
        if source.kind == "image" and model.prior.dim <= MOST_TRAVERSED:
            made["traversals"] = pictures.interpolations(traversed(model, x[:1], 10), 10)
        made["interpolations"] = pictures.interpolations(paired(model, x[:16], 10), 10)
        made["latent_map"] = pictures.latent_map(codes, prior, labels)
    if source.kind == "cloud":
        made["views"] = pictures.views(drawn[:8])
    if source.kind != "vector":
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
    template = importlib.resources.files("monge.show").joinpath("report.html").read_text()
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
        evaluation=run.evaluation(),
        pictures=shown,
        config=json.dumps(dataclasses.asdict(config), indent=2),
        checkpoint=newest[0].name if newest else "none",
        version=__version__,
        torch=torch.__version__,
    )
    write_whole(run.report, text)
    return run.report
