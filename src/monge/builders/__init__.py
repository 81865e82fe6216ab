"""Builders: from the row of a recipe and the facts of a run to a model."""

from monge.builders.parts import Parts, build
from monge.builders.settle import settle, settled

__all__ = ["Parts", "build", "settle", "settled"]
