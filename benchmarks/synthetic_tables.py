"""Synthetic tables: monge's recipes beside CTGAN and TVAE, by SDMetrics and by neighbours.

    python3 -m venv sdv && sdv/bin/pip install torch sdv
    python benchmarks/synthetic_tables.py --peer-python sdv/bin/python --keep drawn

Four tables of scikit-learn, each with a category: iris, wine, breast cancer with its diagnosis,
and diabetes with sex, in raw units. Seven tenths of the rows are trained on, the same for all
models; as many rows are drawn and compared with the other three tenths:

- shapes, trends: SDMetrics' QualityReport, of single columns and of pairs of columns, in [0, 1];
- 1-NN: the leave-one-out accuracy of the nearest neighbour in telling samples from equally many
  test rows, in standard units with categories one-hot; ½ is best;
- correlations: the mean |difference| of Pearson's correlations of those elements;
- nearer training: the share of samples nearer to a training row than to a test row, of equally
  many; ½ where a model copies nothing.

The training rows themselves show what two real samples get. Settings are defaults. Means of three
seeds, one thread. Drawn tables are kept in the folder --keep, and are not drawn again. Figures go
to synthetic_tables.json, the table to the output.
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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

import monge
from monge.config import Config, DataConfig
from monge.data import Source, load

FIGURES = Path(__file__).with_suffix(".json")
REAL = "the training rows"
OURS = {"flow-matching": ("prior",)}
"""Recipes with the samplers of their codes."""
PEERS = {"TVAE": 300, "CTGAN": 300}
"""Synthesizers of SDV with their epochs, which are the defaults."""
CATEGORIES = {
    "iris": "species",
    "wine": "cultivar",
    "breast cancer": "diagnosis",
    "diabetes": "sex",
}
SEEDS = (0, 1, 2)
MEASURES = ("shapes", "trends", "1-NN", "correlations", "nearer training")
REPETITIONS = 10
"""Random subsets of equally many rows, over which figures of neighbours are averaged."""

PEER = """
import importlib.metadata, json, sys, time, warnings
import numpy, pandas, torch
from sdmetrics.reports.single_table import QualityReport
from sdv.metadata import Metadata
from sdv import single_table

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
for job in json.load(sys.stdin):
    read = lambda path: pandas.read_csv(path, dtype={job["category"]: str})
    train, test = read(job["train"]), read(job["test"])
    kinds = {n: "categorical" if n == job["category"] else "numerical" for n in train.columns}
    record = {"columns": {name: {"sdtype": kind} for name, kind in kinds.items()}}
    answer = {}
    if job["peer"]:
        numpy.random.seed(job["seed"])
        torch.manual_seed(job["seed"])
        metadata = Metadata.load_from_dict({"tables": {"table": record}})
        made = getattr(single_table, job["peer"] + "Synthesizer")(metadata, epochs=job["epochs"])
        began = time.perf_counter(), time.process_time()
        made.fit({"table": train})
        answer["seconds"] = time.perf_counter() - began[0]
        answer["cpu seconds"] = time.process_time() - began[1]
        drawn = made.sample(len(train))
        drawn = drawn["table"] if isinstance(drawn, dict) else drawn
        drawn.to_csv(job["drawn"], index=False)
    else:
        report = QualityReport()
        report.generate(test, read(job["drawn"]), record, verbose=False)
        scores = report.get_properties().set_index("Property")["Score"]
        answer = {"shapes": scores["Column Shapes"], "trends": scores["Column Pair Trends"]}
    names = ("sdv", "ctgan", "sdmetrics", "torch")
    answer["versions"] = {name: importlib.metadata.version(name) for name in names}
    print(json.dumps(answer), flush=True)
