"""Folders of small images of one grey level each but for a white corner, for tests of readers."""

import io

import torch
from PIL import Image

from monge.config import DataConfig
from monge.data import Source, load


def picture(level: int = 0, form: str = "PNG", side: int = 4) -> bytes:
    content = io.BytesIO()
    image = Image.new("L", (side, side), level)
    if form == "PNG":  # others would blur it
        image.putpixel((side - 1, side - 1), 255)
    image.save(content, form)
    return content.getvalue()


def filled(folder, files):
    """A folder with files: a number is an image of that grey level."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(content) if isinstance(content, int) else content)
    return folder


def loaded(path, **settings) -> Source:
    return load(DataConfig(str(path), **settings))


def levels(source: Source) -> list[int]:
    """The grey levels of all images of both parts."""
    return sorted(torch.cat([source.train, source.test])[:, 0, 0, 0].tolist())
