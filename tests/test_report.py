"""The report: what it says of a model, of its curves and figures, and that its page is whole."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from explored import small

from monge.draws import generator
from monge.models import matchings
from monge.priors import Gaussian
from monge.show import readings, vector, words
from monge.show.codemap import COLOURS, HIGHLIGHTED, code_map
from monge.show.drawn import shown_columns, shown_labels
from monge.show.plots import terms


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    settings = {"latent": 3, "training.steps": 20}
    return {
        "mmd": small("wae-mmd", "digits", folder / "mmd", **settings),
        "critic": small("wae-gan", "digits", folder / "critic", condition="labels", **settings),
        "sliced": small("swae", "digits", folder / "sliced", **settings),
        "generator": small("swg", "digits", folder / "generator", **settings),
        "flow": small("flow-matching", "digits", folder / "flow", **{"training.steps": 5}),
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "mmd",
            r"into a code of 3 numbers.* Gaussian prior in 3 dimensions with a kernel distance",
        ),
        ("critic", r"with a critic network.*conditioned on the class of each image, one of 10"),
        ("generator", r"^A generator: .*sliced Wasserstein"),
        ("flow", r"^A flow: .*velocity"),
    ],
)
def test_a_model_is_described(runs, name, said):
    assert re.search(said, words.described(runs[name]))


def test_the_level_of_an_unbiased_estimate_is_zero_and_its_noise_is_measured(runs):
    """Between two batches of the prior MMD² has mean 0; two deviations are those of many draws."""
    level = words.levels(runs["mmd"])["divergence"]
    assert abs(level.value) <= level.noise
    run, prior = runs["mmd"], runs["mmd"].model.prior
    (matching,) = matchings(run.model)
    values = [
        float(matching.divergence(*(prior.sample(run.batch, generator(i, j)) for j in (0, 1))))
        for i in range(50)
    ]
    expected = 2 * torch.tensor(values).std()
    assert expected / 3 < level.noise < 3 * expected  # of four draws
    said = words.meaning("divergence", run.model, level)
    assert "crosses zero" in said
    assert "unbiased" in said


def test_the_levels_of_critics_are_known_and_those_of_biased_estimates_are_not_zero(runs):
    """log 2 where a critic cannot tell; a sliced distance of two batches is its noise floor."""
    levels = words.levels(runs["critic"])
    assert levels["divergence"].value == pytest.approx(math.log(2))
    assert levels["inner"].value == pytest.approx(2 * math.log(2))
    assert "0.693" in words.meaning("divergence", runs["critic"].model, levels["divergence"])
    for name in ("sliced", "generator"):
        level = words.levels(runs[name])["divergence"]
        assert level.value > level.noise > 0
        assert "noise floor" in words.meaning("divergence", runs[name].model, level)
    assert words.levels(runs["flow"]) == {}


def test_levels_leave_the_global_generator_alone(runs):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    words.levels(runs["sliced"])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("name", "value", "floor", "grade"),
    [
        ("pixel SW", 1.4, 1.0, "good"),
        ("pixel SW", 3.9, 1.0, "fair"),
        ("LeNet-FD", 4.1, 1.0, "poor"),
        ("precision", 0.96, 1.0, "good"),
        ("precision", 0.81, 1.0, "fair"),
        ("recall", 0.1, 1.0, "poor"),
        ("sharpness", 0.92, 1.0, "good"),
        ("sharpness", 1.25, 1.0, "fair"),
        ("1-NN accuracy", 0.9, 0.5, "poor"),
        ("W1 of income", 0.5, 1.0, "good"),
        ("TV of country", 1.6, 1.0, "fair"),
        ("3 d SW²", 4.1, 1.0, "poor"),
        ("KD", 0.3, -0.1, ""),
        ("pixel SW", 1.0, None, ""),
        ("pixel SW", math.nan, 1.0, ""),
    ],
)
def test_figures_are_read_beside_their_floors(name, value, floor, grade):
    figure = {"value": value, "deviation": None, "floor": floor}
    assert readings.of_figure(name, figure).grade == grade


def test_a_summary_is_read(runs):
    """The share of variance that reconstructions keep, by its definition, and the deviation of
    the MMD² of two samples of the prior, by simulation."""
    run = runs["mmd"]
    numbers = run.summary()
    found = readings.of_summary(run, numbers)
    x = run.source.test.flatten(1).double() / (255 if run.source.test.dtype == torch.uint8 else 1)
    kept = 1 - numbers["test reconstruction"] / float((x - x.mean(0)).square().sum(1).mean())
    assert f"explains {max(kept, 0):.0%} of" in found["test reconstruction"].text
    assert found["MMD² of codes"].grade in ("good", "fair", "poor")


def test_codes_of_the_prior_are_read_as_good(runs):
    noise = readings._deviation(runs["mmd"], 500, 0.0)
    numbers = {"MMD² of codes": 2 * noise, "n of codes": 500, "noise floor": 0.0}
    assert readings.of_summary(runs["mmd"], numbers)["MMD² of codes"].grade == "good"
    numbers["MMD² of codes"] = 100 * noise
    assert readings.of_summary(runs["mmd"], numbers)["MMD² of codes"].grade == "poor"


def test_all_classes_are_shown_or_some_of_all(runs):
    assert shown_labels(runs["critic"]).unique().tolist() == list(range(10))
    assert shown_labels(runs["mmd"]) is None

    class Settled:
        kind = "image"
        classes = tuple(map(str, range(300)))

    class Many:
        settled = Settled()

    labels = shown_labels(Many())  # type: ignore[arg-type]
    assert len(labels.unique()) == 64
    assert (labels.min(), labels.max()) == (0, 299)
    assert shown_columns(labels) == 16


@pytest.mark.parametrize("count", [1, 10, 45])
def test_the_map_has_a_mark_of_every_class_and_few_colours(count):
    """All of ten classes are in colour, a few of 45; no two have the same colour."""
    codes = Gaussian(3).sample(900, generator(0))
    labels = torch.arange(900) % count
    names = [chr(0x41 + k) if k < 26 else chr(0x61 + k - 26) for k in range(count)]
    shown = code_map(codes, Gaussian(3).sample(500, generator(1)), labels, names)
    assert shown.letters
    colours = shown.colours().values()
    assert len(set(colours)) == len(colours) == (count if count <= len(COLOURS) else HIGHLIGHTED)
    drawn = vector.latent_map(shown)
    assert [int(k) for k in re.findall(r'data-label="(\d+)"', drawn)] == list(range(count))
    assert f">{names[-1]}</text>" in drawn
    assert 'class="prior"' in drawn


SEEN = {
    "normal": np.eye(3),
    "without long cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "without middle cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "without short cones": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Matrices of linear RGB: Machado, Oliveira, Fernandes, "A physiologically-based model for
simulation of color vision deficiency", 2009."""
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


