"""Measures of images and of features, against SciPy, by hand, and on known laws."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from scipy.signal import convolve2d
from scipy.spatial.distance import cdist
from torch import nn

import monge
from monge._core import tuning
from monge.config import NetworkConfig, TrainingConfig
from monge.evaluation import (
    Moments,
    extractors,
    fidelity,
    frechet_distance,
    frechet_extrapolated,
    inception,
    kernel_distance,
    laplacian_pyramid,
    memorisation,
    nearest_neighbour_test,
    network_test,
    precision_recall_density_coverage,
    pyramid,
    pyramid_distances,
    pyramid_patches,
    sharpness,
    summary,
    two_sample,
)
from monge.evaluation.image_measures import ImageMeasures
from monge.transport import gaussian_wasserstein


def test_sharpness_is_the_variance_of_the_laplacian_by_scipy():
    x = torch.rand(4, 3, 9, 7, dtype=torch.float64)
    grey = np.einsum("nchw,c->nhw", x.numpy(), [0.299, 0.587, 0.114])
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    expected = np.mean([convolve2d(image, kernel, mode="valid").var() for image in grey])
    assert sharpness(x) == pytest.approx(expected, rel=1e-12)
    assert sharpness(torch.from_numpy(grey)[:, None]) == pytest.approx(expected, rel=1e-12)


def test_sharpness_of_smooth_and_of_chequered_images():
    """0 for a plane; on a chequerboard the Laplacian is ±4, of variance 16."""
    rows, columns = torch.meshgrid(torch.arange(10.0), torch.arange(10.0), indexing="ij")
    assert sharpness(((rows + columns) / 20)[None, None]) == pytest.approx(0, abs=1e-12)
    assert sharpness(((rows + columns) % 2)[None, None]) == pytest.approx(16)


@pytest.mark.parametrize(
    "x",
    [torch.rand(4, 9, 9), torch.rand(2, 2, 9, 9), torch.rand(2, 1, 2, 9), -torch.ones(1, 1, 5, 5)],
)
def test_images_without_a_sharpness_are_refused(x):
    with pytest.raises(ValueError, match="`images` must"):
        sharpness(x)


# Fréchet and kernel distances


def test_frechet_distance_is_the_transport_distance_of_the_fitted_gaussians():
    x = torch.randn(200, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    y = torch.randn(300, 5, dtype=torch.float64) + 0.5
    expected = gaussian_wasserstein(x.mean(0), x.T.cov(), y.mean(0), y.T.cov()) ** 2
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-9)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_equals_scipys_matrix_square_root():
    x, y = torch.randn(100, 4).double(), 2 * torch.randn(80, 4).double() + 1
    a, b = x.T.cov().numpy(), y.T.cov().numpy()
    shared = np.trace(sqrtm(a @ b).real)
    means = float((x.mean(0) - y.mean(0)).square().sum())
    expected = means + np.trace(a) + np.trace(b) - 2 * shared
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_moments_in_batches_are_those_of_all_rows():
    x = 1e4 + torch.randn(1000, 6, dtype=torch.float64)
    batched = Moments(6)
    for part in x.split(170):
        batched.update(part)
    torch.testing.assert_close(batched.mean, x.mean(0))
    torch.testing.assert_close(batched.covariance, x.T.cov(), rtol=1e-8, atol=1e-10)


def test_the_floor_of_the_frechet_distance_falls_as_its_bias_law_says():
    """d (d + 5) / 2n between two samples of N(0, I_d); the extrapolation takes it out."""
    d, n = 32, 2000
    generator = torch.Generator().manual_seed(0)
    found, extrapolated = [], []
    for _ in range(10):
        x, y = torch.randn(2, n, d, generator=generator)
        found.append(frechet_distance(x, y))
        extrapolated.append(frechet_extrapolated(x, y))
    assert np.mean(found) == pytest.approx(d * (d + 5) / (2 * n), rel=0.05)
    assert abs(np.mean(extrapolated)) < 0.1 * np.mean(found)


def test_fewer_samples_than_dimensions_are_said():
    with pytest.warns(UserWarning, match="20 samples in 30 dimensions rests on singular"):
        frechet_distance(torch.randn(20, 30), torch.randn(50, 30))


def test_kernel_distance_against_a_loop():
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64) + 1

    def k(a, b):
        return (float(a @ b) / 3 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    expected = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs) / 30
    expected -= 2 * sum(k(x[i], y[j]) for i in range(6) for j in range(6)) / 36
    value, deviation = kernel_distance(x, y, subsets=3, size=6)
    assert value == pytest.approx(expected, rel=1e-9)
    assert deviation == pytest.approx(0, abs=1e-9)


def test_kernel_distance_of_one_law_is_zero_in_the_mean():
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(40):
        x, y = torch.randn(2, 200, 8, generator=generator)
        values.append(kernel_distance(x, y, subsets=1, size=200, generator=generator).value)
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_moments_add_up():
    """Those of two parts together, an empty one included, are those of all rows."""
    x = 5 + torch.randn(70, 4, dtype=torch.float64)
    one, two, none = (Moments(4).update(x[:30]), Moments(4).update(x[30:]), Moments(4))
    for both in (one + two, none + one + two):
        assert both.count == 70
        torch.testing.assert_close(both.mean, x.mean(0))
        torch.testing.assert_close(both.covariance, x.T.cov())
    assert one.count == 30


def test_the_extrapolation_is_a_line_through_the_distances_of_growing_shares():
    x, y = torch.randn(2, 103, 3, dtype=torch.float64)
    sizes = [i * 103 // 5 for i in range(1, 6)]
    line = np.polyfit([1 / n for n in sizes], [frechet_distance(x[:n], y[:n]) for n in sizes], 1)
    assert frechet_extrapolated(x, y) == pytest.approx(line[1], rel=1e-9)


# Neighbours


def by_hand(model, real, k):
    """Precision, recall, density, coverage from whole matrices of SciPy's distances."""
    radii_real = np.sort(cdist(real, real), 1)[:, k]
    radii_model = np.sort(cdist(model, model), 1)[:, k]
    between = cdist(model, real)
    inside = between <= radii_real
    return (
        inside.any(1).mean(),
        (between <= radii_model[:, None]).any(0).mean(),
        inside.sum(1).mean() / k,
        inside.any(0).mean(),
    )


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("block", [64, 2**22])
def test_neighbours_against_whole_matrices(k, block, monkeypatch):
    monkeypatch.setattr(tuning, "CPU", dataclasses.replace(tuning.CPU, neighbour_entries=block))
    model = 1000 + 0.7 * torch.randn(60, 4, dtype=torch.float64)
    real = 1000 + torch.randn(80, 4, dtype=torch.float64)
    found = precision_recall_density_coverage(model, real, k)
    assert found == pytest.approx(by_hand(model.numpy(), real.numpy(), k))
    torch.testing.assert_close(
        fidelity.nearest(model, real), torch.cdist(model, real).amin(1), rtol=1e-6, atol=1e-6
    )


