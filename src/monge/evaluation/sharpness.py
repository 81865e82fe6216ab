"""The sharpness of images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from monge._core.checks import floating, unit_range
from monge._core.promotion import ANY, promoted

LUMA = (0.299, 0.587, 0.114)


@promoted(images=ANY)
def sharpness(images: Tensor) -> float:
    """The variance of an image's Laplacian, averaged over images in [0, 1].

    Colours are first made grey by 0.299 R + 0.587 G + 0.114 B. The Laplacian is the sum of the
    four neighbours less four times the pixel, at pixels that have them all. Images in [-1, 1]
    would be four times as sharp by this measure: bring them to [0, 1].

    Args:
        images: (n, 1, h, w) or (n, 3, h, w) with sides of at least 3.

    Raises:
        ValueError: for another shape, or values outside [0, 1].

    Source: Tolstikhin, Bousquet, Gelly, Schölkopf, "Wasserstein auto-encoders", 2018, section 4.
    """
    floating("images", images)
    if (
        images.ndim != 4
        or images.shape[1] not in (1, 3)
        or min(images.shape[2:]) < 3
        or not len(images)
    ):
        raise ValueError(
            "`images` must have shape (n, 1, h, w) or (n, 3, h, w) with n of at least 1 and sides "
            f"of at least 3, got {tuple(images.shape)}"
        )
    unit_range("images", images)
    if images.shape[1] == 3:
        images = torch.einsum("nchw,c->nhw", images, images.new_tensor(LUMA))[:, None]
    kernel = images.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    return float(F.conv2d(images, kernel[None, None]).flatten(1).var(1, correction=0).mean())
