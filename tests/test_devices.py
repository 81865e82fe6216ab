"""Every public distance, divergence, cost and map is the same on every device.

`pytest -m gpu` compares a GPU with the CPU. Without a GPU the branches that an accelerator takes
are compared on the CPU: its tuning, torch's sorts, searches by blocks and, with TRITON_INTERPRET=1
(`make test-kernels`), the kernels in Triton. What they are compared with is the CPU's own path.
"""

import contextlib
import functools
import inspect
import sys

import pytest
import torch
from test_edges import COSTS, OTHERS
from zoo import DISTANCES, DIVERGENCES, Law, law, seeded, slices, tight, weighted

from monge import adversarial, costs, divergences, transport
from monge._core import tuning as tunings
from monge.divergences import MMD, SinkhornDivergence
from monge.gpu import launch
from monge.kernels import multiscale_imq
from monge.transport import neighbours, sorting

pytestmark = pytest.mark.kernels

RELATIVE = {torch.float32: 1e-5, torch.float64: 1e-11}
MAPS = {
    "monge_map": lambda x, y: y[transport.monge_map(x, y)],
    "quantile_map": lambda x, y: transport.quantile_map(x[:, 0], y[:, 0]),
    "gaussian_map": lambda x, y: x @ transport.gaussian_map(*moments(x), *moments(y))[0],
    "kantorovich_potential": lambda x, y: torch.cat(transport.kantorovich_potential(x, y)),
    "sliced_wasserstein_estimate": lambda x, y: (
        transport.sliced_wasserstein_estimate(x, y, directions=16, generator=seeded()).value
    ),
    "sinkhorn": lambda x, y: centred(
        transport.sinkhorn(x, y, epsilon=0.5, tolerance=tight(x) / 100).potentials[0]
    ),
    "sinkhorn's plan": lambda x, y: transport.sinkhorn(x, y, epsilon=0.5, tolerance=tight(x)).plan,
    "solve_semidiscrete": lambda x, y: y[
        transport.solve_semidiscrete(
            lambda n, random: torch.randn(n, 3, generator=random),
            y,
            tolerance=0.3,
            generator=seeded(),
        ).assign(x)
    ],
    "barycenter_1d": lambda x, y: transport.barycenter_1d([x[:, 0], y[:, 0]], (0.3, 0.7))[0],
    "free_support_barycenter": lambda x, y: (
        transport.free_support_barycenter([x, y], start=x[:6]).points
    ),
    "sinkhorn_barycenter": lambda x, y: (
        # one point, whose potentials do not depend on how far they have converged
        transport.sinkhorn_barycenter([x, y], start=x[:1], epsilon=0.5).points
    ),
    "sliced_barycenter": lambda x, y: (
        transport.sliced_barycenter([x, y], start=x[:6], directions=slices(x)).points
    ),
    "gaussian_barycenter": lambda x, y: transport.gaussian_barycenter(*both(x, y))[1],
    "gaussian_mixture_barycenter": lambda x, y: (
        transport.gaussian_mixture_barycenter(
            [(*both(x, y), torch.full((2,), 0.5).to(x))] * 2,
            start=(*both(y, x), torch.full((2,), 0.5).to(x)),
        ).covs
    ),
    "histogram_barycenter": lambda x, y: (
        transport.histogram_barycenter(
            torch.stack([x[:, 0].softmax(0), x[:, 1].softmax(0)]),
            torch.cdist(x, x).square(),
            epsilon=4.0,
            debiased=False,
        ).masses
    ),
    "grid_barycenter": lambda x, y: (
        transport.grid_barycenter(
            torch.stack([z[:16, 0].softmax(0).reshape(4, 4) for z in (x, y)]),
            epsilon=4.0,
            debiased=False,
        ).masses
    ),
    "to_pot": lambda x, y: transport.to_pot(transport.solve(x @ y.mT))[0],
    "from_pot": lambda x, y: as_of_pot(x @ y.mT).plan,
    "shortest_paths": lambda x, y: transport.shortest_paths(torch.cdist(x, x).round()),
    "nearest": lambda x, y: neighbours.nearest(x, y, 3)[0],
    "nearest_squared": neighbours.nearest_squared,
}
"""Functions whose result is not a scalar, or is not differentiated."""
DRAWN = ("uniform_directions", "orthogonal_directions", "sobol_directions", "great_circles")
"""On the CPU whatever the device: their callers move them."""
DRAWN = ("uniform_directions", "orthogonal_directions", "sobol_directions", "from_geomloss")
"""Without samples, or on the CPU whatever the device: their callers move them."""
MORE = {
    "sinkhorn-weighted": Law(
        lambda x, y, size: weighted(
            lambda *z, **o: transport.sinkhorn(*z, **o).value, epsilon=0.5, tolerance=tight(x)
        )(x, y, size)
    ),
    "mmd-scales": Law(lambda x, y, size: MMD(multiscale_imq(6.0))(x, y)),
    "sliced-weighted-1": Law(
        lambda x, y, size: weighted(transport.sliced_wasserstein, p=1, directions=slices(x))(
            x, y, size
        )
    ),
    "exact-weighted-1": Law(
        lambda x, y, size: transport.wasserstein(x, y, law(len(x)).to(x), law(len(y)).to(y), p=1)
    ),
}
"""Cases that the zoo does not have, and that kernels on a GPU know."""


def centred(f):
    """Potentials are defined up to a constant."""
    return f - f.mean()


def as_of_pot(cost):
    return transport.from_pot(*transport.to_pot(transport.solve(cost)), cost)


def moments(x):
    z = x - x.mean(0)
    return x.mean(0), z.mT @ z / len(x) + torch.eye(3).to(x)


