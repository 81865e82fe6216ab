"""The floor plan of CONTRIBUTING.md is that of the package: imports point upwards in its list.

A room is a package or a module directly below `monge`. A file may import rooms listed before its
own, and files of its own room, without circles; imports inside functions count as well.
"""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "monge"
FILES = sorted(SOURCE.rglob("*.py"))


def rooms() -> list[str]:
    """The rooms in the order of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"^```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block, "CONTRIBUTING.md has no floor plan"
    return [line.split()[0] for line in block[1].splitlines() if line.strip()]


ROOMS = rooms()


def module(file: Path) -> str:
    """`a.b` for src/monge/a/b.py, `a` for src/monge/a/__init__.py."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module(file): file for file in FILES}


def imports(file: Path) -> set[str]:
    """The modules of monge that a file imports, wherever in it."""
    targets = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets |= {
                one.name.removeprefix("monge.")
                for one in node.names
                if one.name.startswith("monge.")
            }
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            head, _, inner = node.module.partition(".")
            if head != "monge":
                continue
            for name in (one.name for one in node.names):
                below = f"{inner}.{name}" if inner else name
                targets.add(below if below in MODULES else inner)
    return targets - {""}


def test_the_plan_lists_every_room_and_no_other():
    found = {module(file).split(".")[0] for file in FILES} - {"", "__main__"}
    assert found == set(ROOMS)
    assert len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("room", ROOMS)
def test_no_arrow_points_up(room):
    above = ROOMS[: ROOMS.index(room) + 1]
    for file in FILES:
        if module(file).split(".")[0] != room:
            continue
        for target in imports(file):
            assert target.split(".")[0] in above, f"{module(file)} imports {target}"


def test_no_circles_between_files():
    """Beyond those of a package's `__init__`, which only collects names."""
    graph = {
        name: {t for t in imports(file) if file.name != "__init__.py"}
        for name, file in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join((*path, name))}"
        if name not in done:
            for target in sorted(graph.get(name, set())):
                if target in MODULES:
                    visit(target, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_no_two_modules_share_a_name():
    places = defaultdict(list)
    for name in MODULES:
        places[name.rsplit(".", 1)[-1]].append(name)
    shared = {stem: names for stem, names in places.items() if len(names) > 1}
    assert not shared


def test_no_two_public_classes_share_a_name():
    places = defaultdict(list)
    for name, file in MODULES.items():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    shared = {name: modules for name, modules in places.items() if len(modules) > 1}
    assert not shared


def test_kinds_are_told_apart_in_their_own_file_only():
    """No comparison with the name of a kind elsewhere."""
    pattern = re.compile(r"""[!=]= *["'](image|vector|cloud)["']|["']cloud["'] *:""")
    for file in FILES:
        if module(file) in ("data.kinds", "config.stored"):  # which reads old runs
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            assert not pattern.search(line), f"{file}:{number} {line.strip()}"
