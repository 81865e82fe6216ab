"""Pythae's models with our small networks, trained as ours are."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import WAE_MMD, Adversarial_AE, Adversarial_AE_Config
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
from pythae.samplers import NormalSampler
from pythae.trainers import (
    AdversarialTrainer,
    AdversarialTrainerConfig,
    BaseTrainer,
    BaseTrainerConfig,
)
from torch import Tensor

from monge.builders.settle import with_tuned
from monge.config import Config
from monge.networks.conv import conv_decoder, conv_encoder
from monge.networks.mlp import mlp

SHAPE, BATCH = (1, 28, 28), 100
FOLDER = Path(__file__).parents[1] / "runs" / "pythae" / "trainings"


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
    """Our settings of a recipe for such images."""
    return with_tuned(Config.of(recipe, data="mnist"), "image", SHAPE)


@dataclass(frozen=True)
class Peer:
    """A model of Pythae, its configuration and what that is given beside the shapes."""

    model: Any
    config: Any
    given: dict[str, Any]


def train(peer: Peer, x: Tensor, ours: Config, epochs: int, seed: int) -> tuple[Any, float]:
    """Pythae's model trained on images with the latent dimension, the rate and the networks of a
    configuration of ours, along a cosine; and the seconds that took."""
    assert ours.latent is not None
    latent, rate, sizes = ours.latent, ours.training.rate, ours.network
    schedule = {
        "scheduler_cls": "CosineAnnealingLR",
        "scheduler_params": {"T_max": epochs, "eta_min": rate / 100},
    }
    common = {
        "output_dir": str(FOLDER),
        "num_epochs": epochs,
        "seed": seed,
        "per_device_train_batch_size": BATCH,
        "no_cuda": True,
    }
    torch.manual_seed(seed)
    networks = {
        "encoder": Encoder(latent, sizes.filters, peer.model is not WAE_MMD),
        "decoder": Decoder(latent, sizes.filters),
    }
    if peer.model is Adversarial_AE:
        networks["discriminator"] = Discriminator(latent, sizes.critic)
    model = peer.model(peer.config(input_dim=SHAPE, latent_dim=latent, **peer.given), **networks)
    dataset = BaseDataset(x, torch.zeros(len(x)))
    if peer.config is Adversarial_AE_Config:
        halves = {
            f"{part}_{key}": value
            for part in ("autoencoder", "discriminator")
            for key, value in schedule.items()
        }
        halves["discriminator_scheduler_params"] = {"T_max": epochs, "eta_min": rate / 200}
        config = AdversarialTrainerConfig(
            autoencoder_learning_rate=rate,
            discriminator_learning_rate=rate / 2,
            **halves,
            **common,
        )
        trainer = AdversarialTrainer(model, dataset, training_config=config)
    else:
        config = BaseTrainerConfig(learning_rate=rate, **schedule, **common)
        trainer = BaseTrainer(model, dataset, training_config=config)
    began = time.perf_counter()
    trainer.train()
    return model.eval(), time.perf_counter() - began


@torch.no_grad()
def prior_samples(model: Any, n: int) -> Tensor:
    return NormalSampler(model).sample(n, return_gen=True).cpu()
