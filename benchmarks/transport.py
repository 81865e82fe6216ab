"""Transport distances with their gradients: monge, POT and plain PyTorch, side by side.

    python benchmarks/transport.py [--rounds 5] [--only WORD] [--out benchmarks/transport.json]

Every row computes a value and its gradient in x on the same inputs, in one process, with torch's
number of threads; where monge and the other take directions, they take the same ones. The values
are compared before anything is timed. Ratios of medians over alternating rounds are the result.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ot
import torch
from torch import Tensor

from monge.divergences import MMD
from monge.kernels import multiscale_imq
from monge.transport import sliced_wasserstein, uniform_directions, wasserstein, wasserstein_1d


class Row(NamedTuple):
    """A workload: what is computed by each, on tensors of which the first takes a gradient."""

    inputs: tuple[Tensor, ...]
    subjects: dict[str, Callable[..., Tensor]]
    tolerance: float = 1e-3


def sliced(n: int, d: int, count: int, pot: bool = True) -> Row:
    """SW_2 on given directions."""
    inputs = torch.randn(n, d), torch.randn(n, d) + 0.5, uniform_directions(count, d)

    def plain(x, y, theta):
        u, v = (x @ theta.T).sort(0).values, (y @ theta.T).sort(0).values
        return (u - v).square().mean().sqrt()

    subjects = {"monge": lambda x, y, t: sliced_wasserstein(x, y, directions=t), "plain": plain}
    if pot:
        subjects["POT"] = lambda x, y, t: ot.sliced_wasserstein_distance(x, y, projections=t.T)
    return Row(inputs, subjects)


def unequal(n: int, m: int, d: int, count: int) -> Row:
    """SW_2 between weighted samples of unlike sizes."""
    a, b = torch.rand(n, dtype=torch.float64), torch.rand(m, dtype=torch.float64)
    a, b = (a / a.sum()).float(), (b / b.sum()).float()
    inputs = torch.randn(n, d), torch.randn(m, d) + 0.5, uniform_directions(count, d), a, b
    return Row(inputs, {
        "monge": lambda x, y, t, a, b: sliced_wasserstein(x, y, a, b, directions=t),
        "POT": lambda x, y, t, a, b: ot.sliced_wasserstein_distance(x, y, a, b, projections=t.T),
    })  # fmt: skip


def line(n: int) -> Row:
    """W_2 on the line."""
    return Row((torch.randn(n), torch.randn(n)), {
        "monge": wasserstein_1d,
        "plain": lambda u, v: (u.sort().values - v.sort().values).square().mean().sqrt(),
        "POT": lambda u, v: ot.wasserstein_1d(u, v, p=2).sqrt(),
    })  # fmt: skip


def mmd(n: int, d: int) -> Row:
    """Unbiased MMD² with the seven-scale kernel."""
    ours = MMD(multiscale_imq(2.0 * d))

    def plain(x, y):
        def mean(x, y, off=0):
            squared = torch.cdist(x, y).square()
            scales = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
            k = sum(s * 2 * d / (s * 2 * d + squared) for s in scales)
            return (k.sum() - off) / (n * n if off == 0 else n * (n - 1))

        return mean(x, x, 7 * n) + mean(y, y, 7 * n) - 2 * mean(x, y)

    inputs = torch.randn(n, d), torch.randn(n, d) + 0.5
    return Row(inputs, {"monge": ours, "plain": plain})


def exact(n: int, d: int) -> Row:
    """W_2 between equally many points."""

    def pot(x, y):
        weights = torch.full((n,), 1 / n)
        return ot.emd2(weights, weights, ot.dist(x, y), numItermax=10**7).sqrt()

    return Row((torch.randn(n, d), torch.randn(n, d)), {"monge": wasserstein, "POT": pot})


ROWS: dict[str, Callable[[], Row]] = {
    "sliced W2 (256, 8, 50)": lambda: sliced(256, 8, 50),
    "sliced W2 (1,024, 784, 1,000)": lambda: sliced(1024, 784, 1000),
    "sliced W2 (10,000, 64, 1,000)": lambda: sliced(10_000, 64, 1000),
    "sliced W2 (1,000,000, 3, 50)": lambda: sliced(1_000_000, 3, 50, pot=False),
    "weighted (10,000 / 7,000, 64, 100)": lambda: unequal(10_000, 7_000, 64, 100),
    "line, 10⁶ points": lambda: line(10**6),
    "line, 10⁷ points": lambda: line(10**7),
    "MMD, n = 1,024, d = 64": lambda: mmd(1024, 64),
    "MMD, n = 8,192, d = 64": lambda: mmd(8192, 64),
    "exact W2, n = 1,000, d = 3": lambda: exact(1000, 3),
    "exact W2, n = 2,000, d = 3": lambda: exact(2000, 3),
}


def value_and_gradient(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]):
    """What is timed."""
    x = inputs[0].clone().requires_grad_()
    value = function(x, *inputs[1:])
    return float(value.detach()), torch.autograd.grad(value, x)[0]


def measure(row: Row, rounds: int) -> dict[str, float]:
    """Median milliseconds of each subject; an error if they do not agree."""
    times: dict[str, list[float]] = {name: [] for name in row.subjects}
    values = {name: value_and_gradient(f, row.inputs)[0] for name, f in row.subjects.items()}
    for name, value in values.items():
        if abs(value - values["monge"]) > row.tolerance * abs(values["monge"]):
            raise SystemExit(f"{name} disagrees: {values}")
    for _ in range(rounds):
        for name, function in row.subjects.items():
            began = time.perf_counter()
            value_and_gradient(function, row.inputs)
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    results = {}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, POT {ot.__version__}")
    print("| value and gradient | monge, ms | plain PyTorch, × | POT, × |\n|---|---|---|---|")
    for name, make in ROWS.items():
        if given.only not in name:
            continue
        results[name] = found = measure(make(), given.rounds)
        ratios = [
            f"{found[p] / found['monge']:.1f}" if p in found else "" for p in ("plain", "POT")
        ]
        print(f"| {name} | {found['monge']:.2f} | {' | '.join(ratios)} |", flush=True)
    if given.out:
        about = {"threads": torch.get_num_threads(), "torch": torch.__version__}
        result = {**about, "POT": ot.__version__, "rounds": given.rounds, "milliseconds": results}
        given.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
