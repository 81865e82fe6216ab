"""Two graphs matched: by the features of their nodes, by their structure, and by both.

python examples/graphs.py
"""

from pathlib import Path

import networkx
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from monge.transport import fused_gromov_wasserstein, shortest_paths

OUT = Path(__file__).parents[1] / "docs" / "structure"
SPOKES = 10
TITLES = {0.0: "features, α = 0", 0.5: "both, α = 0.5", 1.0: "structure, α = 1"}


def graphs() -> tuple[networkx.Graph, networkx.Graph, torch.Tensor, torch.Tensor, list[int]]:
    """A circular ladder with three features a node, and a shuffled copy with noise on them.

    The features vary slowly around the ladder: neighbours can hardly be told apart by them."""
    random = torch.Generator().manual_seed(1)
    first = networkx.circular_ladder_graph(SPOKES)
    order = torch.randperm(2 * SPOKES, generator=random).tolist()
    second = networkx.empty_graph(2 * SPOKES)
    second.add_edges_from((order[i], order[j]) for i, j in first.edges)
    angles = 2 * torch.pi * (torch.arange(2 * SPOKES) % SPOKES) / SPOKES
    inner = (torch.arange(2 * SPOKES) >= SPOKES) / 2
    x = torch.stack([angles.cos(), angles.sin(), inner], 1).double()
    y = torch.empty_like(x)
    y[order] = x + 0.3 * torch.randn(x.shape, generator=random)
    return first, second, x, y, order


def positions() -> torch.Tensor:
    """The two rings of the ladder."""
    angles = 2 * torch.pi * torch.arange(SPOKES) / SPOKES
    ring = torch.stack([angles.cos(), angles.sin()], 1)
    return torch.cat([ring, 0.55 * ring])


def draw(axes, graph, where, colours, wrong=()) -> None:
    lines = [where[list(edge)].numpy() for edge in graph.edges]
    axes.add_collection(LineCollection(lines, colors="0.75", linewidths=1, zorder=0))
    edges = ["black" if node in wrong else "none" for node in range(len(where))]
    axes.scatter(
        *where.T, c=colours, cmap="hsv", vmin=0, vmax=1, s=90, edgecolors=edges, linewidths=1.6
    )
    axes.set_aspect("equal")
    axes.axis("off")


def main() -> None:
    first, second, x, y, order = graphs()
    cx, cy = shortest_paths(first), shortest_paths(second)
    cost, truth = torch.cdist(x, y).square(), torch.tensor(order)
    where, moved = positions(), torch.empty(2 * SPOKES, 2)
    moved[order] = where
    # a colour for each spoke, lighter on the inner ring
    colours = (torch.arange(2 * SPOKES) % SPOKES) / SPOKES + (torch.arange(20) >= SPOKES) * 0.05
    figure = Figure(figsize=(12, 3.7), layout="constrained")
    panels = figure.subplots(1, 4)
    draw(panels[0], first, where, colours)
    panels[0].set_title("a graph;\nits shuffled copy, matched by", fontsize=11)
    for axes, (alpha, title) in zip(panels[1:], TITLES.items()):
        plan = fused_gromov_wasserstein(cost, cx, cy, alpha=alpha, starts=32).plan
        source = plan.argmax(0)
        wrong = (source != truth.argsort()).nonzero()[:, 0].tolist()
        draw(axes, second, moved, colours[source], wrong)
        found = 2 * SPOKES - len(wrong)
        axes.set_title(f"{title}\n{found} of {2 * SPOKES} nodes right", fontsize=11)
    figure.savefig(OUT / "graphs.png", dpi=90)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    main()
