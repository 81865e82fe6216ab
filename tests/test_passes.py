"""A batch that passes in micro-batches: the gradient of the whole batch, in less memory."""

import pytest
import torch
import zoo
from torch import nn

from monge.config import TrainingConfig
from monge.costs import SquaredL2
from monge.divergences import MMD
from monge.kernels import multiscale_imq
from monge.models import WAE
from monge.priors import Gaussian
from monge.training import Trainer

ROWS = 7
KINDS = {"image": (1, 8, 8), "vector": (5,)}
CASES = [
    (recipe, kind)
    for recipe in zoo.RECIPES
    for kind in KINDS
    if kind == "image" or recipe not in ("vae-bernoulli", *zoo.CONDITIONAL)
]


def stepped(recipe: str, kind: str, micro: int | None):
    """A model after one step, with its gradients, and the terms."""
    torch.manual_seed(0)
    model = zoo.model(recipe, kind, KINDS[kind], **zoo.BY_SAMPLE.get(recipe, {})).double()
    x = torch.rand(ROWS, *KINDS[kind], generator=torch.Generator().manual_seed(1)).double()
    terms = Trainer(model, TrainingConfig(micro_batch=micro)).step([x])
    return model, terms


@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize(("recipe", "kind"), CASES)
def test_micro_batches_give_the_gradient_of_the_whole_batch(recipe, kind, micro):
    """Of the model and of the critic, to 1e-9 of its size; with batch normalisation (images),
    whose running moments agree too, and micro-batches of different sizes."""
    whole, terms = stepped(recipe, kind, None)
    accumulated, others = stepped(recipe, kind, micro)
    assert terms.keys() == others.keys()
    for name, value in terms.items():
        torch.testing.assert_close(others[name], value, rtol=1e-9, atol=1e-12, msg=name)
    theirs = dict(accumulated.named_parameters())
    for name, p in whole.named_parameters():
        if p.grad is None:
            assert theirs[name].grad is None
            continue
        size = p.grad.abs().max().clamp_min(1e-4)  # below it is rounding, of what has none
        assert (theirs[name].grad - p.grad).abs().max() < 1e-9 * size, name
    for (name, b), other in zip(whole.named_buffers(), accumulated.buffers()):
        torch.testing.assert_close(other, b, rtol=1e-9, atol=1e-12, msg=name)


def most_saved(micro: int | None) -> int:
    """Most numbers that a step held for its backward pass at any moment."""
    held = most = 0

    class Kept:
        def __init__(self, x: torch.Tensor):
            nonlocal held, most
            self.x, held = x, held + x.numel()
            most = max(most, held)

        def __del__(self):
            nonlocal held
            held -= self.x.numel()

    torch.manual_seed(0)

    def network(inputs: int, outputs: int) -> nn.Module:
        first, last = nn.Linear(inputs, 200), nn.Linear(200, outputs)
        return nn.Sequential(first, nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), last)

    encoder, decoder = network(4, 2), network(2, 4)
    divergence = MMD(multiscale_imq(4.0))
    wae = WAE(encoder, decoder, Gaussian(2), divergence, cost=SquaredL2(), weight=1.0)
    trainer = Trainer(wae, TrainingConfig(micro_batch=micro))
    batch = torch.randn(2000, 4)
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
        trainer.step([batch])
    return most


def test_micro_batches_hold_the_graph_of_one_at_a_time():
    """A tenth of the rows, a tenth of the saved numbers, but for weights and the pair."""
    weights = 2 * (200 * 200 + 6 * 200)
    assert most_saved(200) < 0.15 * most_saved(None) + weights


def test_batch_normalisation_of_torch_is_refused_in_micro_batches():
    encoder = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    divergence = MMD(multiscale_imq(4.0))
    wae = WAE(encoder, nn.Linear(2, 4), Gaussian(2), divergence, cost=SquaredL2(), weight=1.0)
    with pytest.raises(ValueError, match=r"`micro_batch` needs .*'encoder.1' is a BatchNorm1d"):
        Trainer(wae, TrainingConfig(micro_batch=2)).step([torch.randn(6, 4)])
