"""Partial transport and forbidden pairs, against SciPy's linear programmes and POT."""

import math

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linprog

from monge.transport import (
    KL,
    TV,
    partial_wasserstein,
    sinkhorn,
    solve,
    solve_entropic,
    solve_partial,
    wasserstein,
)

INFINITE = float("inf")


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def masses(n, total=1.0):
    w = torch.rand(n, dtype=torch.float64) + 0.1
    return total * w / w.sum()


def programme(cost, a, b, mass=None):
    """SciPy's optimum over π ≥ 0, 0 where the cost is infinite; partial with a mass."""
    cost = np.asarray(cost)
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    bounds = [(0, 0 if np.isinf(c) else None) for c in cost.ravel()]
    objective = np.nan_to_num(cost.ravel(), posinf=0.0)
    weights = np.concatenate([a, b])
    if mass is None:
        constraints = {"A_eq": np.vstack([rows, columns]), "b_eq": weights}
    else:
        constraints = {"A_ub": np.vstack([rows, columns]), "b_ub": weights}
        constraints |= {"A_eq": np.ones((1, n * m)), "b_eq": [mass]}
    return linprog(objective, bounds=bounds, method="highs", **constraints)


@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("totals", [(1.0, 1.0), (0.7, 1.9), (3.0, 0.2)])
@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_partial_plans_are_scipys(share, totals, shift):
    cost, a, b = doubles(8, 6).abs() + shift, masses(8, totals[0]), masses(6, totals[1])
    mass = share * min(totals)
    plan = solve_partial(cost, a, b, mass=mass)
    expected = programme(cost, a, b, mass)
    assert float(plan.value) == pytest.approx(expected.fun, rel=1e-8, abs=1e-10)
    assert float(plan.mass) == pytest.approx(mass, rel=1e-9)
    assert plan.marginal_error < 1e-9
    f, g = plan.potentials
    assert f.max() <= 0
    assert g.max() <= 0
    price = (plan.value - a @ f - b @ g) / mass
    assert (f[:, None] + g + price - cost).max() < 1e-8


def test_partial_distances_are_pots():
    x, y, a, b = doubles(9, 2), doubles(7, 2) + 0.5, masses(9), masses(7, 1.4)
    for p in (1, 2, 3):
        cost = torch.cdist(x, y) ** p
        expected = ot.partial.partial_wasserstein2(a.numpy(), b.numpy(), cost.numpy(), m=0.6)
        value = partial_wasserstein(x, y, a, b, mass=0.6, p=p)
        assert float(value**p) == pytest.approx(float(expected), rel=1e-6)


def test_the_whole_mass_is_the_wasserstein_distance():
    x, y, a, b = doubles(9, 2), doubles(7, 2), masses(9), masses(7)
    value = partial_wasserstein(x, y, a, b, mass=1.0)
    torch.testing.assert_close(value, wasserstein(x, y, a, b))
    assert partial_wasserstein(x, x, mass=0.5) == 0


def test_total_variation_is_partial_transport_as_epsilon_vanishes():
    x, y = doubles(12, 2), doubles(10, 2) + 0.5
    entropic = sinkhorn(x, y, epsilon=2e-3, reach=TV(0.4), tolerance=1e-6)
    exact = solve_partial(torch.cdist(x, y) ** 2, mass=float(entropic.mass))
    assert float(entropic.value_linear) == pytest.approx(float(exact.value), rel=0.05)
    assert 0.1 < float(entropic.mass) < 0.95


@pytest.mark.parametrize("mass", [0.3, 0.9])
def test_partial_gradients_equal_finite_differences(mass):
    x, y = doubles(5, 2).requires_grad_(), (doubles(4, 2) + 0.5).requires_grad_()
    a, b = masses(5, 1.1).requires_grad_(), masses(4, 1.7).requires_grad_()
    for p in (1, 2):
        assert torch.autograd.gradcheck(
            lambda x, y, a, b, p=p: partial_wasserstein(x, y, a, b, mass=mass, p=p), (x, y, a, b)
        )
    cost = (torch.cdist(x, y) ** 2).detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda c, a, b: solve_partial(c, a, b, mass=mass).value, (cost, a, b)
    )
    assert torch.autograd.gradgradcheck(
        lambda x, y: partial_wasserstein(x, y, mass=mass), (x, y), atol=1e-5
    )


