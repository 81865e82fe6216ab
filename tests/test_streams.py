"""Images beyond memory: the cache, shards and data sets of the hub read what folders do."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import monge
from monge.cli import parse
from monge.config import Config, DataConfig, TrainingConfig
from monge.data import load
from monge.data.readers import cache, images, tar
from monge.data.readers.discovery import LeftOut
from monge.runs import Run


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(count: int, side: int = 8, channels: int = 1, seed: int = 0) -> list[bytes]:
    shape = (count, side, side, channels) if channels > 1 else (count, side, side)
    drawn = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return [png(pixels) for pixels in drawn]


def fill(folder: Path, contents: list[bytes], suffix: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, content in enumerate(contents):
        (folder / f"{i:04}.{suffix}").write_bytes(content)
    return folder


def same(one, two) -> bool:
    """Whether two sources hold the same bits under the same names."""
    pairs = zip(
        (one.train, one.test, one.train_labels, one.test_labels),
        (two.train, two.test, two.train_labels, two.test_labels),
    )
    equal = all(
        (x is None and y is None)
        or (x is not None and y is not None and x.dtype == y.dtype and torch.equal(x, y))
        for x, y in pairs
    )
    return equal and (one.name, one.kind, one.classes) == (two.name, two.kind, two.classes)


def stored(place: Path) -> Path:
    """The one data set in a cache."""
    (folder,) = (path for path in place.iterdir() if not path.name.startswith("."))
    return folder


# The cache


def mixed(path: Path) -> Path:
    """Classes and parts, grey images and coloured ones."""
    for part, count in (("train", 7), ("test", 3)):
        fill(path / part / "cats", pictures(count))
        fill(path / part / "dogs", pictures(count, channels=3, seed=1))
    return path


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        for file in sorted(mixed(path).rglob("*.png")):
            archive.write(file, file.relative_to(path))
    return path.with_suffix(".zip")


@pytest.mark.parametrize(
    "made",
    [
        mixed,
        zipped,
        lambda path: fill(path, pictures(30)),
        lambda path: fill(path, [*pictures(30), *pictures(1, channels=3)]),
    ],
    ids=["parts and classes", "zip", "a tenth held out", "one in colour"],
)
@pytest.mark.parametrize("settings", [{}, {"size": 5}, {"crop": 4, "channels": "grey"}])
def test_the_cache_holds_what_reading_into_memory_gives(tmp_path, made, settings, monkeypatch):
    path = made(tmp_path / "pictures")
    config = DataConfig(str(path), cache=str(tmp_path / "cache"), **settings)
    plain, first = load(DataConfig(str(path), **settings)), load(config)
    assert same(plain, first)
    assert plain.spread() == first.spread()
    monkeypatch.setattr(images, "decode", None)  # nothing is decoded again
    assert same(plain, load(config))


def test_an_altered_image_another_name_and_another_setting_are_other_data(tmp_path):
    path = fill(tmp_path / "pictures", pictures(20))

    def count(**settings) -> int:
        source = load(DataConfig(str(path), cache=str(tmp_path / "cache"), **settings))
        assert same(source, load(DataConfig(str(path), **settings)))
        return len(list((tmp_path / "cache").glob("[!.]*")))

    assert count() == count() == 1
    assert count(size=4) == 2
    assert count(channels="colour") == 3
    (path / "0003.png").write_bytes(pictures(1, seed=5)[0])
    assert count() == 4
    (path / "0003.png").rename(path / "9.png")
    assert count() == 5


def test_images_that_cannot_be_read_are_named_at_every_reading(tmp_path):
    path = fill(tmp_path / "pictures", [*pictures(199), b"no image"])
    config = DataConfig(str(path), cache=str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="1 of 200 images .*0199.png"):
        plain = load(DataConfig(str(path)))
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 200 images .*0199.png") as seen:
            assert same(plain, load(config))
        assert len(seen) == 1


@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
@pytest.mark.parametrize("file", [*cache.FILES, "manifest.json"])
def test_a_damaged_cache_is_noticed_and_made_again(tmp_path, file, harm):
    config = DataConfig(str(mixed(tmp_path / "pictures")), cache=str(tmp_path / "cache"))
    plain = load(config)
    target = stored(tmp_path / "cache") / file
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 4
    target.unlink()
    if harm != "remove":
        target.write_bytes(content if harm == "flip" else content[:-1])
    with pytest.warns(UserWarning, match="is damaged and made again"):
        assert same(plain, load(config))
    assert same(plain, load(config))


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (pictures(1), "at least 2"),
        ([*pictures(9), *pictures(1, side=6)], "differ in size: 0000.png is 8×8, 0009.png is 6×6"),
        ([*pictures(9), b"none"], "1 of 10 images .* more than 1%"),
    ],
)
def test_what_is_refused_leaves_nothing_in_the_cache(tmp_path, contents, reason):
    path = fill(tmp_path / "pictures", contents)
    for config in (DataConfig(str(path)), DataConfig(str(path), cache=str(tmp_path / "cache"))):
        with pytest.raises(ValueError, match=reason):
            load(config)
    assert not list((tmp_path / "cache").glob("[!.]*"))
    assert not list((tmp_path / "cache").glob(".part-*"))


def test_an_image_altered_between_its_hash_and_its_decoding_is_refused(tmp_path):
    contents = iter(pictures(60))
    found = images.ImageFiles(
        "x", list("abcdef"), lambda _: next(contents), lambda _: (None, None), LeftOut()
    )
    with pytest.raises(ValueError, match=r"'x' was altered while it was read, e\.g\. [a-f]"):
        cache.source(found, DataConfig(cache=str(tmp_path)))
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    path = fill(tmp_path / "pictures", pictures(8))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`cache` .*file' cannot be written"):
        load(DataConfig(str(path), cache=str(tmp_path / "file")))
    with pytest.raises(ValueError, match="`cache` has no meaning for 'digits'"):
        load(DataConfig("digits", cache=str(tmp_path)))


def test_what_is_written_to_a_tensor_does_not_reach_the_cache(tmp_path):
    config = DataConfig(
        str(fill(tmp_path / "pictures", pictures(20))), cache=str(tmp_path / "cache")
    )
    source = load(config)
    before = source.train.clone()
    source.train.zero_()
    assert torch.equal(load(config).train, before)


def reading(path: Path, place: Path, **options) -> subprocess.Popen:
    """Another process that reads a folder through the cache, and prints a hash of it."""
    program = (
        "import sys, hashlib; from monge.config import DataConfig; from monge.data import load;"
        "s = load(DataConfig(sys.argv[1], cache=sys.argv[2]));"
        "print(hashlib.sha256(s.train.numpy().tobytes()).hexdigest())"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(path), str(place)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
def test_a_kill_leaves_nothing_half_and_two_at_once_do_no_harm(tmp_path):
    path = fill(tmp_path / "pictures", pictures(10, side=500, channels=3) * 20)
    place = tmp_path / "cache"
    killed = reading(path, place)
    while not any(rows.stat().st_size for rows in place.glob(".part-*/rows")):
        assert killed.poll() is None, "it was done before it could be killed"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not list(place.glob("[!.]*"))
    assert list(place.glob(".part-*"))
    both = [reading(path, place) for _ in range(2)]
    printed = [process.communicate()[0].strip() for process in both]
    plain = hashlib.sha256(load(DataConfig(str(path))).train.numpy().tobytes()).hexdigest()
    assert printed == [plain, plain]
    assert [file.name for file in place.glob("[!.]*")] == [stored(place).name]
    assert not list(place.glob(".part-*"))


MEMORY = """
import ctypes, re, sys
from monge.config import DataConfig
from monge.data import load

