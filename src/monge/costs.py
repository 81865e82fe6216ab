r"""Costs c(x, y) between a sample and its reconstruction.

A cost takes data x and decoded y, both (n, \*), **sums over the elements of a sample** and
returns one value a sample, (n,). Negative log-likelihoods are costs like any other, which is
how a VAE uses them.
"""

import abc
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge._core.checks import dimension, finite, floating, instance, order, positive, power
from monge._core.checks import share as checked_share
from monge._core.devices import to_device
from monge._core.numerics import absolute_power, root
from monge._core.promotion import ANY, as_tensor, promoted, promoted_powers
from monge._core.shown import Shown
from monge._core.tuning import threads
from monge.transport.directions import uniform_directions
from monge.transport.entropic import sinkhorn_divergence
from monge.transport.exact import matching
from monge.transport.line import power_1d
from monge.transport.neighbours import nearest_in_sets
from monge.transport.sliced import is_projection_resolved


class Cost(Shown, nn.Module, abc.ABC):
    """A cost between samples, elementwise sums by default."""

    @promoted(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        r"""
        Args:
            x: data, (n, \*).
            y: decoded samples, of the same shape.

        Returns:
            c(x_i, y_i), (n,).
        """
        if x.shape != y.shape:
            raise ValueError(
                f"`y` must have the shape of `x`, {tuple(x.shape)}, got {tuple(y.shape)}: "
                "does the decoder make samples of the data's shape?"
            )
        if x.ndim == 0:
            raise ValueError("`x` must hold samples (n, …), got a single number")
        x, y = (z.reshape(len(z), -1) if z.numel() else z.flatten(1) for z in (x, y))
        return self.between(x, y)

    @abc.abstractmethod
    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """c for flattened samples (n, d), as (n,)."""


class SquaredL2(Cost):
    r"""c(x, y) = scale · Σ_j (x_j - y_j)²."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = positive("scale", scale)

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return self.scale * (x - y).square().sum(1)


class L2(Cost):
    r"""c(x, y) = (Σ_j (x_j - y_j)²)^½, with gradient 0 where x = y."""

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return _lengths(x - y)


class L1(Cost):
    r"""c(x, y) = Σ_j |x_j - y_j|."""

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().sum(1)


class ElasticNet(Cost):
    r"""c(x, y) = scale · Σ_j (1 - share) (x_j - y_j)² + share |x_j - y_j|.

    Between `SquaredL2` at share = 0 and `L1` at 1; the gradient is 0 where x_j = y_j. Squares
    hardly see small errors, and their minimum is a mean; absolute errors are brought to 0, and
    their minimum is a median, so images stay sharper. Both terms weigh the same at an error of 1:
    `share` depends on the unit of the data.

    Args:
        share: of absolute errors, in [0, 1].
        scale: factor of the whole.

    Raises:
        ValueError: for a share outside [0, 1] or a scale that is not positive.

    Source: Zou, Hastie, "Regularization and variable selection via the elastic net", 2005, where
    the sum penalises coefficients.
    """

    def __init__(self, share: float = 0.3, scale: float = 1.0):
        super().__init__()
        self.share, self.scale = checked_share("share", share), positive("scale", scale)

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        errors = (x - y).abs()
        each = (1 - self.share) * errors.square() + self.share * errors
        return self.scale * each.sum(1)


class Bernoulli(Cost):
    r"""Cross-entropy c(x, y) = -Σ_j x_j log y_j + (1 - x_j) log(1 - y_j), in nats.

    The negative log-likelihood of a Bernoulli decoder with probabilities y. Data x outside
    [0, 1] has no such likelihood and is refused.
    """

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        if x.numel():
            ranges = torch.stack([*x.detach().aminmax(), *y.detach().aminmax()]).tolist()
        else:
            ranges = [0.0, 1.0, 0.0, 1.0]
        for name, values, low, high in (("x", x, *ranges[:2]), ("y", y, *ranges[2:])):
            if not (low >= 0 and high <= 1):
                finite(name, values)
                raise ValueError(
                    f"`{name}` must lie in [0, 1] for a Bernoulli cost, got [{low:.4g}, "
                    f"{high:.4g}]: rescale, end the decoder in a sigmoid, or use SquaredL2"
                )
        if not x.requires_grad:
            return F.binary_cross_entropy(y, x, reduction="none").sum(1)
        # torch's derivative in x does not know the floor of -100 that its logarithms have
        one, zero = (
            F.binary_cross_entropy(y, torch.full_like(y, bit), reduction="none") for bit in (1, 0)
        )
        return (x * one + (1 - x) * zero).sum(1)


class GaussianLikelihood(Cost):
    r"""-log N(x; y, σ² I) = Σ_j (x_j - y_j)² / 2σ² + d log σ + ½ d log 2π, in nats.

    With `learned=True` σ is a parameter. Its optimum is the root mean squared error, so the
    balance of reconstruction and KL needs no tuning (Rybkin, Daniilidis, Levine, "Simple and
    effective VAE training with calibrated decoders", 2021).

    Args:
        sigma: σ > 0, in units of the data; the first value where it is learned.
        learned: whether σ is a parameter.
    """

    def __init__(self, sigma: float = 1.0, learned: bool = False):
        super().__init__()
        instance("learned", learned, bool, "True")
        log_sigma = torch.tensor(math.log(positive("sigma", sigma)))
        self.log_sigma = nn.Parameter(log_sigma, requires_grad=learned)
        self.learned = learned

    @property
    def sigma(self) -> float:
        """σ as it stands."""
        return float(self.log_sigma.detach().exp())

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        # A floor of e^-7 ≈ 0.001, a quarter of a grey level: constant data must not send σ to 0.
        # Below it the gradient is that at the floor, so that σ can come back.
        floored = self.log_sigma + (self.log_sigma.clamp(min=-7.0) - self.log_sigma).detach()
        log_sigma = floored.to(x.dtype)
        squared = (x - y).square().sum(1) * (-2 * log_sigma).exp()
        return 0.5 * squared + x.shape[1] * (log_sigma + 0.5 * math.log(2 * math.pi))


class Scaled(Shown, nn.Module):
    """c(x / s, y / s): a cost in separate units for each element, e.g. a table's columns.

    Args:
        cost: c.
        scale: s, shaped like a sample, or a number for all elements of a dimension of 1.

    Raises:
        ValueError: for a scale that is not positive, or has a shape that is not a sample's.
    """

    scale: Tensor

    def __init__(self, cost: nn.Module, scale: Tensor):
        super().__init__()
        self.cost = instance("cost", cost, nn.Module, "SquaredL2()")
        scale = finite("scale", as_tensor("scale", scale))
        if scale.numel() == 0:
            raise ValueError(f"`scale` must hold a number, got shape {tuple(scale.shape)}")
        if not bool((scale > 0).all()):
            raise ValueError(f"`scale` must be positive, got {float(scale.min()):.3g}")
        self.register_buffer("scale", scale)

    @promoted(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        for name, z in (("x", x), ("y", y)):
            own, given = z.shape[1:], self.scale.shape
            pairs = zip(reversed(given), reversed(own))
            if len(given) > len(own) or any(k not in (1, size) for k, size in pairs):
                raise ValueError(
                    f"`scale` of shape {tuple(given)} is not that of a sample of `{name}`, "
                    f"{tuple(own)}: give a number for each element, or 1 of a dimension for all"
                )
        return self.cost(x / self.scale, y / self.scale)


class SetCost(Shown, nn.Module, abc.ABC):
    """A cost between samples that are sets of points: it does not see the order of either set.

    An elementwise cost on points in an arbitrary order is minimised by their mean, which is a
    blob; these are not.
    """

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = positive("scale", scale)

    @promoted_powers(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """
        Args:
            x: sets of N points, (n, N, d), d < N.
            y: sets of M points, (n, M, d), d < M.

        Returns:
            c(x_i, y_i), (n,).

        Raises:
            ValueError: for other shapes, (n, d, N) among them, or NaN.
        """
        for name, sets in (("x", x), ("y", y)):
            floating(name, sets)
            if sets.ndim != 3 or 0 in sets.shape or sets.shape[2] >= sets.shape[1]:
                raise ValueError(
                    f"`{name}` must be sets of points (n, N, d) with d < N, got "
                    f"{tuple(sets.shape)}: sets (n, d, N) are brought there by transpose(1, 2)"
                )
            finite(name, sets)
        if len(x) != len(y) or x.shape[2] != y.shape[2]:
            raise ValueError(
                f"`y` must hold as many sets as `x`, {tuple(x.shape)}, in the same dimension, got "
                f"{tuple(y.shape)}"
            )
        return self.scale * self.between(x, y)

    @abc.abstractmethod
    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """c / scale of checked sets (n, N, d) and (n, M, d), as (n,)."""


class Chamfer(SetCost):
    r"""c(x, y) = scale · (1/N Σ_i min_j ‖x_i - y_j‖² + 1/M Σ_j min_i ‖x_i - y_j‖²).

    Squared distances, means over points, the sum of both directions: libraries differ in each.

    Source: Fan, Su, Guibas, "A point set generation network for 3D object reconstruction from a
    single image", 2017.
    """

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        there, back = nearest_in_sets(x, y), nearest_in_sets(y, x)
        return _squared(x, _taken(y, there)).mean(1) + _squared(y, _taken(x, back)).mean(1)


class EarthMover(SetCost):
    r"""c(x, y) = scale · min_σ 1/N Σ_i ‖x_i - y_σ(i)‖^p over permutations σ, for N = M.

    W_p^p between the sets; with p = 1 the earth mover's distance of the literature of point
    clouds, where others report N times it. Exact, in O(N³), one thread a set; for thousands of
    points `SlicedSets` is faster.

    Args:
        p: order, at least 1.
        scale: factor of the whole.

    Source: Kuhn, "The Hungarian method", 1955; Fan, Su, Guibas, 2017, for point clouds.
    """

    def __init__(self, p: float = 1, scale: float = 1.0):
        super().__init__(scale)
        self.p = order(p)

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        if x.shape != y.shape:
            raise ValueError(
                f"`y` must have {x.shape[1]} points a set for an assignment, got {y.shape[1]}"
            )
        pairs = zip(x.detach(), y.detach())
        with ThreadPoolExecutor(threads()) as pool:
            matchings = list(pool.map(lambda ab: matching(ab[0], ab[1], self.p)[0], pairs))
        matched = _taken(y, torch.from_numpy(np.stack(matchings)).to(y.device))
        if self.p == 2:
            return _squared(x, matched).mean(1)
        lengths = _lengths(x - matched)
        value = absolute_power(lengths, self.p).mean(1).to(x.dtype)
        return power(value, x, y, self.p, lambda: lengths.detach().sum(1))


class SinkhornSets(SetCost):
    r"""c(x, y) = scale · S_ε(x, y), the debiased Sinkhorn divergence of W_2² between the sets.

    At least 0, and W_2² as ε → 0, which it can exceed for ε > 0; for sets of different sizes too.

    Args:
        epsilon: regularisation, in units of squared distances.
        scale: factor of the whole.

    Source: Feydy et al., "Interpolating between optimal transport and MMD using Sinkhorn
    divergences", 2019.
    """

    def __init__(self, epsilon: float, scale: float = 1.0):
        super().__init__(scale)
        self.epsilon = positive("epsilon", epsilon)

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([sinkhorn_divergence(a, b, epsilon=self.epsilon) for a, b in zip(x, y)])


class SlicedSets(SetCost):
    r"""c(x, y) = scale · mean over directions θ of W_p^p between θ·x_i and θ·y_j.

    Unbiased for SW_p^p between the sets, with directions drawn anew at each call.

    Args:
        directions: how many are drawn, by torch's global generator.
        p: order, at least 1.
        scale: factor of the whole.

    Source: Bonneel, Rabin, Peyré, Pfister, "Sliced and Radon Wasserstein barycenters of measures",
    2015; Nguyen, Pham, Le, Pham, Ho, Hua, "Point-set distances for learning representations of
    3D point clouds", 2021.
    """

    def __init__(self, directions: int = 64, p: float = 2, scale: float = 1.0):
        super().__init__(scale)
        self.directions, self.p = dimension("directions", directions), order(p)

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        theta = to_device(uniform_directions(self.directions, x.shape[2]), x.device).to(x.dtype)

        def powers(p: float, dtype: torch.dtype) -> Tensor:
            one, two = (theta.to(dtype) @ z.mT.to(dtype) for z in (x, y))
            return power_1d(one, two, p=p).mean(1)

        value = powers(self.p, x.dtype)
        if not is_projection_resolved(value.amin(), self.p, x, y):
            value = powers(self.p, torch.float64)
        return power(value.to(x.dtype), x, y, self.p, lambda: powers(2, torch.float64).detach())


def chamfer(x: Tensor, y: Tensor) -> Tensor:
    """The sum of both means of *squared* nearest distances of sets (n, N, d) and (n, M, d), (n,);
    see `Chamfer`."""
    return Chamfer()(x, y)


def earth_mover(x: Tensor, y: Tensor) -> Tensor:
    """The mean *unsquared* distance of points of sets (n, N, d), optimally matched, (n,); see
    `EarthMover`."""
    return EarthMover()(x, y)


def _taken(y: Tensor, index: Tensor) -> Tensor:
    """The points of each set of y (n, M, d) with the indices (n, N)."""
    return torch.gather(y, 1, index[..., None].expand(-1, -1, y.shape[2]))


def _squared(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().sum(2)


def _lengths(differences: Tensor) -> Tensor:
    """Euclidean lengths (*, d) -> (*), float64, of differences in powers of 2 of about their size,
    since squares may be beyond it."""
    wide = differences.double()
    _, exponents = torch.frexp(wide.detach().abs().amax(-1, keepdim=True))
    unit = torch.ldexp(torch.ones_like(wide[..., :1]), exponents.clamp(-1000, 1000)).detach()
    return unit[..., 0] * root((wide / unit).square().sum(-1))