@pytest.mark.parametrize("far", [1e6, 1e150])
def test_partial_transport_leaves_far_points(far):
    x, y = doubles(10, 2), doubles(9, 2)
    x, y = torch.cat([x, doubles(1, 2) + far]), torch.cat([y, doubles(1, 2) - far])
    a, b = torch.full((11,), 0.1), torch.full((10,), 1 / 9)
    value = partial_wasserstein(x, y, a, b, mass=0.9)
    near = partial_wasserstein(x[:-1], y[:-1], a[:-1], b[:-1], mass=0.9)
    assert float(value) == pytest.approx(float(near), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"mass": 0.0}, "`mass`"),
        ({"mass": -1.0}, "`mass`"),
        ({"mass": 1.1}, "`mass` must be at most 1"),
        ({"mass": float("nan")}, "`mass`"),
        ({"mass": 0.5, "a": [0.5, -0.1, 0.6]}, "`a`"),
        ({"mass": 0.5, "b": [0.5, 0.5]}, "`b`"),
        ({"mass": 0.5, "p": 0.5}, "`p`"),
    ],
)
def test_bad_partial_problems_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        partial_wasserstein(torch.zeros(3, 2), torch.ones(3, 2), **options)


# Forbidden pairs


def forbidding(n, m, share=0.5):
    """A cost with infinite entries, and weights between which there is a plan without them."""
    cost = doubles(n, m)
    closed = torch.rand(n, m) < share
    plan = torch.rand(n, m, dtype=torch.float64).masked_fill(closed, 0)
    plan = plan / plan.sum()
    return cost.masked_fill(closed, INFINITE), plan.sum(1), plan.sum(0)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("seed", range(5))
def test_forbidden_pairs_are_scipys_bounds(seed, scale):
    torch.manual_seed(seed)
    cost, a, b = forbidding(8, 7)
    plan = solve(scale * cost, a, b)
    expected = programme(cost, a, b)
    assert float(plan.value) == pytest.approx(scale * expected.fun, rel=1e-8, abs=1e-10 * scale)
    assert plan.plan[cost.isinf()].sum() == 0
    assert plan.marginal_error < 1e-9
    f, g = plan.potentials
    assert float(a @ f + b @ g) == pytest.approx(float(plan.value), rel=1e-7)
    assert (f[:, None] + g - scale * cost).max() < 1e-9 * scale
    part = solve_partial(scale * cost, a, b, mass=0.6)
    expected = programme(cost, a, b, 0.6)
    assert float(part.value) == pytest.approx(scale * expected.fun, rel=1e-8, abs=1e-10 * scale)
    assert part.plan[cost.isinf()].sum() == 0


