"""Kernels against SciPy's distances and their formulas; the algebra; the WAE paper's kernel."""

import dataclasses
import resource
import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import hyp1f1
from torch._dynamo.exc import BackendCompilerFailed

from monge._core import tuning
from monge.kernels import (
    IMQ,
    RBF,
    Compiled,
    Energy,
    Laplace,
    RationalQuadratic,
    median_distance,
    multiscale_imq,
    pair_sum,
    sliced_gaussian,
)

FORMULAS = {
    "rbf": (RBF(0.7), lambda d: np.exp(-(d**2) / (2 * 0.7**2))),
    "imq": (IMQ(3.0), lambda d: 3.0 / (3.0 + d**2)),
    "laplace": (Laplace(0.7), lambda d: np.exp(-d / 0.7)),
    "rq": (RationalQuadratic(0.7, 1.4), lambda d: (1 + d**2 / (2 * 1.4 * 0.7**2)) ** -1.4),
    "energy": (Energy(), lambda d: -d),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrix_equals_the_formula_at_scipys_distances(name, dtype):
    kernel, formula = FORMULAS[name]
    x, y = torch.randn(9, 4, dtype=dtype), torch.randn(6, 4, dtype=dtype)
    expected = formula(cdist(x.double().numpy(), y.double().numpy()))
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    np.testing.assert_allclose(kernel(x, y).numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["rbf", "imq", "laplace", "rq"])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_point_with_itself_gives_one_exactly(name, offset):
    """Also far from the origin, in float32, where ‖x‖² + ‖y‖² - 2x·y would have no digits left."""
    x = torch.randn(20, 8) + offset
    assert torch.equal(FORMULAS[name][0](x, x).diagonal(), torch.ones(20))


def test_far_laws_in_high_dimension_are_far():
    """N(0, 1) against N(3, 1) in d = 128: cross values are small, so MMD² is near 2 E k(x, x')."""
    x, y = torch.randn(200, 128), torch.randn(200, 128) + 3
    kernel = multiscale_imq(2.0 * 128)
    within = (kernel(x, x).sum() - 7 * 200) / (200 * 199)
    assert 2 * (within - kernel(x, y).mean()) > 2


def test_multiscale_is_the_sum_of_the_papers_seven_scales():
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    squared = torch.from_numpy(cdist(x.numpy(), y.numpy(), "sqeuclidean"))
    base = 16.0
    expected = sum(s * base / (s * base + squared) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))
    torch.testing.assert_close(multiscale_imq(base)(x, y), expected)
    torch.testing.assert_close(
        multiscale_imq(base)(x, x).diagonal(), torch.full((5,), 7.0, dtype=torch.float64)
    )


def test_algebra_is_pointwise():
    x, y = torch.randn(5, 3), torch.randn(4, 3)
    a, b = RBF(1.0), IMQ(2.0)
    torch.testing.assert_close((a + b)(x, y), a(x, y) + b(x, y))
    torch.testing.assert_close((a * b)(x, y), a(x, y) * b(x, y))
    torch.testing.assert_close((0.3 * a)(x, y), 0.3 * a(x, y))


@pytest.mark.parametrize("name", FORMULAS)
def test_gradient_is_finite_where_points_coincide(name):
    x = torch.randn(5, 3)
    x[1] = x[0]
    x.requires_grad_()
    FORMULAS[name][0](x, x).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("make", [RBF, IMQ, Laplace, multiscale_imq])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_must_be_positive(make, value):
    with pytest.raises(ValueError, match="must be positive"):
        make(value)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_sums_by_blocks_equal_the_matrix_with_their_gradients(name, offset, monkeypatch):
    """Blocks that do not divide the samples; also far from the origin."""
    monkeypatch.setattr(tuning, "CPU", dataclasses.replace(tuning.CPU, kernel_rows=4))
    kernel = FORMULAS[name][0]
    x = (torch.randn(11, 3, dtype=torch.float64) + offset).requires_grad_()
    y = (torch.randn(6, 3, dtype=torch.float64) + offset).requires_grad_()
    within = kernel(x, x).sum() - kernel(x, x).diagonal().sum()
    for ours, expected, leaves in (
        (pair_sum(kernel, x, y), kernel(x, y).sum(), [x, y]),
        (pair_sum(kernel, x), within, [x]),
    ):
        torch.testing.assert_close(ours, expected)
        gradients = zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(expected, leaves))
        for g, h in gradients:
            torch.testing.assert_close(g, h, rtol=1e-6, atol=1e-9)


def test_sums_by_blocks_are_twice_differentiable():
    x, y = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (4, 3))
    kernel = IMQ(1.0) + RBF(0.7)
    assert torch.autograd.gradgradcheck(lambda x, y: pair_sum(kernel, x, y), (x, y))
    assert torch.autograd.gradgradcheck(lambda x: pair_sum(kernel, x), x)


