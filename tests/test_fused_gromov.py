"""Fused Gromov-Wasserstein and its starts: brute force, POT, its limits and finite differences."""

import itertools

import numpy as np
import ot
import pytest
import torch

from monge.transport import (
    entropic_fused_gromov_wasserstein,
    entropic_gromov_wasserstein,
    fused_gromov_wasserstein,
    gromov_wasserstein,
    solve,
    solve_entropic,
)
from monge.transport.quadratic import MOST_SWAPPED, objective


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def distances(x):
    return torch.cdist(x, x)


def weights(n):
    w = torch.rand(n, dtype=torch.float64) + 0.2
    return w / w.sum()


def problem(n, m, dimensions=2):
    """Features and structures of two clouds of their own."""
    return (
        torch.cdist(doubles(n, 2), doubles(m, 2)).square(),
        distances(doubles(n, dimensions)),
        distances(doubles(m, dimensions)),
    )


def fused(cost, cx, cy, plan, alpha):
    """The definition."""
    return (1 - alpha) * (cost * plan).sum() + alpha * objective(cx, cy, plan)


def by_permutations(cost, cx, cy, alpha):
    """The least of the objective over all permutations."""
    n = len(cx)
    orders = torch.tensor(list(itertools.permutations(range(n))))
    moved = cy[orders[:, :, None], orders[:, None, :]]
    structure = (cx - moved).square().mean((1, 2))
    features = cost[torch.arange(n), orders].mean(1)
    return float(((1 - alpha) * features + alpha * structure).min())


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_all_permutations_is_found(alpha, seed):
    torch.manual_seed(seed)
    matrices = problem(6, 6)
    best = by_permutations(*matrices, alpha)
    plan = fused_gromov_wasserstein(*matrices, alpha=alpha, starts=16)
    assert float(plan.value) <= best * (1 + 1e-9)
    expected = fused(*matrices, plan.plan, alpha)
    torch.testing.assert_close(plan.value, expected)
    assert plan.marginal_error < 1e-12


@pytest.mark.parametrize("alpha", [0.2, 0.8])
@pytest.mark.parametrize("sizes", [(9, 9), (9, 6)])
def test_value_is_at_most_pots_to_which_the_plan_is_stationary(alpha, sizes):
    for seed in range(3):
        torch.manual_seed(seed)
        cost, cx, cy = problem(*sizes)
        a, b = map(weights, sizes)
        arrays = [z.numpy() for z in (cost, cx, cy, a, b)]
        theirs = ot.gromov.fused_gromov_wasserstein2(*arrays, alpha=alpha)
        ours = fused_gromov_wasserstein(cost, cx, cy, a, b, alpha=alpha, starts=8)
        assert float(ours.value) <= float(theirs) * (1 + 1e-7)
        again = ot.gromov.fused_gromov_wasserstein2(
            *arrays, alpha=alpha, G0=ours.plan.numpy(), max_iter=100
        )
        assert float(again) == pytest.approx(float(ours.value), rel=1e-6)


@pytest.mark.parametrize("uniform", [True, False])
def test_the_limits_are_transport_and_gromov_wasserstein(uniform):
    cost, cx, cy = problem(7, 7 if uniform else 5)
    a, b = (None, None) if uniform else (weights(7), weights(5))
    plan = fused_gromov_wasserstein(cost, cx, cy, a, b, alpha=0)
    expected = solve(cost, a, b)
    torch.testing.assert_close(plan.value, expected.value)
    plan = fused_gromov_wasserstein(cost, cx, cy, a, b, alpha=1)
    expected = gromov_wasserstein(cx, cy, a, b)
    torch.testing.assert_close(plan.value, expected.value)
    torch.testing.assert_close(plan.plan, expected.plan)
    settings = {"epsilon": 1.0, "tolerance": 1e-9}
    plan = entropic_fused_gromov_wasserstein(cost, cx, cy, a, b, alpha=0, **settings)
    expected = solve_entropic(cost, a, b, **settings)
    torch.testing.assert_close(plan.value, expected.value)
    plan = entropic_fused_gromov_wasserstein(
        cost, cx, cy, a, b, alpha=1, epsilon=2.0, tolerance=1e-8
    )
    expected = entropic_gromov_wasserstein(cx, cy, a, b, epsilon=2.0, tolerance=1e-8)
    torch.testing.assert_close(plan.plan, expected.plan, rtol=1e-5, atol=1e-7)


