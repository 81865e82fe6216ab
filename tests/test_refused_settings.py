"""Settings that cannot be are refused where they are given, by the argument's name."""

import dataclasses
import math
import typing

import numpy as np
import pytest
import torch

import monge
from monge import costs, kernels, networks
from monge.adversarial import JensenShannon
from monge.config import Config, DataConfig, NetworkConfig, TrainingConfig
from monge.constraints import GradientPenalty
from monge.divergences import MMD, EnergyDistance
from monge.kernels import IMQ
from monge.labels import ClassPrior
from monge.models import FlowMatching, ImplicitGenerator, Mask, RandomBox, mask
from monge.priors import Gaussian
from monge.recipes import RECIPES, find
from monge.transport import Anderson, Sinkhorn

NO_FLAGS = ["a", 1, math.nan, None, torch.ones(2)]
CONFIGURED = {
    DataConfig: {
        "size": [0, -1, 16.5, math.nan, math.inf, True, "8", [8]],
        "crop": [0, 2.0],
        "points": [-3, "many"],
        "jitter": [-0.1, math.nan, math.inf, "a", None],
        "name": [0, None, ["digits"]],
        "dir": [1, True],
        "cache": [0.5],
        "turn": ["yes", 1],
        "classes": ["cat", (1,), None],
        "channels": ["blue", 1],
    },
    NetworkConfig: {
        "filters": [(), (0,), (1.5,), "32", 32, (math.nan,)],
        "details": [-1.0, math.nan, "a"],
        "published": [1],
    },
    TrainingConfig: {
        "batch": [0, 1, 2.5, math.nan, "100", None],
        "lr": [0.0, -1.0, math.nan, math.inf, "a", True],
        "warmup": [-1, 0.5, "a"],
        "betas": [(0.5,), (0.5, 1.0), 0.5, ("a", "b"), (math.nan, 0.5)],
        "ema": [1.0, math.nan, "a"],
        "shard": ["no"],
        "schedule": ["linear", 1, []],
        "inner_first": [(1,), (-1, 2), (0.5, 1)],
    },
    Config: {
        "latent": [0, -1, 1.5, math.nan, "8"],
        "seed": [0.5, "a", None],
        "prior_scale": [0.0, math.nan, "a"],
        "threads": [0, 1.5, "two"],
        "data": [None, 0],
        "options": [0, "a", {}],
        "device": [0, "gpu"],
    },
}


@pytest.mark.parametrize(
    ("record", "name", "value"),
    [
        (record, name, value)
        for record, fields in CONFIGURED.items()
        for name, values in fields.items()
        for value in values
    ],
)
def test_settings_of_a_run(record, name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        record(**{name: value}).check()


REAL = sorted(
    {
        (row.options, field.name)
        for row in RECIPES.values()
        for field in dataclasses.fields(row.options)
        if float in (field.type, *typing.get_args(field.type))
        and field.name not in ("sharpen_lr", "sharpen_from", "label_dropout")
    },
    key=str,
)


@pytest.mark.parametrize(("record", "name"), REAL, ids=lambda one: getattr(one, "__name__", one))
@pytest.mark.parametrize("value", [1e10, 1e30, 1e308, 1e-30])
def test_strengths_beyond_float32_are_refused_by_the_name_of_their_option(record, name, value):
    several = name == "temperatures"
    with pytest.raises(ValueError, match=f"`{name}` must be .*(from|in|left out)"):
        record(**{name: (0.1, value) if several else value}).check()


@pytest.mark.parametrize(
    ("recipe", "name", "value"),
    [
        ("wae-gan", "penalty", "strong"),
        ("wae-mmd", "weight", [1.0]),
        ("vae", "beta", 1j),
        ("flow-matching", "ode_steps", 2.5),
        ("drifting", "temperatures", 1.0),
        ("conditional-wae", "known", 3),
    ],
)
def test_options_are_of_their_types(recipe, name, value):
    options = find(recipe).options(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must be a"):
        Config(recipe=recipe, options=options).check()


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("wae-mmd", {"weight": 1e9}),
        ("wae-mmd", {"scale": 1e9}),
        ("wae-mmd", {"scale": 1e-9}),
        ("wae-mmd", {"sigma": 1e9}),
        ("wae-mmd", {"noise": 1e9}),
        ("wae-mmd", {"prior_scale": 1e9}),
        ("wae-mmd", {"prior_scale": 1e-9}),
        ("wae-gan", {"penalty": 1e9}),
        ("wae-gan", {"prior_scale": 1e9, "penalty": 1.0}),
        ("sinkhorn-ae", {"epsilon": 1e6}),
        ("sinkhorn-ae", {"epsilon": 1e-9}),
        ("vae", {"beta": 1e9}),
        ("vae", {"sigma": 1e9}),
        ("vae", {"sigma": 1e-9}),
        ("wae-mmd", {"sharpen": "relativistic", "sharpen_weight": 1e9}),
        ("flow-matching", {"sigma": 1e9}),
        ("drifting", {"rate": 1e9}),
    ],
    ids=str,
)
def test_strengths_at_their_bounds_are_trained_with(recipe, settings, tmp_path):
    images = np.random.default_rng(0).random((60, 1, 8, 8)).astype(np.float32)
    config = Config.of(recipe, **settings, **{"training.steps": 3, "training.batch": 20})
    run = monge.fit(recipe, images, config, tmp_path / "run", quiet=True)
    assert all(bool(torch.isfinite(weights).all()) for weights in run.model.state_dict().values())


