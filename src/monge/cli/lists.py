"""The verbs that list recipes, data sets and runs, and describe the installation."""

import contextlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from monge._core.version import __version__
from monge.cli.common import tell

PACKAGES = (
    *("torch", "numpy", "scipy", "POT", "scikit-learn", "safetensors", "pillow", "polars"),
    *("matplotlib", "jinja2", "tyro", "rich", "msgspec", "xxhash", "filelock"),
)
EXTRAS = {
    "explore": ("fastapi", "uvicorn"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "clouds": ("plyfile", "trimesh"),
    "huggingface": ("datasets",),
    "kernels": ("triton",),
    "logging": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "ode": ("torchdiffeq",),
}
"""The packages of the extras, by which `monge info` finds the installed ones."""
VARIABLES = (
    *("MONGE_DATA", "MONGE_CACHE", "XDG_CACHE_HOME", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
    *("WORLD_SIZE", "NO_COLOR"),
)


@dataclass(frozen=True)
class Recipes:
    """List the recipes."""

    def run(self) -> None:
        from monge.recipes import RECIPES, published

        for row in RECIPES.values():
            print(f"{', '.join([row.name, *row.aliases]):19} {row.line}")
        for name in published():
            print(f"{name:19} {_line(name)}")
        print(f"{'PACKAGE.MODULE:NAME':19} a recipe of your own")


def _line(name: str) -> str:
    """The line of another package's recipe, or why it cannot be used."""
    from monge.recipes import find

    try:
        return find(name).line
    except ValueError as error:
        return f"cannot be used: {error}"


@dataclass(frozen=True)
class Data:
    """List the data sets that are available by name."""

    def run(self) -> None:
        from monge.config import DATA

        for name, line in DATA.items():
            print(f"{name:19} {line}")
        print(
            f"{'PATH':19} folder, .zip or .tar of images, folder of idx files or clouds, .npy, …"
        )
        print(f"{'hf:DATASET':19} folder of save_to_disk, or a name on the hub of Hugging Face")


@dataclass(frozen=True)
class Runs:
    """List the runs in a folder, the newest first: recipe, data, step, first figure, size."""

    folder: Positional[Path] = Path("runs")
    """The folder of run directories."""
    json: bool = False
    """Print one JSON object per run, with every figure, instead of a table."""

    def run(self) -> None:
        if not self.folder.is_dir():
            raise ValueError(
                f"`folder` {str(self.folder)!r} is not there: give the one that holds your runs"
            )
        rows = [_described(path) for path in _newest(self.folder)]
        if self.json:
            for row in rows:
                tell(json.dumps(row))
            return
        heads = ("run", "recipe", "data", "step", "figure (noise floor)", "MB", "written")
        table = [heads, *map(_cells, rows)]
        widths = [max(map(len, column)) for column in zip(*table)]
        for cells in table:
            tell("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip())
        if not rows:
            tell(f"no runs in {self.folder}: `monge train RECIPE` makes one")


def _newest(folder: Path) -> list[Path]:
    """The run directories in a folder, the last written first, each once, whatever links lead to
    it. Folders that may not be looked into hold no runs."""
    found = [path for path in folder.iterdir() if os.path.isfile(path / "config.json")]
    found.sort(key=lambda path: (path.is_symlink(), path.name == "latest", path.name))
    places: dict[str, Path] = {}
    for path in found:
        places.setdefault(os.path.realpath(path), path)
    return sorted(places.values(), key=_written, reverse=True)


def _written(run: Path) -> float:
    """When a run was last written; 0 for one that has just been removed."""
    times = [0.0]
    for file in (run / "metrics.jsonl", run / "config.json"):
        with contextlib.suppress(OSError):
            times.append(file.lstat().st_mtime)
    return max(times)


def _described(path: Path) -> dict[str, Any]:
    """A run as a row of the list."""
    from monge.config import DATA, read_config
    from monge.runs import evaluated
    from monge.training.loop import read_metrics

    row: dict[str, Any] = {"run": path.name, "written": _written(path), "bytes": _size(path)}
    try:
        config, settled = read_config(path)
        logged = read_metrics(path)
    except ValueError as error:
        return {**row, "error": str(error)}
    # weights that were exported have no log, and do not say how long they were trained
    start = None if os.path.isfile(path / "model.safetensors") else 0
    name = config.data.name
    figures = (evaluated.read(path) or {"figures": {}})["figures"]
    return {
        **row,
        "recipe": config.recipe,
        "data": name if name in (*DATA, "array") else Path(name).name,
        "samples": settled.samples,
        "step": logged[-1]["step"] if logged else start,
        "seconds": logged[-1]["seconds"] if logged else start,
        "figures": {
            figure: {part: _finite(one[part]) for part in ("value", "floor")}
            for figure, one in figures.items()
        },
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _size(path: Path) -> int:
    """The bytes of the files in a folder; what links lead to does not count."""
    size = 0
    for place, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):  # removed meanwhile
                size += os.lstat(os.path.join(place, name)).st_size
    return size


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["written"]))
    size = f"{row['bytes'] / 1e6:.1f}"
    if "error" in row:
        return row["run"], "cannot be read", "", "", "", size, when
    figure = next((_figure(*one) for one in row["figures"].items()), "not evaluated")
    step = "–" if row["step"] is None else str(row["step"])
    return row["run"], row["recipe"], row["data"], step, figure, size, when


def _figure(name: str, figure: dict[str, float | None]) -> str:
    value, floor = (
        "–" if figure[part] is None else f"{figure[part]:.3g}" for part in ("value", "floor")
    )
    return f"{name} {value} ({floor})"


@dataclass(frozen=True)
class Info:
    """Print versions, devices, threads and caches, to paste into a bug report."""

    json: bool = False
    """Print one JSON object instead of lines."""

    def run(self) -> None:
        found = dict(_found())
        if self.json:
            tell(json.dumps(found))
            return
        for name, value in found.items():
            tell(f"{name:12} {value}")


def _found() -> Iterator[tuple[str, str]]:
    """The facts that a bug report needs, each with its name."""
    import torch

    from monge._core.files import user_cache

    yield "monge", __version__
    yield "python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "system", platform.platform()
    yield "packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    yield "extras", ", ".join(_extras()) or "none"
    capability = torch.backends.cpu.get_cpu_capability()
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    yield "cpu", f"{platform.machine()} {capability}, {threads}"
    yield "gpu", ", ".join(_cards()) or f"none (torch is built for {_built_for()})"
    try:
        cache = user_cache()
        kept = f"{_size(cache) / 1e6:.1f} MB" if os.path.isdir(cache) else "nothing yet"
        yield "cache", f"{cache} ({kept})"
    except ValueError as error:
        yield "cache", f"none: {error}"
    variables = (f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
    yield "environment", " ".join(variables) or "nothing set"
    yield "program", f"{sys.executable}, monge in {Path(__file__).parents[1]}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _extras() -> Iterator[str]:
    """The extras of which every package is installed."""
    for extra, packages in EXTRAS.items():
        if all(map(importlib.util.find_spec, packages)):
            yield extra


def _cards() -> Iterator[str]:
    import torch

    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(i)
        yield f"cuda:{i} {card.name} ({card.total_memory / 2**30:.0f} GiB)"
    if torch.backends.mps.is_available():
        yield "mps"


def _built_for() -> str:
    import torch

    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU"
