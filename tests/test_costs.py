"""Costs sum over a sample's elements and give one value a sample."""

import math

import pytest
import torch
from torch.distributions import Normal

from monge.costs import L1, L2, Bernoulli, GaussianLikelihood, Scaled, SquaredL2

X = torch.rand(4, 1, 3, 3, dtype=torch.float64)
Y = torch.rand(4, 1, 3, 3, dtype=torch.float64)


def by_hand(f):
    return torch.tensor(
        [sum(f(a, b) for a, b in zip(x, y)) for x, y in zip(X.flatten(1), Y.flatten(1))]
    )


COSTS = {
    "squared": (SquaredL2(), by_hand(lambda a, b: (a - b) ** 2)),
    "scaled": (SquaredL2(0.05), by_hand(lambda a, b: 0.05 * (a - b) ** 2)),
    "l1": (L1(), by_hand(lambda a, b: abs(a - b))),
    "l2": (L2(), by_hand(lambda a, b: (a - b) ** 2).sqrt()),
    "bernoulli": (
        Bernoulli(),
        by_hand(lambda a, b: -(a * math.log(b) + (1 - a) * math.log(1 - b))),
    ),
    "gaussian": (GaussianLikelihood(0.4), by_hand(lambda a, b: -Normal(b, 0.4).log_prob(a))),
    "columns": (
        Scaled(SquaredL2(), torch.full((1, 3, 3), 2.0)),
        by_hand(lambda a, b: (a - b) ** 2 / 4),
    ),
}


@pytest.mark.parametrize("name", COSTS)
def test_value_is_the_sum_over_elements(name):
    cost, expected = COSTS[name]
    assert cost(X, Y).shape == (4,)
    torch.testing.assert_close(cost(X, Y), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", COSTS)
def test_gradient_equals_finite_differences(name):
    cost = COSTS[name][0].double()
    y = Y.clamp(0.05, 0.95).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: cost(X, y), (y,))


def test_learned_sigma_has_its_optimum_at_the_root_mean_squared_error():
    likelihood = GaussianLikelihood(1.0, learned=True).double()
    with torch.no_grad():
        likelihood.log_sigma.fill_(0.5 * (X - Y).square().mean().log())
    likelihood(X, Y).mean().backward()
    assert abs(likelihood.log_sigma.grad) < 1e-5


def test_l2_has_gradient_zero_where_it_is_zero():
    y = X.clone().requires_grad_()
    L2()(X, y).sum().backward()
    assert torch.equal(y.grad, torch.zeros_like(y))


@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_cross_entropy_refuses_targets_outside_the_unit_interval(shift):
    with pytest.raises(ValueError, match=r"`x` must lie in \[0, 1\]"):
        Bernoulli()(X + shift, Y)


def test_unlike_shapes_are_refused_instead_of_broadcast():
    with pytest.raises(ValueError, match="must have the shape of `x`"):
        SquaredL2()(torch.zeros(4, 1, 8, 8), torch.zeros(4, 64))


def test_learned_sigma_can_come_back_from_below_its_floor():
    likelihood = GaussianLikelihood(1e-4, learned=True)
    likelihood(X.float(), Y.float()).mean().backward()
    assert likelihood.log_sigma.grad < 0
