"""Two spirals of 20,000 points: the multiscale plan's map, and the clusters of a low-rank plan.

python examples/large.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from monge.transport import low_rank_sinkhorn, multiscale_sinkhorn

OUT = Path(__file__).parents[1] / "docs" / "large"
N = 20_000
RANK = 12


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """A disk, and a spiral with two arms."""
    random = torch.Generator().manual_seed(0)
    radius, angle = torch.rand(2, N, generator=random)
    radius, angle = radius.sqrt(), 2 * torch.pi * angle
    disk = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    along = torch.rand(N, generator=random).sqrt()
    turn = 2.2 * torch.pi * along + torch.pi * (torch.arange(N) % 2)
    spiral = along[:, None] * torch.stack([turn.cos(), turn.sin()], 1)
    return disk, 1.3 * spiral + 0.04 * torch.randn(N, 2, generator=random)


def main() -> None:
    x, y = samples()
    x.requires_grad_()
    plan = multiscale_sinkhorn(x, y, epsilon=0.002)
    (slope,) = torch.autograd.grad(plan.value, x)
    x = x.detach()
    image = x - N * slope / 2  # the barycentric projection
    coarse = low_rank_sinkhorn(x, y, rank=RANK, generator=torch.Generator().manual_seed(0))

    figure = Figure(figsize=(12, 5.6), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True, sharey=True)
    hues = x[:, 0]
    for one, share in zip(axes[0], (0, 1 / 3, 2 / 3, 1)):
        moved = torch.lerp(x, image, float(share))
        one.scatter(*moved.T, s=0.4, c=hues, cmap="viridis", linewidths=0, rasterized=True)
    axes[0, 0].set_title("x, 20,000 points")
    axes[0, 1].set_title("a third of the way")
    axes[0, 2].set_title("two thirds")
    axes[0, 3].set_title("projected by the plan")
    clusters = (coarse.q.argmax(1), coarse.r.argmax(1))
    for one, points, cluster in zip(axes[1], (x, y), clusters):
        one.scatter(*points.T, s=0.4, c=cluster, cmap="tab20", linewidths=0, rasterized=True)
    centres = [(z.T @ w / coarse.g).T for z, w in ((x, coarse.q), (y, coarse.r))]
    axes[1, 2].quiver(
        *centres[0].T, *(centres[1] - centres[0]).T, angles="xy", scale_units="xy", scale=1
    )
    projected = N * coarse.apply(y)
    axes[1, 3].scatter(*projected.T, s=0.4, c=hues, cmap="viridis", linewidths=0)
    axes[1, 0].set_title(f"rank {RANK}: clusters of x")
    axes[1, 1].set_title("their counterparts in y")
    axes[1, 2].set_title("means of both")
    axes[1, 3].set_title("projected by this plan")
    for one in axes.flat:
        one.set_aspect("equal")
        one.set_xticks([])
        one.set_yticks([])
    figure.savefig(OUT / "spiral.png", dpi=80)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    main()
