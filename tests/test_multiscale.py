"""Multiscale transport against the dense solver, closed forms and finite differences; the cells
and tiles it leaves out against all pairs."""

import math

import pytest
import torch

from monge._core import tuning
from monge.transport import (
    multiscale_sinkhorn,
    multiscale_sinkhorn_divergence,
    sinkhorn,
    sinkhorn_divergence,
    wasserstein,
)
from monge.transport import tiles as tiling
from monge.transport.tiles import TiledMinima
from monge.transport.tree_cells import active_pairs, affine_bounds, cells_of, coarser


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def clouds(n, m, d=3, dtype=torch.float64):
    random = seeded(n + m)
    x = torch.randn(n, d, generator=random, dtype=torch.float64)
    y = 1.3 * torch.randn(m, d, generator=random, dtype=torch.float64) + 0.5
    return x.to(dtype), y.to(dtype)


def weights(n, seed=1):
    w = torch.rand(n, generator=seeded(seed), dtype=torch.float64)
    w[:: max(2, n // 5)] = 0
    return w / w.sum()


def entropic_gaussians(s, u, shift, epsilon, d):
    """OT_ε of N(0, s² I) and N(shift, u² I) in d dimensions (Janati et al., 2020)."""
    sigma = epsilon / 2
    root = math.sqrt(4 * s**2 * u**2 + sigma**2)
    log_term = sigma * (1 - math.log(2 * sigma) + math.log(root + sigma))
    return d * (s**2 + u**2 + shift**2 - root + log_term)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("epsilon", [0.06, 0.5])
def test_it_is_sinkhorn(d, epsilon):
    """Value, account, potentials and all gradients of the dense solver."""
    x, y = clouds(900, 700, d)
    a, b = weights(900), weights(700, 2)
    inputs = [z.requires_grad_() for z in (x, y, a, b)]
    dense = sinkhorn(*inputs, epsilon=epsilon, tolerance=1e-7)
    ours = multiscale_sinkhorn(*inputs, epsilon=epsilon, tolerance=1e-7)
    assert ours.converged
    assert ours.marginal_error <= 1e-7
    assert ours.value.item() == pytest.approx(dense.value.item(), rel=1e-8)
    assert float(ours.value_linear) == pytest.approx(float(dense.value_linear), rel=1e-6)
    pairs = zip(torch.autograd.grad(ours.value, inputs), torch.autograd.grad(dense.value, inputs))
    for slope, expected in pairs:
        scale = float(expected.abs().max())
        torch.testing.assert_close(slope, expected, rtol=0, atol=1e-5 * scale)
    for ours_f, f in zip(ours.potentials, dense.potentials):
        torch.testing.assert_close(ours_f - ours_f.mean(), f - f.mean(), rtol=0, atol=1e-4)


def test_the_divergence_is_the_dense_one():
    x, y = clouds(900, 700, 2, torch.float32)
    x.requires_grad_()
    values, slopes = [], []
    for function in (sinkhorn_divergence, multiscale_sinkhorn_divergence):
        values.append(function(x, y, epsilon=0.05, tolerance=1e-6))
        slopes.append(torch.autograd.grad(values[-1], x)[0])
    torch.testing.assert_close(values[1], values[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(
        slopes[1], slopes[0], rtol=0, atol=1e-3 * float(slopes[0].abs().max())
    )
    assert multiscale_sinkhorn_divergence(x, x, epsilon=0.05).item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_divergence_is_zero_at_equality_and_never_negative(weighted, dtype):
    x = clouds(100, 1, 2, dtype)[0].requires_grad_()
    y = x.detach().clone().requires_grad_()
    a = weights(100).to(dtype) if weighted else None
    value = multiscale_sinkhorn_divergence(x, y, a, a, epsilon=0.05)
    value.backward()
    assert value.item() == 0
    for z in (x, y):
        torch.testing.assert_close(z.grad, torch.zeros_like(z), rtol=0, atol=1e-6)
    order = torch.randperm(100, generator=seeded(2))
    near = x.detach() + 1e-4
    moved = x.detach() + 10  # beside which the means are taken out, and the rest is equal
    for other in (x.detach()[order], near, moved):
        b = a[order] if weighted and other is not near and other is not moved else a
        assert multiscale_sinkhorn_divergence(x, other, a, b, epsilon=0.05).item() >= 0
    exact = (moved.double() - x.detach().double()).mean(0).square().sum()
    value = multiscale_sinkhorn_divergence(x, moved, a, a, epsilon=0.05)
    assert value.item() == pytest.approx(exact.item(), rel=1e-2)


def test_gaussians():
    """The closed form, up to the fluctuation of the samples, and what it says it has left out."""
    x, y = clouds(6000, 6000, 2, torch.float32)
    plan = multiscale_sinkhorn(x, y, epsilon=0.1)
    assert plan.converged
    assert plan.marginal_error <= 0.01
    expected = entropic_gaussians(1.0, 1.3, 0.5, 0.1, 2)
    assert float(plan.value) == pytest.approx(expected, rel=0.03)
    # the tolerance by default: the value's error is of second order in the marginal error
    tight = multiscale_sinkhorn(x, y, epsilon=0.1, tolerance=1e-4)
    assert float(plan.value) == pytest.approx(float(tight.value), rel=1e-3)


def test_gradient_by_finite_differences():
    x, y = clouds(7, 5, 2)
    a, b = (torch.linspace(1, 2, n, dtype=torch.float64) for n in (7, 5))

    def value(x, y, a, b):
        a, b = a / a.sum(), b / b.sum()
        return multiscale_sinkhorn(x, y, a, b, epsilon=0.3, tolerance=1e-12).value

    def divergence(x, y):
        return multiscale_sinkhorn_divergence(x, y, epsilon=0.3, tolerance=1e-12)

    inputs = [z.requires_grad_() for z in (x, y, a, b)]
    assert torch.autograd.gradcheck(value, inputs, atol=1e-6)
    assert torch.autograd.gradcheck(divergence, inputs[:2], atol=1e-6)


def test_the_barycentric_projection_is_in_the_gradient():
    x, y = clouds(300, 200)
    x.requires_grad_()
    plan = multiscale_sinkhorn(x, y, epsilon=0.2, tolerance=1e-9)
    (slope,) = torch.autograd.grad(plan.value, x)
    projected = plan.plan @ y * 300
    torch.testing.assert_close(x.detach() - slope * 300 / 2, projected, rtol=1e-6, atol=1e-6)


def test_kernels_that_are_not_stored(monkeypatch):
    """The same to the last digits, with memory that does not depend on ε."""
    x, y = clouds(700, 800, 2)
    stored = multiscale_sinkhorn(x, y, epsilon=0.2, tolerance=1e-7)
    monkeypatch.setattr(tuning, "CPU", tuning.Tuning(tile_entries=20_000))
    streamed = multiscale_sinkhorn(x, y, epsilon=0.2, tolerance=1e-7)
    assert streamed.iterations == stored.iterations
    torch.testing.assert_close(streamed.value, stored.value, rtol=1e-12, atol=0)


def test_what_is_left_out_is_bounded():
    """No pair of the cells that are left out has a larger exponent than the bound says."""
    x, y = clouds(1000, 900, 2)
    plan = sinkhorn(x, y, epsilon=0.05, tolerance=1e-6)
    f, g = plan.potentials
    of_x, of_y = (cells_of(z, torch.full((len(z),), 1 / len(z)), 32) for z in (x, y))
    first, second = active_pairs(of_x, of_y, f[of_x.order], g[of_y.order], -1.0)
    exponents = (
        f[of_x.order, None]
        + g[of_y.order]
        - torch.cdist(*(z.flat()[0] for z in (of_x, of_y))) ** 2
    )
    blocks = exponents.view(*of_x.weights.shape, *of_y.weights.shape).amax((1, 3))
    kept = torch.zeros_like(blocks, dtype=torch.bool)
    kept[first, second] = True
    assert not (blocks[~kept] > -1.0).any()
    assert 0.05 < kept.double().mean() < 2 * float((blocks > -1.0).double().mean())
    assert (first.diff() >= 0).all()


def test_cells_hold_the_points():
    for n in (1, 5, 64, 777):
        x, w = clouds(n, 3)[0], weights(n) if n > 4 else torch.full((n,), 1 / n)
        cells = cells_of(x, w, 8)
        points, masses = cells.flat()
        assert torch.equal(points, x[cells.order])
        torch.testing.assert_close(cells.summed(masses, n), w.double())
        assert torch.equal(cells.to_sample(points, n), x)
        bounds = affine_bounds(cells.points, points[:, 0].square(), cells.depth)
        u = cells.points - bounds.centre[:, None]
        above = bounds.height[:, None] + (u * bounds.slope[:, None]).sum(2)
        assert (above >= cells.points[..., 0].square() - 1e-12).all()
        coarse, spread = coarser(cells, max(0, cells.depth - 1), 4)
        means, mass = coarse.flat()
        torch.testing.assert_close(mass @ means, w.double() @ x)
        moment = mass @ means.square().mean(1) + spread
        torch.testing.assert_close(moment, w.double() @ x.square().mean(1))


def test_potentials_that_went_astray():
    """TiledMinima about potentials that say nothing of the solution give exact soft minima."""
    x, y = clouds(400, 300, 2)
    of_x, of_y = (cells_of(z, torch.full((len(z),), 1 / len(z)), 32) for z in (x, y))
    (flat_x, a), (flat_y, b) = of_x.flat(), of_y.flat()
    for far in (-30.0, 30.0):
        minima = TiledMinima(of_x, of_y, torch.float32, 1e-7)
        minima.begin(torch.full_like(a, far), torch.full_like(b, far), 0.1)
        g = 20 * torch.randn(len(b), generator=seeded(), dtype=torch.float64)
        cost = torch.cdist(flat_x, flat_y).square()
        f = -0.1 * ((g - cost) / 0.1 + b.log()).logsumexp(1)
        torch.testing.assert_close(minima.rows(g), f, rtol=1e-5, atol=1e-5)
        back = -0.1 * ((f[:, None] - cost) / 0.1 + a.log()[:, None]).logsumexp(0)
        torch.testing.assert_close(minima.columns(minima.soft_f), back, rtol=1e-5, atol=1e-5)


def test_edges():
    """Single points, ties, far clusters and an ε that no iteration resolves."""
    one = torch.zeros(1, 3)
    assert multiscale_sinkhorn(one, one + 1, epsilon=0.1).value == pytest.approx(3)
    ties = torch.arange(4.0)[:, None].repeat(200, 2)
    tied = multiscale_sinkhorn(ties, ties + 2, epsilon=0.1, tolerance=1e-4).value
    few = sinkhorn(ties[:4], ties[:4] + 2, epsilon=0.1, tolerance=1e-4).value
    torch.testing.assert_close(tied, few)
    x, y = clouds(600, 500, 2, torch.float32)
    side = torch.where(torch.arange(600) % 2 == 0, 1e3, -1e3)[:, None]
    ours, dense = (
        solver(x + side, y + side[:500], epsilon=0.5, tolerance=1e-4).value
        for solver in (multiscale_sinkhorn, sinkhorn)
    )
    torch.testing.assert_close(ours, dense, rtol=1e-4, atol=0)
    with pytest.warns(UserWarning, match=r"marginal error of .*above `tolerance`"):
        plan = multiscale_sinkhorn(x, y, epsilon=1e-4, max_iterations=2)
    assert not plan.converged
    assert math.isfinite(plan.value)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"epsilon": 0.0}, "epsilon"), ({"tolerance": -1}, "tolerance"), ({"x": [[math.nan]]}, "x")],
)
def test_bad_input(change, name):
    given = {"x": torch.zeros(3, 1), "y": torch.ones(2, 1), "epsilon": 1.0} | change
    for function in (multiscale_sinkhorn, multiscale_sinkhorn_divergence):
        with pytest.raises(ValueError, match=f"`{name}`"):
            function(**given)


