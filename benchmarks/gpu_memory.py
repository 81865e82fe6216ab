"""Section `memory` of gpu.py: the most memory at a million points, against that of the points."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from gpu_measured import Record, differentiated, peak_bytes, seconds_of
from torch import Tensor

from monge.divergences import MMD
from monge.kernels import multiscale_imq
from monge.transport import sinkhorn, sliced_wasserstein, uniform_directions
from monge.transport.neighbours import nearest

DIM = 16
SHARE = 8.0
"""Seconds that one entry may take."""


def run(record: Record, device: torch.device, tiny: bool) -> None:
    warnings.filterwarnings("ignore")  # Sinkhorn is stopped after a few iterations on purpose
    sizes = (2_000, 1_000) if tiny else (1_000_000, 300_000, 100_000)
    theta = uniform_directions(50, DIM, generator=torch.Generator().manual_seed(0)).to(device)

    def slices(x: Tensor, y: Tensor) -> Tensor:
        return sliced_wasserstein(x, y, directions=theta)

    def entropic(x: Tensor, y: Tensor) -> Tensor:
        options: dict[str, Any] = {"max_iterations": 2, "acceleration": None}
        return sinkhorn(x, y, epsilon=8.0, tolerance=1e-9, **options).value

    works: dict[str, Callable[[Tensor, Tensor], Callable[[], object]]] = {
        "SW2": lambda x, y: differentiated(slices, x, y),
        "nearest": lambda x, y: lambda: nearest(x, y),
        "MMD": lambda x, y: differentiated(MMD(multiscale_imq(2.0 * DIM)), x, y),
        "Sinkhorn, 2 iterations": lambda x, y: differentiated(entropic, x, y),
    }
    for name, work in works.items():
        record.attempt(name, lambda w=work: largest(w, sizes, device), needs=SHARE)


def pair(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, DIM, generator=draws) for _ in range(2))
    return x.to(device), (y + 0.5).to(device)


def largest(
    work: Callable[[Tensor, Tensor], Callable[[], object]],
    sizes: tuple[int, ...],
    device: torch.device,
) -> dict[str, float | int | None]:
    """The peak at the largest size whose time, quadratic in n at worst, is short enough."""
    trial = min(sizes) // 4
    small = work(*pair(trial, device))
    small()
    taken = seconds_of(small, device)
    n = next((n for n in sizes if taken * (n / trial) ** 2 < SHARE), min(sizes))
    run, points = work(*pair(n, device)), 4 * n * DIM
    took: list[float] = []
    peak = peak_bytes(lambda: took.append(seconds_of(run, device)), device)
    ratio = None if peak is None else round(peak / points, 2)
    return {
        "n": n,
        "d": DIM,
        "seconds": round(took[0], 3),
        "bytes": peak,
        "bytes of one sample": points,
        "ratio": ratio,
    }
