"""Couplings: both marginals, the optimum they approach, and what they refuse.

Marginals are checked by counting. Where a law of draws is wanted, data are repeated: a column of
the plan is then drawn from many times in one call.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from monge._core import tuning
from monge.transport import (
    Exact,
    Independent,
    PerLabel,
    Sinkhorn,
    couplings,
    monge_map,
    solve,
    solve_entropic,
)
from monge.transport.ground import Points, SinglePoints

COUPLINGS = {
    "independent": Independent(),
    "exact": Exact(),
    "exact-1": Exact(p=1),
    "sinkhorn": Sinkhorn(),
    "sinkhorn-absolute": Sinkhorn(2.0, absolute=True),
}
each = pytest.mark.parametrize("name", COUPLINGS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cost_of(x0, x1, p=2):
    return torch.cdist(x0.double(), x1.double()).pow(p)


@pytest.fixture(params=["stored", "streamed"])
def kernel(request, monkeypatch):
    """A Gibbs kernel in memory, and one that is too large for it, in blocks of a few rows."""
    if request.param == "streamed":
        small = dataclasses.replace(tuning.CPU, gibbs_entries=0, cost_entries=2000, cost_rows=2)
        monkeypatch.setattr(tuning, "CPU", small)


@each
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (7, 1), (20, 20), (9, 30), (130, 50)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_each_of_the_data_appears_once(name, n, m, dtype):
    x0, x1 = torch.randn(n, 3).to(dtype), (2 * torch.randn(m, 3) + 1).to(dtype)
    i, j = COUPLINGS[name](x0.requires_grad_(), x1, seeded())
    assert i.dtype == j.dtype == torch.int64
    assert torch.equal(j, torch.arange(m))
    assert i.shape == (m,)
    assert i.min() >= 0
    assert i.max() < n
    again = COUPLINGS[name](x0, x1, seeded())
    assert torch.equal(again[0], i)
    z, x = COUPLINGS[name].pairs(x0, x1, seeded())
    assert torch.equal(z, x0[i])
    assert torch.equal(x, x1)


@pytest.mark.parametrize("name", ["independent", "exact", "exact-1"])
def test_each_of_the_noise_appears_once_among_equally_many_data(name):
    i, _ = COUPLINGS[name](torch.randn(40, 2), torch.randn(40, 2), seeded())
    assert torch.equal(i.sort().values, torch.arange(40))


@pytest.mark.parametrize("p", [1, 2, 3.5])
@pytest.mark.parametrize("shape", [(4,), (1, 3, 3)])
def test_exact_is_scipys_assignment(p, shape):
    x0, x1 = torch.randn(30, *shape), 3 * torch.randn(30, *shape) + 5
    cost = cost_of(x0.flatten(1), x1.flatten(1), p)
    rows, columns = linear_sum_assignment(cost.numpy())
    i, j = Exact(p)(x0, x1)
    assert torch.equal(i[torch.from_numpy(columns)], torch.from_numpy(rows))
    assert torch.equal(j, torch.arange(30))


def frequencies(i, n, repeats):
    """How often each data point, repeated side by side, was drawn with each noise, (n, m)."""
    return torch.stack([torch.bincount(k, minlength=n) for k in i.split(repeats)], 1) / repeats


def assert_drawn_from(found, plan, repeats):
    """Frequencies are within six standard deviations of a plan's columns."""
    expected = plan / plan.sum(0)
    deviation = (expected * (1 - expected) / repeats).sqrt() + 1e-3
    assert ((found - expected).abs() <= 6 * deviation).all()


def test_pairs_of_unlike_numbers_are_drawn_from_the_optimal_plan():
    x0, x1 = torch.randn(5, 2).double(), torch.randn(3, 2).double()
    repeats = 3000
    i, _ = Exact()(x0, x1.repeat_interleave(repeats, 0), seeded())
    plan = solve(cost_of(x0, x1)).plan
    # the plan of repeated data is any that sums to it: what is fixed are the masses of pairs
    found = frequencies(i, 5, repeats) / 3
    assert (found - plan).abs().max() <= 0.02
    assert (found.sum(1) - 1 / 5).abs().max() <= 0.01


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("n", [4, 64, 130])
def test_sinkhorn_draws_from_the_entropic_plan(n):
    x0, x1 = torch.randn(n, 3), torch.randn(3, 3) + 1
    epsilon, repeats = 1.5, 3000
    coupling = Sinkhorn(epsilon, absolute=True, tolerance=1e-6)
    i, _ = coupling(x0, x1.repeat_interleave(repeats, 0), seeded())
    plan = solve_entropic(cost_of(x0, x1), epsilon=epsilon, tolerance=1e-8).plan
    found = frequencies(i, n, repeats)
    assert_drawn_from(found, plan, repeats)
    # the marginal of the noise: Pearson's statistic, of mean below n - 1
    counts = torch.bincount(i, minlength=n)
    statistic = float((counts - 3 * repeats / n).square().sum() / (3 * repeats / n))
    assert statistic < n + 6 * math.sqrt(2 * n)


