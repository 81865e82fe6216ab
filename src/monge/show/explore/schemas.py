"""What goes over the wire, typed: requests, replies and errors of the explorer's API."""

import base64
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from monge._core.names import SamplerName
from monge.data import Kind

# strict: true and "5" are no numbers
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e6, le=1e6)]
Code = Annotated[list[Finite], Field(min_length=1, max_length=4096)]
Base64 = Annotated[str, Field(max_length=2**21)]
View = Literal["image", "cloud", "vector"]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Temperature = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0.05, le=4)]
Guidance = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=20)]
Count = Annotated[int, Field(strict=True, ge=1, le=100)]
Label = Annotated[int, Field(strict=True, ge=0, le=2**31)]


class Request(BaseModel):
    """The body of a request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """Why a request was refused."""

    error: str
    """A short name: bad_argument, not_found, too_large, …"""
    message: str


class Samples(BaseModel):
    """Samples of a run."""

    kind: View
    """How the page draws them."""
    shape: list[int]
    """(n, c, h, w), (n, N, 3) or (n, d)."""
    data: str
    """base64 of the values in this order: bytes from 0 to 255 for images, little-endian float32
    for clouds and vectors."""
    labels: list[int] | None = None
    """The classes of draws of a class-conditional run."""

    @classmethod
    def of(cls, x: Tensor, kind: Kind) -> "Samples":
        r"""Samples x (n, \*) of a kind of data; images are uint8 or in [0, 1]."""
        data = base64.b64encode(kind.pack(x)).decode()
        return cls.model_validate({"kind": kind.view, "shape": [*x.shape], "data": data})


def read_values(data: str, kind: Kind, shape: tuple[int, ...], name: str) -> Tensor:
    r"""One sample (1, \*) from what `Samples` would hold of it.

    Raises:
        ValueError: for text that is not base64, or values of another length, or not finite.
    """
    try:
        content = base64.b64decode(data, validate=True)
    except ValueError:
        raise ValueError(f"`{name}` is not base64") from None
    return kind.unpack(content, shape, name)


class Pick(Request):
    """A sample: one of the test part, or one that the page sends."""

    index: Annotated[int, Field(strict=True, ge=0)] | None = None
    """The number of a test sample."""
    data: Base64 | None = None
    """The values of another sample, as in `Samples`."""
    label: Label | None = None
    """Its class, for a class-conditional run; by default that of the test sample."""


class DecodeRequest(Request):
    """Codes to decode."""

    codes: Annotated[list[Code], Field(min_length=1, max_length=100)]
    given: Pick | None = None
    """What a conditional model completes; the first test sample by default."""
    label: Label | None = None
    """The class to decode to, for a class-conditional run; the first by default."""


class EncodeRequest(Request):
    """A sample to encode."""

    sample: Pick


class DrawRequest(Request):
    """Samples to draw."""

    count: Count = 64
    seed: Seed = 0
    sampler: SamplerName = "prior"
    temperature: Temperature = 1.0
    """What the deviations of the draws are multiplied by."""
    guidance: Guidance | None = None
    """How far a class-conditional flow follows the class; by default that of the run."""
    label: Label | None = None
    """The class to draw from, for a class-conditional run; by default classes are drawn in the
    proportions of the training part."""


class InterpolateRequest(Request):
    """Two samples to go between."""

    a: Pick
    b: Pick
    frames: Annotated[int, Field(strict=True, ge=2, le=60)] = 24
    path: Literal["linear", "spherical"] = "linear"


class CompleteRequest(Request):
    """A sample to complete."""

    sample: Pick
    known: Base64 | None = None
    """base64 of h · w bytes, 1 where the image is known and 0 elsewhere; by default the part that
    the run was trained with."""
    count: Annotated[int, Field(strict=True, ge=1, le=24)] = 6
    seed: Seed = 0


class RunInfo(BaseModel):
    """A run and the views that it has."""

    id: str
    name: str
    recipe: str
    line: str
    """The recipe in one line."""
    kind: View
    """How the page draws its samples."""
    shape: list[int]
    latent: int | None
    """The dimension of the codes; None for a model without codes."""
    prior: str | None
    views: list[str]
    data: str
    train: int
    test: int
    """How many training and test samples there are."""
    classes: list[str]
    conditional: bool
    """Whether the run is class-conditional."""
    guidance: float | None
    """The guidance of a class-conditional flow; None for any other model."""
    known: str | None
    """The part from which a conditional run was trained to complete."""
    checkpoint: str
    """The checkpoint that is loaded."""


class PlaneMap(BaseModel):
    """Test codes over the prior in a plane through the codes."""

    origin: list[float]
    axes: list[list[float]]
    """A point (a, b) of the plane is the code origin + a · axes[0] + b · axes[1]."""
    distances: list[float]
    """W_2 between codes and prior along each axis, of the plane in which they differ most."""
    extent: list[float]
    """The window: least a, most a, least b, most b."""
    index: list[int]
    """The test samples."""
    codes: list[list[float]]
    labels: list[int] | None
    density: Samples
    """The density of the prior over the window, a grey image."""


class Codes(BaseModel):
    """Codes of samples, a row each."""

    codes: list[list[float]]


class Axes(BaseModel):
    """The codes' principal directions."""

    mean: list[float]
    directions: list[list[float]]
    """Orthonormal."""
    deviations: list[float]
    """The standard deviations of the codes along them."""


class TestPart(BaseModel):
    """Samples of the test part."""

    index: list[int]
    labels: list[int] | None
    samples: Samples


class Reconstructed(BaseModel):
    """A sample, its reconstruction, and where its code lies."""

    sample: Samples
    reconstruction: Samples
    error: Samples | None
    """|x - G(z)| of an image averaged over the channels."""
    cost: float
    """Σ (x - G(z))²; the Chamfer distance for clouds."""
    code: list[float]
    norm: float
    longer_than: float | None
    """The share of prior draws with a smaller norm; None without a prior."""
    sparser_than: float | None
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


class FigureReply(BaseModel):
    """A figure of an evaluation, with its noise floor."""

    name: str
    value: float | None
    deviation: float | None
    floor: float | None


class ProgressReply(BaseModel):
    """A run as its directory is now, while training may go on."""

    step: int
    seconds: float
    newest: str
    """The newest checkpoint."""
    curves: list[Curve]
    """A curve for each term, of at most 500 rows."""
    figures: list[FigureReply]
    """What `monge evaluate` last wrote."""
    protocol: dict[str, str]
    config: dict