"""


def peer(python: str, jobs: list[dict]) -> Iterator[dict]:
    """What the Python that has sdv answers to each job."""
    done = subprocess.run(
        [python, "-c", PEER],
        input=json.dumps(jobs, default=str),
        capture_output=True,
        text=True,
        check=True,
        env={"OMP_NUM_THREADS": "1"},
    )
    yield from (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))


def rows_of(name: str) -> tuple[list[str], list[list]]:
    """The header and the rows of a table."""
    if name == "diabetes":
        data = load_diabetes(scaled=False)
        header = [*data.feature_names, "progression"]
        rows = [[*x, t] for x, t in zip(data.data.tolist(), data.target.tolist())]
        sex = header.index("sex")
        for row in rows:
            row[sex] = {1.0: "one", 2.0: "two"}[row[sex]]  # the source does not say which is which
        return header, rows
    data = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer}[name]()
    header = [*data.feature_names, CATEGORIES[name]]
    return header, [[*x, data.target_names[t]] for x, t in zip(data.data.tolist(), data.target)]


def write_parts(place: Path, name: str) -> tuple[Path, Path]:
    """The training and the test part of a table, as files."""
    header, rows = rows_of(name)
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
    rows = torch.cat([source.train, source.test])
    return dataclasses.replace(source, train=rows, train_labels=None, contents=None)


def draw(recipe: str, train: Path, seed: int, files: dict[str, Path], out: Path) -> None:
    """Writes the tables that a recipe draws, by sampler, with the seconds of its training.

    Arguments:
        out: a new folder for the run.
    """
    config = dataclasses.replace(Config.of(recipe), seed=seed, threads=1)
    source = all_rows(train)
    began = time.perf_counter(), time.process_time()
    run = monge.fit(recipe, source, config, out, quiet=True)
    seconds = time.perf_counter() - began[0], time.process_time() - began[1]
    for sampler, file in files.items():
        prior = None if sampler == "prior" else run.mixture()
        generator = torch.Generator().manual_seed(seed)
        rows = run.sample(len(source.train), generator, prior)
        file.write_bytes(run.schema.to_csv(rows))
        note_seconds(file, *seconds)


def note_seconds(file: Path, seconds: float, cpu: float) -> None:
    """Keeps the seconds of a training beside the table that it drew."""
    note = {"seconds": seconds, "cpu seconds": cpu}
    file.with_suffix(".json").write_text(json.dumps(note), encoding="utf-8")


def elements(file: Path, train: pl.DataFrame, category: str) -> np.ndarray:
    """A table in the standard units of its training part, categories one-hot, (n, d)."""

    def plain(table: pl.DataFrame) -> np.ndarray:
        labels = sorted(train[category].unique())
        one_hot = [(table[category] == label).to_numpy().astype(float) for label in labels]
        numbers = [table[n].cast(pl.Float64).to_numpy() for n in train.columns if n != category]
        return np.stack([*numbers, *one_hot], 1)

    real = plain(train)
    return (plain(pl.read_csv(file, infer_schema_length=None)) - real.mean(0)) / real.std(0)


def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances (n, m) between rows."""
    return np.square(x[:, None] - y[None]).sum(-1)


