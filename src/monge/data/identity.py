r"""What identifies a data set: a 64-bit digest of each sample's content, in no order.

Digests are XXH3 of xxHash (Collet, https://xxhash.com), which a reader computes from what it
reads: the bytes of an image file, the points of a cloud, the cells of a row. They do not depend on
names, on the order of the samples, or on how a later version decodes them. They detect accidents,
not forgeries.
"""

import functools
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

from monge._core.files import DAMAGED

NAME = "identity.npy"
"""The file of a run that holds the digests of its data."""


def digest(content: bytes, seed: int = 0) -> int:
    """The digest of a file's bytes."""
    return xxh3_64_intdigest(content, seed)


def digests(rows: np.ndarray) -> np.ndarray:
    r"""The digests of the rows of an array of numbers (n, \*), as uint64 (n,).

    They depend on the type of the numbers, since images of bytes are read as 0 … 255 and others as
    0 … 1, and not on the order of its bytes.
    """
    little = rows.astype(rows.dtype.newbyteorder("<"), order="C", copy=False)
    content: Any = little.reshape(len(rows), -1).view(np.uint8)
    kind = digest(little.dtype.str.encode())
    hashed = map(xxh3_64_intdigest, content, itertools.repeat(kind))
    return np.fromiter(hashed, np.uint64, len(rows))


def digests_of_texts(texts: Sequence[str]) -> np.ndarray:
    """The digests of texts, as uint64 (n,); each text that occurs is hashed once."""
    names, which = np.unique(np.asarray(texts, dtype=str), return_inverse=True)
    found = [digest(str(name).encode("utf-8", "surrogateescape")) for name in names]
    return np.array(found, np.uint64)[which]


def combined(*columns: np.ndarray) -> np.ndarray:
    """The digests of rows whose parts have the digests (n,) of each column, as uint64 (n,)."""
    return digests(np.stack([column.astype(np.uint64, copy=False) for column in columns], 1))


def occurrences(contents: np.ndarray) -> np.ndarray:
    """How many equal digests come before each of (n,), as uint64 (n,)."""
    order = np.argsort(contents, kind="stable")
    ranks = np.arange(len(contents), dtype=np.uint64)
    ordered = contents[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]]
    first = np.maximum.accumulate(np.where(starts, ranks, 0))
    counted = np.empty_like(ranks)
    counted[order] = ranks - first
    return counted


@dataclass(frozen=True)
class Identity:
    """Which samples a data set holds.

    Args:
        digests: one a sample, of its content, part and label, as uint64 (n,), sorted.
        form: kind and shape of the samples, e.g. `image 1×28×28`.
    """

    digests: np.ndarray
    form: str

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the form and of all digests, its first 32 hexadecimal digits."""
        content = self.digests.astype("<u8").tobytes()
        return hashlib.sha256(self.form.encode() + b"\0" + content).hexdigest()[:32]

    def difference(self, other: "Identity") -> str:
        """How another data set differs from this one, e.g. `added 1, removed 0, changed 3`.

        As samples have no names, one removed and one added count as one changed.
        """
        if self.form != other.form:
            return f"{other.form} in place of {self.form}"
        _, which = np.unique(np.concatenate([self.digests, other.digests]), return_inverse=True)
        here, there = which[: len(self.digests)], which[len(self.digests) :]
        count = int(which.max(initial=-1)) + 1
        more = np.bincount(there, minlength=count) - np.bincount(here, minlength=count)
        added, removed = int(more.clip(0).sum()), int((-more).clip(0).sum())
        changed = min(added, removed)
        return f"added {added - changed:,}, removed {removed - changed:,}, changed {changed:,}"


def form_of(kind: str, shape: Sequence[int]) -> str:
    """The form of samples of a kind and shape."""
    return f"{kind} {'×'.join(map(str, shape))}"


def differing(run: Path, fingerprint: str, form: str, found: Identity) -> str | None:
    """How data differ from those of a run, in words; None if they are the same.

    Args:
        run: its directory, which keeps the digests of its samples.
        fingerprint: of the run's data.
        form: of the run's data.
        found: the identity of the data in question.
    """
    if found.fingerprint == fingerprint:
        return None
    try:
        with (run / NAME).open("rb") as file:
            stored = Identity(np.load(file, allow_pickle=False), form)
        if stored.fingerprint == fingerprint:
            return stored.difference(found)
    except DAMAGED:  # the fingerprints still tell that, though not how, they differ
        pass
    return f"fingerprint {found.fingerprint[:8]} in place of {fingerprint[:8]}"
