"""The figures of a trained model, each with its noise floor: what `evaluation.json` holds."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from monge._core import processes
from monge._core.references import resolve
from monge._core.version import __version__
from monge._core.visible import markdown
from monge.data import Source
from monge.draws import generator, permutation
from monge.evaluation.extractors import Extractor, floor_rows
from monge.evaluation.marginals import OF_COLUMN
from monge.evaluation.measures import NEAR, Measures
from monge.evaluation.of_classes import ACCURACY, class_figures
from monge.evaluation.samplers import draw
from monge.evaluation.statistics import Figure, Measured, lacking, mean_figure
from monge.models.protocols import classes_of, generates, require
from monge.priors import Prior


def evaluate(
    model: nn.Module,
    source: Source,
    n: int = 10_000,
    prior: Prior | None = None,
    seeds: int = 1,
    *,
    metrics: Sequence[str] = (),
    extractor: Extractor | None = None,
    seed: int = 0,
    name: str = "",
    recipe: str = "",
) -> dict[str, Any]:
    """Measures a model against the held-out samples of its data.

    Figures of samples come with a noise floor: the same figure of as many training samples, which
    a perfect model would have. The classifier whose features compare labelled images was not
    trained on them; they are therefore at most half of the training part. Figures of
    reconstructions and completions have no floor, and none has one where nothing is held out. The
    figures depend on which methods the model has: completions, reconstructions and codes are
    measured where there are any. Figures that need more samples than there are, are left out, and
    so are their floors; the protocol names them.

    Args:
        model: a model that can be sampled; see `monge.models.protocols`.
        source: its data.
        n: how many samples, compared with as many held-out ones; all of those if there are fewer.
        prior: draws the codes in place of the model's own prior, e.g. a fitted `Mixture`.
        seeds: how many independent draws of n samples; figures are their means.
        metrics: groups of measures: frechet, kernel, neighbours, tests, memory, sliced; also
            sharpness and classes for images, exact and columns for vectors; for clouds chamfer,
            earth-mover and occupancy instead. All of them by default.
        extractor: a feature space for images in place of the default one, e.g.
            `inception_network(file)`.
        seed: of the draws of codes.
        name: of the run, for the protocol.
        recipe: of the run, for the protocol.

    Returns:
        `protocol`, what the figures rest on, and `figures`, each a value with its standard
        deviation over the seeds and its floor, None where there is none; of vectors also
        `columns`, the figures of single columns; of a class-conditional model `classes`, the
        figures of samples of each class.

    Raises:
        ValueError: for bad arguments, fewer than 2 samples to test, or a model without samples.
    """
    n = _checked_count(model, source, n, prior, seeds)
    real = source.test[permutation(0, "evaluation test", len(source.test))[:n]]
    measure = resolve(source.kind.measures, "measures")(source, real, metrics, extractor)
    floor = _floor_rows(source)[:n]
    figures = _of_samples(measure, model, source, n, floor, prior, seeds)
    columns = {name: figures.pop(name) for name in list(figures) if name.startswith(OF_COLUMN)}
    classes: dict[str, Figure] = {}
    if classes_of(model) is not None and (not metrics or "classes" in metrics):
        names = source.classes or tuple(map(str, range(classes_of(model) or 0)))
        rows = floor[: len(source.train) // 2]
        classes = class_figures(measure, model, source, names, n, rows, prior, seeds)
        if ACCURACY in classes:
            figures[ACCURACY] = classes.pop(ACCURACY)
    remarks = {
        "left out": lacking(measure.estimators, n),
        "without floor": ", ".join(name for name in figures if figures[name]["floor"] is None),
    }
    protocol = {
        "run": name,
        "recipe": recipe,
        "data": source.name,
        "split": "test" if source.held_out else "train: none is held out",
        "sampler": "prior" if prior is None else type(prior).__name__.lower(),
        "seeds": seeds,
        "n samples": n,
        "n test": n,
        "n floor": len(floor),
        **{remark: names for remark, names in remarks.items() if names},
        **measure.protocol(),
        "monge": __version__,
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
    }
    result = {"protocol": protocol, "figures": figures | measure.of_model(model, seed)}
    result |= {"classes": classes} if classes else {}
    return result | {"columns": columns} if columns else result


def _checked_count(
    model: nn.Module, source: Source, n: int, prior: Prior | None, seeds: int
) -> int:
    """How many samples are compared where n are asked for; raises what `evaluate` raises."""
    if seeds < 1:
        raise ValueError(f"`seeds` must be at least 1, got {seeds}")
    n = min(n, len(source.test))
    if n < 2:
        raise ValueError(f"`n` must be at least 2 samples, got {n} (as many as there are to test)")
    if prior is None and not generates(model):
        require(model, "sample", "evaluation")
    return n


def _floor_rows(source: Source) -> Tensor:
    """The training samples of which noise floors are made; none of those that are tested on."""
    return floor_rows(source) if source.held_out else torch.empty(0, dtype=torch.long)


def _of_samples(
    measure: Measures,
    model: nn.Module,
    source: Source,
    n: int,
    chosen: Tensor,
    prior: Prior | None,
    seeds: int,
) -> dict[str, Figure]:
    """The figures of n samples, whose floor is that of the chosen training samples."""

    def of_training() -> Measured:
        parts = chosen.split(500) if len(chosen) else ()
        return measure(map(source.train.__getitem__, parts), len(chosen))

    def drawn(i: int) -> Measured:
        return measure(draw(model, source, n, generator(i, "evaluate"), prior), n)

    floor, *values = processes.shared([of_training, *(partial(drawn, i) for i in range(seeds))])
    if "near training" in values[0]:
        # training samples are near training samples; held-out ones are so by definition
        floor["near training"] = NEAR
    return {key: mean_figure([one[key] for one in values], floor.get(key)) for key in values[0]}


def lines(result: dict[str, Any]) -> list[str]:
    """The figures of an evaluation as the rows of a Markdown table, the worst of single columns
    and classes below the others."""
    rows = ["| figure | value | ± | floor |", "|---|---|---|---|"]
    worst = worst_of_single(result)
    for name, figure in (result["figures"] | worst).items():
        cells = (figure["value"], figure["deviation"], figure["floor"])
        texts = ["–" if cell is None else f"{cell:.4g}" for cell in cells]
        rows.append(f"| {markdown(name)} | {' | '.join(texts)} |")
    for single in ("columns", "classes"):
        every = result.get(single, {})
        if more := len(every.keys() - worst.keys()):
            rows.append(f"| {more:,} more of single {single}, in evaluation.json | | | |")
    return rows


def worst_of_single(result: dict[str, Any], count: int = 5) -> dict[str, Figure]:
    """The figures of the `count` worst columns of numbers and of categories, and the accuracies of
    the worst classes, the worst first."""
    columns, classes = result.get("columns", {}), result.get("classes", {})
    worst = sorted(columns, key=lambda name: -columns[name]["value"])
    kinds = [[name for name in worst if name.startswith(kind)][:count] for kind in OF_COLUMN]
    shares = [name for name in classes if name.startswith(ACCURACY)]
    shares.sort(key=lambda name: classes[name]["value"])
    return {
        **{name: columns[name] for names in kinds for name in names},
        **{name: classes[name] for name in shares[:count]},
    }
