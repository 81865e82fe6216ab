"""Barycenters: closed forms, POT and brute force as oracles, and their edges."""

import itertools
import math
import warnings

import numpy as np
import ot
import pytest
import torch

from monge.transport import (
    barycenter_1d,
    free_support_barycenter,
    gaussian_barycenter,
    gaussian_mixture_barycenter,
    gaussian_wasserstein,
    grid_barycenter,
    histogram_barycenter,
    sinkhorn_barycenter,
    sinkhorn_divergence,
    sliced_barycenter,
    sliced_wasserstein,
    solve_entropic,
    wasserstein,
    wasserstein_1d,
)
from monge.transport.histogram_barycenters import WideKernel

FREE = {
    "exact": free_support_barycenter,
    "sinkhorn": lambda *args, **named: sinkhorn_barycenter(*args, epsilon=0.2, **named),
    "sliced": sliced_barycenter,
}
each_free = pytest.mark.parametrize("barycenter", FREE.values(), ids=FREE)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The line


def test_the_line_is_the_mean_of_sorted_values():
    x, y = normal(30), normal(30, seed=1).exp()
    points, masses = barycenter_1d([x, y], [0.3, 0.7])
    assert torch.allclose(points, 0.3 * x.sort().values + 0.7 * y.sort().values)
    assert torch.allclose(masses, torch.full((30,), 1 / 30, dtype=torch.float64))


def test_the_line_with_masses_attains_the_minimum():
    """λ0 λ1 W² is the least of λ0 W²(μ, ν0) + λ1 W²(μ, ν1), and the barycenter lies on the
    geodesic: its distance to ν0 is λ1 W."""
    x, y = normal(7), normal(5, seed=1) * 2
    a, b = normal(7, seed=2).exp(), normal(5, seed=3).exp()
    a, b = a / a.sum(), b / b.sum()
    points, masses = barycenter_1d([x, y], [0.3, 0.7], sample_masses=[a, b])
    whole = wasserstein_1d(x, y, a, b)
    assert masses.sum() == pytest.approx(1)
    assert wasserstein_1d(points, x, masses, a) == pytest.approx(float(0.7 * whole))
    assert wasserstein_1d(points, y, masses, b) == pytest.approx(float(0.3 * whole))


def test_the_line_of_three_samples_is_stationary():
    """Against the exact barycenter by a linear programme on a fine support."""
    samples = [normal(4, seed=s) for s in range(3)]
    points, masses = barycenter_1d(samples)

    def objective(points, masses):
        return sum(float(wasserstein_1d(points, z, masses, None)) ** 2 for z in samples)

    # all multi-marginal matchings of sorted points are candidates; the comonotone one is the best
    least = min(
        objective(
            torch.stack([samples[0], samples[1][list(s)], samples[2][list(t)]]).mean(0), masses
        )
        for s, t in itertools.product(itertools.permutations(range(4)), repeat=2)
    )
    assert objective(points, masses) == pytest.approx(least)


# Free support


@each_free
def test_the_barycenter_of_one_sample_is_itself(barycenter):
    x = normal(40, 2)
    found = barycenter([x], start=normal(40, 2, seed=5))
    assert found.converged
    assert wasserstein(found.points, x) < 0.15 * x.std()


@each_free
def test_translations(barycenter):
    """The barycenter of a sample and its translations is its mean translation."""
    x = normal(40, 2)
    shifts = torch.tensor([[4.0, 0.0], [0.0, 2.0], [1.0, -5.0]], dtype=torch.float64)
    found = barycenter([x + s for s in shifts], [0.5, 0.3, 0.2], start=x)
    expected = x + torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64) @ shifts
    assert torch.allclose(found.points, expected, atol=0.05)


