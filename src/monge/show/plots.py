"""Plots: samples in a plane, codes over the prior, and the curves of training.

They are drawn with matplotlib and returned as Pillow images, as all pictures are.
"""

import io
from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from monge._core.visible import visible
from monge.evaluation.latent import principal_plane

BLUE, ORANGE, GREY = "#1f77b4", "#ff7f0e", "#b8b8b8"


def _rendered(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, bbox_inches="tight")
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def scatter(groups: Sequence[tuple[str, Tensor, str]], title: str) -> Image.Image:
    """Samples (label, (n, d), colour) in the plane of the first one's principal directions."""
    mean, plane = principal_plane(groups[0][1])
    figure = Figure(figsize=(5, 4.6))
    axes = figure.subplots()
    for label, x, colour in groups:
        a, b = ((x - mean) @ plane).T.numpy()
        axes.scatter(a, b, s=6, alpha=0.5, color=colour, label=label, linewidths=0)
    axes.legend(loc="upper right", frameon=False, markerscale=2)
    axes.set_title(_plain(title), fontsize=10)
    return _rendered(figure)


def latent_map(codes: Tensor, prior: Tensor | None, labels: Tensor | None) -> Image.Image:
    """Test codes over draws of the prior, if there is one, in the plane of the codes' principal
    directions."""
    mean, plane = principal_plane(codes)
    figure = Figure(figsize=(6, 5.2))
    axes = figure.subplots()
    if prior is not None:
        a, b = ((prior - mean) @ plane).T.numpy()
        axes.scatter(a, b, s=6, color=GREY, label="prior", linewidths=0)
    a, b = ((codes - mean) @ plane).T.numpy()
    if labels is None:
        axes.scatter(a, b, s=6, color=BLUE, label="test codes", linewidths=0)
    else:
        count = int(labels.max()) + 1
        most = max(count, 10)
        cmap = colormaps["tab10" if count <= 10 else "hsv"].resampled(most)
        marks = axes.scatter(a, b, s=6, c=labels.numpy(), cmap=cmap, linewidths=0)
        marks.set_clim(-0.5, most - 0.5)
        ticks = range(count) if count <= 20 else None
        bar = figure.colorbar(marks, ax=axes, label="class of the test codes", ticks=ticks)
        bar.ax.set_ylim(-0.5, count - 0.5)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", frameon=False, markerscale=2)
    axes.set_aspect("equal", "datalim")
    axes.set_xlabel("first principal direction of the codes")
    axes.set_ylabel("second")
    return _rendered(figure)


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


def term_names(rows: Sequence[dict]) -> list[str]:
    """The names of the terms in the rows of a log, not all of which are in every row."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name not in ("step", "epoch", "seconds")]


def curves(rows: Sequence[dict], smooth: int = 25) -> Image.Image:
    """Each term over the steps, thin as logged and thick as a running mean."""
    rows = [row for row in rows if "stage" not in row]
    names = term_names(rows)
    figure = Figure(figsize=(3.3 * len(names), 2.5))
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names):
        steps = np.array([row["step"] for row in rows if name in row])
        values = np.array([row[name] for row in rows if name in row], dtype=float)
        window = min(smooth, len(values))
        sums = np.cumsum(np.concatenate([[0.0], values]))
        mean = (sums[window:] - sums[:-window]) / window
        axes.plot(steps, values, color=GREY, linewidth=0.6)
        axes.plot(steps[window - 1 :], mean, color=BLUE, linewidth=1.4)
        # the first steps are far off and would flatten the rest
        settled = values[len(values) // 50 :]
        low, high = np.quantile(settled, [0.0, 0.995])
        axes.set_ylim(low - 0.05 * (high - low) - 1e-12, high + 0.05 * (high - low) + 1e-12)
        axes.set_title(_plain(name), fontsize=9)
        axes.tick_params(labelsize=7)
    figure.tight_layout()
    return _rendered(figure)
