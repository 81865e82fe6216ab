"""Entropic transport: closed forms, limits, POT, gradients, and the account of convergence."""

import dataclasses
import math
import warnings

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge._core import tuning
from monge.draws import generator
from monge.transport import (
    Anderson,
    Randkhorn,
    multiscale_sinkhorn,
    sinkhorn,
    sinkhorn_divergence,
    solve_entropic,
    wasserstein,
)

TIGHT = {"tolerance": 1e-11}
SOLVERS = pytest.mark.parametrize(
    "acceleration", [None, Anderson(5), Randkhorn()], ids=["plain", "anderson", "randkhorn"]
)


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def law(n):
    w = torch.rand(n, dtype=torch.float64) + 0.1
    return w / w.sum()


@SOLVERS
@pytest.mark.parametrize("epsilon", [0.3, 3.0])
def test_every_solver_finds_pots_plan(acceleration, epsilon):
    x, y, a, b = doubles(8, 2), doubles(6, 2), law(8), law(6)
    plan = sinkhorn(
        x,
        y,
        a,
        b,
        epsilon=epsilon,
        tolerance=1e-7,
        acceleration=acceleration,
        max_iterations=20_000,
    )
    cost = torch.cdist(x, y) ** 2
    expected = ot.sinkhorn(
        a.numpy(),
        b.numpy(),
        cost.numpy(),
        epsilon,
        method="sinkhorn_log",
        stopThr=1e-12,
        numItermax=100_000,
    )
    np.testing.assert_allclose(plan.plan.numpy(), expected, atol=1e-6)
    assert plan.converged
    assert plan.marginal_error <= 1e-7


@pytest.mark.parametrize("p", [1, 2])
def test_value_is_the_primal_and_the_dual_objective(p):
    x, y, a, b = doubles(7, 3), doubles(5, 3), law(7), law(5)
    plan = sinkhorn(x, y, a, b, epsilon=0.5, p=p, **TIGHT)
    f, g = plan.potentials
    product, cost = a[:, None] * b, torch.cdist(x, y) ** p
    kl = torch.xlogy(plan.plan, plan.plan / product).sum()
    assert float(plan.value) == pytest.approx(float((plan.plan * cost).sum() + 0.5 * kl), rel=1e-9)
    assert float(plan.value) == pytest.approx(float(a @ f + b @ g), rel=1e-9)
    assert float(plan.value_linear) == pytest.approx(float((plan.plan * cost).sum()), rel=1e-9)
    torch.testing.assert_close(plan.plan, product * ((f[:, None] + g - cost) / 0.5).exp())
    matrix = solve_entropic(cost, a, b, epsilon=0.5, **TIGHT)
    torch.testing.assert_close(matrix.value, plan.value)


