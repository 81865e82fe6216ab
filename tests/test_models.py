"""Objectives written out by hand, signs, sampling, and the refusal of what cannot be right."""

import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn
from zoo import AUTOENCODERS, DIM, FLOWS, GENERATORS, RECIPES, model, sample

from monge.adversarial import Learned, MatrixSpectralNorm
from monge.builders import build, settled
from monge.config import Config
from monge.costs import L1, GaussianLikelihood, Scaled, SquaredL2
from monge.divergences import MMD, SlicedWasserstein
from monge.draws import Draws, generator
from monge.kernels import multiscale_imq
from monge.models import VAE, WAE, matchings, pairs, protocols, spherical
from monge.networks import GaussianDecoder, Normal, NormalEncoder
from monge.priors import Gaussian, Uniform

EVERY = pytest.mark.parametrize("recipe", RECIPES)


def plain_wae(divergence=None, weight=10.0, d=5):
    divergence = divergence or MMD(multiscale_imq(2.0 * DIM))
    return WAE(
        nn.Linear(d, DIM),
        nn.Linear(DIM, d),
        Gaussian(DIM),
        divergence,
        cost=SquaredL2(),
        weight=weight,
    )


SHAPES = pytest.mark.parametrize(("kind", "shape"), [("image", (3, 12, 9)), ("vector", (6,))])


@pytest.mark.parametrize("recipe", AUTOENCODERS)
@SHAPES
def test_a_pass_of_an_auto_encoder_has_scalar_terms_and_a_pair_of_codes(recipe, kind, shape):
    if recipe == "vae-bernoulli" and kind == "vector":
        with pytest.raises(ValueError, match="vae-bernoulli needs images"):
            model(recipe, kind, shape)
        return
    wae = model(recipe, kind, shape)
    made = wae(torch.rand(4, *shape), Draws(0, 0, 4))
    assert all(term.shape == () for term in made.terms.values())
    shapes = {"divergence": (4, DIM), "samples": (4, *shape)}
    named = pairs(made)
    assert named.keys() == {one.name for one in matchings(wae)}
    for name, (x, y) in named.items():
        assert x.shape == y.shape == shapes[name]
    assert wae.sample(3).shape == (3, *shape)
    assert wae.reconstruct(torch.rand(2, *shape)).shape == (2, *shape)


@pytest.mark.parametrize("recipe", GENERATORS)
@SHAPES
def test_a_pass_of_a_generator_has_no_terms_and_a_pair_of_samples(recipe, kind, shape):
    generator = model(recipe, kind, shape)
    x = torch.rand(4, *shape)
    terms, (fake, real) = generator(x, Draws(0, 0, 4))
    assert not terms
    assert fake.shape == real.shape == x.shape
    assert generator.sample(3).shape == (3, *shape)
    if isinstance(generator.divergence, Learned):
        assert generator.divergence.inner_loss(fake.detach(), real).shape == ()
    assert generator.divergence(fake, real).shape == ()


def test_a_generator_compares_tables_in_their_standard_units():
    moments = torch.tensor([5.0, -1.0]), torch.tensor([10.0, 0.1])
    config = Config.of("swg")
    found = tuple(tuple(values.tolist()) for values in moments)
    generator = build(config, settled(config, "vector", (2,), samples=100, moments=found))
    x = moments[0] + moments[1] * torch.randn(50, 2)
    _, (fake, real) = generator(x, Draws(0, 0, 50))
    torch.testing.assert_close(real, (x - moments[0]) / moments[1])
    torch.testing.assert_close(
        fake * moments[1] + moments[0],
        generator.decode(Draws(0, 0, 50).rows("prior", generator.prior.sample)),
    )


# Golden values: fixed parameters, a fixed tensor, losses by other means


