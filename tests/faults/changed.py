"""Data that change between two verbs of the command line."""

import contextlib
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from monge import cli, fit
from monge.runs import Run
from monge.show.explore.service import Explorer

from .common import Tally, config

COUNT, STEPS = 240, 2
UNREAD = ("sample", "export")
"""Verbs that read no data."""


def picture(file: Path, seed: int) -> None:
    """A random image."""
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def add(folder: Path) -> str:
    picture(folder / "a" / "new.png", 10_000)
    return "added 1, removed 0, changed 0"


def remove(folder: Path) -> str:
    (folder / "a" / "4.png").unlink()
    return "added 0, removed 1, changed 0"


def alter(folder: Path) -> str:
    picture(folder / "b" / "5.png", 10_001)
    return "added 0, removed 0, changed 1"


def replace(folder: Path) -> str:
    for i in range(COUNT):
        picture(folder / "ab"[i % 2] / f"{i}.png", 20_000 + i)
    return f"added 0, removed 0, changed {COUNT}"


def relabel(folder: Path) -> str:
    (folder / "a" / "4.png").rename(folder / "b" / "4.png")
    return "added 0, removed 0, changed 1"


def rename(folder: Path) -> str:
    (folder / "a" / "4.png").rename(folder / "a" / "first.png")
    return ""


def touch(folder: Path) -> str:
    for file in folder.rglob("*.png"):
        file.touch()
    return ""


CHANGES: tuple[Callable[[Path], str], ...] = (
    add,
    remove,
    alter,
    replace,
    relabel,
    rename,
    touch,
)
"""Each changes a folder and says how a refusal calls that; nothing where the data are the same."""


def monge(*arguments: str | Path) -> tuple[int, str]:
    """The exit code of the command line and what it writes to its standard error."""
    said, argv = io.StringIO(), ["monge", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0), said.getvalue()
    return 0, said.getvalue()


def explore(run: Path, *more: str) -> tuple[int, str]:
    """Opens a run as the page does, which would not end."""
    try:
        Explorer(Run(run, data_changed="--data-changed" in more))
    except ValueError as error:
        return 2, f"monge: error: {error}"
    return 0, ""


def verbs(run: Path, out: Path, steps: int = 9) -> dict[str, Callable[..., tuple[int, str]]]:
    """What can be done with a run, by name; each takes more flags.

    A training is resumed up to `steps`.
    """
    sliced = ("--metrics", "sliced")
    png = ("--out", out / "x.png", "-n", "4")
    return {
        "resume": lambda *more: monge(
            "train", "--out", run, "--resume", "--steps", str(steps), *more
        ),
        "evaluate": lambda *more: monge("evaluate", run, *sliced, *more),
        "compare": lambda *more: monge("compare", run, "--out", out, *more),
        "explore": lambda *more: explore(run, *more),
        "reconstruct": lambda *more: monge("reconstruct", run, *png, *more),
        "interpolate": lambda *more: monge("interpolate", run, *png, *more),
        "traverse": lambda *more: monge("traverse", run, *png[:2], *more),
        "mixture": lambda *more: monge("evaluate", run, *sliced, "--sampler", "mixture", *more),
        "sample": lambda *more: monge("sample", run, *png),
        "export": lambda *more: monge("export", run, "--hub", out / "hub"),
    }


def between(work: Path, one: str, change: Callable[[Path], str], two: str) -> str | None:
    """What is wrong where data change between two verbs: None if nothing is."""
    out, data, run = work / "out", work / "data", work / "run"
    code, said = verbs(run, out)[one]()
    if code:
        return f"before the change: exit code {code}, {said!r}"
    shutil.rmtree(out, ignore_errors=True)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    difference = change(data)
    code, said = verbs(run, out, 12)[two]()
    if not difference or two in UNREAD:
        return f"the same data are refused: {said!r}" if code else None
    if code != 2 or said.count("\n") > 1 or difference not in said:
        return f"exit code {code}, {said!r}"
    if before != {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}:
        return "the run was written to"
    code, said = verbs(run, out, 12)[two]("--data-changed")
    if code:
        return f"with --data-changed: exit code {code}, {said!r}"
    return _unrecorded(run, out, two, difference)


def _unrecorded(run: Path, out: Path, verb: str, difference: str) -> str | None:
    """What does not say that the data have changed."""
    if verb == "resume":
        changes = Run(run).settled.changes
        return None if any(difference in line for line in changes) else f"recorded: {changes}"
    if verb in ("evaluate", "mixture"):
        protocol = (Run(run).evaluation() or {})["protocol"]
        return None if protocol.get("data changed") == difference else f"protocol: {protocol}"
    if verb == "compare":
        text = (out / "compare.md").read_text("utf-8")
        return None if difference in text else f"compare.md: {text}"
    if verb == "explore":
        return None
    with Image.open(out / "x.png") as drawn:
        texts = getattr(drawn, "text", {})
    return None if texts.get("monge data changed") == difference else f"picture: {texts}"


def run(work: Path, short: bool) -> Tally:
    """Data that change between every two verbs: an image is added, removed, altered, relabelled,
    renamed or touched, or all are replaced.

    Survived: a change is refused in one line that says what differs, with exit code 2 and nothing
    written, and is accepted and recorded with `--data-changed`; the same data under other names or
    times are accepted.
    """
    tally, whole = Tally(), work / "whole"
    for i in range(COUNT):
        picture(whole / "data" / "ab"[i % 2] / f"{i}.png", i)
    shutil.copytree(whole / "data", work / "data")
    with mock.patch("monge.show.report.write"):
        fit("wae-mmd", work / "data", config("wae-mmd", STEPS), whole / "run", quiet=True)
    names = list(verbs(work, work))
    pairs = [(one, two) for one in names for two in names]
    for number, (one, two) in enumerate(pairs[::13] if short else pairs):
        for change in CHANGES if not short else CHANGES[number % 7 :][:1]:
            shutil.rmtree(work / "out", ignore_errors=True)
            for name in ("data", "run"):
                shutil.rmtree(work / name, ignore_errors=True)
                shutil.copytree(whole / name, work / name)
            complaint = between(work, one, change, two)
            tally.add(f"{one}, {change.__name__}, {two}", complaint)
    return tally
