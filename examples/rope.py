"""A rope in the plane and its copy in five dimensions, matched by a plan of low rank.

python examples/rope.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from monge.transport import low_rank_gromov_wasserstein

OUT = Path(__file__).parents[1] / "docs" / "structure"
N = 5000
RANK = 10


def main() -> None:
    random = torch.Generator().manual_seed(0)
    t = torch.rand(N, generator=random)
    rope = torch.stack([3 * t, (4 * t).cos()], 1) + 0.05 * torch.randn(N, 2, generator=random)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=random)).Q[:2]
    order = torch.randperm(N, generator=random)
    other = (rope @ turn)[order] + 10
    plan = low_rank_gromov_wasserstein(rope, other, rank=RANK, generator=random)
    independent = low_rank_gromov_wasserstein(rope, other, rank=1).value

    hues = N * plan.transposed().apply(t)  # for each point of the copy, the mean of t
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for axes, points, colours, title in zip(
        figure.subplots(1, 3),
        (rope, in_plane(other), in_plane(other)),
        (t, hues, t[order]),
        (
            "a rope in the plane",
            f"its copy in five dimensions, in colours of the plan\n"
            f"value {plan.value:.2f}, {independent:.2f} for the independent plan",
            "in true colours",
        ),
    ):
        axes.scatter(*points.T, s=2, c=colours, cmap="turbo", linewidths=0, rasterized=True)
        axes.set_title(title)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(OUT / "rope.png", dpi=80, bbox_inches="tight")


def in_plane(z: Tensor) -> Tensor:
    """Principal coordinates."""
    z = z - z.mean(0)
    return z @ torch.linalg.svd(z, full_matrices=False).Vh[:2].T


if __name__ == "__main__":
    main()
