r"""Divergences between two samples.

A divergence takes a model's sample x and a target sample y and returns a scalar to decrease
in x. The same object is a latent penalty (codes against the prior), a generator's loss (images
against data) and a metric. Divergences are **p-th powers** where a distance has a root, since
the gradient of the power is finite at zero.
"""

import abc

from torch import Tensor, nn

from monge.checks import order, sample_pair
from monge.kernels import Kernel, pair_sum
from monge.transport.sliced import sliced_power, uniform_directions


class Divergence(nn.Module, abc.ABC):
    """A function of two samples.

    `additive` is True where the value is a mean of terms that each belong to one sample, as
    with critics; several processes then need not gather their samples to compute it.
    """

    additive: bool = False

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        r"""
        Arguments:
            x: the model's sample, (n, \*).
            y: the target sample, (m, \*).

        Returns:
            A scalar to decrease in x.
        """


class MMD(Divergence):
    r"""Squared maximum mean discrepancy ‖E k(X, ·) - E k(Y, ·)‖² in the kernel's space.

    Unbiased (U-statistic, may be negative; n, m ≥ 2):

        Σ_{i≠j} k(x_i, x_j) / n(n-1) + Σ_{i≠j} k(y_i, y_j) / m(m-1) - 2 Σ_{i,j} k(x_i, y_j) / nm,

    biased (V-statistic, at least 0): the same with all i, j and n², m².

    Source: Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A kernel two-sample test", 2012.
    """

    def __init__(self, kernel: Kernel, unbiased: bool = True):
        super().__init__()
        self.kernel, self.unbiased = kernel, unbiased

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = sample_pair(x, y, least=2 if self.unbiased else 1)
        cross = pair_sum(self.kernel, x, y) / (len(x) * len(y))
        return self.within(x) + self.within(y) - 2 * cross

    def within(self, x: Tensor) -> Tensor:
        """The mean of k over the pairs of one sample (n, d)."""
        n, total = len(x), pair_sum(self.kernel, x)
        if self.unbiased:
            return total / (n * (n - 1))
        return (total + n * self.kernel.of_squared(x.new_zeros(1)).sum()) / n**2


class SlicedWasserstein(Divergence):
    """SW_p^p, a mean over fresh random directions at each call.

    The directions come from torch's global generator, which the trainer seeds by step.
    """

    def __init__(self, directions: int = 128, p: float = 2):
        super().__init__()
        self.directions, self.p = directions, order(p)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = sample_pair(x, y)
        theta = uniform_directions(self.directions, x.shape[1]).to(x)
        return sliced_power(x, y, theta, p=self.p)
