"""Run folders of strangers: nothing is opened or written outside them, nothing waits, and what
they claim is checked before memory is taken for it."""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import monge
from attacks.fuzzing import limited, outcome, peak
from attacks.runs import resealed, small
from monge import cli
from monge.config import Config, override, to_json
from monge.evaluation.extractors import classifier
from monge.runs import Run
from monge.show import card
from monge.training import checkpoint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes are POSIX's")

VERBS: dict[str, Callable[[Path, Path], list[str]]] = {
    "sample": lambda run, out: ["sample", str(run), "-n", "4", "--out", str(out / "x.npy")],
    "mixture": lambda run, out: [
        *("sample", str(run), "-n", "4", "--sampler", "mixture", "--out", str(out / "x.npy"))
    ],
    "reconstruct": lambda run, out: ["reconstruct", str(run), "--out", str(out / "x.png")],
    "interpolate": lambda run, out: ["interpolate", str(run), "--out", str(out / "x.png")],
    "traverse": lambda run, out: ["traverse", str(run), "--out", str(out / "x.png")],
    "evaluate": lambda run, out: ["evaluate", str(run), "-n", "20", "--metrics", "sliced"],
    "compare": lambda run, out: ["compare", str(run), "--out", str(out / "compared")],
    "export": lambda run, out: ["export", str(run), "--hub", str(out / "hub")],
    "resume": lambda run, out: ["train", "--resume", "--out", str(run), "--steps", "4"],
}


def run_verb(name: str, run: Path, out: Path) -> str | None:
    """The refusal that a verb meets; fails for what is no refusal in one line, and for a hang."""
    refusal, fault = outcome(lambda: cli.parse(VERBS[name](run, out)).run())
    assert fault is None, f"{name}: {fault}"
    return refusal


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    run = small("wae-mmd", tmp_path_factory.mktemp("runs") / "trained")
    classifier(run.source)  # which would be trained within the time of the first verb
    return run.path


@pytest.fixture
def place(trained, tmp_path) -> Path:
    """A folder with a copy of the run, `run`, and a folder `outside`, with a file."""
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept.txt").write_text("kept")
    (tmp_path / "out").mkdir()
    return tmp_path


def is_kept(place: Path) -> bool:
    outside = place / "outside"
    names = [path.name for path in outside.iterdir()]
    return names == ["kept.txt"] and (outside / "kept.txt").read_text() == "kept"


ENTRIES = (
    "config.json",
    "metrics.jsonl",
    "checkpoints",
    "checkpoints/step-2",
    "checkpoints/step-2/manifest.json",
    "checkpoints/step-2/model.safetensors",
    "best",
    "pictures",
    "pictures/samples.png",
    "report.html",
    "evaluation.json",
    "identity.npy",
    "known.png",
    "sampler-mixture.safetensors",
    ".lock",
    ".lock.json",
)
PUT: dict[str, Callable[[Path, Path], None]] = {
    "a link to a file": lambda path, outside: path.symlink_to(outside / "kept.txt"),
    "a link to a folder": lambda path, outside: path.symlink_to(outside),
    "a link to nothing": lambda path, outside: path.symlink_to(outside / "new"),
    "a link that leads back": lambda path, outside: path.symlink_to(path),
    "a link to zeros without end": lambda path, outside: path.symlink_to("/dev/zero"),
    "a pipe": lambda path, outside: os.mkfifo(path),
}


@pytest.mark.parametrize("put", PUT)
@pytest.mark.parametrize("entry", ENTRIES)
def test_links_and_pipes_are_refused_by_every_verb(entry, put, place):
    path = place / "run" / entry
    if path.is_dir():
        path.rename(place / "aside")
    path.unlink(missing_ok=True)
    PUT[put](path, place / "outside")
    for verb in VERBS:
        refusal = run_verb(verb, place / "run", place / "out")
        assert refusal is not None, f"{verb} went on"
        assert "`run`" in refusal or "`out`" in refusal
    assert is_kept(place)
    assert list((place / "out").iterdir()) == []


def test_a_run_that_is_itself_behind_a_link_is_opened(place):
    (place / "latest").symlink_to(place / "run")
    assert run_verb("sample", place / "latest", place / "out") is None


