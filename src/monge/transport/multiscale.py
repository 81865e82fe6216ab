r"""Entropic transport between 10⁴ points or more in few dimensions, with memory O(n).

Sinkhorn's algorithm passes from coarse to fine in two ways at once: from a regularisation of the
order of the mean cost to ε, and from the means of large cells of a tree to the points. Each stage
starts from the potentials of the one before; those of a cell are continued to its points along
their gradient ∇f(x) = 2 (x - T(x)), where T(x) is the mean of the points that x is sent to. Soft
minima leave out the pairs where the plan is negligible (`monge.transport.tiles`): about
n ε^{d/2} of n² are left.

The result is that of `monge.transport.entropic`, up to a share of the mass that is a hundredth of
the tolerance and part of the marginal error. With more than about five dimensions hardly a pair is
negligible, and nothing is gained.

Source: Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized transport
problems", 2019; Feydy, "Geometric data analysis, beyond convolutions", 2020.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import distribution_weights, points
from monge._core.numerics import Gradients, at_least_zero, with_gradient
from monge._core.promotion import WEIGHTS, promoted
from monge.transport.accounts import (
    MOST_HIDDEN,
    assembled,
    checked_settings,
    is_converged,
    judge_balanced,
    kernel_dtype,
    refuse_hidden,
)
from monge.transport.dual import Separated, separated
from monge.transport.fixed_point import iterate
from monge.transport.ground import Points, log_weights
from monge.transport.plan import Plan
from monge.transport.potentials import (
    ACCELERATION,
    EntropicProblem,
    Potentials,
    SinkhornSettings,
)
from monge.transport.reductions import choose_reductions
from monge.transport.tiles import PlanSums, TiledMinima
from monge.transport.tree_cells import CELL, TreeCells, cells_of, coarser

LEAF = 8
"""Points of the smallest cells whose means are taken, or up to twice as many."""
REFINED = 3
"""The difference in depth of two levels: a factor of 8 in points."""
FEWEST_DEPTH = 9
"""Depth of the coarsest level."""
FACTOR = 4.0
"""Between one regularisation and the next."""
ROUGH = 0.03, 20
"""Marginal error and iterations for a regularisation above the last one."""
COARSE_ERROR = 0.01
"""Marginal error of coarse levels at the last regularisation."""
DROPPED = 1e-2
"""The share of a point's mass that may be left out, in units of the tolerance."""
MOST_ITERATIONS = 1000
SETTLED = 100.0
"""How far potentials may at most move after a stage, in units of its regularisation."""


class Resolution(NamedTuple):
    """Both samples at one resolution."""

    x: TreeCells
    y: TreeCells
    spread: float
    """The larger mean square of a coordinate about the means of cells, which the points are."""


def _levels(samples: Separated) -> list[Resolution]:
    """From coarse to fine; the last one holds the points."""
    x = cells_of(samples.x, samples.a, LEAF)
    y = x if samples.y is samples.x else cells_of(samples.y, samples.b, LEAF)
    deepest = max(x.depth, y.depth)
    levels = [Resolution(_grouped(x), x if y is x else _grouped(y), 0.0)]
    levels[0] = levels[0]._replace(y=levels[0].x) if y is x else levels[0]
    for depth in range(deepest, FEWEST_DEPTH - 1, -REFINED):
        coarse_x, of_x = coarser(x, min(depth, x.depth), CELL)
        coarse_y, of_y = (coarse_x, of_x) if y is x else coarser(y, min(depth, y.depth), CELL)
        levels.append(Resolution(coarse_x, coarse_y, float(torch.maximum(of_x, of_y))))
    return levels[::-1]


