"""Transport on the circle, the sphere and hyperbolic space, against linear programmes, cuts of the
circle and POT."""

import math

import numpy as np
import ot
import pytest
import torch

from monge.draws import generator
from monge.transport import (
    Geodesic,
    Horospherical,
    generalized_sliced_wasserstein,
    great_circles,
    hyperbolic_distances,
    solve,
    spherical_distances,
    spherical_sliced_wasserstein,
    wasserstein_1d,
    wasserstein_circle,
)

double = torch.float64
ORDERS = pytest.mark.parametrize("p", [1, 1.5, 2, 3])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def law(n, seed=0):
    w = torch.rand(n, generator=seeded(seed), dtype=double) + 0.1
    return w / w.sum()


def angles(n, seed, spread=20.0):
    return spread * (torch.rand(n, generator=seeded(seed), dtype=double) - 0.5)


def by_programme(u, v, a, b, p, period=2 * math.pi):
    arcs = np.abs((u[:, None] - v + period / 2) % period - period / 2)
    return ot.emd2(a, b, arcs**p) ** (1 / p)


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


def sphere(n, d, seed):
    return unit(torch.randn(n, d, generator=seeded(seed), dtype=double))


def hyperboloid(z):
    return torch.cat([(1 + z.square().sum(-1, keepdim=True)).sqrt(), z], -1)


def hyperbolic(n, seed, spread=1.0):
    return hyperboloid(spread * torch.randn(n, 3, generator=seeded(seed), dtype=double))


