"""One prior object: its spread is the kernel's scale, its draws do not depend on batches."""

import pytest
import torch
from scipy import stats

from monge.draws import generator
from monge.priors import Disk, Gaussian, Mixture, Ring, Sphere, SwissRoll, Uniform

PRIORS = {
    "gaussian": Gaussian(3, scale=1.5),
    "uniform": Uniform(3, radius=2.0),
    "sphere": Sphere(3),
    "mixture": Mixture(
        torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.0, 0.0]]),
        torch.tensor(
            [[[1.0, 0.5], [0.5, 1.0]], [[0.1, 0.0], [0.0, 0.2]], [[0.5, 0.0], [0.0, 0.5]]]
        ),
        torch.tensor([0.5, 0.3, 0.2]),
    ),
    "ring": Ring(),
    "disk": Disk(),
    "swiss-roll": SwissRoll(),
}
EVERY = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())


@EVERY
def test_spread_is_the_expected_squared_distance_of_two_draws(prior):
    x, y = prior.sample(100_000, generator(1)), prior.sample(100_000, generator(2))
    values = (x - y).square().sum(1)
    assert abs(values.mean() - prior.spread) < 4 * values.std() / 100_000**0.5


@EVERY
@pytest.mark.parametrize("parts", [(1, 1, 5), (3, 4), (2, 2, 2, 1)])
def test_rows_do_not_depend_on_how_they_are_split(prior, parts):
    """torch.randn does not have this law; ours draws one normal from one uniform number."""
    whole = prior.sample(7, generator(3))
    split = generator(3)
    torch.testing.assert_close(
        torch.cat([prior.sample(n, split) for n in parts]), whole, rtol=0, atol=0
    )


def test_laws_are_what_they_are_called():
    """Kolmogorov-Smirnov at a fixed seed."""
    normal = Gaussian(2, 1.5).sample(5000, generator(4)).flatten().numpy()
    assert stats.kstest(normal, "norm", (0, 1.5)).pvalue > 0.01
    uniform = Uniform(2, 2.0).sample(5000, generator(4)).flatten().numpy()
    assert stats.kstest(uniform, "uniform", (-2, 4)).pvalue > 0.01
    sphere = Sphere(3).sample(5000, generator(4))
    torch.testing.assert_close(sphere.norm(dim=1), torch.ones(5000))
    # Archimedes: a coordinate of the sphere of R³ is uniform on [-1, 1]
    assert stats.kstest(sphere[:, 0].numpy(), "uniform", (-1, 2)).pvalue > 0.01


def test_log_density_of_the_gaussian():
    z = torch.randn(5, 3)
    expected = torch.distributions.Normal(0.0, 1.5).log_prob(z).sum(1)
    torch.testing.assert_close(Gaussian(3, 1.5).log_prob(z), expected)


@pytest.mark.parametrize("dim", [0, -1, 2.5])
def test_dimension_must_be_a_positive_integer(dim):
    with pytest.raises(ValueError, match="`dim`"):
        Gaussian(dim)


@pytest.mark.parametrize("scale", [0.0, 1e-60, 3e38])
def test_draws_have_a_scale_in_the_range_of_float32(scale):
    with pytest.raises(ValueError, match="`scale` must be"):
        Gaussian(2, scale=scale)
    with pytest.raises(ValueError, match="`radius` must be"):
        Uniform(2, radius=scale)


def test_the_spread_of_a_mixture_has_squares_beyond_float32():
    far = Mixture([[0.0], [1e30]], [[[1.0]], [[1.0]]], [0.5, 0.5])
    assert far.spread == pytest.approx(5e59, rel=1e-5)


def test_the_disk_and_the_ring_are_uniform():
    radius = Disk().sample(20_000, generator(5)).norm(dim=1)
    assert radius.mean() == pytest.approx(2 / 3, abs=0.005)
    assert stats.kstest(radius.square().numpy(), "uniform").pvalue > 0.01
    radius = Ring(0.8).sample(20_000, generator(5)).norm(dim=1)
    assert radius.min() >= 0.8 - 1e-6
    assert stats.kstest(radius.square().numpy(), "uniform", (0.64, 0.36)).pvalue > 0.01


