"""What holds for every distance and divergence at the edges: one column each, over both tables."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from zoo import DIM, DISTANCES, DIVERGENCES, seeded

from monge import costs, evaluation, transport
from monge.divergences import SinkhornDivergence
from monge.kernels import RBF
from monge.transport import Linear


def of_distance(name):
    law = DISTANCES[name]

    def value(x, y):
        torch.manual_seed(1)
        return law.value(x, y, 1.0)

    return value


def of_divergence(name, dtype):
    torch.manual_seed(1)
    divergence = DIVERGENCES[name].make().to(dtype)
    if isinstance(divergence, SinkhornDivergence) and dtype != torch.float64:
        divergence.tolerance = 1e-6  # what float32 can reach

    def value(x, y):
        torch.manual_seed(1)
        return divergence(x, y)

    return value


NAMES = [f"distance {name}" for name in DISTANCES] + [f"divergence {name}" for name in DIVERGENCES]
EVERY = pytest.mark.parametrize("name", NAMES)


def subject(name, dtype=torch.float32):
    kind, which = name.split()
    return of_distance(which) if kind == "distance" else of_divergence(which, dtype)


def row(name):
    kind, which = name.split()
    return (DISTANCES if kind == "distance" else DIVERGENCES)[which]


def sizes(name, n, m):
    """(n, m), or (n, n) where rows belong together."""
    return (n, n) if "paired" in name else (n, m)


def pair(n=6, m=5, dtype=torch.float32, seed=0):
    random = seeded(seed)
    x = torch.randn(n, DIM, generator=random, dtype=torch.float64)
    y = 1.3 * torch.randn(m, DIM, generator=random, dtype=torch.float64) + 0.4
    return x.to(dtype), y.to(dtype)


def with_gradient(value, x, y):
    x = x.clone().requires_grad_()
    out = value(x, y)
    (gradient,) = torch.autograd.grad(out, x, allow_unused=True)
    return out.detach(), torch.zeros_like(x) if gradient is None else gradient


SATURATED = ("js", "wasserstein", "feature", "mmd-rbf", "mmd-algebra")
"""Networks and kernels that are constant where the points are far."""


@EVERY
def test_far(name):
    """float32 sees two clusters of width 1 at ±10⁴ as float64 does."""
    if any(word in name for word in SATURATED):
        pytest.skip("constant out there")
    if not getattr(row(name), "points", True):
        pytest.skip("not of points")
    x, y = pair(24, 24)
    side = torch.where(torch.arange(24) % 2 == 0, 1e4, -1e4)[:, None]
    x, y = x + side, y + side
    value, gradient = with_gradient(subject(name), x, y)
    expected, slope = with_gradient(subject(name, torch.float64), x.double(), y.double())
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    size = float(slope.abs().max())
    torch.testing.assert_close(gradient.double(), slope, rtol=0, atol=1e-5 * size)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half(name, dtype):
    """Half precision is float32 inside, and comes back as it came."""
    x, y = pair(*sizes(name, 6, 5), dtype=dtype)
    if "weighted" in name:
        pytest.skip("its weights are made in the dtype of the points: tested on its own")
    value, gradient = with_gradient(subject(name), x, y)
    expected, slope = with_gradient(subject(name), x.float(), y.float())
    rounding = torch.finfo(dtype).eps
    assert value.dtype == gradient.dtype == dtype
    torch.testing.assert_close(value.float(), expected, rtol=rounding, atol=rounding)
    torch.testing.assert_close(gradient.float(), slope, rtol=2 * rounding, atol=rounding)


@EVERY
def test_autocast(name):
    """A caller's autocast changes no bit."""
    x, y = pair(*sizes(name, 6, 5))
    expected, slope = with_gradient(subject(name), x, y)
    moved = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = subject(name)(moved, y)
    (gradient,) = torch.autograd.grad(value, moved, allow_unused=True)
    gradient = torch.zeros_like(x) if gradient is None else gradient
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    assert torch.equal(gradient, slope)


