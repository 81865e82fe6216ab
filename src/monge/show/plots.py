"""Plots: samples in a plane, codes over the prior, and the curves of training.

They are drawn with matplotlib and returned as Pillow images, as all pictures are.
"""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

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
    axes.set_title(title, fontsize=10)
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
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
    figure.tight_layout()
    return _rendered(figure)
