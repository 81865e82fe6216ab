"""Decoded images kept in files that are mapped into memory: for data larger than it.

    DIR/<key>/  train.npy  test.npy  (uint8, n × c × h × w)  labels.npz  notes.json  manifest.json

The key is a hash of the images' names, contents, parts and labels and of all that decides their
pixels, so that an altered image is another data set. A folder appears whole under its key, and
its files are checked against the manifest whenever it is opened. Files of images are read again
only where their size or times have changed; `DIR/.digests-<key>.npy` keeps what was read.
"""

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL
import torch

from monge._core.files import DAMAGED, sync_folder, write_synced, write_whole
from monge._core.untrusted import read_regular
from monge.config import DataConfig
from monge.data.identity import combined, digest, digests_of_texts
from monge.data.kinds import IMAGE
from monge.data.mapped import mapped
from monge.data.readers.caps import MOST_BYTES
from monge.data.readers.images import (
    Decoding,
    ImageFiles,
    content_of,
    failures,
    firsts,
    in_threads,
    misfit,
    summary_of,
)
from monge.data.readers.numpy_files import array_in, array_of
from monge.data.source import Source, division, numbered

try:
    import fcntl
except ImportError:  # Windows: processes that begin together each decode, and one's work stays
    fcntl = None

LAYOUT = 4  # to be raised when the same images would be stored otherwise
FILES = ("train.npy", "test.npy", "labels.npz", "notes.json")
SETTLED = 2 * 10**9
"""Nanoseconds after which a file that is written to has another time of change."""
UNREADABLE = -1
SIDES = ("train", "test")
MARK = "made-by-monge"
"""The file by which a folder that a killed process has left is known."""


