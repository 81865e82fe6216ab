"""Which generator? One table of quality, training time and sampling time on the same images.

    python benchmarks/generators.py --data-dir DIR [--data mnist] [NAME …]

Trains ten epochs of each case in one process of one thread, unless its run exists under
runs/generators, and measures 10,000 samples of every sampler that it has against the test part.
Figures go to generators.json, the tables and pictures to docs/generators.md and docs/generators/.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from monge.draws import generator
from monge.runs import Run
from monge.show import pictures

ROOT = Path(__file__).parents[1]
RUNS, FIGURES = ROOT / "runs" / "generators", Path(__file__).with_suffix(".json")
PAGE, SHOWN_IN = ROOT / "docs" / "generators.md", ROOT / "docs" / "generators"
EPOCHS, N = 10, 10_000
CASES = {
    "vae-bernoulli": ["vae-bernoulli"],
    "wae-mmd": ["wae-mmd"],
    "wae-gan": ["wae-gan"],
    "alpha-gan": ["alpha-gan"],
    "alpha-gan, labels": ["alpha-gan", "--condition", "labels"],
    "wgan-gp": ["wgan-gp"],
    "drifting": ["drifting"],
    # the U-Net is the largest network here; bf16 is for processors with avx512_bf16
    "flow-matching": ["flow-matching", "--precision", "bf16"],
}
"""What is trained, in the order of the table."""
SHOWN = {
    "LeNet-FD": "{:.1f}",
    "pixel SW": "{:.4f}",
    "sharpness": "{:.3f}",
    "precision": "{:.2f}",
    "recall": "{:.2f}",
    "coverage": "{:.2f}",
    "class accuracy": "{:.3f}",
    "test reconstruction": "{:.1f}",
}
START, END = "<!-- generators: begin -->\n", "<!-- generators: end -->\n"


def folder(data: str, name: str) -> Path:
    """The run of a case."""
    return RUNS / f"{data}-{name.replace(', ', '-')}"


def train(data: str, name: str, directory: str) -> None:
    """Trains a case unless its run is there."""
    out = folder(data, name)
    if (out / "report.html").exists():
        return
    command = ["train", *CASES[name], "--data", data, "--data-dir", directory, "--out", str(out)]
    more = ["--resume"] if out.exists() else []
    subprocess.run(
        [
            sys.executable,
            "-m",
            "monge",
            *command,
            "--epochs",
            str(EPOCHS),
            "--threads",
            "1",
            *more,
        ],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def measured(data: str, name: str) -> dict:
    """The figures of a case, of each of its samplers, with its times."""
    run = Run(folder(data, name))
    run.sample(64, generator(0, "warm"))
    times = []
    for i in range(5):
        began = time.perf_counter()
        run.sample(64, generator(i, "timed"))
        times.append(time.perf_counter() - began)
    lines = (run.path / "metrics.jsonl").read_text("utf-8").splitlines()
    found = run.evaluate(N, "all")
    samplers = found.get("samplers") or {"prior": {"figures": found["figures"]}}
    figures = {
        sampler: {k: v["value"] for k, v in (found["figures"] | one["figures"]).items()}
        for sampler, one in samplers.items()
    }
    floors = {k: v["floor"] for k, v in found["figures"].items()}
    return {
        "protocol": found["protocol"],
        "training seconds": json.loads(lines[-1])["seconds"],
        "seconds of 64 samples": min(times),
        "figures": figures,
        "floors": floors,
    }


def table(found: dict[str, dict]) -> str:
    """The rows of one data set."""
    text = f"| model | sampler | {' | '.join(SHOWN)} | training | 64 samples |\n"
    text += "|---" * (len(SHOWN) + 4) + "|\n"
    floors: dict = {}
    for name, one in found.items():
        floors |= {k: v for k, v in one["floors"].items() if v is not None}
        for sampler, values in one["figures"].items():
            times = f"{one['training seconds'] / 60:.0f} min"
            text += _row(name, sampler, values, times, f"{one['seconds of 64 samples']:.3f} s")
    return text + _row("training images", "–", floors, "–", "–")


def _row(name: str, sampler: str, values: dict, *times: str) -> str:
    cells = ["–" if values.get(k) is None else form.format(values[k]) for k, form in SHOWN.items()]
    return f"| {' | '.join([name, sampler, *cells, *times])} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("names", nargs="*", default=list(CASES))
    given = parser.parse_args()
    SHOWN_IN.mkdir(exist_ok=True)
    for name in given.names:
        train(given.data, name, given.data_dir)
        figures = measured(given.data, name)  # for minutes, in which another process may write
        found = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
        found.setdefault(given.data, {})[name] = figures
        FIGURES.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        run = Run(folder(given.data, name))
        picture = pictures.pictures_of(run.source.kind).samples(
            run.sample(64, generator(1, "look"))
        )
        picture.save(SHOWN_IN / f"{folder(given.data, name).name}.png", optimize=True)
    found = json.loads(FIGURES.read_text("utf-8"))
    text = ""
    for data, of_data in found.items():
        ordered = {name: of_data[name] for name in CASES if name in of_data}
        text += f"\n## {data}\n\n{table(ordered)}\n"
        for name in ordered:
            file = f"{folder(data, name).name}.png"
            text += f"![{name} on {data}](generators/{file})\n"
    before, rest = PAGE.read_text("utf-8").split(START)
    PAGE.write_text(before + START + text + "\n" + END + rest.split(END)[1], "utf-8")


if __name__ == "__main__":
    main()
