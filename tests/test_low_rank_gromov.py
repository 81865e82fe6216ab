"""Low-rank Gromov-Wasserstein against all permutations, dense gradients, known optima and POT."""

import itertools
import math
import warnings
from dataclasses import replace

import ot
import pytest
import torch

from monge.transport import LowRankPlan, gromov_wasserstein, low_rank_gromov_wasserstein
from monge.transport.low_rank_descent import Factors
from monge.transport.low_rank_gromov import LowRankGromov, _within
from monge.transport.quadratic import objective

double = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def clouds(n, m, d=3, e=2, seed=0):
    random = seeded(seed)
    x = torch.randn(n, d, generator=random, dtype=double)
    return x, 1.3 * torch.randn(m, e, generator=random, dtype=double) + 0.5


def weights(n, seed=1):
    w = torch.rand(n, generator=seeded(seed), dtype=double) + 0.1
    w[0] = 0
    return w / w.sum()


def squares(x):
    return torch.cdist(x, x).square()


def fitted(x, y, *weights, rank, tolerance=1e-4, **options):
    return low_rank_gromov_wasserstein(
        x, y, *weights, rank=rank, tolerance=tolerance, generator=seeded(), **options
    )


def moved(x, seed=0):
    """An isometric copy in one more dimension."""
    wide = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
    turn = torch.linalg.qr(torch.randn(*[wide.shape[1]] * 2, generator=seeded(seed)).double()).Q
    return wide @ turn + 3


def test_rank_one_is_the_independent_plan():
    x, y = clouds(40, 30)
    a, b = weights(40), weights(30, 2)
    plan = fitted(x, y, a, b, rank=1, tolerance=1e-8)
    torch.testing.assert_close(plan.plan, a[:, None] * b, rtol=1e-5, atol=1e-12)
    expected = objective(squares(x), squares(y), a[:, None] * b)
    torch.testing.assert_close(plan.value, expected, rtol=1e-6, atol=0)


def test_its_account_is_that_of_the_dense_plan():
    x, y = clouds(40, 30)
    a, b = weights(40), weights(30, 2)
    plan = fitted(x, y, a, b, rank=5, starts=2)
    assert isinstance(plan, LowRankPlan)
    assert plan.converged
    torch.testing.assert_close(plan.value, objective(squares(x), squares(y), plan.plan))
    torch.testing.assert_close(plan.q.sum(1), a)
    torch.testing.assert_close(plan.r.sum(1), b)
    pi = plan.plan
    error = max((pi.sum(1) - a).abs().sum(), (pi.sum(0) - b).abs().sum())
    assert plan.marginal_error == pytest.approx(float(error), abs=1e-12)
    torch.testing.assert_close(plan.apply(y), pi @ y)
    assert (pi[0] == 0).all()


def test_slopes_are_those_of_the_dense_objective():
    x, y = clouds(9, 8)
    a, b, random = weights(9), weights(8), seeded(3)
    q, r, g = (torch.rand(*s, generator=random, dtype=double) for s in ((9, 4), (8, 4), (4,)))
    leaves = [z.clone().requires_grad_() for z in (q, r, g)]
    plan = (leaves[0] / leaves[2]) @ leaves[1].T
    fixed = _within(x, a) + _within(y, b)
    for z, w in ((x, a), (y, b)):
        torch.testing.assert_close(_within(z, w), (squares(z).square() @ w) @ w)
    value = fixed - 2 * ((squares(x) @ plan @ squares(y)) * plan).sum()
    problem, factors = LowRankGromov(x, y, a, b, fixed), Factors(q, r, g)
    torch.testing.assert_close(problem.value(factors), value.detach())
    for ours, expected in zip(problem.slopes(factors), torch.autograd.grad(value, leaves)):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_never_below_the_best_permutation(seed):
    """With squared Euclidean distances the objective is concave over couplings, so that a
    permutation attains its minimum."""
    x, y = clouds(6, 6, seed=seed)
    cx, cy = squares(x), squares(y)
    orders = torch.tensor(list(itertools.permutations(range(6))))
    best = float((cx - cy[orders[:, :, None], orders[:, None]]).square().mean((1, 2)).min())
    values = [float(fitted(x, y, rank=rank, starts=4).value) for rank in (1, 2, 6)]
    assert min(values) >= best * (1 - 1e-3)
    assert values[0] > values[1] > values[2]
    assert values[2] <= 1.1 * best


@pytest.mark.parametrize("shares", [(10, 10, 10, 10), (5, 20, 11, 4)])
def test_few_places_are_matched_exactly(shares):
    """Between r places and an isometric copy the optimal plan has rank r."""
    places = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 3.0], [1.0, 7.0]], dtype=double)
    x = places.repeat_interleave(torch.tensor(shares), 0)
    y = moved(x)[torch.randperm(len(x), generator=seeded())]
    plan = fitted(x, y, rank=4, tolerance=1e-7)
    independent = float(fitted(x, y, rank=1).value)
    assert -1e-9 * independent <= float(plan.value) <= 1e-5 * independent
    assert plan.converged


