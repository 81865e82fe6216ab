"""Measures of a model: of its samples, its reconstructions, its completions and its codes."""

from monge.costs import chamfer, earth_mover
from monge.evaluation.completion import agreement, best_of, diversity, energy_score
from monge.evaluation.fidelity import (
    memorisation,
    nearest_neighbour_test,
    precision_recall_density_coverage,
)
from monge.evaluation.figures import evaluate, evaluate_samplers
from monge.evaluation.frechet import (
    Moments,
    frechet_distance,
    frechet_extrapolated,
    frechet_of_moments,
    kernel_distance,
)
from monge.evaluation.inception import inception_network
from monge.evaluation.pyramid import laplacian_pyramid, pyramid_distances, pyramid_patches
from monge.evaluation.sets import (
    SetScores,
    occupancy_divergence,
    pairwise_chamfer,
    pairwise_earth_mover,
    set_scores,
)
from monge.evaluation.sharpness import sharpness
from monge.evaluation.summary import summary
from monge.evaluation.two_sample import network_test

__all__ = [
    "Moments",
    "SetScores",
    "agreement",
    "best_of",
    "chamfer",
    "diversity",
    "earth_mover",
    "energy_score",
    "evaluate",
    "evaluate_samplers",
    "frechet_distance",
    "frechet_extrapolated",
    "frechet_of_moments",
    "inception_network",
    "kernel_distance",
    "laplacian_pyramid",
    "memorisation",
    "nearest_neighbour_test",
    "network_test",
    "occupancy_divergence",
    "pairwise_chamfer",
    "pairwise_earth_mover",
    "precision_recall_density_coverage",
    "pyramid_distances",
    "pyramid_patches",
    "set_scores",
    "sharpness",
    "summary",
]
