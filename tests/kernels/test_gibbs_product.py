"""Sinkhorn's step by kernels is the step by tensors, doubts included."""

import pytest
import torch

from monge.gpu.launch import is_usable
from monge.transport.gibbs import DeferredByTensors, Stored, choose_deferred
from monge.transport.ground import Points


def stored(n, m, dtype, device, spread=1.0):
    torch.manual_seed(0)
    x, y = torch.randn(n, 3).double() * spread, torch.randn(m, 3).double()
    a, b = torch.rand(n).double(), torch.rand(m).double()
    a[-1] = 0
    weights = (a / a.sum().clamp_min(1e-300)).to(device), (b / b.sum()).to(device)
    space = torch.empty(n * m, dtype=dtype, device=device)
    minima = Stored(Points(x.to(device), y.to(device), 2, dtype), *weights, space)
    minima.begin(torch.zeros_like(weights[0]), torch.zeros_like(weights[1]), 0.5)
    return minima


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m"), [(2, 1), (1000, 1030), (1025, 17), (30, 2500)])
def test_a_step(kernel_device, n, m, dtype):
    minima = stored(n, m, dtype, kernel_device)
    assert is_usable(kernel_device)
    one, other = choose_deferred(minima), DeferredByTensors(minima)
    assert type(one) is not type(other)
    g = torch.randn(m, dtype=torch.float64).to(kernel_device) * 0.3
    found = []
    for deferred in (one, other):
        f = deferred.rows(g)
        back = deferred.columns(f)
        assert deferred.f is f
        found.append((f, back, deferred.doubts()[1]))
        assert not deferred.doubts()[0]
    for mine, its in zip(*found):
        torch.testing.assert_close(
            mine, its, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12
        )


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("change", [60.0, -60.0, 1000.0])
def test_doubts(kernel_device, change):
    minima = stored(40, 30, torch.float32, kernel_device, spread=4.0)
    g = torch.zeros_like(minima.b)
    g[3] = change * 0.5
    for deferred in (choose_deferred(minima), DeferredByTensors(minima)):
        deferred.rows(g)
        outside, moved = deferred.doubts()
        assert bool(outside)
        assert float(moved) == pytest.approx(abs(change))
        # later products that are in range do not take it back
        deferred.rows(torch.zeros_like(g))
        assert bool(deferred.doubts()[0])
