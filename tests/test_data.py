"""Data of every kind, whole and damaged: read right, or named in a clear error."""

import dataclasses
import gzip
import hashlib
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import monge
from monge._core.files import user_cache
from monge.config import Config, DataConfig
from monge.config.trust import seal_of
from monge.data import VECTOR, Source, as_floats, load
from monge.data.readers import idx
from monge.data.readers.arrays import from_array
from monge.data.readers.images import MOST_PIXELS, decode


def png(image: Image.Image, form="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def gradient(width=12, height=10) -> np.ndarray:
    return (np.arange(height)[:, None] * 20 + np.arange(width)[None] * 2).astype(np.uint8)


def folder(tmp_path, count=8, **names):
    tmp_path.mkdir(exist_ok=True)
    for i in range(count):
        (tmp_path / f"{i:03}.png").write_bytes(png(Image.fromarray(gradient())))
    for name, content in names.items():
        (tmp_path / name.replace("__", ".")).write_bytes(content)
    return tmp_path


def test_digits_are_embedded_and_the_last_297_held_out():
    source = load(DataConfig("digits"))
    assert source.train.shape == (1500, 1, 8, 8)
    assert source.test.shape == (297, 1, 8, 8)
    assert source.train.dtype == torch.uint8
    assert source.train.max() == 255
    floats = as_floats(source.train)
    assert (floats.min(), floats.max()) == (0, 1)
    theirs = load_digits()
    ours = torch.cat([source.train, source.test])[:, 0]
    assert torch.equal(ours, torch.tensor(theirs.images * 255 / 16).round().byte())
    assert source.train_labels is not None
    assert source.train_labels.tolist() == theirs.target[:1500].tolist()


def test_every_grey_level_survives_the_way_to_floats():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal((as_floats(levels) * 255).round().to(torch.uint8), levels)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_published_sets_with_their_official_test_part(real_data, name, monkeypatch):
    source = load(DataConfig(name, dir=str(real_data)))
    assert source.train.shape == (60_000, 1, 28, 28)
    assert source.test.shape == (10_000, 1, 28, 28)
    assert torch.bincount(source.test_labels).sum() == 10_000
    monkeypatch.setenv("MONGE_DATA", str(real_data / name))
    assert torch.equal(load(DataConfig(name)).test[:5], source.test[:5])


# idx


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        b"\0\0\x08"
        + bytes([array.ndim])
        + struct.pack(f">{array.ndim}i", *array.shape)
        + array.tobytes()
    )


IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_is_read_back(tmp_path, zipped):
    file = tmp_path / ("x.gz" if zipped else "x")
    file.write_bytes(gzip.compress(idx_bytes(IMAGES)) if zipped else idx_bytes(IMAGES))
    assert np.array_equal(idx.read(file), IMAGES)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "magic missing"),
        (b"\0\0\x0d\x03" + idx_bytes(IMAGES)[4:], "magic 00000d03"),
        (b"\x89PNG", "magic 89504e47"),
        (b"\0\0\x08\x03\0\0\0\x06", "header is cut short"),
        (b"\0\0\x08\x01" + struct.pack(">i", -5), "impossible idx dimensions"),
        (
            b"\0\0\x08\x03" + struct.pack(">3i", 2**31 - 1, 2**31 - 1, 9),
            "impossible idx dimensions",
        ),
        (idx_bytes(IMAGES)[:-1], "only 95 of the 96 bytes"),
        (idx_bytes(IMAGES) + b"!", "more than the 96 bytes"),
    ],
)
def test_damaged_idx_is_a_clear_error(tmp_path, content, reason):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        idx.read(tmp_path / "x")


def test_damaged_gzip_is_a_clear_error(tmp_path):
    whole = gzip.compress(idx_bytes(IMAGES))
    (tmp_path / "x.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not readable"):
        idx.read(tmp_path / "x.gz")


