r"""Entropic barycenters of histograms on a common support, and on grids.

With the Gibbs kernel K = exp(-C/ε), iterate for all histograms b_k at once

    v_k = b_k / Kᵀu_k,   a = d Π_k (K v_k)^{λ_k},   u_k = a / K v_k,

iterative Bregman projections with d = 1. Their barycenter is blurred by about √ε. It is debiased,
the minimiser of Σ_k λ_k S_ε(a, b_k) for the Sinkhorn divergence, with d ← √(d a / K d). That
objective hardly sees details finer than √ε: they converge slowly, and their error may be many
times the marginal error.

All is computed in the log domain. On a grid the cost ‖x - y‖² is a sum over axes, so that K is a
product of small kernels, one an axis: a convolution.

Source: Benamou, Carlier, Cuturi, Nenna, Peyré, "Iterative Bregman projections for regularized
transportation problems", 2015; Solomon et al., "Convolutional Wasserstein distances", 2015;
Janati, Cuturi, Gramfort, "Debiased Sinkhorn barycenters", 2020.
"""

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from monge._core.checks import dimension, distribution_weights, finite, positive
from monge._core.checks import weights as checked_weights
from monge._core.errors import warn
from monge._core.numerics import rounding_of_masses
from monge._core.promotion import ANY, WEIGHTS, promoted
from monge._core.shown import described
from monge._core.tuning import tuning
from monge._core.typed import split
from monge.transport.fixed_point import accelerated
from monge.transport.ground import log_weights

MOST_EXPONENT, CUT = 300.0, 350.0
"""A sum of products of exp(-E), for exponents up to the first, with columns whose largest entry is
1, keeps all that float64 resolves. Factors less than exp(-CUT) are enlarged to it, which does not
show beside exp(-300) and keeps products from being denormal, hence slow."""
BLOCK = 32
"""Columns of a block, which are neighbours on a line or a grid."""


@dataclass(frozen=True, repr=False)
class HistogramBarycenter:
    """A histogram, and the convergence of the iteration that found it."""

    masses: Tensor
    """Shaped like one of the histograms, with sum 1, without gradient."""
    marginal_error: float
    """The largest L1 distance between it and the marginal of a plan, to a histogram and, if
    debiased, to itself; in half precision a bound, with that of rounding."""
    iterations: int
    converged: bool

    def __repr__(self) -> str:
        names = ("marginal_error", "iterations", "converged")
        fields = (f"{name}={described(getattr(self, name))}" for name in names)
        return f"HistogramBarycenter({tuple(self.masses.shape)}, {', '.join(fields)})"

    def tensors(self) -> list[Tensor]:
        """The masses, as a list."""
        return [self.masses]

    def replaced(self, function: Callable[[Tensor], Tensor]) -> "HistogramBarycenter":
        """This barycenter with `function` applied to its masses."""
        masses = function(self.masses)
        rounding = 0.0
        if masses.dtype is not self.masses.dtype:
            rounding = rounding_of_masses(masses.dtype, 1.0, masses.numel())
        return replace(self, masses=masses, marginal_error=self.marginal_error + rounding)

    def stacked(self, accounts: Sequence["HistogramBarycenter"]) -> "HistogramBarycenter":
        """The barycenters for several weights, and the worst of their accounts."""
        return HistogramBarycenter(
            masses=torch.stack([account.masses for account in accounts]),
            marginal_error=max(account.marginal_error for account in accounts),
            iterations=max(account.iterations for account in accounts),
            converged=all(account.converged for account in accounts),
        )


class NarrowKernel(NamedTuple):
    """exp(-E) along an axis of the support, with exponents E = C/ε of at most `MOST_EXPONENT`."""

    gibbs: Tensor
    """exp(-E) (n, n), symmetric."""

    def applied(self, log_v: Tensor) -> Tensor:
        """log Σ_j exp(log v_j - E_ij) over the last dimension."""
        most = log_v.amax(-1, keepdim=True)
        return (log_v - most).exp_().matmul(self.gibbs).log_().add_(most)


