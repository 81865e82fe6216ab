"""Rows and strangers' rows: whole, buildable, and refused in one line where they are wrong."""

import dataclasses
import importlib.metadata
import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

import monge
from monge import cli
from monge._core.fields import leaves
from monge._core.references import resolve
from monge.builders import build, settled
from monge.builders.settle import with_tuned
from monge.config import Config, override
from monge.data.kinds import KINDS
from monge.recipes import RECIPES, Recipe, find
from monge.recipes.options import NoOptions

ROOT = Path(__file__).parents[1]
EACH = pytest.mark.parametrize("row", RECIPES.values(), ids=RECIPES)
SHAPES = {"image": (1, 8, 8), "vector": (5,), "cloud": (16, 3)}


@EACH
def test_a_row_is_whole(row):
    """Its function exists, its options check themselves and are documented, its settings are
    settings, under every preset and for every published data set."""
    assert inspect.isfunction(resolve(row.build, "build"))
    row.options().check()
    assert set(row.option_names) == set(cli.help.documented(row.options)) | set()
    Config.of(row.name).check()
    with_tuned(Config.of(row.name), "image", (1, 28, 28)).check()
    for preset in row.presets:
        for data in ("mnist", "faces.zip"):
            assert Config.of(row.name, preset, data).check().preset == preset
    assert row.paper
    assert len(row.line) < 90
    assert (row.weight is None) == ("weight" not in row.option_names)


TUNED = [row.name for row in RECIPES.values() if row.tuned]


@pytest.mark.parametrize("recipe", TUNED)
def test_small_images_are_trained_as_the_recipe_is_tuned_whatever_they_are_called(recipe):
    config = with_tuned(Config.of(recipe, data="letters.zip"), "image", (1, 28, 28))
    asked = leaves(config)
    for name, value in find(recipe).tuned.items():
        assert asked[name if name in asked else f"options.{name}"] == value


@pytest.mark.parametrize(
    ("kind", "shape"), [("image", (1, 8, 8)), ("image", (3, 64, 64)), ("vector", (20,))]
)
def test_other_data_are_not(kind, shape):
    config = with_tuned(Config.of("wae-mmd", data="mnist"), kind, shape)
    rates = config.training.lr, config.training.inner_lr, config.training.schedule
    assert rates == (1e-3, 5e-4, "constant")
    assert config.latent is config.options.weight is None


def test_what_was_asked_for_stays():
    asked = Config.of("wae-mmd", latent=3, weight=2.0, **{"training.lr": 1e-2})
    config = with_tuned(asked, "image", (1, 28, 28))
    assert (config.latent, config.options.weight, config.training.lr) == (3, 2.0, 1e-2)
    asked = override(Config.of("wae-mmd", "paper", "mnist"), "training.schedule", None)
    assert with_tuned(asked, "image", (1, 28, 28)).training.schedule == "constant"
    assert with_tuned(Config.of("wae-mmd", prior="ring"), "image", (1, 28, 28)).latent is None
    assert with_tuned(Config.of("wae-mmd", sigma=0.1), "image", (1, 28, 28)).options.cost is None


def test_weights_are_scaled_to_the_size_of_small_images():
    """A cost is a sum over the elements: λ grows with √d."""
    weights = [
        with_tuned(Config.of("wae-mmd"), "image", (channels, 28, 28)).options.weight
        for channels in (1, 4)
    ]
    assert weights[1] == pytest.approx(2 * weights[0])


@pytest.mark.parametrize("recipe", [name for name in TUNED if "scale" in find(name).option_names])
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8)])
def test_the_weight_follows_the_scale_of_the_cost(recipe, shape):
    """Otherwise `--scale` would change what is minimised, not only its units."""

    def weight(scale: float) -> float:
        config = with_tuned(Config.of(recipe, scale=scale), "image", shape)
        return settled(config, "image", shape, samples=100).weight

    assert weight(0.05) == pytest.approx(0.05 * weight(1.0), abs=1e-3)


@EACH
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_recipe_builds_on_what_it_needs_and_refuses_the_rest_by_name(row, kind):
    config = Config.of(row.name)
    facts = settled(config, kind, SHAPES[kind.name], samples=100)
    if all(getattr(kind, need) for need in row.needs):
        assert isinstance(build(config, facts), nn.Module)
    else:
        with pytest.raises(ValueError, match=f"`recipe` {row.name} needs .*; got {kind.name}s"):
            build(config, facts)


def test_names_and_aliases_are_unique_and_in_the_readme():
    names = [name for row in RECIPES.values() for name in (row.name, *row.aliases)]
    assert len(names) == len(set(names))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in names if f"`{name}`" not in readme]


def test_no_other_table_repeats_the_names():
    """A recipe is added in one place: no other file of the package holds its name in quotes."""
    for file in (ROOT / "src").rglob("*.py"):
        if file.name not in ("rows.py", "distance.py"):
            text = file.read_text(encoding="utf-8")
            # the default of Config and of the docs' examples
            held = [name for name in RECIPES if f'"{name}"' in text and name != "wae-mmd"]
            assert not held, (file, held)