def _grouped(cells: TreeCells) -> TreeCells:
    """The cells of at least `CELL` points."""
    depth = max(0, cells.depth - (CELL // LEAF).bit_length() + 1)
    points, weights = (z.reshape(2**depth, -1, *z.shape[2:]) for z in cells[:2])
    return TreeCells(points, weights, cells.order)


def _stages(
    levels: list[Resolution], mean: float, epsilon: float
) -> Iterator[tuple[Resolution, float]]:
    """Levels and regularisations, of which the last are those of the problem. A level is left
    when the cells become visible at the regularisation."""
    current, larger = 0, mean
    while larger > epsilon:
        while levels[current].spread > larger:
            current += 1
        yield levels[current], larger
        larger /= FACTOR
    while levels[current].spread > epsilon:
        current += 1
    for level in levels[current:]:
        yield level, epsilon


def _continued(coarse: TreeCells, fine: TreeCells, f: Tensor, slope: Tensor) -> Tensor:
    """Potentials of a level's points, continued to those of a finer one along their gradient."""
    (means, _), (inside, _) = coarse.flat(), fine.flat()
    inside = inside.view(len(means), -1, means.shape[1])
    return (f[:, None] + ((inside - means[:, None]) * slope[:, None]).sum(2)).flatten()


def _slopes(moved: Tensor, mass: Tensor) -> Tensor:
    """∇f of points, 0 where there is no mass that says it."""
    return torch.where(mass[:, None] > 0, moved / mass[:, None], 0.0)


def _moved(
    old: Resolution, new: Resolution, tiles: TiledMinima, f: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """Potentials of a level, continued to a finer one."""
    sums = tiles.sums(f, g)
    at_x = _continued(old.x, new.x, f, _slopes(sums.of_x, sums.rows))
    if new.y is new.x:
        return at_x, at_x
    return at_x, _continued(old.y, new.y, g, _slopes(sums.of_y, sums.columns))


def _first_potentials(level: Resolution, epsilon: float) -> tuple[Tensor, Tensor]:
    """(S_b(0), 0), from all pairs."""
    (x, _), (y, b) = level.x.flat(), level.y.flat()
    rows = choose_reductions(Points(x, y, 2))
    f = rows.soft_minimum(epsilon * log_weights(b), epsilon, x.new_zeros(len(x)))
    return f, torch.zeros_like(b)


class SolvedSamples(NamedTuple):
    """The potentials of a problem (n,) and (m,), and the sums over their plan; float64."""

    potentials: Potentials
    sums: PlanSums


def _solve(
    samples: Separated, epsilon: float, settings: SinkhornSettings, points_dtype: torch.dtype
) -> SolvedSamples:
    cost = Points(samples.x, samples.y, 2)
    mean = cost.mean()
    dtype = kernel_dtype(mean, epsilon, points_dtype)
    refuse_hidden(mean, lambda: cost.nearest(samples.a), epsilon)
    dropped = DROPPED * settings.tolerance
    levels, symmetric = _levels(samples), samples.y is samples.x
    stages = list(_stages(levels, mean, epsilon))
    (level, first), used = stages[0], 0
    f, g = _first_potentials(level, first)
    tiles = TiledMinima(level.x, level.y, dtype, dropped)
    for following, stage in stages:
        if following is not level:
            f, g = _moved(level, following, tiles, f, g)
            level, tiles = following, TiledMinima(following.x, following.y, dtype, dropped)
        tiles.begin(f, g, stage)
        aim, most = (COARSE_ERROR, settings.most) if stage == epsilon else ROUGH
        if stage == epsilon and level is levels[-1]:
            # of which what is left out has its share
            aim = (1 - 2 * DROPPED) * settings.tolerance
        g, _, count = iterate(tiles, symmetric, g, ACCELERATION, aim, most)
        f, used = g if symmetric else tiles.rows(g), used + count
        if epsilon < MOST_HIDDEN * mean:
            _refuse_lost(level, f, stage, epsilon)
    solved = _in_order(samples, level, tiles, f, g, used)
    judge_balanced(solved.potentials, epsilon, settings, points_dtype)
    return solved


def _refuse_lost(level: Resolution, f: Tensor, stage: float, epsilon: float) -> None:
    """Refuses an ε below the rounding of the potentials, whose size a larger regularisation
    already tells: exponents would have errors of more than 1."""
    least = float(f[level.x.flat()[1] > 0].abs().median()) - SETTLED * stage
    if epsilon < torch.finfo(torch.float64).eps * least:
        raise ValueError(
            f"`epsilon` {epsilon:.3g} is below the rounding of potentials of about {least:.3g} in "
            "float64: raise it, or take the exact problem"
        )


def _in_order(
    samples: Separated,
    level: Resolution,
    tiles: TiledMinima,
    f: Tensor,
    g: Tensor,
    iterations: int,
) -> SolvedSamples:
    """A solution in the order of the samples, with its value and the marginal error of its
    plan, to which what is left out may add."""
    sums, n, m = tiles.sums(f, g), len(samples.x), len(samples.y)
    rows, of_x = (level.x.summed(z, n) for z in (sums.rows, sums.of_x))
    columns, of_y = (level.y.summed(z, m) for z in (sums.columns, sums.of_y))
    f, g = level.x.to_sample(f, n), level.y.to_sample(g, m)
    value = samples.a @ f + samples.b @ g - tiles.epsilon * (rows.sum() - 1)
    errors = (rows - samples.a).abs().sum(), (columns - samples.b).abs().sum()
    solution = Potentials(f, g, value, float(max(errors)) + tiles.dropped, iterations)
    return SolvedSamples(solution, PlanSums(rows, columns, sums.linear, of_x, of_y))


def _value(
    samples: Separated, solved: SolvedSamples, x: Tensor, y: Tensor, a: Tensor, b: Tensor
) -> Tensor:
    """The dual objective at its optimum, with its gradient in points and weights."""

    def fast(*given: Tensor | Sequence[bool]) -> tuple[Tensor, Gradients]:
        of_x = solved.sums.of_x + 2 * samples.a[:, None] * samples.shift
        of_y = solved.sums.of_y - 2 * samples.b[:, None] * samples.shift
        f, g = (z - z.mean() for z in samples.potentials(solved.potentials))
        return solved.potentials.value + samples.shift.square().sum(), [of_x, of_y, f, g]

    return with_gradient(fast, None, x, y, a, b)


def _value_within(solved: SolvedSamples, x: Tensor, a: Tensor) -> Tensor:
    """`_value` of a sample with itself: each point counts on both sides."""

    def fast(*given: Tensor | Sequence[bool]) -> tuple[Tensor, Gradients]:
        f = solved.potentials.f
        return solved.potentials.value.clone(), [2 * solved.sums.of_x, 2 * (f - f.mean())]

    return with_gradient(fast, None, x, a)


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def multiscale_sinkhorn(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    tolerance: float = 1e-2,
    max_iterations: int = MOST_ITERATIONS,
) -> Plan:
    r"""Entropic transport between many points in few dimensions, for the cost ‖x - y‖².

        min_π Σ_ij π_ij ‖x_i - y_j‖² + ε KL(π | a⊗b),

    as `sinkhorn` computes it, from coarse to fine and without the pairs where the plan is
    negligible. Time and memory grow with the points in a ball of a few √ε about a point; at most
    `Tuning.tile_entries` entries of the kernel are kept, and more are computed when needed. Use
    it for 10⁴ points or more in up to five dimensions and an ε far below the mean cost.

    Args:
        x: points (n, d).
        y: points (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        epsilon: regularisation, in units of the squared distance; 2 · blur² of GeomLoss.
        tolerance: on the marginal error, in L1.
        max_iterations: the iteration limit at a resolution, which warns where it is reached.

    Returns:
        The plan, in which `marginal_error` includes a bound of what is left out. `value` is
        differentiable in points and weights, once; the barycentric projection of x is
        x - ∇_x value / 2a. `plan` makes the whole matrix (n, m).

    Raises:
        ValueError: for an empty sample, NaN or infinity, unlike dimensions, invalid weights, or
            ε ≤ 0.

    Example:
        >>> plan = multiscale_sinkhorn(x, y, epsilon=0.01)
        >>> plan.value, plan.marginal_error
    """
    settings = checked_settings(epsilon, tolerance, max_iterations, ACCELERATION)
    x, y = points(x, y, 2)
    mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
    samples = separated(x.detach(), y.detach(), mu.detach(), nu.detach(), 2)
    solved = _solve(samples, epsilon, settings, x.dtype)
    solution, sums = solved
    f, g = samples.potentials(solution)
    problem = EntropicProblem(Points(samples.x, samples.y, 2, x.dtype), samples.a, samples.b)
    return Plan(
        value=_value(samples, solved, x, y, mu, nu),
        value_linear=samples.linear(sums.rows, sums.columns, sums.linear).to(x.dtype),
        potentials=(f.to(x), g.to(x)),
        marginal_error=solution.error,
        iterations=solution.iterations,
        converged=is_converged(solution, settings, x.dtype),
        make=lambda: assembled(problem, solution, epsilon),
    )


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def multiscale_sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    tolerance: float = 1e-2,
    max_iterations: int = MOST_ITERATIONS,
) -> Tensor:
    """OT_ε(x, y) - ½ OT_ε(x, x) - ½ OT_ε(y, y) of many points in few dimensions.

    `sinkhorn_divergence` for the cost ‖x - y‖², without root. Differentiable in points and
    weights, once.

    At least 0, and exactly 0 between equal samples in one order. Elsewhere its error is up to
    about `tolerance` times the largest squared distance: a value below that, which would come out
    negative where the three problems are not solved alike, is 0 with the gradient that it has.

    Args:
        x: points (n, d), of at most about five dimensions.
        y: points (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        epsilon: regularisation, in units of the cost.
        tolerance: on the marginal error of each of the three plans, in L1.
        max_iterations: the iteration limit at each scale; reaching it warns.

    Returns:
        The divergence, a scalar in units of the cost.

    Raises:
        ValueError: as `multiscale_sinkhorn`.
    """
    settings = checked_settings(epsilon, tolerance, max_iterations, ACCELERATION)
    x, y = points(x, y, 2)
    mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
    samples = separated(x.detach(), y.detach(), mu.detach(), nu.detach(), 2)
    of_x = separated(samples.x, samples.x, samples.a, samples.a, 2)
    of_y = separated(samples.y, samples.y, samples.b, samples.b, 2)
    within_x = _solve(of_x, epsilon, settings, x.dtype)
    equal = torch.equal(x, y) and torch.equal(mu, nu)
    if equal:
        samples, cross, within_y = of_x, within_x, within_x
    else:
        cross, within_y = (_solve(one, epsilon, settings, x.dtype) for one in (samples, of_y))
    value = _value(samples, cross, x, y, mu, nu)
    value = value - _value_within(within_x, x, mu) / 2 - _value_within(within_y, y, nu) / 2
    return at_least_zero(value, equal)
