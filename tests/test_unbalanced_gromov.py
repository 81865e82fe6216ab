"""Unbalanced Gromov-Wasserstein: POT, the definition, its limit and derivatives."""

import numpy as np
import ot
import pytest
import torch

from monge.transport import (
    KL,
    TV,
    entropic_gromov_wasserstein,
    gromov_wasserstein,
    unbalanced_gromov_wasserstein,
)
from monge.transport.quadratic import objective


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def distances(x):
    return torch.cdist(x, x)


def masses(n, total=1.0):
    w = torch.rand(n, dtype=torch.float64) + 0.2
    return total * w / w.sum()


def spaces(n, m):
    return distances(doubles(n, 2)), distances(doubles(m, 2))


def quadratic_kl(r, w):
    """KL(r⊗r | w⊗w), entry by entry."""
    r, w = r.flatten(), w.flatten()
    r, w = r[:, None] * r, w[:, None] * w
    return (torch.xlogy(r, r / w) - r + w).sum()


@pytest.mark.parametrize("rho", [0.1, 1.0, 50.0])
@pytest.mark.parametrize("totals", [(1.0, 1.0), (0.7, 1.9)])
def test_plans_and_values_are_pots(rho, totals):
    (cx, cy), a, b = spaces(7, 5), masses(7, totals[0]), masses(5, totals[1])
    ours = unbalanced_gromov_wasserstein(
        cx, cy, a, b, epsilon=0.5, reach=rho, tolerance=1e-9, max_iterations=2000
    )
    theirs, _, log = ot.gromov.fused_unbalanced_gromov_wasserstein(
        *(z.numpy() for z in (cx, cy, a, b)),
        reg_marginals=rho,
        epsilon=0.5,
        unbalanced_solver="sinkhorn_log",
        max_iter=2000,
        tol=1e-11,
        max_iter_ot=2000,
        tol_ot=1e-11,
        log=True,
    )
    assert ours.converged
    np.testing.assert_allclose(ours.plan.numpy(), theirs, atol=1e-6)
    assert float(ours.value) == pytest.approx(float(log["fugw_cost"]), rel=1e-7)
    assert float(ours.mass) == pytest.approx(theirs.sum(), rel=1e-6)


@pytest.mark.parametrize("reach", [0.7, KL(0.7), (KL(0.3), KL(0.8)), (0.5, None), (None, 0.5)])
def test_the_value_is_the_definition(reach):
    (cx, cy), a, b = spaces(4, 3), masses(4, 0.8), masses(3, 1.3)
    plan = unbalanced_gromov_wasserstein(
        cx, cy, a, b, epsilon=0.4, reach=reach, tolerance=1e-9, max_iterations=2000
    )
    pi, expected = plan.plan, objective(cx, cy, plan.plan)
    torch.testing.assert_close(plan.value_linear, expected)
    sides = reach if isinstance(reach, tuple) else (reach, reach)
    for side, r, w in zip(sides, (pi.sum(1), pi.sum(0)), (a, b)):
        if side is None:
            torch.testing.assert_close(r, w, rtol=1e-6, atol=1e-8)
            continue
        expected = expected + getattr(side, "rho", side) * quadratic_kl(r, w)
    expected = expected + 0.4 * quadratic_kl(pi, a[:, None] * b)
    torch.testing.assert_close(plan.value, expected)
    # stationary: no small change of the plan's entries or of its mass lowers it
    if None not in sides:
        scaled = [
            objective(cx, cy, s * pi)
            + sum(
                getattr(side, "rho", side) * quadratic_kl(s * r, w)
                for side, r, w in zip(sides, (pi.sum(1), pi.sum(0)), (a, b))
            )
            + 0.4 * quadratic_kl(s * pi, a[:, None] * b)
            for s in (0.999, 1.001)
        ]
        assert min(scaled) >= plan.value


