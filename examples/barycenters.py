"""From a ring to a cross: means of pixels, entropic and debiased barycenters.

python examples/barycenters.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from monge.transport import grid_barycenter

OUT = Path(__file__).parents[1] / "docs" / "barycenters" / "images.png"
EPSILON = 4.0


def images(side: int = 60) -> torch.Tensor:
    places = torch.linspace(-1, 1, side, dtype=torch.float64)
    radius = (places[:, None] ** 2 + places**2).sqrt()
    ring = ((radius > 0.5) & (radius < 0.7)).double()
    cross = ((places.abs() < 0.12) | (places[:, None].abs() < 0.12)).double() * (radius < 0.8)
    return torch.stack([ring / ring.sum(), cross / cross.sum()])


def main() -> None:
    b = images()
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    rows = figure.subplots(3, 5)
    for column, share in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        weights = [1 - share, share]
        settings = {"epsilon": EPSILON, "tolerance": 1e-3, "max_iterations": 3000}
        shown = (
            (b * torch.tensor(weights, dtype=torch.float64)[:, None, None]).sum(0),
            grid_barycenter(b, weights, debiased=False, **settings).masses,
            grid_barycenter(b, weights, **settings).masses,
        )
        for axes, picture in zip(rows[:, column], shown):
            axes.imshow(picture, cmap="Greys")
            axes.set_xticks([])
            axes.set_yticks([])
    for axes, name in zip(rows[:, 0], ("pixels", "entropic", "debiased")):
        axes.set_ylabel(name)
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT, dpi=90)


if __name__ == "__main__":
    main()
