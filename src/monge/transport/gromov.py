r"""Gromov-Wasserstein: transport between spaces that share no coordinates, by their distances.

    GW = min_π Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl   over couplings π of a and b.

With the square loss the sum is ⟨K, π⟩ - 2 ⟨cx π cyᵀ, π⟩, K_ij = Σ_k cx_ik² a_k + Σ_l cy_jl² b_l,
which costs n²m + nm² instead of n²m². The problem is not convex: solvers find stationary points.
Matrices need not be symmetric, as those of directed graphs: the quadratic form is that of the
symmetric parts plus that of the antisymmetric ones.

Source: Mémoli, "Gromov-Wasserstein distances and the metric approach to object matching", 2011;
Peyré, Cuturi, Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", 2016.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from monge._core.checks import (
    dimension,
    distribution_weights,
    finite,
    floating,
    positive,
)
from monge._core.errors import warn
from monge._core.numerics import distances, envelope, power_of_two
from monge._core.promotion import WEIGHTS, promoted
from monge._core.typed import from_numpy
from monge.transport.entropic import solve_entropic
from monge.transport.exact import assignment, solve
from monge.transport.ground import Matrix
from monge.transport.plan import Plan

MOST_LEVELS = 64
"""Quantiles that a profile of distances is compared at."""
MOST_SWAPPED = 100
"""Points up to which pairs of images are exchanged, at n³ a step."""


def _space(name: str, cost: Tensor) -> Tensor:
    finite(name, floating(name, cost))
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1] or cost.shape[0] < 1:
        raise ValueError(f"`{name}` must be a square matrix, got shape {tuple(cost.shape)}")
    size = cost.detach().abs().max()
    # what rounding has made asymmetric is not a directed graph
    near = bool((cost - cost.T).detach().abs().max() <= 1e-5 * size)
    return (cost + cost.T) / 2 if near else cost


def _is_symmetric(cx: Tensor, cy: Tensor) -> bool:
    return torch.equal(cx, cx.T) and torch.equal(cy, cy.T)


def _product(cx: Tensor, cy: Tensor, plan: Tensor) -> Tensor:
    """½ (cx π cyᵀ + cxᵀ π cy), half of the slope of ⟨cx π cyᵀ, π⟩ in π."""
    if _is_symmetric(cx, cy):
        return cx @ plan @ cy
    return (cx @ plan @ cy.T + cx.T @ plan @ cy) / 2


def _product_of_images(cx: Tensor, cy: Tensor, image: Tensor) -> Tensor:
    """`_product` of the permutation that maps i to image_i."""
    if _is_symmetric(cx, cy):
        return cx @ cy[image] / len(image)
    return (cx @ cy[:, image].T + cx.T @ cy[image]) / (2 * len(image))


def _squares(cost: Tensor, w: Tensor) -> Tensor:
    """½ Σ_k (c_ik² + c_ki²) w_k, (n,)."""
    squares = cost.square()
    return (squares @ w + w @ squares) / 2


def _in_units(cx: Tensor, cy: Tensor) -> tuple[Tensor, Tensor, float]:
    """Both costs in a common unit in which their squares are of order 1, a power of 2."""
    unit = power_of_two(max(float(cost.detach().abs().max()) for cost in (cx, cy)))
    return cx / unit, cy / unit, unit


def objective(cx: Tensor, cy: Tensor, plan: Tensor) -> Tensor:
    """Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl for any π (n, m), differentiable in all three."""
    rows, columns = plan.sum(1), plan.sum(0)
    squares = (_squares(cx, rows) * rows).sum() + (_squares(cy, columns) * columns).sum()
    return squares - 2 * ((cx @ plan @ cy.T) * plan).sum()


def _slope(cx: Tensor, cy: Tensor, plan: Tensor) -> Tensor:
    """The gradient of the objective in π, (n, m)."""
    rows, columns = _squares(cx, plan.sum(1)), _squares(cy, plan.sum(0))
    return 2 * (rows[:, None] + columns - 2 * _product(cx, cy, plan))


def _profiles(cost: Tensor, w: Tensor, levels: Tensor) -> Tensor:
    """Quantiles of the distances to each point, (n, levels): the line's view of a space."""
    distances, order = cost.sort(1)
    below = w[order].cumsum(1).contiguous()
    index = torch.searchsorted(below, levels.expand(len(cost), -1).contiguous())
    return distances.gather(1, index.clamp(max=cost.shape[1] - 1))


