"""A second matching of samples and data, for every auto-encoder."""

import itertools
import typing

import pytest
import torch
from torch import nn
from zoo import AUTOENCODERS, CONDITIONAL
from zoo import model as built

import monge
from monge.adversarial import JensenShannon, MatrixSpectralNorm
from monge.config import Config, TrainingConfig, override
from monge.costs import SquaredL2
from monge.divergences import EnergyDistance, SlicedWasserstein
from monge.draws import Draws
from monge.models import VAE, WAE, Inner, matchings
from monge.models.base import SAMPLES, named_pairs, pairs
from monge.networks import NormalEncoder, Standardise, mlp
from monge.priors import Gaussian
from monge.recipes.options import SharpenOptions
from monge.training import Trainer
from monge.training.progress import Display
from monge.training.schedule import last_begin

HINT = typing.get_type_hints(SharpenOptions)["sharpen"]
DIVERGENCES = typing.get_args(typing.get_args(HINT)[0])


def wae(dim: int = 2) -> WAE:
    torch.manual_seed(0)
    return WAE(
        mlp([3, 8, dim]),
        mlp([dim, 8, 3]),
        Gaussian(dim),
        EnergyDistance(),
        cost=SquaredL2(),
        weight=1.0,
    ).double()


def data(n: int = 64) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1)).double()


def test_the_pair_is_decoded_draws_of_the_prior_and_the_data():
    model, x, draws = wae().sharpen(SlicedWasserstein(16), 2.0), data(), Draws(0, 0, 64)
    named = pairs(model(x, draws))
    target = draws.rows("prior", model.prior.sample).double()
    samples, real = named[SAMPLES]
    torch.testing.assert_close(samples, model.decode(target))
    assert real is x
    torch.testing.assert_close(named["divergence"][1], target)
    assert [one.name for one in matchings(model)] == ["divergence", "samples"]


def test_the_gradient_is_that_of_the_weighted_sum():
    """By hand, with the draws of the step."""
    model = wae().sharpen(EnergyDistance(), 3.0)
    expected = wae()
    x, draws = data(), Draws(0, 0, 64, foreign=False)
    made = expected(x, draws)
    assert isinstance(made.pair, tuple)
    target = made.pair[1]
    loss = sum(made.terms.values()) + EnergyDistance()(*made.pair)
    (loss + 3 * EnergyDistance()(expected.decode(target), x)).backward()
    trainer = Trainer(model, TrainingConfig(lr=1e-9), foreign=False)
    terms = trainer.step([x])
    assert set(terms) == {"reconstruction", "divergence", "samples", "loss"}
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_no_samples_are_drawn_before_their_matching_begins():
    model = wae().sharpen(
        JensenShannon(mlp([3, 8, 1]).double()), 1.0, schedule=lambda done: float(done >= 0.5)
    )
    calls = []
    model.decoder.register_forward_hook(lambda *_: calls.append(1))
    trainer = Trainer(model, TrainingConfig(), foreign=False)
    before = [p.clone() for p in model.sharpening.parameters()]
    assert set(trainer.step([data()], done=0.0)) == {"reconstruction", "divergence", "loss"}
    assert len(calls) == 1
    for p, old in zip(model.sharpening.parameters(), before, strict=True):
        assert torch.equal(p, old)
    assert {"samples", "samples inner"} <= set(trainer.step([data()], done=0.5))
    assert len(calls) == 3


