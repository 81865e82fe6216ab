"""The sliced family: directions, bounds, curved slices; memory and gradients."""

import dataclasses
import math

import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge._core import tuning
from monge.draws import generator
from monge.transport import (
    Circular,
    Linear,
    Neural,
    Polynomial,
    generalized_sliced_wasserstein,
    orthogonal_directions,
    sliced_wasserstein,
    sliced_wasserstein_estimate,
    sobol_directions,
    uniform_directions,
    wasserstein,
    wasserstein_1d,
)
from monge.transport.sliced import sliced_power

SLICERS = {
    "linear": lambda dim: Linear(dim, 16),
    "circular": lambda dim: Circular(dim, 16),
    "polynomial": lambda dim: Polynomial(dim, 3, 16),
    "neural": lambda dim: Neural(dim, 16, 8),
}
DIRECTIONS = pytest.mark.parametrize(
    "draw", [uniform_directions, orthogonal_directions, sobol_directions]
)


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def law(n):
    w = torch.rand(n, dtype=torch.float64) + 0.1
    return w / w.sum()


@DIRECTIONS
def test_directions_are_unit_and_isotropic(draw):
    theta = draw(20_000, 4, generator=generator(0))
    assert theta.shape == (20_000, 4)
    torch.testing.assert_close(theta.norm(dim=1), torch.ones(20_000))
    torch.testing.assert_close(theta.T @ theta / 20_000, torch.eye(4) / 4, atol=0.01, rtol=0)
    torch.testing.assert_close(theta.mean(0), torch.zeros(4), atol=0.015, rtol=0)
    assert torch.equal(theta, draw(20_000, 4, generator=generator(0)))
    assert draw(3, 1).abs().tolist() == [[1.0]] * 3


def test_orthogonal_directions_are_orthonormal_in_blocks():
    theta = orthogonal_directions(8, 4, generator=generator(0))
    for block in theta.split(4):
        torch.testing.assert_close(block @ block.T, torch.eye(4))


@pytest.mark.parametrize("draw", [orthogonal_directions, sobol_directions])
def test_structured_directions_have_less_error_at_equal_count(draw):
    """Root mean squared error of SW_2² over 60 repetitions, against 100,000 directions."""
    x, y = doubles(40, 3), doubles(40, 3) * torch.tensor([1.0, 2.0, 0.3]) + 1
    truth = sliced_wasserstein(x, y, directions=100_000, generator=generator("truth")) ** 2

    def error(draw):
        values = [
            sliced_wasserstein(x, y, directions=draw(30, 3, generator=generator(i))) ** 2
            for i in range(60)
        ]
        return (torch.stack(values) - truth).square().mean().sqrt()

    assert error(draw) < 0.8 * error(uniform_directions)


@pytest.mark.filterwarnings("ignore:The use of `x.T`")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("case", ["equal", "unequal", "weighted", "one weighted"])
def test_value_and_gradient_by_chunks_equal_pots_one_direction_at_a_time(
    p, case, dtype, monkeypatch
):
    monkeypatch.setattr(tuning, "CPU", dataclasses.replace(tuning.CPU, slice_values=40))
    x, y, theta = doubles(7, 3), doubles(7 if case == "equal" else 5, 3), doubles(11, 3)
    x, y, theta = (z.to(dtype) for z in (x, y, theta))
    a = law(7).to(dtype) if "weighted" in case else None
    b = law(5).to(dtype) if case == "weighted" else None
    x.requires_grad_()
    y.requires_grad_()
    ours = sliced_power(x, y, theta, a, b, p=p)
    expected = torch.stack([ot.wasserstein_1d(x @ t, y @ t, a, b, p=p) for t in theta]).mean()
    torch.testing.assert_close(ours, expected)
    for g, h in zip(
        torch.autograd.grad(3 * ours, [x, y]), torch.autograd.grad(3 * expected, [x, y])
    ):
        torch.testing.assert_close(g, h, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=1e-6)


