"""What can be chosen in Python can be chosen on the command line, and wrong parts are named."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from monge import cli
from monge.adversarial import (
    FeatureSliced,
    GradientPenalty,
    JensenShannon,
    KantorovichRubinstein,
    LogPriorCritic,
    MaxGeneralizedSliced,
    WeightClipping,
    ZeroCentredPenalty,
)
from monge.builders import build, settled
from monge.config import Config, from_json, read_config, to_json
from monge.costs import L1, L2, Bernoulli, ElasticNet, GaussianLikelihood, Scaled, SquaredL2
from monge.divergences import (
    MMD,
    EnergyDistance,
    ExactWasserstein,
    GeneralizedSlicedWasserstein,
    SinkhornDivergence,
    SlicedWasserstein,
)
from monge.draws import generator
from monge.inference import mean_field
from monge.kernels import RBF
from monge.models import VAE, WAE, ConditionalWAE, ImplicitGenerator
from monge.networks import mlp
from monge.networks.codes import GaussianDecoder, NormalEncoder
from monge.priors import Gaussian, Mixture, Ring
from monge.transport import Circular, wasserstein


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*argv):
        """The exit code, stdout and stderr of `monge` with arguments."""
        monkeypatch.setattr(sys, "argv", ["monge", *map(str, argv)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (stop.value.code, *capsys.readouterr())

    return run


def built(recipe, kind="image", shape=(1, 8, 8), **settings):
    config = Config.of(recipe, **settings).check()
    moments = (tuple([1.0] * 4), tuple([2.0] * 4)) if kind == "vector" else None
    return build(config, settled(config, kind, shape, samples=100, moments=moments))


# priors


@pytest.mark.parametrize(
    ("settings", "spread"),
    [
        ({"prior": "gaussian", "prior_scale": 2.0}, 2 * 6 * 2**2),
        ({"prior": "uniform", "prior_radius": 3.0}, 2 * 6 * 3**2 / 3),
        ({"prior": "sphere"}, 2),
        ({"prior": "mixture"}, 2 * (1 + 6 * 0.1**2)),
        (
            {
                "prior": "mixture",
                "prior_components": 3,
                "prior_radius": 2.0,
                "prior_scale": 0.5,
            },
            2 * (2**2 + 6 * 0.5**2),
        ),
        ({"prior": "ring", "prior_inner": 0.5, "latent": 2}, 1 + 0.5**2),
        ({"prior": "disk", "latent": 2}, 1),
    ],
)
def test_priors_have_the_sizes_that_are_asked_for(settings, spread):
    """Their spread E‖z - z'‖² in closed form; the mean of all is 0."""
    prior = built("wae-mmd", **{"latent": 6, **settings}).prior
    assert prior.spread == pytest.approx(spread, rel=1e-5)
    z = prior.sample(4000, torch.Generator().manual_seed(0))
    assert z.mean(0).abs().max() < 5 * math.sqrt(spread / 4000)
    assert 2 * z.var(0).sum() == pytest.approx(spread, rel=0.05)


def test_a_mixture_has_its_components_on_a_circle():
    prior = built("swae", prior="mixture", prior_components=4, latent=3).prior
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    torch.testing.assert_close(prior.means, expected, atol=1e-6, rtol=0)
    assert prior.weights.tolist() == [0.25] * 4


@pytest.mark.parametrize(
    "settings",
    [
        {"prior": "uniform", "prior_scale": 1.0},
        {"prior": "gaussian", "prior_radius": 1.0},
        {"prior": "disk", "prior_inner": 0.5},
        {"prior": "ring", "prior_components": 3},
        {"prior_scale": -1.0},
        {"prior": "ring", "prior_inner": 1.0},
        {"prior": "mixture", "prior_components": 0},
        {"prior": "mixture", "latent": 1},
    ],
)
def test_parameters_of_other_priors_are_refused(settings):
    with pytest.raises(ValueError, match=f"`{list(settings)[-1]}` must be"):
        Config.of("wae-mmd", **settings).check()


# costs


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (None, SquaredL2),
        ("squared-l2", SquaredL2),
        ("l2", L2),
        ("l1", L1),
        ("elastic-net", ElasticNet),
        ("bernoulli", Bernoulli),
    ],
)
@pytest.mark.parametrize("recipe", ["wae-mmd", "conditional-wae"])
def test_images_have_the_cost_that_is_asked_for(recipe, name, kind):
    assert type(built(recipe, cost=name).cost) is kind


def test_epsilon_is_a_share_of_the_spread_of_the_prior():
    divergence = built("sinkhorn-ae", latent=3, epsilon=0.25).divergence
    assert divergence.epsilon == pytest.approx(0.25 * 2 * 3)


