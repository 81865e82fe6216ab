"""The least time that a GPU needs for the work of each kernel, from published figures.

    python benchmarks/roofline.py            # the table
    python benchmarks/roofline.py --write    # into docs/performance.md

A kernel takes at least the largest of: bytes through memory / bandwidth, operations of matrix
products / their rate on tensor cores, other operations in float64 / their rate, evaluations of
special functions / their rate. Inputs that a kernel reads once for each tile of rows are counted
once: they stay in the second-level cache.

Sources: NVIDIA, "A100 tensor core GPU" data sheet (80 GB SXM), 2021; NVIDIA, "H100 tensor core
GPU" data sheet (SXM), 2023, whose rates of tensor cores are with sparsity and are halved here,
except those of float64, which have none; clocks are those at which the float32 rates hold; 16
special functions a clock and multiprocessor: CUDA C++ programming guide, table of arithmetic
instructions, 8.0 and 9.0.
"""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


class Card(NamedTuple):
    name: str
    bandwidth: float
    """Bytes a second."""
    tf32: float
    """Operations a second of dense products on tensor cores."""
    float64_product: float
    float64: float
    """Operations a second outside tensor cores."""
    special: float
    """Exponentials, reciprocals, roots a second, float32."""


def special(multiprocessors: int, clock: float) -> float:
    return 16 * multiprocessors * clock


CARDS = (
    Card("A100", 2.039e12, 156e12, 19.5e12, 9.7e12, special(108, 1.41e9)),
    Card("H100", 3.35e12, 494.5e12, 67e12, 34e12, special(132, 1.98e9)),
)
EXP64 = 40
"""Operations of an exponential in float64, which has no unit of its own: an estimate."""
EXPONENT64 = 5
"""Operations in float64 that assemble an exponent from its product."""
PASSES = 4
"""Passes of a radix sort over 32-bit keys, of 8 bits each."""


class Work(NamedTuple):
    """What a kernel does once."""

    name: str
    bytes: float
    tf32: float = 0.0
    """Operations of products that are split into three of TF32, which are counted."""
    float64_product: float = 0.0
    float64: float = 0.0
    special: float = 0.0


def soft_minimum(n: int, d: int, wide: bool) -> Work:
    """-ε log Σ_j b_j exp((g_j - C_ij)/ε) for the n rows of a squared cost of n columns."""
    size = 8 if wide else 4
    pairs = n * n
    return Work(
        f"soft minimum, n = {n:,}, d = {d}, {'float64' if wide else 'float32'}",
        bytes=2 * n * d * size + 4 * n * 8,
        float64_product=2 * d * pairs,
        float64=(EXPONENT64 + (EXP64 if wide else 0)) * pairs,
        special=0 if wide else pairs,
    )


def stored_product(n: int) -> Work:
    """K s for a stored Gibbs kernel in float32: every entry is read once."""
    return Work(f"stored Gibbs product, n = {n:,}, float32", bytes=4 * n * n + 8 * n)


def kernel_sums(n: int, d: int, scales: int) -> Work:
    """MMD with its gradient in x: pairs within x and y, and across; distances, w y, w."""
    within, across = n * n, n * n
    value, gradient = 2 * d, 2 * d
    # within x each pair is visited twice for the gradient's rows; within y once, for the value
    products = value * (within + within / 2 + across) + gradient * (within + across)
    return Work(
        f"MMD, {scales} scales, n = {n:,}, d = {d}, value and gradient",
        bytes=4 * (3 * n * d + 2 * n),
        tf32=3 * products,
        special=scales * (within + within / 2 + across),
    )


def sorted_rows(n: int, d: int, count: int) -> Work:
    """SW_2 with its gradient: projections, keys and indices through a radix sort, and back."""
    values = 2 * n * count
    sort = (PASSES * 2 * (4 + 8) + 4) * values
    rest = (4 + 8 + 4 + 4) * values  # projections are written, the gaps scattered and read again
    return Work(
        f"SW₂, n = {n:,}, d = {d}, {count:,} directions, value and gradient",
        bytes=sort + rest + 3 * 4 * n * d,
        tf32=3 * 2 * d * (values + n * count),
    )


def nearest(n: int, d: int) -> Work:
    return Work(
        f"nearest neighbour, n = {n:,}, d = {d}",
        bytes=4 * (2 * n * d + 3 * n),
        tf32=3 * 2 * d * n * n,
    )


WORKS = (
    soft_minimum(10_000, 64, wide=False),
    soft_minimum(10_000, 64, wide=True),
    stored_product(10_000),
    kernel_sums(65_536, 64, 7),
    sorted_rows(100_000, 64, 1000),
    nearest(65_536, 64),
)


def bound(work: Work, card: Card) -> tuple[float, str]:
    """The least seconds, and what takes them."""
    times = {
        "memory": work.bytes / card.bandwidth,
        "TF32 products": work.tf32 / card.tf32,
        "float64 products": work.float64_product / card.float64_product,
        "float64": work.float64 / card.float64,
        "special functions": work.special / card.special,
    }
    limit = max(times, key=times.__getitem__)
    return times[limit], limit


def table() -> str:
    """All kernels on all cards, in Markdown."""
    head = ["kernel", "MB", "10⁹ operations", *(f"{card.name}, at least" for card in CARDS)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for work in WORKS:
        operations = work.tf32 + work.float64_product + work.float64 + work.special
        cells = [f"{1e3 * t:.3g} ms ({limit})" for t, limit in (bound(work, c) for c in CARDS)]
        shown = f"{operations / 1e9:,.0f}" if operations else "–"
        lines.append(f"| {work.name} | {work.bytes / 1e6:,.1f} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    if not parser.parse_args().write:
        print(table())
        return
    marks = r"(<!-- roofline -->\n).*(\n<!-- end of roofline -->)"
    page = PAGE.read_text(encoding="utf-8")
    made = re.sub(marks, lambda m: f"{m[1]}{table()}{m[2]}", page, flags=re.DOTALL)
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
