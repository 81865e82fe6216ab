"""Data: from a name, a path or an array to samples, a held-out part kept apart."""

from monge.data.batches import Batches
from monge.data.kinds import CLOUD, IMAGE, VECTOR, Kind, as_floats
from monge.data.readers import load
from monge.data.source import Source

__all__ = ["CLOUD", "IMAGE", "VECTOR", "Batches", "Kind", "Source", "as_floats", "load"]
