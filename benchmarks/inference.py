"""Times of the variational rows beside what they are held to.

    OMP_NUM_THREADS=1 python benchmarks/inference.py [--out benchmarks/inference.json] [--write]

Medians of five rounds that alternate with the peer's, on the same arrays. `--write` puts the
table into docs/figures.md.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.linear_model import BayesianRidge, LogisticRegression

from monge.inference import (
    ProbitEP,
    VariationalLinearRegression,
    coordinate_updates,
    mean_field,
    moment_matched,
)

ROUNDS = 5


def seconds(*calls: Callable) -> list[float]:
    """The median time of each call, in rounds that alternate."""
    times = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, spent in zip(calls, times):
            start = time.perf_counter()
            call()
            spent.append(time.perf_counter() - start)
    return [statistics.median(spent) for spent in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/inference.json"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    random = np.random.default_rng(0)
    rows: list[dict] = []
    table = ["| | seconds | peer | target |", "|---|---|---|---|"]

    def row(what: str, ours: float, target: str, peer: float | None = None) -> None:
        rows.append({"what": what, "seconds": ours, "peer seconds": peer, "target": target})
        beside = f"{peer:.3f}" if peer else "–"
        table.append(f"| {what} | {ours:.3f} | {beside} | {target} |")
        print(table[-1], flush=True)

    factor = torch.from_numpy(random.normal(size=(1000, 1200)))
    mean, precision = torch.zeros(1000).double(), factor @ factor.T / 1000
    row("`mean_field`, d = 1,000", *seconds(lambda: mean_field(mean, precision)), "1 s")
    row("`moment_matched`, d = 1,000", *seconds(lambda: moment_matched(mean, precision)), "1 s")
    start = torch.ones(1000).double()
    updates = seconds(lambda: coordinate_updates(mean, precision, start, 100))
    row("`coordinate_updates`, d = 1,000, 100 sweeps", *updates, "–")

    X = random.normal(size=(100_000, 100))
    y = X @ random.normal(size=100) + random.normal(size=100_000)
    ours, peer = seconds(
        lambda: VariationalLinearRegression().fit(X, y), lambda: BayesianRidge().fit(X, y)
    )
    what = "`VariationalLinearRegression`, 100,000 × 100 (BayesianRidge)"
    row(what, ours, "2 s, 2 × the peer", peer)
    X, labels = X[:10_000, :20], (y[:10_000] > 0).astype(int)
    with warnings.catch_warnings():
        # no regard for the accuracy of moments here
        warnings.simplefilter("ignore")
        ours, peer = seconds(
            lambda: ProbitEP().fit(X, labels), lambda: LogisticRegression().fit(X, labels)
        )
    row("`ProbitEP`, 10,000 × 20 (LogisticRegression)", ours, "–", peer)
    versions = {module.__name__: module.__version__ for module in (np, sklearn, torch)}
    found = {"machine": platform.processor() or platform.machine(), "threads": 1, "rows": rows}
    given.out.write_text(json.dumps({**found, "versions": versions}, indent=1) + "\n")
    if given.write:
        page = Path("docs/figures.md")
        before, rest = page.read_text().split("<!-- inference -->\n")
        _, after = rest.split("<!-- end of inference -->")
        shown = "\n".join(["<!-- inference -->", *table, "<!-- end of inference -->"])
        page.write_text(before + shown + after)


if __name__ == "__main__":
    main()
