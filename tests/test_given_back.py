"""A plan in any precision is a start of the function that returned it, and says what its error is
of."""

import pytest
import torch
from zoo import seeded

from monge import transport

N, M = 8, 11
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def problem(dtype, weighted):
    random = seeded(3)
    x, y = torch.rand(N, 2, generator=random), torch.rand(M, 2, generator=random)
    cost, cx, cy = (torch.cdist(p, q).to(dtype) for p, q in ((x, y), (x, x), (y, y)))
    weights = [torch.rand(k, generator=random) + 0.2 for k in (N, M)] if weighted else None
    a, b = [(w / w.sum()).to(dtype) for w in weights] if weights else (None, None)
    return cost, cx, cy, a, b


SOLVERS = {
    "gromov": lambda c, cx, cy, a, b, **more: transport.gromov_wasserstein(cx, cy, a, b, **more),
    "entropic": lambda c, cx, cy, a, b, **more: transport.entropic_gromov_wasserstein(
        cx, cy, a, b, epsilon=0.02, **more
    ),
    "fused": lambda c, cx, cy, a, b, **more: transport.fused_gromov_wasserstein(
        c, cx, cy, a, b, **more
    ),
    "entropic fused": lambda c, cx, cy, a, b, **more: transport.entropic_fused_gromov_wasserstein(
        c, cx, cy, a, b, epsilon=0.02, **more
    ),
    "partial": lambda c, cx, cy, a, b, **more: transport.partial_gromov_wasserstein(
        cx, cy, a, b, mass=0.7, **more
    ),
    "unbalanced": lambda c, cx, cy, a, b, **more: transport.unbalanced_gromov_wasserstein(
        cx, cy, a, b, epsilon=0.02, reach=1.0, **more
    ),
}


def rounding(dtype, n=N, m=M):
    """Half a unit in the last place of a mass of 1, and of each entry below normal numbers."""
    limits = torch.finfo(dtype)
    return limits.eps / 2 + n * m * limits.smallest_normal * limits.eps / 2


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_plan_is_a_start_of_its_own_solver(solver, dtype, weighted):
    given = problem(dtype, weighted)
    first = SOLVERS[solver](*given, starts=2)
    again = SOLVERS[solver](*given, starts=first.plan)
    assert first.plan.dtype == again.plan.dtype == dtype
    # of the plan that was mended, not of the one given, and in half precision of its rounding
    assert again.marginal_error < 2e-6 + (rounding(dtype) if dtype.itemsize < 4 else 0)
    close = max(1e-5, torch.finfo(dtype).eps)
    assert float(again.value) == pytest.approx(float(first.value), rel=close, abs=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_low_rank_plan_is_a_start(dtype):
    x, y = torch.randn(60, 2, generator=seeded(0)), torch.randn(40, 3, generator=seeded(1))
    x, y = x.to(dtype), y.to(dtype)
    first = transport.low_rank_gromov_wasserstein(x, y, rank=3, starts=1, generator=seeded(2))
    again = transport.low_rank_gromov_wasserstein(x, y, rank=3, starts=first)
    assert again.converged
    close = max(1e-3, torch.finfo(dtype).eps)
    assert float(again.value) == pytest.approx(float(first.value), rel=close)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_plan_of_other_weights_is_no_start_in_any_precision(dtype):
    _, cx, cy, *_ = problem(dtype, False)
    off = torch.full((N, M), 1 / (N * M), dtype=torch.float64)
    off[0] *= 1.2
    with pytest.raises(ValueError, match="plans of the weights"):
        transport.gromov_wasserstein(cx, cy, starts=(off / off.sum()).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [20, 1000])
@pytest.mark.parametrize("solver", ["exact", "entropic", "points", "batch", "partial"])
def test_the_error_of_a_plan_is_at_least_what_it_shows(solver, n, dtype):
    x, y = torch.rand(2, n, 2, generator=seeded(0))
    cost, mass = torch.cdist(x, y).to(dtype), 0.7 if solver == "partial" else 1.0
    x, y = x.to(dtype), y.to(dtype)
    found = {
        "exact": lambda: transport.solve(cost),
        "entropic": lambda: transport.solve_entropic(cost, epsilon=0.1),
        "points": lambda: transport.sinkhorn(x, y, epsilon=0.1),
        "batch": lambda: transport.sinkhorn(x.expand(2, n, 2), y, epsilon=0.1),
        "partial": lambda: transport.solve_partial(cost, mass=mass),
    }[solver]()
    plan = found.plan.double()
    errors = [float((plan.sum(axis) - 1 / n).clamp_min(0).sum(-1).max()) for axis in (-2, -1)]
    if solver != "partial":
        errors = [float((plan.sum(axis) - 1 / n).abs().sum(-1).max()) for axis in (-2, -1)]
    missed = float((plan.sum((-2, -1)) - mass).abs().max())
    assert found.plan.dtype == dtype
    assert max(*errors, missed) <= found.marginal_error * (1 + 1e-3) + 1e-6
    assert found.marginal_error < 2e-4 + 2 * (rounding(dtype, n, n) if dtype.itemsize < 4 else 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_of_low_rank_factors_is_theirs(dtype):
    """No smaller than what the returned factors show, whatever the solver worked in."""
    random = seeded(0)
    x, y = torch.randn(2, 60, 3, generator=random).to(dtype)
    found = transport.low_rank_sinkhorn(x, y, rank=5, generator=seeded(1))
    q, r, g = (z.double() for z in (found.q, found.r, found.g))
    plan = (q / g) @ r.T
    errors = [float((plan.sum(axis) - 1 / 60).abs().sum()) for axis in (0, 1)]
    assert found.q.dtype == dtype
    assert max(errors) <= found.marginal_error * (1 + 1e-3) + 1e-7
    assert found.marginal_error < 2e-3 + 2 * torch.finfo(dtype).eps
    # products are those of the factors, rounded once
    rounding = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.plan.double(), plan, rtol=rounding, atol=1e-7)
    moved = found.apply(y).double()
    torch.testing.assert_close(moved, plan @ y.double(), rtol=rounding, atol=rounding / 60)
