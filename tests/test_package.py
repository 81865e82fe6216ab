"""What is published: a wheel and an archive of sources that install and train by themselves."""

import re
import runpy
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from monge._core.version import __version__

ROOT = Path(__file__).parents[1]


def run(*command, **options) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=600, **options
    )
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", out, cwd=ROOT)
    return out


def test_the_version_is_one():
    """Of the package, its citation, its documentation and the newest entry of the changelog."""
    book = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"\ncopyright: monge {__version__}\n" in book
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {__version__}\n" in citation
    assert re.findall(r"^## (?:\[)?(\d+\.\d+\.\d+)", changelog, re.MULTILINE)[0] == __version__


def test_links_of_the_published_readme_lead_to_the_repository():
    absolute = runpy.run_path(str(ROOT / "release.py"))["absolute"]
    readme = absolute((ROOT / "README.md").read_text(encoding="utf-8"), "9.9.9")
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert len(links) > 20
    assert all(re.match(r"https?://|#", link) for link in links)
    assert "raw.githubusercontent.com/monge-ot/monge/v9.9.9/docs/generators/headline.png" in readme


@pytest.mark.slow
def test_a_wheel_holds_the_package_its_types_its_page_and_no_tests(built):
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    wanted = ("py.typed", "show/report.html", "show/explore/static/index.html")
    assert {f"monge/{name}" for name in wanted} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        assert any(name.endswith("/tests/zoo.py") for name in sources.getnames())


@pytest.mark.slow
def test_a_clean_environment_trains_from_the_wheel_and_from_the_sources(built, tmp_path):
    """With the packages that it names itself, and none of the extras."""
    place = tmp_path / "clean"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    (wheel,), (archive,) = built.glob("*.whl"), built.glob("*.tar.gz")
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    for number in (1, 2):
        out = tmp_path / f"run-{number}"
        run(
            place / "bin" / "monge", "train", "wae-mmd", "--steps", "5", "--out", out, cwd=tmp_path
        )
        assert (out / "report.html").is_file()
        shown = run(python, "-m", "monge", "--version", cwd=tmp_path)
        assert re.fullmatch(r"monge \d+\.\d+\.\d+\n", shown)
        again = ("--force-reinstall", "--no-deps", archive)
        run(python, "-m", "pip", "install", "-q", *again)
