"""Max-sliced distances: the maximum is found; magnitudes, weights and derivatives."""

import math

import pytest
import torch

from monge.draws import generator
from monge.transport import (
    Circular,
    Linear,
    Neural,
    Polynomial,
    max_generalized_sliced_wasserstein,
    max_sliced_wasserstein,
    orthogonal_directions,
    sliced_wasserstein,
    uniform_directions,
    wasserstein,
    wasserstein_1d,
)

SLICERS = {
    "linear": lambda dim: Linear(dim, 16),
    "circular": lambda dim: Circular(dim, 16),
    "polynomial": lambda dim: Polynomial(dim, 3, 16),
    "neural": lambda dim: Neural(dim, 16, 8),
}


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


# The maximum


def bimodal(dim, seed, rotated):
    """N(0, I), the same with one direction replaced by ±.99 + .1 N(0, 1), and that direction."""
    random = generator(seed, "bimodal")
    x, y = torch.randn(2, 1000, dim, generator=random)
    signs = torch.randint(2, (1000,), generator=random) * 2 - 1
    y[:, 0] = 0.99 * signs + 0.1 * torch.randn(1000, generator=random)
    axes = orthogonal_directions(dim, dim, generator=random) if rotated else torch.eye(dim)
    return x, y @ axes, axes[0]


@pytest.mark.parametrize(("dim", "rotated"), [(10, False), (10, True), (25, False), (20, True)])
@pytest.mark.parametrize("seed", range(12))
def test_max_sliced_finds_a_difference_in_shape_alone(dim, rotated, seed):
    """Means and covariances are equal; only one direction is not Gaussian."""
    x, y, planted = bimodal(dim, seed, rotated)
    value, direction = max_sliced_wasserstein(x, y, generator=generator(seed))
    assert value > 0.99 * wasserstein_1d(x @ planted, y @ planted)
    assert abs(direction @ planted) > 0.9


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("dim", [3, 12, 40])
def test_max_sliced_is_the_largest_of_a_long_search(dim, heavy):
    """Gaussians, or Student's t of 3 degrees of freedom, with unlike means and covariances,
    against ascents from the best of 5,000 directions and of all axes."""
    random = generator(dim, heavy)
    samples = []
    for n in (300, 400):
        z = torch.randn(n, dim, generator=random)
        if heavy:
            z = z / torch.randn(n, 3, generator=random).square().mean(1, keepdim=True).sqrt()
        scales = 4 ** (torch.rand(dim, generator=random) - 0.5)
        samples.append(z * scales @ orthogonal_directions(dim, dim, generator=random))
    x, y = samples[0], samples[1] + 0.5 / dim**0.5
    theta = torch.cat([torch.eye(dim), uniform_directions(5000, dim, generator=random)])
    slicer, drawn = Linear(dim, 16), wasserstein_1d(theta @ x.T, theta @ y.T)
    with torch.no_grad():
        slicer.theta.copy_(theta[drawn.topk(16).indices])
    expected = max_generalized_sliced_wasserstein(x, y, slicer)
    value, _ = max_sliced_wasserstein(x, y, generator=generator(0))
    assert value > 0.98 * expected


@pytest.mark.parametrize("weighted", [False, True])
def test_max_sliced_compares_starts_on_a_part_of_large_samples(weighted):
    """Values are those of all points; points without weight are not drawn."""
    random = generator(0)
    x, y = torch.randn(2, 6000, 5, generator=random)
    y[:, 2] *= 2
    if weighted:
        y[3000:] += 100
        b = torch.cat([torch.full((3000,), 1 / 3000), torch.zeros(3000)])
    else:
        b = None
    value, direction = max_sliced_wasserstein(x, y, None, b, generator=generator(1))
    assert abs(direction[2]) > 0.99
    torch.testing.assert_close(value, wasserstein_1d(x @ direction, y @ direction, None, b))


