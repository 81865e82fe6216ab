"""Control characters of names reach no terminal, no Markdown and no HTML."""

import io
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from folders import filled, loaded, picture

import monge
from attacks.fuzzing import unfit
from monge._core.visible import brief, markdown, visible
from monge.config import Config, DataConfig, TrainingConfig
from monge.runs.compare import notes, table
from monge.show import card, report

HOSTILE = {
    "escape": "a\x1b[31mred",
    "newline": "a\nmonge: error: no",
    "return": "a\rb",
    "direction": "a\u202egnp",
    "isolate": "a\u2066b\u2069",
    "half a pair": "a\udc80b",
    "line separator": "a\u2028b",
    "next line": "a\x85b",
    "nothing": "a\u200bb",
    "tag": "a\U000e0041b",
}
MARKDOWN = "x|y `z` *b* [l](http://e) <script>alert(1)</script> __u__ \\"


@pytest.mark.parametrize("name", HOSTILE)
def test_control_characters_are_escapes(name):
    text = visible(HOSTILE[name])
    assert text.isprintable()
    assert "\\" in text
    text.encode()
    assert brief(HOSTILE[name]).isprintable()


def test_what_is_readable_is_as_it_was():
    for text in ("größe", "Ελληνικά", "数据", "emoji 👩‍🔬", "run_1", "wae-mmd", "FD (LeNet)"):
        assert visible(text) == text == markdown(text)


def test_markdown_shows_a_name_as_it_is():
    assert markdown(MARKDOWN) == (
        r"x\|y \`z\` \*b\* \[l\](http://e) \<script\>alert(1)\</script\> \_\_u\_\_ " + "\\\\"
    )
    assert "\n" not in markdown("a\n\n# b")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["escape", "newline", "return", "direction", "half a pair"])
def test_a_warning_or_error_is_one_line_whatever_files_are_called(tmp_path, name):
    """Damaged images, files left out, and classes: on the terminal and as an exception."""
    stem = HOSTILE[name]
    filled(tmp_path / "d", {f"{i:03}.png": i for i in range(200)})
    filled(tmp_path / "d", {f"{stem}.png": b"\x89PNG no", f"{stem}.avif": b"\0\0\0 ftypavif"})
    command = [sys.executable, "-m", "monge", "train", "wae-mmd", "--data", str(tmp_path / "d")]
    command += ["--steps", "2", "--batch", "8", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, timeout=120)
    for line in (done.stdout + done.stderr).decode().splitlines():
        assert unfit(line or "-") is None
    assert b"could not be read" in done.stderr
    filled(tmp_path / "bad", {f"{stem}.png": b"\x89PNG no", "a.png": 1})
    with pytest.raises(ValueError, match="could not be read") as caught:
        loaded(tmp_path / "bad")
    assert unfit(str(caught.value)) is None


@pytest.mark.parametrize("suffix", ["zip", "tar"])
@pytest.mark.parametrize("name", ["escape", "newline", "direction"])
def test_members_of_archives_are_named_in_one_line(tmp_path, suffix, name):
    path, members = tmp_path / f"x.{suffix}", {f"{HOSTILE[name]}.png": b"no", "a.png": picture()}
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for called, content in members.items():
                archive.writestr(called, content)
    else:
        with tarfile.open(path, "w") as archive:
            for called, content in members.items():
                member = tarfile.TarInfo(called)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    with pytest.raises(ValueError, match="could not be read") as caught:
        loaded(path)
    assert unfit(str(caught.value)) is None


def test_long_names_are_shortened(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(9):
            archive.writestr(f"{i}{'x' * 3000}.png", b"no")
    with pytest.raises(ValueError, match="could not be read") as caught:
        loaded(tmp_path / "x.zip")
    assert len(str(caught.value)) < 2000


def test_a_table_of_runs_has_its_columns_whatever_they_are_called():
    row = {
        "runs": [MARKDOWN, "a\nb"],
        "recipe": "|\x1b|",
        "figures": {"W1 of |x|": {"value": 1.0, "deviation": None, "protocol": {}}},
        "notes": ["a\n# b | c"],
        "provenance": {},
    }
    cells = table([row])
    for line in cells:
        text = f"| {' | '.join(line)} |"
        assert len(re.findall(r"(?<!\\)\|", text)) == 3
        assert text.isprintable()
    assert all("\n" not in note for note in notes([row]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a table of hostile columns, with a hostile name."""
    folder = tmp_path_factory.mktemp("names")
    names = ["x$\\frac$", "y|`", "<script>z</script>", "w\u202e\x1b"]
    rows = [",".join(f"{(i * k) % 7}.{i % 10}" for k in range(1, 5)) for i in range(60)]
    (folder / "t.csv").write_text(",".join(names) + "\n" + "\n".join(rows) + "\n")
    config = Config(
        recipe="wae-mmd",
        data=DataConfig(str(folder / "t.csv")),
        training=TrainingConfig(steps=3, batch=16),
    )
    out = folder / ("a|`b`\n- <img src=x>\u202e\x1b" if sys.platform != "win32" else "a")
    return monge.fit(config=config, out=out)


def test_a_card_and_a_report_show_names_as_they_are(run):
    run.evaluate(20)
    text = card.card(run)
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert head.splitlines()[0] == "library_name: monge"
    assert len(head.splitlines()) == 5
    for line in text.splitlines():
        assert line == "" or line.isprintable()
    title = next(line for line in body.splitlines() if line.startswith("# "))
    assert r"a\|\`b\`" in title
    assert "<img" not in body.replace(r"\<img", "")
    page = report.write(run).read_text()
    assert "<img src=x>" not in page
    assert "<script>z" not in page
    assert unfit(page.replace("\n", " ")[:2000]) is None
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_pictures_of_hostile_columns_are_drawn(run):
    assert (Path(run.path) / "pictures").is_dir() or report.write(run).is_file()


def test_bytes_of_another_encoding_are_read_as_utf_8_and_then_escaped():
    """As names are under an ASCII locale."""
    assert visible("lauf-ö".encode().decode("ascii", "surrogateescape")) == "lauf-ö"
    hidden = "a\u202eb\x9b".encode().decode("ascii", "surrogateescape")
    assert visible(hidden) == r"a\u202eb\x9b"
    assert visible(b"caf\xe9".decode("utf-8", "surrogateescape")) == r"caf\udce9"
