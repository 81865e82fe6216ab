"""Small inputs at the edge with their right values, each computed on paper or independently."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist

from monge.costs import L2, Bernoulli, Chamfer, EarthMover
from monge.divergences import MMD, EnergyDistance, ExactWasserstein, SlicedWasserstein
from monge.inference import game_value
from monge.kernels import IMQ, Energy, Laplace, median_distance, pair_sum
from monge.transport import (
    Polynomial,
    gaussian_wasserstein,
    gromov_wasserstein,
    histogram_barycenter,
    jensen_shannon,
    kantorovich_potential,
    max_sliced_wasserstein,
    monge_map,
    quantile_map,
    sinkhorn,
    sinkhorn_divergence,
    sliced_gromov_wasserstein,
    sliced_wasserstein,
    solve,
    solve_entropic,
    wasserstein,
    wasserstein_1d,
    wasserstein_circle,
)
from monge.transport.neighbours import nearest_in_sets

double = torch.float64


def linear_programme(x, y, a, b, p=2):
    """W_p^p by SciPy."""
    n, m = len(x), len(y)
    rows = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    cost = cdist(x, y) ** p
    return linprog(cost.ravel(), A_eq=np.vstack(rows), b_eq=np.concatenate([a, b])).fun


# The line


def test_gradients_on_the_line_with_denormals_flushed():
    x, y = torch.randn(64).relu(), torch.randn(64).relu()

    def slopes(y):
        u = x.clone().requires_grad_()
        return torch.autograd.grad(wasserstein_1d(u, y), u)[0]

    expected = slopes(y), slopes(y[:50])
    torch.set_flush_denormal(True)
    try:
        ours = slopes(y), slopes(y[:50])
    finally:
        torch.set_flush_denormal(False)
    for gradient, slope in zip(ours, expected):
        torch.testing.assert_close(gradient, slope)


def weight_slopes(n, m, shift=10.0):
    """The slope of W_2² in the weights of n points on the line."""
    a = torch.full((n,), 1 / n, dtype=double, requires_grad=True)
    u, v = torch.arange(n, dtype=double), torch.arange(m, dtype=double) * n / m + shift
    return torch.autograd.grad(wasserstein_1d(u, v, a).square(), a)[0]


def test_weights_slopes_where_levels_tie():
    """A potential of the plan: between its one-sided derivatives, which the LP gives at ±h."""
    slope = weight_slopes(5, 5)
    assert -84 <= float(slope[4] - slope[0]) <= -76
    slope = weight_slopes(4, 4)
    assert float(slope[3] - slope[0]) == pytest.approx(-57)
    for n, m in ((5, 5), (4, 8), (3, 6), (6, 3)):
        slope = weight_slopes(n, m)
        u, v = np.arange(n)[:, None], np.arange(m)[:, None] * n / m + 10
        h = 1e-3
        for i in range(1, n):
            sides = []
            for sign in (1, -1):
                a = np.full(n, 1 / n)
                a[i], a[0] = a[i] + sign * h, a[0] - sign * h
                moved = linear_programme(u, v, a, np.full(m, 1 / m))
                at = linear_programme(u, v, np.full(n, 1 / n), np.full(m, 1 / m))
                sides.append(sign * (moved - at) / h)
            assert min(sides) - 1e-5 <= float(slope[i] - slope[0]) <= max(sides) + 1e-5


def test_weights_that_nearly_sum_to_1_are_normalised():
    n = 1001
    a, b = torch.zeros(n), torch.zeros(n)
    a[0], a[1], b[0], b[1] = 0.9, 0.1, 0.5, 0.5
    x = torch.arange(n).float()
    assert float(wasserstein_1d(x, x, a, b)) == pytest.approx(0.632456, rel=1e-5)
    assert float(wasserstein(x[:, None], x[:, None], a, b)) == pytest.approx(0.632456, rel=1e-5)
    bins = torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    bins, none = bins / bins.sum(), torch.zeros(1)
    places = torch.arange(10_001).float()
    a, b = torch.cat([bins, none]), torch.cat([none, bins])
    assert float(wasserstein_1d(places, places, a, b)) == pytest.approx(1, rel=1e-5)
    theta = torch.ones(1, 1)
    value = sliced_wasserstein(places[:, None], places[:, None], a, b, directions=theta)
    assert float(value) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_those_of_their_sum(dtype):
    w = torch.rand(300, generator=torch.Generator().manual_seed(1))
    w = (w / w.sum()).to(dtype)
    x, y = torch.randn(300), torch.randn(300) + 1
    exact = w.double() / w.double().sum()
    expected = wasserstein_1d(x.double(), y.double(), exact)
    assert float(wasserstein_1d(x, y, w)) == pytest.approx(float(expected), rel=1e-5)


# Far points


def shared_far_point(size, dtype=double):
    x = torch.tensor([(0, 0), (1, 0), (2, 0), (size, size)], dtype=dtype)
    y = torch.tensor([(2, 0.1), (0, 0.1), (1, 0.1), (size, size)], dtype=dtype)
    return x, y


@pytest.mark.parametrize("size", [10.0, 1e6, 1e9])
def test_a_shared_far_point_hides_nothing(size):
    x, y = shared_far_point(size)
    expected = (3 * 0.1**2 / 4) ** 0.5  # 0.0866
    assert float(wasserstein(x, y)) == pytest.approx(expected, rel=1e-10)
    assert float(wasserstein(x, y, torch.ones(4).div(4))) == pytest.approx(expected, rel=1e-10)
    assert monge_map(x, y).tolist() == [1, 2, 0, 3]
    plan = sinkhorn(x, y, epsilon=1e-3)
    assert float(plan.value_linear) == pytest.approx(expected**2, rel=1e-10)
    moved = x.clone().requires_grad_()
    divergence = sinkhorn_divergence(moved, y, epsilon=1e-3)
    assert float(divergence.detach()) == pytest.approx(expected**2, rel=1e-10)
    (slope,) = torch.autograd.grad(divergence, moved)
    expected_slope = torch.zeros_like(x)
    expected_slope[:3, 1] = -0.05
    torch.testing.assert_close(slope, expected_slope, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kernel", [Energy(), Laplace(0.01), IMQ(4e-4)], ids=repr)
@pytest.mark.parametrize("size", [10.0, 100.0])
def test_kernels_tell_points_of_far_clusters_apart(kernel, size):
    side = torch.where(torch.arange(300) % 2 == 0, size, -size)[:, None]
    x, y = (0.01 * torch.randn(300, 2) + side for _ in range(2))
    wide = x.double().requires_grad_()
    squared = (wide[:, None] - y.double()).square().sum(-1)
    expected = kernel.of_squared(squared).sum()
    (slope,) = torch.autograd.grad(expected, wide)
    x.requires_grad_()
    value = pair_sum(kernel, x, y)
    (gradient,) = torch.autograd.grad(value, x)
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    error = (gradient.double() - slope).abs().max() / slope.abs().max()
    assert error < 1e-5


def test_kernels_in_float64_beside_a_point_at_1e8():
    x, y = torch.randn(60, 3, dtype=double), torch.randn(60, 3, dtype=double)
    x[0] = y[0] = 1e8
    longer = x.numpy().astype(np.longdouble)[:, None] - y.numpy().astype(np.longdouble)
    lengths = np.sqrt((longer**2).sum(-1))
    with np.errstate(invalid="ignore"):
        units = np.where(lengths[..., None] == 0, 0, longer / lengths[..., None])
    x.requires_grad_()
    value = pair_sum(Energy(), x, y)
    (gradient,) = torch.autograd.grad(value, x)
    assert float(value.detach()) == pytest.approx(float(-lengths.sum()), rel=1e-10)
    expected = torch.from_numpy(-units.sum(1).astype(np.float64))
    torch.testing.assert_close(
        gradient, expected, rtol=0, atol=1e-10 * float(expected.abs().max())
    )


# Accounts


@pytest.mark.parametrize("shift", [0.0, 1e3, 1e6])
def test_the_marginal_error_is_that_of_the_plan(shift):
    x, y = torch.randn(50, 3, dtype=double), torch.randn(50, 3, dtype=double) + shift
    plan = sinkhorn(x, y, epsilon=0.1, tolerance=1e-9)
    errors = [(plan.plan.sum(side) - 1 / 50).abs().sum() for side in (0, 1)]
    assert plan.marginal_error == pytest.approx(float(max(errors)), rel=1e-3)
    assert plan.converged
    near = sinkhorn(x, y - shift, epsilon=0.1, tolerance=1e-9)
    torch.testing.assert_close(plan.plan, near.plan, rtol=1e-5, atol=1e-9)


def test_a_divergence_at_a_large_epsilon_is_its_limit_or_refused():
    x, y = torch.randn(80, 2), 1.3 * torch.randn(80, 2) + 0.7
    limit = float((x.mean(0) - y.mean(0)).square().sum())
    assert float(sinkhorn_divergence(x, y, epsilon=1e8)) == pytest.approx(limit, rel=1e-4)
    with pytest.raises(ValueError, match="`epsilon` 1e\\+13 is over 10⁹ times the mean cost"):
        sinkhorn_divergence(x, y, epsilon=1e13)
    with pytest.raises(ValueError, match="`epsilon`"):
        solve_entropic(torch.rand(3, 4), epsilon=1e11)


def test_a_solver_that_stops_early_says_so():
    x, y = torch.randn(50, 3), torch.randn(50, 3) + 2
    with pytest.warns(UserWarning, match="stopped after"):
        plan = sinkhorn(x, y, epsilon=0.01, max_iterations=2)
    assert not plan.converged
    with pytest.warns(UserWarning, match="stopped after"):
        solve_entropic(torch.rand(20, 20), epsilon=1e-3, max_iterations=2)


# Second derivatives


@pytest.mark.parametrize(("n", "m"), [(4, 3), (4, 4)])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_second_derivatives_of_the_sinkhorn_divergence(n, m, p):
    """The gradient of ‖∇S_ε‖², by finite differences."""
    x, y = torch.randn(n, 2, dtype=double), torch.randn(m, 2, dtype=double)
    a = torch.rand(n, dtype=double).log().requires_grad_()

    def slope_squared(x, a):
        x = x if x.requires_grad else x.requires_grad_()
        value = sinkhorn_divergence(x, y, a.softmax(0), epsilon=0.5, p=p, tolerance=1e-13)
        return torch.autograd.grad(value, x, create_graph=True)[0].square().sum()

    assert torch.autograd.gradcheck(slope_squared, (x.requires_grad_(), a), eps=1e-5, atol=1e-4)


def test_second_derivatives_with_one_moving_sample():
    x, y = torch.randn(4, 2, dtype=double).requires_grad_(), torch.randn(3, 2, dtype=double)
    for divergence in (MMD(IMQ(1.0)), EnergyDistance()):
        assert torch.autograd.gradgradcheck(lambda x, d=divergence: d(x, y), x)


def test_second_derivatives_in_weights_and_points_together_are_refused():
    x = torch.randn(4, 2, dtype=double).requires_grad_()
    a = torch.full((4,), 0.25, dtype=double, requires_grad=True)
    value = wasserstein(x, x.detach().flip(1) + 1, a)
    (first,) = torch.autograd.grad(value, a, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(first.square().sum(), x)
    cost = torch.rand(4, 4, dtype=double, requires_grad=True)
    (first,) = torch.autograd.grad(solve(cost, a).value, a, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(first.square().sum(), cost)


# Precision


def test_the_loop_of_the_readme_inside_autocast():
    encoder = torch.nn.Linear(4, 2)
    data, prior = torch.randn(50, 4), torch.randn(50, 2)
    for divergence in (MMD(IMQ(4.0)), SlicedWasserstein(20), EnergyDistance()):
        with torch.autocast("cpu", torch.bfloat16):
            codes = encoder(data)
            assert codes.dtype == torch.bfloat16
            torch.manual_seed(3)
            loss = divergence(codes, prior)
        torch.manual_seed(3)
        expected = divergence(codes.float(), prior)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, expected)
        loss.backward()


def test_arguments_by_name_are_not_taken_by_position():
    x = torch.randn(4, 2)
    with pytest.raises(TypeError, match="positional"):
        wasserstein(x, x, None, None, 2)
    with pytest.raises(TypeError, match="multiple values"):
        wasserstein(x, x=x, y=x)


@pytest.mark.parametrize("offset", [0.0, 1e8])
@pytest.mark.parametrize("m", [6, 5])
def test_a_common_offset_and_the_largest_numbers_change_no_digit(offset, m):
    x, y = (torch.randn(k, 2, dtype=double).mul(2**20).round() / 2**20 for k in (6, m))
    expected = float(wasserstein(x, y))
    assert float(wasserstein(x + offset, y + offset)) == pytest.approx(expected, rel=1e-12)
    huge = 2.0**1000
    assert float(wasserstein(huge * x, huge * y)) / huge == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [1e19, 1e-25])
def test_exact_distances_at_every_magnitude_of_float32(size):
    x, y = torch.randn(6, 2), torch.randn(6, 2)
    best = min(
        float((x - y[list(order)]).double().square().sum(1).mean()) ** 0.5
        for order in itertools.permutations(range(6))
    )
    assert float(wasserstein(size * x, size * y)) / size == pytest.approx(best, rel=1e-5)
    expected = linear_programme(x.double(), y[:5].double(), np.full(6, 1 / 6), np.full(5, 0.2))
    ours = float(wasserstein(size * x, size * y[:5])) / size
    assert ours == pytest.approx(expected**0.5, rel=1e-5)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_lengths_at_every_magnitude_of_float64(size):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(9, 3, dtype=double, generator=generator) for _ in range(2))
    for length in (
        lambda x, y: kantorovich_potential(x, y)[0],
        lambda x, y: max_sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(1))[0],
        L2(),
        lambda x, y: EarthMover()(x[None], y[None]),
        lambda x, y: torch.tensor(median_distance(torch.cat([x, y])), dtype=double),
    ):
        torch.testing.assert_close(length(size * x, size * y) / size, length(x, y))


def test_nearest_points_at_every_magnitude_of_float64():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 9, 3, dtype=double, generator=generator) for _ in range(2))
    assert torch.equal(nearest_in_sets(1e-200 * x, 1e-200 * y), nearest_in_sets(x, y))
    assert torch.isinf(Chamfer()(1e200 * x, 1e200 * y)).all()


@pytest.mark.parametrize("reach", [1.0, None])
def test_an_extrapolation_without_a_direction_with_denormals_flushed(reach):
    """Residuals become exactly 0 on the way to a tolerance that float32 does not reach."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(n, 3, generator=generator).relu() for n in (6, 8))
    settings = {"epsilon": 0.5, "tolerance": 1e-10, "max_iterations": 2000, "reach": reach}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*stopped after")
        expected = sinkhorn(x, y, **settings).value
        torch.set_flush_denormal(True)
        try:
            value = sinkhorn(x, y, **settings).value
        finally:
            torch.set_flush_denormal(False)
    torch.testing.assert_close(value, expected)


