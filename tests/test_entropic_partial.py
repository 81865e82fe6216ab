"""Entropic partial transport: POT's projections, optimality conditions, limits, derivatives."""

import math

import numpy as np
import ot
import pytest
import torch

from monge.transport import (
    Randkhorn,
    solve_entropic,
    solve_entropic_partial,
    solve_partial,
)
from monge.transport.entropic_partial import cut_off

INFINITE = float("inf")


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def masses(n, total=1.0):
    w = torch.rand(n, dtype=torch.float64) + 0.1
    return total * w / w.sum()


def objective(plan, cost, a, b, epsilon):
    """The definition."""
    product = a[:, None] * b
    divergence = torch.xlogy(plan, plan / product).sum() - plan.sum() + product.sum()
    return (plan * cost.nan_to_num(posinf=0)).sum() + epsilon * divergence


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
@pytest.mark.parametrize("totals", [(1.0, 1.0), (0.7, 1.9), (30.0, 2.0)])
def test_plans_are_those_of_pots_projections(share, totals):
    cost, a, b = doubles(8, 6).abs(), masses(8, totals[0]), masses(6, totals[1])
    mass, epsilon = share * min(totals), 0.2
    plan = solve_entropic_partial(cost, a, b, mass=mass, epsilon=epsilon, tolerance=1e-11)
    # its reference measure has a density of 1
    moved = cost - epsilon * (a[:, None] * b).log()
    arrays = [z.numpy() for z in (a, b, moved)]
    theirs = ot.partial.entropic_partial_wasserstein(
        *arrays, epsilon, m=mass, numItermax=100_000, stopThr=1e-14
    )
    np.testing.assert_allclose(plan.plan.numpy(), theirs, rtol=1e-5, atol=1e-9)
    assert float(plan.mass) == pytest.approx(mass, rel=1e-12)
    expected = objective(plan.plan, cost, a, b, epsilon)
    torch.testing.assert_close(plan.value, expected)
    torch.testing.assert_close(plan.value_linear, (plan.plan * cost).sum())
    assert plan.converged


@pytest.mark.parametrize("epsilon", [0.003, 0.1, 3.0])
def test_the_optimality_conditions_hold(epsilon):
    """Of a convex programme they suffice: dual feasibility, complementary slackness, and the form
    of the plan."""
    cost, a, b = doubles(20, 15).square(), masses(20), masses(15, 1.5)
    plan = solve_entropic_partial(cost, a, b, mass=0.7, epsilon=epsilon, tolerance=1e-10)
    (f, g), pi = plan.potentials, plan.plan
    assert f.max() <= 0
    assert g.max() <= 0
    rows, columns = pi.sum(1), pi.sum(0)
    assert (rows - a).max() < 1e-9
    assert (columns - b).max() < 1e-9
    assert float((f * (a - rows)).abs().sum() + (g * (b - columns)).abs().sum()) < 1e-8
    price = epsilon * (pi / (a[:, None] * b)).log() - f[:, None] - g + cost
    kept = pi > 1e-250
    torch.testing.assert_close(price[kept], price[kept].mean().expand(int(kept.sum())))


def test_the_whole_of_equal_masses_is_balanced_and_small_epsilon_exact():
    cost, a, b = doubles(9, 7).abs(), masses(9), masses(7)
    whole = solve_entropic_partial(cost, a, b, mass=1.0, epsilon=0.1, tolerance=1e-11)
    balanced = solve_entropic(cost, a, b, epsilon=0.1, tolerance=1e-11)
    torch.testing.assert_close(whole.plan, balanced.plan, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(whole.value, balanced.value)
    # all of the lighter side
    light = solve_entropic_partial(cost, a / 2, b, mass=0.5, epsilon=0.1, tolerance=1e-11)
    torch.testing.assert_close(light.plan.sum(1), a / 2)
    for mass in (0.3, 0.8):
        entropic = solve_entropic_partial(cost, a, b, mass=mass, epsilon=1e-3)
        exact = solve_partial(cost, a, b, mass=mass)
        assert float(entropic.value_linear) == pytest.approx(float(exact.value), abs=2e-3)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999, 1.0])
def test_the_level_is_that_of_a_search(share):
    soft, w, epsilon = doubles(30), masses(30), 0.3
    w[4] = 0
    w = w / w.sum()
    level = cut_off(soft, w, share, epsilon).level
    kept = (w * ((level - soft) / epsilon).exp().clamp_max(1)).sum()
    assert float(kept) == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize("mass", [0.3, 0.9])
