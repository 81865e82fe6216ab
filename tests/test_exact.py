"""Exact transport: duality, plans, maps and potentials, against SciPy, POT and closed forms."""

import itertools
import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist

from monge.transport import kantorovich_potential, monge_map, solve, wasserstein, wasserstein_1d
from monge.transport.gaussian_potentials import gaussian_potentials


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def law(n):
    w = torch.rand(n, dtype=torch.float64) + 0.1
    return w / w.sum()


def by_linear_programme(cost, a, b):
    """The definition, solved by SciPy's interior point and simplex code."""
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    result = linprog(cost.ravel(), A_eq=np.r_[rows, columns], b_eq=np.r_[a, b])
    return result.fun


@pytest.mark.parametrize("shift", [1e3, 1e6, 1e9])
def test_a_far_shift_changes_no_squared_assignment(shift):
    """Costs of (10⁹)² are rounded by more than the differences between assignments."""
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(2, 30, 3, generator=generator, dtype=torch.float64) * 2**10
    ).round() / 2**10
    assert torch.equal(monge_map(x + shift, y - shift), monge_map(x, y))


@pytest.mark.parametrize(("n", "m"), [(5, 5), (4, 7), (1, 6), (1, 1)])
def test_solve_equals_the_linear_programme_and_its_dual(n, m):
    cost, a, b = doubles(n, m), law(n), law(m)
    plan = solve(cost, a, b)
    f, g = plan.potentials
    expected = by_linear_programme(cost.numpy(), a.numpy(), b.numpy())
    assert float(plan.value) == pytest.approx(expected, abs=1e-9)
    assert float(a @ f + b @ g) == pytest.approx(expected, abs=1e-9)
    assert (f[:, None] + g - cost).max() <= 1e-12
    torch.testing.assert_close(plan.plan.sum(1), a)
    torch.testing.assert_close(plan.plan.sum(0), b)
    assert plan.plan.min() >= 0
    assert plan.marginal_error < 1e-12
    assert plan.converged


def test_split_mass_needs_a_plan():
    """δ_x against ½ δ_y1 + ½ δ_y2: no map exists, the plan sends half to each."""
    x, y = torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert float(wasserstein(x, y, p=1)) == pytest.approx((5 + 1) / 2)
    assert solve(torch.cdist(x, y)).plan.tolist() == [[0.5, 0.5]]
    with pytest.raises(ValueError, match="use `solve` for a plan"):
        monge_map(x, y)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_monge_map_is_the_best_of_all_permutations(p):
    x, y = doubles(6, 2), doubles(6, 2)
    costs = torch.cdist(x, y) ** p
    best = min(
        (costs[range(6), list(s)].sum().item(), s) for s in itertools.permutations(range(6))
    )
    assert monge_map(x, y, p=p).tolist() == list(best[1])
    expected = (best[0] / 6) ** (1 / p)
    assert float(wasserstein(x, y, p=p)) == pytest.approx(expected, rel=1e-12)
    weights = torch.full((6,), 1 / 6, dtype=torch.float64)
    assert float(wasserstein(x, y, weights, weights, p=p)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("p", [1, 1.5, 2, 4])
@pytest.mark.parametrize("weighted", [True, False])
def test_wasserstein_equals_pot(p, weighted):
    x, y = doubles(9, 3), doubles(6, 3)
    a, b = (law(9), law(6)) if weighted else (None, None)
    given_ = [ot.unif(9), ot.unif(6)] if a is None else [a.numpy(), b.numpy()]
    expected = ot.emd2(*given_, (torch.cdist(x, y) ** p).numpy()) ** (1 / p)
    assert float(wasserstein(x, y, a, b, p=p)) == pytest.approx(expected, rel=1e-10)


def test_on_the_line_it_is_the_sorted_matching():
    x, y, a, b = doubles(8, 1), doubles(5, 1), law(8), law(5)
    for p in (1, 2, 3):
        expected = wasserstein_1d(x[:, 0], y[:, 0], a, b, p=p)
        assert float(wasserstein(x, y, a, b, p=p)) == pytest.approx(float(expected), rel=1e-9)


def test_diracs_and_translations():
    x, v = doubles(7, 3), torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    assert float(wasserstein(x[:1], x[1:2])) == pytest.approx(float((x[0] - x[1]).norm()))
    assert float(wasserstein(x, x + v)) == pytest.approx(3.0)
    assert wasserstein(x, x.flip(0)) == 0


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(5, 5), (5, 3)])
def test_gradient_in_the_points_equals_finite_differences(p, sizes):
    x, y = (doubles(n, 2).requires_grad_() for n in sizes)
    assert torch.autograd.gradcheck(lambda x, y: wasserstein(x, y, p=p), (x, y), atol=1e-6)


