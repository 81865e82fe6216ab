"""Clouds and meshes in the files of other programs: every format gives the same surface."""

import struct
import sys

import numpy as np
import pytest

from monge.config import DataConfig
from monge.data import CLOUD, load
from monge.data.points import in_unit_sphere
from monge.data.readers import clouds

pytest.importorskip("plyfile")
pytest.importorskip("trimesh")

# two unit squares far apart: one of 2 triangles, the other cut into 200
FINE = 10
GRID = [(5 + i / FINE, j / FINE, 0.0) for i in range(FINE + 1) for j in range(FINE + 1)]
POINTS = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), *GRID]
QUADS = [[0, 1, 2, 3]] + [
    [4 + i * (FINE + 1) + j + step for step in (0, FINE + 1, FINE + 2, 1)]
    for i in range(FINE)
    for j in range(FINE)
]
TRIANGLES = [[q[0], a, b] for q in QUADS for a, b in ((q[1], q[2]), (q[2], q[3]))]


def ply(form: str, faces: list, lists: bool = False, before: bool = False) -> bytes:
    """A mesh; with `lists` a list of unlike lengths and a colour after x y z, with `before` an
    element of lists before the vertices."""
    head = f"ply\nformat {form} 1.0\ncomment a mesh\n"
    head += "element strip 2\nproperty list uchar short v\n" if before else ""
    head += f"element vertex {len(POINTS)}\nproperty float x\nproperty double y\n"
    head += "property float z\n"
    head += "property list uchar int near\nproperty uchar red\n" if lists else ""
    head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\n" if faces else ""
    head += "end_header\n"
    near = [list(range(i % 3)) for i in range(len(POINTS))]
    if form == "ascii":
        rows = ["2 1 2", "0"] if before else []
        for point, few in zip(POINTS, near):
            more = f" {len(few)} {' '.join(map(str, few))} 7" if lists else ""
            rows.append("{} {} {}".format(*point) + more)
        rows += [f"{len(f)} {' '.join(map(str, f))}" for f in faces]
        return (head + "\n".join(rows) + "\n").encode()
    order = "<" if "little" in form else ">"
    body = struct.pack(order + "BhhB", 2, 1, 2, 0) if before else b""
    for point, few in zip(POINTS, near):
        body += struct.pack(order + "fdf", *point)
        body += struct.pack(f"{order}B{len(few)}iB", len(few), *few, 7) if lists else b""
    for f in faces:
        body += struct.pack(f"{order}B{len(f)}i", len(f), *f)
    return head.encode() + body


def off(word: str, more: str) -> bytes:
    rows = [" ".join(map(str, point)) + more for point in POINTS]
    rows += [f"{len(q)} {' '.join(map(str, q))}" for q in QUADS[:5]]
    rows += [f"3 {' '.join(map(str, t))} 255 0 0" for t in TRIANGLES[10:]]  # unlike polygons
    return f"{word}\n# a mesh\n{len(POINTS)} {len(rows) - len(POINTS)} 0\n".encode() + (
        "\n".join(rows).encode()
    )


def obj(objects: bool = False) -> bytes:
    rows = ["mtllib absent.mtl"] + ["v {} {} {}".format(*point) for point in POINTS]
    rows += ["vt 0 0", "vn 0 0 1", "usemtl absent"]
    for k, q in enumerate(QUADS):
        rows += [f"o part{k}", f"usemtl m{k}"] if objects and k < 2 else []
        rows.append("f " + " ".join(f"{i + 1}/1/1" for i in q))
    return ("\n".join(rows) + "\n").encode()


def stl(text: bool) -> bytes:
    corners = [[POINTS[i] for i in t] for t in TRIANGLES]
    if text:
        facets = "".join(
            "facet normal 0 0 1\nouter loop\n"
            + "".join("vertex {} {} {}\n".format(*point) for point in three)
            + "endloop\nendfacet\n"
            for three in corners
        )
        return f"solid a\n{facets}endsolid a\n".encode()
    body = b"".join(
        struct.pack("<12fH", 0, 0, 1, *[v for point in three for v in point], 0)
        for three in corners
    )
    return bytes(80) + struct.pack("<I", len(corners)) + body


FORMS = ("ascii", "binary_little_endian", "binary_big_endian")
MESHES = {
    **{f"ply {form}": (ply(form, TRIANGLES), ".ply") for form in FORMS},
    **{f"ply {form}, quads": (ply(form, QUADS), ".ply") for form in FORMS},
    **{f"ply {form}, lists": (ply(form, QUADS, True, True), ".ply") for form in FORMS},
    "OFF": (off("OFF", ""), ".off"),
    "COFF": (off("COFF", " 255 0 0 255"), ".off"),
    "NOFF": (off("NOFF", " 0 0 1"), ".off"),
    "CNOFF": (off("CNOFF", " 0 0 1 1 0 0 1"), ".off"),
    "obj": (obj(), ".obj"),
    "obj of several objects": (obj(True), ".obj"),
    "stl": (stl(False), ".stl"),
    "stl ascii": (stl(True), ".stl"),
}


@pytest.mark.parametrize("name", MESHES)
def test_meshes_of_every_format_are_sampled_by_area(name):
    """Half of the points lie on each square, uniformly, however finely it is cut."""
    content, suffix = MESHES[name]
    count = 8000
    found = clouds.decode(content, suffix, count, "mesh").astype(float)
    # both squares in one plane: back to their own units by the distance of their means
    coarse = found[:, 0] < 0
    share = coarse.mean()
    assert share == pytest.approx(0.5, abs=4 * (0.25 / count) ** 0.5)
    scale = 5 / (found[~coarse, 0].mean() - found[coarse, 0].mean())
    for square in (found[coarse, :2], found[~coarse, :2]):
        np.testing.assert_allclose(square.var(0) * scale**2, 1 / 12, rtol=0.06)
    assert np.abs(found[:, 2]).max() < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_vertices_without_faces_are_a_cloud_whatever_stands_beside_them(form):
    found = clouds.decode(ply(form, [], True, True), ".ply", len(POINTS), "cloud")
    expected = in_unit_sphere(np.array(POINTS))
    np.testing.assert_allclose(
        np.sort(found.round(4), 0), np.sort(expected.round(4), 0), atol=2e-4
    )