@pytest.mark.parametrize("reach", [None, KL(1.0), TV(1.0), (KL(1.0), None)])
def test_entropic_plans_have_no_mass_on_forbidden_pairs(reach):
    cost, a, b = forbidding(8, 7, share=0.3)
    plan = solve_entropic(cost, a, b, epsilon=0.1, reach=reach, tolerance=1e-10)
    assert plan.converged
    assert plan.plan[cost.isinf()].sum() == 0
    finite = cost.masked_fill(cost.isinf(), 1e4)
    expected = solve_entropic(finite, a, b, epsilon=0.1, reach=reach, tolerance=1e-10)
    torch.testing.assert_close(plan.value, expected.value, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(plan.value_linear, expected.value_linear, rtol=1e-6, atol=1e-8)


def test_small_epsilon_is_exact_transport_without_forbidden_pairs():
    cost, a, b = forbidding(8, 7, share=0.3)
    entropic = solve_entropic(cost, a, b, epsilon=0.02, tolerance=1e-5)
    assert float(entropic.value_linear) == pytest.approx(float(solve(cost, a, b).value), abs=0.02)


@pytest.mark.parametrize("reach", [None, KL(1.0), TV(1.0)])
def test_gradients_of_forbidden_pairs_are_zero(reach):
    cost, a, b = forbidding(5, 4, share=0.2)
    closed, entries = cost.isinf(), cost[~cost.isinf()].requires_grad_()

    def whole(entries):
        return torch.full((5, 4), INFINITE, dtype=torch.float64).masked_scatter(~closed, entries)

    def entropic(entries):
        settings = {"epsilon": 0.5, "reach": reach, "tolerance": 1e-13}
        return solve_entropic(whole(entries), a, b, **settings).value

    assert torch.autograd.gradcheck(lambda c: solve(whole(c), a, b).value, (entries,))
    assert torch.autograd.gradcheck(entropic, (entries,), atol=1e-6)
    assert torch.autograd.gradgradcheck(entropic, (entries,), atol=1e-5)
    leaf = cost.clone().requires_grad_()
    for value in (
        solve(leaf, a, b).value,
        solve_partial(leaf, a, b, mass=0.5).value,
        solve_entropic(leaf, a, b, epsilon=0.5, reach=reach).value,
    ):
        (gradient,) = torch.autograd.grad(value, leaf)
        assert (gradient[closed] == 0).all()
        assert gradient.isfinite().all()


def test_infeasible_problems_name_the_rows():
    cost = torch.zeros(4, 4)
    cost[:2, 1:] = INFINITE  # rows 0 and 1 have but column 0
    for function in (solve, lambda c: solve_entropic(c, epsilon=0.1)):
        with pytest.raises(ValueError, match=r"rows 0, 1 hold 0.5 of the mass, .* 0.25"):
            function(cost)
    assert float(solve_partial(cost, mass=0.75).mass) == pytest.approx(0.75)
    with pytest.raises(ValueError, match=r"`mass` 0\.8 is more than the pairs"):
        solve_partial(cost, mass=0.8)
    plan = solve_entropic(cost, epsilon=0.1, reach=TV(1.0))
    assert float(plan.mass) < 0.95
    cost[0] = INFINITE
    with pytest.raises(ValueError, match="forbids every pair of point 0 of `a`"):
        solve_entropic(cost, epsilon=0.1, reach=(None, 1.0))
    assert solve_entropic(cost, epsilon=0.1, reach=1.0).value.isfinite()


@pytest.mark.parametrize("bad", [float("nan"), -INFINITE])
def test_nan_and_minus_infinity_are_refused(bad):
    cost = torch.zeros(3, 3)
    cost[0, 0], cost[1, 1] = bad, INFINITE
    for function in (
        solve,
        lambda c: solve_entropic(c, epsilon=1.0),
        lambda c: solve_entropic(c, epsilon=1.0, reach=1.0),
        lambda c: solve_partial(c, mass=0.5),
    ):
        with pytest.raises(ValueError, match="`cost` must be finite, or \\+inf"):
            function(cost)


def test_points_without_weight_may_have_no_open_pair():
    cost, a, b = forbidding(5, 4, share=0.3)
    wide = torch.full((6, 5), INFINITE, dtype=torch.float64)
    wide[:-1, :-1] = cost
    a0, b0 = torch.cat([a, a.new_zeros(1)]), torch.cat([b, b.new_zeros(1)])
    torch.testing.assert_close(solve(wide, a0, b0).value, solve(cost, a, b).value)
    options = {"epsilon": 0.3, "tolerance": 1e-10}
    torch.testing.assert_close(
        solve_entropic(wide, a0, b0, **options).value, solve_entropic(cost, a, b, **options).value
    )


def test_weights_in_single_precision_are_feasible_up_to_rounding():
    a = torch.full((10,), 0.1)
    cost = torch.full((10, 3), INFINITE)
    cost[:3, 0] = cost[3:6, 1] = cost[6:, 2] = 1.0
    b = torch.tensor([0.3, 0.3, 0.4])
    plan = solve(cost, a, b)
    assert float(plan.value) == pytest.approx(1.0)
    assert plan.marginal_error < 1e-6
    assert solve_entropic(cost, a, b, epsilon=0.1).converged


def test_a_small_mass_is_refused_where_forbidden_pairs_cannot_carry_it():
    closed = torch.full((2, 2), math.inf)
    with pytest.raises(ValueError, match="`mass` 1e-06 is more than the pairs"):
        solve_partial(closed, mass=1e-6)
    counts = torch.tensor([1e6, 1e6], dtype=torch.float64)
    with pytest.raises(ValueError, match="`mass` 1 is more than the pairs"):
        solve_partial(closed, counts, counts, mass=1.0)
    one = torch.tensor([[1.0, math.inf], [math.inf, math.inf]], dtype=torch.float64)
    few = torch.tensor([0.5, 1e6], dtype=torch.float64)
    with pytest.raises(ValueError, match="`mass` 1 is more than the pairs"):
        solve_partial(one, few, counts, mass=1.0)
    plan = solve_partial(one, 10 * few, counts, mass=1.0)
    assert float(plan.plan.sum()) == pytest.approx(1, abs=1e-6)


def test_a_mass_that_rounding_of_the_weights_hides_is_refused():
    with pytest.raises(ValueError, match=r"`mass` must be at least 0\.01, 1e-09 of the weights"):
        solve_partial(
            torch.ones(2, 2), torch.tensor([5e6, 1.0]), torch.tensor([5e6, 1.0]), mass=1e-3
        )
