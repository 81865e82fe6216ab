"""Low-rank transport against cases whose optimum is known, dense gradients and POT."""

import math

import ot
import pytest
import torch

from monge.transport import LowRankPlan, low_rank_sinkhorn, wasserstein
from monge.transport.low_rank import LowRankProblem
from monge.transport.low_rank_descent import Factors, Logits, projected


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def clouds(n, m, d=3, dtype=torch.float64):
    random = seeded(n + m)
    x = torch.randn(n, d, generator=random, dtype=torch.float64)
    y = 1.3 * torch.randn(m, d, generator=random, dtype=torch.float64) + 0.5
    return x.to(dtype), y.to(dtype)


def weights(n, seed=1):
    w = torch.rand(n, generator=seeded(seed), dtype=torch.float64) + 0.1
    w[0] = 0
    return w / w.sum()


def fitted(x, y, *weights, rank, tolerance=1e-5, **options):
    return low_rank_sinkhorn(
        x, y, *weights, rank=rank, tolerance=tolerance, generator=seeded(), **options
    )


def test_rank_one_is_the_independent_plan():
    x, y = clouds(40, 30)
    a, b = weights(40), weights(30, 2)
    plan = fitted(x, y, a, b, rank=1)
    torch.testing.assert_close(plan.plan, a[:, None] * b, rtol=1e-4, atol=1e-12)
    expected = (a[:, None] * b * torch.cdist(x, y).square()).sum()
    torch.testing.assert_close(plan.value, expected, rtol=1e-5, atol=0)


def test_few_places_are_transported_exactly():
    """Between r places the optimal plan has rank r."""
    x = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    y = x + torch.tensor([1.0, 2.0], dtype=torch.float64)
    x, y = x.repeat(10, 1), y.repeat(20, 1)
    plan = fitted(x, y, rank=3, tolerance=1e-7)
    assert float(plan.value) == pytest.approx(5.0, rel=1e-6)
    assert plan.converged


def test_it_falls_from_the_independent_plan_to_the_exact_one():
    x, y = clouds(60, 50)
    values = [float(fitted(x, y, rank=rank, tolerance=1e-4).value) for rank in (1, 2, 5, 15, 50)]
    exact = float(wasserstein(x, y)) ** 2
    assert values == sorted(values, reverse=True)
    assert exact * (1 - 1e-6) <= values[-1] <= 1.35 * exact


def test_its_factors():
    x, y = clouds(40, 30)
    a, b = weights(40), weights(30, 2)
    plan = fitted(x, y, a, b, rank=6)
    torch.testing.assert_close(plan.q.sum(1), a)
    torch.testing.assert_close(plan.r.sum(1), b)
    for factor in (plan.q, plan.r):
        assert (factor >= 0).all()
        assert float((factor.sum(0) - plan.g).abs().sum()) <= 1e-5
    pi = plan.plan
    error = max((pi.sum(1) - a).abs().sum(), (pi.sum(0) - b).abs().sum())
    assert plan.marginal_error == pytest.approx(float(error), abs=1e-12)
    torch.testing.assert_close(plan.value, (pi * torch.cdist(x, y).square()).sum())
    torch.testing.assert_close(plan.apply(y), pi @ y)
    torch.testing.assert_close(plan.apply(y[:, 0]), pi @ y[:, 0])
    torch.testing.assert_close(plan.transposed().apply(x), pi.T @ x)
    assert plan.rank == 6
    assert repr(plan).startswith("LowRankPlan(value=")