def _starts(
    cx: Tensor, cy: Tensor, a: Tensor, b: Tensor, count: int, seed: int
) -> Iterator[Tensor]:
    """Yields starts: two matchings by invariants, the product plan, then matchings by landmarks.

    Mean distances and sorted distances to all points do not change under isometries. Two
    landmarks in x and two in y, as far from one another, are taken for each other's images; then
    distances to them are coordinates, and exact ones for isometric spaces in the plane up to a
    mirror image.
    """
    generator = torch.Generator().manual_seed(seed)
    if count > 0:
        eccentricity = (cx @ a)[:, None] - cy @ b
        yield solve(eccentricity.square(), a, b).plan
    if count > 1:
        yield a[:, None] * b
    if count > 2:
        size = min(max(cx.shape[0], cy.shape[0]), MOST_LEVELS)
        levels = (torch.arange(size, dtype=cx.dtype, device=cx.device) + 0.5) / size
        of_x, of_y = _profiles(cx, a, levels), _profiles(cy, b, levels)
        yield solve(distances(of_x, of_y).square(), a, b).plan
    for _ in range(3, count):
        first, second = (int(torch.multinomial(a.cpu(), 1, generator=generator)) for _ in range(2))
        image = int(torch.multinomial(b.cpu(), 1, generator=generator))
        other = int((cy[image] - cx[first, second]).abs().argmin())
        gaps = [cx[:, i, None] - cy[:, k] for i, k in ((first, image), (second, other))]
        yield solve(gaps[0].square() + gaps[1].square(), a, b).plan


def _swapped(cx: Tensor, cy: Tensor, plan: Tensor) -> Tensor:
    """The plan, if it is a permutation, after the best exchanges of two images, one by one.

    The objective falls with Σ_ik cx_ik c_ik, c the matrix cy in the order of the images. With
    M = cx cᵀ + cxᵀ c, two products give what each exchange adds to it.
    """
    mass, image = plan.max(1)
    if len(plan) > MOST_SWAPPED or plan.shape[0] != plan.shape[1]:
        return plan
    if (mass * len(plan) - 1).abs().max() > 1e-6 or (plan.sum(0) == 0).any():
        return plan
    start, scale = image.clone(), (cx.square().sum() * cy.square().sum()).sqrt()
    for _ in range(len(plan) ** 2):
        c = cy[image][:, image]
        m, x, y = cx @ c.T + cx.T @ c, cx.diagonal(), c.diagonal()
        gain = m + m.T - m.diagonal() - m.diagonal()[:, None]
        # without the entries between the two themselves
        for one, other in ((cx, c), (cx.T, c.T)):
            gain = gain + (x[:, None] - one) * (y[:, None] - other) + (one - x) * (other - y)
        gain = gain + (x[:, None] - x) * (y - y[:, None]) + (cx - cx.T) * (c.T - c)
        best = int(gain.argmax())
        if gain.flatten()[best] <= 10 * torch.finfo(cx.dtype).eps * scale:
            break
        i, k = divmod(best, len(plan))
        image[[i, k]] = image[[k, i]]
    if torch.equal(image, start):
        return plan
    return torch.zeros_like(plan).scatter_(1, image[:, None], 1 / len(plan))


