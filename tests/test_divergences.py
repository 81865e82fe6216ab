"""Laws that every divergence of the zoo claims, and the estimators against independent sums."""

import dataclasses
import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from zoo import DIM, DIVERGENCES, LEARNED, pair

from monge import divergences
from monge._core import tuning
from monge.divergences import (
    MMD,
    CramerWold,
    Divergence,
    EnergyDistance,
    SinkhornDivergence,
    SlicedWasserstein,
)
from monge.draws import Draws
from monge.kernels import IMQ, RBF, multiscale_imq
from monge.priors import Gaussian

EVERY = pytest.mark.parametrize("name", DIVERGENCES)
TRUE = pytest.mark.parametrize("name", [n for n, r in DIVERGENCES.items() if not r.surrogate])


def sized(name, n, m):
    """A pair of the sizes n and m, or of n and n where rows belong together."""
    return pair(n, n if DIVERGENCES[name].paired else m)


def at_fixed_draws(name):
    """A divergence of the zoo in float64, as a function: the same directions at each call."""
    torch.manual_seed(1)
    divergence = DIVERGENCES[name].make().double()

    def value(x, y):
        with torch.random.fork_rng([]):  # an operation is faster than inside `stream`
            torch.manual_seed(2)
            return divergence(x, y)

    return value


@pytest.mark.parametrize("name", [n for n, r in DIVERGENCES.items() if not r.regression])
@pytest.mark.parametrize("sizes", [(5, 5), (4, 6)])
def test_gradient_equals_finite_differences(name, sizes):
    x, y = sized(name, *sizes)
    divergence = at_fixed_draws(name)
    assert torch.autograd.gradcheck(
        divergence, (x.requires_grad_(), y.requires_grad_()), eps=1e-6, atol=1e-7, rtol=1e-5
    )


@EVERY
def test_order_of_the_samples_does_not_matter(name):
    x, y = pair(6, 6)
    value = at_fixed_draws(name)
    order = torch.arange(6).flip(0) if DIVERGENCES[name].paired else torch.randperm(6)
    torch.testing.assert_close(value(x, y), value(x.flip(0), y[order]))


@EVERY
def test_symmetric_where_claimed(name):
    x, y = sized(name, 6, 5)
    value = at_fixed_draws(name)
    same = math.isclose(value(x, y).item(), value(y, x).item(), rel_tol=1e-9)
    assert same == DIVERGENCES[name].symmetric


@TRUE
def test_nothing_moves_under_a_common_translation(name):
    if not DIVERGENCES[name].translation:
        pytest.skip("sees where the origin is")
    x, y = pair()
    value = at_fixed_draws(name)
    torch.testing.assert_close(value(x + 5, y + 5), value(x, y))


@TRUE
def test_zero_and_positive_where_claimed(name):
    row = DIVERGENCES[name]
    x, y = pair()
    value = at_fixed_draws(name)
    assert (abs(value(x, x)) < 1e-12) == row.zero
    assert value(x, y) > 0.02
    if row.nonnegative:
        assert all(value(*pair(n, n + 1, shift=0.0)) >= 0 for n in range(2, 30))


@TRUE
def test_gradient_step_brings_the_samples_together(name):
    """Decreasing D in x moves the mean of x towards that of y."""
    x, y = pair(20, 20, shift=2.0)
    at_fixed_draws(name)(x.requires_grad_(), y).backward()
    towards = (y.mean(0) - x.detach().mean(0)) @ -x.grad.sum(0)
    assert towards > 0


@TRUE
def test_samples_of_any_shape_are_vectors(name):
    """Critics read the shape they were built for; all others flatten."""
    if DIVERGENCES[name].vectors:
        pytest.skip("its network was built for vectors")
    x, y = pair()
    value = at_fixed_draws(name)
    assert value(x[:, :, None], y[:, :, None]) == value(x, y)


@TRUE
@pytest.mark.parametrize(
    "bad",
    [
        (torch.zeros(0, 3), torch.zeros(4, 3)),
        (torch.zeros(4, 3), torch.zeros(4, 2)),
        (torch.zeros(4, 3, dtype=torch.complex64), torch.zeros(4, 3)),
    ],
)
def test_bad_samples_are_refused(name, bad):
    with pytest.raises(ValueError, match=r"`[xy]`"):
        DIVERGENCES[name].make()(*bad)


# MMD


