"""Images in data sets of Hugging Face `datasets`, saved in a folder or named on its hub.

They need the extra `huggingface`. Images are read row by row from Arrow files that the library
maps into memory, and decoded here, by the same rules as all others.
"""

import importlib
from pathlib import Path
from typing import Any

from monge._core.errors import silence
from monge._core.untrusted import read_regular
from monge.data.readers.caps import MOST_BYTES
from monge.data.readers.discovery import LeftOut
from monge.data.readers.images import ImageFiles
from monge.data.readers.layout import Labelling, known_classes, too_many

PREFIX = "hf:"


def dataset(name: str) -> ImageFiles:
    """The images of a data set, `hf:` and a folder that `save_to_disk` wrote or a name on the hub.

    Splits are parts where there are several. The images are the column of that type; labels are
    the column of class labels, which is called `label` where there are more than one.

    Raises:
        ValueError: without the package; for a data set that cannot be read, or whose columns of
            images are not one.
    """
    splits = _splits(name)
    image, label = _columns(name, splits)
    splits = {
        split: part.cast_column(image, type(part.features[image])(decode=False))
        for split, part in splits.items()
    }
    rows = {
        f"{split}/{i:0{len(str(len(part)))}}": (part, i)
        for split, part in splits.items()
        for i in range(len(part))
    }

    left = LeftOut()
    if label is not None:
        left.notes += too_many(next(iter(splits.values())).features[label].names)

    def read(one: str) -> bytes:
        part, i = rows[one]
        cell = part[i][image]
        if cell is None:
            raise ValueError("it is missing")
        content = cell["bytes"] or read_regular(cell["path"], MOST_BYTES)
        if len(content) > MOST_BYTES:
            raise ValueError(f"over {MOST_BYTES:,} bytes")
        return content

    def labelling(names: list[str]) -> Labelling:
        parts = [one.partition("/")[0] for one in names] if len(splits) > 1 else None
        if label is None:
            return parts, None
        columns = {split: part[label][:] for split, part in splits.items()}
        given = [columns[one.partition("/")[0]][rows[one][1]] for one in names]
        if any(number is None or number < 0 for number in given):
            return parts, None  # the hub's mark of a label that is kept back
        classes = next(iter(splits.values())).features[label].names
        return parts, known_classes([classes[number] for number in given])

    return ImageFiles(name, list(rows), read, labelling, left)


def _splits(name: str) -> dict[str, Any]:
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError:
        raise ValueError(
            f"`data` {name!r} needs the package datasets: pip install 'monge[huggingface]'"
        ) from None
    place = name.removeprefix(PREFIX)
    saved = any((Path(place) / file).is_file() for file in ("state.json", "dataset_dict.json"))
    try:
        with silence:  # it logs every retry
            whole = datasets.load_from_disk(place) if saved else datasets.load_dataset(place)
    except Exception as error:  # of the library, its file systems and its network
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"`data` {name!r} cannot be read: {reason}: give a folder that save_to_disk wrote, "
            "or a name on the hub where there is a network"
        ) from None
    return dict(whole) if isinstance(whole, datasets.DatasetDict) else {"all": whole}


def _columns(name: str, splits: dict[str, Any]) -> tuple[str, str | None]:
    """What the columns of images and of class labels are called in every split."""
    kinds: Any = importlib.import_module("datasets.features")

    def shared(kind: type) -> list[str]:
        first, *others = (
            [column for column, feature in part.features.items() if isinstance(feature, kind)]
            for part in splits.values()
        )
        return [column for column in first if all(column in other for other in others)]

    images, labels = shared(kinds.Image), shared(kinds.ClassLabel)
    if len(images) != 1:
        known = next(iter(splits.values())).features
        raise ValueError(
            f"`data` {name!r} has {len(images)} columns of images among {', '.join(known)}: "
            "save it with one"
        )
    label = "label" if "label" in labels else labels[0] if len(labels) == 1 else None
    return images[0], label
