"""Class-conditional models: labels reach them row by row, classes are learned apart, and codes are
independent of the class."""

import csv
import dataclasses
import re

import numpy as np
import pytest
import torch
from torch import nn
from zoo import BY_SAMPLE, FLOWS, LABELLED, model

import monge
from monge.cli import parse
from monge.config import Config, DataConfig, NetworkConfig, TrainingConfig, override
from monge.data import Batches, Source, as_floats
from monge.divergences import MMD
from monge.draws import Draws, generator
from monge.evaluation import evaluate
from monge.evaluation.figures import lines
from monge.kernels import RBF
from monge.labels import ClassPrior, Labelled, checked_labels, one_hot
from monge.models import WAE, FlowMatching, Pass
from monge.models.protocols import has, interpolate, mean_codes, reconstruct
from monge.networks import (
    CodeCritic,
    JointFeatures,
    LabelledDecoder,
    ProjectionHead,
    VectorVelocity,
    mlp,
)
from monge.priors import Gaussian
from monge.runs import Run
from monge.training import Trainer
from monge.training.loading import Prefetcher, fetch

CLASSES = 3
EVERY = pytest.mark.parametrize("recipe", LABELLED)


def shaped(recipe: str) -> tuple[str, tuple[int, ...]]:
    """Tables where the recipe takes them, which train faster than images."""
    return ("image", (1, 8, 8)) if recipe == "vae-bernoulli" else ("vector", (5,))


def batch(shape: tuple[int, ...], n: int = 30) -> Labelled:
    labels = torch.arange(n) % CLASSES
    return Labelled(torch.rand(n, *shape, generator=generator(1)), labels)


# --- joint samples


def test_one_hot_rows_of_numbers_and_of_weights():
    rows = one_hot(torch.tensor([2, 0]), 3, torch.zeros(2))
    assert rows.tolist() == [[0, 0, 1], [1, 0, 0]]
    weights = torch.tensor([[0.5, 0.25, 0.25]])
    assert torch.equal(one_hot(weights, 3, weights), weights)


def test_two_classes_are_as_far_apart_as_two_samples():
    """In the last columns the squared distance of two classes is E‖x - x'‖² = 7."""
    prior = ClassPrior([1, 1, 2], spread=7.0)
    joint = prior.joint(torch.zeros(2, 4), torch.tensor([0, 2]))
    assert joint.shape == (2, 7)
    torch.testing.assert_close((joint[0] - joint[1]).square().sum(), torch.tensor(7.0))


def test_labels_are_drawn_in_their_shares_and_the_first_are_the_same_for_every_n():
    prior = ClassPrior([1.0, 0.0, 3.0])
    drawn = prior.draw(4000, generator(0))
    assert torch.equal(drawn[:10], prior.draw(10, generator(0)))
    counts = torch.bincount(drawn, minlength=3) / 4000
    assert counts[1] == 0
    assert abs(float(counts[2]) - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5


@pytest.mark.parametrize(
    "shares", [[], [0.0, 0.0], [1.0, -1.0], [float("nan"), 1.0], [[1.0]], "ab", None]
)
def test_shares_that_are_no_distribution_are_refused(shares):
    with pytest.raises(ValueError, match="`shares` must be"):
        ClassPrior(shares)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0, 1], "has 2 numbers for 3 samples"),
        ([0, 1, 3], "`labels` has 3, and the classes are 0 to 2"),
        (-1, "`labels` has -1"),
        ([0.5, 1.0, 2.0], "must be integers from 0 to 2"),
        ([[0.5, 0.5]] * 3, r"weights of shape \(3, 3\), got shape \(3, 2\)"),
        ([[0.5, float("nan"), 0.5]] * 3, "must be finite weights"),
        ("1", "must be integers from 0 to 2, .* got '1': `run.class_numbers` gives the numbers"),
        (["a", "b", "c"], r"got \['a', 'b', 'c'\]: `run.class_numbers` gives"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, reason):
    flow = FlowMatching(VectorVelocity(2, [4], classes=3), (2,), class_prior=ClassPrior([1, 1, 1]))
    x, draws = torch.zeros(3, 2), Draws(0, "test", 3)
    wae = model("wae-mmd", classes=CLASSES)
    doors = {
        "numbers": lambda: checked_labels(labels, 3, 3),
        "joint": lambda: ClassPrior([1, 1, 1]).joint(x, labels),
        "flow": lambda: flow(x, draws, labels),
        "velocity": lambda: flow.velocity(x, 0.5, labels),
        "decode": lambda: wae.decode(torch.zeros(3, wae.prior.dim), labels),
    }
    for door in doors.values():
        with pytest.raises(ValueError, match=reason):
            door()


