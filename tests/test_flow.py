"""Flow matching: paths, their targets, solvers, samples, likelihoods and refusals."""

import math
import sys

import numpy as np
import pytest
import torch
import zoo
from torch import nn

import monge
from monge import cli
from monge.config import Config, TrainingConfig, override
from monge.draws import Draws, generator
from monge.models import (
    BridgePath,
    FlowMatching,
    LinearPath,
    VariancePreservingPath,
    sampling,
)
from monge.models.flow import with_steps
from monge.models.solvers import Adaptive, Euler, Heun, Midpoint
from monge.networks import CloudVelocity, ImageVelocity, Networks, VectorVelocity
from monge.priors import Gaussian
from monge.runs import Run
from monge.show import card, report
from monge.show.explore.service import Explorer
from monge.training import Trainer
from monge.transport import solve_semidiscrete, wasserstein
from monge.transport.couplings import Exact, Independent, Semidiscrete, Sinkhorn

PATHS = {
    "linear": LinearPath(),
    "linear-sigma": LinearPath(0.2),
    "bridge": BridgePath(0.5),
    "preserving": VariancePreservingPath(),
}
EACH_PATH = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# Paths


@EACH_PATH
def test_a_path_leads_from_noise_to_data(path):
    """x_0 at t = 0 and x_1 at t = 1, up to the noise that the path has there."""
    x0, x1, noise = normal(50, 3), 2 + normal(50, 3, seed=1), normal(50, 3, seed=2)
    for t, end in ((0.0, x0), (1.0, x1)):
        x, u = path.at(x0, x1, torch.full((50,), t, dtype=torch.float64), noise)
        assert x.shape == u.shape == (50, 3)
        width = getattr(path, "sigma", 0.0)
        # the bridge is clamped a thousandth before its ends
        allowed = 0.2 if isinstance(path, BridgePath) else 5 * width + 1e-12
        assert (x - end).abs().max() <= allowed


@EACH_PATH
def test_the_target_is_the_derivative_of_the_point_in_time(path):
    """For fixed ends and noise, by central differences."""
    x0, x1, noise = normal(9, 2), normal(9, 2, seed=1), normal(9, 2, seed=2)
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    later, earlier = (path.at(x0, x1, t + step, noise)[0] for step in (1e-5, -1e-5))
    torch.testing.assert_close(path.at(x0, x1, t, noise)[1], (later - earlier) / 2e-5)


@EACH_PATH
def test_the_regression_finds_the_velocity_of_gaussians(path):
    """Of x_0 ~ N(0, 1) and x_1 ~ N(m, s²), independent, E[u_t | x_t] is linear in x_t: its
    coefficients by least squares over 400,000 draws, against those of the marginals, whose mean
    and deviation it must move: v(x) = ṁ_t + (σ̇_t / σ_t)(x - m_t)."""
    m, s, n = 1.5, 0.6, 400_000
    x0, x1, noise = normal(n), m + s * normal(n, seed=1), normal(n, seed=2)

    def moments(t):
        x, _ = path.at(x0, x1, t * torch.ones(n, dtype=torch.float64), noise)
        return x.mean(), x.std()

    for t in (0.2, 0.5, 0.8):
        x, u = path.at(x0, x1, t * torch.ones(n, dtype=torch.float64), noise)
        design = torch.stack([torch.ones(n, dtype=torch.float64), x], 1)
        offset, slope = torch.linalg.lstsq(design, u).solution
        (mean, deviation), later, earlier = moments(t), moments(t + 1e-4), moments(t - 1e-4)
        rate = (later[1] - earlier[1]) / 2e-4 / deviation
        drift = (later[0] - earlier[0]) / 2e-4
        torch.testing.assert_close(slope, rate, atol=0.02, rtol=0)
        torch.testing.assert_close(offset + slope * mean, drift, atol=0.02, rtol=0)


