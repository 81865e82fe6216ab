"""The pictures of a run, drawn once each."""

import functools
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor, nn

from monge.data import as_floats
from monge.data.kinds import kind_named
from monge.draws import generator
from monge.evaluation.latent import MOST_CODES, coordinate_deviation, encode_all
from monge.labels import Rows, labels_of, unlabelled
from monge.models import evaluating
from monge.models.paths import Path
from monge.models.protocols import (
    Completer,
    complete,
    generates,
    has,
    interpolate,
    known_part,
    latent_of,
    prior_of,
    reconstruct,
    reconstructs,
    traversals,
)
from monge.runs import Run
from monge.show.codemap import CodeMap, code_map
from monge.show.pictures import GridPictures, pictures_of, spread_over
from monge.show.plots import curves, latent_map

CAPTIONS = {
    "samples": "Random samples, not selected by hand.",
    "reconstructions": "Test samples, each with its reconstruction on its right.",
    "completions": "Test samples, one per row: the known part, five completions with codes drawn "
    "from the prior, and the original.",
    "marginals": "The distribution of each column, of at most the first 24: test samples in grey, "
    "samples from the model in blue.",
    "views": "Random samples from three sides.",
    "interpolations": "Decoded points on the straight line between the codes of two test samples.",
    "latent_map": "Codes of test samples over the density of the prior, in the plane of the first "
    "two principal directions of the codes. Codes that follow the prior fill its density evenly.",
    "traversals": "The code of one test sample, with one coordinate per row varied by up to two "
    "standard deviations of the prior in each direction.",
    "neighbours": "Random samples (top) and the nearest training sample of each (bottom). A "
    "sample that equals its neighbour is a copy.",
    "curves": "Each logged term over the training steps: logged values (thin), their running mean "
    "(thick), and the level expected if the two samples compared had the same distribution "
    "(dashed).",
}
"""What the pictures show, in the order of the page."""
MOST_TRAVERSED, MOST_ROWS, MOST_CLASSES, COLUMNS = 16, 16, 64, 8


def paired(model: nn.Module, x: Rows, count: int, path: Path = torch.lerp) -> Tensor:
    """The decoded paths between successive samples of x; an odd last sample is left out."""
    with evaluating(model):
        return interpolate(model, x[0 : len(x) // 2 * 2 : 2], x[1::2], count, path)


def traversed(model: nn.Module, x: Rows, test: Rows, count: int) -> Iterator[Tensor]:
    """The codes of samples x with every coordinate moved by up to two deviations of the prior; of
    the codes of the samples `test` for a model without a prior. They come in batches."""
    return traversals(model, x, coordinate_deviation(model, test) * torch.linspace(-2, 2, count))


def shown_labels(run: Run) -> Tensor | None:
    """The classes of samples that are shown one by one, class by class: eight of each of at most
    16, four of at most 64, and of more classes four of 64 that are spread over them; None where
    classes are drawn."""
    classes = len(run.settled.classes)
    if not classes or not isinstance(pictures_of(kind_named(run.settled.kind)), GridPictures):
        return None
    each = COLUMNS if classes <= MOST_ROWS else COLUMNS // 2
    return spread_over(classes, MOST_CLASSES).repeat_interleave(each)


def shown_columns(labels: Tensor | None) -> int:
    """How many samples a row of the picture of those classes holds."""
    return COLUMNS if labels is None or len(labels) <= COLUMNS * MOST_ROWS else 2 * COLUMNS


class Drawn:
    """What is shown of a run.

    Args:
        run: a trained run.
    """

    def __init__(self, run: Run):
        self.run, self.model, self.source = run, run.model, run.source

    @functools.cached_property
    def samples(self) -> tuple[Tensor, Tensor | None]:
        """The samples that are shown, and their classes where they are shown class by class."""
        labels = shown_labels(self.run)
        count = self.source.kind.shown if labels is None else len(labels)
        seed = self.run.config.seed
        return self.run.sample(count, generator(seed, "look"), labels=labels), labels

    @functools.cached_property
    def code_map(self) -> CodeMap:
        """The map of the codes of test samples."""
        test, prior = self.run.rows("test"), prior_of(self.model)
        codes = encode_all(self.model, test[:MOST_CODES])
        of = labels_of(test)[0] if labels_of(test) else self.source.test_labels
        seed = self.run.config.seed
        return code_map(
            codes,
            None if prior is None else prior.sample(20_000, generator(seed, "map")),
            None if of is None else of[: len(codes)],
            self.run.settled.classes or self.source.classes,
        )

    def pictures(self) -> dict[str, Image.Image]:
        """The pictures of the run, by name: those for which its model has methods."""
        model, source, seed = self.model, self.source, self.run.config.seed
        pictures, made = pictures_of(source.kind), {}
        if generates(model):
            drawn, labels = self.samples
            made["samples"] = pictures.samples(drawn, source.test, shown_columns(labels))
            if len(source.shape) == 1:
                made["marginals"] = pictures.marginals(drawn, source.test, self.run.schema)
            made["views"] = pictures.views(drawn[:8])
            made["neighbours"] = pictures.neighbours(drawn[:10], source.train)
        if isinstance(model, Completer) and isinstance(pictures, GridPictures):
            x = as_floats(source.test[spread_over(len(source.test), 10)])
            completions = complete(model, x, 5, generator(seed, "look"))
            made["completions"] = pictures.completions(x, known_part(model, x), completions)
        if reconstructs(model):
            made |= self._reconstructed()
        if has(model, "encode"):
            made["latent_map"] = latent_map(self.code_map)
        if rows := self.run.metrics():
            made["curves"] = curves(rows)
        return {name: made[name] for name in CAPTIONS if made.get(name) is not None}

    def _reconstructed(self) -> dict[str, Image.Image]:
        """Reconstructions, and what becomes of codes between and beside those of test samples."""
        model, kind, test = self.model, self.source.kind, self.run.rows("test")
        pictures = pictures_of(kind)
        x = as_floats(test[spread_over(len(test), pictures.reconstructed)])
        with evaluating(model):
            y = reconstruct(model, x)
        made = {"reconstructions": pictures.reconstructions(unlabelled(x), y)}
        if not has(model, "encode", "decode"):
            return made
        made["interpolations"] = pictures.interpolations(paired(model, x[:16], 10), 10)
        if kind.grid and (latent_of(model, x) or 0) <= MOST_TRAVERSED:
            frames = torch.cat(list(traversed(model, x[:1], test, 10)))
            made["traversals"] = pictures.interpolations(frames, 10)
        return made
