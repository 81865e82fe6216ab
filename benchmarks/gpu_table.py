"""The table of docs/performance.md, from the figures of gpu.py."""

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
NONE = "not yet measured"
SINKHORN = "divergence, n = {n:,}, {name}"
SOLVERS = ("monge", "flash-sinkhorn", "GeomLoss", "OTT-JAX", "POT torch")
TRAINED = [
    (network, recipe)
    for network in ("small MNIST", "paper MNIST", "CelebA")
    for recipe in ("wae-mmd", "vae", "wgan-gp")
]

Figures = dict[str, dict[str, Any]]


def write(results: Path) -> None:
    """Puts the tables of a file of results into the page; without one they say so."""
    found = json.loads(results.read_text()) if results.exists() else {}
    page = PAGE.read_text(encoding="utf-8")
    marks = r"(<!-- gpu figures -->\n).*(\n<!-- end of gpu figures -->)"
    made, count = re.subn(marks, lambda m: m[1] + tables(found) + m[2], page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{PAGE} has no marks for the figures")
    PAGE.write_text(made, encoding="utf-8")


def tables(found: Figures) -> str:
    """All of them, in Markdown."""
    card = found.get("device", {}).get("card", {})
    cuda = card.get("kind") == "cuda"
    figures = found if cuda else {}  # a trial on a CPU is no figure
    name = f"Measured on: {card['name']}." if cuda else "Measured on: no GPU yet."
    return "\n".join([name, "", *work(figures), "", *training(figures), "", *memory(figures)])


def fastest(figures: dict[str, Any], begins: str, solver: str) -> dict[str, Any] | None:
    """Of a solver's variants, the fastest that reached what was asked."""
    rows = [
        row
        for name, row in figures.items()
        if name.startswith(begins + solver) and row.get("ms") and row.get("reached", True)
    ]
    return min(rows, key=lambda row: row["ms"], default=None)


def cell(value: float | None, unit: str = "ms") -> str:
    return NONE if value is None else f"{value:,.2f} {unit}"


def best_other(figures: dict[str, Any], begins: str) -> str:
    """The fastest of the other libraries, by name."""
    found = {s: row for s in SOLVERS[1:] if (row := fastest(figures, begins, s))}
    if not found:
        return NONE
    name = min(found, key=lambda solver: found[solver]["ms"])
    return f"{found[name]['ms']:,.2f} ms, {name}"


def work(found: Figures) -> list[str]:
    transport, sums = found.get("transport", {}), found.get("sums", {})
    lines = ["| work | monge | fastest other | goal |", "|---|---|---|---|"]
    rows = [
        ("Sinkhorn, n = 10,000, d = 64, 100 iterations", "fixed, n = 10,000, ", "≥ flash-sinkhorn")
    ]
    for n in (1_000, 10_000, 50_000):
        label = (
            f"Sinkhorn divergence, n = {n:,}, d = 64, blur 0.05, error 10⁻³, value and gradient"
        )
        goal = "≥ 3 × flash-sinkhorn" if n == 10_000 else ""
        rows.append((label, f"divergence, n = {n:,}, ", goal))
    for label, begins, goal in rows:
        ours = (fastest(transport, begins, "monge") or {}).get("ms")
        lines.append(f"| {label} | {cell(ours)} | {best_other(transport, begins)} | {goal} |")
    floor = sums.get("SW2, shares", {}).get("projections and sorts, ms")
    for name, label, other, goal in (
        ("MMD, n = 4,096", "MMD, 7 scales, n = 4,096, d = 64, value and gradient", None, ""),
        ("MMD, n = 65,536", "MMD, 7 scales, n = 65,536, d = 64", None, "< 50 ms on an H100"),
        (
            "SW2",
            "SW₂, n = 100,000, d = 64, 1,000 directions",
            floor,
            "≤ 1.3 × projections and sorts",
        ),
        ("SW2 small", "SW₂, n = 256, d = 8, 50 directions", None, ""),
        ("nearest, n = 65,536, k = 1", "nearest neighbour, n = 65,536, d = 64", None, ""),
        ("nearest, n = 65,536, k = 10", "10 nearest, n = 65,536, d = 64", None, ""),
        ("Chamfer", "Chamfer, 64 clouds of 2,048 points, value and gradient", None, ""),
    ):
        row = sums.get(name, {})
        beside = row.get("torch, ms") if other is None else other
        by = "torch by hand" if name != "SW2" else "projections and sorts alone"
        shown = NONE if beside is None else f"{beside:,.2f} ms, {by}"
        lines.append(f"| {label} | {cell(row.get('monge, ms'))} | {shown} | {goal} |")
    return lines


def training(found: Figures) -> list[str]:
    figures = found.get("training", {})
    head = ("networks", "recipe", "images/s", "of the bare loop", "kernels a step", "peak memory")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for network, recipe in TRAINED:
        begins = f"{network}, {recipe}, "
        rows = {
            name.removeprefix(begins): row
            for name, row in figures.items()
            if name.startswith(begins) and row.get("ms")
        }
        bare = rows.pop("bare", {}).get("ms")
        rows.pop("Pythae", None)
        if not rows:
            lines.append(f"| {network} | `{recipe}` |" + f" {NONE} |" * 4)
        for variant, row in rows.items():
            share = "–" if bare is None else f"{bare / row['ms']:.0%}"
            speed = f"{row['images/s']:,} ({variant})"
            peak = f"{row['peak bytes'] / 1e6:,.0f} MB"
            lines.append(
                f"| {network} | `{recipe}` | {speed} | {share} | {row['kernels']} | {peak} |"
            )
    return lines


def memory(found: Figures) -> list[str]:
    lines = [
        "| at a million points | n | seconds | peak, of one sample's bytes |",
        "|---|---|---|---|",
    ]
    for name in ("SW2", "nearest", "MMD", "Sinkhorn, 2 iterations"):
        row = found.get("memory", {}).get(name, {})
        if "ratio" in row:
            values = f"{row['n']:,} | {row['seconds']:,.2f} | {row['ratio']} ×"
            lines.append(f"| {name} | {values} |")
        else:
            lines.append(f"| {name} | {NONE} | {NONE} | {NONE} |")
    return lines
