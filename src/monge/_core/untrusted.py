"""Files that a stranger may have made: regular files that stay in their folder, of bounded size,
which hold what they should."""

import json
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

MOST_BYTES = 2**26
"""Bytes of a file that describes something else."""
MOST_NESTED = 64
"""Folders within folders."""


def refuse_links(
    folder: Path,
    names: Iterable[str],
    argument: str,
    is_folder: Callable[[str], bool | None] = lambda name: None,
) -> None:
    """Refuses a folder of which some entries, or what lies in them, are neither regular files nor
    folders: links may lead anywhere, and pipes and devices never end.

    The folder itself may be a link. The one layout of links that is known is that of the cache of
    Hugging Face, whose `snapshots/REVISION` link to files in `blobs` beside `snapshots`.

    Args:
        folder: the folder.
        names: the entries that are looked at.
        argument: which argument gave the folder, for the message.
        is_folder: whether what has a name is to be a folder, or a file; None for either.

    Raises:
        ValueError: naming the entry.
    """
    for name in names:
        _refuse(folder / name, folder, argument, is_folder, MOST_NESTED)


def _refuse(
    path: Path,
    folder: Path,
    argument: str,
    is_folder: Callable[[str], bool | None],
    depth: int,
) -> None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ValueError(f"`{argument}` {str(folder)!r} cannot be read: {error}") from None
    shown = f"`{argument}` {str(folder)!r} holds {str(path.relative_to(folder))!r}, "
    if stat.S_ISLNK(mode) and not _is_blob(path, folder):
        raise ValueError(
            f"{shown}a link, which is not followed: remove it, or copy the folder with what its "
            "links name (cp -rL)"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)) or depth == 0:
        raise ValueError(f"{shown}which is not a regular file: remove it")
    if is_folder(path.name) not in (None, stat.S_ISDIR(mode)):
        what = "folder" if stat.S_ISDIR(mode) else "file"
        raise ValueError(f"{shown}a {what}, which it cannot be: remove it")
    if stat.S_ISDIR(mode):
        for entry in os.scandir(path):
            _refuse(Path(entry.path), folder, argument, is_folder, depth - 1)


def _is_blob(link: Path, folder: Path) -> bool:
    """Whether a link is one of the cache of Hugging Face, to a regular file of the same cache."""
    snapshots = Path(os.path.realpath(folder)).parent
    target = Path(os.path.realpath(link))
    return (
        snapshots.name == "snapshots"
        and target.parent == snapshots.parent / "blobs"
        and stat.S_ISREG(target.lstat().st_mode if os.path.lexists(target) else 0)
    )


def read_regular(path: str | Path, most: int | None = MOST_BYTES) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        most: how many bytes it may have; None for as many as memory has.

    Raises:
        OSError: if it cannot be read.
        ValueError: for what is not a regular file, or too large.
    """
    # without waiting for the other end of a pipe
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise ValueError(f"{os.path.basename(path)!r} is not a regular file")
    with open(handle, "rb") as file:
        most = memory() if most is None else most
        if found.st_size > most:
            raise ValueError(f"{os.path.basename(path)!r} has over {most:,} bytes")
        return file.read(found.st_size)  # no more, though it may grow meanwhile


def memory() -> int:
    """Bytes of memory of this machine, or more than any has where that is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**63


def parsed(content: bytes | str) -> Any:
    """What JSON says; NaN and infinity are read as such.

    Raises:
        ValueError: in one line, for what is no JSON, or nested too deeply.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"not JSON: {reason}") from None


def converted(values: Any, kind: type[T], where: str) -> T:
    """Parsed JSON as a record.

    Args:
        values: what was parsed.
        kind: a dataclass, or any type that msgspec knows.
        where: the dotted name of the record, for the message.

    Raises:
        ValueError: naming the first field that is missing or of another type, with its value.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        path = path.rstrip("`")
        shown = shortened(_at(values, path))
        raise ValueError(f"`{where}{path}` is {shown}: {reason[:1].lower()}{reason[1:]}") from None
    except RecursionError:
        raise ValueError(f"`{where}` is nested too deeply") from None


def _at(values: Any, path: str) -> Any:
    """The value at a path as msgspec writes it, `.key` and `[index]`; what is known of it where
    the path does not tell a key."""
    for key, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path):
        try:
            values = values[key] if key else values[int(index)]
        except (KeyError, IndexError, TypeError):
            break
    return values


def shortened(value: Any, most: int = 60) -> str:
    """A value on one line of at most `most` characters."""
    text = {dict: "an object", list: "a list"}.get(type(value))
    if text is None:
        text = repr(value[: most + 1] if isinstance(value, str) else value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
