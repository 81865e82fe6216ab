"""The figures of a trained model, each with its noise floor: what `evaluation.json` holds."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from monge._core import html, processes
from monge._core.checks import dimension, instance, rows
from monge._core.checks import seed as checked_seed
from monge._core.references import resolve
from monge._core.version import __version__
from monge._core.visible import markdown
from monge.data import Source
from monge.draws import generator, permutation
from monge.evaluation.extractors import Extractor, floor_rows
from monge.evaluation.measures import NEAR, Measures
from monge.evaluation.of_classes import ACCURACY, class_figures
from monge.evaluation.samplers import draw
from monge.evaluation.statistics import (
    OF_COLUMN,
    Figure,
    Measured,
    best_value,
    has_best,
    lacking,
    mean_figure,
)
from monge.models.protocols import classes_of, clusters_of, generates, require
from monge.priors import Prior

SINGLE = ("columns", "classes")
"""The parts of an evaluation that list figures one by one."""
MISSING: Figure = {"value": None, "deviation": None, "floor": None}


class Evaluation(dict[str, Any]):
    """The result of `evaluate`, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        found = by_sampler(self)
        heads = ["figure", *(head for name in found for head in (name, "±")), "floor"]
        rows = []
        for name in self["figures"]:
            every = [one["figures"].get(name, MISSING) for one in found.values()]
            cells = [figure[part] for figure in every for part in ("value", "deviation")]
            rows.append([name, *cells, every[0]["floor"]])
        best = verdict(self)
        said = "" if best is None else f"<p>{html.escaped(best)}</p>"
        return html.table(heads, rows) + said


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
    reconstructions and completions have no floor, and without a held-out set there are no floors.
    Completions, reconstructions and codes are measured if the model has the methods for them.
    Figures and floors that need more samples than there are are left out; the protocol names them.

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
    sampler = "prior" if prior is None else type(prior).__name__.lower()
    return evaluate_samplers(
        model,
        source,
        {sampler: prior},
        n,
        seeds,
        metrics=metrics,
        extractor=extractor,
        seed=seed,
        name=name,
        recipe=recipe,
    )


def evaluate_samplers(
    model: nn.Module,
    source: Source,
    samplers: Mapping[str, Prior | None],
    n: int = 10_000,
    seeds: int = 1,
    *,
    metrics: Sequence[str] = (),
    extractor: Extractor | None = None,
    seed: int = 0,
    name: str = "",
    recipe: str = "",
) -> dict[str, Any]:
    """Measures several samplers of a model against the same held-out samples and noise floors.

    Args:
        model: a model that can be sampled; see `monge.models.protocols`.
        source: its data.
        samplers: the distributions that draw the codes, by name; None for the model's own prior.
        n: how many samples of each, compared with as many held-out ones.
        seeds: how many independent draws of n samples; figures are their means.
        metrics: groups of measures, as for `evaluate`.
        extractor: a feature space for images in place of the default one.
        seed: of the draws of codes.
        name: of the run, for the protocol.
        recipe: of the run, for the protocol.

    Returns:
        What `evaluate` returns for the first sampler, which `sampler` in the protocol names. For
        several samplers also `samplers`, the `figures` and `columns` of each by name, and `best`:
        the `sampler` that is best by `figure`, the first figure that has a best value.

    Raises:
        ValueError: for no sampler, or what `evaluate` refuses.
    """
    if not instance("samplers", samplers, Mapping, "{'prior': None}"):
        raise ValueError("`samplers` is empty: give at least one, e.g. {'prior': None}")
    return evaluate_fitted(
        model,
        source,
        lambda: samplers,
        n,
        seeds,
        metrics=metrics,
        extractor=extractor,
        seed=seed,
        name=name,
        recipe=recipe,
    )


