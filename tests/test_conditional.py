"""Completion: masks, the conditional auto-encoder, and the measures of completions."""

import itertools

import pytest
import torch
from PIL import Image
from torch import nn

from monge.adversarial import JensenShannon
from monge.builders import build, settled
from monge.config import Config, NetworkConfig, TrainingConfig, override
from monge.costs import SquaredL2
from monge.divergences import MMD
from monge.draws import Draws
from monge.evaluation import agreement, best_of, diversity, energy_score
from monge.kernels import multiscale_imq
from monge.models import ConditionalWAE, protocols
from monge.models.masks import HALVES, Mask, RandomBox, mask
from monge.networks.mlp import mlp
from monge.priors import Gaussian
from monge.recipes.options import ConditionalOptions
from monge.training.trainer import Trainer

SHAPE = (3, 12, 9)
SUMMARY = ConditionalOptions().summary


def small(known: str = "top") -> ConditionalWAE:
    network = NetworkConfig(filters=(4, 8), critic=(16,))
    config = Config(recipe="conditional-wae", latent=3, network=network)
    config = override(config, "known", known)
    model = build(config, settled(config, "image", SHAPE, samples=100))
    assert isinstance(model, ConditionalWAE)
    return model


# Masks


def test_halves_and_the_surround_are_where_their_names_say():
    known = {name: mask(name, (1, 4, 8))(2)[1, 0] for name in HALVES}
    assert known["top"].tolist() == [[1.0] * 8] * 2 + [[0.0] * 8] * 2
    assert known["left"].tolist() == [[1.0] * 4 + [0.0] * 4] * 4
    assert torch.equal(known["bottom"], 1 - known["top"])
    assert torch.equal(known["right"], 1 - known["left"])
    assert known["surround"][1:3, 2:6].sum() == 0
    assert known["surround"].sum() == 32 - 8


def test_random_boxes_are_one_box_each_and_follow_their_generator():
    boxes = RandomBox(12, 9)
    known = boxes(200, torch.Generator().manual_seed(0))
    assert known.shape == (200, 1, 12, 9)
    assert torch.equal(known, boxes(200, torch.Generator().manual_seed(0)))
    unknown = 1 - known[:, 0]
    rows, columns = unknown.amax(2), unknown.amax(1)
    torch.testing.assert_close(unknown, rows[:, :, None] * columns[:, None])
    for sides in (rows, columns):
        assert ((sides.diff(dim=1) != 0).sum(1) <= 2).all()  # one run of ones
        share = sides.mean(1)
        assert share.min() >= 0.2
        assert share.max() <= 0.8
    assert known.mean(0).min() > 0.2  # every pixel is unknown at times, and known at others
    assert known.mean(0).max() < 1


def test_a_mask_image_is_white_where_known(tmp_path):
    expected = torch.rand(12, 9) > 0.5
    file = tmp_path / "mask.png"
    Image.fromarray(expected.to(torch.uint8).mul(255).numpy()).save(file)
    assert torch.equal(mask(str(file), SHAPE)(1)[0, 0], expected.float())
    with pytest.raises(ValueError, match="it is 9 × 12 pixels and the samples are 8 × 8"):
        mask(str(file), (1, 8, 8))


