"""Samples that are moved along the gradient of a divergence: particle flows and drifting."""

from monge.particles.drifting import Drifting, Field, GradientField, MeanShift
from monge.particles.gradient_flow import Trajectory, flow, velocity

__all__ = [
    "Drifting",
    "Field",
    "GradientField",
    "MeanShift",
    "Trajectory",
    "flow",
    "velocity",
]
