"""What the explorer shows of a run, computed: samples, codes and planes as tensors."""

import functools
import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from monge._core.files import DAMAGED
from monge.config import DataConfig
from monge.costs import chamfer
from monge.data import as_floats
from monge.data.readers.images import decode
from monge.draws import generator
from monge.models import AutoEncoder, ConditionalWAE, evaluating, spherical
from monge.priors import Mixture, Prior
from monge.runs import Run
from monge.show.pictures import apart, nearest, principal_plane
from monge.training import checkpoint
from monge.transport import max_sliced_wasserstein

MOST_CODES = 2000
MOST_PIXELS = 24_000_000
MOST_DIRECTIONS = 12
LARGEST = 100.0
"""Codes are refused beyond so many of the prior's deviations."""
CELLS = 96
"""The prior's density in a plane has CELLS × CELLS values."""


class Tempered(Prior):
    """The draws of a prior times a temperature."""

    def __init__(self, prior: Prior, temperature: float):
        super().__init__()
        self.prior, self.temperature, self.dim = prior, temperature, prior.dim

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.temperature * self.prior.sample(n, generator)

    @property
    def spread(self) -> float:
        return self.temperature**2 * self.prior.spread


class Plane(NamedTuple):
    """A plane in the latent space, z = origin + a · axes[0] + b · axes[1]."""

    origin: Tensor
    """(dim,)."""
    axes: Tensor
    """Orthonormal rows (2, dim); the second is 0 where dim is 1."""
    distances: tuple[float, ...]
    """Of the plane that looks least like the prior, W_2 along either axis."""


class Map(NamedTuple):
    """Codes of test samples over the prior, in a plane."""

    plane: Plane
    index: Tensor
    """Which test samples, (n,)."""
    codes: Tensor
    """(n, dim), of their mean codes."""
    labels: Tensor | None
    extent: tuple[float, float, float, float]
    """The window: least a, most a, least b, most b."""
    density: Tensor
    """Of the prior, in [0, 1], (CELLS, CELLS), the row of the largest b first."""


class Directions(NamedTuple):
    """Principal directions of Q_Z; of a model without encoder the axes of the prior."""

    mean: Tensor
    directions: Tensor
    """Orthonormal rows (k, dim)."""
    deviations: Tensor
    """Of the codes along them, (k,)."""


class Typicality(NamedTuple):
    """Where a code lies among draws of the prior."""

    norm: float
    longer_than: float
    """The share of draws with a smaller norm."""
    sparser_than: float
    """The share of draws that lie in denser places, by the distance of the tenth nearest draw."""


class Reconstruction(NamedTuple):
    """A sample x (1, *) through the model."""

    reconstruction: Tensor
    error: Tensor | None
    """Of images, |x - G(z)| averaged over the channels, (1, 1, h, w)."""
    cost: float
    """Σ (x - G(z))²; of clouds Chamfer's distance."""
    code: Tensor
    """(dim,)."""
    typicality: Typicality
    near: Tensor
    """Indices of the nearest training samples, (k,)."""
    distances: Tensor
    """To them, squared, (k,)."""


