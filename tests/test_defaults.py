"""What a program has set changes nothing that monge computes: `torch.set_default_dtype` and
`torch.set_default_device`, autocast, and that no gradients are recorded.

The device meta stands in for a GPU: whatever is allocated on it by default has no numbers."""

import ast
import contextlib
import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector
from zoo import DIVERGENCES, pair

import monge
from monge import transport
from monge._core.defaults import float32_on_cpu
from monge.adversarial import Learned
from monge.config import Config, NetworkConfig, TrainingConfig
from monge.draws import stream
from monge.evaluation import (
    frechet_distance,
    kernel_distance,
    nearest_neighbour_test,
    network_test,
)
from monge.evaluation.extractors import random_network
from monge.evaluation.samplers import fit_flow
from monge.inference import fit_gaussian
from monge.maps import EntropicMap, ExactMap, LinearMap, SlicedMap
from monge.priors import Disk, Gaussian, Mixture, Ring, Sphere, SwissRoll, Uniform

SOURCES = sorted(Path(monge.__file__).parent.rglob("*.py"))
DRAWS = ("rand", "randn", "randint", "randperm")


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


ELSEWHERE = {
    "dtype": lambda: default_dtype(torch.float64),
    "device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
}


def test_every_draw_names_its_device_and_its_dtype():
    """A generator on the CPU does not serve another default device, and numbers of another dtype
    are other numbers."""
    left_out = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name, owner = node.func.attr, node.func.value
            if name in DRAWS and isinstance(owner, ast.Name) and owner.id == "torch":
                given = {keyword.arg for keyword in node.keywords}
                wanted = {"device", "dtype"} if name in ("rand", "randn") else {"device"}
                left_out += [] if wanted <= given else [f"{path.name}:{node.lineno}"]
    assert not left_out


def points(seed: int, n: int = 12) -> torch.Tensor:
    drawn = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    return torch.from_numpy(drawn)


X, Y = points(0), points(1)
LISTS: Any = [[0.0, 1.0], [2.0, 0.5]], [[1.0, 1.0]]
INTEGERS: Any = np.arange(6).reshape(3, 2), [[1, 2]]
NUMBER: dict = {"dtype": torch.float64, "device": "cpu"}
COST = torch.from_numpy(np.random.default_rng(2).random((12, 12)))
EYE = torch.from_numpy(np.eye(3))
MEANS = torch.from_numpy(np.zeros((2, 3)))


def seeded() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(0)


SLICER = transport.Linear(3, slices=5).to(X)
SLICES = {name: value.clone() for name, value in SLICER.state_dict().items()}


def generalized() -> torch.Tensor:
    SLICER.load_state_dict(SLICES)
    return transport.max_generalized_sliced_wasserstein(X, Y, SLICER, iterations=3).detach()


