"""Runs: a directory each, with everything that rebuilds them."""

from monge.runs.run import Run, load

__all__ = ["Run", "load"]
