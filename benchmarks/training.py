"""Speed of training: monge, a bare loop, and Pythae, side by side in one process; starting,
saving, and two processes beside one.

    python benchmarks/training.py [rates share start saving processes] [--rounds 5]

`rates`: images a second of the same convolutional networks (32-64-128 filters, 8 codes) on random
28×28 images in batches of 100, with Adam; Pythae where it is installed (benchmarks/oracles.txt).
`share`: a step of `Trainer`, its data included, beside a loop of the same networks and penalty on
one resident batch, at both presets. `start`: seconds from `monge train` to the first logged step.
`saving`: seconds a checkpoint takes, against the seconds between two. `processes`: images a second
of two processes on two cores, and of one on one.

Rounds alternate, so that a busy machine slows all alike; ratios of medians are the result. Figures
go to training.json.
"""

import argparse
import dataclasses
import importlib.util
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from monge.builders import build, settled
from monge.config import Config, TrainingConfig
from monge.data import Batches, as_floats
from monge.draws import Draws
from monge.models import WAE
from monge.networks import conv_decoder, conv_encoder
from monge.training import Trainer, loop

FIGURES = Path(__file__).with_suffix(".json")
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


def ours(recipe: str, images: Tensor, precision="fp32") -> Callable[[], None]:
    """A recipe as `monge train` runs it, without logs and checkpoints."""
    config = Config(recipe=recipe, latent=LATENT)
    model = build(config, settled(config, "image", SHAPE, samples=len(images)))
    trainer = Trainer(model, TrainingConfig(precision=precision))
    batches = Batches(len(images), BATCH, seed=0)

    def epoch():
        for _ in range(batches.per_epoch):
            trainer.step(loop.fetch(trainer, images, batches))

    return epoch


def pythae(images: Tensor, no_cuda: bool = True) -> Callable[[], None]:
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
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-3,
            num_epochs=1,
            no_cuda=no_cuda,
        ),
    )
    trainer.prepare_training()

    def epoch():
        trainer.train_step(epoch=1)

    return epoch


def medians(work: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Seconds of each, of rounds that alternate, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, one in work.items():
            began = time.perf_counter()
            one()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def rates(rounds: int, count: int = 2000) -> dict[str, float]:
    images = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8)
    subjects = {"bare networks": bare(images)}
    subjects |= {name: ours(name, images) for name in ("wae-mmd", "wae-gan", "swae", "vae")}
    subjects["wae-mmd bf16"] = ours("wae-mmd", images, "bf16")
    if importlib.util.find_spec("pythae"):
        subjects["pythae wae-mmd"] = pythae(images)
    found = {name: round(count / value) for name, value in medians(subjects, rounds).items()}
    if "pythae wae-mmd" in found:
        for name in ("wae-mmd", "wae-mmd bf16"):
            found[f"{name} / pythae"] = round(found[name] / found["pythae wae-mmd"], 3)
    return found


def share(rounds: int) -> dict[str, float]:
    """The bare loop's time over a step's."""
    images = torch.randint(0, 256, (600, *SHAPE), dtype=torch.uint8)
    found = {}
    for preset, steps in (("small", 20), ("paper", 1)):
        config = Config.of("wae-mmd", preset, "mnist")
        config = dataclasses.replace(config, latent=LATENT, data=dataclasses.replace(config.data))
        facts = settled(config, "image", SHAPE, samples=len(images))
        trainer = Trainer(build(config, facts), config.training)
        batches = Batches(len(images), BATCH, seed=0)
        model = build(config, facts)
        assert isinstance(model, WAE)
        optimiser = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
        x, draws = as_floats(images[:BATCH]), Draws(0, 0, BATCH)

        def bare_steps(model=model, optimiser=optimiser, x=x, draws=draws, steps=steps):
            for _ in range(steps):
                terms, pair = model(x, draws)
                loss = sum(terms.values()) + model.weight * model.divergence(*pair)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

        def our_steps(trainer=trainer, batches=batches, steps=steps):
            for _ in range(steps):
                trainer.step(loop.fetch(trainer, images, batches))

        times = medians({"bare": bare_steps, "ours": our_steps}, rounds)
        found[preset] = round(times["bare"] / times["ours"], 3)
    return found


def trained(folder: Path, *more: str, launcher: tuple[str, ...] = (), threads: int = 1):
    """A training process and its run directory."""
    out = folder / f"run-{time.monotonic_ns()}"
    argv = ["-m", "monge", "train", "wae-mmd", "--out", str(out), *more]
    process = subprocess.Popen(
        [sys.executable, *launcher, *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    return process, out


def start(rounds: int) -> dict[str, float]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            began = time.perf_counter()
            process, out = trained(Path(folder), "--set", "training.log_every=1", threads=2)
            metrics = out / "metrics.jsonl"
            while not (metrics.exists() and metrics.stat().st_size):
                assert process.poll() is None
                time.sleep(0.005)
            found.append(time.perf_counter() - began)
            process.kill()
            process.wait()
    return {"seconds to the first step": round(statistics.median(found), 2)}


def saving(rounds: int) -> dict[str, float]:
    """The share of time that checkpoints take."""
    found = {}
    for preset in ("small", "paper"):
        config = Config.of("wae-mmd", preset, "mnist")
        facts = settled(config, "image", SHAPE, samples=1000)
        trainer = Trainer(build(config, facts), config.training)
        trainer.step([torch.randint(0, 256, (8, *SHAPE), dtype=torch.uint8)])
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder)
            seconds = medians({"save": lambda t=trainer, run=run: loop.save(t, run, 0.0)}, rounds)[
                "save"
            ]
        found[preset] = round(seconds / config.training.checkpoint_seconds, 5)
    return found


WORK = {
    "small, batch 200": ("--batch", "200", "--steps", "40"),
    "small, batch 1000": ("--batch", "1000", "--steps", "12"),
    "paper, batch 100": ("--preset", "paper", "--steps", "6"),
}


def processes(rounds: int) -> dict[str, float]:
    """Images a second after the second step, from metrics.jsonl."""
    several = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    speeds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, more in WORK.items():
                logged = ("--set", "training.log_every=1", "training.pretrain=0")
                for count, launcher in (("one", ()), ("two", several)):
                    process, out = trained(
                        Path(folder), "--data", "mnist", *more, *logged, launcher=launcher
                    )
                    while len(rows := loop.read_metrics(out)) < int(more[-1]):
                        assert process.poll() is None
                        time.sleep(0.2)
                    process.terminate()  # rather than wait for its report
                    process.wait()
                    seconds = rows[-1]["seconds"] - rows[1]["seconds"]
                    speed = int(name.split()[-1]) * (len(rows) - 2) / seconds
                    speeds.setdefault(f"{count}, {name}", []).append(speed)
    found = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
    for name in WORK:
        found[f"two / one, {name}"] = round(found[f"two, {name}"] / found[f"one, {name}"], 3)
    return found


PARTS = {"rates": rates, "share": share, "start": start, "saving": saving, "processes": processes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    made = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    for part in given.parts:
        made[part] = PARTS[part](given.rounds)
        print(part, json.dumps(made[part]))
        found = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        FIGURES.write_text(json.dumps(found | made, indent=1) + "\n")


if __name__ == "__main__":
    main()