def test_a_wrong_suffix_does_no_harm():
    one = clouds.decode(MESHES["ply ascii"][0], ".off", 50, "mesh")
    np.testing.assert_array_equal(one, clouds.decode(MESHES["ply ascii"][0], ".ply", 50, "mesh"))


@pytest.mark.parametrize(
    ("content", "suffix", "reason"),
    [
        (ply("ascii", [[0, 1, 999]]), ".ply", "name vertices that it does not have"),
        (ply("ascii", [[0, 1, -1]]), ".ply", "name vertices that it does not have"),
        (ply("ascii", [[0, 1, 1]]), ".ply", "faces have no area"),
        (ply("ascii", [[0, 1]]), ".ply", "faces have no area"),
        (ply("ascii", QUADS).replace(b"element face", b"element tristrips"), ".ply", "strips"),
        (ply("ascii", []).replace(b"vertex 125", b"vertex 9999999999"), ".ply", "promises more"),
        (ply("binary_little_endian", TRIANGLES)[:-3], ".ply", "early end-of-file"),
        (stl(False)[:-7], ".stl", "no readable .stl"),
        (obj().replace(b"f 1/", b"f 999/"), ".obj", "no readable .obj|does not have"),
        (b"v 0 0\nv 1 0\nv 1 1\nf 1 2 3\n", ".obj", "fewer than three numbers"),
        (b"hello", ".obj", "no readable .obj"),
        (b"OFF BINARY\n\0\0\0\4", ".off", "or is binary"),
        (off("4OFF", " 1"), ".off", "does not begin with OFF"),
    ],
)
def test_damaged_meshes_are_one_line(content, suffix, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        clouds.decode(content, suffix, 50, "mesh")
    assert "\n" not in str(caught.value)


def test_a_long_header_takes_no_time():
    """Forty thousand blank lines in it took a minute."""
    for form in ("ascii", "binary_little_endian"):
        content = f"ply\nformat {form} 1.0".encode() + b"\n" * 40_000
        with pytest.raises(ValueError, match=r"line \d: (early end-of-file|expected one of)"):
            clouds.decode(content, ".ply", 8, "x")


def test_blank_lines_in_a_ply_file_are_no_vertices():
    content = ply("ascii", QUADS)
    spaced = content.replace(b"\n", b"\n \n\n")
    for one, other in zip(clouds.READERS[".ply"](spaced), clouds.READERS[".ply"](content)):
        np.testing.assert_array_equal(one, other)


def test_folders_of_arrays_are_clouds(tmp_path):
    """One a file, of any number of points, with normals or without."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 2)):
        for kind in ("chair", "table"):
            folder = tmp_path / part / kind
            folder.mkdir(parents=True)
            for i in range(count):
                x = rng.normal(size=(30 + i, 6 if i % 2 else 3))
                np.save(folder / f"{i}.npy", x)
                np.savez(folder / f"{i}.npz", points=x)
    (tmp_path / ".hidden.npy").write_bytes(b"x")
    source = load(DataConfig(str(tmp_path), points=20))
    assert (source.kind, source.shape) == (CLOUD, (20, 3))
    assert (len(source.train), len(source.test)) == (16, 8)
    assert source.classes == ("chair", "table")
    assert source.summary == "read 24 clouds of 2 classes; left out 1 hidden"
    np.save(tmp_path / "train" / "chair" / "0.npy", rng.normal(size=(5, 30, 3)))
    with pytest.raises(ValueError, match=r"shape \(5, 30, 3\): in a folder each file is one"):
        load(DataConfig(str(tmp_path), points=20))


def test_one_array_in_a_folder_is_given_by_itself(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((9, 30, 3)))
    with pytest.raises(ValueError, match=r"one file of clouds, 'x\.npy': give that file"):
        load(DataConfig(str(tmp_path)))


def test_meshes_of_all_formats_in_one_folder(tmp_path):
    for i, (content, suffix) in enumerate(MESHES.values()):
        (tmp_path / f"{i:02}{suffix.upper() if i % 2 else suffix}").write_bytes(content)
    (tmp_path / "texture.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "absent.mtl").write_bytes(b"newmtl a\n")
    with pytest.warns(UserWarning, match=r"left out 1 of another kind \(images\): texture\.jpg"):
        source = load(DataConfig(str(tmp_path), points=60))
    both = np.concatenate([source.train.numpy(), source.test.numpy()])
    assert both.shape == (len(MESHES), 60, 3)
    assert ((both[..., 0] < 0).mean(1) > 0.2).all()
    assert ((both[..., 0] < 0).mean(1) < 0.8).all()


@pytest.mark.parametrize(("suffix", "name"), [(".ply", "plyfile"), (".stl", "trimesh")])
def test_without_the_extra_the_way_to_it_is_named(tmp_path, monkeypatch, suffix, name):
    content = next(content for content, other in MESHES.values() if other == suffix)
    for i in range(4):
        (tmp_path / f"{i}{suffix}").write_bytes(content)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"{name}: pip install 'monge\[clouds\]'") as caught:
        load(DataConfig(str(tmp_path), points=20))
    assert "\n" not in str(caught.value)
