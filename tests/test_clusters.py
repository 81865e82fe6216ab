"""Models conditioned on clusters: k-means gives samples the labels that data do not have."""

import csv
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import monge
from monge.cli import parse
from monge.config import Config, DataConfig, override
from monge.data import load
from monge.draws import generator
from monge.evaluation import evaluate
from monge.labels import Labelled
from monge.models.protocols import clusters_of, find_clusters, rows_for
from monge.networks import Clusters, Standardise
from monge.runs import Run
from monge.training import fit as fitting


def blobs(n: int = 600, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of three blobs whose first column is in other units, and which blob each is of."""
    of = torch.arange(n) % 3
    means = torch.tensor([[0.0, 0.0], [0.0, 8.0], [8.0, 0.0]])
    x = means[of] + torch.randn(n, 2, generator=generator(0))
    return x * torch.tensor([scale, 1.0]), of


@pytest.mark.parametrize("seed", [-1, 2**63 - 1])
def test_every_seed_of_a_run_finds_clusters(seed):
    x = torch.cat([torch.zeros(10, 2), torch.ones(10, 2)])
    assert Clusters(2, (2,)).fit(x, seed).tolist() == [10, 10]


def test_blobs_are_found_in_any_units():
    """By squared distances of the raw columns, of which the first has all the variance, the first
    two blobs are one."""
    x, of = blobs(scale=1e6)
    clusters = Clusters(3, (2,), Standardise(x.mean(0), x.std(0)))
    sizes = clusters.fit(x, 0)
    labels = clusters(x)
    assert sizes.tolist() == torch.bincount(labels, minlength=3).tolist()
    for k in range(3):
        counts = torch.bincount(labels[of == k], minlength=3)
        assert counts.max() >= 0.99 * counts.sum()
    assert len({int(labels[of == k].mode().values) for k in range(3)}) == 3


def test_a_label_is_the_nearest_centre():
    clusters = Clusters(4, (3,))
    clusters.centres.copy_(torch.randn(4, 3, generator=generator(1)))
    x = torch.randn(50, 3, generator=generator(2))
    nearest = [min(range(4), key=lambda k: float((row - clusters.centres[k]).norm())) for row in x]
    assert clusters(x).tolist() == nearest


def test_stored_images_have_the_labels_of_floats_whatever_the_blocks():
    images = torch.randint(256, (2100, 1, 4, 4), dtype=torch.uint8, generator=generator(0))
    clusters = Clusters(3, (1, 4, 4))
    clusters.fit(images, 0)
    assert torch.equal(clusters.of_stored(images), clusters(images.float() / 255))


def test_large_images_are_compared_at_a_smaller_side():
    clusters = Clusters(2, (3, 40, 64))
    assert clusters.centres.shape == (2, 3 * 32 * 32)
    images = torch.zeros(20, 3, 40, 64)
    images[::2] = 1.0
    assert sorted(clusters.fit(images, 0).tolist()) == [10, 10]


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (
            torch.ones(10, 2),
            "`clusters` is 3, and of the 10 training samples that are compared 1 differ",
        ),
        (
            torch.randn(2, 2),
            "`clusters` is 3, and of the 2 training samples that are compared 2 differ",
        ),
    ],
)
def test_fewer_different_samples_than_clusters_are_refused(x, reason):
    with pytest.raises(ValueError, match=reason):
        Clusters(3, (2,)).fit(x, 0)


# --- runs


def clusters_in(model: nn.Module) -> Clusters:
    found = clusters_of(model)
    assert found is not None
    return found


def config(recipe: str = "alpha-gan", steps: int = 4, **settings) -> Config:
    made = Config.of(recipe, condition="clusters", clusters=4)
    given = {"network.filters": (4,), "network.hidden": (8,), "training.steps": steps}
    for name, value in (given | settings).items():
        made = override(made, name, value)
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "clusters"
    return monge.fit("alpha-gan", "digits", config(), path, quiet=True)


def test_training_sees_the_labels_that_the_trained_model_gives(monkeypatch, tmp_path):
    seen = []

    def keep(trainer, samples, *rest, **more):
        seen.append(samples)
        return original(trainer, samples, *rest, **more)

    original = fitting.loop.run
    monkeypatch.setattr(fitting.loop, "run", keep)
    run = monge.fit("wae-mmd", "digits", config("wae-mmd"), tmp_path / "run", quiet=True)
    x = run.source.train.float() / 255
    assert torch.equal(seen[0].labels, clusters_in(run.model)(x))
    assert torch.equal(clusters_in(Run(run.path).model)(x), seen[0].labels)


def test_labels_are_drawn_in_the_shares_of_the_clusters(run):
    model: Any = run.model
    labels = clusters_in(run.model).of_stored(run.source.train)
    shares = torch.bincount(labels, minlength=4) / len(labels)
    torch.testing.assert_close(model.class_prior.shares, shares)
    torch.testing.assert_close(model.data_classes.shares, shares)


def test_resuming_leads_to_the_same_bits(tmp_path):
    made = config("wae-mmd", 6)
    whole = monge.fit("wae-mmd", "digits", made, tmp_path / "whole", quiet=True)
    half = override(made, "training.steps", 3)
    monge.fit("wae-mmd", "digits", half, tmp_path / "parts", quiet=True)
    parts = monge.fit("wae-mmd", "digits", made, tmp_path / "parts", quiet=True, resume=True)
    for one, two in zip(whole.model.state_dict().values(), parts.model.state_dict().values()):
        assert torch.equal(one, two)


def test_other_data_keep_the_clusters_of_the_run(tmp_path):
    """A run that goes on with data that have changed goes on with the same meaning of a label."""
    x, _ = blobs(200)
    made = config("wae-mmd", 2)
    first = monge.fit("wae-mmd", x, made, tmp_path / "run", quiet=True)
    made = override(made, "training.steps", 4)
    again = monge.fit(
        "wae-mmd", x + 5, made, first.path, quiet=True, resume=True, data_changed=True
    )
    assert torch.equal(clusters_in(first.model).centres, clusters_in(again.model).centres)


def test_samples_need_no_labels(run):
    model: Any = run.model
    x = run.source.test[:6].float() / 255
    labels = clusters_in(run.model)(x)
    assert torch.equal(model.encode(x).mean, model.encode(x, labels).mean)
    assert torch.equal(model.reconstruct(x), model.reconstruct(x, labels))
    one, two = Labelled(x[:3], labels[:3]), Labelled(x[3:], labels[3:])
    assert torch.equal(model.interpolate(x[:3], x[3:], 4), model.interpolate(one, two, 4))
    rows = rows_for(model, run.source.test[:6])
    assert isinstance(rows, Labelled)
    assert torch.equal(rows.labels, labels)
    assert run.sample(3, labels=2).shape == (3, 1, 8, 8)


@pytest.mark.filterwarnings("ignore:the Fréchet distance of")
def test_figures_are_those_of_the_classes_of_the_data(run):
    """Features are those of a classifier of digits, and there is no accuracy of clusters."""
    result = evaluate(run.model, run.source, 150)
    assert "class accuracy" not in result["figures"]
    assert "classes JS" in result["figures"]


def test_draws_of_a_table_have_its_columns_only(tmp_path):
    table = tmp_path / "points.csv"
    x, _ = blobs(60)
    table.write_text("a,b\n" + "\n".join(f"{a},{b}" for a, b in x.tolist()), encoding="utf-8")
    monge.fit("wae-mmd", table, config("wae-mmd"), tmp_path / "run", quiet=True)
    for more, columns in ((["--n", "5"], 2), (["--class", "1", "--n", "5"], 3)):
        out = tmp_path / "draws.csv"
        parse(["sample", str(tmp_path / "run"), "--out", str(out), *more]).run()
        with open(out, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert [len(row) for row in rows] == 6 * [columns]


def test_alpha_gan_finds_clusters_unless_it_is_told_otherwise():
    assert Config.of("alpha-gan").condition == "clusters"
    assert override(Config.of("alpha-gan"), "condition", "none").condition is None
    assert Config.of("alpha-gan", "paper", "mnist").condition is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--clusters", "4"], "`clusters` must be left out without --condition clusters, got 4"),
        (["--condition", "clusters", "--clusters", "1"], "`clusters` must be at least 2, got 1"),
        (
            ["--condition", "clusters", "--clusters", "9999"],
            "`clusters` is 9999, and of the",
        ),
    ],
)
def test_bad_clusters_are_refused(arguments, reason, tmp_path):
    out = tmp_path / "run"
    command = ["train", "wae-mmd", "--data", "digits", "--steps", "2", "--out", str(out)]
    with pytest.raises(ValueError, match=reason):
        parse([*command, *arguments]).run()
    assert not out.exists()


def test_clouds_and_models_without_clusters_are_refused(tmp_path):
    clouds = np.random.default_rng(0).random((20, 16, 3), dtype=np.float32)
    made = Config.of("pointcloud-wae", condition="clusters")
    with pytest.raises(ValueError, match=r"`condition` is clusters, and the elements of cloud"):
        monge.fit("pointcloud-wae", clouds, made, tmp_path / "clouds")

    class Own(nn.Module):
        classes = 4

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x, draws, labels):
            raise NotImplementedError

    with pytest.raises(ValueError, match=r"has no `clusters`, a monge.networks.Clusters\(4, "):
        monge.fit(
            Own(), "digits", Config(condition="clusters", clusters=4), tmp_path / "own", quiet=True
        )


def test_clusters_of_a_model_are_found_again(tmp_path):
    model = monge.fit("wae-mmd", "digits", config("wae-mmd"), tmp_path / "a", quiet=True).model
    source = load(DataConfig("digits"))
    clusters_in(model).centres.zero_()
    find_clusters(model, source.train, 0)
    assert clusters_in(model).centres.any()
