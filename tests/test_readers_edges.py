"""Files at the edge of what readers take: read right, or said in words, and never in silence."""

import gzip
import io
import os
import struct
import tarfile
import unicodedata
import warnings
import zipfile

import numpy as np
import pytest
from folders import filled, levels, loaded, picture
from PIL import Image

from monge.cli import parse
from monge.data import CLOUD, IMAGE
from monge.data.readers import clouds, idx
from monge.data.readers.arrays import from_array, read
from monge.data.readers.polygons import triangulated
from monge.data.resolution import unresolved


def of_folders(*places: str, count: int = 4) -> dict[str, int]:
    """`count` images in each of some folders, of levels that tell the folders apart."""
    return {f"{p}/{i}.png": 20 * k + i for k, p in enumerate(places) for i in range(count)}


# Folders


def test_a_ring_of_links_takes_nothing_else_with_it(tmp_path):
    filled(tmp_path, of_folders("a", "z"))
    (tmp_path / "z" / "loop").mkdir()
    (tmp_path / "z" / "loop" / "self").symlink_to("self")
    (tmp_path / "a" / "00.png").symlink_to("y")
    (tmp_path / "a" / "y").symlink_to("00.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / ".#lock").symlink_to("user@host")  # as Emacs leaves them
    with pytest.warns(UserWarning, match="left out") as seen:
        source = loaded(tmp_path)
    assert levels(source) == [0, 1, 2, 3, 20, 21, 22, 23]
    assert "3 broken links: a/00.png, a/y, z/loop/self" in str(seen[0].message)
    assert "1 neither files nor folders: a/pipe.png" in str(seen[0].message)
    assert source.summary.endswith("1 hidden")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("places", "stray"),
    [
        (("cats", "dogs"), "preview.png"),
        (("all/cats", "all/dogs"), "preview.png"),
        (("all/cats", "all/dogs"), "all/preview.png"),
        (("train/cats", "train/dogs", "test/cats", "test/dogs"), "train/overview.png"),
    ],
)
def test_an_image_beside_classes_costs_no_labels(tmp_path, places, stray, cached, zipped):
    folder = filled(tmp_path / "x", of_folders(*places) | {stray: 200})
    if zipped:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for path in folder.rglob("*.png"):
                archive.write(path, path.relative_to(folder))
        folder = tmp_path / "x.zip"
    settings = {"cache": str(tmp_path / "cache")} if cached else {}
    with pytest.warns(UserWarning, match=f"left out 1 beside the folders of classes: {stray}"):
        source = loaded(folder, **settings)
    assert source.classes == ("cats", "dogs")
    assert 200 not in levels(source)
    assert source.summary.endswith("left out 1 beside the folders of classes")


def test_a_cloud_beside_classes_costs_no_labels(tmp_path):
    rng = np.random.default_rng(0)
    for name in (*of_folders("a", "b"), "preview.png"):
        path = (tmp_path / name).with_suffix(".npy")
        path.parent.mkdir(exist_ok=True)
        np.save(path, rng.normal(size=(20, 3)))
    with pytest.warns(UserWarning, match=r"1 beside the folders of classes: preview\.npy"):
        assert loaded(tmp_path, points=20).classes == ("a", "b")


def test_many_images_beside_classes_are_refused(tmp_path):
    filled(tmp_path, of_folders("cats", "dogs") | {f"{i}.png": i for i in range(6)})
    with pytest.raises(ValueError, match="6 files beside the folders 'cats', 'dogs', which would"):
        loaded(tmp_path)
    few = filled(tmp_path / "few", {"a/0.png": 0, "b/0.png": 1, "0.png": 2, "1.png": 3})
    with pytest.raises(ValueError, match="2 files beside"):  # half of all
        loaded(few)


def test_folders_that_are_no_classes_may_have_files_beside_them(tmp_path):
    source = loaded(filled(tmp_path, {"0.png": 0, "1.png": 1, "more/2.png": 2, "more/3.png": 3}))
    assert levels(source) == [0, 1, 2, 3]
    assert source.classes == ()