@EVERY
def test_flushed(name):
    """Nothing rests on denormal numbers, which another library may have told the process to
    flush; samples with many zeros, as after a ReLU."""
    x, y = (z.relu() for z in pair(*sizes(name, 40, 30), seed=3))
    expected, slope = with_gradient(subject(name), x, y)
    torch.set_flush_denormal(True)
    try:
        value, gradient = with_gradient(subject(name), x, y)
    finally:
        torch.set_flush_denormal(False)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, slope)


@EVERY
@pytest.mark.parametrize("m", [4, 3])
def test_second(name, m):
    """Second derivatives are right, or refused in words; in x alone and in both samples."""
    x, y = pair(*sizes(name, 4, m), dtype=torch.float64)
    value = subject(name, torch.float64)
    if not getattr(row(name), "second", True):
        x.requires_grad_()
        (first,) = torch.autograd.grad(value(x, y), x, create_graph=True)
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(first.sum(), x)
        return
    x.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: value(x, y), x, atol=1e-4)
    assert torch.autograd.gradgradcheck(value, (x, y.clone().requires_grad_()), atol=1e-4)


OF_POINTS = pytest.mark.parametrize("name", [n for n, r in DISTANCES.items() if r.points])


@OF_POINTS
def test_batched(name):
    """A batch has a value for each of its items, or is refused; it is never flattened."""
    value = of_distance(name)
    pairs = [pair(seed=seed) for seed in range(3)]
    x, y = (torch.stack(z) for z in zip(*pairs))
    if "weighted" in name:
        pytest.skip("its weights are made for one problem")
    if name == "energy":
        pytest.skip("divergences take a sample of any shape, (n, *)")
    together = value(x, y)
    assert together.shape == (3,)
    torch.testing.assert_close(together[0], value(*pairs[0]))
    if name not in RANDOM:
        torch.testing.assert_close(together, torch.stack([value(*z) for z in pairs]))


RANDOM = ("max-sliced",)
"""Draws go on from item to item."""


@EVERY
def test_numpy(name):
    """Arrays and lists are tensors; mixed dtypes are promoted."""
    if not getattr(row(name), "points", True):
        pytest.skip("not of points")
    if "weighted" in name or "sliced-" in name or name == "distance generalized":
        pytest.skip("its row makes tensors of the samples: tested on its own")
    x, y = pair(*sizes(name, 6, 5), dtype=torch.float64)
    value = subject(name, torch.float64)
    expected = value(x, y)
    for one, two in ((x.numpy(), y.numpy()), (x.tolist(), y.numpy()), (x, y.tolist())):
        assert torch.equal(value(one, two), expected)
    mixed = value(x, y.float().numpy())
    assert mixed.dtype == torch.float64
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-5)


@EVERY
def test_function_transforms(name):
    """torch.func.grad and jacrev are autograd's gradient, vmap is a loop."""
    x, y = pair(*sizes(name, 6, 5), dtype=torch.float64)
    value = subject(name, torch.float64)
    expected = with_gradient(value, x, y)[1]
    torch.testing.assert_close(torch.func.grad(value)(x, y), expected)
    torch.testing.assert_close(torch.func.jacrev(value)(x, y), expected)
    batch = torch.stack([x, x + 0.1])
    mapped = torch.vmap(value, in_dims=(0, None), randomness="same")(batch, y)
    torch.testing.assert_close(mapped, torch.stack([value(z, y) for z in batch]))


@EVERY
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_compiled(name):
    """torch.compile runs it between its graphs."""
    x, y = pair(*sizes(name, 6, 5), dtype=torch.float64)
    value = subject(name, torch.float64)

    def loss(x, y):
        return 2 * value(x + 1, y) + 1

    expected = with_gradient(loss, x, y)
    torch.compiler.reset()
    for ours, plain in zip(with_gradient(torch.compile(loss, backend="eager"), x, y), expected):
        torch.testing.assert_close(ours, plain)


# Functions of other things than two samples


