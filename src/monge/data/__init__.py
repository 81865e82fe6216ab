"""Data: from a name, a path or an array to samples, a held-out part kept apart."""

from monge.data.batches import Batches
from monge.data.kind import Kind
from monge.data.kinds import CLOUD, IMAGE, VECTOR
from monge.data.readers import given, load
from monge.data.source import Data, Source
from monge.labels import as_floats

__all__ = [
    "CLOUD",
    "IMAGE",
    "VECTOR",
    "Batches",
    "Data",
    "Kind",
    "Source",
    "as_floats",
    "given",
    "load",
]
