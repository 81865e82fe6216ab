"""Few samples are trained on and evaluated, with figures that are what they are called; large
requests are streamed or refused, and wide tables cost no square of their columns."""

import dataclasses
import math
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import monge
from monge import cli
from monge.builders import build, settle
from monge.config import Config, override
from monge.data import CLOUD, IMAGE, VECTOR, Source
from monge.draws import generator
from monge.evaluation import extractors, figures, frechet
from monge.evaluation.latent import principal_directions
from monge.models import sampling
from monge.recipes.options import ConditionalOptions
from monge.show import comparison, pictures
from monge.show.drawn import Drawn
from monge.training.validation import held_apart

SIZES = (2, 3, 4, 5, 9, 10, 19, 50, 99)
RECIPES = {
    "images": "wae-mmd",
    "labelled": "wae-gan",
    "vectors": "swae",
    "clouds": "pointcloud-wae",
}
SMALL = {"network.filters": (4, 8), "network.hidden": (16,), "network.cloud": (16,)}
LEAST = {
    "precision": 6,
    "recall": 6,
    "density": 6,
    "coverage": 6,
    "network accuracy": 4,
    "near training": 100,
    "KD": 2,
    "1-NN accuracy": 2,
    "FD": 2,
    "FD extrapolated": 20,
    "W2 exact": 1,
    "pixel SW": 1,
    "sharpness": 1,
    "classes JS": 1,
    "MMD-CD": 2,
    "coverage-EMD": 2,
    "points JS": 1,
}


def samples(kind: str, n: int) -> torch.Tensor:
    if kind == "vectors":
        return torch.randn(n, 3)
    if kind == "clouds":
        points = torch.randn(n, 16, 3)
        points -= points.mean(1, keepdim=True)
        return points / points.norm(dim=2).amax(1)[:, None, None]
    return (255 * torch.rand(n, 1, 8, 8)).byte()


def source(kind: str, n: int) -> Source:
    """n training and n other samples to test."""
    of = {"vectors": VECTOR, "clouds": CLOUD}.get(kind, IMAGE)
    labels = torch.arange(n) % 2 if kind == "labelled" else None
    classes = ("even", "odd") if kind == "labelled" else ()
    return Source(kind, of, samples(kind, n), samples(kind, n), labels, labels, classes)


def short(recipe: str, steps: int = 2, **settings) -> Config:
    config = override(Config.of(recipe), "training.steps", steps)
    for name, value in (SMALL | settings).items():
        config = override(config, name, value)
    return config


@pytest.mark.filterwarnings("ignore:the Fréchet distance of")
@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("n", SIZES)
def test_few_samples_are_evaluated(kind, n, monkeypatch):
    """Each figure is finite and is there if and only if there are enough samples for it, its floor
    if there are enough for that; all others are named."""
    monkeypatch.setattr(extractors, "STEPS", 10)
    data, config = source(kind, n), short(RECIPES[kind])
    result = figures.evaluate(build(config, settle(config, data)).eval(), data)
    protocol, found = result["protocol"], result["figures"]
    floor = n // 2 if kind == "labelled" else n
    assert (protocol["n test"], protocol["n floor"]) == (n, floor)
    for name, figure in found.items():
        assert math.isfinite(figure["value"]), name
        assert figure["floor"] is None or math.isfinite(figure["floor"]), name
    left_out, without = protocol.get("left out", ""), protocol.get("without floor", "")
    named = {name.split(" (need")[0] for name in left_out.split(", ")}
    for name in [name for name in LEAST if name in {*found, *named}]:
        assert (name in found) == (n >= LEAST[name]) == (name not in named), name
        if name in found and name != "near training":
            assert (found[name]["floor"] is not None) == (floor >= LEAST[name]), name
            assert (name in without.split(", ")) == (floor < LEAST[name]), name


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_samples_are_trained_on_and_shown(kind, n, tmp_path):
    run = monge.fit(RECIPES[kind], source(kind, n), short(RECIPES[kind]), tmp_path / "run")
    assert run.batch == run.settled.batch == n < run.config.training.batch
    assert {"samples", "reconstructions", "latent_map"} <= set(Drawn(run).pictures())
    if kind != "vectors":
        assert len(comparison.write([run, run], tmp_path / "compared")) == 3


