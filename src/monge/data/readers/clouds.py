"""Point clouds in files .ply, .xyz and .off, centred and in the unit sphere."""

import itertools
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from monge._core.files import files_below
from monge.config import DataConfig
from monge.data.kinds import CLOUD, finite_points, in_unit_sphere
from monge.data.readers.images import MOST_BYTES, MOST_FAILURES, parts_and_labels
from monge.data.source import Source, split
from monge.draws import seed_of

SUFFIXES = (".ply", ".xyz", ".off")
POINTS = 2048
TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float32": "f4",
    "float64": "f8",
}


def is_cloud_folder(path: Path) -> bool:
    """Whether a folder holds files of clouds, at any depth."""
    return any(os.path.splitext(name)[1].lower() in SUFFIXES for name in files_below(path))


def folder(path: Path, config: DataConfig) -> Source:
    """The clouds below a folder; `train/` and `test/` are honoured, other folders are classes."""
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    names, clouds, bad = [], [], []
    for file in files:
        name = str(PurePosixPath(file.relative_to(path)))
        try:
            if file.stat().st_size > MOST_BYTES:
                raise ValueError(f"over {MOST_BYTES:,} bytes")
            clouds.append(decode(file.read_bytes(), file.suffix.lower(), config.points, name))
            names.append(name)
        except (ValueError, OSError) as error:
            bad.append(f"{name} ({error})")
    if bad:
        text = f"{len(bad)} of {len(files)} clouds in {str(path)!r} could not be read: "
        text += ", ".join(bad[:5]) + (", …" if len(bad) > 5 else "")
        if len(bad) > MOST_FAILURES * len(files):
            raise ValueError(f"{text}: more than {MOST_FAILURES:.0%}; repair or remove them")
        warnings.warn(text, stacklevel=2)
    parts, labels = parts_and_labels(names)
    return split(path.stem, CLOUD, np.stack(clouds), labels, parts)


def decode(content: bytes, suffix: str, points: int | None, name: str) -> np.ndarray:
    """`points` points (2,048 by default) of one file, in the unit sphere: of .ply and .xyz some of
    those it holds, of a .off mesh drawn from its faces by their area.

    The draws depend on the name alone.

    Raises:
        ValueError: for a damaged file, or one of fewer points.
    """
    count, generator = points or POINTS, np.random.default_rng(seed_of("cloud", name))
    readers: dict[str, Callable[[bytes], np.ndarray]] = {".ply": _ply, ".xyz": _xyz}
    try:
        if suffix == ".off":
            return in_unit_sphere(_sampled(*_off(content), count, generator))
        found = readers[suffix](content)
    except (IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"it is damaged: {error}") from None
    if len(found) < count:
        raise ValueError(f"it has {len(found)} points, fewer than {count}: give --points")
    return in_unit_sphere(found[np.sort(generator.permutation(len(found))[:count])])


def _xyz(content: bytes) -> np.ndarray:
    """A row a point: x y z, and what else there is."""
    rows = [line.split() for line in content.decode("ascii", "replace").splitlines()]
    rows = [row[:3] for row in rows if row and not row[0].startswith("#")]
    if any(len(row) < 3 for row in rows):
        raise ValueError("a row has fewer than three numbers")
    return np.array(rows, dtype=float).reshape(-1, 3)


def _ply(content: bytes) -> np.ndarray:
    """The vertices of a .ply file, ascii or binary; their other properties are left out."""
    found = re.match(rb"ply\s*?\r?\n(.*?)end_header[ \t]*\r?\n", content, re.DOTALL)
    if not found:
        raise ValueError("it has no header of a .ply file")
    body, order, elements = content[found.end() :], None, []
    for line in found[1].decode("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[words[1]]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][2].append(words[1:])
    if order is None:
        raise ValueError("its header names no format")
    before = 0
    for name, count, properties in elements:
        if name == "vertex":
            break
        before += count if order == "" else count * _row(order, properties).itemsize
    else:
        raise ValueError("its header names no vertices")
    kinds = _row(order or "<", properties)
    if not 0 <= count <= len(content) or not {"x", "y", "z"} <= set(kinds.names or ()):
        raise ValueError("its header promises no vertices x, y, z that it can hold")
    if order:
        rows = np.frombuffer(body, kinds, count, before)
        return np.stack([finite_points(rows[axis]) for axis in "xyz"], 1)
    lines = body.decode("ascii", "replace").splitlines()[before : before + count]
    if len(lines) < count:
        raise ValueError(f"it has {len(lines)} of {count} vertices")
    places = [list(kinds.names or ()).index(axis) for axis in "xyz"]
    return np.array([[float(line.split()[i]) for i in places] for line in lines]).reshape(-1, 3)


def _row(order: str, properties: list[list[str]]) -> np.dtype:
    if any(kind == "list" for kind, *_ in properties):
        raise ValueError("lists stand before the vertices")
    return np.dtype([(words[-1], order + TYPES[words[0]]) for words in properties])


def _off(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, 3) and triangles (m, 3) of a mesh; polygons are cut into fans."""
    text = re.sub(r"#.*", "", content.decode("ascii", "replace")).strip()
    if not text.startswith("OFF"):
        raise ValueError("it does not begin with OFF")
    lines = [line.split() for line in text[3:].strip().splitlines() if line.strip()]
    vertices, faces = int(lines[0][0]), int(lines[0][1])
    rows = lines[1 : 1 + vertices + faces]
    if vertices < 1 or faces < 1 or len(rows) < vertices + faces:
        raise ValueError(f"it has {len(rows)} of {vertices} vertices and {faces} faces")
    points = finite_points(
        np.array([[float(word) for word in row[:3]] for row in rows[:vertices]])
    )
    polygons = [[int(word) for word in row[1 : 1 + int(row[0])]] for row in rows[vertices:]]
    triangles = np.array(
        [(p[0], a, b) for p in polygons for a, b in itertools.pairwise(p[1:])], dtype=int
    ).reshape(-1, 3)
    if len(triangles) == 0 or not 0 <= triangles.min() <= triangles.max() < vertices:
        raise ValueError("its faces name vertices that it does not have")
    return points, triangles


def _sampled(
    points: np.ndarray, triangles: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Uniform draws from a surface (count, 3): Osada et al., "Shape distributions", 2002."""
    a, b, c = points[triangles].swapaxes(0, 1)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not (np.isfinite(area).all() and area.sum() > 0):
        raise ValueError("its faces have no area")
    chosen = generator.choice(len(area), count, p=area / area.sum())
    u, v = generator.random((2, count, 1))
    root = np.sqrt(u)
    return (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]
