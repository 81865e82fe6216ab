"""The preset `paper`: the published layers, counts, initial weights, rates, noise and losses."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import monge
from monge.adversarial import LogPriorCritic
from monge.builders import build, settled
from monge.config import Config, TrainingConfig, override
from monge.data import as_floats, load
from monge.data.batches import Batches
from monge.divergences import MomentMatching
from monge.draws import Draws, seed_of, stream, truncated_normal
from monge.models import EncoderPretraining
from monge.networks.paper import Down, Up, paper_decoder, paper_encoder
from monge.priors import Gaussian
from monge.training.schedule import decay

MNIST, CELEBA = (1, 28, 28), (3, 64, 64)
LATENT = {MNIST: 8, CELEBA: 64}


def published(recipe: str, shape: tuple[int, ...]):
    """The configuration of a preset and its untrained model."""
    name = "mnist" if shape == MNIST else "faces.zip"
    config = Config.of(recipe, "paper", name)
    with stream(0, "initial weights"):
        return config, build(config, settled(config, "image", shape, samples=60_000))


def shapes(network: nn.Module, x: torch.Tensor) -> list[tuple[int, ...]]:
    """What each layer with weights, but no normalisation, makes of one sample."""
    seen = []
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.register_forward_hook(lambda layer, given, made: seen.append(made.shape[1:]))
    with torch.no_grad():
        network.eval()(x)
    return [tuple(shape) for shape in seen]


@pytest.mark.parametrize(
    ("shape", "encoder", "decoder"),
    [
        (
            MNIST,
            [(128, 14, 14), (256, 7, 7), (512, 4, 4), (1024, 2, 2), (8,)],
            [(7 * 7 * 1024,), (512, 14, 14), (256, 28, 28), (1, 28, 28)],
        ),
        (
            CELEBA,
            [(128, 32, 32), (256, 16, 16), (512, 8, 8), (1024, 4, 4), (64,)],
            [(8 * 8 * 1024,), (512, 16, 16), (256, 32, 32), (128, 64, 64), (3, 64, 64)],
        ),
    ],
)
def test_layers(shape, encoder, decoder):
    latent = LATENT[shape]
    assert shapes(paper_encoder(shape, latent), torch.rand(1, *shape)) == encoder
    assert shapes(paper_decoder(shape, latent), torch.randn(1, latent)) == decoder


def numbers(*pairs: tuple[int, int]) -> int:
    """Weights and biases of layers (inputs of one output, outputs)."""
    return sum((inputs + 1) * outputs for inputs, outputs in pairs)


def test_parameter_counts():
    """By the sizes of the published tensors; a normalisation has two numbers a filter."""
    down = [(16 * 1, 128), (16 * 128, 256), (16 * 256, 512), (16 * 512, 1024)]
    encoder = numbers(*down, (4 * 1024, 8)) + 2 * (128 + 256 + 512 + 1024)
    up = [(8, 49 * 1024), (16 * 1024, 512), (16 * 512, 256), (16 * 256, 1)]
    decoder = numbers(*up) + 2 * (512 + 256)
    critic = numbers((8, 512), (512, 512), (512, 512), (512, 512), (512, 1))
    _, model = published("wae-gan", MNIST)
    parts = (model.encoder, model.decoder, model.divergence)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [encoder, decoder, critic]

    down = [(25 * 3, 128), (25 * 128, 256), (25 * 256, 512), (25 * 512, 1024)]
    encoder = numbers(*down, (16 * 1024, 64)) + 2 * (128 + 256 + 512 + 1024)
    up = [(64, 64 * 1024), (25 * 1024, 512), (25 * 512, 256), (25 * 256, 128), (25 * 128, 3)]
    decoder = numbers(*up) + 2 * (512 + 256 + 128)
    critic = numbers((64, 1024), (1024, 1024), (1024, 1024), (1024, 1024), (1024, 1))
    _, model = published("wae-gan", CELEBA)
    parts = (model.encoder, model.decoder, model.divergence)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [encoder, decoder, critic]


@pytest.mark.parametrize("shape", [MNIST, CELEBA])
def test_initial_weights(shape):
    """N(0, 0.01²), for convolutions truncated at two deviations (deviation 0.88); biases 0."""
    _, model = published("wae-gan", shape)
    truncated = 1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))
    for layer in model.modules():
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            continue
        w, n = layer.weight.detach(), layer.weight.numel()
        expected = 0.01 * (math.sqrt(truncated) if isinstance(layer, Down) else 1.0)
        assert abs(w.mean()) < 5 * expected / math.sqrt(n)
        assert w.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * n))
        assert (w.abs().max() <= 0.02) == isinstance(layer, Down)
        assert not layer.bias.any()


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("side", [6, 7])
def test_strided_convolution_begins_where_the_published_one_does(kernel, side):
    """Out ⌈side / 2⌉; the padding is as small as can be, the odd pixel of it at the end."""
    layer, x = Down(1, 1, kernel), torch.randn(1, 1, side, side)
    out = -(-side // 2)
    before = max((out - 1) * 2 + kernel - side, 0) // 2
    expected = torch.zeros(out, out)
    for i in range(out):
        for j in range(out):
            for a in range(kernel):
                for b in range(kernel):
                    row, column = 2 * i + a - before, 2 * j + b - before
                    if 0 <= row < side and 0 <= column < side:
                        expected[i, j] += layer.weight[0, 0, a, b].item() * x[0, 0, row, column]
    torch.testing.assert_close(layer(x)[0, 0], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_transposed_convolution_is_the_adjoint(kernel, stride):
    """<conv(x), y> = <x, up(y)> for the convolution that halves (or keeps) the sides."""
    up = Up(3, 2, kernel, stride)
    x, y = torch.randn(1, 2, 12, 12), torch.randn(1, 3, 12 // stride, 12 // stride)
    around = (kernel - stride) // 2, kernel - stride - (kernel - stride) // 2
    made = F.conv2d(F.pad(x, around * 2), up.weight, stride=stride)
    torch.testing.assert_close((made * y).sum(), (x * up(y)).sum(), rtol=1e-4, atol=1e-5)


def test_settings():
    """The published numbers, on the scale of images in [0, 1]: 0.05 Σ on [-1, 1] is 0.2 Σ."""
    mmd, gan = (Config.of(recipe, "paper", "mnist") for recipe in ("wae-mmd", "wae-gan"))
    assert (mmd.options.weight, mmd.options.scale, mmd.options.noise, mmd.latent) == (
        10.0,
        0.05,
        0.01,
        8,
    )
    assert (gan.training.rate, gan.training.inner_rate, gan.training.epochs) == (1e-3, 5e-4, 100)
    mmd, gan = (Config.of(recipe, "paper", "faces.zip") for recipe in ("wae-mmd", "wae-gan"))
    assert (mmd.options.weight, mmd.options.scale, mmd.options.noise, mmd.latent) == (
        100.0,
        0.2,
        0.005,
        64,
    )
    assert (mmd.training.rate, gan.training.rate, gan.training.inner_rate) == (1e-3, 3e-4, 1e-3)
    assert (mmd.training.epochs, mmd.data.size, mmd.data.channels) == (50, 64, "colour")
    for config in (mmd, gan):
        assert (config.training.batch, config.training.betas) == (100, (0.5, 0.999))
    swae, swg = (Config.of(recipe, "paper", "mnist") for recipe in ("swae", "swg"))
    assert (swae.options.directions, swae.latent, swae.training.batch) == (50, 2, 500)
    assert (swae.training.optimiser, swae.training.rate) == ("rmsprop", 1e-3)
    assert (swg.options.directions, swg.latent, swg.prior) == (10_000, 100, "uniform")
    assert (swg.training.batch, swg.training.lr, swg.training.schedule) == (64, 1e-4, None)


def test_rates():
    """Halved after 30 epochs, a tenth after 50, a hundredth after 100; or smoothly down."""
    training = Config.of("wae-mmd", "paper", "mnist").training
    rates = {e: decay(training, 7 * e + 6, 7, 7 * 120) for e in (0, 29, 30, 49, 50, 99, 100)}
    assert rates == {0: 1, 29: 1, 30: 0.5, 49: 0.5, 50: 0.1, 99: 0.1, 100: 0.01}
    training = Config.of("wae-mmd", "paper", "faces.zip").training
    assert [decay(training, step, 7, 100) for step in (0, 50, 100)] == pytest.approx(
        [1, 0.1, 0.01]
    )
    assert decay(Config.of("swae").training, 200, 1, 200) == 1


def test_rates_of_torch():
    """Warm-up, cosine and step are those of torch's own schedulers."""
    parts = torch.optim.lr_scheduler
    steps, per_epoch = 40, 5

    def theirs(make):
        optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
        scheduler = make(optimiser)
        rates = []
        for _ in range(steps):
            rates.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            scheduler.step()
        return rates

    for settings, make in (
        ({"warmup": 8}, lambda o: parts.LinearLR(o, 1 / 8, total_iters=7)),
        ({"schedule": "cosine"}, lambda o: parts.CosineAnnealingLR(o, steps)),
        (
            {"schedule": "step", "drop_every": 3},
            lambda o: parts.StepLR(o, 3 * per_epoch, gamma=0.1),
        ),
    ):
        config = TrainingConfig(**settings)
        ours = [decay(config, step, per_epoch, steps) for step in range(steps)]
        assert ours == pytest.approx(theirs(make), rel=1e-6)