@each_free
def test_a_common_translation_changes_nothing(barycenter):
    """Also far from the origin."""
    x, y = normal(20, 2), normal(25, 2, seed=1) * 2
    # plans to the tolerance are not the same to more than that
    settings = {"max_iterations": 5, "tolerance": 1e-7}
    if barycenter is sliced_barycenter:
        settings["directions"] = normal(30, 2, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = barycenter([x, y], start=x, **settings)
        there = barycenter([x + 1e4, y + 1e4], start=x + 1e4, **settings)
    assert torch.allclose(there.points - 1e4, here.points, atol=1e-5)


@each_free
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_dtypes_are_kept(barycenter, dtype):
    x, y = normal(20, 2).to(dtype), normal(20, 2, seed=1).to(dtype)
    found = barycenter([x, y], start=x, tolerance=1e-2)
    assert found.points.dtype is dtype
    assert found.masses.dtype is dtype
    arrays = barycenter([x.numpy(), y.numpy()], start=x.numpy(), tolerance=1e-2)
    assert torch.equal(arrays.points, found.points) or barycenter is sliced_barycenter


@each_free
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_and_counts(barycenter, dtype):
    x, y = normal(20, 2), normal(20, 2, seed=1)
    weights, masses = torch.tensor([0.4, 0.6]), torch.full((20,), 0.05)
    settings = {"start": x, "tolerance": 1e-2}
    if barycenter is sliced_barycenter:
        settings["directions"] = torch.eye(2)
    expected = barycenter([x, y], weights, **settings).points
    halves = barycenter([x, y], weights.to(dtype), masses=masses.to(dtype), **settings).points
    counts = barycenter([x, y], [2, 3], masses=torch.ones(20).int(), **settings).points
    torch.testing.assert_close(halves, expected, atol=5e-3, rtol=0)
    torch.testing.assert_close(counts, expected, atol=1e-6, rtol=0)


def test_directions_are_arrays_as_elsewhere():
    x, y, theta = normal(20, 2), normal(20, 2, seed=1), normal(5, 2, seed=2)
    expected = sliced_barycenter([x, y], start=x, directions=theta).points
    for directions in (theta.numpy(), theta.tolist(), theta.clone().requires_grad_()):
        found = sliced_barycenter([x, y], start=x, directions=directions)
        torch.testing.assert_close(found.points, expected)
    for wrong in (theta / 0, theta + 0j, theta[:, :1], 2.5):
        with pytest.raises(ValueError, match="`directions` must"):
            sliced_barycenter([x, y], start=x, directions=wrong)


def test_exact_as_pot():
    samples = [normal(30, 2), normal(25, 2, seed=1) + 3, normal(20, 2, seed=2) * 2]
    masses = [torch.softmax(normal(len(y), seed=9), 0) for y in samples]
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    start = normal(15, 2, seed=4)
    pot = ot.lp.free_support_barycenter(
        [y.numpy() for y in samples],
        [b.numpy() for b in masses],
        start.numpy(),
        weights=weights.numpy(),
        numItermax=100,
        stopThr=1e-12,
    )
    found = free_support_barycenter(
        samples, weights, start=start, sample_masses=masses, tolerance=1e-7
    )
    assert found.converged
    assert np.allclose(found.points, pot, atol=1e-6)


def test_exact_on_the_line():
    x, y = normal(30, 1), normal(30, 1, seed=1).exp()
    found = free_support_barycenter([x, y], [0.3, 0.7], start=x)
    expected, _ = barycenter_1d([x[:, 0], y[:, 0]], [0.3, 0.7])
    assert torch.allclose(found.points[:, 0].sort().values, expected, atol=1e-4)


def test_exact_lies_on_the_geodesic_of_two():
    x, y = normal(20, 3), normal(20, 3, seed=1) + 2
    found = free_support_barycenter([x, y], [0.25, 0.75], start=x)
    whole = wasserstein(x, y)
    assert wasserstein(found.points, x) == pytest.approx(float(0.75 * whole), rel=1e-3)
    assert wasserstein(found.points, y) == pytest.approx(float(0.25 * whole), rel=1e-3)


def test_sinkhorn_is_stationary():
    """Finite differences of the objective are 0 at the barycenter."""
    samples = [normal(12, 2), normal(15, 2, seed=1) + 1]
    found = sinkhorn_barycenter(
        samples, [0.4, 0.6], epsilon=0.5, start=normal(10, 2, seed=3), tolerance=1e-7,
        max_iterations=2000,
    )  # fmt: skip
    points = found.points.clone().requires_grad_()
    objective = sum(
        w * sinkhorn_divergence(points, y, epsilon=0.5, tolerance=1e-8)
        for w, y in zip((0.4, 0.6), samples)
    )
    (slope,) = torch.autograd.grad(objective, points)
    assert slope.abs().max() < 1e-5


def test_sinkhorn_does_not_shrink():
    """Its debiased barycenter of two Gaussian samples has their variance, for large ε too."""
    x, y = normal(200, 1), normal(200, 1, seed=1) + 5
    found = sinkhorn_barycenter([x, y], epsilon=5.0, start=x)
    assert found.points.var() == pytest.approx(float((x.std() + y.std()) / 2) ** 2, rel=0.1)


def test_sliced_is_stationary():
    samples, theta = [normal(12, 2), normal(15, 2, seed=1) + 1], normal(40, 2, seed=6)
    theta = theta / theta.norm(dim=1, keepdim=True)
    found = sliced_barycenter(
        samples, [0.4, 0.6], start=normal(10, 2, seed=3), directions=theta, tolerance=1e-9,
        max_iterations=5000,
    )  # fmt: skip
    points = found.points.clone().requires_grad_()
    objective = sum(
        w * sliced_wasserstein(points, y, directions=theta).square()
        for w, y in zip((0.4, 0.6), samples)
    )
    (slope,) = torch.autograd.grad(objective, points)
    assert slope.abs().max() < 1e-6


def test_sliced_is_near_the_exact_one():
    x, y = normal(100, 2), normal(100, 2, seed=1) * torch.tensor([3.0, 0.5]) + 2
    exact = free_support_barycenter([x, y], start=x)
    sliced = sliced_barycenter([x, y], start=x, generator=torch.Generator().manual_seed(0))
    assert wasserstein(exact.points, sliced.points) < 0.2 * wasserstein(x, y)


@each_free
def test_points_and_samples_without_weight_are_not_there(barycenter):
    x, y = normal(20, 2), normal(30, 2, seed=1)
    b = torch.full((30,), 1 / 20)
    b[20:] = 0
    theta = {"directions": normal(30, 2, seed=2)} if barycenter is sliced_barycenter else {}
    one = barycenter([x, y, y + 100], [0.5, 0.5, 0.0], start=x,
                     sample_masses=[[1 / 20] * 20, b, [1 / 30] * 30], **theta)  # fmt: skip
    two = barycenter([x, y[:20]], start=x, **theta)
    assert torch.allclose(one.points, two.points, atol=1e-3)


@each_free
def test_bad_input_is_named(barycenter):
    x = normal(10, 2)
    cases = [
        (([],), {"start": x}, r"`samples` must hold at least one"),
        (([x, x[:, :1]],), {"start": x}, r"`samples\[1\]` must have shape \(n, 2\)"),
        (([x, x / 0],), {"start": x}, r"`samples\[1\]` must be finite"),
        (([x[0, 0], x],), {"start": x}, r"`samples\[0\]` must have shape \(n, d\)"),
        (([x, x], [0.5, 0.6]), {"start": x}, r"`weights` must be at least 0 and sum to 1"),
        (([x, x], [1.0]), {"start": x}, r"`weights` must"),
        (([x],), {"start": x[:, :1]}, r"`start` must have shape \(n, 2\)"),
        (([x],), {"start": x, "masses": [0.1] * 9}, r"`masses` must"),
        (([x],), {"start": x, "sample_masses": []}, r"`sample_masses` must hold masses for each"),
        (([x],), {"start": x, "tolerance": 0}, r"`tolerance` must be positive"),
        (([x],), {"start": x, "max_iterations": 0}, r"`max_iterations` must be an integer"),
    ]
    for args, named, message in cases:
        with pytest.raises(ValueError, match=message):
            barycenter(*args, **named)
    with pytest.raises(ValueError, match=r"`directions` must span 2 dimensions"):
        sliced_barycenter([x], start=x, directions=1)


def test_what_has_not_converged_warns():
    x, y = normal(30, 2), normal(30, 2, seed=1) * 3
    with pytest.warns(UserWarning, match=r"still moves by .* after 1 iterations"):
        found = free_support_barycenter([x, y], start=x, max_iterations=1)
    assert not found.converged
    assert "converged=False" in repr(found)


# Gaussians


def covariances(k: int, d: int, seed: int = 0) -> torch.Tensor:
    factors = normal(k, d, d, seed=seed)
    return factors @ factors.mT + 0.1 * torch.eye(d)


def test_gaussians_as_pot():
    means, covs = normal(4, 3), covariances(4, 3)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    mean, cov = gaussian_barycenter(means, covs, weights)
    pot_mean, pot_cov = ot.gaussian.bures_wasserstein_barycenter(
        means.numpy(), covs.numpy(), weights.numpy(), num_iter=1000, eps=1e-12
    )
    assert np.allclose(mean, pot_mean)
    assert np.allclose(cov, pot_cov, atol=1e-7)


def test_gaussians_that_commute():
    """Of diagonal covariances standard deviations are averaged; also where some are 0."""
    deviations = torch.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 0.0], [2.0, 0.0, 0.0]]).double()
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    _, cov = gaussian_barycenter(torch.zeros(3, 3).double(), (deviations**2).diag_embed(), weights)
    assert torch.allclose(cov, ((weights @ deviations) ** 2).diag(), atol=1e-6)