def test_more_classes_than_are_read_are_said(tmp_path):
    filled(tmp_path, {f"{i:04}/0.png": i % 256 for i in range(1001)})
    with pytest.warns(UserWarning, match="labels of 1,001 classes are not read: 1,000 are the mo"):
        source = loaded(tmp_path)
    assert source.classes == ()
    assert "labels of 1,001 classes are not read" in source.summary


@pytest.mark.parametrize("other", ["dev", "Eval", "holdout"])
def test_parts_have_more_synonyms(tmp_path, other):
    source = loaded(filled(tmp_path, of_folders("train", other)))
    assert (levels(source), source.test[:, 0, 0, 0].tolist()) == (
        [0, 1, 2, 3, 20, 21, 22, 23],
        [20, 21, 22, 23],
    )
    assert source.classes == ()


@pytest.mark.parametrize(
    ("places", "beside"),
    [
        (("train", "query"), "'train' beside 'query'"),
        (("a/train", "a/query", "b/train", "b/query"), "'train' beside 'query'"),
        (("train/a", "train/b", "query/a", "gallery/b"), "'train' beside 'gallery', 'query'"),
    ],
)
def test_a_training_part_without_another_is_warned_of(tmp_path, places, beside):
    filled(tmp_path, of_folders(*places))
    with pytest.warns(UserWarning, match=f"the folder {beside} is not a training part"):
        loaded(tmp_path)


@pytest.mark.parametrize("places", [("test",), ("all/Test/a", "all/Test/b"), ("val",)])
def test_a_test_part_without_another_is_warned_of(tmp_path, places):
    """Its samples are trained on, unless the folder itself is what was given."""
    filled(tmp_path, of_folders(*places))
    with pytest.warns(UserWarning, match="in the folder '(test|Test|val)', which is no test par"):
        source = loaded(tmp_path)
    assert "which is no test part without a training part" in source.summary
    assert "test part" not in loaded(tmp_path / places[0]).summary


def test_keys_of_an_archive_that_are_not_read_are_said(tmp_path):
    x = np.arange(60.0).reshape(30, 2)
    beside = {"label": np.arange(30) % 3, "y": x}
    np.savez(tmp_path / "x.npz", x=x, **beside)
    with pytest.warns(UserWarning, match="left out the keys 'label', 'y': beside 'x' only"):
        source = loaded(tmp_path / "x.npz")
    assert source.summary.startswith("read 30 vectors; left out the keys 'label', 'y'")
    np.savez(tmp_path / "x.npz", x=x, labels=[0, 1] * 15, **beside)
    source = loaded(tmp_path / "x.npz")  # quietly: they are not its labels
    assert source.classes == ("0", "1")
    assert source.summary.startswith("read 30 vectors; left out the keys 'label', 'y'")


def test_a_distance_says_which_keys_it_leaves_out(tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 3))
    np.savez(tmp_path / "a.npz", x=x, points=x + 1)
    np.save(tmp_path / "b.npy", x)
    with pytest.warns(UserWarning, match=r"a\.npz': left out the keys 'x': beside 'points' only"):
        parse(["distance", str(tmp_path / "a.npz"), str(tmp_path / "b.npy")]).run()


def test_several_arrays_in_one_file_are_refused(tmp_path):
    """Of which the first one was taken for all."""
    x = np.random.default_rng(0).normal(size=(6, 3))
    with (tmp_path / "two.npy").open("wb") as file:
        np.save(file, x)
        np.save(file, x + 1)
    with pytest.raises(ValueError, match=r"two\.npy' .*272 bytes follow its array \(6, 3\)"):
        loaded(tmp_path / "two.npy")


def test_samples_that_are_all_the_same_are_said(tmp_path):
    source = loaded(filled(tmp_path, {f"{i}.png": 0 for i in range(9)}))
    assert source.summary == "read 9 images; all 9 samples are the same"


@pytest.mark.parametrize("places", [("trainA", "testA"), ("TrainSet", "DevSet")])
def test_parts_of_several_words_are_refused(tmp_path, places):
    filled(tmp_path, of_folders(*places))
    with pytest.raises(ValueError, match="which look like a training and a test part"):
        loaded(tmp_path)


