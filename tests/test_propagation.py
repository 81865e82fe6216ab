"""Expectation propagation against quadrature, and where it says that it failed."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_ndtr, logsumexp, ndtr
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from monge.inference import ProbitEP, clutter_ep


def clutter_data(seed: int, n: int, theta: float, d: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    noise = random.normal(size=(n, d))
    return np.where(random.random((n, 1)) < 0.5, math.sqrt(10) * noise, theta + noise)


def clutter_posterior(x: np.ndarray) -> tuple[float, float, float]:
    """Mean, variance and log evidence for n observations of one dimension, on a fine grid."""
    theta = np.linspace(-60, 60, 48_001)
    log_p = -0.5 * theta**2 / 100 - 0.5 * math.log(200 * math.pi)
    for value in x[:, 0]:
        signal = -0.5 * (value - theta) ** 2 - 0.5 * math.log(2 * math.pi)
        background = -0.5 * value**2 / 10 - 0.5 * math.log(20 * math.pi)
        log_p = log_p + np.logaddexp(signal, background) - math.log(2)
    total = logsumexp(log_p)
    p = np.exp(log_p - total)
    mean = p @ theta
    return mean, p @ (theta - mean) ** 2, total + math.log(theta[1] - theta[0])


@pytest.mark.parametrize("seed", range(50))
def test_moments_through_clutter_are_within_a_hundredth_or_not_converged(seed):
    random = np.random.default_rng(seed)
    x = clutter_data(seed, int(random.integers(3, 60)), 3 * random.normal())
    found = clutter_ep(torch.from_numpy(x))
    mean, variance, _ = clutter_posterior(x)
    error = max(
        abs(float(found.mean) - mean) / math.sqrt(variance), abs(found.variance / variance - 1)
    )
    assert found.converged == (error < 0.01) or abs(error - 0.01) < 0.002
    assert found.converged == (found.error < 0.01)


def test_most_problems_of_forty_observations_converge():
    """What the test above lets pass by saying no must not be everything."""
    found = [clutter_ep(torch.from_numpy(clutter_data(k, 40, 2.0))).converged for k in range(20)]
    assert sum(found) >= 15


def test_the_evidence_through_clutter():
    x = clutter_data(2, 40, 2.0)
    found = clutter_ep(torch.from_numpy(x))
    assert found.converged
    assert found.log_evidence == pytest.approx(clutter_posterior(x)[2], abs=0.01)


def test_without_clutter_the_posterior_is_conjugate():
    x = torch.randn(10, 3).double()
    found = clutter_ep(x, clutter=0.0, prior_variance=4.0)
    precision = 10 + 1 / 4
    torch.testing.assert_close(found.mean, x.sum(0) / precision)
    assert found.variance == pytest.approx(1 / precision)
    joint = torch.distributions.MultivariateNormal(
        torch.zeros(10).double(), torch.eye(10).double() + 4
    )
    assert found.log_evidence == pytest.approx(float(joint.log_prob(x.T).sum()))
    assert found.converged


def test_two_dimensions_against_a_sum_over_all_hypotheses():
    """The exact posterior of 8 observations is a mixture of 2^8 Gaussians."""
    x = clutter_data(1, 8, 3.0, d=2)
    logs, means, variances = [], [], []
    for signals in range(2**8):
        on = np.array([signals >> i & 1 for i in range(8)], bool)
        some = x[on]
        precision = len(some) + 1 / 100
        mean = some.sum(0) / precision
        log_p = -0.5 * np.square(x[~on]).sum() / 10 - (~on).sum() * math.log(20 * math.pi)
        log_p -= 0.5 * np.square(some).sum() + len(some) * math.log(2 * math.pi)
        log_p += 0.5 * precision * mean @ mean - math.log(precision) - math.log(100)
        logs.append(log_p - 8 * math.log(2))
        means.append(mean)
        variances.append(1 / precision)
    p = np.exp(np.array(logs) - logsumexp(logs))
    exact = p @ np.array(means)
    variance = p @ (np.array(variances) + np.square(np.array(means) - exact).mean(1))
    found = clutter_ep(torch.from_numpy(x), accuracy=1.0)
    error = abs(found.variance / variance - 1)
    assert found.error == pytest.approx(max(error, _shift(found, exact, variance)), abs=0.01)
    assert found.log_evidence == pytest.approx(logsumexp(logs), abs=0.05)


def _shift(found, exact: np.ndarray, variance: float) -> float:
    return math.sqrt(np.square(found.mean.numpy() - exact).mean() / variance)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"clutter": 1.0}, "`clutter`"),
        ({"clutter": "half"}, "`clutter`"),
        ({"step": 0.0}, "`step`"),
        ({"clutter_variance": -1.0}, "`clutter_variance`"),
        ({"prior_variance": math.inf}, "`prior_variance`"),
        ({"max_sweeps": 0}, "`max_sweeps`"),
    ],
)
def test_bad_settings_are_named(settings, word):
    with pytest.raises(ValueError, match=word):
        clutter_ep(torch.randn(5, 1), **settings)


def test_bad_observations_are_named():
    with pytest.raises(ValueError, match="`x` must be finite"):
        clutter_ep(torch.full((3, 1), math.nan))
    with pytest.raises(ValueError, match=r"`x` must be observations \(n, d\)"):
        clutter_ep(torch.zeros(3))
    with pytest.raises(ValueError, match=r"`x` must be observations \(n, d\)"):
        clutter_ep(torch.zeros(3, 0))
    with pytest.raises(ValueError, match="`x` must have at most 21,201 columns"):
        clutter_ep(torch.zeros(1, 30_000))


def test_observations_may_be_arrays_and_of_half_precision():
    x = torch.tensor([[1.0], [2.0], [4.0]])
    expected = clutter_ep(x)
    for given in (x.tolist(), x.numpy(), x.long(), x.half()):
        found = clutter_ep(given)
        torch.testing.assert_close(found.mean.float(), expected.mean, rtol=1e-3, atol=0)
        assert found.error == pytest.approx(expected.error, rel=1e-6, abs=1e-6)


# probit regression


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([ProbitEP()])
def test_the_classifier_interface(estimator, check):
    check(estimator)


def labels(seed: int, n: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    X, w = random.normal(size=(n, 1)), scale * random.normal(size=2)
    y = (X[:, 0] * w[0] + w[1] + random.normal(size=n) > 0).astype(int)
    y[:2] = 0, 1
    return X, y


def probit_posterior(X: np.ndarray, y: np.ndarray, model: ProbitEP):
    """Mean, covariance and log evidence of slope and intercept, on a grid of 301² points that
    reaches nine of the model's deviations."""
    axis = np.linspace(-9, 9, 301)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    factor = np.linalg.cholesky(model.covariance_)
    w = np.append(model.coef_, model.intercept_) + grid @ factor.T
    signed = np.column_stack([X, np.ones(len(X))]) * (2 * y - 1)[:, None]
    v = model.prior_variance
    log_p = log_ndtr(w @ signed.T).sum(1) - 0.5 * np.square(w).sum(1) / v
    log_p -= math.log(2 * math.pi * v)
    total = logsumexp(log_p)
    p = np.exp(log_p - total)
    mean = p @ w
    covariance = (w - mean).T @ ((w - mean) * p[:, None])
    cell = math.log(np.linalg.det(factor)) + 2 * math.log(axis[1] - axis[0])
    return mean, covariance, total + cell


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("seed", range(50))
def test_moments_are_within_a_hundredth_or_not_converged(seed):
    random = np.random.default_rng(seed)
    X, y = labels(seed, int(random.integers(3, 100)), random.uniform(0.1, 3))
    model = ProbitEP(prior_variance=10 ** random.uniform(-1, 2)).fit(X, y)
    mean, covariance, evidence = probit_posterior(X, y, model)
    deviation = np.sqrt(np.diag(covariance))
    shift = np.abs(np.append(model.coef_, model.intercept_) - mean) / deviation
    ratio = np.abs(np.diag(model.covariance_) / np.diag(covariance) - 1)
    if model.converged_:
        assert max(shift.max(), ratio.max()) < 0.01
        assert model.log_evidence_ == pytest.approx(evidence, abs=0.005)
    # the estimate is of the right size also where it says no
    assert max(shift.max(), ratio.max()) < model.error_ + 1e-3