def test_samples_that_are_compared_in_every_second_step_count_twice():
    often, seldom = (wae().sharpen(EnergyDistance(), 3.0 / k, every=k) for k in (1, 2))
    seldom.load_state_dict(often.state_dict())
    trainers = [
        Trainer(model, TrainingConfig(lr=1e-9), foreign=False) for model in (often, seldom)
    ]
    first, second = ([trainer.step([data()]) for trainer in trainers] for _ in range(2))
    assert "samples" in first[0]
    assert "samples" not in first[1]
    assert "samples" in second[1]
    for ours, theirs in zip(often.parameters(), seldom.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_a_vae_without_a_divergence_has_the_one_matching():
    torch.manual_seed(0)
    model = VAE(
        NormalEncoder(mlp([3, 8, 4])), mlp([2, 8, 3]), Gaussian(2), likelihood=SquaredL2()
    ).double()
    assert named_pairs(model(data(), Draws(0, 0, 64))) == {}
    model.sharpen(EnergyDistance(), 1.0)
    assert "samples" in Trainer(model, TrainingConfig(), foreign=False).step([data()])


@pytest.mark.parametrize("critic", [False, True])
def test_micro_batches_have_the_gradient_of_the_whole(critic):
    x, grads = data(12), []
    for size in (None, 5):
        torch.manual_seed(3)
        divergence = JensenShannon(mlp([3, 8, 1]).double()) if critic else EnergyDistance()
        model = wae().sharpen(divergence, 2.0, inner=Inner(1e-2, 1))
        trainer = Trainer(model, TrainingConfig(micro_batch=size, lr=1e-9), foreign=False)
        trainer.step([x])
        grads.append([p.grad for p in trainer.parameters])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_it_makes_the_samples_of_a_blurred_model_those_of_the_data():
    """Two points on a line, a decoder of one code: a squared cost alone leaves samples between."""
    torch.manual_seed(0)
    x = torch.tensor([[-1.0], [1.0]]).repeat(128, 1)

    def between(sharp: bool) -> float:
        torch.manual_seed(0)
        model = WAE(
            mlp([1, 16, 1]),
            mlp([1, 16, 1]),
            Gaussian(1),
            EnergyDistance(),
            cost=SquaredL2(),
            weight=1.0,
        )
        if sharp:
            model.sharpen(EnergyDistance(), 10.0)
        trainer = Trainer(model, TrainingConfig(lr=1e-2), foreign=False)
        for _ in range(400):
            trainer.step([x])
        y = model.sample(2000, torch.Generator().manual_seed(0))
        return float((y.abs() < 0.8).float().mean())

    blurred, sharpened = between(False), between(True)
    assert sharpened < 0.5 * blurred


@pytest.mark.parametrize(
    ("recipe", "divergence"),
    [
        *itertools.product(["wae-mmd"], DIVERGENCES),
        *[(name, "energy") for name in (*AUTOENCODERS, *CONDITIONAL) if name != "wae-mmd"],
    ],
)
def test_every_auto_encoder_takes_every_divergence(recipe, divergence):
    model = built(recipe, sharpen=divergence).train()
    x = torch.rand(8, 1, 8, 8)
    terms = Trainer(model, TrainingConfig(), foreign=False).step([x], done=0.9)
    assert torch.isfinite(terms["samples"])


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_clouds_are_compared_by_critics_alone(divergence):
    """Their points have no order, and PointNet sees none."""
    cloud = {"kind": "cloud", "shape": (16, 3), "sharpen": divergence}
    if divergence in ("sliced", "mmd", "energy", "sinkhorn"):
        with pytest.raises(ValueError, match=r"`sharpen` .* compares elements"):
            built("pointcloud-wae", **cloud)
        return
    model = built("pointcloud-wae", **cloud).train()
    terms = Trainer(model, TrainingConfig(), foreign=False).step([torch.rand(8, 16, 3)])
    assert torch.isfinite(terms["samples"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sharpen": "blur"}, "`sharpen` must be one of"),
        ({"sharpen_weight": 2.0}, "`sharpen_weight` must be left out without --sharpen"),
        ({"sharpen_every": 2}, "`sharpen_every` must be left out without --sharpen"),
        ({"sharpen": "mmd", "sharpen_every": 0}, "`sharpen_every` must be at least 1"),
        ({"sharpen_lr": 1e-3}, "`sharpen_lr` must be left out without --sharpen"),
        ({"sharpen": "sliced", "sharpen_lr": 1e-3}, "`sharpen_lr` must be left out for --sharpen"),
        ({"sharpen": "mmd", "sharpen_steps": 3}, "which has no critic"),
        ({"sharpen": "mmd", "sharpen_weight": -1.0}, "`sharpen_weight` must be positive"),
        ({"sharpen": "mmd", "sharpen_from": 1.0}, r"`sharpen_from` must be in \[0, 1\)"),
        ({"sharpen": "mmd", "sharpen_steps": 0}, "`sharpen_steps` must be"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SharpenOptions(**options).check()


def test_a_run_is_sharpened_and_rebuilt(tmp_path):
    config = override(Config.of("wae-mmd"), "sharpen", "jensen-shannon")
    for name, value in {"sharpen_from": 0.25, "training.ema": 0.9, "threads": 1}.items():
        config = override(config, name, value)

    config = override(config, "training.steps", 8)
    whole = monge.fit("wae-mmd", "digits", config, tmp_path / "run", quiet=True)
    assert '"samples inner"' in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8")
    rebuilt = monge.load(tmp_path / "run")
    assert rebuilt.second.weight > 0
    for name, value in whole.model.state_dict().items():
        assert torch.equal(rebuilt.state_dict()[name], value)
    assert isinstance(rebuilt.sharpening.constraint, MatrixSpectralNorm)


def test_a_critic_of_images_may_see_their_details(tmp_path):
    config = override(Config.of("alpha-gan"), "data.name", "digits")
    for name, value in {"training.steps": 4, "clusters": 2, "threads": 1}.items():
        config = override(config, name, value)
    for details, channels in ((4.0, 2), (0.0, 1)):
        config = override(config, "network.details", details)
        run = monge.fit(config=config, out=tmp_path / str(channels), quiet=True)
        layers = run.model.modules()
        inputs = {one.in_channels for one in layers if isinstance(one, nn.Conv2d)}
        assert (2 in inputs) == (channels == 2)


def test_the_columns_of_a_table_are_compared_in_standard_units():
    """A column in thousands weighs as much as one in thousandths."""
    model = built("wae-mmd", kind="vector", shape=(2,), sharpen="sliced")
    deviation = torch.tensor([1e3, 1e-3])
    model.transform = Standardise(torch.zeros(2), deviation)
    x = deviation * torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    seen, real = pairs(model(x, Draws(0, 0, 16)))[SAMPLES]
    assert seen.shape == real.shape
    torch.testing.assert_close(real, x / deviation)


def test_a_matching_that_begins_after_the_last_step_is_refused(tmp_path):
    config = override(Config.of("wae-mmd"), "sharpen", "energy")
    for name, value in {"sharpen_from": 0.99, "training.steps": 10}.items():
        config = override(config, name, value)
    with pytest.raises(ValueError, match="'samples' would begin after the last of 10 steps"):
        monge.fit("wae-mmd", "digits", config, tmp_path / "run", quiet=True)


def test_the_time_left_is_a_bound_until_the_last_matching_begins(monkeypatch, capsys):
    """Ten steps of a second each, then ten of three."""
    model = wae().sharpen(EnergyDistance(), 1.0, schedule=lambda done: float(done >= 0.5))
    assert last_begin(wae(), 20) == 0
    assert last_begin(model, 20) == 10
    clock = 0.0
    monkeypatch.setattr("monge.training.progress.time.monotonic", lambda: clock)
    monkeypatch.setattr("monge.training.progress.PLAIN_SECONDS", 0.0)
    left = {}
    with Display(0, 20, 5, slower=last_begin(model, 20)) as display:
        for step in range(1, 21):
            clock += 1.0 if step <= 10 else 3.0
            display.update(step, 1.0, {})
            left[step] = capsys.readouterr().out.split("left ")[1].split("  ")[0]
    assert left[5] == "over 0:15"
    assert left[10] == "over 0:10"
    assert (left[11], left[15], left[20]) == ("0:27", "0:15", "0:00")