def test_the_critic_of_codes_has_a_penalty_in_units_of_the_prior():
    one = built("wae-gan", latent=3, prior_scale=2.0, penalty=0.5).divergence.constraint
    assert one.weight == pytest.approx(0.5 * 2.0**2)
    assert not isinstance(
        built("alpha-gan", latent=3, penalty=0).divergence.constraint, ZeroCentredPenalty
    )


def test_the_costs_of_tables_are_in_standard_units():
    model = built("wae-mmd", "vector", (4,), cost="l1")
    assert isinstance(model.cost, Scaled)
    x, y = torch.zeros(1, 4), torch.tensor([[2.0, -4, 6, 0]])
    assert model.cost(x, y).item() == pytest.approx(1 + 2 + 3)


@pytest.mark.parametrize(
    ("kind", "shape", "settings", "named"),
    [
        ("vector", (4,), {"cost": "bernoulli"}, "`cost` bernoulli is for values in"),
        ("vector", (4,), {"cost": "chamfer"}, "`cost` 'chamfer' is for point clouds"),
        ("image", (1, 8, 8), {"cost": "l1", "scale": 2.0}, "`scale` must be left out"),
        ("image", (1, 8, 8), {"cost": "l2", "sigma": 0.1}, "`cost` must be SquaredL2"),
        ("cloud", (20, 3), {"cost": "l1"}, "`cost` must be one of chamfer"),
    ],
)
def test_costs_of_other_kinds_are_refused(kind, shape, settings, named):
    with pytest.raises(ValueError, match=named):
        built("wae-mmd", kind, shape, **settings)


# kernels


def seven(squared, spread=12.0):
    return sum(s * spread / (s * spread + squared) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        (None, seven),
        ("imq", seven),
        ("rbf", lambda squared: math.exp(-squared / 24)),
        ("imq-near", lambda squared: seven(squared) + 16 * math.exp(-squared / 1.2)),
    ],
)
def test_codes_are_compared_by_the_kernel_that_is_asked_for(name, by_hand):
    """Of codes in six dimensions, whose spread E‖z - z'‖² is 12."""
    kernel = built("wae-mmd", kernel=name, latent=6).divergence.kernel
    for squared in (0.0, 0.7, 12.0):
        found = kernel.of_squared(torch.tensor([squared], dtype=torch.float64)).item()
        assert found == pytest.approx(by_hand(squared), rel=1e-9)


def test_a_near_kernel_sees_gaps_to_which_wide_ones_are_blind():
    """Of eight clusters with the mean and the covariance of the prior N(0, I) in ten dimensions,
    in deviations of MMD² at equality."""

    g, a, seen = generator(0), 0.95, {}

    def prior():
        return torch.randn(1000, 10, generator=g)

    def clusters():
        z, sides = prior(), 2.0 * torch.randint(0, 2, (1000, 3), generator=g) - 1
        return torch.cat([a * sides + math.sqrt(1 - a * a) * z[:, :3], z[:, 3:]], 1)

    for name in ("imq", "imq-near"):
        mmd = built("wae-mmd", kernel=name, latent=10).divergence
        apart = torch.stack([mmd(clusters(), prior()) for _ in range(10)])
        equal = torch.stack([mmd(prior(), prior()) for _ in range(10)])
        seen[name] = (apart.mean() / equal.std()).item()
    assert seen["imq"] < 2 < 4 < seen["imq-near"]


# slices


@pytest.mark.parametrize("slicer", ["circular", "polynomial", "neural"])
@pytest.mark.parametrize("recipe", ["gswae", "max-gswae"])
def test_codes_are_sliced_along_the_curves_that_are_asked_for(recipe, slicer):
    made = built(recipe, slicer=slicer).divergence.slicer
    assert type(made).__name__ == slicer.capitalize()
    assert made.slices == (8 if recipe == "max-gswae" else 64)
    assert built("max-gswae", slices=3).divergence.slicer.slices == 3
    if slicer == "polynomial":
        assert built(recipe, slicer=slicer, degree=5).divergence.slicer.degree == 5
    for degree in (2, -1) if slicer == "polynomial" else (5,):
        with pytest.raises(ValueError, match="`degree` must be"):
            built(recipe, slicer=slicer, degree=degree)


# the command line


