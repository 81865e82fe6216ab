"""Settings that are one number of another library are that number."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from monge import costs, divergences, kernels, maps, models, priors
from monge import transport as ot
from monge.particles import flow

KINDS = {
    "array": np.array,
    "float64": np.float64,
    "half": lambda v: torch.tensor(v, dtype=torch.float16),
    "tensor": torch.tensor,
    "fraction": Fraction,
    "decimal": Decimal,
}
generator = torch.Generator().manual_seed(0)
X, Y = (torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(2))
COST = torch.cdist(X, Y)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


SETTINGS = {
    "wasserstein": (lambda v: ot.wasserstein(X, Y, p=v), 3),
    "monge_map": (lambda v: ot.monge_map(X, Y, p=v), 3),
    "wasserstein_1d": (lambda v: ot.wasserstein_1d(X[:, 0], Y[:, 0], p=v), 3),
    "wasserstein_circle": (lambda v: ot.wasserstein_circle(X[:, 0], Y[:, 0], period=v), 6),
    "sliced": (lambda v: ot.sliced_wasserstein(X, Y, p=v, generator=seeded()), 3),
    "partial": (lambda v: ot.partial_wasserstein(X, Y, mass=0.5, p=v), 3),
    "mass": (lambda v: ot.solve_partial(COST, mass=v).value, 0.5),
    "sinkhorn": (lambda v: ot.sinkhorn(X, Y, epsilon=v).value, 0.5),
    "reach": (lambda v: ot.sinkhorn(X, Y, epsilon=0.5, reach=v).value, 2),
    "KL": (lambda v: ot.sinkhorn(X, Y, epsilon=0.5, reach=ot.KL(v)).value, 2),
    "divergence": (lambda v: ot.sinkhorn_divergence(X, Y, epsilon=0.5, p=v), 3),
    "fused": (lambda v: ot.fused_gromov_wasserstein(COST, COST, COST.T, alpha=v).value, 0.5),
    "barycenter": (lambda v: ot.sinkhorn_barycenter([X, Y], epsilon=v, start=X).points, 0.5),
    "histograms": (
        lambda v: (
            ot.histogram_barycenter(
                COST.softmax(1), torch.cdist(Y, Y), epsilon=v, debiased=False
            ).masses
        ),
        2,
    ),
    "LinearMap": (lambda v: maps.LinearMap(v).fit(X, Y).transform(X), 0.5),
    "EntropicMap": (lambda v: maps.EntropicMap(v).fit(X, Y).transform(X), 0.5),
    "ExactWasserstein": (lambda v: divergences.ExactWasserstein(v)(X, Y), 3),
    "SinkhornDivergence": (lambda v: divergences.SinkhornDivergence(0.5, v)(X, Y), 3),
    "Constant": (lambda v: kernels.Constant(v)(X, Y), 0.5),
    "multiples": (lambda v: (kernels.RBF(1.0) * v)(X, Y), 0.5),
    "SlicedSets": (lambda v: costs.SlicedSets(8, v)(X[None], X[None] + 1).round(), 3),
    "flow": (lambda v: flow(X, divergences.EnergyDistance(), Y, steps=2, rate=v).particles, 0.5),
    "LinearPath": (lambda v: torch.tensor(models.LinearPath(v).sigma), 0.5),
    "Gaussian": (lambda v: priors.Gaussian(2, v).sample(3, seeded()), 0.5),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_number_of_another_library_is_that_number(name, kind):
    compute, value = SETTINGS[name]
    plain, found = compute(value), compute(KINDS[kind](value))
    assert found.dtype == plain.dtype
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [10**400, -(10**5000)], ids=["large", "very large"])
@pytest.mark.parametrize("name", SETTINGS)
def test_integers_beyond_floats_are_refused(name, value):
    with pytest.raises(ValueError, match=r"`\w+` must be .*, got an integer of [\d,]+ bits"):
        SETTINGS[name][0](value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Fraction(10**5000), "a fraction of 16,610 bits"),
        (Fraction(1 - 10**5000, 2), "a fraction of 16,610 bits"),
        (Decimal("sNaN"), r"Decimal\('sNaN'\)"),
        (np.complex64(2 + 3j), r".*\(2\+3j\)"),
        (np.array(0.5 + 1j), r"array\(0\.5\+1\.j\)"),
        (torch.tensor(0.5 + 0j), r"(tensor)?\(0\.5.*j\)"),
    ],
)
@pytest.mark.parametrize("name", SETTINGS)
def test_numbers_that_no_float_is_are_refused(name, value, words):
    with pytest.raises(ValueError, match=r"`\w+` must be [^\n]*, got " + words):
        SETTINGS[name][0](value)


def test_a_boolean_is_no_count():
    with pytest.raises(ValueError, match=r"`rank` must be an integer .* tensor\(True\)"):
        ot.low_rank_sinkhorn(X, Y, rank=torch.tensor(True))