def test_input_noise_is_truncated_and_leaves_the_target_and_the_evaluation_clean():
    drawn = truncated_normal((200_000,), torch.Generator().manual_seed(0))
    assert drawn.abs().max() <= 2
    truncated = 1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))
    assert drawn.var().item() == pytest.approx(truncated, rel=0.01)

    config = override(Config.of("wae-mmd"), "noise", 0.01)
    model = build(config, settled(config, "image", (1, 8, 8), samples=100)).train()
    seen, x = [], torch.rand(50, 1, 8, 8)
    model.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    target = []
    model.cost.register_forward_pre_hook(lambda module, given: target.append(given[0]))
    model(x, Draws(0, 0, 50))
    model.eval()(x, Draws(0, 0, 50))
    noise = seen[0] - x
    assert 0.0085 < noise.std() < 0.009
    assert noise.abs().max() <= 0.0201
    assert torch.equal(seen[1], x)
    assert all(torch.equal(given, x) for given in target)


def test_pretraining_matches_two_moments_with_the_encoder_alone():
    config = Config.of("wae-mmd")
    model = build(config, settled(config, "image", (1, 8, 8), samples=100)).train()
    decoder = [p.clone() for p in model.decoder.parameters()]
    stage = EncoderPretraining(model, MomentMatching())
    trainer = monge.training.Trainer(stage, config.training)
    x = as_floats(load(Config().data).train[:500])
    first, *_, last = [trainer.step([x])["divergence"].item() for _ in range(100)]
    assert last < 0.2 * first
    assert all(torch.equal(a, b) for a, b in zip(decoder, model.decoder.parameters()))
    assert {id(p) for p in trainer.parameters} == {id(p) for p in model.encoder.parameters()}


