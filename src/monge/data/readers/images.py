"""Images in files of any size and mode, wherever the files lie, read into one uint8 array.

Folders and zip archives are opened here, shards in `shards`, data sets of the hub in `hub`.
"""

import io
import itertools
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from monge._core.errors import silence
from monge._core.files import DAMAGED
from monge._core.formats import FORMATS
from monge._core.pixels import cropped, eight_bits
from monge._core.untrusted import read_regular
from monge._core.visible import brief
from monge.config import DataConfig
from monge.data.identity import digest
from monge.data.kinds import IMAGE
from monge.data.readers.caps import (
    LARGEST_SIDE,
    MOST_BYTES,
    MOST_PIXELS,
    demand_packed,
)
from monge.data.readers.discovery import (
    HEAD,
    Found,
    LeftOut,
    is_hidden,
    sorted_by_kind,
)
from monge.data.readers.layout import Labelling, laid_out, parts_and_labels
from monge.data.source import Source, split

MOST_FAILURES = 0.01
TOGETHER = 16 * (os.cpu_count() or 1)
DARK = 2**14
"""Images of 16 bits that stay below have at most a quarter of the range, as 12 bits do."""

FAINT = 64
"""Images of 8 bits that stay below are masks of class numbers, or of fewer bits."""

T = TypeVar("T")
Range = tuple[int, int]
Stamp = tuple[int, ...]
"""Size and times of a file, by which its digest is found again."""


class ImageFiles(NamedTuple):
    """Files of images by name, none of them read yet."""

    where: str
    """The folder, archive or data set that holds them."""
    names: list[str]
    read: Callable[[str], bytes]
    """The bytes of one, called from several threads."""
    labelling: Callable[[list[str]], Labelling]
    """The part and the label of each of some names, or None where they are not known."""
    left: LeftOut
    """The files beside them that are not read."""
    stamp: Callable[[str], Stamp] | None = None
    """What changes with the bytes of one, without reading them; None where nothing does."""

    @property
    def name(self) -> str:
        """The name of the data."""
        return Path(self.where).stem


def decode(content: bytes, config: DataConfig, most: int = MOST_PIXELS) -> np.ndarray:
    """One image file of at most `most` pixels as uint8 (c, h, w), upright, cropped, resized and
    with c as configured."""
    return _decoded(content, config, most)[0]


class Seen(NamedTuple):
    """Properties of a file that its pixels do not show."""

    wide: Range | None
    """The least and largest value, if it has more than 8 bits."""
    several: bool
    """Whether it holds several images, of which the first is read."""


