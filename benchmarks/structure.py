"""Quadratic and partial transport beside POT, in one process, on the same inputs.

    python benchmarks/structure.py [--rounds 5] [--only WORD]

Each row is a value from the same start to the same tolerance, without gradient, which POT has by
the same formulas. The objectives are compared before anything is timed: both find stationary
points, of which ours may be the lower. Printed are medians of alternating rounds on one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import ot
import torch
from torch import Tensor

from monge.transport import (
    entropic_fused_gromov_wasserstein,
    fused_gromov_wasserstein,
    partial_gromov_wasserstein,
    solve_entropic_partial,
    unbalanced_gromov_wasserstein,
)

Subject = Callable[[], float]


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def matrices(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """A cost of features, and the distances of clouds in three and two dimensions."""
    x, y = doubles(n, 3), doubles(n, 2)
    cost = torch.cdist(doubles(n, 4), doubles(n, 4)).square()
    return cost, torch.cdist(x, x), torch.cdist(y, y)


def fused(n: int) -> tuple[Subject, Subject]:
    """Exact, from the product plan."""
    given, w = matrices(n), np.full(n, 1 / n)
    product = torch.full((n, n), 1 / n**2, dtype=torch.float64)
    options = {"alpha": 0.5, "max_iter": 10_000, "tol_rel": 1e-9, "tol_abs": 1e-9}
    return (
        lambda: float(fused_gromov_wasserstein(*given, starts=product).value),
        lambda: ot.gromov.fused_gromov_wasserstein2(*(z.numpy() for z in given), w, w, **options),
    )


def entropic_fused(n: int) -> tuple[Subject, Subject]:
    """Entropic, until the plan stands up to 10⁻⁶; POT's norm of the change is the Euclidean."""
    given, w = matrices(n), np.full(n, 1 / n)
    arrays = [z.numpy() for z in given]

    def theirs() -> float:
        options = {"epsilon": 0.5, "alpha": 0.5, "tol": 1e-6 / n, "max_iter": 10_000}
        return float(ot.gromov.entropic_fused_gromov_wasserstein2(*arrays, w, w, **options))

    def ours() -> float:
        plan = entropic_fused_gromov_wasserstein(*given, epsilon=0.5, max_iterations=10_000)
        return float(plan.value_linear)

    return ours, theirs


def partial(n: int) -> tuple[Subject, Subject]:
    """0.7 of the mass of clouds in three and two dimensions, from the product plan."""
    (_, cx, cy), w = matrices(n), np.full(n, 1 / n)
    product = torch.full((n, n), 0.7 / n**2, dtype=torch.float64)
    arrays = cx.numpy(), cy.numpy()
    options = {"m": 0.7, "tol": 1e-9, "numItermax": 10_000}
    return (
        lambda: float(partial_gromov_wasserstein(cx, cy, mass=0.7, starts=product).value),
        lambda: float(ot.gromov.partial_gromov_wasserstein2(*arrays, w, w, **options)),
    )


def unbalanced(n: int) -> tuple[Subject, Subject]:
    """Unbalanced with ρ 1 and ε 0.2, until the plan stands up to 10⁻⁶."""
    _, cx, cy = matrices(n)
    arrays, w = (cx.numpy(), cy.numpy()), np.full(n, 1 / n)
    options = {"max_iter": 2000, "tol": 1e-6, "max_iter_ot": 2000, "tol_ot": 1e-6}

    def ours() -> float:
        plan = unbalanced_gromov_wasserstein(cx, cy, epsilon=0.2, reach=1.0, max_iterations=2000)
        return float(plan.value)

    def theirs() -> float:
        _, _, log = ot.gromov.fused_unbalanced_gromov_wasserstein(
            *arrays, w, w, 1.0, 0.2, unbalanced_solver="sinkhorn_log", log=True, **options
        )
        return float(log["fugw_cost"])

    return ours, theirs


def entropic_partial(n: int, share: float) -> tuple[Subject, Subject]:
    """The entropic plan of 0.7 of the mass, to a marginal error of 10⁻⁶; ε is a share of the mean
    cost. POT stops at a change of its last projection."""
    cost, w = matrices(n)[0], np.full(n, 1 / n)
    epsilon = share * float(cost.mean())

    def ours() -> float:
        plan = solve_entropic_partial(cost, mass=0.7, epsilon=epsilon, tolerance=1e-6)
        return float(plan.value_linear)

    def theirs() -> float:
        plan = ot.partial.entropic_partial_wasserstein(
            w, w, cost.numpy(), epsilon, m=0.7, numItermax=100_000, stopThr=1e-6 / n
        )
        return float((plan * cost.numpy()).sum())

    return ours, theirs


ROWS: dict[str, Callable[[], tuple[Subject, Subject]]] = {
    "fused Gromov-Wasserstein (100)": lambda: fused(100),
    "fused Gromov-Wasserstein (500)": lambda: fused(500),
    "entropic fused Gromov-Wasserstein (100)": lambda: entropic_fused(100),
    "partial Gromov-Wasserstein (100)": lambda: partial(100),
    "partial Gromov-Wasserstein (300)": lambda: partial(300),
    "unbalanced Gromov-Wasserstein (100)": lambda: unbalanced(100),
    "entropic partial (500), ε 0.1": lambda: entropic_partial(500, 0.1),
    "entropic partial (500), ε 0.03": lambda: entropic_partial(500, 0.03),
}


def seconds(run: Subject) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, make in ROWS.items():
        if given.only not in name:
            continue
        torch.manual_seed(0)
        ours, theirs = make()
        values = ours(), theirs()
        times = [(seconds(ours), seconds(theirs)) for _ in range(given.rounds)]
        mine, other = (1000 * statistics.median(column) for column in zip(*times))
        print(
            f"{name:42} monge {mine:8.1f} ms  POT {other:8.1f} ms  ratio {other / mine:5.2f}  "
            f"values {values[0]:.6g} / {values[1]:.6g}",
            flush=True,
        )


if __name__ == "__main__":
    main()
