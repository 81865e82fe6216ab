"""Where the data of a run are, and whether they are those that it was trained on."""

import os
from pathlib import Path

from monge.config import DATA, PUBLISHED, Config, Settled, override
from monge.config.trust import refuse_paths
from monge.data import Data, Source, given
from monge.data.identity import differing, form_of
from monge.data.readers import tar


def read(run: Path, config: Config, data: Data, foreign: dict[str, str]) -> Source:
    """The data of a run where they were last, or where they are said to be.

    Args:
        run: the run directory.
        config: its configuration.
        data: where they are now, or themselves; None for where they were last.
        foreign: the paths that config.json names without a seal of this account.

    Raises:
        ValueError: if they are nowhere, or at a path that a stranger has named.
    """
    if isinstance(data, (str, Path)):
        config = placed(config, str(data), foreign)
    elif data is None and config.data.name == "array":
        raise ValueError(
            f"`run` {str(run)!r} was fitted to an array: give its data as --data FILE.npy, or as "
            "`data`"
        )
    elif data is None and foreign and config.data.name in DATA:
        config = placed(config, config.data.name, foreign)
    elif data is None:
        refuse_paths(run, foreign)
        if _is_gone(config.data.name):
            raise ValueError(
                f"`data` of the run {str(run)!r} are no longer at {config.data.name!r}: give "
                "their new place as --data"
            )
    return given(data, config.data)


def placed(config: Config, name: str, foreign: dict[str, str]) -> Config:
    """The configuration with its data elsewhere; published ones where MONGE_DATA says."""
    config = override(override(config, "data.name", name), "data.dir", None)
    if "cache" in foreign:
        config = override(config, "data.cache", None)
    if config.data.name in PUBLISHED:
        config = override(config, "data.dir", os.environ.get("MONGE_DATA"))
    return config


def change(run: Path, settled: Settled, found: Source) -> str | None:
    """How data differ from those that a run was trained on, if they do."""
    form = form_of(settled.kind, settled.shape)
    if settled.fingerprint is not None:
        return differing(run, settled.fingerprint, form, found.identity)
    if found.identity.form != form:
        return f"{found.identity.form} in place of {form}"
    if len(found.train) == settled.samples:
        return None
    return f"{len(found.train):,} training samples in place of {settled.samples:,}"


def refuse_others(run: Path, settled: Settled, found: Source, change: str, allowed: bool) -> None:
    """Refuses data that differ from those that a run was trained on: where that is not allowed,
    and in any case another form or table, of which the model takes none.

    Args:
        run: the run directory.
        settled: what it has found.
        found: the data.
        change: how they differ; see `change`.
        allowed: whether they were changed on purpose.

    Raises:
        ValueError: with the difference.
    """
    if not allowed:
        raise ValueError(
            f"`data` {found.name!r} differs from the data of the run {str(run)!r}: {change}: pass "
            "those as --data, or --data-changed to use these"
        )
    other = change if found.identity.form != form_of(settled.kind, settled.shape) else None
    if other is None and settled.schema is not None:
        other = settled.schema.difference(found.schema)
    if other:
        raise ValueError(
            f"`data` {found.name!r} cannot replace those of the run {str(run)!r}: {other}"
        )


def _is_gone(name: str) -> bool:
    """Whether data that a run names by a path are not there."""
    return os.path.isabs(name) and not os.path.exists(name) and not tar.are_named(name)
