"""Every snippet of the README and the docs runs; every command line in them parses."""

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

import monge
from monge import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXECUTED = [page for page in PAGES if page.parent.name == "extend"]
"""Pages whose command lines are run as well, from top to bottom with their snippets."""
BLOCK = re.compile(
    r'^```(?P<language>python|sh)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```',
    re.DOTALL | re.MULTILINE,
)


def each_page(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


@each_page([page for page in PAGES if page not in EXECUTED])
def test_python_snippets_run_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["language"] == "python":
            exec(compile(block["text"], str(page), "exec"), namespace)


@each_page(PAGES)
def test_command_lines_parse(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["title"]:  # a module that later lines name
            Path(block["title"]).write_text(block["text"], encoding="utf-8")
            monkeypatch.syspath_prepend(str(tmp_path))
            monkeypatch.delitem(sys.modules, Path(block["title"]).stem, raising=False)
        for line in block["text"].splitlines() if block["language"] == "sh" else []:
            words = shlex.split(line, comments=True)
            if words[:1] == ["monge"]:
                cli.parse(words[1:])
            elif words[:1] == ["make"]:
                assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")


@each_page(EXECUTED)
def test_a_page_is_carried_out_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    """Modules are written, snippets and command lines run in one process, in their order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("monge.show.explore.server.server", lambda explorers, *_: Asked(explorers))
    namespace: dict = {}
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["title"]:
            Path(block["title"]).write_text(block["text"], encoding="utf-8")
            monkeypatch.delitem(sys.modules, Path(block["title"]).stem, raising=False)
        if block["language"] == "python":
            exec(compile(block["text"], str(page), "exec"), namespace)
            continue
        for line in block["text"].splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["monge"]:
                cli.parse(words[1:]).run()


class Asked:
    """A server that, in place of running until interrupted, is asked for samples of each run."""

    def __init__(self, explorers):
        self.explorers = explorers

    def run(self, listening) -> None:
        for socket in listening:
            socket.close()
        for explorer in self.explorers.values():
            assert "sample" in explorer.views
            assert len(explorer.sample(4, 0, "prior", 1.0)) == 4


@each_page(PAGES)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_public_name_has_a_page_of_the_reference():
    """Each name at the top of the package, and each module that one is reached through."""
    text = "".join(
        page.read_text(encoding="utf-8") for page in (ROOT / "docs/reference").glob("*.md")
    )
    shown = set(re.findall(r"^::: ([\w.]+)", text, re.MULTILINE))
    for name in monge.__all__:
        thing = getattr(monge, name)
        homes = {thing.__name__} if isinstance(thing, ModuleType) else _homes(thing.__module__)
        assert homes & shown or name == "show", name


def _homes(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:count]) for count in range(2, len(parts) + 1)}