def status(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

before, held = status("VmHWM"), status("RssAnon")
source = load(DataConfig(sys.argv[1], cache=sys.argv[2] or None))
peak = status("VmHWM") - before
source.spread()
ctypes.CDLL(None).malloc_trim(0)  # what the allocator has kept of freed memory is not held
print(source.train.numel() + source.test.numel(), peak, status("RssAnon") - held)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_through_the_cache_does_not_hold_the_pixels(tmp_path):
    """Peak of memory while 200 MB are decoded, and what is held of them after their spread was
    taken; read into memory they are held whole."""
    shade = np.arange(512, dtype=np.uint8)
    path = fill(tmp_path / "pictures", [png(np.broadcast_to(shade[:, None], (512, 512, 3)))] * 250)

    def measured(place: str) -> list[int]:
        command = [sys.executable, "-W", "error", "-c", MEMORY, str(path), place]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    pixels, peak, held = measured(str(tmp_path / "cache"))
    assert pixels == 250 * 3 * 512**2
    assert peak < pixels / 2
    assert held < pixels / 2
    _, peak, held = measured(str(tmp_path / "cache"))  # they are there by now
    assert peak < pixels / 2
    assert held < pixels / 2
    _, peak, held = measured("")
    assert peak > pixels
    assert held > pixels


@pytest.mark.skipif(sys.platform != "linux", reason="asks for the size of the memory")
def test_a_file_larger_than_memory_is_mapped(tmp_path):
    """Linux refuses private maps of more than memory and swap unless they reserve nothing."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    rows = 2 * (sizes["MemTotal"] + sizes["SwapTotal"])
    path = tmp_path / "train.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (rows, 1, 32, 32)}
        )
        try:
            file.truncate(file.tell() + 1024 * rows)
        except OSError:
            pytest.skip("the file system has no files of this size")
    x = cache.mapped(path)
    assert x.shape == (rows, 1, 32, 32)
    assert not x[[0, rows // 2, -1]].any()


def weights(run: Path) -> bytes:
    (newest,) = (run / "checkpoints").glob("step-*")
    return (newest / "model.safetensors").read_bytes()


def test_training_from_the_cache_ends_with_the_same_bits(tmp_path):
    path = fill(tmp_path / "pictures", pictures(64))
    for name, flags in (("plain", []), ("cached", ["--cache", str(tmp_path / "cache")])):
        parse(
            [
                "train",
                "wae-mmd",
                "--data",
                str(path),
                "--out",
                str(tmp_path / name),
                "--steps",
                "12",
                "--batch",
                "16",
                "--threads",
                "1",
                *flags,
            ]
        ).run()
    assert weights(tmp_path / "plain") == weights(tmp_path / "cached")
    assert same(Run(tmp_path / "plain").source, Run(tmp_path / "cached").source)
    config = json.loads((tmp_path / "cached" / "config.json").read_text())
    assert config["config"]["data"]["cache"] == str(tmp_path / "cache")


def test_a_run_goes_on_from_another_cache(tmp_path):
    path = fill(tmp_path / "pictures", pictures(64))

    def trained(steps: int, out: str, place: str | None, resume=False) -> None:
        data = DataConfig(str(path), cache=place and str(tmp_path / place))
        config = Config(data=data, training=TrainingConfig(steps=steps, batch=16), threads=1)
        monge.fit("wae-mmd", None, config, tmp_path / out, resume=resume, quiet=True)

    trained(4, "run", "one")
    trained(8, "run", "two", resume=True)
    trained(8, "other", None)
    newest = [tmp_path / run / "checkpoints" / "step-8" for run in ("run", "other")]
    one, two = (folder / "model.safetensors" for folder in newest)
    assert one.read_bytes() == two.read_bytes()


# Shards


def shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def labelled(contents: list[bytes], first: int = 0, folder: str = "") -> list[tuple[str, bytes]]:
    """Samples as WebDataset writes them: an image, then its label, the number modulo 11."""
    return [
        (f"{folder}{i:06}.{suffix}", content)
        for i, image in enumerate(contents, first)
        for suffix, content in (("png", image), ("cls", str(i % 11).encode()), ("json", b"{}"))
    ]


def test_shards_are_read_like_the_folder_of_their_images(tmp_path):
    contents = pictures(40)
    plain = load(DataConfig(str(fill(tmp_path / "pictures", contents))))
    for i in range(4):
        shard(tmp_path / "shards" / f"s-{i:02}.tar", labelled(contents[10 * i :][:10], 10 * i))
    whole = shard(tmp_path / "whole.tar", labelled(contents, folder="any/"))
    names = (
        str(whole),
        str(tmp_path / "shards"),
        str(tmp_path / "shards" / "s-*.tar"),
        str(tmp_path / "shards" / "s-{00..03}.tar"),
        str(tmp_path / "shards" / "s-{00,01,0?}.tar"),
    )
    for name in names:
        source = load(DataConfig(name))
        assert torch.equal(source.train, plain.train)
        assert torch.equal(source.test, plain.test)
        assert source.classes == tuple(map(str, range(11)))  # in the order of numbers
        order = torch.cat([source.train_labels, source.test_labels])
        assert sorted(order.tolist()) == sorted(i % 11 for i in range(40))
    both = [load(DataConfig(names[1], cache=str(tmp_path / "cache"))) for _ in range(2)]
    assert all(same(load(DataConfig(names[1])), source) for source in both)


def test_labels_stay_with_their_images(tmp_path):
    flat = [png(np.full((4, 4), 110 + i, np.uint8)) for i in range(30)]
    source = load(DataConfig(str(shard(tmp_path / "x.tar", labelled(flat)))))
    assert torch.equal(source.train[:, 0, 0, 0] % 11, source.train_labels)
    assert torch.equal(source.test[:, 0, 0, 0] % 11, source.test_labels)


def test_folders_of_shards_are_parts_and_folders_within_them_say_nothing(tmp_path):
    contents = pictures(30)
    shard(tmp_path / "train" / "a.tar", labelled(contents[:20], folder="dogs/"))
    shard(tmp_path / "test" / "a.tar", labelled(contents[20:], folder="cats/"))
    source = load(DataConfig(str(tmp_path)))
    assert (len(source.train), len(source.test)) == (20, 10)
    assert source.test_labels.tolist() == list(range(10))
    pattern = load(DataConfig(str(tmp_path / "{train,test}" / "*.tar")))
    assert torch.equal(pattern.test, source.test)


def test_damaged_members_are_counted_and_named_as_in_folders(tmp_path):
    members = [(f"{i}.jpg", content) for i, content in enumerate(pictures(199))]
    path = shard(tmp_path / "x.tar", [*members, ("bad.jpg", b"no image")])
    with pytest.warns(UserWarning, match=r"1 of 200 images .*x\.tar/bad\.jpg"):
        source = load(DataConfig(str(path)))
    assert source.train_labels is None
    few = shard(tmp_path / "y.tar", [*members[:20], ("bad.jpg", b"no image")])
    with pytest.raises(ValueError, match=r"1 of 21 images .* more than 1%"):
        load(DataConfig(str(few)))


def test_a_sample_without_a_label_among_labelled_ones_is_damaged(tmp_path):
    members = [member for member in labelled(pictures(200)) if member[0] != "000007.cls"]
    with pytest.warns(UserWarning, match=r"1 of 200 .*000007\.png \(it has no \.cls"):
        source = load(DataConfig(str(shard(tmp_path / "x.tar", members))))
    assert len(source.train) + len(source.test) == 199


def test_a_shard_cut_anywhere_is_named(tmp_path):
    whole = shard(tmp_path / "whole.tar", labelled(pictures(8))).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512
    target = tmp_path / "cut.tar"
    for cut in [*range(0, end + 512, 256), 1, 511, 513, 1000, end + 511]:
        target.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"`data` '.*cut\.tar'"):
            load(DataConfig(str(target)))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda whole: whole[:1024] + b"\xff" + whole[1025:], "truncated, damaged"),
        (lambda whole: whole + whole, "several archives in one"),
        (lambda whole: b"what", "not a complete tar archive"),
        (lambda whole: b"", "not a complete tar archive"),
        (lambda whole: __import__("gzip").compress(whole), "or gunzip it"),
    ],
    ids=["header", "concatenated", "text", "empty", "gzip"],
)
def test_damaged_shards_are_a_clear_error(tmp_path, made, reason):
    whole = shard(tmp_path / "whole.tar", labelled(pictures(8))).read_bytes()
    (tmp_path / "x.tar").write_bytes(made(whole))
    with pytest.raises(ValueError, match=reason):
        load(DataConfig(str(tmp_path / "x.tar")))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("s-{0..3}.tar", "not there: .*s-1.tar"),
        ("t-*.tar", "not there"),
        ("s-{3..0}.tar", "counts from 3 to 0"),
        ("s-{0..9999999}.tar", "1 to 100,000 shards"),
    ],
)
def test_missing_shards_are_named(tmp_path, name, reason):
    shard(tmp_path / "s-0.tar", labelled(pictures(8)))
    with pytest.raises(ValueError, match=reason):
        load(DataConfig(str(tmp_path / name)))


def test_shards_without_images_or_with_several_a_sample_are_refused(tmp_path):
    shard(tmp_path / "x.tar", [("a.txt", b"text")])
    with pytest.raises(ValueError, match="holds no images"):
        load(DataConfig(str(tmp_path / "x.tar")))
    one = pictures(1)[0]
    shard(tmp_path / "y.tar", [("a.png", one), ("a.jpg", one)])
    with pytest.raises(ValueError, match="a has several images"):
        load(DataConfig(str(tmp_path / "y.tar")))


def test_braces_are_written_out():
    assert tar.expanded("a-{08..10}-{x,yz}") == [
        f"a-{i}-{j}" for i in ("08", "09", "10") for j in ("x", "yz")
    ]


def test_what_webdataset_writes_is_read(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        webdataset = pytest.importorskip("webdataset")
        with webdataset.ShardWriter(str(tmp_path / "s-%03d.tar"), maxcount=7, verbose=0) as sink:
            for i in range(20):
                pixels = np.full((4, 4, 3), 99 + i, np.uint8)
                sink.write({"__key__": f"k{i:03}", "png": pixels, "cls": i % 3})
    source = load(DataConfig(str(tmp_path / "s-{000..002}.tar")))
    assert len(source.train) + len(source.test) == 20
    assert torch.equal(source.train[:, 0, 0, 0] % 3, source.train_labels)


# Data sets of Hugging Face


def test_without_the_package_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs the package datasets: pip install 'monge\[hugg"):
        load(DataConfig("hf:ylecun/mnist"))


@pytest.fixture
def hub(monkeypatch):
    """The package, kept from any network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = pytest.importorskip("datasets")
        datasets.disable_progress_bars()
    return datasets


def rows(datasets, contents: list[bytes], first: int = 0, classes=("eel", "cat", "bat")):
    features = datasets.Features(
        {
            "label": datasets.ClassLabel(names=list(classes)),
            "number": datasets.Value("int64"),
            "picture": datasets.Image(),
        }
    )
    numbers = list(range(first, first + len(contents)))
    return datasets.Dataset.from_dict(
        {
            "label": [i % 3 for i in numbers],
            "number": numbers,
            "picture": [{"bytes": content, "path": None} for content in contents],
        },
        features=features,
    )


def test_a_saved_data_set_is_read_like_the_folder_of_its_images(tmp_path, hub):
    contents = pictures(40)
    plain = load(DataConfig(str(fill(tmp_path / "pictures", contents)), size=6))
    rows(hub, contents).save_to_disk(str(tmp_path / "saved"))
    name = f"hf:{tmp_path / 'saved'}"
    source = load(DataConfig(name, size=6))
    assert torch.equal(source.train, plain.train)
    assert torch.equal(source.test, plain.test)
    assert source.classes == ("bat", "cat", "eel")
    cached = [load(DataConfig(name, size=6, cache=str(tmp_path / "cache"))) for _ in range(2)]
    assert all(same(source, one) for one in cached)


def test_splits_are_parts_and_class_labels_stay_with_their_images(tmp_path, hub):
    flat = [png(np.full((4, 4), 100 + i, np.uint8)) for i in range(30)]
    splits = {
        "train": rows(hub, flat[:20]),
        "validation": rows(hub, flat[20:24], 20),
        "test": rows(hub, flat[24:], 24).select(range(5, -1, -1)),
    }
    hub.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    source = load(DataConfig(f"hf:{tmp_path / 'saved'}"))
    assert source.test[:, 0, 0, 0].tolist() == [129, 128, 127, 126, 125, 124]
    names = [("eel", "cat", "bat")[i % 3] for i in range(20)]
    assert [source.classes[label] for label in source.train_labels] == names


def test_labels_that_are_kept_back_are_no_labels(tmp_path, hub):
    some = rows(hub, pictures(12))
    some = some.map(lambda row: {"label": -1} if row["number"] == 3 else row)
    some.save_to_disk(str(tmp_path / "saved"))
    assert load(DataConfig(f"hf:{tmp_path / 'saved'}")).train_labels is None


def test_data_sets_that_cannot_be_read_are_named(tmp_path, hub):
    some = rows(hub, pictures(12))
    some.remove_columns("picture").save_to_disk(str(tmp_path / "none"))
    pair = {name: [{"bytes": content, "path": None} for content in pictures(12)] for name in "ab"}
    features = hub.Features({name: hub.Image() for name in "ab"})
    hub.Dataset.from_dict(pair, features=features).save_to_disk(str(tmp_path / "two"))
    for name, reason in (
        ("none", "0 columns of images among label, number"),
        ("two", "2 columns of images"),
    ):
        with pytest.raises(ValueError, match=reason):
            load(DataConfig(f"hf:{tmp_path / name}"))
    torn = tmp_path / "torn"
    some.save_to_disk(str(torn))
    (arrow,) = torn.glob("*.arrow")
    os.truncate(arrow, 100)
    with pytest.raises(ValueError, match=r"`data` 'hf:.*torn' cannot be read"):
        load(DataConfig(f"hf:{torn}"))
    with pytest.raises(ValueError, match="`data` 'hf:nobody/nothing' cannot be read"):
        load(DataConfig("hf:nobody/nothing"))
