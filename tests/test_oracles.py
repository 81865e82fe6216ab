"""Estimators against other libraries, where these are installed: benchmarks/oracles.txt."""

import hashlib
import importlib.util
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from monge.draws import stream
from monge.evaluation import (
    frechet_distance,
    inception,
    kernel_distance,
    precision_recall_density_coverage,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other libraries


@pytest.fixture
def fidelity(monkeypatch):
    """torch-fidelity, which imports what it does not need here from torchvision."""
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    for name in ("torchvision", "torchvision.datasets", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    return importlib.import_module("torch_fidelity")


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 500, 16, generator=generator)
    return 0.8 * x + 0.3, y


def test_frechet_and_kernel_distances_are_those_of_torch_fidelity(features, fidelity):
    statistics = [fidelity.metric_fid.fid_features_to_statistics(z) for z in features]
    found = fidelity.metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    assert frechet_distance(*features) == pytest.approx(
        found["frechet_inception_distance"], rel=1e-6
    )
    found = fidelity.metric_kid.kid_features_to_metric(
        *features, verbose=False, kid_subsets=1, kid_subset_size=500
    )
    assert kernel_distance(*features, subsets=1, size=500).value == pytest.approx(
        found["kernel_inception_distance_mean"], rel=1e-5
    )


def test_frechet_distance_is_that_of_torchmetrics(features, fidelity):
    image = pytest.importorskip("torchmetrics.image.fid", exc_type=ImportError)

    class Flat(torch.nn.Module):
        num_features = 16

        def forward(self, x):
            return x.flatten(1)

    metric = image.FrechetInceptionDistance(Flat(), normalize=True, input_img_size=(1, 4, 4))
    metric.set_dtype(torch.float64)
    for x, real in zip(features, (False, True)):
        metric.update(x.view(-1, 1, 4, 4), real=real)
    assert frechet_distance(*features) == pytest.approx(float(metric.compute()), rel=1e-4)


def test_neighbours_are_those_of_prdc(features):
    prdc = pytest.importorskip("prdc")
    model, real = (z.numpy() for z in features)
    found = prdc.compute_prdc(real, model, nearest_k=5)
    assert precision_recall_density_coverage(*features)._asdict() == pytest.approx(found)


def test_the_inception_graph_is_that_of_torch_fidelity(tmp_path, monkeypatch, fidelity):
    """The same features to 1e-4 of their size, with the same random weights, from 32 × 32."""
    module = fidelity.feature_extractor_inceptionv3
    with stream("oracle"):
        network = inception.graph()
    for layer in network.modules():  # normalisations that do something
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.normal_(layer.bias, std=0.1)
            torch.nn.init.normal_(layer.running_mean, std=0.1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
    rest = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict() | rest, file)
    theirs = module.FeatureExtractorInceptionV3("theirs", ["2048"], str(file)).eval()
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    found = inception.inception_network(file)
    x = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        (expected,) = theirs(x)
    np.testing.assert_allclose(
        found(x).numpy(), expected.numpy(), rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )
