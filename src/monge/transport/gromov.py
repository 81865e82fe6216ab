r"""Gromov-Wasserstein: transport between spaces that share no coordinates, by their distances.

    GW = min_π Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl   over couplings π of a and b.

With the square loss the sum is ⟨K, π⟩ - 2 ⟨cx π cy, π⟩, K_ij = Σ_k cx_ik² a_k + Σ_l cy_jl² b_l,
which costs n²m + nm² instead of n²m². The problem is not convex: solvers find stationary points.

Source: Mémoli, "Gromov-Wasserstein distances and the metric approach to object matching", 2011;
Peyré, Cuturi, Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices", 2016;
Vayer et al., "Sliced Gromov-Wasserstein", 2019.
"""

import torch
from torch import Tensor

from monge._core.checks import (
    dimension,
    distribution_weights,
    finite,
    floating,
    positive,
    sample_pair,
)
from monge._core.numerics import envelope
from monge._core.typed import from_numpy
from monge.transport.entropic import solve_entropic
from monge.transport.exact import assignment, solve
from monge.transport.gibbs import Matrix
from monge.transport.line import merged
from monge.transport.plan import Plan
from monge.transport.sliced import uniform_directions


def _space(name: str, cost: Tensor) -> Tensor:
    finite(name, floating(name, cost))
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1] or cost.shape[0] < 1:
        raise ValueError(f"`{name}` must be a square matrix, got shape {tuple(cost.shape)}")
    size = cost.detach().abs().max()
    if (cost - cost.T).detach().abs().max() > 1e-5 * size:
        raise ValueError(f"`{name}` must be symmetric: use ½ ({name} + {name}ᵀ)")
    return cost


def objective(cx: Tensor, cy: Tensor, plan: Tensor) -> Tensor:
    """Σ_ijkl (cx_ik - cy_jl)² π_ij π_kl for any π (n, m), differentiable in all three."""
    rows, columns = plan.sum(1), plan.sum(0)
    squares = (cx.square() @ rows * rows).sum() + (cy.square() @ columns * columns).sum()
    return squares - 2 * ((cx @ plan @ cy) * plan).sum()


def _slope(cx: Tensor, cy: Tensor, plan: Tensor) -> Tensor:
    """The gradient of the objective in π, (n, m)."""
    rows, columns = cx.square() @ plan.sum(1), cy.square() @ plan.sum(0)
    return 2 * (rows[:, None] + columns - 2 * cx @ plan @ cy)


def _starts(cx: Tensor, cy: Tensor, a: Tensor, b: Tensor, count: int, seed: int) -> list[Tensor]:
    """The matching of mean distances, the product plan, then random vertices."""
    generator = torch.Generator().manual_seed(seed)
    eccentricity = (cx @ a)[:, None] - cy @ b
    plans = [solve(eccentricity.square(), a, b).plan, a[:, None] * b]
    while len(plans) < count:
        random = torch.rand(cx.shape[0], cy.shape[0], generator=generator)
        plans.append(solve(random.to(cx), a, b).plan)
    return plans[:count]


