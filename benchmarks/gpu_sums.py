"""Section `sums` of gpu.py: MMD, sliced Wasserstein, nearest neighbours and Chamfer distances,
against the same by hand in torch; values and gradients."""

from typing import Any

import torch
from gpu_measured import Record, compared, importable, milliseconds
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from monge.costs import Chamfer
from monge.divergences import MMD
from monge.kernels import multiscale_imq
from monge.transport import sliced_wasserstein, uniform_directions
from monge.transport.neighbours import nearest

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
ROWS = 4096
"""Rows of a block of the sums by hand."""


def run(record: Record, device: torch.device, tiny: bool) -> None:
    record.attempt("SW2 small", lambda: slices(256, 8, 50, device))
    n, d, count = (500, 8, 20) if tiny else (100_000, 64, 1000)
    record.attempt("SW2", lambda: slices(n, d, count, device))
    record.attempt("SW2, shares", lambda: shares(n, d, count, device))
    for n in (64, 256) if tiny else (4096, 65_536):
        record.attempt(f"MMD, n = {n:,}", lambda n=n: mmd(n, 64, device), needs=5.0)
    for n in (100, 300) if tiny else (10_000, 65_536):
        for k in (1, 10):
            name = f"nearest, n = {n:,}, k = {k}"
            record.attempt(name, lambda n=n, k=k: neighbours(n, 64, k, device))
    shape = (2, 50) if tiny else (64, 2048)
    record.attempt("Chamfer", lambda: chamfer(*shape, device))


def pair(n: int, d: int, device: torch.device) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, d, generator=draws) for _ in range(2))
    return x.to(device), (y + 0.5).to(device)


def mmd(n: int, d: int, device: torch.device) -> dict[str, Any]:
    """Unbiased MMD² of the seven-scale kernel."""

    def rows_sum(rows: Tensor, columns: Tensor) -> Tensor:
        squared = torch.cdist(rows, columns).square()
        return torch.stack([(s * 2 * d / (s * 2 * d + squared)).sum() for s in SCALES]).sum()

    def total(x: Tensor, y: Tensor) -> Tensor:
        parts = [
            checkpoint(rows_sum, rows, y, use_reentrant=False) if n > ROWS else rows_sum(rows, y)
            for rows in x.split(ROWS)
        ]
        return torch.stack([part for part in parts if part is not None]).sum()

    def by_hand(x: Tensor, y: Tensor) -> Tensor:
        within = total(x, x) + total(y, y) - 2 * n * len(SCALES)
        return within / (n * (n - 1)) - 2 * total(x, y) / n**2

    return compared(MMD(multiscale_imq(2.0 * d)), {"torch": by_hand}, device, *pair(n, d, device))


def slices(n: int, d: int, count: int, device: torch.device) -> dict[str, Any]:
    """SW_2 along given directions."""
    theta = uniform_directions(count, d, generator=torch.Generator().manual_seed(0)).to(device)

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return sliced_wasserstein(x, y, directions=theta)

    def by_hand(x: Tensor, y: Tensor) -> Tensor:
        u, v = (theta @ x.T).sort(1).values, (theta @ y.T).sort(1).values
        return (u - v).square().mean().sqrt()

    def pot(x: Tensor, y: Tensor) -> Tensor:
        import ot

        return ot.sliced_wasserstein_distance(x, y, projections=theta.T)

    peers = {"torch": by_hand} | ({"POT torch": pot} if importable("ot") else {})
    return compared(ours, peers, device, *pair(n, d, device))


def shares(n: int, d: int, count: int, device: torch.device) -> dict[str, float]:
    """What SW_2 cannot do without: projections of both samples, and their sorts."""
    x, y = pair(n, d, device)
    theta = uniform_directions(count, d, generator=torch.Generator().manual_seed(0)).to(device)

    def floor() -> None:
        for z in (x, y):
            (theta @ z.T).sort(1)

    return {
        "projections and sorts, ms": milliseconds(floor, device),
        "projections, ms": milliseconds(lambda: (theta @ x.T, theta @ y.T), device),
    }


def neighbours(n: int, d: int, k: int, device: torch.device) -> dict[str, Any]:
    """The k nearest rows, with their distances."""
    x, y = pair(n, d, device)

    def by_hand() -> None:
        for rows in x.split(ROWS):
            torch.cdist(rows, y).topk(k, largest=False)

    return {
        "monge, ms": milliseconds(lambda: nearest(x, y, k), device),
        "torch, ms": milliseconds(by_hand, device),
    }


def chamfer(sets: int, points: int, device: torch.device) -> dict[str, Any]:
    """The mean Chamfer distance of a batch of clouds in space."""
    draws = torch.Generator().manual_seed(0)
    x, y = (torch.randn(sets, points, 3, generator=draws).to(device) for _ in range(2))

    def by_hand(x: Tensor, y: Tensor) -> Tensor:
        squared = torch.cdist(x, y).square()
        return (squared.amin(1).mean(1) + squared.amin(2).mean(1)).mean()

    cost = Chamfer()
    return compared(lambda x, y: cost(x, y).mean(), {"torch": by_hand}, device, x, y)
