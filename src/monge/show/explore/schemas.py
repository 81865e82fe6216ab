"""What goes over the wire, typed: requests, replies and errors of the explorer's API."""

import base64
import math
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from monge.data import as_floats

Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Code = Annotated[list[Finite], Field(min_length=1, max_length=4096)]
Base64 = Annotated[str, Field(max_length=2**21)]
Kind = Literal["image", "cloud", "vector"]
Sampler = Literal["prior", "mixture"]
Seed = Annotated[int, Field(ge=0, le=2**53)]
Temperature = Annotated[float, Field(allow_inf_nan=False, ge=0.05, le=4)]
Count = Annotated[int, Field(ge=1, le=100)]


class Request(BaseModel):
    """A body that is asked for something; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """Why a request was refused."""

    error: str
    """A short name: bad_argument, not_found, too_large, …"""
    message: str


class Samples(BaseModel):
    """Samples of a run."""

    kind: Kind
    shape: list[int]
    """(n, c, h, w), (n, N, 3) or (n, d)."""
    data: str
    """base64 of the values in this order: bytes from 0 to 255 of images, little-endian float32
    of clouds and vectors."""

    @classmethod
    def of(cls, x: Tensor) -> "Samples":
        r"""Samples x (n, \*), of images uint8 or in [0, 1]."""
        kinds: dict[int, Kind] = {4: "image", 3: "cloud", 2: "vector"}
        if kinds[x.ndim] == "image":
            x = x if x.dtype == torch.uint8 else (x.clamp(0, 1) * 255).round().to(torch.uint8)
            content = x.numpy().tobytes()
        else:
            content = x.numpy().astype("<f4").tobytes()
        return cls(kind=kinds[x.ndim], shape=[*x.shape], data=base64.b64encode(content).decode())


def read_values(data: str, shape: tuple[int, ...], name: str) -> Tensor:
    """One sample (1, *) from what `Samples` would hold of it.

    Raises:
        ValueError: for what is no base64, or of another length, or not finite.
    """
    try:
        content = base64.b64decode(data, validate=True)
    except ValueError:
        raise ValueError(f"`{name}` is not base64") from None
    dtype = "u1" if len(shape) == 3 else "<f4"
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if len(content) != expected:
        raise ValueError(f"`{name}` has {len(content)} bytes: a sample of the run has {expected}")
    x = torch.from_numpy(np.frombuffer(content, dtype).copy()).view(1, *shape)
    if dtype != "u1" and not (torch.isfinite(x).all() and x.abs().max() <= 1e6):
        raise ValueError(f"`{name}` must be finite and at most 1e6 in size")
    return as_floats(x)


class Pick(Request):
    """A sample: one of the test part, or one's own."""

    index: Annotated[int, Field(ge=0)] | None = None
    """Of a test sample."""
    data: Base64 | None = None
    """Of one's own, as `Samples` has it."""


class Decode(Request):
    """Codes to decode."""

    codes: Annotated[list[Code], Field(min_length=1, max_length=100)]
    given: Pick | None = None
    """What a conditional model completes; the first test sample by default."""


class Encode(Request):
    """A sample to encode."""

    sample: Pick


class Draw(Request):
    """Samples to draw."""

    count: Count = 64
    seed: Seed = 0
    sampler: Sampler = "prior"
    temperature: Temperature = 1.0
    """What the deviations of the draws are multiplied by."""


class Interpolate(Request):
    """Two samples to go between."""

    a: Pick
    b: Pick
    frames: Annotated[int, Field(ge=2, le=60)] = 24
    path: Literal["linear", "spherical"] = "linear"


class Complete(Request):
    """A sample to complete."""

    sample: Pick
    known: Base64 | None = None
    """base64 of h · w bytes, 1 where the image is known and 0 elsewhere; by default the part that
    the run was trained with."""
    count: Annotated[int, Field(ge=1, le=24)] = 6
    seed: Seed = 0


class RunInfo(BaseModel):
    """What a run is and which views it has."""

    id: str
    name: str
    recipe: str
    line: str
    """The recipe, in a line."""
    kind: Kind
    shape: list[int]
    latent: int
    prior: str
    views: list[str]
    data: str
    train: int
    test: int
    """Numbers of samples."""
    classes: list[str]
    known: str | None
    """The part from which a conditional run was trained to complete."""
    checkpoint: str
    """Of the loaded model."""


class PlaneMap(BaseModel):
    """Test codes over the prior in a plane through the codes."""

    origin: list[float]
    axes: list[list[float]]
    """A point (a, b) of the plane is the code origin + a · axes[0] + b · axes[1]."""
    distances: list[float]
    """Of the worst plane: W_2 between codes and prior along either axis."""
    extent: list[float]
    """The window: least a, most a, least b, most b."""
    index: list[int]
    """The test samples."""
    codes: list[list[float]]
    labels: list[int] | None
    density: Samples
    """Of the prior over the window, a grey image."""


class Codes(BaseModel):
    """Codes of samples, a row each."""

    codes: list[list[float]]


class Axes(BaseModel):
    """The codes' principal directions."""

    mean: list[float]
    directions: list[list[float]]
    """Orthonormal."""
    deviations: list[float]
    """Of the codes along them."""


class TestPart(BaseModel):
    """Samples of the test part."""

    index: list[int]
    labels: list[int] | None
    samples: Samples


class Reconstructed(BaseModel):
    """A sample, what becomes of it, and where its code lies."""

    sample: Samples
    reconstruction: Samples
    error: Samples | None
    """Of images, |x - G(z)| averaged over the channels."""
    cost: float
    """Σ (x - G(z))², of clouds Chamfer's distance."""
    code: list[float]
    norm: float
    longer_than: float
    """The share of prior draws with a smaller norm."""
    sparser_than: float
    """The share of prior draws that lie where draws are denser."""
    near: Samples
    """The nearest training samples."""
    near_index: list[int]
    near_distance: list[float]
    """To them, squared."""


class Curve(BaseModel):
    """A term over the steps."""

    name: str
    step: list[int]
    value: list[float | None]


class Figure(BaseModel):
    """A figure of an evaluation, with its floor."""

    name: str
    value: float | None
    deviation: float | None
    floor: float | None


class Progress(BaseModel):
    """A run as its directory is now, while training may go on."""

    step: int
    seconds: float
    newest: str
    """The newest checkpoint."""
    curves: list[Curve]
    """Of each term, at most 500 rows."""
    figures: list[Figure]
    """What `monge evaluate` last wrote."""
    protocol: dict[str, str]
    config: dict
