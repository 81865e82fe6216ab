"""Batches of problems: each item has the value, the plan and the gradients it has on its own."""

import functools

import pytest
import torch

from monge._core import tuning as values
from monge.transport import (
    Randkhorn,
    batched_gibbs,
    sinkhorn,
    sinkhorn_divergence,
    solve,
    solve_entropic,
    wasserstein,
)

double = torch.float64


def weights(count, size, empty=0, seed=0):
    """Random weights (count, size); item i has i · empty points without mass."""
    w = torch.rand(count, size, dtype=double, generator=torch.Generator().manual_seed(seed)) + 0.1
    for i in range(count):
        w[i, size - i * empty :] = 0
    return w / w.sum(1, keepdim=True)


def problems(count=4, n=9, m=7, dtype=double):
    generator = torch.Generator().manual_seed(n + m)
    x = torch.randn(count, n, 3, dtype=double, generator=generator)
    y = torch.randn(count, m, 3, dtype=double, generator=generator) + 0.5
    return x.to(dtype), y.to(dtype)


def of_costs(function, x, y, *w, **options):
    return function((x[..., :, None, :] - y[..., None, :, :]).square().sum(-1), *w, **options)


ENTROPIC = {
    "sinkhorn": sinkhorn,
    "sinkhorn_divergence": sinkhorn_divergence,
    "solve_entropic": functools.partial(of_costs, solve_entropic),
}
EXACT = {"wasserstein": wasserstein, "solve": functools.partial(of_costs, solve)}


def subject(name, tolerance=1e-10, epsilon=0.5):
    if name in EXACT:
        return EXACT[name]
    return functools.partial(ENTROPIC[name], epsilon=epsilon, tolerance=tolerance)


def value_of(result):
    return result if isinstance(result, torch.Tensor) else result.value


EVERY = pytest.mark.parametrize("name", [*ENTROPIC, *EXACT])


def compare(function, *tensors, atol=1e-8, rtol=1e-6):
    """Values, plans and gradients of a batch against those of its items."""
    together = [z.clone().requires_grad_() for z in tensors]
    apart = [z.clone().requires_grad_() for z in tensors]
    batch, items = function(*together), [function(*item) for item in zip(*apart)]
    close = functools.partial(torch.testing.assert_close, atol=atol, rtol=rtol)
    close(value_of(batch), torch.stack([value_of(item) for item in items]))
    if not isinstance(batch, torch.Tensor):
        close(batch.plan, torch.stack([item.plan for item in items]))
        close(batch.value_linear, torch.stack([item.value_linear for item in items]))
        assert batch.converged
    outer = torch.linspace(1, 2, len(tensors[0])).to(tensors[0])
    slopes = torch.autograd.grad((value_of(batch) * outer).sum(), together)
    expected = sum(w * value_of(item) for w, item in zip(outer, items))
    for slope, other in zip(slopes, torch.autograd.grad(expected, apart)):
        close(slope, other)


@EVERY
@pytest.mark.parametrize("m", [9, 7])
def test_items(name, m):
    compare(subject(name), *problems(m=m))


@EVERY
def test_weighted_items(name):
    compare(subject(name), *problems(), weights(4, 9), weights(4, 7, seed=1))


