"""What disks do to a run: torn files, flipped bits, no space left, errors of writing."""

import contextlib
import errno
import itertools
import os
import random
import resource
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from monge.training import checkpoint
from monge.training.trainer import Trainer

from .common import Tally, config, data, digest, failed, other_end, sound, train

HALF, STEPS = 3, 6
GIVEN = config("wae-gan", STEPS, checkpoint_seconds=1000.0, ema=0.9)
DATA = data("wae-gan")


def finished(out: Path) -> str:
    """A run with checkpoints of steps 3 and 6: the digest of its end."""
    train(config("wae-gan", HALF, checkpoint_seconds=1000.0, ema=0.9), out, DATA)
    train(GIVEN, out, DATA)
    return digest(out, STEPS)


def unseen(folder: Path) -> str | None:
    try:
        checkpoint.verified(folder)
    except ValueError as error:
        return None if folder.name in str(error) else f"checkpoint not named: {error}"
    return "verified all the same"


def torn(work: Path, short: bool) -> Tally:
    """Files of checkpoints and of the run's log cut at random places, or missing.

    Survived: the damage is noticed; and where the run is resumed, it goes on from the checkpoint
    before, or from step 0 where that is damaged too, and ends with the same bits.
    """
    tally, chosen = Tally(), random.Random(0)
    whole = work / "whole"
    expected = finished(whole)
    newest, before = checkpoint.newest_first(whole / "checkpoints")
    names = sorted(file.name for file in newest.iterdir())
    for name in names:
        file = newest / name
        content = file.read_bytes()
        for at in (
            None,
            0,
            *(chosen.randrange(len(content)) for _ in range(20 if short else 250)),
        ):
            file.unlink() if at is None else os.truncate(file, at)
            tally.add(f"{name} cut at {at}", unseen(newest))
            file.write_bytes(content)
    resumed = 0
    for i in range(4 if short else 40):
        out = Path(shutil.copytree(whole, work / "torn"))
        damaged = [newest.name, before.name] if i % 4 == 3 else [newest.name]
        places = []
        for folder in damaged:
            file = out / "checkpoints" / folder / chosen.choice(names)
            place = chosen.randrange(file.stat().st_size)
            os.truncate(file, place) if chosen.random() < 0.8 else file.unlink()
            places.append(f"{folder}/{file.name} at {place}")
        log = out / "metrics.jsonl"
        os.truncate(log, chosen.randrange(log.stat().st_size))
        tally.add(f"resumed with {places}", _resumed(out, expected))
        resumed += 1
        shutil.rmtree(out)
    tally.notes = {"resumed to the same bits": resumed}
    return tally


