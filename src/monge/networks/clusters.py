"""Clusters of samples: classes for data without labels."""

import warnings
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge._core.checks import dimension, dimensions, instance
from monge.labels import as_floats

LARGEST_SIDE = 32
"""Larger images are compared at this side."""
MOST_FITTED = 10_000
"""Samples of which the centres are means."""
BLOCK = 1000


class Clusters(nn.Module):
    r"""x ↦ argmin_k ‖φ(x) - c_k‖, the number of the nearest of K centres: a label for each sample
    where data have none, or other ones than a model should see.

    φ(x) are the elements of x: of images the pixels, averaged down to at most 32 × 32, of tables
    standard units. A model that is conditioned on clusters has less to fit in each of them than in
    all, as a class-conditional one has, and needs no labels.

    Args:
        count: K.
        shape: of a sample, (\*).
        standard: brings samples (n, \*) to units in which they are compared; the identity by
            default.

    Source: Liu, Wang, Bau, Zhu, Torralba, "Diverse image generation via self-conditioned GANs",
    2020; Bao, Li, Sun, Zhu, "Why are conditional generative models better than unconditional
    ones?", 2022.
    """

    centres: Tensor

    def __init__(self, count: int, shape: tuple[int, ...], standard: nn.Module | None = None):
        super().__init__()
        standard = nn.Identity() if standard is None else standard
        self.standard = instance("standard", standard, nn.Module, "Standardise(mean, std)")
        like = self._coordinates(torch.zeros(1, *dimensions("shape", shape)))
        self.register_buffer("centres", torch.zeros(dimension("count", count), like.shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        r"""The labels, int64 (n,), of samples x (n, \*), images in [0, 1]."""
        return torch.cdist(self._coordinates(x), self.centres).argmin(1)

    def of_stored(self, x: Tensor) -> Tensor:
        r"""The labels, int64 (n,) on the CPU, of samples (n, \*) as they are stored, in blocks."""
        return torch.cat([self(block).cpu() for block in self._blocks(x)])

    @torch.no_grad()
    def fit(self, x: Tensor, seed: int) -> Tensor:
        r"""Moves the centres to those of K means of samples x (n, \*), as they are stored, and
        returns how many samples each has, int64 (K,).

        They are fitted to at most 10,000 samples, evenly taken.

        Raises:
            ValueError: for fewer than K samples that differ.
        """
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        count = len(self.centres)
        some = x[torch.linspace(0, len(x) - 1, min(MOST_FITTED, len(x))).long()]
        coordinates = torch.cat([self._coordinates(block) for block in self._blocks(some)])
        with warnings.catch_warnings():
            # of which the check below says more
            warnings.simplefilter("ignore", ConvergenceWarning)
            if len(some) >= count:
                # scikit-learn takes seeds of 32 bits only
                means = KMeans(count, random_state=seed % 2**32).fit(coordinates.cpu().numpy())
                self.centres.copy_(torch.from_numpy(means.cluster_centers_))
        sizes = torch.bincount(self.of_stored(x), minlength=count)
        if len(some) < count or not sizes.all():
            different = len(torch.unique(coordinates, dim=0))
            raise ValueError(
                f"`clusters` is {count}, and of the {len(some):,} training samples that are "
                f"compared {different:,} differ: ask for fewer, or leave out --condition clusters "
                "(--condition none)"
            )
        return sizes

    def _blocks(self, x: Tensor) -> Iterator[Tensor]:
        """Stored samples as floats, where the centres are."""
        return (as_floats(block.to(self.centres.device)) for block in x.split(BLOCK))

    def _coordinates(self, x: Tensor) -> Tensor:
        x = self.standard(x)
        if x.ndim == 4 and max(x.shape[2:]) > LARGEST_SIDE:
            height, width = (min(side, LARGEST_SIDE) for side in x.shape[2:])
            x = F.adaptive_avg_pool2d(x, (height, width))
        return x.flatten(1).float()
