"""Particle flows against closed forms and finite differences; drifting against its algorithm."""

import copy
import math

import numpy as np
import pytest
import torch
import zoo
from torch import nn

import monge
from monge.builders import build
from monge.config import Config, TrainingConfig, override
from monge.draws import Draws
from monge.particles import Drifting, GradientField, LearnedDrifting, MeanShift, velocity
from monge.transport import sinkhorn

PLAIN = {
    "energy": lambda: monge.EnergyDistance(),
    "mmd": lambda: monge.MMD(monge.RBF(2.0), unbiased=False),
    "mmd-unbiased": lambda: monge.MMD(monge.multiscale_imq(4.0)),
    "sinkhorn": lambda: monge.SinkhornDivergence(0.5, tolerance=1e-9),
    "sliced": lambda: monge.SlicedWasserstein(64),
    "exact": lambda: monge.ExactWasserstein(),
}
divergences = pytest.mark.parametrize("name", PLAIN)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def samples(n=40, m=40, dim=2, shift=3.0, seed=0):
    x, y = torch.randn(n + m, dim, dtype=torch.float64, generator=seeded(seed)).split([n, m])
    return x, y + shift


# Velocities


@pytest.mark.parametrize("name", [n for n, r in zoo.DIVERGENCES.items() if not r.regression])
def test_a_velocity_is_minus_n_times_the_gradient(name):
    """By central differences in float64, of every divergence of the zoo."""
    divergence = zoo.DIVERGENCES[name].make().double()
    x, y = zoo.pair()
    draws = Draws(0, 0, len(x))
    given = {"draws": draws} if divergence.random else {}
    found, h = velocity(x, divergence, y, draws=draws), 1e-5
    for i, j in ((0, 0), (3, 2), (6, 1)):
        moved = torch.zeros_like(x)
        moved[i, j] = h
        with torch.no_grad():
            change = divergence(x + moved, y, **given) - divergence(x - moved, y, **given)
        slope = float(change) / (2 * h)
        assert float(found[i, j]) == pytest.approx(-len(x) * slope, rel=1e-4, abs=1e-6)


def test_the_velocity_does_not_depend_on_the_number_of_particles():
    """Every particle and target twice is the same pair of distributions."""
    x, y = samples()
    for divergence in (monge.EnergyDistance(), monge.SinkhornDivergence(0.5, tolerance=1e-11)):
        one = velocity(x, divergence, y)
        two = velocity(x.repeat(2, 1), divergence, y.repeat(2, 1))
        torch.testing.assert_close(two, one.repeat(2, 1), atol=1e-8, rtol=1e-6)


def test_two_diracs_attract_each_other_as_the_kernel_says():
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    # D = 2 ‖x - y‖, of which the gradient has norm 2
    torch.testing.assert_close(velocity(x, monge.EnergyDistance(), y), torch.tensor([[1.2, 1.6]]))
    # D = 2 - 2 exp(-‖x - y‖² / 2σ²)
    pull = 2 * math.exp(-25 / 50) / 25 * (y - x)
    mmd = monge.MMD(monge.RBF(5.0), unbiased=False)
    torch.testing.assert_close(velocity(x, mmd, y), pull)
    # D = ‖x - y‖²
    torch.testing.assert_close(velocity(x, monge.ExactWasserstein(), y), 2 * (y - x))


@divergences
def test_nothing_moves_where_particles_are_the_target(name):
    if name == "mmd-unbiased":  # which leaves out what a sample has in common with itself
        pytest.skip("zero in expectation only")
    x, _ = samples()
    found = velocity(x, PLAIN[name](), x[torch.randperm(len(x), generator=seeded())])
    assert found.abs().max() < 1e-6


def test_a_velocity_leaves_the_divergence_as_it_is():
    critic = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)).double()
    divergence = monge.JensenShannon(critic)
    before = copy.deepcopy(divergence.state_dict())
    x, y = samples()
    velocity(x, divergence, y)
    torch.testing.assert_close(divergence.state_dict(), before, atol=0, rtol=0)
    assert all(p.grad is None and p.requires_grad for p in divergence.parameters())


# Flows