def test_a_variance_preserving_path_preserves_the_variance():
    x0, x1 = normal(200_000), normal(200_000, seed=1)
    for t in (0.25, 0.5, 0.75):
        x, _ = PATHS["preserving"].at(x0, x1, torch.full((200_000,), t, dtype=torch.float64))
        assert x.var().item() == pytest.approx(1, abs=0.01)


# Solvers


@pytest.mark.parametrize(("solver", "order"), [(Euler, 1), (Midpoint, 2), (Heun, 2)])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)])
def test_solvers_converge_with_their_order(solver, order, ends):
    """On dx/dt = (1 + t) A x, whose flow is exp(A (t + t²/2)): half the step, 2^-order the
    error; forwards and backwards."""
    a = torch.tensor([[-0.3, 1.0], [-1.0, 0.2]], dtype=torch.float64)
    x = normal(5, 2)
    exact = x @ torch.linalg.matrix_exp((1.5 if ends[1] else -1.5) * a).T

    def error(steps):
        return (solver(steps)(lambda y, t: (1 + t) * y @ a.T, x, *ends) - exact).abs().max()

    for steps in (16, 32, 64):
        assert math.log2(error(steps) / error(2 * steps)) == pytest.approx(order, abs=0.15)


def test_the_adaptive_solver_meets_its_tolerance():
    x = normal(5, 2)
    for tolerance in (1e-3, 1e-8):
        found = Adaptive(tolerance)(lambda y, t: -3 * y, x)
        assert (found - math.exp(-3) * x).abs().max() < 10 * tolerance


def test_a_tolerance_that_is_not_met_is_one_line():
    with pytest.raises(ValueError, match=r"`tolerance` 1e-12 is not met in 3 steps") as refused:
        Adaptive(1e-12, most=3)(lambda y, t: torch.sin(50 * y), normal(5, 2))
    assert "\n" not in str(refused.value)


def test_the_adaptive_solver_without_its_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ValueError, match=r"`ode` needs .* pip install 'monge\[ode\]'"):
        Adaptive()(lambda y, t: y, normal(5, 2))


# Networks


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (lambda: VectorVelocity(5, (8, 8)), (5,)),
        (lambda: ImageVelocity((1, 28, 28), (4, 8, 8)), (1, 28, 28)),
        (lambda: ImageVelocity((3, 9, 7), (4, 8)), (3, 9, 7)),
        (lambda: ImageVelocity((1, 1, 1), (32,)), (1, 1, 1)),
        (lambda: CloudVelocity(3, (8, 8)), (20, 3)),
    ],
)
def test_a_velocity_field_has_the_shape_of_its_samples_and_gradients_everywhere(network, shape):
    """Each sample by itself, at its own time."""
    field = network()
    x, t = torch.randn(4, *shape), torch.rand(4)
    v = field(x, t)
    assert v.shape == x.shape
    torch.testing.assert_close(field(x[1:2], t[1:2]), v[1:2], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(field(x, 1 - t), v)
    v.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in field.parameters())


def test_the_velocity_of_a_cloud_does_not_see_the_order_of_its_points():
    field, x, t = CloudVelocity(3, (8, 16)), torch.randn(2, 20, 3), torch.rand(2)
    order = torch.randperm(20)
    torch.testing.assert_close(field(x[:, order], t), field(x, t)[:, order])


# Couplings in the model


def test_an_exact_coupling_keeps_both_samples_and_shortens_the_way():
    flow = FlowMatching(VectorVelocity(2, (8,)), (2,), coupling=Exact())
    x = torch.rand(64, 2)
    x0, x1, _ = flow.pairs(x, Draws(0, 0, 64))
    flow.coupling = Independent()
    other, *_ = flow.pairs(x, Draws(0, 0, 64))
    assert torch.equal(x1, x)
    assert torch.equal(x0.sort(0).values, other.sort(0).values)
    assert (x0 - x1).square().sum() < 0.8 * (other - x1).square().sum()


