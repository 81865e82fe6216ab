"""Corrupt data: valid small files of every format, changed at random, are read or refused.

Survived: `monge.data.load` returns finite samples, or raises a ValueError that names the file or
its folder in one line; within ten seconds, and without another warning than the one that counts
files left out. Masks of known parts are read by `monge.masks.mask`.
"""

import contextlib
import gzip
import io
import random
import re
import resource
import shutil
import signal
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from monge.config import DataConfig
from monge.data import load
from monge.models.masks import mask

from .common import Tally

SECONDS = 10
PICTURES = ("png", "jpg", "gif", "bmp", "webp", "tif", "ppm", "pgm")
POINTS = 8
NAME = "mangled"
"""Of all data sets, a word that no message has of itself."""


class Sample(NamedTuple):
    """A valid data set."""

    data: Path
    """What is read."""
    file: Path
    """The one of its files that is damaged."""
    read: Callable[[Path], object]


def as_data(path: Path) -> torch.Tensor:
    source = load(DataConfig(str(path)))
    return torch.cat([source.train.flatten(), source.test.flatten()])


def as_clouds(path: Path) -> torch.Tensor:
    source = load(DataConfig(str(path), points=POINTS))
    return torch.cat([source.train.flatten(), source.test.flatten()])


def as_mask(path: Path) -> torch.Tensor:
    found = mask(str(path), (1, 8, 8))
    return found(1)


def picture(suffix: str, i: int = 0, size: int = 8) -> bytes:
    """A small picture, grey, in colour, with a palette or transparent by its number."""
    values = np.random.default_rng(i).integers(0, 256, (size, size, 4), np.uint8)
    image = Image.fromarray(values)
    several = {"png": ("L", "RGB", "RGBA", "P", "LA", "1", "I;16"), "tif": ("L", "RGB", "I;16")}
    modes = several.get(suffix, ("L",) if suffix == "pgm" else ("RGB",))
    mode = modes[i % len(modes)]
    image = (
        image.convert("L").convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
    )
    content = io.BytesIO()
    image.save(content, {"jpg": "JPEG", "tif": "TIFF", "pgm": "PPM"}.get(suffix, suffix.upper()))
    return content.getvalue()


def pictures(folder: Path, suffix: str, chosen: random.Random) -> Sample:
    data = folder / NAME
    data.mkdir()
    for i in range(8):
        (data / f"{i}.{suffix}").write_bytes(picture(suffix, i))
    return Sample(data, data / f"{chosen.randrange(8)}.{suffix}", as_data)


def archive(folder: Path, chosen: random.Random) -> Sample:
    data = folder / f"{NAME}.zip"
    how = chosen.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(data, "w", how) as zipped:
        for i in range(8):
            zipped.writestr(f"{i % 2}/{i}.png", picture("png", i))
    return Sample(data, data, as_data)


def idx(folder: Path, suffix: str, chosen: random.Random) -> Sample:
    data = folder / NAME
    data.mkdir()
    values = np.random.default_rng(0)
    for part, n in (("train", 8), ("t10k", 4)):
        for kind, shape in (("images-idx3", (n, 5, 5)), ("labels-idx1", (n,))):
            content = struct.pack(f">4B{len(shape)}i", 0, 0, 8, len(shape), *shape)
            content += values.integers(0, 9, shape, np.uint8).tobytes()
            content = gzip.compress(content) if suffix else content
            (data / f"{part}-{kind}-ubyte{suffix}").write_bytes(content)
    return Sample(data, chosen.choice(sorted(data.iterdir())), as_data)


def npy(folder: Path, chosen: random.Random) -> Sample:
    values, data = np.random.default_rng(0), folder / f"{NAME}.npy"
    kinds = [
        values.normal(size=(20, 3)),
        values.integers(0, 256, (8, 6, 6), np.uint8),
        values.random((8, 3, 4, 4), np.float32),
    ]
    np.save(data, chosen.choice(kinds))
    return Sample(data, data, as_data)


def npz(folder: Path, chosen: random.Random) -> Sample:
    values, data = np.random.default_rng(0), folder / f"{NAME}.npz"
    labels = {"labels": np.arange(20) % 3, "split": np.repeat(["train", "test"], [15, 5])}
    saved = chosen.choice([np.savez, np.savez_compressed])
    saved(data, x=values.normal(size=(20, 3)), class_names=np.array(["a", "b", "c"]), **labels)
    return Sample(data, data, as_data)


