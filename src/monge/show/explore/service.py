"""The computations behind the explorer: samples, codes and planes of a run, as tensors."""

import functools
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from monge._core.names import SamplerName
from monge.data import as_floats
from monge.draws import generator
from monge.evaluation.latent import (
    MOST_CODES,
    Plane,
    Reference,
    Typicality,
    coordinate_deviation,
    density,
    encode_all,
    plane_of_codes,
    principal_directions,
    window,
    worst_plane,
)
from monge.evaluation.nearest import nearest_samples
from monge.labels import Labelled, Rows, checked_labels, unlabelled
from monge.models import FlowMatching, evaluating, protocols, spherical
from monge.models.flow import with_guidance
from monge.models.protocols import (
    Completer,
    classes_of,
    clusters_of,
    generates,
    has,
    latent_of,
    prior_of,
    require,
)
from monge.models.sampling import drawn_labels
from monge.priors import Prior
from monge.runs import Run
from monge.show.explore.uploads import UploadDecoder
from monge.show.pictures import spread_over
from monge.training import checkpoint

MOST_DIRECTIONS = 12
LARGEST = 100.0
"""Larger codes are refused, in deviations of the prior."""
CELLS = 96
"""The prior's density in a plane has CELLS × CELLS values."""

PlaneName = Literal["principal", "worst"]


class Map(NamedTuple):
    """Codes of test samples over the prior, in a plane."""

    plane: Plane
    index: Tensor
    """Which test samples, (n,)."""
    codes: Tensor
    """(n, dim), their mean codes."""
    labels: Tensor | None
    extent: tuple[float, float, float, float]
    """The window: least a, most a, least b, most b."""
    density: Tensor
    """The density of the prior, in [0, 1], (CELLS, CELLS), the row of the largest b first; 0
    without a prior."""


class Directions(NamedTuple):
    """Principal directions of Q_Z; the axes of the prior for a model without an encoder."""

    mean: Tensor
    directions: Tensor
    """Orthonormal rows (k, dim)."""
    deviations: Tensor
    """Standard deviations of the codes along them, (k,)."""


class Reconstruction(NamedTuple):
    r"""A sample x (1, \*) through the model."""

    reconstruction: Tensor
    error: Tensor | None
    """|x - G(z)| of an image averaged over the channels, (1, 1, h, w)."""
    cost: float
    """Σ (x - G(z))²; the Chamfer distance for clouds."""
    code: Tensor
    """(dim,)."""
    typicality: Typicality
    near: Tensor
    """Indices of the nearest training samples, (k,)."""
    distances: Tensor
    """To them, squared, (k,)."""