def test_second_derivatives_are_those_of_the_matching():
    """W_2² at a frozen matching is a quadratic form; the fast gradient alone would have none."""
    x, y, theta = doubles(4, 2).requires_grad_(), doubles(4, 2), doubles(3, 2)
    z, a = doubles(3, 2).requires_grad_(), law(3)
    assert torch.autograd.gradgradcheck(lambda x: sliced_wasserstein(x, y, directions=theta), x)
    assert torch.autograd.gradgradcheck(
        lambda x, z: sliced_wasserstein(x, z, None, a, directions=theta, p=3), (x, z)
    )


@pytest.mark.parametrize("p", [1, 2, 3])
def test_weights_take_gradients(p):
    x, y, theta = doubles(4, 2).requires_grad_(), doubles(5, 2), doubles(6, 2)
    u, v = doubles(4).requires_grad_(), doubles(5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, u, v: sliced_wasserstein(
            x, y, u.softmax(0), v.softmax(0), p=p, directions=theta
        ),
        (x, u, v),
        atol=1e-6,
    )


@pytest.mark.parametrize("p", [1, 2])
def test_gradient_equals_finite_differences(p):
    x, y, theta = doubles(5, 2).requires_grad_(), doubles(4, 2).requires_grad_(), doubles(6, 2)
    assert torch.autograd.gradcheck(
        lambda x, y: sliced_wasserstein(x, y, p=p, directions=theta), (x, y), atol=1e-6
    )


def test_gradient_is_finite_at_equal_samples():
    x = doubles(6, 3).requires_grad_()
    sliced_wasserstein(x, x.detach().clone()).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_nothing_is_recorded_without_gradients():
    x = doubles(6, 3).requires_grad_()
    with torch.no_grad():
        assert not sliced_wasserstein(x, doubles(6, 3)).requires_grad
    assert torch.is_grad_enabled()


def test_standard_error_covers_the_truth():
    """The estimate is within two errors of the truth in most of 200 repetitions."""
    x, y = doubles(30, 5), doubles(25, 5) + 0.7
    truth = sliced_wasserstein(x, y, directions=100_000, generator=generator("truth"))
    estimates = [
        sliced_wasserstein_estimate(x, y, directions=50, generator=generator(i))
        for i in range(200)
    ]
    covered = sum(abs(e.value - truth) < 2 * e.error for e in estimates) / 200
    assert 0.9 < covered <= 0.99


