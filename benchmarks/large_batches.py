"""Divergences of 65,536 codes: seconds and memory of a value with its gradient.

    python benchmarks/large_batches.py [--codes 16384 65536] [--dim 8]

Each in a process of its own, whose peak memory above that before the first tensor is the figure;
a dense matrix of 65,536² float32 numbers is 17.2 GB. Figures go to large_batches.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from monge.divergences import MMD, EnergyDistance, SinkhornDivergence, SlicedWasserstein
from monge.kernels import multiscale_imq

FIGURES = Path(__file__).with_suffix(".json")
DIVERGENCES = {
    "MMD, seven scales": lambda dim: MMD(multiscale_imq(2.0 * dim)),
    "energy distance": lambda dim: EnergyDistance(),
    "sliced, 128 directions": lambda dim: SlicedWasserstein(128),
    "Sinkhorn, ε = dim / 2": lambda dim: SinkhornDivergence(dim / 2),
}


def measured(name: str, codes: int, dim: int) -> dict[str, float]:
    """Of one divergence, in this process."""
    torch.manual_seed(0)
    x, y = 1.2 * torch.randn(codes, dim) + 0.1, torch.randn(codes, dim)
    x.requires_grad_()
    divergence = DIVERGENCES[name](dim)
    divergence(x[:100], y[:100]).backward()  # what is set up once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    value = divergence(x, y)
    value.backward()
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "value": value.item(),
        "seconds": round(seconds, 2),
        "MB": round((after - before) / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=int, nargs="+", default=[16_384, 65_536])
    parser.add_argument("--dim", type=int, default=8)
    parser.add_argument("--only", help="one divergence, in this process")
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measured(given.only, given.codes[0], given.dim)))
        return
    made = {}
    for codes in given.codes:
        for name in DIVERGENCES:
            argv = ["--only", name, "--codes", str(codes), "--dim", str(given.dim)]
            done = subprocess.run(
                [sys.executable, __file__, *argv], check=True, capture_output=True, text=True
            )
            made[f"{name}, {codes:,} codes"] = json.loads(done.stdout)
            print(f"{name}, {codes:,} codes: {done.stdout.strip()}", flush=True)
    FIGURES.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