# Inputs


def test_arrays_lists_and_integers_are_samples():
    x, y = [[0.0, 0.0], [1.0, 1.0]], np.ones((2, 2))
    assert float(wasserstein(x, y, [0.5, 0.5], np.array([0.25, 0.75]))) == pytest.approx(1)
    assert float(wasserstein_1d([0, 1, 3], [5, 6, 8], p=1)) == 5
    assert wasserstein(torch.zeros(2, 2), x).dtype == torch.float32  # a list follows
    assert wasserstein(torch.zeros(2, 2), y).dtype == torch.float64
    wide = np.ones((2, 2), np.longdouble), np.ones((2, 2), np.uint16), np.ones((2, 2), ">f4")
    assert all(float(wasserstein(z, y)) == 0 for z in wide)
    assert wasserstein_1d(torch.zeros(0, 5), torch.zeros(0, 4)).shape == (0,)
    assert wasserstein(torch.zeros(2, 2).half(), torch.zeros(2, 2)).dtype == torch.float32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frozen = np.ones((2, 2))
        frozen.setflags(write=False)
        assert float(wasserstein(frozen, frozen[::-1])) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: wasserstein(x, x, 2), "`a` must hold a weight for each sample, got 2"),
        (lambda x: wasserstein("x", x), "`x` must be a tensor, a NumPy array or a list"),
        (lambda x: wasserstein(x, [[1.0], [1.0, 2.0]]), "`y` must hold numbers, in rows"),
        (lambda x: wasserstein(x, x + 1j), "`y` must hold real numbers"),
        (lambda x: wasserstein(x, x.to_sparse()), "`y` must hold real numbers"),
        (lambda x: wasserstein(x[None, None], x), "`x` must have 2 dimensions, or one more"),
        (lambda x: wasserstein(x.expand(3, 4, 2), x.expand(2, 4, 2)), "equally many problems"),
        (lambda x: wasserstein(x, x, [0.5, 0.5, 0.5, 0.5]), "a sum of 2: divide it by its sum"),
        (lambda x: wasserstein_1d(torch.tensor([2**53 + 2, 0]), x[:, 0]), "beyond 2⁵³"),
        (lambda x: wasserstein_1d(np.array([2**63], np.uint64), x[:, 0]), "beyond 2⁵³"),
        (
            lambda x: wasserstein(x, None),
            "`y` must be a tensor, a NumPy array or a list of numbers",
        ),
        (lambda x: wasserstein(x, np.array([["a", "b"]])), "`y` must hold real numbers"),
        (lambda x: sinkhorn(x * 1e20, x * 2e20, epsilon=1e40), "beyond torch.float32"),
        (lambda x: sinkhorn(x.double() * 1e200, x * 2, epsilon=1), "costs beyond float64"),
        (lambda x: sinkhorn(x, x, epsilon=1.0, max_iterations=2.5), "`max_iterations`"),
    ],
)
def test_what_cannot_be_samples_or_weights_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.randn(4, 2))