def test_accents_in_either_form_are_one_class(tmp_path):
    """macOS writes é as e and an accent."""
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    places = (f"train/{one}", "train/thé", f"test/{other}", "test/thé")
    source = loaded(filled(tmp_path, of_folders(*places)))
    assert source.classes == (one, "thé")
    assert source.summary == "read 16 images of 2 classes"
    assert from_array(np.arange(8.0), [one, other] * 4).classes == (one,)


def test_images_called_texts_are_read_where_they_are_few(tmp_path):
    source = loaded(
        filled(tmp_path, {f"{i}.txt": i for i in range(5)} | {"5.log": 5, "a.txt": b"a"})
    )
    assert levels(source) == [0, 1, 2, 3, 4, 5]


# Archives


def test_links_in_a_tar_archive_are_followed(tmp_path):
    def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        return info

    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for i in range(4):
            info = member(f"a/{i}.png", tarfile.REGTYPE)
            info.size = len(picture(i))
            archive.addfile(info, io.BytesIO(picture(i)))
        archive.addfile(member("b/4.png", tarfile.LNKTYPE, "a/0.png"))
        archive.addfile(member("b/5.png", tarfile.SYMTYPE, "6.png"))  # to one behind it
        archive.addfile(member("b/6.png", tarfile.SYMTYPE, "../a/1.png"))
        archive.addfile(member("b/7.png", tarfile.SYMTYPE, "8.png"))  # a ring
        archive.addfile(member("b/8.png", tarfile.SYMTYPE, "7.png"))
        archive.addfile(member("b/pipe", tarfile.FIFOTYPE))
    with pytest.warns(UserWarning, match="left out") as seen:
        source = loaded(tmp_path / "x.tar")
    assert levels(source) == [0, 0, 1, 1, 1, 2, 3]
    said = str(seen[0].message)
    assert "1 members that are not plain files: x.tar/b/pipe" in said
    assert "2 links to no file: x.tar/b/7.png, x.tar/b/8.png" in said


def test_a_link_that_tar_makes_by_itself_is_read(tmp_path):
    filled(tmp_path, {f"{i}.png": i for i in range(4)})
    os.link(tmp_path / "0.png", tmp_path / "9.png")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in sorted(os.listdir(tmp_path)):
            if name.endswith(".png"):
                archive.add(tmp_path / name, name)
        assert archive.getmember("9.png").islnk()
    assert levels(loaded(tmp_path / "x.tar")) == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("harm", ["version", "name"])
def test_a_zip_archive_that_python_cannot_read_is_one_line(tmp_path, harm):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(4):
            archive.writestr(f"{i}é.png", picture(i))
    content = bytearray((tmp_path / "x.zip").read_bytes())
    central = content.index(b"PK\1\2")
    if harm == "version":  # that is needed to extract the file
        content[central + 6] = 99
    else:
        content[central + 46] = 0xFF  # no UTF-8, though it is flagged as such
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ValueError, match="not a readable zip archive") as caught:
        loaded(tmp_path / "x.zip")
    assert "\n" not in str(caught.value)


# Arrays


@pytest.mark.parametrize(
    ("labels", "names", "reason"),
    [
        ([0, 1, -1], ["a", "b", "c"], "run from -1 to 1, but there are 3 class_names"),
        ([0, 1, 3], ["a", "b", "c"], "run from 0 to 3"),
        ([0, 1, 2], ["a", "a", "b"], "distinct names"),
        ([0.0, 1.0, 1.0], ["a", "b"], "labels are float64: integers"),
        ([False, True, True], ["a", "b"], "labels are bool: integers"),
    ],
)
def test_labels_that_choose_no_class_name_are_refused(tmp_path, labels, names, reason):
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 2)), labels=labels * 3, class_names=names)
    with pytest.raises(ValueError, match=reason):
        loaded(tmp_path / "x.npz")


