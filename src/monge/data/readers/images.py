"""Images in files of any size and mode, wherever the files lie, read into one uint8 array.

Folders and zip archives are opened here, shards in `shards`, data sets of the hub in `hub`.
"""

import io
import itertools
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps

from monge._core.files import DAMAGED, files_below
from monge.config import DataConfig
from monge.data.kinds import IMAGE
from monge.data.source import HELD_OUT_NAMES, Source, split

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MOST_PIXELS = 50_000_000
MOST_BYTES = 256 * 2**20
LARGEST_SIDE = 512
MOST_FAILURES = 0.01
TOGETHER = 16 * (os.cpu_count() or 1)


T = TypeVar("T")
Labelling = tuple[Sequence[str] | None, Sequence[str] | Sequence[int] | None]


class ImageFiles(NamedTuple):
    """Files of images by name, none of them read yet."""

    where: str
    """What holds them."""
    names: list[str]
    read: Callable[[str], bytes]
    """The bytes of one, called from several threads."""
    labelling: Callable[[list[str]], Labelling]
    """The part and the label of each of some names, or None where they are not known."""

    @property
    def name(self) -> str:
        """What the data are called."""
        return Path(self.where).stem


def eight_bits(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit grey ("L") or colour ("RGB"); transparency is laid over white."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):  # 16 bits, which convert("L") would clip at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((values // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating point pixels have no known range")
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        grey = image.mode in ("L", "LA", "La")
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("L" if grey else "RGB")
    return image.convert("RGB")


def decode(content: bytes, config: DataConfig, most: int = MOST_PIXELS) -> np.ndarray:
    """One image file of at most `most` pixels as uint8 (c, h, w), upright, cropped, resized and
    with c as configured."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > most:
            raise ValueError(f"{width}×{height} pixels are over the cap of {most:,}")
        image.load()
        image = eight_bits(ImageOps.exif_transpose(image))
    if config.channels is not None:
        image = image.convert("L" if config.channels == "grey" else "RGB")
    side = config.crop or (min(image.size) if config.size else None)
    if side is not None:
        if side > min(image.size):
            raise ValueError(f"{image.width}×{image.height} pixels are under the crop of {side}")
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if config.size is not None and image.size != (config.size, config.size):
        image = image.resize((config.size, config.size), Image.Resampling.BILINEAR)
    if max(image.size) > LARGEST_SIDE:
        raise ValueError(
            f"{image.width}×{image.height} pixels are over {LARGEST_SIDE} a side: give --size"
        )
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


class Decoding:
    """Images decoded in their order, a few hundred at a time over all cores.

    Iterating gives the name and pixels, uint8 (c, h, w), of each that can be read; those that
    cannot are kept in `bad`, each with its reason.

    Raises:
        ValueError: for images that differ in size, at the first that does.
    """

    def __init__(self, images: ImageFiles, config: DataConfig):
        self.images, self.config = images, config
        self.bad: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        first: tuple[str, np.ndarray] | None = None
        for name, found in in_threads(self._attempt, self.images.names):
            if isinstance(found, str):
                self.bad.append(f"{name} ({found})")
                continue
            first = first or (name, found)
            if found.shape[1:] != first[1].shape[1:]:
                (h0, w0), (h1, w1) = first[1].shape[1:], found.shape[1:]
                raise ValueError(
                    f"images in {self.images.where} differ in size: {first[0]} is {w0}×{h0}, "
                    f"{name} is {w1}×{h1}: give --size to crop and resize them"
                )
            yield name, found

    def _attempt(self, name: str) -> np.ndarray | str:
        try:
            return decode(self.images.read(name), self.config)
        except DAMAGED as error:
            return str(error).splitlines()[0] if str(error) else type(error).__name__


def in_threads(of: Callable[[str], T], names: list[str]) -> Iterator[tuple[str, T]]:
    """Each name with what `of` makes of it, in order, at most `TOGETHER` held at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for i in range(0, len(names), TOGETHER):
            some = names[i : i + TOGETHER]
            groups = [some[j : j + 8] for j in range(0, len(some), 8)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's; failures are reported at the end
                made = list(pool.map(lambda few: [of(name) for name in few], groups))
            yield from zip(some, itertools.chain.from_iterable(made))


def failures(bad: Sequence[str], total: int, where: str) -> str | None:
    """What a warning says of images that could not be read; a ValueError for too many."""
    if not bad:
        return None
    text = f"{len(bad)} of {total} images in {where} could not be read: " + ", ".join(bad[:5])
    text += ", …" if len(bad) > 5 else ""
    if len(bad) > MOST_FAILURES * total:
        raise ValueError(f"{text}: more than {MOST_FAILURES:.0%}; repair or remove them")
    return text


def in_memory(images: ImageFiles, config: DataConfig) -> Source:
    """All images, decoded into memory."""
    decoding = Decoding(images, config)
    names, pixels = [], []
    for one, found in decoding:
        names.append(one)
        pixels.append(found)
    if text := failures(decoding.bad, len(images.names), images.where):
        warnings.warn(text, stacklevel=2)
    samples = np.empty((len(pixels), max(map(len, pixels)), *pixels[0].shape[1:]), np.uint8)
    for row, found in zip(samples, pixels):
        row[:] = found  # a grey image among coloured ones is broadcast over the channels
    del pixels
    parts, labels = images.labelling(names)
    return split(images.name, IMAGE, samples, labels, parts)


def known_classes(labels: Sequence | None):
    """Labels as they are if they are of 2 to 1,000 classes, else None."""
    return labels if labels is not None and 2 <= len(set(labels)) <= 1000 else None


def parts_and_labels(names: list[str]) -> Labelling:
    """What folders say: the part (train, test, …) if there are several, and the class below it.

    Folders that all names share say nothing. Classes are read if there are 2 to 1,000.
    """
    paths = [PurePosixPath(name.replace("\\", "/")).parts for name in names]
    known = {"train", *HELD_OUT_NAMES}
    while all(len(p) > 1 for p in paths) and len({p[0] for p in paths}) == 1:
        paths = [p[1:] for p in paths]
    parts = None
    if all(len(p) > 1 and p[0] in known for p in paths):
        parts = [p[0] for p in paths]
        paths = [p[1:] for p in paths]
    labels = [p[0] if len(p) > 1 else "" for p in paths]
    return parts, None if "" in labels else known_classes(labels)


def _shown(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return not hidden and PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES


def _of(path: Path, names: Iterable[str], read: Callable[[str], bytes]) -> ImageFiles:
    shown = sorted(filter(_shown, names))
    if not shown:
        raise ValueError(f"`data` {str(path)!r} holds no images ({', '.join(sorted(SUFFIXES))})")
    return ImageFiles(str(path), shown, read, parts_and_labels)


def folder(path: Path) -> ImageFiles:
    """The images below a folder; `train/` and `test/` are honoured, other folders are classes."""
    return _of(path, files_below(path), lambda name: (path / name).read_bytes())


def archive(path: Path) -> ImageFiles:
    """The images in a zip archive, laid out like a folder."""
    try:
        zipped = zipfile.ZipFile(path)  # closed when the last to read from it is gone
    except zipfile.BadZipFile as error:
        raise ValueError(f"`data` {str(path)!r} is no readable zip archive: {error}") from None

    def read(name: str) -> bytes:
        if zipped.getinfo(name).file_size > MOST_BYTES:
            raise ValueError(f"over {MOST_BYTES:,} bytes")
        return zipped.read(name)

    return _of(path, zipped.namelist(), read)
