"""What `test_fuzz.py` tries. A subject takes a case and returns the value of a function, what is
expected, and a tolerance beyond the relative rounding; None for what there is not."""

import numpy as np
import pytest
import torch
from fuzz_cases import (
    ROUNDING,
    entropic,
    of_points,
    of_slices,
    optimum,
    read,
    rooted,
    unbalanced,
)
from scipy.spatial.distance import cdist

from monge import costs, kernels, transport
from monge import divergences as div
from monge.divergences import MMD, ExactWasserstein, MomentMatching


def wasserstein(case):
    value = transport.wasserstein(case.x, case.y, case.a, case.b, p=case.p)
    return value, *of_points(case)


def line(case):
    one = case._replace(x=case.x[:, :1], y=case.y[:, :1])
    value = transport.wasserstein_1d(one.x[:, 0], one.y[:, 0], case.a, case.b, p=case.p)
    return value, *of_points(one)


def sliced(case):
    theta = transport.uniform_directions(
        3, case.x.shape[1], generator=torch.Generator().manual_seed(1)
    )
    theta = theta.to(torch.promote_types(case.x.dtype, torch.float32))
    value = transport.sliced_wasserstein(
        case.x, case.y, case.a, case.b, p=case.p, directions=theta.to(case.x.dtype)
    )
    return value, *of_slices(case, theta.to(case.x.dtype))


def solve(case):
    points = read(case)
    cost = torch.from_numpy(cdist(points.x, points.y) * points.unit).to(case.x.dtype)
    plan = transport.solve(cost, case.a, case.b)
    size = float(cost.double().abs().max()) or 1.0
    value, doubt = optimum(cost.detach().double().numpy() / size, case, points)
    assert plan.marginal_error < 1e-4 + (cost.dtype.itemsize < 4) * torch.finfo(cost.dtype).eps
    return plan.value, value * size, (doubt + 1e-13) * size


def potential(case):
    points = read(case)
    f, g = transport.kantorovich_potential(case.x, case.y, case.a, case.b)
    value = points.a @ f.detach().double().numpy() - points.b @ g.detach().double().numpy()
    largest = max(float(z.double().abs().max()) for z in (f, g))
    expected, doubt = of_points(case._replace(p=1))
    lost = 4 * torch.finfo(case.x.dtype).eps * largest
    return torch.tensor(value, dtype=torch.float64), expected, doubt + lost


def monge(case):
    if len(case.x) != len(case.y):
        case = case._replace(y=case.x.flip(0))
    case = case._replace(a=None, b=None)
    index = transport.monge_map(case.x, case.y, p=case.p)
    assert sorted(index.tolist()) == list(range(len(case.x)))
    points = read(case)
    cost = cdist(points.x, points.y) ** case.p
    mine = float(cost[np.arange(len(cost)), index.numpy()].mean())
    value, doubt = optimum(cost, case, points)
    return torch.tensor(mine, dtype=torch.float64), value, doubt


def entropic_subject(divergence):
    def subject(case):
        points = read(case)
        p = min(case.p, 3)
        cost = cdist(points.x, points.y) ** p
        units = points.unit**p
        epsilon = case.epsilon * (float(cost.mean()) or 1.0)
        function = transport.sinkhorn_divergence if divergence else transport.sinkhorn
        result = function(case.x, case.y, case.a, case.b, epsilon=epsilon * units, p=p)
        value = result if divergence else result.value
        if case.epsilon < 0.05:
            return value, None, None
        expected, doubt = entropic(cost, points.a, points.b, epsilon)
        if divergence:
            for z, w in ((points.x, points.a), (points.y, points.b)):
                within, unsure = entropic(cdist(z, z) ** p, w, w, epsilon)
                expected, doubt = expected - within / 2, doubt + unsure
        # the dual is off by about the marginal error times the range of the potentials
        return value, expected * units, (doubt + 2e-4 * (float(cost.max()) + epsilon)) * units

    return subject