@pytest.mark.parametrize("draw", [orthogonal_directions, sobol_directions])
def test_standard_error_of_dependent_directions_is_that_of_their_replicates(draw):
    """Within 2.13 errors, the 95 % quantile of Student's t of 15 degrees of freedom, in most of
    200 repetitions; as many independent directions err more."""
    x, y = doubles(30, 3), doubles(25, 3) * torch.tensor([0.5, 1.0, 2.0]) + 0.7
    truth = sliced_wasserstein(x, y, directions=100_000, generator=generator("truth"))

    def estimates(**drawn):
        pairs = [
            sliced_wasserstein_estimate(x, y, directions=192, generator=generator(i), **drawn)
            for i in range(200)
        ]
        return (torch.stack(z) for z in zip(*pairs))

    values, errors = estimates(draw=draw)
    covered = ((values - truth).abs() < 2.13 * errors).double().mean()
    assert 0.91 < covered < 0.99
    values, independent = estimates()
    assert errors.mean() < 0.8 * independent.mean()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"directions": 100}, "`directions` must be a multiple"),
        ({"replicates": 1}, "`replicates`"),
        ({"directions": torch.eye(2)}, "`draw`"),
    ],
)
def test_bad_replicates_are_named(arguments, word):
    with pytest.raises(ValueError, match=word):
        sliced_wasserstein_estimate(
            torch.zeros(4, 2), torch.ones(3, 2), draw=sobol_directions, **arguments
        )


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 5), st.integers(0, 10**6))
def test_sliced_is_bounded_by_the_exact_distance(n, m, d, seed):
    """SW_p^p ≤ W_p^p on every direction, since projections are 1-Lipschitz; for p = 2 over an
    orthonormal basis the mean is at most W_2²/d."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, dtype=torch.float64, generator=random)
    y = torch.randn(m, d, dtype=torch.float64, generator=random)
    theta = orthogonal_directions(d, d, generator=random)
    assert sliced_wasserstein(x, y, directions=theta) ** 2 <= wasserstein(x, y) ** 2 / d + 1e-6
    assert sliced_wasserstein(x, y, p=1, directions=theta) <= wasserstein(x, y, p=1) + 1e-6


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("d", [2, 5, 20])
def test_sliced_power_is_at_most_alpha_times_the_exact_one(p, d):
    """SW_p^p ≤ α_{d,p} W_p^p with α = ∫ ‖θ‖_p^p dθ / d = ∫ |θ_1|^p dθ, and equal to it for
    translations."""
    alpha = math.gamma(d / 2) * math.gamma((p + 1) / 2) / math.gamma((d + p) / 2) / math.pi**0.5
    x, y, v = doubles(30, d), doubles(20, d) * 1.5, doubles(d)
    theta = uniform_directions(20_000, d, generator=generator(0)).double()
    powers = wasserstein_1d(theta @ x.T, theta @ y.T, p=p) ** p
    error = powers.std() / 20_000**0.5
    assert powers.mean() <= alpha * wasserstein(x, y, p=p) ** p + 4 * error
    moved = (theta @ v).abs() ** p
    error = moved.std() / 20_000**0.5
    assert abs(moved.mean() - alpha * v.norm() ** p) < 4 * error
    translated = sliced_wasserstein(x, x + v, p=p, directions=theta) ** p
    assert float(translated) == pytest.approx(float(moved.mean()), rel=1e-9)


@given(st.floats(0.01, 100), st.integers(2, 6), st.integers(0, 10**6))
def test_sliced_scales_and_ignores_translation(scale, d, seed):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(6, d, dtype=torch.float64, generator=random)
    y = torch.randn(4, d, dtype=torch.float64, generator=random)
    theta = uniform_directions(5, d, generator=random)
    value = sliced_wasserstein(x, y, directions=theta)
    scaled = sliced_wasserstein(scale * x + 3, scale * y + 3, directions=theta)
    assert float(scaled) == pytest.approx(float(scale * value), rel=1e-6)


# Curved slices


def test_linear_slices_are_plain_slices():
    x, y, slicer = doubles(9, 4), doubles(6, 4), Linear(4, 16)
    expected = sliced_wasserstein(x, y, directions=slicer.theta.detach())
    torch.testing.assert_close(generalized_sliced_wasserstein(x, y, slicer), expected)


@pytest.mark.parametrize("name", SLICERS)
def test_generalized_gradient_equals_finite_differences(name):
    slicer = SLICERS[name](3).double()
    x, y = doubles(5, 3).requires_grad_(), doubles(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, y: generalized_sliced_wasserstein(x, y, slicer), (x, y), atol=1e-6
    )


@pytest.mark.parametrize("name", SLICERS)
def test_slices_are_normalised_and_drawn_afresh(name):
    slicer = SLICERS[name](3)
    before = [p.clone() for p in slicer.parameters()]
    slicer.resample_(generator(7))
    drawn = [p.clone() for p in slicer.parameters()]
    assert all(not torch.equal(p, q) for p, q in zip(before, drawn))
    slicer.resample_(generator(7))
    assert all(map(torch.equal, drawn, slicer.parameters()))
    with torch.no_grad():
        for p in slicer.parameters():
            p *= 100
    slicer.project_()
    if isinstance(slicer, Neural):
        norm = torch.linalg.matrix_norm(slicer.inner.weight, 2).item()
        assert norm == pytest.approx(1, rel=1e-5)
        torch.testing.assert_close(slicer.outer.weight.norm(dim=1), torch.ones(16))
    else:
        torch.testing.assert_close(slicer.theta.norm(dim=1), torch.ones(16))


def test_formulas_of_the_slices():
    x = doubles(5, 3)
    circular = Circular(3, 2, radius=1.5)
    expected = torch.stack([(x - 1.5 * t).norm(dim=1) for t in circular.theta.detach()], 1)
    torch.testing.assert_close(circular(x), expected, rtol=1e-6, atol=1e-6)
    cubic = Polynomial(2, 3, 1)
    z = doubles(4, 2)
    u, v = z.T
    monomials = torch.stack([u**3, u**2 * v, u * v**2, v**3], 1)
    torch.testing.assert_close(cubic(z), monomials @ cubic.theta.double().T)
    torch.testing.assert_close(cubic(2 * z), 8 * cubic(z))


def test_bad_slicers_are_refused():
    with pytest.raises(ValueError, match="`degree` must be odd"):
        Polynomial(3, 2)
    with pytest.raises(ValueError, match="monomials"):
        Polynomial(100, 5)
    with pytest.raises(ValueError, match="`radius`"):
        Circular(3, radius=0.0)


def test_slices_that_overflow_are_refused():
    far, near = torch.full((4, 2), 1e30), torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"`x` is too large.*divide"):
        generalized_sliced_wasserstein(far, near, Polynomial(2, 3, 4))
    value = generalized_sliced_wasserstein(far, near, Circular(2, 4))
    assert float(value.detach()) == pytest.approx(2**0.5 * 1e30, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"directions": torch.zeros(3, 5)}, "`directions`"),
        ({"directions": 0}, "`directions`"),
        ({"p": 0.5}, "`p`"),
        ({"a": torch.ones(4)}, "`a`"),
    ],
)
def test_bad_input_is_named(arguments, word):
    with pytest.raises(ValueError, match=word):
        sliced_wasserstein(torch.zeros(4, 2), torch.zeros(3, 2), **arguments)


# Magnitudes, weights, numbers of slices


def test_estimate_of_a_high_order_does_not_overflow():
    """W_540 of four values of which one is 50 off: 50 (1/4)^{1/540}."""
    x, y = (torch.tensor([[1.0], [2.0], [3.0], [z]], dtype=torch.float64) for z in (54.0, 4.0))
    value, error = sliced_wasserstein_estimate(x, y, p=540)
    assert float(value) == pytest.approx(50 * 0.25 ** (1 / 540), rel=1e-9)
    assert float(error) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e10, 1e30])
def test_sliced_family_keeps_its_value_at_every_magnitude_in_float32(scale):
    random = generator(0)
    x, y = torch.randn(30, 3, generator=random), torch.randn(20, 3, generator=random) + 1
    theta, slicer = uniform_directions(40, 3, generator=random), Linear(3, 16)

    def values(x, y):
        slicer.resample_(generator(1))
        return torch.stack(
            [
                *sliced_wasserstein_estimate(x, y, p=4, directions=theta),
                generalized_sliced_wasserstein(x, y, slicer, p=4),
            ]
        ).detach()

    torch.testing.assert_close(
        values(scale * x, scale * y) / scale, values(x, y), rtol=1e-3, atol=0
    )


def test_weights_are_repeated_points():
    random = generator(0)
    x = torch.randn(4, 3, dtype=torch.float64, generator=random)
    y = torch.randn(5, 3, dtype=torch.float64, generator=random) + 1
    times = torch.tensor([1, 3, 2, 4])
    a, repeated = times.double() / 10, x.repeat_interleave(times, 0)
    slicer = Linear(3, 16)
    slicer.resample_(generator(1))
    weighted = generalized_sliced_wasserstein(x, y, slicer, a)
    expected = generalized_sliced_wasserstein(repeated, y, slicer)
    torch.testing.assert_close(weighted, expected, rtol=1e-5, atol=0)


def test_neural_slices_do_not_vanish_with_their_number():
    """The expectation of GSW_2² is that of one slice."""
    random = generator(0)
    x, y = torch.randn(200, 4, generator=random), torch.randn(200, 4, generator=random) + 1

    def mean(slices, draws):
        slicer, powers = Neural(4, slices), []
        for i in range(draws):
            slicer.resample_(generator(i))
            powers.append(generalized_sliced_wasserstein(x, y, slicer).detach() ** 2)
        powers = torch.stack(powers)
        return powers.mean(), powers.std() / draws**0.5

    (one, error), (many, other) = mean(1, 600), mean(64, 200)
    assert abs(one - many) < 4 * (error**2 + other**2).sqrt()
    assert other < 0.1 * many
