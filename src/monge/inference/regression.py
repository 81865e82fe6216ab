r"""Variational linear regression: a lower bound on the evidence that each update raises.

    y_i ~ N(βᵀx_i, 1/τ),    β ~ N(0, I/λ),    λ ~ Γ(a_0, b_0),    τ ~ Γ(a_0, b_0) or given,

with Γ(λ | a, b) ∝ λ^{a-1} e^{-bλ}. The posterior of all three is approximated by a product
q(β) q(λ) q(τ), each factor the best one given the others (mean-field equations):

    q(β) = N(μ, Σ),  Σ^{-1} = E[λ] I + E[τ] XᵀX,  μ = E[τ] Σ Xᵀy,
    q(λ) = Γ(a_0 + d/2,  b_0 + ½ E‖β‖²),
    q(τ) = Γ(a_0 + n/2,  b_0 + ½ E‖y - Xβ‖²).

log p(y) = ELBO(q) + KL(q ‖ p(·|y)), so that no update lowers the bound
ELBO = E_q log p(y, β, λ, τ) - E_q log q. An intercept has a flat prior: it is integrated out by
centring, which leaves n - 1 observations.

In the singular basis of X = U S Vᵀ the coefficients are independent given λ and τ, so that an
update costs O(d) after one factorisation.

Source: Bishop, "Pattern recognition and machine learning", 2006, section 10.3, with the unknown
noise precision of its exercise 10.26.
"""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, gammaln
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from monge._core.checks import dimension, positive
from monge._core.frames import columns, real_array, refuse_reordered
from monge._core.tuning import CPU