def unbalanced_subject(kind):
    def subject(case):
        points = read(case)
        p = min(case.p, 3)
        cost, units = cdist(points.x, points.y) ** p, points.unit**p
        mean = float(cost.mean()) or 1.0
        epsilon, rho = case.epsilon * mean, 0.5 * mean
        settings = {"epsilon": epsilon * units, "reach": kind(rho * units), "p": p}
        plan = transport.sinkhorn(case.x, case.y, case.a, case.b, **settings)
        if case.epsilon < 0.05:
            return plan.value, None, None
        if kind is transport.KL:
            maps = lambda s: s / (1 + epsilon / rho), lambda f: -rho * np.expm1(-f / rho)
        else:
            maps = lambda s: s.clip(-rho, rho), lambda f: np.minimum(f, rho)
        expected, doubt = unbalanced(cost, points.a, points.b, epsilon, rho, *maps)
        return plan.value, expected * units, (doubt + 2e-4 * (mean + epsilon + rho)) * units

    return subject


def entropic_partial(case):
    """Between the exact value and that of the product plan, whose entropy is 0."""
    points = read(case)
    p = min(case.p, 3)
    cost = cdist(points.x, points.y) ** p
    units, mean = points.unit**p, float(cost.mean()) or 1.0
    given = torch.from_numpy(cost * units)  # which may be below the range of the points' dtype
    epsilon = case.epsilon * mean
    plan = transport.solve_entropic_partial(
        given, case.a, case.b, mass=0.6, epsilon=epsilon * units, max_iterations=2000
    )
    value = float(plan.value.detach()) / units
    if case.epsilon < 0.05 or not plan.converged:
        return plan.value, None, None
    a, b = (torch.from_numpy(w) for w in (points.a, points.b))
    exact = float(transport.solve_partial(torch.from_numpy(cost), a, b, mass=0.6).value)
    entropy = epsilon * (0.6 * np.log(0.6) + 0.4)
    product = 0.6 * float(points.a @ cost @ points.b) + entropy
    rounding = 1e-3 * (mean + epsilon)
    assert exact - rounding <= value <= product + rounding, (exact, value, product)
    return plan.value, None, None


def partial(case):
    """With one more point on each side, at a price that nothing pays between the two."""
    value = transport.partial_wasserstein(case.x, case.y, case.a, case.b, mass=0.6, p=case.p)
    points = read(case)
    cost = cdist(points.x, points.y) ** case.p
    wide = np.zeros((len(cost) + 1, len(cost.T) + 1))
    wide[:-1, :-1], wide[-1, -1] = cost, 3 * cost.max() + 1e-300
    a, b = (np.append(w, 0.4) / 1.4 for w in (points.a, points.b))
    power, doubt = optimum(wide, case._replace(a=case.x), points._replace(a=a, b=b))
    root, doubt = rooted(1.4 * power, 1.4 * doubt, case.p)
    return value, root * points.unit, doubt * points.unit


def kernel_subject(make, formula, unbiased=False, of=None):
    def subject(case):
        kernel = make(case.scale)
        x, y = case.x, case.y
        if min(len(x), len(y)) < 2 and unbiased:
            with pytest.raises(ValueError, match=r"`[xy]`"):
                MMD(kernel, unbiased=True)(x, y)
            return None, None, None
        divergence = MMD(kernel, unbiased=unbiased) if of is None else of(kernel)
        value = divergence(x, y)
        one, two = (z.detach().double().numpy() for z in (x, y))
        pairs = (one, one), (two, two), (one, two)
        blocks = [formula(cdist(*pair) / case.scale) for pair in pairs]
        size = max(float(np.abs(block).max()) for block in blocks) or 1.0
        within = [
            (block.sum() - np.trace(block)) / (len(block) * (len(block) - 1))
            if unbiased
            else block.mean()
            for block in blocks[:2]
        ]
        expected = sum(within) - 2 * blocks[2].mean()
        unit = case.scale if isinstance(kernel, kernels.Energy) else 1.0
        # means of kernel values cancel
        accuracy = 1e-8 if x.dtype == torch.float64 else 1e-5
        return value, expected * unit, accuracy * size * unit

    return subject


def matrix_subject(make, formula):
    """The matrix of a kernel, by its largest deviation."""

    def subject(case):
        kernel = make(case.scale)
        value = kernel(case.x, case.y)
        one, two = (z.detach().double().numpy() for z in (case.x, case.y))
        unit = case.scale if isinstance(kernel, kernels.Energy) else 1.0
        expected = formula(cdist(one, two) / case.scale) * unit
        off = float((value.detach().double() - torch.from_numpy(expected)).abs().max())
        size, tiny = float(np.abs(expected).max()), torch.finfo(value.dtype).tiny
        allowed = 2 * ROUNDING[value.dtype] * size + tiny
        # the whole matrix is held to its tolerance, by its largest deviation
        assert off <= allowed or not np.isfinite(expected).all(), (off, allowed)
        total = value.double().sum()
        return total, float(total.detach()), 0.0

    return subject