def test_gaussians_attain_the_minimum():
    means, covs = normal(3, 2), covariances(3, 2)
    mean, cov = gaussian_barycenter(means, covs)

    def objective(mean, cov):
        return sum(float(gaussian_wasserstein(mean, cov, m, c)) ** 2 for m, c in zip(means, covs))

    least = objective(mean, cov)
    for seed in range(20):
        move = 0.05 * normal(2, 2, seed=seed)
        assert objective(mean, (torch.eye(2) + move) @ cov @ (torch.eye(2) + move).T) > least


def test_gaussians_of_any_scale_and_dtype():
    means, covs = normal(3, 2), covariances(3, 2)
    _, cov = gaussian_barycenter(means, covs)
    for scale in (1e-12, 1e12):
        assert torch.allclose(gaussian_barycenter(means, scale * covs)[1] / scale, cov)
    half = gaussian_barycenter(means.half(), covs.half())
    assert half[1].dtype is torch.float16
    assert torch.allclose(half[1].double(), cov, rtol=1e-2)
    with pytest.raises(ValueError, match=r"`means` and `covs` must have shapes"):
        gaussian_barycenter(means, covs[0])
    with pytest.raises(ValueError, match=r"positive semidefinite"):
        gaussian_barycenter(means, -covs)


def test_mixtures_as_pot():
    mixtures = [
        (normal(3, 2, seed=s) * 3, covariances(3, 2, seed=s), torch.softmax(normal(3, seed=s), 0))
        for s in (1, 2)
    ]
    start = (normal(4, 2, seed=3), covariances(4, 2, seed=3), torch.full((4,), 0.25).double())
    found = gaussian_mixture_barycenter(mixtures, [0.4, 0.6], start=start)
    means, covs = ot.gmm.gmm_barycenter_fixed_point(
        *([z.numpy() for z in part] for part in zip(*mixtures)),
        means_init=start[0].numpy(),
        covs_init=start[1].numpy(),
        weights=np.array([0.4, 0.6]),
        w_bar=start[2].numpy(),
        iterations=50,
        barycentric_proj_method="bures",
    )
    assert np.allclose(found.means, means, atol=1e-4)
    assert np.allclose(found.covs, covs, atol=1e-2)