def test_texts_in_bytes_are_decoded(tmp_path):
    x = np.arange(20.0).reshape(10, 2)
    split = np.array([b"train"] * 6 + [b"test"] * 4)
    names = np.array(["café".encode(), b"dog"])
    np.savez(tmp_path / "x.npz", x=x, labels=np.array([b"cat", b"dog"] * 5), split=split)
    np.savez(tmp_path / "y.npz", x=x, labels=[0, 1] * 5, class_names=names, split=split)
    one, other = loaded(tmp_path / "x.npz"), loaded(tmp_path / "y.npz")
    assert (one.classes, other.classes) == (("cat", "dog"), ("café", "dog"))
    assert one.test.tolist() == other.test.tolist() == x[6:].tolist()


def test_samples_of_other_parts_are_counted(tmp_path):
    split = ["train"] * 16 + ["test"] * 4 + ["val"] * 7 + ["extra"] * 3
    np.savez(tmp_path / "x.npz", x=np.arange(60.0).reshape(30, 2), split=split)
    source = loaded(tmp_path / "x.npz")
    assert (len(source.train), len(source.test)) == (16, 4)
    assert source.summary == (
        "read 20 vectors; left out 7 of the validation part, 3 of the part 'extra'"
    )


@pytest.mark.parametrize(("most", "way"), [(1, "booleans"), (16, "floats in")])
def test_arrays_of_dark_images_are_warned_of(tmp_path, most, way):
    x = np.random.default_rng(0).integers(0, most + 1, (20, 8, 8), np.uint8)
    with pytest.warns(UserWarning, match=f"bytes from 0 to {most}, .* or give {way}"):
        from_array(x)
    assert from_array(x / most).train.max() == 1
    assert from_array(x > 0).train.max() == 1
    assert from_array(x * np.uint8(255 // most)).train.max() > 200


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("most", "values"), [(1, "0 and 1"), (9, "values of 0 to 9")])
def test_files_of_masks_are_warned_of(tmp_path, cached, most, values):
    (tmp_path / "x").mkdir()
    for i in range(20):
        Image.new("L", (4, 4), i % (most + 1)).save(tmp_path / "x" / f"{i}.png")
    settings = {"cache": str(tmp_path / "cache")} if cached else {}
    for _ in range(2):
        with pytest.warns(UserWarning, match=f"hold {values}, which are read as if from 0 to 255"):
            loaded(tmp_path / "x", **settings)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("suffix", ["gif", "tif"])
def test_files_of_several_images_are_warned_of(tmp_path, cached, suffix):
    draw = np.random.default_rng(0)
    (tmp_path / "x").mkdir()
    for i in range(8):
        frames = [Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8)) for _ in range(2)]
        frames[0].save(tmp_path / "x" / f"{i}.{suffix}", save_all=True, append_images=frames[1:])
    settings = {"cache": str(tmp_path / "cache")} if cached else {}
    for _ in range(2):
        with pytest.warns(UserWarning, match="8 images in .* of which the first is read"):
            loaded(tmp_path / "x", **settings)


def test_parts_of_an_array_with_unknown_names_are_named(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.arange(60.0).reshape(30, 2), split=[0] * 20 + [1] * 10)
    with pytest.raises(ValueError, match="has parts called '0', '1': call them train, test"):
        loaded(tmp_path / "x.npz")


def test_integers_beyond_float64_are_compared_exactly():
    i = np.arange(100)
    for dtype, base in ((np.int64, 2**62), (np.int64, -(2**62)), (np.uint64, 2**63)):
        near = np.array([int(base) + 7 * int(k) for k in i], dtype)[:, None]
        far = np.array([int(base) + (int(k) << 50) for k in i], dtype)[:, None]
        with pytest.raises(ValueError, match="column 0 varies by less than float64"):
            from_array(near)
        assert not unresolved(far, np.float64).any()
        spread = from_array(far).train.double().std()
        assert spread == pytest.approx(2**50 * 29, rel=0.05)
        assert not unresolved(np.repeat(near[:1], 100, 0), np.float64).any()  # a constant
    extremes = np.array([[-(2**63)], [2**63 - 1]] * 9)
    assert not unresolved(extremes, np.float64).any()


# Names and contents


def idx_bytes(x: np.ndarray) -> bytes:
    head = b"\0\0\x08" + bytes([x.ndim]) + struct.pack(f">{x.ndim}i", *x.shape)
    return head + x.astype(np.uint8).tobytes()