def write_set(path, zipped=True):
    path.mkdir(parents=True)
    arrays = {
        "train-images": IMAGES,
        "train-labels": np.arange(6, dtype=np.uint8),
        "test-images": IMAGES[:2],
        "test-labels": np.arange(2, dtype=np.uint8),
    }
    for key, array in arrays.items():
        (path / f"{idx.FILES[key]}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return path


def test_a_folder_of_idx_files_is_a_data_set(tmp_path):
    source = load(DataConfig(str(write_set(tmp_path / "mine"))))
    assert source.train.shape == (6, 1, 4, 4)
    assert source.test_labels.tolist() == [0, 1]


def test_download_is_checked_and_kept(tmp_path, monkeypatch):
    origin = write_set(tmp_path / "origin")
    sums = tuple(
        hashlib.md5((origin / f"{stem}.gz").read_bytes()).hexdigest()
        for stem in idx.FILES.values()
    )
    monkeypatch.delenv("MONGE_DATA", raising=False)
    monkeypatch.delenv("MONGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(idx.DATASETS, "mnist", (f"{origin.as_uri()}/", sums))
    assert load(DataConfig("mnist")).train.shape == (6, 1, 4, 4)
    monkeypatch.setitem(idx.DATASETS, "mnist", ("file:///nowhere/", sums))
    assert load(DataConfig("mnist")).train.shape == (6, 1, 4, 4)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(ValueError, match="could not be downloaded"):
        load(DataConfig("mnist"))
    monkeypatch.setitem(idx.DATASETS, "mnist", (f"{origin.as_uri()}/", ("0" * 32,) * 4))
    with pytest.raises(ValueError, match="md5"):
        load(DataConfig("mnist"))
    assert not (tmp_path / "other").exists()


def test_a_relative_cache_folder_is_ignored(monkeypatch):
    monkeypatch.delenv("MONGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert user_cache() == Path("~/.cache/monge").expanduser()


def test_without_a_home_folder_the_cache_is_asked_for(monkeypatch, tmp_path):
    """As in a container, whose account is none of the system: nothing is written to ./~ ."""
    monkeypatch.chdir(tmp_path)
    for name in ("MONGE_CACHE", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ValueError, match="`MONGE_CACHE` is None and no home folder is known"):
        user_cache()
    assert seal_of(Config(data=DataConfig(str(tmp_path / "x.npy")))) is None
    assert list(tmp_path.iterdir()) == []


def test_a_data_dir_without_the_set_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no mnist: looked for train-images"):
        load(DataConfig("mnist", dir=str(tmp_path)))


# Images


def modes():
    """The same gradient in every mode, as (bytes, suffix, what must be read)."""
    g = gradient()
    rgb = np.stack([g, g // 2, 255 - g], -1)
    colour = np.moveaxis(rgb, -1, 0)
    alpha = np.full_like(g, 255)
    alpha[:, 0] = 0
    over_white = colour.copy()
    over_white[:, :, 0] = 255
    palette = Image.fromarray(g).convert("P")
    rotated = Image.fromarray(rgb)
    exif = rotated.getexif()
    exif[0x0112] = 3  # upside down
    return {
        "grey": (png(Image.fromarray(g)), g[None]),
        "rgb": (png(Image.fromarray(rgb)), colour),
        "bits": (png(Image.fromarray(g > 100)), ((g > 100) * 255)[None]),
        "16 bits": (png(Image.fromarray(g.astype(np.uint16) * 257)), g[None]),
        "alpha": (png(Image.fromarray(np.dstack([rgb, alpha]))), over_white),
        "palette": (png(palette), np.broadcast_to(g, (3, *g.shape))),
        "cmyk": (png(Image.fromarray(rgb).convert("CMYK"), "TIFF"), colour),
        "exif": (png(rotated, "PNG", exif=exif), colour[:, ::-1, ::-1]),
        "bmp": (png(Image.fromarray(rgb), "BMP"), colour),
    }


@pytest.mark.parametrize("name", modes())
def test_images_of_every_mode_are_read_right(name):
    content, expected = modes()[name]
    pixels = decode(content, DataConfig())
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), expected.astype(int), atol=1)


def test_jpeg_with_a_png_name_is_read_by_its_content(tmp_path):
    path = folder(tmp_path, wrong__png=png(Image.fromarray(gradient()), "JPEG", quality=95))
    source = load(DataConfig(str(path)))
    assert len(source.train) + len(source.test) == 9


def test_crop_and_resize():
    content = png(Image.fromarray(gradient(12, 10)))
    assert decode(content, DataConfig(crop=6)).shape == (1, 6, 6)
    assert np.array_equal(decode(content, DataConfig(crop=6))[0], gradient(12, 10)[2:8, 3:9])
    assert decode(content, DataConfig(size=5)).shape == (1, 5, 5)
    assert decode(content, DataConfig(size=16, channels="colour")).shape == (3, 16, 16)
    with pytest.raises(ValueError, match="under the crop"):
        decode(content, DataConfig(crop=11))


DAMAGED = {
    "truncated": png(Image.fromarray(gradient(60, 60)))[:-40],
    "zeros": bytes(100),
    "empty": b"",
    "text": b"not an image",
    "flipped": (lambda b: b[:40] + bytes([b[40] ^ 255]) + b[41:])(
        png(Image.fromarray(gradient()))
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_one_damaged_image_in_two_hundred_is_named_in_one_warning(tmp_path, kind):
    path = folder(tmp_path, 199, bad__png=DAMAGED[kind])
    with pytest.warns(
        UserWarning, match=r"1 of 200 images in .* could not be read: bad.png"
    ) as seen:
        source = load(DataConfig(str(path)))
    assert len(seen) == 1
    assert len(source.train) + len(source.test) == 199


@pytest.mark.parametrize("kind", DAMAGED)
def test_more_than_one_percent_of_damaged_images_is_refused(tmp_path, kind):
    with pytest.raises(ValueError, match=r"1 of 9 images .* more than 1%"):
        load(DataConfig(str(folder(tmp_path, 8, bad__png=DAMAGED[kind]))))


def test_a_bomb_is_refused_before_it_is_unpacked():
    side = int(MOST_PIXELS**0.5) + 1
    bomb = png(Image.new("1", (side, side)))
    assert len(bomb) < 10**6
    with pytest.raises(ValueError, match="over the cap"):
        decode(bomb, DataConfig())


def test_images_of_unlike_sizes_need_a_size(tmp_path):
    path = folder(tmp_path, other__png=png(Image.fromarray(gradient(30, 20))))
    with pytest.raises(ValueError, match=r"differ in size: 000.png is 12×10, other.png is 30×20"):
        load(DataConfig(str(path)))
    assert load(DataConfig(str(path), size=8)).shape == (1, 8, 8)


def test_large_images_need_a_size(tmp_path):
    for i in range(4):
        Image.new("L", (600, 600)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match="give --size"):
        load(DataConfig(str(tmp_path)))


def test_grey_images_among_coloured_ones_become_colour(tmp_path):
    path = folder(tmp_path, z__png=png(Image.fromarray(np.zeros((10, 12, 3), np.uint8))))
    assert load(DataConfig(str(path))).shape == (3, 10, 12)
    assert load(DataConfig(str(path), channels="grey")).shape == (1, 10, 12)


def test_a_zip_is_read_like_the_folder_it_holds(tmp_path):
    inner = folder(tmp_path / "images", 12)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in inner.iterdir():
            archive.write(file, f"a/{file.name}")
        archive.writestr("__MACOSX/a/._000.png", b"junk")
        archive.writestr("a/readme.txt", b"not an image")
    zipped, plain = load(DataConfig(str(tmp_path / "images.zip"))), load(DataConfig(str(inner)))
    assert torch.equal(zipped.train, plain.train)
    assert torch.equal(zipped.test, plain.test)


def test_train_and_test_folders_are_honoured_and_other_folders_are_classes(tmp_path):
    for part, count in (("train", 6), ("test", 3)):
        for kind in ("cats", "dogs"):
            (tmp_path / part / kind).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (8, 8)).save(tmp_path / part / kind / f"{i}.png")
    source = load(DataConfig(str(tmp_path)))
    assert (len(source.train), len(source.test)) == (12, 6)
    assert source.test_labels.tolist() == [0] * 3 + [1] * 3


def test_the_held_out_part_is_the_same_each_time_and_never_trained_on(tmp_path):
    values = np.arange(100, dtype=np.float32)[:, None].repeat(2, 1)
    one, two = from_array(values), from_array(values)
    assert torch.equal(one.test, two.test)
    assert 2 <= len(one.test) <= 20
    assert not set(one.test[:, 0].tolist()) & set(one.train[:, 0].tolist())


# Arrays and tables


@pytest.mark.parametrize(
    ("shape", "dtype", "read"),
    [
        ((20, 5), np.float64, (5,)),
        ((20, 8, 9), np.uint8, (1, 8, 9)),
        ((20, 3, 8, 9), np.uint8, (3, 8, 9)),
        ((20, 8, 9, 3), np.uint8, (3, 8, 9)),
        ((20, 8, 9, 1), np.float32, (1, 8, 9)),
    ],
)
def test_arrays_are_vectors_or_images_by_their_shape(tmp_path, shape, dtype, read):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random(shape).astype(dtype))
    assert load(DataConfig(str(tmp_path / "x.npy"))).shape == read


def test_npz_with_labels_and_split(tmp_path):
    split = np.array(["train"] * 8 + ["test"] * 2)
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.savez(tmp_path / "x.npz", x=x, labels=np.arange(10), split=split)
    source = load(DataConfig(str(tmp_path / "x.npz")))
    assert source.test.tolist() == [[16, 17], [18, 19]]
    assert source.test_labels.tolist() == [8, 9]


def test_csv_with_header_and_labels(tmp_path):
    rows = "\n".join(f"{i},{i / 2},{i % 3}" for i in range(20))
    (tmp_path / "x.csv").write_text(f"height,weight,label\n{rows}\n")
    source = load(DataConfig(str(tmp_path / "x.csv")))
    assert source.kind == VECTOR
    assert source.shape == (2,)
    assert torch.equal(source.test[:, 0] % 3, source.test_labels.float())
    mean, deviation = source.moments()
    torch.testing.assert_close(mean, source.train.mean(0))
    torch.testing.assert_close(deviation, source.train.std(0, correction=0))


def test_a_constant_column_has_deviation_one():
    x = np.ones((10, 2), np.float32)
    x[:, 1] = np.arange(10)
    assert from_array(x).moments()[1][0] == 1


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((10, 2), np.nan), "must be finite, got 20"),
        (np.zeros((1, 2)), "at least 2"),
        (np.zeros((0, 2)), r"holds nothing: its shape is \(0, 2\)"),
        (np.zeros((10, 0)), "holds nothing"),
        (np.zeros((10, 4, 0), np.uint8), "holds nothing"),
        (np.zeros((10, 5, 5, 5)), "has shape"),
        (np.zeros((10, 2, 5, 5)), "has shape"),
        (np.full((10, 2), 1e300), "beyond float32"),
        (10**18 + np.arange(20).reshape(10, 2), "column 0 varies by less"),
        (np.full((10, 1, 4, 4), 2.0), r"must lie in \[0, 1\]"),
        (np.array([["a", "b"]] * 10), "must hold real numbers"),
        (np.zeros((10, 2), complex), "must hold real numbers"),
    ],
)
def test_bad_arrays_are_named(array, reason):
    with pytest.raises(ValueError, match=reason):
        from_array(array)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.npy", b"\x93NUMPY garbage"),
        ("x.npy", b""),
        ("x.npz", b"PK garbage"),
        ("x.csv", b"a,b\n1,2\n3,dog\n4,5\n6,7\n"),
        ("x.csv", b"1,2\n3\n4,5\n6,7\n"),
        ("x.csv", b""),
        ("x.zip", b"PK garbage"),
        ("x.tar", b"what"),
    ],
)
def test_damaged_files_are_a_clear_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.|array"):
        load(DataConfig(str(tmp_path / name)))


