"""Shapes for every image size, no useless bias, and batch normalisation as torch has it."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from monge.draws import Draws
from monge.networks import (
    BatchNorm,
    Details,
    Dirac,
    Normal,
    NormalEncoder,
    Standardise,
    Unstandardise,
    conv_critic,
    conv_decoder,
    conv_encoder,
    mlp,
)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (64, 64), (9, 13), (31, 50)])
@pytest.mark.parametrize("channels", [1, 3])
def test_decoder_mirrors_the_encoder_for_every_size(size, channels):
    shape = (channels, *size)
    x = torch.rand(2, *shape)
    z = conv_encoder(shape, 5, (4, 6, 8))(x)
    y = conv_decoder(shape, 5, (4, 6, 8))(z)
    assert z.shape == (2, 5)
    assert y.shape == x.shape
    assert y.min() >= 0
    assert y.max() <= 1


def test_images_too_small_for_the_halvings_are_refused():
    with pytest.raises(ValueError, match="too small for 3 halvings"):
        conv_encoder((1, 7, 28), 2, (4, 4, 4))


def test_no_layer_has_a_bias_before_batch_normalisation():
    for network in (conv_encoder((1, 28, 28), 8, (4, 8)), conv_decoder((1, 28, 28), 8, (4, 8))):
        layers = list(network)
        for layer, following in pairwise(layers):
            if isinstance(following, BatchNorm):
                assert layer.bias is None


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 3)])
def test_batch_normalisation_equals_torchs(shape):
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4) if len(shape) == 2 else nn.BatchNorm2d(4)
    for _ in range(3):
        x = torch.randn(shape)
        torch.testing.assert_close(ours(x), theirs(x))
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_laws():
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    assert Dirac(mean).rsample() is mean
    law = Normal(mean, log_variance)
    draws = Draws(0, 0, 5)
    noise = (law.rsample(draws) - mean) / (0.5 * log_variance).exp()
    torch.testing.assert_close(noise, draws.normal("codes", mean))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()),
        torch.distributions.Normal(0.0, 2.0),
    ).sum(1)
    torch.testing.assert_close(law.kl_to(2.0), expected)


def test_normal_encoder_splits_its_outputs():
    law = NormalEncoder(nn.Identity())(torch.tensor([[1.0, 2.0, 0.5, 99.0]]))
    assert law.mean.tolist() == [[1.0, 2.0]]
    assert law.log_variance.tolist() == [[0.5, 16.0]]


def test_standardising_doors_are_inverse():
    mean, deviation = torch.randn(4), torch.rand(4) + 0.1
    x = torch.randn(6, 4)
    out = Unstandardise(mean, deviation)(Standardise(mean, deviation)(x))
    torch.testing.assert_close(out, x)


def test_mlp_has_no_activation_at_the_end():
    network = mlp([3, 8, 2])
    assert [type(layer).__name__ for layer in network] == ["Linear", "ReLU", "Linear"]
    assert network(torch.randn(5, 3)).shape == (5, 2)


def test_laws_leave_the_reduced_precision_of_their_network():
    """In bfloat16 the KL of a nearly standard normal law would be off by a fifth."""
    mean, log_variance = torch.full((1, 4), 0.02), torch.full((1, 4), 0.02)
    exact = Normal(mean, log_variance).kl_to(1.0)
    law = Normal(mean.bfloat16(), log_variance.bfloat16())
    assert law.kl_to(1.0).dtype == torch.float32
    torch.testing.assert_close(law.kl_to(1.0), exact, rtol=0.02, atol=0)
    assert Dirac(mean.double()).mean.dtype == torch.float64


def test_details_are_what_a_mean_of_neighbours_leaves():
    x = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0)).double()
    y = Details(4.0)(x)
    assert torch.equal(y[:, :3], x)
    inside = x[:, :, 2, 3] - x[:, :, 1:4, 2:5].mean((2, 3))
    torch.testing.assert_close(y[:, 3:, 2, 3], 4 * inside)
    corner = x[0, 0, :2, :2]
    mean = (4 * corner[0, 0] + 2 * corner[0, 1] + 2 * corner[1, 0] + corner[1, 1]) / 9
    torch.testing.assert_close(y[0, 3, 0, 0], 4 * (corner[0, 0] - mean))
    assert Details(4.0)(torch.ones(1, 1, 1, 1))[0, 1] == 0
    with pytest.raises(ValueError, match="`gain` must be at least 0"):
        Details(-1.0)


def test_a_critic_may_be_normalised_in_all_blocks_but_the_first():
    plain, normed = (conv_critic((1, 16, 16), (4, 6, 8), norm) for norm in (None, BatchNorm))
    assert not any(isinstance(layer, BatchNorm) for layer in plain)
    sizes = [len(layer.weight) for layer in normed if isinstance(layer, BatchNorm)]
    assert sizes == [6, 8]
    assert plain(torch.rand(3, 1, 16, 16)).shape == normed(torch.rand(3, 1, 16, 16)).shape
