"""Plots: samples in a plane, codes over the prior, and the curves of training.

They are drawn with matplotlib and returned as Pillow images, as all pictures are.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from monge._core.visible import visible
from monge.evaluation.latent import principal_plane
from monge.show.codemap import CodeMap

BLUE, ORANGE, GREY = "#1f77b4", "#ff7f0e", "#b8b8b8"
MARKS = "os^DvPX<>d"
"""The marks of classes whose names are not single characters."""


def _rendered(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, bbox_inches="tight")
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def scatter(groups: Sequence[tuple[str, Tensor, str]], title: str) -> Image.Image:
    """Samples (label, (n, d), colour) in the plane of the first one's principal directions."""
    mean, plane = principal_plane(groups[0][1].double())
    figure = Figure(figsize=(5, 4.6))
    axes = figure.subplots()
    for label, x, colour in groups:
        a, b = ((x.double() - mean) @ plane).T.numpy()
        axes.scatter(a, b, s=6, alpha=0.5, color=colour, label=label, linewidths=0)
    axes.legend(loc="upper right", frameon=False, markerscale=2)
    axes.set_title(_plain(title), fontsize=10)
    return _rendered(figure)


def latent_map(shown: CodeMap) -> Image.Image:
    """Codes over the density of the prior. Classes have marks of their own: their names where
    those are single characters, else shapes."""
    figure = Figure(figsize=(6.4, 5.2))
    axes = figure.subplots()
    if shown.density is not None:
        cloud = np.zeros((*shown.density.shape, 4))
        cloud[..., :3], cloud[..., 3] = 0.55, 0.5 * shown.density.numpy()
        axes.imshow(cloud, extent=shown.extent, interpolation="bilinear")
        axes.plot([], [], "s", color=GREY, label="prior")
    a, b = shown.places.T.numpy()
    if shown.labels is None:
        axes.plot(a, b, ".", color=BLUE, markersize=3, label="test codes")
    else:
        labels, colours = shown.labels.numpy(), shown.colours()
        for label in sorted(range(len(shown.names)), key=lambda k: k in colours):
            here, coloured = labels == label, label in colours
            axes.plot(
                a[here],
                b[here],
                linestyle="",
                marker=_mark(shown, label),
                markersize=5 if shown.letters else 3.5,
                markeredgewidth=0.3,
                color=colours.get(label, GREY),
                label=_plain(shown.names[label][:16]) if coloured else None,
            )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, markerscale=1.6)
    axes.set_aspect("equal")
    axes.set_xlim(shown.extent[:2])
    axes.set_ylim(shown.extent[2:])
    axes.set_xlabel("first principal direction of the codes")
    axes.set_ylabel("second")
    return _rendered(figure)


def _mark(shown: CodeMap, label: int) -> str:
    name = shown.names[label]
    if shown.letters and name.isascii():
        return f"$\\mathrm{{{name}}}$"
    return MARKS[label % len(MARKS)]