FUNCTIONS = {
    "wasserstein": lambda: transport.wasserstein(X, Y),
    "lists": lambda: transport.wasserstein(*LISTS),
    "integers": lambda: transport.wasserstein(*INTEGERS),
    "monge_map": lambda: transport.monge_map(X, Y),
    "solve": lambda: transport.solve(COST).plan,
    "line": lambda: transport.wasserstein_1d(X.T, Y.T),
    "sliced": lambda: transport.sliced_wasserstein(X, Y, generator=seeded()),
    "estimate": lambda: transport.sliced_wasserstein_estimate(X, Y, generator=seeded())[0],
    "max-sliced": lambda: transport.max_sliced_wasserstein(X, Y, generator=seeded())[0],
    "sinkhorn": lambda: transport.sinkhorn(X, Y, epsilon=1.0).plan,
    "randkhorn": lambda: (
        transport.sinkhorn(X, Y, epsilon=1.0, acceleration=transport.Randkhorn()).plan
    ),
    "batch": lambda: transport.sinkhorn_divergence(X.view(2, 6, 3), Y.view(2, 6, 3), epsilon=1.0),
    "low rank": lambda: transport.low_rank_sinkhorn(X, Y, rank=2, generator=seeded()).value,
    "gromov": lambda: transport.gromov_wasserstein(COST + COST.T, COST.T + COST).value,
    "sliced gromov": lambda: transport.sliced_gromov_wasserstein(X, Y, generator=seeded()),
    "generalized": lambda: generalized(),
    "sliced barycenter": lambda: (
        transport.sliced_barycenter([X, Y], start=X, generator=seeded()).points
    ),
    "random network": lambda: random_network((1, 8, 8))(
        X.abs().clamp(max=1)[:8, :1].expand(2, 1, 8, 8)
    ),
    "network": lambda: torch.as_tensor(network_test(X, Y).value, **NUMBER),
    "flow of codes": lambda: parameters_to_vector(fit_flow(X, steps=3).parameters()).detach(),
    "barycenter": lambda: transport.free_support_barycenter([X, Y], start=X).points,
    "uniform": lambda: transport.uniform_directions(4, 3, generator=seeded()),
    "orthogonal": lambda: transport.orthogonal_directions(4, 3, generator=seeded()),
    "sobol": lambda: transport.sobol_directions(4, 3, generator=seeded()),
    "frechet": lambda: torch.as_tensor(frechet_distance(X, Y), **NUMBER),
    "kernel": lambda: torch.as_tensor(kernel_distance(X, Y).value, **NUMBER),
    "nearest": lambda: torch.as_tensor(nearest_neighbour_test(X, Y).value, **NUMBER),
    **{
        prior.__name__: lambda prior=prior: prior(3).sample(4, seeded())
        for prior in (Gaussian, Uniform, Sphere)
    },
    **{
        prior.__name__: lambda prior=prior: prior().sample(4, seeded())
        for prior in (Ring, Disk, SwissRoll)
    },
    "mixture": lambda: Mixture(MEANS, EYE.expand(2, 3, 3), [0.5, 0.5]).sample(4, seeded()),
    **{
        kind.__name__: lambda kind=kind: kind().fit(X, Y).transform(X)
        for kind in (ExactMap, LinearMap, EntropicMap, SlicedMap)
    },
}


@pytest.mark.parametrize("default", ELSEWHERE)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_what_they_give_by_torchs_own_defaults(name, default):
    torch.manual_seed(0)
    expected = FUNCTIONS[name]()
    torch.manual_seed(0)
    with ELSEWHERE[default]():
        found = FUNCTIONS[name]()
    assert (found.device, found.dtype) == (expected.device, expected.dtype)
    # the engine of Sobol's sequence rounds its first point to the default dtype
    torch.testing.assert_close(found, expected, rtol=1e-6 if name == "sobol" else 0, atol=0)


@pytest.mark.parametrize("default", ELSEWHERE)
@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_and_their_inner_losses_do_as_well(name, default):
    x, y = pair()
    values = []
    for context in (contextlib.nullcontext, ELSEWHERE[default]):
        torch.manual_seed(0)
        divergence = DIVERGENCES[name].make()
        with context(), stream("defaults"):
            found = [divergence(x, y)]
            if isinstance(divergence, Learned):
                found.append(divergence.inner_loss(x, y))
        values.append(torch.stack([value.detach().cpu() for value in found]))
    assert torch.equal(*values)


@pytest.mark.parametrize("recipe", ["swae", "wae-gan", "flow-matching"])
def test_a_recipe_trains_the_same_weights_by_other_defaults(recipe, tmp_path):
    """And is loaded, evaluated, reported on and sampled."""
    config = dataclasses.replace(
        Config.of(recipe),
        network=NetworkConfig(hidden=(8,)),
        training=TrainingConfig(batch=20, steps=2),
    )
    table = np.random.default_rng(0).normal(size=(100, 3))
    found = []
    for name, context in {"plain": contextlib.nullcontext, **ELSEWHERE}.items():
        with context():
            run = monge.fit(config=config, data=table, out=tmp_path / name, quiet=True)
            figures = monge.Run(run.path, data=table).evaluate(n=10)["figures"]
            model: Any = monge.load(run.path)
            samples = monge.Run(run.path, data=table).sample(3, seeded())
            if name != "autocast":  # which is for networks
                assert torch.equal(model.sample(3, seeded()), samples)
            found.append((model.state_dict(), samples, figures))
    for weights, samples, figures in found[1:]:
        assert all(torch.equal(w, weights[key]) for key, w in found[0][0].items())
        assert torch.equal(samples, found[0][1])
        assert samples.dtype is torch.float32
        assert figures == found[0][2]


