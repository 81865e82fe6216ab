"""A critic of samples and data at chance for an epoch is said once, while training and after."""

import math

import pytest
import torch

import monge
from monge.adversarial import JensenShannon, Relativistic
from monge.config import Config, TrainingConfig
from monge.constraints import Constraint
from monge.costs import SquaredL2
from monge.divergences import EnergyDistance
from monge.models import WAE, Inner
from monge.networks import mlp
from monge.priors import Gaussian
from monge.show.sections import _curves
from monge.training.chance import ChanceWatch

LEVEL = 2 * math.log(2)


def constant():
    """A critic that says 0 of everything."""
    critic = mlp([3, 4, 1])
    for parameter in critic.parameters():
        torch.nn.init.zeros_(parameter)
    return critic


def wae(divergence):
    torch.manual_seed(0)
    model = WAE(
        mlp([3, 8, 2]), mlp([2, 8, 3]), Gaussian(2), EnergyDistance(), cost=SquaredL2(), weight=1.0
    )
    return model.sharpen(divergence, 1.0, inner=Inner(1e-12, 1))


def rows(values, per_epoch=4, name="samples inner"):
    return [
        {"step": i, "epoch": i / per_epoch, "seconds": 0.0, name: value}
        for i, value in enumerate(values)
    ]


CASES = {
    "a whole epoch": ([LEVEL] * 5, True),
    "within the tolerance": ([LEVEL - 0.009, LEVEL + 0.009] * 3, True),
    "less than an epoch": ([LEVEL] * 4, False),
    "interrupted": ([LEVEL] * 3 + [1.2] + [LEVEL] * 4, False),
    "late": ([1.0] * 9 + [LEVEL] * 5, True),
    "beside it": ([LEVEL + 0.011] * 12, False),
    "not a number": ([math.nan] * 12, False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_has_to_stay_for_an_epoch(case):
    values, said = CASES[case]
    watch = ChanceWatch(wae(JensenShannon(constant())))
    told = [watch.follow(row) for row in rows(values)]
    assert sum(told) == said  # once at most
    assert (watch.remark is not None) == said
    # also of a run that goes on
    again = ChanceWatch(wae(JensenShannon(constant())), rows(values))
    assert again.remark == watch.remark
    if watch.remark is not None:
        assert "`samples inner` stayed within 0.01 of 1.386" in watch.remark
        assert "--sharpen-lr" in watch.remark


def test_each_critic_has_its_own_level_and_others_none():
    pairing, half = Relativistic(constant(), Constraint()), LEVEL / 2
    assert ChanceWatch(wae(pairing), rows([half] * 5)).remark is not None
    assert ChanceWatch(wae(pairing), rows([LEVEL] * 5)).remark is None
    assert ChanceWatch(wae(EnergyDistance()), rows([LEVEL] * 9)).remark is None
    # codes that match their prior leave their critic at chance
    codes = JensenShannon(mlp([2, 4, 1]))
    alone = WAE(mlp([3, 8, 2]), mlp([2, 8, 3]), Gaussian(2), codes, cost=SquaredL2(), weight=1.0)
    assert ChanceWatch(alone, rows([LEVEL] * 9, name="inner")).remark is None


@pytest.mark.parametrize("quiet", [False, True])
def test_training_and_the_report_say_so(tmp_path, capsys, quiet):
    data = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).numpy()
    training = TrainingConfig(batch=10, steps=20, log_every=1)
    config = Config(recipe="custom", training=training)
    run = monge.fit(
        wae(JensenShannon(constant())), data, config, out=tmp_path / "run", quiet=quiet
    )
    printed = capsys.readouterr().out
    assert printed.count("its value at chance") == (not quiet)
    told = [panel.text for panel in _curves(run).panels if panel.name == "samples inner"]
    assert "its value at chance" in told[0]