def test_a_semidiscrete_coupling_pairs_noise_with_the_whole_data_set():
    """The pairs are data of its own, each at most about as often as all others."""
    data = torch.randn(20, 2, generator=generator(0)) + 3
    plan = solve_semidiscrete(Gaussian(2).sample, data, generator=generator(1))
    flow = FlowMatching(VectorVelocity(2, (8,)), (2,), coupling=Semidiscrete(data, plan))
    x0, x1, _ = flow.pairs(torch.zeros(2000, 2), Draws(0, 0, 2000))
    index = torch.cdist(x1, data).argmin(1)
    assert torch.equal(data[index], x1)
    assert (index.bincount(minlength=20) / 2000 - 0.05).abs().max() < 0.03
    assert torch.isfinite(flow(torch.zeros(64, 2), Draws(0, 0, 64)).terms["regression"])
    exact = wasserstein(x0[:500], x1[:500])
    assert (x0[:500] - x1[:500]).square().sum(1).mean().sqrt() < 1.1 * exact


def test_a_bridge_with_entropic_pairs_is_that_of_schroedinger():
    """With ε = 2 σ², and the default ε for other paths."""
    bridge = zoo.model("flow-matching", "vector", (2,), path="sb", sigma=0.5, coupling="sinkhorn")
    assert repr(bridge.coupling) == repr(Sinkhorn(0.5, absolute=True))
    line = zoo.model("flow-matching", "vector", (2,), coupling="sinkhorn")
    assert repr(line.coupling) == repr(Sinkhorn())


def test_the_loss_is_that_of_the_path_written_out():
    flow = FlowMatching(nn.Identity(), (3,))
    flow.network.forward = lambda x, t: t[:, None] * x
    x, draws = torch.rand(8, 3), Draws(3, 5, 8)
    x0 = draws.normal("source", x)
    t = draws.rows("time", lambda n, g: (torch.arange(n) + torch.rand(n, generator=g)) / n)
    xt = (1 - t[:, None]) * x0 + t[:, None] * x
    by_hand = (t[:, None] * xt - (x - x0)).square().sum(1).mean()
    torch.testing.assert_close(flow(x, draws).terms["regression"], by_hand)


# Flows that are known


class Affine(nn.Module):
    """The velocity of the linear path with x_1 = m + A x_0: x_0 is recovered from x_t."""

    def __init__(self, matrix, mean):
        super().__init__()
        self.register_parameter("matrix", nn.Parameter(matrix))
        self.register_parameter("mean", nn.Parameter(mean))

    def forward(self, x, t):
        eye = torch.eye(len(self.mean), dtype=x.dtype)
        at = t[:, None, None]
        x0 = torch.linalg.solve((1 - at) * eye + at * self.matrix, x - t[:, None] * self.mean)
        return self.mean + x0 @ (self.matrix - eye).T


def gaussian(dim, moments=None):
    """A flow from N(0, I) to N(m, A Aᵀ) in straight lines, and that distribution."""
    matrix = torch.eye(dim, dtype=torch.float64) + 0.1 * normal(dim, dim)
    mean = normal(dim, seed=1)
    flow = FlowMatching(Affine(matrix, mean), (dim,), solver=Midpoint(50), moments=moments)
    centre, scale = moments or (torch.zeros(()), torch.ones(()))
    scaled = scale.double().expand(dim)[:, None] * matrix
    law = torch.distributions.MultivariateNormal(
        centre + scale * mean, covariance_matrix=scaled @ scaled.T
    )
    return flow, law


@pytest.mark.parametrize("units", [False, True])
def test_the_log_likelihood_is_that_of_a_gaussian_in_closed_form(units):
    """In the units of the data, too."""
    moments = (torch.tensor([5.0, -1.0, 0.0]), torch.tensor([10.0, 0.1, 1.0])) if units else None
    flow, law = gaussian(3, tuple(m.double() for m in moments) if moments else None)
    x = law.sample((7,))
    found = flow.double().log_prob(x.float() if units else x)
    torch.testing.assert_close(found.double(), law.log_prob(x), atol=2e-3, rtol=0)


