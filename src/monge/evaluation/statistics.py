"""What is measured, and what is kept of samples to measure it."""

import torch
from torch import Tensor

from monge.evaluation.frechet import Moments

Measured = dict[str, float]
Figure = dict[str, float | None]
"""A value with its deviation over draws and its noise floor, None where there is none."""


def figure(value: float, floor: float | None = None) -> Figure:
    """A figure that is measured once."""
    return {"value": value, "deviation": None, "floor": floor}


class Statistics:
    """What is kept of n samples that come in batches."""

    def __init__(self, n: int):
        self.n, self.count = n, 0
        self.fifths: list[Moments] = []
        self.sharpness = 0.0
        self._kept: dict[str, list[Tensor]] = {}

    def keep(self, name: str, rows: Tensor) -> None:
        """Keeps rows of a batch under a name."""
        self._kept.setdefault(name, []).append(rows)

    def __getitem__(self, name: str) -> Tensor:
        """All rows that were kept under a name."""
        if len(self._kept[name]) > 1:
            self._kept[name] = [torch.cat(self._kept[name])]
        return self._kept[name][0]

    def moments(self, rows: Tensor) -> None:
        """Takes features of the next samples into the fifth of the n where they belong."""
        self.fifths = self.fifths or [Moments(rows.shape[1]) for _ in range(5)]
        edges = [i * self.n // 5 - self.count for i in range(6)]
        for fifth, first, last in zip(self.fifths, edges, edges[1:]):
            if len(part := rows[max(first, 0) : max(last, 0)]):
                fifth.update(part)