def test_what_is_wrong_with_a_file_is_one_line(tmp_path):
    """NumPy says it in several where the header is long."""
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (20,), " + " " * 20_000 + "}\n"
    content = b"\x93NUMPY\2\0" + struct.pack("<I", len(header)) + header.encode()
    (tmp_path / "x.npy").write_bytes(content + bytes(160))
    with pytest.raises(ValueError, match=r"x\.npy' is not readable: Header info") as caught:
        load(DataConfig(str(tmp_path / "x.npy")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_source_of_ones_own_must_be_finite(bad, tmp_path):
    source = load(DataConfig("rings"))
    samples = source.train.clone()
    samples[7, 1] = bad
    source = dataclasses.replace(source, train=samples)
    with pytest.raises(ValueError, match="`data` has NaN or infinite values in `train`"):
        monge.fit("swae", source, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_pickled_array_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}] * 5), allow_pickle=True)
    with pytest.raises(ValueError, match="not readable"):
        load(DataConfig(str(tmp_path / "x.npy")))


def test_missing_and_empty_paths_are_named(tmp_path):
    with pytest.raises(ValueError, match="neither a file or folder nor one of digits"):
        load(DataConfig(str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="holds no images"):
        load(DataConfig(str(tmp_path)))


def test_labels_of_any_type_become_classes(tmp_path):
    (tmp_path / "x.csv").write_text(
        "Class,a\n" + "".join(f"{'cat' if i % 2 else 'dog'},{i}\n" for i in range(20))
    )
    source = load(DataConfig(str(tmp_path / "x.csv")))
    assert torch.equal(source.train_labels, (source.train[:, 0] % 2 == 0).long())
    with pytest.raises(ValueError, match="labels that are NaN"):
        from_array(np.zeros((10, 2)), np.full(10, np.nan))
    with pytest.raises(ValueError, match=r"not whole numbers, first 0\.25 of sample 1"):
        from_array(np.zeros((10, 2)), np.arange(10) / 4)
    assert from_array(np.eye(10), np.arange(10) % 2 * 1.0).classes == ("0", "1")
    with pytest.raises(ValueError, match="an empty class name, first that of sample 3 "):
        from_array(np.zeros((10, 2)), ["a", "b", "a", " ", *"bababa"])


def test_a_first_row_with_a_number_is_no_header(tmp_path):
    (tmp_path / "x.csv").write_text("NA,5\n" + "1,2\n" * 10)
    with pytest.raises(ValueError, match="line 1, column 0 is missing, 'NA'"):
        load(DataConfig(str(tmp_path / "x.csv")))


def test_a_validation_part_is_neither_trained_nor_tested_on_beside_a_test_part(tmp_path):
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    parts = np.repeat(["train", "val", "test"], [10, 5, 5])
    source = from_array(x, parts=parts)
    assert (len(source.train), source.test.tolist()) == (10, x[15:].tolist())
    source = from_array(x[:15], parts=parts[:15])
    assert source.test.tolist() == x[10:15].tolist()


def test_a_folder_around_the_parts_changes_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for part, count in (("train", 6), ("val", 3), ("test", 4)):
            for i in range(count):
                archive.writestr(f"all/{part}/{i}.png", png(Image.fromarray(gradient())))
    source = load(DataConfig(str(tmp_path / "x.zip")))
    assert (len(source.train), len(source.test)) == (6, 4)
    assert source.train_labels is None


def test_an_encrypted_archive_is_a_clear_error(tmp_path):
    """The flag bit alone makes zipfile refuse to read without a password."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(5):
            archive.writestr(f"{i}.png", png(Image.fromarray(gradient())))
    content = bytearray((tmp_path / "x.zip").read_bytes())
    for at in range(len(content) - 4):
        if content[at : at + 4] == b"PK\x01\x02":
            content[at + 8] |= 1
        elif content[at : at + 4] == b"PK\x03\x04":
            content[at + 6] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"5 of 5 images .* could not be read"):
        load(DataConfig(str(tmp_path / "x.zip")))


def test_a_transparent_colour_is_laid_over_white():
    content = png(Image.fromarray(np.zeros((4, 4), np.uint8)), transparency=0)
    assert (decode(content, DataConfig()) == 255).all()


def test_flags_for_images_are_refused_where_they_would_be_ignored():
    with pytest.raises(ValueError, match="`size` has no meaning for 'digits'"):
        load(DataConfig("digits", size=16))


def test_one_published_set_does_not_pass_for_another(tmp_path):
    write_set(tmp_path / "mnist")
    assert load(DataConfig("mnist", dir=str(tmp_path / "mnist"))).shape == (1, 4, 4)
    with pytest.raises(ValueError, match="holds no fashion-mnist"):
        load(DataConfig("fashion-mnist", dir=str(tmp_path / "mnist")))


# Toy laws


@pytest.mark.parametrize(
    ("name", "d"),
    [
        ("eight-gaussians", 2),
        ("rings", 2),
        ("swiss-roll", 2),
        ("line", 1),
    ],
)
def test_toy_laws_are_read_by_name_and_always_the_same(name, d):
    one, two = load(DataConfig(name)), load(DataConfig(name))
    assert one.kind == VECTOR
    assert one.train.shape == (10_000, d)
    assert one.test.shape == (2_000, d)
    assert torch.equal(one.train, two.train)
    assert torch.isfinite(one.train).all()


def test_toy_laws_are_where_they_are_said_to_be():
    radius = load(DataConfig("eight-gaussians")).train.norm(dim=1)
    assert radius.mean() == pytest.approx(2, abs=0.02)
    source = load(DataConfig("rings"))
    for k in (0, 1):
        radius = source.train[source.train_labels == k].norm(dim=1)
        assert radius.mean() == pytest.approx(1 + k, abs=0.01)
        assert radius.std() == pytest.approx(0.05, abs=0.01)


def test_some_classes_alone_are_labelled_in_the_order_asked_for():
    whole, some = load(DataConfig()), load(DataConfig(classes=("7", "2")))
    assert some.classes == ("7", "2")
    assert whole.train_labels is not None
    assert some.train_labels is not None
    for label, digit in enumerate((7, 2)):
        assert torch.equal(
            some.train[some.train_labels == label], whole.train[whole.train_labels == digit]
        )
    assert len(some.train) == ((whole.train_labels == 7) | (whole.train_labels == 2)).sum()


def test_unknown_classes_are_refused():
    with pytest.raises(ValueError, match="`classes` 'seven' is none of 'digits', whose classes"):
        load(DataConfig(classes=("seven",)))
    with pytest.raises(ValueError, match="not labelled"):
        load(DataConfig(name="swiss-roll", classes=("1",)))


@pytest.mark.parametrize("setting", [{"turn": True}, {"jitter": 0.1}, {"points": 5}])
def test_settings_of_clouds_are_refused_for_images(setting):
    with pytest.raises(ValueError, match="only clouds have points"):
        load(DataConfig(**setting))


def test_parts_without_a_test_part_are_named(tmp_path):
    images = np.zeros((40, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, split=["train", "evaluation"] * 20)
    with pytest.raises(
        ValueError, match=r"0 test samples, beside parts called 'evaluation', .*: call parts train"
    ):
        load(DataConfig(name=str(tmp_path / "x.npz")))


def test_an_empty_folder_holds_no_files(tmp_path):
    with pytest.raises(
        ValueError, match=r"holds no images .* and no clouds .*; it holds no files"
    ):
        load(DataConfig(name=str(tmp_path)))


ROWS = torch.linspace(0, 1, 60).reshape(30, 2)
PICTURES = torch.linspace(0, 1, 12 * 9).reshape(12, 1, 3, 3)
CLASSES = torch.arange(20) % 2
SOURCES = {
    "labels of fewer": ({"train_labels": CLASSES[:19]}, "`train_labels` must be 20 int64 from 0"),
    "labels of none": ({"test_labels": CLASSES[:0]}, r"`test_labels` must be 10 int64.*\(0,\)"),
    "labels with fractions": ({"train_labels": CLASSES / 2}, "must be 20 int64.*float32"),
    "a label for none": ({"train_labels": CLASSES - 1}, "must be 20 int64.* from -1 to 0"),
    "an array of labels": ({"train_labels": CLASSES.numpy()}, "must be 20 int64.*ndarray"),
    "contents of others": (
        {"contents": (np.zeros(3, np.uint64), np.zeros(10, np.uint64))},
        "`contents` has 3 digests for 20 samples of `train`: .* give contents=None",
    ),
    "an array": ({"train": ROWS[:20].numpy()}, "`train` must be a tensor, got ndarray"),
    "a list": ({"test": [[0.0, 1.0]] * 5}, "`test` must be a tensor, got list"),
    "parts of two widths": ({"test": torch.zeros(10, 3)}, "one shape and type"),
    "parts of two types": ({"test": ROWS[20:].double()}, "one shape and type"),
    "integers": (
        {"train": CLASSES[:, None], "test": CLASSES[:, None]},
        "must hold float32, .*int64",
    ),
    "bytes as rows": (
        {"train": CLASSES[:, None].byte(), "test": CLASSES[:, None].byte()},
        "`train` must hold floating-point numbers",
    ),
    "bfloat16": ({"train": ROWS[:20].bfloat16()}, "`train` must hold float32, .*bfloat16"),
    "gradients": ({"test": ROWS[20:].clone().requires_grad_()}, "`test` .* requires gradients"),
    "another device": ({"train": ROWS[:20].to("meta")}, "`train` .* on the CPU .* is on meta"),
    "sparse rows": ({"train": ROWS[:20].to_sparse()}, "`train` must be a dense .*sparse_coo"),
    "nothing": ({"train": None}, "`train` must be a tensor, got NoneType"),
    "rows as images": ({"kind": "image"}, "`train` has shape .*, which images do not have"),
    "flat clouds": (
        {"kind": "cloud", "train": torch.zeros(9, 5, 2), "test": torch.zeros(9, 5, 2)},
        "`train` has shape .*, which clouds do not have",
    ),
    "bright images": (
        {"kind": "image", "train": PICTURES, "test": 255 * PICTURES},
        r"`test`: images .* must lie in \[0, 1\], got \[0, 255\]",
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_whose_parts_do_not_belong_together_is_refused(name, tmp_path):
    changed, message = SOURCES[name]
    source = Source(
        **{"name": "x", "kind": "vector", "train": ROWS[:20], "test": ROWS[20:]} | changed
    )
    with pytest.raises(ValueError, match=message):
        monge.fit("wae-mmd", source, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