def test_mixtures_that_are_moved():
    """Two equal mixtures, one of them translated."""
    means, covs, masses = normal(3, 2) * 9, covariances(3, 2), torch.full((3,), 1 / 3)
    shift = torch.tensor([1.0, -2.0])
    one, two = (means, covs, masses), (means + shift, covs, masses)
    found = gaussian_mixture_barycenter([one, two], [0.75, 0.25], start=one)
    assert torch.allclose(found.means, means + 0.25 * shift, atol=1e-6)
    assert torch.allclose(found.covs, covs, atol=1e-6)
    with pytest.raises(ValueError, match=r"`mixtures\[1\]` must have means"):
        gaussian_mixture_barycenter([one, (means, covs[0], masses)], start=one)
    with pytest.raises(ValueError, match=r"`start` must have positive masses"):
        gaussian_mixture_barycenter([one], start=(means, covs, [0.5, 0.5, 0.0]))


# Histograms


def bumps(n: int = 50) -> torch.Tensor:
    """Two Gaussian histograms on the line, of deviations 0.05 and 0.1."""
    places = torch.linspace(0, 1, n, dtype=torch.float64)
    values = torch.stack(
        [(-((places - m) ** 2) / 2 / s**2).exp() for m, s in ((0.25, 0.05), (0.7, 0.1))]
    )
    return values / values.sum(1, keepdim=True)


def line_cost(n: int = 50) -> torch.Tensor:
    places = torch.linspace(0, 1, n, dtype=torch.float64)
    return (places[:, None] - places) ** 2