@ORDERS
@pytest.mark.parametrize("sizes", [(1, 1), (6, 6), (7, 4), (3, 11)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rounded", [False, True], ids=["apart", "tied"])
def test_the_circle_is_the_linear_programme(p, sizes, weighted, rounded):
    for seed in range(5):
        u, v = angles(sizes[0], seed), angles(sizes[1], seed + 100)
        u, v = (u.round(), v.round()) if rounded else (u, v)
        a, b = (law(k, seed) if weighted else torch.full((k,), 1 / k).double() for k in sizes)
        expected = by_programme(u.numpy(), v.numpy(), a.numpy(), b.numpy(), p)
        given = (a, b) if weighted else ()
        assert float(wasserstein_circle(u, v, *given, p=p)) == pytest.approx(expected, abs=1e-7)


def test_the_circle_is_the_best_of_its_cuts():
    """For p = 1 some cut of the circle loses nothing; for equal counts all cyclic shifts do."""
    u, v = angles(6, 0) % 1, angles(6, 1) % 1
    cuts = [wasserstein_1d((u - c) % 1, (v - c) % 1, p=1) for c in torch.cat([u, v])]
    torch.testing.assert_close(wasserstein_circle(u, v, p=1, period=1.0), min(cuts))
    arcs = [
        ((u.sort().values - v.sort().values.roll(k) + 0.5) % 1 - 0.5).square().mean().sqrt()
        for k in range(6)
    ]
    torch.testing.assert_close(wasserstein_circle(u, v, period=1.0), min(arcs))


@pytest.mark.parametrize("weighted", [False, True])
def test_turns_units_and_rotations_change_nothing(weighted):
    u, v = angles(5, 0), angles(4, 1)
    given = (law(5), law(4)) if weighted else ()
    value = wasserstein_circle(u, v, *given)
    turned = wasserstein_circle(u + 6 * math.pi, v - 2 * math.pi, *given)
    torch.testing.assert_close(turned, value)
    torch.testing.assert_close(wasserstein_circle(u + 1.3, v + 1.3, *given), value)
    torch.testing.assert_close(wasserstein_circle(v, u, *given[::-1]), value)
    degrees = wasserstein_circle(u.rad2deg(), v.rad2deg(), *given, period=360)
    torch.testing.assert_close(degrees, value.rad2deg())


@ORDERS
def test_a_sample_is_at_no_distance_from_itself(p):
    u, w, order = angles(9, 2), law(9), torch.randperm(9, generator=seeded())
    assert float(wasserstein_circle(u, u[order], p=p)) < 1e-12
    assert float(wasserstein_circle(u, u[order], w, w[order], p=p)) < 1e-12
    leaf = u.clone().requires_grad_()
    (slope,) = torch.autograd.grad(wasserstein_circle(leaf, u, p=p), leaf)
    assert torch.isfinite(slope).all()


def test_points_without_mass_are_not_there():
    u, v, w = angles(6, 0), angles(4, 1), law(6)
    w[[0, 3]] = 0
    w = w / w.sum()
    alone = wasserstein_circle(u[w > 0], v, w[w > 0])
    torch.testing.assert_close(wasserstein_circle(u, v, w), alone)


def test_batches_and_broadcasting_on_the_circle():
    u, v, a = angles(6, 0).reshape(2, 3), angles(8, 1).reshape(2, 4), law(3)
    values = wasserstein_circle(u[:, None], v, a)
    assert values.shape == (2, 2)
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(values[i, j], wasserstein_circle(u[i], v[j], a))
    whole = wasserstein_circle(np.array([23, 1]), [0, 2], period=24)
    assert float(whole) == pytest.approx(1)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_derivatives_on_the_circle(p):
    u, v = (angles(12, 0).reshape(3, 4), angles(15, 1).reshape(3, 5))
    a, b = torch.randn(3, 4, generator=seeded()).double(), torch.randn(5, generator=seeded(1))
    inputs = [z.double().requires_grad_() for z in (u, v, a, b)]

    def weighted(u, v, a, b):
        return wasserstein_circle(u, v, a.softmax(-1), b.softmax(-1), p=p)

    assert torch.autograd.gradcheck(weighted, inputs)
    even = [inputs[0], angles(12, 3).reshape(3, 4).requires_grad_()]
    assert torch.autograd.gradcheck(lambda u, v: wasserstein_circle(u, v, p=p), even)
    if p > 1:
        assert torch.autograd.gradgradcheck(weighted, inputs)


HIGH_ORDERS = pytest.mark.parametrize("p", [1, 1.5, 2, 3, 10, 20, 50, 200, 1000])


def gradients_in_weights(u, v, a, b, p):
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    value = wasserstein_circle(u, v, a, b, p=p)
    return value.detach(), *torch.autograd.grad(value, (a, b))


def weights_on_the_circle(kind, seed):
    """Points and weights whose partial sums are apart, equal, or those of a few points."""
    sizes = (7, 5) if kind != "uniform" else [(6, 6), (6, 4)][seed % 2]
    u, v = angles(sizes[0], seed), angles(sizes[1], seed + 100)
    if kind == "uniform":
        return u, v, *(torch.full((k,), 1 / k, dtype=double) for k in sizes)
    a, b = law(7, seed), law(5, seed + 50)
    if kind == "tied":
        u, v = u.round(), v.round()
    if kind == "zeros":
        a[[seed, seed + 3]] = 0
        b[seed] = 0
    return u, v, a / a.sum(), b / b.sum()


@HIGH_ORDERS
@pytest.mark.parametrize("kind", ["apart", "tied", "uniform", "zeros"])
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_in_weights_is_the_dual_of_the_linear_programme(kind, seed, p):
    """f and g that no cost forbids, with the value of the plan, are a subgradient of W_p^p."""
    u, v, a, b = weights_on_the_circle(kind, seed)
    if kind == "zeros":
        b = law(5, seed + 50)  # points without mass on both sides would depend on each other
    value, f, g = gradients_in_weights(u, v, a, b, p)
    f, g = (z * p / value for z in (f, g))  # in units of W_p^p
    arcs = ((u[:, None] - v + math.pi) % (2 * math.pi) - math.pi).abs()
    most = (f[:, None] + g - (arcs / value) ** p).max()  # with the least constant that is needed
    dual = a @ f + b @ g - most
    # the potentials of points with mass are at most those of a few costs of the plan
    largest = 100.0 if kind != "zeros" else max(1.0, float(f.abs().max()), float(g.abs().max()))
    rounding = 1e-13 * (10 + p) * largest  # a power of order p loses p units of rounding
    assert float(dual) == pytest.approx(1, abs=rounding)


@HIGH_ORDERS
@pytest.mark.parametrize("kind", ["apart", "tied", "zeros"])
def test_the_gradient_in_weights_is_the_rise_of_the_distance(kind, p):
    """Along a change that lets weights of 0 grow."""
    for seed in range(2):
        u, v, a, b = weights_on_the_circle(kind, seed)
        value, f, g = gradients_in_weights(u, v, a, b, p)
        for side, (w, slope) in enumerate(((a, f), (b, g))):
            ways = torch.randn(4, len(w), generator=seeded(seed), dtype=double)
            ways = torch.where(w == 0, ways.abs(), ways)
            ways = ways - (w > 0) * ways.sum(1, keepdim=True) / (w > 0).sum()
            for way in ways:
                step = 1e-7 * way
                moved_weights = (a + step, b) if side == 0 else (a, b + step)
                moved = wasserstein_circle(u, v, *moved_weights, p=p)
                rise = float(slope @ way)
                assert float(moved - value) / 1e-7 == pytest.approx(rise, rel=1e-3, abs=1e-5)


def test_mixed_derivatives_on_the_circle_at_a_high_order():
    u, v = angles(5, 2), angles(4, 3)
    a, b = law(5, 2).log(), law(4, 3).log()
    inputs = [z.requires_grad_() for z in (u, v, a, b)]

    def weighted(u, v, a, b):
        return wasserstein_circle(u, v, a.softmax(-1), b.softmax(-1), p=20)

    assert torch.autograd.gradcheck(weighted, inputs)
    assert torch.autograd.gradgradcheck(weighted, inputs, eps=1e-7, rtol=1e-2)


def test_pot_agrees_on_the_circle():
    u, v, a, b = angles(20, 0) % 1, angles(30, 1) % 1, law(20), law(30)
    for p in (1, 2):
        power = ot.wasserstein_circle(u.numpy(), v.numpy(), a.numpy(), b.numpy(), p=p)
        ours = float(wasserstein_circle(u, v, a, b, p=p, period=1.0)) ** p
        assert ours == pytest.approx(float(power[0]), abs=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda u: wasserstein_circle(u[:0], u), "`u` must hold a value"),
        (lambda u: wasserstein_circle(u, u / 0), "`v` must be finite"),
        (lambda u: wasserstein_circle(u, u, period=0), "`period` must be positive"),
        (lambda u: wasserstein_circle(u, u, p=0.5), "`p` must be"),
        (lambda u: wasserstein_circle(u, u, torch.ones(4)), "`a` must be at least 0 and sum"),
        (lambda u: wasserstein_circle(torch.ones(2, 3), torch.ones(3, 3)), "must broadcast"),
        (lambda u: spherical_distances(u[None], u[None]), "`x` must be unit vectors"),
        (lambda u: spherical_sliced_wasserstein(unit(u[None]), u[None]), "`y` must be unit"),
        (
            lambda u: hyperbolic_distances(u[None], u[None]),
            r"`x` must be points \(n, d \+ 1\) of the hyperbol",
        ),
        (lambda u: great_circles(3, 1), "`dim` must be at least 2"),
        (
            lambda u: spherical_sliced_wasserstein(unit(u[None]), unit(u[None]), circles=0),
            "`circles`",
        ),
        (
            lambda u: spherical_sliced_wasserstein(
                unit(u[None]), unit(u[None]), circles=torch.ones(3, 4, 2)
            ),
            "orthonormal",
        ),
        (
            lambda u: spherical_sliced_wasserstein(
                unit(u[None]), unit(u[None]), circles=torch.ones(4, 2)
            ),
            r"`circles` must have shape \(L, 4, 2\)",
        ),
        (lambda u: Geodesic(2)(torch.ones(3, 2)), r"`x` must be points \(n, 3\)"),
        (lambda u: Horospherical(2)(torch.ones(3, 3)), "of the hyperboloid"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=double))


# The sphere


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("m", [12, 9])
def test_pot_agrees_on_the_sphere(p, m):
    x, y, circles = sphere(12, 4, 0), unit(sphere(m, 4, 1) + 0.5), great_circles(20, 4)
    ours = spherical_sliced_wasserstein(x, y, p=p, circles=circles)
    theirs = ot.sliced_wasserstein_sphere(
        x.numpy(), y.numpy(), p=p, n_projections=20, projections=circles.numpy()
    )
    assert float(ours) == pytest.approx(2 * math.pi * float(theirs), rel=1e-5)


def test_the_sphere_in_the_plane_is_the_circle():
    u, v, a, b = angles(7, 0), angles(5, 1), law(7), law(5)
    x, y = (torch.stack([z.cos(), z.sin()], 1) for z in (u, v))
    value = spherical_sliced_wasserstein(x, y, a, b, circles=3)
    torch.testing.assert_close(value, wasserstein_circle(u, v, a, b))


def test_geodesic_distances_on_the_sphere():
    x, y = sphere(6, 3, 0), sphere(5, 3, 1)
    torch.testing.assert_close(spherical_distances(x, y), torch.arccos(x @ y.T))
    close = unit(x + 1e-9 * y[:1])
    chords = (close - x).norm(dim=1)
    torch.testing.assert_close(
        spherical_distances(x, close).diagonal(), chords, rtol=1e-6, atol=0.0
    )
    opposite = spherical_distances(x, -x).diagonal()
    torch.testing.assert_close(opposite, torch.full_like(opposite, math.pi))


def test_derivatives_on_the_sphere():
    circles = great_circles(6, 3, generator=seeded())
    z = [torch.randn(n, 3, generator=seeded(n), dtype=double) for n in (5, 4)]
    inputs = [*(w.requires_grad_() for w in z), law(5).log().requires_grad_()]

    def sliced(x, y, a):
        return spherical_sliced_wasserstein(unit(x), unit(y), a.softmax(0), circles=circles)

    assert torch.autograd.gradcheck(sliced, inputs)
    assert torch.autograd.gradcheck(
        lambda x, y: spherical_distances(unit(x), unit(y)).square(), inputs[:2]
    )
    x = sphere(3, 3, 5).requires_grad_()
    assert torch.isfinite(torch.autograd.grad(spherical_distances(x, x).sum(), x)[0]).all()
    axis = torch.tensor([[0.0, 0.0, 1.0]], dtype=double).requires_grad_()
    plane = torch.eye(3, dtype=double)[None, :, :2]
    value = spherical_sliced_wasserstein(axis, sphere(1, 3, 6), circles=plane)
    assert torch.isfinite(torch.autograd.grad(value, axis)[0]).all()


@pytest.mark.parametrize("p", [3, 50, 200])
def test_derivatives_in_weights_on_the_sphere_at_high_orders(p):
    circles = great_circles(6, 3, generator=seeded())
    x, y, a = sphere(7, 3, 0), sphere(5, 3, 1), law(7).requires_grad_()
    even = torch.full((7,), 1 / 7, dtype=double, requires_grad=True)

    def value(a):
        return spherical_sliced_wasserstein(x, y, a, p=p, circles=circles)

    (slope,) = torch.autograd.grad(value(a), a)
    way = torch.randn(7, generator=seeded(), dtype=double)
    way = way - way.mean()
    with torch.no_grad():
        rise = (value(a + 1e-7 * way) - value(a - 1e-7 * way)) / 2e-7
    assert float(slope @ way) == pytest.approx(float(rise), rel=1e-4)
    (slope,) = torch.autograd.grad(value(even), even)
    with torch.no_grad():
        low, high = (float(value(even + s * 1e-7 * way) - value(even)) * s for s in (-1, 1))
    assert low - 1e-11 <= float(slope @ way) * 1e-7 <= high + 1e-11


def test_draws_of_circles_follow_their_generator():
    x, y = sphere(8, 3, 0), sphere(8, 3, 1)
    one, two = (spherical_sliced_wasserstein(x, y, generator=seeded(7)) for _ in range(2))
    assert torch.equal(one, two)
    planes = great_circles(50, 5)
    torch.testing.assert_close(planes.mT @ planes, torch.eye(2).double().expand(50, 2, 2))
    many = spherical_sliced_wasserstein(x, y, circles=4000, generator=seeded(8))
    more = spherical_sliced_wasserstein(x, y, circles=4000, generator=seeded(9))
    torch.testing.assert_close(many, more, rtol=0.05, atol=0.0)


# Hyperbolic space


def test_geodesic_distances_on_the_hyperboloid():
    x, y = hyperbolic(6, 0), hyperbolic(5, 1)
    form = x[:, 1:] @ y[:, 1:].T - x[:, :1] * y[:, 0]
    torch.testing.assert_close(hyperbolic_distances(x, y), torch.arccosh(-form))
    assert float(hyperbolic_distances(x, x).diagonal().abs().max()) == 0
    origin = hyperboloid(torch.zeros(1, 3, dtype=double))
    lengths = torch.asinh(x[:, 1:].norm(dim=1))
    torch.testing.assert_close(hyperbolic_distances(x, origin)[:, 0], lengths)
    near = hyperboloid(1e-9 * y[:, 1:])
    expected = 1e-9 * y[:, 1:].norm(dim=1)
    torch.testing.assert_close(
        hyperbolic_distances(near, origin)[:, 0], expected, rtol=1e-6, atol=0.0
    )


def test_hyperbolic_slices_are_what_their_formulas_say():
    x = hyperbolic(6, 0)
    geodesic, horospherical = Geodesic(3, 7), Horospherical(3, 7)
    along = x[:, 1:] @ geodesic.units(x).T
    torch.testing.assert_close(geodesic(x), torch.atanh(along / x[:, :1]))
    along = x[:, 1:] @ horospherical.units(x).T
    torch.testing.assert_close(horospherical(x), (x[:, :1] - along).log())


@pytest.mark.parametrize("kind", [Geodesic, Horospherical])
def test_hyperbolic_slices_measure_distance_along_their_geodesic(kind):
    slicer = kind(3, 4)
    t = torch.linspace(-3, 3, 5, dtype=double)
    for index, theta in enumerate(slicer.units(t).detach()):
        points = torch.cat([t.cosh()[:, None], t.sinh()[:, None] * theta], 1)
        torch.testing.assert_close(slicer(points)[:, index].abs(), t.abs())


@pytest.mark.parametrize("kind", [Geodesic, Horospherical])
def test_hyperbolic_sliced_distances(kind):
    """A mean over slices, below exact transport for p = 1, with gradients."""
    x, y, slicer = hyperbolic(6, 0), hyperbolic(6, 1, 2.0), kind(3, 5)
    slices = [wasserstein_1d(*pair, p=1) for pair in zip(slicer(x).T, slicer(y).T)]
    value = generalized_sliced_wasserstein(x, y, slicer, p=1)
    torch.testing.assert_close(value, torch.stack(slices).mean())
    assert value < solve(hyperbolic_distances(x, y)).value
    z = [w[:, 1:].clone().requires_grad_() for w in (x, y)]
    assert torch.autograd.gradcheck(
        lambda x, y: generalized_sliced_wasserstein(hyperboloid(x), hyperboloid(y), slicer), z
    )
    assert torch.autograd.gradcheck(
        lambda x, y: hyperbolic_distances(hyperboloid(x), hyperboloid(y)).square(), z
    )
    far = slicer(hyperboloid(1e6 * x[:, 1:].float()))
    assert torch.isfinite(far).all()


@pytest.mark.parametrize(
    "value",
    [
        lambda x, y: wasserstein_circle(x[:, 0], y[:, 0]),
        lambda x, y: spherical_sliced_wasserstein(
            unit(x), unit(y), circles=great_circles(9, 3, generator=seeded())
        ),
        lambda x, y: spherical_distances(unit(x), unit(y)).mean(),
        lambda x, y: hyperbolic_distances(hyperboloid(x), hyperboloid(y)).mean(),
    ],
)
def test_half_precision(value):
    x, y = (torch.randn(n, 3, generator=seeded(n)).half() for n in (8, 6))
    half = value(x, y)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.double(), value(x.double(), y.double()), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("radius", [0.0, 1e-9, 0.5, 1.3, 2.0, 5.0, 20.0, 40.0, 300.0])
def test_hyperbolic_distances_keep_their_digits_far_from_the_origin(radius):
    z = torch.tensor([[0.0, 0.0], [math.sinh(radius), 0.0]], dtype=torch.float64)
    on, opposite = (
        torch.cat([(1 + w.square().sum(1, keepdim=True)).sqrt(), w], 1) for w in (z, -z)
    )
    assert float(hyperbolic_distances(on, on)[0, 1]) == pytest.approx(radius, rel=1e-12)
    assert float(hyperbolic_distances(on, opposite)[1, 1]) == pytest.approx(2 * radius, rel=1e-12)
    assert float(hyperbolic_distances(on, on)[1, 1]) == 0


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 50.0])
def test_hyperbolic_distances_are_differentiable_near_and_far(scale):
    random = generator(0, "hyperbolic")
    x, y = (
        (scale * torch.randn(n, 3, generator=random, dtype=torch.float64)).requires_grad_()
        for n in (4, 5)
    )

    def distances(x, y):
        on = [torch.cat([(1 + z.square().sum(1, keepdim=True)).sqrt(), z], 1) for z in (x, y)]
        return hyperbolic_distances(*on)

    assert torch.autograd.gradcheck(distances, (x, y))
    assert torch.autograd.gradgradcheck(distances, (x, y))