def test_the_flow_of_w2_goes_straight_to_its_matches():
    """x(t) = T + (1 - 2 rate)^t (x - T); half the gradient jumps there at once."""
    x, y = samples()
    match = monge.flow(x, monge.ExactWasserstein(), y, steps=1, rate=0.5).particles
    torch.testing.assert_close(match.sort(0).values, y.sort(0).values)
    moved = monge.flow(x, monge.ExactWasserstein(), y, steps=5, rate=0.1)
    torch.testing.assert_close(moved.particles, match + 0.8**5 * (x - match))
    expected = moved.values[0] * 0.64 ** torch.arange(5, dtype=torch.float64)
    torch.testing.assert_close(moved.values, expected)


def test_the_flow_of_w2_between_gaussians_moves_the_mean_exponentially():
    x, y = samples(300, 200)
    moved = monge.flow(x, monge.ExactWasserstein(), y, steps=7, rate=0.05)
    expected = y.mean(0) + 0.9**7 * (x.mean(0) - y.mean(0))
    torch.testing.assert_close(moved.particles.mean(0), expected)


def test_the_flow_of_a_far_energy_distance_moves_the_mean_at_speed_two():
    """Far away, the attraction of each point is 2 along the line, and repulsion cancels."""
    x, y = samples(shift=1e4)
    moved = monge.flow(x, monge.EnergyDistance(), y, steps=10, rate=0.5).particles
    speed = (moved.mean(0) - x.mean(0)).norm() / (10 * 0.5)
    assert float(speed) == pytest.approx(2, rel=1e-4)


@divergences
def test_the_distance_to_the_target_decreases_with_every_step(name):
    x, y = samples()
    rate = {"mmd": 0.5, "mmd-unbiased": 0.5, "energy": 0.25}.get(name, 0.2)
    # the same slices at each step: one random set of them decreases with its own values
    divergence = PLAIN[name]()
    moved = monge.flow(x, divergence, y, steps=40, rate=rate, record=1, generator=seeded())
    fixed = {"draws": Draws(1, 0, 40)} if divergence.random else {}
    values = torch.stack([divergence(one, y, **fixed) for one in moved.path])
    assert (values.diff() < 1e-3 * values[0]).all()
    assert values[-1] < 0.1 * values[0]
    if name in ("energy", "sinkhorn", "exact"):
        assert (values.diff()[: 30 if name == "energy" else 8] < 0).all()
        torch.testing.assert_close(moved.values, values[:-1])


@pytest.mark.parametrize("name", ["sinkhorn", "sliced", "exact"])
def test_transport_flows_arrive(name):
    x, y = samples()
    moved = monge.flow(x, PLAIN[name](), y, steps=300, rate=0.3, generator=seeded()).particles
    left = monge.transport.wasserstein(moved, y) / monge.transport.wasserstein(x, y)
    assert left < {"exact": 1e-6, "sliced": 0.05, "sinkhorn": 0.1}[name]


def test_critics_are_fitted_in_between():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 32), nn.Softplus(), nn.Linear(32, 1))
    x, y = (z.float() for z in samples(100, 100, shift=1.5))
    for divergence in (
        monge.JensenShannon(copy.deepcopy(critic)),
        monge.KantorovichRubinstein(copy.deepcopy(critic), monge.GradientPenalty()),
        monge.MaxSliced(2),
    ):
        before = copy.deepcopy(divergence.state_dict())
        moved = monge.flow(
            x, divergence, y, steps=150, rate=0.02 if divergence.additive else 0.1,
            inner_steps=3, inner_lr=0.02, generator=seeded(),
        )  # fmt: skip
        change = monge.transport.wasserstein(moved.particles, y)
        assert change < 0.5 * monge.transport.wasserstein(x, y)
        changed = [not torch.equal(divergence.state_dict()[k], v) for k, v in before.items()]
        assert any(changed)
        kept = copy.deepcopy(divergence.state_dict())
        monge.flow(x, divergence, y, steps=2, rate=0.01, inner_steps=0)
        torch.testing.assert_close(divergence.state_dict(), kept, atol=0, rtol=0)