@pytest.mark.parametrize(
    ("recipe", "flags", "stored"),
    [
        (
            "wae-mmd",
            ["--prior", "mixture", "--prior-components", 4, "--cost", "l1"],
            {"prior": "mixture", "prior_components": 4},
        ),
        ("gswae", ["--slicer", "polynomial", "--prior", "uniform", "--prior-radius", 2], {}),
        ("max-gswae", ["--slicer", "neural", "--slices", 3], {}),
        ("vae", ["--prior-scale", 2], {"prior_scale": 2.0}),
        ("swg", ["--prior", "ring", "--prior-inner", 0.5], {"prior_inner": 0.5, "latent": None}),
    ],
)
def test_each_is_a_flag_that_help_tells_and_the_run_stores(
    command, tmp_path, recipe, flags, stored
):
    code, text, _ = command("train", recipe, "--help")
    assert code == 0
    assert all(flag in text for flag in flags[::2])
    out = tmp_path / "run"
    argv = ("train", recipe, "--data", "digits", "--steps", 3, "--out", out, *flags)
    code, _, err = command(*argv)
    assert (code, err) == (0, "")
    config, facts = read_config(out)
    assert {name: getattr(config, name) for name in stored} == stored
    assert from_json(to_json(config, facts)) == (config, facts)
    assert command("sample", out, "-n", 4, "--out", tmp_path / "x.npy")[0] == 0


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["wae-mmd", "--prior", "uniform", "--prior-scale", 2], "`prior_scale` must be left out"),
        (["vae", "--prior", "mixture"], "`prior` must be a Gaussian"),
        (["wae-mmd", "--cost", "chamfer"], "`cost` 'chamfer' is for point clouds"),
        (["gswae", "--degree", 5], "`degree` must be left out for circular"),
    ],
)
def test_bad_combinations_are_one_line_and_leave_no_run(command, tmp_path, flags, named):
    code, _, err = command("train", *flags, "--steps", 3, "--out", tmp_path / "run")
    assert code == 2
    assert err.startswith("monge: error: ")
    assert named in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture
