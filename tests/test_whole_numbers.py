"""Integers and booleans of every width are numbers wherever a matrix or a sample is meant."""

import numpy as np
import pytest
import torch

from monge import kernels, transport
from monge.divergences import EnergyDistance

RING = np.roll(np.eye(6, dtype=int), 1, 0) | np.roll(np.eye(6, dtype=int), -1, 0)
STAR = np.zeros((6, 6), dtype=int)
STAR[0, 1:] = STAR[1:, 0] = 1
POINTS, OTHERS = RING[:, :3], STAR[:, 1:4]

FUNCTIONS = {
    "solve": lambda c, o: transport.solve(c).value,
    "solve_entropic": lambda c, o: transport.solve_entropic(c, epsilon=0.5).value,
    "solve_partial": lambda c, o: transport.solve_partial(c, mass=0.5).value,
    "solve_entropic_partial": lambda c, o: (
        transport.solve_entropic_partial(c, mass=0.5, epsilon=0.5).value
    ),
    "gromov_wasserstein": lambda c, o: transport.gromov_wasserstein(c, o).value,
    "entropic_gromov_wasserstein": lambda c, o: (
        transport.entropic_gromov_wasserstein(c, o, epsilon=0.5).value
    ),
    "fused_gromov_wasserstein": lambda c, o: transport.fused_gromov_wasserstein(c, c, o).value,
    "entropic_fused_gromov_wasserstein": lambda c, o: (
        transport.entropic_fused_gromov_wasserstein(c, c, o, epsilon=0.5).value
    ),
    "partial_gromov_wasserstein": lambda c, o: (
        transport.partial_gromov_wasserstein(c, o, mass=0.5).value
    ),
    "unbalanced_gromov_wasserstein": lambda c, o: (
        transport.unbalanced_gromov_wasserstein(c, o, epsilon=0.5, reach=1.0).value
    ),
    "shortest_paths": lambda c, o: transport.shortest_paths(c),
    "wasserstein": lambda c, o: transport.wasserstein(c[:, :3], o[:, 1:4]),
    "sinkhorn_divergence": lambda c, o: transport.sinkhorn_divergence(
        c[:, :3], o[:, 1:4], epsilon=0.5
    ),
    "energy": lambda c, o: EnergyDistance()(c[:, :3], o[:, 1:4]),
    "kernel": lambda c, o: kernels.RBF(1.0)(c[:, :3], o[:, 1:4]),
}
DTYPES = [bool, np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_they_are_the_same_numbers_as_float64(function, dtype):
    expected = FUNCTIONS[function](RING.astype(float), STAR.astype(float))
    arrays = RING.astype(dtype), STAR.astype(dtype)
    assert torch.equal(FUNCTIONS[function](*arrays), expected)
    assert torch.equal(FUNCTIONS[function](*map(torch.from_numpy, arrays)), expected)


def test_lists_of_booleans_are_matrices_too():
    for rows in (RING.astype(bool).tolist(), STAR.astype(bool).tolist()):
        assert transport.gromov_wasserstein(rows, rows).value.item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, list])
@pytest.mark.parametrize("name", ["a", "b"])
def test_booleans_are_no_weights(name, kind):
    """They would be a mask, of which it is not clear whether it is meant to be one."""
    mask = kind([True, True, False, True, True, True])
    with pytest.raises(ValueError, match=f"`{name}` must hold weights, got booleans: divide"):
        transport.solve(RING, **{name: mask})