def test_idx_files_are_unpacked_by_their_content_and_summed_up(tmp_path):
    images = np.arange(96).reshape(6, 4, 4)
    for k, (key, name) in enumerate(idx.FILES.items()):
        content = idx_bytes(images if "images" in key else np.arange(6) % 3)
        suffix = ".gz" if k % 2 == 0 else ""  # and zipped where there is none
        (tmp_path / (name + suffix)).write_bytes(content if suffix else gzip.compress(content))
    source = loaded(tmp_path)
    assert source.train[:, 0].tolist() == images.tolist()
    assert source.summary == "read 12 images of 3 classes"


@pytest.mark.parametrize("wrong", ["x.npz", "x.csv", "x.bin", "x"])
def test_files_of_samples_under_wrong_names(tmp_path, wrong):
    x = np.arange(20.0).reshape(10, 2)
    path = tmp_path / wrong
    np.save(tmp_path / "y.npy", x)
    path.write_bytes((tmp_path / "y.npy").read_bytes())
    np.testing.assert_array_equal(read(path).samples, x)
    np.savez(tmp_path / "y.npz", x=x)
    path.write_bytes((tmp_path / "y.npz").read_bytes())
    np.testing.assert_array_equal(read(path).samples, x)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(9):
            archive.writestr(f"{i}.png", picture(i))
    assert levels(loaded(path)) == list(range(9))


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.txt", "x"])
@pytest.mark.parametrize("header", ["P1\tP2", "OFF\tON", "ply\tthickness", "P1,P2", "BM,II"])
def test_tables_under_wrong_names_and_names_of_columns(tmp_path, name, header):
    """A table whose header begins as another format does is neither an image nor a cloud."""
    separator = "\t" if "\t" in header else ","
    rows = "".join(f"{i}{separator}{2 * i}\n" for i in range(9))
    (tmp_path / name).write_text(f"{header}\n{rows}")
    found = read(tmp_path / name)
    assert found.samples.tolist() == [[i, 2 * i] for i in range(9)]
    assert found.schema.names == tuple(header.split(separator))


def test_clouds_of_any_suffix_are_told_apart(tmp_path):
    for i in range(6):
        content = io.BytesIO()
        np.savez(content, points=np.random.default_rng(i).normal(size=(30, 3)))
        (tmp_path / f"{i}{('.bin', '.npz', '')[i % 3]}").write_bytes(content.getvalue())
    source = loaded(tmp_path, points=30)
    assert (source.kind, source.summary) == (CLOUD, "read 6 clouds")


def test_a_damaged_image_is_not_called_by_an_address(tmp_path):
    filled(tmp_path, {f"{i:03}.png": i for i in range(150)} | {"x.png": b"text"})
    with pytest.warns(UserWarning, match=r"x\.png \(in no format that is read\)"):
        assert loaded(tmp_path).kind == IMAGE


# Meshes


