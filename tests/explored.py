"""Runs of every kind, hardly trained, behind a server: what the tests of the explorer open."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import torch

import monge
from monge.config import Config, NetworkConfig, TrainingConfig, override
from monge.draws import generator
from monge.runs import Run
from monge.show.explore.access import Access
from monge.show.explore.addresses import address, bound
from monge.show.explore.server import server
from monge.show.explore.service import Explorer

NETWORK = NetworkConfig(filters=(4, 8), critic=(16,), points=(8, 8), cloud=(16,), hidden=(16,))


def small(recipe: str, data, path: Path, **settings) -> Run:
    """A tiny run that has hardly been trained."""
    training = TrainingConfig(batch=100, steps=60)
    config = Config(recipe=recipe, network=NETWORK, training=training)
    for name, value in settings.items():
        config = override(config, name, value)
    return monge.fit(recipe, data, config, path, quiet=True)


def make_runs(folder: Path) -> list[Run]:
    """A WAE, a random encoder, a conditional model and a generator of digits; clouds; a table."""
    clouds = torch.randn(120, 32, 3, generator=generator(0, "clouds")).numpy()
    np.save(folder / "clouds.npy", clouds * [1, 2, 0.5])
    np.savetxt(folder / "table.csv", clouds[:, 0] @ np.ones((3, 4)), delimiter=",")
    small("wae-mmd", "digits", folder / "wae", latent=3)
    small("vae", "digits", folder / "vae", latent=3, seed=1)
    small("conditional-wae", "digits", folder / "conditional", latent=2, known="random")
    small("swg", "digits", folder / "generator", latent=3)
    small("pointcloud-wae", folder / "clouds.npy", folder / "clouds", latent=3)
    small("wae-mmd", folder / "table.csv", folder / "table", latent=2)
    names = ("wae", "vae", "conditional", "generator", "clouds", "table")
    return [Run(folder / name) for name in names]


TOKEN = "token-of-the-tests"
ALLOWED = {"Authorization": f"token {TOKEN}"}


@contextlib.contextmanager
def serving(
    explorers: dict[str, Explorer], host: str = "127.0.0.1", token: str = TOKEN
) -> Iterator[str]:
    """The address of a server in a thread, on a free port."""
    listening = bound(host, 0)
    access = Access(token, listening.getsockname()[1])
    running = server(explorers, listening, host, access)
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    try:
        yield address(listening, host).rstrip("/")
    finally:
        running.should_exit = True
        thread.join()


def client_of(address: str) -> httpx.Client:
    """A client of a server that has its token."""
    return httpx.Client(base_url=address, timeout=60, headers=ALLOWED)
