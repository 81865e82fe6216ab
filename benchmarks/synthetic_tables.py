"""Synthetic tables: monge's recipes beside CTGAN and TVAE, by the measures of SDMetrics.

    python3 -m venv sdv && sdv/bin/pip install torch sdv
    python benchmarks/synthetic_tables.py --peer-python sdv/bin/python

Two tables of scikit-learn with numbers and a category: breast cancer with its diagnosis, and
diabetes with sex, in raw units. Seven tenths of the rows are trained on, the same for all; as many
rows are drawn, and SDMetrics' QualityReport compares them with the other three tenths. The
training rows themselves give the scores that a perfect model would have. Means of three seeds, one
thread; without --peer-python there is nothing to score with, and only the tables are written.
Figures go to synthetic_tables.json, the table to the output.
"""

import argparse
import csv
import dataclasses
import json
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes

import monge
from monge.config import Config, DataConfig
from monge.data import Source, load

FIGURES = Path(__file__).with_suffix(".json")
RECIPES = ("vae", "wae-mmd", "swae")
PEERS = (("TVAE", 300), ("TVAE", 3000), ("CTGAN", 300))
"""Synthesizers of SDV with their epochs, of which 300 is the default."""
CATEGORIES = {"breast cancer": ["diagnosis"], "diabetes": ["sex"]}
SEEDS = (0, 1, 2)

PEER = """
import importlib.metadata, json, sys, time, warnings
import numpy, pandas, torch
from sdmetrics.reports.single_table import QualityReport
from sdv.metadata import Metadata
from sdv import single_table

warnings.filterwarnings("ignore")
given = json.loads(sys.argv[1])
categories = given["categories"]
read = lambda path: pandas.read_csv(path, dtype={name: str for name in categories})
train, test = read(given["train"]), read(given["test"])
kinds = {n: "categorical" if n in categories else "numerical" for n in train.columns}
record = {"columns": {name: {"sdtype": kind} for name, kind in kinds.items()}}
if name := given.get("peer"):
    numpy.random.seed(given["seed"])
    torch.manual_seed(given["seed"])
    torch.set_num_threads(1)
    metadata = Metadata.load_from_dict({"tables": {"table": record}})
    made = getattr(single_table, name + "Synthesizer")(metadata, epochs=given["epochs"])
    began = time.perf_counter()
    made.fit({"table": train})
    seconds = time.perf_counter() - began
    drawn = made.sample(len(train))
    (drawn["table"] if isinstance(drawn, dict) else drawn).to_csv(given["drawn"], index=False)
else:
    seconds = 0.0
report = QualityReport()
report.generate(test, read(given["drawn"]), record, verbose=False)
scores = report.get_properties().set_index("Property")["Score"]
print(json.dumps({
    "shapes": scores["Column Shapes"],
    "trends": scores["Column Pair Trends"],
    "seconds": seconds,
    "versions": {n: importlib.metadata.version(n) for n in ("sdv", "ctgan", "sdmetrics", "torch")},
}))
"""


def write_parts(place: Path, name: str) -> tuple[Path, Path]:
    """The training and the test part of a table, as files."""
    if name == "breast cancer":
        data = load_breast_cancer()
        header = [*data.feature_names, "diagnosis"]
        rows = [[*x, data.target_names[t]] for x, t in zip(data.data.tolist(), data.target)]
    else:
        data = load_diabetes(scaled=False)
        header = [*data.feature_names, "progression"]
        rows = [[*x, t] for x, t in zip(data.data.tolist(), data.target.tolist())]
        sex = header.index("sex")
        for row in rows:
            row[sex] = {1.0: "one", 2.0: "two"}[row[sex]]  # the source does not say which is which
    order = np.random.default_rng(0).permutation(len(rows))
    count = len(rows) * 7 // 10
    files = []
    for part, chosen in (("train", order[:count]), ("test", order[count:])):
        files.append(place / f"{name}-{part}.csv")
        with files[-1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows[i] for i in chosen)
    return files[0], files[1]


def all_rows(path: Path) -> Source:
    """A table of which every row is trained on; those held out are only there for its report."""
    source = load(DataConfig(str(path)))
    return dataclasses.replace(source, train=torch.cat([source.train, source.test]))


def drawn_by(recipe: str, train: Path, seed: int, place: Path) -> tuple[dict[str, Path], float]:
    """Tables that a recipe draws, by the sampler of its codes, and the seconds of its training."""
    config = dataclasses.replace(Config.of(recipe), seed=seed, threads=1)
    source, out = all_rows(train), place / f"{train.stem}-{recipe}-{seed}"
    began = time.perf_counter()
    run = monge.fit(recipe, source, config, out, quiet=True)
    seconds = time.perf_counter() - began
    files = {}
    for sampler in ("prior", "mixture"):
        prior = run.mixture() if sampler == "mixture" else None
        generator = torch.Generator().manual_seed(seed)
        files[sampler] = out / f"{sampler}.csv"
        rows = run.sample(len(source.train), generator, prior)
        files[sampler].write_bytes(run.schema.to_csv(rows))
    return files, seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer-python", help="a Python that has sdv")
    peer_python = parser.parse_args().peer_python
    figures: dict[str, dict[str, list[dict[str, float]]]] = {}
    versions = {"monge": monge.__version__, "python": platform.python_version()}

    def scored(name: str, method: str, **given) -> None:
        if peer_python is None:
            return
        done = subprocess.run(
            [peer_python, "-c", PEER, json.dumps(given, default=str)],
            capture_output=True,
            text=True,
            check=True,
            env={},
        )
        row = json.loads(done.stdout.splitlines()[-1])
        versions.update(row.pop("versions"))
        row["seconds"] = given.get("seconds", row["seconds"])
        figures.setdefault(name, {}).setdefault(method, []).append(row)
        print(name, method, {key: round(value, 4) for key, value in row.items()}, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for name, categories in CATEGORIES.items():
            place = Path(folder)
            train, test = write_parts(place, name)
            table = {"train": train, "test": test, "categories": categories}
            scored(name, "the training part itself", **table, drawn=train)
            for seed in SEEDS:
                for recipe in RECIPES:
                    files, seconds = drawn_by(recipe, train, seed, place)
                    for sampler, drawn in files.items():
                        method = f"{recipe}, {sampler}"
                        scored(name, method, **table, drawn=drawn, seconds=seconds)
                for peer, epochs in PEERS:
                    method = f"{peer}, {epochs:,} epochs"
                    settings = {"peer": peer, "epochs": epochs, "seed": seed}
                    scored(name, method, **table, drawn=place / "peer.csv", **settings)
    if peer_python is None:
        print("the tables were drawn; give --peer-python, a Python that has sdv, to score them")
        return
    print_table(figures)
    record = {"versions": versions, "figures": figures}
    FIGURES.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def print_table(figures: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """Means over the seeds as a Markdown table; deviations where there are several seeds."""
    print("| table | model | column shapes | pair trends | seconds |\n|---|---|---|---|---|")
    for name, methods in figures.items():
        for method, rows in methods.items():
            cells = []
            for key in ("shapes", "trends"):
                values = [row[key] for row in rows]
                cells.append(f"{statistics.fmean(values):.3f}")
                if len(values) > 1:
                    cells[-1] += f" ± {statistics.stdev(values):.3f}"
            seconds = statistics.fmean(row["seconds"] for row in rows)
            print(f"| {name} | {method} | {' | '.join(cells)} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