def test_slopes_are_those_of_the_dense_objective():
    """Up to a constant in each row of Q and R, which a projection takes out."""
    x, y = clouds(9, 8)
    problem = LowRankProblem(x, y, weights(9), weights(8))
    random = seeded(3)
    factors = Factors(
        *(torch.rand(*s, generator=random, dtype=torch.float64) for s in ((9, 4), (8, 4), (4,)))
    )
    moved = Factors(*(z.clone().requires_grad_() for z in factors))
    cost = torch.cdist(x, y).square()
    value = (cost * ((moved.q / moved.g) @ moved.r.T)).sum()
    torch.testing.assert_close(problem.value(factors), value.detach())
    for ours, expected in zip(problem.slopes(factors), torch.autograd.grad(value, list(moved))):
        if ours.ndim == 2:
            # constants of rows differ by a multiple of the sums that are 1 where Rᵀ1 = g
            share = (factors.r if len(ours) == 9 else factors.q).sum(0) / factors.g
            squares = (x if len(ours) == 9 else y).square().sum(1)
            expected = expected - squares[:, None] * share
        torch.testing.assert_close(ours, expected)


def test_projections_are_the_nearest_factors():
    """The conditions of optimality: Q = Q̃ exp(α_i + β_k), R = R̃ exp(α'_j + β'_k) and
    g = g̃ exp(-β - β') up to a constant."""
    random = seeded(4)
    q, r, g = (
        torch.rand(*s, generator=random, dtype=torch.float64) + 0.1 for s in ((7, 3), (6, 3), (3,))
    )
    a, b = torch.full((7,), 1 / 7).double(), torch.full((6,), 1 / 6).double()
    logits = Logits(q.log(), r.log(), g.log())
    near, _ = projected(logits, a, b, torch.zeros(2, 3).double(), 1e-13)
    torch.testing.assert_close(near.q.sum(0), near.g)
    torch.testing.assert_close(near.r.sum(0), near.g)
    torch.testing.assert_close(near.q.sum(1), a)
    of_q, of_r = (near.q / q).log(), (near.r / r).log()
    for logs in (of_q, of_r):
        torch.testing.assert_close(logs - logs[:1] - logs[:, :1] + logs[0, 0], 0 * logs)
    total = (near.g / g).log() + of_q[0] + of_r[0]
    torch.testing.assert_close(total, total[:1].expand(3))