def _resumed(out: Path, expected: str) -> str | None:
    """What is wrong with how a run with a damaged newest checkpoint is resumed."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        complaint = other_end(GIVEN, out, DATA, expected)
    if not any("damaged" in str(w.message) or "verifies" in str(w.message) for w in said):
        return "nothing was said of the damage"
    return complaint


def flips(work: Path, short: bool) -> Tally:
    """Single bits of every file of a checkpoint, at random.

    Survived: the checkpoint does not verify.
    """
    tally, chosen = Tally(), random.Random(0)
    finished(work / "whole")
    folder = checkpoint.newest_first(work / "whole" / "checkpoints")[0]
    contents = {file: file.read_bytes() for file in folder.iterdir()}
    for file, content in contents.items():
        handle = os.open(file, os.O_WRONLY)
        for _ in range(100 if short else 1500):
            at, bit = chosen.randrange(len(content)), chosen.randrange(8)
            os.pwrite(handle, bytes([content[at] ^ 1 << bit]), at)
            tally.add(f"{file.name}, bit {bit} of byte {at}", unseen(folder))
            os.pwrite(handle, content[at : at + 1], at)
        os.close(handle)
    checkpoint.verified(folder)
    tally.notes = {"files": len(contents)}
    return tally


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of 16 MB at `folder`, where this process may mount one; whether it may."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(command, capture_output=True)
    really = bool(mounted and mounted.returncode == 0)
    try:
        yield really
    finally:
        if really:
            subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, left: int) -> Callable[[], None]:
    """Leaves `left` bytes of a disk free; what is returned frees the others."""
    free = os.statvfs(disk)
    size = free.f_bavail * free.f_frsize - left
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return ballast.unlink


def limit(disk: Path, left: int) -> Callable[[], None]:
    """No file longer than `left` bytes can be written; what is returned lifts that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full(work: Path, short: bool) -> Tally:
    """A disk that is full at three sizes when a checkpoint is due, or when a step is logged; and
    errors of fsync and of write at every file of a checkpoint.

    Survived: FailedRun with the step; the checkpoint before is whole and finite; and resumed on a
    disk that is well again, the run ends with the same bits.
    """
    tally, disk = Tally(), work / "disk"
    with small_disk(disk) as real:
        expected = finished(disk / "whole")
        newest = disk / "whole" / "checkpoints" / f"step-{STEPS}"
        model, state = (
            (newest / f"{name}.safetensors").stat().st_size for name in ("model", "training")
        )
        page = os.sysconf("SC_PAGESIZE")
        both = sum(-(-size // page) * page for size in (model, state))
        # full in the first file, in the second, and in the small ones after them
        sizes = (0, both - page, both) if real else (100, model // 2, state - 1)
        faults = {f"{left} bytes left": saving(disk, left, real) for left in sizes}
        if real:
            faults["full at a line of the log"] = logging(disk)
        for kind, calls in (("fsync", 6), ("write", 4)):
            for call in range(calls):
                faults[f"EIO of {kind} number {call} of a checkpoint"] = failing(kind, call)
        for name, fault in faults.items():
            tally.add(name, _lost(disk / "run", expected, fault))
    tally.notes = {"disk": "really full, a tmpfs" if real else "not mounted: RLIMIT_FSIZE instead"}
    return tally


def _lost(out: Path, expected: str, fault: contextlib.AbstractContextManager) -> str | None:
    """What is lost by a fault in the second half of a run."""
    shutil.rmtree(out, ignore_errors=True)
    train(config("wae-gan", HALF, checkpoint_seconds=1000.0, ema=0.9), out, DATA)
    with fault:
        words = failed(GIVEN, out, DATA)
    if words is None or not words.startswith("step "):
        return f"no FailedRun that names the step: {words}"
    before = out / "checkpoints" / f"step-{HALF}"
    checkpoint.verified(before)
    if f"step-{HALF} is intact" not in words:
        return f"it is not said what is left: {words}"
    if parts := [p.name for p in (out / "checkpoints").glob(".*")]:
        return f"a part is left: {parts}"
    if (unsound := sound(out)) is not None:
        return unsound
    return other_end(GIVEN, out, DATA, expected)


@contextlib.contextmanager
def saving(disk: Path, left: int, real: bool) -> Iterator[None]:
    """`left` bytes are left when the next checkpoint is written, until the end."""
    save, healers, hurt = checkpoint.save, [], fill if real else limit

    def saved(*given):
        healers.append(hurt(disk, left))
        return save(*given)

    with mock.patch.object(checkpoint, "save", saved):
        yield
    for heal in healers:
        heal()


@contextlib.contextmanager
def logging(disk: Path) -> Iterator[None]:
    """The disk is full from the next step on, and the log at the end of its page."""
    step, healers = Trainer.step, []

    def stepped(trainer, *given, **named):
        if not healers:
            log = disk / "run" / "metrics.jsonl"
            page = os.sysconf("SC_PAGESIZE")
            with log.open("a") as file:
                file.write("\n" * (-log.stat().st_size % page))
            healers.append(fill(disk, 0))
        return step(trainer, *given, **named)

    with mock.patch.object(Trainer, "step", stepped):
        yield
    for heal in healers:
        heal()


@contextlib.contextmanager
def failing(kind: str, call: int) -> Iterator[None]:
    """EIO of one fsync, or of one write after a part of its file, of the next checkpoint."""
    save, write, fsync = checkpoint.save, checkpoint.write_synced, os.fsync
    calls = itertools.count()
    broken = OSError(errno.EIO, os.strerror(errno.EIO))

    def synced(handle):
        if next(calls) == call:
            raise broken
        fsync(handle)

    def wrote(path, content):
        if next(calls) == call:
            path.write_bytes(content[: len(content) // 2])
            raise broken
        write(path, content)

    def saved(*given):
        target = (os, "fsync", synced) if kind == "fsync" else (checkpoint, "write_synced", wrote)
        with mock.patch.object(*target):
            return save(*given)

    with mock.patch.object(checkpoint, "save", saved):
        yield
