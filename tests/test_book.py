"""The book builds without a warning and asks for nothing from the network; examples run."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
QUICK = ("monge", "duality", "line", "gromov", "vae", "gan", "critics", "wae", "random", "kl")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    return out


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_page_of_the_docs_is_a_page_of_the_book(site):
    for source in (ROOT / "docs").rglob("*.md"):
        relative = source.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / relative).exists(), relative
    assert (site / "reference" / "command-line.html").exists()
    assert (site / "examples" / "new_divergence.py").exists()


def test_no_page_fetches_anything(site):
    """Scripts, styles, fonts and pictures are all files of the site."""
    for page in pages(site):
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|iframe|source)[^>]*\bsrc="([^"]+)"', text)
        fetched += re.findall(r'<link[^>]*\brel="(?:stylesheet|preload)"[^>]*href="([^"]+)"', text)
        fetched += re.findall(r'<link[^>]*\bhref="([^"]+)"[^>]*rel="(?:stylesheet|icon)"', text)
        assert fetched
        for address in fetched:
            assert "//" not in address, (page.name, address)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(.?https?:|@import", style.read_text()), style.name


def test_every_formula_is_rendered(site):
    chapters = [page for page in pages(site) if page.parent.name == "understand"]
    assert len(chapters) == 18
    for page in chapters:
        text = page.read_text()
        assert "arithmatex" not in text
        assert not re.search(
            r"\\\(|\\\[|\\mathrm", re.sub(r"<annotation.*?</annotation>", "", text)
        )
        assert page.stem == "index" or "<math" in text


def test_the_reference_holds_every_public_name(site):
    import monge.inference
    import monge.transport

    for module, page in ((monge.transport, "transport"), (monge.inference, "inference")):
        text = (site / "reference" / f"{page}.html").read_text()
        for name in module.__all__:
            assert f'id="{module.__name__}.{name}"' in text, name


def test_no_docstring_of_the_reference_has_what_reads_as_a_tag():
    """<C, π> in running text would be taken for HTML and vanish."""
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
            path = ROOT / "src" / Path(*name.split("."))
            files = [path.with_suffix(".py")] if path.with_suffix(".py").exists() else []
            for file in files or path.rglob("*.py"):
                for text in re.findall(r'"""(.*?)"""', file.read_text(), re.DOTALL):
                    running = re.sub(r"`[^`]*`|^    .*?$", "", text, flags=re.MULTILINE)
                    assert not re.search(r"<[A-Za-z/]", running), (file.name, running)


def run(monkeypatch, tmp_path, name: str, *arguments: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    monkeypatch.syspath_prepend(str(ROOT / "examples"))  # as `python examples/NAME` does
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")


@pytest.mark.parametrize("name", ["divergence", "recipe", "data", "network"])
def test_examples_of_extension_train(monkeypatch, tmp_path, name):
    run(monkeypatch, tmp_path, f"new_{name}.py", "--steps", "20")
    assert list((tmp_path / "runs").glob("*/report.html"))


def test_the_example_of_a_kernel_runs(monkeypatch, tmp_path):
    run(monkeypatch, tmp_path, "new_kernel.py")


def test_pictures_of_the_book_are_made(monkeypatch, tmp_path):
    run(monkeypatch, tmp_path, "book.py", *QUICK, "--out", "pictures")
    assert {path.stem for path in (tmp_path / "pictures").glob("*.png")} == set(QUICK)


def test_pictures_of_the_book_are_small():
    for path in (ROOT / "docs" / "book").glob("*.png"):
        assert path.stat().st_size < 150_000, path.name
