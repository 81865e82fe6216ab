"""Unbalanced entropic transport: primal and dual, POT, limits, gradients, and its account."""

import itertools
import math

import numpy as np
import ot
import pytest
import torch

from monge.draws import generator
from monge.transport import (
    KL,
    TV,
    Anderson,
    Randkhorn,
    sinkhorn,
    sinkhorn_divergence,
    solve_entropic,
)

TIGHT = {"tolerance": 1e-11}
SIDES = {
    "kl": KL(0.7),
    "tv": TV(0.9),
    "kl and constraint": (KL(0.5), None),
    "constraint and tv": (None, TV(0.8)),
    "tv and kl": (TV(0.7), 0.9),
    "large kl": KL(50.0),
    "large tv": TV(50.0),
}
EVERY = pytest.mark.parametrize("reach", SIDES.values(), ids=SIDES)
BOTH = pytest.mark.parametrize("reach", [KL(0.7), TV(0.9)], ids=["kl", "tv"])


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def masses(n, total=1.0):
    w = torch.rand(n, dtype=torch.float64) + 0.1
    return total * w / w.sum()


def divergence_of(r, w):
    """KL(r | w) with its terms of mass."""
    return float((torch.xlogy(r, r / w) - r + w).sum())


def penalty(side, r, w):
    if side is None:
        assert float((r - w).abs().sum()) < 1e-8
        return 0.0
    if isinstance(side, TV):
        return side.rho * float((r - w).abs().sum())
    return (side.rho if isinstance(side, KL) else side) * divergence_of(r, w)


@EVERY
@pytest.mark.parametrize(("n", "m"), [(8, 6), (1, 5)])
def test_value_is_the_primal_objective_of_the_plan(reach, n, m):
    x, y, a, b = doubles(n, 2), doubles(m, 2) + 0.3, masses(n, 0.8), masses(m, 1.3)
    plan = sinkhorn(x, y, a, b, epsilon=0.3, reach=reach, **TIGHT)
    cost, pi = torch.cdist(x, y) ** 2, plan.plan
    first, second = reach if isinstance(reach, tuple) else (reach, reach)
    expected = float((pi * cost).sum()) + 0.3 * divergence_of(pi, a[:, None] * b)
    expected += penalty(first, pi.sum(1), a) + penalty(second, pi.sum(0), b)
    assert float(plan.value) == pytest.approx(expected, rel=1e-8)
    assert float(plan.value_linear) == pytest.approx(float((pi * cost).sum()), rel=1e-9)
    assert float(plan.mass) == pytest.approx(float(pi.sum()), rel=1e-9)
    f, g = plan.potentials
    torch.testing.assert_close(pi, a[:, None] * b * ((f[:, None] + g - cost) / 0.3).exp())
    matrix = solve_entropic(cost, a, b, epsilon=0.3, reach=reach, **TIGHT)
    torch.testing.assert_close(matrix.value, plan.value)
    torch.testing.assert_close(matrix.mass, plan.mass)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
@pytest.mark.parametrize("rho", [0.05, 1.0, 30.0])
def test_kl_plans_are_pots(epsilon, rho):
    x, y, a, b = doubles(8, 2), doubles(6, 2), masses(8, 2.0), masses(6)
    plan = sinkhorn(x, y, a, b, epsilon=epsilon, reach=rho, **TIGHT)
    expected = ot.unbalanced.sinkhorn_unbalanced(
        a.numpy(),
        b.numpy(),
        (torch.cdist(x, y) ** 2).numpy(),
        epsilon,
        rho,
        method="sinkhorn_stabilized",
        reg_type="kl",
        numItermax=100_000,
        stopThr=1e-14,
    )
    np.testing.assert_allclose(plan.plan.numpy(), expected, rtol=1e-6, atol=1e-9)


def test_a_large_reach_is_balanced_transport():
    x, y = doubles(9, 2), doubles(7, 2)
    balanced = sinkhorn(x, y, epsilon=0.3, **TIGHT)
    for reach in (KL(1e7), TV(1e3), (KL(1e7), None), (None, TV(1e3))):
        plan = sinkhorn(x, y, epsilon=0.3, reach=reach, **TIGHT)
        assert float(plan.value) == pytest.approx(float(balanced.value), rel=1e-6)
        assert float(plan.mass) == pytest.approx(1.0, rel=1e-6)
    value = sinkhorn_divergence(x, y, epsilon=0.3, reach=1e7, **TIGHT)
    expected = sinkhorn_divergence(x, y, epsilon=0.3, **TIGHT)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


