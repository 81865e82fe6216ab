"""Every recipe on real images, with the same small networks: trains, measures, writes the table.

    python benchmarks/zoo.py --data-dir DIR

Runs that exist under runs/zoo are not trained again. Figures go to zoo.json, the table and the
pictures to docs/zoo.md and docs/zoo/.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from monge.data import as_floats
from monge.draws import generator
from monge.evaluation import sharpness
from monge.evaluation.samplers import draw_codes
from monge.models import AutoEncoder
from monge.recipes import RECIPES
from monge.runs import Run
from monge.show import pictures
from monge.transport import sliced_wasserstein

ROOT = Path(__file__).parents[1]
RUNS, FIGURES = ROOT / "runs" / "zoo", Path(__file__).with_suffix(".json")
EPOCHS = 3
CASES = {
    "mnist": {
        **{recipe: [recipe] for recipe in RECIPES},
        "vae-fixed": ["vae", "--set", "sigma=1"],
        "vae-fixed-0.3": ["vae", "--set", "sigma=0.3"],
        "wae-mmd-rbf": ["wae-mmd"],
    },
    "fashion-mnist": {recipe: [recipe] for recipe in ("vae", "wae-mmd", "wae-gan", "swae")},
}
COLUMNS = {
    "reconstruction": "{:.2f}",
    "codes MMD²": "{:.4f}",
    "codes SW": "{:.3f}",
    "sharpness": "{:.3f}",
    "samples SW": "{:.3f}",
    "seconds": "{:.0f}",
}


COMMON = ["--latent", "8", "--lr", "0.001"]
CONSTANT = ["training.schedule=constant", "training.inner_lr=0.0005"]
UNTUNED = {
    "vae-bernoulli": [*COMMON, "--set", "beta=1", *CONSTANT],
    "wae-mmd": [*COMMON, "--weight", "196", "--set", *CONSTANT],
    "wae-gan": [*COMMON, "--weight", "5.04", "--set", *CONSTANT],
    "swae": [*COMMON, "--weight", "100.8", "--set", *CONSTANT],
    "sinkhorn-ae": [*COMMON, "--weight", "12.6", "--set", *CONSTANT],
    "wae-mmd-rbf": [*COMMON, "--weight", "1372", "--set", "kernel=rbf", *CONSTANT],
}
"""The recipes whose preset is tuned since, with what was common to all."""


def command(data: str, name: str) -> list[str]:
    """The arguments of `monge` that train a case."""
    out = f"runs/zoo/{data.split('-')[0]}-{name}"
    case = CASES[data][name][:1] + UNTUNED[name] if name in UNTUNED else CASES[data][name]
    return ["train", *case, "--data", data, "--epochs", str(EPOCHS), "--out", out]


def apart(x, y) -> float:
    """SW_2 with 1,000 directions."""
    return float(sliced_wasserstein(x, y, directions=1000, generator=generator(0, "zoo")))


def figures(run: Run) -> dict[str, float]:
    """What the table says of a run: 10,000 samples and test images, 2,000 codes."""
    test = as_floats(run.source.test)
    samples = run.model.sample(len(test), generator(0, "zoo samples"))
    found = {
        "sharpness": sharpness(samples),
        "samples SW": apart(samples.flatten(1), test.flatten(1)),
        "seconds": run.summary()["training seconds"],
    }
    if isinstance(run.model, AutoEncoder):
        summed = run.summary()
        codes = draw_codes(run.model, run.source.test[:2000])
        drawn = run.model.prior.sample(len(codes), generator(0, "zoo prior"))
        found |= {
            "reconstruction": summed["test reconstruction"],
            "codes MMD²": summed["MMD² of codes"],
            "codes SW": apart(codes, drawn),
        }
    return found


def floors(run: Run) -> dict[str, float]:
    """The same figures of training images and of prior draws, at the same sizes."""
    test = as_floats(run.source.test)
    train = as_floats(run.source.train[: len(test)])
    one, two = (run.model.prior.sample(2000, generator(0, "zoo floor", i)) for i in (0, 1))
    return {
        "codes MMD²": run.summary()["its floor"],
        "codes SW": apart(one, two),
        "sharpness": sharpness(train),
        "samples SW": apart(train.flatten(1), test.flatten(1)),
    }


def row(name: str, values: dict[str, float]) -> str:
    cells = [form.format(values[c]) if c in values else "–" for c, form in COLUMNS.items()]
    return f"| {name} | {' | '.join(cells)} |\n"


def gallery(runs: dict[str, Run]) -> Image.Image:
    """Sixteen samples of each run under its name."""
    font, tiles = ImageFont.load_default(18), []
    for name, run in runs.items():
        samples = pictures.grid(run.model.sample(16, generator(1, "look")), 4).convert("RGB")
        tile = Image.new("RGB", (252, 276), "white")
        ImageDraw.Draw(tile).text((126, 14), name, "black", font, anchor="mm")
        tile.paste(samples.resize((236, 236)), (8, 30))
        tiles.append(tile)
    columns = 6
    canvas = Image.new("RGB", (252 * columns, 276 * -(-len(tiles) // columns)), "white")
    for i, tile in enumerate(tiles):
        canvas.paste(tile, (252 * (i % columns), 276 * (i // columns)))
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    given = parser.parse_args()
    found, text = {}, []
    for data, cases in CASES.items():
        runs = {}
        for name in cases:
            arguments = command(data, name)
            out = ROOT / arguments[-1]
            if not (out / "report.html").exists():
                program = [sys.executable, "-m", "monge", *arguments, "--data-dir"]
                subprocess.run([*program, given.data_dir, "--resume"], check=True, cwd=ROOT)
            runs[name] = Run(out)
        found[data] = {name: figures(run) for name, run in runs.items()}
        found[data]["floor"] = floors(runs["wae-mmd"])
        lines = [row(name, values) for name, values in found[data].items()]
        head = f"| {data} | {' | '.join(COLUMNS)} |\n{'|---' * (len(COLUMNS) + 1)}|\n"
        text.append(head + "".join(lines))
        folder = ROOT / "docs" / "zoo"
        folder.mkdir(parents=True, exist_ok=True)
        gallery(runs).quantize(64).save(folder / f"{data}.png", optimize=True)
    FIGURES.write_text(json.dumps(found, indent=1) + "\n")
    page = ROOT / "docs" / "zoo.md"
    before, _, rest = page.read_text().partition("<!-- table -->\n")
    _, mark, after = rest.partition("<!-- end of table -->\n")
    page.write_text(f"{before}<!-- table -->\n" + "\n".join(text) + mark + after)


if __name__ == "__main__":
    main()
