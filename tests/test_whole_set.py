"""Flows whose noise is paired with the whole training set: the plan, its run, what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch
import zoo

import monge
from monge.config import Config, NetworkConfig, override
from monge.data import Source
from monge.draws import Draws, generator
from monge.models import flow_coupling
from monge.models.flow_coupling import WholeSet, fitted
from monge.runs import Run
from monge.training import whole_set


def points(n=120, seed=0):
    """Three far blobs of the plane with their labels, in shares of ½, ¼ and ¼."""
    labels = torch.arange(n) % 4 % 3
    centres = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    return centres[labels] + 0.3 * torch.randn(n, 2, generator=generator(seed)), labels


def source(seed=0):
    x, labels = points(seed=seed)
    return Source("blobs", "vector", x, x[:40] + 0, labels, labels[:40], ("a", "b", "c"))


def config(**settings):
    asked = Config.of("flow-matching", coupling="semidiscrete", ode_steps=2)
    asked = dataclasses.replace(asked, network=NetworkConfig(hidden=(16,)))
    for name, value in {"training.batch": 40, "training.steps": 6, **settings}.items():
        asked = override(asked, name, value)
    return asked


def trained(out, **settings):
    return monge.fit("flow-matching", source(), config(**settings), out, resume=True, quiet=True)


@pytest.mark.parametrize("labelled", [False, True])
def test_pairs_keep_both_marginals(labelled):
    """Each sample is used equally often up to the error of the plan, within its label; noise is
    used as it is drawn."""
    x, labels = points()
    given = labels if labelled else None
    classes = 3 if labelled else 0
    flow = zoo.model("flow-matching", "vector", (2,), classes, coupling="semidiscrete")
    error = flow.coupling.set(x, given, fitted(x, given, seed=0))
    assert 0 < error < 0.25
    dealt = labels[torch.arange(6000) % 120]
    x0, x1, condition = flow.pairs(
        torch.zeros(6000, 2), Draws(0, 0, 6000), dealt if labelled else None
    )
    assert torch.equal(x0, Draws(0, 0, 6000).normal("source", x0))
    index = torch.cdist(x1, x).argmin(1)
    torch.testing.assert_close(x[index], x1)
    shares = index.bincount(minlength=120) / 6000
    assert (shares - 1 / 120).abs().sum() < 0.35
    if labelled:
        assert torch.equal(labels[index], dealt)
        assert condition[0].shape == (6000, 3)
    else:
        # nearer than pairs at random, by far
        assert (x1 - x0).square().sum(1).mean() < 0.8 * (x1 - x0.roll(1, 0)).square().sum(1).mean()


@pytest.mark.parametrize("condition", [None, "labels"])
def test_a_run_keeps_its_plan_and_resumes_with_the_same_bits(condition, tmp_path):
    whole = trained(tmp_path / "whole", condition=condition)
    trained(tmp_path / "run", condition=condition, **{"training.steps": 3})
    kept = (tmp_path / "run" / whole_set.NAME).read_bytes()
    resumed = trained(tmp_path / "run", condition=condition)
    assert resumed.provenance["weights"] == whole.provenance["weights"]
    assert (tmp_path / "run" / whole_set.NAME).read_bytes() == kept
    drawn = Run(resumed.path).sample(4, generator(0))
    torch.testing.assert_close(drawn, whole.sample(4, generator(0)))


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_plan_that_is_lost_is_fitted_again_with_the_same_bits(content, tmp_path):
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "run", **{"training.steps": 3})
    (tmp_path / "run" / whole_set.NAME).write_bytes(content)
    assert trained(tmp_path / "run").provenance["weights"] == whole.provenance["weights"]


def test_the_error_of_the_plan_is_said(tmp_path, capsys):
    monge.fit("flow-matching", source(), config(), tmp_path / "run")
    out, err = capsys.readouterr()
    assert "coupling: a plan, 120 samples, marginal error 0." in out + err


def test_other_data_have_another_plan(tmp_path):
    first = trained(tmp_path / "run", **{"training.steps": 3})
    kept = (first.path / whole_set.NAME).read_bytes()
    monge.fit(
        "flow-matching",
        source(seed=1),
        config(),
        first.path,
        resume=True,
        data_changed=True,
        quiet=True,
    )
    assert (first.path / whole_set.NAME).read_bytes() != kept


def test_what_a_whole_set_cannot_do_is_refused(tmp_path, monkeypatch):
    x, labels = points()
    with pytest.raises(ValueError, match=r"`coupling` WholeSet\(\) has not been fitted"):
        WholeSet()(x)
    with pytest.raises(ValueError, match="`stored` has no plan for the label 1"):
        WholeSet().set(x, labels, fitted(x[labels == 0], None, 0))
    with pytest.raises(ValueError, match="leave out `patience`, which validates on other"):
        trained(tmp_path / "run", **{"training.patience": 2})
    np.save(tmp_path / "clouds.npy", torch.randn(60, 16, 3).numpy())
    turned = override(config(), "data.turn", True)
    with pytest.raises(ValueError, match="leave out `turn` or `jitter`, which changes samples"):
        monge.fit("flow-matching", tmp_path / "clouds.npy", turned, tmp_path / "run", quiet=True)
    monkeypatch.setattr(flow_coupling, "memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"`coupling` semidiscrete needs about .* use exact or"):
        trained(tmp_path / "run")
    assert not (tmp_path / "run").exists()