def semidefinite(x):
    return x.mT @ x + 0.5 * torch.eye(x.shape[-1]).to(x)


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


def hyperboloid(x):
    return torch.cat([(1 + x.square().sum(-1, keepdim=True)).sqrt(), x], -1)


def histogram(x):
    return x.flatten().softmax(0)


OTHERS = {
    "solve": lambda x, y: transport.solve(x @ y.mT).value,
    "solve_entropic": lambda x, y: (
        transport.solve_entropic(x @ y.mT, epsilon=1.0, tolerance=1e-6).value
    ),
    "solve_partial": lambda x, y: transport.solve_partial(x @ y.mT, mass=0.5).value,
    "solve_entropic_partial": lambda x, y: (
        transport.solve_entropic_partial(x @ y.mT, mass=0.5, epsilon=1.0, tolerance=1e-6).value
    ),
    "entropic_gromov_wasserstein": lambda x, y: (
        transport.entropic_gromov_wasserstein(
            x @ x.mT, y @ y.mT, epsilon=20.0, tolerance=1e-5
        ).value
    ),
    "entropic_fused_gromov_wasserstein": lambda x, y: (
        transport.entropic_fused_gromov_wasserstein(
            x @ y.mT, x @ x.mT, y @ y.mT, epsilon=20.0, tolerance=1e-5
        ).value
    ),
    "unbalanced_gromov_wasserstein": lambda x, y: (
        transport.unbalanced_gromov_wasserstein(
            x @ x.mT, y @ y.mT, epsilon=20.0, reach=20.0, tolerance=1e-5
        ).value
    ),
    "wasserstein_circle": lambda x, y: transport.wasserstein_circle(x[:, 0], y[:, 0]),
    "spherical_sliced_wasserstein": lambda x, y: transport.spherical_sliced_wasserstein(
        unit(x), unit(y), circles=transport.great_circles(5, x.shape[1], generator=seeded())
    ),
    "spherical_distances": lambda x, y: transport.spherical_distances(unit(x), unit(y)).sum(),
    "hyperbolic_distances": lambda x, y: transport.hyperbolic_distances(
        hyperboloid(x), hyperboloid(y)
    ).sum(),
    "gaussian_wasserstein": lambda x, y: transport.gaussian_wasserstein(
        x[0], semidefinite(x), y[0], semidefinite(y)
    ),
    "gaussian_kl": lambda x, y: transport.gaussian_kl(
        x[0], semidefinite(x), y[0], semidefinite(y)
    ),
    "total_variation": lambda x, y: transport.total_variation(histogram(x), histogram(y)),
    "kullback_leibler": lambda x, y: transport.kullback_leibler(histogram(x), histogram(y)),
    "jensen_shannon": lambda x, y: transport.jensen_shannon(histogram(x), histogram(y)),
    "low_rank_sinkhorn": lambda x, y: (
        transport.low_rank_sinkhorn(x, y, rank=2, tolerance=1e-4, generator=seeded()).value
    ),
    "low_rank_gromov_wasserstein": lambda x, y: (
        transport.low_rank_gromov_wasserstein(
            x, y, rank=2, starts=1, tolerance=1e-4, generator=seeded()
        ).value
    ),
    "max_generalized_sliced_wasserstein": lambda x, y: (
        transport.max_generalized_sliced_wasserstein(
            x, y, Linear(DIM, 2).to(x.device), iterations=3
        )
    ),
}
OTHER = pytest.mark.parametrize("name", OTHERS)


def seeded_value(name):
    def value(x, y):
        torch.manual_seed(1)
        return OTHERS[name](x, y)

    return value