@BOTH
def test_two_points_have_the_closed_form(reach):
    """One unknown, the mass m of the plan: m^{1 + 2ρ/ε} = (ab)^{1 + ρ/ε} exp(-C/ε) for KL."""
    cost, a, b, epsilon = 0.4, 0.8, 1.5, 0.3
    weights = [torch.tensor([w], dtype=torch.float64) for w in (a, b)]
    matrix = torch.tensor([[cost]], dtype=torch.float64)
    plan = solve_entropic(matrix, *weights, epsilon=epsilon, reach=reach, **TIGHT)
    if isinstance(reach, KL):
        power = (1 + reach.rho / epsilon) / (1 + 2 * reach.rho / epsilon)
        mass = (a * b) ** power * np.exp(-cost / (epsilon + 2 * reach.rho))
    else:
        # between a and b one penalty rises as the other falls, below a both fall
        free = a * b * np.exp(-cost / epsilon)
        mass = np.clip(free, a, b) if free > a else min(a, free * np.exp(2 * reach.rho / epsilon))
    assert float(plan.mass) == pytest.approx(mass, rel=1e-8)


@EVERY
@pytest.mark.parametrize("p", [1, 2])
def test_gradients_equal_finite_differences_to_second_order(reach, p):
    x, y = doubles(5, 2), doubles(4, 2) + 0.5
    inputs = [z.requires_grad_() for z in (x, y, masses(5, 0.9), masses(4, 1.3))]

    def value(x, y, a, b):
        return sinkhorn(x, y, a, b, epsilon=0.5, p=p, reach=reach, tolerance=1e-13).value

    def of_cost(cost, a, b):
        return solve_entropic(cost, a, b, epsilon=0.5, reach=reach, tolerance=1e-13).value

    def divergence(x, y, a, b):
        return sinkhorn_divergence(x, y, a, b, epsilon=0.5, p=p, reach=reach, tolerance=1e-13)

    cost = (torch.cdist(x, y) ** p).detach().requires_grad_()
    problems = [(value, inputs), (of_cost, [cost, *inputs[2:]])]
    if not isinstance(reach, tuple):
        problems.append((divergence, inputs))
    for function, arguments in problems:
        assert torch.autograd.gradcheck(function, arguments, atol=1e-6)
        assert torch.autograd.gradgradcheck(function, arguments, atol=1e-5)


@BOTH
def test_the_divergence_is_symmetric_and_zero_only_at_equality(reach):
    x, y, a, b = doubles(9, 2), doubles(7, 2), masses(9, 1.4), masses(7, 0.6)
    options = {"epsilon": 0.4, "reach": reach, **TIGHT}
    xy, yx = sinkhorn_divergence(x, y, a, b, **options), sinkhorn_divergence(y, x, b, a, **options)
    assert float(xy) == pytest.approx(float(yx), rel=1e-8)
    assert xy > 0
    assert sinkhorn_divergence(x, x.flip(0), a, a.flip(0), **options).abs() < 1e-9
    assert sinkhorn_divergence(x, x, a, 1.1 * a, **options) > 1e-5


@pytest.mark.parametrize("rho", [0.1, 3.0, 1e3])
@pytest.mark.parametrize("kind", [KL, TV])
@pytest.mark.parametrize("epsilon", [0.02, 0.5])
def test_acceleration_and_translation_leave_the_fixed_point(rho, kind, epsilon):
    """The plain iteration has the same limit, as far as it reaches it."""
    x, y, a, b = doubles(12, 2), doubles(10, 2), masses(12, 1.1), masses(10)
    options = {"epsilon": epsilon, "reach": kind(rho), "tolerance": 1e-9}
    one = sinkhorn(x, y, a, b, **options)
    other = sinkhorn(x, y, a, b, acceleration=None, max_iterations=100_000, **options)
    assert one.converged
    torch.testing.assert_close(one.value, other.value, rtol=1e-7, atol=0)
    assert one.iterations < 1000


