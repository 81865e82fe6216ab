"""What holds for every function of weighted samples, whatever it computes: one table, one test a
law. A function that takes weights `a` and `b` is one row here."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from zoo import seeded, uniform_directions

from monge import transport
from monge.transport import KL, TV, Circular, great_circles

double = torch.float64
DIM = 2
THETA = uniform_directions(5, DIM, generator=seeded())
CIRCLES = great_circles(5, DIM, generator=seeded())
SLICER = Circular(DIM, 5).double()


class Row(NamedTuple):
    """A function of points (*, n, 2), (*, m, 2) and their weights."""

    value: Callable[..., torch.Tensor]
    second: bool = True
    """Second derivatives in the points are right; otherwise they raise."""
    weights: bool = True
    """It has a gradient in the weights."""
    error: float = 1e-5
    """Of its gradients; a search for a maximum, by draws of its own, stops near it."""


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


def squares(x, y):
    return (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)


def tight(x):
    """A tolerance that the dtype of the points can reach."""
    return 1e-12 if x.dtype == double else 1e-6


def of_points(function, **options):
    return lambda x, y, a, b: function(x, y, a, b, **options)


def entropic(function, **options):
    """The value of a plan of points."""
    return lambda x, y, a, b: value_of(function(x, y, a, b, tolerance=tight(x), **options))


def of_cost(function, iterative=False, **options):
    def value(x, y, a, b):
        tolerance = {"tolerance": tight(x)} if iterative else {}
        return function(squares(x, y), a, b, **tolerance, **options).value

    return value


def of_spaces(function, fused=False, **options):
    def value(x, y, a, b):
        costs = [squares(*pair) for pair in ((x, y), (x, x), (y, y))]
        return function(*costs[0 if fused else 1 :], a, b, **options).value

    return value


def value_of(result):
    return result if isinstance(result, torch.Tensor) else result.value


ENTROPIC_GROMOV: dict[str, Any] = {"epsilon": 5.0, "tolerance": 1e-9}
ROWS = {
    "wasserstein": Row(of_points(transport.wasserstein)),
    "wasserstein_1d": Row(lambda x, y, a, b: transport.wasserstein_1d(x[..., 0], y[..., 0], a, b)),
    "wasserstein_circle": Row(
        lambda x, y, a, b: transport.wasserstein_circle(x[..., 0], y[..., 0], a, b, period=7)
    ),
    "sliced_wasserstein": Row(of_points(transport.sliced_wasserstein, directions=THETA)),
    "max_sliced_wasserstein": Row(
        lambda x, y, a, b: transport.max_sliced_wasserstein(x, y, a, b, generator=seeded())[0],
        second=False,
        error=1e-3,
    ),
    "generalized_sliced_wasserstein": Row(
        lambda x, y, a, b: transport.generalized_sliced_wasserstein(
            x, y, SLICER.to(x.dtype if x.dtype == double else torch.float32), a, b
        )
    ),
    "spherical_sliced_wasserstein": Row(
        lambda x, y, a, b: transport.spherical_sliced_wasserstein(
            unit(x), unit(y), a, b, circles=CIRCLES
        )
    ),
    "solve": Row(of_cost(transport.solve)),
    "solve_partial": Row(of_cost(transport.solve_partial, mass=0.7)),
    "partial_wasserstein": Row(of_points(transport.partial_wasserstein, mass=0.7)),
    "solve_entropic": Row(of_cost(transport.solve_entropic, iterative=True, epsilon=0.5)),
    "solve_entropic_partial": Row(
        of_cost(transport.solve_entropic_partial, iterative=True, mass=0.7, epsilon=0.5),
        second=False,
    ),
    "sinkhorn": Row(entropic(transport.sinkhorn, epsilon=0.5)),
    "sinkhorn, KL": Row(entropic(transport.sinkhorn, epsilon=0.5, reach=(KL(1.0), None))),
    "sinkhorn_divergence": Row(entropic(transport.sinkhorn_divergence, epsilon=0.5)),
    "sinkhorn_divergence, KL": Row(
        entropic(transport.sinkhorn_divergence, epsilon=0.5, reach=KL(1.0))
    ),
    "sinkhorn_divergence, TV": Row(
        entropic(transport.sinkhorn_divergence, epsilon=0.5, reach=TV(2.0))
    ),
    "multiscale_sinkhorn": Row(entropic(transport.multiscale_sinkhorn, epsilon=0.5), second=False),
    "multiscale_sinkhorn_divergence": Row(
        entropic(transport.multiscale_sinkhorn_divergence, epsilon=0.5), second=False
    ),
    "low_rank_sinkhorn": Row(
        # of rank 1 no start decides on the plan
        entropic(transport.low_rank_sinkhorn, rank=1),
        second=False,
        weights=False,
    ),
    "low_rank_gromov_wasserstein": Row(
        entropic(transport.low_rank_gromov_wasserstein, rank=1, starts=1),
        second=False,
        weights=False,
    ),
    "gromov_wasserstein": Row(of_spaces(transport.gromov_wasserstein), second=False),
    "entropic_gromov_wasserstein": Row(
        of_spaces(transport.entropic_gromov_wasserstein, **ENTROPIC_GROMOV), second=False
    ),
    "fused_gromov_wasserstein": Row(
        of_spaces(transport.fused_gromov_wasserstein, fused=True), second=False
    ),
    "entropic_fused_gromov_wasserstein": Row(
        of_spaces(
            transport.entropic_fused_gromov_wasserstein, fused=True, alpha=0.7, **ENTROPIC_GROMOV
        ),
        second=False,
    ),
    "partial_gromov_wasserstein": Row(
        of_spaces(transport.partial_gromov_wasserstein, mass=0.7), second=False
    ),
    "unbalanced_gromov_wasserstein": Row(
        of_spaces(transport.unbalanced_gromov_wasserstein, reach=20.0, **ENTROPIC_GROMOV),
        second=False,
    ),
}
OTHERS = {
    "max_generalized_sliced_wasserstein": "trains its slicer on the way",
    "kantorovich_potential": "functions, not values: tests/test_exact.py",
    "sliced_wasserstein_estimate": "of `sliced_wasserstein`, without gradient",
    "to_pot": "a conversion: tests/test_conversions.py",
    "from_pot": "a conversion: tests/test_conversions.py",
}
EVERY = pytest.mark.parametrize("name", ROWS)


def problem(n=6, m=5, seed=0):
    """Points and weights in float64."""
    random = seeded(seed)
    x, y = (torch.randn(k, DIM, generator=random, dtype=double) for k in (n, m))
    a, b = (torch.rand(k, generator=random, dtype=double) + 0.2 for k in (n, m))
    return x, 1.3 * y + 0.4, a / a.sum(), b / b.sum()


def differentiated(value, x, y, a, b):
    """A value and its gradient in x."""
    x = x.clone().requires_grad_()
    out = value(x, y, a, b)
    return out.detach(), torch.autograd.grad(out.sum(), x)[0]


@EVERY
def test_points_without_weight_are_not_there(name):
    x, y, a, b = problem()
    value, slope = differentiated(ROWS[name].value, x, y, a, b)
    padded = [
        torch.cat([z[:2], torch.full_like(z[:1], 3.0), z[2:], torch.full_like(z[:1], -2.0)])
        for z in (x, y)
    ]
    none = torch.zeros(1, dtype=double)
    w = [torch.cat([w[:2], none, w[2:], none]) for w in (a, b)]
    more, slopes = differentiated(ROWS[name].value, *padded, *w)
    torch.testing.assert_close(more, value, rtol=1e-7, atol=1e-9)
    kept = [0, 1, *range(3, 7)]
    torch.testing.assert_close(slopes[kept], slope, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(slopes[[2, 7]], torch.zeros_like(slopes[:2]))


@EVERY
def test_a_point_is_two_that_share_its_weight(name):
    """Ties: a sample is a distribution, however it is written down."""
    x, y, a, b = problem()
    value, slope = differentiated(ROWS[name].value, x, y, a, b)
    twice = [torch.cat([z, z[:1]]) for z in (x, y)]
    shared = [torch.cat([w[:1] / 3, w[1:], w[:1] * 2 / 3]) for w in (a, b)]
    same, slopes = differentiated(ROWS[name].value, *twice, *shared)
    torch.testing.assert_close(same, value, rtol=1e-7, atol=1e-9)
    merged = torch.cat([slopes[:1] + slopes[6:], slopes[1:6]])
    torch.testing.assert_close(merged, slope, rtol=1e-5, atol=1e-7)


@EVERY
def test_a_batch_is_its_items(name):
    """Values and gradients in points and weights."""
    row, problems = ROWS[name], [problem(seed=seed) for seed in range(3)]
    inputs = [torch.stack(z).requires_grad_() for z in zip(*problems)]
    together = row.value(*inputs)
    assert together.shape == (3,)
    alone = torch.stack([row.value(*(z[i] for z in inputs)) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=row.error / 100, atol=1e-9)
    if name == "max_sliced_wasserstein":
        return  # a maximum may lie at a kink, where draws decide on the side of the gradient
    wanted = inputs if row.weights else inputs[:2]
    for ours, expected in zip(*(torch.autograd.grad(z.sum(), wanted) for z in (together, alone))):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_with_weights(name, dtype):
    """It is float32 inside, and comes back as it came."""
    x, y, a, b = (z.to(dtype) for z in problem())
    value, slope = differentiated(ROWS[name].value, x, y, a, b)
    weights = [w.float() / w.float().sum() for w in (a, b)]
    expected, wide = differentiated(ROWS[name].value, x.float(), y.float(), *weights)
    assert value.dtype == slope.dtype == dtype
    rounding = 8 * torch.finfo(dtype).eps  # costs and coordinates of a row are of half precision
    torch.testing.assert_close(value.float(), expected, rtol=rounding, atol=rounding)
    torch.testing.assert_close(slope.float(), wide, rtol=rounding, atol=rounding)


@EVERY
def test_gradients_equal_finite_differences(name):
    row, (x, y, a, b) = ROWS[name], problem(5, 4)
    inputs = [z.requires_grad_() for z in (x, y)]
    assert gradcheck(lambda x, y: row.value(x, y, a, b), inputs, atol=row.error)
    if row.weights:
        logits = [w.log().requires_grad_() for w in (a, b)]

        def of_weights(a, b):
            return row.value(x.detach(), y.detach(), a.softmax(0), b.softmax(0))

        assert gradcheck(of_weights, logits, atol=row.error)


@EVERY
def test_second_derivatives_are_right_or_refused(name):
    row, (x, y, a, b) = ROWS[name], problem(5, 4)
    inputs = [z.requires_grad_() for z in (x, y)]

    def value(x, y):
        return row.value(x, y, a, b)

    if row.second:
        assert gradgradcheck(value, inputs, atol=1e-4)
        return
    (first,) = torch.autograd.grad(value(*inputs), x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(first.sum(), x)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 10, 20, 50, 200])
@pytest.mark.parametrize("sizes", [(6, 6), (6, 4)])
@pytest.mark.parametrize("kind", ["uniform", "zeros", "apart"])
@pytest.mark.parametrize("sliced", [False, True])
def test_gradients_in_weights_on_the_line_are_duals_at_every_order(p, sizes, kind, sliced):
    """f and g that no cost forbids, with the value of the plan, are a subgradient of W_p^p, also
    where partial sums of the weights are equal, beside pairs far longer than the plan's."""
    for seed in range(3):
        random = seeded(seed)
        u, v = (10 * torch.rand(k, generator=random, dtype=torch.float64) for k in sizes)
        a, b = (torch.rand(k, generator=random, dtype=torch.float64) + 0.1 for k in sizes)
        if kind == "uniform":
            a, b = torch.ones_like(a), torch.ones_like(b)
        if kind == "zeros":
            a[[seed, seed + 2]] = 0
        a, b = (w / w.sum() for w in (a, b))
        leaves = [w.clone().requires_grad_() for w in (a, b)]
        if sliced:
            plane = (torch.stack([z, 0 * z], 1) for z in (u, v))
            one = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
            value = transport.sliced_wasserstein(*plane, *leaves, p=p, directions=one)
        else:
            value = transport.wasserstein_1d(u, v, *leaves, p=p)
        f, g = (z * p / value.detach() for z in torch.autograd.grad(value, leaves))
        costs = ((u[:, None] - v).abs() / value.detach()) ** p
        dual = a @ f + b @ g - (f[:, None] + g - costs).max()
        # the potentials of points with mass are at most those of a few costs of the plan
        largest = (
            100.0 if kind != "zeros" else max(1.0, float(f.abs().max()), float(g.abs().max()))
        )
        assert float(dual) == pytest.approx(1, abs=1e-13 * (10 + p) * largest)


def test_every_function_of_weights_has_a_row():
    functions = {
        name
        for name in transport.__all__
        if inspect.isfunction(function := getattr(transport, name))
        and {"a", "b"} <= set(inspect.signature(function).parameters)
    }
    assert functions - {name.split(",")[0] for name in ROWS} == set(OTHERS)
