"""Transport maps beside POT: seconds of the same work, in one process.

    OMP_NUM_THREADS=1 python benchmarks/maps.py

Inputs are float64 arrays; each row runs in turns, and the median counts: in processor time, with
the seconds of the wall's clock beside it. Entropic solvers stop at a marginal error of 1e-6. `gap`
is the largest difference between both results, in units of their spread.
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

OUT = Path(__file__).with_suffix(".json")
ROUNDS = 5
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
    return made


def quietly(function: Callable, *args, **named):
    """A result that stops at a limit on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **named)


def seconds(subject: Subject) -> tuple[float, float]:
    """Of the processor's clock and of the wall's."""
    began, of_wall = time.process_time(), time.perf_counter()
    subject()
    return time.process_time() - began, time.perf_counter() - of_wall


def main() -> None:
    torch.set_num_threads(1)
    found = {}
    for name, (ours, pots) in rows().items():
        one, two = quietly(ours), quietly(pots)
        gap = float(np.abs(one - two).max() / np.std(two))
        runs = {"monge": ours, "POT": pots}
        times = {who: [] for who in runs}
        for _ in range(ROUNDS):
            for who, run in runs.items():
                times[who].append(quietly(seconds, run))
        medians = {
            who: [statistics.median(z) for z in zip(*pairs)] for who, pairs in times.items()
        }
        row = {who: seconds_of[0] for who, seconds_of in medians.items()}
        row |= {"ratio": row["POT"] / row["monge"], "gap": gap}
        found[name] = row | {f"{who}, wall": both[1] for who, both in medians.items()}
        print(f"{name:45} {row['monge']:9.4f} {row['POT']:9.4f} {row['ratio']:7.2f} x  {gap:.1e}")
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
