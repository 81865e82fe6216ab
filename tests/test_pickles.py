"""What solvers return and what is fitted survives `pickle` and `copy.deepcopy` as it is."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch

from monge import transport
from monge.priors import Gaussian

RANDOM = np.random.default_rng(0)
X, Y = torch.from_numpy(RANDOM.normal(size=(8, 3))), torch.from_numpy(RANDOM.normal(size=(6, 3)))
COST, CX, CY = (torch.cdist(*pair) for pair in ((X, Y), (X, X), (Y, Y)))

SOLVED = {
    "exact": lambda: transport.solve(COST),
    "batch": lambda: transport.solve(torch.stack([COST, COST + 1])),
    "entropic": lambda: transport.sinkhorn(X, Y, epsilon=1.0),
    "half precision": lambda: transport.sinkhorn(X.half(), Y.half(), epsilon=1.0),
    "with a graph": lambda: transport.sinkhorn(X.clone().requires_grad_(), Y, epsilon=1.0),
    "unbalanced": lambda: transport.sinkhorn(X, Y, epsilon=1.0, reach=1.0),
    "multiscale": lambda: transport.multiscale_sinkhorn(X, Y, epsilon=1.0),
    "partial": lambda: transport.solve_partial(COST, mass=0.5),
    "gromov": lambda: transport.gromov_wasserstein(CX, CY),
    "unbalanced gromov": lambda: transport.unbalanced_gromov_wasserstein(
        CX, CY, epsilon=1.0, reach=1.0
    ),
    "low rank": lambda: transport.low_rank_sinkhorn(X, Y, rank=2),
    "semidiscrete": lambda: transport.solve_semidiscrete(Gaussian(3).sample, Y),
    "barycenter": lambda: transport.free_support_barycenter([X, Y], start=X),
}


@pytest.mark.parametrize("name", SOLVED)
@pytest.mark.parametrize(
    "again", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy, copy.copy]
)
def test_accounts_of_solvers_are_the_same_again(name, again):
    solved = SOLVED[name]()
    if name == "with a graph" and again is copy.deepcopy:
        pytest.skip("torch copies no tensor of a graph")
    found = again(solved)
    assert repr(found) == repr(solved)
    names = [*(field.name for field in dataclasses.fields(solved)), "plan"]
    tensors = {
        key: value
        for key in names
        if isinstance(value := getattr(solved, key, None), torch.Tensor)
    }
    assert tensors
    for key, value in tensors.items():
        assert torch.equal(getattr(found, key), value), key