def test_a_paired_mmd_is_zero_where_codes_have_one_distribution_in_each_class():
    """It averages to 0 over batches of joint samples that share labels; codes that are the labels
    keep it away from 0, though their distribution over all classes is that of the prior."""
    mmd, prior = MMD(RBF(1.4), paired=True), ClassPrior([1, 1], spread=2.0)

    def value(i: int, *, dependent: bool) -> float:
        z, target = (torch.randn(40, 1, generator=generator(i, name)) for name in "ab")
        labels = (z[:, 0] > 0).long() if dependent else torch.arange(40) % 2
        return float(mmd(prior.joint(z, labels), prior.joint(target, labels)))

    independent = torch.tensor([value(i, dependent=False) for i in range(300)])
    dependent = torch.tensor([value(i, dependent=True) for i in range(300)])
    assert abs(independent.mean()) < 4 * independent.std() / 300**0.5
    assert dependent.mean() > 20 * dependent.std() / 300**0.5


def test_a_critic_of_codes_takes_no_gradient_through_the_labels():
    joint = torch.randn(6, 5, requires_grad=True)
    CodeCritic(mlp([5, 4, 1]), 2)(joint).sum().backward()
    assert joint.grad is not None
    assert (joint.grad[:, :3] != 0).any()
    assert (joint.grad[:, 3:] == 0).all()


def test_a_projection_critic_is_that_of_its_formula():
    """head(φ(x)) + ⟨v_y, φ(x)⟩ + b_y, by hand, of images in rows with their labels."""
    features, linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 6)), nn.Linear(6, 1)
    head = ProjectionHead(linear, 6, 3)
    nn.init.normal_(head.offsets.weight)
    x, labels = torch.randn(5, 1, 2, 2), torch.tensor([0, 2, 1, 1, 2])
    joint = ClassPrior([1, 1, 1], spread=50.0).joint(x, labels)
    values = head(JointFeatures(features, (1, 2, 2))(joint))[:, 0]
    phi = features(x)
    expected = (
        linear(phi)[:, 0]
        + (head.vectors.weight[:, labels].T * phi).sum(1)
        + head.offsets.weight[0, labels]
    )
    torch.testing.assert_close(values, expected)


# --- every recipe


@EVERY
def test_every_recipe_takes_labels_and_every_parameter_a_gradient(recipe):
    kind, shape = shaped(recipe)
    made = model(recipe, kind, shape, CLASSES)
    assert made.classes == CLASSES
    trainer = Trainer(made, TrainingConfig())
    terms = trainer.step([batch(shape)], done=0.9)
    assert all(torch.isfinite(value) for value in terms.values())
    wanted = [*trainer.parameters, *(p for one in trainer.learned for p in one.parameters)]
    assert all(p.grad is not None for p in wanted if p.requires_grad)


@EVERY
def test_micro_batches_have_the_gradient_of_the_batch(recipe):
    """With labels that go with their rows, also where rows are interleaved."""
    kind, shape = shaped(recipe)
    found = []
    for micro_batch in (None, 7):
        torch.manual_seed(0)
        made = model(recipe, kind, shape, CLASSES, **BY_SAMPLE.get(recipe, {})).double()
        rows = batch(shape)
        Trainer(made, TrainingConfig(micro_batch=micro_batch)).step(
            [Labelled(rows.x.double(), rows.labels)]
        )
        found.append({name: p.grad for name, p in made.named_parameters()})
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-9)


