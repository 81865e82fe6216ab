"""Clouds of points: speed of the costs, and chairs and aeroplanes trained and judged.

    python benchmarks/clouds.py speed
    python benchmarks/clouds.py train --data FILE.npz --class chair [--weight λ]

`speed` times Chamfer's distance of 50 pairs of 2,048 points with gradient beside `torch.cdist` and
two minima, the assignments of a batch on one core and on two, and a step of training beside its
bare networks; medians of interleaved runs. `train` trains three models of one class, one thread
each: `pointcloud-wae`, the same with λ = 1e-9, and with an elementwise cost; and judges them on
the test part. Figures go to clouds.json, pictures to docs/clouds/.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from monge.builders import build, settled
from monge.config import Config, TrainingConfig
from monge.costs import chamfer, earth_mover
from monge.divergences import MMD, Divergence, SlicedWasserstein
from monge.draws import generator
from monge.kernels import multiscale_imq
from monge.models import AutoEncoder, evaluating
from monge.runs import Run
from monge.show.pictures import pictures_of, spread_over
from monge.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
RUNS, FIGURES = ROOT / "runs" / "clouds", Path(__file__).with_suffix(".json")
METHODS = {
    "wae": (),
    "free": ("--weight", "1e-9"),
    "elementwise": ("--set", "cost=elementwise"),
}
REPEATS = 20


def dense(x: Tensor, y: Tensor) -> Tensor:
    squared = torch.cdist(x, y).square()
    return squared.amin(2).mean(1) + squared.amin(1).mean(1)


def seconds(work: dict[str, Callable[[], object]], count: int = 5) -> dict[str, float]:
    """Medians of interleaved runs."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(count + 1):
        for name, one in work.items():
            start = time.perf_counter()
            one()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def speed() -> dict[str, float]:
    x, y = torch.rand(2, 50, 2048, 3)
    y.requires_grad_()
    found = seconds(
        {
            "chamfer": lambda: chamfer(x, y).sum().backward(),
            "cdist and minima": lambda: dense(x, y).sum().backward(),
        },
        3,
    )
    few = x[:8], y[:8].detach()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found |= seconds({f"8 assignments, threads {threads}": lambda: earth_mover(*few)}, 3)
    config = Config.of("pointcloud-wae")
    facts = settled(config, "cloud", (2048, 3), samples=1000)
    model = build(config, facts)
    assert isinstance(model, AutoEncoder)
    trainer = Trainer(model, TrainingConfig(lr=5e-4))
    bare = build(config, facts)
    assert isinstance(bare, AutoEncoder)
    optimiser = torch.optim.Adam(bare.parameters(), 5e-4, fused=True)

    def networks() -> None:
        optimiser.zero_grad()
        (bare.decode(bare.encode(x).mean) - x).square().mean().backward()
        optimiser.step()

    found |= seconds(
        {
            "a step": lambda: trainer.step([x]),
            "its networks": networks,
            "its networks and cost": lambda: (
                chamfer(x, bare.decode(bare.encode(x).mean)).sum().backward()
            ),
        },
        3,
    )
    return found


def train(method: str, shape: str, data: str, steps: int, weight: str | None) -> Path:
    """A run, trained unless it exists."""
    more = ("--weight", weight) if weight and method == "wae" else METHODS[method]
    out = RUNS / f"{shape}-{method}"
    command = [
        "train",
        "pointcloud-wae",
        "--data",
        data,
        "--classes",
        shape,
        "--steps",
        str(steps),
        "--threads",
        "1",
        "--out",
        str(out),
        *more,
    ]
    if not (out / "report.html").exists():
        if out.exists():
            command.append("--resume")
        with (RUNS / f"{out.name}.log").open("w") as log:
            subprocess.run(
                [sys.executable, "-m", "monge", *command],
                check=True,
                stderr=log,
                stdout=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
    return out


def match(model: AutoEncoder, x: Tensor) -> dict[str, dict[str, float]]:
    """Distances of codes of clouds to prior draws, and of prior draws among themselves: both
    means over pairs of samples of as many codes, of estimators that are never negative."""
    with evaluating(model):
        codes = torch.cat([model.encode(part).mean for part in x.split(100)])
    drawn = [model.prior.sample(len(codes), generator(0, "match", i)) for i in range(REPEATS + 1)]
    divergences: dict[str, Divergence] = {
        "MMD²": MMD(multiscale_imq(model.prior.spread), unbiased=False),
        "SW²": SlicedWasserstein(1000),
    }
    return {
        name: {
            "value": statistics.fmean(float(one(codes, z)) for z in drawn[1:]),
            "floor": statistics.fmean(float(one(a, b)) for a, b in pairwise(drawn)),
        }
        for name, one in divergences.items()
    }


def judge(run: Run) -> dict[str, object]:
    model = run.model
    assert isinstance(model, AutoEncoder)
    return {
        "figures": run.evaluate()["figures"],
        "codes of the test part": match(model, run.source.test),
        "codes of the training part": match(model, run.source.train),
        "training seconds": run.metrics()[-1]["seconds"],
    }


def draw(run: Run) -> None:
    model, folder = run.model, ROOT / "docs" / "clouds"
    assert isinstance(model, AutoEncoder)
    folder.mkdir(exist_ok=True)
    x = run.source.test[spread_over(len(run.source.test), 8)]
    with evaluating(model):
        y = model.reconstruct(x)
    drawn = run.sample(16, generator(1, "look"))
    pictures = pictures_of(run.source.kind)
    made = {
        "reconstructions": pictures.reconstructions(x, y),
        "samples": pictures.samples(drawn),
    }
    for name, picture in made.items():
        picture.save(folder / f"{run.name}-{name}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("speed", "train"))
    parser.add_argument("--data")
    parser.add_argument("--class", dest="shape", default="chair")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--weight", help="λ of the WAE, by default the recipe's")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    made: dict[str, object] = {}
    if given.what == "speed":
        made["speed"] = speed()
    else:
        with ThreadPoolExecutor(given.jobs) as pool:
            paths = list(
                pool.map(
                    lambda one: train(one, given.shape, given.data, given.steps, given.weight),
                    METHODS,
                )
            )
        for path in paths:
            made[path.name] = judge(run := Run(path))
            draw(run)
    found = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    FIGURES.write_text(json.dumps(found | made, indent=1) + "\n")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
