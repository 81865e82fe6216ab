"""Images in shards: tar archives as WebDataset writes them, read at random.

Members whose names agree up to the first dot of the file's name are one sample: an image, and a
`.cls` with its label. Python's `tarfile` finds the members, and images are read from where they
lie: a library that streams shards gives no permutation of an epoch.
"""

import glob
import os
import re
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from monge._core.files import DAMAGED
from monge._core.visible import brief
from monge.data.readers.caps import MOST_BYTES
from monge.data.readers.discovery import (
    HEAD,
    IMAGES,
    Found,
    LeftOut,
    is_hidden,
    kind_of_file,
)
from monge.data.readers.images import ImageFiles, Stamp, stamp_of
from monge.data.readers.layout import (
    BESIDE_PARTS,
    Labelling,
    known_classes,
    parts_and_labels,
    strays,
    too_many,
)

PATTERN = re.compile(r"[*?\[{]")
UNSURE = ("", "jfif", "jpe")
"""Suffixes of members that are images if their first bytes say so. Others may be masks."""
MOST_SHARDS = 100_000
MOST_LABEL_BYTES = 1000
MOST_EXTENSION = 2**13
EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
"""Types of headers that hold records or the name of the member after them, and the most bytes."""
MOST_LINKS = 40
"""How many links in a row are followed, as in Linux."""


class Place(NamedTuple):
    """The place of a member in a shard."""

    shard: str
    offset: int
    size: int

    def read(self, most: int) -> bytes:
        """At most that many of its bytes. The shard is opened anew: a process may have 1,000
        open."""
        if self.size > most:
            raise ValueError(f"over {most:,} bytes")
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def head(self) -> bytes:
        """Its first bytes."""
        return self._replace(size=min(self.size, HEAD)).read(HEAD)


class TarSample(NamedTuple):
    """An image with its label."""

    image: Place
    label: str | None


def are_named(name: str) -> bool:
    """Whether a path or pattern names tar archives."""
    return name.endswith(".tar") and (os.path.isfile(name) or PATTERN.search(name) is not None)


def paths_of(name: str) -> list[str]:
    """The shards that a file, a glob or braces ({000..010}, {a,b}) name, in order.

    Raises:
        ValueError: where a shard is missing, or none is found.
    """
    if os.path.exists(name):
        return [name]
    shards = []
    for one in expanded(name):
        matched = sorted(glob.glob(one)) if glob.has_magic(one) else [one]
        if not matched or not os.path.isfile(matched[0]):
            raise ValueError(f"`data` {name!r} names shards that are not there: {one!r}")
        shards += matched
    return shards