def test_the_likelihood_beyond_sixteen_dimensions_is_an_unbiased_estimate():
    """Hutchinson's estimate: its mean over 400 probes is the closed form within its error."""
    flow, law = gaussian(20)
    x = law.sample((1,)).expand(400, -1)
    found = flow.log_prob(x, generator(0))
    assert found.std() > 0.01
    error = found.std() / 20
    assert (found.mean() - law.log_prob(x[0])).abs() < 4 * error


def test_straight_paths_have_no_energy_to_spare_and_curved_ones_do():
    flow, _ = gaussian(3)
    made = flow.transported(50, generator(0))
    assert made.path_energy == pytest.approx(0, abs=1e-9)
    assert made.evaluations == 100
    torch.testing.assert_close(made.samples, flow.sample(50, generator(0)))
    # a rotation by π/2: arcs of length π/2 r, chords of √2 r
    quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]) * math.pi / 2
    flow = FlowMatching(nn.Linear(2, 2, bias=False), (2,), solver=Midpoint(100))
    with torch.no_grad():
        flow.network.weight.copy_(quarter)
    flow.velocity = lambda x, t: flow.network(x)
    energy = flow.transported(50, generator(0)).path_energy
    assert energy == pytest.approx(math.pi**2 / 8 - 1, abs=1e-3)


def test_a_trained_flow_carries_noise_to_the_data():
    """Two far Gaussians of unlike weight: weights, medians and widths of what is drawn."""
    torch.manual_seed(0)
    flow = FlowMatching(VectorVelocity(1, (64, 64)), (1,), coupling=Exact())
    trainer = Trainer(flow, TrainingConfig(lr=3e-3, betas=(0.9, 0.999)))
    left = torch.rand(20_000, generator=generator(0)) < 0.3
    data = torch.where(left, -2.0, 1.0) + 0.2 * torch.randn(20_000, generator=generator(1))
    for k in range(400):
        trainer.step([data[(k * 128) % 19_000 :][:128, None]])
    drawn = flow.sample(4000, generator(2))[:, 0]
    low = drawn < -0.5
    assert low.float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert drawn[low].median().item() == pytest.approx(-2, abs=0.1)
    assert drawn[~low].median().item() == pytest.approx(1, abs=0.1)
    width = drawn[~low].quantile(0.84) - drawn[~low].quantile(0.16)
    assert width.item() == pytest.approx(0.4, abs=0.1)


# Samples


def test_any_number_of_samples_is_drawn_in_batches():
    """Of which one is held at a time."""
    flow = FlowMatching(VectorVelocity(3, (16,)), (3,), solver=Euler(2))
    endless = sampling.samples(flow, 10**12, generator(0))
    first = torch.cat([next(endless), next(endless)])
    torch.testing.assert_close(first, flow.sample(1000, generator(0)))


@pytest.mark.parametrize("solver", [Euler(3), Midpoint(3), Heun(3)])
def test_samples_do_not_depend_on_how_many_are_drawn(solver):
    """Beyond the 500 that are integrated at a time, too."""
    flow = FlowMatching(VectorVelocity(3, (16,)), (3,), solver=solver)
    whole, parts = flow.sample(1203, generator(0)), generator(0)
    split = torch.cat([flow.sample(n, parts) for n in (1, 700, 502)])
    torch.testing.assert_close(split, whole)


def test_adaptive_samples_agree_to_the_tolerance_however_they_are_split():
    flow = FlowMatching(VectorVelocity(3, (16,)), (3,), solver=Adaptive(1e-6))
    whole, parts = flow.sample(60, generator(0)), generator(0)
    split = torch.cat([flow.sample(n, parts) for n in (1, 59)])
    torch.testing.assert_close(split, whole, atol=1e-4, rtol=0)


def test_images_are_clamped_and_tables_come_in_their_units():
    drawn = zoo.model("flow-matching").sample(20, generator(0))
    assert 0 <= drawn.min() < drawn.max() <= 1
    moments = torch.tensor([1000.0, -5.0]), torch.tensor([10.0, 0.01])
    flow = FlowMatching(VectorVelocity(2, (8,)), (2,), moments=moments)
    with torch.no_grad():
        for p in flow.network.body[-1].parameters():
            p.zero_()
    drawn = flow.sample(2000, generator(0))
    torch.testing.assert_close(drawn.mean(0), moments[0], rtol=0.001, atol=0.001)
    torch.testing.assert_close(drawn.std(0), moments[1], rtol=0.1, atol=0)


