"""Every snippet of the README, the docs and docstrings runs; every command line in them parses."""

import ast
import doctest
import importlib
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import ot
import pytest
import torch

import monge
from monge import cli, priors, transport

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


def _with_examples():
    """Each docstring that holds an example, by module and name."""
    for file in sorted((ROOT / "src").rglob("*.py")):
        parts = file.relative_to(ROOT / "src").with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                if ">>>" in text:
                    yield pytest.param(module, text, id=f"{module}:{getattr(node, 'name', '')}")


def _sampled() -> dict:
    """What the names stand for that examples do not define: small samples of each kind."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=random)
    y = torch.randn(40, 2, generator=random) + 1
    clouds = torch.rand(2, 5, 16, 3, generator=random)
    pictures = (255 * torch.rand(2, 9, 9, 3, generator=random)).byte().numpy()
    cost, a = torch.cdist(x.double(), y.double()), torch.full((40,), 1 / 40).double()
    return {
        **{name: getattr(transport, name) for name in transport.__all__},
        **{"torch": torch, "ot": ot, "Gaussian": priors.Gaussian, "generator": random},
        **{"x": x, "y": y, "noise": x, "data": y, "codes": x, "draws": y},
        **{"X": x.numpy(), "Y": y.numpy(), "X_new": x.numpy(), "labels": (x[:, 0] > 0).long()},
        **{"model_samples": x.clone().requires_grad_(), "images": (255 * y[:, None]).abs()},
        **{"cost": cost, "M": cost, "a": a, "b": a, "reg": 0.5},
        **{"clouds": clouds[0], "others": clouds[1], "photo": pictures[0]},
        **{"painting": pictures[1], "ring": torch.eye(8) / 8, "cross": torch.ones(8, 8) / 64},
        "first": (x[:2], torch.eye(2).repeat(2, 1, 1), [0.5, 0.5]),
        "second": (y[:2], torch.eye(2).repeat(2, 1, 1), [0.5, 0.5]),
    }


@pytest.mark.parametrize(("module", "text"), list(_with_examples()))
def test_examples_of_docstrings_run(module, text):
    """In their modules, as `doctest` runs them; results are compared where they are given."""
    namespace = {**_sampled(), **vars(importlib.import_module(module))}
    for example in doctest.DocTestParser().get_examples(text):
        if example.want:
            assert repr(eval(example.source, namespace)) == example.want.strip()
        else:
            exec(example.source, namespace)


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