def test_a_perfect_model_has_the_known_precision_and_recall():
    """About 0.71 each at k = 5, d = 64, n = 2,000: not 1, hence the floor beside each figure."""
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 2000, 64, generator=generator) for _ in range(4)]
    found = torch.tensor([precision_recall_density_coverage(x, y) for x, y in draws])
    expected = torch.tensor([0.71, 0.71, 1.0, 0.965])
    torch.testing.assert_close(found.mean(0), expected, atol=0.04, rtol=0)


def test_nearest_neighbours_tell_laws_apart():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 1000, 4, generator=generator)
    same = nearest_neighbour_test(x, y)
    assert same.low < 0.5 < same.high
    assert nearest_neighbour_test(x, y + 3).low > 0.9
    # a model that repeats the real samples is found out below one half
    assert nearest_neighbour_test(y + 1e-4 * x, y).high < 0.1


def test_a_network_tells_laws_apart_that_differ_in_shape_alone():
    """½ for one law; far above it for a ring against a Gaussian of the same moments."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 2000, 2, generator=generator)
    same = network_test(x, y)
    assert same.low < 0.5 < same.high
    ring = 2**0.5 * torch.nn.functional.normalize(x)
    assert network_test(ring, y).low > 0.7
    assert network_test(ring, y) == network_test(ring, y)
    with pytest.raises(ValueError, match="at least 4 rows of one length"):
        network_test(x[:3], y)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "d", "shift", "scale"),
    [(100, 2, 0, 1), (300, 1, 0, 1), (300, 16, 0, 1), (200, 2, 1, 1), (200, 4, 0, 1.7)],
)
def test_the_interval_of_the_nearest_neighbour_test_covers(n, d, shift, scale):
    """The expected share, which is estimated by the mean, 95 times in 100 (± 3.3 standard errors
    of 400 draws); intervals for independent hits cover it 85 to 89 times."""
    g = torch.Generator().manual_seed(n + d)
    found = [
        nearest_neighbour_test(
            scale * torch.randn(n, d, generator=g) + shift / d**0.5, torch.randn(n, d, generator=g)
        )
        for _ in range(400)
    ]
    mean = sum(one.value for one in found) / len(found)
    covered = sum(one.low < mean < one.high for one in found) / len(found)
    assert 0.914 <= covered <= 0.986
    assert sum(one.high - one.low for one in found) / len(found) < 4 * (1 / (2 * n)) ** 0.5


def test_hits_that_share_neighbours_count_as_fewer():
    """The inflation by the double loop over pairs of edges with a common end."""
    g = torch.Generator().manual_seed(0)
    near = torch.cdist(*[torch.randn(40, 2, generator=g)] * 2).fill_diagonal_(torch.inf).argmin(1)
    labels = torch.rand(40, generator=g) < 0.5
    same = labels == labels[near]
    d = same.double() - same.double().mean()
    ends = [{i, int(j)} for i, j in enumerate(near)]
    total = sum(float(d[i] * d[j]) for i in range(40) for j in range(40) if ends[i] & ends[j])
    expected = max(1.0, total / float(d.square().sum()))
    assert fidelity._inflation(same, near) == pytest.approx(expected)
    assert expected > 1
    assert fidelity._inflation(torch.ones(40, dtype=torch.bool), near) == 2


@pytest.mark.slow
def test_the_interval_of_the_network_test_covers_the_accuracy_of_its_network():
    """The accuracy of one trained network on 200,000 new samples, at least 92 and at most 98 times
    in 100 of 1,000 samples of 100 of each kind."""
    g = torch.Generator().manual_seed(0)
    for shift in (0.0, 0.7):
        x, y = torch.randn(2, 1_100, 100, 2, generator=g)
        rows = torch.cat([x + shift, y], 1)
        label = (torch.arange(200) < 100).float()
        classify = two_sample._classifier(rows[0], label, g)
        right = (classify(rows[100:].flatten(0, 1)) > 0).view(-1, 200) == (label > 0)
        accuracy = float(right.float().mean())
        shares = [two_sample.wilson(int(hits), 200) for hits in right.sum(1)]
        covered = sum(one.low < accuracy < one.high for one in shares) / len(shares)
        assert 0.92 <= covered <= 0.985, shift


def test_wilson_interval():
    """For 5 of 20: 0.112 to 0.469 (Wilson 1927; statsmodels 0.14 gives the same)."""
    assert two_sample.wilson(5, 20) == pytest.approx((0.25, 0.1119, 0.4687), abs=1e-4)


def test_memorisation_finds_a_model_that_repeats_its_data():
    generator = torch.Generator().manual_seed(0)
    train, test, fresh = (torch.randn(2000, 8, generator=generator) for _ in range(3))
    assert memorisation(fresh, train, test) == pytest.approx(0.01, abs=0.01)
    repeated = torch.cat([train[:1000] + 1e-3, fresh[:1000]])
    assert memorisation(repeated, train, test) > 0.49


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: frechet_distance(x[:1], x), "at least 2"),
        (lambda x: frechet_distance(x * torch.nan, x), "`x` must be finite"),
        (lambda x: frechet_distance(x[:, 0], x), r"`x` must be features \(n, d\)"),
        (lambda x: frechet_distance(x[:, :2], x), "features"),
        (lambda x: kernel_distance(x[:, :2], x), "`y` must have 2 features"),
        (lambda x: precision_recall_density_coverage(x, x[:5], k=5), "`k` must be from 1"),
        (lambda x: precision_recall_density_coverage(x[:, :2], x), "`real` must have 2"),
    ],
)
def test_features_without_a_figure_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.randn(20, 3))


# Pyramids


def test_a_laplacian_pyramid_adds_up_to_its_image():
    """Each level is what blurring and halving loses: enlarging and adding gives the image back."""
    x = torch.rand(2, 3, 67, 64, dtype=torch.float64)
    levels = laplacian_pyramid(x)
    assert [tuple(level.shape[2:]) for level in levels] == [(67, 64), (34, 32), (17, 16)]
    whole = levels[-1]
    for level in reversed(levels[:-1]):
        whole = level + pyramid._enlarged(whole, (level.shape[2], level.shape[3]))
    torch.testing.assert_close(whole, x)
    flat = laplacian_pyramid(torch.full((1, 3, 64, 64), 0.3))
    assert max(float(level[:, :, 4:-4, 4:-4].abs().max()) for level in flat[:-1]) < 1e-6


def test_patches_are_cut_from_the_levels():
    (patches,) = pyramid_patches(torch.arange(3 * 400.0).view(1, 3, 20, 20), 5)
    assert patches.shape == (5, 3 * 49)
    patches = patches.view(5, 3, 7, 7)
    assert (patches[:, :, :, 1:] - patches[:, :, :, :-1] == 1).all()
    assert (patches[:, :, 1:] - patches[:, :, :-1] == 20).all()
    assert (patches[:, 1:] - patches[:, :-1] == 400).all()


def test_pyramid_distances_see_the_scale_at_which_images_differ():
    """Of one law small at every level; fine noise shows at the fine one more than at the coarse;
    brightness and contrast, in each sample's own units, not at all."""
    generator = torch.Generator().manual_seed(0)

    def images(n):
        coarse = torch.rand(n, 3, 4, 4, generator=generator)
        return torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1)

    def distances(x, y):
        parts = [pyramid_patches(z, 8, torch.Generator().manual_seed(1)) for z in (x, y)]
        return pyramid_distances(*parts, generator=torch.Generator().manual_seed(2))

    x, y = images(200), images(200)
    noisy = y + 0.1 * torch.randn(y.shape, generator=generator)
    assert max(distances(x, 0.5 * x + 0.2)) < 1e-2
    near, far = distances(x, y), distances(x, noisy)
    assert far[0] > 3 * near[0]
    assert far[0] > 2 * far[1]


