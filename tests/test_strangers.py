"""What strangers hand in, wrong: one line that names it, and no run that is half written."""

import dataclasses
import importlib
import inspect
import json

import numpy as np
import pytest
import torch
from torch import nn

import monge
from monge import JensenShannon, Matching, Pass, cli
from monge._core.fields import from_text, readable
from monge.config import DataConfig, from_json, to_json
from monge.data import load
from monge.recipes import Recipe


class Mean(nn.Module):
    """A model whose forward and sample are given."""

    def __init__(self, forward=None, sample=None, matchings=()):
        super().__init__()
        self.mean, self.critic = nn.Parameter(torch.zeros(1, 8, 8)), nn.Linear(64, 1)
        self.made, self.drawn, self.matched = forward, sample, matchings

    @property
    def matchings(self):
        return self.matched

    def forward(self, x, draws):
        error = (x - self.mean).square().mean()
        return Pass({"error": error}) if self.made is None else self.made(self, x)

    def sample(self, n, generator=None):
        return self.mean.expand(n, 1, 8, 8) if self.drawn is None else self.drawn(n)


def short() -> monge.Config:
    return monge.Config(training=monge.TrainingConfig(steps=2, batch=10))


WRONG = {
    "a tensor": ({"forward": lambda m, x: m.mean.sum()}, "Pass"),
    "a tuple": ({"forward": lambda m, x: ({}, None)}, "Pass"),
    "a number": ({"forward": lambda m, x: Pass({"error": 1.0})}, "cannot be trained"),
    "a vector": ({"forward": lambda m, x: Pass({"error": m.mean.flatten()})}, "cannot be"),
    "a column of the log": ({"forward": lambda m, x: Pass({"step": m.mean.sum()})}, "'step'"),
    "a pair for nobody": ({"forward": lambda m, x: Pass({}, (x, x))}, "its matchings are"),
    "few samples": ({"sample": lambda n: torch.zeros(n // 2, 1, 8, 8)}, r"sample\(2\)"),
    "flat samples": ({"sample": lambda n: torch.zeros(n, 64)}, r"\(2, 64\) for sample\(2\)"),
    "an array": ({"sample": lambda n: torch.zeros(n, 1, 8, 8).numpy()}, "returns ndarray"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_model_that_cannot_be_is_refused_before_its_run_is_written(name, tmp_path):
    given, words = WRONG[name]
    with pytest.raises(ValueError, match=words) as refused:
        monge.fit(Mean(**given), "digits", short(), tmp_path / "run", quiet=True)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()
    run = monge.fit(Mean(), "digits", short(), tmp_path / "run", quiet=True)
    assert run.sample(3).shape == (3, 1, 8, 8)


def test_a_model_that_completes_is_rehearsed_without_samples_to_draw(tmp_path):
    """Composed by hand, as docs/completion.md does."""
    config = monge.Config.of("conditional-wae")
    facts = monge.builders.settled(config, "image", (1, 8, 8), samples=9)
    model = monge.builders.build(config, facts)
    run = monge.fit(model, "digits", short(), tmp_path / "run", quiet=True)
    assert run.sample(2).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), torch.ones(2)])
def test_a_weight_that_cannot_be_names_its_matching(weight, tmp_path):
    def forward(model, x):
        return Pass({}, {"images": (model.mean.expand_as(x), x)})

    model = Mean(forward)
    model.game = JensenShannon(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))
    model.matched = (Matching("images", model.game, weight),)
    with pytest.raises(ValueError, match="`weight` of the matching 'images' must be a number"):
        monge.fit(model, "digits", short(), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_another_model(tmp_path):
    monge.fit(Mean(), "digits", short(), tmp_path / "run", quiet=True)
    other = Mean()
    other.more = nn.Linear(2, 2)
    longer = monge.config.override(short(), "training.steps", 4)
    with pytest.raises(ValueError, match="checkpoint is of another model than this Mean"):
        monge.fit(other, "digits", longer, tmp_path / "run", resume=True, quiet=True)


@pytest.mark.parametrize("given", [Mean, 5, Recipe("x", "a:b", "")])
def test_what_is_no_model_and_no_name_is_refused(given):
    with pytest.raises(ValueError, match="`model_or_recipe` must be a recipe's name, or a model"):
        monge.fit(given, "digits")


def test_a_kind_is_for_arrays():
    with pytest.raises(ValueError, match="`kind` 'vector' is for arrays, and 'digits' holds"):
        load(DataConfig("digits", kind="vector"))


NOT_TENSORS = {
    "a number": 2,
    "a text": "a",
    "nothing": None,
    "an object": object(),
    "a dictionary": {},
    "unequal lists": [[1.0], [1.0, 2.0]],
    "missing items": [None, 1.0],
    "booleans": np.array([True]),
    "texts": np.array(["a", "b"]),
    "an empty list": [],
}
ROOMS = (
    *("adversarial", "costs", "divergences", "evaluation", "inference", "kernels", "maps"),
    *("networks", "particles", "priors", "transport"),
)


def is_of(one, module) -> bool:
    public = not getattr(one, "__name__", "_").startswith("_")
    return public and getattr(one, "__module__", "") == module.__name__


def public_callables():
    """Functions and classes of a room that need arguments, each once, by its name."""
    found = {}
    for room in ROOMS:
        module = importlib.import_module(f"monge.{room}")
        own = [
            n
            for n, one in vars(module).items()
            if getattr(one, "__module__", "") == f"monge.{room}"
        ]
        for name in getattr(module, "__all__", [n for n in own if not n.startswith("_")]):
            one = getattr(module, name)
            made = not inspect.isabstract(one) and not getattr(one, "_is_protocol", False)
            if callable(one) and made and not (inspect.isclass(one) and issubclass(one, tuple)):
                found.setdefault(id(one), (f"{room}.{name}", one))
    return dict(found.values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("given", NOT_TENSORS)
def test_what_is_no_tensor_is_refused_by_every_public_name(given):
    """A class or function takes it, or says by a ValueError why it does not."""
    raised = []
    for name, one in public_callables().items():
        needed = [
            parameter
            for parameter in inspect.signature(one).parameters.values()
            if parameter.default is parameter.empty and "VAR" not in parameter.kind.name
        ]
        by_name = {p.name for p in needed if p.kind is p.KEYWORD_ONLY}
        value = NOT_TENSORS[given]
        try:
            one(*[value] * (len(needed) - len(by_name)), **dict.fromkeys(by_name, value))
        except ValueError:
            pass
        except Exception as error:
            raised.append(f"{name}: {type(error).__name__}: {error}")
    assert not raised


@dataclasses.dataclass(frozen=True)
class Options:
    flag: bool = True
    """A switch."""
    pair: tuple[int, float] = (1, 2.0)
    """Two numbers."""
    sizes: tuple[int, ...] = (7,)
    """Sizes."""


def build(parts):
    return Mean()


ROW = Recipe("strange", "test_strangers:build", "", options=Options)


def test_options_of_every_type_are_flags_settings_and_stored():
    parse = cli.parse
    verb = parse(["train", "test_strangers:ROW", "--flag", "False", "--sizes", "3", "4"])
    assert verb._config().options == Options(False, (1, 2.0), (3, 4))
    config = monge.config.override(verb._config(), "pair", "3,4.5")
    assert config.options.pair == (3, 4.5)
    facts = monge.builders.settled(config, "image", (1, 8, 8), samples=9)
    assert from_json(to_json(config, facts)) == (config, facts)


@pytest.mark.parametrize("annotation", [list[int], dict, object, int | str, tuple[dict, ...]])
def test_options_that_cannot_be_stored_are_refused(annotation):
    assert not readable(annotation)
    made = dataclasses.make_dataclass(
        "Made", [("one", annotation, dataclasses.field(default=None))]
    )
    with pytest.raises(ValueError, match="`options` of the recipe 'x' has 'one', which must"):
        Recipe("x", "a:b", "", options=made)


def test_texts():
    with pytest.raises(ValueError, match="`x` must be 2 values, got '1'"):
        from_text("1", tuple[int, int], "x")
    with pytest.raises(ValueError, match="`x` must be a number, got 'half'"):
        from_text("half", float, "x")
    assert from_text("[4, 8]", tuple[int, ...], "x") == (4, 8)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("settled", "shape"), "abc", "`settled.shape` is 'abc': expected `array`"),
        (("settled", "latent"), None, "`settled.latent` is None: expected `int`"),
        (("config", "seed"), "x", "`config.seed` is 'x': expected `int`"),
        (("config", "training", "ema"), None, "`config.training.ema` is None: expected `float`"),
        (("config", "training", "steps"), 5.5, "`config.training.steps` is 5.5: expected `int "),
        (("config", "options"), [], "`config.options` is a list: expected `object`"),
        (("config",), None, "no record 'config'"),
    ],
)
def test_a_stored_record_of_other_types_is_refused(path, value, words):
    config = monge.Config.of("wae-mmd")
    facts = monge.builders.settled(config, "image", (1, 8, 8), samples=9)
    record = values = json.loads(to_json(config, facts))
    for key in path[:-1]:
        values = values[key]
    values[path[-1]] = value
    with pytest.raises(ValueError, match=words):
        from_json(json.dumps(record))