def test_it_falls_with_the_rank_towards_the_dense_one():
    x, y = clouds(60, 50)
    values = [float(fitted(x, y, rank=rank).value) for rank in (1, 2, 8)]
    assert values == sorted(values, reverse=True)
    dense = float(gromov_wasserstein(squares(x), squares(y)).value)
    assert dense < values[-1] < values[0] / 2


@pytest.mark.parametrize("sizes", [(30, 25, 10), (40, 40, 6), (60, 50, 3)])
def test_beside_pot(sizes):
    """Both find stationary points; the best of some starts is no worse than POT's."""
    n, m, rank = sizes
    x, y = clouds(n, m)
    q, r, g = ot.gromov.lowrank_gromov_wasserstein_samples(
        x.numpy(), y.numpy(), rank=rank, warn=False
    )
    theirs = float(objective(squares(x), squares(y), torch.from_numpy((q / g) @ r.T)))
    assert float(fitted(x, y, rank=rank).value) <= 1.001 * theirs


def test_gradient_by_finite_differences():
    """The plan is stationary, so its own change does not count."""
    x, y = clouds(5, 4, 2)
    start = fitted(x, y, rank=2, tolerance=1e-9)

    def value(x, y):
        return fitted(x, y, rank=2, tolerance=1e-9, starts=start).value

    x.requires_grad_()
    y.requires_grad_()
    assert torch.autograd.gradcheck(value, (x, y), eps=1e-4, atol=1e-3, rtol=1e-3)


def test_isometries_and_units_change_nothing():
    x, y = clouds(30, 20)
    value = float(fitted(x, y, rank=4).value)
    assert float(fitted(moved(x), moved(y, 1), rank=4).value) == pytest.approx(value, rel=1e-6)
    for size in (1e-30, 1e-8, 1e8, 1e30):
        assert float(fitted(size * x, size * y, rank=4).value) / size**4 == pytest.approx(
            value, rel=1e-6
        )
    far, near = (x + 1e4).float(), (y - 1e4).float()
    plan = fitted(far, near, rank=4)
    expected = objective(squares(far.double()), squares(near.double()), plan.plan.double())
    torch.testing.assert_close(plan.value.double(), expected, rtol=1e-5, atol=0)


def test_more_starts_are_never_worse_and_plans_are_starts():
    x, y = clouds(30, 30)
    values = [float(fitted(x, y, rank=5, starts=starts).value) for starts in (1, 2, 4)]
    assert values == sorted(values, reverse=True)
    one, best = (fitted(x, y, rank=5, starts=starts) for starts in (1, 4))
    again = fitted(x, y, rank=5, starts=best)
    assert float(again.value) <= float(best.value) * (1 + 1e-4)
    assert again.iterations < best.iterations
    both = fitted(x, y, rank=5, starts=[one, best])
    torch.testing.assert_close(both.value, again.value)


def test_precision_batches_and_small_samples():
    x, y = clouds(30, 20)
    single = fitted(x.float(), y.float(), rank=4)
    assert single.value.dtype == single.q.dtype == torch.float32
    expected = objective(squares(x), squares(y), single.plan.double())
    torch.testing.assert_close(single.value.double(), expected, rtol=1e-4, atol=0)
    assert fitted(x.half(), y.half(), rank=4, tolerance=1e-3).q.dtype == torch.float16
    batch = fitted(torch.stack([x, x]), y, rank=3)
    assert batch.value.shape == (2,)
    assert batch.plan.shape == (2, 30, 20)
    one = torch.ones(1, 3, dtype=double)
    assert float(fitted(one, y, rank=5).value) == pytest.approx(float(squares(y).square().mean()))
    assert float(fitted(one, one, rank=2).value) == 0
    assert fitted(x[:5], y[:4], rank=100, tolerance=1e-3).rank == 4


def test_what_did_not_converge_warns():
    x, y = clouds(60, 50)
    with pytest.warns(UserWarning, match="low-rank transport stopped after 2 iterations"):
        plan = fitted(x, y, rank=10, max_iterations=2)
    assert not plan.converged


def test_points_without_mass_are_left_out():
    x, y = clouds(60, 50)
    a = torch.where(torch.arange(60) % 3 > 0, 1 / 40, 0.0).double()
    far, kept = torch.where(a[:, None] > 0, x, 1e6), a > 0
    plan, alone = fitted(far, y, a, rank=3), fitted(x[kept], y, a[kept], rank=3)
    torch.testing.assert_close(plan.value, alone.value)
    assert not plan.q[~kept].any()
    again = fitted(far, y, a, rank=3, starts=plan)
    torch.testing.assert_close(again.value, plan.value, rtol=1e-4, atol=0)
    stray = replace(plan, q=torch.where(kept[:, None], plan.q, plan.q.mean()))
    with pytest.raises(ValueError, match="`starts` must be plans of the weights"):
        fitted(far, y, a, rank=3, starts=stray)