def _descend(
    cx: Tensor, cy: Tensor, a: Tensor, b: Tensor, plan: Tensor, tolerance: float, most: int
) -> tuple[Tensor, tuple[Tensor, Tensor], int, bool]:
    """Conditional gradient with exact line search: (plan, potentials, iterations, converged).

    Of the gradient 2 (K - 2 `_product`) only the product changes, and along a segment linearly.
    """
    fixed = _squares(cx, a)[:, None] + _squares(cy, b)
    product = _product(cx, cy, plan)
    permutations = len(a) == len(b) and bool((a == a[0]).all() and (b == b[0]).all())
    iteration, converged = 0, False
    while not converged and iteration < most:
        iteration += 1
        slope = 2 * (fixed - 2 * product)
        if permutations:
            image = from_numpy(assignment(Matrix(slope - slope.min()))).to(slope.device)
            vertex = torch.zeros_like(plan).scatter_(1, image[:, None], 1 / len(a))
            of_vertex = _product_of_images(cx, cy, image)
        else:
            vertex = solve(slope, a, b).plan
            of_vertex = _product(cx, cy, vertex)
        move, of_move = vertex - plan, of_vertex - product
        gap = -(slope * move).sum()
        scale = (slope * plan).sum().abs() + torch.finfo(cx.dtype).tiny
        if gap <= max(tolerance, 10 * torch.finfo(cx.dtype).eps) * scale:
            converged = True
            continue
        # along the segment the objective is E - gap t + curvature t²
        curvature = -2 * (of_move * move).sum()
        length = (gap / (2 * curvature)).clamp(max=1.0) if curvature > 0 else 1.0
        plan, product = plan + length * move, product + length * of_move
    return plan, solve(_slope(cx, cy, plan), a, b).potentials, iteration, converged


def _stationary(
    cx: Tensor, cy: Tensor, a: Tensor, b: Tensor, plan: Tensor, tolerance: float, most: int
) -> tuple[Tensor, tuple[Tensor, Tensor], int, bool]:
    """A plan that neither a descent nor an exchange of two images improves."""
    iterations = 0
    while True:
        plan, potentials, count, converged = _descend(cx, cy, a, b, plan, tolerance, most)
        iterations += count
        other = _swapped(cx, cy, plan) if converged else plan
        if other is plan or not objective(cx, cy, other) < objective(cx, cy, plan):
            return plan, potentials, iterations, converged
        plan = other


def _with_slopes(
    value: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    plan: Tensor,
    potentials: tuple[Tensor, Tensor],
) -> Tensor:
    """The value with its gradient in both costs at the fixed plan, and in both weights, where it
    is the potentials of the linearised problem."""
    (cx, cy, a, b), (f, g) = inputs, potentials
    rows, columns = plan.sum(1), plan.sum(0)
    fixed_x, fixed_y = cx.detach(), cy.detach()
    of_x = 2 * (fixed_x * rows[:, None] * rows - plan @ fixed_y @ plan.T)
    of_y = 2 * (fixed_y * columns[:, None] * columns - plan.T @ fixed_x @ plan)
    in_weights = (a, f - f.mean()), (b, g - g.mean())
    return envelope(value, (cx, of_x), (cy, of_y), *in_weights, linear=False)


def _warn(what: str, iterations: int) -> None:
    warn(
        f"Gromov-Wasserstein stopped after {iterations} iterations with a {what}: raise "
        "`tolerance` or `max_iterations`"
    )