def test_epsilon_is_in_units_of_the_mean_cost():
    x0, x1 = torch.randn(40, 3), torch.randn(30, 3)
    mean = float(cost_of(*(z - z.mean(0) for z in (x0, x1))).mean())
    relative = Sinkhorn(0.1)(x0, x1, seeded())
    assert torch.equal(relative[0], Sinkhorn(0.1 * mean, True)(x0, x1, seeded())[0])
    scaled = Sinkhorn(0.1)(1000 * x0, 1000 * x1, seeded())
    assert torch.equal(relative[0], scaled[0])


def test_sinkhorn_tends_to_the_assignment():
    x0, x1 = torch.randn(50, 2), torch.randn(50, 2)
    i, _ = Sinkhorn(1e-4, tolerance=1e-3)(x0, x1, seeded())
    assert (i == Exact()(x0, x1)[0]).float().mean() > 0.9


def test_sinkhorn_that_stops_early_says_so():
    x0, x1 = torch.randn(50, 2), torch.randn(50, 2) + 3
    with pytest.warns(UserWarning, match=r"stopped after \d+ iterations with a marginal"):
        Sinkhorn(0.01, max_iterations=2)(x0, x1, seeded())


@pytest.mark.parametrize("name", ["exact", "sinkhorn", "sinkhorn-absolute"])
def test_a_common_shift_changes_nothing(name):
    """Beyond what the samples themselves lose."""
    x0, x1 = torch.randn(60, 4).double(), torch.randn(60, 4).double()
    near = COUPLINGS[name](x0, x1, seeded())[0]
    far = COUPLINGS[name](x0 + 1e6, x1 - 1e6, seeded())[0]
    assert (near == far).float().mean() > 0.95


@pytest.mark.parametrize("name", ["exact", "sinkhorn-absolute"])
def test_far_clusters_keep_their_structure(name):
    """Two clusters of width 1 at ±10⁴, where products in float32 resolve nothing."""
    side = torch.where(torch.arange(80) % 2 == 0, 1e4, -1e4)[:, None]
    x0, x1 = torch.randn(80, 2) + side, torch.randn(80, 2) + side
    i, j = COUPLINGS[name](x0, x1, seeded())
    assert (side[i] == side[j]).all()
    apart = (x0[i] - x1[j]).square().sum(1).mean()
    best = (x0[monge_map(x1, x0)] - x1).square().sum(1).mean()
    assert apart < (1.01 * best if name == "exact" else best + 4)


@each
def test_points_that_coincide(name):
    same, twice = torch.ones(6, 2), torch.randn(3, 2).repeat(2, 1)
    for x0, x1 in ((same, same), (torch.randn(6, 2), same), (twice, twice)):
        i, j = COUPLINGS[name](x0, x1, seeded())
        assert len(i) == len(j) == 6
    if name == "exact":
        assert torch.equal(twice[COUPLINGS[name](twice, twice)[0]], twice)


def test_products_in_float32_are_used_where_their_digits_suffice():
    x, y = torch.randn(30, 8).double(), torch.randn(20, 8).double() + 1
    f, g = torch.randn(30).double(), torch.randn(20).double()

    def exponents(cost, epsilon):
        blocks = [block.clone() for _, block in cost.exponents(f, g, epsilon)]
        return torch.cat(blocks)

    for epsilon, dtype in ((0.5, torch.float32), (1e-5, torch.float64)):
        found = exponents(SinglePoints(x, y), epsilon)
        expected = exponents(Points(x, y, 2), epsilon)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)
        back = SinglePoints(x, y).transposed()
        assert isinstance(back, SinglePoints)
        assert back.shape == (20, 30)


# Conditions


def labelled(n=400):
    """Data whose mean depends on their label, and noise that does not."""
    labels = torch.arange(n) % 2
    data = torch.randn(n, 2) + 4 * (2 * labels - 1)[:, None]
    return torch.randn(n, 2), data, labels


@pytest.mark.parametrize("name", ["independent", "exact", "sinkhorn"])
def test_within_a_label_the_noise_is_noise(name):
    """A coupling of the whole batch gives the labels noise of unlike means, PerLabel does not."""
    noise, data, labels = labelled()
    i, j = PerLabel(COUPLINGS[name])(noise, data, seeded(), labels1=labels)
    assert torch.equal(j, torch.arange(400))
    assert torch.equal(labels[i], labels)
    for label in (0, 1):
        given = noise[i[labels == label]]
        assert given.mean(0).abs().max() < 4 / math.sqrt(200)
        assert (given.std(0) - 1).abs().max() < 0.2
    if name != "independent":
        assert noise[COUPLINGS[name](noise, data, seeded())[0]][labels == 1].mean() > 0.4


def test_within_a_label_the_coupling_is_optimal():
    noise, data, labels = labelled(60)
    i, _ = PerLabel(Exact())(noise, data, labels1=labels)
    for label in (0, 1):
        of = labels == label
        assert torch.equal(noise[of][Exact()(noise[of], data[of])[0]], noise[i[of]])