def power_subject(make, reference):
    """A p-th power, which overflows where the true one does."""

    def subject(case):
        if not all(torch.isfinite(z).all() for z in (case.x, case.y)):
            return make(case.p)(case.x, case.y), None, None
        expected, doubt = reference(case._replace(a=None, b=None))
        value = make(case.p)(case.x, case.y)
        with np.errstate(over="ignore"):
            power = float(np.float64(expected) ** case.p)
            most = float(np.float64(expected + doubt) ** case.p)
        return value, power, most - power

    return subject


def moments(case):
    if min(len(case.x), len(case.y)) < 2:
        with pytest.raises(ValueError, match=r"`[xy]`"):
            MomentMatching()(case.x, case.y)
        return None, None, None
    value = MomentMatching()(case.x, case.y)
    points = read(case)
    gaps = (
        points.x.mean(0) - points.y.mean(0),
        np.subtract(*(np.atleast_2d(np.cov(z.T)) for z in (points.x, points.y))),
    )
    # samples about a mean are rounded at the size of the coordinates
    lost, total, doubt = 2e-15 * (1 + points.size), 0.0, 0.0
    for gap, unit in zip(gaps, (points.unit**2, points.unit**4)):
        squares = float(np.square(gap).mean())
        total += squares * unit
        doubt += (2 * squares**0.5 * lost + lost**2) * unit
    return value, total, doubt


def cost_subject(cost, formula, degree):
    """A cost of pairs; sets are samples of shape (1, n, d)."""

    def subject(case):
        n = min(len(case.x), len(case.y))
        x, y = case.x[:n], case.y[:n]
        points = read(case._replace(x=x, y=y, a=None, b=None))
        value = cost(x, y).double().sum()
        expected = float(formula(points.x - points.y).sum()) * points.unit**degree
        return value, expected, 0.0

    return subject


def set_subject(make, formula, degree):
    def subject(case):
        n = min(len(case.x), len(case.y))
        x, y = case.x[:n], case.y[:n]
        value = make(case)(x[None], y[None]).sum()
        points = read(case._replace(x=x, y=y, a=None, b=None))
        return value, formula(points, case) * points.unit ** degree(case), 0.0

    return subject


def chamfer(points, case):
    squared = cdist(points.x, points.y) ** 2
    return squared.min(0).mean() + squared.min(1).mean()


def mover(points, case):
    return optimum(cdist(points.x, points.y) ** case.p, case._replace(a=None), points)[0]


def regularised(make):
    """A debiased divergence of order 2 with ε in units of the squared extent."""

    def subject(case):
        points = read(case._replace(a=None, b=None))
        units = points.unit**2
        value = make(case.x, case.y, 0.3 * units)
        pairs = ((points.x, points.y), (points.x, points.x), (points.y, points.y))
        parts = []
        for pair in pairs:
            laws = (np.full(len(z), 1 / len(z)) for z in pair)
            parts.append(entropic(cdist(*pair) ** 2, *laws, 0.3))
        expected = parts[0][0] - (parts[1][0] + parts[2][0]) / 2
        return value, expected * units, (2e-3 * case.x.shape[1] + parts[0][1]) * units

    return subject


def of_costs(case):
    points = read(case)
    cost = cdist(points.x, points.y)
    epsilon = case.epsilon * (float(cost.mean()) or 1.0)
    matrix = torch.from_numpy(cost * points.unit).to(case.x.dtype)
    rounded = matrix.double().numpy() / points.unit
    plan = transport.solve_entropic(matrix, case.a, case.b, epsilon=epsilon * points.unit)
    expected, doubt = entropic(rounded, points.a, points.b, epsilon)
    doubt += 2e-4 * (float(rounded.max()) + epsilon)
    return plan.value, expected * points.unit, doubt * points.unit


def drawn(case):
    """SW_p^p over the directions that a divergence is about to draw."""
    torch.manual_seed(1)
    theta = transport.uniform_directions(3, case.x.shape[1]).to(case.x)
    torch.manual_seed(1)
    return of_slices(case._replace(a=None, b=None), theta)


