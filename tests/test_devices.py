"""The same value and gradient on every device: `pytest -m gpu` runs these where there is a GPU."""

import pytest
import torch
from zoo import DIVERGENCES, pair

from monge import transport

DISTANCES = {
    "wasserstein": lambda x, y: transport.wasserstein(x, y, p=1),
    "sliced": lambda x, y: transport.sliced_wasserstein(x, y, directions=_directions(x)),
    "sinkhorn": lambda x, y: transport.sinkhorn_divergence(x, y, epsilon=0.3, tolerance=1e-10),
    "line": lambda x, y: transport.wasserstein_1d(x.T, y.T).sum(),
    "gaussian": lambda x, y: transport.gaussian_wasserstein(
        x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T)
    ),
}


def _directions(x):
    theta = torch.randn(20, x.shape[1], generator=torch.Generator().manual_seed(0)).double()
    return torch.nn.functional.normalize(theta, dim=1).to(x)


def compared(function, device):
    x, y = pair(9, 9)
    values = []
    for place in ("cpu", device):
        u = x.to(place).detach().requires_grad_()
        torch.manual_seed(0)
        value = function(u, y.to(place))
        (gradient,) = torch.autograd.grad(value, u)
        values.append((value.detach().cpu(), gradient.cpu()))
    (value, gradient), (other, its_gradient) = values
    torch.testing.assert_close(other, value, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(its_gradient, gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_is_the_same_on_every_device(name, device):
    compared(DISTANCES[name], device)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_is_the_same_on_every_device(name, device):
    torch.manual_seed(0)
    divergence = DIVERGENCES[name].make().double()

    def value(x, y):
        return divergence.to(x.device)(x, y)

    compared(value, device)
