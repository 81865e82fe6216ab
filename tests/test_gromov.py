"""Gromov-Wasserstein: the factorised objective, isometries, the line, POT and gradients."""

import functools
import itertools
import warnings

import numpy as np
import ot
import pytest
import torch

from monge.draws import generator
from monge.transport import (
    entropic_gromov_wasserstein,
    fused_gromov_wasserstein,
    gromov_wasserstein,
    partial_gromov_wasserstein,
    sliced_gromov_wasserstein,
    solve,
    solve_entropic,
    unbalanced_gromov_wasserstein,
)
from monge.transport.quadratic import Quadratic, objective


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def distances(x):
    return torch.cdist(x, x)


def by_loop(cx, cy, plan):
    """The definition, four sums deep."""
    n, m = plan.shape
    return sum(
        float((cx[i, k] - cy[j, l]) ** 2 * plan[i, j] * plan[k, l])
        for i in range(n)
        for j in range(m)
        for k in range(n)
        for l in range(m)
    )


def test_factorised_objective_equals_the_four_sums():
    cx, cy = distances(doubles(4, 2)), distances(doubles(3, 3))
    plan = torch.rand(4, 3).double()
    assert float(objective(cx, cy, plan)) == pytest.approx(by_loop(cx, cy, plan), rel=1e-10)


@pytest.mark.parametrize("n", [4, 6, 8])
def test_isometric_clouds_are_at_distance_zero(n):
    """Rotated, reflected and permuted: the best of several starts finds the true plan."""
    x = doubles(n, 3)
    rotation = torch.linalg.qr(doubles(3, 3)).Q
    order = torch.randperm(n)
    y = (x @ rotation.T + 2)[order]
    plan = gromov_wasserstein(distances(x), distances(y), starts=10)
    assert float(plan.value) == pytest.approx(0, abs=1e-9)
    assert plan.plan.argmax(0).tolist() == order.tolist()
    assert plan.converged
    assert plan.marginal_error < 1e-9


def test_value_is_at_most_pots_from_the_product_plan():
    for seed in range(5):
        torch.manual_seed(seed)
        cx, cy = distances(doubles(10, 2)), distances(doubles(8, 3))
        theirs = ot.gromov.gromov_wasserstein2(
            cx.numpy(), cy.numpy(), ot.unif(10), ot.unif(8), "square_loss"
        )
        ours = gromov_wasserstein(cx, cy)
        assert float(ours.value) <= float(theirs) * (1 + 1e-6)
        assert float(ours.value) == pytest.approx(float(objective(cx, cy, ours.plan)), rel=1e-9)


def test_on_the_line_it_is_at_most_the_better_monotone_matching():
    x, y = doubles(7, 1), doubles(7, 1)
    cx, cy = distances(x) ** 2, distances(y) ** 2
    order_x, order_y = x[:, 0].argsort(), y[:, 0].argsort()
    values = []
    for order in (order_y, order_y.flip(0)):
        plan = torch.zeros(7, 7).double()
        plan[order_x, order] = 1 / 7
        values.append(float(objective(cx, cy, plan)))
    assert float(sliced_gromov_wasserstein(x, y)) == pytest.approx(min(values), rel=1e-9)
    assert float(gromov_wasserstein(cx, cy, starts=10).value) <= min(values) * (1 + 1e-9)


@pytest.mark.parametrize("sizes", [(6, 6), (6, 4)])
def test_sliced_on_the_line_equals_the_four_sums(sizes):
    """For unequal sizes the monotone plan splits mass; it is the exact plan of the line."""
    x, y = (doubles(n, 1).sort(0).values for n in sizes)
    cx, cy = distances(x) ** 2, distances(y) ** 2
    up = solve((x - y.T).square()).plan
    down = solve((x + y.T).square()).plan
    expected = min(by_loop(cx, cy, up), by_loop(cx, cy, down))
    assert float(sliced_gromov_wasserstein(x, y)) == pytest.approx(expected, rel=1e-9)


def test_sliced_is_zero_for_a_reflected_line_and_pads_unlike_dimensions():
    x = doubles(9, 2)
    theta = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    assert abs(sliced_gromov_wasserstein(x, -x, directions=theta)) < 1e-9
    y = torch.nn.functional.pad(x, (0, 1))
    three = torch.nn.functional.pad(theta, (0, 1))
    assert abs(sliced_gromov_wasserstein(x, y, directions=three)) < 1e-9
    value = sliced_gromov_wasserstein(x, 2 * y, generator=generator(0))
    assert value > 0.1


