"""What a model is, and what its curves mean, in plain language."""

import math
import statistics
from typing import NamedTuple

import torch
from torch import nn

from monge.adversarial import JensenShannon, KantorovichRubinstein, Learned, Relativistic
from monge.data import as_floats
from monge.data.kinds import kind_named
from monge.divergences import Divergence, arguments
from monge.draws import Draws, permutation
from monge.labels import labels_of, placed, unlabelled
from monge.models import VAE, FlowMatching, Matching, evaluating, matchings
from monge.models.base import ONLY, pairs
from monge.models.protocols import (
    Completer,
    classes_of,
    clusters_of,
    device_of,
    has,
    latent_of,
    prior_of,
)
from monge.recipes import RECIPES
from monge.runs import Run
from monge.training.chance import inner_at_chance

CALLED = {
    "MMD": "a kernel distance (MMD)",
    "EnergyDistance": "the energy distance",
    "CramerWold": "the Cramér–Wold distance",
    "SlicedWasserstein": "the sliced Wasserstein distance",
    "GeneralizedSlicedWasserstein": "the generalised sliced Wasserstein distance",
    "MaxSliced": "the max-sliced Wasserstein distance",
    "MaxGeneralizedSliced": "the max-generalised-sliced Wasserstein distance",
    "FeatureSliced": "the sliced Wasserstein distance of learned features",
    "SinkhornDivergence": "the Sinkhorn divergence",
    "ExactWasserstein": "the Wasserstein distance",
    "JensenShannon": "a critic network",
    "Relativistic": "a relativistic critic network",
    "KantorovichRubinstein": "a Wasserstein critic network",
}
REPEATS, MOST_COMPARED = 4, 500


def called(divergence: Divergence) -> str:
    """A divergence in words; one of a user by its class."""
    name = type(divergence).__name__
    return CALLED.get(name, f"the divergence {name}")


def described(run: Run) -> str:
    """What the model of a run is, in a sentence or two."""
    model, noun = run.model, kind_named(run.settled.kind).name
    noun = noun if run.settled.schema is None else "row"
    one, many = _article(noun), f"{noun}s"
    prior, named = prior_of(model), {match.name: match for match in matchings(model)}
    first = named.get(ONLY)
    by = None if first is None else called(first.divergence)
    drawn = "" if prior is None else f"a {type(prior).__name__} prior in {prior.dim} dimensions"
    if isinstance(model, FlowMatching):
        said = (
            f"A flow: a network gives the velocity of an ordinary differential equation that "
            f"transports Gaussian noise to {many}."
        )
    elif isinstance(model, Completer):
        said = f"A conditional auto-encoder: given a part of {one}, it samples the whole."
    elif has(model, "encode", "decode"):
        dim = latent_of(model, as_floats(run.rows("test")[:1]))
        said = (
            f"An auto-encoder: the encoder turns {one} into a code of {dim} numbers, and the "
            "decoder turns codes back"
        )
        if prior is None:
            said += "."
        elif isinstance(model, VAE):
            said += f"; a Kullback–Leibler term keeps the distribution of each code near {drawn}."
        elif by is None:
            said += f"; samples from {drawn} are decoded to new {many}."
        else:
            said += (
                f". Training matches the distribution of codes to {drawn} with {by}, so "
                f"decoding samples from the prior gives new {many}."
            )
    elif prior is not None and has(model, "decode"):
        said = f"A generator: a network turns samples from {drawn} into {many}" + (
            "." if by is None else f", which training compares with real ones by {by}."
        )
    else:
        return f"{run.line[:1].upper()}{run.line[1:]}."
    if second := named.get("samples"):
        also = called(second.divergence)
        also = f"a second {also[2:]}" if also == by and also.startswith("a ") else also
        said += f" To sharpen the {many}, {also} compares them with real ones."
    if classes := classes_of(model):
        given = "cluster" if clusters_of(model) else "class"
        said += f" The networks are conditioned on the {given} of each {noun}, one of {classes}."
    return said


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


class NoiseLevel(NamedTuple):
    """Where a term would be if the two samples that it compares had one distribution."""

    value: float
    noise: float
    """Two standard deviations of the estimate from batch to batch."""


