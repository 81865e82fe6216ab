"""Options of training beside the recipe: averages, clipping, half precision, early stopping."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from zoo import model

from monge import fit
from monge.config import Config, TrainingConfig, override
from monge.draws import Draws
from monge.evaluation import summary
from monge.models import evaluating
from monge.networks import BatchNorm
from monge.runs import load
from monge.training import Trainer
from monge.training.validation import figure, held_apart, since_best


def images(n=16):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(n))


def test_the_average_of_weights_is_that_of_its_formula():
    """The first step's, then d · average + (1 - d) · weights, d = min(ema, (1 + t) / (10 + t))."""
    trainer = Trainer(model("wae-mmd"), TrainingConfig(ema=0.3))
    names = dict(trainer.model.named_parameters())
    expected: dict[str, torch.Tensor] = {}
    for t in range(5):
        trainer.step([images()])
        d = (0, 2 / 11, 3 / 12, 0.3, 0.3)[t]
        for name, value in trainer.model.state_dict().items():
            before = expected.get(name, value)
            expected[name] = d * before + (1 - d) * value if name in names else value.clone()
    for name, value in trainer.trained.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.equal(expected["decoder.0.weight"], trainer.model.decoder[0].weight)


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_the_moments_of_an_average_are_the_means_over_passes_of_it(micro_batch):
    """By hand: the mean and the variance of what each layer of the averaged networks sees, where
    the networks are passed with the draws of the average; and the modes stay as they were."""
    trainer = Trainer(model("wae-mmd"), TrainingConfig(ema=0.9, micro_batch=micro_batch))
    for _ in range(3):
        trainer.step([images()])
    given = [images(16), images(12), images(8)]
    before = copy.deepcopy(trainer.average.module).train()
    seen: dict[str, list[torch.Tensor]] = {}
    for name, layer in before.named_modules():
        if isinstance(layer, BatchNorm):
            layer.register_forward_hook(
                lambda _, x, y, name=name: seen.setdefault(name, []).append(x[0].detach())
            )
    for i, x in enumerate(given):
        before(x, Draws(0, f"average {i}", len(x)))
    modes = [module.training for module in trainer.trained.modules()]
    trainer.finish_average(iter(given))
    assert modes == [module.training for module in trainer.trained.modules()]
    buffers = dict(trainer.trained.named_buffers())
    assert len(seen) == 3
    for name, inputs in seen.items():
        flat = [x.transpose(0, 1).flatten(1) for x in inputs]
        mean = torch.stack([x.mean(1) for x in flat]).mean(0)
        variance = torch.stack([x.var(1) for x in flat]).mean(0)
        for moment, value in (("mean", mean), ("var", variance)):
            found = buffers[f"{name}.running_{moment}"]
            torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5, msg=name)
    again = {name: value.clone() for name, value in trainer.trained.state_dict().items()}
    trainer.finish_average(iter(given))
    assert all(torch.equal(z, again[name]) for name, z in trainer.trained.state_dict().items())


@pytest.mark.parametrize("steps", [40, 300])
def test_an_average_reconstructs_no_worse_than_the_last_weights(steps, tmp_path):
    """With a decay whose memory of 1,000 steps is longer than the training."""
    config = override(Config.of("wae-mmd"), "training.ema", 0.999)
    config = override(config, "training.steps", steps)
    run = fit("wae-mmd", "digits", config, tmp_path / "run", quiet=True)
    (newest,) = (run.path / "checkpoints").iterdir()
    state = load_file(newest / "training.safetensors")
    last = copy.deepcopy(run.model)
    last.load_state_dict(
        {name.removeprefix("last."): z for name, z in state.items() if name.startswith("last.")}
    )
    errors = [summary(one, run.source)["test reconstruction"] for one in (run.model, last)]
    assert errors[0] <= errors[1]


def gradient(**changes):
    torch.manual_seed(0)
    trainer = Trainer(model("wae-mmd"), TrainingConfig(**changes))
    if trainer.scaler.is_enabled():  # it starts where this gradient overflows
        trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 64.0})
    trainer.step([images()])
    return torch.cat([p.grad.flatten() for p in trainer.parameters])


def test_a_long_gradient_is_shortened_and_keeps_its_direction():
    whole, clipped = gradient(), gradient(clip=0.5)
    assert whole.norm() > 0.5
    torch.testing.assert_close(clipped, 0.5 * whole / whole.norm(), rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(gradient(clip=1e6), whole)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_gradients_of_half_precision_are_near_those_of_float32(precision):
    """And have lost the scale that kept them from underflow."""
    whole, half = gradient(), gradient(precision=precision)
    assert (half - whole).norm() < 0.1 * whole.norm()


def test_a_gradient_that_overflows_in_half_precision_is_skipped_and_its_scale_halved():
    trainer = Trainer(model("wae-mmd"), TrainingConfig(precision="fp16"))
    before = copy.deepcopy(list(trainer.model.parameters()))
    scale = trainer.scaler.get_scale()
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**127})
    trainer.step([images()])
    assert all(map(torch.equal, before, trainer.model.parameters()))
    assert trainer.scaler.get_scale() == 2.0**126 > scale
    state = trainer.state()
    other = Trainer(model("wae-mmd"), TrainingConfig(precision="fp16"))
    other.restore(trainer.trained.state_dict(), state, 1)
    assert other.scaler.get_scale() == 2.0**126


