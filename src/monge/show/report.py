"""The report of a run: one self-contained HTML page."""

import base64
import dataclasses
import importlib.resources
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import torch
from PIL import Image
from torch import Tensor, nn

from monge._core.files import write_whole
from monge._core.locks import alone
from monge._core.version import __version__
from monge._core.visible import visible_lines
from monge.data import as_floats
from monge.data.kinds import kind_named
from monge.draws import generator
from monge.evaluation.figures import worst_of_single
from monge.evaluation.latent import MOST_CODES, coordinate_deviation, encode_all
from monge.labels import Rows, unlabelled
from monge.models import evaluating
from monge.models.protocols import (
    Completer,
    complete,
    generates,
    has,
    interpolate,
    known_part,
    latent_of,
    prior_of,
    reconstruct,
    reconstructs,
    traversals,
)
from monge.runs import Run
from monge.show.pictures import GridPictures, pictures_of, spread_over
from monge.show.plots import curves, latent_map
from monge.show.stamped import png

CAPTIONS = {
    "curves": "Every term over the steps: as logged, and its running mean.",
    "reconstructions": "Test samples, each with its reconstruction on its right.",
    "completions": "Test samples: the known part, five completions with draws of the prior, the "
    "whole.",
    "samples": "Random samples: decoded draws of the prior.",
    "marginals": "Columns of the table, at most the first 24: test samples in grey, random "
    "samples in blue.",
    "views": "Random samples from three sides.",
    "interpolations": "Straight lines between the codes of two test samples, decoded.",
    "traversals": "One test sample whose code is moved, one coordinate a row, by up to two "
    "standard deviations of the prior in both directions.",
    "latent_map": "Codes of test samples over draws of the prior, in the plane of the first two "
    "principal directions of the codes. Where the two agree, Q_Z is close to P_Z.",
    "neighbours": "Random samples (above) and the training samples nearest to them (below).",
}
MOST_TRAVERSED, MOST_ROWS, COLUMNS = 16, 16, 8


def paired(model: nn.Module, x: Rows, count: int, path=torch.lerp) -> Tensor:
    """The decoded paths between successive samples of x; an odd last sample is left out."""
    with evaluating(model):
        return interpolate(model, x[0 : len(x) // 2 * 2 : 2], x[1::2], count, path)


def traversed(model: nn.Module, x: Rows, test: Rows, count: int) -> Iterator[Tensor]:
    """The codes of samples x with every coordinate moved by up to two deviations of the prior; of
    the codes of the samples `test` for a model without a prior. They come in batches."""
    return traversals(model, x, coordinate_deviation(model, test) * torch.linspace(-2, 2, count))


def shown_labels(run: Run) -> Tensor | None:
    """The classes of samples that are shown one by one, a row of eight for each of the first 16;
    None where classes are drawn."""
    classes = min(len(run.settled.classes), MOST_ROWS)
    if not classes or not isinstance(pictures_of(kind_named(run.settled.kind)), GridPictures):
        return None
    return torch.arange(classes).repeat_interleave(COLUMNS)


def draw_all(run: Run) -> dict[str, Image.Image]:
    """The pictures of a run, by name: those for which its model has methods."""
    model, source, seed = run.model, run.source, run.config.seed
    pictures, made = pictures_of(source.kind), {}
    if generates(model):
        labels = shown_labels(run)
        count = source.kind.shown if labels is None else len(labels)
        drawn = run.sample(count, generator(seed, "look"), labels=labels)
        made["samples"] = pictures.samples(drawn, source.test)
        if len(source.shape) == 1:
            made["marginals"] = pictures.marginals(drawn, source.test, run.schema)
        made["views"] = pictures.views(drawn[:8])
        made["neighbours"] = pictures.neighbours(drawn[:10], source.train)
    if isinstance(model, Completer) and isinstance(pictures, GridPictures):
        x = as_floats(source.test[spread_over(len(source.test), 10)])
        completions = complete(model, x, 5, generator(seed, "look"))
        made["completions"] = pictures.completions(x, known_part(model, x), completions)
    if reconstructs(model):
        made |= _reconstructed(run)
    if has(model, "encode"):
        codes = encode_all(model, run.rows("test")[:MOST_CODES])
        prior, labels = prior_of(model), source.test_labels
        made["latent_map"] = latent_map(
            codes,
            None if prior is None else prior.sample(len(codes), generator(seed, "map")),
            None if labels is None else labels[: len(codes)],
        )
    if rows := run.metrics():
        made["curves"] = curves(rows)
    return {name: made[name] for name in CAPTIONS if made.get(name) is not None}


def _reconstructed(run: Run) -> dict[str, Image.Image]:
    """Reconstructions, and what becomes of codes between and beside those of test samples."""
    model, kind, test = run.model, run.source.kind, run.rows("test")
    pictures = pictures_of(kind)
    x = as_floats(test[spread_over(len(test), pictures.reconstructed)])
    with evaluating(model):
        y = reconstruct(model, x)
    made = {"reconstructions": pictures.reconstructions(unlabelled(x), y)}
    if not has(model, "encode", "decode"):
        return made
    made["interpolations"] = pictures.interpolations(paired(model, x[:16], 10), 10)
    if kind.grid and (latent_of(model, x) or 0) <= MOST_TRAVERSED:
        frames = torch.cat(list(traversed(model, x[:1], test, 10)))
        made["traversals"] = pictures.interpolations(frames, 10)
    return made


def write(run: Run) -> Path:
    """Draws the pictures of a run and writes its report.

    Raises:
        ValueError: if the run's directory is read-only, or another process writes into it.
    """
    with alone(run.path, "run"):
        write_whole(run.report, _page(run))
    return run.report


def _finalised(value: Any) -> Any:
    """What the page shows of a value: of a text, also its control characters."""
    return visible_lines(value) if type(value) is str else value


def _page(run: Run) -> str:
    """The text of a report, once its pictures are drawn and written."""
    folder = run.path / "pictures"
    folder.mkdir(exist_ok=True)
    shown = []
    for name, picture in draw_all(run).items():
        content = png(picture, run.provenance)
        write_whole(folder / f"{name}.png", content)
        encoded = base64.b64encode(content).decode()
        shown.append({"name": name.replace("_", " "), "text": CAPTIONS[name], "png": encoded})
    template = importlib.resources.files("monge.show").joinpath("report.html").read_text("utf-8")
    page = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finalised
    ).from_string(template)
    source, evaluation, numbers = run.source, run.evaluation(), run.summary()
    worst = worst_of_single(evaluation) if evaluation else {}
    figures = evaluation["figures"] | worst if evaluation else {}
    records = {
        "config": dataclasses.asdict(run.config),
        "settled": dataclasses.asdict(run.settled),
    }
    return page.render(
        name=run.name,
        recipe=run.config.recipe,
        line=run.line,
        data=f"{source.name}: {len(source.train):,} training and {len(source.test):,} test "
        f"samples of shape {'×'.join(map(str, source.shape))}"
        + (f" ({source.summary})" if source.summary else "")
        + "".join(f"; changed {change}" for change in run.settled.changes),
        numbers={name: f"{value:,.4g}" for name, value in numbers.items()},
        evaluation=evaluation,
        # those of the numbers above are computed anew
        figures={name: figure for name, figure in figures.items() if name not in numbers},
        worst=worst,
        outdated=run.outdated(evaluation) if evaluation else None,
        pictures=shown,
        config=json.dumps(records, indent=2),
        provenance=run.provenance,
        version=__version__,
        torch=torch.__version__,
    )
