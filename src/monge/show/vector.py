"""Plots of the report as SVG, whose colours and letters the page's style sheet sets.

They are part of the page's text: they stay sharp in print, follow dark mode, and a script of the
page can highlight a class of the map. Files in `pictures/` are drawn by `monge.show.plots`.
"""

from collections.abc import Iterable
from html import escape

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from monge.show.codemap import CodeMap
from monge.show.plots import LoggedTerm, with_margin
from monge.show.words import NoiseLevel

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 340, 190, 46, 22, 8
SIDE = 600
CONTOURS = (0.05, 0.2, 0.4, 0.6, 0.8)
MOST_POINTS = 400


def curve(term: LoggedTerm, level: NoiseLevel | None) -> str:
    """A term over the steps: thin as logged, thick as its running mean, dashed where it would be
    if the model matched exactly, with the noise around it."""
    low, high = term.low, term.high
    if level is not None and low - 1.5 * (high - low) < level.value < high + 1.5 * (high - low):
        low, high = min(low, level.value - level.noise), max(high, level.value + level.noise)
    low, high = with_margin(low, high, 0.06)
    first, last = float(term.steps[0]), float(max(term.steps[-1], term.steps[0] + 1))

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (WIDTH - LEFT - 6)

    def y(value: float) -> float:
        # the first steps may leave the plot through its top
        return TOP + (high - max(value, low)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for value in _ticks(low, high, 4):
        parts.append(f'<path class="rule" d="M{LEFT} {y(value):.1f}H{WIDTH - 6}"/>')
        parts.append(_text(LEFT - 6, y(value) + 4, f"{value:.3g}", "end"))
    for step in _ticks(first, last, 4):
        anchor = "end" if x(step) > WIDTH - 20 else "middle"
        parts.append(_text(x(step), HEIGHT - 5, f"{step:,.0f}", anchor))
    if level is not None and low <= level.value <= high:
        top, base = y(level.value + level.noise), y(level.value - level.noise)
        parts.append(
            f'<rect class="noise" x="{LEFT}" width="{WIDTH - LEFT - 6}" y="{top:.1f}" '
            f'height="{max(base - top, 0.5):.1f}"/>'
            f'<path class="level" d="M{LEFT} {y(level.value):.1f}H{WIDTH - 6}"/>'
        )
    some = np.unique(np.linspace(0, len(term.steps) - 1, MOST_POINTS).round().astype(int))
    for name, values in (("raw", term.values), ("mean", term.means)):
        points = (f"{x(float(term.steps[i])):.1f} {y(float(values[i])):.1f}" for i in some)
        parts.append(f'<path class="{name}" d="M{"L".join(points)}"/>')
    alt = f"{term.name} over {last:,.0f} steps: from {term.means[0]:.4g} to {term.means[-1]:.4g}"
    return _svg(WIDTH, HEIGHT, alt, parts, "curve")


def latent_map(shown: CodeMap) -> str:
    """Codes over the contours of the prior; the marks of a class are one group, `data-label`."""
    left, right, low, high = shown.extent

    def place(a: float, b: float) -> tuple[float, float]:
        return (a - left) / (right - left) * SIDE, (high - b) / (high - low) * SIDE

    parts = [f'<path class="prior" d="{path}"/>' for path in _contours(shown)]
    x, y = np.array([place(a, b) for a, b in shown.places.tolist()]).T.round(1)
    if shown.labels is None:
        parts.append(_group(zip(x, y), "", "test codes", 'class="mark on"'))
    else:
        labels, colours = shown.labels.numpy(), shown.colours()
        for label, name in enumerate(shown.names):
            here, colour = labels == label, colours.get(label)
            kind = f'class="mark{" on" if colour else ""}" data-label="{label}"'
            kind += f' style="color: {colour}"' if colour else ""
            text = f"{name}: {int(here.sum())} codes"
            mark = name if shown.letters else ""
            parts.append(_group(zip(x[here], y[here]), mark, text, kind))
    prior = " over the density of the prior" if shown.density is not None else ""
    classes = f", of {len(shown.names)} classes" if shown.labels is not None else ""
    alt = f"Map of {len(shown.places)} codes of test samples{prior}{classes}"
    return _svg(SIDE, SIDE, alt, parts, "map")


def _group(places: Iterable[tuple[float, float]], mark: str, title: str, kind: str) -> str:
    """The marks of one class: a letter each, or a dot."""
    if mark:
        each = (f'<text x="{x}" y="{y + 4:.1f}">{escape(mark)}</text>' for x, y in places)
    else:
        each = (f'<circle cx="{x}" cy="{y}" r="3.2"/>' for x, y in places)
    return f"<g {kind}><title>{escape(title)}</title>{''.join(each)}</g>"


def _contours(shown: CodeMap) -> list[str]:
    """The level sets of the prior's density, as paths."""
    if shown.density is None:
        return []
    cells = len(shown.density)
    centres = (np.arange(cells) + 0.5) / cells * SIDE
    drawn = Figure().subplots().contour(centres, centres, shown.density.numpy(), CONTOURS)
    every = []
    for path in drawn.get_paths():
        rings = [np.asarray(ring) for ring in path.to_polygons(closed_only=False)]
        texts = ("L".join(f"{x:.1f} {y:.1f}" for x, y in ring) for ring in rings)
        every.append("".join(f"M{text}Z" for text in texts))
    return [one for one in every if one]


def _ticks(low: float, high: float, count: int) -> list[float]:
    found = np.asarray(MaxNLocator(count).tick_values(low, high))
    return [float(value) for value in found if low <= value <= high]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _svg(width: int, height: int, alt: str, parts: list[str], kind: str) -> str:
    alt = escape(alt, quote=True)
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{alt}">'
        f"{''.join(parts)}</svg>"
    )