@pytest.mark.parametrize("matrix", SEEN.values(), ids=SEEN)
def test_colours_of_classes_are_told_apart_with_any_colour_vision(matrix):
    """Any two differ by at least 16 in CIELAB, as seen by that kind of vision."""
    colours = np.array([[int(one[i : i + 2], 16) for i in (1, 3, 5)] for one in COLOURS]) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    xyz = (linear @ np.transpose(matrix)).clip(0, 1) @ TO_XYZ.T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    pairs = zip(f.T, f.T[1:])
    (red, blue) = (factor * (one - two) for factor, (one, two) in zip((500, 200), pairs))
    lab = np.stack([116 * f[:, 1] - 16, red, blue], 1)
    away = np.linalg.norm(lab[:, None] - lab, axis=-1)
    assert away[~np.eye(len(COLOURS), dtype=bool)].min() > 16


def test_the_explorer_has_the_same_colours():
    text = (Path(vector.__file__).parent / "explore/static/draw.js").read_text("utf-8")
    assert re.findall(r'"(#[0-9a-f]{6})"', text) == list(COLOURS)


def test_names_of_classes_and_terms_are_no_markup():
    """A stranger's names are texts in the SVG as in the page."""
    codes, labels = torch.randn(20, 2), torch.arange(20) % 2
    shown = code_map(codes, None, labels, ["<script>", '"&'])
    drawn = vector.latent_map(shown)
    assert "<script>" not in drawn
    assert "&lt;script&gt;" in drawn
    (term,) = terms([{"step": i, "epoch": 0.0, "seconds": 0.0, '"><b>': 1.0} for i in range(3)])
    assert "<b>" not in vector.curve(term, None)


@pytest.mark.parametrize("n", [1, 2, 3, 1000])
def test_a_running_mean_of_any_log(n):
    """The mean is that of the neighbours on both sides, as many as there are at the ends."""
    rows = [{"step": i, "epoch": 0.0, "seconds": 0.0, "loss": float(i * i)} for i in range(n)]
    (term,) = terms(rows)
    reach = min(25, n // 5) // 2
    for i in {0, n // 2, n - 1}:
        r = min(i, n - 1 - i, reach)
        expected = sum(j * j for j in range(i - r, i + r + 1)) / (2 * r + 1)
        assert term.means[i] == pytest.approx(expected)
    assert "NaN" not in vector.curve(term, words.NoiseLevel(0.5, 0.1)).replace("nan", "NaN")


@pytest.mark.parametrize("name", ["mmd", "critic", "generator", "flow"])
def test_every_picture_has_a_text_and_the_page_is_small_and_whole(runs, name):
    page = runs[name].report.read_text("utf-8")
    assert len(page) < 3e6
    assert 'alt=""' not in page
    assert re.findall(r"<img(?![^>]*\balt=)", page) == []
    assert page.count("<svg") == page.count('role="img" aria-label="')
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert not re.search(r"https?://", page)


def test_a_class_conditional_report_says_why_classes_are_not_apart(runs):
    page = runs["critic"].report.read_text("utf-8")
    assert "Classes overlap, as they should" in page
    assert page.count("samples above real ones") == 10
    assert "Classes overlap" not in runs["mmd"].report.read_text("utf-8")