def test_entropic_equals_pot():
    cx, cy = distances(doubles(7, 2)), distances(doubles(5, 2))
    plan = entropic_gromov_wasserstein(cx, cy, epsilon=0.5, tolerance=1e-10)
    theirs = ot.gromov.entropic_gromov_wasserstein(
        cx.numpy(),
        cy.numpy(),
        ot.unif(7),
        ot.unif(5),
        "square_loss",
        epsilon=0.5,
        tol=1e-12,
        max_iter=1000,
    )
    np.testing.assert_allclose(plan.plan.numpy(), theirs, atol=1e-6)
    assert plan.converged
    torch.testing.assert_close(plan.value_linear, objective(cx, cy, plan.plan))


def test_gradients_equal_finite_differences():
    """At the plan found; distances move through the points behind them."""
    x, y = doubles(5, 2).requires_grad_(), doubles(4, 2).requires_grad_()

    def value(x, y):
        gaps_x, gaps_y = (z[:, None] - z for z in (x, y))
        return gromov_wasserstein(gaps_x.square().sum(-1), gaps_y.square().sum(-1)).value

    assert torch.autograd.gradcheck(value, (x, y), atol=1e-5, rtol=1e-4)
    theta = doubles(4, 2)
    assert torch.autograd.gradcheck(
        lambda x, y: sliced_gromov_wasserstein(x, y, directions=theta), (x, y), atol=1e-6
    )


def test_four_starts_find_the_best_permutation_of_planar_clouds():
    """In 9 of 10 problems, by all 720 permutations; sixteen starts find it in all."""
    orders = torch.tensor(list(itertools.permutations(range(6))))
    four, sixteen = [], []
    for seed in range(30):
        x, y = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(seed)).double()
        cx, cy = distances(x), distances(y)
        moved = cy[orders[:, :, None], orders[:, None, :]]
        best = float((cx - moved).square().sum((1, 2)).min()) / 36
        for starts, gaps in ((4, four), (16, sixteen)):
            value = float(gromov_wasserstein(cx, cy, starts=starts).value)
            assert value >= best * (1 - 1e-9)
            gaps.append(value / best - 1)
    assert sum(gap < 1e-9 for gap in four) >= 27
    assert max(four) < 0.2
    assert max(sixteen) < 1e-9


def test_no_exchange_of_two_images_improves_a_permutation():
    cx, cy = distances(doubles(12, 2)), distances(doubles(12, 3))
    plan = gromov_wasserstein(cx, cy, starts=1).plan
    value = objective(cx, cy, plan)
    assert torch.allclose(plan.amax(1), torch.full((12,), 1 / 12).double())
    for i, k in itertools.combinations(range(12), 2):
        other = plan.clone()
        other[[i, k]] = plan[[k, i]]
        assert objective(cx, cy, other) >= value * (1 - 1e-9)


def weights_of(logits):
    return logits.softmax(0)


def test_entropic_gradients_equal_finite_differences():
    """In both costs and both weights, at tight tolerance."""
    inputs = [doubles(5, 2), doubles(4, 2), doubles(5), doubles(4)]

    def value(x, y, a, b):
        cx, cy = ((z[:, None] - z).square().sum(-1) for z in (x, y))
        return entropic_gromov_wasserstein(
            cx, cy, weights_of(a), weights_of(b), epsilon=3.0, tolerance=1e-11, max_iterations=2000
        ).value

    inputs = [z.requires_grad_() for z in inputs]
    assert torch.autograd.gradcheck(value, inputs, atol=1e-5, rtol=1e-4)