@dataclasses.dataclass(frozen=True)
class Options(NoOptions):
    depth: int = 2
    """Layers."""


def tiny(parts):
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(parts.options.depth, *parts.shape))

        def forward(self, x, draws):
            return monge.Pass({"error": (x - self.mean.sum(0)).square().mean()})

        def sample(self, n, generator=None):
            noise = torch.randn(n, *self.mean.shape[1:], generator=generator)
            return (self.mean.sum(0) + 0.1 * noise).clamp(0, 1)

    return Tiny()


def nothing(parts):
    return None


@dataclasses.dataclass(frozen=True)
class Seeded(NoOptions):
    seed: int = 0
    """Which every run has."""


@dataclasses.dataclass(frozen=True)
class Stepped(NoOptions):
    steps: int = 0
    """A flag of `monge train`."""


CLASHING = Recipe("clashing", "test_recipes:tiny", "", options=Seeded)
FLAGGED = Recipe("flagged", "test_recipes:tiny", "", options=Stepped)
ROW = Recipe("tiny", "test_recipes:tiny", "a mean", options=Options, settings={"depth": 3})
WRONG = Recipe("wrong", "test_recipes:tiny", "", settings={"training.speed": 1})
EMPTY = Recipe("empty", "test_recipes:nothing", "")
ABSENT = Recipe("absent", "test_recipes:nowhere", "")


def test_a_stranger_has_options_settings_and_a_run(tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "test_recipes:ROW", "--depth", "4", "--steps", "3", "--out", str(out)]
    cli.parse(command).run()
    run = monge.Run(out)
    assert (run.config.recipe, run.config.options) == ("test_recipes:ROW", Options(4))
    assert run.line == "a mean"
    assert run.sample(2).shape == (2, 1, 8, 8)
    assert Config.of("test_recipes:ROW").options.depth == 3


def test_an_entry_point_gives_a_name(monkeypatch, capsys):
    entries = [
        importlib.metadata.EntryPoint("tiny", "test_recipes:ROW", "monge.recipes"),
        importlib.metadata.EntryPoint("broken", "nowhere:ROW", "monge.recipes"),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    assert find("tiny") is ROW
    cli.parse(["recipes"]).run()
    lines = capsys.readouterr().out.splitlines()
    assert "tiny                a mean" in lines
    assert any(line.startswith("broken") and "No module named 'nowhere'" in line for line in lines)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            "nowhere.recipes:ROW",
            "'nowhere.recipes:ROW' cannot be imported: ModuleNotFoundError: No",
        ),
        ("test_recipes:ROWS", "test_recipes has no 'ROWS'"),
        ("test_recipes:tiny", "is a function: give a monge.recipes.Recipe"),
        ("test_recipes:WRONG", "`recipe` 'test_recipes:WRONG' sets 'training.speed'"),
        ("test_recipes:EMPTY", "must return a model, got NoneType"),
        ("test_recipes:ABSENT", "test_recipes has no 'nowhere'"),
        ("test_recipes:CLASHING", "has 'seed', which every run has"),
        ("tiny-wae", "`recipe` must be one of wae-mmd, .*, got 'tiny-wae'"),
        ("a:b:c", "`recipe` must be one of"),
    ],
)
def test_a_recipe_that_is_none_is_one_line(recipe, words, tmp_path):
    with pytest.raises(ValueError, match=words) as refused:
        monge.fit(recipe, "digits", out=tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"build": "no colon"}, "`build` of the recipe 'x' must look like module:function"),
        ({"options": int}, "`options` of the recipe 'x' must be a dataclass"),
        (
            {"needs": ("grids",)},
            "`needs` of the recipe 'x' knows no 'grids': give some of",
        ),
        ({"family": "generators"}, "`family` of the recipe 'x' must be one of auto-encoder"),
    ],
)
def test_a_row_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**{"name": "x", "build": "a:b", "line": "", **changes})


@dataclasses.dataclass(frozen=True)
class Plain:
    """A frozen dataclass and nothing else."""

    slices: int = 5
    """How many."""


def small(parts):
    return parts.wae(monge.SlicedWasserstein(parts.option("directions")))


PLAIN = Recipe("plain", "test_recipes:small", "", options=Plain, weight=2.0)
LARGE = Recipe(
    "large",
    "test_recipes:small",
    "",
    options=Plain,
    weight=2.0,
    settings={"training.lr": 0.5},
    presets={"large": {"digits": {"slices": 9}, "any": {"slices": 7}}, "files": {"files": {}}},
)


def test_a_row_may_have_options_that_check_nothing_and_none_of_those_of_a_wae():
    config = Config.of("test_recipes:PLAIN").check()
    assert config.options == Plain(5)
    with pytest.raises(ValueError, match="has no 'directions'"):
        build(config, settled(config, "image", (1, 8, 8), samples=100))
    config = dataclasses.replace(config, recipe="wae-mmd")
    with pytest.raises(ValueError, match="`slices` is 6, but wae-mmd has no such option"):
        dataclasses.replace(Config.of("test_recipes:PLAIN", slices=6), recipe="wae-mmd")


