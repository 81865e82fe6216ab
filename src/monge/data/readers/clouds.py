"""Point clouds in files, centred and in the unit sphere; meshes are sampled by area.

plyfile reads .ply and trimesh .stl, both of the extra `clouds`; .off, .obj, .xyz and arrays are
read here. (trimesh cuts the polygons of .obj into fans, which leave concave ones.)
"""

import importlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from monge._core.files import DAMAGED
from monge.config import DataConfig
from monge.data.identity import digest
from monge.data.kinds import CLOUD, finite_points, in_unit_sphere
from monge.data.readers.discovery import HEAD, Found, kind_of_file
from monge.data.readers.images import MOST_BYTES, MOST_FAILURES
from monge.data.readers.layout import laid_out, parts_and_labels
from monge.data.readers.polygons import triangulated
from monge.data.source import Source, split
from monge.draws import seed_of

POINTS = 2048


class Shape(NamedTuple):
    """What a file holds: points, and the triangles between them if it is a mesh."""

    points: np.ndarray
    """(n, 3)."""
    triangles: np.ndarray | None = None
    """(m, 3) rows of `points`."""


class MissingPackage(ValueError):
    """A package that a format needs is not installed: nothing is wrong with the file."""


def folder(found: Found, config: DataConfig) -> Source:
    """The clouds below a folder; `train/` and `test/` are honoured, other folders are classes.

    Raises:
        ValueError: for more than one in a hundred that cannot be read, or a layout of parts that
            only some of them follow.
    """
    path = Path(found.where)
    files = found.of("clouds", "arrays")
    if len(files) == 1:
        raise ValueError(
            f"`data` {found.where!r} holds one file of clouds, {files[0]!r}: give that file if it "
            "is an array of many, or a folder of several"
        )
    files = laid_out(files, found.where, found.left)
    names, clouds, contents, bad = [], [], [], []
    for name in files:
        try:
            if (path / name).stat().st_size > MOST_BYTES:
                raise ValueError(f"over {MOST_BYTES:,} bytes")
            content = (path / name).read_bytes()
            clouds.append(decode(content, PurePosixPath(name).suffix.lower(), config.points, name))
            contents.append(digest(content))
            names.append(name)
        except MissingPackage as error:
            raise ValueError(f"`data` {found.where!r}: {error}") from None
        except (ValueError, OSError) as error:
            bad.append(f"{name} ({error})")
    if bad:
        text = f"{len(bad)} of {len(files)} clouds in {found.where!r} could not be read: "
        text += ", ".join(bad[:5]) + (", …" if len(bad) > 5 else "")
        if len(bad) > MOST_FAILURES * len(files):
            raise ValueError(f"{text}: more than {MOST_FAILURES:.0%}; repair or remove them")
        warnings.warn(text, stacklevel=2)
    found.left.warn(found.where)
    parts, labels = parts_and_labels(names)
    summary = found.left.summary(names, "clouds", parts, labels, len(bad))
    return split(
        path.stem,
        CLOUD,
        np.stack(clouds),
        labels,
        parts,
        summary=summary,
        contents=np.array(contents, np.uint64),
        by_position=config.split == "position",
    )


def decode(content: bytes, suffix: str, points: int | None, name: str) -> np.ndarray:
    """`points` points (2,048 by default) of one file, in the unit sphere: of a mesh drawn from
    its faces by their area, of a cloud some of those it holds.

    The draws depend on the content alone.

    Arguments:
        suffix: the format, unless the file begins with what another one does.

    Raises:
        ValueError: for a damaged file, or one of fewer points; `MissingPackage` without the
            package that the format needs.
    """
    count, generator = points or POINTS, np.random.default_rng(seed_of("clouds", digest(content)))
    kind, stands_for = kind_of_file(name, content[:HEAD])
    if kind in ("clouds", "arrays"):
        suffix = stands_for or suffix
    try:
        found, triangles = READERS[suffix](content)
        found = finite_points(found)
    except MissingPackage:
        raise
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason if type(error) is ValueError else f"damaged: {reason}") from None
    if triangles is not None and len(triangles):
        return in_unit_sphere(_sampled(found, triangles, count, generator))
    if len(found) < count:
        raise ValueError(f"it has {len(found)} points, fewer than {count}: give --points")
    return in_unit_sphere(found[np.sort(generator.permutation(len(found))[:count])])


