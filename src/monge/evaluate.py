"""All measures of a run, each with its floor: `evaluation.json`."""

import json
import statistics
from typing import Any

import numpy
import torch
from torch import Tensor

import monge
from monge.config import Config
from monge.data import Source, as_floats
from monge.draws import generator, permutation
from monge.evaluation.extractors import Extractor, classifier, random_network
from monge.evaluation.frechet import frechet_distance, frechet_extrapolated, kernel_distance
from monge.evaluation.neighbours import (
    memorisation,
    nearest_neighbour_test,
    precision_recall_density_coverage,
)
from monge.evaluation.sharpness import sharpness
from monge.files import write_whole
from monge.models import AutoEncoder, evaluating
from monge.report import measure as measured
from monge.runs import Run
from monge.transport import jensen_shannon, sliced_wasserstein, wasserstein

DIRECTIONS = 1000
MOST_EXACT = 2000
NEAR = 0.01
"""The share of test samples that counts as near to the training part."""

Measured = dict[str, float]


def _in_features(x: Tensor, real: Tensor, train: Tensor, space: str = "") -> Measured:
    """What is measured between features of samples and of the test part, both (n, d); Fréchet
    distances bear the name of the feature space."""
    drawn = generator(0, "evaluation subsets")
    prdc = precision_recall_density_coverage(x, real)
    found = {f"{space}FD": frechet_distance(x, real)}
    if len(x) > 5 * x.shape[1]:  # a fifth of the samples still has a covariance
        found[f"{space}FD extrapolated"] = frechet_extrapolated(x, real)
    return found | {
        "KD": kernel_distance(x, real, generator=drawn).value,
        **prdc._asdict(),
        "1-NN accuracy": nearest_neighbour_test(x, real).value,
        "near training": memorisation(x, train, real, NEAR),
        "feature SW": _sliced(x, real),
    }


def _sliced(x: Tensor, y: Tensor) -> float:
    """SW_2 with fixed directions."""
    drawn = generator(0, "evaluation directions")
    return float(sliced_wasserstein(x, y, directions=DIRECTIONS, generator=drawn))


class Images:
    """The measures of images (n, c, h, w) against a test part of the same size n."""

    def __init__(self, source: Source, real: Tensor):
        self.real, self.head = real, None
        if source.train_labels is None:
            self.extractor: Extractor = random_network(source.shape)
        else:
            self.extractor, self.head = classifier(source)
        held = source.train[permutation(0, "evaluation memory", len(source.train))[:20_000]]
        self.features, self.train = self.extractor(real), self.extractor(held)

    def protocol(self) -> dict[str, Any]:
        """What the figures rest on."""
        return {
            "features": self.extractor.name,
            "features sha256": self.extractor.sha256,
            "features accuracy": self.extractor.accuracy,
            "range": "[0, 1]",
            "resize": "none: images are compared as the model sees them",
        }

    def __call__(self, x: Tensor) -> Measured:
        features = self.extractor(x)
        space = f"{self.extractor.name}-"
        found = _in_features(features, self.features, self.train, space)
        found["pixel SW"] = _sliced(as_floats(x).flatten(1), as_floats(self.real).flatten(1))
        if x.shape[1] in (1, 3):
            found["sharpness"] = sharpness(as_floats(x))
        if self.head is not None:
            found["classes JS"] = float(
                jensen_shannon(self._classes(features), self._classes(self.features))
            )
        return found

    def _classes(self, features: Tensor) -> Tensor:
        assert self.head is not None
        with evaluating(self.head):
            scores = self.head(features)
        return torch.bincount(scores.argmax(1), minlength=scores.shape[1]).double() / len(scores)


class Vectors:
    """The measures of rows (n, d), in the standard units of the training part's columns."""

    def __init__(self, source: Source, real: Tensor):
        moments = source.moments()
        assert moments is not None
        self.mean, self.deviation = moments
        self.real, self.train = self._scaled(real), self._scaled(source.train[:20_000])

    def _scaled(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation

    def protocol(self) -> dict[str, Any]:
        """What the figures rest on."""
        return {"features": "columns in standard units of the training part"}

    def __call__(self, x: Tensor) -> Measured:
        x = self._scaled(x)
        found = _in_features(x, self.real, self.train)
        found["W2 exact"] = float(wasserstein(x[:MOST_EXACT], self.real[:MOST_EXACT]))
        return found


def evaluate(run: Run, n: int = 10_000, sampler: str = "prior", seeds: int = 1) -> dict[str, Any]:
    """Measures n samples of a run against n test samples, and writes `evaluation.json`.

    Each figure is a mean over `seeds` draws of samples with their standard deviation, and has a
    floor: the same measure of n random training samples. Where the test part is smaller than n,
    all of it is used.

    Arguments:
        run: a trained run.
        n: how many samples, at least 10.
        sampler: prior, or mixture for a Gaussian mixture fitted to the training codes.
        seeds: how many draws.

    Raises:
        ValueError: for bad arguments, or a test part of fewer than 10 samples.
    """
    if sampler not in ("prior", "mixture"):
        raise ValueError(f"`sampler` must be prior or mixture, got {sampler!r}")
    if seeds < 1:
        raise ValueError(f"`seeds` must be at least 1, got {seeds}")
    source, prior = run.source, run.mixture() if sampler == "mixture" else None
    n = min(n, len(source.test))
    if n < 10:
        raise ValueError(
            f"`n` must be at least 10 samples, got {n} (as many as there are to test)"
        )
    real = source.test[permutation(0, "evaluation test", len(source.test))[:n]]
    measure = Images(source, real) if source.kind == "image" else Vectors(source, real)
    drawn = [
        measure(run.model.sample(n, generator(seed, "evaluate"), prior)) for seed in range(seeds)
    ]
    chosen = permutation(0, "evaluation floor", len(source.train))[:n]
    # training samples are near training samples; the test part is so by definition
    floor = measure(source.train[chosen]) | {"near training": NEAR}
    figures = {
        name: {
            "value": statistics.fmean(values := [one[name] for one in drawn]),
            "deviation": statistics.stdev(values) if seeds > 1 else None,
            "floor": floor[name],
        }
        for name in floor
    }
    if isinstance(run.model, AutoEncoder):
        figures |= _codes(run)
    config: Config = run.config
    result = {
        "protocol": {
            "run": run.name, "recipe": config.recipe, "data": source.name, "sampler": sampler,
            "seeds": seeds, "n samples": n, "n test": n, "n floor": len(chosen),
            **measure.protocol(), "monge": monge.__version__,
            "torch": torch.__version__, "numpy": numpy.__version__,
        },
        "figures": figures,
    }  # fmt: skip
    write_whole(run.path / "evaluation.json", json.dumps(result, indent=2) + "\n")
    return result


def _codes(run: Run) -> dict[str, dict[str, float | None]]:
    found = measured(run)
    return {
        "test reconstruction": {
            "value": found["test reconstruction"], "deviation": None, "floor": None,
        },
        "MMD² of codes": {
            "value": found["MMD² of codes"], "deviation": None, "floor": found["its floor"],
        },
    }  # fmt: skip


def lines(result: dict[str, Any]) -> list[str]:
    """The figures as the rows of a Markdown table."""
    rows = ["| figure | value | ± | floor |", "|---|---|---|---|"]
    for name, figure in result["figures"].items():
        cells = (figure["value"], figure["deviation"], figure["floor"])
        shown = ["–" if cell is None else f"{cell:.4g}" for cell in cells]
        rows.append(f"| {name} | {' | '.join(shown)} |")
    return rows