def test_pretraining_needs_an_encoder_a_prior_and_codes():
    """A model without them is refused in one line that names what is missing."""

    class Codes(torch.nn.Module):
        def codes(self, x, draws):
            return x, x

    for model, missing in (
        (Codes(), "Codes has no module `encoder` and no `prior`, which `pretrain` needs"),
        (torch.nn.Identity(), "no module `encoder` and no `prior` and no method `codes`"),
    ):
        with pytest.raises(ValueError, match=missing):
            EncoderPretraining(model, MomentMatching())


def test_pretraining_stops_under_a_tenth_and_is_logged_with_its_stage(tmp_path):
    config = Config.of("wae-mmd")
    for path, value in {
        "training.steps": 3,
        "training.pretrain": 200,
        "training.pretrain_batch": 400,
        "training.log_every": 1,
    }.items():
        config = override(config, path, value)
    rows = monge.fit("wae-mmd", "digits", config, tmp_path / "run", quiet=True).metrics()
    stage = [row for row in rows if row.get("stage") == "pretraining"]
    assert [row["stage_step"] for row in stage] == list(range(1, len(stage) + 1))
    moments = [row["moments"] for row in stage]
    assert moments[-1] < 0.1 <= min(moments[:-1], default=1)
    assert [row["step"] for row in rows if "stage" not in row] == [1, 2, 3]


