"""SWAE with priors that are no Gaussian: a ring, a disk, a square.

MONGE_DATA=DIR python examples/priors.py
"""

import torch
from common import codes_by_class, save, trained
from matplotlib.figure import Figure

from monge.draws import generator
from monge.show.pictures import grid

PRIORS = {"ring": "ring", "disk": "disk", "square": "uniform"}


def main() -> None:
    torch.set_num_threads(1)
    figure = Figure(figsize=(12, 12))
    for row, (title, prior) in zip(figure.subplots(3, 3), PRIORS.items()):
        # codes of unit size: λ grows as the prior's spread shrinks
        run = trained(
            "swae",
            "mnist",
            f"swae-{title}",
            latent=2,
            prior=prior,
            training__epochs=3,
            weight=400.0,
            directions=50,
        )
        drawn = run.model.prior.sample(5000, generator(0, "priors"))
        row[0].scatter(*drawn.T, s=2, color="grey", linewidths=0)
        row[0].set_title(f"the prior: {title}", fontsize=10)
        codes_by_class(row[1], run)
        figures = run.summary()
        row[1].set_title(f"test codes, MMD² {figures['MMD² of codes']:.3f}", fontsize=10)
        for axes in row[:2]:
            axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
        line = torch.linspace(-1, 1, 14)
        plane = torch.stack(torch.meshgrid(line, -line, indexing="xy"), -1).flatten(0, 1)
        with torch.no_grad():
            row[2].imshow(grid(run.model.decode(plane), 14).convert("L"), cmap="gray")
        row[2].set_title("decoded square [-1, 1]²", fontsize=10)
        row[2].axis("off")
        print(title, figures)
    save(figure, "priors")


if __name__ == "__main__":
    main()
