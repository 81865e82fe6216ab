"""What the book needs beyond its pages: formulas as MathML, the command line's help, examples.

Formulas between dollars are turned into MathML when the book is built, which browsers show by
themselves: no script, no font and no network when it is read.
"""

import html
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from latex2mathml.converter import convert
from mkdocs.structure.files import File

from monge.recipes import RECIPES

ROOT = Path(__file__).parent
MATHML = "http://www.w3.org/1998/Math/MathML"
VERBS = (
    "train",
    "sample",
    "reconstruct",
    "complete",
    "interpolate",
    "traverse",
    "evaluate",
    "compare",
    "distance",
    "transfer",
    "runs",
    "recipes",
    "data",
    "info",
)


def on_files(files, config):
    """Adds the examples that pages link to."""
    for path in sorted((ROOT / "examples").rglob("*")):
        if path.suffix in (".py", ".sh"):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def command_line() -> str:
    """`monge --help` and that of each verb, as they are printed."""
    page = []
    for verb in ("", *VERBS):
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


def on_page_markdown(markdown, page, config, files):
    """The command line's help and the table of recipes; links to the repository's examples become
    links to their copies in the book."""
    markdown = markdown.replace("<!-- recipes -->", recipes())
    if page.file.src_uri == "reference/command-line.md":
        markdown += command_line()
    up = "../" * (page.file.src_uri.count("/") + 1)
    return markdown.replace(f"]({up}examples/", f"]({up[3:]}examples/")


def on_page_content(content, page, config, files):
    """Formulas, which arithmatex has marked, as MathML."""

    def formula(match: re.Match) -> str:
        kind, latex = match.group(1), html.unescape(match.group(2))
        display = "block" if kind == "div" else "inline"
        shown = convert(latex.strip()[2:-2], display=display)
        if "\\" in shown:
            raise ValueError(f"{page.file.src_uri}: a command is unknown in {latex}")
        return arranged(shown)

    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', formula, content, flags=re.DOTALL)


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