def fixed(module):
    """Every parameter a small deterministic wave, so that values do not depend on init."""
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(0.3 * torch.sin(torch.arange(p.numel()) + i).view_as(p))
    for one in matchings(module.double()):
        constraint = getattr(one.divergence, "constraint", None)
        for _ in range(200 * isinstance(constraint, MatrixSpectralNorm)):
            one.divergence.project_()  # whose singular vectors are those of the old weights
    return module.eval()


X = torch.sin(torch.arange(40, dtype=torch.float64)).view(8, 5).abs()


def test_wae_objective_by_hand():
    """Σ over elements, mean over samples; λ multiplies the unbiased MMD² of codes and prior."""
    wae = fixed(plain_wae())
    with torch.no_grad():
        terms, (z, target) = wae(X, Draws(0, 0, 8))
    codes = X @ wae.encoder.weight.T + wae.encoder.bias
    decoded = (codes @ wae.decoder.weight.T + wae.decoder.bias).detach()
    total = sum(float((X[i, j] - decoded[i, j]) ** 2) for i in range(8) for j in range(5)) / 8
    assert terms["reconstruction"].item() == pytest.approx(total, rel=1e-12)
    torch.testing.assert_close(z, codes)
    assert torch.equal(target.float(), Draws(0, 0, 8).rows("prior", wae.prior.sample))


# recorded once with torch 2.13; a change of reduction, range, units or draws moves them
GOLDEN = {
    "wae-mmd": {"reconstruction": 6.33099467, "divergence": 2.12050872},
    "wae-gan": {"reconstruction": 6.33099467, "divergence": 0.742025805},
    "alpha-gan": {
        "reconstruction": 6.33099467,
        "divergence": 0.742025805,
        "samples": 0.81772363,
    },
    "wae-wgan-gp": {"reconstruction": 6.33099467, "divergence": -0.0101178458},
    "conditional-wae": {"reconstruction": 3.15811116, "divergence": 0.674053576},
    "swae": {"reconstruction": 6.33099467, "divergence": 1.19611302},
    "max-swae": {"reconstruction": 6.33099467, "divergence": 1.19459713},
    "gswae": {"reconstruction": 6.33099467, "divergence": 1.19910493},
    "max-gswae": {"reconstruction": 6.33099467, "divergence": 1.85745827},
    "sinkhorn-ae": {"reconstruction": 6.33099467, "divergence": 3.30189715},
    "energy-ae": {"reconstruction": 6.33099467, "divergence": 1.46376837},
    "vae": {"reconstruction": 73.4423838, "kl": 0.147469794},
    "vae-bernoulli": {"reconstruction": 42.4803468, "kl": 0.147469794},
    "gan": {"divergence": 0.560445906},
    "wgan": {"divergence": -0.0100319698},
    "wgan-gp": {"divergence": -0.0100319698},
    "swg": {"divergence": 0.120415028},
    "swgan": {"divergence": 0.00408171359},
    "max-swg": {"divergence": 0.00256861698},
    "mmd-generator": {"divergence": 2.69364178},
    "sinkhorn-generator": {"divergence": 7.18054684},
    "flow-matching": {"regression": 92.2832407},
    "drifting": {"divergence": 2.28957747e-05},
}


@EVERY
def test_golden_values_of_each_recipe(recipe):
    wae = fixed(model(recipe))
    x = torch.sin(torch.arange(8 * 64, dtype=torch.float64)).abs().view(8, 1, 8, 8)
    draws = Draws(0, 0, 8)
    made = wae(x, draws)
    values, named = {name: term.item() for name, term in made.terms.items()}, pairs(made)
    for one in matchings(wae):
        with torch.no_grad(), draws.stream("divergence"):
            values[one.name] = one.divergence(*named[one.name]).item()
    assert values == pytest.approx(GOLDEN[recipe], rel=1e-6)


def test_weights_in_the_units_of_other_codes():
    """MNIST S + 200 MMD7 = M + 0.2551 MMD7 and CelebA S + 500 MMD7 = M + 0.0407 MMD7, up to the
    factor of a mean over pixels: the same minimiser."""
    assert pytest.approx(0.2551, abs=1e-4) == 200 / 784
    assert pytest.approx(0.0407, abs=1e-4) == 500 / (64 * 64 * 3)


