"""Transport distances with their gradients: monge, POT, GeomLoss, OTT-JAX and plain PyTorch.

    OMP_NUM_THREADS=1 python benchmarks/transport.py [--only WORD ...] [--memory] [--write]

Every row computes a value and its gradient in x on the same inputs (those marked "value", which
are in `transport_plans.py`, only the value), in one process, on the same number of threads; where
directions are drawn, all take the same ones. Values are compared before anything is timed.
Entropic solvers stop at the same L1 marginal error: GeomLoss, which has no stopping rule, gets its
smallest scaling that reaches it, OTT the fastest of its accelerations. Ratios of medians over
alternating rounds are the result: in processor time on one thread, for which other programs count
little, and else on the wall's clock, which is recorded beside it. `--memory` measures in processes
of their own how far the resident memory rises. `--write` puts each figure here and in the docs as
it comes, among those of other rows.
"""

import argparse
import functools
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import ot
import ott
import torch
import transport_entropic as entropic
import transport_plans as plans
import transport_samples as samples
from transport_row import Row

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "distances.md"
PEERS = ("plain", "POT", "GeomLoss", "OTT")
SLOW = 10.0
"""Seconds above which a subject is timed once."""


ROWS: dict[str, Callable[[], Row]] = {
    "sliced W2 (256, 8, 50)": lambda: samples.sliced(256, 8, 50, 12),
    "sliced W2 (1,024, 784, 1,000)": lambda: samples.sliced(1024, 784, 1000, 4),
    "sliced W2 (10,000, 64, 1,000)": lambda: samples.sliced(10_000, 64, 1000, 25),
    "sliced W2 (1,000,000, 3, 50)": lambda: samples.sliced(1_000_000, 3, 50, 12, libraries=False),
    "sliced W2, weighted (10,000 / 7,000, 64, 100)": lambda: samples.unequal(
        10_000, 7_000, 64, 100
    ),
    "max-sliced W2 (10,000, 64)": lambda: samples.max_sliced(10_000, 64),
    "line, 10⁶ points, value": lambda: samples.line(10**6, gradient=False),
    "line, 10⁶ points": lambda: samples.line(10**6, gradient=True),
    "line, 10⁷ points, value": lambda: samples.line(10**7, gradient=False),
    "line, 10⁷ points": lambda: samples.line(10**7, gradient=True),
    "MMD (1,024, 64)": lambda: samples.mmd(1024, 64, 2),
    "MMD (8,192, 64)": lambda: samples.mmd(8192, 64, 9),
    "MMD (65,536, 64)": lambda: samples.mmd(65_536, 64, 1, others=False),
    **{
        f"Sinkhorn divergence ({n:,}, {d}), blur {blur}": functools.partial(
            entropic.divergence, n, d, blur, target
        )
        for n, target in ((1024, 2.3), (4096, 2.8), (10_000, 3.0))
        for d in (3, 64)
        for blur in (0.5, 0.05)
    },
    "Sinkhorn divergence (100,000, 3), blur 0.5": lambda: entropic.divergence(
        100_000, 3, 0.5, others=False
    ),
    **{
        f"unbalanced Sinkhorn divergence ({n:,}, {d}), blur {blur}, ρ {rho}": functools.partial(
            entropic.unbalanced, n, d, blur, rho
        )
        for n, rho in ((1024, 0.1), (1024, 1.0), (4096, 1.0))
        for d in (3, 64)
        for blur in (0.5, 0.15)
    },
    "exact W2 (1,000, 3)": lambda: samples.exact(1000, 3, 1.5),
    "exact W2 (2,000, 3)": lambda: samples.exact(2000, 3, 1.5),
    "exact W2 (5,000, 3)": lambda: samples.exact(5000, 3, 2),
    "256 × exact W2 (64, 3)": lambda: samples.batched_exact(256, 64, 3, 4),
    "256 × Sinkhorn (64, 3), blur 0.5": lambda: entropic.batch(256, 64, 3, 0.5, 5),
    "256 × Sinkhorn (64, 3), blur 0.1": lambda: entropic.batch(256, 64, 3, 0.1, 5),
    "partial (1,000), 0.7 of the mass, value": lambda: Row(plans.partial(1000, 0.7)),
    **{
        f"entropic partial (500), ε {share} of the mean cost, value": functools.partial(
            lambda share: Row(plans.entropic_partial(500, 0.7, share)), share
        )
        for share in (0.1, 0.03)
    },
    "free-support barycenter, 3 × 300 points, value": lambda: Row(
        plans.free_support(3, 300, 10), target=2.0
    ),
    **{
        f"histogram barycenter, 3 × {bins:,} bins, value": functools.partial(
            lambda bins: Row(plans.fixed_support(bins, 5e-3), target=2.0), bins
        )
        for bins in (500, 2000)
    },
    "image barycenter, 3 × 64 × 64, value": lambda: Row(plans.images(64, 5e-3), target=2.0),
    "Gaussian barycenter, 10 in 20 dimensions, value": lambda: Row(
        plans.gaussians(10, 20), target=2.0
    ),
    "semidiscrete to 1 % (300, 3), value": lambda: Row(
        plans.semidiscrete(300, 3), math.inf, target=10.0
    ),
    "low rank 20 (2,000, 3), value": lambda: Row(plans.low_rank(2000, 3, 20), math.inf),
    "Gromov-Wasserstein (500)": lambda: samples.gromov(500),
    "Gromov-Wasserstein (1,000)": lambda: samples.gromov(1000),
}


def made(name: str) -> Row:
    """The row, with the same inputs whatever ran before."""
    torch.manual_seed(0)
    return ROWS[name]()