@promoted(cx=2, cy=2, a=WEIGHTS, b=WEIGHTS)
def gromov_wasserstein(
    cx: Tensor,
    cy: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    starts: int = 4,
    tolerance: float = 1e-9,
    max_iterations: int = 1000,
    seed: int = 0,
) -> Plan:
    """Gromov-Wasserstein with square loss, by conditional gradient from several starts.

    Args:
        cx: distances within the first space, (n, n); of a directed graph they need not be
            symmetric.
        cy: distances within the second, (m, m).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        starts: the number of starting plans: the matching of mean distances, the product plan, the
            matching of sorted distances, then matchings by distances to random landmarks. The
            best stationary point is returned; it need not be the global minimum. For 100 planar
            clouds of 6 points it was the best permutation in 93 cases with 4 starts (at most 18 %
            above it in the others), and in all 100 with 16.
        tolerance: on the duality gap of the linearised problem, relative to its value.
        max_iterations: the limit of conditional gradient steps per start; a returned plan that
            reached it warns.
        seed: of the landmarks.

    Returns:
        The plan; `value` is the objective, no root, differentiable in cx, cy and the weights at
        the returned plan. `potentials` are those of the problem linearised at the plan.

    Raises:
        ValueError: for a cost that is not square and finite, or invalid weights.
    """
    positive("tolerance", tolerance)
    dimension("max_iterations", max_iterations)
    cx, cy, unit = _in_units(_space("cx", cx), _space("cy", cy))
    mu = distribution_weights("a", a, cx, len(cx)).to(cx)
    nu = distribution_weights("b", b, cy, len(cy)).to(cy)
    fixed = cx.detach(), cy.detach(), mu.detach(), nu.detach()
    results = [
        _stationary(*fixed, plan, tolerance, max_iterations)
        for plan in _starts(*fixed, dimension("starts", starts), seed)
    ]
    plan, (f, g), iterations, converged = min(
        results, key=lambda result: float(objective(fixed[0], fixed[1], result[0]))
    )
    if not converged:
        _warn(f"gap to the linearised problem above `tolerance` {tolerance:.2g}", iterations)
    linear = objective(fixed[0], fixed[1], plan).clamp(min=0)
    error = max((plan.sum(1) - fixed[2]).abs().sum(), (plan.sum(0) - fixed[3]).abs().sum())
    return Plan(
        value=_with_slopes(linear, (cx, cy, mu, nu), plan, (f, g)).double() * unit**2,
        value_linear=linear.double() * unit**2,
        potentials=(f.double() * unit**2, g.double() * unit**2),
        marginal_error=float(error),
        iterations=iterations,
        converged=converged,
        make=lambda: plan,
    )


@promoted(cx=2, cy=2, a=WEIGHTS, b=WEIGHTS)
def entropic_gromov_wasserstein(
    cx: Tensor,
    cy: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
) -> Plan:
    """Gromov-Wasserstein + ε KL(π | a⊗b), by Sinkhorn on the linearised cost.

    It starts from the product plan.

    Args:
        cx: distances within the first space, (n, n); of a directed graph they need not be
            symmetric.
        cy: distances within the second, (m, m).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        epsilon: regularisation, in units of the squared difference of distances.
        tolerance: on the change of the plan between iterations, in L1.
        max_iterations: the iteration limit; reaching it warns.

    Returns:
        The plan; `value` is the objective with its entropic term, differentiable in costs and
        weights at the returned plan, and `value_linear` the objective without that term and
        without gradient.

    Raises:
        ValueError: for a cost that is not square and finite, ε ≤ 0, or invalid weights.
    """
    positive("epsilon", epsilon)
    positive("tolerance", tolerance)
    dimension("max_iterations", max_iterations)
    cx, cy, unit = _in_units(_space("cx", cx), _space("cy", cy))
    epsilon = epsilon / unit / unit
    inputs = cx, cy
    inputs += (
        distribution_weights("a", a, cx, len(cx)).to(cx),
        distribution_weights("b", b, cy, len(cy)).to(cy),
    )
    cx, cy, mu, nu = (z.detach() for z in inputs)
    plan, converged = mu[:, None] * nu, False
    inner, iteration, change = None, 0, 0.0
    while not converged and iteration < max_iterations:
        iteration += 1
        inner = solve_entropic(_slope(cx, cy, plan), mu, nu, epsilon=epsilon, tolerance=tolerance)
        change = float((inner.plan - plan).abs().sum())
        converged = inner.converged and change <= tolerance + 10 * torch.finfo(plan.dtype).eps
        plan = inner.plan
    assert inner is not None
    if not converged:
        _warn(f"plan that still moved by {change:.2g}, `tolerance` is {tolerance:.2g}", iteration)
    product = mu[:, None] * nu
    entropy = (torch.xlogy(plan, plan / product.clamp_min(torch.finfo(plan.dtype).tiny))).sum()
    linear = objective(cx, cy, plan)
    return Plan(
        value=_with_slopes(linear + epsilon * entropy, inputs, plan, inner.potentials).double()
        * unit**2,
        value_linear=linear.double() * unit**2,
        potentials=(
            inner.potentials[0].double() * unit**2,
            inner.potentials[1].double() * unit**2,
        ),
        marginal_error=inner.marginal_error,
        iterations=iteration,
        converged=converged,
        make=lambda: plan,
    )
