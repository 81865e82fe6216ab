"""A Markdown extension with what the book needs beyond its pages: formulas as MathML, the command
line's help, the table of recipes, and links to the examples.

Formulas between dollars are turned into MathML when the book is built, which browsers show by
themselves: no script, no font and no network when it is read.
"""

import html
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown import Extension
from markdown.postprocessors import Postprocessor
from markdown.preprocessors import Preprocessor

from monge.cli import NAMES
from monge.recipes import RECIPES

MATHML = "http://www.w3.org/1998/Math/MathML"


class Book(Extension):
    """Names both steps to Python-Markdown."""

    def extendMarkdown(self, md) -> None:
        md.preprocessors.register(Insertions(md), "insertions", 50)  # before fences are read
        md.postprocessors.register(Formulas(md), "formulas", -50)  # when all HTML is there


def makeExtension(**settings) -> Book:
    return Book(**settings)


class Insertions(Preprocessor):
    """The command line's help and the table of recipes in place of their comments; links to the
    repository's examples become links to their copies in the book."""

    def run(self, lines: list[str]) -> list[str]:
        text = "\n".join(lines)
        for mark, made in (("<!-- recipes -->", recipes), ("<!-- help -->", command_line)):
            if mark in text:
                text = text.replace(mark, made())
        return re.sub(r"\]\(\.\./((?:\.\./)*examples/)", r"](\1", text).split("\n")


class Formulas(Postprocessor):
    """Formulas, which arithmatex has marked, as MathML."""

    def run(self, text: str) -> str:
        marked = r'<(span|div) class="arithmatex">(.*?)</\1>'
        return re.sub(marked, _formula, text, flags=re.DOTALL)


def command_line() -> str:
    """`monge --help` and that of each verb, as they are printed."""
    page = []
    for verb in ("", *NAMES):
        command = [sys.executable, "-m", "monge", *verb.split(), "--help"]
        settings = {"COLUMNS": "84", "NO_COLOR": "1", "TERM": "dumb"}
        shown = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | settings
        )
        page += ["", f"## monge {verb}".rstrip(), "", "```text", shown.stdout.strip(), "```"]
    return "\n".join(page)


def recipes() -> str:
    """The rows of `monge.recipes` as a table."""
    lines = ["| recipe | what | options of its own | from |", "|---|---|---|---|"]
    for row in RECIPES.values():
        names = ", ".join(f"`{name}`" for name in (row.name, *row.aliases))
        options = ", ".join(f"`{name}`" for name in row.option_names) or "–"
        lines.append(f"| {names} | {row.line.split(' (')[0]} | {options} | {row.paper} |")
    return "\n".join(lines)


def _formula(match: re.Match) -> str:
    kind, latex = match.group(1), html.unescape(match.group(2))
    display = "block" if kind == "div" else "inline"
    shown = convert(latex.strip()[2:-2], display=display)
    if "\\" in shown:
        raise ValueError(f"a command is unknown in {latex}")
    return arranged(shown)


def arranged(formula: str) -> str:
    """MathML with space around log, and in displays with limits below min and inf."""
    ElementTree.register_namespace("", MATHML)
    root = ElementTree.fromstring(formula)
    for parent in root.iter():
        children = list(parent)
        for place in reversed(range(len(children))):
            child = children[place]
            if child.tag == f"{{{MATHML}}}mi" and child.text == "log":
                for side in (place + 1, place):
                    space = ElementTree.Element(f"{{{MATHML}}}mspace", width="0.17em")
                    parent.insert(side, space)
            below = child.tag == f"{{{MATHML}}}msub" and root.get("display") == "block"
            if below and child[0].text in ("min", "max", "inf", "sup"):
                child.tag = f"{{{MATHML}}}munder"
    return ElementTree.tostring(root, encoding="unicode")
