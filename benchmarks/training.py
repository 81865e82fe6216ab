"""Training images per second: monge, the bare networks, and Pythae, side by side in one process.

    python benchmarks/training.py [--images 12000] [--rounds 5] [--out benchmarks/training.json]

All train the same convolutional networks (32-64-128 filters, 8 codes) on random 28×28 images in
batches of 100, with Adam. *bare* is a plain loop over the two networks and the squared error: what
any library could reach at most in eager mode. Rounds alternate, so that a busy machine slows all
alike; the ratios of medians are the result. Pythae is measured where it is installed
(benchmarks/oracles.txt).
"""

import argparse
import importlib.util
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from monge.config import Config
from monge.data import Batches, as_floats
from monge.networks import conv_decoder, conv_encoder
from monge.recipes import build
from monge.training import Trainer, loop

SHAPE, LATENT, FILTERS, BATCH = (1, 28, 28), 8, (32, 64, 128), 100


def bare(images: Tensor) -> Callable[[], None]:
    """The networks and the squared error alone."""
    encoder = conv_encoder(SHAPE, LATENT, FILTERS)
    decoder = conv_decoder(SHAPE, LATENT, FILTERS)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimiser = torch.optim.Adam(parameters, 1e-3, fused=True)

    def epoch():
        for index in torch.randperm(len(images)).split(BATCH):
            x = as_floats(images[index])
            loss = (decoder(encoder(x)) - x).square().flatten(1).sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return epoch


def ours(recipe: str, images: Tensor) -> Callable[[], None]:
    """A recipe as `monge train` runs it, without logs and checkpoints."""
    model = build(Config(recipe=recipe, latent=LATENT).settled("image", SHAPE, len(images)))
    trainer, batches = Trainer(model), Batches(len(images), BATCH, seed=0)

    def epoch():
        for _ in range(batches.per_epoch):
            trainer.step(loop.fetch(trainer, images, batches))

    return epoch


def pythae(images: Tensor) -> Callable[[], None]:
    """Pythae's WAE-MMD with its own trainer, on the same networks."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import WAE_MMD, WAE_MMD_Config
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.WARNING)

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.network = conv_encoder(SHAPE, LATENT, FILTERS)

        def forward(self, x):
            return ModelOutput(embedding=self.network(x))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.network = conv_decoder(SHAPE, LATENT, FILTERS)

        def forward(self, z):
            return ModelOutput(reconstruction=self.network(z))

    config = WAE_MMD_Config(input_dim=SHAPE, latent_dim=LATENT, kernel_choice="imq")
    model = WAE_MMD(config, encoder=Encoder(), decoder=Decoder())
    folder = tempfile.mkdtemp()
    trainer = BaseTrainer(
        model=model,
        train_dataset=BaseDataset(as_floats(images), torch.zeros(len(images))),
        training_config=BaseTrainerConfig(
            output_dir=folder, per_device_train_batch_size=BATCH, learning_rate=1e-3,
            num_epochs=1, no_cuda=True,
        ),
    )  # fmt: skip
    trainer.prepare_training()

    def epoch():
        trainer.train_step(epoch=1)

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    images = torch.randint(0, 256, (given.images, *SHAPE), dtype=torch.uint8)
    subjects = {"bare networks": bare(images)}
    subjects |= {name: ours(name, images) for name in ("wae-mmd", "wae-gan", "swae", "vae")}
    if importlib.util.find_spec("pythae"):
        subjects["pythae wae-mmd"] = pythae(images)
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(given.rounds):
        for name, epoch in subjects.items():
            began = time.perf_counter()
            epoch()
            rates[name].append(given.images / (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {given.rounds} rounds")
    for name, rate in medians.items():
        print(f"{name:16} {rate:7,.0f} images/s  {rate / medians['bare networks']:.2f} of bare")
    if "pythae wae-mmd" in medians:
        ratio = medians["wae-mmd"] / medians["pythae wae-mmd"]
        print(f"monge wae-mmd / pythae wae-mmd: {ratio:.2f}")
    if given.out:
        result = {
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "images": given.images,
            "rounds": given.rounds,
            "images per second": medians,
            "all": rates,
        }
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
