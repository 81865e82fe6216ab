"""Flows between distributions of the plane: TorchCFM's protocol, and its OT-CFM in the same loop.

    pip install --no-deps torchcfm==1.0.7
    OMP_NUM_THREADS=1 python benchmarks/flows_2d.py [--seeds 42] [--batch 128] [--steps 8000]

The protocol is that of Tong et al. (2024), Table 2, as the configurations of its repository have
it: 10,000 training and 1,000 test samples; a perceptron of three layers of 64 with SELU on (t, x);
AdamW with rate 1e-3 and weight decay 1e-5; pairs of each batch by exact optimal transport; noise
of deviation 0.1 around straight lines; Euler's method with 100 steps from the test sources. Its
tables have 19,000 steps of 512 samples, and five seeds; by default there are 8,000 steps of 128.

Both libraries train in one loop, with the same network at the start and the same batches in the
same order; what differs is who pairs them and draws times and noise. monge divides [0, 1] evenly
among the times of a batch, as `FlowMatching` does. W_2 is between what the test sources become and
the test targets, and the normalised path energy is |E∫‖v‖² dt - W_2²| / W_2² for the W_2 between
test sources and test targets. `averaged` has weights averaged with decay 0.999, the default of the
recipe, for both. `monge, semidiscrete` has pairs of noise with all training samples, where the
source is noise. Figures go to flows_2d.json after each training; those that are there are kept.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import make_moons, make_s_curve
from torch import Tensor, nn
from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

from monge.models import LinearPath
from monge.priors import Gaussian
from monge.transport import solve_semidiscrete, wasserstein
from monge.transport.couplings import Coupling, Exact, Semidiscrete

FIGURES = Path(__file__).with_suffix(".json")
TRAIN, TEST, SIGMA, DECAY = 10_000, 1_000, 0.1, 0.999
Targets = tuple[Tensor, Tensor, Tensor]
"""Times (n,), points (n, 2) and velocities (n, 2)."""


def normal(n: int, seed: int) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def eight_gaussians(n: int, seed: int) -> Tensor:
    """Of deviation 1, evenly on a circle of radius 5."""
    angle = 2 * math.pi * (torch.arange(n) % 8) / 8
    return 5 * torch.stack([angle.cos(), angle.sin()], 1) + normal(n, seed)


def moons(n: int, seed: int) -> Tensor:
    x = 2 * make_moons(n, noise=0.05, random_state=seed)[0] - np.array([1, 0])
    return torch.from_numpy(x).float()


def s_curve(n: int, seed: int) -> Tensor:
    x = make_s_curve(n, noise=0.05, random_state=seed)[0][:, [0, 2]]
    return torch.from_numpy(1.5 * x).float()


def wide_moons(n: int, seed: int) -> Tensor:
    x = torch.from_numpy(make_moons(n, noise=0.1, random_state=seed)[0])
    return (7 * (x - x.mean()) / x.std()).float()


def wide_gaussians(n: int, seed: int) -> Tensor:
    """Of deviation 1.5, on a circle of radius 12, each point in one of them at random."""
    random = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.randint(8, (n,), generator=random) / 8
    return 12 * torch.stack([angle.cos(), angle.sin()], 1) + 1.5 * normal(n, seed + 1)


ROWS: dict[str, tuple[Callable[[int, int], Tensor], Callable[[int, int], Tensor]]] = {
    "N → moons": (normal, moons),
    "N → scurve": (normal, s_curve),
    "N → 8gaussians": (normal, eight_gaussians),
    "moons → 8gaussians": (wide_moons, wide_gaussians),
}


class Velocity(nn.Module):
    """(t, x) to v, by three hidden layers of 64."""

    def __init__(self):
        super().__init__()
        sizes, layers = (3, 64, 64, 64), []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.SELU()]
        self.body = nn.Sequential(*layers, nn.Linear(64, 2))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.body(torch.cat([t[:, None], x], 1))


EXACT = Exact()
Method = Callable[[Tensor, Tensor], Targets]


def of_monge(x0: Tensor, x1: Tensor, coupling: Coupling = EXACT) -> Targets:
    x0, x1 = coupling.pairs(x0, x1)
    t = (torch.arange(len(x0)) + torch.rand(len(x0))) / len(x0)
    # pairs come in the order of the data, which has nothing to do with their place in it
    return (t, *LinearPath(SIGMA).at(x0, x1, t, torch.randn_like(x0)))


def of_torchcfm(x0: Tensor, x1: Tensor) -> Targets:
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=SIGMA)
    return matcher.sample_location_and_conditional_flow(x0, x1)


def semidiscrete(target: Tensor) -> Method:
    """Pairs of noise with the whole training set."""
    plan = solve_semidiscrete(Gaussian(2).sample, target, generator=torch.Generator())
    return partial(of_monge, coupling=Semidiscrete(target, plan))


METHODS: dict[str, Callable[[Tensor], Method]] = {
    "monge": lambda target: of_monge,
    "TorchCFM": lambda target: of_torchcfm,
    "monge, semidiscrete": semidiscrete,
}


def parts(draw: Callable[[int, int], Tensor], seed: int) -> tuple[Tensor, Tensor]:
    """Training and test samples."""
    x = draw(TRAIN + TEST, seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(42))
    return x[order[:TRAIN]], x[order[TRAIN:]]


def trained(
    method: Method,
    source: Tensor | None,
    target: Tensor,
    arguments: argparse.Namespace,
    seed: int,
) -> dict[str, Velocity]:
    """The network with its last weights, and with averaged ones. Without samples of the source
    noise is drawn afresh for each batch."""
    torch.manual_seed(seed)
    network = Velocity()
    averaged = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-5)
    batches = torch.Generator().manual_seed(seed)
    for step in range(arguments.steps):
        shape = (arguments.batch,)
        x1 = target[torch.randint(len(target), shape, generator=batches)]
        if source is None:
            x0 = torch.randn(x1.shape, generator=batches)
        else:
            x0 = source[torch.randint(len(source), shape, generator=batches)]
        t, x, u = method(x0, x1)
        loss = (network(t, x) - u).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay = min(DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            for one, other in zip(averaged.parameters(), network.parameters()):
                one.lerp_(other, 1 - decay)
    return {"last": network, "averaged": averaged}


@torch.no_grad()
def figures(network: Velocity, source: Tensor, target: Tensor) -> dict[str, float]:
    """W_2 to the test targets and the normalised path energy, by 100 steps of Euler's method."""
    x, energy, steps = source, 0.0, 100
    for k in range(steps):
        v = network(torch.full((len(x),), k / steps), x)
        x, energy = x + v / steps, energy + float(v.square().sum(1).mean()) / steps
    least = float(wasserstein(source, target)) ** 2
    reached = float(wasserstein(x, target))
    return {"W2": round(reached, 4), "NPE": round(abs(energy - least) / least, 4)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {"torchcfm": version("torchcfm"), "torch": torch.__version__, "trainings": []}
    if FIGURES.exists():
        found = json.loads(FIGURES.read_text(encoding="utf-8"))
    for seed in arguments.seeds:
        for row in arguments.rows:
            (_, x0), (train, x1) = (parts(draw, seed + i) for i, draw in enumerate(ROWS[row]))
            source = None if ROWS[row][0] is normal else parts(ROWS[row][0], seed)[0]
            for name in arguments.methods:
                if source is not None and METHODS[name] is semidiscrete:
                    continue  # which pairs noise
                began = time.process_time()
                made = trained(METHODS[name](train), source, train, arguments, seed)
                one = {"row": row, "method": name, "seed": seed}
                one |= {"batch": arguments.batch, "steps": arguments.steps}
                one |= {"seconds": round(time.process_time() - began)}
                one |= {kind: figures(network, x0, x1) for kind, network in made.items()}
                print(one, flush=True)
                found["trainings"].append(one)
                FIGURES.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
