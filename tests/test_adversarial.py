"""The adversarial divergence: values where they are known, logits in, shapes kept apart."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from zoo import DIVERGENCES, LEARNED, pair

from monge.adversarial import (
    Constraint,
    GradientPenalty,
    JensenShannon,
    KantorovichRubinstein,
    MatrixSpectralNorm,
    MaxSliced,
    Relativistic,
    SpectralNorm,
    WeightClipping,
    ZeroCentredPenalty,
    critic_values,
)
from monge.config import TrainingConfig
from monge.costs import SquaredL2
from monge.draws import Draws
from monge.models import WAE
from monge.networks import BatchNorm, mlp
from monge.priors import Gaussian
from monge.training import Trainer


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

    with pytest.raises(ValueError, match="`critic` must return shape"):
        JensenShannon(Wrong()).inner_loss(torch.randn(6, 3), torch.randn(6, 3))


# Kantorovich-Rubinstein


class Weighted(nn.Module):
    """D(x) = w · x over all elements of a sample."""

    def __init__(self, *shape):
        super().__init__()
        self.w = nn.Parameter(torch.randn(shape, dtype=torch.float64))

    def forward(self, x):
        return (x * self.w).flatten(1).sum(1)


@pytest.mark.parametrize("shape", [(5,), (3, 4, 4)])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_gradient_penalty_of_a_linear_critic_is_known(shape, scale):
    """(‖w‖ - 1)², the norm over all dimensions of a sample, on images too."""
    critic = Weighted(*shape)
    with torch.no_grad():
        critic.w.mul_(scale / critic.w.norm())
    x, y = torch.randn(6, *shape).double(), torch.randn(6, *shape).double()
    two, one = GradientPenalty(10.0), GradientPenalty(10.0, one_sided=True)
    assert two.penalty(critic, x, y).item() == pytest.approx(10 * (scale - 1) ** 2)
    assert one.penalty(critic, x, y).item() == pytest.approx(10 * max(0, scale - 1) ** 2)
    two.penalty(critic, x, y).backward()
    slope = 20 * (scale - 1) * critic.w.detach() / scale
    torch.testing.assert_close(critic.w.grad, slope)


def test_the_penalties_of_several_processes_average_to_that_of_one():
    """Each process has every third row, of the samples and of the points between them."""
    torch.manual_seed(0)
    critic, penalty = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), GradientPenalty()
    x, y = torch.randn(9, 3), torch.randn(9, 3)
    whole = penalty.penalty(critic, x, y, draws=Draws(0, 1, 9))
    shares = [
        penalty.penalty(critic, x[i::3], y[i::3], draws=Draws(0, 1, 9, rank=i, world=3))
        for i in range(3)
    ]
    torch.testing.assert_close(torch.stack(shares).mean(), whole)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), BatchNorm(4)])
def test_batch_norm_is_refused_under_a_gradient_penalty(norm):
    critic = nn.Sequential(nn.Linear(2, 4), norm, nn.Linear(4, 1))
    with pytest.raises(ValueError, match="`critic` has batch normalisation at '1'"):
        KantorovichRubinstein(critic, GradientPenalty())
    KantorovichRubinstein(critic, WeightClipping())


def convolutions(kind: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A critic of two convolutions and a linear layer, and the shape of its samples."""
    torch.manual_seed(0)
    leaky = nn.LeakyReLU(0.2)
    first, second, features, shape = {
        "1d": (nn.Conv1d(2, 8, 5, 1, 2), nn.Conv1d(8, 8, 4, 2, 1), 64, (2, 16)),
        "2d": (nn.Conv2d(1, 8, 3, 1, 1), nn.Conv2d(8, 16, 4, 2, 1), 144, (1, 6, 6)),
        "grouped": (
            nn.Conv2d(2, 8, 3, 1, 1, padding_mode="reflect"),
            nn.Conv2d(8, 8, 3, 1, 2, dilation=2, groups=2),
            288,
            (2, 6, 6),
        ),
        "transposed": (
            nn.ConvTranspose2d(4, 8, 4, 2, 1),
            nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1),
            576,
            (4, 3, 3),
        ),
    }[kind]
    return nn.Sequential(first, leaky, second, leaky, nn.Flatten(), nn.Linear(features, 1)), shape


