"""The step: who is touched by it, what it returns, and what it does with what is not finite."""

import contextlib
import dataclasses
import gc
import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from zoo import AUTOENCODERS, GENERATORS, RECIPES, model

import monge
from monge._core.errors import FailedRun
from monge.adversarial import JensenShannon
from monge.config import Config, TrainingConfig
from monge.costs import SquaredL2
from monge.data import Batches
from monge.divergences import MMD
from monge.draws import generator
from monge.kernels import multiscale_imq
from monge.models import WAE, matchings
from monge.networks import BatchNorm
from monge.priors import Gaussian
from monge.training import Trainer, loop
from monge.training.averages import Average
from monge.training.passes import passed
from monge.training.schedule import inner_batches

EVERY = pytest.mark.parametrize("recipe", RECIPES)


def images(n=16):
    return torch.rand(n, 1, 8, 8)


def stateful_gan():
    """Batch norm in the encoder; batch norm and spectral norm, with buffers, in the critic."""
    encoder = nn.Sequential(nn.Linear(4, 8), BatchNorm(8), nn.ReLU(), nn.Linear(8, 2))
    critic = nn.Sequential(
        spectral_norm(nn.Linear(2, 8)), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)
    )
    decoder, prior = nn.Linear(2, 4), Gaussian(2)
    divergence = JensenShannon(critic)
    return WAE(encoder, decoder, prior, divergence, cost=SquaredL2(), weight=1.0)


def state(wae, of_divergence):
    return {
        name: value.clone()
        for name, value in wae.state_dict().items()
        if name.startswith("divergence.") == of_divergence
    }


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_critic_step_leaves_the_model_alone_and_the_other_way_round():
    """Parameters and buffers, for which batch norm and spectral norm are the trap."""
    wae = stateful_gan()
    trainer = Trainer(wae)
    (objective,) = trainer.objectives
    batch = trainer._batch(torch.randn(16, 4), 0)
    result = passed(trainer.network, batch)

    weights, critic = state(wae, False), state(wae, True)
    objective.inner_gradient(result.pairs["divergence"], batch)
    objective.update()
    assert same(weights, state(wae, False))
    assert not same(critic, state(wae, True))
    assert all(p.grad is None for p in trainer.parameters)

    critic = state(wae, True)
    gradients = [p.grad.clone() for p in objective.parameters]
    trainer._outer_step(result, batch, {"divergence": 1.0})
    assert same(critic, state(wae, True))
    assert all(map(torch.equal, gradients, [p.grad for p in objective.parameters]))
    assert not same(weights, state(wae, False))
    assert all(p.requires_grad for p in wae.parameters())


def test_inner_steps_on_batches_of_their_own_leave_the_model_alone():
    wae = stateful_gan()
    trainer = Trainer(wae, TrainingConfig(lr=1e-9))
    statistics = wae.encoder[1].running_mean.clone()
    outer = torch.randn(16, 4)
    trainer.step([torch.randn(16, 4), torch.randn(16, 4), outer])
    expected = 0.9 * statistics + 0.1 * wae.encoder[0](outer).mean(0)
    torch.testing.assert_close(wae.encoder[1].running_mean, expected, atol=1e-6, rtol=1e-5)


def test_the_shared_batch_shows_the_critic_the_pair_of_the_outer_step():
    """With one batch, the critic sees the codes and prior draws that the model is judged on."""
    seen = []

    class Spy(JensenShannon):
        def inner_loss(self, x, y):
            seen.append((x, y))
            return super().inner_loss(x, y)

        def forward(self, x, y):
            seen.append((x.detach(), y))
            return super().forward(x, y)

    wae = stateful_gan()
    wae.divergence = Spy(nn.Linear(2, 1))
    Trainer(wae).step([torch.randn(16, 4)])
    (x0, y0), (x1, y1) = seen
    assert torch.equal(x0, x1)
    assert torch.equal(y0, y1)
    assert not x0.requires_grad


def test_constraint_is_met_before_the_model_meets_the_critic():
    class Clipped(JensenShannon):
        def project_(self):
            for p in self.parameters():
                p.data.clamp_(-0.01, 0.01)

        def forward(self, x, y):
            assert all(p.abs().max() <= 0.01 for p in self.parameters())
            return super().forward(x, y)

    wae = stateful_gan()
    wae.divergence = Clipped(nn.Linear(2, 1))
    Trainer(wae, TrainingConfig(inner_lr=1.0)).step([torch.randn(16, 4)])


