"""Variational linear regression against exact posteriors, a long Gibbs run and BayesianRidge."""

import math

import numpy as np
import pytest
import torch
from frames import Frame
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln, logsumexp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import BayesianRidge
from sklearn.utils.estimator_checks import parametrize_with_checks

from monge.inference import ProbitEP, VariationalLinearRegression


def problem(seed: int, n: int = 0, d: int = 0, noise: float = 0.0, correlated: bool = True):
    random = np.random.default_rng(seed)
    n, d = n or int(random.integers(20, 200)), d or int(random.integers(1, 9))
    X = random.normal(size=(n, d))
    if correlated:
        X = X @ random.normal(size=(d, d)) + random.normal(size=d)
    beta = random.normal(size=d)
    return X, X @ beta + 2 + (noise or random.uniform(0.1, 3)) * random.normal(size=n), beta


# most of scikit-learn's checks fit data on which the bound is slow; their warnings are theirs
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([VariationalLinearRegression()])
def test_the_estimator_interface(estimator, check):
    check(estimator)


@pytest.mark.parametrize("seed", range(50))
def test_random_problems_have_the_fixed_point_of_bayesian_ridge(seed):
    """Both solve E[λ] E‖β‖² = d and E[τ] E‖y - Xβ‖² = n, up to the prior's 1e-6."""
    X, y, _ = problem(seed)
    found = VariationalLinearRegression(fit_intercept=False, tolerance=1e-12).fit(X, y)
    peer = BayesianRidge(fit_intercept=False, tol=1e-12, max_iter=10_000).fit(X, y)
    assert found.converged_
    np.testing.assert_allclose(found.coef_, peer.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.covariance_, peer.sigma_, rtol=1e-3, atol=1e-8)
    assert found.noise_precision_ == pytest.approx(peer.alpha_, rel=1e-4)
    assert found.weight_precision_ == pytest.approx(peer.lambda_, rel=1e-3)
    deviations = found.predict(X, return_std=True)[1], peer.predict(X, return_std=True)[1]
    np.testing.assert_allclose(*deviations, rtol=1e-4)


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 30),
    d=st.integers(1, 40),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    intercept=st.booleans(),
    known=st.booleans(),
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_bound_never_falls(seed, n, d, scale, intercept, known):
    X, y, _ = problem(seed, n, d)
    model = VariationalLinearRegression(
        fit_intercept=intercept,
        noise_precision=1 / scale**2 if known else None,
        max_iterations=200,
        tolerance=1e-14,
    )
    bounds = model.fit(X, scale * y).elbo_
    assert (np.diff(bounds) >= -1e-9 * (1 + np.abs(bounds[:-1]))).all()


def exact_posterior(X, y, a: float, b: float, taus: np.ndarray, prior_tau: np.ndarray):
    """Mean and variances of β and log evidence, on a fine grid of log λ and the given τ."""
    (n, d), logs = X.shape, np.linspace(-14, 14, 561)
    values, vectors = np.linalg.eigh(X.T @ X)
    target, total = vectors.T @ X.T @ y, y @ y
    terms, means, squares = [], [], []
    for tau, log_prior in zip(taus, prior_tau):
        lam = np.exp(logs)[:, None]
        variances = 1 / (lam + tau * values)
        m = tau * variances * target
        fit = tau * total - (tau * target * m).sum(1)
        log_p = n / 2 * np.log(tau / (2 * np.pi)) + d / 2 * logs - fit / 2
        log_p += np.log(variances).sum(1) / 2
        log_p += a * np.log(b) - gammaln(a) + a * logs - b * lam[:, 0]
        terms.append(log_p + np.log(logs[1] - logs[0]) + log_prior)
        rotated = m @ vectors.T
        means.append(rotated)
        squares.append(variances @ (vectors**2).T + rotated**2)
    log_p = np.concatenate(terms)
    w = np.exp(log_p - logsumexp(log_p))
    mean = w @ np.concatenate(means)
    return mean, w @ np.concatenate(squares) - mean**2, logsumexp(log_p)


@pytest.mark.parametrize("seed", range(50))
def test_moments_and_bound_against_the_exact_posterior_at_known_noise(seed):
    """The bound stays under the evidence, and where 100 to 200 data say enough of each
    coefficient that λ matters little, the moments are near."""
    X, y, _ = problem(seed, n=100 + 2 * seed, noise=1.0, correlated=False)
    X, y = X - X.mean(0), y - y.mean()
    model = VariationalLinearRegression(
        shape=1.0, rate=1.0, noise_precision=1.0, fit_intercept=False
    ).fit(X, y)
    mean, variance, evidence = exact_posterior(X, y, 1.0, 1.0, np.ones(1), np.zeros(1))
    assert evidence - 1 < model.elbo_[-1] <= evidence + 1e-6
    deviation = np.sqrt(variance)
    assert (np.abs(model.coef_ - mean) < 0.02 * deviation).all()
    np.testing.assert_allclose(np.sqrt(np.diag(model.covariance_)), deviation, rtol=0.02)


