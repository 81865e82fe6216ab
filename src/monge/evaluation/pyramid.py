"""The sliced distance between patches of Laplacian pyramids, scale by scale.

Source: Karras, Aila, Laine, Lehtinen, "Progressive growing of GANs", 2018, section 5; Burt,
Adelson, "The Laplacian pyramid as a compact image code", 1983.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from monge._core.checks import cpu_generator, floating, listed, of_rank
from monge._core.promotion import ANY, promoted
from monge.transport import sliced_wasserstein

LEAST, PATCH = 16, 7


def _blur(images: Tensor) -> Tensor:
    """Burt and Adelson's binomial filter of five pixels, with reflected borders."""
    taps = images.new_tensor([1, 4, 6, 4, 1]) / 16
    channels = images.shape[1]
    kernel = torch.outer(taps, taps).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)


def _enlarged(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images at `size`: their pixels with zeros between them, blurred."""
    spread = images.new_zeros(*images.shape[:2], *size)
    spread[:, :, ::2, ::2] = images
    return 4 * _blur(spread)


@promoted(images=ANY)
def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """The levels of a Laplacian pyramid of images (n, c, h, w), from fine to coarse.

    Each level is what its scale adds to the next coarser one, of half the size; the last level is
    the coarsest image itself, whose sides are at least 16.

    Raises:
        ValueError: for another shape, or a side of less than 16.
    """
    floating("images", images)
    if images.ndim != 4 or min(images.shape[2:]) < LEAST:
        raise ValueError(
            f"`images` must have shape (n, c, h, w) with sides of at least {LEAST}, got "
            f"{tuple(images.shape)}"
        )
    levels = []
    while min(images.shape[2:]) >= 2 * LEAST:
        small = _blur(images)[:, :, ::2, ::2]
        height, width = images.shape[2:]
        levels.append(images - _enlarged(small, (height, width)))
        images = small
    return [*levels, images]


def pyramid_patches(
    images: Tensor, count: int, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Random 7 × 7 patches of images at each level of their Laplacian pyramids.

    Args:
        images: (n, c, h, w), with sides of at least 16.
        count: patches of each image at each level.
        generator: a CPU generator; torch's global one by default.

    Returns:
        Patches (n · count, c · 49) for each level, from fine to coarse.

    Raises:
        ValueError: as `laplacian_pyramid`.
    """
    cpu_generator(generator)
    patches = []
    for level in laplacian_pyramid(images):
        n, _, height, width = level.shape
        windows = level.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # (n, c, h', w', 7, 7)
        top = torch.randint(height - PATCH + 1, (n, count), generator=generator, device="cpu")
        left = torch.randint(width - PATCH + 1, (n, count), generator=generator, device="cpu")
        image = torch.arange(n)[:, None]
        patches.append(windows[image, :, top, left].reshape(n * count, -1))
    return patches


def pyramid_distances(
    x: list[Tensor],
    y: list[Tensor],
    *,
    directions: Tensor | int = 512,
    generator: torch.Generator | None = None,
) -> list[float]:
    """10³ SW_1 between the patches of each level, in standard units of each channel, from fine to
    coarse.

    Args:
        x: patches of one sample, from `pyramid_patches`.
        y: patches of another sample.
        directions: how many random directions, or the directions (L, c · 49).
        generator: draws the directions.
    """
    x, y = listed("x", x, "patches"), listed("y", y, "patches")
    if len(x) != len(y):
        raise ValueError(f"`x` has {len(x)} levels and `y` has {len(y)}")
    distances = []
    for one, two in zip(x, y, strict=True):
        a, b = _standardised("x", one), _standardised("y", two)
        distance = sliced_wasserstein(a, b, p=1, directions=directions, generator=generator)
        distances.append(1e3 * float(distance))
    return distances


def _standardised(name: str, patches: Tensor) -> Tensor:
    """Patches with mean 0 and deviation 1 in each channel, over all patches."""
    if of_rank(name, patches, 2, "(n, c · 49)").shape[1] % PATCH**2:
        raise ValueError(f"`{name}` must hold patches (n, c · 49), got {tuple(patches.shape)}")
    channels = patches.unflatten(1, (-1, PATCH * PATCH))
    deviation, mean = torch.std_mean(channels, (0, 2), correction=0, keepdim=True)
    return ((channels - mean) / deviation.clamp_min(1e-12)).flatten(1)
