"""Plans of monge in POT's conventions and back: against POT itself and closed forms."""

import math

import numpy as np
import ot
import pytest
import torch

from monge.transport import (
    Plan,
    from_geomloss,
    from_pot,
    gromov_wasserstein,
    sinkhorn,
    sinkhorn_divergence,
    solve,
    solve_entropic,
    to_pot,
    wasserstein,
)

REG = 0.5


def problem(n=7, m=5, seed=0, zeros=False):
    """Weights and a cost, whose optimal plan is unique."""
    random = np.random.default_rng(seed)
    a, b = random.random(n), random.random(m)
    if zeros:
        a[2] = b[0] = 0.0
    return (
        a / a.sum(),
        b / b.sum(),
        ot.dist(random.normal(size=(n, 2)), random.normal(size=(m, 2))),
    )


def closed_form():
    """Two points to two at costs 0 and 1: π_11 = s/2 with s = 1/(1 + exp(-1/ε))."""
    return torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)


def close(ours, theirs, atol=1e-9):
    torch.testing.assert_close(
        torch.as_tensor(ours), torch.as_tensor(theirs), rtol=0, atol=atol, check_dtype=False
    )


def test_an_exact_plan_is_that_of_emd():
    a, b, cost = problem()
    matrix, log = to_pot(solve(cost, a, b))
    theirs, other = ot.emd(a, b, cost, log=True)
    close(matrix, theirs)
    assert log.keys() == other.keys()
    assert log["cost"] == pytest.approx(other["cost"])
    assert (log["result_code"], log["warning"]) == (other["result_code"], other["warning"])
    # of a nondegenerate problem the potentials are unique once they are centred
    close(log["u"], other["u"])
    close(log["v"], other["v"])


@pytest.mark.parametrize("method", ["sinkhorn", "sinkhorn_log"])
def test_an_entropic_plan_is_that_of_sinkhorn(method):
    a, b, cost = problem()
    plan = solve_entropic(cost, a, b, epsilon=REG, tolerance=1e-11)
    matrix, log = to_pot(plan, a, b, epsilon=REG)
    theirs, other = ot.sinkhorn(a, b, cost, REG, method=method, stopThr=1e-13, log=True)
    close(matrix, theirs)
    assert other.keys() <= log.keys()
    # a factor is free
    close(log["u"] / log["u"][0], other["u"] / other["u"][0], atol=1e-7)
    close(torch.outer(log["u"], log["v"]), np.outer(other["u"], other["v"]), atol=1e-5)
    close(torch.outer(log["u"], log["v"]) * torch.from_numpy(np.exp(-cost / REG)), theirs)
    assert log["err"][0] <= 1e-11


def test_scalings_of_two_points_have_their_closed_form():
    plan = solve_entropic(closed_form(), epsilon=REG, tolerance=1e-13)
    matrix, log = to_pot(plan, epsilon=REG)
    s = 1 / (1 + math.exp(-1 / REG))
    close(matrix, torch.tensor([[s, 1 - s], [1 - s, s]], dtype=torch.float64) / 2)
    # π_11 = u_1 v_1, with the same u and v by the choice of the factor
    close(log["u"], torch.full((2,), math.sqrt(s / 2), dtype=torch.float64))
    close(log["v"], log["u"])
    back = from_pot(matrix, log, closed_form(), epsilon=REG)
    entropy = s * math.log(2 * s) + (1 - s) * math.log(2 * (1 - s))
    assert float(back.value) == pytest.approx(1 - s + REG * entropy)
    assert float(back.value_linear) == pytest.approx(1 - s)


@pytest.mark.parametrize("zeros", [False, True])
def test_a_plan_of_emd_is_that_of_solve(zeros):
    a, b, cost = problem(zeros=zeros)
    plan, ours = from_pot(*ot.emd(a, b, cost, log=True), cost, a, b), solve(cost, a, b)
    close(plan.plan, ours.plan)
    close(plan.value, ours.value)
    close(a @ plan.potentials[0].numpy() + b @ plan.potentials[1].numpy(), plan.value)
    assert plan.marginal_error < 1e-15
    assert plan.converged