def test_a_relabelled_graph_is_found_again():
    """Structure alone cannot tell the nodes of a ring apart; features of two of them do."""
    n = 12
    steps = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    cx = torch.minimum(steps, n - steps).double()
    feature = torch.zeros(n, 1).double()
    feature[0], feature[1] = 1, 2
    order = torch.randperm(n)
    cost = torch.cdist(feature, feature[order])
    plan = fused_gromov_wasserstein(cost, cx, cx[order][:, order], alpha=0.5, starts=32)
    assert float(plan.value) == pytest.approx(0, abs=1e-12)
    assert torch.equal(plan.plan.argmax(0), order)


def test_no_exchange_of_two_images_improves_a_permutation():
    cost, cx, cy = problem(14, 14)
    cx = cx + torch.rand(14, 14).double()  # directed
    assert MOST_SWAPPED >= 14
    plan = fused_gromov_wasserstein(cost, cx, cy, starts=1).plan
    value = fused(cost, cx, cy, plan, 0.5)
    assert torch.allclose(plan.amax(1), torch.full((14,), 1 / 14).double())
    for i, k in itertools.combinations(range(14), 2):
        other = plan.clone()
        other[[i, k]] = plan[[k, i]]
        assert fused(cost, cx, cy, other, 0.5) >= value * (1 - 1e-9)


def test_entropic_equals_pot():
    cost, cx, cy = problem(7, 5)
    a, b = weights(7), weights(5)
    plan = entropic_fused_gromov_wasserstein(
        cost, cx, cy, a, b, epsilon=0.5, alpha=0.3, tolerance=1e-10, max_iterations=1000
    )
    theirs = ot.gromov.entropic_fused_gromov_wasserstein(
        *(z.numpy() for z in (cost, cx, cy, a, b)),
        epsilon=0.5,
        alpha=0.3,
        tol=1e-12,
        max_iter=2000,
    )
    np.testing.assert_allclose(plan.plan.numpy(), theirs, atol=1e-6)
    torch.testing.assert_close(plan.value_linear, fused(cost, cx, cy, plan.plan, 0.3))
    product = a[:, None] * b
    entropy = (plan.plan * (plan.plan / product).log()).sum()
    torch.testing.assert_close(plan.value.detach(), plan.value_linear + 0.5 * entropy)