def test_gradient_in_cost_and_weights_equals_finite_differences():
    """Weights move within the simplex: the gradient is that of the softmax behind them."""
    cost, u, v = doubles(4, 5), doubles(4), doubles(5)

    def value(cost, u, v):
        return solve(cost, u.softmax(0), v.softmax(0)).value

    def distance(u, v):
        return wasserstein(cost[:, :2], cost.T[:, :2], u.softmax(0), v.softmax(0))

    for z in (cost, u, v):
        z.requires_grad_()
    assert torch.autograd.gradcheck(value, (cost, u, v), atol=1e-6)
    cost = cost.detach()
    assert torch.autograd.gradcheck(distance, (u, v), atol=1e-6)


def test_gradient_at_equal_samples_is_zero():
    x = doubles(5, 2).requires_grad_()
    wasserstein(x, x.detach().clone()).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("weighted", [True, False])
def test_the_potential_is_one_lipschitz_and_attains_w1(weighted):
    x, y = doubles(8, 2), doubles(6, 2)
    a, b = (law(8), law(6)) if weighted else (None, None)
    on_x, on_y = kantorovich_potential(x, y, a, b)
    mean_x = (a @ on_x) if weighted else on_x.mean()
    mean_y = (b @ on_y) if weighted else on_y.mean()
    assert float(mean_x - mean_y) == pytest.approx(float(wasserstein(x, y, a, b, p=1)), rel=1e-9)
    points, values = torch.cat([x, y]), torch.cat([on_x, on_y])
    slopes = (values[:, None] - values).abs() - torch.cdist(points, points)
    assert slopes.max() <= 1e-12


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
def test_metric_axioms(n, m, k, seed):
    random = np.random.default_rng(seed)
    x, y, z = (torch.from_numpy(random.normal(size=(size, 2))) for size in (n, m, k))
    for p in (1, 2):
        xy, yz, xz = wasserstein(x, y, p=p), wasserstein(y, z, p=p), wasserstein(x, z, p=p)
        assert xz <= xy + yz + 1e-9
        assert abs(xy - wasserstein(y, x, p=p)) < 1e-9
        assert xy >= 0


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(5, 5), (5, 4)])
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float64, 1e-30), (torch.float64, 1e30), (torch.float32, 1e-15), (torch.float32, 1e15)],
)
def test_scales_come_out_as_they_went_in(p, sizes, dtype, scale):
    x, y = (torch.randn(n, 3, dtype=dtype) for n in sizes)
    ratio = wasserstein(scale * x, scale * y, p=p).double() / wasserstein(x, y, p=p).double()
    assert float(ratio / scale) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((torch.zeros(0, 2), torch.zeros(3, 2)), "`x`"),
        ((torch.zeros(3, 2), torch.full((3, 2), math.nan)), "`y`"),
        ((torch.zeros(3, 2), torch.zeros(3, 3)), "one shape"),
        ((torch.zeros(3, 2) * 1j, torch.zeros(3, 2)), "`x`"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(3)), "`a`"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), None, torch.tensor([1.5, -0.5, 0])), "`b`"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(2) / 2), "`a`"),
    ],
)
def test_bad_input_is_named(arguments, word):
    with pytest.raises(ValueError, match=word):
        wasserstein(*arguments)


