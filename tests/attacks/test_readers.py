"""Readers take memory and time by what they read, whatever a file promises."""

import gzip
import io
import os
import socket
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from folders import filled, loaded, picture
from PIL import Image

from attacks.fuzzing import limited
from attacks.spent import spent
from monge._core.untrusted import read_regular
from monge.config import DataConfig
from monge.data import load
from monge.data.readers import clouds
from monge.data.readers.caps import MOST_PIXELS, MOST_RATIO

linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
CONSTANT = 80
"""MiB that a reader may take whatever it reads."""


def _table(path: Path, n: int, d: int, quoted: bool = False, gaps: bool = False) -> Path:
    x = np.random.default_rng(0).normal(size=(n, d)).round(5).astype(str)
    if gaps:
        x[:, ::7] = np.where(np.arange(n)[:, None] % 5, x[:, ::7], "")
    sign = '"' if quoted else ""
    path.write_text("\n".join(sign + f"{sign},{sign}".join(row) + sign for row in x.tolist()))
    return path


@linux
@pytest.mark.parametrize(
    ("n", "d", "options"),
    [
        (50, 20_000, {}),
        (50, 20_000, {"quoted": True}),
        (25_000, 50, {}),
        (25_000, 50, {"quoted": True}),
        (25_000, 30, {"gaps": True}),
    ],
)
def test_tables_take_four_times_their_cells(tmp_path, n, d, options):
    """A table of 50 × 20,000 took gigabytes."""
    sizes = [_table(tmp_path / f"{k}.csv", n, d // k, **options) for k in (2, 1)]
    settings = {"missing": "indicator"} if options.get("gaps") else {}
    results = spent(*sizes, **settings)
    assert [found["refusal"] for found in results] == [None] * 2
    for k, found in zip((2, 1), results):
        cells = n * (d // k) * 8 / 2**20
        assert found["memory"] < CONSTANT + 4 * cells
    assert results[1]["seconds"] < 3 * results[0]["seconds"] + 1


LONG = {
    "nothing but zeros": bytes(300_000_000),
    "a text with a hole": b"a,b\n" + b"1,2\n" * 5000 + bytes(300_000_000),
    "a cell of 10 MB": b"a,b\n1,2\n3," + b"x" * 10_000_000 + b"\n4,5\n",
    "one cell": b"1" * 10_000_000,
    "a million empty columns": b"," * 999_999 + b"\n",
    "more columns than the cap": b"1" + b"," * 3_000_000,
    "only newlines": b"1" + b"\n" * 5_000_000,
    "a quote never closed": b"1,2\n" * 500_000 + b'"3,4\n' + b"5,6\n" * 500_000,
    "quotes alone": b'"' * 4_000_000 + b"1",
    "newlines in quotes": b'1,"' + b'"\n"' * 1_000_000 + b'"',
    "blanks at quotes": b'1,"2"\n' + b' "' * 1_000_000 + b"\n",
    "doubled quotes": b'1, "' + b'""' * 2_000_000 + b'x,2\n3,"4"\n',
    "blank lines": b"1,2\n" + b" \n" * 2_000_000,
}


def refused(place, files: dict[str, bytes], suffix: str, seconds: float, memory: float) -> None:
    """Every file is refused, in less than so many seconds and MiB."""
    paths = [place / f"{i}{suffix}" for i in range(len(files))]
    for path, content in zip(paths, files.values()):
        path.write_bytes(content)
    for name, found in zip(files, spent(*paths)):
        assert found["refusal"] is not None, name
        assert found["seconds"] < seconds, (name, found)
        assert found["memory"] < memory, (name, found)


@linux
def test_odd_tables_take_no_time(tmp_path):
    refused(tmp_path, LONG, ".csv", seconds=10, memory=600)


def test_a_table_without_a_newline_at_its_end_has_its_last_row(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"1,2\n" * 9 + b"3,4")
    source = loaded(tmp_path / "x.csv")
    assert len(source.train) + len(source.test) == 10


HEAD = b"ply\nformat ascii 1.0\n"
VERTICES = b"element vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
POINTS = b"end_header\n0 0 0\n1 0 0\n0 1 0\n"
STAR = np.stack(
    [(1 + np.arange(1000) % 2) * f(np.arange(1000) * np.pi / 500) for f in (np.cos, np.sin)], 1
)
CLOUDS = {
    "rows of no bytes": (
        b"ply\nformat binary_little_endian 1.0\nelement junk 1000000000000\n"
        b"element vertex 80\nproperty float x\nproperty float y\nproperty float z\n"
        b"end_header\n" + bytes(960),
        ".ply",
    ),
    "newlines": (HEAD + b"\n" * 1_000_000 + VERTICES + POINTS, ".ply"),
    "comments": (HEAD + b"comment x\n" * 90_000 + VERTICES + POINTS, ".ply"),
    "more comments than the cap": (HEAD + b"obj_info x\n" * 1_000_000 + VERTICES, ".ply"),
    "elements": (HEAD + b"element a 0\n" * 80_000 + VERTICES + POINTS, ".ply"),
    "properties": (HEAD + VERTICES + b"property float a\n" * 60_000 + POINTS, ".ply"),
    "a billion vertices": (HEAD + VERTICES.replace(b"3", b"1000000000") + POINTS, ".ply"),
    "wide vertices": (
        HEAD
        + b"element vertex 100000\n"
        + b"property double a\n" * 900
        + b"end_header\n"
        + b"1" * 200_000,
        ".ply",
    ),
    "a long face": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf" + b" 1 2 3" * 100_000, ".obj"),
    "a star of 100,000 corners": (
        b"".join(b"v %d %d 0\n" % (i, i % 2) for i in range(100_000))
        + b"f "
        + b" ".join(b"%d" % i for i in range(1, 100_001)),
        ".obj",
    ),
    "stars": (
        b"".join(b"v %f %f 0\n" % (x, y) for x, y in STAR)
        + (b"f " + b" ".join(b"%d" % i for i in range(1000, 0, -1)) + b"\n") * 10,
        ".obj",
    ),
    "a billion faces": (b"OFF\n3 1000000000 0\n0 0 0\n1 0 0\n0 1 0\n", ".off"),
    "a face of a billion": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n1000000000 1\n", ".off"),
    "comments in OFF": (b"#" * 2_000_000 + b"\nOFF\n", ".off"),
    "continued lines": (b"v 0 0 0 \\\n" * 500_000, ".obj"),
    "a long line": (b"1 " * 3_000_000, ".xyz"),
}


@pytest.mark.parametrize("name", CLOUDS)
def test_odd_clouds_take_no_time(name):
    """A header of 40,000 newlines took 49 s."""
    content, suffix = CLOUDS[name]
    began, refusal = time.process_time(), ""
    try:
        clouds.decode(content, suffix, 3, f"x{suffix}")
    except ValueError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert time.process_time() - began < 8


def _npy(
    shape: str, descr: str = "'<f8'", body: bytes = b"\0" * 64, version: int = 1, pad: int = 0
) -> bytes:
    header = (
        f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
        + b" " * pad
        + b"\n"
    )
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + body


def _packed(members: dict[str, bytes], **claims) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


ARRAYS = {
    "huge": (
        _npy("(1000000000, 1000)"),
        "promises",
    ),
    "beyond any memory": (_npy("(9223372036854775807, 9223372036854775807)"), "promises"),
    "negative": (_npy("(-4, -2)"), "promises"),
    "objects": (_npy("(4,)", "'|O'"), "only numbers and texts"),
    "records": (_npy("(4,)", "[('a', '<f8'), ('b', '<f8')]"), "only numbers and texts"),
    "nothing for ever": (_npy("(1000000000000,)", "'<U0'"), "promises"),
    "a long header": (_npy("(8,)", version=2, pad=10_000_000), "header"),
    "version 3": (_npy("(8,)", version=3), "version 3.0"),
    "version 9": (_npy("(8,)", version=9), "9"),
    "packed and huge": (_packed({"x.npy": _npy("(1000000000, 1000)")}), "promises"),
    "packed nested": (_packed({"x.npy": b"[" * 5000}), "not readable"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_refused_by_its_header(tmp_path, name):
    content, reason = ARRAYS[name]
    path = tmp_path / ("x.npz" if name.startswith("packed") else "x.npy")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        loaded(path)
    assert "\n" not in str(caught.value)


def test_arrays_in_other_orders_and_versions_are_read(tmp_path):
    x = np.arange(40.0).reshape(20, 2)
    np.save(tmp_path / "f.npy", np.asfortranarray(x))
    (tmp_path / "2.npy").write_bytes(_npy("(20, 2)", version=2, body=x.tobytes()))
    np.save(tmp_path / "c.npy", x)
    sources = [loaded(tmp_path / name) for name in ("f.npy", "2.npy", "c.npy")]
    assert len({source.identity.fingerprint for source in sources}) == 1


@linux
def test_only_the_keys_that_are_used_are_unpacked(tmp_path):
    """A gigabyte of zeros under another key costs nothing, and as samples it is honest data."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w") as file:
            np.lib.format.write_array(file, np.arange(40.0).reshape(20, 2))
        with archive.open("bomb.npy", "w", force_zip64=True) as file:
            file.write(_npy("(134217728,)", body=b""))
            for _ in range(1024):
                file.write(b"\0" * 2**20)
    (found,) = spent(path)
    assert found["refusal"] is None
    assert found["memory"] < 40
    masks = np.zeros((2000, 32, 32), np.uint8)
    masks[:, 0, 0] = np.arange(2000) % 256
    np.savez_compressed(tmp_path / "masks.npz", images=masks)
    assert loaded(tmp_path / "masks.npz").shape == (1, 32, 32)


def test_a_directory_that_promises_more_than_is_packed_is_refused(tmp_path):
    content = bytearray(_packed({f"{i}.png": picture(i) for i in range(4)}))
    at = content.rindex(b"PK\1\2")
    content[at + 24 : at + 28] = struct.pack("<I", 2**31)
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ValueError, match=f"at most {MOST_RATIO:,} times"):
        loaded(tmp_path / "x.zip")


def test_members_that_overlap_are_refused(tmp_path):
    """Fifield, "A better zip bomb", 2019: many entries of the directory share one kernel."""
    content = _packed({"0.png": b"\0" * 2**20})
    at, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entry = content[at:end]
    entries = b"".join(entry.replace(b"0.png", b"%05d" % i) for i in range(9000))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9000, 9000, len(entries), at, 0)
    (tmp_path / "x.zip").write_bytes(content[:at] + entries + tail)
    with pytest.raises(ValueError, match="times as many can be packed"):
        loaded(tmp_path / "x.zip")


@pytest.mark.parametrize("zipped", [False, True])
def test_an_idx_file_is_refused_by_its_header(tmp_path, zipped):
    head = b"\0\0\x08\3" + struct.pack(">3i", 2**14, 2**10, 2**10) + bytes(1000)
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(gzip.compress(head) if zipped else head)
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(b"\0\0\x08\1" + struct.pack(">i", 4) + bytes(4))
    with pytest.raises(ValueError, match=r"promises|memory"):
        loaded(tmp_path)


@linux
def test_thousands_of_members_and_a_thousand_folders(tmp_path):
    """Read or refused, in seconds."""
    content = picture(1)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(10_000):
            archive.writestr(f"{i}.txt", b"")
        archive.writestr("/".join(["d"] * 20_000) + "/0.png", content)
        for i in range(4):
            archive.writestr("/".join(["e"] * 1000) + f"/{i}.png", picture(i))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for i in range(10_000):
            member = tarfile.TarInfo(f"{i}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    deep = tmp_path / "deep"
    deep.mkdir()
    handle = os.open(deep, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    for i in range(4):
        with open(os.open(f"{i}.png", os.O_CREAT | os.O_WRONLY, dir_fd=handle), "wb") as file:
            file.write(picture(i))
    os.close(handle)
    results = spent(tmp_path / "x.zip", tmp_path / "x.tar", deep)
    # Python's own removal is recursive, and pytest's would fail at a folder as deep
    subprocess.run(["rm", "-rf", str(deep)], check=True)
    for found in results:
        assert found["refusal"] is None
        assert found["seconds"] < 15
        assert found["memory"] < 200


def _header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    head = bytearray(
        struct.pack(
            "100s8s8s8s12s12s8s1s100s8s",
            name,
            b"0000644",
            b"",
            b"",
            size,
            b"0",
            b" " * 8,
            kind,
            b"",
            b"ustar\x0000",
        ).ljust(512, b"\0")
    )
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


TARS = {
    "negative size": _header(b"0.png", b"\xff" * 12) + bytes(10240),
    "size beyond the file": _header(b"0.png", b"77777777777") + bytes(10240),
    "long name beyond the file": _header(b"x", b"77777777777", b"L") + bytes(10240),
    "records of any length": _header(b"x", b"%011o" % 200_000, b"x")
    + b"9" * 200_192
    + bytes(10240),
    "records in records": _header(b"x", b"%011o" % 0, b"x") * 5000 + bytes(10240),
    "sparse": _header(b"0.png", b"%011o" % 0, b"S") + bytes(10240),
}


@linux
def test_odd_tar_archives_take_no_time(tmp_path):
    refused(tmp_path, TARS, ".tar", seconds=5, memory=100)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def _png(*chunks: bytes, claimed: int = 4) -> bytes:
    head = struct.pack(">IIBBBBB", claimed, claimed, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(20))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [_chunk(b"IHDR", head), *chunks, _chunk(b"IDAT", body), _chunk(b"IEND", b"")]
    )


def _exif(entries: int, size: int) -> bytes:
    """Tags that all share one content, of which each reader makes a copy."""
    at = 14 + 12 * entries
    tags = b"".join(struct.pack("<HHLL", 40_000 + i, 7, size, at) for i in range(entries))
    return b"II*\0" + struct.pack("<LH", 8, entries) + tags + bytes(4 + size)


ZEROS = zlib.compress(bytes(2**26), 9)
PICTURES = {
    "EXIF": _png(_chunk(b"eXIf", _exif(4000, 500_000))),
    "TIFF": _exif(4000, 500_000),
    "zTXt": _png(_chunk(b"zTXt", b"x\0\0" + ZEROS)),
    "iTXt": _png(_chunk(b"iTXt", b"x\0\1\0\0\0" + ZEROS)),
    "iCCP": _png(_chunk(b"iCCP", b"x\0\0" + ZEROS)),
    "many zTXt": _png(*[_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(10**6)))] * 200),
    "pixels": _png(claimed=2**16),
}


@linux
def test_pictures_take_no_more_than_their_pixels(tmp_path):
    """548 kB of EXIF in a PNG took 1.9 GB before Pillow 13."""
    for i, content in enumerate(PICTURES.values()):
        filled(tmp_path / str(i), {"a.png": content, "b.png": 1})
    for name, found in zip(PICTURES, spent(*(tmp_path / str(i) for i in range(len(PICTURES))))):
        assert found["memory"] < 100, (name, found)
        assert found["seconds"] < 5, (name, found)


def test_a_cap_is_in_the_message(tmp_path):
    filled(tmp_path, {"a.png": _png(claimed=10_000), "b.png": 1})
    with pytest.raises(ValueError, match=f"over the cap of {MOST_PIXELS:,}"):
        loaded(tmp_path)


@pytest.mark.parametrize("form", ["ICO", "TGA", "PCX", "EPS", "DDS", "SGI"])
def test_other_formats_are_not_decoded(tmp_path, form):
    content = io.BytesIO()
    Image.new("RGB", (16, 16)).save(content, form)
    filled(tmp_path, {"a.png": content.getvalue(), "b.png": content.getvalue()})
    with pytest.raises(ValueError, match="in no format that is read"):
        loaded(tmp_path)


@linux
def test_what_a_kernel_makes_up_is_not_read(tmp_path):
    """Regular files that never end, by a link or by their own names."""
    for name in ("k.csv", "k.npy", "k.zip", "k.tar"):
        (tmp_path / name).symlink_to("/proc/self/mem")
        with pytest.raises(ValueError, match="of the kernel"):
            loaded(tmp_path / name)
    with pytest.raises(ValueError, match="of the kernel"):
        loaded("/proc")
    filled(tmp_path / "faces", {f"{i}.png": i for i in range(4)})
    for name, place in {"a": "/proc", "b": "/sys", "c.png": "/proc/version"}.items():
        (tmp_path / "faces" / name).symlink_to(place)
    with pytest.warns(UserWarning, match="3 of the kernel"):
        source = loaded(tmp_path / "faces")
    assert len(source.train) + len(source.test) == 4


@linux
def test_long_cells_are_read_in_linear_time(tmp_path):
    """A hundred thousand digits, with and without what makes them no number."""
    for end in ("", "x", "e"):
        (tmp_path / "x.csv").write_text("a,b\n" + ("0." + "1" * 100_000 + f"{end},1\n") * 30)
        with limited(10):
            assert len(loaded(tmp_path / "x.csv").train) > 20


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_pipes_sockets_and_devices_are_left_out(tmp_path):
    filled(tmp_path, {f"{i}.png": i for i in range(4)})
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink("/dev/zero", tmp_path / "device.png")
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(tmp_path)
        one.bind("socket.png")
    with pytest.warns(UserWarning, match="3 neither files nor folders"):
        source = loaded(tmp_path)
    assert len(source.train) + len(source.test) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes of names")
def test_a_pipe_is_not_waited_for_that_takes_the_place_of_a_file(tmp_path):
    os.mkfifo(tmp_path / "x")
    with pytest.raises(ValueError, match="not a regular file"):
        read_regular(tmp_path / "x")


def test_real_data_are_not_refused():
    data = Path(__file__).parents[3] / "shared" / "data"
    if not data.is_dir():
        pytest.skip("no real data beside the project")
    for place in (data / "mnist", *sorted((data / "pointclouds").glob("*.npz"))):
        load(DataConfig(str(place)))