def by_loop(kernel, x, y, unbiased):
    """The definition, one pair at a time."""

    def k(a, b):
        return float(kernel(a[None], b[None]))

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if not unbiased or i != j)
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if not unbiased or i != j)
    xy = sum(k(a, b) for a in x for b in y)
    if unbiased:
        return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)
    return xx / n**2 + yy / m**2 - 2 * xy / (n * m)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("sizes", [(6, 6), (4, 7), (2, 9)])
def test_mmd_equals_the_double_loop(unbiased, sizes):
    x, y = pair(*sizes)
    kernel = multiscale_imq(6.0)
    assert float(MMD(kernel, unbiased)(x, y)) == pytest.approx(
        by_loop(kernel, x, y, unbiased), abs=1e-12
    )


@pytest.mark.parametrize("n", [10, 100])
def test_paired_mmd_of_joint_samples_that_share_a_part_has_mean_zero(n):
    """Of (φ, z) and (φ, z') with z, z' of one distribution, within 3 standard errors over 1,000
    draws at n = 10 and 300 at n = 100; the estimate for independent samples is not."""
    kernel, g = multiscale_imq(8.0), torch.Generator().manual_seed(n)
    found: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for _ in range(10_000 // n if n == 10 else 300):
        phi, z, other = torch.randn(3, n, 2, generator=g)
        x, y = torch.cat([phi, z], 1), torch.cat([phi, other], 1)
        for paired, values in found.items():
            values.append(MMD(kernel, paired=paired)(x, y))
    for paired, values in found.items():
        mean = torch.stack(values).mean()
        error = torch.stack(values).std() / len(values) ** 0.5
        assert (abs(mean) < 3 * error) == paired, (mean, error)


@pytest.mark.parametrize("n", [2, 6])
def test_paired_mmd_equals_the_double_loop(n):
    """Σ_{i≠j} h(i, j) / n(n-1), Gretton et al. 2012, equation 4."""
    x, y = pair(n, n)
    k = multiscale_imq(6.0)
    xx, yy, xy = k(x, x), k(y, y), k(x, y)
    terms = [
        float(xx[i, j] + yy[i, j] - xy[i, j] - xy[j, i])
        for i in range(n)
        for j in range(n)
        if i != j
    ]
    assert float(MMD(k, paired=True)(x, y)) == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_paired_mmd_refuses_what_has_no_pairs():
    with pytest.raises(ValueError, match="`x` and `y` must be paired, got 3 and 4 samples"):
        MMD(multiscale_imq(1.0), paired=True)(torch.randn(3, 2), torch.randn(4, 2))
    with pytest.raises(ValueError, match="`paired` is for the unbiased estimate"):
        MMD(multiscale_imq(1.0), unbiased=False, paired=True)


def test_unbiased_mmd_has_mean_zero_between_equal_laws():
    """Within 3 standard errors over 400 draws; the biased one does not."""
    kernel, prior = multiscale_imq(6.0), Gaussian(3)
    values = {
        unbiased: torch.stack(
            [MMD(kernel, unbiased)(prior.sample(20), prior.sample(20)) for _ in range(400)]
        )
        for unbiased in (True, False)
    }
    error = values[True].std() / 20
    assert abs(values[True].mean()) < 3 * error
    assert values[False].mean() > 10 * error


def test_unbiased_mmd_of_gaussians_has_the_closed_form_as_mean():
    """RBF kernel, N(0, I) against N(v, I): 2 (s²/(s²+2))^{d/2} (1 - exp(-‖v‖²/(2(s²+2))))."""
    s, d, v = 1.5, 3, 1.0
    mmd = MMD(RBF(s))
    x, y = torch.randn(300, 40, d), torch.randn(300, 40, d)
    y[..., 0] += v
    values = torch.stack([mmd(a, b) for a, b in zip(x, y)])
    expected = 2 * (s**2 / (s**2 + 2)) ** (d / 2) * (1 - math.exp(-(v**2) / (2 * (s**2 + 2))))
    assert abs(values.mean() - expected) < 3 * values.std() / math.sqrt(300)


def test_every_divergence_is_in_the_table():
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    made = {type(row.make()) for row in DIVERGENCES.values()}
    concrete = {kind for kind in below(Divergence) if not inspect.isabstract(kind)}
    assert {kind for kind in concrete if kind.__module__.startswith("monge.")} == made


def test_the_energy_distance_of_batches_is_least_for_codes_that_are_too_narrow():
    """With X = sN, Y = N' and both samples of n, E f(s) has its minimum where
    √2 s / √(1 + s²) = 1 - 1/n: s = 0.9803 for n = 100."""
    n, generator, energy = 100, torch.Generator().manual_seed(0), EnergyDistance()
    best = (1 - 1 / n) / math.sqrt(2 - (1 - 1 / n) ** 2)
    assert best == pytest.approx(0.9803, abs=1e-4)
    slopes = []
    for _ in range(1500):
        x, y = torch.randn(2, n, 1, generator=generator, dtype=torch.float64)
        s = torch.tensor([best, 1.0], dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(energy(s[0] * x, y) + energy(s[1] * x, y), s)
        slopes.append(slope)
    mean = torch.stack(slopes).mean(0)
    error = torch.stack(slopes).std(0) / len(slopes) ** 0.5
    assert mean[0].abs() < 4 * error[0]
    assert mean[1] > 4 * error[1]


def test_unbiased_mmd_does_not_depend_on_the_batch_size_in_expectation():
    mmd = MMD(multiscale_imq(6.0))

    def mean_and_error(n, draws):
        values = torch.stack(
            [mmd(torch.randn(n, 3), torch.randn(n, 3) + 0.5) for _ in range(draws)]
        )
        return values.mean(), values.std() / math.sqrt(draws)

    (small, e1), (large, e2) = mean_and_error(8, 600), mean_and_error(80, 100)
    assert abs(small - large) < 3 * math.hypot(e1, e2)
    assert large > 10 * e2


def test_unbiased_mmd_needs_two_samples():
    with pytest.raises(ValueError, match="at least 2 samples"):
        MMD(IMQ(1.0))(torch.zeros(1, 2), torch.zeros(4, 2))
    assert MMD(IMQ(1.0), unbiased=False)(torch.zeros(1, 2), torch.zeros(4, 2)) == 0


@given(st.integers(2, 12), st.integers(2, 12), st.floats(0.1, 10), st.integers(0, 10**6))
def test_biased_mmd_is_never_negative(n, m, c, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    y = torch.randn(m, 3, dtype=torch.float64, generator=generator)
    assert MMD(multiscale_imq(c), unbiased=False)(x, y) >= -1e-12


# Sliced


@pytest.mark.parametrize("n", [5, 50])
def test_sliced_of_a_translation_is_the_projected_translation_whatever_n(n):
    """SW_2²(x, x + v) = mean (θ·v)² exactly, so its expectation is ‖v‖²/d for every n."""
    v = torch.tensor([3.0, 0.0, 4.0])
    x = torch.randn(n, 3)
    value = SlicedWasserstein(20_000)(x, x + v)
    assert value == pytest.approx(25 / 3, rel=0.03)


def test_sliced_does_not_grow_with_the_number_of_directions():
    x, y = pair(30, 30)
    few = torch.stack([SlicedWasserstein(10)(x, y) for _ in range(200)])
    assert SlicedWasserstein(5_000)(x, y) == pytest.approx(float(few.mean()), rel=0.05)


def test_sliced_draws_fresh_directions_from_the_global_generator():
    x, y = pair()
    divergence = SlicedWasserstein(4)
    first, second = divergence(x, y), divergence(x, y)
    torch.manual_seed(0)
    assert first != second
    torch.manual_seed(5)
    third = divergence(x, y)
    torch.manual_seed(5)
    assert divergence(x, y) == third


def test_many_directions_are_drawn_in_parts_of_one_mean(monkeypatch):
    """The mean over all directions, each part weighed by how many it has."""
    x, y = pair()
    made = []

    def drawn(count, dim, *, generator=None):
        made.append(torch.nn.functional.normalize(torch.randn(count, dim), dim=1))
        return made[-1]

    monkeypatch.setattr(tuning, "CPU", dataclasses.replace(tuning.CPU, direction_entries=7 * DIM))
    monkeypatch.setattr(divergences, "uniform_directions", drawn)
    value = SlicedWasserstein(16)(x, y)
    assert [len(theta) for theta in made] == [7, 7, 2]
    theta = torch.cat(made).double()
    expected = ((x @ theta.T).sort(0).values - (y @ theta.T).sort(0).values).square().mean()
    torch.testing.assert_close(value, expected)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(6, 6), (5, 7)])
def test_a_value_is_a_scalar_of_the_samples_dtype(name, dtype, sizes):
    x, y = (z.to(dtype) for z in sized(name, *sizes))
    divergence = DIVERGENCES[name].make().to(dtype)
    if isinstance(divergence, SinkhornDivergence):
        divergence.tolerance = 1e-4  # what float32 can reach
    value = divergence(x, y)
    assert value.shape == ()
    assert value.dtype == dtype
    assert torch.isfinite(value)


@EVERY
def test_one_sample_has_a_value_or_is_refused_by_name(name):
    """Statistics that need a pair say so; everything else has a finite value."""
    x, y = pair(1, 1)
    divergence = DIVERGENCES[name].make().double()
    try:
        value = divergence(x, y)
    except ValueError as error:
        assert name in ("mmd-imq-unbiased", "mmd-imq-paired", "moments", "drifting")
        assert "at least 2 samples" in str(error)  # noqa: PT017
    else:
        assert torch.isfinite(value)


@EVERY
def test_gradient_is_finite_where_samples_coincide(name):
    x, _ = pair(6, 6)
    x[3] = x[0]
    y = x.clone()
    divergence = DIVERGENCES[name].make().double()
    x.requires_grad_()
    divergence(x, y).backward()
    assert torch.isfinite(x.grad).all()


@EVERY
def test_its_name_is_readable(name):
    divergence = DIVERGENCES[name].make()
    assert repr(divergence).startswith(type(divergence).__name__)


RANDOM = pytest.mark.parametrize("name", [n for n, r in DIVERGENCES.items() if r.make().random])


@RANDOM
@pytest.mark.parametrize("function", ["forward", "inner_loss"])
def test_draws_that_are_passed_are_those_of_the_stream_of_their_purpose(name, function):
    """A step's numbers do not depend on whether they are passed or seeded globally."""
    divergence = DIVERGENCES[name].make().double()
    if not hasattr(divergence, function):
        return
    x, y = pair()
    draws = Draws(3, 5, len(x))
    call = getattr(divergence, function)
    value = call(x, y, draws=draws)
    assert call(x, y, draws=draws) == value
    with draws.stream("inner" if function == "inner_loss" else "divergence"):
        assert call(x, y) == value
    torch.manual_seed(1)
    before = torch.get_rng_state()
    call(x, y, draws=draws)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_zoo_says_which_divergences_are_random():
    expected = {"sliced-2", "sliced-3", "generalized", "feature-sliced", "wasserstein-penalty"}
    assert {n for n, r in DIVERGENCES.items() if r.make().random} == expected | {
        "wasserstein-one-sided",
        "drifting-critic",
    }


def test_cramer_wold_is_the_mean_distance_of_smoothed_densities_of_slices():
    """By numerical integration of the densities on a grid, over random directions."""
    (x, y), gamma = pair(7, 5), 0.3
    theta = torch.nn.functional.normalize(torch.randn(20_000, DIM, dtype=torch.float64), dim=1)
    grid = torch.linspace(-9, 9, 400, dtype=torch.float64)

    def density(z):
        gaps = (grid[:, None, None] - theta @ z.T).square()
        return (gaps / (-2 * gamma)).exp().mean(-1) / math.sqrt(2 * math.pi * gamma)

    apart = (density(x) - density(y)).square().sum(0) * (grid[1] - grid[0])
    value, error = float(apart.mean()), float(apart.std()) / len(theta) ** 0.5
    assert float(CramerWold(gamma)(x, y)) == pytest.approx(value, abs=5 * error)
    silverman = (4 / (3 * 5)) ** 0.4
    torch.testing.assert_close(CramerWold()(x, y), CramerWold(silverman)(x, y))
    with pytest.raises(ValueError, match="`gamma` must be positive"):
        CramerWold(0.0)


FOREIGN = {
    "float8": (lambda x: x.to(torch.float8_e4m3fn), r"float8.*x.float\(\)"),
    "no coordinates": (lambda x: x[:, :0], "at least one coordinate|must be points|of 3 numbers"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", [n for n in DIVERGENCES if n not in LEARNED])
def test_tensors_that_cannot_be_computed_with_are_named(name, kind):
    change, words = FOREIGN[kind]
    x, y = pair()
    with pytest.raises(ValueError, match=words):
        DIVERGENCES[name].make()(change(x), change(y))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_tensors_of_inference_mode_are_samples_as_well(name):
    """After the mode is left, also for a divergence with parameters."""
    x, y = pair()
    with torch.inference_mode():
        inferred = x.clone(), y.clone()
    values = []
    for samples in ((x, y), inferred):
        torch.manual_seed(0)
        values.append(DIVERGENCES[name].make()(*samples).detach())
    assert torch.equal(*values)