def settings(**training) -> Config:
    config = Config.of("wae-mmd")
    for name, value in {"checkpoint_seconds": 0.01, "batch": 20, **training}.items():
        config = override(config, f"training.{name}", value)
    return override(config, "network.hidden", (8,))


def table(n=200):
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {"ema": 0.9, "warmup": 5, "clip": 1.0},
        {"ema": 0.9, "patience": 50, "micro_batch": 6},
        {"precision": "fp16"},
        {"micro_batch": 6},
        {"schedule": "step", "drop_every": 1, "patience": 50},
    ],
)
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_not_stopped(options, tmp_path):
    """With each option, the averages, scales and figures that it adds."""
    whole = fit(data=table(), config=settings(steps=30, **options), out=tmp_path / "a", quiet=True)
    fit(data=table(), config=settings(steps=13, **options), out=tmp_path / "b", quiet=True)
    again = fit(
        data=table(),
        config=settings(steps=30, **options),
        out=tmp_path / "b",
        resume=True,
        quiet=True,
    )
    theirs = again.model.state_dict()
    assert all(torch.equal(value, theirs[k]) for k, value in whole.model.state_dict().items())
    for row in again.metrics():
        others = [other for other in whole.metrics() if other["step"] == row["step"]]
        assert others or row["step"] == 13
        assert all(
            row[name] == other[name] for other in others for name in other if name != "seconds"
        )


def test_training_stops_after_epochs_without_a_better_figure_and_keeps_the_best(tmp_path):
    """A rate that destroys the model from some epoch on: the model is the one before."""
    run = fit(
        data=table(),
        config=settings(epochs=60, patience=3, lr=0.3),
        out=tmp_path / "run",
        quiet=True,
    )
    figures = [row["validation"] for row in run.metrics() if "validation" in row]
    assert since_best(figures) == 3
    assert 4 <= len(figures) < 60
    source = run.source
    _, held = held_apart(source.train, run.config.seed, source.train_contents, repeats=True)
    assert figure(run.model, held, 20, run.config.seed) == pytest.approx(min(figures), rel=1e-6)
    before = run.report.stat().st_mtime_ns
    again = fit(
        data=table(),
        config=settings(epochs=60, patience=3, lr=0.3),
        out=tmp_path / "run",
        resume=True,
        quiet=True,
    )
    assert again.metrics() == run.metrics()
    assert run.report.stat().st_mtime_ns == before
    best = load(run.path)
    assert all(torch.equal(v, best.state_dict()[k]) for k, v in run.model.state_dict().items())


@pytest.mark.parametrize("recipe", ["wae-mmd", "wae-gan", "vae", "swg", "conditional-wae"])
def test_the_figure_is_of_the_samples_held_apart_alone(recipe):
    """The same each time, other for another model, and it leaves the model as it was."""
    one = model(recipe)
    before = copy.deepcopy(one.state_dict())
    value = figure(one, images(11), 5, seed=0)
    assert math.isfinite(value)
    assert figure(one, images(11), 5, seed=0) == value
    assert all(torch.equal(before[k], v) for k, v in one.state_dict().items())
    assert one.training
    with torch.no_grad():
        for p in one.parameters():
            p.mul_(1.5)
    assert figure(one, images(11), 5, seed=0) != value


def test_a_tenth_is_held_apart_the_same_each_time():
    x = torch.arange(95.0)[:, None]
    train, held = held_apart(x, seed=3)
    assert (len(train), len(held)) == (86, 9)
    assert torch.cat([train, held]).sort(0).values.equal(x)
    assert held_apart(x, seed=3)[1].equal(held)


# torch's compiler makes torch warn
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_networks_train_as_those_that_are_not(tmp_path):
    runs = [
        fit(
            data=table(),
            config=settings(steps=4, compile=compiled),
            out=tmp_path / str(compiled),
            quiet=True,
        )
        for compiled in (False, True)
    ]
    one, two = ([row["loss"] for row in run.metrics()] for run in runs)
    assert two == pytest.approx(one, rel=1e-5)
    with evaluating(runs[0].model):
        z = torch.zeros(1, 2)
        torch.testing.assert_close(runs[0].model.decode(z), runs[1].model.decode(z))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("micro_batch", 0, "`micro_batch` must be at least 1"),
        ("ema", 1.0, r"`ema` must be in \[0, 1\)"),
        ("clip", -1.0, "`clip` must be positive and finite"),
        ("patience", 0, "`patience` must be at least 1"),
        ("schedule", "up", "`schedule` must be one of constant, drops, smooth, cosine, step"),
        ("precision", "fp8", "`precision` must be one of fp32, bf16, fp16"),
    ],
)
def test_values_that_cannot_be_are_refused(name, value, words, tmp_path):
    config = Config(training=dataclasses.replace(TrainingConfig(), **{name: value}))
    with pytest.raises(ValueError, match=words):
        fit(data=table(), config=config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