class VariationalLinearRegression(RegressorMixin, BaseEstimator):
    """Bayesian linear regression with unknown scales, as a scikit-learn estimator.

    Args:
        shape: a_0 > 0 of both Γ priors.
        rate: b_0 > 0 of both; the small defaults say nothing about the scales.
        noise_precision: τ, where it is known; None to infer it.
        fit_intercept: whether to add a constant, with a flat prior.
        max_iterations: updates of all factors at most.
        tolerance: stop when an update raises the bound by less than this, in nats.

    After `fit`: `coef_` μ (d,), `covariance_` Σ (d, d) of q(β), `intercept_`, `weight_precision_`
    E[λ], `noise_precision_` E[τ], `elbo_` the bound after each update in nats, `n_iter_`,
    `converged_`.

    Collinear columns are no error: the prior shares a coefficient among them.
    """

    def __init__(
        self,
        *,
        shape: float = 1e-6,
        rate: float = 1e-6,
        noise_precision: float | None = None,
        fit_intercept: bool = True,
        max_iterations: int = 10_000,
        tolerance: float = 1e-8,
    ):
        self.shape, self.rate, self.noise_precision = shape, rate, noise_precision
        self.fit_intercept = fit_intercept
        self.max_iterations, self.tolerance = max_iterations, tolerance

    def fit(self, X, y) -> "VariationalLinearRegression":
        """Fits to X (n, d) and y (n,).

        Warns where y is constant, and where the bound still rises after the last update.

        Raises:
            ValueError: for NaN, shapes that do not fit, fewer than two rows, or settings that
                are not positive.
        """
        for name in ("shape", "rate", "tolerance"):
            positive(name, getattr(self, name))
        dimension("max_iterations", self.max_iterations)
        self._fit_columns = columns(X)
        X, y = real_array("X", X), real_array("y", y)
        given = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        X, y = map(np.asarray, given)
        y = y.astype(np.float64)
        if np.ptp(y) == 0:
            warnings.warn(
                f"`y` is constant at {y[0]:.4g}: the coefficients are 0 and the noise is unknown "
                "but small; check the target",
                stacklevel=2,
            )
        self._center, middle = np.zeros(X.shape[1]), 0.0
        if self.fit_intercept:
            self._center, middle = X.mean(0), float(y.mean())
        self._rows = len(y) if self.fit_intercept else np.inf
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
            problem = _reduced(X, y, self._center, middle)
            squares = len(y) * problem.s @ problem.s + problem.target @ problem.target
            squares = float(squares + problem.residual)
        if not np.isfinite(squares):
            raise ValueError(
                "`X` and `y` must have squares within the range of float64, got values up to "
                f"{np.abs(X).max():.3g} and {np.abs(y).max():.3g}: rescale them"
            )
        mean, variances, outside = self._ascend(problem, len(y) - int(self.fit_intercept))
        self.coef_ = problem.basis.T @ mean
        self.intercept_ = float(middle - self._center @ self.coef_)
        # what the data do not see keeps the prior's variance
        inside = problem.basis.T * (variances - outside)
        self.covariance_ = inside @ problem.basis + outside * np.eye(X.shape[1])
        return self

    def _ascend(self, problem: "_Problem", n: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Updates q(β), q(λ), q(τ) for n observations until the bound stands still.

        Returns mean and variances of q(β) in the singular basis, and its variance outside.
        """
        s, basis, target, residual = problem
        a, b, d = self.shape, self.rate, basis.shape[1]
        unseen = d - len(s)
        given = self.noise_precision
        # the target's own variance, to start from
        scale = float(target @ target + residual) / n or 1.0
        q_tau = _Gamma(a + n / 2, (a + n / 2) * scale)
        tau = q_tau.mean if given is None else positive("noise_precision", given)
        log_tau = np.log(tau)
        q_lambda = _Gamma(a + d / 2, a + d / 2)
        # of a flat intercept, integrated out
        constant = -n / 2 * np.log(2 * np.pi) - (np.log(n + 1) / 2 if self.fit_intercept else 0)
        history: list[float] = []
        self.converged_ = False
        while not self.converged_ and len(history) < self.max_iterations:
            outside = 1 / q_lambda.mean
            variances = 1 / (q_lambda.mean + tau * s**2)
            mean = tau * variances * s * target
            log_det = np.log(variances).sum() + unseen * np.log(outside)
            square = mean @ mean + variances.sum() + unseen * outside
            misfit = np.square(target - s * mean).sum() + residual + variances @ s**2

            q_lambda = _Gamma(a + d / 2, b + square / 2)
            bound = constant + (d + log_det) / 2 - q_lambda.divergence(a, b)
            bound += d / 2 * q_lambda.log_mean - q_lambda.mean / 2 * square
            if given is None:
                q_tau = _Gamma(a + n / 2, b + misfit / 2)
                tau, log_tau = q_tau.mean, q_tau.log_mean
                bound -= q_tau.divergence(a, b)
            bound += n / 2 * log_tau - tau / 2 * misfit
            history.append(float(bound))
            self.converged_ = len(history) > 1 and history[-1] - history[-2] < self.tolerance
        self.elbo_, self.n_iter_ = np.array(history), len(history)
        self.weight_precision_, self.noise_precision_ = float(q_lambda.mean), float(tau)
        if not self.converged_:
            warnings.warn(
                f"the bound still rises after {self.n_iter_} updates: raise `max_iterations`, "
                "or `tolerance` if a nat's fraction is no matter",
                ConvergenceWarning,
                stacklevel=3,
            )
        return mean, variances, outside

    def predict(self, X, return_std: bool = False):
        """The mean of the predictive distribution at X (m, d), as (m,).

        With `return_std` also its standard deviation (m,):
        variance = 1 / E[τ] + xᵀΣx, plus 1 / (n E[τ]) for the intercept, x from the mean of the
        data.
        """
        check_is_fitted(self)
        refuse_reordered(self._fit_columns, X)
        X = validate_data(self, real_array("X", X), dtype=np.float64, reset=False)
        X = np.asarray(X)
        mean = X @ self.coef_ + self.intercept_
        if not return_std:
            return mean
        away = X - self._center
        spread = ((away @ self.covariance_) * away).sum(1)
        return mean, np.sqrt(spread + (1 + 1 / self._rows) / self.noise_precision_)


class _Gamma(NamedTuple):
    """Γ(a, b), of mean a / b."""

    a: float
    b: float

    @property
    def mean(self) -> float:
        return self.a / self.b

    @property
    def log_mean(self) -> float:
        """E log."""
        return digamma(self.a) - np.log(self.b)

    def divergence(self, a: float, b: float) -> float:
        """KL(self ‖ Γ(a, b))."""
        logs = gammaln(a) - gammaln(self.a) + self.a * np.log(self.b) - a * np.log(b)
        return logs + (self.a - a) * self.log_mean - (self.b - b) * self.mean


class _Problem(NamedTuple):
    """min ‖y - Xβ‖² in the singular basis of X: ‖target - s · basis β‖² + residual."""

    s: np.ndarray
    basis: np.ndarray
    """Vᵀ (k, d)."""
    target: np.ndarray
    residual: float


def _reduced(X: np.ndarray, y: np.ndarray, center: np.ndarray, middle: float) -> _Problem:
    """The problem of centred data. R of [X y] = QR holds every inner product, without the squared
    condition of XᵀX, and the R of all rows is that of the stacked R of the blocks."""
    factors = []
    size = CPU.regression_rows
    for first in range(0, len(X), size):
        rows = slice(first, first + size)
        block = np.column_stack([X[rows] - center, y[rows] - middle])
        factors.append(np.linalg.qr(block, mode="r"))
    R = np.asarray(np.linalg.qr(np.concatenate(factors), mode="r"))
    U, s, basis = np.linalg.svd(R[:, :-1], full_matrices=False)
    target = U.T @ R[:, -1]
    return _Problem(s, basis, target, float(np.square(R[:, -1] - U @ target).sum()))
