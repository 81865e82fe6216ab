"""Files written whole or not at all, and what damaged files raise."""

import contextlib
import os
import secrets
import stat
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from monge._core.errors import warn

DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    tokenize.TokenError,
    Image.DecompressionBombError,
)
"""The errors of NumPy and Pillow for damaged files."""
PART = ".part"
"""The suffix of files that are being written; a killed process leaves them."""


def user_cache() -> Path:
    """Where what can be made or fetched again is kept: MONGE_CACHE, or monge/ in the user's cache
    folder.

    A relative XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification asks.

    Raises:
        ValueError: where no home folder is known, as in a container without HOME.
    """
    named, caches = os.environ.get("MONGE_CACHE"), os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):
        caches = "~/.cache"
    place = os.path.expanduser(named or os.path.join(caches, "monge"))
    if place.startswith("~"):
        raise ValueError(
            f"`MONGE_CACHE` is {named!r} and no home folder is known, where the cache would lie: "
            "set it to a folder"
        )
    return Path(place)


def keep(file: Path, content: bytes, made: str) -> None:
    """Writes a file of the cache; warns where it cannot be, after which it is `made` each time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)
    except OSError as error:
        warn(f"{made} anew each time, since {str(file)!r} cannot be written: {error}")


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def new_file(path: Path) -> tuple[Path, int]:
    """Makes an empty file beside `path`, under a name that no other writer has and whatever lies
    there; gives the name and the open file.

    It has the permissions of the file that it is to replace, otherwise those that the umask
    leaves.
    """
    # as much as the file system can write of it: the name is only for who looks into the folder
    stem = os.fsencode(path.name)[:100].decode(sys.getfilesystemencoding(), "ignore")
    exclusive = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        partial = path.with_name(f".{stem}.{secrets.token_hex(8)}{PART}")
        try:
            handle = os.open(partial, exclusive | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileExistsError:
            continue
        with contextlib.suppress(OSError):
            replaced = os.lstat(path)
            if stat.S_ISREG(replaced.st_mode):
                os.chmod(partial, stat.S_IMODE(replaced.st_mode) & 0o777)
        return partial, handle


def write_whole(path: Path, content: str | bytes | Iterable[bytes]) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part; content that
    comes in pieces is never held whole."""
    if isinstance(content, str):
        # names of files that are not in the encoding of the file system keep their bytes
        content = content.encode("utf-8", "surrogateescape")
    try:
        partial, handle = new_file(path)
        try:
            with open(handle, "wb") as file:
                file.writelines([content] if isinstance(content, bytes) else content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)  # a link at the name is replaced, not followed
        except BaseException:  # also what raises while pieces are made
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:  # which names the temporary file, or none
        raise OSError(error.errno, error.strerror, str(path)) from None
    sync_folder(path.parent)


def write_all(
    folder: Path, contents: Mapping[str, str | bytes | Iterable[bytes]], name: str = "out"
) -> list[Path]:
    """Writes files by name into a folder, which is made if need be, each whole or not at all.

    Raises:
        ValueError: if they cannot be written; `name` is the argument that gave the folder.
    """
    place = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            place = folder / file
            write_whole(place, content)
    except OSError as error:
        raise ValueError(f"`{name}` {str(place)!r} cannot be written: {error}") from None
    return [folder / file for file in contents]