def test_vae_objective_by_hand():
    """-ELBO in nats: Gaussian log-likelihood and the closed-form KL, summed, mean over samples."""
    encoder = NormalEncoder(nn.Linear(5, 2 * DIM))
    likelihood = GaussianLikelihood(0.5)
    vae = fixed(VAE(encoder, nn.Linear(DIM, 5), Gaussian(DIM), likelihood=likelihood, beta=2.0))
    with torch.no_grad():
        likelihood.log_sigma.fill_(math.log(0.5))
    terms, pair = vae(X, Draws(0, 0, 8))
    assert pair is None
    z = vae.encode(X).rsample(Draws(0, 0, 8))
    log_p = torch.distributions.Normal(vae.decoder(z), 0.5).log_prob(X).sum(1)
    assert terms["reconstruction"].item() == pytest.approx(-log_p.mean().item(), rel=1e-6)
    q = encoder(X)
    assert isinstance(q, Normal)
    q = torch.distributions.Normal(q.mean, (0.5 * q.log_variance).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert terms["kl"].item() == pytest.approx(2 * kl.item(), rel=1e-9)


def test_vae_codes_have_the_law_of_the_encoder():
    encoder = NormalEncoder(nn.Linear(5, 2 * DIM)).double()
    vae = VAE(encoder, nn.Linear(DIM, 5), Gaussian(DIM), likelihood=SquaredL2()).double()
    x = X[:1].expand(20_000, -1)
    z = vae.encode(x).rsample(Draws(0, 0, 20_000))
    law = encoder(X[:1])
    torch.testing.assert_close(z.mean(0), law.mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(z.var(0), law.log_variance[0].exp(), atol=0.03, rtol=0.03)


# Signs


@pytest.mark.parametrize(
    "divergence",
    [MMD(multiscale_imq(2.0 * DIM)), SlicedWasserstein(64)],
    ids=["mmd", "sliced"],
)
def test_one_encoder_step_shrinks_the_mean_of_the_codes(divergence):
    """A penalty with the wrong sign trains as smoothly as one with the right sign."""
    wae = plain_wae(divergence)
    with torch.no_grad():
        wae.encoder.bias.fill_(2.0)
    x = torch.randn(64, 5)
    z, target = wae(x, Draws(0, 0, 64)).pair
    before = z.mean(0).norm()
    wae.divergence(z, target).backward()
    with torch.no_grad():
        for p in wae.encoder.parameters():
            p -= 0.05 * p.grad
    assert wae(x, Draws(0, 0, 64)).pair[0].mean(0).norm() < before


# Sampling


@EVERY
def test_samples_do_not_depend_on_how_they_are_split(recipe):
    wae = model(recipe)
    whole = sample(wae, 7, generator(0))
    split = generator(0)
    torch.testing.assert_close(torch.cat([sample(wae, 3, split), sample(wae, 4, split)]), whole)
    torch.testing.assert_close(sample(wae, 3, generator(0)), whole[:3])


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_sampling_restores_the_mode_of_every_module(recipe, training):
    wae = model(recipe).train(training)
    next(module for module in wae.modules() if not list(module.children())).train(not training)
    modes = [m.training for m in wae.modules()]
    before = {k: v.clone() for k, v in wae.state_dict().items()}
    drawn = sample(wae, 5)
    assert [m.training for m in wae.modules()] == modes
    assert not drawn.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in wae.state_dict().items())


def test_sampling_takes_codes_from_another_prior():
    wae = plain_wae()
    drawn = wae.sample(4, generator(0), prior=Uniform(DIM, 0.5))
    torch.testing.assert_close(drawn, wae.decode(Uniform(DIM, 0.5).sample(4, generator(0))))


@pytest.mark.parametrize("n", [0, -1, 1.5])
def test_sample_size_must_be_a_positive_integer(n):
    with pytest.raises(ValueError, match="`n`"):
        plain_wae().sample(n)


def test_one_prior_drives_kernel_scale_draws_and_sampling():
    wae = model("wae-mmd", prior="uniform")
    assert isinstance(wae.prior, Uniform)
    scales = sorted(kernel.c for kernel in wae.divergence.kernel.kernels)
    assert scales[3] == pytest.approx(wae.prior.spread)
    target = wae(torch.rand(200, 1, 8, 8), Draws(0, 0, 200)).pair[1]
    assert target.abs().max() <= 1
    torch.testing.assert_close(target, Draws(0, 0, 200).rows("prior", wae.prior.sample))


def test_wrong_parts_are_refused():
    with pytest.raises(ValueError, match="`weight`"):
        plain_wae(weight=-1.0)
    with pytest.raises(ValueError, match="`prior` must be a Gaussian"):
        VAE(nn.Linear(5, 6), nn.Linear(3, 5), Uniform(3), likelihood=SquaredL2())
    vae = VAE(nn.Linear(5, 3), nn.Linear(3, 5), Gaussian(3), likelihood=SquaredL2())
    with pytest.raises(ValueError, match="NormalEncoder"):
        vae(torch.randn(4, 5), Draws(0, 0, 4))


# Random decoders: W_c ≤ Σ σ_i² + inf E‖X - G(Z)‖²


def random_decoder(sigma, cost=None, decoder=None):
    decoder = GaussianDecoder(decoder or nn.Linear(DIM, 5), sigma)
    return WAE(
        nn.Linear(5, DIM),
        decoder,
        Gaussian(DIM),
        SlicedWasserstein(8),
        cost=cost or SquaredL2(),
        weight=1.0,
    )


def test_the_terms_of_a_random_decoder_sum_to_the_cost_of_its_draws():
    """E c(x, Y) for Y ~ N(G(z), diag σ²) is c(x, G(z)) + c(0, σ): by 20,000 draws."""
    sigma = torch.tensor([0.1, 0.2, 0.0, 0.5, 1.0])
    wae = random_decoder(sigma, Scaled(SquaredL2(0.5), torch.tensor([1.0, 2.0, 1.0, 0.5, 1.0])))
    x = X.float()
    terms, (z, _) = wae(x, Draws(0, 0, 8))
    y = wae.decode(z) + sigma * torch.randn(20_000, 8, 5)
    direct = wae.cost(x.expand_as(y).flatten(0, 1), y.flatten(0, 1)).mean()
    assert sum(terms.values()).item() == pytest.approx(direct.item(), rel=0.01)


def test_the_bound_may_be_strict_and_is_the_cost_itself_for_a_point():
    """P_X = δ_0 and G = 0: W_c(P_X, P_G) = E‖Y‖² = Σ σ_i², by samples of the model."""
    zero = nn.Linear(DIM, 5)
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    sigma = torch.tensor([0.1, 0.2, 0.3, 0.5, 1.0])
    wae = random_decoder(sigma, decoder=zero)
    terms, _ = wae(torch.zeros(8, 5), Draws(0, 0, 8))
    assert sum(terms.values()).item() == pytest.approx(sigma.square().sum().item(), rel=1e-6)
    drawn = wae.sample(50_000, generator(0))
    assert drawn.square().sum(1).mean().item() == pytest.approx(
        sum(terms.values()).item(), rel=0.02
    )


def test_a_decoder_without_variance_is_the_deterministic_one():
    wae = random_decoder(0.0)
    terms, _ = wae(X.float(), Draws(0, 0, 8))
    assert terms["variance"] == 0
    drawn = generator(0)
    torch.randint(2**62, (), generator=drawn)  # the seed of the decoder's noise
    z = wae.prior.sample(4, drawn)
    torch.testing.assert_close(wae.sample(4, generator(0)), wae.decode(z))


def test_the_first_draws_of_a_random_decoder_have_its_law():
    wae = random_decoder(torch.tensor([0.1, 0.2, 0.3, 0.5, 1.0]))
    drawn = generator(0)
    torch.randint(2**62, (), generator=drawn)  # the seed of the decoder's noise
    means = wae.decode(wae.prior.sample(20_000, drawn))
    noise = wae.sample(20_000, generator(0)) - means
    torch.testing.assert_close(noise.std(0), wae.decoder.sigma, rtol=0.03, atol=0)
    torch.testing.assert_close(wae.sample(20_000, generator(0)), means + noise)
    torch.testing.assert_close(wae.sample(7, generator(0)), (means + noise)[:7])


def test_a_random_decoder_needs_the_squared_cost():
    with pytest.raises(ValueError, match=r"`cost` must be SquaredL2 .* got L1"):
        random_decoder(0.1, L1())


def test_recipes_take_random_encoders_and_decoders():
    wae = model("swae", encoder="random", sigma=0.2)
    x = torch.rand(4, 1, 8, 8)
    assert isinstance(wae.encode(x), Normal)
    terms, _ = wae(x, Draws(0, 0, 4))
    assert terms["variance"].item() == pytest.approx(64 * 0.2**2)
    table = model("swae", "vector", (6,), sigma=0.2)
    assert table(torch.rand(4, 6), Draws(0, 0, 4)).terms["variance"].item() == pytest.approx(0.24)


def test_codes_and_prior_of_different_dimension_are_refused():
    wae = plain_wae()
    wae.prior = Gaussian(DIM + 1)
    with pytest.raises(ValueError, match=r"codes of shape \(8, 3\), `prior` draws"):
        wae(X.float(), Draws(0, 0, 8))


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_weights_must_be_positive(weight):
    with pytest.raises(ValueError, match="`weight` must be positive"):
        plain_wae(weight=weight)


# Paths and traversals


def test_spherical_paths_keep_the_length_and_a_constant_speed():
    a, b = 3 * F.normalize(torch.randn(2, 7, 4, dtype=torch.float64), dim=-1)
    t = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None, None]
    path = spherical(a, b, t)
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[-1], b)
    torch.testing.assert_close(path.norm(dim=-1), torch.full((9, 7), 3.0, dtype=torch.float64))
    steps = path.diff(dim=0).norm(dim=-1)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))