@pytest.mark.parametrize(
    "name", ["report.html", "sampler-mixture.safetensors", "evaluation.json", "config.json"]
)
def test_what_is_written_goes_through_no_link(name, place):
    (place / "run" / f".{name}.part").symlink_to(place / "outside" / "kept.txt")
    for verb in VERBS:
        assert run_verb(verb, place / "run", place / "out" / verb) is None, verb
    assert is_kept(place)


def rewritten(run: Path, *path: str, value) -> None:
    """Replaces a value of config.json, as with an editor."""
    values = whole = json.loads((run / "config.json").read_text())
    for key in path[:-1]:
        values = values[key]
    values[path[-1]] = value
    (run / "config.json").write_text(json.dumps(whole))


@pytest.mark.parametrize("what", ["a file", "a pipe", "a folder", "a data set of the hub"])
def test_data_that_a_strangers_run_names_are_not_opened(what, place):
    named = place / "theirs"
    if what == "a pipe":
        os.mkfifo(named)
    elif what == "a folder":
        named.mkdir()
    else:
        named.write_text("x")
    name = "hf:them/theirs" if what.endswith("hub") else str(named)
    rewritten(place / "run", "config", "data", "name", value=name)
    for verb in ("reconstruct", "evaluate", "compare", "mixture", "resume"):
        refusal = run_verb(verb, place / "run", place / "out")
        assert refusal is not None
        assert "has no seal of this account" in refusal
        assert "--trust-data" in refusal
    assert run_verb("sample", place / "run", place / "out") is None


@pytest.mark.parametrize("field", ["cache", "dir"])
def test_a_folder_that_a_strangers_run_names_is_left_alone(field, place):
    rewritten(place / "run", "config", "data", field, value=str(place / "outside"))
    for verb in VERBS:
        run_verb(verb, place / "run", place / "out" / verb)
    assert is_kept(place)


def test_data_that_a_person_names_or_trusts_are_opened(place, trained):
    data = place / "digits.npy"
    source = Run(trained).source
    whole = torch.cat([source.train, source.test]).numpy()
    np.save(data, whole)
    run = small("wae-mmd", place / "own", data).path
    assert run_verb("reconstruct", run, place / "out") is None
    seal = json.loads((run / "config.json").read_text())["seal"]
    rewritten(run, "seal", value="0" * len(seal))
    assert "no seal of this account" in (run_verb("reconstruct", run, place / "out") or "")
    argv = VERBS["reconstruct"](run, place / "out")
    cli.parse([*argv, "--trust-data"]).run()
    cli.parse([*argv, "--data", str(data)]).run()  # which the run then keeps
    assert run_verb("reconstruct", run, place / "out") is None


def test_a_seal_is_of_the_paths_that_it_was_made_for(place, monkeypatch):
    config = override(Config(), "data.name", str(place / "mine"))
    settled = monge.builders.settled(config, "image", (1, 8, 8), samples=9)
    text = to_json(config, settled)
    run = place / "sealed"
    run.mkdir()
    (run / "config.json").write_text(text)
    assert Run(run)._foreign == {}
    rewritten(run, "config", "data", "name", value=str(place / "theirs"))
    assert Run(run)._foreign == {"name": str(place / "theirs")}
    (run / "config.json").write_text(text)
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "another account"))
    assert Run(run)._foreign == {"name": str(place / "mine")}
    (place / "no account").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "no account"))
    assert "seal" not in json.loads(to_json(config, settled))


def test_a_mask_image_that_a_strangers_run_names_is_not_opened(place):
    run = small("conditional-wae", place / "masked").path
    for known in (str(place / "outside" / "kept.txt"), "/dev/zero", "x.png"):
        rewritten(run, "config", "options", "known", value=known)
        found = checkpoint.newest_first(run / "checkpoints")[0]
        notes = json.loads((found / "training.json").read_text())
        notes["settings"]["options.known"] = json.dumps(known)
        resealed(found, notes=json.dumps(notes).encode())
        with pytest.raises(ValueError, match=r"keeps no copy: put it into the run as known\.png"):
            monge.load(run)


EDITS = {
    "seed": (("config", "seed"), 7),
    "prior": (("config", "prior"), "uniform"),
    "lr": (("config", "training", "lr"), 0.5),
    "an option": (("config", "options", "kernel"), "rbf"),
    "weight": (("settled", "weight"), 1.0),
}