class Explorer:
    """Computes what the page shows of a run, with samples as the model takes and returns them.

    Args:
        run: a trained run.

    Raises:
        ValueError: from every method, for an argument that does not fit the run, or a model that
            lacks the method that an answer needs.
    """

    def __init__(self, run: Run):
        self.run, self.source = run, run.source
        self.model: Any = run.model
        self.kind, self.prior = self.source.kind, prior_of(run.model)
        self._maps: dict[str, Map] = {}
        newest = checkpoint.newest_first(run.path / "checkpoints")
        self.checkpoint = newest[0].name if newest else ""

    @property
    def views(self) -> list[str]:
        """The views that the model can fill, in the order of the page."""
        encodes = has(self.model, "encode", "decode")
        decodes = encodes or (self.prior is not None and has(self.model, "decode"))
        draws = generates(self.model)
        available = {
            "map": decodes,
            "sample": draws,
            "traverse": decodes,
            "interpolate": encodes,
            "reconstruct": encodes,
            "complete": isinstance(self.model, Completer) and self.kind.grid,
            "clouds": draws and self.kind.turns,
            "compare": decodes,
            "run": True,
        }
        return [view for view, possible in available.items() if possible]

    @functools.cached_property
    def latent(self) -> int | None:
        """The dimension of the codes, None without codes."""
        return latent_of(self.model, as_floats(self.run.rows("test")[:1]))

    @functools.cached_property
    def deviation(self) -> float:
        """The standard deviation of a coordinate of the prior, or of the codes without a prior."""
        return coordinate_deviation(self.model, self.run.rows("test"))

    def test(self, index: list[int]) -> Tensor:
        r"""Test samples, (n, \*)."""
        count = len(self.source.test)
        for i in index:
            if not 0 <= i < count:
                raise ValueError(
                    f"`index` {i} is none of the {count} test samples: 0 to {count - 1}"
                )
        return as_floats(self.source.test[index])

    def rows(self, x: Tensor, label: int | None) -> Rows:
        r"""Samples, or codes, x (n, \*) of a class as the model takes them: with that class, if it
        is class-conditional.

        Raises:
            ValueError: for a class that is missing, or that the run does not have.
        """
        if self.classes is None:
            if label is not None:
                raise ValueError(f"`label` is {label}, and the run is not class-conditional")
            return x
        if label is None:
            raise ValueError("`label` is missing: the run is class-conditional")
        return Labelled(x, checked_labels(label, len(x), self.classes))

    @functools.cached_property
    def test_labels(self) -> Tensor | None:
        """The classes of the test samples, (n,): the clusters in which they are where the model is
        conditioned on those; None for data without labels."""
        clusters = clusters_of(self.model)
        if clusters is None:
            return self.source.test_labels
        return clusters.of_stored(self.source.test)

    @property
    def names(self) -> tuple[str, ...]:
        """What the classes are called."""
        return self.run.settled.classes or self.source.classes

    @property
    def classes(self) -> int | None:
        """How many classes a class-conditional run has; None for any other."""
        return classes_of(self.model)

    def read_image(self, content: bytes, kind: str, decoder: UploadDecoder) -> Tensor:
        """An image file, cropped and resized to the shape of the run's samples, (1, c, h, w).

        Args:
            content: the file.
            kind: its content type, as image/png.
            decoder: what decodes it.
        """
        if not self.kind.grid:
            raise ValueError(f"`content` is an image and the run's samples are {self.kind.name}s")
        channels, height, width = self.source.shape
        if channels not in (1, 3) or height != width:
            raise ValueError(
                f"`content` cannot be made {channels}×{height}×{width}: only square grey or "
                "coloured images can"
            )
        pixels = decoder.decode(content, kind, width, "grey" if channels == 1 else "colour")
        return as_floats(torch.from_numpy(pixels.copy())[None])

    def checked(self, codes: Tensor) -> Tensor:
        """Codes (n, dim), if they have the dimension of the model's and a reasonable size."""
        if self.latent is None:
            require(self.model, "encode", "a code")
        most = LARGEST * self.deviation
        if codes.ndim != 2 or codes.shape[1] != self.latent:
            raise ValueError(
                f"`codes` must be rows of {self.latent} numbers, got {tuple(codes.shape)}"
            )
        if not torch.isfinite(codes).all() or codes.abs().max() > most:
            raise ValueError(f"`codes` must be finite and at most {most:.4g} in size")
        return codes

    def decode(
        self, codes: Tensor, given: Tensor | None = None, label: int | None = None
    ) -> Tensor:
        r"""G(z) of codes (n, dim), (n, \*). A model that completes samples completes `given`
        (1, \*), by default the first test sample; a class-conditional one decodes to the class
        `label`, by default the first."""
        codes = self.checked(codes)
        given = self._given(given, len(codes))
        label = 0 if label is None and self.classes is not None else label
        with evaluating(self.model):
            return protocols.decode(self.model, self.rows(codes, label), given)

    def _given(self, given: Tensor | None, count: int) -> Tensor | None:
        """What a conditional model completes, once for each code."""
        if not isinstance(self.model, Completer):
            return None
        given = self.test([0]) if given is None else given
        return given.expand(count, *given.shape[1:])

    def encode(self, x: Rows) -> Tensor:
        r"""Mean codes (n, dim) of samples (n, \*)."""
        require(self.model, "encode", "a code")
        return encode_all(self.model, x)

    @functools.cached_property
    def index(self) -> Tensor:
        """The test samples that stand for Q_Z."""
        return spread_over(len(self.source.test), MOST_CODES)

    @functools.cached_property
    def codes(self) -> Tensor:
        """Their mean codes; no rows for a model without an encoder."""
        if not has(self.model, "encode"):
            return torch.zeros(0, self.latent or 0)
        return encode_all(self.model, self.run.rows("test")[self.index])

    def prior_needed(self, purpose: str) -> Prior:
        """The model's prior.

        Raises:
            ValueError: for a model without one, naming what it is needed for.
        """
        if self.prior is None:
            raise ValueError(
                f"`model` {type(self.model).__name__} has no `prior`, which {purpose} needs"
            )
        return self.prior

    def plane(self, name: PlaneName) -> Plane:
        """The plane of the first two principal directions of the codes, or the plane in which the
        codes differ most from the prior."""
        if self.latent is None:
            require(self.model, "encode", "a map of codes")
        if name == "principal" or not len(self.codes):
            return plane_of_codes(self.codes)
        return worst_plane(self.codes, self.prior_needed("the plane least like the prior"))

    def map(self, name: PlaneName) -> Map:
        """The codes of test samples over the density of the prior in a plane."""
        if name not in self._maps:
            self._maps[name] = self._map(self.plane(name))
        return self._maps[name]

    def _map(self, plane: Plane) -> Map:
        prior, labels = self.prior, self.test_labels
        drawn = self.codes[:0]
        if prior is not None:
            drawn = prior.sample(50_000, generator(0, "density"))
        one, two = ((z - plane.origin) @ plane.axes.T for z in (drawn, self.codes))
        extent = window(torch.cat([one[:5000], two]))
        index = self.index[: len(self.codes)]
        return Map(
            plane,
            index,
            self.codes,
            None if labels is None else labels[index],
            extent,
            density(one, extent, CELLS),
        )

    def prior_at(self, sampler: SamplerName, temperature: float) -> Prior:
        """The distribution of codes of a sampler at a temperature, a factor of its deviations."""
        prior = self.run.sampler(sampler, temperature=temperature)
        return self.prior_needed("a draw of codes") if prior is None else prior

    def sample(
        self,
        count: int,
        seed: int,
        sampler: SamplerName,
        temperature: float,
        label: int | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        r"""Samples (count, \*), of a class of a class-conditional run, with a flow's guidance; at
        temperature 1 those of `monge sample`."""
        plain = sampler == "prior" and temperature == 1
        prior = None if plain else self.prior_at(sampler, temperature)
        before = self.guidance
        if guidance is not None:
            with_guidance(self.model, guidance)
        try:
            return self.run.sample(count, generator(seed, "sample"), prior, label)
        finally:
            if before is not None:
                with_guidance(self.model, before)

    @property
    def guidance(self) -> float | None:
        """The guidance of a flow that was trained with and without labels, else None."""
        flow = self.model
        if not isinstance(flow, FlowMatching) or flow.classes is None or not flow.label_dropout:
            return None
        return flow.guidance

    def labels(self, count: int, seed: int, label: int | None) -> Tensor | None:
        """The classes (count,) of those samples, for a class-conditional run."""
        return drawn_labels(self.model, count, generator(seed, "sample"), label)

    def draw(self, count: int, seed: int, sampler: SamplerName, temperature: float) -> Tensor:
        """Codes (count, dim)."""
        return self.prior_at(sampler, temperature).sample(count, generator(seed, "sample"))

    @functools.cached_property
    def directions(self) -> Directions:
        """The first principal directions of Q_Z, or the axes of the prior."""
        if len(self.codes) >= 2:
            return Directions(*principal_directions(self.codes, MOST_DIRECTIONS))
        dim = self.prior_needed("its axes").dim
        count = min(dim, MOST_DIRECTIONS)
        deviations = torch.full((count,), self.deviation)
        return Directions(torch.zeros(dim), torch.eye(dim)[:count], deviations)

    def interpolate(
        self, a: Rows, b: Rows, frames: int, path: Literal["linear", "spherical"]
    ) -> Tensor:
        r"""Frames (n, \*) on a line or great circle between the codes of samples (1, \*)."""
        way = spherical if path == "spherical" else torch.lerp
        with evaluating(self.model):
            return protocols.interpolate(self.model, a, b, frames, way)

    def reconstruct(self, rows: Rows) -> Reconstruction:
        r"""A sample (1, \*), its reconstruction, its code, and the nearest training samples."""
        with evaluating(self.model):
            y = protocols.reconstruct(self.model, rows)
        code, x = self.encode(rows)[0], unlabelled(rows)
        error = (x - y).abs().mean(1, keepdim=True) if self.kind.grid else None
        cost = float(self.kind.error()(x, y))
        distances, near = nearest_samples(x, self.source.train, self.kind, 6)
        return Reconstruction(y, error, cost, code, self.typicality(code), near[0], distances[0])

    @functools.cached_property
    def _reference(self) -> Reference | None:
        return None if self.prior is None else Reference(self.prior)

    def typicality(self, code: Tensor) -> Typicality:
        """How typical a code (dim,) is of the prior."""
        if self._reference is None:
            return Typicality(float(code.norm()), None, None)
        return self._reference.typicality(code)

    @property
    def completer(self) -> Any:
        """The model, if it completes samples."""
        if not isinstance(self.model, Completer):
            raise ValueError(
                f"`run` is of {self.run.config.recipe}, whose model has no method `complete`"
            )
        return self.model

    def mask(self) -> Tensor:
        """The part that the model was trained to see, (1, 1, h, w), 1 where known; the first mask
        of a model trained on random boxes."""
        return protocols.known_part(self.completer, self.test([0]))

    def complete(self, x: Tensor, known: Tensor, count: int, seed: int) -> Tensor:
        r"""Completions (count, \*) of an image (1, c, h, w) that is known where `known`
        (1, 1, h, w) is 1."""
        if not 0 < float(known.mean()) < 1:
            raise ValueError("`known` is everything or nothing: leave a part to complete")
        drawn = generator(seed, "complete")
        return protocols.complete(self.completer, x, count, drawn, known=known)[0]
