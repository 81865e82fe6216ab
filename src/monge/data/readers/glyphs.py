r"""Letters and digits, 28 × 28, drawn from the fonts that matplotlib ships.

A drawing is one class in one font. It is kept as its signed distance d to the outline, in pixels,
positive inside, and a sample is

$$255 \cdot \mathrm{clip}\bigl(\tfrac12 + d(A u + b) + w\bigr), \qquad u \text{ a pixel},$$

with a random affine map (A, b) and a random weight w: a distance moves the outline of a stroke
evenly, and its slope of one a pixel is the edge that antialiasing gives. Twice as many pixels a
side are drawn, and averaged.

The samples are a function of the fonts. They are made once and kept in the user's cache.
"""

import hashlib
import io
import math
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from monge._core.files import DAMAGED, keep, user_cache
from monge._core.untrusted import read_regular
from monge.data.kinds import IMAGE
from monge.data.readers.caps import MOST_BYTES
from monge.data.source import Source, split
from monge.draws import generator, permutation

COUNT = 20_000
SIDE = 28
CLASSES = "123456789ABCDEFGHJKLMNOPQRSTUVWXYZabdefghnqrt"
"""Without 0, I and the lower case letters that differ from another class by their size at most."""
FONTS = (
    *("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-Bold", "DejaVuSans-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic"),
    *("DejaVuSansMono", "DejaVuSansMono-Oblique"),
    *("DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique"),
    *("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmss10", "cmtt10"),
)
USUAL = "e13def9ea3c6082a70068095c4592228"
"""The digest of those fonts as matplotlib ships them."""
LAYOUT = 1  # to be raised when the same fonts would give other samples
BODY = 20
"""The longer side of a drawing in pixels, before it is varied."""
FINE = 6
"""Samples of the distance a pixel."""
MARGIN = 2
"""Pixels around a drawing in which the distance is known; beyond them there is no ink."""


def glyphs() -> Source:
    """20,000 letters and digits in 45 classes; a tenth is held out by content.

    Raises:
        ValueError: if matplotlib has none of the fonts.
    """
    files = _fonts()
    missing = [font for font in FONTS if font not in files]
    if not files:
        raise ValueError(
            f"`data` 'glyphs' is drawn from the fonts of matplotlib, and {_folder()} has none of "
            "them: install matplotlib from PyPI"
        )
    key = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in files.values()))
    key = key.hexdigest()[:32]
    if key != USUAL:
        lacks = f"lacks {', '.join(missing)}" if missing else "has other versions of its fonts"
        warnings.warn(
            f"`data` 'glyphs': this matplotlib {lacks}, so samples are drawn from "
            f"{len(files)} fonts and are not those of other machines",
            stacklevel=2,
        )
    file = user_cache() / "glyphs" / f"{LAYOUT}-{key}.npz"
    images, labels = _kept(file) or _made_and_kept(file, list(files))
    summary = f"{COUNT:,} images of {len(CLASSES)} classes from {len(files)} fonts"
    return split("glyphs", IMAGE, images, np.array(list(CLASSES))[labels], summary=summary)


def _folder() -> Path:
    import matplotlib  # half a second where it is cold

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _fonts() -> dict[str, bytes]:
    """The content of each font that there is."""
    places = {font: _folder() / f"{font}.ttf" for font in FONTS}
    return {font: place.read_bytes() for font, place in places.items() if place.is_file()}