def test_an_option_that_was_not_given_has_the_default_of_the_other_recipe():
    there = dataclasses.replace(Config(recipe="wae-mmd"), recipe="flow-matching").check()
    assert there.options.sigma == 0.0
    back = dataclasses.replace(there, recipe="wae-mmd").check()
    assert back.options.sigma is None


def test_presets_are_the_rows_own():
    assert Config.of("test_recipes:LARGE", "large").options.slices == 9
    assert Config.of("test_recipes:LARGE", "large", "rings").options.slices == 7
    assert Config.of("test_recipes:LARGE", "large").training.lr == 0.5
    assert Config.of("test_recipes:LARGE", "files", "a.zip").check().preset == "files"
    with pytest.raises(ValueError, match="`preset` files is for files, got data 'digits'"):
        Config.of("test_recipes:LARGE", "files")


def test_a_module_that_does_not_run_is_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in {"broken": "def", "failing": "import os\nos.nothing"}.items():
        (tmp_path / f"{name}_recipes.py").write_text(text)
        with pytest.raises(
            ValueError, match=f"'{name}_recipes:X' cannot be imported: "
        ) as refused:
            find(f"{name}_recipes:X")
        assert "\n" not in str(refused.value)


def test_help_tells_the_defaults_of_the_recipe(capsys):
    for recipe, text in (("wgan", ". Default: 5e-05."), ("wae-mmd", "; 0.001, or what the rec")):
        with pytest.raises(SystemExit):
            cli.parse(["train", recipe, "--help"])
        shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert f"Learning rate{text}" in shown


def test_the_recipe_is_found_among_flags_with_values():
    name = cli.train.recipe_name
    assert name(["--out", "a", "vae", "--steps", "3"]) == "vae"
    assert name(["--set", "a=1", "b=2", "--resume"]) == ""
    assert name(["--resume", "vae"]) == "vae"
    assert name(["--out=x", "vae"]) == "vae"


def test_a_file_of_the_name_of_a_part_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "top").write_text("no mask")
    config = Config.of("conditional-wae")
    assert config.options.known == "top"
    build(config, settled(config, "image", (1, 8, 8), samples=100))


def test_options_go_with_the_recipe():
    config = override(Config.of("swae"), "directions", "7")
    assert override(config, "options.directions", 9).options.directions == 9
    assert dataclasses.replace(config, recipe="gswae").options.directions == 7
    with pytest.raises(ValueError, match="`directions` is 7, but wae-mmd has no such option"):
        dataclasses.replace(config, recipe="wae-mmd")
    with pytest.raises(
        ValueError, match=r"`directions` is not a setting .*: did you mean cost_directions"
    ):
        override(Config.of("wae-mmd"), "directions", 7)
    with pytest.raises(ValueError, match="`directions` must be at least 1, got 0"):
        override(config, "directions", 0).check()


def test_flags_of_another_recipe_are_refused_on_the_command_line():
    assert cli.parse(["train", "swae", "--directions", "7"]).directions == 7
    assert cli.parse(["train", "--out", "somewhere", "vae", "--beta", "2"]).beta == 2
    with pytest.raises(ValueError, match=r"--weight.*see monge train vae --help"):
        cli.parse(["train", "vae", "--weight", "3"])
    with pytest.raises(ValueError, match="has 'steps', which is a flag of every recipe"):
        cli.parse(["train", "test_recipes:FLAGGED", "--steps", "3"])


def test_a_run_of_before_small_images_were_tuned_goes_on_as_it_was_started(tmp_path, monkeypatch):
    """Its config.json leaves codes and λ to the data, as they were settled then."""
    images = torch.rand(120, 1, 20, 20)
    config = Config.of("wae-mmd", **{"training.steps": 3, "training.lr": 1e-3})
    config = override(override(config, "training.inner_lr", 5e-4), "training.schedule", "constant")
    with monkeypatch.context() as before:
        before.setattr("monge.training.fit.with_tuned", lambda config, *_: config)
        run = monge.fit("wae-mmd", images, config, tmp_path / "run", quiet=True)
    assert run.config.latent is None
    longer = override(config, "training.steps", 5)
    run = monge.fit("wae-mmd", images, longer, tmp_path / "run", resume=True, quiet=True)
    assert run.config.latent is None
    assert run.settled.latent == 8


def test_what_is_tuned_for_a_critic_of_samples_is_for_that_critic():
    for sharpen, gain in (("jensen-shannon", 4.0), ("relativistic", None), ("sliced", None)):
        config = with_tuned(Config.of("alpha-gan", sharpen=sharpen), "image", (1, 28, 28))
        config.check()
        assert (config.network.details, config.options.sharpen_lr is None) == (gain, gain is None)
    asked = Config.of("alpha-gan", sharpen_lr=1e-3)
    config = with_tuned(override(asked, "network.details", 0.0), "image", (1, 28, 28))
    assert (config.network.details, config.options.sharpen_lr) == (0.0, 1e-3)