@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_gradients_equal_finite_differences(alpha):
    """In the features, both structures and both weights."""
    inputs = doubles(5, 2), doubles(4, 2), doubles(5, 4).abs(), doubles(5), doubles(4)

    def value(x, y, cost, a, b):
        cx, cy = ((z[:, None] - z).square().sum(-1) for z in (x, y))
        return fused_gromov_wasserstein(
            cost, cx, cy, a.softmax(0), b.softmax(0), alpha=alpha
        ).value

    inputs = [z.requires_grad_() for z in inputs]
    assert torch.autograd.gradcheck(value, inputs, atol=1e-5, rtol=1e-4)
    (slope,) = torch.autograd.grad(value(*inputs), inputs[2], create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        slope.square().sum().backward()


def test_entropic_gradients_equal_finite_differences():
    inputs = doubles(3, 1), doubles(3, 1), doubles(3, 3).abs(), doubles(3), doubles(3)

    def value(x, y, cost, a, b):
        cx, cy = ((z[:, None] - z).square().sum(-1) for z in (x, y))
        return entropic_fused_gromov_wasserstein(
            cost, cx, cy, a.softmax(0), b.softmax(0), epsilon=8.0, tolerance=1e-11
        ).value

    inputs = [z.requires_grad_() for z in inputs]
    assert torch.autograd.gradcheck(value, inputs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("unit", [1e-100, 1e-6, 1e8, 1e100])
def test_it_does_not_depend_on_the_unit(unit):
    """The features in units of the squared structure."""
    cost, cx, cy = problem(6, 5)
    expected = fused_gromov_wasserstein(cost, cx, cy)
    plan = fused_gromov_wasserstein(unit**2 * cost, unit * cx, unit * cy)
    assert float(plan.value / unit**2) == pytest.approx(float(expected.value), rel=1e-9)
    # one term far above the other
    plan = fused_gromov_wasserstein(unit * cost, cx, cy)
    value = fused(unit * cost, cx, cy, plan.plan, 0.5)
    torch.testing.assert_close(plan.value, value)
    least = solve(unit * cost).value / 2 + gromov_wasserstein(cx, cy, starts=16).value / 2
    assert float(plan.value) >= float(least) * (1 - 1e-9)


def test_it_converges_in_float32_and_without_weight():
    cost, cx, cy = (z.float() for z in problem(30, 20))
    assert fused_gromov_wasserstein(cost, cx, cy).converged
    a = torch.zeros(30)
    a[:25] = 1 / 25
    plan = fused_gromov_wasserstein(cost, cx, cy, a)
    few = fused_gromov_wasserstein(cost[:25], cx[:25, :25], cy)
    assert plan.converged
    assert plan.plan[25:].sum() == 0
    assert float(plan.value) == pytest.approx(float(few.value), rel=0.1)  # other starts


# Starts


def test_given_plans_are_the_starts():
    cx, cy = distances(doubles(8, 2)), distances(doubles(8, 2))
    order = torch.randperm(8)
    one = torch.zeros(8, 8).double().scatter_(1, order[:, None], 1 / 8)
    product = torch.full((8, 8), 1 / 64).double()
    each = [float(gromov_wasserstein(cx, cy, starts=z).value) for z in (one, product)]
    for starts in ([one, product], torch.stack([one, product]), [one.numpy(), product.tolist()]):
        assert float(gromov_wasserstein(cx, cy, starts=starts).value) == min(each)
    assert min(each) <= float(objective(cx, cy, one))
    entropic = [
        float(entropic_gromov_wasserstein(cx, cy, epsilon=1.0, starts=z).value)
        for z in (one, product)
    ]
    both = entropic_gromov_wasserstein(cx, cy, epsilon=1.0, starts=[one, product])
    assert float(both.value) == min(entropic)
    alone = entropic_gromov_wasserstein(cx, cy, epsilon=1.0)
    assert float(alone.value) == entropic[1]


def test_more_starts_are_never_worse():
    for seed in range(3):
        torch.manual_seed(seed)
        matrices = problem(8, 7)
        values = [
            float(fused_gromov_wasserstein(*matrices, starts=k).value) for k in (1, 2, 3, 4, 8)
        ]
        assert values == sorted(values, reverse=True)
        entropic = [
            float(entropic_fused_gromov_wasserstein(*matrices, epsilon=1.0, starts=k).value)
            for k in (1, 2, 4)
        ]
        assert entropic == sorted(entropic, reverse=True)


@pytest.mark.parametrize(
    ("starts", "word"),
    [
        (0, "integer of at least 1"),
        ("many", "integer of at least 1"),
        ([], "got none"),
        (torch.ones(3, 4) / 12, r"shape \(3, 3\), got one of \(3, 4\)"),
        (torch.ones(3, 3), "marginal error"),
        (torch.full((3, 3), float("nan")), "plans of the weights"),
        (torch.eye(3) - 2 / 9, "least entry"),
    ],
)
def test_bad_starts_are_named(starts, word):
    with pytest.raises(ValueError, match=f"`starts`.*{word}"):
        gromov_wasserstein(torch.eye(3), torch.eye(3), starts=starts)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"alpha": -0.1}, r"`alpha` must be in \[0, 1\], got -0.1"),
        ({"alpha": float("nan")}, "`alpha`"),
        ({"alpha": "half"}, "`alpha`"),
        ({"cost": torch.zeros(3, 5)}, "`cost` must have a row for each of the 4"),
        ({"cost": torch.full((4, 3), float("inf"))}, "`cost` must be finite"),
        ({"cx": torch.zeros(4, 3)}, "`cx` must be a square"),
        ({"cy": torch.full((3, 3), float("nan"))}, "`cy` must be finite"),
        ({"a": [0.5, 0.5]}, "`a`"),
        ({"max_iterations": 0}, "`max_iterations`"),
        ({"tolerance": 0}, "`tolerance`"),
    ],
)
def test_bad_problems_are_named(options, word):
    given = {"cost": torch.zeros(4, 3), "cx": torch.zeros(4, 4), "cy": torch.zeros(3, 3)}
    with pytest.raises(ValueError, match=word):
        fused_gromov_wasserstein(**given | options)
    with pytest.raises(ValueError, match=word):
        entropic_fused_gromov_wasserstein(**given | options, epsilon=1.0)


def test_an_epsilon_below_the_rounding_of_costs_is_refused():
    cost, cx, cy = (1e8 * z for z in problem(4, 3))
    with pytest.raises(ValueError, match=r"`epsilon` 0\.1 is below the rounding of costs"):
        entropic_fused_gromov_wasserstein(cost, cx, cy, epsilon=0.1)
    with pytest.raises(ValueError, match="`epsilon`"):
        entropic_fused_gromov_wasserstein(cost, cx, cy, epsilon=float("nan"))
