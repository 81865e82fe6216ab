"""One writer a folder: an advisory lock that says who holds it."""

import contextlib
import errno
import json
import os
import shlex
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from monge._core.errors import warn

LOCK, HOLDER = ".lock", ".lock.json"
MISSING = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""The errors of file systems without locks."""
PATIENCE = 1.0
"""Seconds to wait until the holder of a lock has written who it is, or has ended."""

_held: set[tuple[int, int, str]] = set()


class NotWritable(ValueError):
    """A folder is locked by another process, or cannot be written."""


class ReadOnly(NotWritable):
    """A folder cannot be written by this account, or at all."""


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Keeps other processes, and other threads of this one, from writing into a folder.

    The lock is the operating system's (flock), on the file `.lock`. It ends with its process,
    however that ends, so what a killed process has left never blocks; `.lock.json` only tells who
    holds it. Both files are removed at the end. Inside, the same thread may ask again.

    The lock is advisory: it keeps out processes that ask. Between machines it holds as far as the
    network file system passes flock on, which NFS on Linux does from 2.6.12 on, unless mounted
    with `nolock` or `local_lock`, and Lustre if mounted with `flock`; with `localflock` it holds
    within each machine. A file system without locks is warned of, and the folder written
    unlocked.

    Args:
        folder: the folder, which exists.
        name: the argument that gave it.

    Raises:
        NotWritable: in one line, if another process holds the lock; ReadOnly, if the folder
            cannot be written.
    """
    place = os.path.realpath(folder)
    key = (os.getpid(), threading.get_ident(), place)
    if key in _held:
        yield
        return
    lock = _acquired(folder, place, name)
    _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)
        if lock is not None:
            # before the release: afterwards they might be the next holder's
            for file in (HOLDER, LOCK):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(place, file))
            lock.release()


def _acquired(folder: Path, place: str, name: str) -> FileLock | None:
    """The lock, held, with the holder's file written; None where there are no locks."""
    file, end = os.path.join(place, LOCK), time.monotonic() + PATIENCE
    locked: list[os.stat_result] = []
    lock = FileLock(
        file, fallback_to_soft=False, on_acquired=lambda fd: locked.append(os.fstat(fd))
    )
    while True:
        # the lock would make it again
        if not os.path.isdir(place):
            raise NotWritable(f"`{name}` {str(folder)!r} is not there any more")
        try:
            lock.acquire(blocking=False)
            if _is(file, locked[-1]):
                _sign(place)
                return lock
            lock.release()  # it had been opened before its last holder removed it
        except Timeout:
            holder = _holder(place)
            if holder is not None or time.monotonic() > end:
                raise NotWritable(
                    f"`{name}` {str(folder)!r} is being written by "
                    f"{holder or 'another process'}: wait until it has ended"
                ) from None
            time.sleep(0.02)
        except OSError as error:
            if error.errno in MISSING:
                warn(
                    f"the file system of {str(folder)!r} has no locks ({error}): "
                    "see that no other process writes there"
                )
                return None
            raise ReadOnly(
                f"`{name}` {str(folder)!r} cannot be written: {error}: work on a copy of it"
            ) from None


def _is(file: str, locked: os.stat_result) -> bool:
    """Whether a name is still that of the file that was locked."""
    try:
        return os.path.samestat(os.stat(file, follow_symlinks=False), locked)
    except FileNotFoundError:
        return False


def _sign(place: str) -> None:
    """Writes who holds the lock; a full disk, which has no place for it, does not matter."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    command = shlex.join([name, *sys.argv[1:]])
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": command[:200],
        "since": time.time(),
    }
    file = os.path.join(place, HOLDER)
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)
        with open(file, "x", encoding="utf-8", errors="replace") as opened:  # follows no link
            json.dump(holder, opened)


def _holder(place: str) -> str | None:
    """Who holds the lock; None if its file is not there yet, or is of a process that has ended."""
    try:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(os.path.join(place, HOLDER), flags)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            stored = json.loads(os.read(handle, 10_000))
        finally:
            os.close(handle)
        pid, host, command = int(stored["pid"]), str(stored["host"]), str(stored["command"])
        since = datetime.fromtimestamp(float(stored["since"])).astimezone()
        if host == socket.gethostname() and not _lives(pid):
            return None
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    # names and commands as `repr` shows them: they might move a terminal's cursor
    return f"process {pid} on {host!r} ({command!r}) since {since:%Y-%m-%d %H:%M:%S %Z}"


def _lives(pid: int) -> bool:
    """Whether a process of this machine goes on, as far as that can be known."""
    if os.name != "posix":
        return True  # there a signal 0 is no question
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