def test_gaussians_have_the_closed_form():
    """Janati, Muzellec, Peyré, Cuturi 2020, on the line by quadrature: ε = 2σ², cost |x - y|²."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    w = torch.from_numpy(weights / weights.sum())
    z = torch.from_numpy(nodes)
    m0, s0, m1, s1, epsilon = 0.3, 1.2, -0.5, 0.6, 1.5
    plan = sinkhorn((m0 + s0 * z)[:, None], (m1 + s1 * z)[:, None], w, w, epsilon=epsilon, **TIGHT)
    half = epsilon / 2
    d = math.sqrt(4 * s0**2 * s1**2 + half**2)
    expected = (
        (m0 - m1) ** 2
        + s0**2
        + s1**2
        - d
        + half * (1 - math.log(2 * half))
        + half * math.log(d + half)
    )
    assert float(plan.value) == pytest.approx(expected, rel=1e-8)


def test_small_epsilon_is_exact_transport():
    x, y = doubles(12, 2), doubles(12, 2)
    exact = float(wasserstein(x, y) ** 2)
    linear = [float(sinkhorn(x, y, epsilon=e).value_linear) for e in (1.0, 0.1, 0.01)]
    assert linear[0] > linear[1] > linear[2] > exact - 1e-3
    assert linear[2] == pytest.approx(exact, rel=0.01)
    assert float(sinkhorn_divergence(x, y, epsilon=0.003)) == pytest.approx(exact, rel=0.02)


def test_large_epsilon_is_half_the_energy_distance_or_the_distance_of_means():
    x, y = doubles(9, 3), doubles(7, 3) + 1
    energy = 2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()
    value = sinkhorn_divergence(x, y, epsilon=1e5, p=1, **TIGHT)
    assert float(value) == pytest.approx(float(energy / 2), rel=1e-3)
    means = (x.mean(0) - y.mean(0)).square().sum()
    value = sinkhorn_divergence(x, y, epsilon=1e6, p=2, **TIGHT)
    assert float(value) == pytest.approx(float(means), rel=1e-3)


@given(st.integers(1, 8), st.integers(1, 8), st.floats(0.05, 5), st.integers(0, 10**6))
def test_divergence_is_symmetric_never_negative_and_zero_at_equality(n, m, epsilon, seed):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, dtype=torch.float64, generator=random)
    y = torch.randn(m, 2, dtype=torch.float64, generator=random)
    options = {"epsilon": epsilon, "tolerance": 1e-9}
    xy, yx = sinkhorn_divergence(x, y, **options), sinkhorn_divergence(y, x, **options)
    assert xy >= 0
    assert float(xy) == pytest.approx(float(yx), abs=1e-6)
    assert 0 <= sinkhorn_divergence(x, x.flip(0), **options) < 1e-7
    assert sinkhorn_divergence(x, x.clone(), **options) == 0


@pytest.mark.parametrize("reach", [None, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.01, 1.0, 1e3])
def test_divergence_of_near_samples_is_never_negative_and_keeps_its_gradient(
    epsilon, dtype, reach
):
    x = torch.randn(2, 40, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    for moved in (x.clone(), x.flip(1), x + 1e-3):
        moved.requires_grad_()
        one = sinkhorn_divergence(x[0], moved[0], epsilon=epsilon, reach=reach)
        both = sinkhorn_divergence(x, moved, epsilon=epsilon, reach=reach)
        assert min(float(one.detach()), float(both.detach().min())) >= 0
        if torch.equal(x, moved):
            assert float(one.detach()) == float(both.detach().max()) == 0
        (slope,) = torch.autograd.grad(both.sum(), moved)
        assert torch.isfinite(slope).all()
        assert float(slope.abs().max()) < 0.02
    assert float(slope.abs().max()) > 0  # where the value may be 0, the way down is kept


@pytest.mark.parametrize("p", [1, 2])
def test_gradients_in_points_and_weights_equal_finite_differences(p):
    """The wrong gradient, through both potentials, has the right value; only this tells."""
    x, y, u, v = doubles(4, 2), doubles(3, 2), doubles(4), doubles(3)
    for z in (x, y, u, v):
        z.requires_grad_()

    def value(x, y, u, v):
        return sinkhorn(x, y, u.softmax(0), v.softmax(0), epsilon=0.7, p=p, tolerance=1e-13).value

    def divergence(x, y, u, v):
        return sinkhorn_divergence(
            x, y, u.softmax(0), v.softmax(0), epsilon=0.7, p=p, tolerance=1e-13
        )

    assert torch.autograd.gradcheck(value, (x, y, u, v), atol=1e-6)
    assert torch.autograd.gradcheck(divergence, (x, y, u, v), atol=1e-6)


def test_gradient_in_the_cost_is_the_plan():
    cost, u = doubles(4, 5).requires_grad_(), doubles(4).requires_grad_()

    def value(cost, u):
        return solve_entropic(cost, u.softmax(0), epsilon=0.5, tolerance=1e-13).value

    assert torch.autograd.gradcheck(value, (cost, u), atol=1e-6)


def test_blocks_give_what_the_stored_matrix_gives(monkeypatch):
    x, y = doubles(50, 3).requires_grad_(), doubles(40, 3)

    def both():
        value = sinkhorn_divergence(x, y, epsilon=0.5, **TIGHT)
        return value.detach(), torch.autograd.grad(value, x)[0]

    stored = both()
    blocks = dataclasses.replace(tuning.CPU, gibbs_entries=0, cost_entries=100)
    monkeypatch.setattr(tuning, "CPU", blocks)
    for ours, theirs in zip(both(), stored):
        torch.testing.assert_close(ours, theirs)


def test_acceleration_takes_fewer_iterations_on_hard_problems():
    x, y = torch.randn(200, 3), torch.randn(200, 3)
    counts = {
        name: sinkhorn(x, y, epsilon=0.02, tolerance=1e-3, acceleration=choice).iterations
        for name, choice in (("plain", None), ("anderson", Anderson(5)))
    }
    assert counts["anderson"] < 0.7 * counts["plain"]


@SOLVERS
def test_no_convergence_is_told_with_the_way_out(acceleration):
    x, y = doubles(30, 2), doubles(30, 2)
    with pytest.warns(UserWarning, match="`epsilon` 0.001 stopped after .* raise `epsilon`"):
        plan = sinkhorn(
            x, y, epsilon=1e-3, tolerance=1e-9, max_iterations=2, acceleration=acceleration
        )
    assert not plan.converged
    rows, columns = plan.plan.sum(1) - 1 / 30, plan.plan.sum(0) - 1 / 30
    error = max(rows.abs().sum(), columns.abs().sum())
    assert plan.marginal_error == pytest.approx(float(error), rel=1e-6)
    assert plan.marginal_error > 1e-9


def test_points_without_weight_change_nothing():
    x, y = doubles(5, 2), doubles(4, 2)
    a = torch.tensor([0.25, 0.25, 0.25, 0.25, 0], dtype=torch.float64)
    expected = sinkhorn(x[:4], y, epsilon=0.5, **TIGHT).value
    torch.testing.assert_close(sinkhorn(x, y, a, epsilon=0.5, **TIGHT).value, expected)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"epsilon": 0.0}, "`epsilon`"),
        ({"epsilon": -1.0}, "`epsilon`"),
        ({"epsilon": 1.0, "tolerance": 0.0}, "`tolerance`"),
        ({"epsilon": 1.0, "acceleration": "anderson"}, "`acceleration`"),
        ({"epsilon": 1.0, "max_iterations": 0}, "`max_iterations`"),
        ({"epsilon": 1.0, "p": 0.5}, "`p`"),
    ],
)
def test_bad_options_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        sinkhorn(torch.zeros(3, 2), torch.zeros(3, 2), **options)


@pytest.mark.parametrize("seed", range(6))
def test_without_convergence_the_nearest_iterate_is_kept(seed):
    """An extrapolation that went astray is no result, alone and in a batch."""
    random = generator(seed, "astray")
    x, y = (100 * torch.randn(n, 3, generator=random, dtype=torch.float64) for n in (9, 7))
    a, b = (torch.rand(n, generator=random, dtype=torch.float64) for n in (9, 7))
    a, b = a / a.sum(), b / b.sum()
    expected = float(wasserstein(x, y, a, b) ** 2)
    problems = [(x, y, a, b), tuple(torch.stack([z, z]) for z in (x, y, a, b))]
    for problem in problems:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan = sinkhorn(*problem, epsilon=0.5, max_iterations=1000)
        assert plan.value.max() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("distance", [30.0, 300.0])
@pytest.mark.parametrize(
    "solver",
    [
        lambda x, y, epsilon: sinkhorn(x, y, epsilon=epsilon),
        lambda x, y, epsilon: sinkhorn(x[None], y[None], epsilon=epsilon),
        lambda x, y, epsilon: multiscale_sinkhorn(x, y, epsilon=epsilon, tolerance=1e-4),
    ],
    ids=["points", "batch", "multiscale"],
)
def test_far_clusters_of_unequal_mass_exchange_it(solver, distance):
    """A tenth of the mass goes a long way: potentials drift apart by about ε an iteration. The
    plan is the exact one up to its entropy, which is at most log n."""
    random = torch.Generator().manual_seed(0)
    x, y = (torch.randn(120, 2, generator=random, dtype=torch.float64) for _ in range(2))
    x[:12] += distance
    y[:24] += distance
    epsilon = 1e-4 * distance**2
    plan = solver(x, y, epsilon)
    exact = float(wasserstein(x, y)) ** 2
    assert plan.converged
    slack = 1e-4 * distance**2 * 4  # what the tolerance leaves of the mass, and its way
    assert exact - slack <= float(plan.value) <= exact + epsilon * math.log(120) + slack