def expanded(pattern: str) -> list[str]:
    """A pattern with its braces written out: `{08..10}` counts, `{a,b}` lists."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    choices = braces[1].split(",")
    if ends := re.fullmatch(r"(\d+)\.\.(\d+)", braces[1]):
        numbers = range(int(ends[1]), int(ends[2]) + 1)
        if not 0 < len(numbers) <= MOST_SHARDS:
            raise ValueError(
                f"`data` {pattern!r} counts from {ends[1]} to {ends[2]}: give 1 to "
                f"{MOST_SHARDS:,} shards, the first first"
            )
        choices = [f"{number:0{len(ends[1])}}" for number in numbers]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [one for choice in choices for one in expanded(before + choice + after)]


def folder(found: Found) -> ImageFiles:
    """The images in the shards below a folder."""
    names = found.of("shards")
    return shards(found.where, [os.path.join(found.where, name) for name in names], found.left)


def shards(name: str, paths: list[str], left: LeftOut) -> ImageFiles:
    """The images in some shards, in their order.

    Folders called train, test, … that shards lie in are honoured; folders within them say nothing.

    Raises:
        ValueError: for a shard that is missing, truncated or no tar archive, or in which two
            files have one name.
    """
    samples: dict[str, TarSample] = {}
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    called = {os.path.relpath(path, root).replace(os.sep, "/"): path for path in paths}
    for stray in sorted(strays(list(called), name)):
        left.add(BESIDE_PARTS, stray)
        del called[stray]
    for short, path in called.items():
        samples |= _samples(path, short, left)
    if not samples:
        raise ValueError(f"`data` {name!r} holds no images ({', '.join(sorted(IMAGES))})")
    labelled = any(sample.label is not None for sample in samples.values())
    left.notes += too_many([sample.label for sample in samples.values() if sample.label])

    def read(one: str) -> bytes:
        image, label = samples[one]
        if labelled and label is None:
            raise ValueError("it has no .cls, unlike others")
        return image.read(MOST_BYTES)

    def labelling(names: list[str]) -> Labelling:
        parts, _ = parts_and_labels(
            [f"{os.path.dirname(samples[one].image.shard)}/image" for one in names]
        )
        labels = [samples[one].label or "" for one in names] if labelled else []
        numbers = all(re.fullmatch(r"-?\d{1,18}", label) for label in labels)
        return parts, known_classes([int(label) for label in labels] if numbers else labels)

    def stamp(one: str) -> Stamp:
        image = samples[one].image
        return *stamp_of(image.shard), image.offset, image.size

    return ImageFiles(name, list(samples), read, labelling, left, stamp)


def _samples(shard: str, called: str, left: LeftOut) -> dict[str, TarSample]:
    """The samples of a shard, by what it is called and the names of their images."""
    images: dict[str, tuple[str, Place]] = {}
    labels: dict[str, str] = {}
    for name, place in _members(shard, called, left):
        folder, slash, last = name.rpartition("/")
        stem, _, suffix = last.partition(".")
        key, suffix = folder + slash + stem, suffix.lower()
        if is_hidden(name):
            left.add("hidden", f"{called}/{name}", expected=True)
        elif suffix == "cls":
            try:
                labels[key] = place.read(MOST_LABEL_BYTES).decode().strip()
            except ValueError as error:
                raise ValueError(
                    f"`data` {shard!r}: {brief(name)} is not a label: {brief(str(error))}"
                ) from None
        elif f".{suffix}" in IMAGES or (
            suffix in UNSURE and kind_of_file(name, place.head())[0] == "images"
        ):
            if key in images:
                raise ValueError(
                    f"`data` {shard!r}: {brief(key)} has several images: leave one of them"
                )
            images[key] = name, place
        else:
            left.add("members that are not images", f"{called}/{name}", expected=True)
    return {
        f"{called}/{name}": TarSample(place, labels.get(key))
        for key, (name, place) in images.items()
    }


class _Header(tarfile.TarInfo):
    """The header of a member. Releases of Python read a size below 0 for ever, and long records in
    the square of their length."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0:
            raise ValueError("a member has a negative size")
        if header.type in EXTENSIONS and header.size > MOST_EXTENSION:
            raise ValueError(f"a header of {header.size:,} bytes, over {MOST_EXTENSION:,}")
        return header


def _members(shard: str, called: str, left: LeftOut) -> Iterator[tuple[str, Place]]:
    """The names and places of the files in a tar archive; links are followed, and have the place
    of the file they lead to.

    `tarfile` takes a damaged header for the end: the blocks of zeros that end an archive must be
    there, and nothing behind them.
    """
    places: dict[str, Place] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:", tarinfo=_Header) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # pyright: ignore
                if member.issym():
                    beside = os.path.dirname(member.name)
                    links[member.name] = os.path.normpath(os.path.join(beside, member.linkname))
                elif member.islnk():
                    links[member.name] = os.path.normpath(member.linkname)
                elif member.isreg() and not member.issparse():
                    place = Place(shard, member.offset_data, member.size)
                    places[os.path.normpath(member.name)] = place
                    yield member.name, place
                elif not member.isdir():
                    left.add("members that are not plain files", f"{called}/{member.name}")
            end = archive.offset
        with open(shard, "rb") as file:
            file.seek(end)
            rest = file.read(2 * tarfile.RECORDSIZE)
    except (tarfile.TarError, *DAMAGED) as error:
        raise ValueError(
            f"`data` {shard!r} is not a complete tar archive ({brief(str(error))}): copy it "
            "again, or gunzip it"
        ) from None
    if not rest or rest.strip(b"\0"):
        raise ValueError(
            f"`data` {shard!r} holds no member and no end at byte {end:,}: it is truncated, "
            "damaged, or several archives in one; copy it again"
        )
    leads = {os.path.normpath(name): target for name, target in links.items()}
    for name, target in links.items():
        for _ in range(MOST_LINKS):
            target = leads.get(target, target)
        if target in places:
            yield name, places[target]
        else:
            left.add("links to no file", f"{called}/{name}")