def both(x, y):
    """The means and covariances of two Gaussians."""
    return tuple(torch.stack(z) for z in zip(moments(x), moments(y)))


def patched_everywhere(patch, function, replacement):
    """In every module of monge that has imported it by name."""
    for name, module in list(sys.modules.items()):
        if name.startswith("monge") and getattr(module, function.__name__, None) is function:
            patch.setattr(module, function.__name__, replacement)


@contextlib.contextmanager
def as_a_cpu():
    """Inside, tensors of the CPU take its own path, in Triton's interpreter too."""
    with pytest.MonkeyPatch.context() as patch:
        patched_everywhere(patch, launch.is_usable, lambda device: False)
        yield


@contextlib.contextmanager
def as_an_accelerator(device):
    """Inside, tensors of the CPU take the path of an accelerator's; elsewhere nothing changes."""
    with pytest.MonkeyPatch.context() as patch:
        if device == "cpu":
            patched_everywhere(patch, tunings.tuning, lambda device: tunings.ACCELERATOR)
            by_torch = sorting.Sort(sorting._torch_values_, sorting._torch_with_order)
            patched_everywhere(patch, sorting.choose_sort, lambda *tensors: by_torch)
            search, others = neighbours.choose_search, torch.device("meta")
            patched_everywhere(
                patch, search, lambda device, *args, **rest: search(others, *args, **rest)
            )
        yield


def pair(n, m, dtype):
    random = seeded(n)
    x, y = (torch.randn(k, 3, generator=random, dtype=torch.float64) for k in (n, m))
    return x.to(dtype), (1.3 * y + 0.4).to(dtype)


def computed(value, x, y):
    """A value and its gradients in both samples, on the CPU in float64."""
    torch.manual_seed(1)
    x, y = (z.detach().clone().requires_grad_() for z in (x, y))
    made = value(x, y)
    assert made.device == x.device
    gradients = torch.autograd.grad(made.sum(), (x, y), allow_unused=True)
    return [
        torch.zeros(()) if z is None else z.detach().cpu().double() for z in (made, *gradients)
    ]


def compare(value, device, x, y, relative, absolute=0.0):
    """Values and gradients of both paths, each to a share of its size."""
    with as_a_cpu():
        expected = computed(value, x, y)
    with as_an_accelerator(device):
        found = computed(value, x.to(device), y.to(device))
    for ours, theirs in zip(found, expected):
        size = float(theirs.abs().max())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=relative * size + absolute)


LAWS = DISTANCES | MORE


def sizes(name):
    return (17, 17) if "paired" in name else (17, 13)


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize("name", LAWS)
def test_a_distance_is_the_same_on_every_device(name, dtype, device):
    x, y = pair(*sizes(name), dtype)
    compare(lambda x, y: LAWS[name].value(x, y, 1.0), device, x, y, RELATIVE[dtype])


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_is_the_same_on_every_device(name, dtype, device):
    torch.manual_seed(0)
    divergence = DIVERGENCES[name].make().to(dtype)
    if isinstance(divergence, SinkhornDivergence) and dtype != torch.float64:
        divergence.tolerance = 1e-6  # what float32 can reach

    def value(x, y):
        return divergence.to(x.device)(x, y)

    compare(value, device, *pair(*sizes(name), dtype), RELATIVE[dtype])


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_the_same_on_every_device(name, device):
    x, y = pair(9, 9, torch.float64)
    compare(OTHERS[name], device, x, y, RELATIVE[torch.float64])


@pytest.mark.parametrize("name", COSTS)
def test_a_cost_is_the_same_on_every_device(name, device, monkeypatch):
    cost, shape = COSTS[name]
    # gradients of Sinkhorn's agree as far as its potentials have converged
    tightly = functools.partial(transport.sinkhorn_divergence, tolerance=1e-13)
    monkeypatch.setattr(costs, "sinkhorn_divergence", tightly)
    x, y = (torch.rand(*shape, generator=seeded(k), dtype=torch.float64) for k in (1, 2))
    compare(lambda x, y: cost.to(x.device)(x, y), device, x, y, RELATIVE[torch.float64])


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_the_same_on_every_device(name, dtype, device):
    x, y = pair(17, 17, dtype)
    torch.manual_seed(1)
    with as_a_cpu():
        expected = MAPS[name](x, y)
    torch.manual_seed(1)
    with as_an_accelerator(device):
        found = MAPS[name](x.to(device), y.to(device))
    assert found.device.type == device
    size = float(expected.abs().max())
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=RELATIVE[dtype] * size)


def public(module, kind):
    """The concrete public classes of a kind that a module defines."""
    return {
        name
        for name, one in vars(module).items()
        if inspect.isclass(one)
        and issubclass(one, kind)
        and one.__module__.startswith(module.__name__)
        and not (inspect.isabstract(one) or name.startswith("_"))
    }


def test_every_public_name_has_a_row():
    """So that a new function is compared as well."""
    rows = "".join(
        inspect.getsource(sys.modules[name]) for name in (__name__, "zoo", "test_edges")
    )
    functions = {
        name
        for name in transport.__all__
        if inspect.isfunction(getattr(transport, name)) and name not in DRAWN
    }
    called = {name for name in functions if f"{name}(" in rows or f"({name}" in rows}
    assert functions
    assert functions - called == set()
    made = {type(row.make()).__name__ for row in DIVERGENCES.values()}
    ours = public(divergences, divergences.Divergence) | public(adversarial, adversarial.Learned)
    assert ours
    assert ours - made == set()
    costed = public(costs, costs.Cost) | public(costs, costs.SetCost)
    assert costed
    assert costed - {type(cost).__name__ for cost, _ in COSTS.values()} == set()
