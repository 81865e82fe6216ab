"""The run directory of a training: made exclusively, and locked as long as it is written."""

import contextlib
import itertools
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from monge._core import processes
from monge._core.files import PART
from monge._core.locks import HOLDER, LOCK, ReadOnly, alone
from monge.config import Config, Settled, read_sealed
from monge.config.trust import refuse_paths

Stored = tuple[Config, Settled] | None

RUNS = "runs"
"""The folder of runs for which no other place is given."""
LATEST = "latest"
"""The link in it to the run that was begun or resumed last."""
LEFTOVERS = {LOCK, HOLDER}
"""Files that a process killed at its start leaves, besides those that it was writing."""


class Directory(NamedTuple):
    """A run directory that a training has opened."""

    path: Path
    stored: Stored
    """What is stored there of a run that is resumed."""
    read_only: str = ""
    """Why nothing can be written there; a run that is resumed may be finished."""


@contextlib.contextmanager
def opened(
    config: Config, out: str | Path | None, resume: bool, trust_data: bool = False
) -> Iterator[Directory]:
    """Gives the run directory, into which no other process writes inside.

    With several processes, the first one opens it. What was made for a run that does not begin is
    removed.

    Raises:
        ValueError: if it is not free, cannot be made or written, or is being written.
    """
    with contextlib.ExitStack() as stack:
        yield processes.from_first(
            lambda: stack.enter_context(_opened(config, out, resume, trust_data))
        )


@contextlib.contextmanager
def _opened(
    config: Config, out: str | Path | None, resume: bool, trust_data: bool
) -> Iterator[Directory]:
    path = None if out is None else Path(os.path.expanduser(out))
    path, made = _numbered(config, resume) if path is None else _given(path, resume)
    try:
        with _alone(path, resume) as read_only:
            _refuse_taken(path, resume)  # whoever had it before may have filled it
            for left in path.glob(f".*{PART}"):
                with contextlib.suppress(OSError):
                    left.unlink()
            exists = resume and os.path.lexists(path / "config.json")
            with _latest(path):
                stored = _stored(path, config, trust_data) if exists else None
                yield Directory(path, stored, read_only)
    finally:
        if not (path / "config.json").exists():
            with contextlib.suppress(OSError):  # another process has it, or one of its parents
                for folder in made:
                    folder.rmdir()


@contextlib.contextmanager
def _alone(path: Path, resume: bool) -> Iterator[str]:
    """Keeps other processes from writing into a directory; gives why this one cannot either, of a
    run that is to be resumed."""
    with contextlib.ExitStack() as stack:
        read_only = ""
        try:
            stack.enter_context(alone(path, "out"))
        except ReadOnly as error:
            if not (resume and os.path.lexists(path / "config.json")):
                raise
            read_only = str(error)
        yield read_only


@contextlib.contextmanager
def _latest(path: Path) -> Iterator[None]:
    """Makes `runs/latest` a link to a run in `runs`, unless the run does not begin.

    It is a convenience: where links cannot be made, or something else has that name, there is
    none.
    """
    link, before = path.parent / LATEST, None
    if path.parent.name != RUNS or path.name == LATEST:
        yield
        return
    with contextlib.suppress(OSError):
        before = os.readlink(link)
    _point(link, path.name)
    try:
        yield
    finally:
        if before is not None and not (path / "config.json").exists():
            _point(link, before)
        elif not (path / "config.json").exists() and link.is_symlink():
            link.unlink(missing_ok=True)


def _point(link: Path, target: str) -> None:
    """Makes a link, or points it elsewhere in one step."""
    made = link.with_name(f".{link.name}.{secrets.token_hex(8)}{PART}")
    with contextlib.suppress(OSError):
        if os.path.lexists(link) and not link.is_symlink():
            return
        os.symlink(target, made, target_is_directory=True)
        os.replace(made, link)


def _stored(path: Path, config: Config, trust_data: bool) -> Stored:
    """What is stored of the run that is to be resumed; what `config` leaves open is taken from
    there, but no folder that this account has not put there."""
    stored, settled, foreign = read_sealed(path)
    left = {name: place for name, place in foreign.items() if getattr(config.data, name) is None}
    refuse_paths(path, {} if trust_data else left)
    return stored, settled


def _numbered(config: Config, resume: bool) -> tuple[Path, list[Path]]:
    """A new directory under `runs`, and all that was made for it."""
    if resume:
        raise ValueError("`resume` needs `out`, the run directory to continue: give --out")
    # the name of the data may be a pattern
    names = (config.recipe, Path(config.data.name).stem)
    stem = "-".join(re.sub(r"[^\w.-]+", "-", name) for name in names)
    for i in itertools.count(1):
        path = Path(RUNS) / (stem if i == 1 else f"{stem}-{i}")
        try:
            return path, _make(path)
        except FileExistsError:
            continue
    raise AssertionError("there is always another number")


def _given(path: Path, resume: bool) -> tuple[Path, list[Path]]:
    """The directory that was asked for, and all that was made for it."""
    try:
        return path, _make(path)
    except FileExistsError:
        if not os.path.lexists(path / LOCK):  # otherwise its holder is named first, if it has one
            _refuse_taken(path, resume)
        return path, []


def _make(path: Path) -> list[Path]:
    """Makes a directory, and gives those that it took, the innermost first.

    Raises:
        FileExistsError: if it exists, whoever has made it.
        ValueError: if it cannot be made.
    """
    try:
        missing = [path, *itertools.takewhile(lambda parent: not parent.exists(), path.parents)]
        path.mkdir(parents=True)
    except OSError as error:
        if isinstance(error, FileExistsError) and os.path.lexists(path):
            raise
        raise ValueError(f"`out` {str(path)!r} cannot be written: {error}") from None
    return missing


def _refuse_taken(path: Path, resume: bool) -> None:
    """Refuses what is not a directory, or holds anything but the run that is to be resumed."""
    if resume and (path / "model.safetensors").is_file() and not (path / "checkpoints").is_dir():
        raise ValueError(
            f"`out` {str(path)!r} holds published weights and no checkpoint to go on from: resume "
            "the run that they were exported from"
        )
    taken = not path.is_dir() or any(not _is_left_over(p.name) for p in path.iterdir())
    if taken and not (resume and (path / "config.json").exists()):
        way = "it holds no run to resume" if resume else "continue it with --resume"
        raise ValueError(f"`out` {str(path)!r} exists already: {way}, or choose another")


def _is_left_over(name: str) -> bool:
    return name in LEFTOVERS or (name.startswith(".") and name.endswith(PART))
