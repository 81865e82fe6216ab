"""Samples that are moved along the gradient of a divergence: particle flows and drifting."""

from monge.particles.drifting import Drifting, Field, GradientField, LearnedDrifting, MeanShift
from monge.particles.gradient_flow import Trajectory, flow, velocity

__all__ = [
    "Drifting",
    "Field",
    "GradientField",
    "LearnedDrifting",
    "MeanShift",
    "Trajectory",
    "flow",
    "velocity",
]
