"""How often descents of Gromov-Wasserstein from several starts find the best plan.

    python benchmarks/gromov_starts.py

On pairs of random graphs of 7 nodes it is the best of all permutations, on graphs of 30 nodes and
their shuffled copies the plan of objective 0. A minute on one core.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator

import networkx
import torch
from torch import Tensor

from monge.transport import gromov_wasserstein, shortest_paths, solve_entropic

SMALL, LARGE, PAIRS, COPIES = 7, 30, 60, 20


def random_graph(n: int, seed: int) -> Tensor:
    """The distances in a connected random graph."""
    for attempt in itertools.count():
        graph = networkx.gnp_random_graph(n, 0.35, seed=1000 * seed + attempt)
        if networkx.is_connected(graph):
            return shortest_paths(graph)
    raise AssertionError


def couplings(n: int, count: int, seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    costs = (torch.randn(n, n, generator=random).double() for _ in range(count))
    return [solve_entropic(cost, epsilon=0.5, tolerance=1e-9).plan for cost in costs]


def values(cx: Tensor, cy: Tensor, seed: int) -> Iterator[tuple[str, float]]:
    n = len(cx)
    product = torch.full((n, n), 1 / n**2).double()
    starts = {"product": product} | {f"starts={k}": k for k in (1, 4, 16)}
    starts |= {f"{k} random couplings": couplings(n, k, seed) for k in (4, 16)}
    for name, start in starts.items():
        yield name, float(gromov_wasserstein(cx, cy, starts=start).value)


def main() -> None:
    torch.set_num_threads(1)
    orders = torch.tensor(list(itertools.permutations(range(SMALL))))
    gaps, copies = defaultdict(list), defaultdict(list)
    for seed in range(PAIRS):
        cx, cy = random_graph(SMALL, seed), random_graph(SMALL, seed + 500)
        moved = cy[orders[:, :, None], orders[:, None, :]]
        best = float((cx - moved).square().mean((1, 2)).min())
        for name, value in values(cx, cy, seed):
            gaps[name].append(value / best - 1 if best else value)
    for seed in range(COPIES):
        cx = random_graph(LARGE, seed)
        order = torch.randperm(LARGE, generator=torch.Generator().manual_seed(seed))
        for name, value in values(cx, cx[order][:, order], seed):
            copies[name].append(value)
    for name in gaps:
        gap, copy = torch.tensor(gaps[name]), torch.tensor(copies[name])
        print(
            f"{name:20} best {int((gap < 1e-9).sum())} of {PAIRS}, 90 % "
            f"{float(gap.quantile(0.9)):.1%}, worst {float(gap.max()):.1%}; "
            f"copies {int((copy < 1e-9).sum())} of {COPIES}"
        )


if __name__ == "__main__":
    main()
