"""Couplings of a batch: monge and TorchCFM's OTPlanSampler, in one process.

    pip install --no-deps torchcfm==1.0.7
    OMP_NUM_THREADS=1 python benchmarks/couplings.py [--rounds 5]

Noise is N(0, I) in 64 dimensions, data are a mixture of ten Gaussians of deviation 1/2. Both make
as many pairs as the batch has samples, from the plan for the same cost and the same ε. Times are
medians of alternating rounds, pairs included, on one thread each: seconds of the processor, which
other processes do not change. Three settings of ε are TorchCFM's: that of its
Schrödinger bridge with σ = 1 (`reg` = 2), `normalize_cost` (`reg` = 0.05 in units of the largest
cost), and its default (`reg` = 0.05), which underflows here: it falls back to a uniform plan.

The quality of pairs is their mean squared distance and the share of the noise and of the data
that they use; TorchCFM draws pairs with replacement. `error` is the L1 marginal error of the plan.
TorchCFM's exact plan is POT's after at most 100,000 iterations, which is not optimal for large
batches; the row "exact, to the optimum" gives POT as many as it needs.

TorchCFM has no semidiscrete coupling. Its rows say what the fit to a whole data set took, and how
long a batch of 4,096 is paired with it. Figures go to couplings.json.
"""

import argparse
import functools
import json
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import ot
import torch
from torch import Tensor
from torchcfm.optimal_transport import OTPlanSampler

from monge.priors import Gaussian
from monge.transport import Coupling, Exact, Semidiscrete, Sinkhorn, sinkhorn, solve_semidiscrete

FIGURES = Path(__file__).with_suffix(".json")
DIMENSION = 64
SIZES = (256, 1024, 4096)
Pairs = tuple[Tensor, Tensor]


def samples(n: int) -> Pairs:
    random = torch.Generator().manual_seed(n)
    means = torch.randn(10, DIMENSION, generator=random)
    noise, spread = torch.randn(2, n, DIMENSION, generator=random)
    return noise, means[torch.randint(10, (n,), generator=random)] + spread / 2


def cases(largest: float) -> dict[str, tuple[Coupling, OTPlanSampler, float | None]]:
    """Couplings with those of TorchCFM, and their ε in units of the cost."""
    to_the_optimum = OTPlanSampler("exact")
    to_the_optimum.ot_fn = functools.partial(ot.emd, numItermax=10**9)
    return {
        "exact": (Exact(), OTPlanSampler("exact"), None),
        "exact, to the optimum": (Exact(), to_the_optimum, None),
        "sinkhorn, reg 2": (Sinkhorn(2.0, absolute=True), OTPlanSampler("sinkhorn", reg=2.0), 2.0),
        "sinkhorn, reg 0.05, normalised": (
            Sinkhorn(0.05 * largest, absolute=True),
            OTPlanSampler("sinkhorn", reg=0.05, normalize_cost=True),
            0.05 * largest,
        ),
        "sinkhorn, reg 0.05": (
            Sinkhorn(0.05, absolute=True),
            OTPlanSampler("sinkhorn", reg=0.05),
            0.05,
        ),
    }


def quality(pairs: Pairs, noise: Tensor, data: Tensor) -> dict[str, float]:
    """The mean cost of pairs, and how many of the samples they use."""
    cost = float((pairs[0] - pairs[1]).square().sum(1).mean())
    used = [len(part.unique(dim=0)) / len(whole) for part, whole in zip(pairs, (noise, data))]
    return {"cost": round(cost, 3), "noise": round(used[0], 3), "data": round(used[1], 3)}


def plan_error(plan: np.ndarray) -> float:
    """The larger L1 distance of the marginals from uniform ones."""
    return max(float(np.abs(plan.sum(side) - 1 / plan.shape[1 - side]).sum()) for side in (0, 1))


def timed(call: Callable[[], Pairs]) -> tuple[Pairs, float]:
    start = time.process_time()
    pairs = call()
    return pairs, time.process_time() - start


def compared(n: int, name: str, rounds: int) -> dict[str, object]:
    noise, data = samples(n)
    largest = float(torch.cdist(noise, data).square().max())
    ours, theirs, epsilon = cases(largest)[name]
    random = torch.Generator().manual_seed(0)
    calls = {
        "monge": lambda: ours.pairs(noise, data, random),
        "TorchCFM": lambda: theirs.sample_plan(noise, data),
    }
    times: dict[str, list[float]] = {one: [] for one in calls}
    pairs: dict[str, Pairs] = {}
    for _ in range(rounds + 1):
        for one, call in calls.items():
            pairs[one], seconds = timed(call)
            times[one].append(seconds)
    # the first round imports and allocates
    seconds = {one: statistics.median(taken[1:]) for one, taken in times.items()}
    row: dict[str, object] = {
        "n": n,
        "coupling": name,
        "milliseconds": {one: round(1e3 * value, 1) for one, value in seconds.items()},
        "ratio": round(seconds["TorchCFM"] / seconds["monge"], 2),
        "quality": {one: quality(pair, noise, data) for one, pair in pairs.items()},
    }
    if epsilon is not None:
        plan = sinkhorn(noise, data, epsilon=epsilon, tolerance=1e-3)
        errors = plan.marginal_error, plan_error(theirs.get_map(noise, data))
        row["error"] = {one: float(f"{error:.2g}") for one, error in zip(calls, errors)}
    return row


def fitted(points: int, dimension: int) -> dict[str, object]:
    """The fit of semidiscrete potentials, and what a batch then takes."""
    random = torch.Generator().manual_seed(points)
    means = torch.randn(10, dimension, generator=random)
    spread = torch.randn(points, dimension, generator=random)
    data = means[torch.randint(10, (points,), generator=random)] + spread / 2
    start = time.process_time()
    plan = solve_semidiscrete(Gaussian(dimension).sample, data, generator=random)
    seconds = time.process_time() - start
    noise = torch.randn(4096, dimension, generator=random)
    _, batch = timed(lambda: Semidiscrete(data, plan).pairs(noise))
    return {
        "points": points,
        "dimension": dimension,
        "seconds": round(seconds, 1),
        "iterations": plan.iterations,
        "error": round(plan.marginal_error, 3),
        "milliseconds a batch": round(1e3 * batch, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    versions = {name: version(name) for name in ("torch", "torchcfm", "POT", "numpy")}
    rows = []
    with warnings.catch_warnings():
        # TorchCFM's solver warns where it stops early or underflows; the figures say so
        warnings.simplefilter("ignore")
        for n in SIZES:
            for name in cases(1.0):
                rows.append(compared(n, name, options.rounds))
                print(json.dumps(rows[-1]), flush=True)
    whole = []
    for points, dimension in ((2000, 8), (2000, 64), (20_000, 8)):
        whole.append(fitted(points, dimension))
        print(json.dumps(whole[-1]), flush=True)
    figures = {"versions": versions, "rows": rows, "semidiscrete": whole}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
