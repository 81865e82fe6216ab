"""How close `max_sliced_wasserstein` comes to the maximum: 100 problems against a long search.

    python benchmarks/max_sliced.py [--problems 100] [--write]

Problems in 2 to 50 dimensions: Gaussians with unlike means and covariances, Student's t with three
degrees of freedom, and N(0, I) against the same with one coordinate, or one random direction, that
is ±.99 + .1 N(0, 1), so that mean and covariance are equal. The reference is the largest of: all
coordinate axes; 20,000 random directions; the ascent of `max_generalized_sliced_wasserstein` with
`Linear` slices from the best 32 of those; and the same ascent from 32 random slices. Beside it
stands the distance on the planted direction, which neither search knows. Ratios go to
max_sliced.json with `--write`. Two minutes on one core.
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from monge.transport import (
    Linear,
    max_generalized_sliced_wasserstein,
    max_sliced_wasserstein,
    orthogonal_directions,
    uniform_directions,
    wasserstein_1d,
)

FIGURES = Path(__file__).with_suffix(".json")
FAMILIES = ("Gaussian", "Student t", "bimodal coordinate", "bimodal direction")


class Problem(NamedTuple):
    family: str
    x: Tensor
    y: Tensor
    planted: Tensor | None


def problem(index: int) -> Problem:
    """The problem of this number: its family, its samples, and the direction that was planted."""
    random = torch.Generator().manual_seed(index)
    family = FAMILIES[index % len(FAMILIES)]
    dim = int(torch.randint(2, 51, (), generator=random))
    if family in FAMILIES[:2]:
        n, m = torch.randint(200, 1001, (2,), generator=random).tolist()
        x, y = (_stretched(count, dim, family, random) for count in (n, m))
        shift = torch.randn(dim, generator=random) * torch.rand((), generator=random)
        return Problem(family, x, y + shift / dim**0.5, None)
    return Problem(family, *bimodal(dim, random, rotated=family == FAMILIES[3]))


def _stretched(count: int, dim: int, family: str, random: torch.Generator) -> Tensor:
    """A sample whose covariance has random axes and standard deviations of 0.5 to 2."""
    x = torch.randn(count, dim, generator=random)
    if family == "Student t":
        x = x / (torch.randn(count, 3, generator=random).square().mean(1, keepdim=True)).sqrt()
    deviations = 4 ** (torch.rand(dim, generator=random) - 0.5)
    return x * deviations @ orthogonal_directions(dim, dim, generator=random)


def bimodal(
    dim: int, random: torch.Generator, *, rotated: bool, n: int = 1000
) -> tuple[Tensor, Tensor, Tensor]:
    """N(0, I), the same with one direction replaced by ±.99 + .1 N(0, 1), and that direction."""
    x, y = torch.randn(2, n, dim, generator=random)
    signs = torch.randint(2, (n,), generator=random) * 2 - 1
    y[:, 0] = 0.99 * signs + 0.1 * torch.randn(n, generator=random)
    axes = orthogonal_directions(dim, dim, generator=random) if rotated else torch.eye(dim)
    return x, y @ axes, axes[0]


def searched(x: Tensor, y: Tensor, random: torch.Generator) -> float:
    """The largest W_2 that a long search finds."""
    dim = x.shape[1]
    theta = torch.cat([torch.eye(dim), uniform_directions(20_000, dim, generator=random)])
    values = torch.cat([wasserstein_1d(t @ x.T, t @ y.T) for t in theta.split(500)])
    slicer = Linear(dim, 32)
    best = float(values.max())
    for start in (theta[values.topk(32).indices], uniform_directions(32, dim, generator=random)):
        with torch.no_grad():
            slicer.theta.copy_(start)
        best = max(best, float(max_generalized_sliced_wasserstein(x, y, slicer).detach()))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    rows = []
    for index in range(given.problems):
        family, x, y, planted = problem(index)
        start = time.perf_counter()
        value, _ = max_sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(index))
        row = {
            "family": family,
            "samples": [len(x), len(y)],
            "dim": x.shape[1],
            "milliseconds": round(1e3 * (time.perf_counter() - start), 1),
            "value": float(value),
            "ratio": float(value) / searched(x, y, torch.Generator().manual_seed(index)),
        }
        if planted is not None:
            row["ratio to planted"] = float(value / wasserstein_1d(x @ planted, y @ planted))
        rows.append(row)
        print(row, flush=True)
    summary = {}
    for family in FAMILIES:
        ours = [row for row in rows if row["family"] == family]
        for kind in ("ratio", "ratio to planted"):
            if ratios := [row[kind] for row in ours if kind in row]:
                summary[f"{family}, {kind}"] = {
                    "problems": len(ratios),
                    "least": min(ratios),
                    "mean": sum(ratios) / len(ratios),
                    "below 0.98": sum(ratio < 0.98 for ratio in ratios),
                }
    print(json.dumps(summary, indent=1))
    if given.write:
        FIGURES.write_text(json.dumps({"summary": summary, "problems": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
