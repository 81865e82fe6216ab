"""Measures of what a model makes."""

from monge.evaluation.sharpness import sharpness

__all__ = ["sharpness"]