@pytest.mark.filterwarnings("ignore:.*nested tensors", "ignore:.*quantize")
def test_tensors_of_other_kinds_are_named():
    x = torch.randn(4, 2)
    with pytest.raises(ValueError, match=r"`y` must .* got a nested tensor: pad it"):
        wasserstein(x, torch.nested.nested_tensor([x, x[:1]]))
    whole = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
    with pytest.raises(ValueError, match=r"`y` must .* got torch.qint8: give y.dequantize\(\)"):
        wasserstein(x, whole)


def test_a_batch_has_a_value_for_each_problem():
    x, y = torch.randn(3, 20, 2), torch.randn(3, 15, 2)
    w = torch.rand(3, 20)
    w = w / w.sum(1, keepdim=True)
    plans = sinkhorn(x, y, w, epsilon=0.5)
    assert plans.value.shape == (3,)
    assert plans.plan.shape == (3, 20, 15)
    for i in range(3):
        one = sinkhorn(x[i], y[i], w[i], epsilon=0.5)
        torch.testing.assert_close(plans.value[i], one.value)
        torch.testing.assert_close(plans.plan[i], one.plan)
        assert plans.marginal_error >= one.marginal_error
    assert sinkhorn_divergence(x, y, epsilon=0.5).shape == (3,)
    assert wasserstein(x, y[0]).shape == (3,)  # one target for all
    assert monge_map(x, x.flip(1)).shape == (3, 20)
    assert kantorovich_potential(x, y)[1].shape == (3, 15)
    assert "value=[" in repr(plans)
    assert Energy()(x, y).shape == (3, 20, 15)
    torch.testing.assert_close(Energy()(x, y)[1], Energy()(x[1], y[1]))
    assert Energy()(x[0, :, 0], y[0, :, 0]).shape == (20, 15)


