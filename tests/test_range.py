"""Values whose squares or powers leave the range of their dtype, and small differences of large
values: right, as the same samples in float64 or in another unit say."""

import numpy as np
import pytest
import torch
from zoo import seeded

from monge import adversarial, divergences, kernels, transport
from monge.costs import L2, Bernoulli, EarthMover, SinkhornSets, SlicedSets
from monge.divergences import (
    MMD,
    EnergyDistance,
    ExactWasserstein,
    GeneralizedSlicedWasserstein,
    SinkhornDivergence,
    SlicedWasserstein,
)
from monge.draws import generator
from monge.kernels import IMQ, RBF, Energy, Laplace, RationalQuadratic, multiscale_imq

SCALES = pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])


def pair(n=9, m=8, dim=3):
    random = seeded(4)
    x, y = (torch.randn(k, dim, generator=random, dtype=torch.float64) for k in (n, m))
    return x, 1.3 * y + 0.4


OF_SCALE = {
    "rbf": RBF,
    "imq": lambda s: IMQ(s**2),
    "laplace": Laplace,
    "rational": lambda s: RationalQuadratic(s, 0.7),
    "multiscale": lambda s: multiscale_imq(s**2),
}


@SCALES
@pytest.mark.parametrize("name", OF_SCALE)
@pytest.mark.parametrize("unbiased", [True, False])
def test_kernels_know_no_unit(name, scale, unbiased):
    """MMD, its gradient and the matrix of float32 samples in units in which squared distances, or
    the constants of the kernel, overflow or vanish."""
    x, y = pair()
    moved = x.clone().requires_grad_()
    expected = MMD(OF_SCALE[name](1.0), unbiased)(moved, y)
    (slope,) = torch.autograd.grad(expected, moved)
    far, other = (scale * x).float().requires_grad_(), (scale * y).float()
    value = MMD(OF_SCALE[name](scale), unbiased)(far, other)
    (gradient,) = torch.autograd.grad(value, far)
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-4, abs=1e-6)
    torch.testing.assert_close(scale * gradient.double(), slope, rtol=1e-4, atol=1e-6)
    matrix = OF_SCALE[name](scale)(far, other).double()
    torch.testing.assert_close(matrix, OF_SCALE[name](1.0)(x, y), rtol=1e-5, atol=1e-7)


@SCALES
def test_distances_know_no_unit(scale):
    x, y = pair()
    far, other = (scale * x).float(), (scale * y).float()
    expected = torch.cdist(x, y)
    torch.testing.assert_close(kernels.distances(far, other).double() / scale, expected)
    torch.testing.assert_close(-Energy()(far, other).double() / scale, expected)
    value = EnergyDistance()(far, other)
    assert float(value) / scale == pytest.approx(float(EnergyDistance()(x, y)), rel=1e-5)


def test_a_shared_far_point_hides_no_other():
    """Points about 0 and one at 10⁸: the mean of float32 samples is no centre to compute about."""
    x, y = (z.float() for z in pair())
    x[0] = y[-1] = 1e8
    expected = MMD(IMQ(1.0))(x.double(), y.double())
    one, two = (z.double().numpy() for z in (x, y))
    squares = {
        key: ((u[:, None] - v) ** 2).sum(-1)
        for key, (u, v) in {"x": (one, one), "y": (two, two), "xy": (one, two)}.items()
    }
    means = {key: 1 / (1 + square) for key, square in squares.items()}
    right = -2 * means["xy"].mean() + sum(
        (means[key].sum() - len(means[key])) / (len(means[key]) * (len(means[key]) - 1))
        for key in "xy"
    )
    assert float(expected) == pytest.approx(right, rel=1e-6)
    assert float(MMD(IMQ(1.0))(x, y)) == pytest.approx(right, rel=1e-5)


SQUARED = {
    "energy": EnergyDistance(),
    "rbf": MMD(RBF(1.0)),
    "laplace": MMD(Laplace(1e200)),
    "matrix": Energy(),
    "cramer-wold": divergences.CramerWold(),
}


@pytest.mark.parametrize("scale", [1e155, 1e300])
@pytest.mark.parametrize("name", SQUARED)
def test_squares_beyond_float64_are_refused(name, scale):
    x, y = pair()
    with pytest.raises(ValueError, match=r"`x` and `y` have coordinates .* beyond float64"):
        SQUARED[name](scale * x, scale * y)


