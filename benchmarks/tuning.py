"""Tunes VAEs and WAEs on a validation part of MNIST, with as many trials for each recipe.

    python benchmarks/tuning.py --data-dir DIR

The last 10,000 training images are the validation part; the test part is not opened. A trial
trains the small networks for two epochs on the other 50,000, with a latent dimension, a learning
rate and a strength of regularisation from a Latin hypercube, the same points for every recipe,
and is judged by the Fréchet distance of 10,000 prior samples to the validation part, in the
features of a classifier of the 50,000. The best of eight points was the fastest rate for every
recipe, so three more lie around and beyond it (not for `vae`, which `vae-bernoulli` had beaten).
Figures go to tuning.json, which goes on where it stopped.
"""

import argparse
import dataclasses
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from scipy.stats import qmc

import monge
from monge.config import Config, DataConfig, override
from monge.data import Source, load
from monge.draws import generator
from monge.evaluation import frechet_distance
from monge.evaluation.extractors import classifier
from monge.recipes import RECIPES

ROOT = Path(__file__).parents[1]
RUNS, FIGURES = ROOT / "runs" / "tuning", Path(__file__).with_suffix(".json")
TRIED = ("vae", "vae-bernoulli", "wae-mmd", "wae-gan", "swae", "sinkhorn-ae")
HELD_OUT, EPOCHS, N = 10_000, 2, 10_000
# how many points; between which latent dimensions, rates and strengths
CUBES = (
    (8, (6, 16), (4e-4, 4e-3), (0.25, 4.0)),
    (3, (8, 16), (2.5e-3, 8e-3), (0.5, 8.0)),
)


def between(low: float, high: float, share: float) -> float:
    return low * (high / low) ** share


def points() -> list[dict[str, float]]:
    """Latent dimension, rate and strength of each trial, log-uniform."""
    return [
        {
            "latent": round(between(*latent, a)),
            "rate": float(f"{between(*rate, b):.2g}"),
            "strength": float(f"{between(*strength, c):.2g}"),
        }
        for trials, latent, rate, strength in CUBES
        for a, b, c in qmc.LatinHypercube(3, rng=0).random(trials)
    ]


def settings(recipe: str, point: dict[str, float]) -> dict[str, object]:
    """A point as settings: strength is the weight of the divergence over its untuned default, a
    VAE's beta, or the variance of its likelihood over 0.4²."""
    strength = point["strength"]
    if recipe == "vae":
        regularised = {"sigma": round(0.4 * strength**0.5, 3)}
    elif recipe == "vae-bernoulli":
        regularised = {"beta": strength}
    else:
        weight = RECIPES[recipe].weight
        assert weight is not None, f"{recipe} has no weight to tune"
        regularised = {"weight": round(strength * weight * 28, 3)}
    return {
        "latent": point["latent"],
        "training.lr": point["rate"],
        "training.inner_lr": point["rate"] / 2,
        **regularised,
    }


def held_out(directory: str, data: str = "mnist") -> Source:
    """A data set without its test part: 50,000 images to train on, 10,000 to judge by."""
    whole = load(DataConfig(data, directory))
    assert whole.train_labels is not None
    return dataclasses.replace(
        whole,
        name=f"{data}, validation",
        train=whole.train[:-HELD_OUT],
        train_labels=whole.train_labels[:-HELD_OUT],
        test=whole.train[-HELD_OUT:],
        test_labels=whole.train_labels[-HELD_OUT:],
        contents=None,
    )


def trial(directory: str, name: str, recipe: str, given: dict[str, object]) -> dict[str, object]:
    """Trains one configuration and judges it on the validation part."""
    source, out = held_out(directory), RUNS / name
    config = Config.of(recipe)
    for key, value in {
        "training.epochs": EPOCHS,
        "training.schedule": "smooth",
        "threads": 1,
        **given,
    }.items():
        config = override(config, key, value)
    began = time.perf_counter()
    run = monge.fit(recipe, source, config, out, resume=out.exists(), quiet=True)
    extractor, _ = classifier(source)
    real, found = extractor(source.test), {}
    for sampler, prior in (("prior", None), ("mixture", run.mixture())):
        samples = run.model.sample(N, generator(0, "evaluate"), prior)
        found[sampler] = round(frechet_distance(extractor(samples), real), 2)
    summed = run.summary()
    return {
        "name": name,
        "recipe": recipe,
        "settings": given,
        "LeNet-FD": found,
        "reconstruction": round(summed["test reconstruction"], 3),
        "MMD² of codes": round(summed["MMD² of codes"], 4),
        "seconds": round(time.perf_counter() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    done = json.loads(FIGURES.read_text()) if FIGURES.exists() else []
    known = {one["name"] for one in done}
    wanted = [
        (f"{recipe}-{i}", recipe, settings(recipe, point))
        for i, point in enumerate(points())
        for recipe in TRIED
        if recipe != "vae" or i < CUBES[0][0]
    ]
    with ProcessPoolExecutor(given.workers) as pool:
        futures = [
            pool.submit(trial, given.data_dir, *one) for one in wanted if one[0] not in known
        ]
        for future in as_completed(futures):
            done.append(future.result())
            print(json.dumps(done[-1]), flush=True)
            order = {name: i for i, (name, *_) in enumerate(wanted)}
            done.sort(key=lambda one: order.get(one["name"], len(order)))
            FIGURES.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
