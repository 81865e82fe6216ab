"""Settings that cannot be are refused where they are given, by the argument's name."""

import math

import pytest
import torch

from monge import costs, kernels
from monge.adversarial import JensenShannon
from monge.config import Config, DataConfig, NetworkConfig, TrainingConfig
from monge.constraints import GradientPenalty
from monge.divergences import MMD
from monge.kernels import IMQ
from monge.labels import ClassPrior
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


@pytest.mark.parametrize("memory", [-1, 1.5, math.nan, "5", True, None])
def test_the_memory_of_anderson_is_a_count(memory):
    with pytest.raises(ValueError, match="`memory`"):
        Anderson(memory)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "a"])
def test_constant_kernels(value):
    with pytest.raises(ValueError, match="`value`"):
        kernels.Constant(value)


@pytest.mark.parametrize("combined", [kernels.Sum, kernels.Product])
@pytest.mark.parametrize("parts", [[], [1.0], ["a"]])
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