def marginals(real: pl.DataFrame, drawn: pl.DataFrame) -> Image.Image:
    """A small plot of each column of two tables: histograms of numbers, shares of labels, of the
    missing cells among them."""
    across = min(4, real.width)
    down = -(-real.width // across)
    figure = Figure(figsize=(2.9 * across, 2.1 * down))
    every = figure.subplots(down, across, squeeze=False).ravel()
    for axes, name in zip(every, real.columns):
        (_shares if real[name].dtype == pl.String else _histograms)(axes, real[name], drawn[name])
        missing = [one[name].null_count() / max(1, one.height) for one in (real, drawn)]
        text = name if len(name) <= 28 else f"{name[:27]}…"
        if any(missing) and real[name].dtype != pl.String:
            text += f" (missing {missing[0]:.0%}, {missing[1]:.0%})"
        axes.set_title(_plain(text), fontsize=8)
        axes.tick_params(labelsize=6)
        axes.set_yticks([])
    for axes in every[real.width :]:
        axes.set_axis_off()
    every[0].legend(loc="upper right", frameon=False, fontsize=6)
    figure.tight_layout()
    return _rendered(figure)


def _histograms(axes: Axes, real: pl.Series, drawn: pl.Series) -> None:
    """Histograms of a number over the range of nearly all values."""
    x, y = (one.drop_nulls().to_numpy().astype(np.float64) for one in (real, drawn))
    both = np.concatenate([x, y])
    low, high = np.quantile(both, [0.002, 0.998]) if len(both) else (0.0, 1.0)
    if real.dtype.is_integer() and high - low < 30:
        bins = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    else:
        bins = np.linspace(low, high if high > low else low + 1, 31)
    for values, filled, colour, name in ((x, True, GREY, "test"), (y, False, BLUE, "samples")):
        heights = np.histogram(values, bins)[0] / max(1, len(values))
        axes.stairs(heights, bins, fill=filled, color=colour, label=name)
    axes.locator_params(axis="x", nbins=5)


def _shares(axes: Axes, real: pl.Series, drawn: pl.Series, most: int = 8) -> None:
    """Shares of the most frequent labels; the others together."""
    shares = []
    for one in (real, drawn):
        counted = one.fill_null("missing").value_counts(normalize=True)
        shares.append(dict(zip(counted.to_series(0), counted.to_series(1))))
    labels = sorted(shares[0] | shares[1], key=lambda v: -shares[0].get(v, 0.0))
    shown = labels if len(labels) <= most else [*labels[: most - 1], "others"]
    for share, shift, colour, name in zip(shares, (-0.2, 0.2), (GREY, BLUE), ("test", "samples")):
        heights = [share.get(label, 0.0) for label in shown]
        if len(labels) > most:
            heights[-1] = 1 - sum(heights[:-1])
        axes.bar(np.arange(len(shown)) + shift, heights, 0.4, color=colour, label=name)
    ticks = [_plain(v if len(v) <= 10 else f"{v[:9]}…") for v in shown]
    axes.set_xticks(range(len(shown)), ticks, rotation=30 if len(shown) > 4 else 0)


def _plain(text: str) -> str:
    """A text of a stranger, in which matplotlib finds no formula and no second line."""
    return visible(" ".join(text.split())).replace("$", r"\$")


def term_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the terms in the rows of a log, not all of which are in every row."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name not in ("step", "epoch", "seconds")]


class LoggedTerm(NamedTuple):
    """A term over the steps, as logged and as a running mean."""

    name: str
    steps: np.ndarray
    values: np.ndarray
    means: np.ndarray
    low: float
    high: float
    """The range that is shown: the first steps are far off and would flatten the rest."""


def terms(rows: Sequence[Mapping[str, Any]], smooth: int = 25) -> list[LoggedTerm]:
    """The terms of a log."""
    rows, made = [row for row in rows if "stage" not in row], []
    for name in term_names(rows):
        steps = np.array([row["step"] for row in rows if name in row])
        values = np.array([row[name] for row in rows if name in row], dtype=float)
        sums = np.cumsum(np.concatenate([[0.0], values]))
        here = np.arange(len(values))
        reach = np.minimum(np.minimum(here, here[::-1]), min(smooth, len(values) // 5) // 2)
        mean = (sums[here + reach + 1] - sums[here - reach]) / (2 * reach + 1)
        low, high = np.quantile(values[len(values) // 50 :], [0.0, 0.995])
        made.append(LoggedTerm(name, steps, values, mean, low, high))
    return made


def with_margin(low: float, high: float, share: float) -> tuple[float, float]:
    """A range with some room around it, which a term that is constant has, too, at any size."""
    margin = share * (high - low) + 1e-9 * max(abs(low), abs(high)) + 1e-12
    return low - margin, high + margin


def curves(rows: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Each term over the steps, thin as logged and thick as a running mean."""
    shown = terms(rows)
    figure = Figure(figsize=(3.3 * len(shown), 2.5))
    for axes, one in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown):
        axes.plot(one.steps, one.values, color=GREY, linewidth=0.6)
        axes.plot(one.steps, one.means, color=BLUE, linewidth=1.4)
        axes.set_ylim(with_margin(one.low, one.high, 0.05))
        axes.set_title(_plain(one.name), fontsize=9)
        axes.tick_params(labelsize=7)
    return _rendered(figure)
