"""Processes that are killed or told to stop: SIGKILL, the signals that save, a rank of several."""

import itertools
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from monge._core.errors import Interrupted
from monge.config import Config
from monge.recipes import RECIPES
from monge.training import checkpoint, loop

from .common import Tally, child, config, data, digest, ended, going, newest_step, train, whole

STEPS = 30
SAVING = 0.02
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


def dying(given: Config, out: Path, moment: int, chosen: random.Random) -> None:
    """Trains until the call number `moment` by which checkpoints reach the disk: SIGKILL, with a
    random part of its file written."""
    calls, write, sync = itertools.count(), checkpoint.write_synced, checkpoint.sync_folder

    def wrote(path: Path, content: bytes) -> None:
        if next(calls) == moment:
            path.write_bytes(content[: chosen.randrange(len(content) + 1)])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    def synced(path: Path) -> None:
        if next(calls) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(path)

    with mock.patch.multiple(checkpoint, write_synced=wrote, sync_folder=synced):
        train(given, out)


def kills(work: Path, short: bool) -> Tally:
    """Every recipe, killed at random moments and in the middle of writing checkpoints.

    Survived: resumed after each kill, the run ends with the weights, to the last bit, of the run
    that nothing happened to.
    """
    tally, in_writing = Tally(), 0
    for recipe in ("wae-gan", "swg") if short else RECIPES:
        chosen, given = random.Random(recipe), config(recipe, STEPS, checkpoint_seconds=SAVING)
        data(recipe)  # read once, not by every child
        began = time.monotonic()
        expected = whole(given, work / f"{recipe} whole")
        lasts, out, found, codes = time.monotonic() - began, work / recipe, [], set()
        for i in range(4 if short else 8):
            # the first calls of some checkpoints: four files and two folders each
            moment = chosen.randrange(30) if i % 2 else None
            if moment is not None:
                number = child(dying, given, out, moment, chosen)
            else:
                number = child(train, given, out)
                time.sleep(chosen.uniform(0, 0.4 * lasts))
                os.kill(number, signal.SIGKILL)
            code = ended(number)
            codes.add(code)
            if code:  # else it had ended before
                found.append(f"{recipe}, killed at step {newest_step(out)}")
                in_writing += moment is not None
        codes.add(ended(child(train, given, out)))
        if not codes <= {0, -signal.SIGKILL}:
            complaint = f"it does not go on: exit codes {sorted(codes)}"
        else:
            complaint = None if digest(out, STEPS) == expected else "the end differs"
        for name in found:
            tally.add(name, complaint)
    tally.notes = {"recipes": 2 if short else len(RECIPES), "in mid-checkpoint": in_writing}
    return tally