@SCALES
def test_lengths_of_costs(scale):
    x, y = pair(8, 8)
    far, other = (scale * x).float().requires_grad_(), (scale * y).float()
    value = L2()(far, other)
    (gradient,) = torch.autograd.grad(value.sum(), far)
    torch.testing.assert_close(value.double() / scale, (x - y).norm(dim=1))
    torch.testing.assert_close(gradient.double(), (x - y) / (x - y).norm(dim=1, keepdim=True))
    moved = EarthMover()(far[None], other[None])
    assert float(moved.detach()) / scale == pytest.approx(
        float(EarthMover()(x[None], y[None])), rel=1e-5
    )


@pytest.mark.parametrize("p", [2, 7])
def test_quantiles_far_from_the_origin(p):
    """Small differences about a common offset, whose p-th powers vanish in float32."""
    u = torch.tensor([1.0, 1.0 + 2**-20, 1.0 + 2**-18]) * 1e-3
    v = u + 2**-30
    right = np.mean(np.abs(u.double().numpy() - v.double().numpy()) ** p) ** (1 / p)
    u.requires_grad_()
    value = transport.wasserstein_1d(u, v, p=p)
    assert float(value.detach()) == pytest.approx(right, rel=1e-6)
    (gradient,) = torch.autograd.grad(value, u)
    # moving all values by δ changes W_p by δ
    assert float(gradient.sum()) == pytest.approx(-1, rel=1e-5)


def test_quantiles_at_the_end_of_the_range():
    u = torch.tensor([1e38, 1.1e38, 1.2e38], requires_grad=True)
    value = transport.wasserstein_1d(u, u.detach() + 1e31)
    (gradient,) = torch.autograd.grad(value, u)
    gap = (u.detach() + 1e31 - u.detach()).double()
    assert float(value.detach()) == pytest.approx(float(gap.square().mean().sqrt()), rel=1e-6)
    assert bool(torch.isfinite(gradient).all())


def test_projections_at_the_end_of_the_range():
    """θ·x overflows in float32 where x does not."""
    x = torch.full((3, 6), 3e38)
    assert float(SlicedWasserstein(32)(x, x.clone())) == 0
    y = x - 1e37
    theta = torch.full((1, 6), 6**-0.5)
    value = transport.sliced_wasserstein(x, y, directions=theta)
    gap = float((x.double() - y.double())[0, 0])
    assert float(value) == pytest.approx(gap * 6**0.5, rel=1e-6)
    with pytest.raises(ValueError, match="`x` and `y`"):
        transport.sliced_wasserstein(x, -x, directions=theta)


