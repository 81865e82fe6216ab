"""Which files of a folder or archive are read: those of one kind, each once, the rest counted."""

import io
import os
import struct
import tarfile
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from folders import filled, levels, picture
from folders import loaded as read
from PIL import Image

from monge.data import CLOUD, IMAGE
from monge.data.readers import discovery


def ply(points) -> bytes:
    head = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\nproperty float x\n"
    head += "property float y\nproperty float z\nend_header\n"
    return (head + "".join("{} {} {}\n".format(*row) for row in points)).encode()


CLOUDS = [ply(np.random.default_rng(i).normal(size=(20, 3))) for i in range(8)]
AVIF = b"\0\0\0\x20ftypavif" + bytes(100)


# What is read


def test_images_are_told_apart_by_their_content_and_others_are_counted(tmp_path):
    files = {f"{i}.jpg": picture(100 + i, "JPEG") for i in range(10)}
    files |= {f"{i}.jfif": picture(100 + i, "JPEG") for i in range(10, 20)}
    files |= {f"{i}": picture(100 + i, "JPEG") for i in range(20, 30)}
    files |= {f"{i}.avif": AVIF for i in range(3)}
    files |= {".DS_Store": b"x", ".thumbs/0.png": picture(99), "__MACOSX/0.png": picture(99)}
    files |= {"read me.txt": b"hello", "labels.csv": b"0,1\n"}
    with pytest.warns(UserWarning, match=r"left out 3 \.avif \(no decoder\): 0\.avif, 1\.avif"):
        source = read(filled(tmp_path, files))
    assert levels(source) == list(range(100, 130))
    assert source.summary == (
        "read 30 images; left out 3 .avif (no decoder), 3 hidden, 1 of no known kind, 1 of "
        "another kind (tables)"
    )


def test_the_summary_of_a_cache_is_that_of_the_folder(tmp_path):
    folder = filled(tmp_path / "x", {f"{i}.png": i for i in range(9)} | {".a": b"", "b.txt": b""})
    plain = read(folder).summary
    assert plain == "read 9 images; left out 1 hidden, 1 of no known kind"
    for _ in range(2):
        assert read(folder, cache=str(tmp_path / "cache")).summary == plain


@pytest.mark.parametrize("stray", ["coords.xyz", "0/mesh.ply", "features.npy"])
def test_a_stray_file_of_another_kind_does_not_decide(tmp_path, stray):
    files = {f"{i}.png": i for i in range(9)} | {stray: b"0 0 0\n"}
    if stray.endswith(".npy"):
        content = io.BytesIO()
        np.save(content, np.zeros(3))
        files[stray] = content.getvalue()
    with pytest.warns(UserWarning, match=f"left out 1 of another kind .*{stray}"):
        source = read(filled(tmp_path, files))
    assert (source.kind, levels(source)) == (IMAGE, list(range(9)))


def test_a_stray_image_does_not_decide_either(tmp_path):
    files = {f"{i}.ply": cloud for i, cloud in enumerate(CLOUDS)} | {"preview.png": 0}
    with pytest.warns(UserWarning, match="left out 1 of another kind .*preview.png"):
        source = read(filled(tmp_path, files), points=20)
    assert (source.kind, len(source.train) + len(source.test)) == (CLOUD, 8)
    assert source.summary == "read 8 clouds; left out 1 of another kind (images)"


def test_a_folder_of_two_kinds_asks_which(tmp_path):
    files = {f"{i}.ply": cloud for i, cloud in enumerate(CLOUDS)}
    filled(tmp_path, files | {f"{i}.png": i for i in range(8)})
    with pytest.raises(ValueError, match="8 clouds, 8 images: separate them, or give --kind"):
        read(tmp_path, points=20)
    with pytest.warns(UserWarning, match="left out 8 of another kind"):
        assert read(tmp_path, kind="cloud", points=20).kind == CLOUD
    with pytest.warns(UserWarning, match="left out 8 of another kind"):
        assert read(tmp_path, kind="image").kind == IMAGE


