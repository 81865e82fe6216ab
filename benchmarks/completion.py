"""Completion of images from their upper halves, beside two baselines with the same networks.

    python benchmarks/completion.py --data-dir DIR

Trains five epochs of MNIST and of Fashion-MNIST with one thread: `conditional-wae`; the same with
a critic that sees the codes alone, so that they may repeat what the known part says; and the same
without codes, a deterministic completion. Ten completions of each of 2,000 test images are judged,
none of the 1,000 that settings were compared on. Figures go to completion.json, the table and the
pictures to docs/completion.md and docs/completion/.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from torch import Tensor, nn

import monge
from monge.builders import build, settle
from monge.config import Config, override
from monge.data import Source, as_floats, load
from monge.draws import generator, permutation, stream
from monge.evaluation import agreement, best_of, diversity, energy_score
from monge.evaluation.completion import COMPLETIONS
from monge.evaluation.extractors import classifier
from monge.models import ConditionalWAE, evaluating
from monge.priors import Gaussian, Prior
from monge.runs import Run
from monge.show.pictures import ImagePictures, spread_over

ROOT = Path(__file__).parents[1]
RUNS, FIGURES = ROOT / "runs" / "completion", Path(__file__).with_suffix(".json")
EPOCHS, SETTLED_ON, N = 5, 1000, 2000
METHODS = ("joint codes", "codes alone", "deterministic")
SHOWN = {
    "class agreement": "{:.3f}",
    "best of 10": "{:.1f}",
    "diversity": "{:.1f}",
    "energy score": "{:.3f}",
    "with its own code": "{:.3f}",
    "codes of others": "{:.3f}",
    "known parts of others": "{:.3f}",
}
START, END = "<!-- completion: begin -->\n", "<!-- completion: end -->\n"


class Columns(nn.Module):
    """The columns of joint samples from the first code on."""

    def __init__(self, first: int):
        super().__init__()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.first :]


class Nothing(nn.Module):
    """Codes that are 0 whatever the sample."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), self.dim)


def made(method: str, config: Config, source: Source) -> ConditionalWAE:
    """An untrained model."""
    facts = settle(config, source)
    with stream(config.seed, "initial weights"):
        model = build(config, facts)
    assert isinstance(model, ConditionalWAE)
    size, dim = config.options.summary, model.prior.dim
    if method == "codes alone":
        critic = build(
            override(Config.of("wae-gan"), "network.critic", config.network.critic), facts
        ).divergence
        assert critic is not None
        critic.critic = nn.Sequential(Columns(size), critic.critic)
        model.divergence = critic
    if method == "deterministic":
        model.encoder = Nothing(dim)
    return model


def judge(model: ConditionalWAE, method: str, source: Source) -> dict[str, float]:
    """Figures of completions of the test images that settings were not compared on."""
    order = permutation(0, "evaluation completions", len(source.test))
    rows = order[SETTLED_ON : SETTLED_ON + N]
    x, other = as_floats(source.test[rows]), torch.arange(N).roll(1)
    assert source.test_labels is not None
    labels = source.test_labels[rows]
    extractor, head = classifier(source)
    prior: Prior | None = Gaussian(model.prior.dim, 1e-9) if method == "deterministic" else None
    drawn = model.complete(x, COMPLETIONS, generator(0, "completions"), prior=prior)
    swapped = model.complete(x[other], COMPLETIONS, generator(0, "completions"), prior=prior)
    with evaluating(model):
        unknown = 1 - model.known(x)
        codes = model.encode(x).mean
        shuffled = [
            model.decode(codes[torch.randperm(N, generator=generator(i))], x)
            for i in range(COMPLETIONS)
        ]
        own = model.reconstruct(x)
    return {
        "class agreement": agreement(drawn, labels, lambda part: head(extractor(part))),
        "of the images themselves": agreement(
            x[:, None], labels, lambda part: head(extractor(part))
        ),
        "best of 10": best_of(drawn, x),
        "diversity": diversity(drawn),
        "energy score": energy_score(drawn, x),
        "with its own code": energy_score(own[:, None], x),
        "codes of others": energy_score(torch.stack(shuffled, 1), x),
        "known parts of others": energy_score(swapped * unknown[:, None], x * unknown),
    }


def labels_drawn_from_tops(source: Source, model: ConditionalWAE) -> float:
    """How often a label drawn from the law that a classifier of the known parts gives is right."""

    def known(x: Tensor) -> Tensor:
        return (x * model.known(x[:1])[0].bool()).to(x.dtype)

    part = dataclasses.replace(source, train=known(source.train), test=known(source.test))
    extractor, head = classifier(part)
    assert part.test_labels is not None
    with evaluating(head):
        scores = torch.cat([head(extractor(x)) for x in part.test.split(500)])
    return float(scores.softmax(1)[torch.arange(len(scores)), part.test_labels].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--data", nargs="*", default=["mnist", "fashion-mnist"])
    given = parser.parse_args()
    found = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    folder = ROOT / "docs" / "completion"
    folder.mkdir(exist_ok=True)
    for data in given.data:
        config = Config.of("conditional-wae", data=data)
        for path, value in (
            ("data.dir", given.data_dir),
            ("training.epochs", EPOCHS),
            ("threads", 1),
        ):
            config = override(config, path, value)
        source = load(config.data)
        for method in METHODS:
            if f"{data} {method}" in found:
                continue
            out = RUNS / f"{data}-{method.replace(' ', '-')}"
            if method == METHODS[0]:  # a run as the command line makes it
                if not (out / "report.html").exists():
                    monge.fit(config=config, out=out, resume=out.exists())
                model = Run(out).model
            else:
                custom = dataclasses.replace(config, recipe="custom")
                model = monge.fit(made(method, config, source), source, custom, out).model
            assert isinstance(model, ConditionalWAE)
            figures = judge(model, method, source)
            if method == METHODS[0]:
                figures["labels drawn from the known parts"] = labels_drawn_from_tops(
                    source, model
                )
            found[f"{data} {method}"] = figures
            FIGURES.write_text(json.dumps(found, indent=1) + "\n")
            print(data, method, figures, flush=True)
            x = as_floats(source.test[spread_over(len(source.test), 10)])
            prior = Gaussian(model.prior.dim, 1e-9) if method == METHODS[2] else None
            drawn = model.complete(x, 5, generator(0, "look"), prior=prior)
            picture = ImagePictures(source.kind).completions(x, model.known(x), drawn)
            picture.save(folder / f"{data}-{method.replace(' ', '-')}.png", optimize=True)
    text = ""
    for data in ("mnist", "fashion-mnist"):
        text += f"\n| {data} | {' | '.join(SHOWN)} |\n" + "|---" * (len(SHOWN) + 1) + "|\n"
        for method in METHODS:
            figures = found[f"{data} {method}"]
            cells = [form.format(figures[name]) for name, form in SHOWN.items()]
            text += f"| {method} | {' | '.join(cells)} |\n"
        figures = found[f"{data} {METHODS[0]}"]
        text += f"| the images themselves | {figures['of the images themselves']:.3f} | "
        text += " | ".join(["0"] + ["–"] * 5) + " |\n"
        drawn = figures["labels drawn from the known parts"]
        text += f"| labels drawn from the known parts | {drawn:.3f} |" + " – |" * 6 + "\n"
    page = ROOT / "docs" / "completion.md"
    before, rest = page.read_text().split(START)
    page.write_text(before + START + text + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
