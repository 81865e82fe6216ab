"""Measures of a table column by column: marginals, and correlations of pairs of columns."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from monge.config import Schema
from monge.data import Source
from monge.evaluation.statistics import OF_COLUMN, Measured
from monge.transport import wasserstein_1d

MOST_VALUES = 10_000_000
"""How many values of a table are compared column by column, those of its first rows: 2,000 rows of
5,000 columns."""


class Marginals:
    """The columns of samples against those of the held-out samples, as they are outside.

    Samples are first rounded to the table: a category is its largest element, integers and
    decimals are rounded, and a cell is missing where its indicator exceeds ½.

    - `W1 of x`: Wasserstein-1 between the values of a number, in standard deviations of the
      training part. The mean stands for missing cells.
    - `TV of x`: total variation, ½ Σ_v |p_v - q_v|, between the labels of a category, in [0, 1];
      of `x missing` it is the difference between the shares of missing cells.
    - `worst correlation gap`: max |corr(x, y) - corr'(x, y)| over elements x and y of two
      columns: Pearson's for numbers, with the indicator of each value for categories.

    Args:
        source: a table, or vectors without names, whose columns are called by their numbers.
        real: the held-out samples (m, d') that are compared with.
    """

    def __init__(self, source: Source, real: Tensor):
        moments = source.moments()
        assert moments is not None
        self.mean, self.deviation = moments
        width = source.shape[0]
        self.schema = source.schema or Schema.unnamed(width)
        self.rows = max(100, MOST_VALUES // width)
        names = self.schema.distinct_names
        self.names = names if self.schema.header else [f"column {name}" for name in names]
        self.owner = torch.tensor(
            [i for i, column in enumerate(self.schema.columns) for _ in range(column.width)]
        )
        self.real = as_outside(self.schema, real[: self.rows])

    def __call__(self, samples: Tensor) -> Measured:
        """The figures of samples (n, d')."""
        outside = as_outside(self.schema, samples[: self.rows])
        x, y = self._standard(outside), self._standard(self.real)
        w1 = wasserstein_1d(x.T.contiguous(), y.T.contiguous(), p=1).tolist()
        # of shares, for indicators
        differences = (outside.double().mean(0) - self.real.double().mean(0)).abs()
        figures: Measured = {}
        for column, name, block in zip(self.schema.columns, self.names, self.schema.blocks):
            if column.kind == "category":
                figures[f"TV of {name}"] = 0.5 * float(differences[block].sum())
                continue
            figures[f"W1 of {name}"] = w1[block.start]
            if column.fill is not None:
                figures[f"TV of {name} missing"] = float(differences[block.start + 1])
        for kind in OF_COLUMN:
            values = [value for key, value in figures.items() if key.startswith(kind)]
            if values:
                figures[f"mean {kind}columns"] = sum(values) / len(values)
        if len(self.schema.columns) > 1:
            gap = self._correlations(x).sub_(self._real_correlations).abs_()
            figures["worst correlation gap"] = float(gap.max())
        return figures

    @functools.cached_property
    def _real_correlations(self) -> Tensor:
        return self._correlations(self._standard(self.real))

    def _standard(self, x: Tensor) -> Tensor:
        """Samples (n, d') in standard units."""
        return ((x - self.mean) / self.deviation).float()

    def _correlations(self, x: Tensor) -> Tensor:
        """Pearson's correlations (d', d') of elements of different columns, otherwise 0; 0 also of
        elements that do not vary."""
        centred = x - x.mean(0)
        norm = centred.norm(dim=0)
        centred = centred / torch.where(norm > 0, norm, 1.0)
        correlations = centred.T @ centred
        return correlations.masked_fill_(self.owner[:, None] == self.owner, 0.0)


def as_outside(schema: Schema, x: Tensor) -> Tensor:
    """Samples (n, d') with the values that they have outside: `schema.encode(schema.decode(x))`,
    for many columns at once."""
    x = x.clone()
    for decimals in {c.decimals for c in schema.columns if c.kind == "float"} - {None}:
        _round(schema, x, [c.decimals == decimals for c in schema.columns], decimals or 0)
    _round(schema, x, [c.kind == "integer" for c in schema.columns], 0)
    for column, block in zip(schema.columns, schema.blocks):
        if column.kind == "category":
            x[:, block] = torch.nn.functional.one_hot(
                x[:, block].argmax(1), len(column.values)
            ).to(x)
            continue
        if column.constant is not None:
            x[:, block.start] = column.constant
        if column.fill is not None:
            missing = x[:, block.start + 1] > 0.5
            x[:, block.start + 1] = missing.to(x)
            x[missing, block.start] = column.fill
    return x


def _round(schema: Schema, x: Tensor, chosen: Sequence[bool], decimals: int) -> None:
    """Rounds the numbers of the chosen columns, in place."""
    places = [block.start for block, one in zip(schema.blocks, chosen) if one]
    if places:
        x[:, places] = x[:, places].double().round(decimals=decimals).to(x)