def source(images: ImageFiles, config: DataConfig) -> Source:
    """The images from the cache in `config.cache`, decoded into it where they are not there.

    Its samples are maps of files: pages come and go as they are read, and what is written to a
    tensor stays in memory.

    Raises:
        ValueError: as reading them into memory does; for a cache that cannot be written, or an
            image that is altered meanwhile.
    """
    assert config.cache is not None
    cache = Path(config.cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        contents = _contents(images, config, cache)
        folder = cache / _key(images, contents, config)
        if not _is_whole(folder):
            with _alone(cache):
                if not _is_whole(folder):
                    _demand_ours(folder)
                    _make(folder, images, contents, config)
    except OSError as error:
        raise ValueError(f"`cache` {config.cache!r} cannot be written: {error}") from None
    return _opened(folder, images)


def _contents(images: ImageFiles, config: DataConfig, cache: Path) -> dict[str, int]:
    """The digests of the images' contents, which are read where their stamps are not known."""

    def content(name: str) -> int:
        try:
            return content_of(images.read(name), config)
        except DAMAGED:
            return UNREADABLE

    if images.stamp is None or not images.names:
        return dict(in_threads(content, images.names))
    stamps = np.array([images.stamp(name) for name in images.names])
    crops = np.full(len(stamps), config.crop or 0)
    keys = combined(digests_of_texts(images.names), crops, *stamps.T)
    file = cache / f".digests-{digest(os.path.abspath(images.where).encode()):016x}.npy"
    known = _known(file)
    found = {name: known[key] for name, key in zip(images.names, keys.tolist()) if key in known}
    missing = [name for name in images.names if name not in found]
    if not missing:
        return found
    found |= dict(in_threads(content, missing))
    before = time.time_ns() - SETTLED  # what was written since may be written again unseen
    sure = [
        (key, found[name])
        for name, key, stamp in zip(images.names, keys.tolist(), stamps)
        if found[name] != UNREADABLE and stamp[1] < before and stamp[2] < before
    ]
    made = io.BytesIO()
    np.save(made, np.array(sure, np.uint64).reshape(-1, 2))
    with _alone(cache):
        write_whole(file, made.getvalue())
    return {name: found[name] for name in images.names}


def _known(file: Path) -> dict[int, int]:
    """The digests that are kept, by name and stamp; none where the file is damaged."""
    try:
        content = io.BytesIO(read_regular(file, MOST_BYTES))
        return dict(array_in(content, len(content.getbuffer())).tolist())
    except DAMAGED:
        return {}


def _key(images: ImageFiles, contents: dict[str, int], config: DataConfig) -> str:
    settings = LAYOUT, PIL.__version__, config.size, config.crop, config.channels, config.split
    whole = hashlib.sha256(repr((settings, contents, images.labelling(images.names))).encode())
    return whole.hexdigest()[:32]


def _sha256(path: Path) -> str:
    if not path.is_file():
        raise OSError(f"{path} is not a file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(folder: Path) -> bool:
    try:
        stored = json.loads(read_regular(folder / "manifest.json", MOST_BYTES))
        return stored == {name: _sha256(folder / name) for name in FILES}
    except (OSError, ValueError, RecursionError):
        return False


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Inside, no other process makes anything in the cache; what killed ones have left is gone."""
    # whoever may write there may have put a link or a pipe in its place
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(os.open(cache / ".lock", flags, 0o666), "rb") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in cache.glob(".part-*"):
                _remove(left)
        yield


def _demand_ours(folder: Path) -> None:
    """Refuses a folder in the place of a damaged one that holds what the cache has not made."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"`cache` holds {str(folder)!r}, which is not a folder: remove it")
    strange = [one.name for one in folder.glob("*")] if folder.exists() else []
    strange = sorted({*strange} - {*FILES, "manifest.json"})
    if strange:
        raise ValueError(
            f"`cache` holds {str(folder / strange[0])!r}, which it has not made: remove it"
        )


def _remove(part: Path) -> None:
    """Removes what `_make` puts into a folder, and the folder unless it holds something else."""
    if part.is_symlink() or not (part / MARK).is_file():
        return
    for inner in ("whole", "damaged"):
        if not (part / inner).is_symlink():
            for file in (*FILES, "manifest.json"):
                (part / inner / file).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                (part / inner).rmdir()
    (part / "rows").unlink(missing_ok=True)
    if [one.name for one in part.iterdir()] == [MARK]:
        (part / MARK).unlink()
        part.rmdir()


def _make(folder: Path, images: ImageFiles, contents: dict[str, int], config: DataConfig) -> None:
    """Fills a new folder and gives it its name; nothing is left of it if that fails."""
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        (part / MARK).touch()
        whole = part / "whole"
        whole.mkdir()
        with (part / "rows").open("w+b") as rows:
            _fill(whole, rows, images, contents, config)
        sync_folder(whole)
        if folder.exists():
            warnings.warn(f"`cache` {str(folder)!r} is damaged and made again", stacklevel=2)
            folder.rename(part / "damaged")
        try:
            whole.rename(folder)
        except OSError:
            if not _is_whole(folder):  # of another process
                raise
        sync_folder(folder.parent)
    finally:
        _remove(part)


def _fill(
    whole: Path, rows: BinaryIO, images: ImageFiles, contents: dict[str, int], config: DataConfig
) -> None:
    """Decodes the images into `rows` one by one, then sorts them into the parts' files: only at
    the end is it known which can be read, and whether any has colours."""
    decoding = Decoding(images, config)
    names, shapes = [], []
    for name, pixels in decoding:
        rows.write(pixels.tobytes())
        names.append(name)
        shapes.append(pixels.shape)
    if altered := [n for n, found in zip(names, decoding.contents) if found != contents[n]]:
        raise ValueError(
            f"`data` {images.where!r} was altered while it was read, e.g. {altered[0]}: try again"
        )
    failures(decoding.bad, len(images.names), images.where)
    parts, labels = images.labelling(names)
    read = np.array(decoding.contents, np.uint64)
    by_position = config.split == "position"
    masks = division(images.name, read, parts, by_position=by_position)
    for file, mask in zip(("train.npy", "test.npy"), masks):
        _sort(rows, shapes, mask.nonzero()[0], whole / file)
    classes: tuple[str, ...] = ()
    stored: dict[str, Any] = {f"{part} contents": read[mask] for part, mask in zip(SIDES, masks)}
    if labels is not None:
        numbers, classes = numbered(images.name, labels)
        stored |= {part: numbers[mask] for part, mask in zip(SIDES, masks)}
    content = io.BytesIO()
    np.savez(content, **stored)
    write_synced(whole / "labels.npz", content.getvalue())
    notes = {
        "classes": classes,
        "bad": decoding.bad,
        "wide": decoding.wide,
        "most": decoding.most,
        "several": decoding.several,
        "total": len(images.names),
    }
    write_synced(whole / "notes.json", json.dumps(notes).encode())
    manifest = {name: _sha256(whole / name) for name in FILES}
    write_synced(whole / "manifest.json", json.dumps(manifest).encode())


def _sort(rows: BinaryIO, shapes: list[tuple], chosen: np.ndarray, path: Path) -> None:
    """Writes some rows of unlike channels to a .npy file."""
    sizes = [math.prod(shape) for shape in shapes]
    starts = [0, *itertools.accumulate(sizes)]
    channels, height, width = max(shapes)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file,
            {
                "descr": "|u1",
                "fortran_order": False,
                "shape": (len(chosen), channels, height, width),
            },
        )
        for i in chosen:
            rows.seek(starts[i])
            # a grey image among coloured ones is repeated for the channels
            file.write(rows.read(sizes[i]) * (channels // shapes[i][0]))
        file.flush()
        os.fsync(file.fileno())


def _opened(folder: Path, images: ImageFiles) -> Source:
    notes = json.loads((folder / "notes.json").read_text("utf-8"))
    if text := failures(notes["bad"], notes["total"], images.where):
        warnings.warn(text, stacklevel=2)
    if text := misfit(notes["wide"], notes["most"], images.where):
        warnings.warn(text, stacklevel=2)
    if text := firsts(notes.get("several", 0), images.where):
        warnings.warn(text, stacklevel=2)
    with zipfile.ZipFile(folder / "labels.npz") as stored:
        kept = {
            one.filename.removesuffix(".npy"): array_of(stored, one) for one in stored.infolist()
        }
    labels = [torch.from_numpy(kept[part]) if part in kept else None for part in SIDES]
    train, test = (mapped(folder / file) for file in ("train.npy", "test.npy"))
    return Source(
        images.name,
        IMAGE,
        train,
        test,
        labels[0],
        labels[1],
        tuple(notes["classes"]),
        summary=summary_of(images, notes["bad"]),
        contents=(kept["train contents"], kept["test contents"]),
    )
