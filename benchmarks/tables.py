"""Reading a large table: monge's reader and pandas, the same numbers.

    pip install pandas
    python benchmarks/tables.py

Writes 530,000 rows of 20 columns with all their digits (208 MB), and reads them five times in a
process for each library. Processor time counts both cores; it is what other work on the machine
disturbs least. Figures go to tables.json, the table to the output.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

FIGURES = Path(__file__).with_suffix(".json")

READING = """
import hashlib, importlib.metadata, json, sys, time
from pathlib import Path

began = time.perf_counter()
if sys.argv[1] == "polars":
    import polars
    imported = time.perf_counter() - began
    from monge.data.readers import tables
    read = lambda path: tables.read(Path(path)).values
else:
    import pandas
    imported = time.perf_counter() - began
    read = lambda path: pandas.read_csv(path).to_numpy()
wall, processor = [], []
for _ in range(5):
    before = time.perf_counter(), time.process_time()
    values = read(sys.argv[2])
    wall.append(time.perf_counter() - before[0])
    processor.append(time.process_time() - before[1])
print(json.dumps({
    "import s": imported,
    "wall s": sorted(wall),
    "processor s": sorted(processor),
    "version": importlib.metadata.version(sys.argv[1]),
    "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
}))
"""


def main() -> None:
    x = np.random.default_rng(0).normal(size=(530_000, 20))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "table.csv"
        with path.open("w", encoding="ascii") as file:
            file.write(",".join(f"c{i}" for i in range(20)) + "\n")
            file.writelines(",".join(map(repr, row)) + "\n" for row in x.tolist())
        size = path.stat().st_size
        figures = {
            library: json.loads(
                subprocess.run(
                    [sys.executable, "-c", READING, library, str(path)],
                    check=True,
                    capture_output=True,
                ).stdout
            )
            for library in ("polars", "pandas")
        }
    assert len({row["sha256"] for row in figures.values()}) == 1
    print(f"| {size / 1e6:.0f} MB | import s | wall s | processor s |\n|---|---|---|---|")
    for library, row in figures.items():
        spans = (f"{row[key][0]:.2f} – {row[key][-1]:.2f}" for key in ("wall s", "processor s"))
        print(f"| {library} {row['version']} | {row['import s']:.2f} | {' | '.join(spans)} |")
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "bytes": size}
    FIGURES.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