def test_gradients_equal_finite_differences(mass):
    cost = doubles(5, 4).abs().requires_grad_()
    a, b = masses(5, 1.1).requires_grad_(), masses(4, 1.7).requires_grad_()

    def value(cost, a, b):
        settings = {"mass": mass, "epsilon": 0.1, "tolerance": 1e-13}
        return solve_entropic_partial(cost, a, b, **settings).value

    assert torch.autograd.gradcheck(value, (cost, a, b), atol=1e-6)
    (slope,) = torch.autograd.grad(value(cost, a, b), cost, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        slope.square().sum().backward()


@pytest.mark.parametrize("far", [1e3, 1e9])
def test_far_points_are_left(far):
    x, y = doubles(12, 2), doubles(10, 2)
    x[0] += far
    cost = torch.cdist(x, y).square()
    plan = solve_entropic_partial(cost, mass=0.8, epsilon=0.1, tolerance=1e-8)
    assert plan.converged
    assert plan.plan[0].sum() == 0
    a = torch.full((11,), 1 / 12, dtype=torch.float64)
    near = solve_entropic_partial(cost[1:], a, mass=0.8, epsilon=0.1, tolerance=1e-8)
    torch.testing.assert_close(plan.plan[1:], near.plan, rtol=1e-5, atol=1e-8)


def test_single_precision_and_points_without_weight():
    cost, a, b = doubles(30, 20).abs(), masses(30), masses(20)
    a[:3] = 0
    a = a / a.sum()
    plan = solve_entropic_partial(cost, a, b, mass=0.7, epsilon=0.1)
    few = solve_entropic_partial(cost[3:], a[3:], b, mass=0.7, epsilon=0.1)
    assert plan.plan[:3].sum() == 0
    torch.testing.assert_close(plan.plan[3:], few.plan, rtol=1e-3, atol=1e-6)
    single = solve_entropic_partial(cost.float(), a.float(), b.float(), mass=0.7, epsilon=0.1)
    assert single.value.dtype == torch.float32
    assert single.converged
    torch.testing.assert_close(single.value.double(), plan.value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("shift", [0.0, -30.0])
def test_it_does_not_depend_on_the_unit(scale, shift):
    cost, a, b = doubles(9, 7), masses(9), masses(7)
    expected = solve_entropic_partial(cost, a, b, mass=0.7, epsilon=0.1, tolerance=1e-9)
    moved = scale * (cost + shift)
    plan = solve_entropic_partial(moved, a, b, mass=0.7, epsilon=0.1 * scale, tolerance=1e-9)
    torch.testing.assert_close(plan.plan, expected.plan, rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(plan.value / scale, expected.value + 0.7 * shift)


def test_forbidden_pairs_carry_nothing():
    cost, a, b = doubles(8, 7).abs(), masses(8), masses(7)
    cost = cost.masked_fill(torch.rand(8, 7) < 0.3, INFINITE)
    cost[2] = INFINITE
    plan = solve_entropic_partial(cost, a, b, mass=0.4, epsilon=0.1, tolerance=1e-10)
    closed = cost.isinf()
    assert plan.plan[closed].sum() == 0
    finite = cost.masked_fill(closed, 1e3)
    expected = solve_entropic_partial(finite, a, b, mass=0.4, epsilon=0.1, tolerance=1e-10)
    torch.testing.assert_close(plan.value, expected.value, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="`mass` 1 is more than the pairs"):
        solve_entropic_partial(cost, a, b, mass=1.0, epsilon=0.1)


def test_what_did_not_converge_warns():
    cost = doubles(40, 30).abs()
    with pytest.warns(UserWarning, match="an error of a marginal of .* above `tolerance` 1e-12"):
        plan = solve_entropic_partial(
            cost, mass=0.9, epsilon=0.01, tolerance=1e-12, max_iterations=3, acceleration=None
        )
    assert not plan.converged
    assert float(plan.mass) == pytest.approx(0.9)


def test_an_epsilon_below_the_rounding_of_the_cost_is_told():
    with pytest.warns(UserWarning, match="an error of a marginal"):
        plan = solve_entropic_partial(1e30 * doubles(5, 4).abs().float(), mass=0.5, epsilon=0.1)
    assert not plan.converged
    assert plan.marginal_error > 1e-3


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"mass": 0.0}, "`mass`"),
        ({"mass": 1.1}, "`mass` must be at most 1"),
        ({"mass": math.nan}, "`mass`"),
        ({"epsilon": 0.0}, "`epsilon`"),
        ({"tolerance": -1.0}, "`tolerance`"),
        ({"acceleration": Randkhorn()}, "`acceleration`"),
        ({"a": [0.5, -0.1, 0.6]}, "`a`"),
        ({"cost": torch.zeros(3)}, "`cost` must be a matrix"),
        ({"cost": torch.full((3, 3), math.nan)}, "`cost` must be finite"),
    ],
)
def test_bad_problems_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        solve_entropic_partial(
            **{"cost": torch.zeros(3, 3), "mass": 0.5, "epsilon": 0.1} | options
        )