@pytest.mark.parametrize("size", [0, -1, 16.5])
def test_data_are_checked_before_they_are_read(size):
    with pytest.raises(ValueError, match="`size` must be"):
        DataConfig(size=size)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda flag: MMD(IMQ(1.0), unbiased=flag), "unbiased"),
        (lambda flag: MMD(IMQ(1.0), paired=flag), "paired"),
        (lambda flag: GradientPenalty(1.0, one_sided=flag), "one_sided"),
        (lambda flag: JensenShannon(torch.nn.Linear(2, 1), saturating=flag), "saturating"),
        (lambda flag: Sinkhorn(0.1, absolute=flag), "absolute"),
        (lambda flag: costs.GaussianLikelihood(learned=flag), "learned"),
    ],
)
@pytest.mark.parametrize("flag", NO_FLAGS, ids=str)
def test_flags_are_true_or_false(make, name, flag):
    with pytest.raises(ValueError, match=f"`{name}` must be a bool"):
        make(flag)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda v: networks.mlp(v), "sizes"),
        (lambda v: networks.mlp([3, v, 2]), "sizes"),
        (lambda v: networks.VectorVelocity(v, [8]), "dim"),
        (lambda v: networks.VectorVelocity(2, [v]), "hidden"),
        (lambda v: networks.CloudVelocity(3, v), "filters"),
        (lambda v: networks.PointNet(v, [8]), "dim"),
        (lambda v: networks.PointNet(3, v), "filters"),
        (lambda v: networks.conv_encoder((1, 8, 8), v, [4]), "outputs"),
        (lambda v: networks.conv_encoder(v, 2, [4]), "shape"),
        (lambda v: networks.conv_decoder((1, 8, 8), 2, v), "filters"),
        (lambda v: networks.conv_critic((1, 8), v), "shape"),
        (lambda v: networks.ImageVelocity((1, 8, 8), v), "filters"),
        (lambda v: networks.pointnet_decoder((8, 3), v, [8]), "inputs"),
        (lambda v: networks.paper_critic(2, v), "hidden"),
        (lambda v: networks.BatchNorm(v), "channels"),
        (lambda v: networks.Clusters(v, (2,)), "count"),
        (lambda v: RandomBox(v, 8), "height"),
        (lambda v: Mask(v), "known"),
        (lambda v: mask(v, (1, 8, 8)), "known"),
        (lambda v: mask("top", v), "shape"),
    ],
)
@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, True, None, [], [0], (True, 2), 10**400])
def test_sizes_of_networks_and_masks(make, name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        make(value)


def test_lists_of_sizes_may_be_arrays():
    made = networks.mlp(np.array([3, 4, 2]))
    assert [tuple(p.shape) for p in made.parameters()] == [(4, 3), (4,), (2, 4), (2,)]


@pytest.mark.parametrize("value", [0, False, "a", [1], np.ones(2), torch.ones(2)], ids=str)
def test_parts_of_models_that_are_none(value):
    """What is false in Python is not taken for a part that was left out."""
    velocity = networks.VectorVelocity(3, [8])
    for name in ("path", "coupling", "solver"):
        with pytest.raises(ValueError, match=f"`{name}` must be a"):
            FlowMatching(velocity, (3,), **{name: value})
    with pytest.raises(ValueError, match="`transform` must be a Module"):
        ImplicitGenerator(networks.mlp([2, 3]), Gaussian(2), EnergyDistance(), transform=value)


@pytest.mark.parametrize("value", [True, "1", None, -1.0, [-1.0], math.nan, 1j, 10**400])
def test_the_deviation_of_a_decoder(value):
    with pytest.raises(ValueError, match="`sigma`"):
        networks.GaussianDecoder(networks.mlp([2, 3]), value)


@pytest.mark.parametrize("memory", [-1, 1.5, math.nan, "5", True, None])
def test_the_memory_of_anderson_is_a_count(memory):
    with pytest.raises(ValueError, match="`memory`"):
        Anderson(memory)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "a"])
def test_constant_kernels(value):
    with pytest.raises(ValueError, match="`value`"):
        kernels.Constant(value)


@pytest.mark.parametrize("combined", [kernels.Sum, kernels.Product])
@pytest.mark.parametrize("parts", [[], [1.0], ["a"], 1.0, None, torch.tensor(2.0), np.array(2.0)])
def test_combined_kernels_are_of_kernels(combined, parts):
    with pytest.raises(ValueError, match="`kernels`"):
        combined(parts)


@pytest.mark.parametrize("shape", [(2,), (6, 3), (1, 3, 1), (3, 1)])
def test_a_scale_is_shaped_like_a_sample(shape):
    """Not like the batch, whose samples it would measure in different units."""
    cost = costs.Scaled(costs.SquaredL2(), torch.ones(shape))
    with pytest.raises(ValueError, match=r"`scale` of shape .* is not that of a sample of `x`"):
        cost(torch.zeros(6, 3), torch.ones(6, 3))
    images = torch.rand(4, 2, 3, 3)
    by_channel = costs.Scaled(costs.SquaredL2(), torch.tensor([1.0, 2.0])[:, None, None])
    assert by_channel(images, 0 * images).shape == (4,)
    with pytest.raises(ValueError, match="`scale` must hold a number"):
        costs.Scaled(costs.SquaredL2(), torch.ones(0))
    with pytest.raises(ValueError, match="`cost` must be a Module"):
        costs.Scaled(1, torch.ones(3))


def test_counts_of_classes_whose_sum_is_beyond_float64():
    prior = ClassPrior([1e308, 1e308, 0.0])
    assert prior.shares.tolist() == [0.5, 0.5, 0.0]
    drawn = prior.draw(1000, torch.Generator().manual_seed(0)).bincount(minlength=3)
    assert drawn[2] == 0
    assert abs(int(drawn[0]) - 500) < 80
