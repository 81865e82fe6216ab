"""Files of samples with bytes changed: each is read, or refused in one line."""

import gzip
import io
import random
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from attacks.fuzzing import Fuzz, mutated
from monge.config import DataConfig
from monge.data import load
from monge.data.readers import clouds as readers_of_clouds

Files = dict[str, bytes]
"""Content by the name of the file."""


def _picture(form: str, mode: str = "L", **options) -> bytes:
    content = io.BytesIO()
    Image.effect_noise((5, 5), 40).convert(mode).save(content, form, **options)
    return content.getvalue()


def pictures() -> Files:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "a.png": _picture("PNG", exif=exif),
        "b.jpg": _picture("JPEG", "RGB", exif=exif),
        "c.bmp": _picture("BMP"),
        "d.gif": _picture("GIF"),
        "e.webp": _picture("WEBP", "RGB"),
        "f.tif": _picture("TIFF", compression="tiff_deflate"),
        "g.ppm": _picture("PPM", "RGB"),
        "h.png": _picture("PNG", "P"),
        "i.png": _picture("PNG", "I;16"),
        "j.tiff": _picture("TIFF", "RGBA"),
    }


def clouds() -> Files:
    corners = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0.4, 0.5, 0), (0, 1, 0)]
    text = "".join(f"{x} {y} {z}\n" for x, y, z in corners)
    head = (
        "ply\nformat {} 1.0\ncomment made\nelement vertex 5\nproperty float x\nproperty float y\n"
        "property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    body = b"".join(struct.pack("<3f", *corner) for corner in corners)
    stl = b"\0" * 80 + struct.pack("<I", 1) + struct.pack("<12fH", *range(9), 9, 1, 2, 0)
    array = io.BytesIO()
    np.save(array, np.array(corners))
    return {
        "a.ply": f"{head.format('ascii')}{text}5 0 1 2 3 4\n".encode(),
        "b.ply": head.format("binary_little_endian").encode()
        + body
        + b"\5"
        + struct.pack("<5i", *range(5)),
        "c.obj": (
            "".join(f"v {line}\n" for line in text.split("\n")[:-1]) + "f 1 2 3 4 5\n"
        ).encode(),
        "d.off": f"OFF\n5 1 0\n{text}5 0 1 2 3 4\n".encode(),
        "e.xyz": text.encode(),
        "f.stl": stl,
        "g.npy": array.getvalue(),
    }


def tables() -> Files:
    rows = [f"{i},{i / 7:.3f},{'ab'[i % 2]},{-i}" for i in range(8)]
    return {
        "a.csv": ("x,y,label,z\n" + "\n".join(rows) + "\n").encode(),
        "b.csv": "\n".join(f'"{i}","{i / 3:.3f}"' for i in range(8)).encode(),
        "c.tsv": "\n".join(f"{i}\t{i / 3:.3f}" for i in range(8)).encode(),
        "d.csv": "\n".join(f"{i};{i / 3:.3f}".replace(".", ",") for i in range(8)).encode(),
        "e.txt": "\n".join(f"{i / 3:.3f}" for i in range(8)).encode(),
        "f.csv": ("n|größe\n" + "".join(f"{i}|{i}.5\n" for i in range(8))).encode("utf-16"),
        "g.csv": ("kind,x\n" + "".join(f'"a, {i % 3}",{i}\r\n' for i in range(9))).encode(),
    }


def arrays() -> Files:
    x = np.arange(48, dtype=np.float64).reshape(12, 4)
    npy, npz, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, x)
    images = (x.reshape(12, 2, 2) / 48).astype(np.float32)
    np.savez(npz, images=images, labels=np.arange(12) % 3, class_names=["a", "b", "c"])
    np.savez_compressed(packed, x=x, split=["train", "test"] * 6, unused=np.zeros(100))
    return {"a.npy": npy.getvalue(), "b.npz": npz.getvalue(), "c.npz": packed.getvalue()}


def idx_files() -> Files:
    files = {}
    for part, n in (("train", 6), ("t10k", 4)):
        images = b"\0\0\x08\3" + struct.pack(">3i", n, 3, 3) + bytes(range(9 * n))
        labels = b"\0\0\x08\1" + struct.pack(">i", n) + bytes(range(n))
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(images, mtime=0)
        files[f"{part}-labels-idx1-ubyte"] = labels
    return files


def archives() -> Files:
    packed, shard = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(4):
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", _picture("PNG"))
    with tarfile.open(fileobj=shard, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for i in range(4):
            for name, content in ((f"{i}é.png", _picture("PNG")), (f"{i}é.cls", b"1")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return {"a.zip": packed.getvalue(), "b.tar": shard.getvalue()}


def _one_changed(made: dict[str, Files], rng: random.Random) -> Files:
    """Files of one kind, one of which is changed."""
    files = made[rng.choice(sorted(made))]
    name = rng.choice(sorted(files))
    return files | {name: mutated(files[name], rng)}


def _loaded(folder: Path, files: Files, **settings) -> None:
    """Reads a folder of files, or the only file in it."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    (folder / "data").mkdir()
    for name, content in files.items():
        (folder / "data" / name).write_bytes(content)
    path = folder / "data" if len(files) > 1 else folder / "data" / next(iter(files))
    load(DataConfig(str(path), **settings))


def _images(folder: Path, rng: random.Random) -> None:
    name, content = rng.choice(sorted(pictures_made(folder).items()))
    files = {f"{i}{Path(name).suffix}": content for i in range(2)}
    changed = {f"{rng.randrange(2)}{Path(name).suffix}": mutated(content, rng)}
    _loaded(folder, files | changed, size=rng.choice((None, 4)))


def pictures_made(folder: Path) -> Files:
    return {file.name: file.read_bytes() for file in (folder / "made").iterdir()}


def _prepared_images(folder: Path) -> Path:
    (folder / "made").mkdir()
    for name, content in pictures().items():
        (folder / "made" / name).write_bytes(content)
    return folder


def _cloud(folder: Path, rng: random.Random) -> None:
    name, content = rng.choice(sorted(clouds().items()))
    content = mutated(content, rng)
    if rng.random() < 0.9:
        readers_of_clouds.decode(content, Path(name).suffix, 4, name)
    else:
        _loaded(folder, {name: content, f"other-{name}": clouds()[name]}, points=4)


def _single(made):
    def case(folder: Path, rng: random.Random) -> None:
        name, content = rng.choice(sorted(made.items()))
        settings = {"missing": "indicator"} if name.endswith("sv") and rng.random() < 0.3 else {}
        _loaded(folder, {name: mutated(content, rng)}, **settings)

    return case


def _array(folder: Path, rng: random.Random) -> None:
    if rng.random() < 0.3:
        _loaded(folder, _one_changed({"idx": idx_files()}, rng))
    else:
        _single(arrays())(folder, rng)


FUZZES = (
    Fuzz("images", _prepared_images, _images),
    Fuzz("clouds", lambda folder: folder, _cloud),
    Fuzz("tables", lambda folder: folder, _single(tables())),
    Fuzz("arrays", lambda folder: folder, _array),
    Fuzz("archives", lambda folder: folder, _single(archives())),
)