def test_moments_and_bound_against_the_exact_posterior_of_all_three():
    """τ unknown as well: a grid over λ and τ."""
    X, y, _ = problem(3, n=80, d=4, noise=0.5, correlated=False)
    X, y = X - X.mean(0), y - y.mean()
    model = VariationalLinearRegression(shape=1.0, rate=1.0, fit_intercept=False).fit(X, y)
    logs = np.log(model.noise_precision_) + np.linspace(-2, 2, 401)
    taus = np.exp(logs)
    prior = logs - taus + np.log(logs[1] - logs[0])
    mean, variance, evidence = exact_posterior(X, y, 1.0, 1.0, taus, prior)
    assert evidence - 1 < model.elbo_[-1] <= evidence + 1e-6
    assert (np.abs(model.coef_ - mean) < 0.02 * np.sqrt(variance)).all()
    np.testing.assert_allclose(np.diag(model.covariance_), variance, rtol=0.05)


def test_moments_and_predictions_against_a_long_gibbs_run():
    X, y, _ = problem(7, n=150, d=3, noise=0.5, correlated=False)
    X, y = X - X.mean(0), y - y.mean()
    model = VariationalLinearRegression(fit_intercept=False).fit(X, y)
    random, lam, tau, draws = np.random.default_rng(0), 1.0, 1.0, []
    new, futures = X[:5] * 3, []
    gram, cross = X.T @ X, X.T @ y
    for step in range(42_000):
        factor = np.linalg.inv(np.linalg.cholesky(lam * np.eye(3) + tau * gram))
        beta = factor.T @ (factor @ (tau * cross) + random.normal(size=3))
        lam = random.gamma(1e-6 + 1.5, 1 / (1e-6 + beta @ beta / 2))
        tau = random.gamma(1e-6 + 75, 1 / (1e-6 + np.square(y - X @ beta).sum() / 2))
        if step >= 2_000:
            draws.append(beta)
            futures.append(new @ beta + random.normal(size=5) / math.sqrt(tau))
    draws, futures = np.array(draws), np.array(futures)
    deviation = draws.std(0)
    assert (np.abs(model.coef_ - draws.mean(0)) < 0.05 * deviation).all()
    np.testing.assert_allclose(np.sqrt(np.diag(model.covariance_)), deviation, rtol=0.03)
    mean, spread = model.predict(new, return_std=True)
    assert (np.abs(mean - futures.mean(0)) < 0.03 * spread).all()
    np.testing.assert_allclose(spread, futures.std(0), rtol=0.03)


def test_an_intercept_is_a_flat_prior_integrated_out():
    """Bound and deviations equal those of a constant column whose weight has almost no prior,
    for a known noise and one other coefficient, by quadrature over the intercept."""
    random = np.random.default_rng(1)
    x, n = random.normal(size=(12, 1)) + 3, 12
    y = 2 * x[:, 0] + 5 + random.normal(size=12)
    model = VariationalLinearRegression(shape=1.0, rate=1.0, noise_precision=1.0).fit(x, y)
    shifts = np.linspace(-30, 40, 7001)
    evidence = [
        exact_posterior(x, y - shift, 1.0, 1.0, np.ones(1), np.zeros(1))[2]
        for shift in shifts[::20]
    ]
    log_evidence = logsumexp(evidence) + np.log(shifts[20] - shifts[0])
    assert log_evidence - 0.5 < model.elbo_[-1] <= log_evidence + 1e-6
    _, std = model.predict(x.mean(0, keepdims=True), return_std=True)
    assert std[0] == pytest.approx(math.sqrt(1 + 1 / n))


def test_intervals_cover_what_they_claim():
    """Of new data 68.3 % lie within one predictive deviation, with few data to learn from."""
    inside = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        X, new = random.normal(size=(30, 5)), random.normal(size=(50, 5))
        beta = random.normal(size=5)
        y, truth = X @ beta + random.normal(size=30), new @ beta + random.normal(size=50)
        mean, std = VariationalLinearRegression().fit(X, y).predict(new, return_std=True)
        inside.append(np.abs(truth - mean) < std)
    assert np.mean(inside) == pytest.approx(0.683, abs=0.02)


def test_collinear_columns_share_their_coefficient():
    X, y, _ = problem(5, n=100, d=2, noise=0.01)
    once = VariationalLinearRegression().fit(X, y)
    twice = VariationalLinearRegression().fit(X[:, [0, 1, 1]], y)
    assert twice.coef_[1] == pytest.approx(twice.coef_[2], abs=1e-9)
    np.testing.assert_allclose(twice.predict(X[:, [0, 1, 1]]), once.predict(X), atol=1e-3)
    assert np.linalg.eigvalsh(twice.covariance_)[0] > 0


