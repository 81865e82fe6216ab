"""Folders and zip archives of images, of any size and mode, read into one uint8 array."""

import io
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from monge.config import DataConfig
from monge.data.source import HELD_OUT_NAMES, Source, split
from monge.files import DAMAGED

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MOST_PIXELS = 50_000_000
MOST_BYTES = 256 * 2**20
LARGEST_SIDE = 512
MOST_FAILURES = 0.01


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


def decode(content: bytes, config: DataConfig) -> np.ndarray:
    """One image file as uint8 (c, h, w), upright, cropped, resized and with c as configured."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"{width}×{height} pixels are over the cap of {MOST_PIXELS:,}")
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


def _decode_all(
    names: Sequence[str], read: Callable[[str], bytes], config: DataConfig, where: str
):
    """Pixels and names of the images that could be read; a warning names those that could not."""

    def attempt(name: str) -> np.ndarray | str:
        try:
            return decode(read(name), config)
        except (*DAMAGED, Image.DecompressionBombError) as error:
            return str(error).splitlines()[0] if str(error) else type(error).__name__

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own; failures are reported below
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(attempt, names))
    good = [(name, r) for name, r in zip(names, results) if isinstance(r, np.ndarray)]
    bad = [f"{name} ({r})" for name, r in zip(names, results) if isinstance(r, str)]
    if bad:
        text = (
            f"{len(bad)} of {len(names)} images in {where} could not be read: "
            + ", ".join(bad[:5])
            + (", …" if len(bad) > 5 else "")
        )
        if len(bad) > MOST_FAILURES * len(names):
            raise ValueError(f"{text}: more than {MOST_FAILURES:.0%}; repair or remove them")
        warnings.warn(text, stacklevel=2)
    return [name for name, _ in good], [pixels for _, pixels in good]


def _stack(names: list[str], pixels: list[np.ndarray], where: str) -> np.ndarray:
    sizes = [p.shape[1:] for p in pixels]
    odd = next((i for i, size in enumerate(sizes) if size != sizes[0]), None)
    if odd is not None:
        (h0, w0), (h1, w1) = sizes[0], sizes[odd]
        raise ValueError(
            f"images in {where} differ in size: {names[0]} is {w0}×{h0}, {names[odd]} is "
            f"{w1}×{h1}: give --size to crop and resize them"
        )
    channels = max(len(p) for p in pixels)
    out = np.empty((len(pixels), channels, *sizes[0]), np.uint8)
    for i, p in enumerate(pixels):
        out[i] = p  # a grey image among coloured ones is broadcast over the channels
    return out


def parts_and_labels(names: list[str]) -> tuple[list[str] | None, list[str] | None]:
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
    classes = set(labels)
    return parts, labels if 2 <= len(classes) <= 1000 and "" not in classes else None


def _source(names: list[str], read: Callable[[str], bytes], config: DataConfig, path: Path):
    def shown(name: str) -> bool:
        parts = name.replace("\\", "/").split("/")
        hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
        return not hidden and PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES

    names = sorted(filter(shown, names))
    if not names:
        raise ValueError(f"`data` {str(path)!r} holds no images ({', '.join(sorted(SUFFIXES))})")
    names, pixels = _decode_all(names, read, config, str(path))
    samples = _stack(names, pixels, str(path))
    parts, labels = parts_and_labels(names)
    return split(path.stem, "image", samples, labels, parts)


def folder(path: Path, config: DataConfig) -> Source:
    """The images below a folder; `train/` and `test/` are honoured, other folders are classes."""
    names = [str(PurePosixPath(p.relative_to(path))) for p in path.rglob("*") if p.is_file()]
    return _source(names, lambda name: (path / name).read_bytes(), config, path)


def archive(path: Path, config: DataConfig) -> Source:
    """The images in a zip archive, laid out like a folder."""

    def read(name: str) -> bytes:
        if zipped.getinfo(name).file_size > MOST_BYTES:
            raise ValueError(f"over {MOST_BYTES:,} bytes")
        return zipped.read(name)

    try:
        with zipfile.ZipFile(path) as zipped:
            return _source(zipped.namelist(), read, config, path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"`data` {str(path)!r} is no readable zip archive: {error}") from None
