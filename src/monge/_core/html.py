"""HTML in which notebooks show objects: tables and small drawings in the notebook's colours."""

from collections.abc import Iterable, Sequence
from html import escape

from monge._core.visible import visible

SIDE = 150


def escaped(text: object) -> str:
    """A text of anyone as HTML, its control characters as escapes."""
    return escape(visible(str(text)))


def facts(title: str, rows: Iterable[tuple[str, object]], drawing: str = "") -> str:
    """A title, names with their values, and a drawing beside them."""
    lines = "".join(
        f'<tr><td style="text-align: left">{escaped(name)}</td>'
        f'<td style="text-align: left">{escaped(number(value))}</td></tr>'
        for name, value in rows
    )
    return (
        '<div style="display: flex; flex-wrap: wrap; gap: 1.5em; align-items: flex-start">'
        f"<div><b>{escaped(title)}</b><table>{lines}</table></div>{drawing}</div>"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers have four digits, and None is a dash."""
    top = "".join(f"<th>{escaped(head)}</th>" for head in heads)
    lines = ("".join(f"<td>{escaped(number(cell))}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def number(value: object) -> str:
    """A value of a cell."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def dots(points: Sequence[Sequence[float]], alt: str) -> str:
    """Points in a plane as a square drawing around 0, of which `alt` is the alternative text."""
    reach = 1.05 * max((abs(v) for point in points for v in point), default=0.0) or 1.0
    marks = "".join(
        f'<circle cx="{SIDE * (0.5 + a / reach / 2):.1f}" cy="{SIDE * (0.5 - b / reach / 2):.1f}" '
        'r="1.6"/>'
        for a, b in points
    )
    return _drawing(f'<g fill="currentColor" opacity=".6">{marks}</g>', alt)


def shades(matrix: Sequence[Sequence[float]], alt: str) -> str:
    """A matrix of numbers from 0 on, darker where they are larger."""
    rows, columns = len(matrix), len(matrix[0])
    most = max(max(row) for row in matrix) or 1.0
    high, wide = SIDE / rows, SIDE / columns
    cells = "".join(
        f'<rect x="{j * wide:.2f}" y="{i * high:.2f}" width="{wide:.2f}" height="{high:.2f}" '
        f'opacity="{value / most:.2f}"/>'
        for i, row in enumerate(matrix)
        for j, value in enumerate(row)
        if value > most / 200
    )
    frame = (
        f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="currentColor" opacity=".3"/>'
    )
    return _drawing(f'<g fill="currentColor">{cells}</g>{frame}', alt)


def _drawing(content: str, alt: str) -> str:
    return (
        f'<svg width="{SIDE}" height="{SIDE}" viewBox="0 0 {SIDE} {SIDE}" role="img" '
        f'aria-label="{escaped(alt)}">{content}</svg>'
    )
