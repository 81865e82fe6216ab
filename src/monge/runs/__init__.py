"""Runs: a directory each, with everything that rebuilds them."""

from monge.runs.rebuilt import load
from monge.runs.run import Run

__all__ = ["Run", "load"]