def quantile(case):
    u, v = case.x[:, 0], case.y[:, 0]
    images = transport.quantile_map(u, v)
    order = np.argsort(u.detach().double().numpy(), kind="stable")
    levels = -(-np.arange(1, len(u) + 1) * len(v) // len(u)) - 1
    assert np.array_equal(
        images.detach().double().numpy()[order], np.sort(v.detach().double().numpy())[levels]
    )
    return images.double().sum(), float(images.detach().double().sum()), 0.0


def discrete(function, formula):
    def subject(case):
        p, q = (
            torch.rand(len(case.x), generator=torch.Generator().manual_seed(k)) for k in (0, 1)
        )
        p, q = (z.double() if w is None else w for z, w in ((p, case.a), (q, case.b)))
        n = min(len(p), len(q))
        p, q = (z[:n] / z[:n].sum() for z in (p, q))
        value = function(p, q)
        laws = (z.double().numpy() / z.double().sum().item() for z in (p, q))
        return value, formula(*laws), 1e-6

    return subject


def xlog(p, q):
    with np.errstate(all="ignore"):
        return float(np.where(p > 0, p * np.log(p / q), 0.0).sum())


def gaussians(function, formula):
    """Between Gaussians with diagonal covariances."""

    def subject(case):
        means = case.x[0], case.y[0]
        spreads = [z[-1].detach().double().abs() / case.scale % 3 + 0.5 for z in (case.x, case.y)]
        covs = [torch.diag((s * case.scale) ** 2).to(case.x.dtype) for s in spreads]
        value = function(means[0], covs[0], means[1], covs[1])
        m0, m1 = (m.detach().double().numpy() for m in means)
        s0, s1 = (np.sqrt(c.double().diagonal().numpy()) for c in covs)
        lost = 0.1 * ROUNDING[torch.promote_types(case.x.dtype, torch.float32)]
        return value, float(formula(m0 - m1, s0, s1)), lost * float(max(s0.max(), s1.max()))

    return subject


def finite(function):
    """No reference: a value that is finite."""

    def subject(case):
        return function(case), None, None

    return subject


def probabilities(case):
    x, y = (z[: min(len(case.x), len(case.y))].double() for z in (case.x, case.y))
    x, y = ((z.detach() / case.scale).remainder(1.0).to(case.x.dtype) for z in (x, y))
    x, y = x.requires_grad_(), y.requires_grad_()
    value = costs.Bernoulli()(x, y).double().sum()
    of_x, of_y = torch.autograd.grad(value, (x, y))
    # the slope in y is up to 1e12
    assert bool(torch.isfinite(of_x).all())
    assert x.dtype == torch.float16 or bool(torch.isfinite(of_y).all())
    value = value.detach()
    x, y = (z.detach().double().numpy() for z in (x, y))
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(y), -100), np.maximum(np.log1p(-y), -100)
    return value, float(-(x * logs[0] + (1 - x) * logs[1]).sum()), 1e-3 * x.shape[0]


KERNELS = {
    "rbf": (lambda s: kernels.RBF(s), lambda r: np.exp(-(r**2) / 2)),
    "imq": (lambda s: kernels.IMQ(s**2), lambda r: 1 / (1 + r**2)),
    "laplace": (lambda s: kernels.Laplace(s), lambda r: np.exp(-r)),
    "rational": (
        lambda s: kernels.RationalQuadratic(s, 0.7),
        lambda r: (1 + r**2 / 1.4) ** -0.7,
    ),
    "energy": (lambda s: kernels.Energy(), lambda r: -r),
    "multiscale": (
        lambda s: kernels.multiscale_imq(s**2),
        lambda r: sum(c / (c + r**2) for c in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)),
    ),
}