def test_bad_costs_are_named():
    with pytest.raises(ValueError, match="`cost`"):
        solve(torch.zeros(3))
    with pytest.raises(ValueError, match="`cost`"):
        solve(torch.full((2, 2), math.inf))


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("n", [250, 650])
def test_prepared_assignments_are_optimal(p, offset, n):
    """Costs are reduced by potentials first, from 600 points on entropic ones; duplicates make
    ties."""
    x, y = torch.randn(n, 3) + offset, torch.randn(n, 3) + offset
    x[:20], y[:10] = x[20:40], x[0]
    cost = cdist(x.double(), y.double()) ** p
    rows, columns = linear_sum_assignment(cost)
    ours = monge_map(x, y, p=p).numpy()
    assert np.array_equal(np.sort(ours), np.arange(n))
    assert cost[rows, ours].mean() == pytest.approx(cost[rows, columns].mean(), rel=1e-9)
    assert float(wasserstein(x, y, p=p)) ** p == pytest.approx(
        cost[rows, columns].mean(), rel=1e-4
    )


def anisotropic(n, d):
    """Points of a random covariance about a random mean."""
    return doubles(n, d) @ doubles(d, d) + 3 * doubles(d)


@pytest.mark.parametrize(("n", "d"), [(40, 2), (300, 3), (64, 8)])
def test_potentials_of_gaussians_leave_a_square(n, d):
    """‖x - y‖² - f - g is ‖A^½ x - A^{-½} y‖² about means: of rank d, at least 0."""
    x, y = anisotropic(n, d), anisotropic(n, d)
    f, g = (z[0] for z in gaussian_potentials(x[None], y[None]))
    reduced = torch.cdist(x, y).square() - f[:, None] - g
    scale = float(torch.cdist(x, y).square().max())
    assert float(reduced.min()) > -1e-12 * scale
    mixed = reduced - reduced.mean(0) - reduced.mean(1, keepdim=True) + reduced.mean()
    assert int((torch.linalg.svdvals(mixed) > 1e-9 * scale).sum()) == d


def test_potentials_of_few_or_equal_points():
    assert all(not bool(z.any()) for z in gaussian_potentials(doubles(1, 7, 1), doubles(1, 7, 1)))
    x = torch.ones(1, 20, 2, dtype=torch.float64)
    assert all(bool(z.isfinite().all()) for z in gaussian_potentials(x, x + doubles(1, 20, 2)))
    assert float(wasserstein(x[0], x[0] + 1)) == pytest.approx(2**0.5)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("shift", [1e-6, 1e-9])
def test_optima_far_below_the_costs(batched, shift):
    """Potentials of the size of the costs would round the differences that decide."""
    x = anisotropic(100, 2)
    y = (x + shift * doubles(100, 2))[torch.randperm(100)]
    expected = linear_sum_assignment(cdist(x, y, "sqeuclidean"))
    value = float((x[expected[0]] - y[expected[1]]).square().sum(1).mean().sqrt())
    found = wasserstein(x[None], y[None])[0] if batched else wasserstein(x, y)
    assert float(found) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(64, 3), (128, 5)])
def test_batches_of_unlike_covariances_are_matched_as_by_scipy(n, d):
    x, y = (torch.stack([anisotropic(n, d) for _ in range(5)]) for _ in range(2))
    for one, other, found in zip(x, y, wasserstein(x, y)):
        cost = cdist(one, other, "sqeuclidean")
        value = cost[linear_sum_assignment(cost)].mean() ** 0.5
        assert float(found) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("far", [1e300, 1e308, 1.28e308])
def test_points_at_the_end_of_float64(far, p):
    """The mean of 16 such points overflows where it is a sum over a count."""
    x = torch.full((16, 2), far, dtype=torch.float64)
    assert float(wasserstein(x, x, p=p)) == float(wasserstein(x[None], x[None], p=p)) == 0
    assert sorted(monge_map(x, x, p=p).tolist()) == list(range(16))
    wide = torch.tensor([[0.0], [far]], dtype=torch.float64)
    for y in (wide.flip(0), wide / 2):
        together = wasserstein(wide[None], y[None], p=p)
        assert torch.allclose(together, wasserstein(wide, y, p=p)[None], rtol=1e-12, atol=0)