@EVERY
def test_draws_of_a_class_depend_on_it_and_codes_do_not(recipe):
    """The same codes whatever the labels are, so that those of each row alone decide."""
    kind, shape = shaped(recipe)
    made = model(recipe, kind, shape, CLASSES).eval()
    one, two = (made.sample(6, generator(0), labels=labels) for labels in (0, [0, 0, 0, 1, 1, 1]))
    assert one.shape == (6, *shape)
    torch.testing.assert_close(one[:3], two[:3])
    assert (one[3:] != two[3:]).flatten(1).any(1).all()
    default = made.sample(6, generator(0))
    again = made.sample(6, generator(0), labels=made.class_prior.draw(6, label_generator()))
    torch.testing.assert_close(default, again)


def label_generator() -> torch.Generator:
    seed = torch.randint(2**62, (), generator=generator(0))
    return torch.Generator().manual_seed(int(seed))


@EVERY
def test_an_unconditional_model_sees_nothing_of_labels(recipe):
    kind, shape = shaped(recipe)
    made = model(recipe, kind, shape)
    assert made.classes is None
    assert not [name for name in made.state_dict() if "class" in name or "label" in name]
    with pytest.raises(ValueError, match="not class-conditional"):
        made.sample(2, labels=0)
    if has(made, "decode"):
        with pytest.raises(ValueError, match="not class-conditional"):
            made.decode(torch.zeros(2, 3), torch.zeros(2).long())


def test_labels_that_are_missing_are_named():
    made = model("wae-mmd", classes=CLASSES)
    with pytest.raises(ValueError, match="`labels` is missing: this WAE is class-conditional"):
        made.encode(torch.zeros(2, 1, 8, 8))


def test_an_mmd_of_independent_samples_is_refused():
    parts = mlp([2, 3]), LabelledDecoder(mlp([5, 2]), 3), Gaussian(3)
    with pytest.raises(ValueError, match="joint samples share labels: give MMD"):
        WAE(*parts, MMD(RBF(1.0)), cost=nn.Identity(), weight=1.0, class_prior=ClassPrior([1, 1]))


def test_reconstructions_keep_the_class_and_lines_go_between_classes():
    made = model("wae-mmd", classes=CLASSES).eval()
    x = batch((1, 8, 8), 4)
    with torch.no_grad():
        codes = mean_codes(made, x)
        torch.testing.assert_close(reconstruct(made, x), made.decode(codes, x.labels))
        frames = interpolate(made, x[:1], x[1:2], 3)
        middle = made.decode((codes[:1] + codes[1:2]) / 2, torch.tensor([[0.5, 0.5, 0.0]]))
    torch.testing.assert_close(frames[0], made.decode(codes[:1], x.labels[:1])[0])
    torch.testing.assert_close(frames[1], middle[0])


# --- labels on their way through the training


class Probe(nn.Module):
    """A model whose samples hold their own label, which it compares with the one it is given."""

    classes = CLASSES

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.norm = monge.networks.BatchNorm(2)
        self.divergence = monge.adversarial.JensenShannon(mlp([2, 4, 1]))
        self.seen = 0

    def forward(self, x, draws, labels):
        assert torch.equal(x[:, 0].round().long() % CLASSES, labels)
        self.seen += 1
        return Pass({"level": x.square().mean()}, (self.norm(self.layer(x)), x))

    def sample(self, n, generator=None, labels=None):
        return one_hot(labels, CLASSES, torch.zeros(n))[:, :2]


