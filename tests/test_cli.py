"""The command line: what it does, and one line with exit code 2 for whatever it cannot do."""

import json
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import monge
from monge import cli
from monge.config import Config, NetworkConfig, TrainingConfig
from monge.recipes.options import ConditionalOptions
from monge.show.plots import term_names
from monge.transport import sinkhorn_divergence

TINY = ["--set", "network.filters=4,8", "network.critic=16", "--latent", "3", "--batch", "300"]


def run(capsys, monkeypatch, *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line."""
    monkeypatch.setattr(sys, "argv", ["monge", *map(str, argv)])
    monkeypatch.setattr(
        sys.modules["warnings"], "showwarning", sys.modules["warnings"].showwarning
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.fixture
def monge_(capsys, monkeypatch):
    return lambda *argv: run(capsys, monkeypatch, *argv)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small finished run."""
    path = tmp_path_factory.mktemp("runs") / "mmd"
    network = NetworkConfig(filters=(4, 8))
    config = Config(latent=3, network=network, training=TrainingConfig(batch=300, steps=20))
    monge.fit("wae-mmd", "digits", config, path, quiet=True)
    return path


def test_train_makes_a_run_with_everything_in_it(monge_, tmp_path):
    out = tmp_path / "run"
    code, text, err = monge_("train", "aae", "--steps", 4, "--out", out, "--seed", 3, *TINY)
    assert (code, err) == (0, "")
    assert text.splitlines()[-1] == f"report: {out / 'report.html'}"
    names = {p.name for p in out.iterdir()}
    kept = {"config.json", "identity.npy", "metrics.jsonl", "checkpoints", "pictures"}
    assert names == {*kept, "report.html"}
    config = json.loads((out / "config.json").read_text())["config"]
    assert (config["recipe"], config["seed"], config["training"]["steps"]) == ("wae-gan", 3, 4)
    row = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["step"] == 4
    assert {"epoch", "seconds", "reconstruction", "divergence", "inner", "loss"} <= set(row)


def test_resume_goes_on_and_may_train_longer(monge_, tmp_path):
    out = tmp_path / "run"
    assert monge_("train", "swae", "--steps", 3, "--out", out, *TINY)[0] == 0
    assert monge_("train", "--out", out, "--resume", "--steps", 5)[0] == 0
    assert monge.runs.Run(out).metrics()[-1]["step"] == 5
    assert monge_("train", "swae", "--out", out, "--resume", "--epochs", 2)[0] == 0
    assert monge.runs.Run(out).metrics()[-1]["step"] == 10


def test_resume_of_what_was_not_begun_begins_it(monge_, tmp_path):
    out = tmp_path / "run"
    assert monge_("train", "vae", "--steps", 2, "--out", out, "--resume", *TINY)[0] == 0


def test_tables_train_too(monge_, tmp_path):
    random = np.random.default_rng(0)
    table = np.concatenate([random.normal(size=(200, 3)) * [1, 100, 0.01], np.ones((200, 1))], 1)
    np.savetxt(tmp_path / "x.csv", table, delimiter=",", header="a,b,c,d", comments="")
    out = tmp_path / "run"
    argv = ("train", "wae-mmd", "--data", tmp_path / "x.csv", "--steps", 300, "--out", out)
    assert monge_(*argv, "--latent", 3)[0] == 0
    assert monge_("sample", out, "-n", 500, "--out", tmp_path / "s.npy")[0] == 0
    drawn = np.load(tmp_path / "s.npy")
    assert drawn.shape == (500, 4)
    # in the units of the table, column by column
    np.testing.assert_allclose(drawn.std(0)[:3], table.std(0)[:3], rtol=0.35)
    np.testing.assert_allclose(drawn[:, 3], 1, atol=0.2)


def test_sample_reconstruct_interpolate(monge_, trained, tmp_path):
    shapes = {
        ("sample", "-n", 7): (7, 1, 8, 8),
        ("reconstruct", "-n", 5): (5, 1, 8, 8),
        ("sample", "-n", 7, "--sampler", "mixture"): (7, 1, 8, 8),
        ("interpolate", "-n", 3, "--frames", 4): (12, 1, 8, 8),
        ("interpolate", "-n", 3, "--frames", 4, "--path", "spherical"): (12, 1, 8, 8),
        ("traverse", "--index", 2, "--frames", 5): (15, 1, 8, 8),
    }
    for (verb, *options), shape in shapes.items():
        for suffix in (".npy", ".png"):
            out = tmp_path / "deep" / f"{verb}{suffix}"
            code, text, err = monge_(verb, trained, *options, "--out", out)
            assert (code, text.strip(), err) == (0, str(out), "")
        array = np.load(out.with_suffix(".npy"))
        assert (array.shape, array.dtype) == (shape, np.float32)
        assert 0 <= array.min() <= array.max() <= 1
        Image.open(out).verify()


PROGRESS = re.compile(r"(training the classifier .*\n(step .*  left .*\n)*)?")
"""On stderr, where the classifier of the data is not cached yet."""


def test_evaluate_prints_every_figure_with_its_floor(monge_, trained):
    code, text, err = monge_("evaluate", trained, "-n", 100)
    assert code == 0
    assert PROGRESS.fullmatch(err)
    assert "| LeNet-FD |" in text
    assert "n test 100" in text
    page = (trained / "report.html").read_text()
    assert "<h2>Evaluation</h2>" in page
    assert "features: LeNet" in page
    assert monge_("evaluate", trained, "--n", 1)[0] == 2
    assert "using them all" in monge_("evaluate", trained)[1]


def test_evaluate_prints_one_table_of_all_samplers_and_says_which_is_best(monge_, trained):
    code, text, err = monge_("evaluate", trained, "-n", 100, "--sampler", "all")
    assert code == 0
    assert PROGRESS.fullmatch(err)
    assert "| figure | prior | ± | mixture | ± | flow | ± | floor |" in text
    assert re.search("^best sampler by LeNet-FD: (prior|mixture|flow)$", text, re.MULTILINE)
    assert "sampler prior, mixture, flow" in text
    assert monge_("evaluate", trained, "--sampler", "posterior")[0] == 2


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A small run that completes lower halves, and one for any box."""
    found = {}
    network = NetworkConfig(filters=(4, 8), critic=(16,))
    for known in ("top", "random"):
        path = tmp_path_factory.mktemp("runs") / known
        config = Config(
            recipe="conditional-wae",
            options=ConditionalOptions(known=known),
            latent=3,
            network=network,
            training=TrainingConfig(batch=300, steps=20),
        )
        found[known] = monge.fit("conditional-wae", "digits", config, path, quiet=True).path
    return found


def test_complete_shows_the_known_part_completions_and_the_truth(monge_, conditional, tmp_path):
    out = tmp_path / "grid.png"
    code, text, err = monge_("complete", conditional["top"], "--samples", 3, "-n", 4, "--out", out)
    assert (code, text.strip(), err) == (0, str(out), "")
    picture = np.asarray(Image.open(out))
    scale = picture.shape[1] // (5 * 9 - 1)
    assert picture[::scale, ::scale].shape == (4 * 9 - 1, 5 * 9 - 1)
    tiles = [picture[: 8 * scale, 9 * i * scale :][:, : 8 * scale] for i in (0, 1, 4)]
    known, drawn, truth = tiles
    half = 4 * scale
    assert (known[half:] == 128).all()
    np.testing.assert_array_equal(known[:half], truth[:half])
    np.testing.assert_array_equal(drawn[:half], truth[:half])
    assert (drawn[half:] != truth[half:]).any()
    code, _, _ = monge_(
        "complete", conditional["top"], "--samples", 3, "-n", 4, "--out", tmp_path / "drawn.npy"
    )
    assert np.load(tmp_path / "drawn.npy").shape == (12, 1, 8, 8)


def test_a_model_of_random_boxes_completes_any_part(monge_, conditional, tmp_path):
    for known in (["--known", "left"], ["--known", "surround"], []):
        out = tmp_path / "grid.png"
        assert monge_("complete", conditional["random"], *known, "--out", out)[0] == 0


def test_every_verb_takes_a_conditional_run(monge_, conditional, tmp_path):
    for verb in ("sample", "reconstruct", "interpolate", "traverse"):
        out = tmp_path / f"{verb}.png"
        code, text, err = monge_(verb, conditional["top"], "--out", out)
        assert (code, text.splitlines()[-1], err) == (0, str(out), "")
    code, text, _ = monge_("evaluate", conditional["top"], "--metrics", "sharpness")
    assert code == 0
    for figure in ("best of 10", "diversity", "energy score", "joint MMD²", "class agreement"):
        assert f"| {figure} |" in text
    assert (conditional["top"] / "pictures" / "completions.png").exists()


def test_every_verb_takes_a_run_on_clouds(monge_, tmp_path):
    """From arrays with named classes, turned in training, to films, figures and comparisons."""
    drawn = np.random.default_rng(0).uniform(-1, 1, (90, 30, 3))
    drawn[:45] *= [1, 0.2, 0.2]
    np.savez(
        tmp_path / "boxes.npz",
        points=drawn,
        labels=np.repeat([0, 1], 45),
        class_names=np.array(["beam", "cube"]),
        split=np.tile(["train"] * 8 + ["test"], 10),
    )
    out = tmp_path / "run"
    code, _, err = monge_(
        "train",
        "pointcloud-wae",
        "--data",
        tmp_path / "boxes.npz",
        "--classes",
        "cube",
        "beam",
        "--points",
        24,
        "--turn",
        "--jitter",
        0.01,
        "--steps",
        3,
        "--batch",
        20,
        "--latent",
        2,
        "--set",
        "network.points=4,8",
        "network.cloud=8",
        "--out",
        out,
    )
    assert (code, err) == (0, "")
    config = json.loads((out / "config.json").read_text())
    assert config["config"]["data"]["classes"] == ["cube", "beam"]
    assert config["settled"]["shape"] == [24, 3]
    for verb in (["sample", "-n", 4], ["reconstruct", "-n", 4], ["interpolate", "-n", 2]):
        assert monge_(verb[0], out, *verb[1:], "--out", tmp_path / "x.npy")[0] == 0
        assert np.load(tmp_path / "x.npy").shape[1:] == (24, 3)
    for verb in ("sample", "interpolate"):
        assert monge_(verb, out, "-n", 4, "--out", tmp_path / f"{verb}.gif")[0] == 0
        with Image.open(tmp_path / f"{verb}.gif") as film:
            assert film.n_frames > 8
    assert monge_("traverse", out, "--out", tmp_path / "x.png")[0] == 0
    code, text, err = monge_("evaluate", out)
    assert (code, err) == (0, "")
    assert "1-NNA-EMD" in text
    code, _, err = monge_("compare", out, out, "--out", tmp_path / "both")
    assert (code, err) == (0, "")


def test_a_seed_gives_the_same_first_samples_for_every_n(monge_, trained, tmp_path):
    for n in (3, 9):
        monge_("sample", trained, "-n", n, "--seed", 5, "--out", tmp_path / f"{n}.npy")
    few, many = np.load(tmp_path / "3.npy"), np.load(tmp_path / "9.npy")
    np.testing.assert_allclose(few, many[:3], atol=1e-6)


def test_more_than_the_test_part_holds_uses_it_all_and_says_so(monge_, trained, tmp_path):
    out = tmp_path / "r.npy"
    code, text, _ = monge_("reconstruct", trained, "-n", 1000, "--out", out)
    assert code == 0
    assert "has 297 samples" in text
    assert len(np.load(out)) == 297


def test_compare_makes_a_figure_and_a_table(monge_, trained, tmp_path):
    out = tmp_path / "out"
    code, text, _ = monge_("compare", trained, trained, "--out", out)
    assert code == 0
    Image.open(out / "compare.png").verify()
    assert "| test reconstruction |" in (out / "compare.md").read_text()
    assert text.startswith((out / "compare.md").read_text())
    table = json.loads((out / "compare.json").read_text())
    assert [row["figures"]["steps"]["value"] for row in table] == [20, 20]


def test_compare_averages_runs_that_differ_in_their_seeds_alone(monge_, tmp_path):
    paths = []
    for name, options in {"a": ["--seed", 0], "b": ["--seed", 1], "c": ["--weight", 5]}.items():
        paths.append(tmp_path / name)
        assert monge_("train", "swae", "--steps", 3, "--out", paths[-1], *options, *TINY)[0] == 0
    code, _, err = monge_("compare", *paths, "--out", tmp_path / "out")
    assert not code
    assert "have no figures of samples, which monge evaluate RUN adds" in err
    both, alone = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (both["runs"], alone["runs"]) == (["a", "b"], ["c"])
    each = [monge.Run(path).summary()["test reconstruction"] for path in paths]
    found = both["figures"]["test reconstruction"]
    assert found["value"] == pytest.approx(np.mean(each[:2]))
    assert found["deviation"] == pytest.approx(np.std(each[:2], ddof=1))
    assert alone["figures"]["test reconstruction"]["deviation"] is None
    text = (tmp_path / "out" / "compare.md").read_text()
    assert text.count("**") == 2
    assert "±" in text


def test_the_report_is_one_page_that_needs_nothing_else(trained):
    page = (trained / "report.html").read_text()
    for part in (
        "curves",
        "reconstructions",
        "samples",
        "interpolations",
        "traversals",
        "latent map",
        "neighbours",
    ):
        assert f"<h2>{part}</h2>" in page
    assert 'src="http' not in page
    assert "href" not in page
    # the map and the curves are SVG; real samples stand beside the model's
    assert page.count("data:image/png;base64,") == 6
    assert page.count("<svg") == 1 + len(term_names(monge.Run(trained).metrics()))


def test_lists(monge_):
    code, text, _ = monge_("recipes")
    assert code == 0
    assert "wae-gan, aae" in text
    assert "mnist" in monge_("data")[1]


def test_distance(monge_, tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 2))
    np.save(tmp_path / "x.npy", x)
    np.savetxt(tmp_path / "y.csv", x[:200] + np.array([3.0, 4.0]), delimiter=",")
    code, text, _ = monge_("distance", tmp_path / "x.npy", tmp_path / "y.csv", "--json")
    result = json.loads(text)
    assert code == 0
    assert (result["n"], result["m"], result["d"]) == (300, 200, 2)
    assert result["value"] == pytest.approx(5 / 2**0.5, rel=0.05)
    text = monge_("distance", tmp_path / "x.npy", tmp_path / "y.csv", "--method", "mmd", "--json")[
        1
    ]
    assert json.loads(text)["value"] > 1


@pytest.mark.parametrize("method", cli.distance.METHODS)
def test_every_distance_of_a_translation(monge_, tmp_path, method):
    """W_p and the worst slice are the translation's length 5, SW_2 is 5/√2, the divergences have
    their closed forms, and Gromov-Wasserstein does not see it."""
    x = np.random.default_rng(0).normal(size=(60, 2))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", x + np.array([3.0, 4.0]))
    argv = ("distance", tmp_path / "x.npy", tmp_path / "y.npy", "--method", method, "--json")
    code, text, err = monge_(*argv)
    result = json.loads(text)
    assert (code, err, result["method"], result["n"]) == (0, "", method, 60)
    known = {"exact": 5, "w1": 5, "sliced": 5 / 2**0.5, "max-sliced": 5, "sinkhorn": 25}
    if method == "gromov":
        assert result["value"] == pytest.approx(0, abs=1e-6)
    elif method in known:
        assert result["value"] == pytest.approx(known[method], rel=0.05)
    else:
        assert result["value"] > 1
    assert "standard_error" in result or method != "sliced"
    assert "marginal_error" in result or method != "sinkhorn"


def test_a_distance_with_reach_keeps_masses_and_leaves_outliers_out(tmp_path, monge_):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 2)), random.normal(size=(50, 2))
    x[:3] += 1e3
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "w.npy", np.full(60, 1 / 60))
    argv = ["distance", tmp_path / "x.npy", tmp_path / "y.npy", "--method", "sinkhorn", "--json"]
    argv += ["--epsilon", "0.2"]
    balanced, robust = (
        json.loads(monge_(*argv, *more)[1])
        for more in ([], ["--reach", "1", "--weights-a", tmp_path / "w.npy"])
    )
    assert balanced["value"] > 1e4
    expected = sinkhorn_divergence(
        torch.from_numpy(x), torch.from_numpy(y), epsilon=0.2, reach=1.0
    )
    assert robust["value"] == pytest.approx(float(expected), rel=1e-3)
    assert robust["reach"] == 1
    assert 0.5 < robust["mass"] < 1


def bad_commands(trained, tmp_path):
    """name: (arguments, what the message must name)."""
    out = ["--out", tmp_path / "new"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "mixed").mkdir()
    for i, size in enumerate([(8, 8)] * 4 + [(9, 9)]):
        Image.new("L", size).save(tmp_path / "mixed" / f"{i}.png")
    Image.new("L", (8, 8), 255).save(tmp_path / "white.png")
    np.save(tmp_path / "small.npy", np.zeros((10, 2)))
    np.save(tmp_path / "wide.npy", np.zeros((10, 3)))
    np.save(tmp_path / "nan.npy", np.full((10, 2), np.nan))
    return {
        "unknown class": (["train", "vae", "--classes", "ten", *out], "`classes` 'ten'"),
        "turned images": (["train", "vae", "--turn", *out], "`turn`"),
        "jitter below 0": (["train", "vae", "--jitter", "-1", *out], "`jitter`"),
        "images that turn": (["sample", trained, "--out", tmp_path / "x.gif"], "`out` .gif"),
        "unknown verb": (["fly"], "fly"),
        "unknown flag": (["train", "vae", "--wings", "2"], "--wings"),
        "wrong type": (["train", "vae", "--steps", "many"], "--steps"),
        "missing out": (["sample", trained], "--out"),
        "unknown recipe": (["train", "wae-xyz", *out], "`recipe`.*wae-mmd.*'wae-xyz'"),
        "no recipe": (["train", *out], "`recipe` is missing"),
        "unknown preset": (["train", "vae", "--preset", "huge", *out], "`preset`"),
        "missing path": (["train", "vae", "--data", tmp_path / "none", *out], "none"),
        "missing sample": (["distance", tmp_path / "none.npy", tmp_path / "b.npy"], "not there"),
        "empty folder": (["train", "vae", "--data", tmp_path / "empty", *out], "holds no images"),
        "image sizes": (["train", "vae", "--data", tmp_path / "mixed", *out], "give --size"),
        "huge images": (
            ["train", "vae", "--data", tmp_path / "mixed", "--size", "100000", *out],
            "`size` must be at most 512 pixels a side, got 100000",
        ),
        "large batch": (["train", "vae", "--batch", "5000", *out], "`batch` is 5000"),
        "batch of one": (["train", "vae", "--batch", "1", *out], "`batch`"),
        "negative epochs": (["train", "vae", "--epochs", "-3", *out], "`epochs`.*-3"),
        "zero steps": (["train", "vae", "--steps", "0", *out], "`steps`.*0"),
        "both": (["train", "vae", "--steps", "3", "--epochs", "3", *out], "beside `steps`"),
        "nan rate": (["train", "vae", "--lr", "nan", *out], "`lr`"),
        "negative weight": (["train", "wae-mmd", "--weight", "-1", *out], "`weight`"),
        "bad setting": (["train", "vae", "--set", "training.speed=3", *out], "speed"),
        "bad setting value": (["train", "vae", "--set", "training.lr=fast", *out], "'fast'"),
        "setting without value": (["train", "vae", "--set", "seed", *out], "a.b=c"),
        "device": (["train", "vae", "--device", "abacus", *out], "`device`.*'abacus'"),
        "existing run": (["train", "vae", "--out", trained], "exists already.*--resume"),
        "resume nothing": (["train", "vae", "--resume"], "give --out"),
        "resume changed": (
            ["train", "wae-mmd", "--out", trained, "--resume", "--seed", "9"],
            "settings of seed",
        ),
        "resume another recipe": (
            ["train", "vae", "--out", trained, "--resume"],
            "settings of recipe",
        ),
        "unwritable": (["train", "vae", "--out", tmp_path / "file" / "run"], "cannot be written"),
        "proc": (["train", "vae", "--out", "/proc/monge-run"], "cannot be written"),
        "no run": (["sample", tmp_path / "none", "--out", "x.png"], "not a run directory"),
        "suffix": (["sample", trained, "--out", tmp_path / "x.jpg"], ".png or .npy or .gif"),
        "no samples": (["sample", trained, "-n", "0", "--out", tmp_path / "x.png"], "`n`"),
        "other shape": (
            ["reconstruct", trained, "--out", "x.png", "--data", tmp_path / "small.npy"],
            "vector 2 in place of image 1×8×8",
        ),
        "one frame": (
            ["interpolate", trained, "--frames", "1", "--out", tmp_path / "x.png"],
            "`frames`",
        ),
        "complete without a part": (
            ["complete", trained, "--out", tmp_path / "x.png"],
            "of wae-mmd.*conditional-wae",
        ),
        "everything known": (
            ["train", "conditional-wae", "--known", tmp_path / "white.png", *out],
            "all of it is known",
        ),
        "mask of another size": (
            ["train", "conditional-wae", "--known", tmp_path / "mixed" / "4.png", *out],
            "9 × 9 pixels",
        ),
        "unknown part": (["train", "conditional-wae", "--known", "up", *out], "`known` 'up'"),
        "wrong weights": (
            ["evaluate", trained, "--inception-weights", tmp_path / "file"],
            "has the sha256",
        ),
        "unknown metrics": (["evaluate", trained, "--metrics", "fid"], "`metrics`.*'fid'"),
        "compare nothing": (["compare", "--out", tmp_path / "x"], "runs"),
        "distance of nan": (["distance", tmp_path / "nan.npy", tmp_path / "small.npy"], "finite"),
        "distance of text": (["distance", tmp_path / "file", tmp_path / "small.npy"], "file"),
        "distance shapes": (
            ["distance", tmp_path / "small.npy", tmp_path / "wide.npy"],
            "samples of 3 numbers",
        ),
        "distance epsilon": (
            [
                "distance",
                tmp_path / "small.npy",
                tmp_path / "small.npy",
                "--method",
                "sinkhorn",
                "--epsilon",
                "-1",
            ],
            "`epsilon`",
        ),
        "distance reach": (
            [
                "distance",
                tmp_path / "small.npy",
                tmp_path / "small.npy",
                "--method",
                "exact",
                "--reach",
                "1",
            ],
            "`--reach` is for sinkhorn",
        ),
        "distance p": (
            ["distance", tmp_path / "small.npy", tmp_path / "small.npy", "--p", "0.5"],
            "`p`",
        ),
    }


BAD = (
    "unknown class",
    "turned images",
    "jitter below 0",
    "images that turn",
    "unknown verb",
    "unknown flag",
    "wrong type",
    "missing out",
    "unknown recipe",
    "no recipe",
    "unknown preset",
    "missing path",
    "missing sample",
    "empty folder",
    "image sizes",
    "huge images",
    "large batch",
    "batch of one",
    "negative epochs",
    "zero steps",
    "both",
    "nan rate",
    "negative weight",
    "bad setting",
    "bad setting value",
    "setting without value",
    "device",
    "existing run",
    "resume nothing",
    "resume changed",
    "resume another recipe",
    "unwritable",
    "proc",
    "no run",
    "complete without a part",
    "everything known",
    "mask of another size",
    "unknown part",
    "wrong weights",
    "unknown metrics",
    "suffix",
    "no samples",
    "other shape",
    "one frame",
    "compare nothing",
    "distance of nan",
    "distance of text",
    "distance reach",
    "distance p",
    "distance shapes",
    "distance epsilon",
)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_exit_code_two_and_nothing_written(
    monge_, trained, tmp_path, name, monkeypatch
):
    argv, named = bad_commands(trained, tmp_path)[name]
    monkeypatch.chdir(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (*tmp_path.rglob("*"), *trained.rglob("*"))}
    code, out, err = monge_(*argv)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("monge: error: ")
    assert __import__("re").search(named, err), err
    assert "Traceback" not in out + err
    assert {p: p.stat().st_mtime_ns for p in (*tmp_path.rglob("*"), *trained.rglob("*"))} == before


def test_every_bad_command_is_tried(trained, tmp_path):
    assert set(BAD) == set(bad_commands(trained, tmp_path))


def damage(path, name, content):
    (path / name).write_text(content)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"recipe": "vae", "version": "9.1.0"}', "made by monge 9.1.0"),
        ('{"recipe": "vae"}', "made by monge None"),
        ('{"recipe": "vae", "wings": 2, "version": "0.1.0"}', "wings"),
        ("{", "config.json that cannot be used: not JSON"),
        ("[]", "config.json that cannot be used: it holds a list"),
    ],
)
def test_a_run_of_another_version_or_with_a_damaged_config_is_refused(
    monge_, tmp_path, content, named
):
    (tmp_path / "config.json").write_text(content)
    for argv in (
        ("sample", tmp_path, "--out", tmp_path / "x.png"),
        ("train", "vae", "--out", tmp_path, "--resume"),
    ):
        code, _, err = monge_(*argv)
        assert (code, len(err.splitlines())) == (2, 1)
        assert named in err


def test_a_damaged_checkpoint_is_named(monge_, trained, tmp_path):
    import shutil

    run = shutil.copytree(trained, tmp_path / "run")
    file = next(run.glob("checkpoints/*/model.safetensors"))
    content = bytearray(file.read_bytes())
    content[1000] ^= 4
    file.write_bytes(content)
    code, _, err = monge_("sample", run, "--out", tmp_path / "x.png")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "model.safetensors is damaged" in err
    assert not (tmp_path / "x.png").exists()


def test_a_run_that_fails_says_where_and_exits_with_one(monge_, tmp_path):
    out = tmp_path / "run"
    argv = ("train", "wae-mmd", "--steps", 50, "--out", out, "--lr", "1e30", *TINY)
    code, _, err = monge_(*argv)
    assert (code, len(err.splitlines())) == (1, 1)
    assert __import__("re").search(r"monge: error: step \d+: the term '\w+' is (nan|inf)", err)


def test_help_is_instant_and_without_torch():
    script = (
        "import sys; sys.argv = ['monge', '--help']\n"
        "from monge import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "train" in done.stdout


def test_importing_the_library_costs_little_beside_torch():
    """`import monge` loads no torch at all; everything below it, little more than torch."""
    script = "import monge, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
    light = "import torch, monge, monge.models, monge.recipes, monge.transport, sys\n"
    light += "assert not {'sklearn', 'scipy', 'matplotlib', 'ot', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", light], check=True)


def test_python_dash_m_is_the_same_program():
    done = subprocess.run(
        [sys.executable, "-m", "monge", "recipes"], capture_output=True, text=True, check=True
    )
    assert "wae-mmd" in done.stdout


def test_distance_reads_images_in_one_range(monge_, tmp_path):
    """uint8 images and the same as floats in [0, 1] are the same sample."""
    x = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4)).astype(np.uint8)
    np.save(tmp_path / "bytes.npy", x)
    np.save(tmp_path / "floats.npy", x / 255)
    text = monge_("distance", tmp_path / "bytes.npy", tmp_path / "floats.npy", "--json")[1]
    assert json.loads(text)["value"] < 1e-6


def test_columns_of_tables_are_matched_by_their_names(monge_, tmp_path):
    """Whichever order the files have them in; columns of other names by their order, with a
    warning."""
    x = np.random.default_rng(0).normal(size=(30, 3)) * [1, 10, 100]
    files = {"a": ("u,v,w", [0, 1, 2]), "b": ("w,u,v", [2, 0, 1]), "c": ("u,v,x", [0, 1, 2])}
    for name, (head, order) in files.items():
        rows = x[:, order] + (name != "a")
        np.savetxt(tmp_path / f"{name}.csv", rows, delimiter=",", header=head, comments="")
    a, b, c = (tmp_path / f"{name}.csv" for name in files)
    how = ("--method", "exact", "--json")
    _, text, _ = monge_("distance", a, b, *how, "--map", tmp_path / "map.npy")
    assert json.loads(text)["value"] == pytest.approx(3**0.5)
    np.testing.assert_allclose(np.load(tmp_path / "map.npy"), x + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _, text, err = monge_("distance", a, c, *how)
    assert "has a column 'x' where" in err
    assert json.loads(text)["value"] == pytest.approx(3**0.5)


def test_samples_that_are_not_finite_are_not_written(monge_, trained, tmp_path, monkeypatch):
    bad = torch.full((64, 1, 8, 8), float("nan"))
    monkeypatch.setattr(monge.runs.Run, "samples", lambda *_: iter([bad]))
    code, _, err = monge_("sample", trained, "--out", tmp_path / "y.npy")
    assert code == 2
    assert "gives samples with NaN or infinity: has the training diverged" in err
    assert not (tmp_path / "y.npy").exists()


def test_reconstruct_takes_the_data_of_an_array_from_a_file_and_remembers_it(monge_, tmp_path):
    array = np.random.default_rng(0).random((40, 3), dtype=np.float32)
    config = Config(latent=2, training=TrainingConfig(batch=10, steps=2))
    monge.fit("swae", array, config, tmp_path / "run", quiet=True)
    np.save(tmp_path / "x.npy", array)
    out = ("--out", tmp_path / "y.npy")
    code, _, err = monge_("reconstruct", tmp_path / "run", *out)
    assert code == 2
    assert "was fitted to an array" in err
    assert monge_("reconstruct", tmp_path / "run", *out, "--data", tmp_path / "x.npy")[0] == 0
    assert monge_("reconstruct", tmp_path / "run", *out)[0] == 0
    np.save(tmp_path / "x.npy", array + 1)
    code, _, err = monge_("reconstruct", tmp_path / "run", *out)
    assert code == 2
    assert "added 0, removed 0, changed 40" in err
    assert monge_("reconstruct", tmp_path / "run", *out, "--data-changed")[0] == 0


def test_distance_says_which_columns_it_leaves_out(tmp_path, monge_):
    """Labels and an index are no numbers of a sample; their names may be those of measurements."""
    tables = {
        "a.csv": (",x,label\n0,1.5,3\n1,2.5,4\n2,4.0,4\n", "column 'label', the index column"),
        "b.csv": ("x,class,Label\n1.5,3,0\n2.5,4,1\n", "column 'class', column 'Label'"),
        "c.csv": ("x\n1.5\n2.5\n", None),
    }
    for name, (text, _) in tables.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name, (_, left) in tables.items():
        files = str(tmp_path / name), str(tmp_path / "c.csv")
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            code, out, err = monge_("distance", *files, "--method", "exact", "--json")
        assert code == 0
        assert json.loads(out)["d"] == 1
        assert err.count("\n") == (left is not None)
        assert left is None or f"{left} left out" in err