@OTHER
def test_others_leave_autocast_and_keep_the_dtype(name):
    x, y = pair(5, 5)
    expected = seeded_value(name)(x, y)
    assert expected.dtype == torch.float32
    assert torch.isfinite(expected)
    wide = seeded_value(name)(x.double(), y.double())
    torch.testing.assert_close(expected.double(), wide, rtol=1e-3, atol=1e-4)
    if name.startswith(("gaussian", "max")):  # no product before the function is called
        with torch.autocast("cpu", torch.bfloat16):
            moments = (
                x[0],
                semidefinite(x.double()).float(),
                y[0],
                semidefinite(y.double()).float(),
            )
            if name == "gaussian_wasserstein":
                value = transport.gaussian_wasserstein(*moments)
            elif name == "gaussian_kl":
                value = transport.gaussian_kl(*moments)
            else:
                value = seeded_value(name)(x, y)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


@OTHER
def test_others_under_torch_func(name):
    if name == "max_generalized_sliced_wasserstein":
        pytest.skip("trains its slicer on the way")
    x, y = pair(5, 5, dtype=torch.float64)
    expected = with_gradient(seeded_value(name), x, y)[1]
    torch.testing.assert_close(torch.func.grad(seeded_value(name))(x, y), expected)


def test_every_distance_is_in_a_table():
    """So that a new one is held to the columns."""
    kept = {
        *("uniform_directions", "orthogonal_directions", "sobol_directions", "great_circles"),
        *("monge_map", "quantile_map", "gaussian_map", "kantorovich_potential"),
        *("sliced_wasserstein_estimate", "solve_semidiscrete", *OTHERS),
        # distances within a graph, which tests/test_graphs.py holds to networkx
        "shortest_paths",
        # conventions of other libraries, which tests/test_conversions.py holds to them
        *("to_pot", "from_pot", "from_geomloss"),
        # points and histograms, which tests/test_barycenters.py holds to them
        *(name for name in transport.__all__ if "barycenter" in name),
    }
    source = (Path(__file__).parent / "zoo.py").read_text()
    functions = {
        name
        for name in transport.__all__
        if inspect.isfunction(getattr(transport, name)) and name not in kept
    }
    assert functions
    assert {
        name for name in functions if f"{name}(" not in source and f"({name}" not in source
    } == set()


# Costs, of samples and of sets

COSTS = {
    "squared-l2": (costs.SquaredL2(), (6, 3)),
    "l2": (costs.L2(), (6, 3)),
    "l1": (costs.L1(), (6, 3)),
    "elastic-net": (costs.ElasticNet(), (6, 3)),
    "bernoulli": (costs.Bernoulli(), (6, 3)),
    "gaussian": (costs.GaussianLikelihood(0.5), (6, 3)),
    "scaled": (costs.Scaled(costs.SquaredL2(), torch.ones(3)), (6, 3)),
    "chamfer": (costs.Chamfer(), (2, 9, 3)),
    "earth-mover": (costs.EarthMover(), (2, 9, 3)),
    "earth-mover-2": (costs.EarthMover(p=2), (2, 9, 3)),
    "sinkhorn": (costs.SinkhornSets(0.5), (2, 9, 3)),
    "sliced": (costs.SlicedSets(8), (2, 9, 3)),
}
COST = pytest.mark.parametrize("name", COSTS)


def cost_and_samples(name, dtype=torch.float32):
    cost, shape = COSTS[name]
    x, y = (torch.rand(*shape, generator=seeded(seed)).to(dtype) for seed in (1, 2))

    def value(x, y):
        torch.manual_seed(1)
        return cost(x, y).sum()

    return value, x, y


@COST
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_costs_in_half(name, dtype):
    value, x, y = cost_and_samples(name, dtype)
    ours, expected = with_gradient(value, x, y), with_gradient(value, x.float(), y.float())
    for half, single in zip(ours, expected):
        assert half.dtype == dtype
        rounding = 8 * torch.finfo(dtype).eps
        torch.testing.assert_close(half.float(), single, rtol=rounding, atol=rounding)


