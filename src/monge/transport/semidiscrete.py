r"""Semidiscrete transport: from a continuous distribution, which is sampled, to weighted points.

    W_2²(ρ, Σ_j b_j δ_{y_j}) = max_g E_{z~ρ} min_j (‖z - y_j‖² - g_j) + Σ_j b_j g_j.

At the optimum z belongs to the point that attains the minimum: its cell in the Laguerre diagram,
whose mass under ρ is b_j. The gradient of the dual in g_j is b_j minus the mass of the cell. With
ε > 0 the minimum is soft, and z belongs to y_j with probability ∝ b_j exp((g_j - ‖z - y_j‖²)/ε).

Potentials start from those of an entropic plan between samples of both sides, extended to all
points by their soft minimum. Stochastic ascent follows: a step moves g_j by

    2 Δ (4 + h)^{-3/4} · (b_j n - hits_j),

where n is the size of the batch of noise, h the draws so far for each point and Δ the mean gap
between the least and the second least of ‖z - y_j‖² - g_j, the scale on which cells exchange mass.
The result is the average of the iterates, weighted by the square of their number. The cost of a
step is one product of the batch with the points, by blocks.

The account is taken on fresh noise. With c_j of M draws in cell j,

    χ² = Σ_j (m_j - b_j)²/b_j,   estimated by   Σ_j c_j (c_j - 1)/(b_j M (M - 1)) - 1,

is unbiased, and √χ² bounds the L1 distance Σ_j |m_j - b_j| of the masses m from b.

Source: Genevay, Cuturi, Peyré, Bach, "Stochastic optimization for large-scale optimal transport",
2016; Mousavi-Hosseini, Zhang, Klein, Cuturi, "Flow matching with semidiscrete couplings", 2025;
Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from monge._core.checks import dimension, finite, floating, nonnegative, positive
from monge._core.devices import to_device
from monge._core.errors import warn
from monge._core.promotion import ANY, promoted
from monge._core.shown import described
from monge._core.tuning import tuning
from monge.transport.accounts import kernel_dtype
from monge.transport.ground import SinglePoints, resolved_mean
from monge.transport.laguerre import Cells, distinct_cells
from monge.transport.potentials import rough_potentials
from monge.transport.reductions import choose_reductions

Sampler = Callable[[int, torch.Generator | None], Tensor]
"""Draws n samples with a CPU generator, as `Prior.sample` does."""
LEAST_FIRST, MOST_FIRST = 2048, 8192
"""Samples of either side between which the first potentials are computed: a quarter of the data,
within these bounds."""
FIRST_EPSILON = 0.02
"""Their regularisation, in units of the mean cost."""
LARGEST_BATCH = 1024
SHARE = 4
"""Points for each noise of a batch, at least: a step must not outrun the gap."""
FIRST_CHECK = 8
"""Draws for each point before the error is first estimated; it is again after each doubling."""
FRESH, FEWEST_FRESH = 4, 2**14
"""Draws for each point, and in all, that an estimate of the error takes at least."""


class Ascent:
    """Stochastic ascent from potentials g, which are moved, and the average of its iterates."""

    def __init__(self, cells: Cells, g: Tensor, gap: float):
        self.cells, self.gap = cells, gap
        self.g, self.average = g.clone(), g.clone()
        self.step, self.seen, self.total = 0, 0, 0.0
        self.size = min(LARGEST_BATCH, max(1, len(g) // SHARE))
        """The noise of a step."""

    def climb(self, z: Tensor) -> None:
        """Takes the steps of noise z, whose length is a multiple of `size`."""
        cells, size, share = self.cells, self.size, self.cells.masses * self.size
        prepared = cells.prepared(z, self.g)
        z = z.to(prepared.points.dtype)
        buffer = z.new_empty(size, len(share))
        for first in range(0, len(z), size):
            rate = 2 * self.gap * (4 + self.seen / len(share)) ** -0.75
            costs = prepared.costs(z[first : first + size], self.g, buffer)
            self.g.add_(share - cells.hits(costs), alpha=rate)
            self.step, self.seen = self.step + 1, self.seen + size
            self.total += self.step**2
            self.average.lerp_(self.g, self.step**2 / self.total)


@dataclass(frozen=True, repr=False)
class SemidiscretePlan:
    """A division of a continuous distribution among the points of a data set, with its error."""

    cells: Cells
    """The distinct points, about the mean of the data."""
    potentials: Tensor
    """g (k,) of the distinct points, float64, for the cost between noise and points about their
    means: shifts of either side change potentials, but no plan."""
    means: Tensor
    """(2, d): the means of the noise and of the data that are subtracted."""
    members: tuple[Tensor, Tensor, Tensor]
    """The data in the order of the distinct points, where each begins, and how many it has."""
    value: float
    """An estimate of the dual objective, at the optimum W_2² for ε = 0."""
    chi_square: float
    """An unbiased estimate of χ² = Σ_j (m_j - b_j)²/b_j; it may be slightly negative."""
    chi_square_deviation: float
    """The standard deviation of that estimate."""
    iterations: int
    converged: bool
    """Whether `marginal_error` is at most the tolerance."""

    def __repr__(self) -> str:
        names = ("value", "marginal_error", "iterations", "converged")
        fields = (f"{name}={described(getattr(self, name))}" for name in names)
        return f"SemidiscretePlan({', '.join(fields)})"

    def __len__(self) -> int:
        """How many data there are."""
        return len(self.members[0])

    def is_of(self, data: Tensor) -> bool:
        r"""Whether samples (m, \*) are the data that the plan was fitted to, in their order."""
        order, _, count = self.members
        fitted = self.cells.points.repeat_interleave(count, 0)
        if len(data) != len(self) or data[0].numel() != fitted.shape[1]:
            return False
        found = data.detach().reshape(len(data), -1).to(fitted)[order.to(fitted.device)]
        dtype = data.dtype if data.is_floating_point() else fitted.dtype
        rounding = 4 * torch.finfo(dtype).eps
        allowed = 1e-2 * fitted.abs().amax() + rounding * found.abs().amax()
        return bool((found - self.means[1] - fitted).abs().amax() <= allowed)

    @property
    def marginal_error(self) -> float:
        """√χ², an upper bound of Σ_j |m_j - b_j|, up to the deviation of its estimate."""
        return math.sqrt(max(self.chi_square, 0.0))

    @promoted(z=ANY)
    def assign(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""The index in the data (n,) to which each noise z (n, \*) belongs.

        Memory is that of a block of distances. A CPU generator draws among data that coincide,
        and for ε > 0 among all; otherwise nothing is drawn.
        """
        z = _noise(z, self.cells.points, "z") - self.means[0]
        u = torch.zeros(2, len(z), dtype=torch.float64)
        if self.cells.epsilon > 0 or len(self) > len(self.cells.points):
            u = torch.rand(2, len(z), dtype=torch.float64, generator=generator, device="cpu")
        u = to_device(u, z.device)
        _, cell = self.cells.assign(z, self.potentials, u[0])
        order, first, count = self.members
        return order[first[cell] + (u[1] * count[cell]).long()]

    def tensors(self) -> dict[str, Tensor]:
        """What is to be stored beside the data, e.g. by safetensors."""
        account = (
            *(self.cells.epsilon, self.cells.resolution, self.value),
            *(self.chi_square, self.chi_square_deviation, self.iterations, self.converged),
        )
        return {
            "potentials": self.potentials,
            "means": self.means,
            "squares": _squares(self.cells),
            "account": torch.tensor(account, dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, points: Tensor, tensors: Mapping[str, Tensor]) -> "SemidiscretePlan":
        r"""The plan that `tensors` stored, with the same data (m, \*) on any device.

        Raises:
            ValueError: if the potentials are those of other data.
        """
        points = points.detach().reshape(len(points), -1)
        _refuse_malformed(tensors, points.shape[1])
        means = tensors["means"].to(points.device)
        account = [float(number) for number in tensors["account"]]
        flat = points.to(means.dtype)
        cells, members = distinct_cells(flat - means[1], account[0], account[1])
        potentials = tensors["potentials"].to(points.device)
        fitted = len(potentials) == len(cells.points) and _is_centred(cells, means[1])
        if not fitted or not torch.allclose(_squares(cells), tensors["squares"].to(means.device)):
            raise ValueError(
                f"`points` are not the data of these {len(potentials)} potentials: pass the data "
                "that they were fitted to"
            )
        value, chi_square, deviation, iterations, converged = account[2:]
        return cls(
            *(cells, potentials, means, members, value, chi_square, deviation),
            *(int(iterations), bool(converged)),
        )


@promoted(points=ANY)
def solve_semidiscrete(
    source: Sampler,
    points: Tensor,
    *,
    epsilon: float = 0.0,
    tolerance: float = 0.25,
    draws: int = 128,
    generator: torch.Generator | None = None,
) -> SemidiscretePlan:
    r"""Semidiscrete transport from a distribution to equally weighted data, for the cost ‖z - y‖².

    It computes at most `draws` · m² distances, about 10⁹ per second and core for data in few
    dimensions.

    Args:
        source: draws n samples (n, \*), `source(n, generator)`, e.g. `Gaussian(8).sample`.
        points: the data (m, \*).
        epsilon: entropic regularisation in units of the cost; 0 for none.
        tolerance: on `marginal_error`, at which the ascent stops.
        draws: the limit of noise vectors drawn per data point; reaching it warns.
        generator: a CPU generator.

    Returns:
        The plan; `plan.assign(z)` gives the index of the data point of each noise vector.

    Raises:
        ValueError: for a source of another shape, NaN or infinity, or invalid settings.

    Example:
        >>> plan = solve_semidiscrete(Gaussian(2).sample, data, generator=generator)
        >>> x0 = torch.randn(256, 2)
        >>> x1 = data[plan.assign(x0)]
    """
    epsilon = nonnegative("epsilon", epsilon)
    tolerance = positive("tolerance", tolerance)
    dimension("draws", draws)
    if not callable(source) or hasattr(source, "sample"):
        raise ValueError(
            f"`source` must draw samples as source(n, generator), got {source!r}: give "
            "Gaussian(dim).sample"
        )
    if points.ndim < 1 or points.numel() == 0:
        raise ValueError(f"`points` must hold at least one, got shape {tuple(points.shape)}")
    data = finite("points", points).detach().reshape(len(points), -1)

    def noise(count: int) -> Tensor:
        z = floating("source", source(count, generator))
        if z.shape[:1] != (count,):
            raise ValueError(f"`source` must draw {count} samples, got shape {tuple(z.shape)}")
        return _noise(to_device(z, data.device), data, "source")

    some = min(max(len(data) // 4, LEAST_FIRST), MOST_FIRST)
    first = noise(some)
    means = torch.stack([first.mean(0), data.mean(0)])
    cells, members = distinct_cells(data - means[1], epsilon, 0.0)
    few = data[torch.randperm(len(data), generator=generator, device="cpu")[:some].to(data.device)]
    g = _first_potentials(first - means[0], few - means[1], cells)
    gap = epsilon + float(cells.gaps(first[:512] - means[0], g).mean()) if len(g) > 1 else 0.0
    cells = cells._replace(resolution=gap)
    apart = (means[0] - means[1]).double()
    ascent, check = Ascent(cells, g, gap), min(FIRST_CHECK, draws)
    most = max(1, tuning(data.device).cost_entries // (ascent.size * data.shape[1]))
    while True:
        while ascent.seen < check * len(g):
            steps = min(most, math.ceil((check * len(g) - ascent.seen) / ascent.size))
            ascent.climb(noise(steps * ascent.size) - means[0])
        fresh = noise(max(FRESH * len(g), FEWEST_FRESH)) - means[0]
        value, chi_square, deviation = _account(fresh, cells, ascent.average, generator)
        converged = bool(chi_square <= tolerance**2)
        if converged or check == draws:
            break
        check = min(2 * check, draws)
    # costs about the means lack ‖apart‖² and, since means[0] is that of a sample, 2 z·apart
    value += float((apart + 2 * fresh.double().mean(0)) @ apart)
    account = (value, chi_square, deviation, ascent.step, converged)
    plan = SemidiscretePlan(cells, ascent.average, means, members, *account)
    if not converged:
        warn(
            f"semidiscrete potentials have a marginal error of {plan.marginal_error:.2g} after "
            f"{draws} draws for each point, above `tolerance` {tolerance:.2g}: raise `draws` or "
            "`tolerance`"
        )
    return plan


def _noise(z: Tensor, like: Tensor, name: str) -> Tensor:
    """Noise as a matrix in the dtype of the data, if it has their dimension."""
    if z.numel() == 0:
        raise ValueError(f"`{name}` must hold at least one sample, got shape {tuple(z.shape)}")
    z = finite(name, z.detach()).reshape(len(z), -1)
    if z.shape[1] != like.shape[1] or z.device != like.device:
        raise ValueError(
            f"`{name}` must have {like.shape[1]} values a sample, as the data, on {like.device}, "
            f"got {z.shape[1]} on {z.device}"
        )
    return z.to(like.dtype)


def _squares(cells: Cells) -> Tensor:
    """The mean squares (d,) of the data about their mean, which others hardly share."""
    return cells.masses @ cells.points.double().square()


def _is_centred(cells: Cells, centre: Tensor) -> bool:
    """Whether the points have mean 0, up to the rounding of the centre that was subtracted."""
    mean = cells.masses @ cells.points.double()
    size = cells.points.double().abs().amax()
    rounding = torch.finfo(centre.dtype).eps * centre.double().abs()
    return bool((mean.abs() <= 1e-4 * size + rounding + torch.finfo(torch.float32).tiny).all())


def _refuse_malformed(tensors: Mapping[str, Tensor], dim: int) -> None:
    """Refuses what `SemidiscretePlan.tensors` has not made, e.g. of a damaged file."""
    shapes = {"means": (2, dim), "squares": (dim,), "account": (7,), "potentials": None}
    for name, shape in shapes.items():
        x = tensors.get(name, torch.zeros(()))  # what is missing has the shape of nothing
        whole = x.is_floating_point() and bool(torch.isfinite(x).all()) and x.ndim > 0
        if not whole or (shape is not None and x.shape != shape):
            got = tuple(x.shape) if name in tensors else "missing"
            raise ValueError(
                f"`tensors` must be those of SemidiscretePlan.tensors() for data of {dim} values "
                f"a sample, got {name} {got}: fit another"
            )
    if not (tensors["account"][0] >= 0 and tensors["account"][5] >= 0):
        raise ValueError("`tensors` must have epsilon and iterations of at least 0: fit another")


def _first_potentials(z: Tensor, few: Tensor, cells: Cells) -> Tensor:
    """Potentials of an entropic plan between noise and some of the data, at all points."""
    between = SinglePoints(z, few)
    mean = resolved_mean(between, "source", "points")
    if cells.epsilon > 0:
        _refuse_unresolved(cells.epsilon, mean)
    epsilon = max(FIRST_EPSILON * mean, cells.epsilon) or 1.0
    f, _ = rough_potentials(between, epsilon, iterations=100)
    back = choose_reductions(SinglePoints(cells.points, z))
    g = back.soft_minimum(f - epsilon * math.log(len(z)), epsilon, torch.zeros_like(cells.masses))
    vanished = mean < float(torch.finfo(torch.float64).tiny) and bool(cells.points.any())
    if vanished or not torch.isfinite(g).all():
        raise ValueError(
            f"`source` and `points` have a mean squared distance of {mean:.3g}, at which "
            "potentials leave the range of float64: rescale them"
        )
    return g


def _refuse_unresolved(epsilon: float, mean: float) -> None:
    """Refuses a regularisation beside which costs of this mean vanish, or overflow in its unit."""
    kernel_dtype(mean, epsilon, torch.float64)
    least = torch.finfo(torch.float64).eps ** 2 * mean
    if epsilon < least:
        raise ValueError(
            f"`epsilon` must be 0, or at least {least:.3g} for a mean squared distance of "
            f"{mean:.3g}, got {epsilon:.3g}: give 0 for no regularisation"
        )


def _account(
    z: Tensor, cells: Cells, g: Tensor, generator: torch.Generator | None
) -> tuple[float, float, float]:
    """The dual objective, and the estimate of χ² with its deviation, on fresh noise."""
    u = to_device(
        torch.rand(len(z), dtype=torch.float64, generator=generator, device="cpu"), z.device
    )
    least, index = cells.assign(z, g, u)
    b, count = cells.masses, torch.bincount(index, minlength=len(g)).double()
    total = float(len(z))
    value = float(least.mean() + b @ g)
    chi_square = float((count * (count - 1) / b).sum()) / (total * (total - 1)) - 1
    share, ratio = count / total, count / (total * b)
    linear = share @ ratio.square() - (share @ ratio).square()
    variance = 4 * linear / total + 2 * ratio.square().sum() / total**2
    return value, chi_square, math.sqrt(float(variance))
