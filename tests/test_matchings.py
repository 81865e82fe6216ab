"""Models with several matchings, with one under a name of its own, and with none."""

import math

import pytest
import torch
from torch import Tensor, nn

from monge.adversarial import GradientPenalty, JensenShannon, KantorovichRubinstein
from monge.config import TrainingConfig
from monge.costs import SquaredL2
from monge.data import Batches
from monge.divergences import MMD, SlicedWasserstein
from monge.draws import Draws
from monge.kernels import multiscale_imq
from monge.models import Inner, Matching, Pass, evaluating
from monge.models.base import AutoEncoder
from monge.networks import BatchNorm, mlp
from monge.priors import Gaussian
from monge.training import Trainer, loop
from monge.training.schedule import inner_batches
from monge.training.validation import figure

ROWS, SIZE, DIM = 7, 4, 2


class TwoMatchings(AutoEncoder):
    """Codes match the prior by MMD, and samples match the data by a critic."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(SIZE, 8, bias=False), BatchNorm(8), nn.Tanh(), nn.Linear(8, DIM)
        )
        self.decoder, self.prior, self.cost = mlp([DIM, 8, SIZE]), Gaussian(DIM), SquaredL2()
        self.mmd = MMD(multiscale_imq(4.0))
        # every weight has a gradient: Adam would scale the rounding of a zero one up
        critic = nn.Sequential(nn.Linear(SIZE, 8), nn.Tanh(), nn.Linear(8, 1, bias=False))
        self.critic = KantorovichRubinstein(critic, GradientPenalty())
        self.matchings = (
            Matching("codes", self.mmd, weight=3.0),
            Matching(
                "samples",
                self.critic,
                weight=0.5,
                inner=Inner(lr=1e-2, steps=2, betas=(0.0, 0.9)),
                schedule=lambda done: 2 * done,
            ),
        )

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        z = self.encode(x).mean
        target = draws.rows("prior", self.prior.sample).to(z)
        terms = {"reconstruction": self.cost(x, self.decode(z)).mean()}
        return Pass(terms, {"codes": (z, target), "samples": (self.decode(target), x)})


class Compared(nn.Module):
    """Moved noise against data, under the matchings that are given."""

    def __init__(self, *matchings: Matching, pairs: tuple[str, ...] | None = None):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(DIM))
        self.divergences = nn.ModuleList(one.divergence for one in matchings)
        self.matchings = matchings
        self.pairs = tuple(one.name for one in matchings) if pairs is None else pairs

    def forward(self, x: Tensor, draws: Draws) -> Pass:
        y = draws.normal("noise", x) + self.shift
        return Pass({}, dict.fromkeys(self.pairs, (y, x)))


def made() -> TwoMatchings:
    torch.manual_seed(0)
    return TwoMatchings().double()


def batches(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(ROWS, SIZE, generator=generator).double() for _ in range(count)]


def critic() -> JensenShannon:
    return JensenShannon(mlp([DIM, 4, 1]))


def test_a_model_shows_its_matchings():
    """In place of the divergence and the weight, which it does not have."""
    text = repr(made())
    assert text.startswith(f"TwoMatchings(prior=Gaussian({DIM}), matchings=(codes=MMD(")
    assert "samples=KantorovichRubinstein(" in text
    assert "\n" not in text


def test_the_gradient_is_that_of_the_weighted_sum():
    """Terms + 3 MMD²(codes) + 0.5 · 2 · done · critic(samples), with autograd in one graph."""
    x, done = batches(1)[0], 0.25
    model, other = made(), made()
    trainer = Trainer(model, TrainingConfig(lr=1e-12), seed=5)
    for rate in (model, other):
        rate.critic.requires_grad_(False)  # so that both evaluate the same critic
    terms = trainer.step([x], done=done)
    result = other(x, Draws(5, 0, ROWS))
    codes, samples = other.mmd(*result.pair["codes"]), other.critic(*result.pair["samples"])
    loss = result.terms["reconstruction"] + 3 * codes + 0.5 * 2 * done * samples
    loss.backward()
    assert list(terms) == ["samples inner", "reconstruction", "codes", "samples", "loss"]
    for name, value in {"codes": codes, "samples": samples, "loss": loss}.items():
        torch.testing.assert_close(terms[name], value.detach())
    for p, q in zip(trainer.parameters, other.parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-13)


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    """Of the model and of the critic, with its random points, to 1e-9; and the same terms."""
    whole, accumulated = made(), made()
    expected = Trainer(whole, TrainingConfig()).step(batches(), done=0.5)
    terms = Trainer(accumulated, TrainingConfig(micro_batch=3)).step(batches(), done=0.5)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-9, atol=1e-12)
    for p, q in zip(whole.parameters(), accumulated.parameters()):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-9, atol=1e-12)
    for b, c in zip(whole.buffers(), accumulated.buffers()):
        torch.testing.assert_close(c, b, rtol=1e-9, atol=1e-12)


def test_a_resumed_training_has_the_bits_of_one_that_was_not_stopped():
    whole = Trainer(made(), TrainingConfig(ema=0.9))
    for step in range(6):
        whole.step(batches(), done=step / 6)
        if step == 2:
            weights = {k: v.clone() for k, v in whole.trained.state_dict().items()}
            state = {k: v.clone() for k, v in whole.state().items()}
    resumed = Trainer(made(), TrainingConfig(ema=0.9))
    resumed.restore(weights, state, 3)
    for step in range(3, 6):
        resumed.step(batches(), done=step / 6)
    assert "inner-samples.0.exp_avg" in state
    ends = [one.trained.state_dict() | one.state() for one in (whole, resumed)]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_each_learned_divergence_has_an_optimiser_of_its_own():
    """With its rate, its betas and its number of inner steps; the others follow the config."""
    model = Compared(
        Matching("one", critic(), inner=Inner(lr=0.5, steps=3, betas=(0.1, 0.2))),
        Matching("two", critic()),
        Matching("three", critic(), weight=0.0, inner=Inner(steps=2)),
    )
    trainer = Trainer(model, TrainingConfig(inner_lr=0.25))
    x = torch.randn(100, DIM)
    fetched = loop.fetch(trainer, x, Batches(100, 10, 0))
    assert len(fetched) == 1 + 3
    terms = trainer.step(fetched, decay=0.5)
    assert set(terms) == {
        *("one", "two", "three", "one inner", "two inner", "three inner", "loss")
    }
    taken = {}
    for name, optimiser in trainer.optimisers.items():
        (steps,) = {float(values["step"]) for values in optimiser.state.values()}
        group = optimiser.param_groups[0]
        taken[name] = steps, group["lr"], group["betas"]
    assert taken == {
        "outer": (1, 5e-4, (0.5, 0.999)),
        "inner-one": (3, 0.25, (0.1, 0.2)),
        "inner-two": (1, 0.125, (0.5, 0.999)),
        "inner-three": (2, 0.125, (0.5, 0.999)),
    }


def test_inner_batches_are_as_many_as_the_most_demanding_divergence_needs():
    config = TrainingConfig(inner_steps=2, inner_first=(3, 5))
    for fixed in [(None,), (4,), (4, None), (1, None, 3), ()]:
        counted = [inner_batches(config, step, fixed) for step in range(10)]
        assert [i for numbers in counted for i in numbers] == list(range(sum(map(len, counted))))
    counted = [len(inner_batches(config, step, (4, None))) for step in range(6)]
    assert counted == [5, 5, 5, 4, 4, 4]


def test_an_auto_encoder_with_one_inner_step_shows_its_critics_the_outer_batch():
    model = made()
    data = Batches(100, 10, 0)
    assert len(loop.fetch(Trainer(model), torch.randn(100, SIZE), data)) == 3
    samples = Matching("samples", model.critic)
    model.matchings = (model.matchings[0], samples)
    assert len(loop.fetch(Trainer(model), torch.randn(100, SIZE), data)) == 1


def test_matchings_draw_different_numbers_and_the_only_one_draws_as_a_divergence_does():
    x = torch.randn(ROWS, DIM)

    def values(*names: str) -> dict[str, Tensor]:
        return Trainer(Compared(*(Matching(n, SlicedWasserstein(3)) for n in names))).step([x])

    several, alone = values("one", "two"), values("one")
    assert several["one"] != several["two"]
    assert alone["one"] == values("divergence")["divergence"] != several["one"]


def test_the_only_matching_may_have_another_name():
    """It is logged under it; its optimiser and its inner loss are `inner`."""
    trainer = Trainer(Compared(Matching("samples", critic())))
    terms = trainer.step([torch.randn(ROWS, DIM)])
    assert list(terms) == ["inner", "samples", "loss"]
    assert {name.split(".")[0] for name in trainer.state()} == {"outer", "inner"}


def test_a_model_without_matchings_trains_on_its_terms():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(DIM))

        def forward(self, x: Tensor, draws: Draws) -> Pass:
            return Pass({"square": (x - self.mean).square().sum(1).mean()})

    x = torch.randn(ROWS, DIM) + 3
    for micro in (None, 2):
        model = Mean()
        trainer = Trainer(model, TrainingConfig(lr=0.1, micro_batch=micro))
        for _ in range(300):
            terms = trainer.step([x])
        assert terms["loss"] == terms["square"]
        torch.testing.assert_close(model.mean.detach(), x.mean(0), atol=1e-2, rtol=0)


def test_pairs_and_matchings_of_other_names_are_refused():
    model = Compared(Matching("one", SlicedWasserstein(3)), pairs=("one", "two"))
    with pytest.raises(ValueError, match=r"pairs \['one', 'two'\], but its matchings are \['one'"):
        Trainer(model).step([torch.randn(ROWS, DIM)])
    model = Compared(Matching("one", SlicedWasserstein(3)), pairs=())
    with pytest.raises(ValueError, match=r"pairs \[\], but its matchings are \['one'\]"):
        Trainer(model).step([torch.randn(ROWS, DIM)])


@pytest.mark.parametrize("names", [("one", "one"), ("loss",), ("one", "inner"), ("a.b",), ("",)])
def test_names_that_the_log_cannot_hold_are_refused(names):
    model = Compared(*(Matching(name, SlicedWasserstein(3)) for name in names))
    with pytest.raises(ValueError, match="`matchings` has the names"):
        Trainer(model)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("steps", [0, -1, 1.5, True, "2"]),
        ("lr", [0.0, -1.0, math.nan, math.inf, True, "a", 10**400]),
        ("betas", [0.5, (0.5,), (0.5, 1.0), (0.5, -0.1), "ab", (math.nan, 0.5)]),
    ],
)
def test_inner_settings_that_cannot_be_are_refused(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            Inner(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("name", 1), ("inner", 2), ("schedule", 0.5), ("every", 0), ("every", 1.5)]
)
def test_settings_of_a_matching_that_cannot_be_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        Matching(**{"name": "one", "divergence": SlicedWasserstein(3)} | {name: value})


def test_a_critic_that_would_not_be_saved_is_refused():
    model = Compared(Matching("one", critic()))
    model.divergences = nn.ModuleList()
    with pytest.raises(
        ValueError, match="learned divergence 'one' that is not a module of Compared"
    ):
        Trainer(model)


def test_the_validation_figure_sums_over_matchings():
    """Weights without their schedules, and a sliced distance in place of the critic."""
    model, x = made(), batches(1)[0]
    draws = Draws(3, "validation 0", ROWS)
    with evaluating(model):
        terms, pairs = model(x, draws)
        sliced = SlicedWasserstein(128)(*pairs["samples"], draws=draws.named("samples"))
        expected = terms["reconstruction"] + 3 * model.mmd(*pairs["codes"]) + 0.5 * sliced
    assert figure(model, x, ROWS, seed=3) == pytest.approx(float(expected), rel=1e-12)