def test_links_are_followed_once_and_cycles_end(tmp_path):
    outside = filled(tmp_path / "outside", {f"{i}.png": i for i in range(5)})
    folder = filled(tmp_path / "x", {f"a/{i}.png": i for i in range(5, 10)})
    (folder / "b").symlink_to(outside)  # read
    (folder / "a" / "up").symlink_to(folder)  # a cycle
    (folder / "0").symlink_to(folder / "a")  # a folder that is read already
    (folder / "a" / "10.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(UserWarning, match="left out") as seen:
        source = read(folder)
    assert levels(source) == list(range(10))
    assert source.classes == ("a", "b")
    assert "2 links to a folder that is read already: 0, a/up" in str(seen[0].message)
    assert "1 broken links: a/10.png" in str(seen[0].message)


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    folder = filled(tmp_path, {f"{kind}/{i}.png": i for kind in "abc" for i in range(4)})
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(discovery.os, "scandir", refusing)
    with pytest.warns(UserWarning, match="left out 1 unreadable folders: b"):
        source = read(folder)
    assert source.classes == ("a", "c")


def test_a_folder_without_samples_says_what_it_holds(tmp_path):
    filled(tmp_path, {"x.csv": b"1,2\n", "y.csv": b"", ".a": b"", "a.avif": AVIF})
    with pytest.raises(
        ValueError, match=r"no images .* it holds 2 tables, 1 \.avif .*, 1 hidden"
    ) as e:
        read(tmp_path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["x", "x.zip", "x.dat"])
def test_archives_are_told_apart_by_their_content(tmp_path, name):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for i in range(9):
            archive.writestr(f"{i}.png" if i % 2 else f"{i}", picture(i))
    assert levels(read(tmp_path / name)) == list(range(9))
    with tarfile.open(tmp_path / "t", "w") as archive:
        for i in range(9):
            member = tarfile.TarInfo(f"{i}.png" if i % 2 else f"{i}")
            member.size = len(picture(i))
            archive.addfile(member, io.BytesIO(picture(i)))
    assert levels(read(tmp_path / "t")) == list(range(9))


# Archives


def test_an_archive_with_several_files_of_one_name_is_refused(tmp_path):
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        warnings.simplefilter("ignore")  # zipfile's, of the name
        for i in range(10):
            archive.writestr("a.png", picture(i))
    with pytest.raises(
        ValueError, match=r"holds 10 files called 'a\.png': give each its own name"
    ):
        read(tmp_path / "x.zip")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for i in range(10):
            member = tarfile.TarInfo("a.png")
            member.size = len(picture(i))
            archive.addfile(member, io.BytesIO(picture(i)))
    with pytest.raises(ValueError, match="a has several images"):
        read(tmp_path / "x.tar")


def test_hidden_members_are_skipped_wherever_they_lie(tmp_path):
    names = [f"./a/{i}.png" for i in range(8)]
    hidden = ["__MACOSX/a/._0.png", "a/__MACOSX/1.png", "a/.git/2.png", "a/@eaDir/0.png"]
    with (
        zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped,
        tarfile.open(tmp_path / "x.tar", "w") as tarred,
    ):
        for i, name in enumerate([*names, *hidden]):
            zipped.writestr(name, picture(i))
            member = tarfile.TarInfo(name)
            member.size = len(picture(i))
            tarred.addfile(member, io.BytesIO(picture(i)))
    for name in ("x.zip", "x.tar"):
        source = read(tmp_path / name)
        assert levels(source) == list(range(8))
        assert source.summary == "read 8 images; left out 4 hidden"


# Parts


def parted(*places: str, count: int = 4) -> dict[str, int]:
    """`count` images in each of some folders, of levels that tell the folders apart."""
    return {f"{p}/{i}.png": 20 * k + i for k, p in enumerate(places) for i in range(count)}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("training", "testing"),
        ("train", "valid"),
        ("Training", "validation"),
        ("all/train", "all/test"),
    ],
)
def test_parts_have_synonyms_in_any_case(tmp_path, train, test):
    source = read(filled(tmp_path, parted(train, test)))
    assert sorted(source.train[:, 0, 0, 0].tolist()) == [0, 1, 2, 3]
    assert sorted(source.test[:, 0, 0, 0].tolist()) == [20, 21, 22, 23]
    assert source.classes == ()


