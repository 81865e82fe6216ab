"""`monge transfer`: a picture in the colours of another one."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from monge.cli.common import tell

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


@dataclass(frozen=True)
class Transfer:
    """Give a picture the colours of another one, by a transport map between their pixels."""

    image: Positional[Path]
    """The picture to change. Transparency is kept, orientation of cameras is applied."""
    like: Positional[Path]
    """The picture whose colours are taken, with their colour profile."""
    out: Path
    """A .png, .jpg or .jpeg file to write."""
    method: Literal["linear", "sliced", "entropic", "exact"] = "linear"
    """linear: gives the picture the mean and the covariance of the colours, without artefacts;
    sliced: all of their distribution, along lines; entropic: a smooth map to means of colours;
    exact: every drawn pixel to its own."""
    pixels: int = 5000
    """Most pixels of each picture that the map is fitted to; it is applied to all."""
    seed: int = 0
    """Draws the pixels and the lines."""

    def run(self) -> None:
        if self.out.suffix.lower() not in SUFFIXES:
            raise ValueError(f"`--out` must end in {', '.join(SUFFIXES)}, got {str(self.out)!r}")
        if self.pixels < 1:
            raise ValueError(f"`--pixels` must be at least 1, got {self.pixels}")
        kind = SUFFIXES[self.out.suffix.lower()]
        if self.out.resolve() in (self.image.resolve(), self.like.resolve()):
            raise ValueError(
                f"`--out` {str(self.out)!r} is one of the pictures: name another file"
            )
        colours, alpha, _ = _read("image", self.image)
        others, other_alpha, profile = _read("like", self.like)
        if alpha is not None and kind == "JPEG":
            raise ValueError(
                f"`--out` {str(self.out)!r} keeps no transparency, and {str(self.image)!r} has "
                "some: name a .png file"
            )
        from PIL import Image

        from monge._core.files import write_all
        from monge.maps import transfer_colours

        moved = Image.fromarray(
            transfer_colours(
                colours,
                others,
                _map(self.method, self.seed),
                visible=None if alpha is None else alpha > 0,
                like_visible=None if other_alpha is None else other_alpha > 0,
                sample=self.pixels,
                seed=self.seed,
            )
        )
        if alpha is not None:
            moved.putalpha(Image.fromarray(alpha))
        content = io.BytesIO()
        options: dict[str, Any] = {"quality": 95} if kind == "JPEG" else {}
        # the result has the colours of `like`; bytes 16 to 19 name the colour space of a profile
        space = b"GRAY" if moved.mode[0] == "L" else b"RGB "
        if profile is not None and profile[16:20] == space:
            options["icc_profile"] = profile
        moved.save(content, kind, **options)
        for written in write_all(self.out.parent, {self.out.name: content.getvalue()}):
            tell(written)


def _map(method: str, seed: int) -> Any:
    from monge import maps

    made = {
        "sliced": lambda: maps.SlicedMap(seed=seed),
        "linear": lambda: None,
        "entropic": maps.EntropicMap,
        "exact": maps.ExactMap,
    }
    return made[method]()


def _read(name: str, path: Path) -> tuple[Any, Any, bytes | None]:
    """The pixels of a picture, upright, uint8 (h, w) or (h, w, 3), its transparency (h, w), and
    the ICC profile in its file, if any.

    Warns of what its pixels do not tell.
    """
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    from monge._core.errors import silence, warn
    from monge._core.files import DAMAGED
    from monge._core.formats import FORMATS
    from monge._core.pixels import colours_and_alpha
    from monge._core.untrusted import read_regular
    from monge.data.readers.caps import MOST_BYTES, MOST_PIXELS
    from monge.data.readers.images import load_seen, misread

    try:
        content = read_regular(path, MOST_BYTES)
        with silence, Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise ValueError(f"{width}×{height} pixels are over the cap of {MOST_PIXELS:,}")
            seen, profile = load_seen(image), image.info.get("icc_profile")
            colours, alpha = colours_and_alpha(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:  # whose message is the address of a buffer
        raise ValueError(
            f"`{name}` {str(path)!r} is in no format that is read: {', '.join(FORMATS)}"
        ) from None
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"`{name}` {str(path)!r} cannot be read: {reason}") from None
    if seen.several:
        warn(
            f"`{name}` {str(path)!r} holds several frames, of which the first is read: save "
            "another one as a file of its own to take its colours"
        )
    if text := seen.wide and misread(seen.wide):
        warn(f"`{name}` {str(path)!r} has {text}")
    hidden = np.zeros(0) if alpha is None else np.asarray(alpha)
    if (hidden == 255).all():  # transparency that hides nothing
        return np.asarray(colours), None, profile
    if not hidden.any():
        raise ValueError(f"`{name}` {str(path)!r} is transparent in all of its pixels")
    return np.asarray(colours), hidden, profile