def csv(folder: Path, chosen: random.Random) -> Sample:
    data = folder / f"{NAME}.csv"
    rows = [f"{i / 7:.3f},{i * i},{'cat' if i % 3 else 'dog'}" for i in range(20)]
    header = ["height,weight,class"]
    data.write_text(
        "\n".join(
            header + rows if chosen.random() < 0.7 else [row.rsplit(",", 1)[0] for row in rows]
        )
        + "\n"
    )
    return Sample(data, data, as_data)


def coordinates(i: int) -> np.ndarray:
    return np.random.default_rng(i).normal(size=(12, 3)).round(3)


def xyz(folder: Path, chosen: random.Random) -> Sample:
    def content(i: int) -> bytes:
        return "\n".join(" ".join(map(str, row)) for row in coordinates(i)).encode()

    return _clouds(folder, "xyz", content, chosen)


def ply(folder: Path, order: str, chosen: random.Random) -> Sample:
    kind = "float" if order == "ascii" else chosen.choice(["float", "double"])
    head = f"ply\nformat {order} 1.0\nelement vertex 12\n"
    head += "".join(f"property {kind} {axis}\n" for axis in "xyz")
    head += "property uchar red\nelement face 1\nproperty list uchar int v\nend_header\n"

    def content(i: int) -> bytes:
        if order == "ascii":
            rows = [" ".join(map(str, row)) + " 7" for row in coordinates(i)]
            return (head + "\n".join(rows) + "\n3 0 1 2\n").encode()
        byte = "<" if order.endswith("little_endian") else ">"
        size = "d" if kind == "double" else "f"
        body = b"".join(struct.pack(f"{byte}3{size}B", *row, 7) for row in coordinates(i))
        return head.encode() + body + struct.pack(f"{byte}B3i", 3, 0, 1, 2)

    return _clouds(folder, "ply", content, chosen)


def off(folder: Path, chosen: random.Random) -> Sample:
    def content(i: int) -> bytes:
        rows = [" ".join(map(str, row)) for row in coordinates(i)]
        faces = [f"3 {k} {k + 1} {k + 2}" for k in range(9)] + ["4 0 3 6 9"]
        return "\n".join(["OFF", "12 10 0", *rows, *faces, ""]).encode()

    return _clouds(folder, "off", content, chosen)


def obj(folder: Path, chosen: random.Random) -> Sample:
    def content(i: int) -> bytes:
        rows = [" ".join(["v", *map(str, row)]) for row in coordinates(i)]
        faces = [f"f {k} {k + 1} {k + 2}" for k in range(1, 10)] + ["f 1 4 7 10"]
        return "\n".join([*rows, *faces, ""]).encode()

    return _clouds(folder, "obj", content, chosen)


def stl(folder: Path, chosen: random.Random) -> Sample:
    def content(i: int) -> bytes:
        corners = coordinates(i).astype("<f4")
        facets = [bytes(12) + corners[k : k + 3].tobytes() + bytes(2) for k in range(9)]
        return bytes(80) + struct.pack("<I", 9) + b"".join(facets)

    return _clouds(folder, "stl", content, chosen)


def _clouds(
    folder: Path, suffix: str, content: Callable[[int], bytes], chosen: random.Random
) -> Sample:
    data = folder / NAME
    for i in range(6):
        file = data / "ab"[i % 2] / f"{i}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content(i))
    return Sample(data, chosen.choice(sorted(data.rglob(f"*.{suffix}"))), as_clouds)


def cloud_array(folder: Path, chosen: random.Random) -> Sample:
    data = folder / f"{NAME}.npy"
    np.save(data, np.stack([coordinates(i) for i in range(6)]))
    return Sample(data, data, as_clouds)


def known(folder: Path, suffix: str, chosen: random.Random) -> Sample:
    data = folder / f"{NAME}.{suffix}"
    data.write_bytes(picture(suffix, chosen.randrange(7)))
    return Sample(data, data, as_mask)


FORMATS: dict[str, Callable[[Path, random.Random], Sample]] = {
    **{s: lambda folder, chosen, s=s: pictures(folder, s, chosen) for s in PICTURES},
    "zip": archive,
    "idx": lambda folder, chosen: idx(folder, "", chosen),
    "idx.gz": lambda folder, chosen: idx(folder, ".gz", chosen),
    "npy": npy,
    "npz": npz,
    "csv": csv,
    "xyz": xyz,
    "ply ascii": lambda folder, chosen: ply(folder, "ascii", chosen),
    "ply little": lambda folder, chosen: ply(folder, "binary_little_endian", chosen),
    "ply big": lambda folder, chosen: ply(folder, "binary_big_endian", chosen),
    "off": off,
    "obj": obj,
    "stl": stl,
    "clouds npy": cloud_array,
    **{f"mask {s}": lambda folder, chosen, s=s: known(folder, s, chosen) for s in PICTURES},
}


