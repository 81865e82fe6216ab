"""The colours of one picture for another, by a map between their distributions."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monge._core.checks import dimension, instance
from monge._core.checks import seed as checked_seed
from monge.maps.estimator import TransportMap
from monge.maps.linear_map import LinearMap

Pixels = NDArray[np.uint8]
RIDGE = 1e-2
"""The regularisation of the linear map by default. It multiplies a tint of one level of 255 in a
picture that is nearly grey by ten or so at most, and not by a thousand."""
AT_ONCE = 2**18
"""Colours that are moved at a time."""


def transfer_colours(
    image: Pixels,
    like: Pixels,
    by: TransportMap | None = None,
    *,
    visible: NDArray[np.bool_] | None = None,
    like_visible: NDArray[np.bool_] | None = None,
    sample: int = 5000,
    seed: int = 0,
) -> Pixels:
    """A picture in the colours of another one.

    A map is fitted to pixels drawn from both pictures, as points (red, green, blue) in [0, 1], and
    applied to all colours of the first: time and memory grow with the different colours that there
    are, not with the pixels.

    Args:
        image: uint8 (h, w) of grey, or (h, w, 3).
        like: the picture whose colours are taken, of any height and width.
        by: the map, which is fitted; `LinearMap(0.01)` by default, whose result has no
            artefacts. Grey pictures are moved along one axis, and a grey one is taken for coloured
            where the other one is.
        visible: which pixels (h, w) of the image count, e.g. those that are not transparent; all
            by default. The others keep their colours.
        like_visible: the same of `like`.
        sample: most pixels of each picture that the map is fitted to.
        seed: draws the pixels.

    Returns:
        uint8 (h, w) if both are grey, otherwise (h, w, 3).

    Raises:
        ValueError: for pictures of other dtypes or shapes, or without visible pixels.

    Example:
        >>> toned = transfer_colours(np.asarray(photo), np.asarray(painting))
    """
    by = LinearMap(RIDGE) if by is None else instance("by", by, TransportMap, "LinearMap()")
    dimension("sample", sample)
    pictures = [_picture(name, z) for name, z in (("image", image), ("like", like))]
    if len({z.shape[2] for z in pictures}) > 1:
        pictures = [np.repeat(z, 3, 2) if z.shape[2] == 1 else z for z in pictures]
    shown = [
        _visible(name, mask, z)
        for name, mask, z in zip(("visible", "like_visible"), (visible, like_visible), pictures)
    ]
    random = np.random.default_rng(checked_seed(seed) % 2**64)  # NumPy takes no negative seeds
    fitted = [_drawn(z[mask], sample, random) for z, mask in zip(pictures, shown)]
    by.fit(*fitted)
    moved = pictures[0].copy()
    moved[shown[0]] = _moved(pictures[0][shown[0]], by)
    return moved if moved.shape[2] == 3 else moved[:, :, 0]


def _picture(name: str, pixels: Pixels) -> Pixels:
    shape = np.shape(pixels)
    valid = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and valid and pixels.size):
        kind = getattr(pixels, "dtype", type(pixels).__name__)
        raise ValueError(
            f"`{name}` must be a uint8 array (h, w) or (h, w, 3), got {kind} of shape {shape}"
        )
    return pixels.reshape(*shape[:2], -1)


def _visible(name: str, mask: NDArray[np.bool_] | None, picture: Pixels) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones(picture.shape[:2], bool)
    if np.shape(mask) != picture.shape[:2] or np.asarray(mask).dtype != bool:
        raise ValueError(
            f"`{name}` must be a boolean array of shape {picture.shape[:2]}, got shape "
            f"{np.shape(mask)}"
        )
    if not np.any(mask):
        raise ValueError(f"`{name}` leaves no pixel: the picture is transparent")
    return np.asarray(mask)


def _drawn(colours: Pixels, sample: int, random: np.random.Generator) -> NDArray[np.float64]:
    if len(colours) > sample:
        colours = colours[random.choice(len(colours), sample, replace=False)]
    return colours / 255.0


def _moved(colours: Pixels, by: TransportMap) -> Pixels:
    """The images of colours (n, c), each different one moved once."""
    codes = colours.astype(np.int64) @ 256 ** np.arange(colours.shape[1])
    _, first, of = np.unique(codes, return_index=True, return_inverse=True)
    different = torch.from_numpy(colours[first] / 255.0)
    moved = torch.cat([by.transform(some) for some in different.split(AT_ONCE)])
    return _bytes(moved)[of]


def _bytes(colours: Tensor) -> Pixels:
    return colours.mul(255).round().clamp(0, 255).byte().numpy()
