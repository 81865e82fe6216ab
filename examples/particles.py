"""Particle flows of several divergences towards eight Gaussians, without any generator.

python examples/particles.py
"""

import torch
from common import save
from matplotlib.figure import Figure

import monge
from monge.draws import generator
from monge.networks import mlp
from monge.transport import wasserstein

COUNT, STEPS = 400, 200
STYLES = ["k:", "k--", "k-", "r:", "r--", "r-"]  # few colours survive in a small picture


def flows(spread: float) -> dict[str, tuple[monge.Divergence, dict]]:
    """Divergences in the units of the data, each with a rate that suits it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = mlp([2, 64, 64, 1])
    return {
        "MMD, inverse multiquadratics": (monge.MMD(monge.multiscale_imq(spread)), {"rate": 0.3}),
        "energy distance": (monge.EnergyDistance(), {"rate": 0.05}),
        "sliced $W_2^2$": (monge.SlicedWasserstein(32), {"rate": 0.1}),
        "Sinkhorn divergence": (monge.SinkhornDivergence(spread / 100), {"rate": 0.05}),
        "exact $W_2^2$": (monge.ExactWasserstein(), {"rate": 0.05}),
        "logistic critic": (
            monge.JensenShannon(critic),
            {"rate": 0.02, "inner_steps": 5, "inner_lr": 3e-3},
        ),
    }


def main() -> None:
    torch.set_num_threads(1)
    data = monge.data.load(monge.DataConfig("eight-gaussians")).train
    y = data[torch.randperm(len(data), generator=generator(0, "target"))[:COUNT]]
    x = 0.2 * y.std() * torch.randn(COUNT, 2, generator=generator(0, "start"))
    others = data[torch.randperm(len(data), generator=generator(1, "target"))[:COUNT]]
    floor, spread = float(wasserstein(others, y)), 2 * float(y.var(0).sum())
    figure = Figure(figsize=(13, 6.4))
    panels = figure.subplots(2, 4)
    curves, legend = panels[:, 3]
    for axes, (name, (divergence, options)) in zip(panels[:, :3].flat, flows(spread).items()):
        moved = monge.flow(
            x, divergence, y, steps=STEPS, record=5, generator=generator(0, name), **options
        )
        distances = [float(wasserstein(one, y)) for one in moved.path]
        axes.plot(*moved.path[:, ::4].unbind(2), color="tab:blue", alpha=0.25, linewidth=0.6)
        axes.scatter(*y.T, s=5, color="lightgrey", linewidths=0)
        axes.scatter(*moved.particles.T, s=5, color="tab:red", linewidths=0)
        axes.set_title(f"{name}: $W_2$ {distances[-1]:.2f}", fontsize=10)
        axes.set_aspect("equal")
        axes.axis("off")
        curves.plot(range(0, STEPS + 1, 5), distances, STYLES.pop(), label=name)
        print(f"{name}: W_2 {distances[0]:.3f} to {distances[-1]:.3f}")
    print(f"floor, another sample of the data: {floor:.3f}")
    curves.axhline(floor, color="grey", linewidth=4, alpha=0.3, label="another sample of the data")
    curves.set(yscale="log", xlabel="steps", title="$W_2$ to the target")
    legend.axis("off")
    legend.legend(*curves.get_legend_handles_labels(), frameon=False, loc="upper left", fontsize=9)
    save(figure, "particles")


if __name__ == "__main__":
    main()