def test_gradients_of_the_game_where_bins_are_empty():
    f = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=double, requires_grad=True)
    f_g = torch.tensor([0.25, 0.25, 0.5, 0.0], dtype=double, requires_grad=True)
    of_f, of_g = torch.autograd.grad(game_value(f, f_g), [f, f_g])
    assert torch.isfinite(of_f).all()
    assert torch.isfinite(of_g).all()
    real = torch.tensor([2 / 3, 2 / 3], dtype=double)
    torch.testing.assert_close(of_f[:2], real.log())  # the discriminator is at its optimum
    torch.testing.assert_close(of_g[:2], (1 - real).log())


@pytest.mark.parametrize("cost", [L2(), EarthMover(), EarthMover(p=2), Chamfer()], ids=repr)
def test_second_derivatives_of_costs_where_points_coincide(cost):
    y = torch.rand(2, 5, 3, dtype=double)
    x = y.clone()
    x[0] += 0.1
    x.requires_grad_()
    (slope,) = torch.autograd.grad(cost(x, y).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), x)
    assert torch.isfinite(second).all()


def test_warnings_point_at_the_line_of_the_caller():
    with pytest.warns(UserWarning, match="stopped after") as caught:
        sinkhorn(torch.randn(30, 2), torch.randn(30, 2) + 3, epsilon=0.01, max_iterations=1)
    assert caught[0].filename == __file__