@pytest.mark.parametrize("places", ["{}/{}", "x/{}/{}", "{1}/{0}", "x/{1}/{0}"])
def test_parts_lie_above_classes_or_below_them(tmp_path, places):
    folders = [places.format(p, c) for p in ("Train", "test") for c in ("cats", "dogs")]
    source = read(filled(tmp_path, parted(*folders)))
    assert source.classes == ("cats", "dogs")
    assert sorted(source.train[:, 0, 0, 0].tolist()) == [0, 1, 2, 3, 20, 21, 22, 23]
    assert (source.train[:, 0, 0, 0] // 20).tolist() == source.train_labels.tolist()
    assert (source.test[:, 0, 0, 0] // 20 - 2).tolist() == source.test_labels.tolist()
    assert source.summary == "read 16 images of 2 classes"


@pytest.mark.parametrize(
    ("places", "stray"),
    [
        (("train", "test"), "preview.png"),
        (("train/a", "train/b", "test/a", "test/b"), "preview.png"),
        (("a/train", "b/train", "a/test", "b/test"), "a/preview.png"),
    ],
)
def test_a_stray_file_beside_parts_is_left_out_and_named(tmp_path, places, stray):
    filled(tmp_path, parted(*places) | {stray: 200})
    with pytest.warns(UserWarning, match=f"1 beside the folders of parts: {stray}"):
        source = read(tmp_path)
    assert 200 not in levels(source)
    assert len(source.test) == 4 * len(places) // 2
    assert source.summary.endswith("left out 1 beside the folders of parts")


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        (("train", "test", "extra"), "a folder 'extra' beside its folders 'test' and 'train'"),
        (("Train", "train"), "'Train', 'train', which all name the training part"),
        (("train", "test", "."), "8 files beside its folders"),
        (("seg_train", "seg_test"), "'seg_train', 'seg_test', which look like"),
        (("train2017", "val2017"), "'train2017', 'val2017', which look like"),
        (("images", "test"), "folders 'test', which look like"),
        (("test", "."), "folders 'test', which look like"),
        (("a/train", "a/test", "b"), "has 8 files beside its folders"),
        (("a/train", "a/test", "b/c"), "a folder 'c' beside its folders"),
    ],
)
def test_layouts_that_are_half_of_parts_are_refused(tmp_path, places, reason):
    filled(tmp_path, parted(*places, count=8))
    with pytest.raises(ValueError, match=reason) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("places", [("train", "car", "bus"), ("contest", "attest"), ("train",)])
def test_classes_may_be_called_almost_anything(tmp_path, places):
    """A train is a vehicle."""
    source = read(filled(tmp_path, parted(*places)))
    assert source.classes == (tuple(sorted(places)) if len(places) > 1 else ())
    assert len(source.train) + len(source.test) == 4 * len(places)


def test_a_validation_part_that_is_left_out_is_said(tmp_path):
    source = read(filled(tmp_path, parted("train", "val", "test")))
    assert source.summary == "read 8 images; left out 4 of the validation part"
    assert sorted(source.test[:, 0, 0, 0].tolist()) == [40, 41, 42, 43]


def test_the_split_of_an_array_has_the_same_names(tmp_path):
    x = np.arange(20.0).reshape(10, 2)
    np.savez(tmp_path / "x.npz", x=x, split=["Training"] * 6 + ["TEST"] * 4)
    source = read(tmp_path / "x.npz")
    assert source.test.tolist() == x[6:].tolist()