def test_a_flow_is_reproducible_and_leaves_its_arguments():
    x, y = samples(50, 60)
    kept = x.clone(), y.clone()
    options = {"steps": 5, "rate": 0.3, "batch": 20, "record": 2}
    runs = [
        monge.flow(x, monge.SlicedWasserstein(8), y, **options, generator=seeded(s))
        for s in (0, 0, 1)
    ]
    assert torch.equal(runs[0].particles, runs[1].particles)
    assert torch.equal(runs[0].path, runs[1].path)
    assert not torch.equal(runs[0].particles, runs[2].particles)
    assert runs[0].path.shape == (4, 50, 2)  # the start, steps 2 and 4, and the end
    assert torch.equal(runs[0].path[0], x)
    assert torch.equal(runs[0].path[-1], runs[0].particles)
    assert runs[0].values.shape == (5,)
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])
    torch.manual_seed(3)
    one = monge.flow(x, monge.SlicedWasserstein(8), y, **options)
    torch.manual_seed(3)
    two = monge.flow(x, monge.SlicedWasserstein(8), y, **options)
    assert torch.equal(one.particles, two.particles)


def test_batches_of_the_target_lead_to_the_target():
    x, y = samples(50, 500)
    moved = monge.flow(
        x, monge.EnergyDistance(), y, steps=100, rate=0.2, batch=50, generator=seeded()
    )
    assert (moved.particles.mean(0) - y.mean(0)).norm() < 0.5


@pytest.mark.parametrize("name", PLAIN)
def test_ties_move_finitely(name):
    x = torch.zeros(6, 2)
    y = torch.cat([torch.zeros(3, 2), torch.ones(3, 2)])
    moved = monge.flow(x, PLAIN[name](), y, steps=5, rate=0.1, generator=seeded())
    assert torch.isfinite(moved.particles).all()
    assert (moved.particles.mean(0) >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_moves_in_single(dtype):
    """Steps that half precision would round away add up."""
    x, y = (z.to(dtype) for z in samples(20, 20))
    moved = monge.flow(x, monge.EnergyDistance(), y, steps=200, rate=1e-3)
    assert moved.particles.dtype == moved.path.dtype == moved.values.dtype == dtype
    single = monge.flow(x.float(), monge.EnergyDistance(), y.float(), steps=200, rate=1e-3)
    assert torch.equal(moved.particles, single.particles.to(dtype))
    assert velocity(x, monge.EnergyDistance(), y).dtype == dtype


def test_arrays_and_samples_of_any_shape_flow():
    x, y = samples(12, 12, dim=6)
    moved = monge.flow(x, monge.EnergyDistance(), y, steps=3)
    images = monge.flow(
        x.reshape(12, 1, 2, 3).numpy(), monge.EnergyDistance(), y.reshape(12, 1, 2, 3), steps=3
    )
    assert images.path.shape == (2, 12, 1, 2, 3)
    torch.testing.assert_close(images.particles.flatten(1), moved.particles)
    integers = monge.flow(np.arange(10).reshape(5, 2), monge.EnergyDistance(), y[:, :2], steps=1)
    assert integers.particles.dtype == torch.float64


def test_no_graph_is_kept_and_none_is_needed():
    x, y = samples(10, 10)
    with torch.no_grad():
        one = monge.flow(x, monge.EnergyDistance(), y, steps=2).particles
    two = monge.flow(x.requires_grad_(), monge.EnergyDistance(), y, steps=2).particles
    assert torch.equal(one, two)
    assert not two.requires_grad


@pytest.mark.parametrize("divergence", [monge.EnergyDistance(), monge.ExactWasserstein()])
def test_particles_move_in_inference_mode(divergence):
    x, y = samples()
    expected = monge.flow(x, divergence, y, steps=2)
    with torch.inference_mode():
        found = monge.flow(1 * x, divergence, 1 * y, steps=2)
        torch.testing.assert_close(velocity(1 * x, divergence, y), velocity(x, divergence, y))
    torch.testing.assert_close(found.particles, expected.particles)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "`steps` must be an integer of at least 1, got 0"),
        ({"rate": -1}, "`rate` must be positive and finite, got -1"),
        ({"rate": math.nan}, "`rate`"),
        ({"batch": 9}, "`batch` must be at most the 8 of `target`, got 9"),
        ({"batch": 0}, "`batch` must be an integer"),
        ({"record": 0}, "`record`"),
        ({"divergence": monge.MaxSliced(2), "inner_steps": -1}, "`inner_steps` must be an int"),
        ({"divergence": monge.MaxSliced(2), "inner_steps": 1.5}, "`inner_steps` must be an int"),
        ({"divergence": monge.MaxSliced(2), "inner_lr": 0}, "`inner_lr`"),
        ({"divergence": "energy"}, r"`divergence` must be a Divergence, e.g. EnergyDistance\(\)"),
        ({"target": torch.zeros(8, 3)}, "must hold samples of one shape"),
        ({"x": torch.full((4, 2), math.inf)}, "`x` must be finite"),
        ({"target": torch.full((4, 2), math.nan)}, "`target` must be finite"),
        ({"divergence": monge.ExactWasserstein(p=3), "rate": 1e30, "steps": 9}, "`rate` 1e.30"),
    ],
)
def test_bad_arguments_of_a_flow_are_refused_in_one_line(changes, message):
    given = {
        "x": torch.randn(8, 2, generator=seeded()),
        "divergence": monge.EnergyDistance(),
        "target": torch.randn(8, 2, generator=seeded(1)) + 2,
        "steps": 1,
    } | changes
    with pytest.raises(ValueError, match=message) as raised:
        monge.flow(**given)
    assert "\n" not in str(raised.value)


