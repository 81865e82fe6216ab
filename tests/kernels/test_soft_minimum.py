"""Reductions of a cost by Triton's kernels are those by blocks."""

import dataclasses

import pytest
import torch

from monge._core import tuning
from monge.transport import (
    fixed_point,
    gibbs,
    potentials,
    reductions,
    sinkhorn,
    sinkhorn_divergence,
    solve_entropic,
)
from monge.transport.ground import Matrix, Points
from monge.transport.reductions import Blocked, Fused

SIZES = [(1, 1, 1), (1, 3, 2), (17, 130, 5), (64, 64, 16), (70, 63, 40)]
ERROR = {torch.float32: 3e-6, torch.float64: 1e-11}


def drawn(n, m, d, device, shift=0.0):
    torch.manual_seed(n + m + d)
    x, y = torch.randn(n, d, dtype=torch.float64), torch.randn(m, d, dtype=torch.float64)
    y[0] = x[0]
    a, b = torch.rand(n).double() + 0.1, torch.rand(m).double() + 0.1
    if n > 1 and m > 1:
        a[-1] = b[-1] = 0
    x, y = x + shift, y + shift
    return [z.to(device) for z in (x, y, a / a.sum(), b / b.sum())]


def costs(x, y, p, dtype):
    return {
        "points": Points(x, y, p, dtype),
        "matrix": Matrix((torch.cdist(x, y) ** p).to(dtype)),
        "transposed": Matrix((torch.cdist(y, x) ** p).to(dtype)).transposed(),
    }


def same(one, other, accuracy):
    one, other = one.detach(), other.detach()
    size = float(other.abs().max()) + 1e-300
    torch.testing.assert_close(one.double() / size, other.double() / size, rtol=0, atol=accuracy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [1, 1.5, 2])
@pytest.mark.parametrize("size", SIZES)
def test_soft_minima_and_gibbs_kernels(kernel_device, size, p, dtype):
    x, y, a, b = drawn(*size, kernel_device)
    f, g = torch.randn_like(a) * 0.1, torch.randn_like(b) * 0.1
    for name, cost in costs(x, y, p, dtype).items():
        one, other = Fused(cost), Blocked(cost)
        minimum = one.soft_minimum(g, 0.2, f)
        same(minimum, other.soft_minimum(g, 0.2, f), ERROR[dtype])
        kernels = [torch.full(cost.shape, torch.nan, dtype=dtype).to(x.device) for _ in "12"]
        one.write_gibbs_(kernels[0], minimum, g, 0.2)
        other.write_gibbs_(kernels[1], minimum, g, 0.2)
        same(*kernels, ERROR[dtype])
        assert name != "points" or one.cost.is_product(0.2) == (p == 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [1, 1.5, 2])
@pytest.mark.parametrize("size", SIZES)
def test_sums_over_plans(kernel_device, size, p, dtype):
    x, y, a, b = drawn(*size, kernel_device)
    g = torch.randn_like(b) * 0.1
    for cost in costs(x, y, p, dtype).values():
        one, other = Fused(cost), Blocked(cost)
        f = other.soft_minimum(g + 0.2 * b.clamp_min(1e-300).log(), 0.2, torch.zeros_like(a))
        problem = a, b, f, g, 0.2
        for mine, its in zip(one.account(problem), other.account(problem)):
            same(mine, its, ERROR[dtype])
        assert float((one.account(problem)[0] - a).abs().max()) < 1e-6
        # for p ≠ 2 gradients are taken in float64 only
        if isinstance(cost, Points) and (p == 2 or dtype == torch.float64):
            ends = torch.randn_like(x), torch.randn(len(y), x.shape[1]).to(y)
            for mine, its in zip(
                one.slope_sums(problem, *ends),
                other.slope_sums(problem, *(z.to(dtype) for z in ends)),
            ):
                same(mine, its, ERROR[dtype])
    assert one.cost.shape == size[:2]


@pytest.mark.parametrize("width", [1, 15, 64, 65, 130])
def test_products_of_a_plan_with_a_wide_matrix(kernel_device, width):
    x, y, a, b = drawn(20, 70, 3, kernel_device)
    cost = Points(x, y, 2)
    problem = a, b, torch.zeros_like(a), torch.zeros_like(b), 1.0
    values = torch.randn(70, width).to(y)
    mine, nothing = Fused(cost).slope_sums(problem, values, values)
    plan = a[:, None] * b * torch.exp(-(torch.cdist(x, y) ** 2))
    assert nothing is None
    same(mine, 2 * plan @ values, 1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_points_that_are_a_view(kernel_device, p):
    x, y, a, b = drawn(18, 30, 3, kernel_device)
    every_other = [z.repeat_interleave(2, 1)[:, ::2] for z in (x, y)]
    views = every_other, [z.T.contiguous().T for z in (x, y)]
    zero, f = torch.zeros_like(b), torch.zeros_like(a)
    right = Blocked(Points(x, y, p)).soft_minimum(zero, 0.2, f)
    for u, v in views:
        assert not u.is_contiguous()
        same(Fused(Points(u, v, p)).soft_minimum(zero, 0.2, f), right, 1e-12)


def test_close_points_far_from_the_mean_are_told_apart(kernel_device):
    x, y, a, b = drawn(18, 30, 3, kernel_device)
    side = 1e6 * torch.tensor([1.0, -1.0], device=x.device, dtype=x.dtype)
    one, two = side.repeat(9)[:, None], side.repeat(15)[:, None]
    far_x, far_y, zero = x + one, y + two, torch.zeros_like(b)
    x, y = far_x - one, far_y - two  # as they were rounded
    for p in (1, 2):
        cost = Points(far_x, far_y, p)
        assert not cost.is_product(0.2)
        exact = (torch.cdist(x, y) ** p).masked_fill(one != two.T, torch.inf)
        exact = -0.2 * torch.logsumexp(-exact / 0.2, 1)
        same(Fused(cost).soft_minimum(zero, 0.2, torch.zeros_like(a)), exact, 1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("small", [True, False])
def test_plans_and_gradients_end_to_end(kernel_device, monkeypatch, small, p, dtype):
    """Once with all iterations in one program, once with Gibbs kernels and chunks."""
    values = dataclasses.replace(tuning.ACCELERATOR, program_points=1000 if small else 0)
    for module in (fixed_point, gibbs, potentials):
        monkeypatch.setattr(module, "tuning", lambda _: values)
    x, y, a, b = (z.to(dtype).requires_grad_() for z in drawn(70, 40, 3, kernel_device))

    def everything():
        settings = {"epsilon": 0.5, "p": p, "tolerance": 1e-6}
        plan = sinkhorn(x, y, a, b, **settings)
        given = solve_entropic(torch.cdist(x, y), a, b, epsilon=0.5, tolerance=1e-6)
        value = plan.value + given.value + sinkhorn_divergence(x, y, a, b, **settings)
        return plan.plan, plan.value_linear, value, *torch.autograd.grad(value, [x, y, a, b])

    assert isinstance(reductions.choose_reductions(Points(x.detach(), y.detach(), p)), Fused)
    fused = everything()
    for module in (fixed_point, gibbs, potentials):
        monkeypatch.setattr(module, "tuning", lambda _: tuning.CPU)
    for module in (reductions, gibbs):
        monkeypatch.setattr(module, "is_usable", lambda _: False)
    for one, other in zip(fused, everything()):
        same(one, other, 3e-5 if dtype == torch.float32 else 1e-9)