def test_a_mixture_has_the_density_and_the_shares_of_its_components():
    mixture = PRIORS["mixture"]
    z = torch.randn(6, 2)
    laws = torch.distributions.MultivariateNormal(
        mixture.means, mixture.factors @ mixture.factors.mT
    )
    mixed = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(mixture.weights), laws
    )
    torch.testing.assert_close(mixture.log_prob(z), mixed.log_prob(z))
    far = Mixture(
        torch.tensor([[0.0], [9.0]]), torch.ones(2, 1, 1) / 100, torch.tensor([0.3, 0.7])
    )
    drawn = far.sample(20_000, generator(6))
    assert (drawn > 4.5).float().mean() == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_densities_take_what_distances_take(name):
    prior = PRIORS[name]
    z = torch.randn(6, prior.dim, generator=generator(3), dtype=torch.float64)
    expected = prior.log_prob(z)
    assert expected.dtype is torch.float64
    for other in (z.numpy(), z.tolist(), z.float(), z.half()):
        found = prior.log_prob(other)
        torch.testing.assert_close(found.double(), expected, atol=2e-2, rtol=2e-3)
    assert prior.log_prob(z.half()).dtype is torch.float16
    for wrong in (z[:, 0], z[:, :1], z[None]):
        with pytest.raises(ValueError, match=f"`z` must have shape .n, {prior.dim}."):
            prior.log_prob(wrong)


@EVERY
@pytest.mark.parametrize("n", [-1, 2.0, None])
def test_a_number_of_draws_is_an_integer_of_at_least_0(prior, n):
    assert prior.sample(0).shape == (0, prior.dim)
    with pytest.raises(ValueError, match="`n` must be an integer of at least 0"):
        prior.sample(n)


def test_wrong_mixtures_are_refused():
    means, eyes = torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2)
    with pytest.raises(ValueError, match="`covariances` must have shape"):
        Mixture(means, torch.eye(2), torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="positive definite"):
        Mixture(means, -eyes, torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="`weights`"):
        Mixture(means, eyes, torch.tensor([0.5, 0.6]))
    with pytest.raises(ValueError, match="`covariances` must be symmetric, but differ"):
        Mixture(means, torch.tensor([[1.0, 0.9], [0.0, 1.0]]).expand(2, 2, 2), [0.5, 0.5])
    with pytest.raises(ValueError, match=r"`means` must be up to 1e\+37, as draws are float32"):
        Mixture(torch.eye(2) * 3e38, eyes, [0.5, 0.5])
    with pytest.raises(ValueError, match="`means` must be finite"):
        Mixture(means * torch.nan, eyes, [0.5, 0.5])
    with pytest.raises(ValueError, match="`covariances` must be finite"):
        Mixture(means, 1e39 * eyes.double(), [0.5, 0.5])


@pytest.mark.parametrize(
    ("covariance", "reason"),
    [
        ([[1e6, 0.0, 0.0], [0.0, 1.0, 0.9], [0.0, -0.9, 1.0]], "must be symmetric, but differ"),
        ([[1e4, 0.0], [1.0, 1.0]], "must be symmetric, but differ"),
        ([[1e-92, 0.0], [0.0, 1e-92]], "standard deviations below float32: rescale"),
    ],
)
def test_covariances_are_judged_in_the_units_of_each_coordinate(covariance, reason):
    with pytest.raises(ValueError, match=reason):
        Mixture(
            torch.zeros(1, len(covariance)).double(),
            torch.tensor([covariance], dtype=torch.float64),
            [1.0],
        )


def test_a_covariance_is_symmetric_up_to_the_rounding_of_its_dtype():
    exact = torch.tensor([[2.0, 0.3], [0.3, 1.0]])
    rounded = exact + torch.tensor([[0.0, 5e-4], [0.0, 0.0]])
    factors = Mixture(torch.zeros(1, 2), rounded[None], [1.0]).factors[0]
    torch.testing.assert_close(factors @ factors.T, (rounded + rounded.T) / 2)


@pytest.mark.parametrize("noise", [-0.1, float("inf"), float("nan"), "a"])
def test_a_noise_that_is_none_is_refused(noise):
    with pytest.raises(ValueError, match="`noise` must be at least 0 and finite, got"):
        SwissRoll(noise)
