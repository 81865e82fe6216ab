"""Malformed input by the thousand: each case is accepted, or refused in one line."""

import collections
import contextlib
import random
import re
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monge._core.errors import FailedRun

LONGEST = 20
"""Seconds of a processor after which a case counts as a hang."""
MOST_MEMORY = 1024
"""MiB by which a kind's cases may raise the most memory that the process has had."""


NAMED = re.compile(r"""'[^']*'|"[^"]*"|/\S+|-?\d[\d.,e+-]*""")
"""Names, paths and numbers in a message."""


class Hang(BaseException):
    """A case took too long."""


@dataclass(frozen=True)
class Fuzz:
    """A kind of malformed input."""

    name: str
    prepare: Callable[[Path], Any]
    """Makes what all cases share, once, in an empty folder."""
    case: Callable[[Any, random.Random], None]
    """One case, from what was prepared and a source of random numbers of its own. It returns if
    the input is accepted, and raises ValueError or FailedRun if it is refused."""


@dataclass
class Tally:
    """What became of the cases of a kind."""

    cases: int = 0
    accepted: int = 0
    refused: int = 0
    longest: float = 0.0
    """Seconds of the slowest case."""
    memory: float = 0.0
    """MiB by which the most memory of the process was raised."""
    faults: list[str] = field(default_factory=list)
    refusals: collections.Counter = field(default_factory=collections.Counter)
    """How often each refusal was met, without its numbers and names."""


def attacked(fuzz: Fuzz, folder: Path, count: int, first: int = 0) -> Tally:
    """The cases `first`, …, `first + count - 1` of a kind; what it prepares lies in `folder`.

    A fault is any other exception, a refusal of several lines or with control characters, a hang,
    or a change in the folder `outside` that lies beside what was prepared.
    """
    outside, inside = folder / "outside", folder / "inside"
    outside.mkdir(parents=True)
    (outside / "kept.txt").write_text("kept")
    inside.mkdir()
    prepared, tally = fuzz.prepare(inside), Tally()
    before = peak()
    for i in range(first, first + count):
        began = time.monotonic()
        refusal, fault = outcome(
            lambda i=i: fuzz.case(prepared, random.Random(f"{fuzz.name} {i}"))
        )
        tally.cases += 1
        tally.longest = max(tally.longest, time.monotonic() - began)
        for written in [p for p in outside.iterdir() if p.name != "kept.txt"]:
            fault = fault or f"wrote {written.name!r} outside"
            written.unlink()
        tally.accepted += refusal is None and fault is None
        tally.refused += refusal is not None and fault is None
        if refusal is not None:
            tally.refusals[NAMED.sub("#", refusal)[:70]] += 1
        if fault is not None:
            tally.faults.append(f"{fuzz.name} {i}: {fault}")
    tally.memory = peak() - before
    if tally.memory > MOST_MEMORY:
        tally.faults.append(f"{fuzz.name}: the most memory grew by {tally.memory:.0f} MiB")
    return tally


def outcome(attempt: Callable[[], object]) -> tuple[str | None, str | None]:
    """The refusal that an attempt met, and what is wrong with it, if anything."""
    try:
        with limited(LONGEST), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attempt()
    except Hang:
        return None, f"took over {LONGEST} s"
    except (ValueError, FailedRun) as error:
        return str(error), unfit(str(error))
    except Exception as error:
        return None, f"{error!r} {traceback.format_exc()[-400:]!r}"
    return None, None


def unfit(message: str) -> str | None:
    """Why a message is not one line for a terminal, if it is not."""
    if not message or len(message) > 2000:
        return f"a message of {len(message)} characters: {message[:80]!r}"
    strange = re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", message)
    return f"control characters in {message!r}" if strange else None


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises Hang inside after so many seconds of a processor, or six times as many of the
    clock."""

    def stop(number, frame):
        raise Hang

    former = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 6 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in former.items():
            signal.signal(number, handler)


def peak() -> float:
    """MiB, the most memory this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Content with some bytes flipped, cut, repeated, inserted or replaced by extreme numbers."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, kind = rng.randrange(len(made) + 1), rng.randrange(6)
        length = rng.choice((1, 2, 4, 8, 64))
        if kind == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del made[at : None if rng.random() < 0.3 else at + length]
        elif kind == 2:
            made[at:at] = made[at : at + length] * rng.choice((1, 2, 100))
        elif kind == 3:
            made[at:at] = rng.randbytes(length)
        elif kind == 4:
            made[at : at + 4] = rng.choice(EXTREMES)
        else:
            made[at : at + 1] = rng.choice(WORDS)
    return bytes(made)


EXTREMES = (
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x00" * 4,
    b"\x80\x00\x00\x00",
    b"\x00\x00\x00\x80",
)
WORDS = (b"\n", b"\r\n", b"\x00", b"\x1b[31m", b",", b'"', b"nan", b"1e999", b"-", b"{", b"[" * 99)