# Drifting


def test_mean_shift_is_the_published_algorithm():
    """Written out sample by sample, from distances in units of their mean."""
    x, y = samples(5, 7)
    (found,) = MeanShift((0.3,))(x, y)
    everyone = torch.cat([y, x])
    distance = (x[:, None] - everyone[None]).norm(dim=2)
    distance = distance / (distance.sum() / (5 * 11))
    weight = (-distance / 0.3).exp()
    weight[torch.arange(5), 7 + torch.arange(5)] = 0
    a = weight / (weight.sum(0) * weight.sum(1)[:, None]).sqrt()
    expected = torch.zeros_like(x)
    for i in range(5):
        for j in range(7):
            for k in range(5):
                expected[i] += a[i, j] * a[i, 7 + k] * (y[j] - x[k])
    torch.testing.assert_close(found, expected)


def test_mean_shift_does_not_depend_on_place_unit_or_coordinates():
    x, y = samples(9, 11)
    field = MeanShift()
    one = field(x, y)
    torch.testing.assert_close(
        field(100 * x + 1e4, 100 * y + 1e4), 100 * one, atol=1e-6, rtol=1e-6
    )
    wide = [torch.cat([z, z, z, z], 1) for z in (x, y)]
    torch.testing.assert_close(field(*wide), torch.cat([one] * 4, 2))


def test_drifts_balance_between_samples_of_one_distribution():
    """Of the order of their noise, far below that between distributions that differ."""
    fields = {
        "mean shift": MeanShift((0.2,)),
        "energy": GradientField(monge.EnergyDistance()),
        "sinkhorn": GradientField(monge.SinkhornDivergence(0.5)),
    }
    x, y = samples(400, 400, shift=0.0)
    for field in fields.values():
        same, other = Drifting(field)(x, y), Drifting(field)(x, 0.3 * y + 2)
        assert same < 0.05 * other


def test_sinkhorn_drifting_is_the_difference_of_barycentric_projections():
    x, y = samples(12, 12)
    plans = [sinkhorn(x, z, epsilon=0.7, tolerance=1e-12).plan for z in (y, x)]
    towards, within = (12 * plan @ z for plan, z in zip(plans, (y, x)))
    (found,) = GradientField(monge.SinkhornDivergence(0.7, tolerance=1e-12))(x, y)
    torch.testing.assert_close(found, 2 * (towards - within), atol=1e-6, rtol=1e-6)


def gradient(divergence, x, y, **options):
    x = x.clone().requires_grad_()
    value = divergence(x, y, **options)
    value.backward()
    return value.detach(), x.grad


def test_one_plain_move_has_the_gradient_of_the_divergence():
    x, y = samples()
    for divergence in (monge.EnergyDistance(), monge.ExactWasserstein()):
        _, plain = gradient(divergence, x, y)
        _, drift = gradient(Drifting(GradientField(divergence), normalised=False), x, y)
        factor = plain.norm() / drift.norm()
        torch.testing.assert_close(factor * drift, plain)