def test_max_sliced_finds_a_far_mean_where_plain_slices_lose_it():
    """N(0, I) against N(v, I): value near ‖v‖ along v, while SW goes to ‖v‖/√d."""
    d, v = 50, 10.0
    x, y = torch.randn(2000, d), torch.randn(2000, d)
    y[:, 3] += v
    value, direction = max_sliced_wasserstein(x, y, generator=generator(0))
    assert float(value) == pytest.approx(v, rel=0.02)
    assert abs(direction[3]) > 0.99
    assert float(direction.norm()) == pytest.approx(1, rel=1e-5)
    plain = sliced_wasserstein(x, y, directions=500, generator=generator(0))
    assert float(plain) == pytest.approx(v / math.sqrt(d), rel=0.2)


def test_max_sliced_is_at_least_every_drawn_slice():
    x, y = doubles(60, 8), doubles(40, 8) * 1.3
    value, direction = max_sliced_wasserstein(x, y, generator=generator(0))
    theta = uniform_directions(3000, 8, generator=generator(1)).double()
    assert value >= wasserstein_1d(theta @ x.T, theta @ y.T).max()
    assert float(value) == pytest.approx(float(wasserstein_1d(x @ direction, y @ direction)))
    assert value <= wasserstein(x, y) + 1e-9


def test_max_sliced_in_the_plane_is_the_maximum_over_angles():
    x, y = doubles(20, 2), doubles(20, 2) * torch.tensor([3.0, 0.5]) + 0.3
    angles = torch.linspace(0, math.pi, 20_001, dtype=torch.float64)
    theta = torch.stack([angles.cos(), angles.sin()], 1)
    expected = wasserstein_1d(theta @ x.T, theta @ y.T).max()
    value, _ = max_sliced_wasserstein(x, y, generator=generator(0))
    assert float(value) == pytest.approx(float(expected), rel=1e-4)


def test_max_sliced_gradient_is_that_of_the_frozen_slice():
    x, y = doubles(8, 3).requires_grad_(), doubles(8, 3)
    value, direction = max_sliced_wasserstein(x, y, generator=generator(0))
    assert not direction.requires_grad
    (gradient,) = torch.autograd.grad(value, x)
    expected = torch.autograd.grad(wasserstein_1d(x @ direction, y @ direction), x)[0]
    torch.testing.assert_close(gradient, expected)
    assert x.grad is None


@pytest.mark.parametrize("name", ["max-sliced", *SLICERS])
def test_second_derivatives_are_refused(name):
    """The slice on which samples differ most moves with them."""
    x, y = doubles(6, 3).requires_grad_(), doubles(5, 3) + 1
    if name == "max-sliced":
        value, _ = max_sliced_wasserstein(x, y, generator=generator(0))
    else:
        value = max_generalized_sliced_wasserstein(x, y, SLICERS[name](3), iterations=5)
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(first.sum(), x)


def test_max_sliced_takes_gradients_in_weights():
    """Those of the frozen slice."""
    x, y, logits = doubles(5, 3), doubles(4, 3) + 1, doubles(5).requires_grad_()
    value, direction = max_sliced_wasserstein(x, y, logits.softmax(0), generator=generator(0))
    frozen = wasserstein_1d(x @ direction, y @ direction, logits.softmax(0))
    torch.testing.assert_close(
        torch.autograd.grad(value, logits), torch.autograd.grad(frozen, logits)
    )


# Worst slices of a family


@pytest.mark.parametrize("name", SLICERS)
def test_the_worst_slice_is_at_least_the_drawn_ones_and_is_kept(name):
    x, y, slicer = doubles(30, 3), doubles(20, 3) + 1, SLICERS[name](3)
    drawn = wasserstein_1d(slicer(x).T, slicer(y).T).max().detach()
    value = max_generalized_sliced_wasserstein(x, y, slicer, iterations=50)
    assert value >= drawn
    kept = wasserstein_1d(slicer(x).T, slicer(y).T).max()
    torch.testing.assert_close(kept.detach(), value.detach())


