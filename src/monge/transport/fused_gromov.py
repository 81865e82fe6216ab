r"""Fused Gromov-Wasserstein: transport between graphs whose nodes have features.

    FGW = min_π (1 - α) ⟨C, π⟩ + α Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl   over couplings π of a and b.

C compares features of nodes, cx and cy the structure within each graph. α is the weight of the
structure, as in POT: 0 is transport of the features, 1 Gromov-Wasserstein. With C = d^p this is
the objective of the source with q = 2 on the structure. It is a quadratic problem
(`monge.transport.quadratic`) of √α cx, √α cy and the linear cost (1 - α) C.

Source: Vayer, Chapel, Flamary, Tavenard, Courty, "Optimal transport for structured data with
application on graphs", 2019.
"""

import math

import torch
from torch import Tensor

from monge._core.checks import finite, floating, share
from monge._core.promotion import WEIGHTS, promoted
from monge.transport.gromov import entropic_plan, exact_plan
from monge.transport.gromov_starts import Starts
from monge.transport.plan import Plan
from monge.transport.quadratic import space


def _problem(cost: Tensor, cx: Tensor, cy: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """The matrices of the quadratic problem."""
    cx, cy = space("cx", cx), space("cy", cy)
    finite("cost", floating("cost", cost))
    if cost.shape != (len(cx), len(cy)):
        raise ValueError(
            f"`cost` must have a row for each of the {len(cx)} points of `cx` and a column for "
            f"each of the {len(cy)} of `cy`, got shape {tuple(cost.shape)}"
        )
    number = share("alpha", alpha)
    return math.sqrt(number) * cx, math.sqrt(number) * cy, (1 - number) * cost


@promoted(cost=2, cx=2, cy=2, a=WEIGHTS, b=WEIGHTS)
def fused_gromov_wasserstein(
    cost: Tensor,
    cx: Tensor,
    cy: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    alpha: float = 0.5,
    starts: Starts = 4,
    tolerance: float = 1e-9,
    max_iterations: int = 1000,
    generator: torch.Generator | None = None,
) -> Plan:
    """Fused Gromov-Wasserstein with square loss, by conditional gradient from several starts.

    (1 - α) ⟨C, π⟩ + α Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl, the smallest over couplings π that is
    found: it matches nodes that have like features and stand in like relations to the others.

    Args:
        cost: C (n, m), between the features of nodes, of any sign: `torch.cdist(x, y) ** 2`.
        cx: distances, or adjacencies, within the first graph, (n, n); of a directed graph they
            need not be symmetric. `shortest_paths` makes them from a graph.
        cy: those within the second, (m, m).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        alpha: the weight α of the structure in [0, 1], as in POT. Both terms keep their units:
            where one is far larger, divide it.
        starts: how many starting plans, those of `gromov_wasserstein` with the cost of the
            features added; or the plans themselves. The best stationary point is returned.
        tolerance: on the duality gap of the linearised problem, relative to its value.
        max_iterations: most conditional gradient steps of a start; a returned plan that reached
            the limit warns.
        generator: draws the landmarks, on the CPU; by default one of seed 0, so that equal
            arguments give equal plans.

    Returns:
        The plan; `value` is the objective, no root, differentiable in cost, cx, cy and the weights
        at the returned plan. `potentials` are those of the problem linearised at the plan.

    Raises:
        ValueError: for matrices that are not finite or do not fit, an α outside of [0, 1], invalid
            weights, or starts that are no couplings of them.
    """
    problem = _problem(cost, cx, cy, alpha)
    return exact_plan(problem, (a, b), starts, tolerance, max_iterations, generator)


@promoted(cost=2, cx=2, cy=2, a=WEIGHTS, b=WEIGHTS)
def entropic_fused_gromov_wasserstein(
    cost: Tensor,
    cx: Tensor,
    cy: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    alpha: float = 0.5,
    starts: Starts = 1,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
    generator: torch.Generator | None = None,
) -> Plan:
    """Fused Gromov-Wasserstein + ε KL(π | a⊗b), by Sinkhorn on the linearised cost.

    A single start is the product plan; more are those of `fused_gromov_wasserstein`, of which the
    best fixed point is returned.

    Args:
        cost: C (n, m), between the features of nodes.
        cx: the structure of the first graph, (n, n).
        cy: that of the second, (m, m).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        epsilon: regularisation, in units of the objective.
        alpha: the weight α of the structure in [0, 1], as in POT.
        starts: how many starting plans, or the plans themselves.
        tolerance: on the change of the plan between iterations, in L1.
        max_iterations: most solutions by Sinkhorn of a start, which together take at most 10,000
            of its iterations, or as many as this limit if it is larger; reaching either warns.
        generator: draws the landmarks, on the CPU; by default one of seed 0, so that equal
            arguments give equal plans.

    Returns:
        The plan; `value` is the objective with its entropic term, differentiable in cost, cx, cy
        and the weights at the returned plan; `value_linear` is the objective without that term and
        without gradient.

    Raises:
        ValueError: for matrices that are not finite or do not fit, an α outside of [0, 1], ε ≤ 0,
            invalid weights, or starts that are no couplings of them.
    """
    problem = _problem(cost, cx, cy, alpha)
    return entropic_plan(problem, (a, b), epsilon, starts, tolerance, max_iterations, generator)
