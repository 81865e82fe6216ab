"""Transport maps with the interface of scikit-learn: fitted to two samples, applied to new points.

`fit(X, Y)` finds a map T that moves the distribution of X onto that of Y, `transform` applies T,
`inverse_transform` goes back, and `score` says how much of the distance T removes. Arrays give
arrays and tensors give tensors, through which gradients pass to the points that are moved.
"""

from monge.maps.colours import transfer_colours
from monge.maps.entropic_map import EntropicMap
from monge.maps.estimator import TransportMap
from monge.maps.exact_map import ExactMap
from monge.maps.linear_map import LinearMap
from monge.maps.sliced_map import SlicedMap

__all__ = [
    "EntropicMap",
    "ExactMap",
    "LinearMap",
    "SlicedMap",
    "TransportMap",
    "transfer_colours",
]
