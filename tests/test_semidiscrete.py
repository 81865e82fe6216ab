"""Semidiscrete transport against closed forms on the line, linear programmes and finite
differences; its account against masses that are known."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from monge._core import tuning
from monge.priors import Gaussian, Uniform
from monge.transport import (
    PerLabel,
    Semidiscrete,
    SemidiscretePerLabel,
    SemidiscretePlan,
    solve_semidiscrete,
    wasserstein,
)
from monge.transport.laguerre import Cells
from monge.transport.semidiscrete import _account


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fitted(data, epsilon=0.0, tolerance=0.1, draws=512, source=None, seed=0):
    source = source or Gaussian(data[0].numel()).sample
    return solve_semidiscrete(
        source, data, epsilon=epsilon, tolerance=tolerance, draws=draws, generator=seeded(seed)
    )


def masses_on_the_line(plan):
    """The masses of the cells of N(0, 1), from where neighbouring parabolas meet."""
    y, g = plan.cells.points[:, 0].double(), plan.potentials
    y, order = y.sort()
    g = g[order]
    meets = (y.diff() * (y[1:] + y[:-1]) - g.diff()) / (2 * y.diff())
    assert (meets.diff() > 0).all()
    levels = torch.special.ndtr(meets + plan.means[0].double())
    ends = levels.new_tensor([0.0]), levels.new_tensor([1.0])
    return torch.cat([ends[0], levels, ends[1]]).diff()


def quantiles(count):
    return torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)


@pytest.fixture(scope="module")
def line():
    """Ten points on the line, and their plan."""
    data = 2 * torch.randn(10, 1, generator=seeded(3)) + 1
    return data, fitted(data, tolerance=0.05, draws=4096)


def test_on_the_line_cells_are_those_of_quantiles(line):
    data, plan = line
    z = quantiles(100_000)
    ranks = torch.arange(100_000) // 10_000
    expected = data[:, 0].double().sort().values[ranks]
    found = data[plan.assign(z[:, None])][:, 0]
    # each end of a cell is off by at most half of the L1 distance of the masses
    missed = float((found != expected).double().mean())
    assert missed <= 9 / 2 * (masses_on_the_line(plan) - 0.1).abs().sum() + 1e-3
    assert missed < 0.1
    squared = float((z - expected).square().mean())
    assert plan.value == pytest.approx(squared, rel=0.03)


def test_the_error_is_that_of_masses_that_are_known(line):
    _, plan = line
    m = masses_on_the_line(plan)
    assert plan.converged
    assert plan.marginal_error <= 0.05
    exact = float((10 * m - 1).square().mean())
    assert abs(plan.chi_square - exact) <= 4 * plan.chi_square_deviation
    assert float((m - 0.1).abs().sum()) <= math.sqrt(exact)


@pytest.mark.parametrize("draws", [1, 8])
def test_the_estimate_of_the_error_is_unbiased(draws):
    """At any potentials, on few samples; and so is its deviation."""
    data = torch.randn(20, 1, generator=seeded(4)) / 2
    with pytest.warns(UserWarning, match="semidiscrete potentials have a marginal error"):
        plan = fitted(data, tolerance=1e-6, draws=draws)
    m = torch.bincount(plan.assign(quantiles(200_000)[:, None]), minlength=20) / 200_000
    exact, random = float((20 * m - 1).square().mean()), seeded(5)
    estimates = []
    for _ in range(500):
        z = torch.randn(400, 1, generator=random) - plan.means[0]
        estimates.append(_account(z, plan.cells, plan.potentials, random)[1:])
    found, deviations = torch.tensor(estimates, dtype=torch.float64).T
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / math.sqrt(500)
    assert float(deviations.mean()) == pytest.approx(float(found.std()), rel=0.25)


def test_the_value_is_that_of_the_linear_programme():
    data = torch.randn(16, 3, generator=seeded(6)) + 0.5
    plan = fitted(data)
    z = torch.randn(3000, 3, generator=seeded(7))
    assert plan.value == pytest.approx(float(wasserstein(z, data)) ** 2, rel=0.03)


@pytest.mark.parametrize("epsilon", [0.0, 0.7])
def test_hits_are_the_gradient_of_the_dual(epsilon):
    random = seeded(8)
    z, y = (torch.randn(k, 2, generator=random, dtype=torch.float64) for k in (200, 6))
    b = torch.tensor([1, 1, 2, 2, 1, 3], dtype=torch.float64) / 10
    g, cells = torch.randn(6, generator=random, dtype=torch.float64), Cells(y, b, epsilon, 1.0)

    def dual(g):
        costs = (z[:, None] - y).square().sum(2) - g
        if epsilon == 0:
            return costs.amin(1).mean() + b @ g
        return -epsilon * (b.log() - costs / epsilon).logsumexp(1).mean() + b @ g

    step = 1e-5
    moves = step * torch.eye(6, dtype=torch.float64)
    slopes = torch.stack([(dual(g + move) - dual(g - move)) / (2 * step) for move in moves])
    blocks = cells.prepared(z, g).blocks(z, g)
    hits = torch.stack([cells.hits(costs) for _, costs in blocks]).sum(0)
    assert float(hits.sum()) == pytest.approx(200)
    torch.testing.assert_close(b - hits / 200, slopes, rtol=0, atol=1e-5)
    least, index = cells.assign(z, g, torch.rand(200, dtype=torch.float64, generator=random))
    assert float(least.mean() + b @ g) == pytest.approx(float(dual(g)), abs=1e-5)
    if epsilon == 0:
        assert torch.equal(index, ((z[:, None] - y).square().sum(2) - g).argmin(1))


def test_with_regularisation_points_are_drawn():
    data, epsilon = torch.randn(5, 2, generator=seeded(9)), 1.5
    plan = fitted(data, epsilon=epsilon)
    z = torch.tensor([[0.3, -0.2]])
    found = torch.bincount(plan.assign(z.expand(20_000, 2), seeded(1)), minlength=5) / 20_000
    about = (data - data.mean(0))[:, None] - plan.cells.points
    member = about.abs().sum(2).argmin(1)
    cost = (z - plan.means[0] - (data - plan.means[1])).square().sum(1)
    expected = ((plan.potentials[member] - cost) / epsilon).softmax(0)
    assert (found - expected).abs().max() < 0.02
    counts = torch.bincount(plan.assign(torch.randn(20_000, 2), seeded(2)), minlength=5)
    assert (counts / 20_000 - 0.2).abs().sum() < 0.12


def test_data_that_coincide_share_their_cell():
    data = torch.cat([torch.zeros(6, 2), torch.randn(30, 2, generator=seeded(1))])
    plan = fitted(data)
    j = plan.assign(torch.randn(72_000, 2, generator=seeded(2)), seeded(3))
    counts = torch.bincount(j, minlength=36) / 2000
    assert counts.shape == (36,)
    assert (counts - 1).abs().mean() < 0.12
    assert counts[:6].std() < 0.1
    same = fitted(torch.ones(4, 2))
    assert same.assign(torch.randn(100, 2), seeded()).unique().tolist() == [0, 1, 2, 3]
    assert same.marginal_error == 0


def test_a_shift_of_either_side_changes_nothing():
    data = torch.randn(40, 3, generator=seeded(1), dtype=torch.float64)
    z = torch.randn(500, 3, generator=seeded(2), dtype=torch.float64)

    def far(n, generator):
        return Gaussian(3).sample(n, generator).double() + 1e6

    near = fitted(data, tolerance=0.2).assign(z)
    assert (fitted(data - 1e6, tolerance=0.2).assign(z) == near).double().mean() > 0.99
    moved = fitted(data - 1e6, tolerance=0.2, source=far)
    assert (moved.assign(z + 1e6) == near).double().mean() > 0.99
    with_shift = fitted(data + 3, tolerance=0.2).value
    assert with_shift == pytest.approx(float(wasserstein(z, data + 3)) ** 2, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.uint8])
def test_images_in_any_dtype(dtype, device):
    data = (torch.rand(30, 1, 4, 4, generator=seeded(1)) * 200).to(dtype).to(device)
    plan = fitted(data, source=Uniform(16, 100.0).sample, tolerance=0.3)
    z = 100 * torch.randn(50, 1, 4, 4, generator=seeded(2)).to(device)
    noise, matched = Semidiscrete(data, plan).pairs(z)
    assert torch.equal(noise, z)
    assert matched.dtype == dtype
    assert matched.device == data.device
    i, j = Semidiscrete(data, plan)(z, data[:3])
    assert torch.equal(i.cpu(), torch.arange(50))
    assert torch.equal(matched, data[j])


def test_a_plan_is_a_function_of_its_generator_and_is_stored(monkeypatch):
    data = torch.randn(50, 2, generator=seeded(1)).repeat(2, 1)
    plan, again = (fitted(data, tolerance=0.2) for _ in range(2))
    assert torch.equal(plan.potentials, again.potentials)
    stored = SemidiscretePlan.from_tensors(data, plan.tensors())
    z = torch.randn(300, 2)
    assert torch.equal(stored.assign(z, seeded()), plan.assign(z, seeded()))
    assert repr(stored) == repr(plan)
    assert "converged=True" in repr(plan)
    small = dataclasses.replace(tuning.CPU, cost_rows=1, cost_entries=7)
    monkeypatch.setattr(tuning, "CPU", small)
    assert torch.equal(stored.assign(z, seeded()), plan.assign(z, seeded()))
    for other in (data[1:], data + 1):
        with pytest.raises(ValueError, match="are not the data of these 50 potentials"):
            SemidiscretePlan.from_tensors(other, plan.tensors())
    assert Semidiscrete(data.half(), plan).pairs(z, generator=seeded())[1].shape == z.shape
    for other in (data[:3], data.flip(0), data + 1, data.repeat(1, 2)):
        with pytest.raises(ValueError, match="`data` must be the 100 samples of `plan`"):
            Semidiscrete(other, plan)


@pytest.mark.parametrize("place", [1e6, -3e7])
def test_plans_of_data_far_from_the_origin_are_stored(place):
    """In float32, whose rounding of the mean is that of the data."""
    data = (torch.randn(20, 2, generator=seeded()) + place).requires_grad_()
    plan = fitted(data, tolerance=0.5)
    stored = SemidiscretePlan.from_tensors(data, plan.tensors())
    z = torch.randn(50, 2, generator=seeded(1))
    assert torch.equal(stored.assign(z, seeded()), plan.assign(z, seeded()))
    assert Semidiscrete(data, plan).pairs(z)[1].shape == z.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"means": None}, "got means missing"),
        ({"means": torch.zeros(1, 2)}, r"got means \(1, 2\)"),
        ({"potentials": torch.full((6,), math.nan)}, r"got potentials \(6,\)"),
        ({"account": torch.zeros(3)}, r"got account \(3,\)"),
        ({"account": -torch.ones(7)}, "epsilon and iterations of at least 0"),
        ({"squares": torch.zeros(2).int()}, r"got squares \(2,\)"),
    ],
)
def test_stored_plans_that_are_damaged_are_named(changes, message):
    stored = {**fitted(X, tolerance=0.5).tensors(), **changes}
    with pytest.raises(ValueError, match=message):
        SemidiscretePlan.from_tensors(X, {k: x for k, x in stored.items() if x is not None})


@pytest.mark.parametrize("scale", [1e-30, 1e18, 1e25])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_plans_of_float32_know_no_unit(scale, epsilon):
    data = torch.randn(20, 2, generator=seeded(3))
    expected = fitted(data, epsilon)
    found = fitted(
        scale * data, epsilon * scale**2, source=lambda n, g: scale * Gaussian(2).sample(n, g)
    )
    assert found.value / scale**2 == pytest.approx(expected.value, rel=1e-4)
    assert found.converged is True


@pytest.mark.parametrize(
    ("scale", "epsilon", "message"),
    [
        (1.0, 1e30, "`epsilon` 1e\\+30 is over"),
        (1.0, 1e-300, "`epsilon` must be 0, or at least"),
        (1e-200, 0.0, "rescale them"),
        (1e-145, 0.0, "rescale them"),
        (1e140, 0.0, "rescale them"),
    ],
)
def test_what_leaves_float64_is_refused(scale, epsilon, message):
    data = torch.randn(20, 2, generator=seeded(3), dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        fitted(
            scale * data, epsilon, source=lambda n, g: scale * Gaussian(2).sample(n, g).double()
        )


def test_without_duplicates_nothing_is_drawn():
    plan = fitted(torch.randn(20, 2, generator=seeded(1)), tolerance=0.3)
    before = torch.get_rng_state()
    plan.assign(torch.randn(5, 2, generator=seeded()))
    assert torch.equal(torch.get_rng_state(), before)


def test_within_a_label_both_marginals_are_kept():
    """Labels of unlike numbers and means; noise that is dealt to them without being looked at."""
    labels = torch.tensor([4] * 10 + [7] * 30)
    data = torch.randn(40, 2, generator=seeded(1)) + labels[:, None] - 5
    coupling = SemidiscretePerLabel.fit(
        Gaussian(2).sample, data, labels, tolerance=0.1, draws=512, generator=seeded(2)
    )
    dealt = labels[torch.randint(40, (40_000,), generator=seeded(3))]
    noise = torch.randn(40_000, 2, generator=seeded(4))
    i, j = coupling(noise, data[:3], seeded(), dealt)
    assert torch.equal(i, torch.arange(40_000))
    assert torch.equal(labels[j], dealt)
    for label in (4, 7):
        given = noise[i[dealt == label]]
        assert given.mean(0).abs().max() < 4 / math.sqrt(len(given))
        counts = torch.bincount(j[dealt == label], minlength=40)[labels == label].double()
        assert (counts / counts.mean() - 1).abs().mean() < 0.15
    z, x = coupling.pairs(noise[:5], labels0=dealt[:5])
    assert torch.equal(z, noise[:5])
    assert torch.equal(x, data[j[:5]])
    # one plan for all gives labels noise of unlike means
    whole = fitted(data).assign(noise)
    assert (noise[labels[whole] == 7].mean(0) > 0.2).all()
    assert repr(coupling) == "SemidiscretePerLabel(labels=[4, 7])"
    for call, message in (
        (lambda: coupling(noise), "`labels0` must be 40000 integers"),
        (
            lambda: coupling(noise, labels0=dealt + 1),
            "`labels0` must be labels of the data, got 5",
        ),
        (
            lambda: SemidiscretePerLabel(data, labels, {4: coupling.plans[4]}),
            "`plans` must be those of the data of each label",
        ),
        (lambda: PerLabel(coupling), "`coupling` must pair the samples of a batch"),
        (
            lambda: PerLabel(Semidiscrete(data[labels == 4], coupling.plans[4])),
            "`coupling` must pair the samples of a batch",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


X = torch.randn(6, 2, generator=seeded())
REFUSED = {
    "prior": (lambda: fitted(X, source=Gaussian(2)), "`source` must draw samples as source"),
    "source": (lambda: fitted(X, source=Gaussian(3).sample), "`source` must have 2 values"),
    "nan": (lambda: fitted(X * math.nan), "`points` must be finite"),
    "empty": (lambda: solve_semidiscrete(Gaussian(2).sample, X[:0]), "`points` must hold"),
    "epsilon": (lambda: fitted(X, epsilon=-1), "`epsilon` must be at least 0"),
    "tolerance": (lambda: fitted(X, tolerance=0), "`tolerance` must be positive"),
    "draws": (lambda: fitted(X, draws=0), "`draws` must be an integer"),
    "noise": (lambda: fitted(X).assign(torch.randn(3, 5)), "`z` must have 2 values"),
    "infinite": (lambda: fitted(X).assign(X / 0), "`z` must be finite"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "`source` must draw samples as source"),
        (lambda n, g: torch.randn(5, 2), r"`source` must draw 2048 samples, got shape \(5, 2\)"),
        (lambda n, g: np.zeros((n, 2)), "`source` must be a tensor of floating point"),
        (lambda n, g: torch.randn(n, 3), "`source` must have 2 values a sample"),
    ],
)
def test_a_source_that_draws_anything_else_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        solve_semidiscrete(source, torch.randn(10, 2))


def test_a_plan_is_not_that_of_data_that_were_stretched():
    data = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double()
    plan = solve_semidiscrete(Gaussian(2).sample, data, generator=torch.Generator().manual_seed(0))
    mean = data.mean(0)
    for other in (mean + 2 * (data - mean), mean - 1.01 * (data - mean)):
        with pytest.raises(ValueError, match="are not the data of these 20 potentials"):
            SemidiscretePlan.from_tensors(other, plan.tensors())
    z = torch.randn(5, 2).double()
    stored = SemidiscretePlan.from_tensors(data, plan.tensors())
    assert torch.equal(stored.assign(z), plan.assign(z))
    with pytest.raises(ValueError, match="`z` must hold at least one sample"):
        plan.assign(z[:0])
    with pytest.raises(ValueError, match="`plan` must be a SemidiscretePlan"):
        Semidiscrete(data, 3)
    with pytest.raises(ValueError, match="float64 does not resolve"):
        solve_semidiscrete(lambda n, g: 1e160 * torch.randn(n, 2).double(), 1e160 * data)


def test_cells_of_uniform_noise_on_the_line_are_its_quantiles():
    """The k-th point has the noise from (k - 1)/m to k/m, and W_2² has its closed form."""
    y = torch.rand(12, 1, generator=seeded(1), dtype=torch.float64) ** 2

    def uniform(n, generator):
        return torch.rand(n, 1, generator=generator, dtype=torch.float64)

    plan = fitted(y, tolerance=0.03, draws=8192, source=uniform)
    assert plan.converged
    z = (torch.arange(120_000, dtype=torch.float64) + 0.5) / 120_000
    cell = y[:, 0].argsort()[torch.arange(120_000) // 10_000]
    assert float((plan.assign(z[:, None]) != cell).double().mean()) < 0.05
    ends, places = torch.arange(13, dtype=torch.float64) / 12, y[:, 0].sort().values
    exact = float(((ends[1:] - places) ** 3 - (ends[:-1] - places) ** 3).sum() / 3)
    assert plan.value == pytest.approx(exact, rel=0.02)