# Inception


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random Inception weights, and its sha256."""
    with monge.draws.stream("test inception"):
        network = inception.graph()
    state = network.state_dict() | {"fc.weight": torch.randn(8, 2048), "fc.bias": torch.ones(8)}
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(state, file)
    return file, hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(("resize", "name"), [("tf1", "FID"), ("clean", "clean-FID")])
def test_inception_sees_grey_images_as_colours_of_eight_bits(weights, resize, name, monkeypatch):
    monkeypatch.setattr(inception, "SHA256", weights[1])
    extractor = inception.inception_network(weights[0], resize)
    x = (torch.rand(1, 1, 28, 28) * 255).round() / 255
    features = extractor(x)
    assert features.shape == (1, 2048)
    assert extractor.figures[0] == name
    assert extractor.sha256 == weights[1]
    torch.testing.assert_close(extractor((x + 1e-3).clamp(0, 1)), features)
    torch.testing.assert_close(extractor(x.expand(-1, 3, -1, -1)), features)


def test_only_the_published_weights_make_an_fid(weights, tmp_path):
    with pytest.raises(
        ValueError, match=r"`weights` .* has the sha256 .* but the features of FID"
    ):
        inception.inception_network(weights[0])
    with pytest.raises(ValueError, match=r"`weights` .* is not a file"):
        inception.inception_network(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match="`resize` must be tf1 or clean"):
        inception.inception_network(weights[0], "bicubic")  # pyright: ignore


def test_only_tensors_are_read_of_a_weights_file(tmp_path, monkeypatch):
    """A pickle that would run code is refused even under the right sha256."""

    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run",))

    file = tmp_path / "weights.pth"
    torch.save({"fc": Harmful()}, file)
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match="cannot be read"):
        inception.inception_network(file)
    assert not (tmp_path / "run").exists()


def test_tf1_resizing_takes_pixels_from_the_upper_left():
    """A ramp of side 2 is 0 at the left border, ½ a quarter on, and stays at 1 from the middle."""
    ramp = torch.tensor([[0.0, 1.0]]).expand(2, 2)[None, None]
    row = inception.tf1(ramp)[0, 0, 0]
    torch.testing.assert_close(row, (torch.arange(299) * 2 / 299).clamp_max(1))


@pytest.mark.parametrize("side", [28, 64, 640])
def test_clean_resizing_is_pillows(side):
    x = 255 * torch.rand(1, 1, side, side)
    image = Image.fromarray(x[0, 0].numpy()).resize((299, 299), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(image)).clamp(0, 255)
    torch.testing.assert_close(inception.clean(x)[0, 0], expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("x", [-torch.ones(2, 1, 8, 8), torch.full((2, 1, 8, 8), torch.nan)])
def test_images_of_another_range_have_no_features(x):
    with pytest.raises(ValueError, match="`images` must be"):
        extractors.random_network((1, 8, 8))(x)


# A run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on digits."""
    path = tmp_path_factory.mktemp("evaluated") / "run"
    config = monge.Config(
        network=NetworkConfig(filters=(8, 16)), training=TrainingConfig(steps=60)
    )
    return monge.fit("wae-mmd", "digits", config, path, quiet=True)


