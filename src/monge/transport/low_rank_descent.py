r"""Descent over plans of low rank, π = Q diag(1/g) Rᵀ with Q1 = a, R1 = b, Qᵀ1 = Rᵀ1 = g.

Mirror descent: a step multiplies the factors by exp(-γ ∇) and projects them back in the
Kullback-Leibler divergence, which is a convex problem in 2r variables (`projected`). A problem is
a `LowRankObjective`: its value and its slopes.

Source: Scetbon, Cuturi, Peyré, "Low-rank Sinkhorn factorization", 2021.
"""

import abc
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.errors import warn
from monge._core.typed import unchecked_solve

FIRST_STEP = 8.0
"""The largest change of a logarithm in the first step."""
WINDOW = 10
"""Iterations over which the decrease of the value is looked at."""
NEWTON, HALVINGS, LARGEST_MOVE = 50, 30, 5.0
"""Most steps of a projection, halvings of each, and the largest change of a multiplier."""
RIDGE = 1e-9
"""Added to its second derivatives, in units of their mean: clusters may be empty."""


class Factors(NamedTuple):
    """Q (n, r), R (m, r) and g (r,)."""

    q: Tensor
    r: Tensor
    g: Tensor

    def marginals(self) -> tuple[Tensor, Tensor]:
        """π1 (n,) and πᵀ1 (m,)."""
        return self.q @ (self.r.sum(0) / self.g), self.r @ (self.q.sum(0) / self.g)

    def among(self, rows: Tensor, columns: Tensor) -> "Factors":
        """The factors with rows of 0 for the points that were left out, where masks (n,) and (m,)
        are False."""
        q, r = (
            z.new_zeros(len(mask), z.shape[1]).index_put((mask,), z)
            for z, mask in ((self.q, rows), (self.r, columns))
        )
        return Factors(q, r, self.g)


@dataclass(frozen=True)
class LowRankObjective(abc.ABC):
    """What is minimised over plans of low rank, between points with weights."""

    x: Tensor
    """(n, d)."""
    y: Tensor
    a: Tensor
    b: Tensor

    @abc.abstractmethod
    def value(self, factors: Factors) -> Tensor:
        """The objective, float64."""

    @abc.abstractmethod
    def slopes(self, factors: Factors) -> Factors:
        """The gradient of the value, that of Q and R up to a constant in each row."""

    @abc.abstractmethod
    def extent(self) -> Tensor:
        """The size of the terms whose difference the value is."""

    def marginal_error(self, factors: Factors) -> float:
        """The larger of |π1 - a|_1 and |πᵀ1 - b|_1."""
        rows, columns = factors.marginals()
        return float(torch.maximum((rows - self.a).abs().sum(), (columns - self.b).abs().sum()))


def _largest(slopes: Factors) -> float:
    """The largest change of a logarithm by a step of length 1."""
    spreads = [(z.amax(1) - z.amin(1)).amax() for z in slopes[:2]]
    return float(torch.stack([*spreads, slopes.g.abs().amax()]).amax())


class Logits(NamedTuple):
    """Factors before their projection: log Q and log R up to a constant in each row, and log g."""

    q: Tensor
    r: Tensor
    g: Tensor


def projected(
    logits: Logits, a: Tensor, b: Tensor, start: Tensor, tolerance: float
) -> tuple[Factors, Tensor]:
    """The factors with Q1 = a, R1 = b and Qᵀ1 = Rᵀ1 = g, up to the tolerance in L1 on these and on
    the plan's marginals, that are nearest in the Kullback-Leibler divergence, and the multipliers
    β (2, r) of the last two.

    They are Q̃ exp(α_i + β_k), R̃ exp(α'_j + β'_k) and g̃ exp(-β - β') at the minimum of

        Σ_i a_i log Σ_k Q̃_ik e^{β_k} + Σ_j b_j log Σ_k R̃_jk e^{β'_k} + Σ_k g̃_k e^{-β_k - β'_k},

    which is convex in 2r variables: Newton's method, with steps that are halved until it falls.
    """
    beta, rank = start, len(logits.g)
    tolerance = max(tolerance, 4 * torch.finfo(a.dtype).eps)  # sums of 1 are not exact beyond
    # a constant that moves from β to β' changes nothing
    still = torch.ones_like(beta)
    still[1] = -1
    still = torch.outer(still.flatten(), still.flatten()) / (2 * rank)
    eye = torch.eye(2 * rank, dtype=torch.float64, device=beta.device)
    here = _dual(logits, a, b, beta)
    hidden = 100 * torch.finfo(a.dtype).eps * (1 + abs(float(here.level)))
    for _ in range(NEWTON):
        if here.error() <= tolerance:
            break
        hessian = here.g.diag().repeat(2, 2)
        for at, shares, w in ((0, here.q, a), (rank, here.r, b)):
            square = slice(at, at + rank)
            products = (shares.T @ (w[:, None] * shares)).double()
            # diag(Qᵀ1) up to rounding, by which the second derivatives would have negative values
            hessian[square, square] += products.sum(1).diag() - products
        hessian += float(hessian.trace()) / (2 * rank) * (still + RIDGE * eye)
        move = unchecked_solve(hessian, (here.sums - here.g).flatten()).view(2, rank)
        move = move / max(1.0, float(move.abs().amax()) / LARGEST_MOVE)
        for _ in range(HALVINGS):
            new = _dual(logits, a, b, beta - move)
            rise = float(new.level) - float(here.level)
            # near the minimum rounding hides that it falls, but not that its slope does
            if rise <= 0 or (rise <= hidden and new.error() < here.error()):
                break
            move = move / 2
        else:
            break
        beta, here = beta - move, new
    return Factors(a[:, None] * here.q, b[:, None] * here.r, here.g.to(a.dtype)), beta


