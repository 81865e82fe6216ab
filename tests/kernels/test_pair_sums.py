"""Sums over all pairs by Triton's kernel against the blocks of the CPU: values and gradients."""

import pytest
import torch

from monge.gpu.launch import is_usable
from monge.kernels import (
    IMQ,
    RBF,
    Compiled,
    Energy,
    Kernel,
    Laplace,
    RationalQuadratic,
    choose_pair_sum,
    multiscale_imq,
    pair_sum,
)
from monge.kernels.sums import _by_blocks, terms_of

KERNELS = {
    "rbf": RBF(1.5),
    "imq": IMQ(3.0),
    "laplace": Laplace(0.7),
    "rational": RationalQuadratic(0.7, 1.4),
    "energy": Energy(),
    "multiscale": multiscale_imq(4.0),
    "mixed": 0.5 * RBF(1.0) + 2.0 * (Laplace(2.0) + IMQ(1.0)) + 0.3 * Energy() * 2.0,
    "constant": RBF(1.0) + 0.5 * RationalQuadratic(1.0, 0.5) + Energy() * 0.0,
}
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}


def samples(n, m, d, dtype=torch.float32, offset=0.0):
    draw = torch.Generator().manual_seed(n + 1000 * m + d)
    scale = d**-0.5
    x = scale * torch.randn(n, d, generator=draw, dtype=torch.float64) + offset
    y = 1.3 * scale * torch.randn(m, d, generator=draw, dtype=torch.float64) + 0.2 * scale + offset
    return x.to(dtype), y.to(dtype)


def check(kernel, x, y, device, wanted=(True, True), tiles=(32, 16, 16)):
    """Against the sums of the same points by blocks on a CPU in float64."""
    from monge.gpu.pair_sums import Tiles, sum_terms

    terms = terms_of(kernel)
    assert terms is not None
    wide = [None if z is None else z.double() for z in (x, y)]
    right, slopes = _by_blocks(kernel, wide[0], wide[1], wanted)
    x, y = (None if z is None else z.to(device) for z in (x, y))
    value, gradients = sum_terms(terms, x, y, wanted, tiles=Tiles(*tiles))
    rtol = TOLERANCE[x.dtype]
    assert value.dtype == torch.float64
    torch.testing.assert_close(value.cpu(), right, rtol=rtol, atol=rtol)
    for gradient, slope in zip(gradients, slopes):
        assert (gradient is None) == (slope is None)
        if gradient is not None:
            assert gradient.dtype == x.dtype
            atol = rtol * float(slope.abs().max())
            torch.testing.assert_close(gradient.double().cpu(), slope, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("name", KERNELS)
def test_every_term_with_its_slope(name, d, dtype, kernel_device):
    """By differences in three dimensions and by products in twenty."""
    x, y = samples(33, 17, d, dtype)
    check(KERNELS[name], x, y, kernel_device, tiles=(16, 16, 32))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("d", [1, 2, 8, 9, 17, 64, 130])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 17), (63, 70), (70, 2)])
def test_any_size(n, m, d, dtype, kernel_device):
    x, y = samples(n, m, d, dtype)
    check(KERNELS["multiscale"], x, y, kernel_device)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("d", [2, 30])
@pytest.mark.parametrize("moving", [True, False])
@pytest.mark.parametrize("n", [1, 2, 63, 70])
def test_one_sample_with_itself(n, moving, d, dtype, kernel_device):
    """Without the pairs of a point with itself, each pair of tiles once where nothing moves."""
    x, _ = samples(n, 1, d, dtype)
    check(KERNELS["mixed"], x, None, kernel_device, (moving, False), tiles=(16, 16, 32))


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_only_what_is_wanted(wanted, kernel_device):
    check(KERNELS["imq"], *samples(40, 50, 12), kernel_device, wanted, tiles=(16, 16, 32))