@EVERY
def test_ragged_items(name):
    """Points without mass count nothing, wherever they are."""
    x, y = problems()
    a, b = weights(4, 9, empty=2), weights(4, 7, empty=1)
    x[a == 0] = 1e3
    function = subject(name)
    batch = value_of(function(x, y, a, b))
    for i in range(4):
        of_a, of_b = a[i] > 0, b[i] > 0
        alone = function(x[i][of_a], y[i][of_b], a[i][of_a], b[i][of_b])
        torch.testing.assert_close(batch[i], value_of(alone), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("name", ["sinkhorn", "sinkhorn_divergence"])
def test_items_of_unlike_scales(name, p):
    """Each item is iterated until it has converged, about means of its own."""
    x, y = problems()
    x[1], x[2], y[2], y[3] = x[1] + 1e6 * (p == 2), 1e-3 * x[2], 1e-3 * y[2], 2 * y[3]
    compare(functools.partial(subject(name, epsilon=0.1), p=p), x, y, rtol=1e-5)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_exact_items_of_unlike_scales(p):
    x, y = problems()
    for i, size in enumerate((1e-30, 1e-150, 1.0, 1e150)):
        x[i], y[i] = size * x[i], size * y[i]
    batch = wasserstein(x, y, p=p)
    items = torch.stack([wasserstein(*pair, p=p) for pair in zip(x, y)])
    torch.testing.assert_close(batch / items, torch.ones(4, dtype=double))


@EVERY
def test_batches_of_float32_and_of_halves(name):
    x, y = problems(dtype=torch.float32)
    compare(subject(name, tolerance=1e-6), x, y, atol=1e-4, rtol=1e-3)
    half = value_of(subject(name, tolerance=1e-3)(x.half(), y.half()))
    assert half.dtype == torch.float16
    exact = value_of(subject(name)(x.half().double(), y.half().double()))
    torch.testing.assert_close(half.double(), exact, rtol=1e-2, atol=1e-2)


@EVERY
def test_gradients(name):
    x, y = problems(2, 4, 3)
    a, b = weights(2, 4), weights(2, 3, seed=1)
    inputs = [z.requires_grad_() for z in (x, y)]
    function = subject(name, tolerance=1e-12)
    assert torch.autograd.gradcheck(lambda x, y: value_of(function(x, y)), inputs)
    if name in ENTROPIC:
        assert torch.autograd.gradgradcheck(
            lambda x, y: value_of(function(x, y)), inputs, atol=1e-4
        )

    def of_weights(a, b):
        return value_of(function(x.detach(), y.detach(), a.softmax(1), b.softmax(1)))

    assert torch.autograd.gradcheck(of_weights, [z.log().requires_grad_() for z in (a, b)])


@EVERY
def test_one_side_is_shared(name):
    x, y = problems()
    y = y[0].clone().requires_grad_()
    function = subject(name)
    batch, items = (
        value_of(function(x, y)),
        torch.stack([value_of(function(z, y)) for z in x]),
    )
    torch.testing.assert_close(batch, items)
    for slope, other in zip(*(torch.autograd.grad(z.sum(), y) for z in (batch, items))):
        torch.testing.assert_close(slope, other, rtol=1e-6, atol=1e-8)


def test_batches_in_parts(monkeypatch):
    """A batch that would need too much memory is solved in parts."""
    few = values.replace(values.CPU, batch_entries=100)
    monkeypatch.setattr(values, "CPU", few)
    compare(subject("sinkhorn"), *problems())


@pytest.mark.parametrize("name", ENTROPIC)
def test_large_items_are_solved_one_by_one(name, monkeypatch):
    x, y = problems()
    expected = value_of(subject(name)(x, y))
    monkeypatch.setattr(values, "CPU", values.replace(values.CPU, batched_entries=1))
    torch.testing.assert_close(value_of(subject(name)(x, y)), expected)
    drawn = subject(name)(x, y, acceleration=Randkhorn())
    torch.testing.assert_close(value_of(drawn), expected)


def test_ragged_items_waste_less_than_they_need():
    sizes = torch.arange(1, 65)
    a = (torch.arange(64) < sizes[:, None]).double()
    a = a / a.sum(1, keepdim=True)
    cost = torch.rand(64, 64, 64, dtype=double)
    parts = list(batched_gibbs._parts(batched_gibbs.Problems(cost, a, a.flip(0))))
    done = sum(part.cost.numel() for *_, part in parts)
    assert sorted(i for items, *_ in parts for i in items.tolist()) == list(range(64))
    assert done <= 2 * int((sizes * sizes.flip(0)).sum())


def test_the_account_is_that_of_the_worst_item():
    x, y = problems()
    x[1] *= 5
    batch = sinkhorn(x, y, epsilon=0.1)
    items = [sinkhorn(*pair, epsilon=0.1) for pair in zip(x, y)]
    assert batch.converged
    assert batch.marginal_error <= 1e-4
    assert batch.iterations > min(item.iterations for item in items)
    rows = (batch.plan.sum(2) - 1 / 9).abs().sum(1).max()
    columns = (batch.plan.sum(1) - 1 / 7).abs().sum(1).max()
    assert batch.marginal_error == pytest.approx(float(max(rows, columns)), abs=1e-12)
    with pytest.warns(UserWarning, match="stopped after 2 iterations with a marginal error"):
        stopped = sinkhorn(x, y, epsilon=10.0, max_iterations=2, tolerance=1e-9)
    assert not stopped.converged


def test_potentials_are_feasible_and_optimal():
    x, y = problems()
    a, b = weights(4, 9, empty=2), weights(4, 7)
    cost = torch.cdist(x, y)
    plan = solve(cost, a, b)
    f, g = plan.potentials
    torch.testing.assert_close((a * f).sum(1) + (b * g).sum(1), plan.value)
    assert bool((f[:, :, None] + g[:, None] <= cost + 1e-9).all())
    entropic = sinkhorn(x, y, a, b, epsilon=0.3, tolerance=1e-10)
    f, g = entropic.potentials
    torch.testing.assert_close((a * f).sum(1) + (b * g).sum(1), entropic.value)
    exponents = (f[:, :, None] + g[:, None] - torch.cdist(x, y).square()) / 0.3
    torch.testing.assert_close(a[:, :, None] * b[:, None] * exponents.exp(), entropic.plan)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_items_of_equal_samples_have_no_gradient(p):
    """However roughly their potentials are solved: all three solutions are one."""
    x, _ = problems(dtype=torch.float32)
    w = weights(4, x.shape[1], empty=1).float()
    moved = x + torch.tensor([0.0, 0.0, 1.0, 0.0])[:, None, None]
    inputs = [z.clone().requires_grad_() for z in (x, moved, w, w)]
    value = sinkhorn_divergence(*inputs, epsilon=0.3, p=p, tolerance=1e-2)
    found = torch.autograd.grad(value.sum(), inputs)
    sizes = torch.stack([g.abs().flatten(1).amax(1) for g in found])
    assert (sizes[:, [0, 1, 3]] < 1e-7).all()
    assert (sizes[:, 2] > 0).all()
    assert (value[[0, 1, 3]] == 0).all()


def test_weights_of_points_without_mass_have_a_gradient():
    """The derivative in a weight of 0 is the one-sided one."""
    x, y = problems(2, 5, 4)
    a = weights(2, 5, empty=2)

    def value(a):
        return sinkhorn_divergence(x, y, a, epsilon=3.0, tolerance=1e-13)

    leaf = a.clone().requires_grad_()
    slopes = torch.autograd.grad(value(leaf).sum(), leaf)[0]
    move = torch.zeros_like(a)
    move[1, 0], move[1, 4] = -1e-7, 1e-7
    difference = (value(a + move) - value(a)).sum() / 1e-7
    torch.testing.assert_close(difference, slopes[1, 4] - slopes[1, 0], rtol=1e-4, atol=1e-5)
    alone = a[1].clone().requires_grad_()
    one = sinkhorn_divergence(x[1], y[1], alone, epsilon=3.0, tolerance=1e-13)
    torch.testing.assert_close(torch.autograd.grad(one, alone)[0], slopes[1])


@EVERY
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x.index_fill(1, torch.tensor([0]), torch.nan), y), "finite"),
        (lambda x, y: (x[:3], y), "equally many problems"),
        (lambda x, y: (x, y, torch.ones(4, 9)), "`a` must be at least 0 and sum to 1"),
        (lambda x, y: (x, y, torch.ones(4, 3) / 3), "`a` must hold a weight for each of the 9"),
        (lambda x, y: (x[:, :0], y), "must"),
    ],
)
def test_refusals(name, change, words):
    arguments = change(*problems())
    if name.startswith("solve") and words == "equally many problems":
        pytest.skip("its row makes one cost of both")
    with pytest.raises(ValueError, match=words):
        subject(name)(*arguments)


@pytest.mark.parametrize("name", ["sinkhorn", "sinkhorn_divergence", "wasserstein"])
def test_dimensions_must_agree(name):
    x, y = problems()
    with pytest.raises(ValueError, match="samples of one shape"):
        subject(name)(x[..., :2], y)
