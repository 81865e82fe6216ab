"""Readers: from the name or path of a data set to its samples."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from monge._core.fields import demand
from monge._core.spelling import meant
from monge.config import DATA, DataConfig
from monge.data.kinds import kind_named
from monge.data.readers import arrays, cache, clouds, glyphs, hub, idx, images, tar, toys
from monge.data.readers.caps import LARGEST_SIDE
from monge.data.readers.discovery import (
    CLOUDS,
    HEAD,
    IMAGES,
    LeftOut,
    files_in,
    is_of_kernel,
    kind_of_file,
)
from monge.data.source import Data, Source

__all__ = ["given", "load"]


def load(config: DataConfig) -> Source:
    """Reads what `config` names.

    Raises:
        ValueError: for a name or path that is neither a data set nor readable, with the reason;
            for settings of clouds, tables or classes that the data do not have.
    """
    source = _read(config).heeding(config)
    if config.kind is not None and source.kind != kind_named(config.kind):
        raise ValueError(
            f"`kind` {config.kind!r} is for arrays, and {config.name!r} holds {source.kind.name}s"
        )
    source.kind.augmentation(config)  # refuses settings of other kinds
    return source.of_classes(config.classes) if config.classes else source


def given(data: Data, config: DataConfig) -> Source:
    """Data as they are given; by default what `config` names.

    Raises:
        ValueError: as `load`; for samples that are too few, not finite, or of no kind.
    """
    if isinstance(data, Source):
        return data.checked()
    if data is None or isinstance(data, (str, Path)):
        return load(config)
    if np.ma.is_masked(data):
        raise ValueError("`data` is an array with masked elements: fill them, or leave them out")
    if isinstance(data, Tensor) and data.dtype == torch.bfloat16:  # which NumPy does not have
        data = data.float()
    array = data.detach().cpu().numpy() if isinstance(data, Tensor) else np.asarray(data)
    return arrays.from_array(array, config=config).heeding(config)


def _read(config: DataConfig) -> Source:
    if config.name == "digits":
        return _unflagged(config, arrays.digits)
    if config.name == "glyphs":
        return _unflagged(config, glyphs.glyphs)
    if config.name in idx.DATASETS:
        return _unflagged(config, lambda: idx.named(config.name, config.dir))
    if config.name in toys.TOYS:
        return _unflagged(config, lambda: toys.toy(config.name))
    path = Path(config.name)
    if config.name.startswith(hub.PREFIX):
        return _decoded(hub.dataset(config.name), config)
    if is_of_kernel(path):
        raise ValueError(f"`data` {config.name!r} is of the kernel and holds no data: give a file")
    if tar.are_named(config.name):
        return _decoded(tar.shards(config.name, tar.paths_of(config.name), LeftOut()), config)
    if config.name == "" or not os.path.exists(path):
        if near := meant(path.name, DATA):
            raise ValueError(f"`data` {config.name!r} is neither a file nor a folder{near}")
        raise ValueError(
            f"`data` {config.name!r} is neither a file or folder nor one of {', '.join(DATA)}"
        )
    return _folder(path, config) if path.is_dir() else _file(path, config)


def _folder(path: Path, config: DataConfig) -> Source:
    if idx.is_idx_folder(path):
        return _unflagged(config, lambda: idx.folder(path))
    found = files_in(path)
    kind = found.main(config.kind)
    if kind in ("clouds", "arrays"):
        return _unflagged(config, lambda: clouds.folder(found, config))
    if kind is None:
        raise ValueError(
            f"`data` {config.name!r} holds no images ({', '.join(sorted(IMAGES))}) and no clouds "
            f"({', '.join(CLOUDS)}); it holds {found.counted()}: name a table or an archive by "
            "its own path"
        )
    return _decoded((tar.folder if kind == "shards" else images.folder)(found), config)


def _file(path: Path, config: DataConfig) -> Source:
    """One file, of the kind that its first bytes say, or else its suffix."""
    if not path.is_file():
        raise ValueError(f"`data` {config.name!r} is neither a file nor a folder")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise ValueError(f"`data` {config.name!r} is not readable: {error}") from None
    suffix = path.suffix.lower()
    kind, _ = kind_of_file(path.name, head)
    if arrays.format_of(path) is not None:
        return _unflagged(config, lambda: arrays.load(path, config))
    if kind == "clouds":
        raise ValueError(
            f"`data` {config.name!r} is one cloud: give the folder that holds it and others"
        )
    if kind == "images":
        raise ValueError(
            f"`data` {config.name!r} is one image: give the folder that holds it and others"
        )
    if kind == "shards":
        return _decoded(tar.shards(config.name, [config.name], LeftOut()), config)
    if kind == "archives":
        return _decoded(images.archive(path), config)
    raise ValueError(
        f"`data` {config.name!r} has an unknown kind {suffix!r}: give a folder, .zip or .tar of "
        "images, a folder of idx files or of clouds, .npy, .npz or .csv"
    )


def _decoded(found: images.ImageFiles, config: DataConfig) -> Source:
    small = config.size is None or config.size <= LARGEST_SIDE
    demand(small, "size", config.size, f"at most {LARGEST_SIDE} pixels a side")
    source = cache.source(found, config) if config.cache else images.in_memory(found, config)
    found.left.warn(found.where)
    return source


def _unflagged(config: DataConfig, read: Callable[[], Source]) -> Source:
    """`read()`, unless flags are given that only images in files heed."""
    for name in ("size", "crop", "channels", "cache"):
        if getattr(config, name) is not None:
            raise ValueError(
                f"`{name}` has no meaning for {config.name!r}: only images in files are "
                "cropped, resized, converted and cached (a preset that sets it, as paper does, "
                "is for images: use the preset small)"
            )
    return read()