def test_every_figure_has_its_floor_its_size_and_its_protocol(run):
    result = run.evaluate(n=200, seeds=2)
    protocol, figures = result["protocol"], result["figures"]
    assert (protocol["n samples"], protocol["n test"], protocol["n floor"]) == (200, 200, 200)
    assert (protocol["sampler"], protocol["seeds"], protocol["features"]) == ("prior", 2, "LeNet")
    assert protocol["features accuracy"] > 0.9
    assert len(protocol["features sha256"]) == 64
    for name in (
        "LeNet-FD",
        "KD",
        "precision",
        "1-NN accuracy",
        "network accuracy",
        "pixel SW",
        "sharpness",
    ):
        assert set(figures[name]) == {"value", "deviation", "floor"}
    assert figures["LeNet-FD"]["value"] > figures["LeNet-FD"]["floor"] > 0
    assert figures["LeNet-FD"]["deviation"] > 0
    assert figures["near training"]["floor"] == 0.01
    assert not any("FID" in name for name in figures)
    assert json.loads((run.path / "evaluation.json").read_text()) == result
    assert monge.runs.Run(run.path).evaluation() == result
    again = run.evaluate(n=200, seeds=2)
    assert again == result


def test_the_classifier_is_trained_once_and_kept_by_data_and_recipe(run, tmp_path, monkeypatch):
    monkeypatch.setattr(extractors, "STEPS", 30)
    first, _ = extractors.classifier(run.source, tmp_path)
    (kept,) = tmp_path.iterdir()
    made = kept.stat().st_mtime_ns
    again, _ = extractors.classifier(run.source, tmp_path)
    assert again.sha256 == first.sha256
    assert kept.stat().st_mtime_ns == made
    kept.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="is damaged"):
        assert extractors.classifier(run.source, tmp_path)[0].sha256 == first.sha256
    other = dataclasses.replace(run.source, train=run.source.train.flip(0))
    extractors.classifier(other, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.warns(UserWarning, match="trained anew each time, since .* cannot be written"):
        found, _ = extractors.classifier(run.source, kept / "none")
    assert found.sha256 == first.sha256


def test_the_training_of_the_classifier_is_logged(run, tmp_path, monkeypatch, caplog):
    """It takes minutes for large images; what is kept is read without a word."""
    monkeypatch.setattr(extractors, "STEPS", 3)
    monkeypatch.setattr(extractors, "LOG_SECONDS", 0.0)
    caplog.set_level("INFO", "monge")
    extractors.classifier(run.source, tmp_path)
    first, *steps = [record.getMessage() for record in caplog.records]
    assert first.startswith("training the classifier")
    assert [line.split("  left ")[0] for line in steps] == ["step 1/3", "step 2/3"]
    caplog.clear()
    extractors.classifier(run.source, tmp_path)
    assert caplog.records == []


def test_the_classifier_does_not_see_the_images_of_the_floor(run, tmp_path, monkeypatch):
    """Other images in their places change no weight; others elsewhere do."""
    monkeypatch.setattr(extractors, "STEPS", 5)
    rows = extractors.floor_rows(run.source)
    assert len(rows.unique()) == len(run.source.test) <= len(run.source.train) // 2
    hashes = []
    for changed in (None, rows, (rows + 1) % len(run.source.train)):
        train = run.source.train.clone()
        if changed is not None:
            train[changed] = train[changed].flip(0)
        source = dataclasses.replace(run.source, train=train)
        hashes.append(extractors.classifier(source, tmp_path)[0].sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_images_without_labels_are_compared_by_a_fixed_random_network(run):
    source = dataclasses.replace(run.source, train_labels=None, test_labels=None)
    measure = ImageMeasures(source, source.test)
    assert measure.protocol()["features"] == "random network"
    same, other = (extractors.random_network(source.shape).sha256 for _ in range(2))
    assert same == other == measure.protocol()["features sha256"]
    figures = measure(source.train[: len(source.test)].split(500), len(source.test))
    assert "random network-FD" in figures
    assert "classes JS" not in figures


def test_vectors_are_measured_in_standard_units(tmp_path):
    config = monge.Config(training=TrainingConfig(steps=20))
    run = monge.fit("swae", "rings", config, tmp_path / "run", quiet=True)
    figures = run.evaluate(n=300, sampler="mixture")["figures"]
    assert figures["W2 exact"]["value"] > figures["W2 exact"]["floor"] > 0


def test_a_group_of_figures_alone_is_as_among_all(run):
    """And what it does not need is not kept: the Fréchet distance holds moments only."""
    whole = run.evaluate(n=200)["figures"]
    for group in ("frechet", "kernel", "neighbours", "tests", "memory", "sliced", "sharpness"):
        for name, figure in run.evaluate(n=200, metrics=[group])["figures"].items():
            assert figure == whole[name]
    source = run.source
    measure = ImageMeasures(source, source.test, ["frechet"])
    kept = measure.statistics(source.train[:1000].split(300), 1000)
    assert [part.count for part in kept.parts] == [200] * 5
    assert not kept._kept
    assert measure.train is None


def test_figures_do_not_depend_on_how_samples_come_in_parts(run):
    source = run.source
    measure = ImageMeasures(source, source.test)
    one, two = (measure(source.train[:300].split(size), 300) for size in (300, 77))
    assert one == pytest.approx(two, rel=1e-5)


def test_colour_images_have_a_pyramid_distance():
    generator = torch.Generator().manual_seed(0)
    bytes_ = (255 * torch.rand(60, 3, 32, 32, generator=generator)).byte()
    source = monge.data.Source("noise", "image", bytes_[:30], bytes_[30:])
    measure = ImageMeasures(source, source.test, ["sliced"])
    found = measure(source.train.split(7), 30)
    assert set(found) == {"random network-MIND", "pixel SW", "pyramid SW"}
    assert 0 < found["pyramid SW"] < 200


def test_a_network_of_ones_own_is_a_feature_space(run):
    extractor = extractors.random_network(run.source.shape)
    result = run.evaluate(n=100, metrics=["sliced"], extractor=extractor)
    assert result["protocol"]["features"] == "random network"
    assert "random network-MIND" in result["figures"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 1}, "`n` must be at least 2 samples, got 1"),
        ({"metrics": ["fid"]}, "`metrics` knows no 'fid'"),
        ({"seeds": 0}, "`seeds`"),
        ({"sampler": "post"}, "`sampler`"),
    ],
)
def test_bad_settings_of_an_evaluation_are_refused(run, settings, message):
    with pytest.raises(ValueError, match=message):
        run.evaluate(**settings)


