"""All recipes on three laws of the plane: their densities, and the exact W_2 to the data.

python examples/toys.py
"""

import torch
from common import save, trained
from matplotlib.figure import Figure

from monge.draws import generator
from monge.recipes import RECIPES
from monge.transport import wasserstein

LAWS = ("eight-gaussians", "rings", "swiss-roll")
# those that are for tables
OTHERS = {"bounded", "grid", "unordered"}
NAMES = [name for name, row in RECIPES.items() if not OTHERS & set(row.needs)]
ROWS = -(-(1 + len(NAMES)) // 6)
# the published rates are those of large networks; a small critic must learn faster to keep up
OWN = {
    "wgan": {"training__steps": 6000},
    "gan": {"training__lr": 1e-4, "training__inner_lr": 1e-3},
    "wgan-gp": {"training__inner_lr": 1e-3},
}


def density(axes, x: torch.Tensor, title: str, side: float) -> None:
    axes.hist2d(*x.numpy().T, bins=90, range=[[-side, side]] * 2, cmap="magma")
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def main() -> None:
    torch.set_num_threads(1)
    table = {}
    for law in LAWS:
        figure = Figure(figsize=(12, 2.2 * ROWS))
        panels = iter(figure.subplots(ROWS, 6).flat)
        for name in NAMES:
            run = trained(name, law, f"{law}-{name}", **OWN.get(name, {}))
            train, test = run.source.train, run.source.test[:2000]
            side = 1.1 * test.abs().max().item()
            if name == NAMES[0]:
                table[law] = {"floor": float(wasserstein(train[:2000], test))}
                density(next(panels), train, f"data, W_2 {table[law]['floor']:.3f}", side)
            drawn = run.model.sample(10_000, generator(0, "toys"))
            table[law][name] = float(wasserstein(drawn[:2000], test))
            density(next(panels), drawn, f"{name}, W_2 {table[law][name]:.3f}", side)
        save(figure, law)
    print(f"| recipe | {' | '.join(LAWS)} |\n|{'---|' * 4}")
    for name in ["floor", *NAMES]:
        print(f"| {name} | {' | '.join(f'{table[law][name]:.3f}' for law in LAWS)} |")


if __name__ == "__main__":
    main()
