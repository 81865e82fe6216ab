"""Whether samples of a class-conditional model belong to the classes that were asked for."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from monge._core import processes
from monge.data import Source
from monge.draws import generator
from monge.evaluation.frechet import frechet_distance
from monge.evaluation.measures import Measures
from monge.evaluation.samplers import draw
from monge.evaluation.statistics import Measured, mean_figure
from monge.labels import Labelled
from monge.models.protocols import rows_for
from monge.priors import Prior

ACCURACY = "class accuracy"


def class_figures(
    measure: Measures,
    model: nn.Module,
    source: Source,
    names: Sequence[str],
    n: int,
    floor: Tensor,
    prior: Prior | None,
    seeds: int,
) -> dict[str, dict[str, float | None]]:
    """The figures of samples of each class, n / K of each of the K classes.

    `class accuracy` is the share of samples that a classifier of real training samples assigns to
    the class that was asked for, the mean over the classes; `class accuracy of NAME` is that of a
    class. The Fréchet distance of a class compares its samples with the held-out samples of that
    class, where there are more of both than features have numbers.

    Args:
        measure: has the features and the classifier.
        model: a class-conditional model.
        source: its data.
        names: of its classes.
        n: how many samples in all.
        floor: training samples, by their indices, that the classifier is not trained on; their
            figures are the noise floors.
        prior: draws the codes in place of the model's own prior.
        seeds: how many independent draws.

    Returns:
        Figures by name, those of single classes included.
    """
    each = max(1, n // len(names))
    train = rows_for(model, source.train, source.train_labels)
    test = rows_for(model, source.test, source.test_labels)
    assert isinstance(train, Labelled), "rows of a class-conditional model have labels"
    assert isinstance(test, Labelled), "rows of a class-conditional model have labels"
    real = [measure.features(test.x[test.labels == k][:each]) for k in range(len(names))]

    def measured(features: Tensor, labels: Tensor) -> Measured:
        found: Measured = {}
        predicted = measure.predicted(features)
        for k, (name, theirs) in enumerate(zip(names, real)):
            ours = features[labels == k]
            if predicted is not None and len(ours):
                share = (predicted[labels == k] == k).double().mean()
                found[f"{ACCURACY} of {name!r}"] = float(share)
            if min(len(ours), len(theirs)) > measure.dim:
                some = min(len(ours), len(theirs))
                distance = frechet_distance(ours[:some], theirs[:some])
                found[f"{measure.figures[0]} of {name!r}"] = distance
        shares = [value for name, value in found.items() if name.startswith(ACCURACY)]
        return {ACCURACY: sum(shares) / len(shares), **found} if shares else found

    def of_training() -> Measured:
        if not len(floor):
            return {}
        return measured(measure.features(train.x[floor]), train.labels[floor])

    def of_model(i: int) -> Measured:
        asked = torch.arange(len(names)).repeat_interleave(each)
        drawn = draw(model, None, len(asked), generator(i, "evaluate classes"), prior, asked)
        return measured(torch.cat([measure.features(batch) for batch in drawn]), asked)

    floors, *values = processes.shared(
        [of_training, *(partial(of_model, i) for i in range(seeds))]
    )
    return {
        name: mean_figure([one[name] for one in values], floors.get(name)) for name in values[0]
    }
