"""Optimal transport on finite samples, as pure functions of tensors.

Functions return distances W_p, with the root, unless their name or docstring says otherwise.
The cost is d(x, y)^p with d Euclidean, without a factor 1/p.
"""

from monge.transport.line import quantile_map, wasserstein_1d
from monge.transport.sliced import sliced_wasserstein, uniform_directions

__all__ = ["quantile_map", "sliced_wasserstein", "uniform_directions", "wasserstein_1d"]
