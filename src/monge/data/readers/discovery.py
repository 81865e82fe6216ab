"""Which files of a folder or archive hold samples: one rule for images, clouds, arrays and shards.

Hidden files and what operating systems leave behind are skipped, links are followed, and files of
other kinds are told apart by their first bytes. Whatever is left out is counted under a reason.
"""

import os
import re
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from numpy.typing import ArrayLike

from monge._core.files import DAMAGED
from monge._core.visible import brief
from monge.data.source import unused_parts

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
CLOUDS = (".ply", ".xyz", ".off", ".obj", ".stl")
TEXT = {".txt", ".json", ".xml", ".md", ".html", ".yaml", ".yml", ".cls", ".mtl", ".log", ".py"}
"""Suffixes of files that accompany samples, and are not opened where there are many."""
MOST_TEXTS = 100
LITTER = {"__MACOSX", "@eaDir", "$RECYCLE.BIN"}
HEAD = 512
KERNEL = ("proc", "sys")
"""Folders of Linux whose files may never end, whatever they say they are."""
LONGEST_NAME = 4096
"""Characters, as in paths of Linux."""
NO_DECODER = "no decoder"
COMPANIONS = ("tables", "archives")
"""Kinds of files that lie beside samples and hold none of them."""
MOST_OTHERS = 0.5
"""How many files of other kinds may be left out, as a share of those of the main kind."""
SIGNATURES = (
    (rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*", "images", ".png"),
    (rb"BM....\0\0\0\0|P[1-6](\s+\d|\s*#)", "images", ".bmp"),
    (rb"ply[ \t]*[\r\n]\s*(format|comment|obj_info)", "clouds", ".ply"),
    (rb"(ST)?C?N?4?n?OFF\s*(#|BINARY|\d+\s)", "clouds", ".off"),
    (rb"\x93NUMPY", "arrays", ".npy"),
    (rb"PK\x03\x04.{26}[^/\0]{1,200}\.npy", "arrays", ".npz"),
    (rb"PK\x03\x04", "archives", ".zip"),
    (rb".{257}ustar", "shards", ".tar"),
    (rb"....ftyp(avi[fs]|hei[cx]|mif1|msf1)|\xff\x0a|\0\0\0\x0c(JXL|jP  )", NO_DECODER, ""),
    (rb"8BPS|v/1\x01|#\?RADIANCE|<svg", NO_DECODER, ""),
)
"""What a file begins with, its kind, and a suffix that stands for its format."""
BY_SUFFIX = {
    **dict.fromkeys(CLOUDS, "clouds"),
    ".npy": "arrays",
    ".npz": "arrays",
    ".csv": "tables",
    ".tsv": "tables",
    ".tar": "shards",
    ".zip": "archives",
    ".pcd": NO_DECODER,
}
"""The kind of a file whose first bytes say nothing."""


class LeftOut:
    """Files that are left out, by reason. Some reasons are expected, such as hidden files; a
    warning names the others."""

    def __init__(self) -> None:
        self.expected: dict[str, list[str]] = {}
        self.unexpected: dict[str, list[str]] = {}
        self.notes: list[str] = []
        """What else a user should know of how the names of files were understood."""

    def add(self, reason: str, name: str, expected: bool = False) -> None:
        """Counts one file under a reason such as `hidden`."""
        reasons = self.expected if expected else self.unexpected
        reasons.setdefault(reason, []).append(name)

    def warn(self, where: str) -> None:
        """One warning of all that a user may have wanted to be read."""
        left = [f"left out {_counts(self.unexpected)}"] if self.unexpected else []
        if said := left + self.notes:
            warnings.warn(f"`data` {where!r}: {'; '.join(said)}", stacklevel=3)

    def summary(
        self,
        read: Sequence[str],
        noun: str,
        parts: ArrayLike | None = None,
        labels: Iterable[object] | None = None,
        bad: int = 0,
    ) -> str:
        """One line, e.g. `read 30 images; left out 3 .avif (no decoder), 2 hidden`.

        Args:
            read: what could be read, by name; those of parts that are not used are left out.
            parts: the part of each of them, if any.
            labels: the label of each of them, if any.
            bad: how many files could not be read.
        """
        reasons = self.unexpected | self.expected
        if bad:
            reasons = {"damaged": [""] * bad} | reasons
        unused = unused_parts(parts, len(read))
        for reason in filter(None, unused):
            reasons = reasons | {reason: [name for name, of in zip(read, unused) if of == reason]}
        left_out = _counts(reasons, names=False)
        text = f"read {unused.count(''):,} {noun}"
        if labels is not None:
            text += f" of {len({one for one, of in zip(labels, unused) if not of}):,} classes"
        return "; ".join([text, *([f"left out {left_out}"] if left_out else []), *self.notes])


def _counts(reasons: dict[str, list[str]], names: bool = True) -> str:
    said = []
    for reason, left in reasons.items():
        some = ", ".join(map(brief, sorted(left)[:3])) + (", …" if len(left) > 3 else "")
        said.append(f"{len(left):,} {brief(reason)}" + (f": {some}" if names else ""))
    return ("; " if names else ", ").join(said)


class Found(NamedTuple):
    """The files of a folder or archive by kind, each list sorted by name."""

    where: str
    kinds: dict[str, list[str]]
    left: LeftOut

    def of(self, *kinds: str) -> list[str]:
        """The files of some kinds; all others are left out, each under what it is."""
        for other, names in self.kinds.items():
            for name in names if other not in kinds else ():
                companion = other in COMPANIONS
                self.left.add(f"of another kind ({other})", name, expected=companion)
        return sorted(name for kind in kinds for name in self.kinds.get(kind, []))

    def main(self, wanted: str | None = None) -> str | None:
        """The kind of most files: images, clouds, arrays or shards; None where there are none.

        Args:
            wanted: the kind of data that was asked for, if any, e.g. `image`.

        Raises:
            ValueError: where files of others are more than half as many, unless `wanted` says
                which to read.
        """
        asked = f"{wanted}s"
        counts = {k: len(names) for k, names in self.kinds.items() if k not in COMPANIONS}
        if not counts or asked in counts:
            return asked if counts else None
        first = max(counts, key=lambda kind: counts[kind])
        if sum(counts.values()) - counts[first] > MOST_OTHERS * counts[first]:
            raise ValueError(
                f"`data` {self.where!r} holds {self.counted()}: separate them, or give --kind "
                "image or cloud"
            )
        return first

    def counted(self) -> str:
        """How many files there are of each kind, and what is left out already."""
        counts = [
            f"{len(names):,} {kind if len(names) > 1 else kind[:-1]}"
            for kind, names in self.kinds.items()
        ]
        left_out = _counts(self.left.unexpected | self.left.expected, names=False)
        return ", ".join([*counts, *([left_out] if left_out else [])]) or "no files"


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on its path, is hidden or left behind by a system."""
    parts = name.replace("\\", "/").split("/")
    return any(
        part in LITTER or (part.startswith(".") and part not in (".", "..")) for part in parts
    )


def kind_of_file(name: str, head: bytes) -> tuple[str | None, str]:
    """What a file holds by its first bytes or else its suffix, and its format as a suffix."""
    suffix = PurePosixPath(name).suffix.lower()
    for pattern, kind, stands_for in SIGNATURES:
        if re.match(pattern, head, re.DOTALL):
            return kind, stands_for
    return BY_SUFFIX.get(suffix), suffix


def sorted_by_kind(where: str, names: Iterable[str], head: Callable[[str], bytes]) -> Found:
    """Sorts files into kinds. `head` gives a file's first bytes; it is asked only where the
    suffix is not one of images, nor one of text that more than a hundred files have."""
    found = Found(where, {}, LeftOut())
    names = sorted(names)
    suffixes = [PurePosixPath(name.replace("\\", "/")).suffix.lower() for name in names]
    unopened = {s for s, count in Counter(suffixes).items() if s in TEXT and count > MOST_TEXTS}
    for name, suffix in zip(names, suffixes):
        if len(name) > LONGEST_NAME:
            found.left.add(f"with a name over {LONGEST_NAME:,} characters", f"{name[:40]}…")
            continue
        if is_hidden(name):
            found.left.add("hidden", name, expected=True)
            continue
        if suffix in IMAGES:
            found.kinds.setdefault("images", []).append(name)
            continue
        try:
            kind = None if suffix in unopened else kind_of_file(name, head(name))[0]
        except DAMAGED:
            found.left.add("unreadable", name)
            continue
        if kind == NO_DECODER:
            found.left.add(f"{suffix or 'images'} ({NO_DECODER})", name)
        elif kind is None:
            found.left.add("of no known kind", name, expected=True)
        else:
            found.kinds.setdefault(kind, []).append(name)
    return found


def _what_is(entry: os.DirEntry[str]) -> str:
    """Whether an entry, its links followed, is a `file` or a `folder`, or else why it is none."""
    if (entry.is_symlink() or entry.name in KERNEL) and is_of_kernel(entry.path):
        return "of the kernel"
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # as a ring of links, which only the entry itself is left out for
        pass
    broken = entry.is_symlink() and not os.path.exists(entry.path)
    return "broken links" if broken else "neither files nor folders"


def is_of_kernel(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads into what a kernel makes up, where reading a file may never end."""
    return os.path.realpath(path).split(os.sep)[1] in KERNEL if os.sep == "/" else False


def files_in(folder: Path) -> Found:
    """The files at any depth of a folder, by their names in it, with / between folders.

    Links are followed. A folder is read once: links to it, or to a folder around them, are left
    out.
    """

    def head(name: str) -> bytes:
        # not waiting for a pipe that has taken the place of a file meanwhile
        handle = os.open(folder / name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            return file.read(HEAD)

    names, hidden, problems = [], [], LeftOut()
    seen: set[tuple[int, int]] = set()
    folders, links = deque([""]), deque[str]()  # links last: a folder keeps its own name
    while folders or links:
        inner = folders.popleft() if folders else links.popleft()
        try:
            status = os.stat(folder / inner)
            if (status.st_dev, status.st_ino) in seen:
                problems.add("links to a folder that is read already", inner)
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder / inner) as entries:
                for entry in entries:
                    name = f"{inner}/{entry.name}" if inner else entry.name
                    what = _what_is(entry)
                    if what == "folder" and is_hidden(entry.name):
                        hidden.append(name)
                    elif what == "folder":
                        (links if entry.is_symlink() else folders).append(name)
                    elif what == "file" or is_hidden(entry.name):  # as links that editors leave
                        names.append(name)
                    else:
                        problems.add(what, name)
        except OSError:
            problems.add("unreadable folders", inner or ".")
    found = sorted_by_kind(str(folder), names, head)
    found.left.unexpected.update(problems.unexpected)
    for name in hidden:
        found.left.add("hidden", name, expected=True)
    return found
