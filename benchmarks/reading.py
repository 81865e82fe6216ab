"""Reading images from a folder and from tar shards: into memory, into the cache, from the cache.

    python benchmarks/reading.py

Makes 20,000 JPEGs of 64 × 64 in colour, and reads them in processes of their own, on as many
threads as there are cores. Memory is the rise above that of the import of monge: its peak while
reading, and what is held that is not a page of a file. Figures go to reading.json, the table to
the output.
"""

import argparse
import io
import json
import platform
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

FIGURES = Path(__file__).with_suffix(".json")

READING = """
import json, re, sys, time
import torch
from monge.config import DataConfig
from monge.data import Batches, as_floats, load

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

peak, held = status("VmHWM"), status("RssAnon")
began = time.perf_counter()
source = load(DataConfig(sys.argv[1], cache=sys.argv[2] or None))
seconds = time.perf_counter() - began
figures = {"seconds": seconds, "peak MB": status("VmHWM") - peak,
           "held MB": status("RssAnon") - held}
n = len(source.train) + len(source.test)
batches = Batches(len(source.train), 100, 0)
began = time.perf_counter()
for step in range(batches.per_epoch):
    as_floats(source.train[batches.outer(step)])
figures["epoch images/s"] = len(source.train) / (time.perf_counter() - began)
figures["held after an epoch MB"] = status("RssAnon") - held
figures["images"], figures["images/s"] = n, n / seconds
figures["pixels MB"] = n * source.train[0].numel() / 2**20
print(json.dumps(figures))
"""


def picture(i: int) -> bytes:
    """Smooth noise, about as compressible as a photograph."""
    coarse = np.random.default_rng(i).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def make(place: Path, count: int) -> dict[str, Path]:
    """The same images as a folder and as shards of 2,000."""
    folder, shards = place / "folder", place / "shards"
    folder.mkdir()
    shards.mkdir()
    for first in range(0, count, 2000):
        with tarfile.open(shards / f"{first:06}.tar", "w") as archive:
            for i in range(first, min(first + 2000, count)):
                (folder / f"{i:06}.jpg").write_bytes(picture(i))
                archive.add(folder / f"{i:06}.jpg", f"{i:06}.jpg")
    return {"folder": folder, "shards": shards}


def measured(path: Path, cache: str) -> dict[str, float]:
    """One reading, in a process of its own."""
    command = [sys.executable, "-c", READING, str(path), cache]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name: round(value, 2) for name, value in json.loads(done.stdout).items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000)
    count = parser.parse_args().count
    figures: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as place:
        for kind, path in make(Path(place), count).items():
            cache = str(Path(place) / f"cache of {kind}")
            for name, where in (
                ("into memory", ""),
                ("into memory again", ""),
                ("into the cache", cache),
                ("from the cache", cache),
            ):
                figures[f"{kind}, {name}"] = measured(path, where)
    columns = ("images/s", "seconds", "peak MB", "held MB", "held after an epoch MB")
    print(f"| {count:,} images of 64 × 64 | {' | '.join(columns)} | epoch images/s |")
    print("|---" * (len(columns) + 2) + "|")
    for name, row in figures.items():
        cells = [f"{row[column]:,.1f}" for column in columns]
        print(f"| {name} | {' | '.join(cells)} | {row['epoch images/s']:,.0f} |")
    machine = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "cores": torch.get_num_threads(),
    }
    FIGURES.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