@pytest.mark.parametrize("epsilon", [1e-30, 1e-18, 1e-17])
def test_an_epsilon_below_rounding_is_refused_before_the_last_stage(epsilon, monkeypatch):
    """Costs of near points, then potentials of larger regularisations, say that it is."""
    x, y = (torch.rand(400, 2, generator=seeded(k), dtype=torch.float64) for k in (0, 1))
    monkeypatch.setattr("monge.transport.multiscale._in_order", None)
    with pytest.raises(
        ValueError, match=r"`epsilon` .* is below the rounding of (costs|potentials)"
    ):
        multiscale_sinkhorn(x, y + 0.3, epsilon=epsilon)


def test_an_epsilon_below_the_rounding_of_the_mean_cost_is_right_where_potentials_are_small():
    x, _ = clouds(100, 1, 2)
    assert float(multiscale_sinkhorn_divergence(x, x, epsilon=1e-18)) == 0


def test_chunks(monkeypatch):
    x, y = clouds(300, 200, 2)
    whole = multiscale_sinkhorn(x, y, epsilon=0.2, tolerance=1e-7).value
    monkeypatch.setattr(tiling, "CHUNK", 1)
    torch.testing.assert_close(multiscale_sinkhorn(x, y, epsilon=0.2, tolerance=1e-7).value, whole)


def test_what_has_not_converged_stays_near():
    """The plan of the nearest iterate, although the tiles were chosen about a later one."""
    x, y = (torch.randn(n, 2, generator=seeded()).double() for n in (50, 40))
    x, y = (2 * x).exp(), (2 * (y + 0.5)).exp()
    with pytest.warns(UserWarning, match="marginal error"):
        plan = multiscale_sinkhorn(x, y, epsilon=0.5)
    assert plan.marginal_error < 0.1
    exact = wasserstein(x, y).square()
    torch.testing.assert_close(plan.value, exact, rtol=0.25, atol=0)
