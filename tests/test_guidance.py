"""Class-conditional flows: pairs within labels, dropped labels, guidance, and runs."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import zoo
from torch import nn

import monge
from monge.cli import parse
from monge.config import Config, NetworkConfig, override
from monge.draws import Draws, generator
from monge.labels import ClassPrior
from monge.models import FlowMatching
from monge.models.flow import with_guidance
from monge.models.solvers import Euler
from monge.networks import CloudVelocity, ImageVelocity, VectorVelocity
from monge.priors import Gaussian
from monge.runs import Run
from monge.show.explore.service import Explorer
from monge.transport.conditional_couplings import PerLabel, SemidiscretePerLabel
from monge.transport.couplings import Exact

SHIFTS = torch.tensor([[4.0, 0.0], [0.0, -3.0], [1.0, 1.0]])


class Shift(nn.Module):
    """The constant velocity of each class, and (1, 1) where no class is named."""

    def __init__(self):
        super().__init__()
        self.shifts = nn.Parameter(SHIFTS.clone())

    def forward(self, x, t, labels):
        return 0 * x + labels @ self.shifts + (1 - labels.sum(1, keepdim=True))


def shifting(**settings):
    """A flow of three classes whose draws are known: x_0 + 1 + w (shift - 1)."""
    return FlowMatching(
        Shift(), (2,), class_prior=ClassPrior([1, 1, 2]), solver=Euler(1), **settings
    )


def batch(n=300):
    """Samples of three far classes, in the shares ½, ¼, ¼."""
    labels = torch.arange(n) % 4 % 3
    return 5 * SHIFTS[labels] + torch.randn(n, 2, generator=generator(0)), labels


# Networks


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (lambda: VectorVelocity(5, (8, 8), 3), (5,)),
        (lambda: ImageVelocity((1, 9, 7), (4, 8), 3), (1, 9, 7)),
        (lambda: CloudVelocity(3, (8, 8), 3), (20, 3)),
    ],
)
def test_a_velocity_depends_on_the_label_and_on_there_being_none(network, shape):
    field, x, t = network(), torch.randn(4, *shape), torch.rand(4)
    found = [field(x, t, labels) for labels in (*map(one_class, range(3)), torch.zeros(4, 3))]
    for i, one in enumerate(found):
        assert one.shape == x.shape
        assert all((one - other).abs().max() > 1e-4 for other in found[:i])


def one_class(label, n=4, classes=3):
    return nn.functional.one_hot(torch.full((n,), label), classes).float()


# Training


def test_within_a_class_the_noise_of_training_is_that_of_sampling():
    """The pairs of each class have its data, and noise of mean 0 and deviation 1."""
    x, labels = batch()
    flow = shifting(coupling=PerLabel(Exact()), label_dropout=0.0)
    x0, x1, (condition,) = flow.pairs(x, Draws(0, 0, 300), labels)
    assert torch.equal(x1, x)
    assert torch.equal(condition.argmax(1), labels)
    for k in range(3):
        noise = x0[labels == k]
        assert noise.mean(0).abs().max() < 4 / math.sqrt(len(noise))
        assert (noise.std(0) - 1).abs().max() < 0.25


def test_pairs_of_a_whole_data_set_have_the_labels_that_noise_is_dealt_to():
    x, labels = batch(60)
    plans = SemidiscretePerLabel.fit(Gaussian(2).sample, x, labels, generator=generator(0))
    flow = shifting(coupling=plans, label_dropout=0.0)
    dealt = torch.arange(500) % 3
    _, x1, (condition,) = flow.pairs(torch.zeros(500, 2), Draws(0, 0, 500), dealt)
    assert torch.equal(condition.argmax(1), dealt)
    assert torch.equal(labels[torch.cdist(x1, x).argmin(1)], dealt)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_labels_are_dropped_with_their_probability(share):
    x, labels = batch(4000)
    _, _, (condition,) = shifting(label_dropout=share).pairs(x, Draws(0, 0, 4000), labels)
    kept = condition.sum(1)
    assert torch.equal(condition, kept[:, None] * nn.functional.one_hot(labels, 3))
    assert kept.mean().item() == pytest.approx(1 - share, abs=4 * math.sqrt(0.25 / 4000))
    assert share > 0 or kept.min() == 1


def test_the_loss_is_that_of_the_pairs_written_out():
    x, labels = batch(40)
    flow, draws = shifting(label_dropout=0.5), Draws(3, 5, 40)
    x0, x1, (condition,) = flow.pairs(x, draws, labels)
    by_hand = (flow.network(x, x[:, 0], condition) - (x1 - x0)).square().sum(1).mean()
    torch.testing.assert_close(flow(x, draws, labels).terms["regression"], by_hand)


# Sampling


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0])
def test_guided_draws_go_by_the_formula(guidance):
    flow = shifting(guidance=guidance)
    labels = torch.tensor([0, 1, 2, 2, 1])
    drawn = flow.sample(5, generator(0), labels=labels)
    noise = shifting().sample(5, generator(0), labels=labels) - SHIFTS[labels]
    torch.testing.assert_close(drawn, noise + 1 + guidance * (SHIFTS[labels] - 1))
    mixed = flow.sample(1, generator(0), labels=[[0.5, 0.5, 0.0]])
    expected = noise[:1] + 1 + guidance * (SHIFTS[:2].mean(0) - 1)
    torch.testing.assert_close(mixed, expected)


def test_guidance_calls_the_network_twice_and_none_calls_it_once():
    flow, calls = shifting(), []
    flow.network.register_forward_hook(lambda *_: calls.append(1))
    for guidance, count in ((1.0, 1), (2.0, 2)):
        with_guidance(flow, guidance)
        calls.clear()
        assert flow.transported(3, generator(0), labels=1).evaluations == 1
        assert len(calls) == count


def test_the_likelihood_given_the_class_is_that_of_a_shifted_gaussian():
    flow = shifting()
    x, labels = torch.randn(6, 2, generator=generator(0)), [0, 1, 2, 0, 1, 2]
    expected = Gaussian(2).log_prob(x - SHIFTS[labels])
    torch.testing.assert_close(flow.log_prob(x, labels=labels), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="`labels` is missing: this FlowMatching is class-cond"):
        flow.log_prob(x)
    plain = FlowMatching(VectorVelocity(2, (4,)), (2,))
    with pytest.raises(ValueError, match="`labels` are given, but this FlowMatching is not class"):
        plain.log_prob(x, labels=1)


def test_draws_of_classes_do_not_depend_on_the_batches_they_are_integrated_in():
    """Beyond the 500 that are integrated at a time; by default labels are draws of P_Y."""
    flow, labels = shifting(), torch.arange(1203) % 3
    whole, parts = flow.sample(1203, generator(0), labels=labels), generator(0)
    sizes = (1, 700, 502)
    split = [flow.sample(n, parts, labels=some) for n, some in zip(sizes, labels.split(sizes))]
    torch.testing.assert_close(torch.cat(split), whole)
    drawn = flow.sample(4000, generator(1))
    shares = ClassPrior([1, 1, 2]).shares
    torch.testing.assert_close(drawn.mean(0), shares @ SHIFTS, atol=0.2, rtol=0)


# Refusals


LABELS = ClassPrior([1, 1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"class_prior": LABELS, "coupling": Exact()}, r"give PerLabel\(Exact\(\)\)$"),
        ({"coupling": PerLabel(Exact())}, "a flow without `class_prior` does not take"),
        ({"class_prior": LABELS, "label_dropout": 1.0}, r"`label_dropout` must be in \[0, 1\)"),
        ({"class_prior": LABELS, "guidance": -1.0}, "`guidance` must be at least 0"),
        (
            {"class_prior": LABELS, "guidance": 2.0, "label_dropout": 0.0},
            "`guidance` is 2, but the flow was trained with every label",
        ),
        ({"guidance": 2.0}, "this FlowMatching is not a class-conditional flow"),
    ],
)
def test_flows_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words) as caught:
        FlowMatching(VectorVelocity(2, (4,), 2), (2,), **settings)
    assert "\n" not in str(caught.value)


def test_guidance_of_another_model_is_refused():
    with pytest.raises(ValueError, match="this WAE is not a class-conditional flow: leave it out"):
        with_guidance(zoo.model("wae-mmd", classes=3), 2.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"guidance": 2.0}, "`guidance` must be left out without --condition labels, got 2.0"),
        ({"label_dropout": 0.2}, "`label_dropout` must be left out without --condition labels"),
        ({"condition": "labels", "label_dropout": 1.0}, r"`label_dropout` must be in \[0, 1\)"),
        ({"condition": "labels", "guidance": -1.0}, "`guidance` must be at least 0"),
        (
            {"condition": "labels", "guidance": 2.0, "label_dropout": 0.0},
            "`guidance` must be left out for --label-dropout 0",
        ),
    ],
)
def test_settings_without_an_effect_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Config.of("flow-matching", **settings).check()


# Runs


def tiny(**settings):
    config = Config.of("flow-matching", condition="labels", ode_steps=2, guidance=2.0)
    network = NetworkConfig(filters=(4, 8), hidden=(16,))
    config = override(dataclasses.replace(config, network=network), "training.batch", 30)
    for name, value in {"training.steps": 6, **settings}.items():
        config = override(config, name, value)
    return config


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A class-conditional flow of digits, hardly trained."""
    path = tmp_path_factory.mktemp("guidance") / "run"
    return monge.fit("flow-matching", "digits", tiny(), path, quiet=True)