def test_outliers_change_neither_the_value_nor_the_gradient_of_the_rest():
    """Points beyond reach cost ρ a unit of mass each, and take no part in the plan."""
    x, y = torch.randn(40, 2), torch.randn(30, 2)
    a, b = torch.full((41,), 1 / 40), torch.full((32,), 1 / 30)
    for reach, far in itertools.product((KL(0.5), TV(0.8)), (1e3, 1e6)):
        options = {"epsilon": 0.1, "reach": reach, "tolerance": 1e-6}
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        moved = torch.cat([leaves[0], torch.full((1, 2), far)])
        other = torch.cat([y, torch.tensor([[-far, far], [2 * far, 0.0]])])
        with_outliers = sinkhorn(moved, other, a, b, **options)
        without = sinkhorn(leaves[1], y, a[:-1], b[:-2], **options)
        extra = a[-1] + b[-2:].sum()
        # ε KL(0 | ab) = ε ab of the pairs without mass
        extra = reach.rho * extra + 0.1 * (a.sum() * b.sum() - 1)
        torch.testing.assert_close(with_outliers.value, without.value + extra, rtol=1e-4, atol=0)
        gradients = [
            torch.autograd.grad(plan.value, leaf)[0]
            for plan, leaf in zip((with_outliers, without), leaves)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


@BOTH
def test_points_without_weight_change_nothing(reach):
    x, y = doubles(5, 2), doubles(4, 2)
    a = torch.tensor([0.3, 0.2, 0.4, 0.25, 0], dtype=torch.float64)
    expected = sinkhorn(x[:4], y, a[:4], epsilon=0.5, reach=reach, **TIGHT).value
    found = sinkhorn(x, y, a, epsilon=0.5, reach=reach, **TIGHT).value
    torch.testing.assert_close(found, expected)


def test_no_convergence_is_told():
    x, y = doubles(30, 2), doubles(30, 2)
    with pytest.warns(UserWarning, match="a residual of its potentials of"):
        plan = sinkhorn(x, y, epsilon=1e-3, reach=5.0, max_iterations=2, tolerance=1e-9)
    assert not plan.converged
    assert plan.marginal_error > 1e-9


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"reach": 0.0}, "`reach`"),
        ({"reach": -1.0}, "`reach`"),
        ({"reach": float("nan")}, "`reach`"),
        ({"reach": "kl"}, "`reach`"),
        ({"reach": (1.0, 1.0, 1.0)}, "`reach`"),
        ({"reach": 1.0, "acceleration": Randkhorn()}, "`acceleration`"),
        ({"reach": 1.0, "a": [-0.1, 0.5, 0.5]}, "`a`"),
        ({"reach": 1.0, "a": [0.0, 0.0, 0.0]}, "`a`"),
        ({"reach": 1.0, "b": [0.5, 0.5]}, "`b`"),
        ({"reach": 1.0, "b": [0.5, float("nan"), 0.5]}, "`b`"),
        ({"reach": None, "b": [0.5, 0.5, 0.5]}, "`b`"),
    ],
)
def test_bad_options_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        sinkhorn(torch.zeros(3, 2), torch.ones(3, 2), epsilon=1.0, **options)


@pytest.mark.parametrize("kind", [KL, TV])
def test_bad_penalties_are_named(kind):
    with pytest.raises(ValueError, match="`rho`"):
        kind(-1.0)


def test_the_divergence_needs_one_penalty_for_both():
    with pytest.raises(ValueError, match="`reach` must be one penalty for both"):
        sinkhorn_divergence(doubles(3, 2), doubles(3, 2), epsilon=1.0, reach=(1.0, None))


def test_half_precision_and_batches():
    x, y, w = torch.randn(3, 8, 2), torch.randn(3, 6, 2), torch.rand(3, 8) + 0.5
    plans = sinkhorn(x, y, w, epsilon=0.5, reach=KL(1.0))
    for i in range(3):
        one = sinkhorn(x[i], y[i], w[i], epsilon=0.5, reach=KL(1.0))
        torch.testing.assert_close(plans.value[i], one.value)
        torch.testing.assert_close(plans.mass[i], one.mass)
    half = sinkhorn_divergence(x[0].half(), y[0].half(), epsilon=0.5, reach=TV(1.0))
    full = sinkhorn_divergence(
        x[0].half().float(), y[0].half().float(), epsilon=0.5, reach=TV(1.0)
    )
    assert half.dtype == torch.float16
    assert float(half) == pytest.approx(float(full), rel=1e-2)


def test_plain_acceleration_is_accepted():
    x, y = doubles(6, 2), doubles(6, 2)
    plans = [
        sinkhorn(x, y, epsilon=0.5, reach=1.0, acceleration=choice, **TIGHT)
        for choice in (None, Anderson(3))
    ]
    torch.testing.assert_close(plans[0].value, plans[1].value)


@pytest.mark.parametrize("penalty", [KL(1.0), TV(1.0)])
def test_where_every_pair_is_forbidden_all_mass_is_left_out(penalty):
    plan = solve_entropic(torch.full((2, 2), math.inf), epsilon=1.0, reach=penalty)
    assert float(plan.mass) == 0
    assert float(plan.value) == pytest.approx(1 + 1 + 1)


@pytest.mark.parametrize("reach", [np.float32(2), torch.tensor(2.0), KL(2.0)])
def test_a_number_of_any_kind_is_the_rho_of_a_kl(reach):
    x, y = torch.rand(2, 6, 2, generator=generator(0, "numbers"), dtype=torch.float64)
    expected = sinkhorn(x, y, epsilon=0.1, reach=2).value
    torch.testing.assert_close(sinkhorn(x, y, epsilon=0.1, reach=reach).value, expected)


@pytest.mark.parametrize("reach", [1.0, KL(0.1), TV(1.0), 100.0])
def test_equal_samples_have_no_gradient(reach):
    """However roughly their potentials are solved: all three solutions are one."""
    x, w = torch.randn(30, 2, dtype=torch.float64), torch.rand(30, dtype=torch.float64)
    inputs = [z.clone().requires_grad_() for z in (x, x, w, w)]
    value = sinkhorn_divergence(*inputs, epsilon=0.1, reach=reach, tolerance=1e-2)
    assert value.item() == 0
    for gradient in torch.autograd.grad(value, inputs):
        assert gradient.abs().max() < 1e-12