@pytest.mark.parametrize("debiased", [False, True])
def test_histograms_as_pot(debiased):
    b, cost = bumps(), line_cost()
    solver = ot.bregman.barycenter_debiased if debiased else ot.bregman.barycenter
    pot = solver(b.T.numpy(), cost.numpy(), 2e-3, numItermax=3000, stopThr=1e-11, warn=False)
    found = histogram_barycenter(
        b, cost, epsilon=2e-3, debiased=debiased, tolerance=2e-6, max_iterations=5000
    )
    # the debiasing converges slowly, in POT as well
    assert np.abs(found.masses.numpy() - pot).sum() < (1e-3 if debiased else 1e-5)


@pytest.mark.parametrize("debiased", [False, True])
def test_histograms_attain_the_minimum(debiased):
    """With unequal weights, by independent solvers at the barycenter and beside it. (POT 0.9.7
    starts its `barycenter` so that unequal weights give another one.)"""
    b, cost, weights = bumps(), line_cost(), (0.3, 0.7)
    settings = {"epsilon": 0.01, "tolerance": 1e-9, "max_iterations": 10**5}
    found = histogram_barycenter(
        b, cost, weights, epsilon=0.01, debiased=debiased, tolerance=2e-6, max_iterations=5000
    )

    def objective(a):
        cross = sum(
            w * solve_entropic(cost, a, other, **settings).value for w, other in zip(weights, b)
        )
        if debiased:
            return float(cross - solve_entropic(cost, a, a, **settings).value / 2)
        return float(cross + 0.01 * torch.xlogy(a, a).sum())

    least = objective(found.masses)
    for seed in range(5):
        moved = found.masses * (0.1 * normal(50, seed=seed)).exp()
        assert objective(moved / moved.sum()) > least


def test_debiased_histograms_keep_their_width():
    """Gaussians on the line: deviations are averaged, whatever ε is; without debiasing they are
    blurred."""
    n = 200
    b, places = bumps(n), torch.linspace(0, 1, n, dtype=torch.float64)

    def deviation(debiased):
        masses = histogram_barycenter(
            b, line_cost(n), epsilon=0.01, debiased=debiased, tolerance=1e-5
        ).masses
        return float((masses @ places.square() - (masses @ places) ** 2) ** 0.5)

    assert deviation(True) == pytest.approx(0.075, rel=0.02)
    assert deviation(False) > 0.09


