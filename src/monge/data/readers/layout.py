"""Official parts (train, test, …) and classes, from the folders of a data set."""

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from monge.data.readers.discovery import LeftOut
from monge.data.source import PARTS, part_named

Labelling = tuple[Sequence[str] | None, Sequence[str] | Sequence[int] | None]
Folders = tuple[str, ...]
BESIDE_PARTS = "beside the folders of parts"
BESIDE_CLASSES = "beside the folders of classes"
MOST_STRAY = 5
"""How many files, or one in a hundred, may lie beside the folders of parts or classes."""
MOST_CLASSES = 1000
DEEPEST = 3
WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""A word in a name such as `seg_train`, `trainA` or `TestSet`."""


def known_classes(labels: Sequence | None):
    """Labels as they are if they are of 2 to 1,000 classes, else None."""
    return labels if labels is not None and 2 <= len(set(labels)) <= MOST_CLASSES else None


def too_many(labels: Sequence) -> list[str]:
    """A note on labels that are not read because they are of more than 1,000 classes, if so."""
    if (count := len(set(labels))) <= MOST_CLASSES:
        return []
    return [f"labels of {count:,} classes are not read: {MOST_CLASSES:,} are the most"]


def parts_and_labels(names: list[str]) -> Labelling:
    """What folders say: the part (train, val, test) if there are several, and the class above or
    below it.

    Folders that all names share say nothing. Classes are read if there are 2 to 1,000.
    """
    parts, labels = _folders_of(names)
    return parts, None if "" in labels else known_classes(labels)


def _folders_of(names: list[str]) -> tuple[list[str] | None, list[str]]:
    """The part of each file, if there are several, and its first folder above or below it."""
    paths = _below_shared(map(_folders, names))
    level = _level_of_parts(paths)
    parts = None
    if level is not None:
        parts = [part_named(path[level]) or "" for path in paths]
        paths = _without(level, paths)
    return parts, [path[0] if path else "" for path in paths]


def laid_out(names: list[str], where: str, left: LeftOut) -> list[str]:
    """The files that lie in the folders of parts and classes, where there are such folders; a few
    beside them are left out.

    Raises:
        ValueError: for a layout that only some of the files follow.
    """
    for reason, beside in ((BESIDE_PARTS, strays), (BESIDE_CLASSES, unclassed)):
        stray = beside(names, where)
        for name in sorted(stray):
            left.add(reason, name)
        names = [name for name in names if name not in stray]
    left.notes += notes(names)
    return names


def strays(names: list[str], where: str) -> set[str]:
    """Files that lie beside the folders of parts, and belong to none.

    Raises:
        ValueError: for a layout of parts that only some of the files follow.
    """
    paths = _below_shared(map(_folders, names))
    level = _level_of_parts(paths)
    if level is None:
        _refuse_half_named(paths, where)
        return set()
    stray = {name for name, path in zip(names, paths) if len(path) <= level}
    others = sorted(
        {path[level] for path in paths if len(path) > level and not part_named(path[level])}
    )
    if others or not _are_few(stray, names):
        beside = f"a folder {others[0]!r}" if others else f"{len(stray):,} files"
        raise ValueError(
            f"`data` {where!r} has {beside} beside its folders {_called(paths, level)}: move "
            "that elsewhere, or into one of them"
        )
    return stray


def unclassed(names: list[str], where: str) -> set[str]:
    """Files that lie beside the folders of classes, and are of none.

    Raises:
        ValueError: for many of them.
    """
    paths = _below_shared(map(_folders, names))
    level = _level_of_parts(paths)
    rest = dict(zip(names, paths if level is None else _without(level, paths)))
    stray: set[str] = set()
    for level in itertools.count():
        stray |= {name for name, path in rest.items() if len(path) == level}
        rest = {name: path for name, path in rest.items() if len(path) > level}
        folders = sorted({path[level] for path in rest.values()})
        if len(folders) != 1:
            break
    if not (stray and 2 <= len(folders) <= MOST_CLASSES):
        return set()
    if len(stray) >= len(rest) or not _are_few(stray, names):
        raise ValueError(
            f"`data` {where!r} has {len(stray):,} files beside the folders "
            f"{', '.join(map(repr, folders[:3]))}{', …' if len(folders) > 3 else ''}, which would "
            "be classes: move those files into one of them, or all files into one folder"
        )
    return stray


def notes(names: list[str]) -> list[str]:
    """What folders seem to say, but are not taken to: too many classes, a training part without
    one to test on, and a test part without one to train on."""
    _, labels = _folders_of(names)
    said = too_many([label for label in labels if label])
    paths = _below_shared(map(_folders, names))
    around = _folders(names[0])[: -len(paths[0]) or None] if names else ()
    held = [folder for folder in around if part_named(folder) in ("test", "val")]
    if held and _level_of_parts(paths) is None:
        said.append(
            f"all files lie in the folder {held[0]!r}, which is no test part without a training "
            "part beside it: they are trained on, and some are held out"
        )
    for level in range(DEEPEST if _level_of_parts(paths) is None else 0):
        train = sorted(f for f in _at(paths, level) if part_named(f) == "train")
        others = sorted(_at(paths, level) - set(train))
        inside = {
            path[level + 1] for path in paths if len(path) > level + 1 and path[level] in train
        }
        if train and others and (len(others) == 1 or len(inside) > 1):
            beside = ", ".join(map(repr, others[:3])) + (", …" if len(others) > 3 else "")
            said.append(
                f"the folder {train[0]!r} beside {beside} is not a training part, for want of a "
                "test or val part"
            )
    return said


def _are_few(stray: set[str], names: list[str]) -> bool:
    return len(stray) <= max(MOST_STRAY, len(names) // 100)


def _below_shared(paths: Iterable[Folders]) -> list[Folders]:
    """The folders of each file, without those that all share."""
    paths = list(paths)
    first, last = (min(paths), max(paths)) if paths else ((), ())
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last)))
    return [path[shared:] for path in paths]


def _without(level: int, paths: list[Folders]) -> list[Folders]:
    """The folders of each file without that of its part, nor those that all share then."""
    return _below_shared(path[:level] + path[level + 1 :] for path in paths)


def _folders(name: str) -> Folders:
    """The folders of a file, with accents in one form: macOS writes é as e and an accent."""
    return _parts(name.replace("\\", "/").rpartition("/")[0])


@functools.lru_cache(2**10)
def _parts(folder: str) -> Folders:
    return PurePosixPath(unicodedata.normalize("NFC", folder)).parts


def _level_of_parts(paths: list[Folders]) -> int | None:
    """How deep the folders train and test (or val) lie, or None where there are not both."""
    for level in range(DEEPEST):
        found = {part_named(folder) for folder in _at(paths, level)}
        if "train" in found and found & {"test", "val"}:
            return level
    return None


def _at(paths: list[Folders], level: int) -> set[str]:
    return {path[level] for path in paths if len(path) > level}


def _called(paths: list[Folders], level: int) -> str:
    return " and ".join(repr(f) for f in sorted(_at(paths, level)) if part_named(f))


def _refuse_half_named(paths: list[Folders], where: str) -> None:
    """Refuses folders of which some are called almost like parts, as `seg_train` and `seg_test`,
    a part for tests beside folders that are not its training part, and several training parts."""
    for level in range(2):
        folders = sorted(_at(paths, level))
        like = {
            part: [f for f in folders if synonyms & {w.lower() for w in WORD.findall(f)}]
            for part, synonyms in PARTS.items()
        }
        held = like["test"] + like["val"]
        exact = [folder for folder in held if part_named(folder)]
        others = len(folders) > 1 or any(len(path) <= level for path in paths)
        if (like["train"] and held) or (exact and others):
            named = ", ".join(repr(folder) for folder in (like["train"] + held)[:4])
            raise ValueError(
                f"`data` {where!r} has folders {named}, which look like a training and a test "
                "part: call them train and test, with nothing beside them, or move one elsewhere"
            )
        alike = [folder for folder in folders if part_named(folder) == "train"]
        if len(alike) > 1 and len(alike) == len(folders):
            raise ValueError(
                f"`data` {where!r} has folders {', '.join(map(repr, alike))}, which all name the "
                "training part: merge them, or rename them if they are classes"
            )
