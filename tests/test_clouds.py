"""Clouds of points: files, networks that see no order, the recipe, and pictures."""

import struct

import numpy as np
import pytest
import torch

import monge
from monge.builders import build, settled
from monge.config import Config, DataConfig, NetworkConfig, TrainingConfig, override
from monge.costs import Chamfer, EarthMover, Scaled, SinkhornSets, SlicedSets, SquaredL2
from monge.data import load
from monge.data.kinds import CLOUD, IMAGE
from monge.data.points import in_unit_sphere, turned
from monge.data.readers import clouds
from monge.data.readers.arrays import from_array
from monge.draws import Draws
from monge.evaluation import (
    chamfer,
    earth_mover,
    occupancy_divergence,
    pairwise_chamfer,
    pairwise_earth_mover,
    set_scores,
)
from monge.networks import PointNet, pointnet_decoder, pointnet_encoder
from monge.recipes.options import MMDOptions
from monge.show.pictures import pictures_of
from monge.show.rendering import normals, render, rotation

CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)


def ply(points: np.ndarray, form: str = "ascii", extra: str = "") -> bytes:
    head = f"ply\nformat {form} 1.0\ncomment made by hand\nelement vertex {len(points)}\n"
    head += f"property float x\nproperty double y\nproperty float z\n{extra}end_header\n"
    if form == "ascii":
        tail = " 7" if extra else ""
        return (head + "".join(f"{x} {y} {z}{tail}\n" for x, y, z in points)).encode()
    order = "<" if "little" in form else ">"
    kind = f"{order}fdf" + ("B" if extra else "")
    rows = (struct.pack(kind, *row, *([7] if extra else [])) for row in points)
    return head.encode() + b"".join(rows)


SQUARE = b"OFF\n4 1 0\n0 0 0\n1 0 0\n1 2 0\n0 2 0\n4 0 1 2 3\n"


def shown(found: np.ndarray) -> np.ndarray:
    """Rows in an order of their own."""
    return np.array(sorted(map(tuple, found.round(5))))


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("extra", ["", "property uchar red\n"])
def test_ply_files_give_their_vertices(form, extra):
    found = clouds.decode(ply(CUBE, form, extra), ".ply", 8, "cube")
    np.testing.assert_allclose(shown(found), shown(in_unit_sphere(CUBE)), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("".join(f"{x} {y} {z}\n" for x, y, z in CUBE), ".xyz"),
        ("".join(f"v {x} {y} {z}\n" for x, y, z in CUBE), ".obj"),
        (SQUARE.decode(), ".off"),
        (ply(CUBE).decode(), ".ply"),
    ],
)
def test_a_byte_order_mark_before_a_text_is_no_number(text, suffix):
    plain, marked = (
        clouds.decode(text.encode(encoding), suffix, 8, f"cube{suffix}")
        for encoding in ("utf-8", "utf-8-sig")
    )
    if suffix == ".off":  # whose points are drawn from its face by the bytes of the file
        assert marked.shape == plain.shape
    else:
        np.testing.assert_array_equal(shown(marked), shown(plain))


def test_xyz_files_give_the_first_three_columns():
    text = "# a cube\n" + "\n".join(f"{x} {y} {z} 0.5 1" for x, y, z in CUBE) + "\n\n"
    found = clouds.decode(text.encode(), ".xyz", 8, "cube")
    np.testing.assert_allclose(shown(found), shown(in_unit_sphere(CUBE)), atol=1e-5)


def test_meshes_are_sampled_by_area():
    """Two squares of areas 1 and 3: a quarter of the points on the first, uniform within it."""
    text = b"OFF 8 2 0\n" + b"".join(
        b"%d 0 0\n%d 0 0\n%d 1 0\n%d 1 0\n" % (a, b, b, a) for a, b in ((0, 1), (5, 8))
    )
    text += b"4 0 1 2 3\n4 4 5 6 7\n"
    points, triangles = clouds._off(text)
    assert len(triangles) == 4
    found = clouds._sampled(points, triangles, 20_000, np.random.default_rng(0))
    first = found[found[:, 0] < 2]
    assert len(first) / 20_000 == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(first.mean(0), [0.5, 0.5, 0], atol=0.02)
    np.testing.assert_allclose(first.var(0), [1 / 12, 1 / 12, 0], atol=0.005)
    assert np.abs(found[:, 2]).max() == 0


def test_clouds_are_centred_and_in_the_unit_sphere():
    found = in_unit_sphere(np.random.default_rng(0).normal(3, 2, (5, 50, 3)))
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2).max(1), 1, atol=1e-6)


