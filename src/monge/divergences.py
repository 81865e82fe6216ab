r"""Divergences between two samples.

A divergence takes a model's sample x and a target sample y and returns a scalar to decrease
in x. The same object is a latent penalty (codes against the prior), a generator's loss (images
against data) and a metric. Divergences are **p-th powers** where a distance has a root, since
the gradient of the power is finite at zero. An order whose powers overflow, or vanish between
samples that differ, is refused.
"""

import abc
import math

import torch
from torch import Tensor, nn

from monge._core.checks import dimension, instance, order, points, positive, power, sample_pair
from monge._core.devices import to_device
from monge._core.promotion import ANY, promoted, promoted_powers
from monge._core.shown import Shown
from monge._core.tuning import tuning
from monge.draws import Draws
from monge.kernels import Energy, Kernel, pair_sum, sliced_gaussian
from monge.transport.directions import uniform_directions
from monge.transport.entropic import sinkhorn_divergence
from monge.transport.exact import power_and_scale
from monge.transport.penalties import Penalty, one_penalty, penalties
from monge.transport.sliced import slice_powers, sliced_power
from monge.transport.slicers import Slicer


class Divergence(Shown, nn.Module, abc.ABC):
    """A function of two samples."""

    additive: bool = False
    """True where the value is a mean of terms that each belong to one sample, as with critics:
    several processes then need not gather their samples to compute it."""
    random: bool = False
    """True where the value draws random numbers: `forward`, and `inner_loss` of a learned
    divergence, then take them from a keyword `draws` (a `monge.draws.Draws`)."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        r"""
        Args:
            x: the model's sample, (n, \*).
            y: the target sample, (m, \*).

        Returns:
            A scalar to decrease in x.
        """


def arguments(divergence: nn.Module, draws: Draws) -> dict[str, Draws]:
    """The keyword arguments of a divergence: `draws`, if it takes random numbers."""
    return {"draws": draws} if getattr(divergence, "random", False) else {}


class MMD(Divergence):
    r"""Squared maximum mean discrepancy ‖E k(X, ·) - E k(Y, ·)‖² in the kernel's space.

    Unbiased (U-statistic, may be negative; n, m ≥ 2):

        Σ_{i≠j} k(x_i, x_j) / n(n-1) + Σ_{i≠j} k(y_i, y_j) / m(m-1) - 2 Σ_{i,j} k(x_i, y_j) / nm,

    biased (V-statistic, at least 0): the same with all i, j and n², m².

    Both take x and y to be independent samples. Joint samples (φ_i, z_i) and (φ_i, z'_i) that
    share φ_i are not: their terms k(x_i, y_i) are larger than those of independent pairs, and the
    estimate is too low by a term of order 1/n. `paired=True` leaves them out, which is unbiased
    for independent pairs (x_i, y_i), whether x_i and y_i are independent or not:

        Σ_{i≠j} [k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)] / n(n-1).

    Args:
        kernel: k.
        unbiased: whether terms of a sample with itself are left out.
        paired: whether rows i of both samples may depend on each other, for n = m.

    Raises:
        ValueError: for `paired` without `unbiased`; when called, for fewer samples than needed,
            or a pair of other than equal sizes.

    Source: Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A kernel two-sample test", 2012, lemma 6
    and equation 4.
    """

    def __init__(self, kernel: Kernel, unbiased: bool = True, paired: bool = False):
        super().__init__()
        self.kernel = instance("kernel", kernel, Kernel, "RBF(1.0)")
        self.unbiased = instance("unbiased", unbiased, bool, "True")
        self.paired = instance("paired", paired, bool, "True")
        if paired and not unbiased:
            raise ValueError("`paired` is for the unbiased estimate: leave `unbiased` True")

    @promoted(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = sample_pair(x, y, least=2 if self.unbiased else 1)
        return self.within(x) + self.within(y) - 2 * self._across(x, y)

    def _across(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean of k over the pairs of a row of x and a row of y."""
        n, m, total = len(x), len(y), pair_sum(self.kernel, x, y)
        if not self.paired:
            return total / (n * m)
        if n != m:
            raise ValueError(f"`x` and `y` must be paired, got {n} and {m} samples")
        own = self.kernel.of_squared((x - y).square().sum(1)).sum()
        return (total - own) / (n * (n - 1))

    def within(self, x: Tensor) -> Tensor:
        """The mean of k over the pairs of one sample (n, d)."""
        n, total = len(x), pair_sum(self.kernel, x)
        if self.unbiased:
            return total / (n * (n - 1))
        return (total + n * self.kernel.of_squared(total.new_zeros(1)).sum()) / n**2