def of_rank(rank, n=3, m=2):
    q, r, g = torch.full((n, rank), 1 / n / rank), torch.full((m, rank), 1 / m / rank), 1 / rank
    return LowRankPlan(torch.zeros(()), q, r, torch.full((rank,), g), 0.0, 1, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 0}, "`rank`"),
        ({"rank": 2.5}, "`rank`"),
        ({"tolerance": 0.0}, "`tolerance`"),
        ({"max_iterations": 0}, "`max_iterations`"),
        ({"x": [[math.nan]]}, "`x` must be finite"),
        ({"y": torch.zeros(0, 1)}, "`y` must be points"),
        ({"y": torch.zeros(3, 0)}, "`y` must be points"),
        ({"a": [0.5, 0.2, 0.1]}, "`a`"),
        ({"starts": 0}, "`starts`"),
        ({"starts": []}, "`starts` must be a number or hold at least one plan"),
        ({"starts": of_rank(1)}, r"`starts` must be .* shapes \[\(3, 2\)"),
        ({"starts": of_rank(2, n=4)}, r"`starts` must be .* shapes \[\(3, 2\)"),
        ({"starts": of_rank(2), "a": [0.5, 0.3, 0.2]}, "`starts` must be plans of the weights"),
    ],
)
def test_bad_input_is_named(change, words):
    given = {"x": torch.zeros(3, 1), "y": torch.ones(2, 1), "rank": 2} | change
    with pytest.raises(ValueError, match=words):
        low_rank_gromov_wasserstein(**given)


@pytest.mark.parametrize("starts", [[1], torch.ones(20, 15), 1.5, 0, "two"])
def test_starts_that_are_no_plans_are_named(starts):
    x, y = torch.randn(9, 2, generator=seeded(0)), torch.randn(8, 2, generator=seeded(1))
    with pytest.raises(ValueError, match=r"^`starts` must be [^\n]*$"):
        low_rank_gromov_wasserstein(x, y, rank=2, starts=starts)


def test_a_tolerance_below_rounding_ends_at_rounding():
    x, y = (torch.randn(n, 2, generator=seeded(n), dtype=torch.float64) for n in (20, 15))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether rounding meets it is left to chance
        found = low_rank_gromov_wasserstein(
            x, y, rank=3, tolerance=1e-17, starts=1, max_iterations=100
        )
    assert found.marginal_error < 1e-14


@pytest.mark.parametrize("seed", [28, 112, 170, 222, 296])
def test_clusters_that_empty_keep_the_marginals(seed):
    """A cluster of mass 1e-5 may have a g that is far smaller, at which Q diag(1/g) Rᵀ has
    another mass: of tied points with tiny weights in float32."""
    random = seeded(seed)
    x, y = (torch.randn(k, 2, generator=random).round() for k in (8, 9))
    a, b = (torch.rand(k, generator=random) ** p for k, p in ((8, 40), (9, 8)))
    a, b = a / a.sum(), b / b.sum()
    plan = low_rank_gromov_wasserstein(x, y, a, b, rank=8, starts=2, generator=random)
    assert plan.converged
    assert (plan.plan.sum(1) - a).abs().sum() < 1e-3
    assert (plan.plan.sum(0) - b).abs().sum() < 1e-3
    wide = [z.double() for z in (x, y)]
    expected = objective(*map(squares, wide), plan.plan.double())
    torch.testing.assert_close(plan.value.double(), expected, rtol=1e-3, atol=1e-5)


def test_points_that_coincide_keep_the_marginals():
    """Newton's steps between two sides of a minimum must not go back and forth: where clusters are
    of points that coincide, the dual is linear for long in some directions."""
    random = seeded(2327)
    n, m, d, e = torch.cat([torch.randint(1, k, (1,), generator=random) for k in (13, 13, 4, 4)])
    x, y = (torch.randn(n, d, generator=random, dtype=double) for n, d in ((n, d), (m, e)))
    x, y = (z[torch.randint(len(z) // 3, (len(z),), generator=random)].float() for z in (x, y))
    a, b = (torch.rand(len(z), generator=random, dtype=double) ** 8 for z in (x, y))
    a, b = (a / a.sum()).float(), (b / b.sum()).float()
    rank = int(torch.randint(1, 13, (1,), generator=random))
    plan = low_rank_gromov_wasserstein(x, y, a, b, rank=rank, starts=2, generator=random)
    assert plan.converged
    assert (plan.plan.sum(1) - a).abs().sum() < 1e-3
    assert (plan.plan.sum(0) - b).abs().sum() < 1e-3
