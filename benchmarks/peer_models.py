"""Pythae's auto-encoders and ours: the same networks, data, steps, batch and threads.

    .venv-peers/bin/pip install -c constraints.txt -r benchmarks/oracles.txt -e .
    .venv-peers/bin/python benchmarks/peer_models.py --data-dir DIR

Pythae's WAE_MMD, VAE and Adversarial_AE are trained for five epochs of MNIST with our tuned
learning rate and latent dimension of the same method and a cosine schedule, with our weight of
the penalty in its units, and the adversarial one also with Pythae's own. Ours are the runs of
samplers.py. 10,000 samples of each are judged by our evaluator, and by others: POT's sliced
distance between pixels and scikit-learn's nearest neighbours. Figures go to peer_models.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import ot
import torch
from pythae.models import (
    VAE,
    WAE_MMD,
    Adversarial_AE,
    Adversarial_AE_Config,
    VAEConfig,
    WAE_MMD_Config,
)
from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig
from pythae_models import Peer, prior_samples, train, tuned
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from monge.config import DataConfig
from monge.data import as_floats, load
from monge.draws import generator, permutation
from monge.evaluation.image_measures import ImageMeasures
from monge.runs import Run

ROOT = Path(__file__).parents[1]
FIGURES = Path(__file__).with_suffix(".json")
N, EPOCHS = 10_000, 5


def cases() -> dict[str, tuple[str, Peer]]:
    """Our recipe whose settings are taken, and Pythae's model."""
    mmd, gan = (tuned(recipe).options.weight for recipe in ("wae-mmd", "wae-gan"))
    assert mmd is not None
    assert gan is not None
    # its cost is half the squared error
    ours = {
        "adversarial_loss_scale": 1.0,
        "reconstruction_loss_scale": 2 / gan,
        "deterministic_posterior": True,
    }
    return {
        "VAE": ("vae-bernoulli", Peer(VAE, VAEConfig, {"reconstruction_loss": "bce"})),
        "WAE_MMD, our λ": ("wae-mmd", Peer(WAE_MMD, WAE_MMD_Config, {"reg_weight": mmd})),
        "Adversarial_AE, our λ": ("wae-gan", Peer(Adversarial_AE, Adversarial_AE_Config, ours)),
        "Adversarial_AE": ("wae-gan", Peer(Adversarial_AE, Adversarial_AE_Config, {})),
    }


@torch.no_grad()
def drawn_by(model: Any, x: Tensor) -> dict[str, Tensor]:
    """10,000 samples of a model of Pythae by its prior and by a mixture."""
    mixture = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=10))
    mixture.fit(x[:20_000])
    drawn = mixture.sample(N, return_gen=True).cpu()
    return {"prior": prior_samples(model, N), "mixture": drawn}


def apart(x: Tensor, y: Tensor) -> dict[str, float]:
    """What other libraries say of two sets of images."""
    a, b = (z.flatten(1).double().numpy() for z in (x, y))
    sliced = ot.sliced_wasserstein_distance(a, b, n_projections=500, seed=0)
    n = 5000
    pooled, label = np.concatenate([a[:n], b[:n]]), np.repeat([0, 1], n)
    _, index = NearestNeighbors(n_neighbors=2).fit(pooled).kneighbors(pooled)
    agree = float((label[index[:, 1]] == label).mean())
    return {"POT pixel SW": float(sliced), "scikit-learn 1-NN accuracy": agree}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    source = load(DataConfig("mnist", given.data_dir))
    test = as_floats(source.test[permutation(0, "evaluation test", len(source.test))[:N]])
    measure = ImageMeasures(source, test)

    def judge(name: str, sampler: str, samples: Tensor, seconds: float) -> None:
        samples = samples.clamp(0, 1)
        found[f"{name} {sampler}"] = {
            "seconds": round(seconds, 1),
            **measure(samples.split(500), N),
            **apart(samples, test),
        }
        FIGURES.write_text(json.dumps(found, indent=1) + "\n")
        print(name, sampler, found[f"{name} {sampler}"], flush=True)

    for name, (recipe, peer) in cases().items():
        if f"Pythae {name} mixture" not in found:
            x = as_floats(source.train)
            model, seconds = train(peer, x, tuned(recipe), EPOCHS, seed=0)
            for sampler, drawn in drawn_by(model, x).items():
                judge(f"Pythae {name}", sampler, drawn, seconds)
    for path in sorted((ROOT / "runs" / "samplers").glob("mnist-*-0")):
        run = Run(path)
        recipe = run.config.recipe
        for sampler in ("prior", "mixture"):
            if f"monge {recipe} {sampler}" not in found:
                prior = run.mixture() if sampler == "mixture" else None
                samples = run.model.sample(N, generator(0, "evaluate"), prior)
                judge(f"monge {recipe}", sampler, samples, run.metrics()[-1]["seconds"])


if __name__ == "__main__":
    main()
