"""Checks of a resumed run: which settings and data may change."""

import dataclasses
import json
import shutil
from pathlib import Path

from monge._core import processes
from monge._core.errors import warn
from monge._core.fields import leaves
from monge._core.files import write_whole
from monge.config import Config, Settled, override
from monge.data import Source
from monge.data.identity import differing, form_of
from monge.training.checkpoint import MAY_CHANGE
from monge.training.loop import read_metrics

HORIZON = ("training.epochs", "training.steps")
FREE = tuple(name for name in MAY_CHANGE if name not in HORIZON)
"""Settings that decide where and how a run is trained, and not what it computes."""
OPEN = ("device", "training.precision")
"""The settings whose `auto` each machine resolves when it starts or resumes a run."""


def completed(given: Config, stored: Config) -> Config:
    """`given`, with what it leaves open as it is stored."""
    old = leaves(stored)
    if given.training.epochs is None and given.training.steps is None:
        for name in HORIZON:
            given = override(given, name, old[name])
    for name, value in leaves(given).items():
        left_open = value is None or (name in OPEN and value == "auto")
        if left_open and name not in HORIZON and name in old:
            given = override(given, name, old[name])
    return given


def placed(given: Config, stored: Config) -> Config:
    """`given`, with the stored place of the data where they are given as an array."""
    if given.data.name != "array":
        return given
    return override(given, "data.name", stored.data.name)


def refuse_changes(stored: Config, given: Config, path: Path) -> None:
    """Refuses settings that a resumed run may not change."""
    old, new = leaves(stored), leaves(given)
    fixed_end = stored.training.schedule in ("smooth", "cosine")
    left_open = (name for name in OPEN if old[name] == "auto")
    free = (*FREE, *(() if fixed_end else HORIZON), *left_open)
    names = [name for name in {**old, **new} if name not in free]
    changed = [n.removeprefix("options.") for n in names if old.get(n) != new.get(n)]
    if changed:
        horizon = "" if fixed_end else "epochs or steps, "
        fixed = ", and no steps, since its rates depend on its end" if fixed_end else ""
        raise ValueError(
            f"`out` {str(path)!r} was started with other settings of {', '.join(changed)}: a "
            f"resumed run may change {horizon}device, threads, log_every and "
            f"checkpoint_seconds{fixed}"
        )


def facts(
    stored: Settled, found: Settled, source: Source, path: Path, data_changed: bool
) -> tuple[Settled, str | None]:
    """The facts that a run goes on with, and what has changed of its data, if anything.

    Data that have changed on purpose are standardised and weighted as before.

    Raises:
        ValueError: for data that are not those of the run, unless `data_changed`.
    """
    if stored.fingerprint is None:  # of monge 0.1
        _refuse_other_facts(stored, found, path)
        return found, None
    form = form_of(stored.kind, stored.shape)
    change = differing(path, stored.fingerprint, form, source.identity)
    if change is None and stored.order != found.order:
        warn(
            f"`data` {source.name!r} are those of the run {str(path)!r} in another order: batches "
            "differ from those of an uninterrupted run"
        )
    if change is not None and not data_changed:
        raise ValueError(
            f"`data` {source.name!r} differs from the data of the run {str(path)!r}: {change}: "
            "pass those as --data, or --data-changed to continue with these"
        )
    if source.identity.form != form:
        raise ValueError(
            f"`data` {source.name!r} cannot replace those of the run {str(path)!r}: {change}"
        )
    if stored.schema is not None and (other := stored.schema.difference(source.schema)):
        raise ValueError(
            f"`data` {source.name!r} cannot replace those of the run {str(path)!r}: {other}"
        )
    if stored.classes != found.classes:
        raise ValueError(
            f"`data` {source.name!r} cannot replace those of the run {str(path)!r}: its classes "
            f"are {', '.join(stored.classes[:10])}, theirs {', '.join(found.classes[:10])}"
        )
    known = dataclasses.replace(
        stored, samples=found.samples, fingerprint=found.fingerprint, order=found.order
    )
    return known, change


def changed(settled: Settled, change: str, start: int, steps: int, path: Path) -> Settled:
    """The facts of a run whose data have changed on purpose; its best model and its validation
    figures, which were judged by the data before, no longer count.

    Raises:
        ValueError: if no step is left to train on the data.
    """
    if start >= steps:
        raise ValueError(
            f"`data_changed` has no step to train: the run {str(path)!r} has reached all {steps}: "
            "give more --steps or --epochs"
        )
    processes.from_first(lambda: _forget_validation(path))
    return dataclasses.replace(settled, changes=(*settled.changes, f"at step {start}: {change}"))


def _forget_validation(path: Path) -> None:
    """Removes the best model, and renames its figures in the log."""
    shutil.rmtree(path / "best", ignore_errors=True)
    rows = read_metrics(path)
    if any("validation" in row for row in rows):
        renamed = {"validation": "validation on earlier data"}
        kept = [{renamed.get(name, name): row[name] for name in row} for row in rows]
        write_whole(path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))


def _refuse_other_facts(stored: Settled, found: Settled, path: Path) -> None:
    """Refuses data that differ from those of a run which has no fingerprint."""
    old, new = leaves(stored), leaves(found)
    names = ("kind", "shape", "samples", "spread", "moments")  # the rest follows from them
    changed = [name for name in names if old[name] not in (None, new[name])]
    if changed:
        raise ValueError(
            f"`data` differ from those that the run {str(path)!r} was started with in "
            f"{', '.join(changed)}: a resumed run needs the same data"
        )


def warn_of_bits(stored: Settled, now: Settled) -> None:
    """Warns where a run goes on with other hardware, threads or torch, which round otherwise."""
    names = {
        "device": "device",
        "precision": "precision",
        "threads": "threads",
        "processor": "CPU instructions",
        "torch": "torch",
    }
    changed = [
        f"{text} {getattr(now, name)} after {getattr(stored, name)}"
        for name, text in names.items()
        if getattr(stored, name) not in (None, getattr(now, name))
    ]
    if changed:
        warn(
            f"resumed with {', '.join(changed)}: the bits may differ from those of an "
            "uninterrupted run"
        )
