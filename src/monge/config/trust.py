"""Whose run it is: the paths that a run names are opened only if this account has put them there.

A run is a folder that anyone can hand on, and its config.json may name any file of this machine as
its data. Runs that are made here are sealed: their config.json holds an HMAC-SHA-256 of the paths,
under a key that never leaves this account, as notebooks of Jupyter are signed.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from monge._core.untrusted import read_regular
from monge.config.asked import Config
from monge.config.settings import DATA

FIELDS = ("name", "dir", "cache")
"""The settings of the data that are paths."""
PLACES = (*FIELDS, "known")
"""Settings of a run that may hold paths, of which others are shown the last part."""


def paths_of(config: Config) -> dict[str, str]:
    """The paths, and data sets of the hub, that a configuration names, by the setting."""
    named = {name: getattr(config.data, name) for name in FIELDS}
    if config.data.name in (*DATA, "array", ""):
        del named["name"]
    return {name: value for name, value in named.items() if value is not None}


def seal_of(config: Config) -> str | None:
    """The seal of the paths in a configuration; None for one without any, or where no key can be
    kept."""
    key = _key() if paths_of(config) else None
    return None if key is None else _seal(config, key)


def is_own(config: Config, seal: object) -> bool:
    """Whether all paths in a stored configuration have been put there by this account."""
    if not paths_of(config):
        return True
    key = _key(make=False) if seal is not None else None
    made = "" if key is None else _seal(config, key)
    return bool(made) and hmac.compare_digest(made.encode(), str(seal).encode("utf-8", "replace"))


def refuse_paths(run: Path, paths: dict[str, str]) -> None:
    """Refuses paths that a run of someone else names.

    Raises:
        ValueError: if there are any.
    """
    if paths:
        name, value = next(iter(paths.items()))
        flag = {"name": "--data", "dir": "--data-dir", "cache": "--cache"}[name]
        raise ValueError(
            f"`run` {str(run)!r} has no seal of this account, so its data.{name} {value!r} is not "
            f"opened: pass your own as {flag}, or --trust-data to open what the run names"
        )


def _seal(config: Config, key: bytes) -> str:
    text = json.dumps(paths_of(config), sort_keys=True)
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _key(make: bool = True) -> bytes | None:
    """The key of this account, made at its first use; None where it is not there."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~/.local/state")
    if not os.path.isabs(home):  # nobody's
        return None
    place = Path(home) / "monge" / "key"
    with contextlib.suppress(OSError, ValueError):
        if make and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            made = place.with_name(f"key-{secrets.token_hex(8)}")
            handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
            with contextlib.suppress(FileExistsError):  # of another process, which came first
                os.link(made, place)
            made.unlink()
        key = read_regular(place)
        return key if len(key) == 32 else None
    return None
