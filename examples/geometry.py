"""Transport on the circle, the sphere and the hyperbolic plane.

python examples/geometry.py
"""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor
from torch.nn.functional import normalize

from monge.transport import (
    great_circles,
    hyperbolic_distances,
    solve,
    spherical_sliced_wasserstein,
    wasserstein_1d,
    wasserstein_circle,
)

OUT = Path(__file__).parents[1] / "docs" / "distances"
BLUE, RED = "tab:blue", "tab:red"


def hours(axes: Axes, random: torch.Generator) -> None:
    """Bedtimes on a clock, and the pairs of the exact plan."""
    x = (22.5 + 1.8 * torch.randn(14, generator=random)) % 24
    y = (2.5 + 1.8 * torch.randn(14, generator=random)) % 24
    gap = (x[:, None] - y).abs()
    i, j = solve(torch.minimum(gap, 24 - gap).square()).plan.nonzero().T
    places = [r * on_clock(z) for r, z in ((1.0, x), (1.3, y))]
    axes.add_patch(Circle((0, 0), 1, fill=False, color="0.8"))
    axes.add_patch(Circle((0, 0), 1.3, fill=False, color="0.8"))
    lines = torch.stack([places[0][i], places[1][j]], 1)
    axes.add_collection(LineCollection(list(lines.numpy()), colors="0.5", linewidths=0.8))
    for place, colour in zip(places, (BLUE, RED)):
        axes.scatter(*place.T, s=16, color=colour)
    for hour in (0, 6, 12, 18):
        axes.text(*(0.82 * on_clock(torch.tensor(float(hour)))), f"{hour} h", ha="center")
    circle, line = wasserstein_circle(x, y, period=24), wasserstein_1d(x, y)
    axes.set_title(f"hours: W₂ = {circle:.1f} on the circle,\n{line:.1f} on the line")


def on_clock(hour: Tensor) -> Tensor:
    angle = torch.pi / 2 - hour * torch.pi / 12
    return torch.stack([angle.cos(), angle.sin()], -1)


def directions(axes: Axes, random: torch.Generator) -> None:
    """Unit vectors that descend the sliced distance to a ring of them, seen from in front."""
    x = normalize(torch.tensor([0.6, 0.5, 0.7]) + 0.12 * torch.randn(80, 3, generator=random))
    angle = 2 * torch.pi * torch.rand(80, generator=random)
    ring = torch.stack([0.65 * angle.cos(), 0.65 * angle.sin(), torch.full((80,), 0.75)], 1)
    y, path = normalize(ring + 0.04 * torch.randn(80, 3, generator=random)), [x]
    for _ in range(150):
        x = path[-1].clone().requires_grad_()
        circles = great_circles(50, 3, generator=random)
        power = spherical_sliced_wasserstein(x, y, circles=circles).square()
        (slope,) = torch.autograd.grad(power, x)
        path.append(normalize(x.detach() - 0.15 * len(x) * slope))
    axes.add_patch(Circle((0, 0), 1, fill=False, color="0.8"))
    lines = torch.stack(path, 1)[..., :2]
    axes.add_collection(LineCollection(list(lines.numpy()), colors="0.7", linewidths=0.6))
    axes.scatter(*path[0][:, :2].T, s=8, color="0.5", label="start")
    axes.scatter(*path[-1][:, :2].T, s=12, color=BLUE, label="after 150 steps")
    axes.scatter(*y[:, :2].T, s=12, facecolors="none", edgecolors=RED, label="target")
    axes.legend(loc="lower right", fontsize=7, frameon=False)
    first, last = (
        spherical_sliced_wasserstein(z, y, generator=random) for z in path[:: len(path) - 1]
    )
    axes.set_title(f"directions: the sliced distance descends\nfrom {first:.2f} to {last:.2f}")


def hierarchies(axes: Axes, random: torch.Generator) -> None:
    """The exact plan between points near the origin and far ones, along geodesics."""
    near = 0.4 * torch.randn(24, 2, generator=random)
    angle = 2 * torch.pi * torch.rand(24, generator=random)
    far = 6 * torch.stack([angle.cos(), angle.sin()], 1) + torch.randn(24, 2, generator=random)
    x, y = on_hyperboloid(near), on_hyperboloid(far)
    distances = hyperbolic_distances(x, y)
    plan = solve(distances)
    i, j = plan.plan.nonzero().T
    length, t = distances[i, j][:, None, None], torch.linspace(0, 1, 40)[:, None]
    start, end = ((share * length).sinh() / length.sinh() for share in (1 - t, t))
    lines = in_disk(start * x[i][:, None] + end * y[j][:, None])
    axes.add_patch(Circle((0, 0), 1, fill=False, color="0.8"))
    axes.add_collection(LineCollection(list(lines.numpy()), colors="0.5", linewidths=0.8))
    for z, colour in ((x, BLUE), (y, RED)):
        axes.scatter(*in_disk(z).T, s=14, color=colour)
    axes.set_title(f"the hyperbolic plane, in Poincaré's disk:\nW₁ = {plan.value:.2f}, exact")


def on_hyperboloid(z: Tensor) -> Tensor:
    return torch.cat([(1 + z.square().sum(-1, keepdim=True)).sqrt(), z], -1)


def in_disk(z: Tensor) -> Tensor:
    return z[..., 1:] / (1 + z[..., :1])


def main() -> None:
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    for axes, panel in zip(figure.subplots(1, 3), (hours, directions, hierarchies)):
        panel(axes, torch.Generator().manual_seed(0))
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    figure.savefig(OUT / "geometry.png", dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    main()