def test_a_normalised_drift_has_one_size_wherever_the_samples_are():
    """The gradient is -2 rate V / (rms(V) n d s); the value tells how far apart they are."""
    field, sizes, values = GradientField(monge.ExactWasserstein()), [], []
    x, y = samples()
    for distance in (0.1, 1.0, 10.0):
        value, drift = gradient(Drifting(field, rate=0.5), x, y - 3 + distance)
        unit = torch.cdist(x, y - 3 + distance).mean() / math.sqrt(2)
        sizes.append(float(drift.norm() * unit * math.sqrt(len(x) * 2)))
        values.append(float(value))
    assert sizes == pytest.approx([1.0] * 3)
    assert values[0] < values[1] < values[2]


def test_several_moves_follow_the_field():
    """W_2² at half the rate three times: 7/8 of the way to the matched points."""
    x, y = samples()
    field = GradientField(monge.ExactWasserstein())
    once = gradient(Drifting(field, 0.5, normalised=False), x, y)[1]
    thrice = gradient(Drifting(field, 0.25, moves=3, normalised=False), x, y)[1]
    torch.testing.assert_close(thrice, 7 / 8 * once)


def test_samples_drift_in_features():
    torch.manual_seed(0)
    features = nn.Linear(2, 3, bias=False).double()
    x, y = samples()
    field = GradientField(monge.EnergyDistance())
    _, found = gradient(Drifting(field, features=features), x, y)
    with torch.no_grad():
        _, inner = gradient_of_features(field, features(x), features(y))
    torch.testing.assert_close(found, inner @ features.weight)
    assert not any(p.requires_grad for p in features.parameters())
    both = Drifting(field, features=[nn.Identity(), features])
    _, plain = gradient(Drifting(field), x, y)
    torch.testing.assert_close(gradient(both, x, y)[1], plain + found)


def gradient_of_features(field, x, y):
    with torch.enable_grad():
        return gradient(Drifting(field), x, y)


def test_random_drifts_follow_their_draws():
    x, y = samples()
    drifting = Drifting(GradientField(monge.SlicedWasserstein(4)), moves=2)
    assert drifting.random
    assert not Drifting(MeanShift()).random
    one, two, other = (
        gradient(drifting, x, y, draws=Draws(seed, 0, len(x)))[1] for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_normalised_drifts_know_no_unit(scale):
    """The value has none, and the gradient is that per unit, in float32."""
    x, y = (z.float() for z in samples())
    for field in (MeanShift(), GradientField(monge.SlicedWasserstein(8))):
        draws = Draws(0, 0, len(x))
        value, drift = gradient(Drifting(field), scale * x, scale * y, draws=draws)
        expected, of_one = gradient(Drifting(field), x, y, draws=draws)
        torch.testing.assert_close(drift * scale, of_one, rtol=1e-3, atol=1e-6)
        assert isinstance(field, GradientField) or float(value) == pytest.approx(float(expected))


def test_drifts_of_coinciding_samples_are_finite():
    for field in (MeanShift(), GradientField(monge.EnergyDistance())):
        for y in (torch.zeros(5, 2), torch.ones(5, 2)):
            value, drift = gradient(Drifting(field), torch.zeros(4, 2), y)
            assert torch.isfinite(value)
            assert torch.isfinite(drift).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_drifts_of_half_precision_are_computed_in_single(dtype):
    x, y = (z.to(dtype) for z in samples())
    value, drift = gradient(Drifting(MeanShift()), x, y)
    single, exact = gradient(Drifting(MeanShift()), x.float(), y.float())
    assert value.dtype == drift.dtype == dtype
    torch.testing.assert_close(value, single.to(dtype))
    torch.testing.assert_close(drift, exact.to(dtype))


def test_a_learned_drift_is_fitted_by_training():
    """Its inner loss is that of its divergence; a plain `Drifting` would leave it untrained."""
    torch.manual_seed(0)
    critic = monge.KantorovichRubinstein(nn.Linear(2, 1).double(), monge.GradientPenalty())
    drifting = LearnedDrifting(critic)
    x, y = samples()
    draws = Draws(0, 0, len(x))
    assert drifting.random
    assert drifting.inner_loss(x, y, draws=draws) == critic.inner_loss(x, y, draws=draws)
    _, drift = gradient(drifting, x, y)
    away = -critic.critic.weight.detach()  # every sample climbs the critic
    torch.testing.assert_close(
        drift / drift.norm(dim=1, keepdim=True), (away / away.norm()).expand(len(x), 2)
    )
    with pytest.raises(ValueError, match="`field` follows KantorovichRubinstein, which must be"):
        Drifting(GradientField(critic))


def fitted(drift, steps, place):
    config = Config.of("drifting", drift=drift, latent=2)
    for name, value in {"training.steps": steps, "training.lr": 3e-3}.items():
        config = override(config, name, value)
    return monge.fit("drifting", "eight-gaussians", config, place / "run", quiet=True)


@pytest.mark.parametrize("drift", ["mean-shift", "mmd", "energy", "sinkhorn", "sliced"])
def test_the_recipe_learns_a_table_by_every_drift(drift, tmp_path):
    run = fitted(drift, 150, tmp_path)
    test = run.source.test[:1000]
    untrained = torch.randn(1000, 2, generator=seeded()) * 0.1
    left = monge.transport.wasserstein(run.sample(1000, seeded()), test)
    assert left < 0.6 * monge.transport.wasserstein(untrained, test)


def test_the_recipe_fits_its_critic_and_keeps_it(tmp_path):
    run = fitted("critic", 5, tmp_path)
    assert math.isfinite(run.metrics()[-1]["inner"])
    again = monge.load(run.path)
    torch.testing.assert_close(again.state_dict(), run.model.state_dict(), atol=0, rtol=0)
    untrained = build(run.config, run.settled).divergence.divergence.critic
    trained = again.divergence.divergence.critic
    pairs = zip(untrained.parameters(), trained.parameters())
    assert any(not torch.equal(one, two) for one, two in pairs)


def test_a_generator_follows_its_critic_to_the_data():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(1, 16), nn.Softplus(), nn.Linear(16, 1))
    learned = LearnedDrifting(monge.KantorovichRubinstein(critic, monge.GradientPenalty()))
    model = monge.ImplicitGenerator(nn.Linear(1, 1), monge.Gaussian(1), learned)
    training = TrainingConfig(batch=64, lr=0.02, inner_lr=0.02, inner_steps=3)
    trainer = monge.Trainer(model, training)
    for _ in range(150):
        trainer.step([torch.randn(64, 1) + 4 for _ in range(4)])
    # a normalised drift never settles where a critic is all it sees
    assert abs(float(model.sample(1000, seeded()).mean()) - 4) < 1.5


