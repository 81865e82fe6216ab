"""Gaussian and discrete laws: closed forms, maps that push forward, and their gradients."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from monge.transport import (
    gaussian_kl,
    gaussian_map,
    gaussian_wasserstein,
    jensen_shannon,
    kullback_leibler,
    total_variation,
    wasserstein_1d,
)


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def covariance(d):
    root = doubles(d, d)
    return root @ root.T + 0.1 * torch.eye(d, dtype=torch.float64)


def test_commuting_covariances_have_the_diagonal_formula():
    basis = torch.linalg.qr(doubles(4, 4)).Q
    s, t, m = torch.rand(4).double() + 0.1, torch.rand(4).double() + 0.1, doubles(4)
    cov0, cov1 = (basis * s**2) @ basis.T, (basis * t**2) @ basis.T
    expected = (m.square().sum() + (s - t).square().sum()).sqrt()
    value = gaussian_wasserstein(torch.zeros(4).double(), cov0, m, cov1)
    torch.testing.assert_close(value, expected)


def test_in_one_dimension_it_is_the_quantile_formula():
    z = torch.special.ndtri((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    one = torch.ones(1).double()
    value = gaussian_wasserstein(one, 4 * one[:, None], -one, 0.25 * one[:, None])
    assert float(value) == pytest.approx(float(wasserstein_1d(1 + 2 * z, -1 + 0.5 * z)), rel=1e-4)


def test_map_pushes_forward_and_attains_the_distance():
    m0, m1, c0, c1 = doubles(3), doubles(3), covariance(3), covariance(3)
    linear, offset = gaussian_map(m0, c0, m1, c1)
    torch.testing.assert_close(linear @ m0 + offset, m1)
    torch.testing.assert_close(linear @ c0 @ linear.T, c1)
    torch.testing.assert_close(linear, linear.T)
    assert torch.linalg.eigvalsh(linear).min() > 0
    move = linear - torch.eye(3).double()
    cost = ((m1 - m0).square().sum() + torch.trace(move @ c0 @ move.T)).sqrt()
    torch.testing.assert_close(gaussian_wasserstein(m0, c0, m1, c1), cost)


def test_map_satisfies_monges_change_of_variables():
    """f(x) = g(T(x)) |det ∇T| for densities f of the source and g of the target."""
    m0, m1, c0, c1 = doubles(3), doubles(3), covariance(3), covariance(3)
    linear, offset = gaussian_map(m0, c0, m1, c1)
    x = doubles(5, 3)
    f = MultivariateNormal(m0, c0).log_prob(x)
    g = MultivariateNormal(m1, c1).log_prob(x @ linear + offset)
    torch.testing.assert_close(f, g + torch.linalg.slogdet(linear).logabsdet)


def test_gaussian_gradient_equals_finite_differences():
    def value(m0, r0, m1, r1):
        eye = 0.1 * torch.eye(3).double()
        return gaussian_wasserstein(m0, r0 @ r0.T + eye, m1, r1 @ r1.T + eye)

    inputs = [doubles(*shape).requires_grad_() for shape in ((3,), (3, 3)) * 2]
    assert torch.autograd.gradcheck(value, inputs, atol=1e-6)


def posdef(r):
    return r @ r.T + torch.eye(len(r)).double()


@pytest.mark.parametrize("ratio", [None, 1.0, 4.0])
def test_gaussian_second_derivatives_equal_finite_differences(ratio):
    """Also where eigenvalues coincide: covariances equal up to a scale, and multiples of I."""
    m0, m1, r0, r1 = doubles(3), doubles(3), doubles(3, 3), doubles(3, 3)
    if ratio is not None:
        r0 = torch.zeros(3, 3).double() if ratio == 4 else r0

    def value(m0, r0, m1, r1):
        cov1 = posdef(r1) if ratio is None else ratio * posdef(r0) + r1 + r1.T
        return gaussian_wasserstein(m0, posdef(r0), m1, cov1)

    if ratio is not None:
        r1 = torch.zeros(3, 3).double()
    inputs = [z.clone().requires_grad_() for z in (m0, r0, m1, r1)]
    assert torch.autograd.gradcheck(value, inputs, atol=1e-6)
    assert torch.autograd.gradgradcheck(value, inputs, atol=1e-5, rtol=1e-4)


def test_second_derivatives_at_singular_covariances_are_refused():
    cov = torch.diag(torch.tensor([1.0, 0.0])).double().requires_grad_()
    zero, eye = torch.zeros(2).double(), torch.eye(2).double()
    (slope,) = torch.autograd.grad(
        gaussian_wasserstein(zero, cov, zero, eye), cov, create_graph=True
    )
    with pytest.raises(RuntimeError, match="first derivatives only"):
        slope.sum().backward()


def test_map_has_two_derivatives():
    m0, m1, r0, r1 = (doubles(*shape) for shape in ((3,), (3,), (3, 3), (3, 3)))

    def mapped(m0, r0, m1, r1):
        return gaussian_map(m0, posdef(r0), m1, posdef(r1))

    for r in (r0, torch.zeros(3, 3).double()):
        inputs = [z.clone().requires_grad_() for z in (m0, r, m1, r1)]
        assert torch.autograd.gradcheck(mapped, inputs, atol=1e-6)
        assert torch.autograd.gradgradcheck(mapped, inputs, atol=1e-5, rtol=1e-4)


def test_map_of_a_singular_covariance():
    """From diag(1, 0) the plane cannot be filled; a line can be stretched."""
    zero, eye = torch.zeros(2).double(), torch.eye(2).double()
    flat, other = (
        torch.diag(torch.tensor([1.0, 0.0])).double(),
        torch.diag(torch.tensor([0.0, 1.0])),
    )
    for cov1 in (eye, other.double(), flat + 1e-6 * eye):
        with pytest.raises(ValueError, match="`cov0` is singular"):
            gaussian_map(zero, flat, zero, cov1)
        with pytest.raises(ValueError, match="`cov0` is singular"):
            gaussian_map(zero, 0 * eye, zero, cov1)
    for cov0, cov1 in ((flat, 9 * flat), (eye, 9 * flat), (0 * eye, 0 * eye), (flat, 0 * eye)):
        linear, _ = gaussian_map(zero, cov0, zero, cov1)
        torch.testing.assert_close(linear @ cov0 @ linear.T, cov1)
    with pytest.raises(ValueError, match="positive definite for a gradient"):
        gaussian_map(zero, flat.requires_grad_(), zero, flat)


@pytest.mark.parametrize("size", [1e-15, 1e-6, 1.0, 1e6, 1e15])
def test_gaussians_of_every_scale_in_float32(size):
    """Covariances of 10⁻³⁰ to 10³⁰: lengths and maps scale with them."""
    basis = torch.linalg.qr(doubles(3, 3)).Q
    s, t = (torch.tensor(z).double() for z in ((1.0, 2.0, 3.0), (2.0, 1.0, 0.5)))
    cov0, cov1 = ((basis * z**2 * size**2) @ basis.T for z in (s, t))
    cov0, cov1 = ((0.5 * (cov + cov.T)).float() for cov in (cov0, cov1))
    m0, m1 = torch.zeros(3), torch.tensor([size, 0, 0])
    value = gaussian_wasserstein(m0, cov0, m1, cov1)
    assert value.dtype == torch.float32
    expected = size * math.sqrt(1 + float((s - t).square().sum()))
    assert float(value) == pytest.approx(expected, rel=1e-5)
    linear, _ = gaussian_map(m0, cov0, m1, cov1)
    torch.testing.assert_close(linear.double(), (basis * (t / s)) @ basis.T, atol=1e-5, rtol=1e-5)


def test_far_and_large_means_in_float32():
    eye, far = torch.eye(2), torch.tensor([1e8, 0.0])
    assert float(gaussian_wasserstein(far, eye, far + torch.tensor([8.0, 0]), eye)) == 8
    assert float(gaussian_wasserstein(far, eye, far, 4 * eye)) == pytest.approx(math.sqrt(2))
    for size in (1e20, 1e-20):
        value = gaussian_wasserstein(size * far / 1e8, 0 * eye, 0 * far, 0 * eye)
        assert float(value) == pytest.approx(size, rel=1e-6)


def test_nearly_singular_covariances_keep_their_digits():
    """Diagonal, turned: W_2 = ‖√λ - √μ‖, of eigenvalues down to 10⁻²⁰."""
    basis = torch.linalg.qr(doubles(3, 3)).Q
    s, t = (torch.tensor(z).double() for z in ((1.0, 1e-4, 1e-10), (1.0, 3e-4, 1e-2)))
    cov0, cov1 = ((basis * z**2) @ basis.T for z in (s, t))
    zero = torch.zeros(3).double()
    value = gaussian_wasserstein(zero, (cov0 + cov0.T) / 2, zero, (cov1 + cov1.T) / 2)
    assert float(value) == pytest.approx(float((s - t).norm()), rel=1e-5)


def test_singular_covariances():
    flat, zero = torch.diag(torch.tensor([4.0, 0.0])).double(), torch.zeros(2).double()
    eye = torch.eye(2).double()
    assert float(gaussian_wasserstein(zero, flat, zero, eye)) == pytest.approx(math.sqrt(2))
    assert float(gaussian_wasserstein(zero, eye, zero, flat)) == pytest.approx(math.sqrt(2))
    assert float(gaussian_wasserstein(zero, 0 * eye, zero, eye)) == pytest.approx(math.sqrt(2))


def test_equal_gaussians_are_at_distance_zero_with_gradient_zero():
    mean, cov = doubles(3).requires_grad_(), covariance(3)
    value = gaussian_wasserstein(mean, cov, mean.detach(), cov)
    assert value < 1e-7


def test_gaussian_kl_is_torchs():
    m0, m1, c0, c1 = doubles(3), doubles(3), covariance(3), covariance(3)
    trace = torch.trace(torch.linalg.solve(c1, c0))
    distance = (m1 - m0) @ torch.linalg.solve(c1, m1 - m0)
    expected = 0.5 * (trace + distance - 3 + torch.logdet(c1) - torch.logdet(c0))
    torch.testing.assert_close(gaussian_kl(m0, c0, m1, c1), expected)


@pytest.mark.parametrize(
    ("cov", "word"),
    [
        (
            torch.tensor([[1.0, 0.5], [0.2, 1.0]]),
            "symmetric, but differs from its transpose by 0.3",
        ),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "semidefinite"),
        (torch.zeros(2, 3), "shapes"),
        (torch.full((2, 2), math.nan), "`cov1`"),
    ],
)
def test_bad_covariances_are_named(cov, word):
    with pytest.raises(ValueError, match=word):
        gaussian_wasserstein(torch.zeros(2), torch.eye(2), torch.zeros(2), cov)


def test_a_singular_law_has_no_kl():
    with pytest.raises(ValueError, match="`cov1` must be positive definite"):
        gaussian_kl(torch.zeros(2), torch.eye(2), torch.zeros(2), torch.zeros(2, 2))


@pytest.mark.parametrize("theta", [0.0, 0.3, 2.0])
def test_a_point_against_a_moved_one(theta):
    """(0, U) against (θ, U): W_1 = |θ| is continuous in θ, the others jump."""
    if theta == 0:
        p = q = torch.tensor([1.0, 0.0])
    else:
        p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    moved = theta > 0
    assert total_variation(p, q) == float(moved)
    assert kullback_leibler(p, q) == (math.inf if moved else 0)
    assert kullback_leibler(q, p) == (math.inf if moved else 0)
    assert float(jensen_shannon(p, q)) == pytest.approx(math.log(2) if moved else 0)
    support = torch.tensor([0.0, theta])
    assert float(wasserstein_1d(support, support, p, q, p=1)) == pytest.approx(theta)


def test_discrete_divergences_by_their_sums():
    p, q = torch.rand(2, 5).double().softmax(1)
    kl = sum(float(a) * math.log(a / b) for a, b in zip(p, q))
    assert float(kullback_leibler(p, q)) == pytest.approx(kl)
    m = (p + q) / 2
    js = 0.5 * kullback_leibler(p, m) + 0.5 * kullback_leibler(q, m)
    torch.testing.assert_close(jensen_shannon(p, q), js)
    assert float(total_variation(p, q)) == pytest.approx(float((p - q).abs().sum() / 2))
    # Pinsker
    assert kullback_leibler(p, q) >= 2 * total_variation(p, q) ** 2


@pytest.mark.parametrize("function", [total_variation, kullback_leibler, jensen_shannon])
def test_discrete_gradients_equal_finite_differences(function):
    u, v = doubles(2, 4).requires_grad_(), doubles(2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, v: function(u.softmax(-1), v.softmax(-1)), (u, v))


def test_discrete_laws_must_be_laws():
    with pytest.raises(ValueError, match="`q`"):
        jensen_shannon(torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.6]))


P, Q = (0.5, 0.5, 0.0, 0.0), (0.25, 0.25, 0.5, 0.0)


def slope_by_differences(function, p, q, which, i, step=1e-6):
    """The derivative along mass that moves from bin 0 to bin i."""
    move = torch.zeros_like(p)
    move[i], move[0] = step, -step
    up, down = ((p + s * move, q) if which == 0 else (p, q + s * move) for s in (1, -1))
    return (function(*up) - function(*down)) / (2 * step)


@pytest.mark.parametrize("function", [total_variation, kullback_leibler, jensen_shannon])
@pytest.mark.parametrize("swapped", [False, True])
def test_discrete_gradients_at_empty_bins(function, swapped):
    """Finite; along mass that moves between filled bins they are finite differences."""
    p, q = (torch.tensor(w, dtype=torch.float64) for w in ((Q, P) if swapped else (P, Q)))
    p, q = p.clone().requires_grad_(), q.clone().requires_grad_()
    value = function(p, q)
    slopes = torch.autograd.grad(value, (p, q), create_graph=True)
    for which, (w, slope) in enumerate(zip((p, q), slopes)):
        assert torch.isfinite(slope).all()
        for i in range(1, 4):
            if w[i] > 0 and not torch.isinf(value):
                expected = slope_by_differences(function, p.detach(), q.detach(), which, i)
                torch.testing.assert_close(
                    (slope[i] - slope[0]).detach(), expected, atol=1e-8, rtol=0
                )
    if function is jensen_shannon:
        assert slopes[0][3] == slopes[1][3] == 0
        second = torch.autograd.grad(sum(s.square().sum() for s in slopes), (p, q))
        assert all(torch.isfinite(z).all() for z in second)


def test_empty_bins_have_the_closed_gradients():
    p, q = (torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in (P, Q))
    kl = kullback_leibler(p, q)
    kl.backward()
    assert kl.item() == pytest.approx(math.log(2))
    # ∂KL/∂q = -p/q, 0 where p is 0, up to the mean
    expected = torch.tensor([-2.0, -2.0, 0.0, 0.0], dtype=torch.float64) + 1
    torch.testing.assert_close(q.grad, expected)
    torch.testing.assert_close(p.grad, torch.zeros(4, dtype=torch.float64))
    js = jensen_shannon(p, q)
    (of_q,) = torch.autograd.grad(js, q)
    # ∂JS/∂q = ½ log(q/m) on the support of q, up to its mean there
    slope = 0.5 * torch.tensor([2 / 3, 2 / 3, 2.0], dtype=torch.float64).log()
    torch.testing.assert_close(of_q[:3], slope - slope.mean())
    assert of_q[3] == 0
    assert torch.isinf(kullback_leibler(q, p))