def test_what_is_refused_early_names_all_groups_of_measures(run):
    with pytest.raises(ValueError, match="`metrics` knows no") as refused:
        run.evaluate(metrics=["fid"])
    groups = ImageMeasures(run.source, run.source.test).groups()
    assert str(refused.value).endswith(f"give some of {', '.join(groups)}")


# Counts, categories, units


def test_the_neighbours_test_splits_ties():
    """Flags: a sample has the kind of one of all that are equal to it, on average as often as
    they share it."""
    x, y = (torch.rand(500, 1) < 0.9).float(), (torch.rand(500, 1) < 0.1).float()
    values, counts = torch.cat([x, y]).flatten().unique(return_counts=True)
    expected = 0.0
    for value, count in zip(values, counts):
        for z in (x, y):
            k = float((z == value).sum())
            expected += k * (k - 1) / (float(count) - 1) / 1000
    assert float(nearest_neighbour_test(x, y).value) == pytest.approx(expected, abs=0.03)
    same = nearest_neighbour_test(x, (torch.rand(500, 1) < 0.9).float())
    assert same.value == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("unit", [1e20, 1e-25])
def test_measures_by_neighbours_do_not_depend_on_the_unit(unit):
    x, y = torch.randn(100, 3), torch.randn(100, 3) + 1
    expected = precision_recall_density_coverage(x, y)
    assert precision_recall_density_coverage(unit * x, unit * y) == pytest.approx(expected)
    moved = (unit * x).requires_grad_()
    assert nearest_neighbour_test(moved, unit * y).value == nearest_neighbour_test(x, y).value


