"""Arrays and tables: the embedded digits, .npy, .npz and .csv."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from monge.data.source import Source, split


def digits() -> Source:
    """scikit-learn's 1,797 real 8×8 digits with 17 grey levels; the last 297 are held out."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    return split("digits", "image", images, bunch.target, np.arange(len(images)) >= 1500)


def from_array(samples: np.ndarray, labels=None, test=None, name: str = "array") -> Source:
    """A source from an array.

    (n, d) are vectors; (n, h, w), (n, c, h, w) and (n, h, w, c) with c = 1 or 3 are images,
    uint8 or floats in [0, 1].

    Raises:
        ValueError: for other shapes, other ranges, NaN or infinity.
    """
    samples = np.asarray(samples)
    if samples.dtype.kind not in "iufb":
        raise ValueError(f"`data` {name!r} must hold numbers, got {samples.dtype}")
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).sum())
        raise ValueError(f"`data` {name!r} must be finite, got {bad} NaN or infinite values")
    if samples.ndim == 2:
        return split(name, "vector", samples.astype(np.float32), labels, test)
    if samples.ndim == 3 and samples.shape[-1] != 3:
        samples = samples[:, None]
    elif samples.ndim == 4 and samples.shape[-1] in (1, 3) and samples.shape[1] not in (1, 3):
        samples = np.moveaxis(samples, -1, 1)
    if samples.ndim != 4 or samples.shape[1] not in (1, 3):
        raise ValueError(
            f"`data` {name!r} has shape {samples.shape}: give vectors (n, d) or images (n, h, w), "
            "(n, c, h, w) or (n, h, w, c) with c = 1 or 3"
        )
    if samples.dtype != np.uint8:
        if samples.size and (samples.min() < 0 or samples.max() > 1):
            raise ValueError(
                f"`data` {name!r}: images that are not uint8 must lie in [0, 1], "
                f"got [{samples.min():.4g}, {samples.max():.4g}]"
            )
        samples = samples.astype(np.float32)
    return split(name, "image", np.ascontiguousarray(samples), labels, test)


def load(path: Path) -> Source:
    """A source from a .npy, .npz or .csv file."""
    samples, labels, test = read(path)
    return from_array(samples, labels, test, path.name)


def read(path: Path) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Samples, labels and the mask of the test part of a file; the latter two may be absent."""
    reader = {".npy": _npy, ".npz": _npz, ".csv": _csv}.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise ValueError(f"{str(path)!r} is no file of samples: give a .npy, .npz or .csv file")
    try:
        return reader(path)
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{str(path)!r} is not readable: {error}") from None


def _npy(path: Path):
    return np.load(path, allow_pickle=False), None, None


def _npz(path: Path):
    """Samples under the key `images` or `x`; optional `labels`, and `split` of train / test."""
    with np.load(path, allow_pickle=False) as archive:
        content = {key: archive[key] for key in archive.files}
    key = next((key for key in ("images", "x") if key in content), None)
    if key is None:
        raise ValueError(f"of the keys {sorted(content)} none is images or x")
    for other in ("labels", "split"):
        if other in content and content[other].shape != (len(content[key]),):
            raise ValueError(
                f"{len(content[key])} {key} and {other} of shape {content[other].shape}"
            )
    test = content["split"] == "test" if "split" in content else None
    return content[key], content.get("labels"), test


def _csv(path: Path):
    """A table of numbers, a row a sample; a header is optional, its column `label` is a class."""
    with path.open(encoding="utf-8", errors="replace") as file:
        cells = [cell.strip().strip('"') for cell in file.readline().split(",")]
    header = not all(_is_number(cell) for cell in cells)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an empty table, which is refused by its size
        table = np.loadtxt(path, delimiter=",", skiprows=int(header), ndmin=2, dtype=np.float64)
    if not (header and "label" in cells):
        return table, None, None
    column = cells.index("label")
    return np.delete(table, column, axis=1), table[:, column], None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
