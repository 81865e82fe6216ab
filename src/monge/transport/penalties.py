r"""Penalties on the marginals of a plan, in place of the constraints π1 = a and πᵀ1 = b.

A penalty ρ D_φ(r | w) = Σ_i w_i φ(r_i/w_i) of a marginal r enters the dual objective of transport
as Σ_i w_i d(f_i), d(f) = -φ*(-f), where a constraint has Σ_i w_i f_i:

    constraint   d(f) = f,
    KL           d(f) = ρ (1 - exp(-f/ρ)),
    TV           d(f) = min(f, ρ), f ≥ -ρ.

Sinkhorn's update is then f = P(S_b(g)), the maximiser of d(f) - ε exp((f - S_b(g))/ε): the soft
minimum itself, ρ/(ρ + ε) of it, or the soft minimum cut off at ±ρ.

Source: Chizat, Peyré, Schmitzer, Vialard, "Scaling algorithms for unbalanced optimal transport
problems", 2018; Séjourné, Feydy, Vialard, Trouvé, Peyré, "Sinkhorn divergences for unbalanced
optimal transport", 2019.
"""

import abc
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from monge._core.checks import positive

LEAST_SHARE = 36.0
"""-log of the share of a point's mass below which it has none: beyond the digits of float64."""


class Penalty(abc.ABC):
    """How a marginal of a plan is held to its weights."""

    @property
    @abc.abstractmethod
    def price(self) -> float:
        """The price of leaving a unit of mass out: ρ."""

    @property
    @abc.abstractmethod
    def highest(self) -> float:
        """The potential from which on a point keeps no mass: higher ones are cut off there."""

    @abc.abstractmethod
    def potential(self, soft: Tensor, epsilon: float) -> Tensor:
        """P, the best potentials for soft minima."""

    @abc.abstractmethod
    def inside(self, f: Tensor) -> Tensor:
        """The potentials, cut off at the bounds of their domain."""

    @abc.abstractmethod
    def dual(self, f: Tensor) -> Tensor:
        """d(f), the dual objective of a unit of mass."""

    @abc.abstractmethod
    def is_free(self, f: Tensor) -> Tensor:
        """Where the potentials are inside of their domain, and move when the problem does."""


@dataclass(frozen=True)
class KL(Penalty):
    """A marginal penalty ρ KL(r | w) = ρ Σ_i (r_i log(r_i/w_i) - r_i + w_i).

    Mass is destroyed smoothly: a point that is transported at cost c keeps about exp(-c/ρ) of its
    mass when the other side pays as much.

    Args:
        rho: ρ > 0, in units of the cost d^p. GeomLoss's `reach` is ρ^{1/p} with the ρ of its cost
            d^p / p, which is this one over p.

    Source: Liero, Mielke, Savaré, "Optimal entropy-transport problems and a new
    Hellinger-Kantorovich distance between positive measures", 2018.
    """

    rho: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", positive("rho", self.rho))

    @property
    def price(self) -> float:
        return self.rho

    @property
    def highest(self) -> float:
        return LEAST_SHARE * self.rho

    def potential(self, soft: Tensor, epsilon: float) -> Tensor:
        return self.inside(soft / (1 + epsilon / self.rho))

    def inside(self, f: Tensor) -> Tensor:
        return f.clamp_max(self.highest)

    def dual(self, f: Tensor) -> Tensor:
        return -self.rho * torch.expm1(-f / self.rho)

    def is_free(self, f: Tensor) -> Tensor:
        return f < self.highest


@dataclass(frozen=True)
class TV(Penalty):
    """A marginal penalty ρ Σ_i |r_i - w_i|, the total variation.

    Mass is transported or not: as ε → 0 none moves at a cost above the price of leaving it out,
    2ρ where both sides have the penalty, and all else keeps its weight. This is partial transport.

    Args:
        rho: ρ > 0, in units of the cost d^p.

    Source: Piccoli, Rossi, "Generalized Wasserstein distance and its application to transport
    equations with source", 2014.
    """

    rho: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", positive("rho", self.rho))

    @property
    def price(self) -> float:
        return self.rho

    @property
    def highest(self) -> float:
        return self.rho

    def potential(self, soft: Tensor, epsilon: float) -> Tensor:
        return self.inside(soft)

    def inside(self, f: Tensor) -> Tensor:
        return f.clamp(-self.rho, self.rho)

    def dual(self, f: Tensor) -> Tensor:
        return f.clamp_max(self.rho)

    def is_free(self, f: Tensor) -> Tensor:
        return f.abs() < self.rho


@dataclass(frozen=True, repr=False)
class HardMarginal(Penalty):
    """The marginal is the weights: a constraint."""

    def __repr__(self) -> str:
        return "None"

    @property
    def price(self) -> float:
        return math.inf

    @property
    def highest(self) -> float:
        return math.inf

    def potential(self, soft: Tensor, epsilon: float) -> Tensor:
        return soft

    def inside(self, f: Tensor) -> Tensor:
        return f

    def dual(self, f: Tensor) -> Tensor:
        return f

    def is_free(self, f: Tensor) -> Tensor:
        return torch.ones_like(f, dtype=torch.bool)


