"""A cache removes what it has made and nothing else, and what is cut short is one line."""

import os
import subprocess
import sys
import textwrap

import pytest
from folders import filled, levels, picture

from monge._core.errors import FailedRun
from monge.config import DataConfig
from monge.data import Batches, load
from monge.data.readers import cache


@pytest.fixture
def config(tmp_path):
    filled(tmp_path / "d", {f"{i}.png": picture(i, side=8) for i in range(40)})
    return DataConfig(str(tmp_path / "d"), cache=str(tmp_path / "cache"))


FOREIGN = {
    ".part-mine/thesis.txt": "text",
    ".part-other/whole/train.npy": "not of a cache",
    ".part-marked/made-by-monge": "",
    ".part-marked/notes.txt": "text",
    ".part-marked/whole/mine.txt": "text",
    "readme": "text",
    "folder/train.npy": "text",
}


@pytest.mark.skipif(cache.fcntl is None, reason="nothing is tidied up on Windows")
def test_foreign_files_in_a_cache_stay(config, tmp_path):
    """Every folder called .part-… was removed, whatever was in it."""
    for name, text in FOREIGN.items():
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    kept = tmp_path / "kept"
    (kept / "whole").mkdir(parents=True)
    (kept / "made-by-monge").touch()
    (kept / "whole" / "train.npy").write_text("kept")
    (tmp_path / "cache" / ".part-link").symlink_to(kept)
    inner = tmp_path / "cache" / ".part-inner"
    inner.mkdir()
    (inner / "made-by-monge").touch()
    (inner / "whole").symlink_to(kept / "whole")
    load(config)
    for name, text in FOREIGN.items():
        assert (tmp_path / "cache" / name).read_text() == text
    assert (kept / "whole" / "train.npy").read_text() == "kept"


@pytest.mark.skipif(cache.fcntl is None, reason="nothing is tidied up on Windows")
def test_what_killed_processes_have_left_is_removed(config, tmp_path):
    part = tmp_path / "cache" / ".part-killed"
    (part / "whole").mkdir(parents=True)
    for name in ("made-by-monge", "rows", "whole/train.npy"):
        (part / name).touch()
    load(config)
    assert not part.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_in_a_cache_are_not_written_through(config, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "cache" / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match="`cache`"):
        load(config)
    assert (tmp_path / "victim").read_text() == "kept"


def test_a_damaged_set_beside_foreign_files_is_not_removed(config, tmp_path):
    load(config)
    (folder,) = (tmp_path / "cache").glob("[!.]*")
    (folder / "labels.npz").write_bytes(b"damaged")
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match=r"`cache` holds .*mine\.txt"):
        load(config)
    assert (folder / "mine.txt").read_text() == "kept"
    (folder / "mine.txt").unlink()
    with pytest.warns(UserWarning, match="made again"):
        load(config)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
@pytest.mark.parametrize("file", ["manifest.json", "train.npy", "notes.json"])
def test_pipes_in_a_cache_are_not_waited_for(config, tmp_path, file):
    load(config)
    (folder,) = (tmp_path / "cache").glob("[!.]*")
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.warns(UserWarning, match="made again"):
        assert levels(load(config)) == [*range(40)]


@pytest.mark.parametrize("content", [b"", b"damaged", b"\x93NUMPY\1\0", b"PK\3\4"])
def test_damaged_digests_are_read_anew(config, tmp_path, content):
    load(config)
    (tmp_path / "d" / "0.png").touch()
    for file in (tmp_path / "cache").glob(".digests-*"):
        file.write_bytes(content)
    assert levels(load(config)) == [*range(40)]


@pytest.mark.skipif(sys.platform == "win32", reason="mapped files cannot be cut there")
def test_a_cache_that_is_cut_short_stops_the_next_batch(config, tmp_path):
    """Reading on was a SIGBUS, which ends a process without a word."""
    source = load(config)
    (folder,) = (tmp_path / "cache").glob("[!.]*")
    Batches(len(source.train), 4, 0).outer(0)
    os.truncate(folder / "train.npy", 0)
    with pytest.raises(FailedRun, match="cut short"):
        Batches(len(source.train), 4, 0).outer(1)
    with pytest.raises(FailedRun, match="cut short"):
        source.checked()
    del source
    Batches(40, 4, 0).outer(1)


@pytest.mark.skipif(sys.platform == "win32", reason="mapped files cannot be cut there")
def test_a_training_whose_cache_is_cut_short_ends_in_one_line(config, tmp_path):
    """Between two batches: a page that goes while it is read is a SIGBUS still."""
    program = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from monge.cli import main
        from monge.data.batches import Batches

        cache, outer = Path(sys.argv[1]), Batches.outer

        def cut_before(self, step):
            if step == 20:
                for file in cache.glob("[!.]*/train.npy"):
                    os.truncate(file, 0)
            return outer(self, step)

        Batches.outer = cut_before
        sys.argv[1:] = sys.argv[2:]
        main()
    """)
    command = ["train", "wae-mmd", "--data", config.name, "--cache", str(config.cache)]
    command += ["--steps", "2000", "--batch", "8", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", program, str(config.cache), *command],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, (done.returncode, done.stderr[-500:])
    assert done.stderr.count("\n") == 1
    assert "was cut short" in done.stderr
