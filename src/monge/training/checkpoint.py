r"""Checkpoints: safetensors and JSON, written atomically and verified before they are read.

A checkpoint is a folder `step-<n>` with model.safetensors, training.safetensors, training.json
and manifest.json. It is written under another name, flushed to disk and renamed, so a kill in
mid-write leaves no half checkpoint. The manifest holds the sha256 of every file and of itself,
so any changed bit is detected. Nothing is ever unpickled.
"""

import dataclasses
import hashlib
import json
import math
import re
import secrets
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from monge._core.fields import leaves
from monge._core.files import sync_folder, write_synced
from monge._core.untrusted import converted, memory, parsed, read_regular, shortened
from monge._core.visible import brief
from monge.config import Config, Schema, Settled

Verified = tuple[Path, dict[str, bytes]]
"""A checkpoint and the contents of its files."""
FILES = ("model.safetensors", "training.safetensors", "training.json")
KEPT = 2
MAY_CHANGE = (
    "data.name",
    "data.dir",
    "data.cache",
    "device",
    "threads",
    "training.epochs",
    "training.steps",
    "training.micro_batch",
    "training.shard",
    "training.compile",
    "training.log_every",
    "training.checkpoint_seconds",
)
"""Settings that decide where, how and how long a run is trained, and not what a step computes, up
to rounding. Data that lie elsewhere are known by their fingerprint."""
FACTS = ("kind", "shape", "latent", "weight", "spread", "moments", "float64", "schema", "classes")
"""The facts of a run on which its weights depend."""


@dataclass(frozen=True)
class Manifest:
    """manifest.json: the sha256 of every other file, and of the rest of itself."""

    files: dict[str, str]
    manifest: str


@dataclass(frozen=True)
class CheckpointNotes:
    """training.json: the step, the data and the settings of a checkpoint."""

    step: int
    seconds: float = 0.0
    """Seconds of training up to this checkpoint."""
    data: str | None = None
    """The fingerprint of the data; None in older runs."""
    settings: dict[str, str] = field(default_factory=dict)
    """The settings on which the weights depend, see `settings_of`; empty in older runs."""
    validation: float | None = None
    """The figure of the validation set, of the best model."""


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


def refuse_infinite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuses tensors of which one has a number that is NaN or infinite, naming it."""
    for name, tensor in tensors.items():
        if torch.is_floating_point(tensor) and not _is_finite(tensor):
            raise ValueError(f"{where} {shortened(name)} are not finite")


def number_of(tensors: Mapping[str, Tensor], name: str) -> float:
    """A number that a checkpoint has as a tensor.

    Raises:
        ValueError: if it has no such tensor, or one of several numbers.
    """
    if name not in tensors or tensors[name].numel() != 1:
        raise ValueError(f"the checkpoint has no number {name!r}")
    return tensors[name].item()


def _is_finite(x: Tensor) -> bool:
    x = x.float() if x.element_size() == 1 else x  # 8 bits, which cannot be summed
    # a finite sum has finite terms and takes a tenth of the time; a sum of large terms overflows
    return bool(x.sum().isfinite()) or bool(x.isfinite().all())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def save(
    folder: Path,
    step: int,
    model: dict[str, Tensor],
    training: dict[str, Tensor],
    notes: Mapping[str, Any],
) -> Path:
    """Writes `folder/step-<step>` and removes all but the newest two checkpoints.

    Nothing is left of a checkpoint that cannot be written, so that a full disk has room again.

    Raises:
        OSError: if it cannot be written.
        ValueError: for weights or optimiser states that are not finite, naming the first; a run
            that has diverged must not replace its last good checkpoint.
    """
    for what, named in (("weights", model), ("optimisers' numbers", training)):
        refuse_infinite(named, f"the {what}")
    contents = {
        "model.safetensors": _packed(model),
        "training.safetensors": _packed(training),
        "training.json": _canonical({"step": step, **notes}),
    }
    manifest: dict[str, Any] = {"files": {name: _sha256(c) for name, c in contents.items()}}
    manifest["manifest"] = _sha256(_canonical(manifest))
    contents["manifest.json"] = _canonical(manifest)

    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    temporary, final = folder / f".writing-{secrets.token_hex(8)}", folder / f"step-{step}"
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


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed processes were writing; the run's lock keeps out those that live. A
    link is removed, and not what it leads to."""
    for leftover in folder.glob(".writing-*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints of a run from the newest to the oldest, valid or not."""
    folders = [p for p in folder.glob("step-*") if re.fullmatch(r"step-[0-9]{1,18}", p.name)]
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
        text = read_regular(checkpoint / "manifest.json")
        manifest = converted(parsed(text), Manifest, "manifest.json")
        files = {"files": manifest.files}
        canonical = _canonical({**files, "manifest": manifest.manifest}) == text
        if not canonical or manifest.manifest != _sha256(_canonical(files)):
            raise ValueError("manifest.json is damaged")
        if sum((checkpoint / name).stat().st_size for name in FILES) > memory():
            raise ValueError("its files are larger than the memory of this machine")
        contents = {name: read_regular(checkpoint / name, most=None) for name in FILES}
    except (OSError, ValueError) as error:
        raise ValueError(f"{checkpoint} is damaged or incomplete: {error}") from None
    for name, content in contents.items():
        if _sha256(content) != manifest.files.get(name):
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
    """The tensors of a verified safetensors file.

    Raises:
        ValueError: if it is none, which its digest does not tell.
    """
    try:
        return load_tensors(contents[name])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name} is not a safetensors file: {error}") from None


