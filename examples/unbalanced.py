"""Outliers: balanced, unbalanced and partial plans between two samples of which some points are
far from the other.

python examples/unbalanced.py
"""

from pathlib import Path

import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from monge.transport import KL, TV, sinkhorn, solve, solve_partial

OUT = Path(__file__).parents[1] / "docs" / "unbalanced"


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """Two crescents, and outliers of either: 6 of 66, and 4 of 64."""
    random = torch.Generator().manual_seed(0)
    angles = torch.rand(2, 60, generator=random) * torch.pi
    noise = 0.08 * torch.randn(2, 60, 2, generator=random)
    x, y = torch.stack([angles.cos(), angles.sin()], -1) + noise
    y = y * torch.tensor([1.0, 0.7]) + torch.tensor([0.4, -1.1])
    far_x = 0.15 * torch.randn(6, 2, generator=random) + torch.tensor([2.3, 1.2])
    far_y = 0.15 * torch.randn(4, 2, generator=random) + torch.tensor([-1.6, -1.5])
    return torch.cat([x, far_x]), torch.cat([y, far_y])


def main() -> None:
    x, y = samples()
    cost = torch.cdist(x, y).square()
    plans = {
        "balanced: solve": solve(cost),
        "unbalanced: reach=KL(2)": sinkhorn(x, y, epsilon=0.02, reach=KL(2.0)),
        "unbalanced: reach=TV(2)": sinkhorn(x, y, epsilon=0.02, reach=TV(2.0)),
        "partial: mass=0.9": solve_partial(cost, mass=0.9),
    }
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for axes, (title, plan) in zip(figure.subplots(1, 4, sharey=True), plans.items()):
        shares = (len(x) * plan.plan).clamp(0, 1)
        i, j = (shares > 0.02).nonzero().T
        lines = torch.stack([x[i], y[j]], 1).numpy()
        colours = [(0.4, 0.4, 0.4, float(share)) for share in shares[i, j]]
        axes.add_collection(LineCollection(list(lines), colors=colours, linewidths=0.8))
        for points, side, colour in ((x, 1, "tab:blue"), (y, 0, "tab:red")):
            kept = (len(points) * plan.plan.sum(side)).clamp(0, 1)
            axes.scatter(*points.T, s=14, facecolors="none", edgecolors=colour, linewidths=0.6)
            axes.scatter(*points.T, s=14, color=colour, alpha=kept.numpy(), linewidths=0)
        figures = f"mass {float(plan.mass):.2f}, cost {float(plan.value_linear):.2f}"
        axes.set_title(f"{title}\n{figures}")
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(OUT / "outliers.png", dpi=90)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    main()