class Explorer:
    """A run, opened for questions. Samples go in and come out as the model has them.

    Arguments:
        run: a trained run.

    Raises:
        ValueError: of every method, for an argument that does not fit the run.
    """

    def __init__(self, run: Run):
        self.run, self.model, self.source = run, run.model, run.source
        self._maps: dict[str, Map] = {}
        found = checkpoint.newest_first(run.path / "checkpoints")
        self.checkpoint = found[0].name if found else ""

    @property
    def views(self) -> list[str]:
        """Which views the run has, in the order of the page."""
        encodes, image = isinstance(self.model, AutoEncoder), self.source.kind == "image"
        completes, cloud = isinstance(self.model, ConditionalWAE), self.source.kind == "cloud"
        wanted = {
            "map": True, "sample": True, "traverse": True, "interpolate": encodes,
            "reconstruct": encodes, "complete": completes and image, "clouds": cloud,
            "compare": True, "run": True,
        }  # fmt: skip
        return [view for view, has in wanted.items() if has]

    @property
    def deviation(self) -> float:
        """Of a coordinate of the prior."""
        return math.sqrt(self.model.prior.spread / (2 * self.model.prior.dim))

    def test(self, index: list[int]) -> Tensor:
        r"""Test samples, (n, \*)."""
        count = len(self.source.test)
        for i in index:
            if not 0 <= i < count:
                raise ValueError(
                    f"`index` {i} is none of the {count} test samples: 0 to {count - 1}"
                )
        return as_floats(self.source.test[index])

    def read_image(self, content: bytes) -> Tensor:
        """An image file, cropped and resized to the shape of the run's, (1, c, h, w)."""
        if self.source.kind != "image":
            raise ValueError(
                f"`content` is an image and the run's samples are {self.source.kind}s"
            )
        channels, height, width = self.source.shape
        if channels not in (1, 3) or height != width:
            raise ValueError(
                f"`content` cannot be made {channels}×{height}×{width}: only square grey or "
                "coloured images can"
            )
        wanted = DataConfig(size=width, channels="grey" if channels == 1 else "colour")
        try:
            pixels = decode(content, wanted, MOST_PIXELS)
        except DAMAGED as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ValueError(f"`content` is no image that can be read: {reason}") from None
        return as_floats(torch.from_numpy(pixels.copy())[None])

    def checked(self, codes: Tensor) -> Tensor:
        """Codes (n, dim), if they are finite and within reason."""
        dim, most = self.model.prior.dim, LARGEST * self.deviation
        if codes.ndim != 2 or codes.shape[1] != dim:
            raise ValueError(f"`codes` must be rows of {dim} numbers, got {tuple(codes.shape)}")
        if not torch.isfinite(codes).all() or codes.abs().max() > most:
            raise ValueError(f"`codes` must be finite and at most {most:.4g} in size")
        return codes

    def decode(self, codes: Tensor, given: Tensor | None = None) -> Tensor:
        r"""G(z) of codes (n, dim), (n, \*). A conditional model completes `given` (1, \*), by
        default the first test sample."""
        codes = self.checked(codes)
        with evaluating(self.model):
            if not isinstance(self.model, ConditionalWAE):
                return self.model.decode(codes)
            given = self.test([0]) if given is None else given
            return self.model.decode(codes, given.expand(len(codes), *given.shape[1:]))

    def encode(self, x: Tensor) -> Tensor:
        r"""Mean codes (n, dim) of samples (n, \*)."""
        with evaluating(self.encoder):
            return self.encoder.encode(x).mean

    @property
    def encoder(self) -> AutoEncoder:
        """The model, if it has an encoder."""
        if not isinstance(self.model, AutoEncoder):
            raise ValueError(f"`run` is of {self.run.config.recipe}, which has no encoder")
        return self.model

    @functools.cached_property
    def index(self) -> Tensor:
        """The test samples that stand for Q_Z."""
        return apart(MOST_CODES, len(self.source.test))

    @functools.cached_property
    def codes(self) -> Tensor:
        """Their mean codes; of a model without encoder no rows."""
        if not isinstance(self.model, AutoEncoder):
            return torch.zeros(0, self.model.prior.dim)
        parts = self.source.test[self.index].split(500)
        return torch.cat([self.encode(as_floats(part)) for part in parts])

    def plane(self, name: Literal["principal", "worst"]) -> Plane:
        """The codes' first two principal directions, or the plane that looks least like the
        prior: the worst slice, and the worst one across it."""
        if name == "principal" or not len(self.codes):
            origin, axes = principal_plane(self.codes)
            return Plane(origin, axes.T, ())
        dim = self.model.prior.dim
        drawn = self.model.prior.sample(len(self.codes), generator(0, "worst plane"))
        across, axes, distances = torch.eye(dim), [], []
        for _ in range(min(2, dim)):
            found, direction = max_sliced_wasserstein(
                self.codes @ across.T, drawn @ across.T, generator=generator(0, "worst", len(axes))
            )
            axes.append(direction @ across)
            distances.append(float(found))
            # the rows of V beyond those of the axes span what is across them
            across = torch.linalg.svd(torch.stack(axes)).Vh[len(axes) :]
        axes += [torch.zeros(dim)] * (2 - len(axes))
        return Plane(self.codes.mean(0), torch.stack(axes), tuple(distances))

    def map(self, name: Literal["principal", "worst"]) -> Map:
        """The codes of test samples over the prior's density in a plane."""
        if name not in self._maps:
            self._maps[name] = self._map(self.plane(name))
        return self._maps[name]

    def _map(self, plane: Plane) -> Map:
        drawn = self.model.prior.sample(50_000, generator(0, "density"))
        one, two = ((z - plane.origin) @ plane.axes.T for z in (drawn, self.codes))
        shown = torch.cat([one[:5000], two])
        middle = shown.median(0).values
        reach = 1.08 * float((shown - middle).abs().quantile(0.999, dim=0).max())
        a, b = middle.tolist()
        extent = (a - reach, a + reach, b - reach, b + reach)
        labels = self.source.test_labels
        return Map(
            plane, self.index[: len(self.codes)], self.codes,
            None if labels is None else labels[self.index[: len(self.codes)]],
            extent, density(one, extent),
        )  # fmt: skip

    def prior(self, sampler: Literal["prior", "mixture"], temperature: float) -> Prior:
        """What codes are drawn from; a temperature scales the deviations of a mixture's parts,
        and the draws of other laws."""
        if sampler == "prior":
            law = self.model.prior
            return law if temperature == 1 else Tempered(law, temperature)
        mixture = self.run.mixture()
        covariances = temperature**2 * mixture.factors @ mixture.factors.mT
        return Mixture(mixture.means, covariances, mixture.weights)

    def sample(
        self, count: int, seed: int, sampler: Literal["prior", "mixture"], temperature: float
    ) -> Tensor:
        r"""Samples (count, \*), at temperature 1 those of `monge sample`."""
        drawn = generator(seed, "sample")
        return self.run.sample(count, drawn, self.prior(sampler, temperature))

    def draw(
        self, count: int, seed: int, sampler: Literal["prior", "mixture"], temperature: float
    ) -> Tensor:
        """Codes (count, dim)."""
        return self.prior(sampler, temperature).sample(count, generator(seed, "sample"))

    @functools.cached_property
    def directions(self) -> Directions:
        """The first principal directions of Q_Z, or the axes of the prior."""
        dim = self.model.prior.dim
        count = min(dim, MOST_DIRECTIONS)
        if len(self.codes) < 2:
            return Directions(
                torch.zeros(dim), torch.eye(dim)[:count], torch.full((count,), self.deviation)
            )
        mean = self.codes.mean(0)
        _, values, rows = torch.linalg.svd(self.codes - mean, full_matrices=False)
        deviations = values / math.sqrt(len(self.codes) - 1)
        return Directions(mean, rows[:count], deviations[:count])

    def interpolate(
        self, a: Tensor, b: Tensor, frames: int, path: Literal["linear", "spherical"]
    ) -> Tensor:
        r"""Frames (n, \*) on a line or great circle between the codes of samples (1, \*)."""
        with evaluating(self.encoder):
            way = spherical if path == "spherical" else torch.lerp
            return self.encoder.interpolate(a, b, frames, way)

    def reconstruct(self, x: Tensor) -> Reconstruction:
        r"""A sample (1, \*), its reconstruction, its code and what is near."""
        with evaluating(self.encoder):
            y = self.encoder.reconstruct(x)
        code, error = self.encode(x)[0], None
        cost = float((x - y).square().sum())
        if self.source.kind == "image":
            error = (x - y).abs().mean(1, keepdim=True)
        elif self.source.kind == "cloud":
            cost = float(chamfer(x, y))
        distances, near = nearest(x, self.source.train, 6)
        return Reconstruction(y, error, cost, code, self.typicality(code), near[0], distances[0])

    @functools.cached_property
    def _reference(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draws of the prior, and of others their norms and distances to the tenth nearest."""
        drawn = self.model.prior.sample(5000, generator(0, "typical"))
        others = self.model.prior.sample(2000, generator(0, "typical", "others"))
        return drawn, others.norm(dim=1), tenth_nearest(others, drawn)

    def typicality(self, code: Tensor) -> Typicality:
        """Where a code (dim,) lies among draws of the prior."""
        drawn, norms, distances = self._reference
        norm, away = code.norm(), tenth_nearest(code[None], drawn)
        longer, sparser = (norms < norm).float().mean(), (distances < away).float().mean()
        return Typicality(float(norm), float(longer), float(sparser))

    @property
    def completer(self) -> ConditionalWAE:
        """The model, if it completes samples."""
        if not isinstance(self.model, ConditionalWAE):
            raise ValueError(f"`run` is of {self.run.config.recipe}, which sees whole samples")
        return self.model

    def mask(self) -> Tensor:
        """The part that the model was trained to be shown, (1, 1, h, w), 1 where known; of one
        trained on random boxes the first."""
        return self.completer.mask(1, generator(0, "known"))

    def complete(self, x: Tensor, known: Tensor, count: int, seed: int) -> Tensor:
        r"""Completions (count, \*) of an image (1, c, h, w) that is known where `known`
        (1, 1, h, w) is 1."""
        if not 0 < float(known.mean()) < 1:
            raise ValueError("`known` is everything or nothing: leave a part to complete")
        return self.completer.complete(x, count, generator(seed, "complete"), known=known)[0]


def tenth_nearest(x: Tensor, drawn: Tensor) -> Tensor:
    """The distance of each x (n, dim) to its tenth nearest of the draws (m, dim), (n,)."""
    return torch.cdist(x, drawn).kthvalue(10, dim=1).values


def density(points: Tensor, extent: tuple[float, float, float, float]) -> Tensor:
    """How densely points (n, 2) lie in a window, smoothed, as a share of the densest cell."""
    low, high = torch.tensor(extent[::2]), torch.tensor(extent[1::2])
    cells = ((points - low) / (high - low) * CELLS).floor().long()
    inside = ((cells >= 0) & (cells < CELLS)).all(1)
    column, row = cells[inside].unbind(1)
    counts = torch.bincount((CELLS - 1 - row) * CELLS + column, minlength=CELLS**2).float()
    bell = torch.exp(-torch.arange(-8, 9).float().square() / 8)
    grid = counts.view(1, 1, CELLS, CELLS)
    grid = F.conv2d(grid, bell.view(1, 1, -1, 1), padding=(8, 0))
    grid = F.conv2d(grid, bell.view(1, 1, 1, -1), padding=(0, 8))[0, 0]
    return grid / grid.max().clamp_min(1e-30)