@pytest.mark.parametrize("epsilon", [1e-2, 1e-4])
def test_histograms_against_the_line(epsilon):
    """The mean of the exact one, also for an ε whose kernels vanish in float64."""
    b, places = bumps(100), torch.linspace(0, 1, 100, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = histogram_barycenter(b, line_cost(100), epsilon=epsilon, max_iterations=3000)
    points, masses = barycenter_1d([places, places], sample_masses=list(b))
    mean, exact = found.masses @ places, masses @ points
    assert mean == pytest.approx(float(exact), abs=1e-2)


@pytest.mark.parametrize("epsilon", [3.0, 100.0, 1e8, 1e300])
def test_a_debiased_barycenter_that_is_not_sharp_has_not_converged(epsilon):
    """Where the kernel is nearly constant, so are all marginals."""
    z = torch.linspace(0, 1, 40, dtype=torch.float64)
    cost = (z[:, None] - z).square()
    bumps = torch.stack([torch.exp(-((z - mean) ** 2) / 0.005) for mean in (0.3, 0.7)])
    bumps /= bumps.sum(1, keepdim=True)
    with pytest.warns(UserWarning, match="change `epsilon`, or raise `tolerance`"):
        found = histogram_barycenter(bumps, cost, epsilon=epsilon)
    assert not found.converged
    assert histogram_barycenter(bumps, cost, epsilon=epsilon, debiased=False).converged
    with pytest.warns(UserWarning, match="change `epsilon`"):
        grid = grid_barycenter(bumps, spacing=1 / 39, epsilon=epsilon)
    assert not grid.converged


@pytest.mark.parametrize("debiased", [False, True])
def test_grids_are_histograms(debiased):
    """The product of kernels is the kernel of all cells."""
    images = normal(3, 6, 5).exp()
    images = images / images.sum((1, 2), keepdim=True)
    places = torch.cartesian_prod(torch.arange(6.0), torch.arange(5.0)).double()
    cost = torch.cdist(places, places).square()
    settings = {"epsilon": 1.0, "debiased": debiased, "tolerance": 1e-9, "max_iterations": 5000}
    grid = grid_barycenter(images, [0.2, 0.3, 0.5], **settings)
    whole = histogram_barycenter(images.flatten(1), cost, [0.2, 0.3, 0.5], **settings)
    assert grid.masses.shape == (6, 5)
    assert torch.allclose(grid.masses.flatten(), whole.masses, atol=1e-8)
    spaced = grid_barycenter(images, [0.2, 0.3, 0.5], **settings | {"epsilon": 0.01}, spacing=0.1)
    assert torch.allclose(spaced.masses, grid.masses, atol=1e-6)


def test_grids_as_pot():
    images = normal(2, 12, 12).exp().pow(2)
    images = images / images.sum((1, 2), keepdim=True)
    for debiased, solver, close in (
        (False, ot.bregman.convolutional_barycenter2d, 1e-5),
        (True, ot.bregman.convolutional_barycenter2d_debiased, 1e-3),
    ):
        weights = np.array([0.3, 0.7])
        pot = solver(images.numpy(), 0.01, weights, numItermax=3000, stopThr=1e-11, warn=False)
        found = grid_barycenter(
            images, weights, epsilon=0.01, spacing=1 / 11, debiased=debiased, tolerance=1e-6,
            max_iterations=5000,
        )  # fmt: skip
        assert np.abs(found.masses.numpy() - pot).sum() < close


def test_large_exponents_do_not_show(monkeypatch):
    from monge.transport import histogram_barycenters

    b, cost = bumps(), line_cost()
    settings = {"epsilon": 4e-3, "tolerance": 1e-5}
    by_products = histogram_barycenter(b, cost, **settings).masses
    monkeypatch.setattr(histogram_barycenters, "MOST_EXPONENT", 1.0)
    by_logarithms = histogram_barycenter(b, cost, **settings).masses
    assert torch.allclose(by_products, by_logarithms, atol=1e-10)


@pytest.mark.parametrize("n", [1, 31, 64, 100])
@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("ordered", [True, False])
def test_kernels_of_any_exponents_are_those_of_logarithms(n, size, ordered):
    """Also where few columns have weight, and where neighbours are far apart."""
    places = torch.linspace(0, 1, n, dtype=torch.float64)
    places = places if ordered else places[torch.randperm(n)]
    exponents = size * (places[:, None] - places).square()
    log_v = -1000.0 * normal(3, n).square()
    log_v[1, : n // 2] = math.log(torch.finfo(torch.float64).tiny)
    found = WideKernel.of(exponents).applied(log_v)
    expected = (log_v[:, None] - exponents).logsumexp(-1)
    assert torch.allclose(found, expected, rtol=1e-14, atol=1e-12)


def test_kernels_are_applied_to_many_arrays_by_parts():
    exponents = 1e3 * torch.linspace(0, 1, 80, dtype=torch.float64).square()
    kernel = WideKernel.of((exponents[:, None] - exponents).abs())
    log_v = 100 * normal(2, 40, 30, 80)
    whole = kernel.applied(log_v)
    assert torch.equal(whole[1, 7], kernel.applied(log_v[1, 7]))


def test_volumes_and_lines():
    for shape in ((9,), (4, 3, 5)):
        images = normal(2, *shape).exp().flatten(1)
        images = (images / images.sum(1, keepdim=True)).view(2, *shape)
        found = grid_barycenter(images, [1.0, 0.0], epsilon=0.5, tolerance=1e-7)
        # the debiased barycenter of one is itself
        assert torch.allclose(found.masses, images[0], atol=1e-4)
        assert found.masses.sum() == pytest.approx(1)


def test_bad_histograms_are_named():
    b, cost = bumps(), line_cost()
    with pytest.raises(ValueError, match=r"`histograms` and `cost` must have shapes"):
        histogram_barycenter(b, cost[:3], epsilon=0.1)
    with pytest.raises(ValueError, match=r"`histograms` must be at least 0 and sum to 1"):
        histogram_barycenter(2 * b, cost, epsilon=0.1)
    with pytest.raises(ValueError, match=r"`cost` must be symmetric"):
        histogram_barycenter(b, cost.triu(), epsilon=0.1)
    with pytest.raises(ValueError, match=r"`histograms` and `cost` must have shapes"):
        histogram_barycenter(b[:0], cost, epsilon=0.1)
    with pytest.raises(ValueError, match=r"`epsilon` must be positive"):
        grid_barycenter(b, epsilon=0.0)
    with pytest.raises(ValueError, match=r"`images` must have shape"):
        grid_barycenter(b[0], epsilon=1.0)
    with pytest.warns(UserWarning, match=r"marginal error of .* after 2 iterations"):
        histogram_barycenter(b, cost, epsilon=1e-3, max_iterations=2)


def test_a_mixture_that_is_its_own_start_does_not_move():
    """Its distance to the start is 0 up to rounding, of which the tolerance is not a multiple."""
    means = torch.tensor([[0.1, 0.5], [3.0, -0.4]], dtype=torch.float64)
    covs = torch.tensor([[[2.0, 0.3], [0.3, 1.0]], [[1.7, 0.2], [0.2, 2.1]]], dtype=torch.float64)
    mixture = (means, covs, torch.full((2,), 0.5).double())
    found = gaussian_mixture_barycenter([mixture, mixture], start=mixture)
    torch.testing.assert_close(found.means, means)


def test_squares_beyond_float64_are_refused():
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for barycenter in (free_support_barycenter, sliced_barycenter):
        with pytest.raises(ValueError, match=r"beyond float64: rescale"):
            barycenter([x * 1e160], start=(x + 1) * 1e160)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_histograms_and_mixtures_keep_their_dtype(dtype):
    b, cost = bumps(), line_cost()
    expected = histogram_barycenter(b, cost, epsilon=0.05).masses
    found = histogram_barycenter(b.to(dtype), cost, epsilon=0.05)
    assert found.masses.dtype is torch.promote_types(dtype, cost.dtype)
    torch.testing.assert_close(found.masses, expected, atol=2e-3, rtol=0)
    images = grid_barycenter(b.to(dtype), epsilon=5.0).masses
    assert images.dtype is dtype
    means, covs = normal(3, 2), torch.eye(2).double().expand(3, 2, 2)
    mixture = tuple(z.to(dtype) for z in (means, covs, torch.tensor([0.2, 0.3, 0.5])))
    moved = gaussian_mixture_barycenter([mixture, mixture], start=mixture)
    assert {z.dtype for z in moved} == {dtype}
    torch.testing.assert_close(moved.means, mixture[0], atol=2e-2, rtol=0)


def test_several_weights_are_several_barycenters():
    images = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = images / images.sum((1, 2), keepdim=True)
    weights = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]], dtype=torch.float64)
    found = grid_barycenter(images, weights, epsilon=1.0)
    one, two = (grid_barycenter(images, w, epsilon=1.0) for w in weights)
    torch.testing.assert_close(found.masses, torch.stack([one.masses, two.masses]))
    assert found.marginal_error == max(one.marginal_error, two.marginal_error)
    assert found.iterations == max(one.iterations, two.iterations)


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-2, 0.1])
def test_the_error_of_a_debiased_barycenter_is_that_of_the_masses_returned(epsilon, tolerance):
    """By the iteration of the paper, with products of matrices."""
    places = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    cost, b = (places[:, None] - places).square(), torch.eye(3, dtype=torch.float64)[[0, 2]]
    found = histogram_barycenter(b, cost, epsilon=epsilon, tolerance=tolerance)
    kernel, u = (-cost / epsilon).exp(), torch.ones_like(b)
    d, a = torch.ones_like(places), places
    marginals = [a]
    for _ in range(found.iterations):
        k = (b / (u @ kernel)) @ kernel
        a = d * k.prod(0).sqrt()
        marginals = [*(u * k), d * (kernel @ d)]
        u, d = a / k, d * (a / (kernel @ d) / d).sqrt()
    assert torch.allclose(found.masses, a / a.sum())
    error = max(float((one - found.masses).abs().sum()) for one in marginals)
    assert found.marginal_error == pytest.approx(error, rel=1e-6, abs=1e-12)
    assert found.converged == (error <= tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_error_of_a_barycenter_in_half_precision_is_a_bound(dtype):
    n, weight = 400, torch.rand(2, 400, generator=torch.Generator().manual_seed(0)).double()
    places = torch.linspace(0, 1, n, dtype=torch.float64)
    cost, options = (places[:, None] - places).square(), {"epsilon": 0.5, "debiased": False}
    b = (weight / weight.sum(1, keepdim=True)).to(dtype)
    found = histogram_barycenter(b, cost.to(dtype), **options)
    wide = b.double() / b.double().sum(1, keepdim=True)
    exact = histogram_barycenter(wide, cost.to(dtype).double(), **options)
    assert float((found.masses.double() - exact.masses).abs().sum()) <= found.marginal_error