def cut(content: bytes, chosen: random.Random) -> bytes:
    return content[: chosen.randrange(len(content))]


def flipped(content: bytes, chosen: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chosen.choice([1, 1, 1, 3, 10])):
        changed[chosen.randrange(len(changed))] ^= 1 << chosen.randrange(8)
    return bytes(changed)


def replaced(content: bytes, chosen: random.Random) -> bytes:
    """Some bytes by any others, near the start more often, where formats keep their sizes."""
    changed = bytearray(content)
    most = chosen.choice([min(64, len(changed)), len(changed)])
    for _ in range(chosen.choice([1, 4, 16])):
        changed[chosen.randrange(most)] = chosen.choice([0, 255, 127, chosen.randrange(256)])
    return bytes(changed)


def inserted(content: bytes, chosen: random.Random) -> bytes:
    at = chosen.randrange(len(content) + 1)
    return content[:at] + chosen.randbytes(chosen.choice([1, 2, 40])) + content[at:]


def removed(content: bytes, chosen: random.Random) -> bytes:
    at = chosen.randrange(len(content))
    return content[:at] + content[at + chosen.choice([1, 2, 40]) :]


def zeroed(content: bytes, chosen: random.Random) -> bytes:
    """A block of zeros, as after a crash of the machine."""
    at, size = chosen.randrange(len(content)), chosen.choice([8, 64, 512])
    return content[:at] + bytes(len(content[at : at + size])) + content[at + size :]


def renumbered(content: bytes, chosen: random.Random) -> bytes:
    """One of the numbers in a text by one that is no good."""
    found = list(re.finditer(rb"-?[0-9]+(\.[0-9]*)?", content))
    if not found:
        return flipped(content, chosen)
    at = chosen.choice(found[:5] if chosen.random() < 0.3 else found)
    bad = (
        "nan",
        "inf",
        "-1",
        "0",
        "1e400",
        "1e300",
        "99999999999999999999",
        "4000000000",
        "x",
        "",
    )
    return content[: at.start()] + chosen.choice(bad).encode() + content[at.end() :]


def emptied(content: bytes, chosen: random.Random) -> bytes:
    return b""


DAMAGES = (cut, flipped, flipped, replaced, replaced, inserted, removed, zeroed, renumbered)


def damage(sample: Sample, chosen: random.Random) -> tuple[Path, str]:
    """Damages the file of a sample: (what is to be read, how)."""
    draw = chosen.random()
    if draw < 0.03:
        suffixes = (
            ".npy",
            ".npz",
            ".csv",
            ".zip",
            ".png",
            ".jpg",
            ".ply",
            ".xyz",
            ".off",
            ".gz",
            "",
        )
        other = sample.file.with_suffix(chosen.choice(suffixes))
        sample.file.rename(other)
        return (other if sample.data == sample.file else sample.data), f"named {other.name}"
    how = emptied if draw < 0.04 else chosen.choice(DAMAGES)
    sample.file.write_bytes(how(sample.file.read_bytes(), chosen))
    return sample.data, how.__name__


class Hangs(BaseException):
    """Reading takes too long. No Exception, lest a reader takes it for a damaged file."""


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    def stop(number, frame):
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def complaint(read: Callable[[Path], object], path: Path) -> tuple[str | None, bool]:
    """(What is wrong with how damaged data are taken, or None; whether they are read)."""
    try:
        with warnings.catch_warnings(), in_time():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", UserWarning)  # how many files were left out
            values = read(path)
    except ValueError as error:
        words = str(error)
        if "\n" in words:
            return f"ValueError of several lines: {words!r}", False
        return (None if NAME in words else f"path not named: {words}"), False
    except Hangs:
        return f"not read in {SECONDS} s", False
    except Exception as error:
        return f"{type(error).__name__}: {error}", False
    assert isinstance(values, torch.Tensor)
    return (None if torch.isfinite(values.float()).all() else "samples that are not finite"), True


def run(work: Path, short: bool) -> Tally:
    tally, read = Tally(), 0
    for name, make in FORMATS.items():
        for i in range(20 if short else 300):
            chosen = random.Random(f"{name} {i}")
            folder = work / f"{name} {i}"
            folder.mkdir(parents=True)
            sample = make(folder, chosen)
            path, how = damage(sample, chosen)
            found, fine = complaint(sample.read, path)
            tally.add(f"{name}, {how}, number {i}", found)
            read += fine
            shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tally.notes = {
        "formats": len(FORMATS),
        "read all the same": read,
        "refused": tally.faults - read,
        "peak MB": round(peak),
    }
    return tally
