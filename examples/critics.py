"""Clipped weights against a gradient penalty: the weights of two critics, and their slopes.

python examples/critics.py
"""

import torch
from common import save, trained
from matplotlib.figure import Figure
from toys import OWN

from monge.adversarial import critic_values
from monge.draws import generator


def slopes(critic, x: torch.Tensor) -> torch.Tensor:
    """‖∇D‖ at each row of x."""
    x = x.requires_grad_()
    (gradient,) = torch.autograd.grad(critic_values(critic, x).sum(), x)
    return gradient.norm(dim=1)


def main() -> None:
    torch.set_num_threads(1)
    figure = Figure(figsize=(12, 6.4))
    cases = {"wgan": "clipping at 0.01", "wgan-gp": "gradient penalty"}
    for row, (recipe, title) in zip(figure.subplots(2, 3), cases.items()):
        run = trained(recipe, "swiss-roll", f"swiss-roll-{recipe}", **OWN[recipe])
        critic, door = run.model.divergence.critic, run.model.door
        weights = torch.cat([p.detach().flatten() for p in critic.parameters()])
        real = door(run.source.test[:2000])
        fake = door(run.model.sample(2000, generator(0, "critics")))
        t = torch.rand(2000, 1, generator=generator(0, "between"))
        between = slopes(critic, t * real + (1 - t) * fake)
        row[0].hist(weights.numpy(), 101)
        row[0].set_title(f"{title}: weights of the critic", fontsize=9)
        row[1].hist(between.numpy(), 60)
        row[1].set_title(f"‖∇D‖ between data and samples, mean {between.mean():.3g}", fontsize=9)
        line = torch.linspace(-3, 3, 150)
        plane = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).flatten(0, 1)
        with torch.no_grad():
            values = critic_values(critic, plane).view(150, 150)
        row[2].contourf(line, line, values, 20, cmap="viridis")
        row[2].scatter(*real[:500].T, s=2, color="white", linewidths=0)
        row[2].set_title("levels of D, with data", fontsize=9)
        clipped = (weights.abs() > 0.0099).float().mean()
        print(
            title,
            f"slope {between.mean():.4g} ± {between.std():.2g}, "
            f"largest weight {weights.abs().max():.3g}, {clipped:.0%} of weights within 1 % "
            "of 0.01 or beyond",
        )
    save(figure, "critics")


if __name__ == "__main__":
    main()
