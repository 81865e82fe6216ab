"""Pythae's auto-encoders and ours: the same networks, data, steps, batch and threads.

    .venv-peers/bin/pip install -c constraints.txt -r benchmarks/oracles.txt -e .
    .venv-peers/bin/python benchmarks/peer_models.py --data-dir DIR

Pythae's WAE_MMD, VAE and Adversarial_AE are trained for five epochs of MNIST with our tuned
learning rate and latent dimension of the same method and a cosine schedule, with our weight of
the penalty in its units, and the adversarial one also with Pythae's own. Ours are the runs of
samplers.py. 10,000 samples of each are judged by our evaluator, and by others: POT's sliced
distance between pixels and scikit-learn's nearest neighbours. Figures go to peer_models.json.
"""

# ruff: noqa: E402
import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
# or this file would be taken for the library of the same name

import numpy as np
import ot
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import (
    VAE,
    WAE_MMD,
    Adversarial_AE,
    Adversarial_AE_Config,
    VAEConfig,
    WAE_MMD_Config,
)
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig, NormalSampler
from pythae.trainers import (
    AdversarialTrainer,
    AdversarialTrainerConfig,
    BaseTrainer,
    BaseTrainerConfig,
)
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from monge.builders.settle import with_tuned
from monge.config import Config, DataConfig
from monge.data import as_floats, load
from monge.draws import generator, permutation
from monge.evaluation.image_measures import ImageMeasures
from monge.networks.conv import conv_decoder, conv_encoder
from monge.networks.mlp import mlp
from monge.runs import Run

ROOT = Path(__file__).parents[1]
RUNS, FIGURES = ROOT / "runs" / "pythae", Path(__file__).with_suffix(".json")
SHAPE, N, EPOCHS, BATCH = (1, 28, 28), 10_000, 5, 100


class Encoder(BaseEncoder):
    """Our small encoder, as Pythae calls it."""

    def __init__(self, latent: int, filters: tuple[int, ...], random: bool):
        super().__init__()
        self.latent_dim, self.random = latent, random
        self.body = conv_encoder(SHAPE, latent * (1 + random), filters)

    def forward(self, x: Tensor) -> ModelOutput:
        codes = self.body(x)
        if not self.random:
            return ModelOutput(embedding=codes)
        mean, log_variance = codes.chunk(2, 1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """Our small decoder."""

    def __init__(self, latent: int, filters: tuple[int, ...]):
        super().__init__()
        self.body = conv_decoder(SHAPE, latent, filters)

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.body(z))


class Discriminator(BaseDiscriminator):
    """Our small critic of codes, with the logistic function that Pythae expects."""

    def __init__(self, latent: int, hidden: tuple[int, ...]):
        super().__init__()
        self.body = mlp([latent, *hidden, 1])

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(embedding=self.body(z).sigmoid())


def tuned(recipe: str) -> Config:
    """Our settings of a recipe for MNIST."""
    return with_tuned(Config.of(recipe, data="mnist"), "image", SHAPE)


def cases() -> dict[str, tuple[str, Any, dict[str, Any]]]:
    """Our recipe whose settings are taken, Pythae's model, and what its config is given."""
    mmd, gan = (tuned(recipe).options.weight for recipe in ("wae-mmd", "wae-gan"))
    assert mmd is not None
    assert gan is not None
    return {
        "VAE": ("vae-bernoulli", VAE, {"reconstruction_loss": "bce"}),
        "WAE_MMD, our λ": ("wae-mmd", WAE_MMD, {"reg_weight": mmd}),
        # its cost is half the squared error
        "Adversarial_AE, our λ": (
            "wae-gan",
            Adversarial_AE,
            {
                "adversarial_loss_scale": 1.0,
                "reconstruction_loss_scale": 2 / gan,
                "deterministic_posterior": True,
            },
        ),
        "Adversarial_AE": ("wae-gan", Adversarial_AE, {}),
    }


def train(name: str, recipe: str, kind: Any, given: dict[str, Any], x: Tensor) -> dict[str, Any]:
    """Pythae's training of a case, and 10,000 samples by each of its samplers."""
    ours = tuned(recipe)
    latent, rate, sizes = ours.latent or 8, ours.training.rate, ours.network
    schedule = {
        "scheduler_cls": "CosineAnnealingLR",
        "scheduler_params": {"T_max": EPOCHS, "eta_min": rate / 100},
    }
    common = {
        "output_dir": str(RUNS / "trainings"),
        "num_epochs": EPOCHS,
        "seed": 0,
        "per_device_train_batch_size": BATCH,
        "no_cuda": True,
    }
    torch.manual_seed(0)
    settings = {"input_dim": SHAPE, "latent_dim": latent, **given}
    networks = {
        "encoder": Encoder(latent, sizes.filters, kind is not WAE_MMD),
        "decoder": Decoder(latent, sizes.filters),
    }
    dataset = BaseDataset(x, torch.zeros(len(x)))
    if kind is Adversarial_AE:
        networks["discriminator"] = Discriminator(latent, sizes.critic)
        model = kind(Adversarial_AE_Config(**settings), **networks)
        halves = {
            f"{part}_{key}": value
            for part in ("autoencoder", "discriminator")
            for key, value in schedule.items()
        }
        halves["discriminator_scheduler_params"] = {"T_max": EPOCHS, "eta_min": rate / 200}
        config = AdversarialTrainerConfig(
            autoencoder_learning_rate=rate,
            discriminator_learning_rate=rate / 2,
            **halves,
            **common,
        )
        trainer = AdversarialTrainer(model, dataset, training_config=config)
    else:
        config = VAEConfig if kind is VAE else WAE_MMD_Config
        model = kind(config(**settings), **networks)
        trainer = BaseTrainer(
            model,
            dataset,
            training_config=BaseTrainerConfig(learning_rate=rate, **schedule, **common),
        )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    model = model.eval()
    mixture = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=10))
    mixture.fit(x[:20_000])
    with torch.no_grad():
        samples = {
            "prior": NormalSampler(model).sample(N, return_gen=True),
            "mixture": mixture.sample(N, return_gen=True),
        }
    return {"seconds": seconds, "samples": {k: v.cpu() for k, v in samples.items()}}


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
    RUNS.mkdir(parents=True, exist_ok=True)
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

    for name, (recipe, kind, settings) in cases().items():
        if f"Pythae {name} mixture" not in found:
            made = train(name, recipe, kind, settings, as_floats(source.train))
            for sampler, samples in made["samples"].items():
                judge(f"Pythae {name}", sampler, samples, made["seconds"])
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