def test_fewer_points_are_a_part_that_depends_on_the_content_alone():
    points = np.random.default_rng(0).normal(size=(50, 3))
    one, two = (clouds.decode(ply(points), ".ply", 20, name) for name in ("a", "b"))
    assert one.shape == (20, 3)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, clouds.decode(ply(points + 1), ".ply", 20, "a"))


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        (b"", ".ply", "expected 'ply'"),
        (b"ply\nend_header\n", ".ply", "expected one of {format"),
        (b"ply\nformat ascii 1.0\nend_header\n", ".ply", "names no vertices"),
        (ply(CUBE)[:-20], ".ply", "row 6: property 'y': early end-of-line"),
        (ply(CUBE, "binary_little_endian")[:-5], ".ply", "row 7: property 'y': early end-of-file"),
        (ply(CUBE).replace(b"vertex 8", b"vertex 99999999"), ".ply", "promises more elements"),
        (ply(CUBE).replace(b"float z\n", b"float w\n"), ".ply", "names no vertices x, y, z"),
        (ply(CUBE).replace(b"ascii", b"ebcdic"), ".ply", "don't understand format"),
        (b"1 2\n3 4\n", ".xyz", "fewer than three numbers"),
        (b"1 2 x\n", ".xyz", "could not convert"),
        (b"", ".xyz", "has 0 points, fewer than 8: give --points"),
        (b"nan 0 0\n" * 8, ".xyz", "24|8 NaN"),
        (b"1e300 0 0\n" * 8, ".xyz", "beyond float32, up to 1e\\+300"),
        (
            ply(CUBE, "binary_little_endian")[:-4] + b"\1\0\x80\x7f",  # a NaN whose cast warns
            ".ply",
            "1 NaN",
        ),
        (b"1 1 1\n" * 8, ".xyz", "all points of a cloud coincide"),
        (b"OFX\n", ".off", "does not begin with OFF"),
        (b"OFF\n", ".off", "damaged"),
        (SQUARE.replace(b"4 1 0", b"4 9 0"), ".off", "of 4 vertices and 9 faces"),
        (SQUARE.replace(b"4 0 1 2 3", b"3 0 1 9"), ".off", "vertices that it does not have"),
        (SQUARE.replace(b"4 0 1 2 3", b"3 0 1 1"), ".off", "no area"),
        (SQUARE.replace(b"1 2 0", b"1 1e200 0"), ".off", "beyond float32"),
    ],
)
def test_damaged_files_say_what_is_wrong(content, suffix, message):
    with pytest.raises(ValueError, match=message):
        clouds.decode(content, suffix, 8, "cube")


def test_a_folder_has_parts_and_classes(tmp_path):
    generator = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 2)):
        for kind in ("chair", "table"):
            folder = tmp_path / part / kind
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.ply").write_bytes(ply(generator.normal(size=(30, 3))))
    source = load(DataConfig(str(tmp_path), points=20))
    assert (source.kind, source.shape) == (CLOUD, (20, 3))
    assert (len(source.train), len(source.test)) == (8, 4)
    assert source.train_labels.tolist() == [0] * 4 + [1] * 4
    (tmp_path / "train" / "chair" / "0.ply").write_bytes(b"ply")
    with pytest.raises(ValueError, match=r"1 of 12 clouds .* not be read: train/chair/0\.ply"):
        load(DataConfig(str(tmp_path), points=20))
    with pytest.raises(ValueError, match=r"30 points, fewer than 2048: give --points"):
        load(DataConfig(str(tmp_path)))


def test_arrays_of_rows_of_three_are_clouds(tmp_path):
    x = np.random.default_rng(0).normal(size=(10, 30, 3)).astype(np.float16)
    np.savez(tmp_path / "a.npz", points=x, labels=np.arange(10) % 2, split=["train", "test"] * 5)
    np.save(tmp_path / "b.npy", x)
    source = load(DataConfig(str(tmp_path / "a.npz")))
    assert (source.kind, source.shape, len(source.test)) == (CLOUD, (30, 3), 5)
    assert load(DataConfig(str(tmp_path / "b.npy"), points=12)).shape == (12, 3)
    np.savez(tmp_path / "c.npz", points=x.swapaxes(1, 2))
    with pytest.raises(ValueError, match=r"\(10, 3, 30\).*transpose the last two axes"):
        load(DataConfig(str(tmp_path / "c.npz")))
    with pytest.raises(ValueError, match=r"`points` is 99, but the clouds .* have 30 points"):
        load(DataConfig(str(tmp_path / "a.npz"), points=99))
    with pytest.raises(ValueError, match="`points` must be left out for images"):
        load(DataConfig("digits", points=9))
    x[3, 4] = np.nan
    np.save(tmp_path / "d.npy", x)
    with pytest.raises(ValueError, match="3 NaN or infinite values"):
        load(DataConfig(str(tmp_path / "d.npy")))


