"""Gaussian approximations under both divergences, and the value of the game."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from monge.inference import (
    coordinate_updates,
    fit_gaussian,
    game_value,
    mean_field,
    moment_matched,
    optimal_discriminator,
)
from monge.priors import Mixture
from monge.transport import gaussian_kl, jensen_shannon, kullback_leibler


def doubles(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def precision_matrix(d: int, seed: int = 0) -> torch.Tensor:
    factor = torch.randn(d, d + 2, generator=torch.Generator().manual_seed(seed)).double()
    return factor @ factor.T / d + 0.1 * torch.eye(d).double()


def correlated(rho: float) -> tuple[torch.Tensor, torch.Tensor]:
    covariance = torch.eye(2).double() + rho * doubles([0, 1], [1, 0])
    return doubles(0, 1), torch.linalg.inv(covariance)


def test_the_two_divergences_give_variances_019_and_1_at_correlation_09():
    mean, precision = correlated(0.9)
    for found, variance in (
        (mean_field(mean, precision), 0.19),
        (moment_matched(mean, precision), 1.0),
    ):
        torch.testing.assert_close(found[0], mean, rtol=0, atol=0)
        expected = torch.full((2,), variance, dtype=torch.float64)
        torch.testing.assert_close(found[1], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("d", [1, 3, 20])
def test_moment_matching_keeps_the_diagonal_of_the_covariance(d):
    precision = precision_matrix(d)
    expected = torch.from_numpy(np.linalg.inv(precision.numpy())).diagonal()
    torch.testing.assert_close(moment_matched(torch.zeros(d).double(), precision)[1], expected)


def test_no_other_product_is_nearer_under_either_divergence():
    """A numerical descent of each divergence over means and variances ends at the closed form."""
    mean, precision = doubles(1, -2, 0.5), precision_matrix(3)
    covariance = torch.linalg.inv(precision)

    def kl(flat, forward: bool) -> float:
        law = torch.from_numpy(flat[:3]), torch.from_numpy(np.exp(flat[3:])).diag()
        pair = ((mean, covariance), law) if forward else (law, (mean, covariance))
        return float(gaussian_kl(*pair[0], *pair[1]))

    for solve, forward in ((mean_field, False), (moment_matched, True)):
        best = minimize(kl, np.zeros(6), args=(forward,), options={"gtol": 1e-7})
        found = solve(mean, precision)
        np.testing.assert_allclose(best.x[:3], found[0], atol=1e-5)
        np.testing.assert_allclose(np.exp(best.x[3:]), found[1], atol=1e-5)


@given(st.integers(1, 8), st.integers(0, 10_000))
def test_the_bound_never_falls_along_coordinate_updates(d, seed):
    """ELBO = log of the normaliser - KL(q ‖ p): each sweep may only lower KL."""
    random = torch.Generator().manual_seed(seed)
    mean, start = torch.randn(2, d, generator=random).double()
    precision = precision_matrix(d, seed)
    covariance = torch.linalg.inv(precision)
    variances = mean_field(mean, precision)[1].diag()
    path = coordinate_updates(mean, precision, start, sweeps=10)
    bounds = torch.stack([-gaussian_kl(m, variances, mean, covariance) for m in path])
    assert (bounds.diff() >= -1e-9 * (1 + bounds[:-1].abs())).all()


def test_each_sweep_of_two_coordinates_shrinks_the_error_by_the_squared_correlation():
    mean, precision = correlated(0.9)
    error = coordinate_updates(mean, precision, doubles(5, -3), sweeps=8) - mean
    torch.testing.assert_close(error[2:] / error[1:-1], torch.full((7, 2), 0.81).double())


def test_coordinate_updates_are_those_of_a_loop_over_coordinates():
    mean, start, precision = doubles(1, 2, 3, 4), doubles(0, 0, 5, 1), precision_matrix(4)
    m = start.clone()
    for j in range(4):
        others = [i for i in range(4) if i != j]
        m[j] = mean[j] - precision[j, others] @ (m[others] - mean[others]) / precision[j, j]
    torch.testing.assert_close(coordinate_updates(mean, precision, start, 1)[1], m)


@pytest.mark.parametrize("solve", [mean_field, moment_matched])
@pytest.mark.parametrize(
    ("precision", "word"),
    [
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (torch.ones(2, 2), "positive definite"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "positive definite"),
        (torch.zeros(2, 2), "positive definite"),
        (torch.eye(3), "shapes"),
        (torch.full((2, 2), math.nan), "`precision` must be finite"),
        (torch.diag(torch.tensor([1.0, -1e-20])), "-1e-20 on its diagonal"),
        ("eye", "must be a tensor"),
    ],
)
def test_bad_precisions_are_named(solve, precision, word):
    with pytest.raises(ValueError, match=word):
        solve(torch.zeros(2), precision)


def test_no_coordinates_are_refused():
    with pytest.raises(ValueError, match="d ≥ 1"):
        mean_field(torch.zeros(0), torch.zeros(0, 0))


@pytest.mark.parametrize("units", [[1e-5, 1.0, 1e7], [1e-18, 1e-18, 1e-18], [8e18, 8e18, 1.0]])
def test_coordinates_may_have_units_of_their_own(units):
    """(U Λ U)^{-1} = U^{-1} Λ^{-1} U^{-1}, in float32."""
    precision, u = precision_matrix(3).float(), torch.tensor(units)
    for solve in (mean_field, moment_matched):
        expected = solve(torch.zeros(3), precision)[1] / u.square()
        found = solve(torch.zeros(3), u[:, None] * precision * u)[1]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_inputs_are_converted_as_those_of_distances():
    """Lists, arrays, integers, half precision, batches and the transforms of torch.func."""
    with pytest.raises(ValueError, match=r"^`mean` and `precision` give a result of"):
        mean_field(torch.zeros(2).half(), (1e-5 * torch.eye(2)).half())
    precision = [[2, 1], [1, 2]]
    wide, rows = torch.tensor(precision).float(), torch.zeros(3, 2)
    for written in (precision, np.array(precision), wide.half(), wide.bfloat16()):
        for solve, variance in ((mean_field, 1 / 2), (moment_matched, 2 / 3)):
            found = solve([0, 0], written)[1]
            dtype = written.dtype if isinstance(written, torch.Tensor) else torch.float64
            assert found.dtype == dtype
            torch.testing.assert_close(found, torch.full((2,), variance, dtype=dtype))
    for found in (
        moment_matched(rows, wide)[1],
        torch.func.vmap(lambda mean: moment_matched(mean, wide)[1])(rows),
    ):
        torch.testing.assert_close(found, torch.full((3, 2), 2 / 3))
    third = np.full(3, 1 / 3)
    for masses in (third, third.tolist(), torch.from_numpy(third).half(), [1, 1, 1]):
        torch.testing.assert_close(float(game_value(masses, third)), -math.log(4))
    for pair in (([1, 3], [1, 1]), (np.array([1.0, 3.0]), torch.ones(2).half())):
        torch.testing.assert_close(optimal_discriminator(*pair).tolist(), [0.5, 0.75])


def test_a_start_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="`start`"):
        coordinate_updates(torch.zeros(2), torch.eye(2), torch.zeros(3), 1)


# one Gaussian for a mixture


def two_modes(apart: float, weight: float = 0.7) -> Mixture:
    means, covariances = torch.tensor([[-apart], [apart]]) / 2, torch.tensor([[[1.0]], [[0.25]]])
    return Mixture(means, covariances, torch.tensor([weight, 1 - weight]))


def reverse_kl(mixture: Mixture, mean: float, deviation: float) -> float:
    """KL(q ‖ p) by a sum over 4,001 equidistant points, in numpy."""
    x = mean + deviation * np.linspace(-9, 9, 4001)
    log_q = -0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation * np.sqrt(2 * np.pi))
    weights, means = mixture.weights.double().numpy(), mixture.means.double().numpy()[:, 0]
    deviations = mixture.factors.double().numpy()[:, 0, 0]
    p = weights / deviations * np.exp(-0.5 * ((x[:, None] - means) / deviations) ** 2)
    log_p = np.log(p.sum(1).clip(1e-300)) - 0.5 * np.log(2 * np.pi)
    return float((np.exp(log_q) * (log_q - log_p)).sum() * (x[1] - x[0]))


@pytest.mark.parametrize("direction", ["mode-seeking", "mass-covering"])
def test_the_nearest_gaussian_to_a_gaussian_is_itself(direction):
    covariance = torch.linalg.inv(precision_matrix(2)).float()
    mixture = Mixture(torch.tensor([[1.0, -2.0]]), covariance[None], torch.ones(1))
    mean, found = fit_gaussian(mixture, direction)
    torch.testing.assert_close(mean, mixture.means[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found, covariance, atol=1e-5, rtol=1e-5)


def test_mass_covering_has_the_moments_of_draws():
    means = torch.tensor([[0.0, 0.0], [4.0, 1.0], [-1.0, 3.0]])
    covariances = torch.stack([torch.linalg.inv(precision_matrix(2, k)).float() for k in range(3)])
    mixture = Mixture(means, covariances, torch.tensor([0.5, 0.3, 0.2]))
    mean, covariance = fit_gaussian(mixture, "mass-covering")
    draws = mixture.sample(200_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean, draws.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(covariance, draws.T.cov(), atol=0.1, rtol=0.02)
    assert mixture.spread == pytest.approx(2 * float(covariance.trace()), rel=1e-5)


@pytest.mark.parametrize("apart", [1.0, 3.0, 6.0])
def test_mode_seeking_is_the_least_of_a_search_by_quadrature(apart):
    mixture = two_modes(apart)
    mean, covariance = fit_gaussian(mixture, "mode-seeking")
    found = float(mean), math.sqrt(float(covariance))
    value = reverse_kl(mixture, *found)
    for start in (-apart / 2, 0.0, apart / 2):
        for deviation in (0.5, 1.0, 2.0):
            best = minimize(
                lambda v: reverse_kl(mixture, v[0], math.exp(v[1])),
                [start, math.log(deviation)],
                method="Nelder-Mead",
            )
            assert value < best.fun + 1e-5


def test_of_modes_far_apart_the_heaviest_is_kept_at_minus_log_its_weight():
    mixture = two_modes(60.0)
    mean, covariance = fit_gaussian(mixture, "mode-seeking")
    assert float(mean) == pytest.approx(-30, abs=1e-4)
    assert float(covariance) == pytest.approx(1, abs=1e-4)
    assert reverse_kl(mixture, -30, 1) == pytest.approx(-math.log(0.7), abs=1e-6)


def test_a_start_near_the_other_mode_descends_to_it():
    mean, covariance = fit_gaussian(two_modes(8.0), "mode-seeking", start=torch.tensor([3.5]))
    assert float(mean) == pytest.approx(4, abs=0.01)
    assert float(covariance) == pytest.approx(0.25, abs=0.01)


def test_mode_seeking_is_narrower_than_mass_covering_in_high_dimension():
    """d = 5 goes by Sobol points: two equal modes along one axis, alike along the others."""
    means = torch.zeros(2, 5)
    means[0, 0], means[1, 0] = 3.0, -3.0
    mixture = Mixture(means, torch.eye(5).expand(2, 5, 5), torch.full((2,), 0.5))
    narrow, wide = (fit_gaussian(mixture, way)[1] for way in ("mode-seeking", "mass-covering"))
    torch.testing.assert_close(wide, torch.diag(torch.tensor([10.0, 1, 1, 1, 1])))
    torch.testing.assert_close(narrow, torch.eye(5), atol=0.05, rtol=0)


def test_another_direction_or_a_start_without_a_descent_is_refused():
    with pytest.raises(ValueError, match="`direction`"):
        fit_gaussian(two_modes(1.0), "both")  # pyright: ignore
    with pytest.raises(ValueError, match="`start` is for mode-seeking"):
        fit_gaussian(two_modes(1.0), "mass-covering", start=torch.zeros(1))
    with pytest.raises(ValueError, match="`start` must have shape"):
        fit_gaussian(two_modes(1.0), "mode-seeking", start=torch.zeros(2))


# the game


def normal(mean: float, deviation: float = 1.0):
    law = torch.distributions.Normal(
        torch.tensor(mean, dtype=torch.float64), torch.tensor(deviation, dtype=torch.float64)
    )
    return lambda x: law.log_prob(x).exp()


def test_the_game_is_worth_minus_log_4_at_equality():
    p = torch.rand(3, 6).double().softmax(-1)
    torch.testing.assert_close(game_value(p, p), torch.full((3,), -math.log(4)).double())
    beside_one = torch.stack([game_value(row, p[0]) for row in p])
    torch.testing.assert_close(game_value(p, p[0]), beside_one)
    torch.testing.assert_close(game_value(p[0], p), torch.stack([game_value(p[0], q) for q in p]))
    assert float(game_value(normal(1.0), normal(1.0))) == pytest.approx(-math.log(4), abs=1e-8)


def test_the_game_is_worth_0_where_supports_are_disjoint():
    p, q = doubles(0.5, 0.5, 0, 0), doubles(0, 0, 0.3, 0.7)
    assert float(game_value(p, q)) == 0


@given(st.integers(2, 7), st.integers(0, 10_000))
def test_the_value_is_minus_log_4_plus_twice_jensen_shannon(k, seed):
    logits = 3 * torch.randn(2, k, generator=torch.Generator().manual_seed(seed)).double()
    p, q = logits.softmax(-1)
    expected = -math.log(4) + 2 * jensen_shannon(p, q)
    torch.testing.assert_close(game_value(p, q), expected, atol=1e-12, rtol=0)
    assert game_value(p, q) >= -math.log(4) - 1e-12


def test_densities_give_what_a_fine_histogram_gives():
    x = torch.linspace(-12, 14, 200_001, dtype=torch.float64)
    f, g = normal(0.0)(x), normal(2.0, 1.5)(x)
    expected = game_value(f / f.sum(), g / g.sum())
    found = game_value(normal(0.0), normal(2.0, 1.5))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shift", [3.0, 6.0, 12.0])
def test_densities_far_apart_have_a_value_below_0(shift):
    """By the sum over a grid with both logs taken of log densities: D* rounds to 1 here."""
    x = torch.linspace(-10, 10 + shift, 100_001, dtype=torch.float64)
    logs = [-0.5 * (x - m) ** 2 - 0.5 * math.log(2 * math.pi) for m in (0.0, shift)]
    total = torch.logaddexp(*logs)
    terms = sum(log.exp() * (log - total) for log in logs)
    expected = float(terms.sum() * (x[1] - x[0]))
    found = float(game_value(normal(0.0), normal(shift), support=(-10, 10 + shift)))
    assert found < 0
    assert found == pytest.approx(expected, abs=1e-8)


@given(st.integers(0, 10_000))
def test_no_discriminator_does_better_than_the_optimal_one(seed):
    random = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, 5, generator=random).double().softmax(-1)
    other = torch.rand(5, generator=random).double()
    assert game_value(p, q, other) <= game_value(p, q) + 1e-12
    torch.testing.assert_close(game_value(p, q, optimal_discriminator(p, q)), game_value(p, q))


@given(st.integers(0, 10_000))
def test_the_loss_is_a_cross_entropy_the_labels_entropy_plus_kullback_leibler(seed):
    """-½ V(D) = H(Y|X) + E KL(D* ‖ D) over the joint law of points and fair labels."""
    random = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, 5, generator=random).double().softmax(-1)
    d = 0.02 + 0.96 * torch.rand(5, generator=random).double()
    truth = torch.stack([optimal_discriminator(p, q), optimal_discriminator(q, p)], -1)
    middle = (p + q) / 2
    entropy = -(middle * torch.xlogy(truth, truth).sum(-1)).sum()
    divergence = (middle * kullback_leibler(truth, torch.stack([d, 1 - d], -1))).sum()
    torch.testing.assert_close(-game_value(p, q, d) / 2, entropy + divergence)


def test_the_optimal_discriminator_is_a_ratio_also_in_far_tails():
    found = optimal_discriminator(doubles(1, 3, 0, 0, 1e-320), doubles(1, 1, 2, 0, 1e-320))
    torch.testing.assert_close(found, doubles(0.5, 0.75, 0, 0.5, 0.5))


def test_of_two_densities_the_discriminator_is_a_function():
    """Between N(0, 1) and N(1, 1) it is the logistic function of ½ - x."""
    x = torch.linspace(-3, 4, 8, dtype=torch.float64)
    found = optimal_discriminator(normal(0.0), normal(1.0))
    torch.testing.assert_close(found(x), torch.sigmoid(0.5 - x))
    torch.testing.assert_close(
        game_value(normal(0.0), normal(1.0), found), game_value(normal(0.0), normal(1.0))
    )
    with pytest.raises(ValueError, match="both tensors or both functions"):
        optimal_discriminator(normal(0.0), x)  # pyright: ignore


def test_bad_laws_are_named():
    p = doubles(0.5, 0.5)
    with pytest.raises(ValueError, match="`f_g` must be at least 0"):
        optimal_discriminator(p, -p)
    with pytest.raises(ValueError, match="same places"):
        optimal_discriminator(p, doubles(1))
    with pytest.raises(ValueError, match="`f` must be finite"):
        optimal_discriminator(p * math.nan, p)
    with pytest.raises(ValueError, match="`f_g` must be at least 0 and sum to 1"):
        game_value(p, 2 * p)
    with pytest.raises(ValueError, match="`discriminator`"):
        game_value(p, p, 3 * p)
    with pytest.raises(ValueError, match=r"`discriminator`.*\(2, 1\)"):
        game_value(p, p, p[:, None])  # which would broadcast
    with pytest.raises(ValueError, match="all tensors or all functions"):
        game_value(p, normal(0.0))
    with pytest.raises(ValueError, match=r"`f_g` integrates to 0.4987"):
        game_value(normal(0.0, 0.1), normal(1.0), support=(-2, 1))


def test_a_mixture_is_fitted_in_inference_mode():
    mixture = Mixture(torch.tensor([[0.0], [4.0]]), torch.ones(2, 1, 1), torch.tensor([0.5, 0.5]))
    expected = fit_gaussian(mixture, "mode-seeking")
    with torch.inference_mode():
        found = fit_gaussian(mixture, "mode-seeking")
    assert all(map(torch.equal, found, expected))
