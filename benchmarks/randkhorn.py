"""Passes over the cost that Sinkhorn's algorithm and its accelerations take.

    python benchmarks/randkhorn.py

Two samples of 500 points, uniform in cubes of sides 1 and 0.9 (for d = 64 scaled to the squared
distances of d = 3), with ε = 2 · blur², in float64. A pass is one soft minimum over the rows or
the columns of the cost; those of the warm-up at larger ε, the same for all, are counted as well.
The counts of `Randkhorn` are the least, the median and the most of five seeds. Figures go to
randkhorn.json.
"""

import json
import math
import statistics
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from monge.transport import Anderson, Randkhorn, sinkhorn
from monge.transport.gibbs import Stored

FIGURES = Path(__file__).with_suffix(".json")
REGIMES = ((3, 0.1), (3, 0.05), (64, 0.1), (64, 0.05))
TOLERANCES = (1e-3, 1e-5, 1e-7)
POINTS, SEEDS = 500, range(5)


def samples(d: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(d)
    x, y = torch.rand(2, POINTS, d, generator=random).double() * math.sqrt(3 / d)
    return x, 0.9 * y + 0.1 * math.sqrt(3 / d)


def passes(
    x: Tensor,
    y: Tensor,
    epsilon: float,
    tolerance: float,
    acceleration: Anderson | Randkhorn | None,
) -> int:
    """How often the soft minimum of rows or columns is taken, with those of the result."""
    count = 0
    soft_minima = {name: getattr(Stored, name) for name in ("rows", "columns")}

    def counted(name: str):
        def soft_minimum(self: Stored, other: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return soft_minima[name](self, other)

        return soft_minimum

    with mock.patch.multiple(Stored, **{name: counted(name) for name in soft_minima}):
        plan = sinkhorn(
            x,
            y,
            epsilon=epsilon,
            tolerance=tolerance,
            max_iterations=40_000,
            acceleration=acceleration,
        )
    assert plan.converged
    return count


def main() -> None:
    rows = []
    for d, blur in REGIMES:
        x, y = samples(d)
        for tolerance in TOLERANCES:
            case = (x, y, 2 * blur**2, tolerance)
            seeds = sorted(passes(*case, Randkhorn(seed)) for seed in SEEDS)
            rows.append(
                {
                    "d": d,
                    "blur": blur,
                    "tolerance": tolerance,
                    "plain": passes(*case, None),
                    "Anderson(5)": passes(*case, Anderson(5)),
                    "Randkhorn": [seeds[0], int(statistics.median(seeds)), seeds[-1]],
                }
            )
            print(rows[-1], flush=True)
    FIGURES.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