def _kept(file: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """The samples in the cache, if they are there and whole."""
    try:
        with np.load(io.BytesIO(read_regular(file, MOST_BYTES))) as stored:
            images, labels = stored["images"], stored["labels"]
    except (*DAMAGED, zipfile.LargeZipFile):
        return None
    shapes = images.shape, labels.shape
    whole = shapes == ((COUNT, 1, SIDE, SIDE), (COUNT,)) and labels.max() < len(CLASSES)
    return (images, labels) if whole else None


def _made_and_kept(file: Path, fonts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = drawn(fonts)
    content = io.BytesIO()
    np.savez_compressed(content, images=images, labels=labels)
    keep(file, content.getvalue(), "`data` 'glyphs' is drawn")
    return images, labels


def drawn(fonts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 1, 28, 28) and labels (n,), bytes: classes and fonts in equal numbers, in a
    random order."""
    kind = permutation(0, "glyphs", COUNT).numpy() % (len(fonts) * len(CLASSES))
    images = np.zeros((COUNT, 1, SIDE, SIDE), np.uint8)
    variations = _variations()
    for number, outline in enumerate(_outlines(fonts)):
        distance = _distance(outline)
        for i in np.flatnonzero(kind == number):
            images[i, 0] = _sample(distance, variations[i])
    return images, (kind % len(CLASSES)).astype(np.uint8)


def _outlines(fonts: list[str]) -> Iterator[list[np.ndarray]]:
    """Closed polygons (k, 2) of each class in each font, a hundred to the em, y upwards."""
    from matplotlib import ft2font
    from matplotlib.path import Path as Curves

    if hasattr(ft2font, "LoadFlags"):
        unhinted = ft2font.LoadFlags.NO_HINTING
    else:  # matplotlib 3.9 and older
        unhinted = ft2font.LOAD_NO_HINTING  # pyright: ignore[reportAttributeAccessIssue]
    for name in fonts:
        font = ft2font.FT2Font(str(_folder() / f"{name}.ttf"))
        # a pixel a unit of the font: nothing is rounded, which versions of FreeType do otherwise
        font.set_size(font.units_per_EM, 72)
        for letter in CLASSES:
            font.load_char(ord(letter), flags=unhinted)
            vertices, codes = font.get_path()
            curves = Curves(vertices * (100 / font.units_per_EM), codes)
            yield list(map(np.asarray, curves.to_polygons()))


def _distance(outline: list[np.ndarray]) -> np.ndarray:
    """The signed distance to an outline in pixels, positive inside, (h, w), `FINE` a pixel; the
    outline is scaled to `BODY` and centred."""
    from scipy.ndimage import distance_transform_edt

    points = np.concatenate(outline)
    low, size = points.min(0), np.ptp(points, 0)
    scale = BODY * FINE / size.max()
    width, height = (int(np.ceil(scale * side)) + 2 * MARGIN * FINE for side in size)
    centre = np.array([width, height]) / 2
    outline = [(polygon - low - size / 2) * [scale, -scale] + centre for polygon in outline]
    inside = _inside(outline, height, width)
    # of the centres of pixels: half a step from the edge between two of them
    within, without = (np.asarray(distance_transform_edt(part)) for part in (inside, ~inside))
    return np.where(inside, within - 0.5, 0.5 - without) / FINE


def _inside(outline: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Which centres of pixels an outline winds around, (height, width)."""
    starts = np.concatenate([polygon[:-1] for polygon in outline])
    ends = np.concatenate([polygon[1:] for polygon in outline])
    y = np.arange(height)[:, None] + 0.5
    upwards, downwards = (
        (a[:, 1] <= y) & (y < b[:, 1]) for a, b in ((starts, ends), (ends, starts))
    )
    row, edge = np.nonzero(upwards | downwards)
    (x0, y0), (x1, y1) = starts[edge].T, ends[edge].T
    crossing = x0 + (y[row, 0] - y0) * (x1 - x0) / (y1 - y0)
    turns = np.zeros((height, width + 1), int)
    first = np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)
    np.add.at(turns, (row, first), np.where(upwards[row, edge], 1, -1))
    return turns.cumsum(1)[:, :-1] != 0


class Variation(NamedTuple):
    """How a sample differs from its drawing."""

    angle: float
    slant: float
    width: float
    height: float
    right: float
    down: float
    weight: float
    """How far the outline moves outwards, in pixels, as are the shifts."""


LOW = Variation(-0.12, -0.12, 0.85, 0.85, -0.8, -0.8, -0.25)
HIGH = Variation(0.12, 0.12, 1.05, 1.05, 0.8, 0.8, 0.4)


def _variations() -> list[Variation]:
    """Uniform between `LOW` and `HIGH`, one a sample."""
    random = generator("glyphs")
    uniform = torch.rand(
        (COUNT, len(LOW)), dtype=torch.float64, generator=random, device="cpu"
    ).numpy()
    return [Variation(*row) for row in (LOW + np.subtract(HIGH, LOW) * uniform).tolist()]


def _sample(distance: np.ndarray, varied: Variation) -> np.ndarray:
    """A variation of a drawing: bytes (28, 28)."""
    from scipy.ndimage import affine_transform

    cos, sin = math.cos(varied.angle), math.sin(varied.angle)
    turned = np.array([[cos, -sin], [sin, cos]])  # of (y, x)
    slanted = np.array([[1 / varied.height, 0], [varied.slant / varied.width, 1 / varied.width]])
    back = FINE * slanted @ turned  # from pixels about their middle to those of the drawing
    middle = np.array([varied.down, varied.right]) + (SIDE - 0.5) / 2
    offset = (np.array(distance.shape) - 1) / 2 - back @ middle
    found = affine_transform(
        distance,
        back / 2,
        offset,  # pyright: ignore[reportArgumentType]
        (2 * SIDE, 2 * SIDE),
        order=1,
        cval=-SIDE,
    )
    ink = np.clip(0.5 + 2 * (found + varied.weight), 0, 1)  # of pixels that are half as wide
    return np.round(255 * ink.reshape(SIDE, 2, SIDE, 2).mean((1, 3))).astype(np.uint8)