def test_a_damaged_mask_image_is_named(tmp_path):
    """Also one whose header promises more pixels than Pillow is willing to open."""
    file = tmp_path / "mask.pgm"
    for content, message in (
        (b"P5 400000 80000 255\n", "is not a mask: Image size"),
        (b"P5 8 8 255\n" + bytes(64), "is not a mask: all of it is unknown"),
        (b"P5 8 8 255\n" + b"\xff" * 64, "is not a mask: all of it is known"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"{file.name}' {message}"):
            mask(str(file), (1, 8, 8))


@pytest.mark.parametrize(
    ("known", "shape", "message"),
    [
        ("middle", SHAPE, "`known` 'middle' is neither top"),
        (__file__, SHAPE, "is not a mask"),
        ("0,7", (3,), "must name columns from 0 to 2"),
        ("top", (3,), "must name columns"),
        ("0,1,2", (3,), "`known` is everything"),
    ],
)
def test_names_that_are_no_mask_are_refused(known, shape, message):
    with pytest.raises(ValueError, match=message):
        mask(known, shape)


@pytest.mark.parametrize(("value", "message"), [(0, "nothing"), (1, "everything"), (2, "must be")])
def test_a_mask_leaves_something_known_and_something_to_complete(value, message):
    with pytest.raises(ValueError, match=f"`known` .*{message}"):
        Mask(torch.full((1, 4, 4), float(value)))


def test_columns_of_vectors():
    assert mask("0,2", (3,))(1).tolist() == [[1, 0, 1]]


# The model


@pytest.mark.parametrize("known", [*HALVES, "random"])
def test_a_pass_compares_joint_samples_and_pays_for_the_unknown_part(known):
    model = small(known)
    x = torch.rand(6, *SHAPE)
    terms, (z, target) = model(x, Draws(0, 0, 6))
    assert set(terms) == {"reconstruction"}
    assert z.shape == target.shape == (6, SUMMARY + 3)
    assert torch.equal(z[:, :SUMMARY], target[:, :SUMMARY])
    assert not target.requires_grad
    model.eval()
    known = Draws(0, 0, 6).rows("known", model.mask)
    expected = (x - model.reconstruct(x, known)).square().flatten(1).sum(1).mean()
    terms, _ = model(x, Draws(0, 0, 6))
    torch.testing.assert_close(terms["reconstruction"], expected)


def test_the_summary_is_standardised_and_takes_no_gradient_from_the_divergence():
    """Or the divergence would make it a constant, and the codes could say what it says."""
    model = small()
    x = torch.rand(50, *SHAPE)
    _, (z, target) = model(x, Draws(0, 0, 50))
    phi = target[:, :SUMMARY]
    torch.testing.assert_close(phi.mean(0), torch.zeros(SUMMARY), atol=1e-5, rtol=0)
    torch.testing.assert_close(phi.var(0, correction=0), torch.ones(SUMMARY), atol=1e-2, rtol=0)
    MMD(multiscale_imq(12.0))(z, target).backward()
    assert all(p.grad is None for p in model.summary.parameters())
    assert any(p.grad is not None for p in model.encoder.parameters())


@pytest.mark.parametrize("known", ["top", "random"])
def test_completions_keep_the_known_part_and_see_nothing_else(known):
    model = small(known).eval()
    x = torch.rand(4, *SHAPE)
    masks = model.known(x)
    drawn = model.complete(x, 5, torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 5, *SHAPE)
    assert torch.equal(drawn * masks[:, None], (x * masks)[:, None].expand_as(drawn))
    assert diversity(drawn) > 0
    other = masks * x + (1 - masks) * torch.rand_like(x)
    torch.testing.assert_close(model.complete(other, 5, torch.Generator().manual_seed(0)), drawn)


def test_samples_are_completions_of_what_is_given():
    model = small().eval()
    x = torch.rand(4, *SHAPE)
    drawn = model.sample(4, torch.Generator().manual_seed(0), given=x)
    torch.testing.assert_close(drawn, model.complete(x, 1, torch.Generator().manual_seed(0))[:, 0])
    for given in (None, x[:3]):
        with pytest.raises(ValueError, match="`given` must be 4 samples"):
            model.sample(4, given=given)
    with pytest.raises(ValueError, match="`given` is missing"):
        model.decode(torch.zeros(4, 3))
    with torch.no_grad():
        assert model.interpolate(x[:2], x[2:], 5).shape == (10, *SHAPE)
        assert protocols.traverse(model, x, torch.linspace(-1, 1, 5)).shape == (60, *SHAPE)


@pytest.mark.parametrize("shape", [(4, 1, 12, 8), (4, 2, 12, 9), (12, 9), (1, 12, 9)])
def test_masks_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"`known` has shape .* give masks for samples"):
        small().complete(torch.rand(4, *SHAPE), 2, known=torch.ones(shape))


def test_several_processes_draw_the_masks_of_one():
    model = small("random")
    whole = Draws(3, 5, 7).rows("known", model.mask)
    parts = [Draws(3, 5, 7, rank=r, world=2).rows("known", model.mask) for r in (0, 1)]
    assert torch.equal(whole[0::2], parts[0])
    assert torch.equal(whole[1::2], parts[1])


def test_recipes_of_other_data_are_refused():
    config = Config(recipe="conditional-wae", latent=2)
    with pytest.raises(ValueError, match="conditional-wae needs images"):
        build(config, settled(config, "vector", (4,), samples=100))


def two_modes(n: int, generator: torch.Generator) -> torch.Tensor:
    """Rows (x, y): x uniform on [-1, 1], y near 1 with probability (1 + x) / 2, else near -1."""
    x = 2 * torch.rand(n, generator=generator) - 1
    up = torch.rand(n, generator=generator) < (1 + x) / 2
    return torch.stack([x, 2.0 * up - 1 + 0.1 * torch.randn(n, generator=generator)], 1)