def numbered(n: int = 60) -> Source:
    """Samples whose label is their first number."""
    x = torch.stack([torch.arange(n) % CLASSES, torch.randn(n, generator=generator(0))], 1).float()
    labels = torch.arange(n) % CLASSES
    return Source("numbered", "vector", x, x[:30] + 0, labels, labels[:30], ("a", "b", "c"))


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_every_row_keeps_its_label(micro_batch, tmp_path):
    """In inner steps, micro-batches, the passes of an average and of a validation set."""
    training = TrainingConfig(
        batch=10, epochs=3, micro_batch=micro_batch, inner_steps=2, ema=0.9, patience=2
    )
    probe = Probe()
    config = Config(recipe="custom", condition="labels", training=training)
    run = monge.fit(probe, numbered(), config, tmp_path / "run", quiet=True)
    assert probe.seen > 30
    assert run.settled.classes == ("a", "b", "c")
    assert run.sample(3, labels=[0, 1, 2]).tolist() == [[1, 0], [0, 1], [0, 0]]


def test_batches_that_are_loaded_ahead_have_the_rows_and_labels_of_others():
    source = numbered()
    samples = Labelled(source.train, source.train_labels)
    batches = Batches(len(samples), 10, 0)
    trainer = Trainer(Probe(), TrainingConfig(inner_steps=2))
    ahead = Prefetcher(trainer, samples, batches)
    for one, other in zip(ahead.fetch(), fetch(trainer, samples, batches), strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.x[:, 0].long(), other.labels)
        assert torch.equal(one.labels, other.labels)
    ahead.close()


def test_clouds_take_labels():
    made = model("pointcloud-wae", "cloud", (16, 3), CLASSES)
    terms = Trainer(made, TrainingConfig()).step([batch((16, 3))])
    assert all(torch.isfinite(value) for value in terms.values())
    assert made.sample(4, labels=1).shape == (4, 16, 3)


def test_pretraining_takes_labels(tmp_path):
    """It matches codes alone, which the encoder makes of samples and labels."""
    config = tiny(**{"training.pretrain": 3, "training.pretrain_batch": 50})
    run = monge.fit("wae-gan", "digits", config, tmp_path / "run", quiet=True)
    assert [row["stage_step"] for row in run.metrics() if "stage" in row] == [1, 2, 3]


def test_a_model_of_your_own_and_condition_must_agree(tmp_path):
    with pytest.raises(ValueError, match="Probe has 3 `classes`, and `condition` None"):
        monge.fit(Probe(), numbered(), out=tmp_path / "run", quiet=True)


def toy(n: int = 3000) -> Source:
    """Three Gaussians of the plane, of deviation ½ and unequal shares, whose classes overlap."""
    labels = torch.arange(n) % 4 % CLASSES  # class 0 twice as often
    centres = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.5]])
    x = centres[labels] + 0.5 * torch.randn(n, 2, generator=generator(0, "toy"))
    return Source("toy", "vector", x[600:], x[:600], labels[600:], labels[:600], ("a", "b", "c"))


NETWORK = NetworkConfig(hidden=(64, 64), critic=(64, 64))
TOYS = {
    "wae-mmd": {},
    "wae-gan": {"weight": 2.0, "training.inner_lr": 3e-3, "training.schedule": "smooth"},
    "swae": {"weight": 20.0},
    "sinkhorn-ae": {"weight": 5.0},
    "vae": {},
    "mmd-generator": {},
    "sinkhorn-generator": {},
    "swg": {"directions": 100},
    # critics that keep up with the model
    "gan": {"training.lr": 1e-3, "training.inner_lr": 3e-3, "training.schedule": "smooth"},
    "swgan": {"training.lr": 1e-3, "training.inner_lr": 1e-3},
    "flow-matching": {"training.lr": 2e-3, "training.schedule": "smooth"},
}