def test_gradients_in_weights_equal_finite_differences():
    x, y = doubles(5, 2), doubles(4, 2)
    cx, cy = distances(x), distances(y)

    def value(a, b):
        return gromov_wasserstein(cx, cy, weights_of(a), weights_of(b)).value

    inputs = [doubles(n).requires_grad_() for n in (5, 4)]
    assert torch.autograd.gradcheck(value, inputs, atol=1e-5, rtol=1e-4)
    (slope,) = torch.autograd.grad(value(*inputs), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        slope.square().sum().backward()


def test_results_that_did_not_converge_warn():
    cx, cy = distances(doubles(12, 2)), distances(doubles(9, 2))
    with pytest.warns(UserWarning, match="stopped after 1 iterations"):
        plan = gromov_wasserstein(cx, cy, starts=1, max_iterations=1)
    assert not plan.converged
    with pytest.warns(UserWarning, match="stopped after 2 iterations"):
        plan = entropic_gromov_wasserstein(cx, cy, epsilon=0.3, max_iterations=2)
    assert not plan.converged
    errors = (plan.plan.sum(1) - 1 / 12).abs().sum(), (plan.plan.sum(0) - 1 / 9).abs().sum()
    assert plan.marginal_error == pytest.approx(float(max(errors)), abs=1e-12)


def test_it_converges_in_float32():
    cx, cy = distances(torch.randn(30, 2)), distances(torch.randn(20, 3))
    assert gromov_wasserstein(cx, cy).converged
    assert entropic_gromov_wasserstein(cx, cy, epsilon=2.0).converged


@pytest.mark.parametrize(
    ("cost", "word"),
    [
        (torch.zeros(3, 4), "square"),
        (torch.full((2, 2), float("nan")), "finite"),
        (torch.zeros(2, 2) * 1j, "real numbers"),
    ],
)
def test_bad_costs_are_named(cost, word):
    with pytest.raises(ValueError, match=f"`cx`.*{word}"):
        gromov_wasserstein(cost, torch.zeros(3, 3))


# Directed graphs


def directed(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, n, generator=generator, dtype=torch.float64).fill_diagonal_(0)


def slope_of(cx, cy, plan):
    return Quadratic(cx, cy, torch.zeros_like(plan)).slope(plan)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_permutation_of_directed_graphs(seed):
    cx, cy = directed(5, seed), directed(5, seed + 50)
    best = min(
        float((cx - cy[list(order)][:, list(order)]).square().mean())
        for order in itertools.permutations(range(5))
    )
    value = float(gromov_wasserstein(cx, cy, starts=32).value)
    assert value <= best + 1e-9


def test_the_objective_of_directed_graphs_is_the_double_sum():
    cx, cy, w = directed(4, 0), directed(3, 1), torch.rand(4, 3, dtype=torch.float64)
    squares = (cx[:, None, :, None] - cy[None, :, None, :]).square()
    expected = (squares * w[:, :, None, None] * w).sum()
    torch.testing.assert_close(objective(cx, cy, w), expected)
    w.requires_grad_()
    (slope,) = torch.autograd.grad(objective(cx, cy, w), w)
    torch.testing.assert_close(slope_of(cx, cy, w.detach()), slope)


@pytest.mark.parametrize("entropic", [False, True])
def test_a_graph_is_found_again_among_its_permutations(entropic):
    """Reversing all edges is no isometry of a directed graph."""
    cx, order = directed(6, 3), torch.randperm(6, generator=torch.Generator().manual_seed(1))
    cy = cx[order][:, order]
    if not entropic:
        plan = gromov_wasserstein(cx, cy, starts=8)
        assert float(plan.value) < 1e-12
        assert torch.equal(plan.plan.argmax(0), order)
        assert float(gromov_wasserstein(cx, cy.T, starts=8).value) > 1e-3
        return
    plan = entropic_gromov_wasserstein(cx, cy, epsilon=0.1, max_iterations=2000, tolerance=1e-9)
    slope = slope_of(cx, cy, plan.plan)
    again = solve_entropic(slope, epsilon=0.1, tolerance=1e-9).plan
    torch.testing.assert_close(again, plan.plan, rtol=1e-5, atol=1e-8)


def test_pot_agrees_on_directed_graphs():
    cx, cy = directed(7, 5), directed(6, 6)
    a, b = (torch.full((n,), 1 / n).double().numpy() for n in (7, 6))
    theirs = functools.partial(
        ot.gromov.gromov_wasserstein2, cx.numpy(), cy.numpy(), a, b, symmetric=False
    )
    ours = gromov_wasserstein(cx, cy, starts=16)
    assert float(ours.value) <= theirs() + 1e-9
    # a stationary point to both
    assert theirs(G0=ours.plan.numpy()) == pytest.approx(float(ours.value), rel=1e-5)


def test_derivatives_in_directed_graphs():
    cx, cy = (z.requires_grad_() for z in (directed(4, 0), directed(4, 1)))
    value = gromov_wasserstein(cx, cy).value
    plan = gromov_wasserstein(cx, cy).plan.detach()
    slopes = torch.autograd.grad(value, (cx, cy))
    expected = torch.autograd.grad(objective(cx, cy, plan), (cx, cy))
    for slope, other in zip(slopes, expected):
        torch.testing.assert_close(slope, other)


@pytest.mark.parametrize("size", [1.0, 0.1, 3.7e5])
@pytest.mark.parametrize("m", [6, 7, 11])
def test_constant_matrices_leave_the_product_plan(size, m):
    """Their slope is rounding alone, which is no cost."""
    cx, cy = (torch.full((k, k), size, dtype=torch.float64) for k in (6, m))
    plan = entropic_gromov_wasserstein(cx, cy, epsilon=0.3 * size**2)
    torch.testing.assert_close(plan.plan, torch.full((6, m), 1 / 6 / m).double())
    assert float(plan.value) == pytest.approx(0, abs=1e-13 * size**2)


def test_a_large_epsilon_multiplies_no_rounding():
    """The value tends to that of the product plan, in float32 as in float64."""
    x, y = torch.rand(6, 2, dtype=torch.float64), torch.rand(7, 2, dtype=torch.float64)
    cx, cy = torch.cdist(x, x), torch.cdist(y, y)
    product = torch.full((6, 7), 1 / 42, dtype=torch.float64)
    limit = objective(cx, cy, product).item()
    for epsilon in (1e4, 1e6, 1e8):
        found = entropic_gromov_wasserstein(cx.float(), cy.float(), epsilon=epsilon).value.item()
        assert found == pytest.approx(limit, rel=1e-3)
    for tiny in (1e-170, 1e-10):
        with pytest.raises(ValueError, match=r"`epsilon` 0\.3 is over 10⁹ times costs of"):
            entropic_gromov_wasserstein(cx * tiny, cy * tiny, epsilon=0.3)
        with pytest.raises(ValueError, match=r"`epsilon` 0\.3 is over 10⁹ times costs of"):
            unbalanced_gromov_wasserstein(cx * tiny, cy * tiny, epsilon=0.3, reach=1.0)


WITHOUT_MASS = {
    "exact": gromov_wasserstein,
    "entropic": functools.partial(entropic_gromov_wasserstein, epsilon=0.5),
    "unbalanced": functools.partial(unbalanced_gromov_wasserstein, epsilon=0.5, reach=1.0),
    "partial": functools.partial(
        partial_gromov_wasserstein, mass=0.7, starts=3, max_iterations=20
    ),
    "fused": lambda cx, cy, *w: fused_gromov_wasserstein(cx[:, :6] + cy[:1], cx, cy, *w),
}


@pytest.mark.parametrize("far", [1.0, 1e3, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", WITHOUT_MASS)
def test_points_without_mass_count_for_nothing(name, dtype, far):
    """They ended the search among permutations, and a far one made ε vanish beside its costs and
    distances symmetric that are not."""
    found = WITHOUT_MASS[name]
    cx, cy = torch.rand(6, 6, dtype=dtype), torch.rand(6, 6, dtype=dtype)
    a = torch.full((6,), 1 / 6, dtype=dtype)
    padded = torch.nn.functional.pad(cx, (0, 1, 0, 1), value=far)
    wide = torch.cat([a, a.new_zeros(1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # directed graphs need not converge
        alone, beside = found(cx, cy, a, a), found(padded, cy, wide, a)
    exact = name not in ("entropic", "unbalanced")
    rel = 1e-4 if not exact else 100 * torch.finfo(dtype).eps
    assert float(beside.value) == pytest.approx(float(alone.value), rel=rel)
    assert not beside.plan[-1].any()


def test_a_point_without_mass_that_is_beyond_the_dtype_is_named():
    cx, a = torch.rand(4, 4), torch.tensor([1 / 3, 1 / 3, 1 / 3, 0])
    cx[3] = 1e30
    with pytest.raises(ValueError, match="`cx` has an entry at a point without mass"):
        gromov_wasserstein(cx, cx[:3, :3], a)


def test_the_gradient_in_a_weight_of_zero_is_that_of_the_linearised_problem():
    cx, cy = distances(doubles(6, 2)), distances(doubles(5, 2))
    a = torch.tensor([0.2] * 5 + [0.0], dtype=torch.float64, requires_grad=True)
    plan = gromov_wasserstein(cx, cy, a)
    (slope,) = torch.autograd.grad(plan.value, a)
    rows = (cx.square() @ plan.plan.sum(1))[:, None] + cy.square() @ plan.plan.sum(0)
    cost = 2 * (rows - 2 * cx @ plan.plan @ cy)
    f = solve(cost, a.detach(), torch.full((5,), 0.2, dtype=torch.float64)).potentials[0]
    torch.testing.assert_close(slope - slope[0], f - f[0])