class WideKernel(NamedTuple):
    """exp(-E) along an axis of the support, for any exponents: by blocks of columns, in units of
    the largest entry that a row has in the block, and with columns in units of that of theirs."""

    blocks: Tensor
    """exp(least_bi - E_ij) (b, m, n), for the m columns j of block b."""
    least: Tensor
    """min_j E_ij (b, 1, n), over the columns of block b."""
    exponents: Tensor
    """E (n, n), symmetric."""

    @classmethod
    def of(cls, exponents: Tensor) -> "WideKernel":
        padded = F.pad(exponents, (0, 0, 0, -len(exponents) % BLOCK), value=math.inf)
        blocks = padded.view(-1, BLOCK, len(exponents))
        least = blocks.amin(1, keepdim=True)
        return cls((least - blocks).clamp_min_(-CUT).exp_(), least, exponents)

    def applied(self, log_v: Tensor) -> Tensor:
        """log Σ_j exp(log v_j - E_ij) over the last dimension."""
        arrays = log_v.reshape(-1, log_v.shape[-1])
        entries = tuning(log_v.device).cost_entries
        parts = split(arrays, max(1, entries // self.least.numel()))
        return torch.cat([self._of_rows(part, entries) for part in parts]).view(log_v.shape)

    def _of_rows(self, log_v: Tensor, entries: int) -> Tensor:
        """`applied` to arrays (k, n), of which b k n entries fit into memory."""
        count, size, n = self.blocks.shape
        padded = F.pad(log_v, (0, count * size - n), value=-math.inf)
        columns = padded.view(-1, count, size).transpose(0, 1)
        most = columns.amax(2, keepdim=True)
        products = (columns - most).clamp_min_(-CUT).exp_().matmul(self.blocks)
        units = most - self.least
        largest = units.amax(0)
        sums = products.mul_((units - largest).clamp_min_(-CUT).exp_()).sum(0)
        found = sums.log().add_(largest)
        # the largest entries of row and column are far apart within some block
        lost = (sums < math.exp(-MOST_EXPONENT)).nonzero(as_tuple=True)
        for k, i in zip(*(split(index, max(1, entries // n)) for index in lost)):
            found[k, i] = (log_v[k] - self.exponents[i]).logsumexp(-1)
        return found


def choose_kernel(cost: Tensor, epsilon: float) -> NarrowKernel | WideKernel:
    """The kernel of a symmetric cost (n, n), up to a constant."""
    low, high = (float(end) for end in cost.aminmax())
    exponents = (cost - low).div_(epsilon)
    if high - low > MOST_EXPONENT * epsilon:
        return WideKernel.of(exponents)
    return NarrowKernel(exponents.neg_().exp_())


Kernel = list[NarrowKernel | WideKernel]
"""One an axis."""


@promoted(histograms=ANY, cost=ANY, weights=WEIGHTS)
def histogram_barycenter(
    histograms: Tensor,
    cost: Tensor,
    weights: Tensor | None = None,
    *,
    epsilon: float,
    debiased: bool = True,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
) -> HistogramBarycenter:
    """The entropic barycenter of histograms on a common support.

    Args:
        histograms: b (k, n), at least 0, each with sum 1.
        cost: C (n, n), symmetric, between the points of the support.
        weights: λ (k,), at least 0 with sum 1; uniform by default.
        epsilon: regularisation, in units of the cost.
        debiased: whether the blur of entropic transport is removed (Janati et al. 2020), by the
            Sinkhorn divergence instead of the entropic cost. For an ε near the largest cost and
            above, histograms with equal means are nearly equal to it, and it converges slowly.
        tolerance: on `marginal_error`; if debiased and for an ε above the largest cost, on
            (ε / max C)² times that.
        max_iterations: the iteration limit; reaching it warns.

    Returns:
        The barycenter, `masses` (n,), and the convergence of the iteration.

    Raises:
        ValueError: for invalid histograms, a cost of another shape, or invalid settings.
    """
    epsilon = positive("epsilon", epsilon)
    if (
        histograms.ndim != 2
        or cost.shape != (histograms.shape[-1],) * 2
        or not (cost.numel() and len(histograms))
    ):
        raise ValueError(
            "`histograms` and `cost` must have shapes (k, n) and (n, n), got "
            f"{tuple(histograms.shape)} and {tuple(cost.shape)}"
        )
    finite("cost", cost)
    matrix = cost.detach().double()
    low, high = matrix.aminmax()
    if float((matrix - matrix.T).amax()) > 1e-6 * max(float(high), -float(low)):
        raise ValueError("`cost` must be symmetric: it is between points of one support")
    kernel = [choose_kernel(matrix, epsilon)]
    tolerance = _at_the_scale(tolerance, debiased, epsilon, float(high - low))
    settings = (debiased, tolerance, max_iterations)
    return _iterated(kernel, *_checked("histograms", histograms, weights), *settings)


@promoted(images=ANY, weights=WEIGHTS)
def grid_barycenter(
    images: Tensor,
    weights: Tensor | None = None,
    *,
    epsilon: float,
    spacing: float = 1.0,
    debiased: bool = True,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
) -> HistogramBarycenter:
    r"""The entropic barycenter of distributions on a grid, such as images or volumes.

    The cost is the squared distance between cells. An iteration takes one small matrix product per
    axis, instead of a product of all cells by all cells.

    Args:
        images: b (k, \*), at least 0, each with sum 1; of any number of axes.
        weights: λ (k,), at least 0 with sum 1; uniform by default.
        epsilon: regularisation, in units of the cost: of squared cells with the default spacing.
        spacing: the distance between neighbouring cells.
        debiased: whether the blur of entropic transport, of about √ε, is removed.
        tolerance: on `marginal_error`, as that of `histogram_barycenter`.
        max_iterations: the iteration limit; reaching it warns.

    Returns:
        The barycenter, `masses` of the shape of one image, and the convergence of the iteration.

    Raises:
        ValueError: for images that are not distributions, or invalid settings.

    Example:
        >>> between = grid_barycenter(torch.stack([ring, cross]), epsilon=2.0).masses
    """
    epsilon = positive("epsilon", epsilon)
    spacing = positive("spacing", spacing)
    if images.ndim < 2 or images.numel() == 0:
        raise ValueError(f"`images` must have shape (k, n, …), got {tuple(images.shape)}")
    places = [
        torch.arange(size, dtype=torch.float64, device=images.device) * spacing
        for size in images.shape[1:]
    ]
    kernel = [choose_kernel((z[:, None] - z).square_(), epsilon) for z in places]
    largest = sum(float(z[-1]) ** 2 for z in places)
    tolerance = _at_the_scale(tolerance, debiased, epsilon, largest)
    settings = (debiased, tolerance, max_iterations)
    return _iterated(kernel, *_checked("images", images, weights), *settings)


def _checked(name: str, b: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, torch.dtype]:
    """Histograms and λ of those with a positive weight, float64, and the dtype that was given."""
    flat = checked_weights(name, finite(name, b.detach()).flatten(1), b[0].numel())
    lambdas = distribution_weights("weights", weights, b, len(b)).detach()
    return flat.view(b.shape)[lambdas > 0], lambdas[lambdas > 0], b.dtype


def _at_the_scale(tolerance: float, debiased: bool, epsilon: float, largest: float) -> float:
    """The tolerance on marginals. Kernels of an ε above the largest cost are nearly constant, and
    marginals of debiased barycenters of equal means differ by (max C / ε)² whatever they are."""
    tolerance = positive("tolerance", tolerance)
    above = max(1.0, epsilon / largest) if debiased and largest > 0 else 1.0
    return tolerance / above / above


def _iterated(
    kernel: Kernel,
    b: Tensor,
    lambdas: Tensor,
    dtype: torch.dtype,
    debiased: bool,
    tolerance: float,
    most: int,
) -> HistogramBarycenter:
    dimension("max_iterations", most)
    step = (_DebiasedStep if debiased else _BregmanStep)(kernel, b, lambdas)
    found = accelerated(step, step.start.flatten(), step.memory, tolerance, most)
    scalings, error, iterations = found
    converged = error <= tolerance
    if not converged:
        step(scalings)  # these need not be the last ones
        fix = "change `epsilon`, or raise" if debiased else "raise `epsilon`,"
        warn(
            f"the barycenter has a marginal error of {error:.2g} after {iterations} iterations, "
            f"above the {tolerance:.2g} that `tolerance` allows: {fix} `tolerance` or "
            "`max_iterations`"
        )
    masses = step.log_a[0].exp()
    return HistogramBarycenter((masses / masses.sum()).to(dtype), error, iterations, converged)


class _Step(abc.ABC):
    """An iteration for all histograms: scalings ↦ (scalings, the largest marginal error)."""

    memory: int
    """The memory of Anderson's acceleration."""

    def __init__(self, kernel: Kernel, b: Tensor, lambdas: Tensor):
        self.kernel, self.log_b = kernel, log_weights(b)
        self.shares = lambdas.view(-1, *[1] * (b.ndim - 1))
        self.start = torch.zeros_like(self.log_b)
        self.log_a = self.log_b[:1]
        """The barycenter of the last iteration, (1, *)."""

    @abc.abstractmethod
    def __call__(self, scalings: Tensor) -> tuple[Tensor, Tensor]: ...

    def images(self, log_u: Tensor) -> Tensor:
        """log K v, with v = b / Kᵀu."""
        return _applied(self.kernel, self.log_b - _applied(self.kernel, log_u))


class _BregmanStep(_Step):
    """That with d = 1, on log u. Accelerated, it takes a fourth to a tenth of the iterations."""

    memory = 10

    def __call__(self, scalings: Tensor) -> tuple[Tensor, Tensor]:
        log_u = scalings.view(self.start.shape)
        log_k = self.images(log_u)
        self.log_a = (self.shares * log_k).sum(0, keepdim=True)
        return (self.log_a - log_k).flatten(), _largest_error(self.log_a, log_u + log_k)


class _DebiasedStep(_Step):
    """That of log u, and of log d as the last of the scalings.

    It is not accelerated: it is no ascent, and extrapolations overshoot.
    """

    memory = 0

    def __init__(self, kernel: Kernel, b: Tensor, lambdas: Tensor):
        super().__init__(kernel, b, lambdas)
        self.start = torch.cat([self.start, self.start[:1]])

    def __call__(self, scalings: Tensor) -> tuple[Tensor, Tensor]:
        both = scalings.view(self.start.shape)
        log_u, log_d = both[:-1], both[-1:]
        log_k = self.images(log_u)
        self.log_a = log_d + (self.shares * log_k).sum(0, keepdim=True)
        own = log_d + _applied(self.kernel, log_d)
        error = _largest_error(self.log_a, torch.cat([log_u + log_k, own]))
        image = torch.cat([self.log_a - log_k, log_d + (self.log_a - own) / 2])
        return image.flatten(), error


def _largest_error(log_a: Tensor, log_marginals: Tensor) -> Tensor:
    """That of the normalised barycenter, which is returned."""
    masses = log_a.exp()
    gaps = log_marginals.exp() - masses / masses.sum()
    return gaps.abs().flatten(1).sum(1).amax()


def _applied(kernel: Kernel, log_v: Tensor) -> Tensor:
    r"""log K v for each of the arrays v (k, \*), by axes."""
    for axis, along in enumerate(kernel, 1):
        log_v = along.applied(log_v.movedim(axis, -1)).movedim(-1, axis)
    return log_v