Reach = Penalty | float | tuple[Penalty | float | None, Penalty | float | None] | None
"""What users give: a penalty for both sides, or one a side, None for a constraint; a number is
the ρ of a KL."""

Penalties = tuple[Penalty, Penalty]
"""Those of the rows and of the columns."""

CONSTRAINTS: Penalties = (HardMarginal(), HardMarginal())
"""Balanced transport."""


def penalties(reach: Reach) -> Penalties | None:
    """The penalties of both sides, or None where both are constraints."""
    sides = tuple(reach) if isinstance(reach, (tuple, list)) else (reach, reach)
    if len(sides) != 2:
        raise ValueError(f"`reach` must be one penalty, or two for x and y, got {len(sides)}")
    first, second = (_penalty(side) for side in sides)
    both = isinstance(first, HardMarginal) and isinstance(second, HardMarginal)
    return None if both else (first, second)


def _penalty(side: object) -> Penalty:
    if side is None:
        return HardMarginal()
    if isinstance(side, Penalty):
        return side
    if not isinstance(side, (bool, str)) and hasattr(side, "__float__"):
        return KL(positive("reach", cast(float, side)))
    raise ValueError(
        f"`reach` must be KL(rho), TV(rho), a number (the rho of a KL) or None, got {side!r}"
    )


def one_penalty(sides: Penalties | None) -> Penalty:
    """The penalty of both sides of a divergence, which compares each sample with itself."""
    first, second = sides or CONSTRAINTS
    if first != second:
        raise ValueError(
            f"`reach` must be one penalty for both samples, got {first} and {second}: each sample "
            "is also compared with itself, on both sides of a plan"
        )
    return first


def translation(
    sides: Penalties, a: Tensor, b: Tensor, soft_f: Tensor, soft_g: Tensor, epsilon: float
) -> Tensor:
    """The λ for which potentials (f + λ, g - λ) have the largest dual objective.

    It leaves the plan as it is, and its direction is the one in which the iteration is slow where
    ρ is far above ε. At the optimum it is 0.

    Source: Séjourné, Vialard, Peyré, "Faster unbalanced optimal transport: translation invariant
    Sinkhorn and 1-D Frank-Wolfe", 2022.
    """
    if any(isinstance(side, TV) for side in sides):
        return _level(sides, a, b, soft_f, soft_g, epsilon)
    f, g = sides[0].potential(soft_f, epsilon), sides[1].potential(soft_g, epsilon)
    stiffness = sum(1 / side.rho for side in sides if isinstance(side, KL))
    return (_log_mass(sides[0], a, f) - _log_mass(sides[1], b, g)) / stiffness


def _log_mass(side: Penalty, w: Tensor, f: Tensor) -> Tensor:
    """The logarithm of the mass that potentials ask for."""
    return (w.log() - f / side.rho).logsumexp(0) if isinstance(side, KL) else w.sum().log()


def _level(
    sides: Penalties, a: Tensor, b: Tensor, soft_f: Tensor, soft_g: Tensor, epsilon: float
) -> Tensor:
    """The translation of soft minima after which both marginals of the plan, each at the best
    potentials, have one mass: the root of a monotone function that is flat between its steps.

    It is bracketed by steps that double, then by equal ones, and interpolated.
    """

    def excess(shifts: Tensor) -> Tensor:
        rows = _log_kept(sides[0], a, soft_f[:, None] + shifts, epsilon)
        return rows - _log_kept(sides[1], b, soft_g[:, None] - shifts, epsilon)

    def bracket(shifts: Tensor) -> tuple[Tensor, Tensor]:
        found = excess(shifts)
        before = ((found * sign > 0).sum() - 1).clamp(0, len(shifts) - 2)
        ends = torch.stack([before, before + 1])
        return shifts.gather(0, ends), found.gather(0, ends)

    sign = excess(soft_f.new_zeros(1)).sign()
    furthest = 2 * sum(side.price for side in sides if math.isfinite(side.price))
    count = max(1, math.ceil(math.log2(furthest / epsilon))) + 3
    doubling = soft_f.new_full((count,), 2.0).cumprod(0) / 8
    ends, _ = bracket(sign * epsilon * torch.cat([torch.zeros_like(sign), doubling]))
    equal = torch.linspace(0, 1, 17, dtype=ends.dtype, device=ends.device)
    ends, found = bracket(ends[0] + (ends[1] - ends[0]) * equal)
    share = found[0] / (found[0] - found[1])
    shift = ends[0] + (ends[1] - ends[0]) * share.clamp(0, 1)
    negligible = (found[0] == found[1]) | (excess(torch.zeros_like(sign)).abs() < 1e-12)[0]
    return torch.where(negligible, torch.zeros_like(shift), shift)


def _log_kept(side: Penalty, w: Tensor, soft: Tensor, epsilon: float) -> Tensor:
    """The logarithm of the mass of a marginal at the best potentials."""
    return (w.log()[:, None] + (side.potential(soft, epsilon) - soft) / epsilon).logsumexp(0)