def test_sums_by_blocks_need_no_matrix():
    """20,000 samples, whose matrix of distances alone would take 1.6 GB."""
    x = torch.randn(20_000, 2, requires_grad=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pair_sum(IMQ(1.0), x).backward()
    assert torch.isfinite(x.grad).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize(
    "kernel",
    [k for k, _ in FORMULAS.values()]
    + [
        RBF(1.0) + 0.5 * IMQ(2.0) * Laplace(1.0) * RBF(2.0),
        multiscale_imq(3.0),
    ],
)
def test_slopes_are_the_derivatives(kernel):
    squared = torch.rand(4, 5, dtype=torch.float64).requires_grad_()
    value, slope = kernel.with_slope(squared.detach().clone())
    expected = kernel.of_squared(squared)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), squared)[0])
    assert torch.isfinite(kernel.with_slope(torch.zeros(2))[1]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method")
def test_compiled_kernels_are_the_same_kernels():
    x, y = torch.randn(30, 2, requires_grad=True), torch.randn(20, 2)
    kernel = multiscale_imq(2.0)
    with warnings.catch_warnings():
        # without a compiler it says so, and gives the same
        warnings.filterwarnings("ignore", "the kernel is not compiled")
        ours = torch.autograd.grad(pair_sum(Compiled(kernel), x, y), x)
    torch.testing.assert_close(ours, torch.autograd.grad(pair_sum(kernel, x, y), x))


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method")
def test_without_a_compiler_a_kernel_says_so_and_works():
    def fail(*_):
        raise BackendCompilerFailed(fail, RuntimeError("no C++ compiler"), None)

    kernel = Compiled(IMQ(1.0))
    kernel.fused = fail
    squared = torch.rand(3, 4)
    with pytest.warns(UserWarning, match="not compiled: .*"):
        value, slope = kernel.with_slope(squared)
    expected = IMQ(1.0).with_slope(squared)
    torch.testing.assert_close((value, slope), expected)
    assert kernel.with_slope(squared)[0].shape == (3, 4)


def test_median_distance_is_that_of_all_pairs():
    x = torch.randn(40, 3, dtype=torch.float64)
    pairs = cdist(x.numpy(), x.numpy())[np.triu_indices(40, 1)]
    assert median_distance(x) == pytest.approx(np.sort(pairs)[(len(pairs) - 1) // 2])
    # in high dimension the median of a law is its root mean squared distance
    z = torch.randn(500, 200, generator=torch.Generator().manual_seed(0))
    assert median_distance(z) == pytest.approx((2 * 200) ** 0.5, rel=0.01)


@pytest.mark.parametrize("x", [torch.zeros(5, 2), torch.randn(1, 2), torch.randn(5)])
def test_a_sample_without_a_median_distance_is_refused(x):
    with pytest.raises(ValueError, match="`x`"):
        median_distance(x)


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 64, 784, 3000])
def test_the_sliced_gaussian_is_a_hypergeometric_function(dim):
    r = np.concatenate([[0.0], 10.0 ** np.linspace(-3, 3, 50)]) * 1.3 * dim**0.5
    ours = sliced_gaussian(dim, 1.3).of_squared(torch.from_numpy(r**2)).numpy()
    np.testing.assert_allclose(ours, hyp1f1(0.5, dim / 2, -(r**2) / 2 / 1.3**2), atol=1e-7)


def test_the_sliced_gaussian_is_a_mean_over_slices():
    x, y = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    theta = torch.nn.functional.normalize(torch.randn(10**6, 3, dtype=torch.float64), dim=1)
    slices = ((x[:, None] - y) @ theta.T).square().div(-2 * 0.7**2).exp().mean(-1)
    torch.testing.assert_close(sliced_gaussian(3, 0.7)(x, y), slices, rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match="`dim`"):
        sliced_gaussian(0, 1.0)
    with pytest.raises(ValueError, match="`s` must be positive"):
        sliced_gaussian(3, 0.0)


def test_numbers_are_constant_kernels():
    """In sums and products, on either side, so that Python's `sum` adds kernels."""
    x, y = torch.randn(4, 2), torch.randn(3, 2)
    one, other = IMQ(1.0), RBF(2.0)
    expected = 3 + 2 * one(x, y)
    for kernel in (3 + 2 * one, one * 2.0 + 3.0, torch.tensor(3.0) + one * torch.tensor(2.0)):
        torch.testing.assert_close(kernel(x, y), expected)
        torch.testing.assert_close(pair_sum(kernel, x, y), expected.double().sum())
    torch.testing.assert_close(sum([one, other])(x, y), one(x, y) + other(x, y))
    with pytest.raises(ValueError, match="`value` must be at least 0"):
        one + "a"
