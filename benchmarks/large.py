"""Transport between many points: seconds, memory and error, in one process.

    OMP_NUM_THREADS=1 python benchmarks/large.py
    OMP_NUM_THREADS=1 python benchmarks/large.py --only "low rank"

Multiscale Sinkhorn is compared with the closed form of entropic transport between Gaussians, from
which samples differ by their fluctuation, and at 10⁴ points with the dense solver at the same
tolerance. Low-rank transport is compared with OTT-JAX, compiled before it is timed and with its
defaults but for the rank and for its two better ways to start; both find stationary points, so
that values count beside seconds. Seconds are those of the process, on one thread; memory is the
largest that the process had until then, of which 0.3 GB are torch. Rows of the JSON are replaced
one by one.
"""

import argparse
import json
import math
import os
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from monge.priors import Gaussian
from monge.transport import (
    low_rank_sinkhorn,
    multiscale_sinkhorn,
    multiscale_sinkhorn_divergence,
    sinkhorn,
    sliced_wasserstein,
    solve_semidiscrete,
    wasserstein_1d,
)

OUT = Path(__file__).with_suffix(".json")
SCALE, SHIFT = 1.3, 0.5
Row = dict[str, Any]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clouds(n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = seeded()
    x = torch.randn(n, d, generator=random)
    return x, SCALE * torch.randn(n, d, generator=random) + SHIFT


def closed_form(epsilon: float, d: int) -> float:
    """OT_ε of N(0, I) and N(SHIFT, SCALE² I) (Janati et al., 2020)."""
    sigma = epsilon / 2
    root = math.sqrt(4 * SCALE**2 + sigma**2)
    logs = sigma * (1 - math.log(2 * sigma) + math.log(root + sigma))
    return d * (1 + SCALE**2 + SHIFT**2 - root + logs)


def timed(function: Callable[[], Any]) -> tuple[Any, Row]:
    start = time.process_time()
    result = function()
    seconds = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return result, {"seconds": round(seconds, 2), "gigabytes": round(memory, 2)}


def multiscale(n: int, epsilon: float, d: int = 3) -> Row:
    x, y = clouds(n, d)
    x.requires_grad_()

    def solve():
        plan = multiscale_sinkhorn(x, y, epsilon=epsilon)
        torch.autograd.grad(plan.value, x)
        return plan

    plan, row = timed(solve)
    expected, value = closed_form(epsilon, d), float(plan.value.detach())
    account = {"value": value, "closed form": expected, "difference": value / expected - 1}
    return row | account | {"marginal error": plan.marginal_error, "iterations": plan.iterations}


def beside_the_dense_solver(n: int, epsilon: float) -> Row:
    x, y = clouds(n, 3)
    ours, row = timed(lambda: multiscale_sinkhorn(x, y, epsilon=epsilon))
    dense, other = timed(lambda: sinkhorn(x, y, epsilon=epsilon, tolerance=1e-2))
    tight, _ = timed(lambda: multiscale_sinkhorn(x, y, epsilon=epsilon, tolerance=1e-4))
    return row | {
        "dense seconds": other["seconds"],
        "ratio": round(other["seconds"] / row["seconds"], 2),
        "error of the value": float(ours.value / tight.value) - 1,
        "error of the dense value": float(dense.value / tight.value) - 1,
    }


def divergence(n: int, epsilon: float) -> Row:
    x, y = clouds(n, 3)
    value, row = timed(lambda: multiscale_sinkhorn_divergence(x, y, epsilon=epsilon))
    exact = 3 * (SHIFT**2 + (SCALE - 1) ** 2)
    return row | {"value": float(value), "W2 squared": exact}


def of_factors(x: torch.Tensor, y: torch.Tensor, factors: Any) -> float:
    """⟨C, Q diag(1/g) Rᵀ⟩."""
    q, r, g = (torch.tensor(z, dtype=torch.float64) for z in factors)
    x, y = x.double(), y.double()
    of_x = (q @ (r.sum(0) / g)) @ x.square().sum(1)
    of_y = (r @ (q.sum(0) / g)) @ y.square().sum(1)
    return float(of_x + of_y - 2 * ((q.T @ x) * (r.T @ y) / g[:, None]).sum())


def low_rank(n: int, d: int, rank: int, peer: bool = True) -> Row:
    x, y = clouds(n, d)
    plan, row = timed(lambda: low_rank_sinkhorn(x, y, rank=rank, generator=seeded()))
    row |= {"value": float(plan.value), "marginal error": plan.marginal_error}
    for start in ("rank2", "k-means") if peer else ():
        row |= of_ott(x, y, rank, start)
    return row


def of_ott(x: torch.Tensor, y: torch.Tensor, rank: int, start: str) -> Row:
    import jax
    import numpy as np
    from ott.geometry import pointcloud
    from ott.initializers.linear import initializers_lr
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn_lr

    kinds = {
        "rank2": initializers_lr.Rank2Initializer,
        "k-means": initializers_lr.KMeansInitializer,
    }
    solver = sinkhorn_lr.LRSinkhorn(rank=rank, initializer=kinds[start](rank))

    def solve(x: Any, y: Any) -> Any:
        out = solver(linear_problem.LinearProblem(pointcloud.PointCloud(x, y)))
        return out.q, out.r, out.g, out.converged

    arrays, compiled = (x.numpy(), y.numpy()), jax.jit(solve)
    jax.block_until_ready(compiled(*arrays))
    (*factors, converged), row = timed(lambda: jax.block_until_ready(compiled(*arrays)))
    value = of_factors(x, y, [np.array(z) for z in factors])
    name = f"OTT {start}"
    return {
        f"{name} seconds": row["seconds"],
        f"{name} value": value,
        f"{name} converged": bool(converged),
    }


def sliced(n: int) -> Row:
    x, y = clouds(n, 3)
    x.requires_grad_()

    def solve():
        value = sliced_wasserstein(x, y, directions=32, generator=seeded())
        return torch.autograd.grad(value, x)

    return timed(solve)[1]


def line(n: int) -> Row:
    x, y = (z[:, 0].clone().requires_grad_() for z in clouds(n, 1))
    return timed(lambda: torch.autograd.grad(wasserstein_1d(x, y), x))[1]


def semidiscrete(m: int, n: int) -> Row:
    """Fitting to m points, and assigning n samples to them."""
    data = torch.rand(m, 3, generator=seeded())
    plan, row = timed(
        lambda: solve_semidiscrete(Gaussian(3).sample, data, draws=32, generator=seeded())
    )
    z = torch.randn(n, 3, generator=seeded(1))
    _, other = timed(lambda: plan.assign(z))
    return row | {"assign seconds": other["seconds"], "marginal error": plan.marginal_error}


CASES: dict[str, Callable[[], Row]] = {
    "line 10⁶": lambda: line(10**6),
    "sliced 10⁶, 32 directions": lambda: sliced(10**6),
    "low rank 2,000, d = 3, r = 20": lambda: low_rank(2000, 3, 20),
    "low rank 10⁴, d = 3, r = 20": lambda: low_rank(10**4, 3, 20),
    "low rank 10⁴, d = 64, r = 20": lambda: low_rank(10**4, 64, 20),
    "low rank 10⁵, d = 64, r = 20": lambda: low_rank(10**5, 64, 20, peer=False),
    "semidiscrete 10⁴, assign 10⁶": lambda: semidiscrete(10**4, 10**6),
    "multiscale 10⁴, ε = 0.05": lambda: beside_the_dense_solver(10**4, 0.05),
    "divergence 2·10⁴, ε = 0.05": lambda: divergence(20_000, 0.05),
    "multiscale 10⁵, ε = 0.05": lambda: multiscale(10**5, 0.05),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="cases with this in their names")
    only = parser.parse_args().only
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.simplefilter("ignore")  # a limit of draws that is meant
    rows: dict[str, Row] = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name, case in CASES.items():
        if only in name:
            rows[name] = case()
            print(name, rows[name], flush=True)
            OUT.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
