"""What a divergence adds to a training step, for every recipe.

    python benchmarks/step.py [--paper]

An auto-encoder's penalty (value and gradient in the codes) as a share of the bare step of its
networks: forward, backward and optimiser, written by hand. A generator's divergence in units of
the matrix products that it cannot do without, timed on their own: of samples and data with the
directions for slices, with each other for kernels and costs, and back for the gradient. Medians
of alternating rounds; an inner step is one of the divergence's own, on the pair.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from monge.adversarial import Learned
from monge.builders import build, settled
from monge.config import Config
from monge.divergences import SlicedWasserstein
from monge.draws import Draws
from monge.models import AutoEncoder, Model
from monge.recipes import RECIPES
from monge.training import Trainer
from monge.training.passes import Batch

SHAPE = (1, 28, 28)


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def alternating(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one call that is not counted."""
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return {name: median(values) for name, values in times.items()}


def bare_step(model: Model, x: Tensor) -> Callable[[], object]:
    """Forward, backward and optimiser of the networks alone."""
    networks = (
        [model.encoder, model.decoder] if isinstance(model, AutoEncoder) else [model.decoder]
    )
    parameters = [p for network in networks for p in network.parameters()]
    optimiser = torch.optim.Adam(parameters, 1e-3, fused=True)

    def step():
        z = model.prior.sample(len(x))
        if isinstance(model, AutoEncoder):
            z = model.encode(x).mean
        loss = (model.decode(z) - x).square().sum() / len(x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def divergence_alone(model: Model, pair: tuple[Tensor, Tensor]) -> Callable[[], object]:
    """The value and its gradient in the model's sample."""
    x, y = pair[0].detach().requires_grad_(), pair[1].detach()

    def call():
        x.grad = None
        assert model.divergence is not None
        (model.weight * model.divergence(x, y)).backward()

    return call


def products(model: Model, pair: tuple[Tensor, Tensor]) -> Callable[[], object]:
    """The matrix products without which there is neither value nor gradient."""
    x, y = (z.detach().flatten(1) for z in pair)
    if isinstance(model.divergence, SlicedWasserstein):
        theta = torch.randn(model.divergence.directions, x.shape[1])
        slopes = torch.randn(len(x), len(theta))
        return lambda: (theta @ x.T, theta @ y.T, slopes @ theta)
    weights = torch.randn(len(x), len(y))
    return lambda: (x @ y.T, x @ x.T, y @ y.T, weights @ y, weights @ x)


def row(recipe: str, preset: str, rounds: int) -> str:
    config = Config.of(recipe, preset, "mnist")
    torch.manual_seed(0)
    model = build(config, settled(config, "image", SHAPE, samples=60_000)).train()
    x = torch.rand(config.training.batch, *SHAPE)
    with torch.no_grad():
        pair = model(x, Draws(0, 0, len(x))).pair
    calls = {"bare step": bare_step(model, x)}
    if model.divergence is not None:
        calls["divergence"] = divergence_alone(model, pair)
    if isinstance(model.divergence, Learned):
        (objective,) = Trainer(model, config.training).learned
        batch = Batch(x, Draws(0, 0, len(x)))
        calls["inner step"] = lambda: (objective.inner_gradient(pair, batch), objective.update())
    if not isinstance(model, AutoEncoder) and not isinstance(model.divergence, Learned):
        calls["products"] = products(model, pair)
    times = alternating(calls, rounds)
    cells = [f"{times['bare step'] * 1e3:,.1f} ms"]
    for name in ("divergence", "inner step"):
        share = times.get(name, 0.0) / times["bare step"]
        cells.append(f"{times[name] * 1e3:.2f} ms, {share:.1%}" if name in times else "–")
    bound = times["divergence"] / times["products"] if "products" in times else None
    cells.append("–" if bound is None else f"{bound:.2f}")
    return f"| `{recipe}` | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paper", action="store_true", help="the published networks, for MNIST")
    parser.add_argument("--only", nargs="*", default=list(RECIPES))
    given = parser.parse_args()
    preset, rounds = ("paper", 3) if given.paper else ("small", 30)
    print(f"preset {preset}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| recipe | bare step | divergence, of it | inner step, of it | of its products |")
    print("|---|---|---|---|---|")
    for recipe in given.only:
        print(row(recipe, preset, rounds), flush=True)


if __name__ == "__main__":
    main()