# Refusals, and the command line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "sb"}, "`sigma` must be positive for the path sb"),
        ({"path": "vp", "sigma": 0.1}, "`sigma` must be left out for the path vp"),
        ({"ode_steps": 0}, "`ode_steps` must be at least 1, got 0"),
        ({"tolerance": 0.0}, "`tolerance` must be positive"),
        ({"coupling": "best"}, "coupling` must be one of independent, exact, sinkhorn"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Config.of("flow-matching", **options).check()


@pytest.mark.parametrize(
    "options",
    [{"path": "sb", "sigma": 0.3}, {"path": "vp"}, {"solver": "heun"}, {"coupling": "sinkhorn"}],
)
def test_every_option_trains(options):
    flow = zoo.model("flow-matching", "vector", (4,), **options)
    terms = Trainer(flow, TrainingConfig()).step([torch.rand(16, 4)])
    assert math.isfinite(terms["loss"].item())
    assert flow.sample(3).shape == (3, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": 2}, r"`shape` must be a Sequence, e.g. \(2,\), got 2"),
        ({"moments": (torch.zeros(2), torch.tensor([1.0, 0.0]))}, "`moments` .* from 0: drop"),
        ({"moments": (torch.zeros(2), torch.tensor([1.0, math.nan]))}, "`moments` must be finite"),
        ({"moments": (torch.zeros(3), torch.ones(3))}, r"`moments` .* over \(2,\)"),
        ({"label_dropout": "none"}, "`label_dropout` must be in"),
        ({"class_prior": [0.5, 0.5]}, "`class_prior` must be a ClassPrior"),
    ],
)
def test_arguments_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        FlowMatching(VectorVelocity(2, (8,)), **{"shape": (2,), **options})


def test_a_flow_takes_arrays_one_time_for_all_and_inference_mode():
    flow, x = FlowMatching(VectorVelocity(2, (8,)), (2,), moments=(0.5, 2.0)), torch.rand(3, 2)
    expected = flow.log_prob(x)
    torch.testing.assert_close(flow.log_prob(x.numpy()), expected)
    with torch.inference_mode():
        torch.testing.assert_close(flow.log_prob(1 * x), expected)
    one = flow.velocity(x, torch.tensor(0.5)).detach()
    torch.testing.assert_close(one, flow.velocity(x, 0.5).detach())
    assert torch.equal(Adaptive()(lambda x, t: x, x, 1.0, 1.0), x)


def test_what_a_flow_does_not_have_is_refused():
    flow = FlowMatching(VectorVelocity(2, (8,)), (2,))
    with pytest.raises(ValueError, match=r"`prior` .* draws codes, which a FlowMatching does not"):
        flow.sample(2, prior=Gaussian(2))
    with pytest.raises(ValueError, match=r"`x` must be samples \(n, 2\), got shape \(3, 4\)"):
        flow.log_prob(torch.rand(3, 4))
    with pytest.raises(
        ValueError, match=r"`t` must be one time or .* 3 samples, got shape \(2,\)"
    ):
        flow.velocity(torch.rand(3, 2), torch.rand(2))
    with pytest.raises(ValueError, match="`x` must be finite"):
        flow.log_prob(torch.full((1, 2), math.nan))
    with pytest.raises(ValueError, match="`noise` is missing"):
        BridgePath(0.5).at(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1))
    with pytest.raises(ValueError, match="`ode_steps` is 5, but Linear integrates no flow"):
        with_steps(nn.Linear(2, 2), 5)
    flow.solver = Adaptive()
    with pytest.raises(ValueError, match=r"`ode_steps` is 5, but the solver Adaptive\("):
        with_steps(flow, 5)
    networks = type("Plain", (Networks,), dict.fromkeys(("encoder", "decoder", "features")))
    with pytest.raises(ValueError, match="`networks` Plain has no method `velocity`"):
        networks((2,), None).velocity()