def pair(tmp_path):
    """Two samples in the plane and their weights, in files."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(20, 2)) + 1
    a, b = rng.integers(0, 5, 30), rng.random(20)
    for name, array in (("x", x), ("y", y), ("a", a), ("b", b)):
        np.save(tmp_path / f"{name}.npy", array)
    np.savetxt(tmp_path / "a.csv", a)
    return x, y, a / a.sum(), b / b.sum()


@pytest.mark.parametrize("file", ["a.npy", "a.csv"])
def test_weights_are_read_from_files_and_divided_by_their_sum(command, tmp_path, pair, file):
    x, y, a, b = map(torch.from_numpy, pair)
    argv = ("distance", tmp_path / "x.npy", tmp_path / "y.npy", "--method", "exact", "--json")
    weights = ("--weights-a", tmp_path / file, "--weights-b", tmp_path / "b.npy")
    code, out, _ = command(*argv, *weights)
    assert code == 0
    assert json.loads(out)["value"] == pytest.approx(float(wasserstein(x, y, a, b)), rel=1e-9)
    uniform = json.loads(command(*argv)[1])["value"]
    assert uniform == pytest.approx(float(wasserstein(x, y)), rel=1e-9)
    assert abs(uniform - json.loads(out)["value"]) > 1e-3


@pytest.mark.parametrize("method", cli.distance.WEIGHTED)
def test_a_weight_is_a_number_of_copies(command, tmp_path, pair, method):
    """A sample with integer weights is one with as many copies of each point."""
    x, *_ = pair
    counts = np.load(tmp_path / "a.npy")
    np.save(tmp_path / "copies.npy", x.repeat(counts, 0))
    more = ["--epsilon", 0.5] if method == "sinkhorn" else []
    argv = ("--method", method, "--json", *more)
    values = [
        json.loads(command("distance", *files, *argv)[1])["value"]
        for files in (
            (tmp_path / "x.npy", tmp_path / "y.npy", "--weights-a", tmp_path / "a.npy"),
            (tmp_path / "copies.npy", tmp_path / "y.npy"),
        )
    ]
    rel = 1e-2 if method in ("max-sliced", "max-gsliced") else 1e-3  # of ascents from draws
    assert values[0] == pytest.approx(values[1], rel=rel)


def test_the_optimal_map_is_written(command, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", (x + 100)[rng.permutation(40)])
    files = (tmp_path / "x.npy", tmp_path / "y.npy", "--method", "exact")
    assert command("distance", *files, "--map", tmp_path / "map.npy")[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "map.npy"), x + 100)
    # on the line, of unlike sizes and of integers beyond 2^53
    u, v = rng.permutation(10)[:, None], 10**18 + np.arange(5)[:, None]
    np.save(tmp_path / "x.npy", u + 10**18)
    np.save(tmp_path / "y.npy", v)
    assert command("distance", *files, "--map", tmp_path / "map.npy")[0] == 0
    images = np.load(tmp_path / "map.npy")
    assert images.dtype == np.int64
    assert (images - 10**18).tolist() == (u // 2).tolist()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--directions", 0], "`--directions` must be at least 2"),
        (["--method", "gsliced", "--directions", -3], "`--directions` must be at least 1"),
        (["--method", "mmd", "--weights-a", "a.npy"], "`--weights-a` is for exact, w1"),
        (["--method", "gromov", "--weights-b", "b.npy"], "not for --method gromov"),
        (["--method", "exact", "--weights-a", "b.npy"], "must hold 30 weights"),
        (["--method", "exact", "--weights-a", "x.npy"], "must hold 30 weights"),
        (["--method", "exact", "--weights-a", "negative.npy"], "must be at least 0"),
        (["--method", "exact", "--weights-a", "none.npy"], "none.npy"),
        (["--slicer", "neural"], "`--slicer` is for gsliced, max-gsliced"),
        (["--method", "exact", "--map", "map.txt"], "`--map` must end in .npy"),
        (["--method", "sliced", "--map", "map.npy"], "`--map` is for exact, w1"),
        (["--method", "exact", "--map", "m.npy", "--weights-a", "a.npy"], "`--map` is between"),
        (["--method", "exact", "--map", "m.npy"], "equally many"),
    ],
)
def test_flags_that_a_method_does_not_heed_are_named(
    command, tmp_path, pair, monkeypatch, flags, named
):
    np.save(tmp_path / "negative.npy", np.linspace(-1, 1, 30))
    monkeypatch.chdir(tmp_path)
    code, out, err = command("distance", "x.npy", "y.npy", *flags)
    assert (code, out) == (2, "")
    assert err.startswith("monge: error: ")
    assert named in err


def test_settings_of_the_computation_are_ignored_where_there_are_none(
    command, pair, tmp_path, monkeypatch
):
    """So that a loop over methods may give them all."""
    monkeypatch.chdir(tmp_path)
    settings = "--directions", 8, "--epsilon", 0.5, "--seed", 3, "--p", 2
    for method in ("exact", "mmd", "max-sliced", "sinkhorn", "gsliced"):
        code, _, err = command("distance", "x.npy", "y.npy", "--method", method, *settings)
        assert (code, err) == (0, "")


def test_a_map_is_not_written_over_a_sample(command, pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "x.npy").read_bytes()
    code, _, err = command("distance", "x.npy", "y.npy", "--method", "exact", "--map", "x.npy")
    assert (code, (tmp_path / "x.npy").read_bytes()) == (2, before)
    assert "is one of the samples" in err


def test_bytes_of_images_are_not_compared_with_rows(command, tmp_path, monkeypatch):
    """The ones are divided by 255, the others are not."""
    monkeypatch.chdir(tmp_path)
    bytes_ = np.random.default_rng(0).integers(0, 256, (10, 4, 4), dtype=np.uint8)
    np.save("x.npy", bytes_)
    np.save("y.npy", bytes_.reshape(10, 16))
    code, _, err = command("distance", "x.npy", "y.npy", "--method", "exact")
    assert code == 2
    assert "in one layout" in err


def test_a_result_beyond_float64_is_an_error(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, shift in (("x.npy", 0.0), ("y.npy", 1.0)):
        np.save(name, 1e160 * (np.random.default_rng(0).normal(size=(9, 2)) + shift))
    code, _, err = command("distance", "x.npy", "y.npy", "--method", "energy")
    assert code == 2
    assert "beyond float64: rescale them" in err


# parts of a wrong type


NETWORK, PRIOR, COST = mlp([4, 2]), Gaussian(2), SquaredL2()
CONDITIONAL = {"mask": torch.ones, "size": 2, "weight": 1.0}


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: MMD("rbf"), r"`kernel` must be a Kernel, e\.g\. RBF\(1\.0\), got 'rbf'"),
        (lambda: MMD(RBF), r"`kernel` must be a Kernel, .* got the class RBF"),
        (lambda: SlicedWasserstein(directions=0), "`directions` must be an integer .* got 0"),
        (lambda: SlicedWasserstein(directions="x"), "`directions` must be an integer .* got 'x'"),
        (lambda: SlicedWasserstein(p="2"), "`p` must be a finite number .* got '2'"),
        (lambda: ExactWasserstein(p=None), "`p` must be a finite number .* got None"),
        (lambda: SinkhornDivergence("auto"), "`epsilon` must be positive .* got 'auto'"),
        (lambda: GeneralizedSlicedWasserstein("circular"), "`slicer` must be a Slicer"),
        (lambda: MaxGeneralizedSliced(Circular), "`slicer` must be a Slicer"),
        (lambda: JensenShannon("critic"), "`critic` must be a Module"),
        (lambda: KantorovichRubinstein(NETWORK, "clip"), "`constraint` must be a Constraint"),
        (lambda: KantorovichRubinstein(NETWORK, WeightClipping), "got the class WeightClipping"),
        (lambda: KantorovichRubinstein(None, GradientPenalty()), "`critic` must be a Module"),
        (lambda: GradientPenalty("10"), "`weight` must be positive"),
        (lambda: FeatureSliced(NETWORK, None), "`head` must be a Module"),
        (lambda: LogPriorCritic(NETWORK, "gaussian"), "`prior` must be a Gaussian or a Mixture"),
        (lambda: NormalEncoder("mlp"), "`network` must be a Module"),
        (lambda: GaussianDecoder(None, 0.1), "`network` must be a Module"),
        (lambda: RBF("1"), "must be positive .* got '1'"),
        (lambda: Gaussian(2, "wide"), "`scale` must be positive"),
        (lambda: Ring("0"), r"`inner` must be in \[0, 1"),
        (lambda: GaussianLikelihood("1"), "`sigma` must be positive"),
        (lambda: Scaled(COST, "ab"), "`scale` must be a tensor"),
        (lambda: Scaled(COST, [1.0, -1.0]), "`scale` must be positive"),
        (lambda: Mixture([[0.0]], [[[1.0]]], [[1.0]]), "`weights` must have shape"),
        (lambda: SquaredL2()(None, torch.ones(2, 2)), "`x` must be a tensor"),
        (lambda: MMD(RBF(1.0))(torch.ones(2, 2), None), "`y` must be a tensor"),
        (lambda: mean_field(None, torch.eye(2)), "`mean` must be a tensor"),
        (lambda: JensenShannon(NETWORK)(torch.ones(0, 2), torch.ones(1, 2)), "at least one"),
        (lambda: ImplicitGenerator(NETWORK, "gaussian", EnergyDistance()), "`prior` must be"),
        (lambda: ImplicitGenerator(NETWORK, PRIOR, "mmd"), "`divergence` must be a Divergence"),
        (lambda: VAE(None, NETWORK, PRIOR, likelihood=GaussianLikelihood()), "`encoder` must be"),
        (lambda: VAE(NETWORK, NETWORK, PRIOR, likelihood="l2"), "`likelihood` must be a Module"),
        (lambda: VAE(NETWORK, NETWORK, PRIOR, likelihood=COST, beta="1"), "`beta` must be"),
    ],
)
def test_a_part_of_a_wrong_type_is_named_with_a_right_one(make, named):
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize("part", ["encoder", "decoder", "prior", "divergence", "cost"])
@pytest.mark.parametrize("kind", [WAE, ConditionalWAE])
def test_a_wrong_part_of_an_auto_encoder_is_named(kind, part):
    parts = {
        "encoder": NETWORK,
        "decoder": NETWORK,
        "prior": PRIOR,
        "divergence": EnergyDistance(),
        "cost": COST,
        **({"weight": 1.0} if kind is WAE else {**CONDITIONAL, "summary": NETWORK}),
    }
    assert isinstance(kind(**parts), nn.Module)
    for wrong in ("x", None, type(parts[part])):
        with pytest.raises(ValueError, match=f"`{part}` must be a .*, e.g. .*, got "):
            kind(**parts | {part: wrong})


def test_a_mixture_takes_lists_and_names_what_is_no_number():
    means, covariances = [[0.0, 0], [1, 1]], [[[1.0, 0], [0, 1]]] * 2
    mixture = Mixture(means, covariances, [0.25, 0.75])
    tensors = map(torch.tensor, (means, covariances, [0.25, 0.75]))
    draws = [m.sample(5, torch.Generator().manual_seed(0)) for m in (mixture, Mixture(*tensors))]
    assert torch.equal(*draws)
    assert Mixture(np.zeros((1, 2)), np.eye(2)[None], [1]).dim == 2
    for wrong, named in (
        ((means, covariances, ["a", "b"]), "`weights` must hold real numbers"),
        (([[0.0, 0], [1]], covariances, [0.5, 0.5]), "`means` must hold numbers, in rows"),
        (([0.0, 1], covariances, [0.5, 0.5]), "`means` must have shape"),
        ((means, covariances, [0.5, 0.6]), "`weights` must be at least 0 and sum to 1"),
    ):
        with pytest.raises(ValueError, match=named):
            Mixture(*wrong)