def test_the_critic_of_faces_is_told_the_priors_density():
    """(n,) + (n,), where the released code adds (n, 1) and (n,) to (n, n)."""
    prior = Gaussian(64)
    _, model = published("wae-gan", CELEBA)
    critic = model.divergence.critic
    assert isinstance(critic, LogPriorCritic)
    z = torch.randn(5, 64)
    expected = critic.network(z)[:, 0] + prior.log_prob(z)
    torch.testing.assert_close(critic(z), expected)
    assert not isinstance(published("wae-gan", MNIST)[1].divergence.critic, LogPriorCritic)


def waved(module: nn.Module) -> nn.Module:
    """Every parameter a small deterministic wave."""
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(0.2 * torch.sin(1.7 * torch.arange(p.numel()) + i).view_as(p))
    return module


# recorded once with torch 2.13; a change of reduction, range, units or layers moves them
GOLDEN = {
    ("wae-mmd", MNIST): {"reconstruction": 4.896575, "divergence": 2.131713},
    ("wae-gan", MNIST): {"reconstruction": 4.896575, "divergence": 0.05296793},
    ("wae-mmd", CELEBA): {"reconstruction": 310.4341, "divergence": 2.257797},
    ("wae-gan", CELEBA): {"reconstruction": 310.4341, "divergence": 64.17289},
}


@pytest.mark.parametrize(("recipe", "shape"), GOLDEN)
def test_golden_losses_on_a_fixed_tensor(recipe, shape):
    _, model = published(recipe, shape)
    waved(model).eval()
    x = torch.sin(torch.arange(4 * math.prod(shape))).abs().view(4, *shape)
    draws = Draws(0, 0, 4)
    with torch.no_grad(), draws.stream("divergence"):
        terms, pair = model(x, draws)
        values = {name: term.item() for name, term in terms.items()}
        values["divergence"] = model.divergence(*pair).item()
    y = model.decode(model.encode(x).mean).detach()
    scale = {MNIST: 0.05, CELEBA: 0.2}[shape]
    assert values["reconstruction"] == pytest.approx(
        scale * float((x - y).square().sum()) / 4, rel=1e-5
    )
    assert values == pytest.approx(GOLDEN[recipe, shape], rel=1e-4)


RECORDED = Path(__file__).parents[1] / "benchmarks" / "paper.json"


def test_the_first_loss_of_twenty_recorded_steps_on_mnist(real_data):
    """The losses of benchmarks/paper.json, made there by a whole run."""
    rows = json.loads(RECORDED.read_text())["wae-mmd on mnist"]
    assert [row["step"] for row in rows if "stage" not in row] == list(range(1, 21))
    config, model = published("wae-mmd", MNIST)
    source = load(
        override(override(config, "data.dir", str(real_data)), "data.name", "mnist").data
    )
    stage = EncoderPretraining(model.train(), MomentMatching())
    seed = seed_of(0, "pretraining")
    x = as_floats(source.train[Batches(60_000, 1000, seed).outer(0)])
    draws = Draws(seed, 0, 1000)
    with torch.no_grad(), draws.stream("network"):
        pair = stage(x, draws).pair
    assert MomentMatching()(*pair).item() == pytest.approx(rows[0]["moments"], rel=1e-3)


def test_data_without_published_networks_are_refused():
    config = Config.of("wae-mmd", "paper", "faces.zip")
    with pytest.raises(ValueError, match=r"`preset` paper has networks for .*\(3, 32, 32\)"):
        build(config, settled(config, "image", (3, 32, 32), samples=100))
    with pytest.raises(ValueError, match=r"`preset` paper is for mnist, .* got data 'digits'"):
        Config.of("wae-mmd", "paper", "digits")
