"""What all transport maps share: two samples go in, points of the same columns are moved.

A map has the interface of a scikit-learn transformer, with the second sample in the place of the
target. Arrays and data frames pass through scikit-learn's own validation. Tensors stay tensors, on
their device, with gradients. Everything is computed in float64; points come back in the floating
dtype that they had.
"""

import abc
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from monge._core.checks import distribution_weights, finite
from monge._core.errors import NotFinite
from monge._core.frames import columns, refuse_lossy, refuse_reordered
from monge._core.promotion import as_tensor, as_weights
from monge.transport.directions import orthogonal_directions
from monge.transport.sliced import sliced_wasserstein

DTYPES: Any = [np.float64, np.float32, np.float16]
"""Arrays of other numbers become the first."""
SCORE_DIRECTIONS = 256


class WeightedSamples(NamedTuple):
    """Points x (n, d) and y (m, d) with positive weights a (n,) and b (m,), all float64."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    of_x: Tensor
    """Which points of the first sample have weight."""
    of_y: Tensor


class TransportMap(OneToOneFeatureMixin, TransformerMixin, BaseEstimator, abc.ABC):
    """A map T that moves the distribution of one sample onto that of another."""

    _fit_columns: list[Any]
    """The names of the columns of a data frame X of the fit, of any type."""

    @abc.abstractmethod
    def fit(self, X: Any, Y: Any, *, a: Any = None, b: Any = None) -> Self:
        """Finds the map from X (n, d) with weights a to Y (m, d) with weights b."""

    @abc.abstractmethod
    def _forth(self, x: Tensor) -> Tensor:
        """T at points x (k, d), float64."""

    @abc.abstractmethod
    def _back(self, y: Tensor) -> Tensor:
        """The inverse of T at points y (k, d), float64."""

    def transform(self, X: Any) -> Any:
        """Moves points.

        Args:
            X: points (k, d), those of the fit or new ones.

        Returns:
            T(X), (k, d): a tensor for a tensor, otherwise an array. It is differentiable in a
            tensor.
        """
        return self._moved("X", X, self._forth)

    def inverse_transform(self, Y: Any) -> Any:
        """Moves points back.

        Args:
            Y: points (k, d) of the target.

        Returns:
            The points (k, d) that T moves there, as nearly as the map has an inverse.
        """
        return self._moved("Y", Y, self._back)

    def score(self, X: Any, Y: Any) -> float:
        """The share of the squared sliced distance between two samples that the map removes,

            1 - SW_2²(T(X), Y) / SW_2²(X, Y),

        on 256 fixed directions: 1 for a perfect map, 0 for one that leaves points where they are.
        Two finite samples of one distribution are some distance apart, so held-out samples score
        below 1.

        Args:
            X: points (n, d).
            Y: points (m, d).
        """
        check_is_fitted(self)
        with torch.no_grad():
            x, y = self._points("X", X).double(), self._points("Y", Y).double()
            directions = orthogonal_directions(
                SCORE_DIRECTIONS, x.shape[1], generator=torch.Generator().manual_seed(0)
            ).to(x)
            before, after = (
                float(sliced_wasserstein(z, y, directions=directions)) ** 2
                for z in (x, self._forth(x))
            )
        if before == 0:
            return 1.0 if after == 0 else 0.0
        return 1 - after / before

    def _samples(self, X: Any, Y: Any, a: Any, b: Any) -> WeightedSamples:
        """Both samples with their weights, without the points of weight 0."""
        if Y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: give "
                "the sample that `X` is moved onto as `Y`"
            )
        x = self._points("X", X, reset=True).detach().double()
        refuse_reordered(self._fit_columns, Y, "Y")
        y = _floats("Y", Y, None).detach().double()
        if y.shape[1] != x.shape[1] or y.device != x.device:
            raise ValueError(
                "`X` and `Y` must have the same columns, on one device, got "
                f"{tuple(x.shape)} on {x.device} and {tuple(y.shape)} on {y.device}"
            )
        _refuse_far(x, y)
        a, b = (
            distribution_weights(name, w if w is None else as_weights(name, w).to(z), z, len(z))
            for name, w, z in (("a", a, x), ("b", b, y))
        )
        of_x, of_y = a.detach() > 0, b.detach() > 0
        return WeightedSamples(x[of_x], y[of_y], a.detach()[of_x], b.detach()[of_y], of_x, of_y)

    def _points(self, name: str, X: Any, reset: bool = False) -> Tensor:
        """Points (k, d) as a tensor with as many columns as those of the fit."""
        if reset:
            self._fit_columns = columns(X)
        refuse_reordered(self._fit_columns, X, name)
        if not isinstance(X, Tensor):
            if name == "X":
                refuse_lossy(name, X)
                X = validate_data(self, X, reset=reset, dtype=DTYPES)
                return _as_tensor(X)
            return self._of_columns(name, _floats(name, X, self))
        x = _floats(name, X, None)
        if reset:
            self.n_features_in_ = x.shape[1]
            vars(self).pop("feature_names_in_", None)  # of an earlier fit to a data frame
        return self._of_columns(name, x)

    def _of_columns(self, name: str, x: Tensor) -> Tensor:
        if x.shape[1] != self.n_features_in_:
            raise ValueError(
                f"`{name}` has {x.shape[1]} features, but {type(self).__name__} was fitted to "
                f"{self.n_features_in_}"
            )
        return x

    def _moved(self, name: str, X: Any, move: Callable[[Tensor], Tensor]) -> Any:
        check_is_fitted(self)
        x = self._points(name, X)
        moved = move(x.double())
        images = moved.to(x.dtype)
        if not torch.isfinite(images.detach()).all():
            raise NotFinite(
                f"`{name}` has images of up to {float(moved.detach().abs().amax()):.3g}, beyond "
                f"{x.dtype}: rescale both samples or use a wider dtype"
            )
        return images if isinstance(X, Tensor) else images.numpy(force=True)

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.two_d_labels = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _refuse_far(x: Tensor, y: Tensor) -> None:
    """Refuses samples whose squared distances, by which every map is found, are infinite."""
    both = torch.cat([x, y])
    extent = both.amax(0) - both.amin(0)
    if not math.isfinite(4 * float(extent.square().sum())):
        raise ValueError("`X` and `Y` have squared distances beyond float64: rescale them")


def refuse_near(total: float, x: Tensor, y: Tensor) -> None:
    """Refuses samples whose squared differences, of the sum `total`, vanish in float64."""
    info = torch.finfo(torch.float64)
    if total < info.tiny / info.eps and bool((x != x[0]).any() or (y != y[0]).any()):
        raise ValueError("`X` and `Y` have squared distances below float64: rescale them")


def _floats(name: str, X: Any, estimator: Any) -> Tensor:
    """A matrix of finite floating point numbers with at least one row and column."""
    if not isinstance(X, Tensor):
        refuse_lossy(name, X)
        return _as_tensor(check_array(X, dtype=DTYPES, input_name=name, estimator=estimator))
    x = as_tensor(name, X)
    if x.ndim != 2 or x.numel() == 0:
        raise ValueError(f"`{name}` must have shape (n, d), got {tuple(x.shape)}")
    return finite(name, x)


def _as_tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, order="C"))
