"""Point clouds in files, centred and in the unit sphere; meshes are sampled by area.

plyfile reads .ply and trimesh .stl, both of the extra `clouds`; .off, .obj, .xyz and arrays are
read here. (trimesh cuts the polygons of .obj into fans, which leave concave ones.)
"""

import codecs
import importlib
import io
import itertools
import re
import warnings
import zipfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from monge._core.errors import silence
from monge._core.files import DAMAGED
from monge._core.untrusted import read_regular
from monge._core.visible import brief
from monge.config import DataConfig
from monge.data.identity import digest
from monge.data.kinds import CLOUD
from monge.data.points import finite_points, in_unit_sphere
from monge.data.readers.caps import MOST_BYTES
from monge.data.readers.discovery import HEAD, Found, kind_of_file
from monge.data.readers.images import MOST_FAILURES
from monge.data.readers.layout import laid_out, parts_and_labels
from monge.data.readers.numpy_files import array_in, array_of
from monge.data.readers.polygons import cut, triangulated
from monge.data.source import Source, split
from monge.draws import seed_of

POINTS = 2048
OFF_HEAD = rb"\s*(ST)?C?N?OFF(?![A-Za-z])(\s*BINARY)?|\s*(?=\d+[ \t]+\d+[ \t]+\d+\s)"
MOST_HEADER, MOST_LINES = 2**20, 1000
"""Bytes of the header of a .ply file, and lines of it that are not comments."""