def test_gradient_by_finite_differences():
    """The plan is stationary, so its own change does not count."""
    x, y = clouds(5, 4, 2)

    def value(x, y):
        return fitted(x, y, rank=2, tolerance=1e-8).value

    x.requires_grad_()
    y.requires_grad_()
    assert torch.autograd.gradcheck(value, (x, y), eps=1e-3, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("rank", [3, 8])
def test_beside_pot(rank):
    """Both find stationary points; the best of three starts is no worse than POT's."""
    x, y = clouds(60, 50)
    q, r, g = ot.lowrank_sinkhorn(
        x, y, rank=rank, reg=0, gamma_init="rescale", warn=False, rescale_cost=True
    )
    theirs = float((((q / g) @ r.T) * torch.cdist(x, y).square()).sum())
    ours = [
        float(low_rank_sinkhorn(x, y, rank=rank, generator=seeded(seed)).value)
        for seed in range(3)
    ]
    assert min(ours) <= 1.001 * theirs


def test_edges():
    """Single points, samples that coincide, far points, half precision, more ranks than points."""
    one = torch.zeros(1, 3)
    assert fitted(one, one + 1, rank=5).value == pytest.approx(3)
    same = torch.zeros(50, 2)
    assert fitted(same, same + 2, rank=5).value == pytest.approx(8)
    x, y = clouds(60, 50, 3, torch.float32)
    near, far = (fitted(x + shift, y + shift, rank=4, tolerance=1e-3) for shift in (0, 1000.0))
    torch.testing.assert_close(far.value, near.value, rtol=1e-2, atol=0)
    half = fitted(x.half(), y.half(), rank=4, tolerance=1e-3)
    assert half.value.dtype == half.q.dtype == torch.float16
    assert fitted(x[:5], y[:4], rank=100, tolerance=1e-3).rank == 4
    itself = fitted(x, x, rank=60, tolerance=1e-2)
    assert float(itself.value) < 0.2 * float(fitted(x, x, rank=1, tolerance=1e-3).value)


@pytest.mark.parametrize("rank", [3, 40])
def test_points_without_mass_are_left_out(rank):
    x, y = clouds(60, 50)
    a = torch.where(torch.arange(60) < 30, weights(60), 0)
    a, far = a / a.sum(), torch.where(a[:, None] > 0, x, 1e6).requires_grad_()
    kept = a > 0
    plan, alone = fitted(far, y, a, rank=rank), fitted(x[kept], y, a[kept], rank=rank)
    if rank == 3:
        torch.testing.assert_close(plan.value, alone.value)
    else:  # more clusters than points
        assert plan.value <= 1.01 * alone.value
    assert not plan.q[~kept].any()
    torch.testing.assert_close(plan.plan.sum(1), a, rtol=0, atol=1e-5)
    plan.value.backward()
    assert far.grad is not None
    assert not far.grad[~kept].any()
    assert far.grad[kept].any()


def test_diracs_of_many_points():
    x, y = clouds(6, 5)
    a, b = torch.eye(6).double()[2], torch.eye(5).double()[4]
    plan = fitted(x, y, a, b, rank=3)
    torch.testing.assert_close(plan.value, (x[2] - y[4]).square().sum())
    torch.testing.assert_close(plan.plan, a[:, None] * b)


def test_batches():
    x, y = (torch.stack([z, z + 1]) for z in clouds(20, 15))
    plan = fitted(x, y, rank=3)
    assert isinstance(plan, LowRankPlan)
    assert plan.value.shape == (2,)
    assert plan.plan.shape == (2, 20, 15)


def test_it_says_that_it_has_not_converged():
    x, y = clouds(60, 50)
    with pytest.warns(UserWarning, match="low-rank transport stopped after 2 iterations"):
        plan = fitted(x, y, rank=10, max_iterations=2)
    assert not plan.converged


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": 2.5}, "rank"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"x": [[math.nan]]}, "x"),
        ({"y": torch.zeros(0, 1)}, "y"),
        ({"a": [0.5, 0.2, 0.1]}, "a"),
    ],
)
def test_bad_input(change, name):
    given = {"x": torch.zeros(3, 1), "y": torch.ones(2, 1), "rank": 2} | change
    with pytest.raises(ValueError, match=f"`{name}`"):
        low_rank_sinkhorn(**given)


@pytest.mark.parametrize("far", [15.0, 1e4])
def test_a_far_point_does_not_decide_on_all(far):
    x, y = clouds(200, 180, d=2)
    x[0] = far
    plan = low_rank_sinkhorn(x, y, rank=10, generator=seeded())
    assert plan.converged
    assert plan.marginal_error < 1e-3
    assert float(plan.value) > float(wasserstein(x, y)) ** 2 * (1 - 1e-3)


def test_one_far_point_among_points_that_coincide():
    x, y = torch.zeros(20, 1).double(), torch.linspace(0, 1, 20)[:, None].double()
    x[0] = 100.0
    plan = low_rank_sinkhorn(x, y, rank=5, generator=seeded())
    assert plan.converged
    assert (
        float(wasserstein(x, y)) ** 2 - 0.1 < float(plan.value) < torch.cdist(x, y).square().mean()
    )


def test_a_product_is_of_the_plan_also_in_batches():
    x, y = (torch.stack(z) for z in zip(clouds(30, 20), clouds(30, 20)))
    plan = low_rank_sinkhorn(x, 2 * y, rank=4, generator=seeded())
    torch.testing.assert_close(plan.apply(y), plan.plan @ y)
    with pytest.raises(ValueError, match=r"`v` must have shape \(2, 20, \*\)"):
        plan.apply(y[0])


def test_costs_that_overflow_are_refused():
    x, y = clouds(20, 20, dtype=torch.float32)
    with pytest.raises(ValueError, match="`x` and `y` have costs beyond float32"):
        low_rank_sinkhorn(1e20 * x, y, rank=2)