def levels(run: Run) -> dict[str, NoiseLevel]:
    """The levels of a model's matchings, by the names of the logged terms: known of critics, else
    measured between the targets of two batches of the training part."""
    model, found = run.model, {}
    named = matchings(model)
    for one in named:
        known = _known(one.divergence)
        if known is not None:
            found[one.name] = NoiseLevel(known[0], 0.0)
            if known[1] is not None:
                inner = "inner" if len(named) == 1 else f"{one.name} inner"
                found[inner] = NoiseLevel(known[1], 0.0)
    if run.config.recipe not in RECIPES:
        return found  # what a stranger's forward does without a gradient is not known
    measured = [one for one in named if not isinstance(one.divergence, Learned)]
    return found | _measured(run, model, measured) if measured else found


def _known(divergence: Divergence) -> tuple[float, float | None] | None:
    """What a critic that cannot tell two samples apart gives, and its inner loss."""
    inner = inner_at_chance(divergence)
    if isinstance(divergence, JensenShannon):
        return (-1 if divergence.saturating else 1) * math.log(2), inner
    if isinstance(divergence, Relativistic):
        return math.log(2), inner
    if isinstance(divergence, KantorovichRubinstein):
        return 0.0, None
    return None


def _measured(run: Run, model: nn.Module, named: list[Matching]) -> dict[str, NoiseLevel]:
    train, names = run.rows("train"), {one.name for one in named}
    n = min(run.batch, len(train) // 2, MOST_COMPARED)
    if n < 2:
        return {}
    values: dict[str, list[float]] = {name: [] for name in names}
    device, seed = device_of(model), run.config.seed
    for i in range(REPEATS):
        chosen = permutation(seed, f"levels {i}", len(train))
        draws = [Draws(seed, f"levels {i} {j}", n, device=device) for j in (0, 1)]
        targets = []
        for j in (0, 1):
            rows = placed(as_floats(train[chosen[j * n : (j + 1) * n]]), device)
            with evaluating(model), draws[j].stream("model"):
                made = model(unlabelled(rows), draws[j], *labels_of(rows))
                targets.append({k: pair[1] for k, pair in pairs(made, names).items()})
        for one in named:
            random = arguments(one.divergence, draws[0])
            with torch.no_grad(), draws[0].stream("divergence"):
                x, y = (target[one.name] for target in targets)
                values[one.name].append(float(one.divergence(x, y, **random)))
    return {
        name: NoiseLevel(statistics.fmean(each), 2 * statistics.stdev(each))
        for name, each in values.items()
    }


def meaning(name: str, model: nn.Module, level: NoiseLevel | None) -> str:
    """What a logged term is."""
    named = {one.name: one.divergence for one in matchings(model)}
    if name in named:
        return _of_matching(name, named[name], level)
    inner = name.removesuffix("inner").rstrip() or ONLY
    if name.endswith("inner") and inner in named:
        if level is None:
            return "The inner loss, which the divergence minimises over its own parameters."
        return f"The critic's own loss: {level.value:.3g} if it cannot tell the two apart."
    fixed = {
        "reconstruction": "The error of decoded codes, summed over the elements of a sample.",
        "kl": "The mean divergence of the posterior of each code from the prior, in nats.",
        "variance": "The part of the error that is due to the decoder's variance.",
        "regression": "The squared error of the velocity. It does not fall to 0: paths cross, and "
        "the network learns their mean.",
        "validation": "The figure of held-out samples by which the best model is chosen.",
    }
    if name == "loss":
        critic = any(isinstance(one, Learned) for one in named.values())
        return "The weighted sum that training minimises." + (
            " Against a critic it may rise while the model improves." if critic else ""
        )
    return fixed.get(name, "A term of the model.")


def _of_matching(name: str, divergence: Divergence, level: NoiseLevel | None) -> str:
    compared = "codes and prior" if name == ONLY else "samples and data"
    compared = compared if name in (ONLY, "samples") else f"the pair {name}"
    if level is None:
        return f"Between {compared}: {called(divergence)}."
    if isinstance(divergence, Learned):
        return (
            f"How well the critic distinguishes {compared}: {level.value:.3g} (dashed) if it "
            "cannot."
        )
    if abs(level.value) <= level.noise:
        return (
            f"Between {compared}, an unbiased estimate: it crosses zero when they match, so "
            f"values below zero are noise. The band is two standard deviations, "
            f"±{level.noise:.2g}."
        )
    return (
        f"Between {compared}. The noise floor (dashed), the value between two batches of the same "
        f"distribution, is {level.value:.3g} ± {level.noise:.2g}, never 0."
    )
