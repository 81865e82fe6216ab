"""The sections of a report: pictures with a heading, a caption and alternative texts."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from monge._core.visible import visible
from monge.data import as_floats
from monge.labels import labels_of, unlabelled
from monge.models.protocols import classes_of
from monge.runs import Run
from monge.show import vector, words
from monge.show.drawn import CAPTIONS, Drawn
from monge.show.pictures import GridPictures, pictures_of, spread_over
from monge.show.plots import terms
from monge.show.stamped import embedded
from monge.training.chance import ChanceWatch

WIDE = ("samples", "marginals", "views", "neighbours")
"""Pictures that take the width of the page."""


class Panel(NamedTuple):
    """A picture of the page: a PNG in base64, or SVG."""

    alt: str
    text: str = ""
    png: str = ""
    svg: str = ""
    name: str = ""
    """What the text begins with."""
    plot: bool = False
    """Whether the picture is a plot on white, which is not enlarged pixel by pixel."""


class Section(NamedTuple):
    """Pictures under one heading, beside each other where there is room."""

    name: str
    text: str
    panels: list[Panel]
    legend: Sequence[tuple[int, str, str]] = ()
    """Classes that can be highlighted: label, name, colour ("" where it has none at first)."""
    layout: str = "one"
    """`one` shares a row with another section where there is room; `wide`, `two`, `curves` and
    `classes` take the width of the page."""


def section(drawn: Drawn, name: str, picture: Image.Image) -> Section:
    """The section of a picture of `drawn`."""
    run, kind = drawn.run, drawn.source.kind
    plain, text = name.replace("_", " "), CAPTIONS[name]
    if name == "curves":
        return _curves(run)
    if name == "latent_map":
        return _map(drawn)
    pictures = pictures_of(kind)
    plot = not kind.grid
    one = Panel(f"{plain.capitalize()} of the model", "", embedded(picture), plot=plot)
    wide = "wide" if name in WIDE else "one"
    if name != "samples" or not isinstance(pictures, GridPictures):
        return Section(plain, text, [one], layout=wide)
    samples, labels = drawn.samples
    if labels is not None:
        return _by_class(run, samples, labels, pictures)
    if kind.turns:
        return Section(plain, text, [one], layout=wide)
    some = run.source.test[spread_over(len(run.source.test), len(samples))]
    real = embedded(pictures.samples(as_floats(some)))
    panels = [
        one._replace(text="samples from the model"),
        Panel("Test samples", "real samples, from the test set", real),
    ]
    return Section(plain, text, panels, layout="two")


def _by_class(run: Run, drawn: Tensor, labels: Tensor, pictures: GridPictures) -> Section:
    """Samples of each class above test samples of that class."""
    test, panels = run.rows("test"), []
    names, of = run.settled.classes, labels_of(test)[0]
    for label in labels.unique().tolist():
        made = drawn[labels == label][:4]
        real = as_floats(unlabelled(test)[(of == label).nonzero()[:4, 0]])
        both = embedded(pictures.grid(torch.cat([made, real]), 4))
        name = visible(names[label])
        panels.append(Panel(f"Class {name}: samples above real ones", name, both))
    text = f"{CAPTIONS['samples']} Top row: samples from the model; bottom row: real test samples."
    if len(panels) < len(names):
        text += f" {len(panels)} of {len(names)} classes are shown."
    return Section("samples", text, panels, layout="classes")


def _map(drawn: Drawn) -> Section:
    shown, text = drawn.code_map, CAPTIONS["latent_map"]
    colours, classes = shown.colours(), classes_of(drawn.model)
    if shown.labels is None:
        legend = []
    else:
        text += " Click the name of a class below the map to highlight it."
        legend = [(k, name, colours.get(k, "")) for k, name in enumerate(shown.names)]
    if classes is not None:
        text += (
            " Classes overlap, as they should: the networks know the class, so codes describe "
            "everything else about a sample."
        )
    return Section("latent map", text, [Panel("", svg=vector.latent_map(shown))], legend)


def _curves(run: Run) -> Section:
    found, panels, rows = words.levels(run), [], run.metrics()
    watch = ChanceWatch(run.model, rows)
    for term in sorted(terms(rows), key=lambda term: term.name.endswith("inner")):
        level = found.get(term.name)
        text = words.meaning(term.name, run.model, level)
        if term.name == watch.name and watch.remark is not None:
            text += f" {watch.remark}"
        panels.append(Panel("", text, svg=vector.curve(term, level), name=visible(term.name)))
    return Section("curves", CAPTIONS["curves"], panels, layout="curves")