def neighbours(drawn: np.ndarray, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """The two figures of nearest neighbours."""
    n, accuracies, shares = min(len(drawn), len(train), len(test)), [], []
    for repetition in range(REPETITIONS):
        generator = np.random.default_rng(repetition)
        x, y, z = (rows[generator.permutation(len(rows))[:n]] for rows in (drawn, train, test))
        both, label = np.concatenate([x, z]), np.arange(2 * n) < n
        distances = squared(both, both)
        np.fill_diagonal(distances, np.inf)
        accuracies.append((label[distances.argmin(1)] == label).mean())
        to_train, to_test = squared(drawn, y).min(1), squared(drawn, z).min(1)
        shares.append(((to_train < to_test) + 0.5 * (to_train == to_test)).mean())
    return {"1-NN": float(np.mean(accuracies)), "nearer training": float(np.mean(shares))}


def correlations(x: np.ndarray) -> np.ndarray:
    """Pearson's correlations of pairs of elements; 0 of one that does not vary."""
    x = x - x.mean(0)
    norm = np.sqrt(np.square(x).sum(0))
    x = x / np.where(norm > 0, norm, 1.0)
    return (x.T @ x)[np.triu_indices(x.shape[1], 1)]


def measured(parts: tuple[Path, Path], drawn: Path, category: str) -> dict[str, float]:
    """The figures of a drawn table that need no SDMetrics."""
    table = pl.read_csv(parts[0], infer_schema_length=None)
    x, train, test = (elements(file, table, category) for file in (drawn, *parts))
    gap = np.abs(correlations(x) - correlations(test)).mean()
    return {**neighbours(x, train, test), "correlations": float(gap)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer-python", required=True, help="a Python that has sdv")
    parser.add_argument("--keep", type=Path, required=True, help="a folder for drawn tables")
    given = parser.parse_args()
    given.keep.mkdir(parents=True, exist_ok=True)
    parts = {name: write_parts(given.keep, name) for name in CATEGORIES}
    figures: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in parts}
    versions = {"monge": monge.__version__, "python": platform.python_version()}

    def file_of(name: str, method: str, seed: int) -> Path:
        return given.keep / f"{name}-{method}-{seed}.csv"

    def job(name: str, drawn: Path, **peer) -> dict:
        train, test = parts[name]
        table = {"train": train, "test": test, "category": CATEGORIES[name], "drawn": drawn}
        return {**table, "peer": None, **peer}

    def score(method: str, drawn: list[tuple[str, Path]]) -> None:
        jobs = [job(name, file) for name, file in drawn]
        for (name, file), row in zip(drawn, peer(given.peer_python, jobs)):
            versions.update(row.pop("versions"))
            row |= measured(parts[name], file, CATEGORIES[name])
            if (note := file.with_suffix(".json")).exists():
                row |= json.loads(note.read_text(encoding="utf-8"))
            figures[name].setdefault(method, []).append(row)
        record = {"versions": versions, "figures": figures}
        FIGURES.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(method, "is measured", flush=True)

    score(REAL, [(name, train) for name, (train, _) in parts.items()])
    every = [(name, seed) for name in parts for seed in SEEDS]
    for synthesizer, epochs in PEERS.items():
        method = f"{synthesizer}, {epochs:,} epochs"
        files = [(name, file_of(name, method, seed), seed) for name, seed in every]
        new = [(name, file, seed) for name, file, seed in files if not file.exists()]
        settings = {"peer": synthesizer, "epochs": epochs}
        jobs = [job(name, file, seed=seed, **settings) for name, file, seed in new]
        for (_, file, _), row in zip(new, peer(given.peer_python, jobs)):
            note_seconds(file, row["seconds"], row["cpu seconds"])
        score(method, [(name, file) for name, file, _ in files])
    for recipe, samplers in OURS.items():
        methods = {one: recipe if one == "prior" else f"{recipe}, {one}" for one in samplers}
        for name, seed in every:
            files = {one: file_of(name, method, seed) for one, method in methods.items()}
            if not all(file.exists() for file in files.values()):
                with tempfile.TemporaryDirectory() as out:
                    draw(recipe, parts[name][0], seed, files, Path(out) / "run")
        for method in methods.values():
            score(method, [(name, file_of(name, method, seed)) for name, seed in every])
    print_table(figures)


def print_table(figures: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """Means over the seeds as a Markdown table; deviations where there are several seeds."""
    print(f"| table | model | {' | '.join(MEASURES)} | s |\n|{'---|' * (len(MEASURES) + 3)}")
    for name, methods in figures.items():
        for method, rows in methods.items():
            cells = []
            for key in MEASURES:
                values = [row[key] for row in rows]
                cells.append(f"{statistics.fmean(values):.3f}")
                if len(values) > 1:
                    cells[-1] += f" ± {statistics.stdev(values):.3f}"
            seconds = [row["cpu seconds"] for row in rows if "cpu seconds" in row]
            cells.append(f"{statistics.fmean(seconds):.0f}" if seconds else "")
            print(f"| {name} | {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