SUBJECTS = {
    "wasserstein": wasserstein,
    "wasserstein_1d": line,
    "sliced_wasserstein": sliced,
    "solve": solve,
    "kantorovich_potential": potential,
    "monge_map": monge,
    "sinkhorn": entropic_subject(False),
    "sinkhorn_divergence": entropic_subject(True),
    "sinkhorn with KL": unbalanced_subject(transport.KL),
    "sinkhorn with TV": unbalanced_subject(transport.TV),
    "partial_wasserstein": partial,
    "solve_entropic": of_costs,
    "quantile_map": quantile,
    "max_sliced_wasserstein": finite(
        lambda case: transport.max_sliced_wasserstein(
            case.x, case.y, case.a, case.b, p=case.p, generator=torch.Generator().manual_seed(1)
        )[0]
    ),
    "sliced_wasserstein_estimate": finite(
        lambda case: sum(
            transport.sliced_wasserstein_estimate(case.x, case.y, case.a, case.b, p=case.p)
        )
    ),
    "wasserstein_circle": finite(
        lambda case: transport.wasserstein_circle(
            case.x[:, 0], case.y[:, 0], case.a, case.b, p=case.p, period=case.scale
        )
    ),
    "generalized_sliced_wasserstein": finite(
        lambda case: transport.generalized_sliced_wasserstein(
            case.x, case.y, transport.Circular(case.x.shape[1], 3, radius=case.scale), p=case.p
        )
    ),
    "gromov_wasserstein": finite(
        lambda case: (
            transport.gromov_wasserstein(
                *(torch.cdist(z.double(), z.double()).to(z.dtype) for z in (case.x, case.y))
            ).value
        )
    ),
    "fused_gromov_wasserstein": finite(
        lambda case: (
            transport.fused_gromov_wasserstein(
                *(
                    torch.cdist(z.double(), w.double()).to(z.dtype)
                    for z, w in ((case.x, case.y), (case.x, case.x), (case.y, case.y))
                )
            ).value
        )
    ),
    "partial_gromov_wasserstein": finite(
        lambda case: (
            transport.partial_gromov_wasserstein(
                *(torch.cdist(z.double(), z.double()).to(z.dtype) for z in (case.x, case.y)),
                mass=0.6,
            ).value
        )
    ),
    "solve_entropic_partial": entropic_partial,
    "sliced_gromov_wasserstein": finite(
        lambda case: transport.sliced_gromov_wasserstein(case.x, case.y, directions=3)
    ),
    "total_variation": discrete(transport.total_variation, lambda p, q: np.abs(p - q).sum() / 2),
    "kullback_leibler": discrete(transport.kullback_leibler, xlog),
    "jensen_shannon": discrete(
        transport.jensen_shannon, lambda p, q: (xlog(p, (p + q) / 2) + xlog(q, (p + q) / 2)) / 2
    ),
    "gaussian_wasserstein": gaussians(
        transport.gaussian_wasserstein,
        lambda m, s0, s1: np.sqrt((m**2).sum() + ((s0 - s1) ** 2).sum()),
    ),
    "gaussian_kl": gaussians(
        transport.gaussian_kl,
        lambda m, s0, s1: (np.log(s1 / s0) + (s0**2 + m**2) / (2 * s1**2) - 0.5).sum(),
    ),
    **{f"MMD {name}": kernel_subject(*pair) for name, pair in KERNELS.items()},
    "MMD imq unbiased": kernel_subject(*KERNELS["imq"], unbiased=True),
    **{f"kernel {name}": matrix_subject(*pair) for name, pair in KERNELS.items()},
    "ExactWasserstein": power_subject(lambda p: ExactWasserstein(p=p), of_points),
    "SlicedWasserstein": power_subject(lambda p: div.SlicedWasserstein(3, p=p), drawn),
    "EnergyDistance": kernel_subject(*KERNELS["energy"], of=lambda kernel: div.EnergyDistance()),
    "SinkhornDivergence": regularised(lambda x, y, e: div.SinkhornDivergence(e)(x, y)),
    "CramerWold": finite(lambda case: div.CramerWold(case.scale**2)(case.x, case.y)),
    "MomentMatching": moments,
    "Bernoulli": probabilities,
    "SinkhornSets": regularised(lambda x, y, e: costs.SinkhornSets(e)(x[None], y[None]).sum()),
    "SlicedSets": power_subject(
        lambda p: lambda x, y: costs.SlicedSets(3, p=p)(x[None], y[None]).sum(), drawn
    ),
    "SquaredL2": cost_subject(costs.SquaredL2(), np.square, 2),
    "L2": cost_subject(costs.L2(), lambda z: np.linalg.norm(z, axis=1), 1),
    "L1": cost_subject(costs.L1(), np.abs, 1),
    "Chamfer": set_subject(lambda case: costs.Chamfer(), chamfer, lambda case: 2),
    "EarthMover": set_subject(lambda case: costs.EarthMover(p=case.p), mover, lambda case: case.p),
}
TRANSPORT = tuple(name for name in SUBJECTS if hasattr(transport, name))
"""What refuses NaN and infinity; a divergence, a kernel or a cost may pass them on."""
POWERS = tuple(name for name in SUBJECTS if name not in TRANSPORT)
"""What returns a power, or a sum, and may overflow where it does."""
