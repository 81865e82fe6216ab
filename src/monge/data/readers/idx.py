"""The idx format of MNIST: big-endian magic, dimensions, unsigned bytes; gzipped or not."""

import gzip
import hashlib
import os
import struct
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np

from monge._core.files import user_cache, write_all
from monge.data.kinds import IMAGE, warn_of_dark
from monge.data.readers.caps import MOST_RATIO, MOST_VALUES, demand_memory, demand_packed
from monge.data.source import Source, split

FILES = {
    "train-images": "train-images-idx3-ubyte",
    "train-labels": "train-labels-idx1-ubyte",
    "test-images": "t10k-images-idx3-ubyte",
    "test-labels": "t10k-labels-idx1-ubyte",
}
# where each data set is published, and the md5 of its four gzipped files in the order of FILES
DATASETS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
}


def read(path: Path) -> np.ndarray:
    """The array of an idx file of unsigned bytes.

    Raises:
        ValueError: for a wrong magic, impossible dimensions, or a body shorter or longer than
            they say.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"  # whatever it is called
        with (gzip.open if zipped else open)(path, "rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 4:
                raise ValueError(f"{path}: no idx file of bytes (magic {head.hex() or 'missing'})")
            sizes = file.read(4 * head[3])
            if len(sizes) < 4 * head[3]:
                raise ValueError(f"{path}: the idx header is cut short")
            shape = struct.unpack(f">{head[3]}i", sizes)
            count = 1
            for side in shape:
                count *= side
            if min(shape) < 1 or count > MOST_VALUES:
                raise ValueError(
                    f"{path}: impossible idx dimensions {shape}: at most {MOST_VALUES:,} values"
                )
            size = path.stat().st_size
            demand_packed(count, size if zipped else size // MOST_RATIO, f"{path}: the idx header")
            demand_memory(count, f"{path}: {shape} values")
            body = bytearray()  # in blocks: the header alone must not claim the memory
            while len(body) <= count and (block := file.read(2**24)):
                body += block
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise ValueError(f"{path}: not readable: {error}") from None
    if len(body) != count:
        more = "more than" if len(body) > count else f"only {len(body)} of"
        raise ValueError(f"{path}: the idx body has {more} the {count} bytes that {shape} needs")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _find(folder: Path, stem: str) -> Path | None:
    names = (
        stem,
        f"{stem}.gz",
        stem.replace("-idx", ".idx"),
        stem.replace("-idx", ".idx") + ".gz",
    )
    return next((folder / name for name in names if os.path.isfile(folder / name)), None)


def is_idx_folder(folder: Path) -> bool:
    """Whether a folder holds training images in idx form."""
    return _find(folder, FILES["train-images"]) is not None


def folder(path: Path, name: str | None = None) -> Source:
    """The four idx files of a folder, with their official test part."""
    found = {key: _find(path, stem) for key, stem in FILES.items()}
    if missing := [FILES[key] for key, file in found.items() if file is None]:
        raise ValueError(f"`data` {str(path)!r} lacks the idx files {', '.join(missing)}")
    part = {key: read(file) for key, file in found.items() if file is not None}
    for side in ("train", "test"):
        images, labels = part[f"{side}-images"], part[f"{side}-labels"]
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"`data` {str(path)!r}: {side} images {images.shape} and labels {labels.shape} "
                "do not belong together"
            )
    if part["train-images"].shape[1:] != part["test-images"].shape[1:]:
        raise ValueError(f"`data` {str(path)!r}: training and test images differ in size")
    images = np.concatenate([part["train-images"], part["test-images"]])[:, None]
    labels = np.concatenate([part["train-labels"], part["test-labels"]])
    counts = [len(part["train-images"]), len(part["test-images"])]
    warn_of_dark(images, str(path))
    summary = "" if name else f"read {len(images):,} images of {len(np.unique(labels))} classes"
    parts = np.repeat(["train", "test"], counts)
    return split(name or path.name, IMAGE, images, labels, parts, summary=summary)


def named(name: str, directory: str | None) -> Source:
    """A published data set from `directory`, $MONGE_DATA, or a download into the user's cache."""
    root = directory or os.environ.get("MONGE_DATA")
    if root is None:
        cache = user_cache() / name
        download(name, cache)
        return folder(cache, name)
    candidates = [Path(root) / name]
    if Path(root).name not in set(DATASETS) - {name}:  # mnist/ must not pass for fashion-mnist
        candidates.append(Path(root))
    for candidate in candidates:
        if is_idx_folder(candidate):
            return folder(candidate, name)
    raise ValueError(
        f"`data-dir` {root!r} holds no {name}: looked for {FILES['train-images']}[.gz] in "
        f"{' and '.join(map(str, candidates))}"
    )


def download(name: str, target: Path) -> None:
    """Fetches what `target` lacks of a published data set, each file checked by its md5."""
    base, sums = DATASETS[name]
    for stem, md5 in zip(FILES.values(), sums):
        file = target / f"{stem}.gz"
        if file.is_file():
            continue
        try:
            with urllib.request.urlopen(base + file.name, timeout=30) as reply:
                content = reply.read()
        except (urllib.error.URLError, OSError) as error:
            raise ValueError(
                f"`data` {name!r} could not be downloaded from {base} ({error}): "
                "give --data-dir a folder that holds it"
            ) from None
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise ValueError(f"{base}{file.name} does not have the published md5 {md5}")
        write_all(target, {file.name: content}, "MONGE_CACHE")