class Shape(NamedTuple):
    """The content of a file: points, and the triangles between them if it is a mesh."""

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
            content = read_regular(path / name, MOST_BYTES)
            clouds.append(decode(content, PurePosixPath(name).suffix.lower(), config.points, name))
            contents.append(digest(content))
            names.append(name)
        except MissingPackage as error:
            raise ValueError(f"`data` {found.where!r}: {error}") from None
        except (ValueError, OSError) as error:
            bad.append(f"{brief(name)} ({brief(str(error), 200)})")
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

    The draws depend only on the content.

    Args:
        suffix: the format, unless the file begins with what another one does.

    Raises:
        ValueError: for a damaged file, or one of fewer points; `MissingPackage` without the
            package that the format needs.
    """
    count, generator = points or POINTS, np.random.default_rng(seed_of("clouds", digest(content)))
    content = content.removeprefix(codecs.BOM_UTF8)  # which editors write before a text
    kind, stands_for = kind_of_file(name, content[:HEAD])
    if kind in ("clouds", "arrays"):
        suffix = stands_for or suffix
    try:
        found, triangles = READERS[suffix](content)
        found = finite_points(found)
    except MissingPackage:
        raise
    except DAMAGED as error:
        reason = brief(str(error), 200) or type(error).__name__
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
    numbers = array("d")
    for line in _lines(content):
        words = line.split()
        if words and not words[0].startswith("#"):
            numbers.extend(_coordinates(words))
    return Shape(np.array(numbers).reshape(-1, 3))


def _lines(content: bytes, start: int = 0) -> Iterator[str]:
    """The lines of a text from a byte on, one at a time: together they take several times its
    memory."""
    file = io.BytesIO(content)
    file.seek(start)
    return iter(io.TextIOWrapper(file, encoding="utf-8", errors="replace"))


def _coordinates(words: Sequence[str]) -> list[float]:
    """The first three words as numbers."""
    if len(words) < 3:
        raise ValueError("a row has fewer than three numbers separated by blanks")
    if any("_" in word for word in words[:3]):
        raise ValueError("a coordinate has an underscore, which is not a digit")
    return [float(word) for word in words[:3]]


def _array(content: bytes) -> Shape:
    """One cloud (N, 3), or (N, 6) with normals or colours, in a .npy or .npz file."""
    file = io.BytesIO(content)
    if content.startswith(b"PK"):
        with zipfile.ZipFile(file) as archive:
            members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
            key = next((key for key in ("points", "x") if key in members), None)
            if key is None and len(members) != 1:
                raise ValueError(f"of the keys {sorted(members)[:20]} none is points or x")
            found = array_of(archive, members[key] if key else next(iter(members.values())))
    else:
        found = array_in(file, len(content))
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
    content = _tidy_ply(content)
    try:
        with silence:  # of NumPy, about elements without rows
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


def _tidy_ply(content: bytes) -> bytes:
    """A .ply file without comments in its header, and without blank lines if it is a text.

    Raises:
        ValueError: for a header without end, of too many lines, or that promises more than the
            file can hold.
    """
    start = re.match(rb"ply[ \t]*(\r\n|\r|\n)", content)
    if start is None:
        raise ValueError("line 1: expected 'ply'")
    newline = start[1]
    pattern = rb"%b[ \t]*end_header[ \t]*%b" % (newline, newline)
    end = re.search(pattern, content[:MOST_HEADER])
    if end is None and len(content) > MOST_HEADER:
        raise ValueError(f"its header does not end within {MOST_HEADER:,} bytes")
    header = content if end is None else content[: end.start()]
    lines = [line for line in header.splitlines() if line.strip()]
    lines = [line for line in lines if line.split()[0] not in (b"comment", b"obj_info")]
    if len(lines) > MOST_LINES:
        raise ValueError(f"its header has {len(lines):,} lines, over the cap of {MOST_LINES:,}")
    if end is None:
        return b"\n".join([*lines, b""])  # plyfile says what is missing
    body, promised, count = content[end.end() :], 0, 0
    for word, *rest in map(bytes.split, lines):
        if word == b"element":
            count = int(rest[1]) if len(rest) > 1 and rest[1].isdigit() else 0
            promised += count  # also of one without properties, whose rows take no bytes
        promised += count * (word == b"property")
    if promised > 2 * len(body):
        raise ValueError("its header promises more elements than it can hold")
    if any(line.split()[:2] == [b"format", b"ascii"] for line in lines):
        body = b"\n".join([line for line in body.splitlines() if line.strip()] + [b""])
    # one newline ends a line of the header, whichever the file has
    return b"\n".join([*lines, b"end_header", body])


def _obj(content: bytes) -> Shape:
    """The vertices and faces of an .obj file; several objects are one."""
    numbers, corners, lengths = array("d"), array("q"), array("q")
    content = content.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    for line in _lines(content):
        kind, *words = line.partition("#")[0].split() or [""]
        if kind == "v":
            numbers.extend(_coordinates(words))
        elif kind == "f":
            face = [int(word.partition("/")[0]) for word in words]
            if 0 in face:
                raise ValueError("a face names vertex 0, and the first is 1")
            # negative ones count back from the last vertex so far
            count = len(numbers) // 3
            corners.extend(i - 1 if i > 0 else count + i for i in face)
            lengths.append(len(face))
    if not numbers:
        raise ValueError("no readable .obj file: it holds no vertices x, y, z")
    points = finite_points(np.array(numbers).reshape(-1, 3))
    if not lengths:
        return Shape(points)
    return Shape(points, cut(np.array(corners), np.array(lengths), points))


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
    if b"#" in content:
        content = re.sub(rb"#[^\n]*", b"", content)
    # the word itself may be left out before the three counts
    head = re.match(OFF_HEAD, content)
    if not head or head[2]:
        raise ValueError("it does not begin with OFF, COFF or NOFF, or is binary")
    lines = filter(str.strip, _lines(content, head.end()))
    counts = next(lines, "").split()
    vertices, faces = int(counts[0]), int(counts[1])
    if vertices < 1 or faces < 0:
        raise ValueError(f"it has {vertices} vertices and {faces} faces")
    numbers, corners, lengths = array("d"), array("q"), array("q")
    for i, line in enumerate(itertools.islice(lines, vertices + faces)):
        words = line.split()
        if i < vertices:
            numbers.extend(_coordinates(words))
            continue
        count = max(0, int(words[0]))
        if len(words) < 1 + count:
            raise ValueError("a face has fewer corners than it promises")
        corners.extend(map(int, words[1 : 1 + count]))
        lengths.append(count)
    if (held := len(numbers) // 3 + len(lengths)) < vertices + faces:
        raise ValueError(f"it has {held} of {vertices} vertices and {faces} faces")
    points = finite_points(np.array(numbers).reshape(-1, 3))
    if not faces:
        return Shape(points)
    return Shape(points, cut(np.array(corners), np.array(lengths), points))


def _sampled(
    points: np.ndarray, triangles: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Uniform draws from a surface (count, 3): Osada et al., "Shape distributions", 2002."""
    area = np.empty(len(triangles))
    for start in range(0, len(triangles), 2**16):  # of some at a time: it makes several copies
        a, b, c = points[triangles[start : start + 2**16]].swapaxes(0, 1)
        area[start : start + 2**16] = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not (np.isfinite(area).all() and area.sum() > 0):
        raise ValueError("its faces have no area")
    chosen = generator.choice(len(area), count, p=area / area.sum())
    u, v = generator.random((2, count, 1))
    root = np.sqrt(u)
    a, b, c = points[triangles[chosen]].swapaxes(0, 1)
    return (1 - root) * a + root * (1 - v) * b + root * v * c


READERS: dict[str, Callable[[bytes], Shape]] = {
    ".ply": _ply,
    ".xyz": _xyz,
    ".off": _off,
    ".obj": _obj,
    ".stl": _stl,
    ".npy": _array,
    ".npz": _array,
}
