"""Solvers that solve a problem in each of their iterations: all of them together are limited."""

import re

import pytest
import torch
from zoo import seeded

from monge import transport
from monge.transport import linearised

SOLVERS = {
    "gromov": lambda c, cx, cy, **more: transport.entropic_gromov_wasserstein(cx, cy, **more),
    "fused": lambda c, cx, cy, **more: transport.entropic_fused_gromov_wasserstein(
        c, cx, cy, **more
    ),
    "unbalanced": lambda c, cx, cy, **more: transport.unbalanced_gromov_wasserstein(
        cx, cy, reach=1.0, **more
    ),
}


def problem(n):
    x, y = torch.rand(2, n, 2, generator=seeded(0)).double()
    return torch.cdist(x, y), torch.cdist(x, x), torch.cdist(y, y)


@pytest.fixture
def spent(monkeypatch):
    """The iterations of Sinkhorn of each inner problem."""
    counts = []
    solve, solve_penalised = linearised.solve_minima, linearised.solve_penalised

    def minima(*given):
        found = solve(*given)
        counts.append(found[0].iterations)
        return found

    def penalised(*given):
        found = solve_penalised(*given)
        counts.append(found[0].potentials.iterations)
        return found

    monkeypatch.setattr(linearised, "solve_minima", minima)
    monkeypatch.setattr(linearised, "solve_penalised", penalised)
    return counts


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_limit_is_on_all_iterations_and_a_warning_says_what_is_left(
    solver, spent, monkeypatch
):
    monkeypatch.setattr(linearised, "MOST_ITERATIONS", 30)
    with pytest.warns(UserWarning, match="of Sinkhorn, with a plan that still moved by") as said:
        plan = SOLVERS[solver](*problem(15), epsilon=1e-4, max_iterations=40)
    assert not plan.converged
    # the limit is the larger one of 30 and 40; a scale of a warm-up may take 20 more
    assert 40 <= sum(spent) <= 40 + 20 * 5
    text = str(said[0].message)
    assert f"took {sum(spent)} of Sinkhorn" in text
    assert "`max_iterations` beyond 40" in text
    moved = float(re.findall(r"still moved by ([\d.e+-]+)", text)[0])
    error = float(re.findall(r" of ([\d.e+-]+), `tolerance`", text)[0])
    assert max(moved, error) > 1e-6
    assert error == pytest.approx(plan.marginal_error, rel=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_larger_limit_is_one_on_both(solver, spent, monkeypatch):
    monkeypatch.setattr(linearised, "MOST_ITERATIONS", 60)
    plan = SOLVERS[solver](*problem(15), epsilon=1e-3, max_iterations=5000)
    assert plan.converged
    assert 60 < sum(spent) <= 5000


@pytest.mark.parametrize("n", [10, 20])
@pytest.mark.parametrize("solver", ["gromov", "fused"])
def test_a_small_epsilon_takes_few_iterations(solver, n, spent):
    """From the potentials of a plan far away it took 16,000."""
    plan = SOLVERS[solver](*problem(n), epsilon=1e-5)
    assert plan.converged
    assert sum(spent) < 1000


@pytest.mark.parametrize("mass", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("n", [20, 100])
def test_partial_transport_takes_few_iterations_for_a_small_epsilon(n, power, mass):
    """From scales eight times as large it took up to 10,000, and did not converge."""
    cost = problem(n)[0] ** power
    plan = transport.solve_entropic_partial(cost, mass=mass, epsilon=1e-5 * float(cost.mean()))
    assert plan.converged
    assert plan.iterations is not None
    assert plan.iterations < 1000
    exact = transport.solve_partial(cost, mass=mass)
    assert float(plan.value_linear) == pytest.approx(float(exact.value), rel=1e-3)
    assert float(plan.plan.sum()) == pytest.approx(mass, rel=1e-4)
