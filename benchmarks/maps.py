"""Transport maps and barycenters beside POT: seconds of the same work, in one process.

    OMP_NUM_THREADS=1 python benchmarks/maps.py

Inputs are float64 arrays; each row runs three times in turns, and the median counts. Entropic
solvers stop at a marginal error of 1e-6, barycenters after equally many iterations. `gap` is the
largest difference between both results, in units of their spread.
"""

import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ot
import torch

from monge.maps import EntropicMap, ExactMap, LinearMap
from monge.transport import (
    free_support_barycenter,
    gaussian_barycenter,
    grid_barycenter,
    histogram_barycenter,
)

OUT = Path(__file__).with_suffix(".json")
ROUNDS = 3
Subject = Callable[[], np.ndarray]


def samples(n: int, d: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)) * random.uniform(0.5, 2, d) + random.normal(size=d)


def rows() -> dict[str, tuple[Subject, Subject]]:
    x, y, new = samples(1000, 3, 0), samples(1000, 3, 1), samples(5000, 3, 2)
    few, more = samples(1000, 3, 0), samples(800, 3, 1)
    epsilon = 1.0
    entropic = {"reg_e": epsilon, "norm": None, "tol": 1e-6, "max_iter": 10_000}
    made: dict[str, tuple[Subject, Subject]] = {
        "exact map, 1,000 to 1,000, 5,000 new": (
            lambda: ExactMap().fit(x, y).transform(new),
            lambda: ot.da.EMDTransport(norm=None).fit(Xs=x, Xt=y).transform(Xs=new),
        ),
        "exact map, 1,000 to 800, 5,000 new": (
            lambda: ExactMap().fit(few, more).transform(new),
            lambda: ot.da.EMDTransport(norm=None).fit(Xs=few, Xt=more).transform(Xs=new),
        ),
        "entropic map, 1,000 to 1,000, its points": (
            lambda: EntropicMap(epsilon, tolerance=1e-6).fit(x, y).transform(x),
            lambda: ot.da.SinkhornTransport(**entropic).fit(Xs=x, Xt=y).transform(Xs=x),
        ),
        "linear map, 1,000 to 1,000, 5,000 new": (
            lambda: LinearMap(0.0).fit(x, y).transform(new),
            lambda: ot.da.LinearTransport(reg=0).fit(Xs=x, Xt=y).transform(Xs=new),
        ),
    }
    others = [samples(300, 2, seed) for seed in range(3)]
    uniform = [np.full(300, 1 / 300)] * 3
    made["exact barycenter, 3 of 300, 10 iterations"] = (
        lambda: quietly(
            free_support_barycenter, others, start=others[0], tolerance=1e-15, max_iterations=10
        ).points.numpy(),
        lambda: ot.lp.free_support_barycenter(
            others, uniform, others[0], numItermax=10, stopThr=1e-30
        ),
    )
    random = np.random.default_rng(0)
    factors = random.normal(size=(10, 20, 20))
    means, covs = random.normal(size=(10, 20)), factors @ factors.transpose(0, 2, 1) + np.eye(20)
    made["Gaussian barycenter, 10 in 20 dimensions"] = (
        lambda: gaussian_barycenter(means, covs, tolerance=1e-8)[1].numpy(),
        lambda: ot.gaussian.bures_wasserstein_barycenter(means, covs, num_iter=1000, eps=1e-8)[1],
    )
    places = np.linspace(0, 1, 500)
    b = np.stack([np.exp(-((places - m) ** 2) / 0.02) for m in (0.25, 0.5, 0.8)])
    b, cost = b / b.sum(1, keepdims=True), (places[:, None] - places) ** 2
    made["histograms, 3 of 500"] = (
        lambda: histogram_barycenter(
            b, cost, epsilon=5e-3, debiased=False, tolerance=1e-7
        ).masses.numpy(),
        lambda: ot.bregman.barycenter(b.T, cost, 5e-3, numItermax=10_000, stopThr=1e-7),
    )
    images = random.uniform(size=(3, 64, 64)) ** 8
    images /= images.sum((1, 2), keepdims=True)
    made["images, 3 of 64 × 64"] = (
        lambda: grid_barycenter(
            images, epsilon=5e-3, spacing=1 / 63, debiased=False, tolerance=1e-6
        ).masses.numpy(),
        lambda: ot.bregman.convolutional_barycenter2d(images, 5e-3, stopThr=1e-7),
    )
    return made


def quietly(function: Callable, *args, **named):
    """A result that stops at a limit on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **named)


def seconds(subject: Subject) -> float:
    began = time.perf_counter()
    subject()
    return time.perf_counter() - began


def main() -> None:
    torch.set_num_threads(1)
    found = {}
    for name, (ours, pots) in rows().items():
        one, two = quietly(ours), quietly(pots)
        gap = float(np.abs(one - two).max() / np.std(two))
        timed = [(quietly(seconds, ours), quietly(seconds, pots)) for _ in range(ROUNDS)]
        mine, theirs = (statistics.median(times) for times in zip(*timed))
        found[name] = {"monge": mine, "POT": theirs, "ratio": theirs / mine, "gap": gap}
        print(f"{name:45} {mine:9.4f} {theirs:9.4f} {theirs / mine:7.2f} x  gap {gap:.1e}")
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
