"""Auto-encoders with their tuned settings, sampled from the prior and from a fitted mixture.

    python benchmarks/samplers.py --data-dir DIR

Trains five epochs of the preset small, three seeds on MNIST and one on Fashion-MNIST, two
processes of one thread at a time, and measures 10,000 samples against the test part. Runs that
exist under runs/samplers are not trained again. Figures go to samplers.json, the tables and the
pictures to docs/evaluate.md and docs/evaluate/.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from monge.draws import generator
from monge.runs import Run
from monge.show import pictures

ROOT = Path(__file__).parents[1]
RUNS, FIGURES = ROOT / "runs" / "samplers", Path(__file__).with_suffix(".json")
COMPARED = ("vae-bernoulli", "wae-mmd", "wae-gan", "swae", "sinkhorn-ae")
"""The tuned recipes that draw from a prior, in the order of the tables."""
EPOCHS, N = 5, 10_000
CASES = [("mnist", seed) for seed in range(3)] + [("fashion-mnist", 0)]
SAMPLERS = ("prior", "mixture")
SHOWN = {
    "LeNet-FD": "{:.1f}",
    "LeNet-FD extrapolated": "{:.1f}",
    "LeNet-MIND": "{:.1f}",
    "KD": "{:.0f}",
    "precision": "{:.2f}",
    "recall": "{:.2f}",
    "coverage": "{:.2f}",
    "1-NN accuracy": "{:.3f}",
    "network accuracy": "{:.3f}",
    "pixel SW": "{:.3f}",
    "sharpness": "{:.3f}",
    "classes JS": "{:.4f}",
    "test reconstruction": "{:.1f}",
    "MMD² of codes": "{:.3f}",
}
START, END = "<!-- samplers: begin -->\n", "<!-- samplers: end -->\n"


def train(recipe: str, data: str, seed: int, directory: str) -> Path:
    """A run, trained unless it exists."""
    out = RUNS / f"{data}-{recipe}-{seed}"
    command = [
        "train",
        recipe,
        "--data",
        data,
        "--epochs",
        str(EPOCHS),
        "--seed",
        str(seed),
        "--threads",
        "1",
        "--out",
        str(out),
        "--data-dir",
        directory,
    ]
    if not (out / "report.html").exists():
        if out.exists():
            command.append("--resume")
        with (RUNS / f"{out.name}.log").open("w") as log:
            subprocess.run(
                [sys.executable, "-m", "monge", *command],
                check=True,
                stderr=log,
                stdout=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
    return out


def row(name: str, values: list[dict[str, float]]) -> str:
    """Means over seeds, with deviations where there are several."""
    cells = []
    for figure, form in SHOWN.items():
        given = [one[figure] for one in values if one.get(figure) is not None]
        cell = form.format(statistics.fmean(given)) if given else "–"
        if len(given) > 1:
            cell += f" ± {form.format(statistics.stdev(given))}"
        cells.append(cell)
    return f"| {name} | {' | '.join(cells)} |\n"


def gallery(runs: list[Run]) -> Image.Image:
    """Samples of each run: of the prior above, of the mixture below."""
    font, side = ImageFont.load_default(16), 240
    canvas = Image.new("RGB", (len(runs) * (side + 12), 2 * side + 60), "white")
    for i, run in enumerate(runs):
        left = i * (side + 12) + 6
        ImageDraw.Draw(canvas).text((left, 6), run.config.recipe, "black", font)
        for j, prior in enumerate((None, run.mixture())):
            samples = run.model.sample(36, generator(1, "look"), prior)
            tile = pictures.grid(samples, 6).convert("RGB").resize((side, side))
            canvas.paste(tile, (left, 32 + j * (side + 12)))
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    directory = parser.parse_args().data_dir
    RUNS.mkdir(parents=True, exist_ok=True)
    wanted = [(recipe, data, seed) for data, seed in CASES for recipe in COMPARED]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one: train(*one, directory), wanted))
    found = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for data, seed in CASES:
        for recipe in COMPARED:
            run = Run(RUNS / f"{data}-{recipe}-{seed}")
            for sampler in SAMPLERS:
                key = f"{run.name} {sampler}"
                if key not in found:
                    found[key] = run.evaluate(N, sampler)
                    FIGURES.write_text(json.dumps(found, indent=1) + "\n")
                    print(key, found[key]["figures"], flush=True)
    text = ""
    for data, seeds in (("mnist", range(3)), ("fashion-mnist", range(1))):
        text += f"\n### {data}\n\n| recipe | sampler | {' | '.join(SHOWN)} |\n"
        text += "|---" * (len(SHOWN) + 2) + "|\n"
        for sampler in SAMPLERS:
            for recipe in COMPARED:
                rows = [found[f"{data}-{recipe}-{seed} {sampler}"]["figures"] for seed in seeds]
                values = [{k: v["value"] for k, v in one.items()} for one in rows]
                text += row(f"{recipe} | {sampler}", values)
        floors = found[f"{data}-{COMPARED[0]}-0 prior"]["figures"]
        text += row("floor | –", [{k: v["floor"] for k, v in floors.items()}])
        runs = [Run(RUNS / f"{data}-{recipe}-0") for recipe in COMPARED]
        (ROOT / "docs" / "evaluate").mkdir(exist_ok=True)
        gallery(runs).save(ROOT / "docs" / "evaluate" / f"{data}.png", optimize=True)
        text += f"\n![Samples on {data}](evaluate/{data}.png)\n"
    page = ROOT / "docs" / "evaluate.md"
    before, rest = page.read_text().split(START)
    page.write_text(before + START + text + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