def test_the_worst_linear_slice_is_the_max_sliced_distance():
    x, y = doubles(40, 3), doubles(30, 3) + torch.tensor([2.0, 0.0, 1.0])
    expected, _ = max_sliced_wasserstein(x, y, generator=generator(0))
    value = max_generalized_sliced_wasserstein(x, y, Linear(3, 32))
    assert value.item() == pytest.approx(expected.item(), rel=5e-3)
    assert value <= expected + 1e-6


@pytest.mark.parametrize("name", SLICERS)
def test_the_worst_slice_has_the_gradient_of_the_frozen_one(name):
    x, y, slicer = doubles(6, 3).requires_grad_(), doubles(5, 3) + 1, SLICERS[name](3)
    value = max_generalized_sliced_wasserstein(x, y, slicer, iterations=20)
    frozen = wasserstein_1d(slicer(x).T, slicer(y).T).max()
    inputs = [x, *slicer.parameters()]
    for ours, expected in zip(
        torch.autograd.grad(value, inputs), torch.autograd.grad(frozen, inputs)
    ):
        torch.testing.assert_close(ours, expected)


# Magnitudes and weights


def both(x, y, *weights, p=2):
    slicer = Linear(x.shape[1], 16)
    slicer.resample_(generator(1))
    values = (
        max_generalized_sliced_wasserstein(x, y, slicer, *weights, p=p),
        max_sliced_wasserstein(x, y, *weights, p=p, generator=generator(2))[0],
    )
    return torch.stack(values).detach()


@pytest.mark.parametrize("scale", [1e-30, 1e10, 1e30])
def test_values_keep_at_every_magnitude_in_float32(scale):
    random = generator(0)
    x, y = torch.randn(30, 3, generator=random), torch.randn(20, 3, generator=random) + 1
    torch.testing.assert_close(
        both(scale * x, scale * y, p=4) / scale, both(x, y, p=4), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("p", [2, 40, 540])
@pytest.mark.parametrize("far", [0.0, 2.0**20])
def test_a_shift_far_from_the_origin_is_its_length_at_every_order(p, far):
    """Points on a grid of 1/8, which float32 holds exactly, and a shift of (1/2, 0, 0)."""
    x = torch.randint(-20, 20, (40, 3), generator=generator(0)) / 8 + far
    y = x + torch.tensor([0.5, 0.0, 0.0])
    value, direction = max_sliced_wasserstein(x, y, p=p, generator=generator(1))
    assert float(value) == pytest.approx(0.5, rel=1e-4)
    assert abs(direction[0]) > 0.999


def test_one_gap_at_a_high_order():
    """W_540 of four values of which one is 50 off, far from the origin: 50 (1/4)^{1/540}."""
    x, y = (torch.tensor([[1.0], [2.0], [3.0], [z]]) + 1e4 for z in (54.0, 4.0))
    expected = torch.full((2,), 50 * 0.25 ** (1 / 540))
    torch.testing.assert_close(both(x, y, p=540), expected, rtol=1e-5, atol=0)


def test_weights_are_repeated_points():
    random = generator(0)
    x = torch.randn(4, 3, dtype=torch.float64, generator=random)
    y = torch.randn(5, 3, dtype=torch.float64, generator=random) + 1
    times = torch.tensor([1, 3, 2, 4])
    a, repeated = times.double() / 10, x.repeat_interleave(times, 0)
    torch.testing.assert_close(both(x, y, a), both(repeated, y), rtol=1e-5, atol=0)


@pytest.mark.parametrize("word", ["starts", "kept", "iterations"])
def test_bad_counts_are_named(word):
    with pytest.raises(ValueError, match=f"`{word}`"):
        max_sliced_wasserstein(torch.zeros(4, 2), torch.ones(3, 2), **{word: 0})


def test_slices_that_cannot_be_optimised_are_refused():
    x = torch.linspace(0, 1, 12).reshape(6, 2)
    with pytest.raises(ValueError, match="no parameters that require gradients"):
        max_generalized_sliced_wasserstein(x, x, Linear(2).requires_grad_(False))
    with torch.inference_mode():
        made = Linear(2)
    with pytest.raises(ValueError, match="`slicer` was made in inference mode"):
        max_generalized_sliced_wasserstein(x, x, made)