def test_both_modes_of_a_known_conditional_law_have_their_masses():
    """p(y > 0 | x) = (1 + x) / 2 within 0.06 at x = -0.6, 0, 0.6."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ConditionalWAE(
            mlp([4, 64, 64, 1]),
            mlp([2, 64, 64, 2]),
            Gaussian(1),
            MMD(multiscale_imq(4.0), paired=True),
            mask=mask("0", (2,)),
            summary=mlp([4, 1]),
            size=1,
            cost=SquaredL2(),
            weight=1.0,
        )
    trainer = Trainer(model, TrainingConfig(lr=2e-3))
    generator = torch.Generator().manual_seed(1)
    for _ in range(1500):
        trainer.step([two_modes(200, generator)])
    at = torch.tensor([-0.6, 0.0, 0.6])
    drawn = model.complete(torch.stack([at, torch.zeros(3)], 1), 2000, generator)[..., 1]
    torch.testing.assert_close((drawn > 0).float().mean(1), (1 + at) / 2, atol=0.06, rtol=0)
    near = ((drawn.abs() - 1).abs() < 0.4).float().mean(1)
    assert (near > 0.75).all()


def test_an_mmd_of_independent_samples_is_refused_for_joint_ones():
    made = small()
    with pytest.raises(ValueError, match=r"joint samples share φ: give MMD\(kernel, paired=True"):
        ConditionalWAE(
            made.encoder,
            made.decoder,
            made.prior,
            MMD(multiscale_imq(4.0)),
            mask=made.mask,
            summary=made.summary,
            size=SUMMARY,
            cost=made.cost,
            weight=1.0,
        )


def test_the_joint_divergence_may_be_a_critic():
    model = small()
    assert isinstance(model.divergence, JensenShannon)
    trainer = Trainer(model, TrainingConfig())
    terms = trainer.step([torch.rand(8, *SHAPE)])
    assert {"inner", "divergence", "reconstruction", "loss"} <= set(terms)


# Measures


def test_scores_of_completions_against_loops():
    y, t = torch.rand(4, 3, 2, 5, dtype=torch.float64), torch.rand(4, 2, 5, dtype=torch.float64)
    best = [min(float((a - t[i]).square().sum()) for a in y[i]) for i in range(4)]
    assert best_of(y, t) == pytest.approx(sum(best) / 4)
    pairs = [(i, a, b) for i in range(4) for a, b in itertools.permutations(range(3), 2)]
    apart = [(y[i, a] - y[i, b]) for i, a, b in pairs]
    assert diversity(y) == pytest.approx(float(sum(d.square().sum() for d in apart)) / len(pairs))
    near = sum(float((y[i, a] - t[i]).norm()) for i in range(4) for a in range(3)) / 12
    far = float(sum(d.norm() for d in apart)) / len(pairs)
    assert energy_score(y, t) == pytest.approx(near - far / 2)
    assert energy_score(y[:, :1], t) == pytest.approx(
        sum(float((y[i, 0] - t[i]).norm()) for i in range(4)) / 4
    )


def test_no_law_has_a_lower_energy_score_than_that_of_the_truth():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, 3, generator=generator)
    drawn = torch.randn(4000, 10, 3, generator=generator)
    own = energy_score(drawn, truth)
    for other in (0.5 * drawn, 1.6 * drawn, drawn + 0.5, torch.zeros_like(drawn)):
        assert energy_score(other, truth) > own + 0.02


def test_agreement_counts_completions_of_the_class_of_the_truth():
    class Sign(nn.Module):
        def forward(self, x):
            return torch.cat([-x, x], 1)

    completions = torch.tensor([[1.0, 2.0, -1.0], [-1.0, -2.0, -3.0]])[..., None]
    assert agreement(completions, torch.tensor([1, 1]), Sign()) == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    "call",
    [
        lambda y: best_of(y[:, 0], y[:, 0]),
        lambda y: energy_score(y, y),
        lambda y: energy_score(y * torch.nan, y[:, 0]),
        lambda y: diversity(y[:, :1]),
    ],
)
def test_completions_without_a_score_are_refused(call):
    with pytest.raises(ValueError, match="`completions` must"):
        call(torch.rand(4, 3, 5))


def test_a_decoder_of_another_shape_is_refused_and_not_broadcast():
    model = ConditionalWAE(
        mlp([8, 2]),
        mlp([5, 16, 1]),
        Gaussian(2),
        JensenShannon(mlp([5, 1])),
        mask=lambda n, generator: torch.tensor([[1.0, 1.0, 0.0, 0.0]]).expand(n, 4),
        summary=mlp([8, 3]),
        size=3,
        cost=SquaredL2(),
        weight=1.0,
    )
    with pytest.raises(ValueError, match=r"`decoder` must return samples \(8, 4\), got \(8, 1\)"):
        model(torch.randn(8, 4), Draws(0, 0, 8))


def test_what_is_missing_may_be_nan():
    x = torch.rand(4, *SHAPE)
    missing = x.clone()
    missing[:, :, 6:] = float("nan")
    model = small("top")
    ours, expected = (model.complete(z, 2, torch.Generator().manual_seed(0)) for z in (missing, x))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3)])
def test_measures_of_no_completion_are_refused(shape):
    for measure in (best_of, energy_score):
        with pytest.raises(ValueError, match="of at least 1"):
            measure(torch.zeros(shape), torch.zeros(shape[0], shape[2]))