def test_problems_with_a_narrow_prior_and_many_data_converge():
    for seed in range(10):
        X, y = labels(seed, 400, 0.5)
        assert ProbitEP(prior_variance=0.1).fit(X, y).converged_


def test_one_datum_is_exact():
    """The posterior of one label in one dimension is what EP matches: w ~ N(0, v) given
    Φ(x w): evidence ½, mean and variance of a skew normal law."""
    model = ProbitEP(prior_variance=4.0, fit_intercept=False)
    # a second row of zeros has another label and says nothing
    model.fit(np.array([[1.5], [0.0]]), np.array([1, 0]))
    delta = 1.5 * 4 / math.sqrt(1 + 1.5**2 * 4)
    mean = delta * math.sqrt(2 / math.pi)
    assert model.coef_[0, 0] == pytest.approx(mean)
    assert model.covariance_[0, 0] == pytest.approx(4 - mean**2)
    assert model.log_evidence_ == pytest.approx(2 * math.log(0.5))
    assert model.converged_


def test_probabilities_are_those_of_the_posterior():
    X, y = labels(3, 150, 0.5)
    model = ProbitEP(prior_variance=0.3).fit(X, y)
    random = np.random.default_rng(0)
    mean = np.append(model.coef_, model.intercept_)
    w = random.multivariate_normal(mean, model.covariance_, size=100_000)
    new = np.linspace(-4, 4, 9)[:, None]
    expected = ndtr(w @ np.column_stack([new, np.ones(9)]).T).mean(0)
    np.testing.assert_allclose(model.predict_proba(new)[:, 1], expected, atol=0.002)
    np.testing.assert_allclose(model.predict_proba(new).sum(1), 1)