def measure(row: Row, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds of each subject, by the processor's clock and by the wall's; a line if
    they do not agree."""
    values, times = {}, {}
    for name, run in row.subjects.items():
        values[name], *first = timed(run)
        # the first run compiles, or reads tables
        times[name] = [first if first[0] > SLOW else timed(run)[1:]]
    for name, value in values.items():
        if abs(value - values["monge"]) > row.tolerance * abs(values["monge"]):
            print(f"  {name} disagrees: {values}")
    repeats = {name: min(200, max(1, round(0.02 / times[name][0][0]))) for name in times}
    for _ in range(rounds):
        for name, run in row.subjects.items():
            if times[name][0][0] < SLOW:
                times[name].append(timed(run, repeats[name])[1:])
    print("  values:", {name: round(value, 5) for name, value in values.items()})
    processor, wall = (
        {name: 1e3 * statistics.median(pair[k] for pair in found) for name, found in times.items()}
        for k in (0, 1)
    )
    return processor, wall


def timed(run: Callable[[], float], repeats: int = 1) -> tuple[float, float, float]:
    """The value, and the seconds of a run by the processor's clock and by the wall's."""
    began, of_wall, value = time.process_time(), time.perf_counter(), math.nan
    for _ in range(repeats):
        value = run()
    seconds = time.process_time() - began, time.perf_counter() - of_wall
    return value, seconds[0] / repeats, seconds[1] / repeats


def resident(field: str) -> int:
    """Kilobytes from the process's own account."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if field in x)
    return int(line.split()[1])


def alone(name: str, subject: str) -> None:
    """Prints by how many megabytes the resident memory rises while a subject runs."""
    entropic.ours_alone = subject == "monge"
    run = made(name).subjects[subject]
    if subject == "OTT":
        run()  # compiles
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    run()
    print((resident("VmHWM") - before) // 1024)


def memory(name: str, subjects) -> dict[str, int]:
    command = [sys.executable, __file__, "--alone", name]
    return {
        subject: int(
            subprocess.run(
                [*command, subject], check=True, capture_output=True, text=True
            ).stdout.split()[-1]
        )
        for subject in subjects
    }


def table(results: dict[str, dict]) -> str:
    """The results in Markdown."""
    lines = [
        "| value and gradient | monge, ms | "
        + " | ".join(f"{p}, ×" for p in PEERS)
        + " | target, × | memory, MB: monge / least of the others |",
        "|---" * (len(PEERS) + 4) + "|",
    ]
    for name, found in results.items():
        times, space = found["milliseconds"], found.get("megabytes", {})
        ratios = [f"{times[p] / times['monge']:.1f}" if p in times else "" for p in PEERS]
        others = [f"{v:,}" for k, v in sorted(space.items(), key=lambda i: i[1]) if k != "monge"]
        spaces = f"{space['monge']:,} / {others[0] if others else '–'}" if space else ""
        if "monge, compiled" in times:
            name += f", compiled {times['monge, compiled']:,.1f} ms"
        if found["threads"] == 1:
            name += ", one thread"
        goal = f"{found['target']:g}" if len(times) > 1 else "runs"
        lines.append(
            f"| {name} | {times['monge']:,.1f} | {' | '.join(ratios)} | {goal} | {spaces} |"
        )
    return "\n".join(lines)


def machine() -> dict[str, str | int]:
    """What the figures depend on."""
    cpu = Path("/proc/cpuinfo").read_text()
    flags = cpu.split("flags", 1)[1].split("\n", 1)[0]
    versions = {m.__name__: m.__version__ for m in (torch, np, ot, ott, jax)}
    return {
        "processor": cpu.split("model name", 1)[1].split(":", 1)[1].split("\n", 1)[0].strip(),
        "vectors": "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "SSE",
        "geomloss": "0.3.1",
        **versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[""], help="words in the names of rows")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    if given.alone:
        alone(*given.alone)
        return
    results = {}
    for name in ROWS:
        if not any(word in name for word in given.only):
            continue
        print(name, flush=True)
        row = made(name)
        processor, wall = measure(row, given.rounds)
        threads = torch.get_num_threads()
        found: dict = {"milliseconds": processor if threads == 1 else wall, "target": row.target}
        found |= {"threads": threads, "wall": wall, "load": os.getloadavg()[0]}
        if given.memory and max(found["milliseconds"].values()) < 1e3 * SLOW:
            # the peers' settings for these take long to find
            subjects = ["monge"] if "Sinkhorn" in name else row.subjects
            found["megabytes"] = memory(name, subjects)
        results[name] = found
        print(table({name: found}).splitlines()[-1], flush=True)
        if given.write:
            record(results, given.rounds)
    print(table(results))
    print(f"most memory of this process: {resident('VmHWM') // 1024:,} MB")


def record(results: dict[str, dict], rounds: int) -> None:
    """Writes the results beside this file and into the docs, among those of other rows."""
    path = HERE / "transport.json"
    known = json.loads(path.read_text()).get("rows", {}) if path.exists() else {}
    # memory that was not measured again is that of before
    rows = {name: known.get(name, {}) | results.get(name, {}) for name in ROWS}
    rows = {name: row for name, row in rows.items() if row}
    about = {"machine": machine(), "rounds": rounds, "rows": rows}
    path.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    page, marks = DOCS.read_text(), r"(<!-- rates -->\n).*(<!-- end of rates -->)"
    DOCS.write_text(re.sub(marks, lambda m: f"{m[1]}\n{table(rows)}\n\n{m[2]}", page, flags=re.S))


if __name__ == "__main__":
    main()
