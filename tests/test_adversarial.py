"""The adversarial divergence: values where they are known, logits in, shapes kept apart."""

import math

import pytest
import torch
from torch import nn

from monge.adversarial import JensenShannon, critic_values
from monge.networks import mlp


class Constant(nn.Module):
    """A critic of the same value everywhere."""

    def __init__(self, value: float):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x):
        return self.value.expand(len(x), 1)


def test_at_equality_the_game_is_worth_minus_log_four():
    """P = Q: the best critic says ½ everywhere, a logit of 0."""
    x = torch.randn(8, 2)
    blind = Constant(0.0)
    assert JensenShannon(blind, saturating=True)(x, x).item() == pytest.approx(-math.log(4))
    assert JensenShannon(blind).inner_loss(x, x).item() == pytest.approx(math.log(4))
    assert JensenShannon(blind)(x, x).item() == pytest.approx(math.log(2))


def test_losses_are_the_papers_with_probabilities_written_out():
    critic = mlp([2, 8, 1]).double()
    x, y = torch.randn(5, 2).double(), torch.randn(7, 2).double() + 1
    fake, real = torch.sigmoid(critic(x)), torch.sigmoid(critic(y))
    value = real.log().mean() + (1 - fake).log().mean()
    torch.testing.assert_close(JensenShannon(critic).inner_loss(x, y), -value)
    torch.testing.assert_close(JensenShannon(critic, saturating=True)(x, y), value)
    torch.testing.assert_close(JensenShannon(critic)(x, y), -fake.log().mean())


def test_optimal_critic_attains_the_jensen_shannon_divergence():
    """Two points with masses p and q: inner loss = log 4 - 2 JS at logit log(q/p)."""
    x = torch.tensor([[0.0]] * 8 + [[1.0]] * 2)  # the model: 0.8, 0.2
    y = torch.tensor([[0.0]] * 3 + [[1.0]] * 7)  # the target: 0.3, 0.7

    class Optimal(nn.Module):
        def forward(self, z):
            return torch.where(z == 0, math.log(0.3 / 0.8), math.log(0.7 / 0.2))

    def kl(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q))

    middle = (0.55, 0.45)
    js = 0.5 * kl((0.8, 0.2), middle) + 0.5 * kl((0.3, 0.7), middle)
    loss = JensenShannon(Optimal()).inner_loss(x, y).item()
    assert loss == pytest.approx(math.log(4) - 2 * js, abs=1e-6)


def test_extreme_logits_stay_finite():
    divergence = JensenShannon(Constant(1e4))
    x = torch.randn(4, 2)
    assert math.isfinite(divergence.inner_loss(x, x).item())
    assert divergence(x, x).item() == 0


def test_one_critic_step_raises_the_real_values_over_the_fake():
    critic = mlp([2, 16, 1])
    divergence = JensenShannon(critic)
    optimiser = torch.optim.SGD(critic.parameters(), 0.1)
    x, y = torch.randn(64, 2), torch.randn(64, 2) + 1

    def gap():
        return (critic(y).mean() - critic(x).mean()).item()

    before = gap()
    divergence.inner_loss(x, y).backward()
    optimiser.step()
    assert gap() > before


@pytest.mark.parametrize("saturating", [True, False])
def test_one_model_step_raises_the_critic_on_its_samples(saturating):
    critic = mlp([2, 16, 1])
    x = torch.randn(64, 2, requires_grad=True)
    JensenShannon(critic, saturating)(x, torch.randn(64, 2)).backward()
    assert critic(x - 0.1 * x.grad).mean() > critic(x).mean()


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_a_critic_may_return_n_or_n_by_one(shape):
    class Reshaped(nn.Module):
        def forward(self, x):
            return x.sum(1).reshape(shape)

    x = torch.randn(6, 3)
    torch.testing.assert_close(critic_values(Reshaped(), x), x.sum(1))


@pytest.mark.parametrize("shape", [(6, 2), (1, 6), (6, 1, 1), (1,), (3,)])
def test_a_critic_may_not_return_anything_else(shape):
    """An (n,) beside an (n, 1) would broadcast to (n, n) and train on nonsense."""

    class Wrong(nn.Module):
        def forward(self, x):
            return torch.zeros(shape)

    with pytest.raises(ValueError, match="a critic must return shape"):
        JensenShannon(Wrong()).inner_loss(torch.randn(6, 3), torch.randn(6, 3))
