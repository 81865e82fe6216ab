r"""The entropic map, which is smooth and defined everywhere.

With the dual potentials (f, g) of the entropic plan between two samples,

    T(x) = Σ_j w_j(x) y_j,   w(x) = softmax_j (log b_j + (g_j - ‖x - y_j‖²)/ε),

which at a point of the fit is the barycentric projection of the plan. The map back is the same
with f, x_i and a_i. Each sample is taken about its median: a shift changes no plan, but a far one
would hide the cost beneath its own rounding.

Source: Pooladian, Niles-Weed, "Entropic estimation of optimal transport maps", 2021.
"""

from typing import Any, Self

from torch import Tensor

from monge._core.checks import nonnegative, positive
from monge.maps.class_penalty import Classes, classes_of, solve_classes
from monge.maps.estimator import TransportMap, refuse_near
from monge.transport.entropic import sinkhorn
from monge.transport.ground import log_weights
from monge.transport.neighbours import nearest
from monge.transport.projections import soft_images

EPSILON = 0.05
"""ε by default, in units of the mean cost between the samples about their means."""
CLASS_PENALTY = 0.1
"""η by default, in the same unit."""


class EntropicMap(TransportMap):
    """The map of the entropic plan for the cost ‖x - y‖².

    It is smooth, defined everywhere and differentiable; its values are means of points of Y. A
    small ε follows the optimal map closely and its samples as well, a large one sends all points
    towards the mean of Y: choose it by `score` on held-out samples. With labels the plan is
    class-regularised, and a new point is taken for one of the class of its nearest neighbour in
    the fit.

    A transform computes the distances to all points of the fit, block by block.

    Args:
        epsilon: regularisation, in units of the cost; by default 5 % of the mean cost between the
            samples when their means are moved onto each other.
        class_penalty: η, in units of the cost, which keeps the classes of labels apart; by
            default 10 % of that mean.
        tolerance: on the marginal error of the plan, in L1.

    Attributes:
        epsilon_: the ε used.
        points_: the points (n, d) and (m, d) of both samples that have weight.
        potentials_: (f, g), (n,) and (m,).
        marginal_error_: that of the plan.
        classes_: of a fit with labels, the class numbers of both samples.
        penalty_: of a fit with labels, what each class (k, m) is charged at each point of Y.

    Example:
        >>> mapped = EntropicMap(epsilon=0.1).fit(X, Y).transform(X_new)
        >>> adapted = EntropicMap().fit(X, Y, labels=labels).transform(X)
    """

    epsilon_: float
    points_: tuple[Tensor, Tensor]
    potentials_: tuple[Tensor, Tensor]
    marginal_error_: float
    classes_: Classes | None
    penalty_: Tensor | None

    def __init__(
        self,
        epsilon: float | None = None,
        class_penalty: float | None = None,
        tolerance: float = 1e-4,
    ):
        self.epsilon = epsilon
        self.class_penalty = class_penalty
        self.tolerance = tolerance

    def fit(
        self,
        X: Any,
        Y: Any,
        *,
        a: Any = None,
        b: Any = None,
        labels: Any = None,
        target_labels: Any = None,
    ) -> Self:
        """Solves the entropic transport problem between two samples.

        Args:
            X: points (n, d).
            Y: points (m, d).
            a: weights (n,), at least 0 with sum 1; uniform by default.
            b: weights (m,).
            labels: classes (n,) of X, numbers or texts: each point of Y then takes its mass from
                few classes, best from one (Courty et al. 2017).
            target_labels: classes (m,) of Y, as far as they are known: a label that X does not
                have, such as -1, stands for an unknown class. A point of known class hardly takes
                mass from other classes.

        Raises:
            ValueError: for samples of unlike columns, NaN or infinity, invalid weights, labels or
                settings.
        """
        samples = self._samples(X, Y, a, b)
        x, y, a, b, _, _ = samples
        self.points_, self._centres = (x, y), (x.median(0).values, y.median(0).values)
        x, y = x - self._centres[0], y - self._centres[1]
        samples = samples._replace(x=x, y=y)
        mean = _mean_cost(x, y, a, b)
        # where all points coincide every ε gives the same map
        epsilon = (EPSILON * mean or 1.0) if self.epsilon is None else self.epsilon
        self.epsilon_ = positive("epsilon", epsilon)
        self.classes_, self.penalty_ = None, None
        if labels is None:
            if target_labels is not None:
                raise ValueError("`target_labels` needs `labels`: give those of `X` as well")
            plan = sinkhorn(x, y, a, b, epsilon=self.epsilon_, tolerance=self.tolerance)
        else:
            self.classes_ = classes_of(labels, target_labels, samples)
            eta = CLASS_PENALTY * mean if self.class_penalty is None else self.class_penalty
            eta = nonnegative("class_penalty", eta)
            plan = solve_classes(samples, self.classes_, self.epsilon_, eta, self.tolerance)
            self.penalty_ = plan.penalty
        f, g = plan.potentials
        self._centred_potentials = f, g
        shift = self._centres[0] - self._centres[1]
        half = shift.square().sum() / 2
        self.potentials_ = f + 2 * x @ shift + half, g - 2 * y @ shift + half
        self._weights = a, b
        self.marginal_error_ = plan.marginal_error
        return self

    def _forth(self, x: Tensor) -> Tensor:
        (source, target), (_, g), (_, b) = self.points_, self._centred_potentials, self._weights
        start, end = self._centres
        heights = g + self.epsilon_ * log_weights(b)
        if self.penalty_ is None or self.classes_ is None:
            moved = soft_images(x - start, target - end, lambda rows: heights, self.epsilon_)
            return moved + end
        _, index = nearest(x, source)
        penalty, of = self.penalty_, self.classes_.of_source[index[:, 0]]
        return end + soft_images(
            x - start, target - end, lambda rows: heights - penalty[of[rows]], self.epsilon_
        )

    def _back(self, y: Tensor) -> Tensor:
        (source, target), (f, _), (a, _) = self.points_, self._centred_potentials, self._weights
        start, end = self._centres
        heights = f + self.epsilon_ * log_weights(a)
        if self.penalty_ is None or self.classes_ is None:
            moved = soft_images(y - end, source - start, lambda rows: heights, self.epsilon_)
            return moved + start
        _, index = nearest(y, target)
        penalty, of = self.penalty_[:, index[:, 0]].T, self.classes_.of_source
        return start + soft_images(
            y - end, source - start, lambda rows: heights - penalty[rows][:, of], self.epsilon_
        )


def _mean_cost(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> float:
    """Σ_ij a_i b_j ‖x_i - y_j‖² of samples about their means: a shift changes no plan."""
    mean = float(a @ (x - a @ x).square().sum(1) + b @ (y - b @ y).square().sum(1))
    refuse_near(mean, x, y)
    return mean