def told(given: Config, out: Path, pipe: int) -> None:
    """Trains; writes the moment at which it was saved, and the words, into a pipe."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    try:
        train(given, out)
    except Interrupted as stop:
        os.write(pipe, f"{time.monotonic()} {stop}".encode())
        raise


def signals(work: Path, short: bool) -> Tally:
    """SIGTERM, SIGUSR1, SIGINT and SIGHUP at random moments of training.

    Survived: training ends in Interrupted, its words and the newest checkpoint are of the last
    step it logged, and resumed it ends with the same bits.
    """
    tally, latencies, steps = Tally(), [], 250
    recipes = ("wae-mmd",) if short else ("wae-mmd", "wae-gan", "swae", "gan", "wgan-gp")
    for recipe in recipes:
        chosen, given = random.Random(recipe), config(recipe, steps, checkpoint_seconds=1000.0)
        data(recipe)
        expected = whole(given, work / f"{recipe} whole")
        out, found = work / recipe, {}
        for i, number in enumerate(SIGNALS * 3):
            reading, writing_end = os.pipe()
            before = newest_step(out)
            process = child(told, given, out, writing_end)
            os.close(writing_end)
            while going(process) and _logged(out) <= before:
                time.sleep(0.005)
            time.sleep(chosen.uniform(0, 0.2))
            sent = time.monotonic()
            os.kill(process, number)
            code = ended(process)
            with os.fdopen(reading) as file:
                words = file.read()
            if code == 0:
                break  # it had ended before
            name = f"{recipe}, {number.name} number {i}"
            found[name] = _not_saved(out, number, code, words)
            if words:
                latencies.append(1000 * (float(words.split()[0]) - sent))
        differs = ended(child(train, given, out)) or digest(out, steps) != expected
        for name, complaint in found.items():
            tally.add(name, complaint or ("the end differs" if differs else None))
    tally.notes = {
        "median ms to saved": round(statistics.median(latencies)),
        "largest ms to saved": round(max(latencies)),
    }
    return tally


def _logged(out: Path) -> int:
    """The last step of the log."""
    rows = loop.read_metrics(out)
    return rows[-1]["step"] if rows else 0


def _not_saved(out: Path, number: signal.Signals, code: int, words: str) -> str | None:
    if code != 128 + number:
        return f"ended with exit code {code}"
    step = _logged(out)
    checkpoint.verified(out / "checkpoints" / f"step-{newest_step(out)}")
    if newest_step(out) != step or f"{number.name}: saved step {step} of" not in words:
        return f"at step {step} the newest checkpoint is {newest_step(out)}: {words}"
    return None


RANKS_STEPS = 200


def several(out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *more,
        "-m",
        "monge",
        "train",
        "wae-gan",
        "--out",
        str(out),
        "--resume",
        "--steps",
        str(RANKS_STEPS),
        "--threads",
        "1",
        "--set",
        "training.checkpoint_seconds=0.2",
        "network.filters=4,8",
    ]


def worker(out: Path, rank: int) -> int | None:
    """The number of the process of a rank that trains into `out`."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line, environment = ((path / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:  # it has ended, or is another user's
            continue
        mine = str(out).encode() in line and f"\0RANK={rank}\0".encode() in environment
        if mine and b"torch.distributed.run" not in line:
            return int(path.name)
    return None


def elastic(work: Path, short: bool) -> Tally:
    """Two processes under torchrun, of which one is killed, time and again.

    Survived: the other one ends within 60 s, torchrun starts both again, and the run ends with
    the weights, to the last bit, of the two that nothing happened to.
    """
    tally, chosen, lasted = Tally(), random.Random(0), []
    subprocess.run(several(work / "whole"), check=True, capture_output=True)
    out, ranks = work / "killed", (1,) if short else (1, 0, 1)
    with (work / "errors").open("wb") as errors:
        launcher = subprocess.Popen(
            several(out, "--max-restarts", str(len(ranks))),
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    reached = 0
    for rank in ranks:
        while newest_step(out) <= reached and launcher.poll() is None:
            time.sleep(0.01)
        time.sleep(chosen.uniform(0, 0.2))
        killed, other = worker(out, rank), worker(out, 1 - rank)
        if killed is None or other is None:
            tally.add(f"rank {rank}", f"training had ended at step {newest_step(out)}")
            break
        os.kill(killed, signal.SIGKILL)
        began = time.monotonic()
        while Path(f"/proc/{other}").exists() and time.monotonic() - began < 60:
            time.sleep(0.05)
        lasted.append(time.monotonic() - began)
        reached = newest_step(out)  # what is newer is of those that are started again
        tally.add(f"rank {rank}", None if lasted[-1] < 60 else "the other one did not end")
    code = launcher.wait(timeout=600)
    if code or digest(out, RANKS_STEPS) != digest(work / "whole", RANKS_STEPS):
        said = (work / "errors").read_text()[-2000:]
        tally.failures = [f"exit code {code}, or the end differs: {said}"] * tally.faults
    tally.notes = {"largest s until the other had ended": round(max(lasted, default=0.0), 1)}
    return tally
