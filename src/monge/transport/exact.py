r"""Exact transport between finite samples: Kantorovich's linear programme and Monge's assignment.

    min_π Σ_ij C_ij π_ij   over π ≥ 0, π1 = a, πᵀ1 = b
  = max_{f,g} ⟨a, f⟩ + ⟨b, g⟩   over f_i + g_j ≤ C_ij.

With n = m and uniform weights a vertex of the polytope is a permutation, Monge's map. The network
simplex is POT's (Bonneel et al., "Displacement interpolation using Lagrangian mass transport",
2011; Flamary et al., "POT", 2021), the assignment SciPy's (Crouse, "On implementing 2D rectangular
assignment algorithms", 2016).

Gradients are those of the dual at its optimum (the envelope theorem): the plan for the cost, the
potentials for the weights. Potentials are fixed up to a constant; as gradients they are centred.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from monge._core.checks import (
    cost_matrix,
    distribution_weights,
    point_batches,
    points,
    weight_batch,
)
from monge._core.numerics import envelope, power_of_squared, power_of_two, root, unvanished
from monge._core.promotion import WEIGHTS, promoted
from monge._core.tuning import tuning
from monge._core.typed import (
    Floats,
    Integers,
    from_numpy,
    linear_assignment,
    pairwise_distances,
    to_numpy,
)
from monge.transport.batched_exact import (
    assignments,
    pairs_of,
    reduced_assignment,
    relative_lengths,
)
from monge.transport.batched_exact import plans as batched_plans
from monge.transport.exact_simplex import simplex
from monge.transport.forbidden import feasible_weights, forbidden_pairs, open_simplex
from monge.transport.gaussian_potentials import gaussian_potentials
from monge.transport.ground import GroundCost, Points, about_medians
from monge.transport.plan import Plan
from monge.transport.potentials import rough_potentials

MOST_ERROR = {torch.float32: 1e-8, torch.float64: 1e-11}
"""The relative error that is allowed in the cost of an assignment."""
LOOSE = 0.003
"""ε of the potentials that prepare an assignment, in units of the mean cost."""


def as_array(x: Tensor) -> Floats:
    """The numbers of a tensor in float64."""
    return to_numpy(x.detach().double().cpu())


def _distances(x: Tensor, y: Tensor) -> Floats:
    """‖x_i - y_j‖ in float64, (n, m)."""
    return pairwise_distances(as_array(x), as_array(y))


def _in_weights(w: Tensor | None, potential: Floats) -> tuple[Tensor | None, Tensor]:
    """The weights and the gradient in them, the centred potential."""
    return w, from_numpy(potential - potential.mean()).to(w if w is not None else "cpu")


def _solve_together(cost: Tensor, a: Tensor | None, b: Tensor | None) -> Plan | None:
    """`solve` of costs (B, n, m)."""
    _, n, m = cost.shape
    small = 0 < n * m <= tuning(cost.device).batched_entries
    if not (small and torch.isfinite(cost).all()):  # an item is told what is wrong with it
        return None
    mu, nu = weight_batch("a", a, cost), weight_batch("b", b, cost.mT)
    found, f, g = batched_plans(simplex, cost.detach().double(), mu, nu)
    plans = found.to(cost)
    in_weights = [(a, f - f.mean(1, keepdim=True)), (b, g - g.mean(1, keepdim=True))]
    linear = not (cost.requires_grad and _moves(a, b))
    value = envelope((plans * cost).sum((1, 2)), (cost, plans), *in_weights, linear=linear)
    errors = (plans.sum(2) - mu).abs().sum(1), (plans.sum(1) - nu).abs().sum(1)
    return Plan(
        value=value,
        value_linear=value.detach(),
        potentials=(f.to(cost), g.to(cost)),
        marginal_error=float(torch.maximum(*errors).detach().max()),
        iterations=None,
        converged=True,
        make=lambda: plans,
    )


@promoted(_solve_together, cost=2, a=WEIGHTS, b=WEIGHTS)
def solve(cost: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Plan:
    """Kantorovich's problem for a cost matrix.

    Args:
        cost: C (n, m), of any sign; +∞ forbids a pair.
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).

    Returns:
        The plan, with `value` = ⟨C, π⟩ = ⟨a, f⟩ + ⟨b, g⟩ and f_i + g_j ≤ C_ij.

    Raises:
        ValueError: for a cost that is not a matrix, NaN or -∞ in it, invalid weights, or forbidden
            pairs that leave no plan.
    """
    cost_matrix(cost)
    closed = forbidden_pairs(cost)
    mu, nu = (
        distribution_weights("a", a, cost, cost.shape[0]),
        distribution_weights("b", b, cost, cost.shape[1]),
    )
    served = (mu, nu) if closed is None else feasible_weights(closed, mu, nu)
    pi, f, g = open_simplex(as_array(cost), as_array(served[0]), as_array(served[1]))
    plan = from_numpy(pi).to(cost)
    # linear in the cost and in the weights, but not in both
    linear = not (cost.requires_grad and _moves(a, b))
    open_cost = cost if closed is None else cost.masked_fill(closed, 0.0)
    value = envelope(
        (plan * open_cost).sum(),
        (open_cost, plan),
        _in_weights(a, f),
        _in_weights(b, g),
        linear=linear,
    )
    errors = (plan.sum(1) - mu).abs().sum(), (plan.sum(0) - nu).abs().sum()
    return Plan(
        value=value,
        value_linear=value.detach(),
        potentials=(from_numpy(f).to(cost), from_numpy(g).to(cost)),
        marginal_error=float(max(error.detach() for error in errors)),
        iterations=None,
        converged=True,
        make=lambda: plan,
    )


def assignment(cost: GroundCost) -> Integers:
    """The permutation σ (n,) that minimises Σ C_iσ(i), of a cost (n, n), by reduced costs with
    potentials near those of the optimum: most of them are far from 0, which is much faster."""
    return _assignment_about(cost, *_near_potentials(cost))


def _assignment_about(cost: GroundCost, f: Tensor, g: Tensor) -> Integers:
    """`assignment` by the reduced costs C - f - g, which have the same optimum for any f and g."""
    # of ties in matrices, descents of Gromov-Wasserstein take those that SciPy finds
    solver = reduced_assignment if isinstance(cost, Points) else linear_assignment
    reduced = torch.empty(cost.shape, dtype=torch.float64)
    for rows, exponents in cost.exponents(f, g, 1.0):
        torch.neg(exponents.cpu(), out=reduced[rows])
    return solver(to_numpy(reduced))


def _near_potentials(cost: GroundCost) -> tuple[Tensor, Tensor]:
    """Potentials for an assignment: of an entropic plan, if there are many points; of Gaussians
    for fewer, between which the cost is the squared distance."""
    n = cost.shape[0]
    if n >= tuning(cost.device).prepared_points and (scale := cost.mean()) > 0:
        return rough_potentials(cost.roughly(), LOOSE * scale, iterations=20)
    if isinstance(cost, Points) and cost.p == 2 and not cost.exact:
        f, g = gaussian_potentials(cost.x[None], cost.y[None])
        return f[0], g[0]
    zeros = torch.zeros(n, dtype=torch.float64, device=cost.device)
    return zeros, zeros


def _scale(points: Tensor) -> float:
    """A unit of length in which differences of points neither overflow nor vanish."""
    extent = (points.amax(0) - points.amin(0)).amax() if points.shape[1] else points.new_ones(())
    return power_of_two(float(extent))


def scaled_lengths(x: Tensor, y: Tensor) -> tuple[Floats, float]:
    """‖x_i - y_j‖ of points in float64, in units of the largest, and that one."""
    scale = _scale(torch.cat([x, y]))
    lengths = _distances(x / scale, y / scale)
    longest = lengths.max() or 1.0
    return lengths / longest, scale * longest


def matching(x: Tensor, y: Tensor, p: float) -> tuple[Integers, float]:
    """The optimal permutation of equally many, equally weighted points, and a scale of length.

    On the line it is the order of the points, for every p."""
    dtype = x.dtype
    x, y = x.detach().double(), y.detach().double()
    both = torch.cat([x, y])
    scale = _scale(both)
    if x.shape[1] == 1:
        columns = torch.empty(len(x), dtype=torch.int64, device=x.device)
        columns[x[:, 0].argsort(stable=True)] = y[:, 0].argsort(stable=True)
        return to_numpy(columns.cpu()), scale
    x, y = x / scale, y / scale
    if p == 2:
        x, y = about_medians(x, y)
        unit = _scale(torch.cat([x, y]))
        x, y = x / unit, y / unit
    columns = assignment(Points(x, y, p, torch.float32))
    # the costs, of about 1, have absolute errors that may outweigh an optimum this small
    squares = (x - y[from_numpy(columns).to(y.device)]).square().sum(1)
    optimum = float(power_of_squared(squares, p).mean())
    if optimum * MOST_ERROR[dtype] < torch.finfo(torch.float64).eps:
        # nor may potentials, which have such errors, too, be subtracted
        zeros = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        columns = _assignment_about(Points(x, y, p, torch.float32, exact=True), zeros, zeros)
    return columns, scale


@promoted(x=2, y=2)
def monge_map(x: Tensor, y: Tensor, *, p: float = 2) -> Tensor:
    """Monge's map between n and n points: y[indices] are the images of x.

    Args:
        x: points (n, d).
        y: points (n, d).
        p: order, at least 1.

    Returns:
        The indices (n,), a permutation that minimises Σ ‖x_i - y_σ(i)‖^p; on the line it matches
        the points in their order.

    Raises:
        ValueError: also for samples of different sizes, between which a map may not exist; `solve`
            finds a plan.
    """
    x, y = points(x, y, p)
    if len(x) != len(y):
        raise ValueError(
            f"`x` and `y` must hold equally many points, got {len(x)} and {len(y)}: "
            "use `solve` for a plan that splits mass"
        )
    return from_numpy(matching(x, y, p)[0]).to(x.device)


def _wasserstein_together(
    x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None, *, p: float
) -> Tensor | None:
    """`wasserstein` of points (B, n, d) and (B, m, d), small enough that they cost less than what
    surrounds them."""
    x, y = point_batches(x, y, p)
    n, m = x.shape[1], y.shape[1]
    if n * m > tuning(x.device).batched_entries:
        return None
    lengths, unit = relative_lengths(x.detach(), y.detach())
    in_weights: list[tuple[Tensor | None, Tensor]] = []
    if a is None and b is None and n == m:
        start = gaussian_potentials(*(z.detach() / unit for z in (x, y))) if p == 2 else None
        pairs = assignments(lengths.pow_(p), start, MOST_ERROR[x.dtype])
    else:
        mu, nu = weight_batch("a", a, x), weight_batch("b", b, y)
        plans, f, g = batched_plans(simplex, lengths.pow_(p), mu, nu)
        pairs = pairs_of(plans)
        in_weights = [(a, f - f.mean(1, keepdim=True)), (b, g - g.mean(1, keepdim=True))]
    item, i, j, mass = pairs

    def at_these_plans(x: Tensor, y: Tensor, q: float = p) -> Tensor:
        moves = (x[item, i].double() - y[item, j].double()) / unit[item, 0]
        parts = mass * power_of_squared(moves.square().sum(1), q)
        return parts.new_zeros(len(x)).index_add(0, item, parts)

    power = unvanished(at_these_plans(x, y), lambda: at_these_plans(x, y, 2), p)
    if _moves(a, b):
        power = _with_weights(power, at_these_plans, x, y, in_weights)
    return unit[:, 0, 0] * root(power, p)


@promoted(_wasserstein_together, x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def wasserstein(
    x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None, *, p: float = 2
) -> Tensor:
    """The Wasserstein distance W_p between weighted points, with the root.

    Differentiable in points and weights, with gradient 0 where the distance is 0.

    Args:
        x: points (n, d).
        y: points (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        p: order, at least 1; the cost is ‖x_i - y_j‖^p.

    Raises:
        ValueError: for an empty sample, NaN or infinity, different dimensions, p < 1, or
            invalid weights.
    """
    power, scale = power_and_scale(*points(x, y, p), a, b, p)
    return scale * root(power, p)


def power_and_scale(
    x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None, p: float
) -> tuple[Tensor, float]:
    """(W_p / scale)^p and the scale, of checked points."""
    in_weights: list[tuple[Tensor | None, Tensor]] = []
    if a is None and b is None and len(x) == len(y):
        columns, scale = matching(x, y, p)
        rows, mass = np.arange(len(x)), np.full(len(x), 1 / len(x))
    else:
        mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
        wide = x.detach().double(), y.detach().double()
        lengths, scale = scaled_lengths(*wide)
        plan, f, g = simplex(lengths**p, as_array(mu), as_array(nu))
        rows, columns = plan.nonzero()
        mass = plan[rows, columns]
        in_weights = [_in_weights(a, f), _in_weights(b, g)]
    power = power_of_plan((x, y), (rows, columns, mass), scale, p, in_weights)
    return power, scale


def power_of_plan(
    points: tuple[Tensor, Tensor],
    plan: tuple[Integers, Integers, Floats],
    scale: float,
    p: float,
    in_weights: list[tuple[Tensor | None, Tensor]],
) -> Tensor:
    """Σ_ij π_ij (‖x_i - y_j‖ / scale)^p of an optimal plan, given by its rows, columns and masses,
    with its gradients in the points, and the known ones in weights."""
    (x, y), (rows, columns, mass) = points, plan
    i, j = from_numpy(rows).to(x.device), from_numpy(columns).to(x.device)

    def at_this_plan(x: Tensor, y: Tensor, q: float = p) -> Tensor:
        # in units of the largest distance, whose p-th power neither overflows nor vanishes
        squared = ((x[i].double() - y[j].double()) / scale).square().sum(1)
        return (from_numpy(mass).to(x.device) * power_of_squared(squared, q)).sum()

    power = unvanished(at_this_plan(x, y), lambda: at_this_plan(x, y, 2), p)
    if _moves(*(w for w, _ in in_weights)):
        power = _with_weights(power, at_this_plan, x, y, in_weights)
    return power


def _with_weights(
    power: Tensor,
    at_plan: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    in_weights: Sequence[tuple[Tensor | None, Tensor]],
) -> Tensor:
    """The power with its gradient in weights as well. The plan of other weights is another one, so
    that only first derivatives are known."""
    moved = x.detach().requires_grad_(), y.detach().requires_grad_()
    with torch.enable_grad():
        slopes = torch.autograd.grad(at_plan(*moved).sum(), moved)
    return envelope(power, *zip((x, y), slopes), *in_weights, linear=False)


def _moves(*weights: Tensor | None) -> bool:
    return any(w is not None and w.requires_grad for w in weights)


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def kantorovich_potential(
    x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The function that attains W_1 in the Kantorovich-Rubinstein duality, on both samples.

    It is φ(z) = min_j ‖z - y_j‖ - g_j with the dual potential g, 1-Lipschitz everywhere, and
    W_1 = Σ a_i φ(x_i) - Σ b_j φ(y_j).

    Args:
        x: points (n, d).
        y: points (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).

    Returns:
        (φ on x (n,), φ on y (m,)), without gradient.

    Raises:
        ValueError: for an empty sample, NaN or infinity, different dimensions, or invalid weights.
    """
    x, y = points(x, y, 1)
    mu, nu = distribution_weights("a", a, x, len(x)), distribution_weights("b", b, y, len(y))
    wide = x.detach().double(), y.detach().double()
    distances, scale = scaled_lengths(*wide)
    _, _, g = simplex(distances, as_array(mu), as_array(nu))
    unit = _scale(torch.cat(wide))
    within = _distances(wide[1] / unit, wide[1] / unit) / (scale / unit)
    on_x, on_y = scale * (distances - g).min(1), scale * (within - g).min(1)
    return from_numpy(on_x).to(x), from_numpy(on_y).to(y)