def test_bad_options_of_drifting_are_refused():
    wanted = r"`temperatures` must be one or more numbers from 1e-09 to 1e\+09"
    for changes, message in (
        ({"temperatures": ()}, wanted),
        ({"temperatures": (0.1, 0.0)}, wanted),
        ({"moves": 0}, "`moves` must be at least 1"),
        ({"rate": 0.0}, "`rate` must be positive"),
        ({"drift": "kl"}, "drift` must be one of mean-shift, mmd"),
    ):
        with pytest.raises(ValueError, match=message):
            Config.of("drifting", **changes).check()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanShift(()), "`temperatures` must be one number"),
        (lambda: MeanShift((0.1, -1)), "`temperatures` must be positive and finite, got -1"),
        (lambda: GradientField("energy"), "`divergence` must be a Divergence"),
        (lambda: Drifting("mmd"), r"`field` must be a Field, e.g. MeanShift\(\)"),
        (lambda: Drifting(MeanShift(), rate=0), "`rate` must be positive"),
        (lambda: Drifting(MeanShift(), moves=0), "`moves` must be an integer of at least 1"),
        (lambda: Drifting(MeanShift())(torch.ones(1, 2), torch.ones(3, 2)), "`x` must hold at l"),
        (lambda: Drifting(MeanShift())(torch.ones(3, 2), torch.ones(3, 3)), "of one shape"),
    ],
)
def test_bad_arguments_of_drifting_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fields_and_maps_that_are_none_are_refused():
    with pytest.raises(ValueError, match="`temperatures` must be one number or more"):
        MeanShift(0.1)
    for features in (3, [], [3]):
        with pytest.raises(ValueError, match="`features` must be"):
            Drifting(MeanShift(), features=features)


def test_samples_that_are_one_point_do_not_drift():
    """Rounding of differences of barycentres is no drift, which has no scale there."""
    x = torch.tensor([[0.3, -0.7]]).repeat(5, 1)
    assert (MeanShift()(x, x) == 0).all()
    assert Drifting(MeanShift())(x, x) == 0