@pytest.mark.parametrize(("offset", "unit"), [(1e9, 1.0), (0.0, 1e-15), (0.0, 1e39)])
def test_the_network_test_sees_samples_in_standard_units(offset, unit):
    x, y = torch.randn(200, 3, dtype=torch.float64), torch.randn(200, 3, dtype=torch.float64) + 3
    expected = network_test(x, y).value
    assert expected > 0.95
    ours = network_test(unit * x + offset, unit * y + offset).value
    assert ours == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda x: memorisation(x, x, x, quantile=-1), "`quantile`"),
        (lambda x: kernel_distance(x, x, subsets=0), "`subsets`"),
        (lambda x: kernel_distance(x, x, size=-3), "`size`"),
        (lambda x: frechet_extrapolated(x[:9], x), "`x` must have at least 10 rows"),
        (lambda x: precision_recall_density_coverage(x, x, k=1.5), "`k`"),
    ],
)
def test_settings_of_measures_are_named(call, word):
    with pytest.raises(ValueError, match=word):
        call(torch.randn(20, 2))


class Halving(nn.Module):
    """Reconstructs half of a sample."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z / 2


@pytest.mark.parametrize("units", [(1.0, 1.0), (1e-3, 1e6)])
def test_the_reconstruction_error_of_a_table_does_not_depend_on_units(units):
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    table = x * torch.tensor(units)
    source = monge.Source("table", "vector", train=table[:60], test=table[60:])
    expected = (x[60:] / (2 * x[:60].std(0, correction=0))).square().sum(1).mean()
    found = summary(Halving(), source)["test reconstruction"]
    assert found == pytest.approx(float(expected), rel=1e-5)
