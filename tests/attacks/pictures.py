"""Images that take a decoder's time or memory, and images whose bytes are mutated."""

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from attacks.fuzzing import Fuzz, mutated
from monge._core.decoding import pixels
from monge.show.explore.uploads import FORMATS

NAMES = {name: kind for kind, name in FORMATS.items()}


def encoded(image: Image.Image, name: str, **options) -> bytes:
    """An image as a file."""
    content = io.BytesIO()
    image.save(content, name, **options)
    return content.getvalue()


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    """An image that does not compress."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (height, width, channels), np.uint8))


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, size: tuple[int, int] = (8, 8)) -> bytes:
    """A grey PNG file with chunks before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(min(9, size[0] + 1) * min(8, size[1])), 9))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + data + chunk(b"IEND", b"")


def exif_of(count: int) -> bytes:
    """EXIF whose directory has entries that each claim the rest of the file many times."""
    entries = b"".join(struct.pack("<HHII", 0x8000 + i % 999, 1, count, 8) for i in range(6000))
    return b"II*\0" + struct.pack("<IH", 8, 6000) + entries + bytes(4)


def bombs() -> dict[str, tuple[str, bytes]]:
    """What must be refused, and the content type as which it is sent."""
    packed = zlib.compress(bytes(2**27), 9)
    gif = encoded(noise(8, 8).convert("P"), "GIF")
    return {
        "1 MB of comments in a PPM": (
            "image/png",
            b"P6\n" + b"#\n" * 500_000 + b"2 2 255\n" + bytes(12),
        ),
        "a TIFF": ("image/png", encoded(noise(8, 8), "TIFF")),
        "an EPS": ("image/png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "a JPEG sent as PNG": ("image/png", encoded(noise(8, 8), "JPEG")),
        "a PNG sent as WebP": ("image/webp", encoded(noise(8, 8), "PNG")),
        "a claim of 60,000 × 60,000": ("image/png", png(size=(60_000, 60_000))),
        "a claim of 5,001 × 5,000": ("image/png", png(size=(5_001, 5_000))),
        "128 MB of profile": ("image/png", png(chunk(b"iCCP", b"x\0\0" + packed))),
        "128 MB of text": ("image/png", png(chunk(b"zTXt", b"x\0\0" + packed))),
        "128 MB of iTXt": ("image/png", png(chunk(b"iTXt", b"x\0\1\0\0\0" + packed))),
        "a GIF of 65,535 × 65,535": ("image/gif", gif[:6] + b"\xff" * 4 + gif[10:]),
        "half a PNG": ("image/png", encoded(noise(60, 60), "PNG")[:4000]),
        "half a JPEG": ("image/jpeg", encoded(noise(60, 60), "JPEG")[:1500]),
        "half a WebP": ("image/webp", encoded(noise(60, 60), "WEBP")[:400]),
        "nothing": ("image/gif", b""),
    }


def heavy() -> dict[str, tuple[str, bytes]]:
    """What may be read or refused, in bounded time and memory."""
    frames = [noise(32, 32) for _ in range(50)]
    exif = Image.Exif()
    exif[0x9286] = b"x" * 60_000
    texts = PngImagePlugin.PngInfo()
    for i in range(100):
        texts.add_text(f"key{i}", "x" * 2**20, zip=True)
    animated = {"save_all": True, "append_images": frames}
    return {
        "100 MB of texts": ("image/png", encoded(noise(8, 8), "PNG", pnginfo=texts)),
        "directories of EXIF": ("image/png", png(chunk(b"eXIf", exif_of(2**20)))),
        "EXIF of a JPEG": ("image/jpeg", encoded(noise(8, 8), "JPEG", exif=exif)),
        "an animated GIF": ("image/gif", encoded(frames[0], "GIF", **animated)),
        "an animated PNG": ("image/png", encoded(frames[0], "PNG", **animated)),
        "an animated WebP": ("image/webp", encoded(frames[0], "WEBP", **animated)),
        "many scans": ("image/jpeg", scans(3000, 3000, 2000)),
    }


def scans(width: int, height: int, count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    whole = encoded(Image.new("L", (width, height), 99), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * count + whole[-2:]


def honest() -> dict[str, tuple[str, bytes]]:
    """Images that are read, of every format and of modes that are rare."""
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21
    made = {name: (kind, encoded(noise(60, 40), name)) for name, kind in NAMES.items()}
    return made | {
        "turned": ("image/jpeg", encoded(noise(60, 40), "JPEG", exif=exif)),
        "CMYK": ("image/jpeg", encoded(noise(60, 40).convert("CMYK"), "JPEG")),
        "16 bits": ("image/png", encoded(Image.fromarray(deep), "PNG")),
        "transparent": ("image/png", encoded(noise(60, 40, 4), "PNG")),
        "a palette": ("image/png", encoded(noise(60, 40).convert("P"), "PNG")),
        "1 bit": ("image/png", encoded(noise(60, 40).convert("1"), "PNG")),
        "transparent WebP": ("image/webp", encoded(noise(60, 40, 4), "WEBP", lossless=True)),
    }


def prepare(folder: Path) -> list[tuple[str, bytes]]:
    return list(honest().values())


def case(images: list[tuple[str, bytes]], rng: random.Random) -> None:
    """An image whose bytes are mutated, decoded as the process does that decodes uploads."""
    kind, content = rng.choice(images)
    assert len(pixels(mutated(content, rng), FORMATS[kind], 16, "colour")) == 16 * 16 * 3


FUZZ = Fuzz("uploads", prepare, case)