def test_the_command_line_trains_samples_and_refuses(tmp_path, capsys):
    """Fewer steps are other samples; what integrates no flow has no steps."""
    out, parse = tmp_path / "run", cli.parse
    command = ["train", "flow-matching", "--data", "rings", "--steps", "3", "--out", str(out)]
    parse([*command, "--coupling", "independent", "--solver", "heun", "--ode-steps", "4"]).run()
    run = monge.Run(out)
    assert run.model.solver == Heun(4)
    made = []
    for steps in ([], ["--ode-steps", "4"], ["--ode-steps", "2"]):
        file = tmp_path / "drawn.npy"
        parse(["sample", str(out), "-n", "5", "--out", str(file), *steps]).run()
        made.append(np.load(file))
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert np.array_equal(made[0], run.sample(5, generator(0, "sample")).numpy())
    with pytest.raises(ValueError, match="`ode_steps` must be an integer of at least 1, got 0"):
        parse(["sample", str(out), "--out", str(file), "--ode-steps", "0"]).run()
    with pytest.raises(ValueError, match="`model` FlowMatching has no method `encode`"):
        parse(["sample", str(out), "--out", str(file), "--sampler", "mixture"]).run()
    parse(["export", str(out), "--out", str(tmp_path / "model.pt2")]).run()
    assert (tmp_path / "model.velocity.pt2").exists()
    assert (tmp_path / "model.units.pt2").exists()


def data_of(kind, folder):
    """Noisy images, a table with a category and a column of timestamps, and point clouds."""
    if kind != "vector":
        shape = (60, 1, 8, 8) if kind == "image" else (60, 24, 3)
        np.save(folder / "samples.npy", torch.rand(shape, generator=generator(0)).numpy())
        return str(folder / "samples.npy")
    rows = [f"{1.7e9 + i},{i % 7},{'ab'[i % 2]}" for i in range(60)]
    (folder / "table.csv").write_text("\n".join(["when,day,who", *rows]) + "\n")
    return str(folder / "table.csv")


@pytest.mark.parametrize("kind", ["image", "vector", "cloud"])
def test_a_run_of_every_kind_is_measured_reported_published_and_explored(kind, tmp_path):
    config = Config.of("flow-matching", ode_steps=2)
    for name, value in {"filters": (4, 8), "hidden": (16,), "points": (8, 8)}.items():
        config = override(config, f"network.{name}", value)
    config = override(override(config, "training.steps", 3), "training.batch", 30)
    run = monge.fit("flow-matching", data_of(kind, tmp_path), config, tmp_path / "run", quiet=True)
    assert run.samplers == ["prior"]
    metrics = ["chamfer"] if kind == "cloud" else ["sliced"]
    assert run.evaluate(6, metrics=metrics)["figures"]
    assert report.write(run).stat().st_size > 1000
    card.write(run, tmp_path / "hub")
    drawn = run.sample(6, generator(3, "sample"))
    assert torch.isfinite(drawn).all()
    torch.testing.assert_close(Run(tmp_path / "hub").sample(6, generator(3, "sample")), drawn)
    if kind == "vector":
        frame = run.schema.decode(drawn)
        assert set(frame["who"].to_list()) <= {"a", "b"}
        assert 1.6e9 < frame["when"].min() < frame["when"].max() < 1.8e9
    explorer = Explorer(Run(run.path))
    assert explorer.views == ["sample", *(["clouds"] if kind == "cloud" else []), "run"]
    torch.testing.assert_close(explorer.sample(6, 3, "prior", 1.0), drawn)
    with pytest.raises(ValueError, match="has no `prior`, which a temperature of"):
        explorer.sample(6, 3, "prior", 0.5)
    with pytest.raises(ValueError, match="has no method `encode`, which the flow sampler needs"):
        explorer.sample(6, 3, "flow", 1.0)