@COST
def test_costs_inside_autocast(name):
    value, x, y = cost_and_samples(name)
    expected = value(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        ours = value(x, y)
    torch.testing.assert_close(ours, expected)


@COST
def test_costs_under_torch_func(name):
    value, x, y = cost_and_samples(name, torch.float64)
    torch.testing.assert_close(torch.func.grad(value)(x, y), with_gradient(value, x, y)[1])


# Measures of samples of features

MEASURES = {
    "frechet": evaluation.frechet_distance,
    "fidelity": evaluation.precision_recall_density_coverage,
    "neighbours": evaluation.nearest_neighbour_test,
    "network": evaluation.network_test,
}


@pytest.mark.parametrize("name", MEASURES)
def test_measures_of_features(name):
    x, y = pair(40, 50)
    expected = MEASURES[name](x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert MEASURES[name](x, y) == expected
    assert MEASURES[name](x.numpy(), y.tolist()) == expected
    halves = x.half(), y.half()
    assert MEASURES[name](*halves) == MEASURES[name](*(z.float() for z in halves))


def test_weights_of_integers_are_counts():
    """Histograms as they are counted; floating point weights must sum to 1."""
    x = torch.arange(3, dtype=torch.float64)
    expected = transport.wasserstein_1d(x, x, [0.75, 0.25, 0.0], [0.0, 0.5, 0.5])
    for a, b in (
        ([3, 1, 0], [0, 2, 2]),
        (np.array([3, 1, 0]), np.array([0, 2, 2], np.uint8)),
        (torch.tensor([3, 1, 0]), torch.tensor([0, 2, 2])),
    ):
        torch.testing.assert_close(transport.wasserstein_1d(x, x, a, b), expected)
        plan = transport.solve((x[:, None] - x).square(), a, b)
        torch.testing.assert_close(plan.value.sqrt(), expected)
        torch.testing.assert_close(
            transport.total_variation(a, b), torch.tensor(0.75, dtype=torch.float64)
        )
    batch = transport.wasserstein(x[:, None].expand(2, 3, 1), x[:, None], [[1, 1, 0], [0, 0, 9]])
    assert batch.shape == (2,)
    for bad in ([1.0, 1.0, 0.0], [0, 0, 0], [2, -1, 1]):
        with pytest.raises(ValueError, match="`a` must be at least 0 and sum to 1"):
            transport.wasserstein_1d(x, x, bad)


def test_masses_of_integers_are_masses():
    """With `reach` or `mass` weights need not sum to 1, and integers are not divided."""
    x, y = torch.rand(4, 2).double(), torch.rand(3, 2).double()
    a, b = torch.tensor([1, 2, 0, 3]), torch.tensor([2, 2, 1])
    for call in (
        lambda a, b: transport.sinkhorn(x, y, a, b, epsilon=0.5, reach=1.0),
        lambda a, b: transport.solve_partial(torch.cdist(x, y), a, b, mass=3),
        lambda a, b: transport.solve_entropic_partial(
            torch.cdist(x, y), a, b, mass=3, epsilon=0.5
        ),
    ):
        found, expected = call(a, b), call(a.double(), b.double())
        torch.testing.assert_close(found.mass, expected.mass)
        torch.testing.assert_close(found.value, expected.value)
    batch = transport.sinkhorn(x, y, a.numpy(), b.tolist(), epsilon=0.5, reach=1.0)
    assert batch.mass > 1


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("epsilon", lambda x, s: transport.sinkhorn(x, x, epsilon=s)),
        ("epsilon", lambda x, s: transport.sinkhorn_divergence(x, x, epsilon=s)),
        ("reach", lambda x, s: transport.sinkhorn(x, x, epsilon=0.5, reach=s)),
        ("mass", lambda x, s: transport.partial_wasserstein(x, x, mass=s)),
        ("p", lambda x, s: transport.wasserstein(x, x, p=s)),
        ("p", lambda x, s: transport.sliced_wasserstein(x, x, p=s)),
        ("s", lambda x, s: RBF(s)(x, x)),
    ],
)
def test_settings_take_no_gradient(name, call):
    """A number that is given as a tensor with a graph would have lost its gradient in silence."""
    setting = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(ValueError, match=rf"`{name}` is a setting.*{name}\.detach\(\)"):
        call(torch.rand(3, 2), setting)
    call(torch.rand(3, 2), setting.detach())