def test_clouds_and_shards_have_the_rules_of_images(tmp_path):
    files = {f"{p}/{i}.ply": CLOUDS[i] for p in ("Training", "test") for i in range(4)}
    with pytest.warns(UserWarning, match=r"1 beside the folders of parts: a\.ply"):
        source = read(
            filled(tmp_path, files | {"a.ply": CLOUDS[5], ".b.ply": CLOUDS[6]}), points=20
        )
    assert (len(source.train), len(source.test)) == (4, 4)
    assert source.summary == "read 8 clouds; left out 1 beside the folders of parts, 1 hidden"


def test_a_stray_shard_is_left_out_as_well(tmp_path):
    for k, shard in enumerate(("Train/0.tar", "Train/1.tar", "val/0.tar", "preview.tar")):
        (tmp_path / shard).parent.mkdir(exist_ok=True)
        with tarfile.open(tmp_path / shard, "w") as archive:
            for i in range(4):
                member = tarfile.TarInfo(f"{i}.png")
                member.size = len(picture(20 * k + i))
                archive.addfile(member, io.BytesIO(picture(20 * k + i)))
    with pytest.warns(UserWarning, match=r"1 beside the folders of parts: preview\.tar"):
        source = read(tmp_path)
    assert sorted(source.train[:, 0, 0, 0].tolist()) == [0, 1, 2, 3, 20, 21, 22, 23]
    assert sorted(source.test[:, 0, 0, 0].tolist()) == [40, 41, 42, 43]


# Values


def wide(values: np.ndarray, form: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(values).save(content, form)
    return content.getvalue()


@pytest.mark.parametrize("cached", [False, True])
def test_dark_images_of_12_bits_are_warned_of(tmp_path, cached):
    """They are read as 16 bits, and their range is said."""
    ramp = np.linspace(0, 4095, 16).astype(np.uint16).reshape(4, 4)
    filled(tmp_path / "x", {f"{i}.png": wide(ramp) for i in range(6)})
    settings = {"cache": str(tmp_path / "c")} if cached else {}
    for _ in range(2):
        with pytest.warns(
            UserWarning, match=r"6 images .* values from 0 to 4,095, .* at most 15 of 255"
        ):
            source = read(tmp_path / "x", **settings)
        assert source.train.max() == 15


def test_integers_of_32_bits_are_warned_of(tmp_path):
    ramp = np.arange(16, dtype=np.int32).reshape(4, 4)
    filled(tmp_path / "x", {f"{i}.tif": wide(10 * ramp, "TIFF") for i in range(6)})
    with pytest.warns(UserWarning, match="values from 0 to 150, .* at most 0 of 255"):
        assert read(tmp_path / "x").train.max() == 0
    filled(tmp_path / "y", {f"{i}.tif": wide(10_000 * ramp - 5, "TIFF") for i in range(6)})
    with pytest.warns(UserWarning, match="values from -5 to 149,995, .* are cut off"):
        assert read(tmp_path / "y").train.max() == 255


def test_images_of_16_bits_that_use_them_are_not(tmp_path):
    ramp = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    filled(tmp_path, {f"{i}.png": wide(ramp if i else ramp // 16) for i in range(6)})
    assert read(tmp_path).train.max() == 255


def test_colours_of_16_bits_are_known_by_their_upper_8(tmp_path):
    """Pillow reads no other; the file is written by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    row = b"\0" + struct.pack(">12H", *np.linspace(0, 4095, 12).astype(int))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 4, 4, 16, 2, 0, 0, 0))
    content += chunk(b"IDAT", zlib.compress(4 * row)) + chunk(b"IEND", b"")
    filled(tmp_path, {f"{i}.png": content for i in range(6)})
    with pytest.warns(UserWarning, match="values from 0 to 4,095, .* at most 15 of 255"):
        assert read(tmp_path).train.max() == 15
