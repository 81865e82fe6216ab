"""Generators of torch on the CPU, and integer seeds; everything else is refused by name."""

import inspect

import numpy as np
import pytest
import torch

import monge
from monge import evaluation, maps, models, particles, priors, transport
from monge.config import Config
from monge.divergences import EnergyDistance
from monge.draws import permutation, standard_normal, truncated_normal
from monge.evaluation.pyramid import pyramid_patches
from monge.evaluation.samplers import draw, draw_codes, fit_flow, fit_mixture
from monge.labels import ClassPrior
from monge.models.masks import Mask, RandomBox
from monge.models.sampling import samples
from monge.training import Trainer

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X.roll(1, 1) + 0.5
CX, CY = torch.cdist(X, X), torch.cdist(Y, Y)
HALF = torch.full((2,), 0.5)
LABELS = torch.tensor([0, 0, 0, 1, 1, 1])


def semidiscrete():
    source = priors.Gaussian(3).sample
    return transport.solve_semidiscrete(source, X, generator=torch.Generator().manual_seed(0))


def per_label():
    source, seeded = priors.Gaussian(3).sample, torch.Generator().manual_seed(0)
    return transport.SemidiscretePerLabel.fit(source, X, LABELS, generator=seeded)


class Standing(torch.nn.Module):
    """A velocity of 0."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        return self.scale * x


def flow():
    return models.FlowMatching(Standing(), (3,))


def generator_model():
    return models.ImplicitGenerator(torch.nn.Linear(2, 3), priors.Gaussian(2), EnergyDistance())


DOORS = {
    "uniform_directions": lambda g: transport.uniform_directions(4, 3, generator=g),
    "orthogonal_directions": lambda g: transport.orthogonal_directions(4, 3, generator=g),
    "sobol_directions": lambda g: transport.sobol_directions(4, 3, generator=g),
    "great_circles": lambda g: transport.great_circles(4, 3, generator=g),
    "sliced_wasserstein": lambda g: transport.sliced_wasserstein(X, Y, generator=g),
    "sliced_wasserstein_estimate": lambda g: transport.sliced_wasserstein_estimate(
        X, Y, generator=g
    ),
    "spherical_sliced_wasserstein": lambda g: transport.spherical_sliced_wasserstein(
        torch.nn.functional.normalize(X), torch.nn.functional.normalize(Y), generator=g
    ),
    "max_sliced_wasserstein": lambda g: transport.max_sliced_wasserstein(X, Y, generator=g),
    "sliced_gromov_wasserstein": lambda g: transport.sliced_gromov_wasserstein(X, Y, generator=g),
    "sliced_barycenter": lambda g: transport.sliced_barycenter([X, Y], HALF, start=X, generator=g),
    "low_rank_sinkhorn": lambda g: transport.low_rank_sinkhorn(X, Y, rank=2, generator=g),
    "low_rank_gromov_wasserstein": lambda g: transport.low_rank_gromov_wasserstein(
        X, Y, rank=2, generator=g
    ),
    "solve_semidiscrete": lambda g: transport.solve_semidiscrete(
        priors.Gaussian(3).sample, X, generator=g
    ),
    "gromov_wasserstein": lambda g: transport.gromov_wasserstein(CX, CY, generator=g),
    "entropic_gromov_wasserstein": lambda g: transport.entropic_gromov_wasserstein(
        CX, CY, epsilon=1.0, generator=g
    ),
    "fused_gromov_wasserstein": lambda g: transport.fused_gromov_wasserstein(
        CX, CX, CY, generator=g
    ),
    "entropic_fused_gromov_wasserstein": lambda g: transport.entropic_fused_gromov_wasserstein(
        CX, CX, CY, epsilon=1.0, generator=g
    ),
    "partial_gromov_wasserstein": lambda g: transport.partial_gromov_wasserstein(
        CX, CY, mass=0.5, generator=g
    ),
    "unbalanced_gromov_wasserstein": lambda g: transport.unbalanced_gromov_wasserstein(
        CX, CY, epsilon=1.0, reach=5.0, generator=g
    ),
    "Linear.resample_": lambda g: transport.Linear(3).resample_(g),
    "Neural.resample_": lambda g: transport.Neural(3).resample_(g),
    "Independent": lambda g: transport.Independent()(X, Y, g),
    "Exact": lambda g: transport.Exact()(X, Y, g),
    "Sinkhorn": lambda g: transport.Sinkhorn().pairs(X, Y, g),
    "Semidiscrete": lambda g: transport.Semidiscrete(X, semidiscrete())(Y, None, g),
    "SemidiscretePlan.assign": lambda g: semidiscrete().assign(Y, g),
    "PerLabel": lambda g: transport.PerLabel(transport.Exact())(X, Y, g, labels1=LABELS),
    "SemidiscretePerLabel": lambda g: per_label()(X, None, g, labels0=LABELS),
    "SemidiscretePerLabel.fit": lambda g: transport.SemidiscretePerLabel.fit(
        priors.Gaussian(3).sample, X, LABELS, generator=g
    ),
    **{
        f"{prior} prior": lambda g, prior=prior: prior.sample(4, g)
        for prior in (
            priors.Gaussian(2),
            priors.Uniform(2),
            priors.Sphere(2),
            priors.Mixture(torch.zeros(1, 2), torch.eye(2)[None], torch.ones(1)),
            priors.Ring(),
            priors.Disk(),
            priors.SwissRoll(),
        )
    },
    "standard_normal": lambda g: standard_normal((4,), g),
    "truncated_normal": lambda g: truncated_normal((4,), g),
    "ClassPrior.draw": lambda g: ClassPrior([1.0, 1.0]).draw(4, g),
    "RandomBox": lambda g: RandomBox(8, 8)(2, g),
    "Mask": lambda g: Mask(torch.eye(2)[None])(2, g),
    "ImplicitGenerator.sample": lambda g: generator_model().sample(4, g),
    "samples": lambda g: list(samples(generator_model(), 4, g)),
    "draw": lambda g: list(draw(generator_model(), None, 4, g)),
    "FlowMatching.sample": lambda g: flow().sample(4, g),
    "FlowMatching.sampled": lambda g: list(flow().sampled(4, g)),
    "FlowMatching.transported": lambda g: flow().transported(4, g),
    "FlowMatching.log_prob": lambda g: flow().log_prob(X, g),
    "flow": lambda g: particles.flow(X, EnergyDistance(), Y, steps=1, generator=g),
    "kernel_distance": lambda g: evaluation.kernel_distance(X, Y, generator=g),
    "pyramid_distances": lambda g: evaluation.pyramid_distances(
        [torch.rand(8, 49)], [torch.rand(8, 49)], generator=g
    ),
    "pyramid_patches": lambda g: pyramid_patches(torch.rand(2, 1, 16, 16), 2, g),
}


class OnAGpu(torch.Generator):
    """What a generator of a GPU looks like where there is none."""

    @property
    def device(self):
        return torch.device("cuda:0")


WRONG = {
    "seed": (3, "torch.Generator().manual_seed(3)"),
    "boolean": (True, "got True"),
    "number": (1.5, "got 1.5"),
    "numpy": (np.random.default_rng(0), "got Generator(PCG64)"),
    "gpu": (OnAGpu(), "got one on cuda:0"),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_generator_is_taken(door):
    DOORS[door](torch.Generator().manual_seed(0))


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_generator_of_the_cpu_is_refused(door, wrong):
    value, said = WRONG[wrong]
    with pytest.raises(ValueError, match=r"^`generator` must be ") as refused:
        DOORS[door](value)
    assert said in str(refused.value)
    assert "torch.Generator().manual_seed(" in str(refused.value)


def takes_generator(function):
    return callable(function) and "generator" in inspect.signature(function).parameters


def test_every_public_name_is_in_the_table():
    """Functions that take a generator, and classes that have a method of their own that does."""
    missing = []
    for module in (transport, particles, evaluation, priors, models):
        names = getattr(module, "__all__", vars(module))
        for name in names:
            thing = getattr(module, name)
            if inspect.isfunction(thing) and thing.__module__.startswith("monge"):
                found = takes_generator(thing)
            elif inspect.isclass(thing) and thing.__module__.startswith("monge"):
                found = not inspect.isabstract(thing) and any(
                    takes_generator(inspect.unwrap(method))
                    for method in vars(thing).values()
                    if inspect.isfunction(method)
                )
            else:
                continue
            if found and not any(name in door for door in DOORS):
                missing.append(name)
    # a completion's codes are draws of the prior
    assert sorted(set(missing) - {"ConditionalWAE", "Model", "AutoEncoder"}) == []


def test_gromov_is_the_same_by_default_and_follows_a_generator():
    random = torch.Generator().manual_seed(1)
    cx, cy = (torch.cdist(z, z) for z in torch.rand(2, 8, 2, generator=random).double())
    before = torch.get_rng_state()
    first, again = (transport.gromov_wasserstein(cx, cy, starts=8) for _ in range(2))
    assert torch.equal(first.plan, again.plan)
    assert torch.equal(torch.get_rng_state(), before)
    same = transport.gromov_wasserstein(
        cx, cy, starts=8, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(first.plan, same.plan)


SEEDS = {
    "Config.check": lambda seed: Config.of("vae", seed=seed).check(),
    "Trainer": lambda seed: Trainer(generator_model(), seed=seed),
    "Draws": lambda seed: monge.Draws(seed, 0, 4),
    "permutation": lambda seed: permutation(seed, 0, 4),
    "Randkhorn": lambda seed: transport.Randkhorn(seed),
    "SlicedMap": lambda seed: maps.SlicedMap(2, seed=seed).fit(X, Y),
    "transfer_colours": lambda seed: maps.transfer_colours(
        np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8), seed=seed
    ),
    "fit_mixture": lambda seed: fit_mixture(X.float(), 1, seed=seed),
    "fit_flow": lambda seed: fit_flow(X.float(), 1, seed=seed),
    "draw_codes": lambda seed: draw_codes(generator_model(), X.float(), seed=seed),
}


@pytest.mark.parametrize("wrong", [1.5, True, None, 2**64, torch.Generator()])
@pytest.mark.parametrize("door", SEEDS)
def test_what_is_no_integer_is_no_seed(door, wrong):
    with pytest.raises(ValueError, match=r"^`seed` must be an integer"):
        SEEDS[door](wrong)


def test_a_seed_of_numpy_is_a_seed():
    x = X[:, :2]
    values = [
        transport.sinkhorn(x, Y[:, :2], epsilon=0.5, acceleration=transport.Randkhorn(seed)).value
        for seed in (3, np.int64(3))
    ]
    assert torch.equal(*values)
    assert type(monge.Draws(np.int64(3), 0, 4).seed) is int
    assert type(monge.Config(seed=np.int64(3)).check().seed) is int