@pytest.mark.parametrize("kind", ["1d", "2d", "grouped", "transposed"])
def test_a_spectrally_normalised_critic_of_convolutions_has_slope_1_after_training(kind):
    """The norm of each layer as a matrix, by its singular values, is 1 within 0.02; the slope of
    the critic is at most 1.02 where ascent finds it steepest. As matrices of weights the layers
    of such a critic had a slope of 3.6."""
    critic, shape = convolutions(kind)
    divergence = KantorovichRubinstein(critic, SpectralNorm())
    assert (critic[0].weight == critic[0].parametrizations.weight.original).all()
    x, y = torch.randn(64, *shape), 1.3 * torch.randn(64, *shape) + 0.5
    losses = fitted(divergence, x, y, 300)
    assert losses[-1] < losses[0] - 0.3
    z = y.clone()
    for i, layer in enumerate(critic):
        if hasattr(layer, "weight"):
            basis = torch.eye(z[0].numel()).view(-1, *z.shape[1:])
            matrix = (layer(basis) - layer(torch.zeros_like(z[:1]))).flatten(1).detach()
            assert torch.linalg.matrix_norm(matrix, 2) == pytest.approx(1, abs=0.02), i
        z = layer(z).detach()
    for _ in range(50):
        (slopes,) = torch.autograd.grad(critic(y.requires_grad_()).sum(), y)
        assert slopes.flatten(1).norm(dim=1).max() < 1.02
        y = (y + slopes).detach()


def test_spectral_normalisation_draws_nothing_and_a_pass_changes_nothing():
    """The global generator, the buffers of a second pass; and the state is loaded whole, into a
    critic that has seen no sample."""
    critic, shape = convolutions("2d")
    x, y = torch.randn(2, 8, *shape)
    state = torch.random.get_rng_state()
    divergence = KantorovichRubinstein(critic, SpectralNorm())
    value = divergence(x, y)
    assert torch.equal(state, torch.random.get_rng_state())
    kept = {name: z.clone() for name, z in divergence.state_dict().items()}
    assert torch.equal(divergence(x, y), value)
    assert all(torch.equal(z, kept[name]) for name, z in divergence.state_dict().items())
    other = KantorovichRubinstein(convolutions("2d")[0], SpectralNorm())
    other.load_state_dict(kept)
    assert torch.equal(other(x, y), value)
    copied = copy.deepcopy(other)
    copied.project_()
    assert torch.equal(other(x, y), value)


def test_a_spectrally_normalised_critic_trains_in_a_model_that_is_averaged_and_resumed():
    """Its vectors have no size before the first step; afterwards the bits are those of a training
    that was not stopped."""

    def trainer() -> Trainer:
        torch.manual_seed(0)
        critic = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 3), nn.Flatten())
        critic.append(nn.Linear(6, 1))
        divergence = KantorovichRubinstein(critic, SpectralNorm())
        return Trainer(
            WAE(
                nn.Linear(5, 4),
                nn.Linear(4, 5),
                Gaussian(4),
                divergence,
                cost=SquaredL2(),
                weight=1.0,
            ),
            TrainingConfig(ema=0.9),
        )

    whole, resumed, x = trainer(), trainer(), torch.randn(16, 5)
    for step in range(4):
        if step == 2:
            weights = {k: v.clone() for k, v in whole.trained.state_dict().items()}
            state = {k: v.clone() for k, v in whole.state().items()}
        whole.step([x])
    resumed.restore(weights, state, 2)
    for _ in range(2):
        resumed.step([x])
    theirs = resumed.model.state_dict()
    assert all(torch.equal(z, theirs[name]) for name, z in whole.model.state_dict().items())


def test_a_spectrally_normalised_layer_is_1_lipschitz():
    critic = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    divergence = KantorovichRubinstein(critic, SpectralNorm())
    x, y = torch.randn(50, 6).double(), torch.randn(50, 6).double()
    for _ in range(50):
        divergence(x, y)
    for layer in (critic[0], critic[2]):
        assert torch.linalg.matrix_norm(layer.weight.detach(), 2) == pytest.approx(1, abs=1e-6)
    values = critic_values(critic, x)
    assert ((values[:, None] - values).abs() <= torch.cdist(x, x) + 1e-6).all()