@pytest.mark.parametrize("recipe", TOYS)
def test_classes_of_overlapping_gaussians_are_learned_apart(recipe, tmp_path):
    """Samples of each class have its mean and deviation. Codes have one mean in all classes, up to
    a fifth of their deviation; matched without their labels they differ by nine tenths of it."""
    source = toy()
    latent = None if recipe in FLOWS else 2
    config = Config.of(recipe, latent=latent, condition="labels", **TOYS[recipe])
    config = override(override(config, "training.steps", 600), "training.batch", 200)
    config = dataclasses.replace(config, network=NETWORK)
    run = monge.fit(recipe, source, config, tmp_path / "run", quiet=True)
    for k in range(CLASSES):
        drawn = run.sample(2000, generator(k), labels=k)
        real = source.train[source.train_labels == k]
        assert (drawn.mean(0) - real.mean(0)).abs().max() < 0.15, k
        assert (drawn.std(0) / real.std(0) - 1).abs().max() < 0.3, k
    if not hasattr(run.model, "encode"):
        return
    with torch.no_grad():
        codes = mean_codes(run.model, run.rows("test"))
    between = torch.stack([codes[source.test_labels == k].mean(0) for k in range(CLASSES)]).std(0)
    assert between.max() < 0.2 * codes.std(0).min()


def test_default_draws_have_the_shares_of_the_training_part(tmp_path):
    source = toy()
    config = override(Config.of("swae", condition="labels"), "training.steps", 2)
    run = monge.fit("swae", source, config, tmp_path / "run", quiet=True)
    assert run.settled.shares == (0.5, 0.25, 0.25)
    torch.testing.assert_close(run.model.class_prior.shares, torch.tensor([0.5, 0.25, 0.25]))


# --- evaluation


class Resampler(nn.Module):
    """Draws training samples of the class that is asked for, or of a class `shift` further."""

    def __init__(self, source: Source, shift: int = 0):
        super().__init__()
        self.source, self.classes, self.shift = source, len(source.classes), shift

    def sample(self, n, generator=None, labels=None):
        asked = (labels + self.shift) % self.classes
        rows = [(self.source.train_labels == k).nonzero()[:, 0] for k in range(self.classes)]
        picks = torch.rand(n, generator=generator)
        index = [rows[k][int(u * len(rows[k]))] for k, u in zip(asked.tolist(), picks)]
        return as_floats(self.source.train[torch.stack(index)])


@pytest.mark.parametrize("data", ["digits", "toy"])
def test_the_accuracy_of_classes_is_that_of_real_samples_of_the_class(data):
    """Near its floor for a model that draws real samples, near what is left for one that draws
    those of another class; Fréchet distances of the classes tell the two apart."""
    source = toy(6000) if data == "toy" else monge.data.load(DataConfig(data))
    right, wrong = (
        evaluate(Resampler(source, shift), source, metrics=["classes"]) for shift in (0, 1)
    )
    figure = right["figures"]["class accuracy"]
    assert figure["floor"] > 0.85
    assert abs(figure["value"] - figure["floor"]) < 0.06
    assert wrong["figures"]["class accuracy"]["value"] < 0.12
    shares = [one for name, one in right["classes"].items() if name.startswith("class accuracy")]
    assert len(shares) == len(source.classes)
    assert np.mean([one["value"] for one in shares]) == pytest.approx(figure["value"])
    assert "class accuracy of" in "\n".join(lines(right))
    if data == "toy":
        for name in ("FD of 'a'", "FD of 'b'", "FD of 'c'"):
            near, far = right["classes"][name], wrong["classes"][name]
            assert near["value"] < 0.05 < 1 < far["value"]
            assert near["floor"] < 0.05


def test_an_unconditional_model_has_no_figures_of_classes():
    source = toy(2000)
    plain = model("wae-mmd", "vector", (2,)).eval()
    result = evaluate(plain, source, metrics=["classes", "exact"])
    assert "classes" not in result
    assert "class accuracy" not in result["figures"]


# --- runs and the command line


