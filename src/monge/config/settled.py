"""The facts of a run, which follow from its configuration and its data."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from monge._core.fields import LARGEST, at_least, demand, positive
from monge._core.version import __version__
from monge.config.schema import Schema


@dataclass(frozen=True)
class Settled:
    """Facts of a run, which its model is built from besides the configuration."""

    kind: str
    """The kind of data: image, vector, cloud, or `module:name` of a kind of your own."""
    shape: tuple[int, ...]
    """Shape of one sample."""
    samples: int
    """The number of training samples."""
    latent: int
    """Dimension of the codes."""
    weight: float | None = None
    """λ in units of the cost, for recipes with one."""
    spread: float | None = None
    """E‖x - x'‖² of two training samples, a table's in standard units."""
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation of the columns of a table."""
    float64: bool = False
    """Whether a table is in float64, because float32 does not resolve one of its columns."""
    batch: int | None = None
    """Samples a step: those asked for, or all there are where these are fewer; None in older runs,
    which have those asked for."""
    classes: tuple[str, ...] = ()
    """The names of the classes on which a class-conditional model is conditioned."""
    shares: tuple[float, ...] = ()
    """The share of each class in the training part; none of clusters, whose shares the model
    holds."""
    schema: Schema | None = None
    """The columns of a table in a text file; None for other data, and in older runs."""
    device: str | None = None
    """Where the run was last trained: cpu, cuda, cuda:1, … or mps; None in older runs."""
    precision: str | None = None
    """Precision of the networks there: fp32, bf16 or fp16; None in older runs."""
    threads: int | None = None
    """CPU threads there; None in older runs."""
    processor: str | None = None
    """The instruction set of its CPU, by which sums are rounded; None in older runs."""
    torch: str | None = None
    """Version of torch there; None in older runs."""
    fingerprint: str | None = None
    """`monge.data.identity.Identity.fingerprint` of the data; None in older runs."""
    order: str | None = None
    """A digest of the order of the training samples, by which batches are made."""
    changes: tuple[str, ...] = ()
    """Deliberate changes of the data, a line for each resume with `data_changed`."""
    version: str = __version__
    """The version of monge that started the run."""

    def check(self) -> None:
        """A ValueError for facts that no run can have found."""
        shape = self.shape
        demand(len(self.kind) <= 200, "settled.kind", self.kind[:200], "a kind, or module:name")
        sizes = len(shape) > 0 and all(1 <= size <= LARGEST for size in shape)
        demand(sizes, "settled.shape", shape, "sizes of at least 1")
        at_least(self, 1, "samples", "latent", "batch", "threads")
        at_least(self, 0, "spread")
        positive(self, "weight")
        if self.moments is not None:
            lengths = [len(one) for one in self.moments]
            of_columns = lengths == [math.prod(shape)] * 2
            demand(of_columns, "settled.moments", lengths, f"two times {math.prod(shape)} numbers")
            demand(_finite(self.moments[0]), "settled.moments", "NaN or infinity", "finite")
            above = _finite(self.moments[1]) and min(self.moments[1]) > 0
            demand(above, "settled.moments", "a deviation", "positive and finite")
        if self.shares:
            alike = len(self.shares) == len(self.classes)
            demand(alike, "settled.shares", len(self.shares), f"{len(self.classes)} numbers")
            valid = _finite(self.shares) and min(self.shares) >= 0 and sum(self.shares) > 0
            demand(valid, "settled.shares", self.shares[:10], "shares of at least 0")
        if self.schema is not None:
            width = self.schema.width
            demand(shape == (width,), "settled.schema", f"{width} elements", f"of shape {shape}")
            self.schema.check()
        device = self.device is None or re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", self.device)
        demand(bool(device), "settled.device", self.device, "cpu, cuda, cuda:1, … or mps")


def _finite(numbers: Iterable[float]) -> bool:
    return all(map(math.isfinite, numbers))