def fitted(divergence, x, y, steps, lr=1e-2):
    """The divergence after some steps of its inner objective on fixed samples."""
    optimiser = torch.optim.Adam(divergence.train().parameters(), lr)
    losses = []
    for _ in range(steps):
        loss = divergence.inner_loss(x, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        divergence.project_()
        losses.append(loss.item())
    return losses


def test_a_penalised_critic_attains_the_distance_between_two_points():
    x, y = torch.zeros(64, 2), torch.tensor([3.0, 4.0]).expand(64, 2)
    divergence = KantorovichRubinstein(mlp([2, 32, 1]), GradientPenalty(10.0))
    fitted(divergence, x, y, 300)
    # the optimum of the penalised objective is W_1 + W_1²/(2λ·…): norms settle a little above 1
    assert divergence(x, y).item() == pytest.approx(5, rel=0.3)


def test_max_sliced_finds_the_direction_of_two_far_means():
    x = torch.randn(200, 6)
    v = torch.tensor([0.0, 3.0, 0.0, 0.0, 4.0, 0.0])
    divergence = MaxSliced(6)
    fitted(divergence, x, x + v, 500, lr=2e-2)
    assert divergence(x, x + v).item() == pytest.approx(25, rel=0.01)
    assert abs(divergence.slicer.theta[0].detach() @ (v / 5)) > 0.999


@pytest.mark.parametrize("name", LEARNED)
def test_the_inner_loss_falls_and_projection_is_idempotent(name):
    torch.manual_seed(0)
    divergence = DIVERGENCES[name].make().double()
    x, y = pair(40, 40)
    losses = fitted(divergence, x, y, 100)
    assert sum(losses[-10:]) < sum(losses[:10])
    before = [p.clone() for p in divergence.parameters()]
    divergence.project_()
    for p, q in zip(divergence.parameters(), before):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("name", LEARNED)
def test_the_inner_loss_leaves_no_gradient_in_the_samples(name):
    divergence = DIVERGENCES[name].make().double()
    x, y = pair()
    divergence.inner_loss(x, y).backward()
    assert x.grad is None
    assert y.grad is None
    assert any(p.grad is not None for p in divergence.parameters())


# Spectral normalisation of unusual layers


def normalised(critic):
    return KantorovichRubinstein(critic, SpectralNorm())


def test_a_spectrally_normalised_layer_that_starts_at_0_is_trained():
    """W_1 between samples apart is found from a last layer of zeros."""
    x, y = torch.randn(6, 3), torch.randn(6, 3) + 2
    critic = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    nn.init.zeros_(critic[2].weight)
    distance = normalised(critic)
    optimiser = torch.optim.SGD(distance.parameters(), 0.1)
    for _ in range(50):
        optimiser.zero_grad()
        distance.inner_loss(x, y).backward()
        assert all(p.grad.abs().max() < 100 for p in distance.parameters())
        optimiser.step()
        distance.project_()
    far = float((y.mean(0) - x.mean(0)).norm())
    assert 0.8 * far < float(distance(x, y).detach()) < 1.02 * far


@pytest.mark.parametrize("size", [1e20, 1e-25, 40.0])
def test_spectral_norms_of_weights_at_every_magnitude_and_without_a_call(size):
    attention = nn.MultiheadAttention(4, 1)  # reads the weight of its linear layer
    with torch.no_grad():
        attention.out_proj.weight.mul_(size)
    SpectralNorm().prepare(attention)
    norm = torch.linalg.matrix_norm(attention.out_proj.weight, 2)
    assert float(norm.detach()) == pytest.approx(1, abs=1e-3)


def test_spectral_normalisation_stands_behind_other_parametrizations():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 1))
    layer.parametrizations.weight.original0.data.fill_(50.0)
    distance = normalised(nn.Sequential(layer))
    x, y = torch.randn(6, 3), torch.randn(6, 3) + 2
    for _ in range(5):
        assert float(layer.weight.detach().norm()) == pytest.approx(1, abs=1e-3)
        distance.inner_loss(x, y).backward()
        torch.optim.SGD(distance.parameters(), 0.1).step()
        distance.project_()


class Pyramid(nn.Module):
    """One convolution at two sizes of its input."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x):
        sizes = x, nn.functional.avg_pool2d(x, 2)
        return sum(self.conv(z).relu().flatten(1).mean(1) for z in sizes)


def test_spectral_normalisation_at_two_input_sizes_and_in_half():
    distance = normalised(Pyramid())
    distance.inner_loss(torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8)).backward()
    assert torch.isfinite(distance.critic.conv.parametrizations.weight.original.grad).all()
    half = normalised(nn.Sequential(nn.Linear(3, 1)).half())
    assert torch.isfinite(half(torch.randn(4, 3).half(), torch.randn(4, 3).half()))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_layers_without_a_weight_to_normalise_are_named():
    for make in (lambda: nn.LazyLinear(3), lambda: nn.utils.weight_norm(nn.Linear(3, 1))):
        with pytest.raises(ValueError, match="`critic` has a layer '0'"):
            normalised(nn.Sequential(make()))


def test_a_relativistic_critic_is_judged_over_all_pairs():
    """Against a loop, for samples of unequal sizes, and log 2 at equality."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x, y = torch.randn(5, 2).double(), torch.randn(3, 2).double()
    divergence = Relativistic(critic, Constraint())
    fake, real = critic(x)[:, 0].tolist(), critic(y)[:, 0].tolist()
    every = [a - b for a in fake for b in real]
    inner, outer = (
        sum(math.log1p(math.exp(sign * one)) for one in every) / 15 for sign in (1, -1)
    )
    assert divergence.inner_loss(x, y).item() == pytest.approx(inner)
    assert divergence(x, y).item() == pytest.approx(outer)
    blind = Relativistic(Constant(3.0), Constraint())
    assert blind(x, y).item() == pytest.approx(math.log(2))