def test_a_training_in_half_precision_inside_autocast_is_that_outside(tmp_path):
    """Autocast keeps copies of weights until the outermost one ends; a step changes weights."""
    config = dataclasses.replace(
        Config.of("wae-gan"),
        network=NetworkConfig(hidden=(8,), critic=(8,)),
        training=TrainingConfig(batch=20, steps=3, precision="bf16"),
    )
    table = np.random.default_rng(0).normal(size=(60, 3))
    plain = monge.fit(config=config, data=table, out=tmp_path / "plain", quiet=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = monge.fit(config=config, data=table, out=tmp_path / "inside", quiet=True)
    expected = plain.model.state_dict()
    assert all(torch.equal(w, expected[key]) for key, w in found.model.state_dict().items())


@pytest.mark.parametrize("default", ELSEWHERE)
def test_samples_in_batches_leave_the_program_its_defaults(default, tmp_path):
    """Each batch is as by torch's own defaults, and the program has its own between two."""
    table = np.random.default_rng(0).normal(size=(60, 3))
    config = dataclasses.replace(Config.of("swae"), training=TrainingConfig(batch=20, steps=2))
    run = monge.fit(config=config, data=table, out=tmp_path / "run", quiet=True)
    expected = list(run.samples(5000, seeded()))
    assert len(expected) > 1
    with ELSEWHERE[default]():
        before = torch.empty(0)
        for batch, plain in zip(run.samples(5000, seeded()), expected, strict=True):
            between = torch.empty(0)
            assert (between.dtype, between.device) == (before.dtype, before.device)
            assert torch.equal(batch, plain)


def test_a_model_of_ones_own_keeps_the_defaults_of_its_program(tmp_path):
    class Shifted(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x.double()) + torch.zeros(1)  # of the default dtype

    with default_dtype(torch.float64):
        wae = monge.WAE(
            Shifted(3, 2),
            Shifted(2, 3),
            Gaussian(2),
            monge.MMD(monge.multiscale_imq(4.0)),
            cost=monge.SquaredL2(),
            weight=1.0,
        )
        table = np.random.default_rng(0).normal(size=(60, 3))
        config = Config(recipe="custom", training=TrainingConfig(batch=20, steps=2))
        run = monge.fit(wae, table, config, tmp_path / "run", quiet=True)
        assert run.sample(3, seeded()).dtype is torch.float64
        assert torch.get_default_dtype() is torch.float64


def test_a_mixture_of_tensors_with_a_graph_holds_none():
    means = torch.from_numpy(np.arange(6.0).reshape(2, 3)).requires_grad_()
    scale = means.exp().sum()  # covariances that are no leaves
    mixture = Mixture(means, EYE.expand(2, 3, 3) * scale, [0.5, 0.5])
    assert not mixture.sample(50, seeded()).requires_grad
    assert all(torch.isfinite(z).all() for z in fit_gaussian(mixture, "mass-covering"))


def test_the_last_thread_to_leave_restores_the_default_dtype():
    inside, left = threading.Event(), threading.Event()
    seen = []

    def second():
        with float32_on_cpu():
            inside.set()
            left.wait(10)
            seen.append(torch.get_default_dtype())

    with default_dtype(torch.float64):
        other = threading.Thread(target=second)
        with float32_on_cpu():
            other.start()
            inside.wait(10)
        left.set()
        other.join()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() is torch.float64
