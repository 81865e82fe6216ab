"""The line's closed form and its average over directions, against POT, SciPy and closed forms."""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from monge.draws import generator
from monge.transport import (
    quantile_map,
    sliced_wasserstein,
    uniform_directions,
    wasserstein_1d,
)


def weights(n, seed):
    w = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.1
    return w / w.sum()


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize(("n", "m"), [(7, 7), (7, 4), (1, 5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_line_equals_pot(p, n, m, weighted):
    u, v = doubles(3, n), doubles(3, m)
    a, b = (weights(n, 1), weights(m, 2)) if weighted else (None, None)
    ours = wasserstein_1d(u, v, a, b, p=p)
    for i in range(3):
        args = (None, None) if a is None else (a.numpy(), b.numpy())
        theirs = ot.wasserstein_1d(u[i].numpy(), v[i].numpy(), *args, p=p) ** (1 / p)
        assert float(ours[i]) == pytest.approx(float(theirs), rel=1e-10)


def test_line_with_p_one_equals_scipy():
    u, v, a, b = doubles(8), doubles(5), weights(8, 1), weights(5, 2)
    expected = wasserstein_distance(u.numpy(), v.numpy(), a.numpy(), b.numpy())
    assert float(wasserstein_1d(u, v, a, b, p=1)) == pytest.approx(expected, rel=1e-12)


def test_line_of_large_gaussian_samples_has_the_closed_form():
    """W_2²(N(m1, s1²), N(m2, s2²)) = (m1 - m2)² + (s1 - s2)²."""
    levels = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    z = torch.special.ndtri(levels)
    value = wasserstein_1d(1 + 2 * z, -1 + 0.5 * z)
    assert float(value) == pytest.approx(math.sqrt(4 + 2.25), rel=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_line_gradient_equals_finite_differences(weighted, p):
    u, v = doubles(2, 5).requires_grad_(), doubles(2, 4 if weighted else 5).requires_grad_()
    a, b = (weights(5, 1), weights(4, 2)) if weighted else (None, None)
    assert torch.autograd.gradcheck(lambda u, v: wasserstein_1d(u, v, a, b, p=p), (u, v))


def test_line_gradient_at_equal_samples_is_zero():
    u = doubles(6).requires_grad_()
    wasserstein_1d(u, u.detach().clone()).backward()
    assert torch.equal(u.grad, torch.zeros(6, dtype=torch.float64))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6))
def test_line_is_a_metric(n, m, k, seed):
    random = np.random.default_rng(seed)
    x, y, z = (torch.from_numpy(random.normal(size=size)) for size in (n, m, k))
    xy, yz, xz = wasserstein_1d(x, y), wasserstein_1d(y, z), wasserstein_1d(x, z)
    assert xz <= xy + yz + 1e-9
    assert abs(xy - wasserstein_1d(y, x)) < 1e-12
    assert wasserstein_1d(x, x.flip(0)) < 1e-12


@given(st.integers(1, 6), st.integers(2, 4), st.integers(0, 10**6))
def test_repeating_a_sample_changes_nothing(n, times, seed):
    random = np.random.default_rng(seed)
    x, y = torch.from_numpy(random.normal(size=n)), torch.from_numpy(random.normal(size=n + 1))
    assert float(wasserstein_1d(x.repeat(times), y)) == pytest.approx(
        float(wasserstein_1d(x, y)), abs=1e-9
    )


def test_quantile_map_is_the_sorted_matching_and_optimal():
    u, v = doubles(20), doubles(20)
    image = quantile_map(u, v)
    assert sorted(image.tolist()) == sorted(v.tolist())
    assert float((u - image).square().mean().sqrt()) == pytest.approx(float(wasserstein_1d(u, v)))


def test_quantile_map_for_unequal_sizes_is_the_generalised_inverse():
    assert quantile_map(torch.tensor([3.0, 1.0]), torch.tensor([10.0, 40, 30, 20])).tolist() == [
        40.0,
        20.0,
    ]
    assert quantile_map(torch.tensor([2.0, 4, 1, 3]), torch.tensor([5.0, 9])).tolist() == [
        5.0,
        9,
        5,
        9,
    ]


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_sliced_equals_pot_on_the_same_directions(p, weighted):
    x, y = doubles(12, 4), doubles(9, 4)
    a, b = (weights(12, 1), weights(9, 2)) if weighted else (None, None)
    theta = uniform_directions(30, 4, generator=generator(0)).double()
    theirs = ot.sliced_wasserstein_distance(
        x.numpy(),
        y.numpy(),
        None if a is None else a.numpy(),
        None if b is None else b.numpy(),
        projections=theta.T.numpy(),
        p=p,
    )
    ours = sliced_wasserstein(x, y, a, b, p=p, directions=theta)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


def test_sliced_of_translated_samples():
    """Equal covariances: SW_2² = ‖v‖²/d in expectation over directions."""
    x, v = doubles(50, 5), torch.tensor([1.0, 2, 0, 0, 2])
    value = sliced_wasserstein(x, x + v, directions=20_000, generator=generator(0))
    assert float(value) == pytest.approx(3 / math.sqrt(5), rel=0.02)


def test_sliced_on_the_line_is_the_line():
    x, y = doubles(9, 1), doubles(6, 1)
    assert float(sliced_wasserstein(x, y)) == pytest.approx(
        float(wasserstein_1d(x[:, 0], y[:, 0])), rel=1e-6
    )


def test_directions_are_uniform_on_the_sphere():
    theta = uniform_directions(20_000, 3, generator=generator(0))
    torch.testing.assert_close(theta.norm(dim=1), torch.ones(20_000))
    torch.testing.assert_close(theta.T @ theta / 20_000, torch.eye(3) / 3, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((torch.zeros(0), torch.zeros(3)), "`u`"),
        ((torch.tensor([1.0, math.nan]), torch.zeros(3)), "`u`"),
        ((torch.zeros(3), torch.tensor([math.inf])), "`v`"),
        ((torch.zeros(3, dtype=torch.complex64), torch.zeros(3)), "`u`"),
        ((torch.zeros(2), torch.zeros(3), torch.tensor([0.7, 0.7])), "`a`"),
        ((torch.zeros(2), torch.zeros(3), torch.tensor([1.5, -0.5])), "`a`"),
        ((torch.zeros(2), torch.zeros(3), torch.ones(3) / 3), "`a`"),
    ],
)
def test_bad_input_on_the_line_is_named(arguments, word):
    with pytest.raises(ValueError, match=word):
        wasserstein_1d(*arguments)


def test_order_below_one_is_refused():
    with pytest.raises(ValueError, match="`p`"):
        sliced_wasserstein(torch.zeros(2, 2), torch.zeros(2, 2), p=0.5)


@pytest.mark.parametrize("n", [7, 10, 33])
def test_repeating_a_sample_changes_nothing_in_float32(n):
    """Equal levels of two sizes must be equal numbers, or values far apart meet."""
    u = 10 * torch.randn(n)
    assert wasserstein_1d(u, u.repeat_interleave(3)) == 0


def test_equal_values_share_out_their_images():
    image = quantile_map(torch.tensor([1.0, 1.0]), torch.tensor([5.0, 0.0]))
    assert image.tolist() == [0.0, 5.0]