def _decoded(content: bytes, config: DataConfig, most: int) -> tuple[np.ndarray, Seen]:
    """`decode`, and what else of the file was seen."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > most:
            raise ValueError(f"{width}×{height} pixels are over the cap of {most:,}")
        if config.size is None and config.crop is None:
            _demand_small(width, height)
        seen = load_seen(image)
        image = eight_bits(ImageOps.exif_transpose(image))
    return _fitted(image, config), seen


def load_seen(image: Image.Image) -> Seen:
    """What of an opened image its pixels do not tell, which are loaded."""
    tiles = getattr(image, "tile", ())
    sixteen = any("16" in str(tile[3]) for tile in tiles)  # known before it is loaded
    several = bool(getattr(image, "is_animated", False))
    image.load()
    return Seen(_range(image, sixteen), several)


def _range(image: Image.Image, sixteen: bool) -> Range | None:
    """The least and largest value of an image of more than 8 bits. Of 16 bits a colour Pillow
    keeps the upper 8, so that the values are known up to 255."""
    if not sixteen and not image.mode.startswith("I"):
        return None
    values = np.asarray(image)
    if image.mode.startswith("I"):
        return int(values.min()), int(values.max())
    colours = values[..., :3] if image.mode in ("RGB", "RGBA") else values[..., :1]
    return 256 * int(colours.min()), 256 * int(colours.max()) + 255


def _fitted(image: Image.Image, config: DataConfig) -> np.ndarray:
    image = cropped(image, config.size, config.channels, config.crop)
    _demand_small(image.width, image.height)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _demand_small(width: int, height: int) -> None:
    if max(width, height) > LARGEST_SIDE:
        raise ValueError(f"{width}×{height} pixels are over {LARGEST_SIDE} a side: give --size")


class Decoding:
    """Images decoded in their order, a few hundred at a time over all cores.

    Iterating gives the name and pixels, uint8 (c, h, w), of each that can be read; those that
    cannot are kept in `bad`, each with its reason, the values of those of more than 8 bits in
    `wide`, the largest byte of all in `most`, and the digests of those that can be read in
    `contents`.

    Raises:
        ValueError: for images that differ in size, at the first that does.
    """

    def __init__(self, images: ImageFiles, config: DataConfig):
        self.images, self.config = images, config
        self.bad: list[tuple[str, str]] = []
        self.wide: list[Range] = []
        self.contents: list[int] = []
        self.most = self.several = 0

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        first: tuple[str, np.ndarray] | None = None
        for name, found in in_threads(self._attempt, self.images.names):
            if isinstance(found, str):
                self.bad.append((name, found))
                continue
            found, seen, content = found
            self.wide += [seen.wide] if seen.wide else []
            self.several += seen.several
            self.contents.append(content)
            self.most = max(self.most, int(found.max()))
            first = first or (name, found)
            if found.shape[1:] != first[1].shape[1:]:
                (h0, w0), (h1, w1) = first[1].shape[1:], found.shape[1:]
                raise ValueError(
                    f"images in {self.images.where} differ in size: {first[0]} is {w0}×{h0}, "
                    f"{name} is {w1}×{h1}: give --size to crop and resize them"
                )
            yield name, found

    def _attempt(self, name: str) -> tuple[np.ndarray, Seen, int] | str:
        try:
            content = self.images.read(name)
            pixels, seen = _decoded(content, self.config, MOST_PIXELS)
            return pixels, seen, content_of(content, self.config)
        except UnidentifiedImageError:  # whose message is the address of a buffer
            return "in no format that is read"
        except DAMAGED as error:
            return str(error).splitlines()[0] if str(error) else type(error).__name__


def content_of(file: bytes, config: DataConfig) -> int:
    """The digest of an image: of its file and the crop, which decides what is seen of it."""
    return digest(file, config.crop or 0)


def in_threads(of: Callable[[str], T], names: list[str]) -> Iterator[tuple[str, T]]:
    """Each name with what `of` makes of it, in order, at most `TOGETHER` held at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for i in range(0, len(names), TOGETHER):
            some = names[i : i + TOGETHER]
            groups = [some[j : j + 8] for j in range(0, len(some), 8)]
            with silence:  # of Pillow; failures are reported at the end
                made = list(pool.map(lambda few: [of(name) for name in few], groups))
            yield from zip(some, itertools.chain.from_iterable(made))


def failures(bad: Sequence[Sequence[str]], total: int, where: str) -> str | None:
    """The warning of images that could not be read, if there are any.

    Raises:
        ValueError: for too many of them.
    """
    if not bad:
        return None
    text = f"{len(bad)} of {total} images in {where} could not be read: "
    text += ", ".join(f"{brief(name)} ({brief(reason)})" for name, reason in bad[:5])
    text += ", …" if len(bad) > 5 else ""
    if len(bad) > MOST_FAILURES * total:
        raise ValueError(f"{text}: more than {MOST_FAILURES:.0%}; repair or remove them")
    return text


def misfit(wide: Sequence[Sequence[int]], largest: int, where: str) -> str | None:
    """The warning of images of more than 8 bits whose values are not 0 to 65,535, or of
    8 bits whose values stay low, as those of masks."""
    if not wide:
        if not 0 < largest < FAINT:
            return None
        values = "0 and 1" if largest == 1 else f"values of 0 to {largest}"
        way = "multiply them by 255, or save 1 bit a pixel" if largest == 1 else "multiply them"
        return f"the images in {where} hold {values}, which are read as if from 0 to 255: {way}"
    least, most = min(low for low, _ in wide), max(high for _, high in wide)
    text = misread((least, most))
    return text and f"{len(wide):,} images in {where} have more than 8 bits and {text}"


def misread(values: Range) -> str | None:
    """What a warning says of values of more than 8 bits that are not 0 to 65,535."""
    least, most = values
    if least >= 0 and DARK <= most <= 65535:
        return None
    text = f"values from {least:,} to {most:,}, which are read as if from 0 to 65,535: "
    if least < 0 or most > 65535:
        return text + "those beyond are cut off; scale the files to 8 or 16 bits"
    return text + f"they become at most {most // 257} of 255; scale the files to 8 or 16 bits"