# Points without mass, forbidden pairs, units


def test_points_without_mass_change_nothing_however_far():
    u, v = torch.arange(7.0), torch.arange(7.0) + 0.5
    a = torch.cat([torch.full((7,), 1 / 7), torch.zeros(1)])
    for far in (1e8, 1e30):
        padded = torch.cat([u, torch.tensor([far])])
        assert float(wasserstein_1d(padded, v, a)) == pytest.approx(0.5, rel=1e-5)
        points = padded[:, None], v[:, None]
        theta = torch.ones(1, 1)
        value = sliced_wasserstein(*points, a, directions=theta)
        assert float(value) == pytest.approx(0.5, rel=1e-5)
        assert float(wasserstein(*points, a)) == pytest.approx(0.5, rel=1e-5)
    x = torch.randn(4, 2, dtype=double)
    x[0] = 1e9
    plan = sinkhorn(x, torch.randn(3, 2, dtype=double), [0, 1 / 3, 1 / 3, 1 / 3], epsilon=0.1)
    assert plan.converged
    assert float(plan.plan[0].sum()) == 0


@pytest.mark.parametrize("size", [1e7, 1e8, 1e12])
def test_weighted_points_see_their_neighbours_beside_a_far_point(size):
    x, y = torch.randn(6, 2, dtype=double), torch.randn(6, 2, dtype=double)
    x[5] = y[5] = size
    best = float(wasserstein(x, y))
    assert float(wasserstein(x, y, torch.full((6,), 1 / 6))) == pytest.approx(best, rel=1e-9)
    cost = torch.rand(8, 8, dtype=double)
    free = cost.clone().fill_diagonal_(1e18)
    rows, columns = linear_sum_assignment(free)
    assert float(solve(free).value) == pytest.approx(float(free[rows, columns].mean()), rel=1e-9)