METHODS = ("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized", "greenkhorn")


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_plan_of_sinkhorn_is_that_of_solve_entropic(method, zeros):
    if zeros and method == "sinkhorn":
        pytest.skip("POT stops at a zero weight")
    a, b, cost = problem(zeros=zeros)
    matrix, log = ot.sinkhorn(
        a, b, cost, REG, method=method, stopThr=1e-13, numItermax=5000, log=True
    )
    plan = from_pot(matrix, log, cost, a, b, epsilon=REG)
    ours = solve_entropic(cost, a, b, epsilon=REG, tolerance=1e-12)
    close(plan.plan, ours.plan)
    close(plan.value, ours.value)
    close(plan.value, ot.solve(cost, a, b, reg=REG).value if not zeros else ours.value)
    for one, two in zip(plan.potentials, ours.potentials):
        close(one - one[1], two - two[1], atol=1e-7)
    f, g = plan.potentials
    assert float(a @ f.numpy() + b @ g.numpy()) == pytest.approx(float(plan.value))
    assert plan.converged


def test_the_error_is_observed():
    a, b, cost = problem()
    with pytest.warns(UserWarning, match="Sinkhorn did not converge"):
        matrix, log = ot.sinkhorn(a, b, cost, 0.05, numItermax=3, log=True)
    plan = from_pot(matrix, log, cost, a, b, epsilon=0.05)
    missed = max(abs(matrix.sum(1) - a).sum(), abs(matrix.sum(0) - b).sum())
    assert plan.marginal_error == pytest.approx(missed)
    assert missed > 1e-3
    assert not plan.converged
    loose = from_pot(matrix, log, cost, a, b, epsilon=0.05, tolerance=1.0)
    assert loose.converged


def accounts(plan):
    return plan.value, plan.value_linear, plan.plan


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [None, REG])
def test_there_and_back(dtype, epsilon):
    a, b, cost = problem()
    cost = torch.from_numpy(cost).to(dtype)
    if epsilon is None:
        plan = solve(cost, a, b) if dtype == torch.float64 else solve(cost)
    else:
        plan = solve_entropic(cost, epsilon=epsilon)
    given = (a, b) if epsilon is None and dtype == torch.float64 else (None, None)
    back = from_pot(*to_pot(plan, epsilon=epsilon), cost, *given, epsilon=epsilon)
    assert isinstance(back, Plan)
    assert back.value.dtype == torch.float64
    for one, two in zip(accounts(back), accounts(plan)):
        torch.testing.assert_close(one.to(two), two)


def test_far_points_and_large_potentials():
    """Scalings beyond float64 keep their logarithms; a shift of all points changes nothing."""
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    y = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    near = to_pot(sinkhorn(x, y, epsilon=REG, tolerance=1e-10), epsilon=REG)[1]
    far = to_pot(sinkhorn(x + 1e6, y + 1e6, epsilon=REG, tolerance=1e-10), epsilon=REG)[1]
    close(near["log_u"], far["log_u"], atol=1e-7)
    plan = solve_entropic(torch.cdist(x, y).square() * 1e4, epsilon=REG, tolerance=1e-8)
    matrix, log = to_pot(plan, epsilon=REG)
    exponents = -torch.cdist(x, y).square() * 1e4 / REG
    close((log["log_u"][:, None] + log["log_v"] + exponents).exp(), matrix, atol=1e-7)
    with pytest.raises(ValueError, match="solve it in float64, with points about 0"):
        to_pot(sinkhorn(x.float(), y.float() + 1e6, epsilon=REG), epsilon=REG)


def test_potentials_that_cancel_are_exact_up_to_their_own_rounding():
    """Where forbidden pairs cost 10⁸ the potentials are as large, and the cost is not."""
    random = np.random.default_rng(0)
    cost = np.full((30, 30), 1e8)
    for shift in (0, 1):
        cost[np.arange(30), (np.arange(30) + shift) % 30] = random.random(30)
    matrix, log = to_pot(solve(cost))
    assert log["cost"] < 1
    back = from_pot(matrix, log, cost)
    close(back.value, (matrix * torch.from_numpy(cost)).sum())