def test_spherical_paths_without_a_great_circle_go_straight():
    a = torch.randn(5, 4)
    for b in (a, 2 * a, -a, torch.zeros(5, 4)):
        t = torch.tensor(0.25)
        torch.testing.assert_close(spherical(a, b, t), torch.lerp(a, b, t))


def test_traversals_move_one_coordinate_at_a_time():
    wae = plain_wae()
    wae.encoder = wae.decoder = nn.Identity()
    z, levels = torch.randn(2, DIM), torch.tensor([-1.0, 0.0, 1.0, 2.0])
    moved = protocols.traverse(wae, z, levels).view(2, DIM, 4, DIM)
    for i in range(2):
        for j in range(DIM):
            for k in range(4):
                expected = z[i].clone()
                expected[j] = levels[k]
                torch.testing.assert_close(moved[i, j, k], expected)


# A life


@EVERY
def test_a_rebuilt_model_with_the_same_weights_is_the_same_model(recipe):
    first, second = model(recipe), model(recipe)
    before = sample(first, 3, generator(0))
    assert not torch.equal(sample(second, 3, generator(0)), before)
    second.load_state_dict(load_tensors(save_tensors(first.state_dict())))
    assert torch.equal(sample(second, 3, generator(0)), before)


@EVERY
def test_a_model_says_what_it_is_made_of_on_one_line(recipe):
    made = model(recipe)
    text = repr(made)
    assert "\n" not in text
    first = "path=LinearPath()" if recipe in FLOWS else f"prior=Gaussian({DIM})"
    assert text.startswith(f"{type(made).__name__}({first}, ")
    if made.divergence is not None:
        assert f"divergence={type(made.divergence).__name__}(" in text