def test_samples_that_are_tested_on_make_no_floor(tmp_path):
    """Otherwise every floor of data of which nothing is held out would be 0."""
    data = source("vectors", 3)
    data = dataclasses.replace(data, test=data.train)
    run = monge.fit("swae", data, short("swae"), tmp_path / "run", quiet=True)
    result = run.evaluate(metrics=["sliced", "exact"])
    assert result["protocol"]["split"] == "train: none is held out"
    assert result["protocol"]["n floor"] == 0
    assert result["figures"]["W2 exact"]["floor"] is None
    assert "W2 exact" in result["protocol"]["without floor"]


@pytest.fixture
def monge_(capsys, monkeypatch):
    """Exit code, stdout and stderr of the command line."""

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["monge", *map(str, argv)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capsys.readouterr()

    return call


@pytest.mark.filterwarnings("ignore:the Fréchet distance of")
@pytest.mark.parametrize("kind", ["images", "vectors", "clouds"])
@pytest.mark.parametrize("n", [2, 3, 9])
def test_every_verb_takes_a_run_on_few_samples(kind, n, monge_, tmp_path):
    file, run = tmp_path / "data.npy", tmp_path / "run"
    np.save(file, samples(kind, n).numpy())
    flags = [f"{name}={','.join(map(str, value))}" for name, value in SMALL.items()]
    code, text, err = monge_(
        "train", RECIPES[kind], "--data", file, "--steps", 2, "--out", run, "--set", *flags
    )
    assert (code, err) == (0, "")
    assert "training samples, fewer than the" in text
    code, text, err = monge_("evaluate", run)
    assert (code, err) == (0, "")
    assert kind == "clouds" or "\nleft out: " in text
    verbs = [("sample", "-n", 3), ("sample", "-n", 3), ("reconstruct",), ("interpolate",)]
    for verb, out in zip(verbs, ("a.png", "a.npy", "b.png", "c.png")):
        code, text, err = monge_(verb[0], run, *verb[1:], "--out", tmp_path / out)
        assert (code, err) == (0, ""), verb
    assert np.load(tmp_path / "a.npy").shape == (3, *samples(kind, 1).shape[1:])
    if kind != "vectors":
        assert monge_("compare", run, run, "--out", tmp_path / "compared")[0] == 0


def test_a_batch_that_was_asked_for_is_not_made_smaller(tmp_path):
    """The recipe's own is, and the run goes on with it."""
    data = source("vectors", 18)
    config = override(short("swae"), "training.batch", 64)
    with pytest.raises(ValueError, match="`batch` is 64 but there are 18 training samples"):
        monge.fit("swae", data, config, tmp_path / "asked", quiet=True)
    assert not (tmp_path / "asked").exists()
    wgan = monge.fit("wgan", data, short("wgan"), tmp_path / "wgan", quiet=True)
    assert (wgan.config.training.batch, wgan.batch) == (64, 18)
    run = monge.fit("swae", data, short("swae", 2), tmp_path / "run", quiet=True)
    longer = monge.fit("swae", data, short("swae", 4), run.path, resume=True, quiet=True)
    whole = monge.fit("swae", data, short("swae", 4), tmp_path / "whole", quiet=True)
    assert longer.batch == 18
    assert longer.metrics()[-1]["loss"] == whole.metrics()[-1]["loss"]
    numbers = whole.summary()
    assert numbers["samples per second"] == 4 * 18 / numbers["training seconds"]


def test_patience_needs_samples_to_hold_apart():
    with pytest.raises(ValueError, match=r"`patience` .* only 3 training samples"):
        held_apart(torch.randn(3, 2), 0)
    assert [len(part) for part in held_apart(torch.randn(4, 2), 0)] == [2, 2]


# Wide tables


def test_the_frechet_distance_of_rows_is_that_of_moments():
    x, y = torch.randn(40, 7, dtype=torch.float64), 2 * torch.randn(31, 7, dtype=torch.float64) + 1
    expected = frechet.frechet_of_moments(frechet.moments(x), frechet.moments(y))
    assert frechet.frechet_of_rows(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore:the Fréchet distance of")
@pytest.mark.parametrize("d", [5, 9000])
def test_the_frechet_distance_of_two_rows_each_has_a_closed_form(d):
    """Covariances u uᵀ and v vᵀ: FD = ‖m‖² + ‖u‖² + ‖v‖² - 2 |u·v|."""
    x, y = torch.randn(2, d, dtype=torch.float64), torch.randn(2, d, dtype=torch.float64)
    u, v, m = (x[0] - x[1]) / 2**0.5, (y[0] - y[1]) / 2**0.5, x.mean(0) - y.mean(0)
    expected = float(m @ m + u @ u + v @ v - 2 * (u @ v).abs())
    assert frechet.frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet.frechet_distance(x, x) == pytest.approx(0, abs=1e-9 * d)


def test_kernels_of_all_subsets_at_once_are_those_of_each(monkeypatch):
    monkeypatch.setattr(frechet, "ROWS", 7)
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randn(25, 4, dtype=torch.float64) + 1
    drawn = torch.Generator().manual_seed(0)
    index = [[torch.randperm(len(z), generator=drawn)[:10] for z in (x, y)] for _ in range(12)]
    each = torch.stack([frechet._estimate(x[i], y[j]) for i, j in index])
    found = frechet.kernel_distance(
        x, y, subsets=12, size=10, generator=torch.Generator().manual_seed(0)
    )
    at_once = frechet._estimates_at_once(x, y, *(torch.stack(one) for one in zip(*index)))
    torch.testing.assert_close(at_once, each, rtol=1e-12, atol=1e-12)
    assert found.value == pytest.approx(float(each.mean()), rel=1e-12)


def test_principal_directions_of_a_wide_table_are_its_singular_vectors():
    codes = torch.randn(6, 40, dtype=torch.float64)
    mean, directions, deviations = principal_directions(codes, 2)
    _, values, rows = torch.linalg.svd(codes - mean, full_matrices=False)
    torch.testing.assert_close(deviations, values[:2] / 5**0.5)
    torch.testing.assert_close((directions @ rows[:2].T).abs(), torch.eye(2).double())


@pytest.mark.filterwarnings("ignore:the Fréchet distance of")
def test_an_evaluation_of_a_wide_table_forms_no_square_of_its_columns():
    """A covariance of 40,000 columns would take 13 GB. Of a model that repeats the training part
    the figures are the floor."""
    x = torch.randn(24, 40_000)
    data = Source("wide", VECTOR, x[:12], x[12:])

    class Repeats(torch.nn.Module):
        def sample(self, n, generator=None):
            return x[:n]

    found = figures.evaluate(Repeats(), data, metrics=["frechet", "kernel", "neighbours"])
    for name in ("FD", "KD", "recall"):
        figure = found["figures"][name]
        assert figure["value"] == pytest.approx(figure["floor"], rel=1e-6), name


# Large requests


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "vectors"
    torch.manual_seed(0)
    return monge.fit("vae", source("vectors", 40), short("vae"), path, quiet=True)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "conditional"
    config = dataclasses.replace(
        short("conditional-wae", **{"network.critic": (8,), "latent": 2}),
        options=ConditionalOptions(known="random"),
    )
    return monge.fit("conditional-wae", "digits", config, path, quiet=True)


def test_draws_in_parts_are_those_of_one_call(vectors, monkeypatch):
    whole = vectors.sample(2300, generator(0, "sample"))
    monkeypatch.setattr(sampling, "CODES", 500)
    assert torch.equal(vectors.sample(2300, generator(0, "sample")), whole)


def test_an_array_is_written_as_it_is_drawn(vectors, conditional, monge_, tmp_path):
    """With the bytes of np.save."""
    for run, n in ((vectors, 1100), (conditional, 7)):
        out = tmp_path / f"{n}.npy"
        assert monge_("sample", run.path, "-n", n, "--out", out)[0] == 0
        expected = tmp_path / "expected.npy"
        np.save(expected, run.sample(n, generator(0, "sample")).numpy())
        assert out.read_bytes() == expected.read_bytes()


def test_completions_in_parts_are_those_of_one_call(conditional, monge_, tmp_path):
    out = tmp_path / "completions.npy"
    assert monge_("complete", conditional.path, "-n", 5, "--samples", 130, "--out", out)[0] == 0
    test = conditional.source.test
    x = test[pictures.spread_over(len(test), 5)].float() / 255
    model = conditional.model
    expected = model.complete(x, 130, generator(0, "complete"), known=model.known(x))
    found = torch.from_numpy(np.load(out)).unflatten(0, (5, 130))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_fails_while_it_is_written_leaves_nothing(vectors, monge_, tmp_path, monkeypatch):
    def few(*_):
        yield torch.zeros(500, 3)

    def failing(*_):
        yield torch.zeros(500, 3)
        raise ValueError("`model` is out of order")

    for drawn, reason in ((few, "returns 500 samples where 900"), (failing, "out of order")):
        monkeypatch.setattr(monge.Run, "samples", drawn)
        folder = tmp_path / "out"
        code, _, err = monge_("sample", vectors.path, "-n", 900, "--out", folder / "x.npy")
        assert (code, err.count("\n")) == (2, 1)
        assert reason in err
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "size"),
    [
        (("sample", "-n", 300_000, "--out", "x.png"), "a picture of 852 × 4,049,988 pixels"),
        (("interpolate", "--frames", 4000, "--out", "x.png"), "a picture of 35,999 × 71 pixels"),
        (("complete", "--samples", 10**6, "--out", "x.png"), "a picture of 9,000,017 × 89 pixels"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_pictures_that_are_too_large_are_refused_before_they_are_drawn(
    verb, size, conditional, monge_, tmp_path, monkeypatch
):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 2_000_000)
    monkeypatch.setattr(type(conditional.model), "decode", lambda *_: pytest.fail("drawn"))
    (*flags, out) = verb
    code, text, err = monge_(flags[0], conditional.path, *flags[1:], tmp_path / out)
    assert (code, text, err.count("\n")) == (2, "", 1)
    assert size in err
    assert "give .npy" in err
    assert not list(tmp_path.iterdir())


def test_plots_and_films_that_are_too_large_are_refused(vectors, monge_, tmp_path):
    out = tmp_path / "x.png"
    code, _, err = monge_("sample", vectors.path, "-n", 2_000_000, "--out", out)
    assert code == 2
    assert "a plot of 2,000,000 points, and at most 1,000,000 of 3 numbers" in err
    clouds = pictures.pictures_of(CLOUD)
    clouds.check_size((16, 3), 64, pictures.TURNING, pictures.TURN)  # what a film holds by default
    with pytest.raises(ValueError, match="36 pictures of 486 × 9,148 pixels"):
        clouds.check_size((16, 3), 300, pictures.TURNING, pictures.TURN)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 20), (1, 64, 70)])
@pytest.mark.parametrize(("count", "columns"), [(1, 8), (8, 8), (13, 5)])
def test_the_size_that_is_checked_is_that_of_the_picture(shape, count, columns, monkeypatch):
    drawn = pictures.ImagePictures(IMAGE).grid(torch.rand(count, *shape), columns)
    assert isinstance(drawn, Image.Image)
    high, wide, scale = pictures.layout(count, columns, *shape[1:])
    assert drawn.size == (wide * scale, high * scale)


# Presets


def test_a_preset_of_images_is_refused_for_other_data(monge_, tmp_path):
    for kind in ("vectors", "clouds"):
        config = Config.of("wae-mmd", "paper", "array")
        with pytest.raises(ValueError, match=f"`preset` paper .* is for images, .* {kind}"):
            monge.fit("wae-mmd", source(kind, 9), config, tmp_path / "run", quiet=True)
        file = tmp_path / f"{kind}.npy"
        np.save(file, samples(kind, 9).numpy())
        flags = ("--preset", "paper", "--data", file, "--out", tmp_path / "run")
        code, _, err = monge_("train", "wae-mmd", *flags)
        assert (code, err.count("\n")) == (2, 1)
        assert "use the preset small" in err
        assert not (tmp_path / "run").exists()
