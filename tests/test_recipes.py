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
from monge._core.references import resolve
from monge.builders import build, settled
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
    assert set(row.option_names) == set(cli.train.documented(row.options)) | set()
    for data in ("digits", "mnist"):
        Config.of(row.name, data=data).check()
    for preset in row.presets:
        for data in ("mnist", "faces.zip"):
            assert Config.of(row.name, preset, data).check().preset == preset
    assert row.paper
    assert len(row.line) < 90
    assert (row.weight is None) == ("weight" not in row.option_names)


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
        ("nowhere.recipes:ROW", "`recipe` 'nowhere.recipes:ROW' cannot be imported: No module"),
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
    ],
)
def test_a_row_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**{"name": "x", "build": "a:b", "line": "", **changes})


def test_options_go_with_the_recipe():
    config = override(Config.of("swae"), "directions", "7")
    assert override(config, "options.directions", 9).options.directions == 9
    assert dataclasses.replace(config, recipe="gswae").options.directions == 7
    with pytest.raises(ValueError, match="`directions` is 7, but wae-mmd has no such option"):
        dataclasses.replace(config, recipe="wae-mmd")
    with pytest.raises(ValueError, match=r"`directions` is no setting .*kernel"):
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
