"""A sheet of the data set `glyphs`: a row for each of nine classes, a column a sample.

python examples/glyphs.py
"""

from pathlib import Path

import torch

from monge.config import DataConfig
from monge.data import as_floats, load
from monge.show.pictures import grid

OUT = Path(__file__).parents[1] / "docs" / "data" / "glyphs.png"
CLASSES = ("A", "B", "G", "Q", "R", "a", "g", "4", "8")


def main() -> None:
    source = load(DataConfig("glyphs", classes=CLASSES))
    assert source.test_labels is not None
    rows = [source.test[source.test_labels == k][:24] for k in range(len(CLASSES))]
    OUT.parent.mkdir(exist_ok=True)
    grid(as_floats(torch.cat(rows)), columns=24).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
