"""The book builds without a warning and asks for nothing from the network; examples run."""

import ast
import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = (
    "monge",
    "monge.adversarial",
    "monge.data",
    "monge.evaluation",
    "monge.inference",
    "monge.kernels",
    "monge.maps",
    "monge.models",
    "monge.networks",
    "monge.particles",
    "monge.recipes",
    "monge.runs",
    "monge.transport",
)
QUICK = ("monge", "duality", "line", "gromov", "vae", "gan", "critics", "wae", "random", "kl")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The book of `make docs`, built in a copy: zensical writes inside its project only."""
    project = tmp_path_factory.mktemp("book")
    for name in ("docs", "examples", "src"):
        shutil.copytree(ROOT / name, project / name)
    for name in ("mkdocs.yml", "book_markdown.py"):
        shutil.copy(ROOT / name, project)
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=project,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, (built.stdout + built.stderr)[-3000:]
    assert "No issues found" in built.stderr
    shutil.copytree(project / "examples", project / "site" / "examples")
    return project / "site"


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


def test_a_book_that_is_opened_from_the_disk_is_searched(site):
    """Nothing is asked of the network, and what was typed is found."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "understand" / "wae.html").as_uri())
        page.keyboard.press("Control+k")
        typed = page.locator("input[placeholder=Search]:visible")
        typed.press_sequentially("sinkhorn_divergence", delay=20)
        first = page.locator("a[href$='#monge.transport.sinkhorn_divergence']:visible")
        first.first.wait_for(timeout=20_000)
        assert typed.input_value() == "sinkhorn_divergence"
        browser.close()
    assert all(address.startswith(("file:", "data:", "blob:")) for address in asked)


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
    """Each has an anchor, under the name of its module or of one that collects it."""
    text = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    anchors = set(re.findall(r'id="(monge[\w.]*)"', text))
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            if isinstance(thing, ModuleType) or not callable(thing):
                continue
            home = getattr(thing, "__module__", package).split(".")
            places = {".".join(home[:count]) for count in range(1, len(home) + 1)} | {package}
            assert anchors & {f"{place}.{name}" for place in places}, f"{package}.{name}"


def docstrings(file):
    """Those of a module, its classes, functions and attributes."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


def test_no_docstring_of_the_reference_has_what_reads_as_a_tag():
    """<C, π> in running text would be taken for HTML and vanish."""
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
            path = ROOT / "src" / Path(*name.split("."))
            files = [path.with_suffix(".py")] if path.with_suffix(".py").exists() else []
            for file in files or path.rglob("*.py"):
                for text in docstrings(file):
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