def evaluate_fitted(
    model: nn.Module,
    source: Source,
    fit: Callable[[], Mapping[str, Prior | None]],
    n: int,
    seeds: int,
    *,
    metrics: Sequence[str],
    extractor: Extractor | None,
    seed: int,
    name: str,
    recipe: str,
) -> dict[str, Any]:
    """`evaluate_samplers` of the samplers that `fit` returns: it is called once all else has been
    checked, since fitting takes minutes."""
    seed = checked_seed(seed)
    instance("model", model, nn.Module, "run.model")
    instance("source", source, Source, "run.source")
    dimension("seeds", seeds)
    n = min(rows(n), len(source.test))
    if n < 2:
        raise ValueError(f"`n` must be at least 2 samples, got {n} (as many as there are to test)")
    real = source.test[permutation(0, "evaluation test", len(source.test))[:n]]
    measure = resolve(source.kind.measures, "measures")(source, real, metrics, extractor)
    samplers = fit()
    if any(prior is None for prior in samplers.values()) and not generates(model):
        require(model, "sample", "evaluation")
    floor = _floor_rows(source)[:n]
    measured = _of_samples(measure, model, source, n, floor, samplers, seeds)
    classes: dict[str, dict[str, Figure]] = {}
    labelled = classes_of(model) is not None and clusters_of(model) is None
    if labelled and (not metrics or "classes" in metrics):
        names = source.classes or tuple(map(str, range(classes_of(model) or 0)))
        half = floor[: len(source.train) // 2]
        classes = {
            sampler: class_figures(measure, model, source, names, n, half, prior, seeds)
            for sampler, prior in samplers.items()
        }
    found = {
        sampler: _separated(figures, classes.get(sampler, {}))
        for sampler, figures in measured.items()
    }
    first = next(iter(samplers))
    figures = found[first]["figures"]
    remarks = {
        "left out": lacking(measure.estimators, n),
        "without floor": ", ".join(name for name in figures if figures[name]["floor"] is None),
    }
    protocol = {
        "run": name,
        "recipe": recipe,
        "data": source.name,
        "split": "test" if source.held_out else "train: none is held out",
        "sampler": first,
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
    own = {"figures": figures | measure.of_model(model, seed)}
    result = {"protocol": protocol} | found[first] | own
    if len(samplers) == 1:
        return Evaluation(result)
    return Evaluation(result | {"samplers": found, "best": _best(found)})


def _separated(
    figures: dict[str, Figure], classes: dict[str, Figure]
) -> dict[str, dict[str, Figure]]:
    """The figures of samples, and those of single columns and classes, if there are any, apart
    from them."""
    columns = {name: figures.pop(name) for name in list(figures) if name.startswith(OF_COLUMN)}
    if ACCURACY in classes:
        figures = figures | {ACCURACY: classes[ACCURACY]}
    single = {name: figure for name, figure in classes.items() if name != ACCURACY}
    parts = {"figures": figures, "columns": columns, "classes": single}
    return {name: part for name, part in parts.items() if part or name == "figures"}


def _best(found: Mapping[str, dict[str, dict[str, Figure]]]) -> dict[str, str] | None:
    """The best sampler by the first figure that has a best value; None if none has."""
    for name in next(iter(found.values()))["figures"]:
        values = {sampler: one["figures"][name]["value"] for sampler, one in found.items()}
        known = {k: v for k, v in values.items() if v is not None and math.isfinite(v)}
        if has_best(name) and known:
            best = best_value(name, known.values())
            return {"sampler": next(k for k, v in known.items() if v == best), "figure": name}
    return None


def _floor_rows(source: Source) -> Tensor:
    """The training samples of which noise floors are made; none of those that are tested on."""
    return floor_rows(source) if source.held_out else torch.empty(0, dtype=torch.long)


def _of_samples(
    measure: Measures,
    model: nn.Module,
    source: Source,
    n: int,
    chosen: Tensor,
    samplers: Mapping[str, Prior | None],
    seeds: int,
) -> dict[str, dict[str, Figure]]:
    """The figures of n samples of each sampler, with the floor of the chosen training samples."""

    def of_training() -> Measured:
        parts = chosen.split(500) if len(chosen) else ()
        return measure(map(source.train.__getitem__, parts), len(chosen))

    def drawn(prior: Prior | None, i: int) -> Measured:
        return measure(draw(model, source, n, generator(i, "evaluate"), prior), n)

    every = [partial(drawn, prior, i) for prior in samplers.values() for i in range(seeds)]
    floor, *values = processes.shared([of_training, *every])
    if "near training" in values[0]:
        # training samples are near training samples; held-out ones are so by definition
        floor["near training"] = NEAR
    figures = {}
    for i, sampler in enumerate(samplers):
        own = values[i * seeds : (i + 1) * seeds]
        figures[sampler] = {
            key: mean_figure([one[key] for one in own], floor.get(key)) for key in own[0]
        }
    return figures


def by_sampler(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The `figures` of each sampler of an evaluation by its name, and those of `single` columns
    and classes.

    Figures of the model itself, e.g. of reconstructions, are among those of each sampler. If there
    is only one sampler, which the protocol names, it is called `value`.
    """
    found = result.get("samplers") or {"value": result}
    return {
        name: {
            "figures": result["figures"] | one["figures"],
            "single": {k: v for part in SINGLE for k, v in one.get(part, {}).items()},
        }
        for name, one in found.items()
    }


def shown_protocol(result: dict[str, Any]) -> dict[str, Any]:
    """The protocol of an evaluation, with all of several samplers."""
    if several := result.get("samplers"):
        return result["protocol"] | {"sampler": ", ".join(several)}
    return result["protocol"]


def verdict(result: dict[str, Any]) -> str | None:
    """The best of several samplers, in words; None for an evaluation of one."""
    best = result.get("best")
    return best and f"best sampler by {best['figure']}: {best['sampler']}"


def lines(result: dict[str, Any]) -> list[str]:
    """The figures of an evaluation as the rows of a Markdown table, with a column for each sampler
    and the worst of single columns and classes below the others."""
    found, worst = by_sampler(result), worst_of_single(result)
    heads = [head for name in found for head in (markdown(name), "±")] + ["floor"]
    rows = [f"| figure | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in result["figures"] | worst:
        figures = [(one["figures"] | one["single"]).get(name, MISSING) for one in found.values()]
        cells = [figure[part] for figure in figures for part in ("value", "deviation")]
        texts = ["–" if cell is None else f"{cell:.4g}" for cell in (*cells, figures[0]["floor"])]
        rows.append(f"| {markdown(name)} | {' | '.join(texts)} |")
    for single in SINGLE:
        if more := len(result.get(single, {}).keys() - worst.keys()):
            empty = " |" * len(heads)
            rows.append(f"| {more:,} more of single {single}, in evaluation.json |{empty}")
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