class SlicedWasserstein(Divergence):
    """SW_p^p, a mean over fresh random directions at each call.

    The directions come from `draws`, or from torch's global generator without them.

    Args:
        directions: how many.
        p: order, at least 1.
    """

    random = True

    def __init__(self, directions: int = 128, p: float = 2):
        super().__init__()
        self.directions, self.p = dimension("directions", directions), order(p)

    @promoted_powers(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        x, y = sample_pair(x, y)
        generator = None if draws is None else draws.generator("divergence")
        total, dim = x.new_zeros(()), x.shape[1]
        theta = x.new_zeros(0, dim)
        # a few megabytes at a time stay in cache
        most = max(1, tuning(x.device).direction_entries // dim)
        for first in range(0, self.directions, most):
            count = min(most, self.directions - first)
            theta = uniform_directions(count, dim, generator=generator)
            theta = to_device(theta, x.device).to(x.dtype)
            total = total + count * sliced_power(x, y, theta, p=self.p)

        def squares() -> Tensor:
            return sliced_power(x.detach().double(), y.detach().double(), theta.double())

        return power(total / self.directions, x, y, self.p, squares)


class GeneralizedSlicedWasserstein(Divergence):
    """GSW_p^p over the slices of a slicer, drawn afresh at each call.

    The slices come from `draws`, or from torch's global generator without them.

    Args:
        slicer: maps samples to their slices; its parameters are redrawn at each call.
        p: order, at least 1.

    Source: Kolouri, Nadjahi, Simsekli, Badeau, Rohde, "Generalized sliced Wasserstein distances",
    2019.
    """

    random = True

    def __init__(self, slicer: Slicer, p: float = 2):
        super().__init__()
        self.slicer, self.p = instance("slicer", slicer, Slicer, "Circular(dim)"), order(p)

    @promoted_powers(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        x, y = sample_pair(x, y)
        self.slicer.resample_(None if draws is None else draws.generator("divergence"))
        return slice_powers(x, y, self.slicer, self.p).mean()


class EnergyDistance(Divergence):
    """2 E‖X - Y‖ - E‖X - X'‖ - E‖Y - Y'‖: the MMD² of the kernel -‖x - y‖, at least 0.

    Source: Székely, Rizzo, "Energy statistics", 2013.
    """

    def __init__(self):
        super().__init__()
        self.mmd = MMD(Energy(), unbiased=False)

    @promoted(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.mmd(x, y)


class CramerWold(Divergence):
    r"""The squared Cramér-Wold distance: the L² distance of densities, averaged over slices.

        ∫ ‖p_θ - q_θ‖² dθ,   p_θ, q_θ the densities of θ·x and θ·y, smoothed by N(0, γ).

    In closed form the squared MMD of the kernel ₁F₁(1/2; d/2; -‖x - y‖²/4γ) / 2√(πγ), with all
    pairs: no direction is drawn. At least 0, and 0 only for equal distributions.

    Args:
        gamma: the variance γ of the smoothing, in squared units of the samples; Silverman's rule
            for unit variance, (4/3n)^{2/5} for the smaller of both samples, if None.

    Source: Knop, Spurek, Tabor, Podolak, Mazur, Jastrzębski, "Cramer-Wold auto-encoder", 2020.
    """

    def __init__(self, gamma: float | None = None):
        super().__init__()
        self.gamma = None if gamma is None else positive("gamma", gamma)

    @promoted(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = sample_pair(x, y)
        gamma = self.gamma or (4 / (3 * min(len(x), len(y)))) ** 0.4
        kernel = sliced_gaussian(x.shape[1], (2 * gamma) ** 0.5)
        return MMD(kernel, unbiased=False)(x, y) / (2 * math.sqrt(math.pi * gamma))


class SinkhornDivergence(Divergence):
    """OT_ε(x, y) - ½ OT_ε(x, x) - ½ OT_ε(y, y) for the cost ‖x - y‖^p; ε in its units.

    With `reach` transport is unbalanced, and the divergence is robust: an outlier is left out at a
    fixed price and receives no gradient, instead of being matched however far away it is.

    Args:
        epsilon: regularisation, in units of the cost.
        p: order of the cost.
        tolerance: on the marginal error.
        reach: None, or the penalty of both marginals in units of the cost: `KL(rho)`, `TV(rho)`,
            or a number, the ρ of a KL.

    Source: Genevay, Peyré, Cuturi, "Learning generative models with Sinkhorn divergences", 2018;
    Feydy et al., "Interpolating between optimal transport and MMD using Sinkhorn divergences",
    2019; Séjourné, Feydy, Vialard, Trouvé, Peyré, "Sinkhorn divergences for unbalanced optimal
    transport", 2019.
    """

    def __init__(
        self,
        epsilon: float,
        p: float = 2,
        tolerance: float = 1e-3,
        reach: Penalty | float | None = None,
    ):
        super().__init__()
        self.epsilon, self.p = positive("epsilon", epsilon), order(p)
        self.tolerance = positive("tolerance", tolerance)
        one_penalty(penalties(reach))
        self.reach = reach

    @promoted_powers(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = sample_pair(x, y)
        return sinkhorn_divergence(
            x, y, epsilon=self.epsilon, p=self.p, tolerance=self.tolerance, reach=self.reach
        )


class ExactWasserstein(Divergence):
    """W_p^p between the samples, by assignment or linear programme.

    As an estimate between distributions it is biased upwards, by about n^{-p/d} in dimension d.

    Args:
        p: order, at least 1.
    """

    def __init__(self, p: float = 2):
        super().__init__()
        self.p = order(p)

    @promoted_powers(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = points(*sample_pair(x, y), self.p)
        relative, scale = power_and_scale(x, y, None, None, self.p)
        factor = relative.new_tensor(scale) ** self.p
        # which may be infinite where samples are equal
        factor = torch.where((relative == 0) & factor.isinf(), 0.0, factor)
        value = (relative * factor).to(x.dtype)
        return power(value, x, y, self.p, relative.detach)


class MomentMatching(Divergence):
    """The mean squared difference of the means' entries plus that of the covariances'.

    The WAE authors pretrain their encoders with it. It is not a distance between distributions: it
    is 0 for any two that agree in both moments.

    Source: the code released with Tolstikhin et al., "Wasserstein auto-encoders", 2018.
    """

    @promoted(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = sample_pair(x, y, least=2)
        # differences of moments keep few digits of either
        x, y = x.double(), y.double()
        means = (x.mean(0) - y.mean(0)).square().mean()
        return means + (torch.cov(x.T) - torch.cov(y.T)).square().mean()