class Dual(NamedTuple):
    """Where the dual of a projection is."""

    level: Tensor
    """Its objective."""
    q: Tensor
    """The shares Q / a, (n, r)."""
    r: Tensor
    g: Tensor
    sums: Tensor
    """Qᵀ1 and Rᵀ1, (2, r)."""

    def error(self) -> float:
        """At least |Qᵀ1 - g|_1 + |Rᵀ1 - g|_1 and the errors of both marginals of the plan, in
        which that of a cluster counts as often as its g goes into the other factor's mass."""
        counts = (self.sums.flip(0) / self.g).clamp_min(1)
        return float((counts * (self.sums - self.g).abs()).sum())


def _dual(logits: Logits, a: Tensor, b: Tensor, beta: Tensor) -> Dual:
    level_q, q = _shares(logits.q + beta[0].to(a.dtype), a)
    level_r, r = _shares(logits.r + beta[1].to(a.dtype), b)
    g = (logits.g - beta.sum(0)).exp()
    return Dual(level_q + level_r + g.sum(), q, r, g, torch.stack([a @ q, b @ r]).double())


def _shares(logits: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_i w_i log Σ_k exp(l_ik), and the softmax of the rows, which overwrites the logits."""
    most = logits.amax(1, keepdim=True)
    shares = logits.sub_(most).exp_()
    sums = shares.sum(1, keepdim=True)
    return w.double() @ (most + sums.log())[:, 0].double(), shares.div_(sums)


def _stepped(factors: Factors, slopes: Factors, rate: float) -> Logits:
    """A step of mirror descent: the factors times exp(-rate · slopes)."""
    q, r, g = (z - rate * slope for z, slope in zip(_logits(factors), slopes))
    return Logits(q, r, g.double())


def _logits(factors: Factors) -> Logits:
    least = torch.finfo(factors.g.dtype).tiny
    return Logits(*(z.clamp_min(least).log() for z in factors))


def feasible(problem: LowRankObjective, factors: Factors, tolerance: float) -> Factors:
    """The nearest factors with the marginals of the problem, up to the tolerance in L1."""
    q, r, g = _logits(factors)
    start = torch.zeros(2, len(g), dtype=torch.float64, device=g.device)
    return projected(Logits(q, r, g.double()), problem.a, problem.b, start, tolerance)[0]


def descended(
    problem: LowRankObjective, factors: Factors, tolerance: float, most: int
) -> tuple[Factors, int, bool]:
    """Mirror descent, whose steps are halved where the value rises or the plan leaves its
    marginals: the factors, iterations, and whether the value has settled."""
    values, step, fine = [float(problem.value(factors))], FIRST_STEP, tolerance / 10
    rounding = torch.finfo(factors.g.dtype).eps * (values[0] + float(problem.extent()))
    beta = torch.zeros(2, len(factors.g), dtype=torch.float64, device=factors.g.device)
    error = problem.marginal_error(factors)
    for iteration in range(1, most + 1):
        slopes = problem.slopes(factors)
        largest = _largest(slopes)
        if largest == 0:
            return factors, iteration, True
        logits = _stepped(factors, slopes, step / largest)
        new, multipliers = projected(logits, problem.a, problem.b, beta, fine)
        value, left = float(problem.value(new)), problem.marginal_error(new)
        falls = value <= values[-1] + fine * abs(values[-1]) + rounding
        if not (falls and left <= max(error, tolerance)):
            step /= 2
            if step < FIRST_STEP / 2**10:
                return factors, iteration, True
            continue
        factors, beta, error = new, multipliers, left
        values = [*values, value][-WINDOW - 1 :]
        settled = values[0] - value <= tolerance * abs(value) + rounding
        if len(values) > WINDOW and settled:
            return factors, iteration, True
    return factors, most, False


def warn_unless_converged(iterations: int, settled: bool, error: float, tolerance: float) -> bool:
    """Whether a descent has converged; warns where it has not."""
    converged = settled and error <= tolerance
    if not converged:
        warn(
            f"low-rank transport stopped after {iterations} iterations with a marginal error of "
            f"{error:.2g} and {'a' if settled else 'no'} settled value, for `tolerance` "
            f"{tolerance:.2g}: raise `tolerance` or `max_iterations`"
        )
    return converged
