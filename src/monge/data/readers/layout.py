"""What the folders of a data set say: an official part (train, test, …) and a class."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from monge.data.source import PARTS, part_named

Labelling = tuple[Sequence[str] | None, Sequence[str] | Sequence[int] | None]
Folders = tuple[str, ...]
MOST_STRAY = 5
"""So many files, or one in a hundred, may lie beside the folders of parts."""
DEEPEST = 3


def known_classes(labels: Sequence | None):
    """Labels as they are if they are of 2 to 1,000 classes, else None."""
    return labels if labels is not None and 2 <= len(set(labels)) <= 1000 else None


def parts_and_labels(names: list[str]) -> Labelling:
    """What folders say: the part (train, val, test) if there are several, and the class above or
    below it.

    Folders that all names share say nothing. Classes are read if there are 2 to 1,000.
    """
    paths = _below_shared(names)
    level = _level_of_parts(paths)
    parts = None
    if level is not None:
        parts = [part_named(path[level]) or "" for path in paths]
        paths = [path[:level] + path[level + 1 :] for path in paths]
    labels = [path[0] if path else "" for path in paths]
    return parts, None if "" in labels else known_classes(labels)


def strays(names: list[str], where: str) -> set[str]:
    """Files that lie beside the folders of parts, and belong to none.

    Raises:
        ValueError: for a layout of parts that only some of the files follow.
    """
    paths = _below_shared(names)
    level = _level_of_parts(paths)
    if level is None:
        _refuse_half_named(paths, where)
        return set()
    stray = {name for name, path in zip(names, paths) if len(path) <= level}
    others = sorted(
        {path[level] for path in paths if len(path) > level and not part_named(path[level])}
    )
    if others or len(stray) > max(MOST_STRAY, len(names) // 100):
        beside = f"a folder {others[0]!r}" if others else f"{len(stray):,} files"
        raise ValueError(
            f"`data` {where!r} has {beside} beside its folders {_called(paths, level)}: move "
            "that elsewhere, or into one of them"
        )
    return stray


def _below_shared(names: list[str]) -> list[Folders]:
    """The folders of each file, without those that all share."""
    paths = [_folders(name) for name in names]
    while paths and all(paths) and len({path[0] for path in paths}) == 1:
        paths = [path[1:] for path in paths]
    return paths


def _folders(name: str) -> Folders:
    return PurePosixPath(name.replace("\\", "/")).parts[:-1]


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
    and a part for tests beside folders that are not its training part."""
    for level in range(2):
        folders = sorted(_at(paths, level))
        like = {
            part: [f for f in folders if synonyms & set(re.split(r"[^a-z]+", f.lower()))]
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