def tiny(**settings) -> Config:
    network = NetworkConfig(filters=(4, 8), hidden=(16,), critic=(16,))
    config = dataclasses.replace(Config(recipe="wae-gan"), network=network, condition="labels")
    config = override(override(config, "training.steps", 6), "training.batch", 50)
    for name, value in settings.items():
        config = override(config, name, value)
    return config


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A class-conditional run of digits, hardly trained."""
    path = tmp_path_factory.mktemp("labels") / "run"
    return monge.fit("wae-gan", "digits", tiny(), path, quiet=True)


def test_resuming_leads_to_the_same_bits(digits, tmp_path):
    out = tmp_path / "run"
    monge.fit("wae-gan", "digits", tiny(**{"training.steps": 3}), out, quiet=True)
    resumed = monge.fit("wae-gan", "digits", tiny(), out, resume=True, quiet=True)
    assert resumed.provenance["weights"] == digits.provenance["weights"]


def test_a_run_is_opened_with_its_classes(digits):
    run = Run(digits.path)
    assert run.settled.classes == tuple("0123456789")
    assert run.model.classes == 10
    loaded = monge.load(digits.path)
    drawn = [one.sample(4, generator(0), labels=3) for one in (loaded, run)]
    torch.testing.assert_close(drawn[0], drawn[1])


def drawn(digits, *arguments: str) -> None:
    parse(["sample", str(digits.path), *arguments]).run()


def test_samples_of_classes_by_name_and_number(digits, tmp_path, capsys):
    drawn(digits, "--class", "7", "0", "--n", "3", "--out", str(tmp_path / "x.npy"))
    assert np.load(tmp_path / "x.labels.npy").tolist() == [7, 7, 7, 0, 0, 0]
    assert np.load(tmp_path / "x.npy").shape == (6, 1, 8, 8)
    drawn(digits, "--n", "200", "--out", str(tmp_path / "y.npy"))
    assert len(np.unique(np.load(tmp_path / "y.labels.npy"))) == 10
    assert capsys.readouterr().out.count(".npy") == 4
    same = digits.sample(200, generator(0, "sample"))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), same, atol=1e-5)


def test_a_picture_has_a_row_for_each_class(digits, tmp_path):
    from PIL import Image

    drawn(digits, "--class", "7", "0", "1", "--n", "5", "--out", str(tmp_path / "x.png"))
    with Image.open(tmp_path / "x.png") as picture:
        width, height = picture.size
    assert width / height == pytest.approx(5 / 3, rel=0.05)


def test_draws_of_a_table_have_a_column_of_classes(tmp_path):
    random = np.random.default_rng(0)
    lines = [
        f"{random.normal():.3f},{random.normal():.3f},{'no' if i % 2 else 'yes'}"
        for i in range(90)
    ]
    (tmp_path / "x.csv").write_text("\n".join(["height,weight,label", *lines]))
    run = monge.fit(
        "wae-mmd", tmp_path / "x.csv", tiny(recipe="wae-mmd"), tmp_path / "run", quiet=True
    )
    drawn(run, "--class", "yes", "1", "--n", "2", "--out", str(tmp_path / "y.csv"))
    with (tmp_path / "y.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == ["height", "weight", "label"]
    # classes are in the order of their names: no is 0 and yes is 1
    assert [row[2] for row in rows] == ["yes"] * 4


@pytest.mark.parametrize("verb", ["reconstruct", "interpolate", "traverse"])
def test_the_other_verbs_draw_with_the_labels_of_the_test_part(digits, verb, tmp_path):
    parse([verb, str(digits.path), "--out", str(tmp_path / "x.npy")]).run()
    assert np.isfinite(np.load(tmp_path / "x.npy")).all()


def test_a_folder_of_the_hub_has_the_classes(digits, tmp_path):
    parse(["export", str(digits.path), "--hub", str(tmp_path / "hub")]).run()
    text = (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")
    assert "Class-conditional, on 0, 1, 2" in text
    assert "model.sample(16, labels=0)" in text
    loaded = monge.load(tmp_path / "hub")
    expected = digits.sample(4, generator(0), labels=[1, 2, 3, 3])
    torch.testing.assert_close(loaded.sample(4, generator(0), labels=[1, 2, 3, 3]), expected)


def test_bad_classes_are_refused_in_a_line(digits, tmp_path):
    out = ["--out", str(tmp_path / "x.png")]
    with pytest.raises(ValueError, match=r"`class` 'ten' is none of the run .* classes are 0, 1"):
        drawn(digits, "--class", "ten", *out)
    with pytest.raises(ValueError, match="`n` must be at least 1"):
        drawn(digits, "--class", "1", "--n", "0", *out)
    with pytest.raises(ValueError, match="`class` ',' is none of the run"):
        drawn(digits, "--class", ",", *out)
    with pytest.raises(ValueError, match="`--class` is given without a value: give one"):
        drawn(digits, "--class", *out)
    with pytest.raises(ValueError, match="`--classes` is given without a value"):
        parse(["train", "vae", "--classes"])
    numbered = digits.fresh()
    numbered.settled = dataclasses.replace(numbered.settled, classes=("3", "7", "11"))
    assert numbered.class_numbers(["7", "11"]) == [1, 2]
    with pytest.raises(ValueError, match=r"`class` '0' is none of the run .* are 3, 7, 11"):
        numbered.class_numbers(["0"])  # which is the number of the class 3
    plain = dataclasses.replace(tiny(), condition=None)
    run = monge.fit("wae-gan", "digits", plain, tmp_path / "run", quiet=True)
    with pytest.raises(
        ValueError, match="not class-conditional: train one with --condition labels"
    ):
        drawn(run, "--class", "1", *out)
    assert not (tmp_path / "x.png").exists()


def unlabelled(n: int = 40) -> Source:
    return Source("plain", "vector", torch.randn(n, 2), torch.randn(n, 2))


def labelled(train: list[int], test: list[int], classes=("a", "b")) -> Source:
    x = torch.randn(len(train) + len(test), 2)
    parts = x[: len(train)], x[len(train) :]
    return Source("odd", "vector", *parts, torch.tensor(train), torch.tensor(test), classes)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (unlabelled(), "`condition` is labels, and 'plain' has none: give folders by class"),
        (labelled([0] * 9 + [1], [0, 1]), "class 'b' of 'odd' has 1 training sample: at least 2"),
        (labelled([0] * 9 + [2], [0, 1]), "labels from 0 to 2, and its 2 classes are 0 to 1"),
        (labelled([0] * 9 + [-1], [0, 1]), "`train_labels` must be 10 int64 from 0 on"),
        (labelled([0] * 9, [0, 0], ("a",)), "has only one class"),
    ],
)
def test_data_without_classes_to_learn_from_are_refused(source, reason, tmp_path):
    with pytest.raises(ValueError, match=re.escape(reason)):
        monge.fit("wae-mmd", source, tiny(recipe="wae-mmd"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_recipe_without_a_conditional_form_is_refused(tmp_path):
    config = tiny(recipe="conditional-wae")
    with pytest.raises(ValueError, match="conditional-wae has no class-conditional form"):
        monge.fit("conditional-wae", "digits", config, tmp_path / "run", quiet=True)


def test_data_with_other_classes_do_not_replace_those_of_a_run(tmp_path):
    config = tiny(recipe="wae-mmd", **{"training.batch": 20})
    monge.fit("wae-mmd", numbered(), config, tmp_path / "run", quiet=True)
    other = dataclasses.replace(numbered(), classes=("a", "b", "z"))
    longer = override(config, "training.steps", 9)
    with pytest.raises(ValueError, match="its classes are a, b, c, theirs a, b, z"):
        monge.fit(
            "wae-mmd", other, longer, tmp_path / "run", resume=True, data_changed=True, quiet=True
        )


def test_joint_samples_are_vectorised():
    """Labels are checked by their values, which those under `torch.func` do not have."""
    prior, x = ClassPrior([1, 2, 3]), torch.randn(2, 4, 5)
    labels = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    joint = torch.func.vmap(prior.joint)(x, labels)
    assert torch.equal(joint, torch.stack([prior.joint(*pair) for pair in zip(x, labels)]))
