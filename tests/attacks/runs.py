"""Runs as a stranger might hand them on: what config.json and the checkpoints may hold."""

import copy
import functools
import hashlib
import json
import random
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

import monge
from attacks.fuzzing import Fuzz, mutated
from monge.config import Config, override
from monge.evaluation.figures import lines as lines_of
from monge.runs import Run
from monge.training import checkpoint

RECIPES = ("wae-mmd", "vae", "gswae", "conditional-wae", "swg")


def small(recipe: str, path: Path, data: Any = "digits", **settings: Any) -> Run:
    """A run of a few steps, of the smallest networks."""
    config = override(Config.of(recipe), "network.filters", (4,))
    short = {"training.steps": 2, "training.batch": 16, "latent": 2, "network.hidden": (4,)}
    for name, value in {**short, **settings}.items():
        config = override(config, name, value)
    return monge.fit(recipe, data, config, path, quiet=True)


def resealed(folder: Path, **contents: bytes) -> None:
    """A checkpoint with other files and a manifest that is right for them; `model` stands for
    model.safetensors, `training` for training.safetensors, `notes` for training.json."""
    names = {"model": "model.safetensors", "training": "training.safetensors"}
    for name, content in contents.items():
        (folder / names.get(name, "training.json")).write_bytes(content)
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    manifest: dict[str, Any] = {"files": files}
    manifest["manifest"] = hashlib.sha256(checkpoint._canonical(manifest)).hexdigest()
    (folder / "manifest.json").write_bytes(checkpoint._canonical(manifest))


FILES = checkpoint.FILES
VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    0.5,
    -0.0,
    1e-300,
    1e300,
    "",
    "x",
    "\x1b[2J\n",
    "../../outside/kept.txt",
    "/dev/zero",
    "os:system",
    "a" * 10_000,
    [],
    [1],
    [0, 2],
    [[1]],
    {},
    {"name": 1},
)


def places(values: Any, path: tuple = ()) -> list[tuple]:
    """Where in parsed JSON there are values, at every depth."""
    found = [path] if path else []
    items = values.items() if isinstance(values, dict) else ()
    items = list(enumerate(values))[:3] if isinstance(values, list) else items
    return found + [one for key, value in items for one in places(value, (*path, key))]


def altered(values: Any, rng: random.Random) -> Any:
    """Parsed JSON with a few values replaced, removed or added."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        path = rng.choice(places(values) or [()])
        if not path:  # nothing is left
            return values
        parent = functools.reduce(lambda one, key: one[key], path[:-1], values)
        what = rng.randrange(8)
        if what == 0 and isinstance(parent, dict):
            del parent[path[-1]]
        elif what == 1 and isinstance(parent, dict):
            added = rng.choice(("", "latent", "__class__", "x" * 300))
            parent[added] = copy.deepcopy(rng.choice(VALUES))
        else:
            parent[path[-1]] = copy.deepcopy(rng.choice(VALUES))
    return values


def copies(folder: Path) -> list[tuple[Path, bytes]]:
    """A run of each of some recipes, and its config.json."""
    runs = [small(recipe, folder / recipe).path for recipe in RECIPES]
    return [(run, (run / "config.json").read_bytes()) for run in runs]


def use(run: Path) -> None:
    """Opens a run as the verbs do: the model, its samples, its curves."""
    opened = Run(run)
    opened.metrics()
    opened.evaluation()
    if opened.config.recipe != "conditional-wae":
        opened.sample(2)
    assert opened.line


def config_case(runs: list[tuple[Path, bytes]], rng: random.Random) -> None:
    run, content = rng.choice(runs)
    if rng.random() < 0.2:
        made = mutated(content, rng)
    else:
        made = json.dumps(altered(json.loads(content), rng)).encode()
    (run / "config.json").write_bytes(made)
    try:
        use(run)
    finally:
        (run / "config.json").write_bytes(content)


def checkpoint_case(runs: list[tuple[Path, bytes]], rng: random.Random) -> None:
    run, _ = rng.choice(runs)
    folder = checkpoint.newest_first(run / "checkpoints")[0]
    kept = {name: (folder / name).read_bytes() for name in (*FILES, "manifest.json")}
    what = rng.choice((*FILES, "manifest.json", "shapes", "notes"))
    try:
        if what == "shapes":
            resealed(folder, model=save(reshaped(load(kept["model.safetensors"]), rng)))
        elif what == "notes":
            notes = altered(json.loads(kept["training.json"]), rng)
            resealed(folder, notes=json.dumps(notes).encode())
        elif what == "manifest.json" or rng.random() < 0.3:
            (folder / what).write_bytes(mutated(kept[what], rng))
        else:
            key = {"model.safetensors": "model", "training.safetensors": "training"}
            resealed(folder, **{key.get(what, "notes"): mutated(kept[what], rng)})
        use(run)
        if rng.random() < 0.1:
            longer = override(Run(run).config, "training.steps", 2)
            monge.fit(config=longer, out=run, resume=True, quiet=True)
    finally:
        for name, content in kept.items():
            (folder / name).write_bytes(content)


def reshaped(tensors: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    """Weights of which one has another shape, type, name or value."""
    name = rng.choice(sorted(tensors))
    x = tensors.pop(name)
    made = {
        0: lambda: x.flatten()[: rng.randrange(1, 5)],
        1: lambda: x[None],
        2: lambda: x.double() * 1e300 * 1e300,
        3: lambda: torch.full_like(x.double(), float("nan")),
        4: lambda: x.to(torch.int8),
        5: lambda: x.to(torch.complex64),
        6: lambda: x.to(torch.float8_e4m3fn) if x.is_floating_point() else x,
        7: lambda: x.new_zeros(0),
    }
    new = name if rng.random() < 0.8 else rng.choice(("", "x\n\x1b[0m", "y" * 3000))
    return {**tensors, new: made[rng.randrange(8)]()}


def other_case(runs: list[tuple[Path, bytes]], rng: random.Random) -> None:
    """metrics.jsonl, evaluation.json and the other files beside config.json."""
    run, _ = rng.choice(runs)
    file = run / rng.choice(("metrics.jsonl", "evaluation.json", "identity.npy"))
    if not file.exists():
        file.write_text(json.dumps(EVALUATION))
    content = file.read_bytes()
    lines = content.splitlines(keepends=True)
    i = rng.randrange(len(lines))
    try:
        if file.suffix != ".npy" and rng.random() < 0.5:
            if file.suffix == ".json":
                file.write_text(json.dumps(altered(json.loads(content), rng)))
            else:
                lines[i] = json.dumps(altered(json.loads(lines[i]), rng)).encode() + b"\n"
                file.write_bytes(b"".join(lines))
        else:
            file.write_bytes(mutated(content, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # damaged files are left out with a warning
            opened = Run(run)
            opened.metrics()
            evaluation = opened.evaluation()
            if evaluation is not None:
                opened.outdated(evaluation)
                lines_of(evaluation)
            assert opened.source
    except UserWarning as warning:
        raise ValueError(str(warning)) from None
    finally:
        file.write_bytes(content)


EVALUATION = {
    "protocol": {"run": "run", "n test": 100, "weights": "0" * 16, "checkpoint": "step-2"},
    "figures": {"FD": {"value": 1.0, "deviation": None, "floor": 0.5}},
}


def prepare(folder: Path) -> list[tuple[Path, bytes]]:
    return copies(folder)


CONFIGS = Fuzz("configs", prepare, config_case)
CHECKPOINTS = Fuzz("checkpoints", prepare, checkpoint_case)
RECORDS = Fuzz("records", prepare, other_case)
