"""Measures of what a model makes."""

from monge.evaluation.frechet import (
    Moments,
    frechet_distance,
    frechet_extrapolated,
    frechet_of_moments,
    kernel_distance,
)
from monge.evaluation.neighbours import (
    memorisation,
    nearest_neighbour_test,
    precision_recall_density_coverage,
)
from monge.evaluation.sharpness import sharpness

__all__ = [
    "Moments",
    "frechet_distance",
    "frechet_extrapolated",
    "frechet_of_moments",
    "kernel_distance",
    "memorisation",
    "nearest_neighbour_test",
    "precision_recall_density_coverage",
    "sharpness",
]
