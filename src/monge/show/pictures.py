"""Pictures: grids of images, reconstructions, interpolations, latent maps, curves.

Image grids are made pixel by pixel with Pillow, plots with matplotlib; both are returned as
Pillow images, so that one `save` serves all.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from monge.costs import Chamfer
from monge.data import Source, as_floats
from monge.show.rendering import VIEWS, render

WIDEST = 900
BLUE, ORANGE, GREY = "#1f77b4", "#ff7f0e", "#b8b8b8"


def grid(images: Tensor, columns: int) -> Image.Image:
    """Images (n, c, h, w) in [0, 1], row by row, enlarged by whole pixels for small ones; clouds
    of points (n, N, 3) are drawn first."""
    if images.ndim == 3:
        images = render(images)
    n, c, h, w = images.shape
    gap = 1 if h < 16 else 2
    rows = -(-n // columns)
    canvas = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, c), 255, np.uint8)
    pixels = (images.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (h + gap), (i % columns) * (w + gap)
        canvas[top : top + h, left : left + w] = np.moveaxis(image, 0, -1)
    picture = Image.fromarray(canvas[..., 0] if c == 1 else canvas)
    scale = max(1, WIDEST // picture.width) if h < 64 else 1
    return picture.resize(
        (picture.width * scale, picture.height * scale), Image.Resampling.NEAREST
    )


def _rendered(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, bbox_inches="tight")
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def principal_plane(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of a sample (n, d) and its first two principal directions (d, 2)."""
    mean, d = x.mean(0), x.shape[1]
    if d <= 2 or len(x) < 2:
        return torch.zeros(d).to(x), torch.eye(d, max(2, d))[:, :2].to(x)
    return mean, torch.linalg.svd(x - mean, full_matrices=False).Vh[:2].T


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


def completions(x: Tensor, known: Tensor, completed: Tensor) -> Image.Image:
    """A row a sample of x (n, c, h, w): the known part on grey, k completions, the whole."""
    shown = known * x + (1 - known) * 0.5
    rows = torch.cat([shown[:, None], completed, x[:, None]], 1)
    return grid(rows.flatten(0, 1), rows.shape[1])


def latent_map(codes: Tensor, prior: Tensor, labels: Tensor | None) -> Image.Image:
    """Test codes over prior draws, in the plane of the codes' principal directions."""
    mean, plane = principal_plane(codes)
    figure = Figure(figsize=(6, 5.2))
    axes = figure.subplots()
    a, b = ((prior - mean) @ plane).T.numpy()
    axes.scatter(a, b, s=6, color=GREY, label="prior", linewidths=0)
    a, b = ((codes - mean) @ plane).T.numpy()
    if labels is None:
        axes.scatter(a, b, s=6, color=BLUE, label="test codes", linewidths=0)
    else:
        count = int(labels.max()) + 1
        most = max(count, 10)
        cmap = colormaps["tab10" if count <= 10 else "hsv"].resampled(most)
        marks = axes.scatter(
            a, b, s=6, c=labels.numpy(), cmap=cmap, vmin=-0.5, vmax=most - 0.5, linewidths=0
        )  # fmt: skip
        ticks = range(count) if count <= 20 else None
        bar = figure.colorbar(marks, ax=axes, label="class of the test codes", ticks=ticks)
        bar.ax.set_ylim(-0.5, count - 0.5)
    axes.legend(loc="upper right", frameon=False, markerscale=2)
    axes.set_aspect("equal", "datalim")
    axes.set_xlabel("first principal direction of the codes")
    axes.set_ylabel("second")
    return _rendered(figure)


def term_names(rows: Sequence[dict]) -> list[str]:
    """The terms that rows of a log hold, some of them not every one."""
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


def apart(count: int, n: int) -> Tensor:
    """`count` indices (or n, if fewer) spread evenly over 0 … n - 1."""
    return torch.linspace(0, n - 1, min(count, n)).long()


def reconstructions(x: Tensor, y: Tensor, columns: int = 8) -> Image.Image:
    """Each sample of x beside its reconstruction in y; for vectors, both in one plane."""
    if x.ndim == 2:
        return scatter([("test", x, GREY), ("reconstruction", y, BLUE)], "reconstructions")
    return grid(torch.stack([x, y], 1).flatten(0, 1), columns)


def interpolations(frames: Tensor, count: int) -> Image.Image:
    """Lines of `count` frames each, a row a line; for vectors, all frames in one plane."""
    if frames.ndim == 2:
        return scatter([("interpolation", frames, BLUE)], "interpolations")
    return grid(frames, count)


def samples(drawn: Tensor, source: Source | None = None, columns: int = 8) -> Image.Image:
    """A grid of drawn images; drawn vectors over those of the test part."""
    if drawn.ndim > 2:
        return grid(drawn, columns)
    groups = [("samples", drawn, BLUE)]
    if source is not None:
        groups.insert(0, ("test", source.test[: len(drawn)], GREY))
    return scatter(groups, "samples")


def views(drawn: Tensor, columns: int = 2) -> Image.Image:
    """Clouds of points (n, N, 3) from three sides each."""
    return grid(render(drawn, VIEWS), columns)


def turntable(drawn: Tensor, columns: int = 4, frames: int = 36) -> list[Image.Image]:
    """The frames of a turn of clouds (n, N, 3) about their upright axis."""
    if drawn.ndim != 3:
        raise ValueError("`out` .gif shows clouds that turn: give .png for other samples")
    turns = [2 * math.pi * i / frames for i in range(frames)]
    return [grid(render(drawn, (turn,)), columns) for turn in turns]


def film(frames: Tensor, count: int) -> list[Image.Image]:
    """Lines of `count` frames each, played side by side, there and back."""
    if frames.ndim == 2:
        raise ValueError("`out` .gif plays images or clouds: give .png for vectors")
    lines = frames.unflatten(0, (-1, count))
    columns = math.ceil(math.sqrt(len(lines)))
    there = [grid(lines[:, i], columns) for i in range(count)]
    return there + there[-2:0:-1]


def nearest(x: Tensor, train: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    r"""Squared distances and indices, both (n, count), of the training samples nearest to each of
    x (n, \*); of clouds by Chamfer's distance of some 200 points, among the first 500."""
    count = min(count, len(train))
    if x.ndim == 3:
        step = max(1, train.shape[1] // 200)
        some, few = train[:500, ::step], x[:, ::step]
        distances = torch.stack([Chamfer()(one.expand_as(some), some) for one in few])
        found = distances.topk(min(count, len(some)), largest=False)
        return found.values, found.indices
    flat = x.flatten(1)
    best, index = torch.full((len(x), 0), float("inf")), torch.zeros(len(x), 0).long()
    rows = max(count, 2**23 // flat.shape[1])
    for first in range(0, len(train), rows):
        block = as_floats(train[first : first + rows]).flatten(1)
        values, places = (block.square().sum(1) - 2 * flat @ block.T).topk(
            min(count, len(block)), largest=False
        )
        best, index = torch.cat([best, values], 1), torch.cat([index, places + first], 1)
        best, kept = best.topk(min(count, best.shape[1]), largest=False)
        index = index.gather(1, kept)
    return (best + flat.square().sum(1, keepdim=True)).clamp_min(0), index


def neighbours(drawn: Tensor, train: Tensor) -> Image.Image:
    """Drawn samples above the training samples nearest to them."""
    index = nearest(drawn, train)[1][:, 0]
    return grid(torch.cat([drawn, as_floats(train[index])]), len(drawn))