@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("name", ["multiscale", "laplace", "energy"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_far_clusters_and_coincident_points(name, d, dtype, kernel_device):
    """Clusters at ±10⁴, points that both samples hold, and one at 10⁸: a product has no digits of
    the distances inside a cluster."""
    x, y = samples(40, 40, d, dtype)
    x[:20] += 1e4
    y[:20] -= 1e4
    y[25:30] = x[25:30]
    x[31] = x[32]
    x[39] = y[38] = 1e8
    check(KERNELS[name], x, y, kernel_device, tiles=(16, 16, 32))
    check(KERNELS[name], x, None, kernel_device, (True, False), tiles=(16, 16, 32))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("d", [3, 20])
def test_squares_and_constants_beyond_float32(d, scale, kernel_device):
    """In another unit the value is the same, and the gradient its inverse."""
    from monge.gpu.pair_sums import Tiles, sum_terms

    x, y = samples(20, 18, d, torch.float64)
    kernels = [
        (lambda s: RBF(s) + 2.0 * IMQ(s**2) + Laplace(s) + RationalQuadratic(s, 0.7), 1.0),
        (lambda s: Energy(), scale),
    ]
    for make, unit in kernels:
        terms = terms_of(make(scale))
        assert terms is not None
        right, (slope, _) = _by_blocks(make(1.0), x, y, (True, False))
        far, other = ((scale * z).float().to(kernel_device) for z in (x, y))
        tiles = Tiles(16, 16, 32)
        value, (gradient, _) = sum_terms(terms, far, other, (True, False), tiles=tiles)
        torch.testing.assert_close(value.cpu() / unit, right, rtol=1e-6, atol=0)
        torch.testing.assert_close(
            (scale / unit) * gradient.double().cpu(), slope, rtol=1e-5, atol=1e-6
        )


def test_tiles_are_shared_among_programs(kernel_device, monkeypatch):
    from monge.gpu import pair_sums

    for count in (2, 3, 5):
        monkeypatch.setattr(pair_sums, "splits", lambda _, rows, tiles, c=count: min(c, tiles))
        x, y = samples(35, 70, 20)
        check(KERNELS["imq"], x, y, kernel_device, tiles=(16, 16, 32))
        check(KERNELS["imq"], y, None, kernel_device, (False, False), tiles=(16, 16, 32))


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method")
def test_the_public_sum_takes_it(kernel_device):
    """Value and gradient through autograd; second derivatives through the matrix."""
    kernel = Compiled(KERNELS["multiscale"])
    x, y = (z.to(kernel_device).requires_grad_() for z in samples(20, 30, 4, torch.float64))
    assert choose_pair_sum(kernel, x).func.__name__ == "sum_terms"
    (gradient,) = torch.autograd.grad(pair_sum(kernel, x, y), x)
    right = kernel(x.detach().requires_grad_(), y)
    leaf = x.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(kernel(leaf, y.detach()).sum(), leaf)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(pair_sum(kernel, x, y), right.sum())
    (slope,) = torch.autograd.grad(pair_sum(kernel, x, y), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), x)
    assert torch.isfinite(second).all()


class Stranger(RBF):
    """A kernel that someone else has derived from one of the package's."""

    def of_squared(self, squared):
        return super().of_squared(squared).square()

    def with_slope(self, squared):
        k, dk = super().with_slope(squared)
        return k.square(), 2 * k * dk


@pytest.mark.parametrize(
    "kernel", [Stranger(1.0), RBF(1.0) * IMQ(1.0), RBF(1.0) + Stranger(2.0) * 0.5], ids=repr
)
def test_other_kernels_have_no_terms(kernel: Kernel):
    """They are summed by blocks of matrices, on every device."""
    assert terms_of(kernel) is None
    x = torch.randn(4, 2)
    assert choose_pair_sum(kernel, x).func is _by_blocks


def test_the_cpu_sums_by_blocks():
    if is_usable(torch.device("cpu")):
        pytest.skip("kernels are interpreted")
    assert choose_pair_sum(IMQ(1.0), torch.randn(4, 2)).func is _by_blocks