# Networks and the recipe


def test_a_pointnet_does_not_see_the_order_of_points():
    encoder = pointnet_encoder((20, 3), 4, (8, 16)).eval()
    x = torch.randn(5, 20, 3)
    torch.testing.assert_close(encoder(x[:, torch.randperm(20)]), encoder(x))
    assert pointnet_decoder((20, 3), 4, (8,))(torch.randn(5, 4)).shape == (5, 20, 3)


def test_a_pointnet_has_the_values_and_gradients_of_all_its_points():
    """The graph holds the critical points alone; the maximum over all gives the same, exactly."""
    net = PointNet(3, (8, 16)).double()
    x = torch.randn(5, 20, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 16, dtype=torch.float64)
    wanted = (x, *net.parameters())
    dense = net.points(x).amax(1)
    expected = torch.autograd.grad((weights * dense).sum(), wanted)
    found = torch.autograd.grad((weights * net(x)).sum(), wanted)
    torch.testing.assert_close(net(x), dense)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        torch.testing.assert_close(net(x), dense)


def small(recipe: str = "pointcloud-wae", **changes):
    network = NetworkConfig(points=(8, 16), cloud=(16,), critic=(16,))
    config = Config(recipe=recipe, latent=3, network=network)
    for name, value in changes.items():
        config = override(config, name, value)
    return build(config, settled(config, "cloud", (20, 3), samples=100))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("chamfer", Chamfer),
        ("earth-mover", EarthMover),
        ("sinkhorn", SinkhornSets),
        ("sliced", SlicedSets),
        ("elementwise", Scaled | SquaredL2),
    ],
)
def test_the_cost_of_clouds_is_a_sum_over_their_points(name, kind):
    """All but the elementwise one are the same for permuted targets; a shift by v costs N |v|²
    in each unit."""
    model = small(cost=name)
    assert isinstance(model.cost, kind)
    x = torch.randn(2, 20, 3)
    far = x + torch.tensor([30.0, 0, 0])
    if name != "elementwise":
        turned = x[:, torch.randperm(20)]
        torch.testing.assert_close(model.cost(x, turned), torch.zeros(2), atol=1e-3, rtol=0)
    expected = 20 * 900 * (2 if name == "chamfer" else 1)
    tolerance = 0.5 if name == "sliced" else 0.2
    assert model.cost(x, far).mean().item() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(
    "recipe", ["pointcloud-wae", "wae-gan", "wae-wgan-gp", "swae", "sinkhorn-ae"]
)
def test_wasserstein_auto_encoders_take_clouds(recipe):
    model = small(recipe)
    terms, (z, target) = model(torch.randn(4, 20, 3), Draws(0, 0, 4))
    assert terms["reconstruction"].shape == ()
    assert z.shape == target.shape == (4, 3)
    assert model.sample(2).shape == (2, 20, 3)


@pytest.mark.parametrize("recipe", ["vae", "vae-bernoulli", "gan", "swg", "conditional-wae"])
def test_recipes_that_compare_elements_refuse_clouds(recipe):
    with pytest.raises(ValueError, match="`recipe`"):
        small(recipe)


def test_the_recipe_of_clouds_refuses_images():
    config = Config(recipe="pointcloud-wae")
    with pytest.raises(ValueError, match="pointcloud-wae needs point clouds"):
        build(config, settled(config, "image", (1, 8, 8), samples=100))


