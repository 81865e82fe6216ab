"""Twenty steps of each published recipe on its real data; the losses go to paper.json.

    python benchmarks/paper.py --mnist DIR --faces PATH

MNIST lies in DIR/mnist, the faces at PATH, a folder or zip of 64×64 colour images. The losses are
golden values: the test suite makes the first of these steps again.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import monge
from monge.config import override

RESULTS = Path(__file__).with_suffix(".json")
CASES = {
    "wae-mmd on mnist": ("wae-mmd", "mnist"),
    "wae-mmd on celeba": ("wae-mmd", "celeba"),
    "wae-gan on celeba": ("wae-gan", "celeba"),
    "wae-gan on mnist": ("wae-gan", "mnist"),
}


def config_of(recipe: str, name: str, folder: Path | None = None) -> monge.Config:
    """The published configuration, with every step logged."""
    config = monge.Config.of(recipe, "paper", name)
    config = dataclasses.replace(config, threads=2)
    if folder is not None:
        config = override(config, "data.dir", str(folder))
    return override(config, "training.log_every", 1)


def losses(config: monge.Config, steps: int) -> list[dict]:
    """The rows of the first steps."""
    config = override(override(config, "training.epochs", None), "training.steps", steps)
    with tempfile.TemporaryDirectory() as folder:
        run = monge.fit(config.recipe, config=config, out=Path(folder) / "run", quiet=True)
        return [{k: v for k, v in row.items() if k != "seconds"} for row in run.metrics()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for case, (recipe, images) in CASES.items():
        place = {"mnist": given.mnist, "celeba": given.faces}[images]
        if place is None:
            continue
        mnist = images == "mnist"
        config = config_of(recipe, "mnist" if mnist else str(place), place if mnist else None)
        found[case] = losses(config, given.steps)
        print(case, [round(row["loss"], 4) for row in found[case] if "loss" in row], flush=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