@pytest.mark.parametrize("name", EDITS)
def test_settings_that_were_edited_are_refused(name, place):
    path, value = EDITS[name]
    rewritten(place / "run", *path, value=value)
    for verb in VERBS:
        refusal = run_verb(verb, place / "run", place / "out") or ""
        assert "its config.json says" in refusal, verb
        assert path[-1] in refusal
    assert not list((place / "out").iterdir())


def test_a_horizon_that_was_moved_and_equal_numbers_are_no_edits(place):
    rewritten(place / "run", "config", "training", "steps", value=3)
    values = json.loads((place / "run" / "config.json").read_text())
    values["config"]["training"]["checkpoint_seconds"] = 50
    (place / "run" / "config.json").write_text(json.dumps(values))
    assert run_verb("resume", place / "run", place / "out") is None
    assert Run(place / "run").steps == 4


SIZES = {
    "latent": (("settled", "latent"), 10**9),
    "shape": (("settled", "shape"), [1, 30_000, 30_000]),
    "filters": (("config", "network", "filters"), [10**6, 10**6]),
    "many sizes that are not large": (("config", "network", "filters"), [600] * 90),
    "layers": (("config", "network", "filters"), [1] * 10_000),
    "a huge number": (("settled", "latent"), 10**30),
    "directions": (("config", "options", "cost_directions"), 2**40),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_compared_with_the_weights_before_memory_is_taken(name, place):
    path, value = SIZES[name]
    rewritten(place / "run", *path, value=value)
    folder = checkpoint.newest_first(place / "run" / "checkpoints")[0]
    notes = json.loads((folder / "training.json").read_text())
    del notes["settings"]
    resealed(folder, notes=json.dumps(notes).encode())
    before = peak()
    with limited(10), pytest.raises(ValueError, match=r"config\.json|another model"):
        monge.load(place / "run")
    assert peak() - before < 64


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", "evaluation.json"])
def test_a_file_that_claims_a_terabyte_is_not_read(name, place):
    with open(place / "run" / name, "ab") as file:
        file.truncate(2**40)
    before = peak()
    for verb in VERBS:
        run_verb(verb, place / "run", place / "out" / verb)
    assert peak() - before < 256


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, place):
    folder = checkpoint.newest_first(place / "run" / "checkpoints")[0]
    weights = load((folder / "model.safetensors").read_bytes())
    next(iter(weights.values())).view(-1)[0] = value
    resealed(folder, model=save(weights))
    for verb in VERBS:
        assert "not finite" in (run_verb(verb, place / "run", place / "out") or ""), verb


def test_numbers_of_other_types_are_refused(place):
    """Also those that overflow in the type of the model."""
    folder = checkpoint.newest_first(place / "run" / "checkpoints")[0]
    content = (folder / "model.safetensors").read_bytes()
    name, x = next((name, x) for name, x in load(content).items() if x.ndim > 1)
    wide = torch.full_like(x, 1, dtype=torch.float64) * 1e300
    for other in (wide, x.to(torch.int8), x.to(torch.complex64), x.to(torch.bool)):
        resealed(folder, model=save({**load(content), name: other}))
        for verb in VERBS:
            refusal = run_verb(verb, place / "run", place / "out") or ""
            assert "not finite" in refusal or "of another model" in refusal, (verb, other.dtype)


def test_a_mixture_of_other_shapes_takes_no_memory(place):
    from monge.runs import fitted

    made_for = {"weights": "x"}
    for factors in (torch.ones(1, 25_000, 0), torch.ones(2, 2, 2), torch.ones(1, 2, 3)):
        tensors = {"means": torch.ones(1, 2), "factors": factors, "weights": torch.ones(1)}
        fitted.path(place / "run", "mixture").write_bytes(save(tensors, made_for))
        before = peak()
        with pytest.raises(ValueError, match="is damaged"):
            fitted.read(place / "run", "mixture", made_for, 2)
        assert peak() - before < 64


SEALS = ("é", "\ud800", ["x"], {}, 5, None, "", "x" * 10**6)


@pytest.mark.parametrize("seal", SEALS)
def test_a_seal_of_any_content_is_none(seal, place):
    rewritten(place / "run", "config", "data", "name", value=str(place / "theirs"))
    rewritten(place / "run", "seal", value=seal)
    assert "no seal of this account" in (run_verb("evaluate", place / "run", place / "out") or "")
    assert run_verb("sample", place / "run", place / "out") is None