def test_arguments_of_geomloss():
    """Its cost is ‖x - y‖^p / p: for single points the values are p times ‖x - y‖^p / p."""
    x, y = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
    for p in (1, 2, 3):
        ours = from_geomloss(p=p, blur=0.3)
        assert ours == {"p": p, "epsilon": pytest.approx(p * 0.3**p)}
        value = float(sinkhorn_divergence(x, y, **ours)) / p
        assert value == pytest.approx(5**p / p, rel=1e-5)
    assert from_geomloss(p=2, blur=0.1, reach=3)["reach"] == pytest.approx(18)
    # GeomLoss's soft minimum has cost C/p and temperature blur^p: the plan of monge's problem
    cost = closed_form()
    s = 1 / (1 + math.exp(-(1 / 2) / 0.5**2))
    plan = solve_entropic(cost, epsilon=from_geomloss(p=2, blur=0.5)["epsilon"], tolerance=1e-12)
    assert float(plan.plan[0, 0]) == pytest.approx(s / 2)


def plan():
    a, b, cost = problem()
    return solve_entropic(cost, a, b, epsilon=REG)


def test_what_is_refused_is_named():
    a, b, cost = problem()
    matrix, log = ot.emd(a, b, cost, log=True)
    entropic, scaled = ot.sinkhorn(a, b, cost, REG, log=True)
    symmetric = np.abs(np.subtract.outer(a, a))
    batch = solve_entropic(np.stack([cost, cost]), epsilon=REG)
    under = {**scaled, "u": np.where(np.arange(7) == 3, 0.0, scaled["u"])}
    for call, message in (
        (lambda: to_pot(matrix), "`plan` must be a Plan"),
        (lambda: to_pot(batch, epsilon=REG), "`plan` must be of one problem, got a batch of 2"),
        (lambda: to_pot(plan()), "`epsilon` must be given for a plan"),
        (lambda: to_pot(gromov_wasserstein(symmetric, symmetric * 2)), "`epsilon` must be given"),
        (lambda: to_pot(plan(), a, b, epsilon=2 * REG), "`epsilon` must be that of the plan, 0.5"),
        (lambda: to_pot(solve(cost, a, b), a, b, epsilon=1.0), "`epsilon` must be that of"),
        (lambda: to_pot(plan(), a, b, epsilon=-1.0), "`epsilon` must be positive"),
        (lambda: to_pot(plan(), epsilon=REG), "`a` and `b` must be the weights of the plan"),
        (
            lambda: to_pot(plan(), a[1:], b, epsilon=REG),
            "`a` must hold a weight for each of the 7",
        ),
        (lambda: from_pot(matrix, log, cost.T, a, b), "`matrix` and `cost` must be matrices"),
        (lambda: from_pot(matrix, log, cost + a[:, None], a, b), "`cost`, `a` and `b` must be"),
        (lambda: from_pot(matrix * np.nan, log, cost, a, b), "`matrix` must be finite"),
        (lambda: from_pot(matrix, 3, cost, a, b), "`log` must be a Mapping"),
        (lambda: from_pot(matrix, {}, cost, a, b), "`log` must have `u`"),
        (lambda: from_pot(matrix, {**log, "u": b}, cost, a, b), "7 numbers in `u`"),
        (lambda: from_pot(matrix, {**log, "u": a * np.nan}, cost, a, b), "with NaN"),
        (lambda: from_pot(entropic, scaled, cost, a, b, epsilon=1.0), "got `epsilon` 1"),
        (lambda: from_pot(entropic, scaled, cost + a[:, None], a, b, epsilon=REG), "`cost` must"),
        (lambda: from_pot(entropic, under, cost, a, b, epsilon=REG), "underflowed to 0"),
        (lambda: from_pot(matrix, log, cost, 2 * a, b), "`a` must be at least 0 and sum to 1"),
        (lambda: from_geomloss(blur=0.0), "`blur` must be positive"),
        (lambda: from_geomloss(reach=-1.0), "`reach` must be positive"),
        (lambda: from_geomloss(p=0.5), "`p` must be"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_cost_of_ot_dist_is_that_of_wasserstein():
    """`ot.emd2` of squared distances is W_2², without a root."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=(6, 3)), random.normal(size=(4, 3))
    value = ot.emd2(np.full(6, 1 / 6), np.full(4, 1 / 4), ot.dist(x, y))
    assert float(wasserstein(x, y)) ** 2 == pytest.approx(value)