def firsts(several: int, where: str) -> str | None:
    """The warning of files with several images, such as animations, if there are any."""
    if not several:
        return None
    return (
        f"{several:,} images in {where} hold several frames or pages, of which the first is read: "
        "save each as a file of its own to read them all"
    )


def in_memory(images: ImageFiles, config: DataConfig) -> Source:
    """Decodes all images into memory."""
    decoding = Decoding(images, config)
    names, pixels = [], []
    for one, found in decoding:
        names.append(one)
        pixels.append(found)
    if text := failures(decoding.bad, len(images.names), images.where):
        warnings.warn(text, stacklevel=2)
    if text := misfit(decoding.wide, decoding.most, images.where):
        warnings.warn(text, stacklevel=2)
    if text := firsts(decoding.several, images.where):
        warnings.warn(text, stacklevel=2)
    samples = np.empty((len(pixels), max(map(len, pixels)), *pixels[0].shape[1:]), np.uint8)
    for row, found in zip(samples, pixels):
        row[:] = found  # a grey image among coloured ones is broadcast over the channels
    del pixels
    parts, labels = images.labelling(names)
    summary = summary_of(images, decoding.bad)
    return split(
        images.name,
        IMAGE,
        samples,
        labels,
        parts,
        summary=summary,
        contents=np.array(decoding.contents, np.uint64),
        by_position=config.split == "position",
    )


def summary_of(images: ImageFiles, bad: Sequence[Sequence[str]]) -> str:
    """One line on the images that were read, the bad ones being known, and what was left out."""
    damaged = {name for name, _ in bad}
    names = [name for name in images.names if name not in damaged]
    return images.left.summary(names, "images", *images.labelling(names), len(bad))


def folder(found: Found) -> ImageFiles:
    """The images below a folder; `train/` and `test/` are honoured, other folders are classes.

    Raises:
        ValueError: for a layout of parts that only some of the images follow.
    """
    path = Path(found.where)
    return _of(
        found,
        lambda name: read_regular(path / name, MOST_BYTES),
        lambda name: stamp_of(path / name),
    )


def stamp_of(path: str | Path) -> Stamp:
    """Size, times and inode of a file; also the time of the last change of its entry, which no
    program can set back."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _of(found: Found, read: Callable[[str], bytes], stamp: Callable[[str], Stamp]) -> ImageFiles:
    names = laid_out(found.of("images"), found.where, found.left)
    return ImageFiles(found.where, names, read, parts_and_labels, found.left, stamp)


def archive(path: Path) -> ImageFiles:
    """The images in a zip archive, laid out like a folder.

    Raises:
        ValueError: for an archive that is damaged, holds no images, or several files of one name.
    """
    try:
        zipped = zipfile.ZipFile(path)  # closed when the last to read from it is gone
    except DAMAGED as error:
        raise ValueError(
            f"`data` {str(path)!r} is not a readable zip archive: {brief(str(error))}"
        ) from None
    size, members = path.stat().st_size, zipped.infolist()
    # members that overlap would be unpacked again and again
    demand_packed(
        sum(one.file_size for one in members), size, f"`data` {str(path)!r}: its members"
    )
    names = [one.filename for one in members if one.filename[-1:] not in ("", "/")]
    shown = [name.replace("\\", "/") for name in names if not is_hidden(name)]
    counts = Counter(name.removeprefix("./") for name in shown)
    name, most = max(counts.items(), key=lambda pair: pair[1], default=("", 0))
    if most > 1:
        raise ValueError(
            f"`data` {str(path)!r} holds {most} files called {brief(name)!r}: give each its own "
            "name"
        )

    def read(name: str) -> bytes:
        if zipped.getinfo(name).file_size > MOST_BYTES:
            raise ValueError(f"over {MOST_BYTES:,} bytes")
        return zipped.read(name)

    def head(name: str) -> bytes:
        with zipped.open(name) as file:
            return file.read(HEAD)

    found = sorted_by_kind(str(path), names, head)
    if "images" not in found.kinds:
        raise ValueError(f"`data` {str(path)!r} holds no images; it holds {found.counted()}")
    whole = stamp_of(path)  # to alter a member is to alter the archive
    return _of(found, read, lambda name: whole)