def test_sets_far_from_the_origin():
    """Projections of float32 sets at 10⁴ are rounded at 10⁻³."""
    x, y = (z.float() + 1e4 for z in pair(9, 9))
    y = x + (y - x) * 1e-2
    torch.manual_seed(0)
    expected = SlicedSets(8)(x[None].double(), y[None].double())
    torch.manual_seed(0)
    torch.testing.assert_close(
        SlicedSets(8)(x[None], y[None]).double(), expected, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distributions_in_half(dtype):
    """Half precision cannot write thirds that sum to 1."""
    p = torch.tensor([1 / 3, 1 / 3, 1 / 3]).to(dtype)
    q = torch.tensor([0.2, 0.3, 0.5]).to(dtype)
    assert float(transport.total_variation(p, q)) == pytest.approx(1 / 6, rel=2e-2)
    assert float(transport.kullback_leibler(p, q)) == pytest.approx(0.0697, rel=5e-2)


def test_fourth_powers_beyond_the_dtype_are_refused():
    """The gradient of a value 0 would be rounding times the cube of the extent, an infinity."""
    x = pair(9, 9)[0].float() * 1e20
    with pytest.raises(ValueError, match="`x` and `y` have an extent"):
        transport.sliced_gromov_wasserstein(x, x.clone())
    wide = x.double().requires_grad_()
    value = transport.sliced_gromov_wasserstein(wide, x.double())
    (gradient,) = torch.autograd.grad(value, wide)
    assert bool(torch.isfinite(gradient).all())


def test_the_bernoulli_cost_has_a_finite_slope_in_data_at_certain_probabilities():
    """Logarithms have a floor of -100, and the cost is linear in the data."""
    x = torch.tensor([[0.25, 0.25]], requires_grad=True)
    y = torch.tensor([[0.0, 1.0]], requires_grad=True)
    value = Bernoulli()(x, y)
    assert float(value.detach()) == pytest.approx(100.0)
    (slope,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(slope, torch.tensor([[100.0, -100.0]]))


def spaces():
    x, y = pair()
    return torch.cdist(x, x), torch.cdist(y, y), torch.cdist(x, y)


CX, CY, LINEAR = spaces()
HUGE = {
    "gromov": lambda s: transport.gromov_wasserstein(s * CX, s * CY),
    "entropic gromov": lambda s: transport.entropic_gromov_wasserstein(
        s * CX, s * CY, epsilon=1e300
    ),
    "fused": lambda s: transport.fused_gromov_wasserstein(s * LINEAR, s * CX, s * CY),
    "partial gromov": lambda s: transport.partial_gromov_wasserstein(s * CX, s * CY, mass=0.5),
    "unbalanced gromov": lambda s: transport.unbalanced_gromov_wasserstein(
        s * CX, s * CY, epsilon=1.0, reach=1.0
    ),
    "sliced gromov": lambda s: transport.sliced_gromov_wasserstein(*(s * z for z in pair())),
    "low-rank gromov": lambda s: transport.low_rank_gromov_wasserstein(
        *(s * z for z in pair()), rank=2
    ),
    "low-rank": lambda s: transport.low_rank_sinkhorn(*(s * z for z in pair()), rank=2),
    "blur": lambda s: transport.from_geomloss(p=2, blur=s),
    "reach": lambda s: transport.from_geomloss(p=2, blur=1.0, reach=s),
    "rbf": lambda s: RBF(s),
    "rational": lambda s: RationalQuadratic(s, 1.0),
}


@pytest.mark.parametrize("length", ["blur", "reach"])
def test_powers_of_lengths_that_vanish_are_refused(length):
    with pytest.raises(ValueError, match=f"`{length}` 0.05 to the power of 999 is beyond float64"):
        transport.from_geomloss(**({"p": 999, "blur": 1.0} | {length: 0.05}))


@pytest.mark.parametrize("p", [True, np.True_, torch.tensor([2.0]), torch.tensor(True), "2", 1j])
def test_an_order_is_one_number(p):
    x, y = pair()
    with pytest.raises(ValueError, match="`p` must be a finite number of at least 1"):
        transport.sliced_wasserstein(x, y, p=p)


@pytest.mark.parametrize("scale", [1e160, 1e300])
@pytest.mark.parametrize("name", HUGE)
def test_powers_beyond_float64_are_refused(name, scale):
    with pytest.raises(ValueError, match=r"beyond (torch\.)?float64"):
        HUGE[name](scale)


@pytest.mark.parametrize("scale", [1e-60, 1.0, 1e60])
def test_low_rank_gromov_knows_no_unit(scale):
    x, y = pair()
    expected = transport.low_rank_gromov_wasserstein(x, y, rank=2, generator=seeded(0))
    found = transport.low_rank_gromov_wasserstein(
        scale * x, scale * y, rank=2, generator=seeded(0)
    )
    relative = float(found.value) / scale**4 / float(expected.value)
    assert relative == pytest.approx(1, rel=1e-6)


POWERS = {
    "exact": lambda p: divergences.ExactWasserstein(p),
    "sliced": lambda p: SlicedWasserstein(8, p),
    "generalized": lambda p: divergences.GeneralizedSlicedWasserstein(transport.Circular(3), p),
    "max-sliced": lambda p: adversarial.MaxSliced(3, p),
    "max-generalized": lambda p: adversarial.MaxGeneralizedSliced(transport.Circular(3), p),
    "earth-mover": lambda p: _of_sets(EarthMover(p)),
    "sliced sets": lambda p: _of_sets(SlicedSets(8, p)),
    "sinkhorn": lambda p: divergences.SinkhornDivergence(0.5, p),
}


def _of_sets(cost):
    return lambda x, y: cost(x[None], y[None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("name", POWERS)
def test_powers_that_their_dtype_does_not_hold_are_refused(name, scale, dtype):
    """Neither 0 nor infinity is the divergence of samples that differ."""
    x, y = (scale * z.to(dtype) for z in pair(9, 9))
    words = "vanish|10⁹ times the mean cost" if scale < 1 else r"beyond (torch\.)?float|below"
    with pytest.raises(ValueError, match=words):
        POWERS[name](999)(x, y)
    if name != "sinkhorn":
        assert float(POWERS[name](999)(x, x.clone()).detach().sum()) == 0


REGULARISED = {
    "sinkhorn": lambda x, y, **more: transport.sinkhorn(x, y, **more).value,
    "divergence": transport.sinkhorn_divergence,
    "weights": lambda x, y, **more: transport.sinkhorn_divergence(
        x, y, torch.full((len(x),), 1 / len(x), requires_grad=True), **more
    ),
    "batch": lambda x, y, **more: transport.sinkhorn(x[None], y[None], **more).value,
    "divergences": lambda x, y, **more: transport.sinkhorn_divergence(x[None], y[None], **more),
    "price": lambda x, y, **more: transport.sinkhorn_divergence(x, y, **more, reach=1e300),
    "cost": lambda x, y, **more: transport.solve_entropic(torch.cdist(x, y) ** 2, **more).value,
    "costs": lambda x, y, **more: (
        transport.solve_entropic(torch.cdist(x, y)[None] ** 2, **more).value
    ),
    "multiscale": lambda x, y, **more: transport.multiscale_sinkhorn(x, y, **more).value,
    "class": lambda x, y, epsilon: divergences.SinkhornDivergence(epsilon)(x, y),
    "sets": lambda x, y, epsilon: _of_sets(SinkhornSets(epsilon))(x, y),
}


@pytest.mark.parametrize(("scale", "epsilon"), [(1e19, 0.5), (1e30, 0.5), (1.0, 1e-39)])
@pytest.mark.parametrize("name", REGULARISED)
def test_a_regularisation_below_the_rounding_of_costs_is_refused(name, scale, epsilon):
    """Instead of iterations that end nowhere: exponents would have errors of more than 1."""
    x, y = (scale * z for z in pair())
    words = f"`epsilon` {epsilon:.3g} is below the rounding of costs of about"
    with pytest.raises(ValueError, match=words):
        REGULARISED[name](x, y, epsilon=epsilon)
    with pytest.raises(ValueError, match=words):
        REGULARISED[name](x.float().double(), y.float().double(), epsilon=epsilon)


@pytest.mark.parametrize("name", REGULARISED)
def test_far_points_of_both_samples_hide_no_regularisation(name):
    """A point at 10⁹ has costs whose rounding is above ε, but those of all others are below."""
    x, y = pair(8, 8)
    x[-1] = y[-1] = 1e3
    expected = REGULARISED[name](x, y, epsilon=0.5)
    x[-1] = y[-1] = 1e9
    found = REGULARISED[name](x, y, epsilon=0.5)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-3)


ON_A_LINE = {
    "wasserstein_1d": lambda x, y, p: transport.wasserstein_1d(x[:, 0], y[:, 0], p=p),
    "sliced": lambda x, y, p: transport.sliced_wasserstein(x, y, p=p, directions=[[1.0, 0.0]]),
    "estimate": lambda x, y, p: (
        transport.sliced_wasserstein_estimate(x, y, p=p, directions=[[1.0, 0.0]] * 2).value
    ),
    "max-sliced": lambda x, y, p: transport.max_sliced_wasserstein(x, y, p=p)[0],
    "generalized": lambda x, y, p: transport.generalized_sliced_wasserstein(x, y, _first, p=p),
    "circle": lambda x, y, p: transport.wasserstein_circle(x[:, 0], y[:, 0], p=p, period=2**22),
    "weighted circle": lambda x, y, p: transport.wasserstein_circle(
        x[:, 0], y[:, 0], torch.full((len(x),), 1 / len(x)), p=p, period=2**22
    ),
    "sphere": lambda x, y, p: (
        2**20
        * transport.spherical_sliced_wasserstein(
            _on_a_circle(x), _on_a_circle(y), p=p, circles=torch.eye(3)[None, :, :2]
        )
    ),
}
EXACT = {
    "wasserstein": transport.wasserstein,
    "batch": lambda x, y, p: transport.wasserstein(x[None], y[None], p=p),
    "partial": lambda x, y, p: transport.partial_wasserstein(x, y, mass=1.0, p=p),
}


def _on_a_circle(x):
    """Points in float64 at angles that are the first coordinates, of 2²⁰ a radian."""
    angle = x[:, 0].double() / 2**20
    return torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], 1)


class _FirstCoordinate(transport.Slicer):
    def forward(self, x):
        return x[:, :1]

    def resample_(self, generator=None):
        pass

    def project_(self):
        pass


_first = _FirstCoordinate()


def beside_a_far_point(copies: int, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Points that move by at most 1/16, and one that both samples share at 2²⁰."""
    x, moved = torch.zeros(4, 2, dtype=dtype), torch.zeros(4, 2, dtype=dtype)
    x[:, 0] = torch.tensor([0.0, 1.0, 2.0, 2.0**20])
    moved[:, 0] = x[:, 0] + torch.tensor([1 / 32, 1 / 16, 1 / 32, 0.0])
    return x, moved.repeat(copies, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("p", [3, 50, 540, 1000])
@pytest.mark.parametrize("name", ON_A_LINE)
def test_a_far_point_of_both_samples_hides_no_power(name, p, copies, dtype):
    """W_p = (¼ (1 + 2 · 2^{-p}))^{1/p} / 16 at every order, with its gradient."""
    x, y = beside_a_far_point(copies, dtype)
    value = ON_A_LINE[name](x.requires_grad_(), y, p)
    mean = (1 + 2 * 0.5**p) / 4
    assert float(value.detach()) == pytest.approx(mean ** (1 / p) / 16, rel=1e-4)
    if name != "estimate":
        (slope,) = torch.autograd.grad(value, x)
        assert float(slope[1, 0]) == pytest.approx(-(mean ** (1 / p - 1)) / 4, rel=1e-3)


def moved_among_far(copies: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points that all move by 1/16, among others at about 1."""
    x = torch.randn(20, 2, dtype=torch.float64, generator=seeded(0))
    return x, (x.roll(1, 0) + x.new_tensor([1 / 16, 0.0])).repeat(copies, 1)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("p", [2, 20, 100])
@pytest.mark.parametrize("name", ["wasserstein", "batch", "partial"])
def test_costs_of_far_pairs_do_not_hide_those_of_near_ones(name, p, copies):
    value = EXACT[name](*moved_among_far(copies), p=p)
    assert value.item() == pytest.approx(1 / 16, rel=1e-6)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("p", [1.5, 2, 8])
@pytest.mark.parametrize("n", [40, 700])
def test_a_map_of_nearly_equal_points_is_not_hidden_by_far_ones(n, p, dim):
    """Costs that are below the rounding of the largest one; among many points potentials near the
    optimum would add to it."""
    x = torch.randn(n, dim, dtype=torch.float64, generator=seeded(0))
    x[0] = 1e9
    order = torch.randperm(n, generator=seeded(1))
    y = (x + 1e-7 * torch.randn(n, dim, dtype=torch.float64, generator=seeded(2)))[order]
    moved = (y[transport.monge_map(x, y, p=p)] - x).norm(dim=1).pow(p).mean()
    assert float(moved) <= float((y[order.argsort()] - x).norm(dim=1).pow(p).mean()) * (1 + 1e-9)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("p", [400, 999])
@pytest.mark.parametrize("name", ["wasserstein", "batch", "partial"])
def test_where_costs_of_near_pairs_vanish_far_ones_are_not_taken(name, p, copies):
    with pytest.raises(ValueError, match="powers of distances that vanish"):
        EXACT[name](*moved_among_far(copies), p=p)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("name", EXACT)
def test_powers_that_vanish_are_refused_by_exact_solvers(name, copies):
    """Whose costs are p-th powers in units of the largest: 0 would be a wrong distance."""
    x, y = beside_a_far_point(copies)
    assert EXACT[name](x, y, p=3) > 0
    with pytest.raises(ValueError, match="`p` 540 has powers of distances that vanish"):
        EXACT[name](x, y, p=540)
    with pytest.raises(ValueError, match="`p` must be at most 1,000, got 1e\\+300"):
        EXACT[name](x, y, p=1e300)


HALF = {
    "exact": lambda p: ExactWasserstein(p),
    "sliced": lambda p: SlicedWasserstein(16, p),
    "generalized": lambda p: GeneralizedSlicedWasserstein(transport.Linear(3, 8).double(), p),
    "sinkhorn": lambda p: SinkhornDivergence(0.1 * 0.2**p, p),
    "earth mover": lambda p: lambda x, y: EarthMover(p)(x[None], y[None])[0],
    "sets": lambda p: lambda x, y: SlicedSets(16, p)(x[None], y[None])[0],
    "plan": lambda p: lambda x, y: transport.sinkhorn(x, y, epsilon=0.1 * 0.2**p, p=p).value,
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("p", [3, 4, 8, 20, 49])
def test_powers_in_half_precision_are_those_of_float64_or_refused(name, p, dtype):
    """Computed in float32; never a 0 in which a distance is lost, gradient and all."""
    random = generator(0, "half")
    x, y = (0.2 * torch.rand(24, 3, generator=random).to(dtype) for _ in range(2))
    torch.manual_seed(0)
    expected = float(HALF[name](p)(x.double(), y.double()).detach())
    torch.manual_seed(0)
    least = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    if expected < least:
        with pytest.raises(ValueError, match="powers of distances that vanish in"):
            HALF[name](p)(x, y)
    else:
        value = HALF[name](p)(x, y).detach()
        rounding = 4 * torch.finfo(dtype).eps
        assert value.dtype == dtype
        assert float(value) == pytest.approx(expected, rel=rounding, abs=least)
    if name != "plan":  # whose value has an entropy
        assert float(HALF[name](p)(x, x).detach()) == pytest.approx(0, abs=1e-6)
