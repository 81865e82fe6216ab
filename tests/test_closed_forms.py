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
        (torch.tensor([[1.0, 0.5], [0.2, 1.0]]), "symmetric"),
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