def test_what_is_unknown_beside_the_records_is_refused(place):
    rewritten(place / "run", "wings", value=2)
    for verb in VERBS:
        assert "wings" in (run_verb(verb, place / "run", place / "out") or "")


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_folder_for_a_file_and_a_file_for_a_folder_are_refused(entry, place):
    path = place / "run" / entry
    folder = path.is_dir() or entry == "best"
    if path.exists():
        path.rename(place / "aside")
    if folder:
        path.write_text("x")
    else:
        path.mkdir()
    for verb in VERBS:
        refusal = run_verb(verb, place / "run", place / "out" / verb)
        assert refusal is not None, verb
        assert entry in refusal
        assert "Errno" not in refusal
    handles = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    for _ in range(20):
        run_verb("sample", place / "run", place / "out" / "again")
    assert not handles or len(os.listdir("/proc/self/fd")) < handles + 5


def test_names_that_are_nearly_checkpoints_are_passed_over(place):
    for name in ("step-²", "step-", "step--1", "step-1e3", "step-" + "9" * 30):
        (place / "run" / "checkpoints" / name).mkdir()
    assert run_verb("sample", place / "run", place / "out") is None


def test_optimisers_of_other_shapes_are_refused(place):
    folder = checkpoint.newest_first(place / "run" / "checkpoints")[0]
    content = (folder / "training.safetensors").read_bytes()
    for name, tensor in {
        "outer.0.exp_avg": torch.zeros(2),
        "outer.999.exp_avg": torch.zeros(2),
        "outer.x.exp_avg": torch.zeros(2),
        "outer.0.step": torch.full((), float("nan")),
    }.items():
        resealed(folder, training=save({**load(content), name: tensor}))
        refusal = run_verb("resume", place / "run", place / "out")
        assert "the checkpoint" in (refusal or ""), name


def test_code_beside_a_run_is_not_imported(place, monkeypatch):
    run = place / "run"
    code = "import pathlib; pathlib.Path('imported').touch()"
    (run / "theirs.py").write_text(textwrap.dedent(code))
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend("")
    rewritten(run, "config", "recipe", value="theirs:row")
    with pytest.raises(ValueError, match="code in the folder of the run itself"):
        monge.load(".")
    monkeypatch.chdir(place.parent)
    for name in (f"{place.name}.run.theirs:row", "run.theirs:row"):
        monkeypatch.syspath_prepend(str(place))
        rewritten(run, "config", "recipe", value=name)
        with pytest.raises(ValueError, match="code in the folder of the run itself"):
            monge.load(run)
    rewritten(run, "config", "recipe", value="antigravity:row")
    with pytest.raises(ValueError, match="in a module of Python's own"):
        monge.load(run)
    assert not (run / "imported").exists()
    assert not (place.parent / "imported").exists()


def test_a_folder_of_the_hub_names_no_folder_and_loads_where_it_lies(place, monkeypatch):
    run = Run(place / "run")
    run.config = override(run.config, "data.cache", str(place / "outside"))
    card.write(run, place / "hub")
    text = (place / "hub" / "config.json").read_text()
    assert str(place) not in text
    monkeypatch.chdir(place / "hub")
    assert monge.load(".").sample(2).shape == (2, 1, 8, 8)


def test_the_cache_of_the_hub_may_hold_links_to_its_own_blobs(place):
    card.write(Run(place / "run"), place / "hub")
    cache = place / "models--me--digits"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for i, file in enumerate(sorted((place / "hub").iterdir())):
        file.rename(cache / "blobs" / str(i))
        (snapshot / file.name).symlink_to(f"../../blobs/{i}")
    assert monge.load(snapshot).sample(2).shape == (2, 1, 8, 8)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(place / "outside" / "kept.txt")
    with pytest.raises(ValueError, match="a link, which is not followed"):
        monge.load(snapshot)


def test_a_published_model_that_completes_loads_from_its_own_folder(place, monkeypatch):
    from PIL import Image

    picture = Image.new("L", (8, 8))
    picture.paste(255, (0, 0, 8, 4))
    picture.save(place / "half.png")
    run = small("conditional-wae", place / "masked", known=str(place / "half.png"))
    card.write(run, place / "hub")
    monkeypatch.chdir(place / "hub")
    assert isinstance(monge.load("."), torch.nn.Module)
    monkeypatch.chdir(place)
    assert isinstance(monge.load("hub"), torch.nn.Module)
