"""The report of a run: one self-contained HTML page."""

import dataclasses
import importlib.resources
import json
from pathlib import Path
from typing import Any

import jinja2
import torch

from monge._core.files import write_whole
from monge._core.locks import alone
from monge._core.version import __version__
from monge._core.visible import visible_lines
from monge.evaluation.figures import MISSING, by_sampler, shown_protocol, verdict, worst_of_single
from monge.runs import Run
from monge.show import readings, words
from monge.show.codemap import COLOURS
from monge.show.drawn import Drawn
from monge.show.sections import section
from monge.show.stamped import png


def write(run: Run) -> Path:
    """Draws the pictures of a run and writes its report.

    Raises:
        ValueError: if the run's directory is read-only, or another process writes into it.
    """
    with alone(run.path, "run"), run.defaults():
        write_whole(run.report, _page(run))
    return run.report


def _finalised(value: Any) -> Any:
    """What the page shows of a value: of a text, also its control characters."""
    return visible_lines(value) if type(value) is str else value


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.4g}"


def _page(run: Run) -> str:
    """The text of a report, once its pictures are drawn and written."""
    folder = run.path / "pictures"
    folder.mkdir(exist_ok=True)
    shown = []
    drawn = Drawn(run)
    for name, picture in drawn.pictures().items():
        write_whole(folder / f"{name}.png", png(picture, run.provenance))
        shown.append(section(drawn, name, picture))
    template = importlib.resources.files("monge.show").joinpath("report.html").read_text("utf-8")
    page = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finalised
    ).from_string(template)
    source, evaluation, numbers = run.source, run.evaluation(), run.summary()
    read = readings.of_summary(run, numbers)
    worst = worst_of_single(evaluation) if evaluation else {}
    samplers = by_sampler(evaluation) if evaluation else {}
    # figures that the numbers above the table have are computed anew
    names = [name for name in (evaluation or {}).get("figures", {}) if name not in numbers]
    figures = {
        name: [(one["figures"] | one["single"]).get(name, MISSING) for one in samplers.values()]
        for name in [*names, *worst]
    }
    records = {
        "config": dataclasses.asdict(run.config),
        "settled": dataclasses.asdict(run.settled),
    }
    return page.render(
        name=run.name,
        recipe=run.config.recipe,
        line=run.line,
        described=words.described(run),
        data=f"{source.name}: {len(source.train):,} training and {len(source.test):,} test "
        f"samples of shape {'×'.join(map(str, source.shape))}"
        + (f" ({source.summary})" if source.summary else "")
        + "".join(f"; changed {change}" for change in run.settled.changes),
        numbers={
            name: (_number(value), read.get(name, readings.NONE))
            for name, value in numbers.items()
            if name not in ("n of codes", "steps", "training seconds", "samples per second")
        },
        trained=f"{numbers['steps']:,.0f} steps of {run.batch:,} samples in "
        f"{numbers['training seconds']:,.0f} s, {numbers['samples per second']:,.0f} samples a "
        "second."
        + (f" {n:,.0f} codes of test samples." if (n := numbers.get("n of codes")) else ""),
        evaluation=evaluation,
        samplers=list(samplers),
        figures=figures,
        readings={name: readings.of_figure(name, every[0]) for name, every in figures.items()},
        rule=readings.RULE,
        colours=COLOURS,
        verdict=verdict(evaluation) if evaluation else None,
        protocol=shown_protocol(evaluation) if evaluation else {},
        worst=worst,
        outdated=run.outdated(evaluation) if evaluation else None,
        sections=shown,
        config=json.dumps(records, indent=2),
        provenance=run.provenance,
        version=__version__,
        torch=torch.__version__,
    )