def _package(name: str, suffix: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingPackage(
            f"{suffix} files need the package {name}: pip install 'monge[clouds]'"
        ) from None


def _xyz(content: bytes) -> Shape:
    """A row a point: x y z, and what else there is."""
    rows = [line.split() for line in content.decode("ascii", "replace").splitlines()]
    rows = [row[:3] for row in rows if row and not row[0].startswith("#")]
    return Shape(_floats(rows))


def _floats(rows: Sequence[Sequence[str]]) -> np.ndarray:
    """Rows of three numbers as coordinates (n, 3)."""
    if any(len(row) != 3 for row in rows):
        raise ValueError("a row has fewer than three numbers")
    if any("_" in word for row in rows for word in row):
        raise ValueError("a coordinate has an underscore, which is no digit")
    return np.array(rows, dtype=float).reshape(-1, 3)


def _array(content: bytes) -> Shape:
    """One cloud (N, 3), or (N, 6) with normals or colours, in a .npy or .npz file."""
    found = np.load(io.BytesIO(content), allow_pickle=False)
    if not isinstance(found, np.ndarray):
        key = next((key for key in ("points", "x") if key in found.files), None)
        if key is None and len(found.files) != 1:
            raise ValueError(f"of the keys {sorted(found.files)} none is points or x")
        found = found[key or found.files[0]]
    if found.ndim != 2 or found.shape[1] not in (3, 6) or found.dtype.kind not in "iuf":
        raise ValueError(
            f"an array of {found.dtype} of shape {found.shape}: in a folder each file is one "
            "cloud (N, 3)"
        )
    return Shape(found[:, :3])


def _ply(content: bytes) -> Shape:
    """The vertices of a .ply file, ascii or binary, and its faces if it has any; other properties
    are left out."""
    plyfile = _package("plyfile", ".ply")
    header = re.split(rb"[\r\n]end_header", content, maxsplit=1)[0]
    counts = re.findall(rb"[\r\n]element[ \t]+\w+[ \t]+(\d+)", header)
    if any(int(count) > len(content) for count in counts):
        raise ValueError("its header promises more elements than it can hold")
    if re.search(rb"[\r\n]format[ \t]+ascii", header):
        lines = [line for line in content.splitlines() if line.strip()]
        content = b"\n".join([*lines, b""])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, of elements without rows
            read = plyfile.PlyData.read(io.BytesIO(content), mmap=False)
    except plyfile.PlyParseError as error:
        raise ValueError(str(error)) from None
    elements = {element.name: element for element in read.elements}
    vertices = elements.get("vertex")
    names = () if vertices is None else vertices.data.dtype.names or ()
    if vertices is None or not {"x", "y", "z"} <= set(names):
        raise ValueError("its header names no vertices x, y, z")
    if "tristrips" in elements:
        raise ValueError("its faces are strips of triangles: convert them to faces")
    points = np.stack([finite_points(vertices.data[axis]) for axis in "xyz"], 1)
    lists = [] if "face" not in elements else elements["face"].properties
    name = next((p.name for p in lists if p.name in ("vertex_indices", "vertex_index")), None)
    return Shape(
        points, None if name is None else triangulated(elements["face"].data[name], points)
    )


def _obj(content: bytes) -> Shape:
    """The vertices and faces of an .obj file; several objects are one."""
    text = content.decode("utf-8", "replace").replace("\\\r\n", " ").replace("\\\n", " ")
    rows: list[list[str]] = []
    polygons: list[list[int]] = []
    for line in text.splitlines():
        kind, *words = line.partition("#")[0].split() or [""]
        if kind == "v":
            rows.append(words[:3])
        elif kind == "f":
            corners = [int(word.partition("/")[0]) for word in words]
            if 0 in corners:
                raise ValueError("a face names vertex 0, and the first is 1")
            # negative ones count back from the last vertex so far
            polygons.append([i - 1 if i > 0 else len(rows) + i for i in corners])
    if not rows:
        raise ValueError("no readable .obj file: it holds no vertices x, y, z")
    points = finite_points(_floats(rows))
    return Shape(points, triangulated(polygons, points) if polygons else None)


def _stl(content: bytes) -> Shape:
    """The triangles of an .stl file, ascii or binary; several objects are one."""
    trimesh = _package("trimesh", ".stl")
    try:
        read = trimesh.load(io.BytesIO(content), file_type="stl", process=False)
        if isinstance(read, trimesh.Scene):
            read = read.to_geometry()
        points, triangles = np.asarray(read.vertices), np.asarray(read.faces)
    except Exception as error:  # whatever the library meets in a damaged file
        raise ValueError(f"no readable .stl file ({type(error).__name__}: {error})") from None
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise ValueError("no readable .stl file: it holds no vertices x, y, z")
    return Shape(points, triangulated(triangles, points))


def _off(content: bytes) -> Shape:
    """The mesh of an .off file, with normals and colours (COFF, NOFF, …) or without."""
    text = re.sub(r"#.*", "", content.decode("ascii", "replace")).strip()
    # the word itself may be left out before the three counts
    head = re.match(r"(ST)?C?N?OFF(?![A-Za-z])(\s*BINARY)?|(?=\d+[ \t]+\d+[ \t]+\d+\s)", text)
    if not head or head[2]:
        raise ValueError("it does not begin with OFF, COFF or NOFF, or is binary")
    lines = [line.split() for line in text[head.end() :].strip().splitlines() if line.strip()]
    vertices, faces = int(lines[0][0]), int(lines[0][1])
    rows = lines[1 : 1 + vertices + faces]
    if vertices < 1 or faces < 0 or len(rows) < vertices + faces:
        raise ValueError(f"it has {len(rows)} of {vertices} vertices and {faces} faces")
    points = finite_points(_floats([row[:3] for row in rows[:vertices]]))
    if any(len(row) < 1 + int(row[0]) for row in rows[vertices:]):
        raise ValueError("a face has fewer corners than it promises")
    polygons = [[int(word) for word in row[1 : 1 + int(row[0])]] for row in rows[vertices:]]
    return Shape(points, triangulated(polygons, points) if faces else None)


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


READERS: dict[str, Callable[[bytes], Shape]] = {
    ".ply": _ply,
    ".xyz": _xyz,
    ".off": _off,
    ".obj": _obj,
    ".stl": _stl,
    ".npy": _array,
    ".npz": _array,
}