def _descend(
    cx: Tensor, cy: Tensor, a: Tensor, b: Tensor, plan: Tensor, tolerance: float, most: int
) -> tuple[Tensor, tuple[Tensor, Tensor], int, bool]:
    """Conditional gradient with exact line search: (plan, potentials, iterations, converged).

    Of the gradient 2 (K - 2 cx π cy) only the product changes, and along a segment linearly.
    """
    fixed = (cx.square() @ a)[:, None] + cy.square() @ b
    product = cx @ plan @ cy
    permutations = len(a) == len(b) and bool((a == a[0]).all() and (b == b[0]).all())
    iteration, converged = 0, False
    while not converged and iteration < most:
        iteration += 1
        slope = 2 * (fixed - 2 * product)
        if permutations:
            image = from_numpy(assignment(Matrix(slope - slope.min()))).to(slope.device)
            vertex = torch.zeros_like(plan).scatter_(1, image[:, None], 1 / len(a))
            of_vertex = cx @ cy[image] / len(a)
        else:
            vertex = solve(slope, a, b).plan
            of_vertex = cx @ vertex @ cy
        move, of_move = vertex - plan, of_vertex - product
        gap = -(slope * move).sum()
        scale = (slope * plan).sum().abs() + torch.finfo(cx.dtype).tiny
        if gap <= tolerance * scale:
            converged = True
            continue
        # along the segment the objective is E - gap t + curvature t²
        curvature = -2 * (of_move * move).sum()
        length = (gap / (2 * curvature)).clamp(max=1.0) if curvature > 0 else 1.0
        plan, product = plan + length * move, product + length * of_move
    return plan, solve(_slope(cx, cy, plan), a, b).potentials, iteration, converged


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
        cx: distances within the first space, (n, n), symmetric.
        cy: distances within the second, (m, m), symmetric.
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        starts: how many starting plans: the matching of mean distances, the product plan, then
            random vertices. The best stationary point is returned; it need not be
            the global minimum.
        tolerance: on the duality gap of the linearised problem, relative to its value.
        max_iterations: most conditional gradient steps of a start.
        seed: of the random starts.

    Returns:
        The plan; `value` is the objective, no root, differentiable in cx, cy and the weights at
        the returned plan. `potentials` are those of the problem linearised at the plan.

    Raises:
        ValueError: for a cost that is not square, symmetric and finite, or invalid weights.
    """
    cx, cy = _space("cx", cx), _space("cy", cy)
    mu = distribution_weights("a", a, cx, len(cx)).to(cx)
    nu = distribution_weights("b", b, cy, len(cy)).to(cy)
    fixed = cx.detach(), cy.detach(), mu.detach(), nu.detach()
    plans = _starts(*fixed, dimension("starts", starts), seed)
    results = [_descend(*fixed, plan, tolerance, max_iterations) for plan in plans]
    plan, (f, g), iterations, converged = min(
        results, key=lambda result: float(objective(fixed[0], fixed[1], result[0]))
    )
    # at the fixed plan the objective is a function of the costs; of weights it is a linear one
    value = objective(cx, cy, plan).clamp(min=0)
    in_weights = envelope(value.new_zeros(()), (mu, f - f.mean()), (nu, g - g.mean()), linear=True)
    error = max((plan.sum(1) - fixed[2]).abs().sum(), (plan.sum(0) - fixed[3]).abs().sum())
    return Plan(
        value=value + in_weights,
        value_linear=value.detach(),
        potentials=(f, g),
        marginal_error=float(error),
        iterations=iterations,
        converged=converged,
        make=lambda: plan,
    )


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

    ε is in units of the squared difference of distances. `value` is the objective with its
    entropic term, `value_linear` without; both without gradient. `tolerance` is on the change of
    the plan between iterations, in L1. Other arguments as for `gromov_wasserstein`.
    """
    positive("epsilon", epsilon)
    cx, cy = _space("cx", cx).detach(), _space("cy", cy).detach()
    mu, nu = (
        distribution_weights("a", a, cx, len(cx)).detach().to(cx),
        distribution_weights("b", b, cy, len(cy)).detach().to(cy),
    )
    plan, converged = mu[:, None] * nu, False
    inner, iteration = None, 0
    while not converged and iteration < max_iterations:
        iteration += 1
        inner = solve_entropic(_slope(cx, cy, plan), mu, nu, epsilon=epsilon, tolerance=tolerance)
        converged = bool((inner.plan - plan).abs().sum() <= tolerance)
        plan = inner.plan
    if inner is None:
        raise ValueError(f"`max_iterations` must be at least 1, got {max_iterations}")
    product = mu[:, None] * nu
    entropy = (torch.xlogy(plan, plan / product.clamp_min(torch.finfo(plan.dtype).tiny))).sum()
    linear = objective(cx, cy, plan)
    return Plan(
        value=linear + epsilon * entropy,
        value_linear=linear,
        potentials=inner.potentials,
        marginal_error=inner.marginal_error,
        iterations=iteration,
        converged=converged,
        make=lambda: plan,
    )


def _monotone(u: Tensor, v: Tensor) -> Tensor:
    """The objective between squared distances on the line for the increasing matching, batched.

    With centred values and moments over the matching, E(u - u')⁴ = 2 E u⁴ + 6 (E u²)² and
    E (u - u')² (v - v')² = 2 E u²v² + 2 E u² E v² + 4 (E uv)²: two sorts, no double sum.
    """
    widths, u, v = merged(u - u.mean(-1, keepdim=True), v - v.mean(-1, keepdim=True))

    def mean(values: Tensor) -> Tensor:
        return (widths * values).sum(-1)

    uu, vv = mean(u.square()), mean(v.square())
    squares = 2 * mean(u**4 + v**4) + 6 * (uu.square() + vv.square())
    return squares - 2 * (2 * mean((u * v).square()) + 2 * uu * vv + 4 * mean(u * v).square())


def sliced_gromov_wasserstein(
    x: Tensor,
    y: Tensor,
    *,
    directions: int | Tensor = 128,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sliced Gromov-Wasserstein between squared distances: the objective, no root.

    On each direction the better of the increasing and the decreasing matching is taken. These are
    two sorts, and optimal in many cases (Vayer et al., 2019) but not in all (Beinert, Heiss,
    Steidl, "On assignment problems related to Gromov-Wasserstein distances on the real line",
    2023), so the value is an upper bound of the mean over directions.

    Args:
        x: points (n, d).
        y: points (m, e); the one of lower dimension is padded with zeros.
        directions: how many to draw, or a tensor (L, max(d, e)).
        generator: draws the directions, on the CPU.
    """
    x, y = (sample_pair(z, z)[0] for z in (x, y))
    if x.device != y.device:
        raise ValueError(f"`x` and `y` must be on one device, got {x.device} and {y.device}")
    finite("x", x)
    finite("y", y)
    dim = max(x.shape[1], y.shape[1])
    x, y = (torch.nn.functional.pad(z, (0, dim - z.shape[1])) for z in (x, y))
    if not isinstance(directions, Tensor):
        directions = uniform_directions(directions, dim, generator=generator)
    theta = directions.to(x)
    u, v = theta @ x.T, theta @ y.T
    return torch.minimum(_monotone(u, v), _monotone(u, -v)).mean()
