"""Optimal transport on finite samples, as pure functions of tensors.

Functions return distances W_p, with the root, unless their name or docstring says otherwise.
The cost is d(x, y)^p with d Euclidean, without a factor 1/p; ε is in units of that cost.
"""

from monge.transport.barycenters import (
    Barycenter,
    barycenter_1d,
    free_support_barycenter,
    sinkhorn_barycenter,
    sliced_barycenter,
)
from monge.transport.circle import wasserstein_circle
from monge.transport.conditional_couplings import PerLabel, SemidiscretePerLabel
from monge.transport.conversions import from_geomloss, from_pot, to_pot
from monge.transport.couplings import (
    Coupling,
    Exact,
    Independent,
    Semidiscrete,
    Sinkhorn,
)
from monge.transport.directions import (
    orthogonal_directions,
    sobol_directions,
    uniform_directions,
)
from monge.transport.discrete import jensen_shannon, kullback_leibler, total_variation
from monge.transport.entropic import sinkhorn, sinkhorn_divergence, solve_entropic
from monge.transport.entropic_partial import solve_entropic_partial
from monge.transport.exact import kantorovich_potential, monge_map, solve, wasserstein
from monge.transport.fused_gromov import (
    entropic_fused_gromov_wasserstein,
    fused_gromov_wasserstein,
)
from monge.transport.gaussian import gaussian_kl, gaussian_map, gaussian_wasserstein
from monge.transport.gaussian_barycenters import (
    GaussianComponents,
    gaussian_barycenter,
    gaussian_mixture_barycenter,
)
from monge.transport.geometry import (
    great_circles,
    hyperbolic_distances,
    spherical_distances,
    spherical_sliced_wasserstein,
)
from monge.transport.graphs import shortest_paths
from monge.transport.gromov import entropic_gromov_wasserstein, gromov_wasserstein
from monge.transport.histogram_barycenters import (
    HistogramBarycenter,
    grid_barycenter,
    histogram_barycenter,
)
from monge.transport.line import quantile_map, wasserstein_1d
from monge.transport.low_rank import LowRankPlan, low_rank_sinkhorn
from monge.transport.low_rank_gromov import low_rank_gromov_wasserstein
from monge.transport.max_sliced import (
    max_generalized_sliced_wasserstein,
    max_sliced_wasserstein,
)
from monge.transport.multiscale import multiscale_sinkhorn, multiscale_sinkhorn_divergence
from monge.transport.partial import partial_wasserstein, solve_partial
from monge.transport.partial_gromov import partial_gromov_wasserstein
from monge.transport.penalties import KL, TV
from monge.transport.plan import Plan
from monge.transport.potentials import Anderson, Randkhorn
from monge.transport.semidiscrete import SemidiscretePlan, solve_semidiscrete
from monge.transport.sliced import (
    generalized_sliced_wasserstein,
    sliced_wasserstein,
    sliced_wasserstein_estimate,
)
from monge.transport.sliced_gromov import sliced_gromov_wasserstein
from monge.transport.slicers import (
    Circular,
    Geodesic,
    Horospherical,
    Linear,
    Neural,
    Polynomial,
    Slicer,
)
from monge.transport.unbalanced_gromov import unbalanced_gromov_wasserstein

__all__ = [
    "KL",
    "TV",
    "Anderson",
    "Barycenter",
    "Circular",
    "Coupling",
    "Exact",
    "GaussianComponents",
    "Geodesic",
    "HistogramBarycenter",
    "Horospherical",
    "Independent",
    "Linear",
    "LowRankPlan",
    "Neural",
    "PerLabel",
    "Plan",
    "Polynomial",
    "Randkhorn",
    "Semidiscrete",
    "SemidiscretePerLabel",
    "SemidiscretePlan",
    "Sinkhorn",
    "Slicer",
    "barycenter_1d",
    "entropic_fused_gromov_wasserstein",
    "entropic_gromov_wasserstein",
    "free_support_barycenter",
    "from_geomloss",
    "from_pot",
    "fused_gromov_wasserstein",
    "gaussian_barycenter",
    "gaussian_kl",
    "gaussian_map",
    "gaussian_mixture_barycenter",
    "gaussian_wasserstein",
    "generalized_sliced_wasserstein",
    "great_circles",
    "grid_barycenter",
    "gromov_wasserstein",
    "histogram_barycenter",
    "hyperbolic_distances",
    "jensen_shannon",
    "kantorovich_potential",
    "kullback_leibler",
    "low_rank_gromov_wasserstein",
    "low_rank_sinkhorn",
    "max_generalized_sliced_wasserstein",
    "max_sliced_wasserstein",
    "monge_map",
    "multiscale_sinkhorn",
    "multiscale_sinkhorn_divergence",
    "orthogonal_directions",
    "partial_gromov_wasserstein",
    "partial_wasserstein",
    "quantile_map",
    "shortest_paths",
    "sinkhorn",
    "sinkhorn_barycenter",
    "sinkhorn_divergence",
    "sliced_barycenter",
    "sliced_gromov_wasserstein",
    "sliced_wasserstein",
    "sliced_wasserstein_estimate",
    "sobol_directions",
    "solve",
    "solve_entropic",
    "solve_entropic_partial",
    "solve_partial",
    "solve_semidiscrete",
    "spherical_distances",
    "spherical_sliced_wasserstein",
    "to_pot",
    "total_variation",
    "unbalanced_gromov_wasserstein",
    "uniform_directions",
    "wasserstein",
    "wasserstein_1d",
    "wasserstein_circle",
]
