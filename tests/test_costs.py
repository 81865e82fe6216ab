"""Costs sum over a sample's elements and give one value a sample; those of sets see no order."""

import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from monge.costs import (
    L1,
    L2,
    Bernoulli,
    Chamfer,
    EarthMover,
    ElasticNet,
    GaussianLikelihood,
    Scaled,
    SinkhornSets,
    SlicedSets,
    SquaredL2,
)
from monge.draws import stream
from monge.transport import sliced_wasserstein, uniform_directions, wasserstein

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
    "elastic net": (
        ElasticNet(0.3, scale=2.0),
        by_hand(lambda a, b: 1.4 * (a - b) ** 2 + 0.6 * abs(a - b)),
    ),
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


def test_an_elastic_net_lies_between_squared_and_absolute_errors():
    torch.testing.assert_close(ElasticNet(0.0)(X, Y), SquaredL2()(X, Y))
    torch.testing.assert_close(ElasticNet(1.0)(X, Y), L1()(X, Y))
    y = X.clone().requires_grad_()
    ElasticNet()(X, y).sum().backward()
    assert torch.equal(y.grad, torch.zeros_like(y))
    for share in (-0.1, 1.1, math.nan, "a", None, True):
        with pytest.raises(ValueError, match=r"`share` must be in \[0, 1\], got"):
            ElasticNet(share)


@pytest.mark.parametrize("make", [SquaredL2, lambda scale: ElasticNet(scale=scale), Chamfer])
@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, "a", None])
def test_a_scale_is_positive(make, scale):
    with pytest.raises(ValueError, match="`scale` must be positive and finite, got"):
        make(scale)


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


# Sets of points

SETS = {
    "chamfer": Chamfer(),
    "earth mover": EarthMover(),
    "earth mover, squared": EarthMover(p=2),
    "sinkhorn": SinkhornSets(0.5),
    "sliced": SlicedSets(16),
}
EVERY_SET = pytest.mark.parametrize("cost", SETS.values(), ids=SETS)


def sets(n: int = 3, count: int = 9, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, count, 3, dtype=torch.float64, generator=generator)


def seeded(cost, x, y):
    """The cost with the directions of one seed, where it draws any."""
    with stream("set costs"):
        return cost(x, y)


@EVERY_SET
def test_set_costs_do_not_see_the_order_of_points(cost):
    """Mistake 16: an elementwise cost on unordered points has the centroid as its minimiser."""
    x, y = sets(), sets(seed=1)
    turned = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    value = seeded(cost, x, y)
    assert value.shape == (3,)
    torch.testing.assert_close(seeded(cost, x, y[:, turned]), value)
    torch.testing.assert_close(seeded(cost, x[:, turned], y), value)
    assert (value > 0).all()
    zero = seeded(cost, x, x[:, turned])  # Sinkhorn's up to the tolerance of its solver
    torch.testing.assert_close(zero, torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(seeded(cost, y, x), value)


@EVERY_SET
def test_gradients_of_set_costs_by_finite_differences(cost):
    x, y = sets(2, 6).requires_grad_(), sets(2, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: seeded(cost, x, y), (x, y))


def test_chamfer_against_all_pairs():
    x, y = sets(), sets(count=7, seed=1)
    squared = (x[:, :, None] - y[:, None]).square().sum(3)
    expected = squared.amin(2).mean(1) + squared.amin(1).mean(1)
    torch.testing.assert_close(Chamfer()(x, y), expected)
    torch.testing.assert_close(Chamfer(2.5)(x, y), 2.5 * expected)


@pytest.mark.parametrize("p", [1, 2])
def test_assignments_are_the_best_of_all_permutations(p):
    x, y = sets(2, 5), sets(2, 5, seed=1)
    for a, b, value in zip(x, y, EarthMover(p)(x, y)):
        orders = itertools.permutations(range(5))
        best = min(float((a - b[list(o)]).norm(dim=1).pow(p).mean()) for o in orders)
        assert float(value) == pytest.approx(best)


def test_assignments_of_many_points_are_the_exact_transport():
    """W_2² between the sets, where the search starts from a regularised problem."""
    x, y = sets(1, 600), 0.5 * sets(1, 600, seed=1) + 0.2
    assert float(EarthMover(p=2)(x, y)) == pytest.approx(float(wasserstein(x[0], y[0])) ** 2)


def test_sinkhorn_sets_tend_to_the_assignment():
    """From below, as ε → 0."""
    x, y = sets(), sets(seed=1)
    exact = EarthMover(p=2)(x, y)
    far, near = (SinkhornSets(epsilon)(x, y) for epsilon in (1.0, 0.01))
    assert (far < exact).all()
    torch.testing.assert_close(near, exact, rtol=0.02, atol=0)


def test_sliced_sets_are_the_sliced_distance_of_each():
    x, y = sets(), sets(count=12, seed=1)
    with stream("set costs"):
        theta = uniform_directions(16, 3).double()
    expected = [sliced_wasserstein(a, b, directions=theta) ** 2 for a, b in zip(x, y)]
    torch.testing.assert_close(seeded(SlicedSets(16), x, y), torch.stack(expected))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (sets().mT, sets().mT, r"brought there by transpose\(1, 2\)"),
        (sets(), sets(2), "must hold as many sets"),
        (sets()[0], sets()[0], "must be sets of points"),
        (sets() * torch.nan, sets(), "`x` must be finite"),
    ],
)
def test_what_are_no_sets_is_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        Chamfer()(x, y)


def test_an_assignment_needs_equally_many_points():
    with pytest.raises(ValueError, match="must have 9 points a set for an assignment, got 8"):
        EarthMover()(sets(), sets(count=8))


def test_sinkhorn_sets_can_exceed_the_assignment():
    """By 4 % here: the debiased divergence is not a lower bound of W_2²."""
    generator = torch.Generator().manual_seed(30)
    x, y = torch.randn(2, 1, 3, 2, generator=generator, dtype=torch.float64)
    y = 3 * y
    exact = float(EarthMover(p=2)(x, y))
    assert float(SinkhornSets(5.0)(x, y)) > 1.03 * exact