def test_labels_may_be_words():
    X, y = labels(0, 100, 1.0)
    model = ProbitEP(accuracy=0.1).fit(X, np.array(["no", "yes"])[y])
    assert list(model.classes_) == ["no", "yes"]
    assert np.mean(model.predict(X) == np.array(["no", "yes"])[y]) > 0.6


def test_doubt_is_reported():
    X = np.linspace(-1, 1, 20)[:, None]
    y = (X[:, 0] > 0).astype(int)
    with pytest.warns(ConvergenceWarning, match="variances may be off by"):
        model = ProbitEP(prior_variance=100.0).fit(X, y)
    assert not model.converged_
    assert ProbitEP(prior_variance=100.0, accuracy=10.0).fit(X, y).converged_
    with pytest.warns(ConvergenceWarning, match="still move"):
        assert not ProbitEP(max_sweeps=2).fit(X, y).converged_


@pytest.mark.parametrize("y", [[0, 1, 2, 0], [1, 1, 1, 1]])
def test_labels_other_than_two_are_refused(y):
    with pytest.raises(ValueError, match="`y` must hold two classes"):
        ProbitEP().fit(np.random.default_rng(0).normal(size=(4, 2)), y)


def test_nan_and_bad_settings_are_refused():
    X, y = labels(0, 20, 1.0)
    with pytest.raises(ValueError, match="NaN"):
        ProbitEP().fit(X * math.nan, y)
    for settings in ({"prior_variance": 0.0}, {"tolerance": -1.0}, {"max_sweeps": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(settings))}`"):
            ProbitEP(**settings).fit(X, y)
    with pytest.raises(ValueError, match="`X` has columns"):
        ProbitEP().fit(1e200 * X, y)
