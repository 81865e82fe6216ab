"""Variational inference, and the game of generative adversarial networks at its optimum.

KL(q ‖ p) and KL(p ‖ q) ask for different things. The first lets q ignore what p has and forbids
what p lacks: variances come out too small, one mode of several is kept (*variational Bayes*).
The second forbids q to miss any of p: moments are kept, gaps between modes are covered
(*expectation propagation*).
"""

from monge.inference.factorised import coordinate_updates, mean_field, moment_matched
from monge.inference.game import game_value, optimal_discriminator
from monge.inference.mixture import fit_gaussian
from monge.inference.propagation import ProbitEP, Propagated, clutter_ep
from monge.inference.regression import VariationalLinearRegression

__all__ = [
    "ProbitEP",
    "Propagated",
    "VariationalLinearRegression",
    "clutter_ep",
    "coordinate_updates",
    "fit_gaussian",
    "game_value",
    "mean_field",
    "moment_matched",
    "optimal_discriminator",
]
