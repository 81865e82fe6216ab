"""What a data set is once it is read."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from monge.draws import permutation

HELD_OUT = 0.1


def as_floats(x: Tensor) -> Tensor:
    """Samples as networks take them: uint8 images to float32 in [0, 1], the rest as it is."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


@dataclass(frozen=True)
class Source:
    """Samples in memory: a training part and a test part that training never sees.

    Images are uint8 (n, c, h, w), or float32 in [0, 1]; vectors are float32 (n, d).
    """

    name: str
    kind: Literal["image", "vector"]
    train: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.train.shape[1:])

    def moments(self) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation of a table's columns; None for images.

        A constant column has deviation 1: it is shifted, not blown up.
        """
        if self.kind == "image":
            return None
        deviation, mean = torch.std_mean(self.train, 0, correction=0)
        return mean, torch.where(deviation > 0, deviation, 1.0)

    def to(self, device: str) -> "Source":
        """The same samples on another device."""
        return dataclasses.replace(self, train=self.train.to(device), test=self.test.to(device))


def split(name: str, kind, samples: np.ndarray, labels=None, test=None) -> Source:
    """A source from samples (n, …), with the rows `test` (n,) bool held out.

    Without `test`, a tenth (at most 10,000) is held out, the same rows each time.
    """
    n = len(samples)
    if n < 4:
        raise ValueError(f"`data` {name!r} holds {n} samples: at least 4 are needed")
    if test is None:
        test = np.zeros(n, dtype=bool)
        test[permutation(0, "held out", n)[: min(max(1, int(HELD_OUT * n)), 10_000)].numpy()] = (
            True
        )
    if not 1 <= test.sum() <= n - 2:
        raise ValueError(
            f"`data` {name!r} has {n - test.sum()} training and {test.sum()} test samples: "
            "at least 2 and 1 are needed"
        )
    pick = torch.from_numpy
    return Source(
        name,
        kind,
        pick(samples[~test]),
        pick(samples[test]),
        None if labels is None else pick(np.asarray(labels)[~test].astype(np.int64)),
        None if labels is None else pick(np.asarray(labels)[test].astype(np.int64)),
    )