def test_a_long_reach_is_the_constraint():
    (cx, cy), a, b = spaces(6, 5), masses(6), masses(5)
    far = unbalanced_gromov_wasserstein(
        cx, cy, a, b, epsilon=2.0, reach=1e6, tolerance=1e-9, max_iterations=1000
    )
    expected = entropic_gromov_wasserstein(cx, cy, a, b, epsilon=2.0, tolerance=1e-9)
    # of plans of mass 1 the quadratic divergence is twice the divergence
    half = unbalanced_gromov_wasserstein(
        cx, cy, a, b, epsilon=1.0, reach=1e6, tolerance=1e-9, max_iterations=1000
    )
    assert far.converged
    torch.testing.assert_close(half.plan, expected.plan, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(half.value, expected.value, rtol=1e-4, atol=1e-5)


def test_a_far_point_loses_its_mass():
    x = doubles(12, 2)
    y = torch.cat([x, x.new_tensor([[30.0, 0.0]])])
    plan = unbalanced_gromov_wasserstein(distances(x), distances(y), epsilon=0.1, reach=1.0)
    assert plan.converged
    assert plan.plan[:, -1].sum() < 1e-6
    assert float(plan.mass) > 0.7
    constrained = gromov_wasserstein(distances(x), distances(y), starts=1)
    assert float(constrained.value) > 10 * float(plan.value)


@pytest.mark.parametrize("seed", [0, 4, 10])
def test_plans_that_alternate_are_brought_together(seed):
    """With squared distances and a constraint, two plans are the best beside each other."""
    random = torch.Generator().manual_seed(100 + seed)
    x, y = (torch.randn(n, 2, generator=random).double() for n in (4, 3))
    cx, cy = (distances(z).square() for z in (x, y))
    for reach in ((0.7, None), (None, 0.4)):
        plan = unbalanced_gromov_wasserstein(cx, cy, epsilon=0.5, reach=reach, max_iterations=500)
        assert plan.converged
        again = unbalanced_gromov_wasserstein(
            cx, cy, epsilon=0.5, reach=reach, starts=plan.plan, max_iterations=500
        )
        torch.testing.assert_close(again.value, plan.value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reach", [0.7, (0.5, None), (0.3, 0.8)])
def test_gradients_equal_finite_differences(reach):
    inputs = [doubles(3, 1) / 2, doubles(3, 1) / 2, masses(3, 0.8), masses(3, 1.2)]

    def value(x, y, a, b):
        cx, cy = ((z[:, None] - z).square().sum(-1) for z in (x, y))
        return unbalanced_gromov_wasserstein(
            cx, cy, a, b, epsilon=1.0, reach=reach, tolerance=1e-10, max_iterations=1000
        ).value

    inputs = [z.requires_grad_() for z in inputs]
    assert torch.autograd.gradcheck(value, inputs, atol=1e-5, rtol=1e-4)
    (slope,) = torch.autograd.grad(value(*inputs), inputs[2], create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        slope.square().sum().backward()


def test_more_starts_are_never_worse_and_units_do_not_matter():
    cx, cy = spaces(7, 6)
    options = {"epsilon": 0.6, "reach": 1.0, "max_iterations": 1000}
    values = [
        float(unbalanced_gromov_wasserstein(cx, cy, starts=k, **options).value) for k in (2, 4)
    ]
    assert values == sorted(values, reverse=True)
    one = unbalanced_gromov_wasserstein(cx, cy, **options)
    moved = unbalanced_gromov_wasserstein(
        1e3 * cx, 1e3 * cy, epsilon=0.6e6, reach=1e6, max_iterations=1000
    )
    assert float(moved.value) / 1e6 == pytest.approx(float(one.value), rel=1e-6)
    single = unbalanced_gromov_wasserstein(cx.float(), cy.float(), **options)
    assert single.converged
    assert float(single.value) == pytest.approx(float(one.value), rel=1e-4)
    a = torch.tensor([0, 0, *[1 / 5] * 5], dtype=torch.float64)
    empty = unbalanced_gromov_wasserstein(cx, cy, a, **options)
    few = unbalanced_gromov_wasserstein(cx[2:, 2:], cy, a[2:], **options)
    torch.testing.assert_close(empty.plan[2:], few.plan, rtol=1e-4, atol=1e-6)
    assert empty.plan[:2].sum() == 0


def test_what_did_not_converge_warns():
    cx, cy = spaces(9, 8)
    with pytest.warns(UserWarning, match="stopped after 2 iterations"):
        plan = unbalanced_gromov_wasserstein(cx, cy, epsilon=0.1, reach=1.0, max_iterations=2)
    assert not plan.converged


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"reach": None}, "`reach` must have a penalty .* `entropic_gromov_wasserstein`"),
        ({"reach": TV(1.0)}, "`reach` must be KL.*`partial_gromov_wasserstein`"),
        ({"reach": -1.0}, "`reach`"),
        ({"epsilon": 0.0}, "`epsilon`"),
        ({"cx": torch.zeros(3, 2)}, "`cx` must be a square"),
        ({"b": [-1.0, 1.0, 1.0]}, "`b`"),
        ({"starts": torch.zeros(3, 3)}, "`starts` must be plans"),
        ({"max_iterations": 0}, "`max_iterations`"),
    ],
)
def test_bad_problems_are_named(options, word):
    given = {"cx": torch.zeros(3, 3), "cy": torch.zeros(3, 3), "epsilon": 1.0, "reach": 1.0}
    with pytest.raises(ValueError, match=word):
        unbalanced_gromov_wasserstein(**given | options)


def test_a_reach_at_which_no_mass_would_be_kept_is_refused():
    pair = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="`reach` is so small beside `cx` and `cy`"):
        unbalanced_gromov_wasserstein(100 * pair, pair, epsilon=0.1, reach=1.0)


def test_starts_of_numpy_are_plans():
    cx, cy = distances(doubles(5, 2)), distances(doubles(4, 2))
    plan = np.full((5, 4), 1 / 20)
    for solve in (
        lambda **more: unbalanced_gromov_wasserstein(cx, cy, epsilon=0.5, reach=1.0, **more),
        lambda **more: entropic_gromov_wasserstein(cx, cy, epsilon=0.5, **more),
    ):
        torch.testing.assert_close(solve(starts=plan).value, solve().value)