def test_the_zero_centred_penalty_of_a_linear_critic_is_its_squared_slope():
    """½ γ (|w|² + |w|²) for D(x) = w·x, on samples of any shape and number."""
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).double()
    x, y = torch.randn(5, 3, 2, 2).double(), torch.randn(3, 3, 2, 2).double()
    squared = critic[1].weight.square().sum().item()
    found = ZeroCentredPenalty(0.3).penalty(critic, x, y)
    assert found.item() == pytest.approx(0.3 * squared)
    found.backward()
    torch.testing.assert_close(critic[1].weight.grad, 0.6 * critic[1].weight.detach())
    with pytest.raises(ValueError, match="batch normalisation"):
        Relativistic(nn.Sequential(nn.Linear(2, 4), BatchNorm(4)), ZeroCentredPenalty())


def test_a_zero_centred_penalty_makes_the_game_converge():
    """The Dirac-GAN of Mescheder et al. 2018: a point θ against the point 0, D(x) = ψ x. Without
    the penalty both circle around the equilibrium; with it they reach it."""

    def farthest(constraint: Constraint) -> float:
        """In the last 200 of 1,000 steps."""
        critic = nn.Linear(1, 1, bias=False)
        nn.init.ones_(critic.weight)
        theta, y = torch.ones(1, 1, requires_grad=True), torch.zeros(1, 1)
        divergence, distances = Relativistic(critic, constraint), []
        for _ in range(1000):
            (slope,) = torch.autograd.grad(divergence.inner_loss(theta.detach(), y), critic.weight)
            (pull,) = torch.autograd.grad(divergence(theta, y), theta)
            with torch.no_grad():
                critic.weight -= 0.1 * slope
                theta -= 0.1 * pull
            distances.append(math.hypot(theta.item(), critic.weight.item()))
        return max(distances[-200:])

    assert farthest(ZeroCentredPenalty(1.0)) < 1e-3
    assert farthest(Constraint()) > 0.3


def test_the_matrices_of_a_spectrally_normalised_critic_have_norm_1_after_training():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(144, 1))
    divergence = JensenShannon(critic, constraint=MatrixSpectralNorm())
    optimiser = torch.optim.Adam(divergence.parameters(), 1e-2)
    for _ in range(100):
        x, y = torch.rand(16, 1, 8, 8), torch.rand(16, 1, 8, 8) ** 2
        optimiser.zero_grad()
        divergence.inner_loss(x, y).backward()
        optimiser.step()
        divergence.project_()
    for layer in (critic[0], critic[3]):
        norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item()
        assert norm == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "layer", [nn.Linear(3, 4), nn.Conv1d(2, 3, 3), nn.ConvTranspose1d(2, 3, 3)], ids=repr
)
def test_a_matrix_norm_is_that_of_the_outputs_by_the_rest(layer):
    """Against NumPy; 0 stays 0, and passes move nothing."""
    weight = layer.weight.detach().clone()
    constraint, critic = MatrixSpectralNorm(), nn.Sequential(layer)
    constraint.prepare(critic)
    for _ in range(100):
        constraint.project_(critic)
    axis = 1 if isinstance(layer, nn.ConvTranspose1d) else 0
    norm = np.linalg.norm(weight.movedim(axis, 0).flatten(1).numpy(), 2)
    torch.testing.assert_close(layer.weight.detach(), weight / float(norm))
    left = layer.parametrizations.weight[0].left.clone()
    assert torch.equal(layer.weight, layer.weight)
    assert torch.equal(left, layer.parametrizations.weight[0].left)
    with torch.no_grad():
        layer.parametrizations.weight.original.zero_()
    assert not layer.weight.any()
    layer.weight.sum().backward()
    assert layer.parametrizations.weight.original.grad.isfinite().all()