def surface(points: np.ndarray, triangles: np.ndarray) -> float:
    a, b, c = points[triangles].swapaxes(0, 1)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def test_concave_polygons_are_cut_within_themselves():
    """Stars about a point, in any plane and from any corner: their area by the shoelace."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        k = int(rng.integers(5, 30))
        angle = (np.arange(k) + 0.8 * rng.random(k)) * 2 * np.pi / k
        x, y = (rng.random(k) + 0.05) * np.stack([np.cos(angle), np.sin(angle)])
        area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        points = np.stack([x, y, 0 * x], 1) @ turn.T + rng.normal(size=3)
        corners = np.roll(np.arange(k), rng.integers(k))[:: rng.choice([-1, 1])]
        triangles = triangulated([corners, [0, 1, 2]], points)[:-1]
        assert surface(points, triangles) == pytest.approx(area, rel=1e-9)


L_SHAPE = ((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2))


@pytest.mark.parametrize("suffix", [".off", ".obj", ".ply"])
@pytest.mark.parametrize("first", range(6))
def test_points_of_a_concave_polygon_lie_in_it(suffix, first):
    corners = np.roll(np.arange(6), first)
    rows = "\n".join(f"{x} {y} 0" for x, y in L_SHAPE)
    if suffix == ".off":
        text = f"OFF\n6 1 0\n{rows}\n6 {' '.join(map(str, corners))}\n"
    elif suffix == ".obj":
        text = (
            "v " + rows.replace("\n", "\nv ") + f"\nf {' '.join(f'{i + 1}//1' for i in corners)}\n"
        )
    else:
        text = "ply\nformat ascii 1.0\nelement vertex 6\nproperty float x\nproperty float y\n"
        text += "property float z\nelement face 1\nproperty list uchar int vertex_indices\n"
        text += f"end_header\n{rows}\n6 {' '.join(map(str, corners))}\n"
    points, triangles = clouds.READERS[suffix](text.encode())
    assert surface(points, triangles) == pytest.approx(3)
    found = clouds._sampled(points, triangles, 3000, np.random.default_rng(0))
    x, y = found[:, 0], found[:, 1]
    assert not ((x > 1 + 1e-9) & (y > 1 + 1e-9)).any()
    for square in ((x < 1) & (y < 1), x > 1, y > 1):
        assert square.mean() == pytest.approx(1 / 3, abs=0.04)


def test_polygons_that_cannot_be_cut_are_refused():
    bow = np.array([[0, 0, 0], [2, 2, 0], [2, 0, 0], [0, 1, 0]], float)
    with pytest.raises(ValueError, match="a face intersects itself"):
        triangulated([[0, 1, 2, 3]], bow)
    angle = np.linspace(0, 2 * np.pi, 1200, endpoint=False)
    wave = 1 + 0.5 * np.cos(200 * angle)
    points = np.stack([wave * np.cos(angle), wave * np.sin(angle), 0 * angle], 1)
    with pytest.raises(ValueError, match="a concave face has 1,200 corners"):
        triangulated([range(1200)], points)


def test_obj_files_as_programs_write_them():
    text = b"""v 0 0 0 1 0 0\r
v 1 0 0\\\r
 0 1 0\r
v 1 1 0\r
f -3 -2/2 -1/3/3 # the last three\r
o another\r
v 0 1 0\r
f 1 3 4\r
l 1 2\r
"""
    points, triangles = clouds.READERS[".obj"](text)
    assert points.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize("comment", ["format ascii 1.0", "element vertex 99999999", "end_header"])
def test_comments_of_a_ply_file_are_no_header(comment):
    x = np.random.default_rng(0).normal(size=(9, 3)).astype("<f4")
    head = f"ply\nformat binary_little_endian 1.0\ncomment {comment}\nelement vertex 9\n"
    head += "property float x\nproperty float y\nproperty float z\nend_header\n"
    np.testing.assert_array_equal(clouds.READERS[".ply"](head.encode() + x.tobytes()).points, x)


@pytest.mark.parametrize(
    ("content", "suffix", "reason"),
    [
        (b"OFF\n4 1 0\n0 0 0\n1 0 0\n1 2 0\n0 2 0\n4 0 1 2", ".off", "fewer corners than it prom"),
        (b"OFF\n3 1 0\n0 0 0\n1 0\n1 2 0\n3 0 1 2", ".off", "fewer than three numbers"),
        (b"1_0 2 3\n4 5 6\n", ".xyz", "underscore"),
        (b"v 1_0 2 3\nv 1 2 3\nv 1 5 3\nf 1 2 3\n", ".obj", "underscore"),
        (b"v 0 0 0\nv 1 2 3\nv 1 5 3\nf 0 1 2\n", ".obj", "vertex 0"),
        (b"v 0 0 0\nv 1 2 3\nv 1 5 3\nf -4 1 2\n", ".obj", "vertices that it does not have"),
    ],
)
def test_what_is_cut_short_or_miscounted_is_refused(content, suffix, reason):
    with pytest.raises(ValueError, match=reason):
        clouds.decode(content, suffix, 2, "x")


def test_off_files_may_leave_out_their_word():
    found = clouds.READERS[".off"](b"3 1 0\n0 0 0\n1 0 0\n1 2 0\n3 0 1 2\n")
    assert surface(*found) == 1


def test_what_is_ordinary_is_not_warned_of(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded(filled(tmp_path, of_folders("train/a", "train/b", "test/a", "test/b")))
