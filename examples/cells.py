"""The cells of semidiscrete transport: each point of the data receives the same mass of noise.

python examples/cells.py
"""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from monge.transport import solve_semidiscrete

OUT = Path(__file__).parents[1] / "docs" / "distances"
COUNT = 40


def draw(axes: Axes, index: Tensor, side: int, data: Tensor, title: str) -> None:
    """The cells of a grid of noise, and the data."""
    axes.imshow(
        index.view(side, side).T % 20,
        extent=(0, 1, 0, 1),
        origin="lower",
        cmap="tab20",
        alpha=0.45,
        interpolation="nearest",
    )
    axes.scatter(*data.T, s=14, color="black")
    shares = torch.bincount(index, minlength=COUNT) * COUNT / len(index)
    axes.set_title(f"{title}\nmasses from {shares.min():.2f} to {shares.max():.2f} of 1/{COUNT}")
    axes.set_xticks([])
    axes.set_yticks([])


def main() -> None:
    random = torch.Generator().manual_seed(0)
    data = 0.5 + 0.18 * torch.randn(COUNT, 2, generator=random)
    data = data.clamp(0.02, 0.98)
    places = (torch.arange(400) + 0.5) / 400
    noise = torch.cartesian_prod(places, places)

    def uniform(n: int, generator: torch.Generator | None) -> Tensor:
        return torch.rand(n, 2, generator=generator)

    plan = solve_semidiscrete(uniform, data, tolerance=0.05, draws=4096, generator=random)
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    nearest = torch.cdist(noise, data).argmin(1)
    for axes, index, title in zip(
        figure.subplots(1, 2),
        (nearest, plan.assign(noise)),
        ("nearest data", "semidiscrete transport"),
    ):
        draw(axes, index, len(places), data, title)
    figure.savefig(OUT / "cells.png", dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    main()