def load_weights(model: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Loads weights into a model.

    Raises:
        ValueError: in one line, if they are those of another model, or not finite.
    """
    own = model.state_dict()
    refuse_infinite(weights, where)
    for name in weights.keys() & own.keys():
        if _number_type(weights[name]) != _number_type(own[name]):
            raise ValueError(
                f"{where} is of another model than this {type(model).__name__}: "
                f"{shortened(name)} is {weights[name].dtype} in place of {own[name].dtype}"
            )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = brief(str(error), 300)
        raise ValueError(
            f"{where} is of another model than this {type(model).__name__}: {reason}"
        ) from None
    refuse_infinite(model.state_dict(), where)  # also what a narrower type cannot hold


def _number_type(x: Tensor) -> tuple[bool, bool]:
    return x.is_floating_point(), x.is_complex()


def weights_of(found: Verified) -> str:
    """The digest of the weights that a checkpoint holds: SHA-256, its first 16 digits."""
    return _sha256(found[1]["model.safetensors"])[:16]


def notes(contents: dict[str, bytes]) -> CheckpointNotes:
    """The notes of a verified checkpoint.

    Raises:
        ValueError: if they are not what training writes, which their digest does not tell.
    """
    noted = converted(parsed(contents["training.json"]), CheckpointNotes, "training.json")
    if noted.step < 0 or not 0 <= noted.seconds < math.inf:
        raise ValueError("`training.json` has an invalid step or number of seconds")
    if noted.data is not None and re.fullmatch("[0-9a-f]{1,64}", noted.data) is None:
        raise ValueError(f"`training.json` has the fingerprint {shortened(noted.data)}")
    return noted


def settings_of(config: Config, settled: Settled) -> dict[str, str]:
    """The settings and facts on which the weights of a run depend, by name.

    These are the settings that a resumed run may not change. Long values are named by their
    digests.
    """
    left_out = (*MAY_CHANGE, "training.precision")  # which `auto` leaves to each machine
    asked = {name: value for name, value in leaves(config).items() if name not in left_out}
    facts = {f"settled.{name}": getattr(settled, name) for name in FACTS}
    return {name: _text(value) for name, value in {**asked, **facts}.items()}


def _text(value: Any) -> str:
    text = json.dumps(_alike(value), sort_keys=True)
    return text if len(text) <= 100 else f"sha256 {_sha256(text.encode())[:16]}"


def _alike(value: Any) -> Any:
    """A value in which numbers that are equal are written alike, as 1 and 1.0 are not."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Schema):
        return _alike(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {key: _alike(one) for key, one in value.items()}
    return [_alike(one) for one in value] if isinstance(value, (list, tuple)) else value


def refuse_settings(noted: CheckpointNotes, settings: Mapping[str, str], run: Path) -> None:
    """Refuses a checkpoint of other settings than the run's config.json now has, so that it has
    been edited. Settings that only one of them knows are of another version of monge.

    Raises:
        ValueError: naming the first setting that differs.
    """
    for name in sorted(noted.settings.keys() & settings.keys()):
        before, now = noted.settings[name], settings[name]
        if before != now:
            raise ValueError(
                f"`run` {str(run)!r} has weights trained with {name} = {shortened(before)}, and "
                f"its config.json says {shortened(now)}: put back what it said"
            )


def discard_newer(folder: Path, step: int) -> None:
    """Removes the checkpoints after `step`, which are damaged."""
    for checkpoint in newest_first(folder):
        if step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)