def test_resuming_leads_to_the_same_bits(digits, tmp_path):
    out = tmp_path / "run"
    monge.fit("flow-matching", "digits", tiny(**{"training.steps": 3}), out, quiet=True)
    resumed = monge.fit("flow-matching", "digits", tiny(), out, resume=True, quiet=True)
    assert resumed.provenance["weights"] == digits.provenance["weights"]


def test_a_run_keeps_its_guidance_wherever_it_is_opened(digits, tmp_path):
    expected = digits.sample(3, generator(0), labels=[1, 2, 3])
    parse(["export", str(digits.path), "--hub", str(tmp_path / "hub")]).run()
    for model in (Run(digits.path).model, monge.load(tmp_path / "hub")):
        assert model.guidance == 2
        torch.testing.assert_close(model.sample(3, generator(0), labels=[1, 2, 3]), expected)
    explorer = Explorer(Run(digits.path))
    assert explorer.classes == 10
    drawn = explorer.sample(4, 3, "prior", 1.0, 7)
    torch.testing.assert_close(drawn, digits.sample(4, generator(3, "sample"), labels=7))
    assert digits.evaluate(40, metrics=["classes"])["figures"]["class accuracy"]


def test_the_command_line_draws_classes_with_guidance_and_refuses(digits, tmp_path, capsys):
    def drawn(run, *flags):
        out = tmp_path / "x.npy"
        parse(["sample", str(run), "-n", "4", "--out", str(out), *flags]).run()
        return np.load(out)

    own = drawn(digits.path, "--class", "3", "7")
    assert np.load(tmp_path / "x.labels.npy").tolist() == [3] * 4 + [7] * 4
    assert np.array_equal(own, drawn(digits.path, "--class", "3", "7", "--guidance", "2"))
    assert not np.array_equal(own, drawn(digits.path, "--class", "3", "7", "--guidance", "1"))
    with pytest.raises(ValueError, match="`guidance` must be at least 0 and finite, got -1"):
        drawn(digits.path, "--guidance", "-1")
    plain = override(override(tiny(), "guidance", 1.0), "condition", None)
    monge.fit("flow-matching", "digits", plain, tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="not a class-conditional flow: leave it out"):
        drawn(tmp_path / "run", "--guidance", "1")
    with pytest.raises(ValueError, match="is not class-conditional: train one with --condition"):
        drawn(tmp_path / "run", "--class", "3")
