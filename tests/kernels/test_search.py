"""The search for nearest neighbours by Triton's kernel against distances in float64."""

import numpy as np
import pytest
import torch

from monge.costs import chamfer
from monge.transport.neighbours import (
    _in_sets_by_trees,
    choose_search,
    nearest,
    nearest_in_sets,
    nearest_squared,
)

DTYPES = {torch.float32: 1e-5, torch.float64: 1e-11}


def samples(n, m, d, dtype=torch.float32):
    draw = torch.Generator().manual_seed(n + 1000 * m + d)
    x, y = (torch.randn(k, d, generator=draw, dtype=torch.float64).to(dtype) for k in (n, m))
    return x, y


def check(x, y, k, device, block=16):
    """Squared distances, and that the rows at the indices are at these distances."""
    from monge.gpu.search import nearest_rows

    apart = (x.double()[:, None] - y.double()).square().sum(-1)
    right = apart.topk(k, largest=False).values
    squared, index = nearest_rows(x.to(device), y.to(device), k, block=block)
    squared, index = squared.cpu(), index.cpu()
    assert squared.dtype == x.dtype
    assert index.dtype == torch.int64
    assert all(len(set(row)) == k for row in index.tolist())
    torch.testing.assert_close(squared.double(), right, rtol=DTYPES[x.dtype], atol=0)
    torch.testing.assert_close(apart.gather(1, index), right, rtol=DTYPES[x.dtype], atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 3, 8, 9, 17, 130])
@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 1), (2, 17, 3), (63, 70, 5), (70, 33, 16)])
def test_any_size(n, m, k, d, dtype, kernel_device):
    check(*samples(n, m, d, dtype), k, kernel_device)


@pytest.mark.parametrize("d", [2, 20])
def test_tiles_are_shared_among_programs(d, kernel_device, monkeypatch):
    from monge.gpu import search as module

    for count in (2, 5):
        monkeypatch.setattr(module, "splits", lambda _, rows, tiles, c=count: min(c, tiles))
        check(*samples(20, 70, d), 4, kernel_device)


@pytest.mark.parametrize("d", [2, 8])
def test_of_equals_the_first(d, kernel_device, monkeypatch):
    """Points of a lattice, each several times: the order of a stable sort."""
    from monge.gpu import search as module

    x, y = (z.mul(0.7).round() for z in samples(30, 40, d))
    y = torch.cat([y, y[:25], y[5:15]])
    apart = (x.double()[:, None] - y.double()).square().sum(-1)
    order = apart.sort(dim=1, stable=True)
    for count in (1, 3):
        monkeypatch.setattr(module, "splits", lambda *_, c=count: c)
        for k in (1, 4, 7):
            squared, index = module.nearest_rows(
                x.to(kernel_device), y.to(kernel_device), k, block=16
            )
            assert torch.equal(squared.double().cpu(), order.values[:, :k])
            assert torch.equal(index.cpu(), order.indices[:, :k])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [2, 20])
def test_far_clusters_and_rows_found_again(d, dtype, kernel_device):
    """Clusters at ±10⁴ have no digits of their distances in a product of float32."""
    x, y = samples(40, 40, d, dtype)
    x[::2] += 1e4
    y[::2] += 1e4
    x[5] = y[7] = 1e8
    y[3] = x[8]
    check(x, y, 3, kernel_device)
    squared, index = choose_search(kernel_device, batched=False)(
        x.to(kernel_device), x.to(kernel_device), 1, None
    )
    assert (squared == 0).all()
    assert torch.equal(index[:, 0].cpu(), torch.arange(40))


@pytest.mark.parametrize("scale", [1e-18, 1e18])
@pytest.mark.parametrize("d", [2, 20])
def test_squares_at_the_ends_of_the_range(d, scale, kernel_device):
    x, y = samples(20, 30, d)
    check((scale * x).double().float(), (scale * y).double().float(), 2, kernel_device)


def test_public_functions_take_it(kernel_device):
    x, y = samples(20, 30, 5)
    far = x.to(kernel_device), y.to(kernel_device)
    apart = torch.cdist(x.double(), y.double()).square()
    for k in (1, 3, 20):
        squared, index = nearest(*far, k)
        right = apart.topk(k, largest=False)
        torch.testing.assert_close(squared.double().cpu(), right.values, rtol=1e-5, atol=1e-6)
        assert torch.equal(index.cpu(), right.indices)
    _, index = nearest(*far, 2, convert=lambda z: z * 1.0)
    assert torch.equal(index.cpu(), apart.topk(2, largest=False).indices)
    least = nearest_squared(*far)
    torch.testing.assert_close(least.double().cpu(), apart.amin(1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("N", "M", "d"), [(30, 25, 3), (17, 70, 2), (65, 64, 11)])
def test_sets_against_trees(N, M, d, dtype, kernel_device):
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, k, d, generator=draw, dtype=dtype) for k in (N, M))
    index = nearest_in_sets(x.to(kernel_device), y.to(kernel_device))
    assert torch.equal(index.cpu(), _in_sets_by_trees(x, y))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
def test_chamfer_with_its_gradient(scale, dtype, kernel_device):
    """Against NumPy: 2 (x_i - y_there) / N and the pull of those that chose x_i."""
    if dtype == torch.float32 and scale < 1:
        pytest.skip("the distances themselves are below float32")
    draw = torch.Generator().manual_seed(1)
    x, y = (torch.randn(2, k, 3, generator=draw, dtype=torch.float64) for k in (40, 35))
    far = (scale * x).to(kernel_device, dtype).requires_grad_()
    value = chamfer(far, (scale * y).to(kernel_device, dtype))
    (gradient,) = torch.autograd.grad(value.sum(), far)
    for b in range(2):
        u, v = x[b].numpy(), y[b].numpy()
        apart = ((u[:, None] - v) ** 2).sum(-1)
        there, back = apart.argmin(1), apart.argmin(0)
        right = apart.min(1).mean() + apart.min(0).mean()
        slope = 2 * (u - v[there]) / len(u)
        np.add.at(slope, back, 2 * (u[back] - v) / len(v))
        assert float(value[b].detach()) / scale**2 == pytest.approx(right, rel=1e-5)
        np.testing.assert_allclose(gradient[b].double().cpu() / scale, slope, rtol=1e-4, atol=1e-5)


def test_more_sets_than_a_grid_has_are_searched_in_parts(kernel_device, monkeypatch):
    from monge.gpu import search

    monkeypatch.setattr(search, "MOST_SETS", 2)
    x, y = torch.randn(5, 3, 2).to(kernel_device), torch.randn(5, 4, 2).to(kernel_device)
    right = torch.cdist(x.double(), y.double()).argmin(2)
    assert torch.equal(search.nearest_points(x, y), right)
