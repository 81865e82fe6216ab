"""What people read is idiomatic: the README, the documentation, the help and public docstrings.

Words are no style, but each of these has stood for a sentence that reads as translated.
"""

import contextlib
import importlib
import inspect
import io
import pkgutil
import re
from pathlib import Path

import pytest

import monge
from monge import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
INSTEAD = {
    r"\blaws?\b": "distribution; of what a test checks, property",
    r"\balone(?=[.,;:)]|$)": "only, before the word that it limits",
    r"\bso many\b": "that many, or the number",
    r"\bThe same,? but\b": "a sentence that can be read without its neighbour",
    r"\bclouds of points\b": "point clouds",
    r"\bfor nothing\b": "for free, at no cost",
    r"(?<!on their )(?<!on the )\bway out\b": "fix",
    r"\bin earnest\b": "closely",
    r"\bhelps? nobody\b": "what is the case",
    r"\bto blame\b": "which process failed",
    r"\bheld apart\b": "held out",
    r"\b(is|are) told (by|in)\b": "measured by, described in",
    r"\bsome (ten|twenty|forty|hundred|thousands?)\b": "about, a few",
    r"((?<=[.:] )|^)Of (?!the )[a-z]": "for, in or among; or another subject",
    r"\bas it comes\b": "with its defaults",
    r"\bthat nobody (can|knows)\b": "unknown, intractable",
}
"""Patterns, and what to write in their place."""
IN_DOCSTRINGS = {r"^The same\b": "what it is: help(f) is read without its neighbour"}


def prose(text: str) -> str:
    """Markdown without code, addresses of links and HTML comments."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"`[^`]*`|\]\([^)]*\)|\$[^$]+\$", "`x`", text)


def complaints(text: str, patterns: dict[str, str] = INSTEAD) -> list[str]:
    found = []
    for paragraph in re.split(r"\n\s*\n|\n(?=[-|#])", text):
        running = " ".join(paragraph.split())
        for pattern, instead in patterns.items():
            for match in re.finditer(pattern, running):
                around = running[max(match.start() - 60, 0) : match.end() + 40]
                found.append(f"…{around}…: write {instead}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page):
    text = prose(page.read_text(encoding="utf-8"))
    assert not complaints(text)
    if re.search(r"\bfloors?\b", text):
        assert re.search(r"\bnoise floors?\b", text), "say which floor: the noise floor"


@pytest.mark.parametrize("verb", ["", *cli.NAMES])
def test_help(verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("NO_COLOR", "1")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        cli.parse([*verb.split(), "--help"])
    assert not complaints(re.sub("[│╭╮╰╯─•]", "", shown.getvalue()).replace("  ", "\n\n"))


def _modules():
    for found in pkgutil.walk_packages(monge.__path__, "monge."):
        if not any(part.startswith("_") or part == "gpu" for part in found.name.split(".")[1:]):
            yield found.name


@pytest.mark.parametrize("name", sorted(_modules()))
def test_public_docstrings(name):
    module = importlib.import_module(name)
    things = [
        module,
        *(
            thing
            for label, thing in vars(module).items()
            if not label.startswith("_") and getattr(thing, "__module__", None) == name
        ),
    ]
    for thing in list(things):
        if inspect.isclass(thing):
            things += [one for label, one in vars(thing).items() if not label.startswith("_")]
    found = []
    for thing in things:
        text = inspect.getdoc(thing) if callable(thing) or inspect.ismodule(thing) else None
        found += complaints(prose(text), INSTEAD | IN_DOCSTRINGS) if text else []
    assert not found
