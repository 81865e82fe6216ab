"""Data: from a name, a path or an array to samples, a held-out part kept apart."""

from monge.data.batches import Batches
from monge.data.readers import load
from monge.data.source import Source, as_floats

__all__ = ["Batches", "Source", "as_floats", "load"]