@EVERY
def test_terms_hold_no_graph_and_add_up(recipe):
    wae = model(recipe)
    terms = Trainer(wae).step([images()], done=0.9)
    assert all(not t.requires_grad and t.grad_fn is None for t in terms.values())
    weights = {one.name: one.weight for one in matchings(wae)}
    assert weights.keys() <= terms.keys()
    total = sum(
        weights.get(name, 1.0) * term
        for name, term in terms.items()
        if name != "loss" and not name.endswith("inner")
    )
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-5)


def test_memory_is_flat_over_a_thousand_steps():
    """No tensor outlives its step, in the model's state or in the logs."""
    trainer = Trainer(stateful_gan())
    x = torch.randn(16, 4)

    def tensors():
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    logged = [trainer.step([x]) for _ in range(20)]
    before = tensors()
    for _ in range(1000):
        logged = [*logged[1:], trainer.step([x])]
    assert tensors() == before


@pytest.mark.parametrize("recipe", AUTOENCODERS)
def test_reconstruction_falls(recipe):
    trainer = Trainer(model(recipe), TrainingConfig(lr=3e-3))
    x = images(64)
    values = [trainer.step([x])["reconstruction"].item() for _ in range(60)]
    assert sum(values[-10:]) < sum(values[:10])


@pytest.mark.parametrize("recipe", GENERATORS)
def test_generators_learn_the_level_of_the_data(recipe):
    """Data of one grey level: whatever the game, the samples' mean moves towards it."""
    trainer = Trainer(model(recipe), TrainingConfig(lr=3e-3, inner_lr=1e-2))
    x = 0.9 + 0.02 * torch.randn(64, 1, 8, 8)
    before = (trainer.model.sample(64, generator(0)).mean() - 0.9).abs()
    batches = [x] * (4 if trainer.learned else 1)
    for _ in range(160):
        terms = trainer.step(batches)
    assert all(math.isfinite(value) for value in terms.values())
    assert (trainer.model.sample(64, generator(0)).mean() - 0.9).abs() < 0.8 * before


@EVERY
def test_every_parameter_takes_a_gradient(recipe):
    trainer = Trainer(model(recipe), TrainingConfig())
    trainer.step([images()], done=0.9)
    wanted = [*trainer.parameters, *(p for one in trainer.learned for p in one.parameters)]
    assert all(p.grad is not None for p in wanted if p.requires_grad)
    divergences = {p for one in trainer.objectives for p in one.parameters}
    assert not set(trainer.parameters) & divergences


def test_the_readme_loop_is_the_trainers_step():
    """Pass, weighted sum, backward, Adam: five lines give the same weights as Trainer."""
    from monge.draws import Draws

    def make():
        torch.manual_seed(1)
        return WAE(
            nn.Linear(4, 2),
            nn.Linear(2, 4),
            Gaussian(2),
            MMD(multiscale_imq(4.0)),
            cost=SquaredL2(),
            weight=3.0,
        )

    x = torch.randn(16, 4)
    ours, theirs = make(), make()
    trainer = Trainer(theirs, seed=7)
    optimiser = torch.optim.Adam(ours.parameters(), 1e-3, betas=(0.5, 0.999))
    for step in range(5):
        terms, pair = ours(x, Draws(7, step, len(x)))
        loss = sum(terms.values()) + ours.weight * ours.divergence(*pair)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        trainer.step([x])
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b)


def test_a_term_that_is_not_finite_is_named_with_its_step_before_it_reaches_the_weights():
    wae = stateful_gan()
    trainer = Trainer(wae)
    trainer.step([torch.randn(16, 4)])
    before = {k: v.clone() for k, v in wae.named_parameters() if "divergence" not in k}
    x = torch.randn(16, 4)
    x[3, 2] = math.nan
    with pytest.raises(FailedRun, match=r"step 2: the term '(inner|reconstruction)' is nan"):
        trainer.step([x])
    assert all(torch.equal(before[k], v) for k, v in wae.named_parameters() if k in before)


def test_halved_precision_keeps_divergences_in_float32():
    seen = []

    class Spy(MMD):
        def forward(self, x, y):
            seen.append((x.dtype, y.dtype, torch.is_autocast_enabled("cpu")))
            return super().forward(x, y)

    wae = model("wae-mmd")
    wae.divergence = Spy(multiscale_imq(6.0))
    terms = Trainer(wae, TrainingConfig(precision="bf16")).step([images()])
    assert seen == [(torch.float32, torch.float32, False)]
    assert all(t.dtype == torch.float32 for t in terms.values())


