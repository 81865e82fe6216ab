"""One prior object: its spread is the kernel's scale, its draws do not depend on batches."""

import pytest
import torch
from scipy import stats

from monge.draws import generator
from monge.priors import Gaussian, Sphere, Uniform

PRIORS = {
    "gaussian": Gaussian(3, scale=1.5),
    "uniform": Uniform(3, radius=2.0),
    "sphere": Sphere(3),
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


def test_scale_must_be_positive():
    with pytest.raises(ValueError, match="`scale`"):
        Gaussian(2, scale=0.0)