@pytest.mark.parametrize("unit", [1e-15, 1e-10, 1e10, 1e15])
def test_gromov_wasserstein_does_not_depend_on_the_unit(unit):
    x, y = torch.randn(6, 2), torch.randn(6, 3)
    cx, cy = -Energy()(x, x), -Energy()(y, y)
    expected = float(gromov_wasserstein(cx, cy).value)
    ours = float(gromov_wasserstein(unit * cx, unit * cy).value) / unit / unit
    assert ours == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("step", [1e-3, 1e-7, 1e-10])
def test_gaussians_that_are_nearly_equal(step):
    root = torch.randn(4, 4, dtype=double)
    cov, mean = root @ root.T + torch.eye(4, dtype=double), torch.zeros(4, dtype=double)
    value = gaussian_wasserstein(mean, cov, mean, cov * (1 + step) ** 2)
    assert float(value) == pytest.approx(step * float(cov.trace()) ** 0.5, rel=1e-4)


def test_the_hessian_of_an_exact_cost_where_points_coincide():
    x = torch.tensor([[0.0], [1.0]], dtype=double)
    hessian = torch.func.jacrev(torch.func.jacrev(lambda z: ExactWasserstein()(z, x)))(x)
    torch.testing.assert_close(hessian.reshape(2, 2), torch.eye(2, dtype=double))


def test_accounts_under_vmap_are_those_of_the_worst():
    x, y = torch.randn(3, 20, 2, dtype=double), torch.randn(20, 2, dtype=double)
    x[0] += 5
    seen = []

    def value(z):
        plan = sinkhorn(z, y, epsilon=0.05)
        seen.append((plan.marginal_error, plan.iterations))
        return plan.value

    torch.vmap(value)(x)
    plans = [sinkhorn(z, y, epsilon=0.05) for z in x]
    worst = max(p.marginal_error for p in plans), max(p.iterations for p in plans)
    assert seen == [worst]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: wasserstein(x[:, :0], x[:, :0]), "at least one coordinate"),
        (lambda x: wasserstein_1d(x[:, 0], x[:3].T, torch.ones(3, 4) / 4), "must broadcast"),
        (lambda x: quantile_map(torch.zeros(2, 4), torch.zeros(3, 5)), "must broadcast"),
        (
            lambda x: sliced_wasserstein(x, x, directions=np.zeros((2, 5))),
            "`directions` must have",
        ),
        (lambda x: sliced_gromov_wasserstein(x, x, directions=[[1.0]]), "`directions` must have"),
        (lambda x: sliced_wasserstein(x, x, directions=torch.eye(2) + 0j), "`directions` must"),
        (lambda x: jensen_shannon(x[:0, 0], x[:0, 0]), "`p` must hold at least one weight"),
        (lambda x: histogram_barycenter(x[:0], x.T @ x, epsilon=1.0), "`histograms` and `cost`"),
        (lambda x: wasserstein_circle(x[:, 0] + 1e9, x[:, 0]), "`u` has positions up to 1e.09"),
        (lambda x: Polynomial(3)(x), r"`x` must be points \(n, 3\)"),
        (lambda x: Bernoulli()(torch.rand(2, 2), torch.rand(2, 2) + 1), "`y` must lie in"),
        (lambda x: Chamfer()(torch.zeros(0, 5, 2), torch.zeros(0, 5, 2)), "`x` must be sets"),
        (lambda x: gromov_wasserstein(x.T @ x, x.T @ x, tolerance=-1), "`tolerance`"),
        (lambda x: wasserstein(np.ma.masked_array(np.ones((2, 2)), np.eye(2)), x), "`x` must be"),
    ],
)
def test_shapes_and_settings_that_do_not_fit_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.randn(4, 2))
