"""Measures of images and of features, against SciPy, by hand, and on known laws."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.signal import convolve2d
from scipy.spatial.distance import cdist

import monge
from monge.config import NetworkConfig, TrainingConfig
from monge.evaluate import Images, evaluate
from monge.evaluation import (
    Moments,
    extractors,
    frechet_distance,
    frechet_extrapolated,
    kernel_distance,
    memorisation,
    nearest_neighbour_test,
    neighbours,
    precision_recall_density_coverage,
    sharpness,
)
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
    monkeypatch.setattr(neighbours, "BLOCK", block)
    model = 1000 + 0.7 * torch.randn(60, 4, dtype=torch.float64)
    real = 1000 + torch.randn(80, 4, dtype=torch.float64)
    found = precision_recall_density_coverage(model, real, k)
    assert found == pytest.approx(by_hand(model.numpy(), real.numpy(), k))
    torch.testing.assert_close(
        neighbours.nearest(model, real), torch.cdist(model, real).amin(1), rtol=1e-6, atol=1e-6
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


def test_wilson_interval():
    """For 5 of 20: 0.112 to 0.469 (Wilson 1927; statsmodels 0.14 gives the same)."""
    assert neighbours.wilson(5, 20) == pytest.approx((0.25, 0.1119, 0.4687), abs=1e-4)


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


# A run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on digits, with a cache of its own."""
    folder = tmp_path_factory.mktemp("evaluated")
    config = monge.Config(
        network=NetworkConfig(filters=(8, 16)), training=TrainingConfig(steps=60)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONGE_CACHE", str(folder / "cache"))
        yield monge.fit("wae-mmd", "digits", config, folder / "run", quiet=True)


def test_every_figure_has_its_floor_its_size_and_its_protocol(run):
    result = evaluate(run, n=200, seeds=2)
    protocol, figures = result["protocol"], result["figures"]
    assert (protocol["n samples"], protocol["n test"], protocol["n floor"]) == (200, 200, 200)
    assert (protocol["sampler"], protocol["seeds"], protocol["features"]) == ("prior", 2, "LeNet")
    assert protocol["features accuracy"] > 0.9
    assert len(protocol["features sha256"]) == 64
    for name in ("LeNet-FD", "KD", "precision", "1-NN accuracy", "pixel SW", "sharpness"):
        assert set(figures[name]) == {"value", "deviation", "floor"}
    assert figures["LeNet-FD"]["value"] > figures["LeNet-FD"]["floor"] > 0
    assert figures["LeNet-FD"]["deviation"] > 0
    assert figures["near training"]["floor"] == 0.01
    assert not any("FID" in name for name in figures)
    assert json.loads((run.path / "evaluation.json").read_text()) == result
    assert monge.runs.Run(run.path).evaluation() == result
    again = evaluate(run, n=200, seeds=2)
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


def test_images_without_labels_are_compared_by_a_fixed_random_network(run):
    source = dataclasses.replace(run.source, train_labels=None, test_labels=None)
    measure = Images(source, source.test)
    assert measure.protocol()["features"] == "random network"
    same, other = (extractors.random_network(source.shape).sha256 for _ in range(2))
    assert same == other == measure.protocol()["features sha256"]
    figures = measure(source.train[: len(source.test)])
    assert "random network-FD" in figures
    assert "classes JS" not in figures


def test_vectors_are_measured_in_standard_units(tmp_path):
    config = monge.Config(training=TrainingConfig(steps=20))
    run = monge.fit("swae", "rings", config, tmp_path / "run", quiet=True)
    figures = evaluate(run, n=300, sampler="mixture")["figures"]
    assert figures["W2 exact"]["value"] > figures["W2 exact"]["floor"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"n": 5}, "`n` must be"), ({"seeds": 0}, "`seeds`"), ({"sampler": "post"}, "`sampler`")],
)
def test_bad_settings_of_an_evaluation_are_refused(run, settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate(run, **settings)
