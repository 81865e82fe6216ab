"""Partial Gromov-Wasserstein: shapes with outliers, POT, brute force, limits and derivatives."""

import itertools

import ot
import pytest
import torch

from monge.transport import gromov_wasserstein, partial_gromov_wasserstein
from monge.transport.quadratic import Quadratic, objective


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def distances(x):
    return torch.cdist(x, x)


def masses(n, total=1.0):
    w = torch.rand(n, dtype=torch.float64) + 0.2
    return total * w / w.sum()


def spaces(n, m):
    return distances(doubles(n, 2)), distances(doubles(m, 2))


def test_a_turned_shape_is_found_beside_outliers_of_both_sides():
    for seed in range(5):
        torch.manual_seed(seed)
        x, order = doubles(20, 2), torch.randperm(20)
        y = x[order] @ torch.linalg.qr(doubles(2, 2)).Q
        cx, cy = (distances(torch.cat([z, 3 * doubles(4, 2)])) for z in (x, y))
        plan = partial_gromov_wasserstein(cx, cy, mass=20 / 24, starts=16)
        assert float(plan.value) == pytest.approx(0, abs=1e-9)
        assert torch.equal(plan.plan[:20].argmax(0)[:20], order)
        assert plan.plan[20:].sum() + plan.plan[:, 20:].sum() == pytest.approx(0, abs=1e-9)
        assert plan.converged


@pytest.mark.parametrize("seed", range(5))
def test_value_is_at_most_pots_to_which_the_plan_is_stationary(seed):
    torch.manual_seed(seed)
    (cx, cy), a, b = spaces(9, 7), masses(9, 1.3), masses(7)
    ours = partial_gromov_wasserstein(cx, cy, a, b, mass=0.6, starts=16)
    arrays = [z.numpy() for z in (cx, cy, a, b)]
    theirs = ot.gromov.partial_gromov_wasserstein2(*arrays, m=0.6)
    assert float(ours.value) <= float(theirs) * (1 + 1e-9)
    torch.testing.assert_close(ours.value, objective(cx, cy, ours.plan))
    again = ot.gromov.partial_gromov_wasserstein2(
        *arrays, m=0.6, G0=(ours.plan * (1 - 1e-12)).numpy()
    )
    assert float(again) == pytest.approx(float(ours.value), rel=1e-5)
    assert (ours.plan.sum(1) - a).max() < 1e-9
    assert (ours.plan.sum(0) - b).max() < 1e-9
    assert float(ours.plan.sum()) == pytest.approx(0.6, rel=1e-9)


def test_no_partial_permutation_is_better_than_the_best_of_many_starts():
    """Never in these problems, and found in most."""
    found = 0
    for seed in range(8):
        torch.manual_seed(seed)
        cx, cy = spaces(5, 5)
        best = min(
            float((cx[list(i)][:, list(i)] - cy[list(j)][:, list(j)]).square().sum()) / 25
            for i in itertools.combinations(range(5), 3)
            for j in itertools.permutations(range(5), 3)
        )
        value = float(partial_gromov_wasserstein(cx, cy, mass=0.6, starts=32).value)
        assert value >= best * (1 - 1e-6)
        found += value <= best * (1 + 1e-6) + 1e-12
    assert found >= 5


def test_the_whole_mass_is_gromov_wasserstein():
    (cx, cy), a, b = spaces(8, 6), masses(8), masses(6)
    product = a[:, None] * b
    whole = partial_gromov_wasserstein(cx, cy, a, b, mass=1.0, starts=product)
    expected = gromov_wasserstein(cx, cy, a, b, starts=product)
    torch.testing.assert_close(whole.value, expected.value)
    torch.testing.assert_close(whole.plan, expected.plan)


def test_potentials_are_those_of_the_linearised_problem():
    (cx, cy), a, b = spaces(8, 6), masses(8), masses(6, 2.0)
    plan = partial_gromov_wasserstein(cx, cy, a, b, mass=0.7)
    (f, g), pi = plan.potentials, plan.plan
    slope = Quadratic(cx, cy, torch.zeros_like(pi)).slope(pi)
    price = (slope - f[:, None] - g).min()
    assert f.max() <= 0
    assert g.max() <= 0
    slack = (slope - f[:, None] - g - price) * pi
    assert float(slack.sum()) == pytest.approx(0, abs=1e-7)
    assert float((f * (a - pi.sum(1))).abs().sum()) == pytest.approx(0, abs=1e-8)


def test_gradients_equal_finite_differences():
    inputs = [doubles(5, 2), doubles(4, 2), masses(5, 1.1), masses(4, 1.7)]

    def value(x, y, a, b):
        cx, cy = ((z[:, None] - z).square().sum(-1) for z in (x, y))
        return partial_gromov_wasserstein(cx, cy, a, b, mass=0.8).value

    inputs = [z.requires_grad_() for z in inputs]
    assert torch.autograd.gradcheck(value, inputs, atol=1e-5, rtol=1e-4)
    (slope,) = torch.autograd.grad(value(*inputs), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        slope.square().sum().backward()


def test_units_single_precision_and_points_without_weight():
    cx, cy = spaces(9, 8)
    expected = partial_gromov_wasserstein(cx, cy, mass=0.5)
    for unit in (1e-100, 1e100):
        plan = partial_gromov_wasserstein(unit * cx, unit * cy, mass=0.5)
        assert float(plan.value) / unit / unit == pytest.approx(float(expected.value), rel=1e-6)
    single = partial_gromov_wasserstein(cx.float(), cy.float(), mass=0.5)
    assert single.converged
    assert single.value.dtype == torch.float32
    a = torch.tensor([0, 0, 0, *[1 / 6] * 6], dtype=torch.float64)
    plan = partial_gromov_wasserstein(cx, cy, a, mass=0.5)
    assert plan.plan[:3].sum() == 0


def test_what_did_not_converge_warns():
    cx, cy = spaces(15, 12)
    with pytest.warns(UserWarning, match="stopped after 1 iterations"):
        plan = partial_gromov_wasserstein(cx, cy, mass=0.5, starts=1, max_iterations=1)
    assert not plan.converged


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"mass": 0.0}, "`mass`"),
        ({"mass": 1.5}, "`mass` must be at most 1"),
        ({"mass": float("nan")}, "`mass`"),
        ({"cx": torch.zeros(3, 2)}, "`cx` must be a square"),
        ({"cy": torch.full((3, 3), float("inf"))}, "`cy` must be finite"),
        ({"a": [-1.0, 1.0, 1.0]}, "`a`"),
        ({"starts": torch.ones(3, 3) / 9}, "`starts` must be plans .* marginal error of 1"),
        ({"starts": torch.ones(2, 3) / 12}, r"`starts` .* shape \(3, 3\)"),
        ({"tolerance": 0.0}, "`tolerance`"),
    ],
)
def test_bad_problems_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        partial_gromov_wasserstein(
            **{"cx": torch.zeros(3, 3), "cy": torch.zeros(3, 3), "mass": 0.5} | options
        )
