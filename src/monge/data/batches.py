"""Batches as a pure function of seed and step: nothing to store, nothing to restore."""

import functools

from torch import Tensor

from monge.data.mapped import demand_whole
from monge.draws import permutation


class Batches:
    """Which samples each step sees.

    An epoch is a permutation of the n samples cut into batches of `size`. A remainder under two
    samples joins the batch before it, since a divergence of one sample is not defined; any other
    remainder is a smaller batch. Inner steps follow separate permutations.
    """

    def __init__(self, n: int, size: int, seed: int, least: int = 2):
        if size > n:
            raise ValueError(f"`batch` is {size} but there are {n} training samples: lower it")
        self.n, self.size, self.seed = n, size, seed
        remainder = n % size
        self.per_epoch = n // size + (remainder >= least)
        self._order = functools.lru_cache(maxsize=4)(
            lambda purpose, epoch: permutation(seed, f"{purpose} {epoch}", n)
        )

    def outer(self, step: int) -> Tensor:
        """The indices of the outer batch of `step`, (b,)."""
        return self._cut("outer", step)

    def inner(self, index: int) -> Tensor:
        """The indices of the run's inner batch number `index`, (b,)."""
        return self._cut("inner", index)

    def _cut(self, purpose: str, index: int) -> Tensor:
        demand_whole()  # the batch is read next
        epoch, position = divmod(index, self.per_epoch)
        start = position * self.size
        last = position == self.per_epoch - 1
        return self._order(purpose, epoch)[start : self.n if last else start + self.size]
