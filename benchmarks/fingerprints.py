"""What the fingerprint of data costs while they are read, and how fast many files are known again.

    python benchmarks/fingerprints.py [--mnist DIR] [--images PATH …] [--files N]

Each data set is read as it is and with digests that cost nothing, in turn, five times; the medians
and their ratio are printed. Then N small images (50,000 by default) are read twice through a
cache: the second time their digests are known by size and times.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from monge.config import DataConfig
from monge.data import load

ROUNDS = 5


def seconds(config: DataConfig) -> float:
    """One reading."""
    began = time.perf_counter()
    load(config)
    return time.perf_counter() - began


def without_digests() -> list:
    """Digests that cost nothing; every tenth sample is held out."""

    def made(rows: np.ndarray) -> np.ndarray:
        return np.arange(len(rows), dtype=np.uint64) * np.uint64(2**64 // len(rows))

    few = [number * 2**60 for number in range(16)]
    return [
        mock.patch("monge.data.source.digests", made),
        mock.patch("monge.data.readers.arrays.digests", made),
        mock.patch("monge.data.readers.images.digest", side_effect=itertools.cycle(few)),
    ]


def compare(name: str, config: DataConfig) -> None:
    """Prints the seconds with and without digests, and their ratio."""
    times: dict[str, list[float]] = {"with": [], "without": []}
    load(config)  # the disk's cache is warm
    for _ in range(ROUNDS):
        times["with"].append(seconds(config))
        patches = without_digests()
        for patch in patches:
            patch.start()
        times["without"].append(seconds(config))
        for patch in patches:
            patch.stop()
    one, other = (statistics.median(times[key]) for key in ("with", "without"))
    print(f"{name}: {one:.3f} s with digests, {other:.3f} s without: {one / other - 1:+.1%}")


def many_files(count: int) -> None:
    """Prints how long a folder of images takes through a cache, first and second."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "images"
        pixels = np.random.default_rng(0).integers(0, 255, (count, 16, 16), dtype=np.uint8)
        for i, one in enumerate(pixels):
            inner = folder / f"{i % 100:02}"
            inner.mkdir(parents=True, exist_ok=True)
            Image.fromarray(one).save(inner / f"{i}.png")
        time.sleep(2.5)  # what was written just now is read again
        config = DataConfig(str(folder), cache=str(Path(root) / "cache"))
        first, second = seconds(config), seconds(config)
    print(f"{count:,} files through a cache: {first:.2f} s first, {second:.2f} s second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", help="a folder that holds MNIST")
    parser.add_argument("--images", nargs="*", default=[], help="folders or zips of images")
    parser.add_argument("--files", type=int, default=50_000)
    given = parser.parse_args()
    if given.mnist:
        compare("MNIST", DataConfig("mnist", dir=given.mnist))
    for path in given.images:
        compare(Path(path).name, DataConfig(path))
    many_files(given.files)


if __name__ == "__main__":
    main()