def test_a_run_on_clouds_has_its_pictures_and_starts_to_learn(tmp_path):
    """Boxes of random sides: after 150 steps reconstructions are nearer than the mean box."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (120, 64, 3)) * generator.uniform(0.2, 1, (120, 1, 3))
    config = Config(
        recipe="pointcloud-wae",
        latent=3,
        options=MMDOptions(weight=1.0),
        network=NetworkConfig(points=(16, 32), cloud=(64,)),
        training=TrainingConfig(batch=20, steps=150, lr=3e-3),
    )
    run = monge.fit(config=config, data=x, out=tmp_path / "run", quiet=True)
    names = {p.stem for p in (run.path / "pictures").iterdir()}
    assert {"reconstructions", "samples", "views", "interpolations", "neighbours"} <= names
    test, model = run.source.test, run.model
    assert isinstance(model, monge.models.WAE)
    with torch.no_grad():
        own = Chamfer()(test, model.reconstruct(test)).mean()
        others = Chamfer()(test, model.reconstruct(test.roll(1, 0))).mean()
    assert own < 0.9 * others


@pytest.mark.parametrize("condition", [None, "labels"])
def test_runs_on_clouds_are_evaluated_with_and_without_classes(condition, tmp_path):
    """A class-conditional model reconstructs turned and scaled clouds with their labels, too."""
    x = np.random.default_rng(0).uniform(-1, 1, (60, 16, 3))
    config = Config(
        recipe="pointcloud-wae",
        latent=2,
        condition=condition,
        network=NetworkConfig(points=(4,), cloud=(4,)),
        training=TrainingConfig(batch=20, steps=2),
    )
    data = from_array(x, labels=np.arange(60) % 2)
    run = monge.fit(config=config, data=data, out=tmp_path / "run", quiet=True)
    figures = run.evaluate(n=4)["figures"]
    moved = [f"test reconstruction, {name}" for name in ("turned", "scaled")]
    assert all(figures[name]["value"] > 0 for name in moved)


def test_turns_are_about_the_upright_axis_and_noise_has_its_size():
    """Heights and distances from the axis stay; each cloud has an angle of its own, a function of
    the step; noise has the deviation asked for."""
    x, draws = torch.randn(6, 50, 3), Draws(0, 3, 6)
    rotated = turned(x, draws, turn=True, jitter=0.0)
    torch.testing.assert_close(rotated[..., 1], x[..., 1])
    torch.testing.assert_close(rotated.norm(dim=2), x.norm(dim=2))
    one, other = (torch.atan2(z[..., 2], z[..., 0]) for z in (x, rotated))
    angles = (other - one).remainder(2 * torch.pi)
    torch.testing.assert_close(angles.cos(), angles.cos().mean(1, keepdim=True).expand(6, 50))
    assert angles[:, 0].unique().numel() == 6
    assert torch.equal(rotated, turned(x, Draws(0, 3, 6), turn=True, jitter=0.0))
    shaken = turned(x, draws, turn=False, jitter=0.1) - x
    assert shaken.std().item() == pytest.approx(0.1, rel=0.1)


def test_training_sees_clouds_turned(tmp_path):
    """A model is trained on other samples with turns than without, and the same again."""
    x = np.random.default_rng(0).normal(size=(20, 16, 3))

    def trained(turn: bool, name: str):
        config = Config(
            recipe="pointcloud-wae",
            latent=2,
            data=DataConfig(turn=turn),
            network=NetworkConfig(points=(4,), cloud=(4,)),
            training=TrainingConfig(batch=10, steps=2),
        )
        run = monge.fit(config=config, data=x, out=tmp_path / name, quiet=True)
        return torch.cat([p.flatten() for p in run.model.parameters()])

    turned = trained(True, "turned")
    assert torch.equal(trained(True, "again"), turned)
    assert not torch.equal(trained(False, "straight"), turned)


# Sets of clouds


def boxes(n: int, count: int = 30, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    sides = 0.1 + 0.4 * torch.rand(n, 1, 3, generator=generator, dtype=torch.float64)
    return sides * (2 * torch.rand(n, count, 3, generator=generator, dtype=torch.float64) - 1)


@pytest.mark.parametrize(
    ("matrix", "cost"),
    [(pairwise_chamfer, chamfer), (pairwise_earth_mover, earth_mover)],
)
def test_matrices_of_distances_against_the_costs(matrix, cost):
    x, y = boxes(4), boxes(3, seed=1)
    expected = torch.stack([cost(x, one.expand_as(x)) for one in y], 1)
    torch.testing.assert_close(matrix(x, y), expected)
    torch.testing.assert_close(matrix(x), matrix(x, x))


def test_scores_of_sets_by_hand():
    """Points of a line in place of clouds: fakes 0, 1, 9; real ones 0.2, 8, 8.5."""
    fake, real = torch.tensor([0.0, 1, 9]), torch.tensor([0.2, 8, 8.5])
    between = (fake[:, None] - real).abs()
    found = set_scores((fake[:, None] - fake).abs(), between, (real[:, None] - real).abs())
    assert found.minimum == pytest.approx((0.2 + 1 + 0.5) / 3)
    assert found.coverage == pytest.approx(2 / 3)
    # nearest others: 0 → 0.2, 1 → 0.2, 9 → 8.5; 0.2 → 0, 8 → 8.5, 8.5 → (8 or 9, both at 0.5)
    assert found.accuracy == pytest.approx(1 / 6)


def test_a_sample_of_the_same_law_scores_a_half():
    """1-NNA within three deviations of ½, occupancy near 0; of other shapes 1 and far from 0."""
    x, y = boxes(60), boxes(60, seed=1)
    found = set_scores(pairwise_chamfer(x), pairwise_chamfer(x, y), pairwise_chamfer(y))
    assert abs(found.accuracy - 0.5) < 3 * (0.25 / 120) ** 0.5
    other = 0.4 * x + 0.5
    found = set_scores(pairwise_chamfer(other), pairwise_chamfer(other, y), pairwise_chamfer(y))
    assert found.accuracy == 1
    assert found.coverage < 0.2
    assert occupancy_divergence(x, x[:, torch.randperm(30)]) == pytest.approx(0, abs=1e-12)
    assert occupancy_divergence(x, y, 4) < 0.02 < 0.3 < occupancy_divergence(other, y, 4)


def test_bad_sets_are_refused():
    with pytest.raises(ValueError, match=r"must be clouds \(n, N, 3\)"):
        pairwise_chamfer(boxes(2).mT)
    with pytest.raises(ValueError, match="`y` must be finite"):
        pairwise_chamfer(boxes(2), boxes(2) * torch.nan)
    with pytest.raises(ValueError, match=r"distances \(n, n\), \(n, m\) and \(m, m\)"):
        set_scores(torch.zeros(2, 2), torch.zeros(3, 2), torch.zeros(2, 2))


def test_a_run_on_clouds_is_evaluated(tmp_path):
    """Each figure of sets with its floor; of an untrained model the test tells all fakes apart."""
    x = boxes(120, 40).numpy()
    np.savez(tmp_path / "boxes.npz", points=x)
    config = Config(
        recipe="pointcloud-wae",
        latent=2,
        data=DataConfig(name=str(tmp_path / "boxes.npz")),
        network=NetworkConfig(points=(4,), cloud=(4,)),
        training=TrainingConfig(batch=10, steps=1),
    )
    run = monge.fit(config=config, out=tmp_path / "run", quiet=True)
    result = run.evaluate(50)
    figures = result["figures"]
    assert figures["1-NNA-CD"]["value"] > 0.9
    assert result["protocol"]["n samples"] == len(run.source.test) == 15
    for name in ("MMD-CD", "coverage-CD", "1-NNA-EMD", "points JS"):
        assert figures[name]["floor"] is not None
    assert 0 < figures["test reconstruction"]["floor"] < figures["test reconstruction"]["value"]
    assert {"test reconstruction, turned", "test reconstruction, scaled"} <= set(figures)


# Pictures


def test_a_turn_is_a_film_and_images_have_none():
    clouds_, images = pictures_of(CLOUD), pictures_of(IMAGE)
    frames = clouds_.turntable(torch.randn(2, 30, 3).clamp(-0.5, 0.5))
    assert len({frame.tobytes() for frame in frames}) == 36
    assert len(images.film(torch.rand(6, 1, 8, 8), 3)) == 4  # there and back
    with pytest.raises(ValueError, match=r"`out` \.gif"):
        images.turntable(torch.rand(2, 1, 8, 8))


def test_normals_of_a_plane_are_its_own():
    generator = np.random.default_rng(0)
    flat = np.concatenate([generator.normal(size=(200, 2)), np.zeros((200, 1))], 1)
    turn = rotation(0.7, 0.3)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    found = normals(flat @ turn.T)
    np.testing.assert_allclose(np.abs(found @ turn[:, 2]), 1, atol=1e-6)


def test_nearer_points_hide_those_behind():
    """Two discs of 300 points: one alone looks the same as with another hidden behind it."""
    generator = np.random.default_rng(0)
    angle, radius = 2 * np.pi * generator.random(3000), 0.5 * np.sqrt(generator.random(3000))
    disc = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(3000, 0.5)], 1)
    front = rotation(0.0, 0.35).T @ disc.T  # faces the camera
    behind = rotation(0.0, 0.35).T @ (0.5 * disc - [0, 0, 0.6]).T
    alone = render(torch.from_numpy(front.T)[None], (0.0,))
    both = render(torch.from_numpy(np.concatenate([front.T, behind.T]))[None], (0.0,))
    drawn = alone.amin(1) < 1
    assert 0.1 < drawn.float().mean() < 0.3
    assert ((both.amin(1) < 1) == drawn).all()
    assert (both - alone).abs().mean() < 0.01
