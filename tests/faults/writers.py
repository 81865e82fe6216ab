"""Trainings that start at once: into one directory, or with the name that monge chooses."""

import json
import os
import random
import shutil
import time
from pathlib import Path
from unittest import mock

import monge
import monge.show.report  # once, not by every child, which would meet no other then
from monge.config import Config

from .common import Tally, child, config, data, digest, ended, whole

STEPS = 12
FORKED = 0.1
"""Seconds after which both of a pair are there."""
RECIPES = ("vae", "swae")
REFUSED = ("is being written by process ", "exists already: ", "was started with other settings ")


def start(given: Config, out: Path | None, words: Path, moment: float, resume: bool) -> None:
    """Trains from a moment on; writes the line of its refusal, or the directory's name."""
    time.sleep(max(0.0, moment - time.monotonic()))
    try:
        with mock.patch("monge.show.report.write"):
            source = data(given.recipe)
            run = monge.fit(given.recipe, source, given, out, resume=resume, quiet=True)
        words.write_text(str(run.path))
    except ValueError as error:
        words.write_text(str(error))
        os._exit(2)  # without the traceback of a child


def pair(work: Path, chosen: random.Random, lasts: float, digests: dict[str, str]) -> str | None:
    """Two unlike trainings into one directory: what is wrong with the outcome, if anything."""
    out, resume = work / "run", chosen.random() < 0.5
    given = {recipe: config(recipe, STEPS) for recipe in chosen.sample(RECIPES, 2)}
    # half of them within a millisecond, where they meet at the making of the directory
    span, soon = chosen.choice((0.001, lasts / 3)), time.monotonic() + FORKED
    started = {
        recipe: child(start, one, out, work / recipe, soon + chosen.uniform(0, span), resume)
        for recipe, one in given.items()
    }
    codes = {recipe: ended(number) for recipe, number in started.items()}
    won = [recipe for recipe, code in codes.items() if code == 0]
    if len(won) != 1:
        return f"exit codes {codes}"
    (winner,), (loser,) = won, set(codes) - set(won)
    said = (work / loser).read_text()
    if not any(part in said for part in REFUSED):
        return f"the other says {said!r}"
    if REFUSED[0] in said and f" {REFUSED[0]}{started[winner]} on " not in said:
        return f"the other blames a third: {said!r}"
    return mixed(out, winner, digests[winner])


def mixed(out: Path, recipe: str, expected: str) -> str | None:
    """What in a directory is not of the one run of a recipe."""
    stored = json.loads((out / "config.json").read_text())["config"]["recipe"]
    if stored != recipe:
        return f"config.json is of {stored}"
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    if steps != list(range(1, STEPS + 1)):
        return f"the log has the steps {steps}"
    names = {path.name for path in out.iterdir()}
    if names - {"config.json", "identity.npy", "metrics.jsonl", "checkpoints", "best"}:
        return f"it holds {sorted(names)}"
    return None if digest(out, STEPS) == expected else "the weights are of another run"


def named(work: Path, chosen: random.Random, expected: str) -> str | None:
    """Four alike trainings without a name: what is wrong with the outcome, if anything."""
    before = Path.cwd()
    os.chdir(work)
    try:
        given, numbers, soon = config("vae", STEPS), range(4), time.monotonic() + FORKED
        started = [
            child(start, given, None, work / str(i), soon + chosen.uniform(0, 0.002), False)
            for i in numbers
        ]
        codes = [ended(number) for number in started]
    finally:
        os.chdir(before)
    names = {(work / str(i)).read_text() for i in numbers}
    free = {f"runs/vae-array{end}" for end in ("", "-2", "-3", "-4")}
    if any(codes) or names != free:
        return f"exit codes {codes}, names {sorted(names)}"
    return next(filter(None, (mixed(work / name, "vae", expected) for name in names)), None)


def run(work: Path, short: bool) -> Tally:
    """Two unlike trainings that start into one directory, at random moments of each other, and
    fours that are given no directory.

    Survived: one trains, the other says in a line who does, and every file is of the one; of four
    each has a directory of its own.
    """
    tally, chosen, waited = Tally(), random.Random(0), 0
    for recipe in RECIPES:
        data(recipe)  # read once, not by every child
    began = time.monotonic()
    digests = {
        recipe: whole(config(recipe, STEPS), work / f"{recipe} whole") for recipe in RECIPES
    }
    lasts = (time.monotonic() - began) / len(RECIPES)
    for i in range(8 if short else 200):
        place = work / str(i)
        place.mkdir()
        tally.add(f"pair {i}", pair(place, chosen, lasts, digests))
        waited += any(REFUSED[0] in (place / recipe).read_text() for recipe in RECIPES)
        shutil.rmtree(place)
    for i in range(1 if short else 10):
        place = work / f"four {i}"
        place.mkdir()
        tally.add(f"four {i}", named(place, chosen, digests["vae"]))
    tally.notes = {"told who writes": waited}
    return tally