# Batches


@pytest.mark.parametrize(
    ("n", "size"), [(10, 5), (11, 5), (12, 5), (14, 5), (5, 5), (6, 5), (7, 2)]
)
def test_an_epoch_visits_each_sample_once_in_batches_of_two_or_more(n, size):
    batches = Batches(n, size, seed=0)
    for epoch in range(3):
        steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
        cut = [batches.outer(step) for step in steps]
        assert sorted(torch.cat(cut).tolist()) == list(range(n))
        assert min(map(len, cut)) >= 2
        assert all(len(c) == size for c in cut[:-1])


def test_one_sample_too_many_joins_the_batch_before_it():
    sizes = [len(Batches(11, 5, 0).outer(i)) for i in range(2)]
    assert sizes == [5, 6]


@EVERY
def test_a_data_set_of_k_batches_and_one_sample_trains(recipe):
    wae, batches = model(recipe), Batches(9, 4, 0)
    trainer = Trainer(wae, TrainingConfig(batch=4))
    x = images(9)
    for _ in range(2 * batches.per_epoch):
        trainer.step(loop.fetch(trainer, x, batches))


def test_inner_batches_are_others_than_the_outer_ones():
    batches = Batches(100, 10, 0)
    assert not torch.equal(batches.inner(0), batches.outer(0))
    trainer = Trainer(stateful_gan(), TrainingConfig(inner_steps=3))
    assert len(loop.fetch(trainer, torch.randn(100, 4), batches)) == 4
    trainer = Trainer(stateful_gan(), TrainingConfig(inner_steps=1))
    assert len(loop.fetch(trainer, torch.randn(100, 4), batches)) == 1


def test_the_first_steps_may_have_more_inner_ones():
    """WGAN: 100 critic steps before each of the first 25 of the generator, then 5; the numbers of
    the batches are a function of the step alone."""
    config = Config.of("wgan").training
    counted = [inner_batches(config, step) for step in range(40)]
    assert [len(numbers) for numbers in counted] == [100] * 25 + [5] * 15
    assert [i for numbers in counted for i in numbers] == list(range(25 * 100 + 15 * 5))


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="`batch` is 11 but there are 10"):
        Batches(10, 11, 0)


def test_pretraining_needs_codes(tmp_path):
    trainer, batches = Trainer(model("vae"), TrainingConfig(pretrain=2)), Batches(16, 4, 0)
    with pytest.raises(ValueError, match="VAE has no method `codes`, which `pretrain` needs"):
        loop.run(trainer, images(), batches, 4, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("recipe", "settings", "reason"),
    [
        ("vae", {"inner_steps": 2}, "`inner_steps` is 2, but this VAE has no critic: leave it"),
        (
            "swae",
            {"inner_first": (3, 2)},
            r"`inner_first` is \(3, 2\), but this WAE has no critic",
        ),
        ("wae-gan", {"inner_steps": 2}, None),
    ],
)
def test_inner_steps_that_nothing_takes_are_refused(recipe, settings, reason, tmp_path):
    config = dataclasses.replace(
        Config.of(recipe), training=TrainingConfig(batch=8, steps=1, **settings)
    )
    refused = pytest.raises(ValueError, match=reason) if reason else contextlib.nullcontext()
    with refused:
        monge.fit(recipe, images(), config, out=tmp_path / "run", quiet=True)


def test_the_loop_gives_the_share_done_to_the_schedules_of_weights(tmp_path):
    shares = []

    class Spy(Trainer):
        def step(self, batches, decay=1.0, done=0.0):
            shares.append(done)
            return super().step(batches, decay, done)

    trainer = Spy(model("wae-mmd"), TrainingConfig(batch=4))
    loop.run(trainer, images(), Batches(16, 4, 0), 5, tmp_path, quiet=True)
    assert shares == [0.0, 0.2, 0.4, 0.6, 0.8]


def test_an_average_of_weights_in_half_precision_is_refused():
    """Steps of 1e-3 of a change are lost in it."""
    with pytest.raises(ValueError, match="`ema` averages weights of at least float32"):
        Average(nn.Linear(2, 2).half(), 0.999)