def test_noise_is_dealt_to_labels_by_the_caller():
    noise, data, labels = torch.randn(9, 2), torch.randn(4, 2), torch.tensor([3, 1, 3, 1])
    dealt = torch.tensor([1, 3, 1, 3, 1, 3, 1, 3, 7])
    i, j = PerLabel(Exact())(noise, data, seeded(), dealt, labels)
    assert torch.equal(dealt[i], labels[j])
    z, x = PerLabel(Exact()).pairs(noise, data, seeded(), labels0=dealt, labels1=labels)
    assert torch.equal(z, noise[i])
    assert torch.equal(x, data[j])


# What is refused

X = torch.randn(4, 2)
LABELS = torch.tensor([0, 0, 1, 1])
REFUSED = {
    "shapes": (lambda: Exact()(X, torch.randn(4, 3)), "`x0` and `x1` must hold samples of one"),
    "empty": (lambda: Sinkhorn()(X, X[:0]), "`x1` must hold at least one sample"),
    "nan": (lambda: Sinkhorn()(X * math.nan, X), "`x0` must be finite"),
    "text": (lambda: Independent()(X, "x"), "`x1` must be a tensor"),
    "order": (lambda: Exact(0.5), "`p` must be a finite number of at least 1"),
    "epsilon": (lambda: Sinkhorn(0), "`epsilon` must be positive"),
    "tolerance": (lambda: Sinkhorn(tolerance=-1), "`tolerance` must be positive"),
    "iterations": (lambda: Sinkhorn(max_iterations=0), "`max_iterations` must be an integer"),
    "coupling": (lambda: PerLabel(Exact), "`coupling` must be a Coupling"),
    "nested": (lambda: PerLabel(PerLabel(Exact())), r"within labels already: give Exact\(\)"),
    "names": (
        lambda: PerLabel(Exact())(X, X, labels1=["a"] * 4),  # pyright: ignore
        r"`labels1` must be 4 integers, got \['a'",
    ),
    "labels": (lambda: PerLabel(Exact())(X, X), "`labels1` must be 4 integers"),
    "continuous": (
        lambda: PerLabel(Exact())(X, X, labels1=torch.randn(4)),
        "`labels1` must be 4 integers",
    ),
    "dealt": (
        lambda: PerLabel(Exact())(X[:2], X, labels1=LABELS),
        "`labels0` must be given for 2 samples of noise and 4 of data",
    ),
    "unmet": (
        lambda: PerLabel(Exact())(X, X, None, torch.zeros(4).long(), LABELS),
        "`labels0` must have each label of the data, got no 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_coupling_larger_than_memory_is_refused(monkeypatch):
    monkeypatch.setattr(couplings, "memory", lambda: 32 * 100 * 100)
    Exact()(torch.randn(100, 1), torch.randn(100, 1))
    with pytest.raises(ValueError, match=r"101 × 100 pairs, more than memory.*Sinkhorn\(\)"):
        Exact()(torch.randn(101, 1), torch.randn(100, 1))


def test_a_coupling_is_shown_as_it_is_made():
    assert repr(PerLabel(Sinkhorn(0.1))) == "PerLabel(Sinkhorn(epsilon=0.1))"
    assert repr(Exact()) == "Exact()"


@pytest.mark.parametrize("epsilon", [1e-20, 1e-12])
def test_an_epsilon_that_no_plan_resolves_leaves_the_most_likely_pairs(epsilon):
    """Whose kernel is 0 in float32: no index is out of range, and most pairs are the optimal."""
    x, y = torch.randn(40, 2, generator=seeded()), torch.randn(40, 2, generator=seeded())
    y = x.flip(0) + 0.01 * y
    i, j = Sinkhorn(epsilon)(x, y, seeded())
    assert torch.equal(j, torch.arange(40))
    assert 0 <= int(i.min()) <= int(i.max()) < 40
    assert (i == Exact()(x, y)[0]).float().mean() > 0.9


@pytest.mark.parametrize("scale", [1e150, 1e200])
@pytest.mark.parametrize("absolute", [False, True])
def test_samples_beyond_float64_are_refused(scale, absolute):
    x = scale * torch.randn(9, 2, generator=seeded()).double()
    with pytest.raises(ValueError, match="float64 does not resolve: rescale"):
        Sinkhorn(absolute=absolute)(x, x.flip(0), seeded())


def test_pairs_of_lists_and_arrays_are_tensors():
    x, y = [[0.0], [1.0]], np.array([[1.1], [0.2]])
    noise, data = Exact().pairs(x, y)
    torch.testing.assert_close(noise, torch.tensor([[1.0], [0.0]]))
    torch.testing.assert_close(data, torch.as_tensor(y))
    i, j = PerLabel(Exact())(x, y, labels0=[5, 6], labels1=[6, 5])
    assert (i.tolist(), j.tolist()) == ([1, 0], [0, 1])
    with pytest.raises(ValueError, match="`x1` is missing: Exact pairs noise with a batch"):
        Exact().pairs(x)
    with pytest.raises(ValueError, match="`x0` must hold at least one sample"):
        PerLabel(Exact())(torch.empty(0, 1), torch.empty(0, 1), labels1=[])
