r"""Checkpoints: safetensors and JSON, written atomically and verified before they are read.

A checkpoint is a folder `step-<n>` with model.safetensors, training.safetensors, training.json
and manifest.json. It is written under another name, flushed to disk and renamed, so a kill in
mid-write leaves no half checkpoint. The manifest holds the sha256 of every file and of itself,
so any changed bit is detected. Nothing is ever unpickled.
"""

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from monge._core.files import sync_folder, write_synced

Verified = tuple[Path, dict[str, bytes]]
"""A checkpoint and the contents of its files."""
FILES = ("model.safetensors", "training.safetensors", "training.json")
KEPT = 2


def _canonical(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()


def _packed(tensors: dict[str, Tensor]) -> bytes:
    packed: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        # safetensors refuses tensors that share memory, as tied weights do
        storage, tensor = tensor.untyped_storage().data_ptr(), tensor.detach()
        packed[name] = tensor.clone() if storage in storages else tensor.contiguous()
        storages.add(storage)
    return save_tensors(packed)


def _is_finite(x: Tensor) -> bool:
    # a finite sum has finite terms and takes a tenth of the time; a sum of large terms overflows
    return bool(x.sum().isfinite()) or bool(x.isfinite().all())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def save(
    folder: Path,
    step: int,
    model: dict[str, Tensor],
    training: dict[str, Tensor],
    notes: dict[str, Any],
) -> Path:
    """Writes `folder/step-<step>` and removes all but the newest two checkpoints.

    Nothing is left of a checkpoint that cannot be written, so that a full disk has room again.

    Raises:
        OSError: if it cannot be written.
        ValueError: for weights or optimiser states that are not finite, naming the first; a run
            that has diverged must not replace its last good checkpoint.
    """
    for what, named in (("weights", model), ("optimisers' numbers", training)):
        for name, tensor in named.items():
            if torch.is_floating_point(tensor) and not _is_finite(tensor):
                raise ValueError(f"the {what} {name!r} are not finite")
    contents = {
        "model.safetensors": _packed(model),
        "training.safetensors": _packed(training),
        "training.json": _canonical({"step": step, **notes}),
    }
    manifest: dict[str, Any] = {"files": {name: _sha256(c) for name, c in contents.items()}}
    manifest["manifest"] = _sha256(_canonical(manifest))
    contents["manifest.json"] = _canonical(manifest)

    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover)
    temporary, final = folder / f".writing-{step}", folder / f"step-{step}"
    try:
        temporary.mkdir()
        for name, content in contents.items():
            write_synced(temporary / name, content)
        sync_folder(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder)
    for old in newest_first(folder)[KEPT:]:
        shutil.rmtree(old)
    return final


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints of a run from the newest to the oldest, valid or not."""
    folders = [p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdigit()]
    return sorted(folders, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint, from its name."""
    return int(checkpoint.name.removeprefix("step-"))


def verified(checkpoint: Path) -> dict[str, bytes]:
    """The contents of a checkpoint's files.

    Raises:
        ValueError: if a file is missing, or any bit differs from what was written.
    """
    try:
        text = (checkpoint / "manifest.json").read_bytes()
        manifest = json.loads(text)
        digest = manifest.pop("manifest")
        canonical = _canonical({**manifest, "manifest": digest}) == text
        if not canonical or digest != _sha256(_canonical(manifest)):
            raise ValueError(f"{checkpoint / 'manifest.json'} is damaged")
        contents = {name: (checkpoint / name).read_bytes() for name in FILES}
    except (FileNotFoundError, ValueError, AttributeError, KeyError) as error:
        raise ValueError(f"{checkpoint} is damaged or incomplete: {error}") from None
    for name, content in contents.items():
        if _sha256(content) != manifest["files"].get(name):
            raise ValueError(f"{checkpoint / name} is damaged: its sha256 is not the manifest's")
    return contents


def newest(folder: Path, before: int | None = None) -> Verified | None:
    """The newest valid checkpoint, of a step before `before` if given, and its contents; or None
    if there is none.

    Warns of newer checkpoints that are damaged.
    """
    damaged = []
    for checkpoint in newest_first(folder):
        if before is not None and step_of(checkpoint) >= before:
            continue
        try:
            contents = verified(checkpoint)
        except ValueError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(f"{'; '.join(damaged)}: using {checkpoint.name}", stacklevel=2)
        return checkpoint, contents
    return None


def tensors(contents: dict[str, bytes], name: str) -> dict[str, Tensor]:
    """The tensors of a verified safetensors file."""
    return load_tensors(contents[name])


def load_weights(model: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Loads weights into a model.

    Raises:
        ValueError: in one line, if they are those of another model.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{where} is of another model than this {type(model).__name__}: {reason}"
        ) from None


def weights_of(found: Verified) -> str:
    """The digest of the weights that a checkpoint holds: SHA-256, its first 16 digits."""
    return _sha256(found[1]["model.safetensors"])[:16]


def notes(contents: dict[str, bytes]) -> dict[str, Any]:
    """The step and the notes of a verified checkpoint."""
    return json.loads(contents["training.json"])


def discard_newer(folder: Path, step: int) -> None:
    """Removes the checkpoints after `step`, which are damaged."""
    for checkpoint in newest_first(folder):
        if step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)
