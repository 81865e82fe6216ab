"""Pictures as files that name the weights and the data they were made of, and inside a page."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from monge._core.files import DAMAGED

PREFIX = "monge "
"""How the text entries of a picture begin, e.g. `monge checkpoint`."""


def png(picture: Image.Image, provenance: Mapping[str, str]) -> bytes:
    """A picture as an opaque PNG file whose text entries hold `Run.provenance`."""
    texts, content = PngInfo(), io.BytesIO()
    for name, value in provenance.items():
        # names of files that are not in the encoding of the file system keep their bytes
        readable = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        texts.add_itxt(f"{PREFIX}{name}", readable)
    _opaque(picture).save(content, "PNG", pnginfo=texts)
    return content.getvalue()


def embedded(picture: Image.Image) -> str:
    """A picture as a PNG file in base64; where it is transparent, the page shows through."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def _opaque(picture: Image.Image) -> Image.Image:
    """A picture without its alpha channel: the gaps of a grid are white."""
    return (
        picture.convert(picture.mode.removesuffix("A")) if picture.mode.endswith("A") else picture
    )


def written(file: Path) -> dict[str, str]:
    """What a PNG file of `png` says that it was made of; nothing if it is damaged."""
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            texts = getattr(picture, "text", {})
    except DAMAGED:
        return {}
    return {
        name.removeprefix(PREFIX): text for name, text in texts.items() if name.startswith(PREFIX)
    }


def gif(frames: Sequence[Image.Image], provenance: Mapping[str, str]) -> bytes:
    """Frames as an endless GIF file of ten a second, whose comment holds `Run.provenance`."""
    comment = "\n".join(f"{PREFIX}{name}: {value}" for name, value in provenance.items())
    content, (first, *rest) = io.BytesIO(), map(_opaque, frames)
    first.save(
        content,
        "GIF",
        save_all=True,
        append_images=rest,
        duration=100,
        loop=0,
        comment=comment.encode("utf-8", "surrogateescape"),
    )
    return content.getvalue()
