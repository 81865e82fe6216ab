"""How often descents of Gromov-Wasserstein from several starts find the best plan.

    python benchmarks/gromov_starts.py

On pairs of random graphs of 7 nodes it is the best of all permutations, on graphs of 30 nodes and
their shuffled copies the plan of objective 0. Then partial plans: of 4 of the points of clouds of
6 and 5 beside the best of all, and of 20 points and their turned copies with 4 outliers on each
side. Two minutes on one core.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator

import networkx
import ot
import torch
from torch import Tensor

from monge.transport import (
    gromov_wasserstein,
    partial_gromov_wasserstein,
    shortest_paths,
    solve_entropic,
)

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


def cloud(n: int) -> Tensor:
    return torch.randn(n, 2).double()


def partial_clouds() -> None:
    """How many of the best partial permutations are found."""
    found = defaultdict(int)
    for seed in range(30):
        torch.manual_seed(seed)
        cx, cy = (torch.cdist(z, z) for z in (cloud(6), cloud(5)))
        best = min(
            float((cx[list(i)][:, list(i)] - cy[list(j)][:, list(j)]).square().sum()) / 36
            for i in itertools.combinations(range(6), 4)
            for j in itertools.permutations(range(5), 4)
        )
        a, b = (torch.full((n,), 1 / 6, dtype=torch.float64) for n in (6, 5))
        for starts in (1, 4, 8, 16, 32):
            plan = partial_gromov_wasserstein(cx, cy, a, b, mass=4 / 6, starts=starts)
            found[f"starts={starts}"] += float(plan.value) < best * (1 + 1e-6)
        arrays = [z.numpy() for z in (cx, cy, a, b)]
        value = float(ot.gromov.partial_gromov_wasserstein2(*arrays, m=4 / 6))
        found["POT"] += value < best * (1 + 1e-6)
    print("best partial permutation of 30:", dict(found))


def partial_copies() -> None:
    """How many turned copies are found beside outliers."""
    found = defaultdict(int)
    for seed in range(10):
        torch.manual_seed(seed)
        x, order = cloud(20), torch.randperm(20)
        y = x[order] @ torch.linalg.qr(cloud(2)).Q
        cx, cy = (torch.cdist(z, z) for z in (torch.cat([z, 3 * cloud(4)]) for z in (x, y)))
        for starts in (1, 4, 8, 16, 32):
            plan = partial_gromov_wasserstein(cx, cy, mass=20 / 24, starts=starts)
            found[f"starts={starts}"] += float(plan.value) < 1e-6
    print("copies beside outliers of 10:", dict(found))


def main() -> None:
    torch.set_num_threads(1)
    partial_copies()
    partial_clouds()
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
