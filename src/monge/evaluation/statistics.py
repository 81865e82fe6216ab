"""Figures, the estimators behind them, and the statistics of samples that estimators need."""

import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from monge.evaluation.frechet import Moments

HIGHER = ("precision", "recall", "density", "coverage", "coverage-CD", "coverage-EMD")
LOWER = (
    "test reconstruction",
    "KD",
    "pixel SW",
    "3 d SW²",
    "pyramid SW",
    "classes JS",
    "points JS",
    "W2 exact",
    "mean W1 of columns",
    "mean TV of columns",
    "worst correlation gap",
    "MMD-CD",
    "MMD-EMD",
    "energy score",
)
"""Figures that are best when small, as is every FD and MIND, and the distance of a single column.
Other figures are judged by their noise floors."""
OF_COLUMN = ("W1 of ", "TV of ")
"""How the names of figures of single columns begin."""

Measured = dict[str, float]
Figure = dict[str, float | None]
"""A value with its deviation over draws and its noise floor, None where there is none."""


def figure(value: float, floor: float | None = None) -> Figure:
    """A figure that is measured once."""
    return {"value": value, "deviation": None, "floor": floor}


def has_best(name: str) -> bool:
    """Whether a figure has a best value."""
    known = name in HIGHER or name in LOWER or name.startswith(OF_COLUMN)
    return known or "FD" in name or "MIND" in name


def best_value(name: str, values: Iterable[float]) -> float:
    """The best of several values of a figure that has one."""
    return max(values) if name in HIGHER else min(values)


def mean_figure(values: list[float], floor: float | None) -> Figure:
    """A figure that is measured once for each seed."""
    return {
        "value": statistics.fmean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "floor": floor,
    }


class Statistics:
    """The statistics of n samples that come in batches."""

    def __init__(self, n: int):
        self.n, self.count = n, 0
        self.parts: list[Moments] = []
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

    def moments(self, rows: Tensor, parts: int) -> None:
        """Takes features of the next samples into the moments of the successive parts of the n to
        which they belong."""
        self.parts = self.parts or [Moments(rows.shape[1]) for _ in range(parts)]
        edges = [i * self.n // parts - self.count for i in range(parts + 1)]
        for moments, first, last in zip(self.parts, edges, edges[1:]):
            if len(some := rows[max(first, 0) : max(last, 0)]):
                moments.update(some)


class Estimator(NamedTuple):
    """One computation, the figures that it gives, and how many samples it needs."""

    names: tuple[str, ...]
    least: int
    """The fewest samples, of the model and held out, for which the figures mean what they say."""
    compute: Callable[[Statistics], Measured]


def lacking(estimators: Iterable[Estimator], n: int) -> str:
    """The figures that n samples are too few for, with how many they need; may be empty."""
    return ", ".join(
        f"{', '.join(one.names)} ({'need' if len(one.names) > 1 else 'needs'} {one.least} samples)"
        for one in estimators
        if one.least > n
    )