def test_more_columns_than_rows():
    """The posterior of Bishop's (10.173) by its own formula, at the precisions found."""
    random = np.random.default_rng(0)
    X, y = random.normal(size=(10, 30)), random.normal(size=10)
    model = VariationalLinearRegression(
        fit_intercept=False, noise_precision=2.0, shape=2.0, rate=2.0, tolerance=1e-12
    ).fit(X, y)
    covariance = np.linalg.inv(model.weight_precision_ * np.eye(30) + 2 * X.T @ X)
    np.testing.assert_allclose(model.covariance_, covariance, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(model.coef_, 2 * covariance @ X.T @ y, rtol=1e-5)


def test_a_constant_target_warns():
    X = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.warns(UserWarning, match="`y` is constant at 4"):
        model = VariationalLinearRegression().fit(X, np.full(20, 4.0))
    np.testing.assert_allclose(model.predict(X), 4, atol=1e-6)


def test_too_few_updates_warn():
    X, y, _ = problem(2)
    with pytest.warns(ConvergenceWarning, match="`max_iterations`"):
        model = VariationalLinearRegression(max_iterations=2, tolerance=1e-12).fit(X, y)
    assert not model.converged_
    assert len(model.elbo_) == model.n_iter_ == 2


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"shape": 0}, "`shape`"),
        ({"rate": -1}, "`rate`"),
        ({"noise_precision": math.nan}, "`noise_precision`"),
        ({"max_iterations": 0}, "`max_iterations`"),
        ({"tolerance": 0}, "`tolerance`"),
    ],
)
def test_bad_settings_are_named(settings, word):
    X, y, _ = problem(0)
    with pytest.raises(ValueError, match=word):
        VariationalLinearRegression(**settings).fit(X, y)


def test_bad_data_are_refused():
    X, y, _ = problem(0)
    with pytest.raises(ValueError, match="NaN"):
        VariationalLinearRegression().fit(X * math.nan, y)
    with pytest.raises(ValueError, match="NaN"):
        VariationalLinearRegression().fit(X, y * math.nan)
    with pytest.raises(ValueError, match="minimum of 2"):
        VariationalLinearRegression().fit(X[:1], y[:1])
    for large in ((1e200 * X, y), (X, 1e200 * y)):
        with pytest.raises(ValueError, match="`X` and `y` must have squares"):
            VariationalLinearRegression().fit(*large)


def test_a_target_of_booleans_is_one_of_zeros_and_ones():
    X, y, _ = problem(0)
    found, expected = (VariationalLinearRegression().fit(X, t) for t in (y > 0, (y > 0) * 1.0))
    np.testing.assert_array_equal(found.coef_, expected.coef_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", [VariationalLinearRegression(), ProbitEP()])
def test_columns_called_by_numbers_that_come_in_another_order_are_refused(estimator):
    X, y, _ = problem(0, n=30, d=2)
    y = y > 2 if isinstance(estimator, ProbitEP) else y
    straight, turned = Frame({0: X[:, 0], 1: X[:, 1]}), Frame({1: X[:, 1], 0: X[:, 0]})
    fitted = estimator.fit(straight, y)
    np.testing.assert_array_equal(fitted.predict(straight), fitted.predict(X))
    with pytest.raises(ValueError, match=r"`X` has the columns \[1, 0\] where .* X\[\[0, 1\]\]"):
        fitted.predict(turned)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", [VariationalLinearRegression(), ProbitEP()])
def test_what_scikit_learn_would_lose_is_refused_and_tensors_are_arrays(estimator):
    X, y, _ = problem(0, n=30, d=2)
    y = (y > 2) * 1.0 if isinstance(estimator, ProbitEP) else y
    masked = np.ma.masked_array(X, mask=X > 1)
    nanoseconds = 1_700_000_000_000_000_000 + np.arange(60).reshape(30, 2)
    fitted = estimator.fit(X, y)
    for bad, words in (
        (masked, r"`X` has \d+ masked values"),
        (nanoseconds, "`X` holds integers beyond 2⁵³"),
        (torch.from_numpy(nanoseconds), "`X` holds integers beyond 2⁵³"),
        (X + 1j, "Complex data not supported: `X` must [^\n]*$"),
        ((X + 1j).tolist(), "Complex data not supported: `X` must"),
        ((X + 1j).astype(object), "Complex data not supported: `X` must"),
    ):
        with pytest.raises(ValueError, match=words):
            fitted.predict(bad)
        with pytest.raises(ValueError, match=words):
            clone(estimator).fit(bad, y)
    half = torch.from_numpy(X).bfloat16().requires_grad_()
    expected = clone(estimator).fit(half.detach().double().numpy(), y).predict(X)
    found = clone(estimator).fit(half, torch.from_numpy(y)).predict(torch.from_numpy(X))
    np.testing.assert_array_equal(found, expected)


def test_a_target_of_large_integers_is_refused():
    X, _, _ = problem(0, n=30, d=2)
    with pytest.raises(ValueError, match="`y` holds integers beyond 2⁵³"):
        VariationalLinearRegression().fit(X, 10**17 + np.arange(30))
