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

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parent
VERBS = (
    "train", "sample", "reconstruct", "complete", "interpolate", "traverse", "evaluate",
    "compare", "distance", "recipes", "data",
)  # fmt: skip


def on_files(files, config):
    """Adds the page of the command line's help, and the examples that pages link to."""
    files.append(File.generated(config, "reference/command-line.md", content=command_line()))
    for path in sorted((ROOT / "examples").rglob("*")):
        if path.suffix in (".py", ".sh"):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def command_line() -> str:
    """`monge --help` and that of each verb, as they are printed."""
    page = ["# The command line", "What `--help` prints. Settings without a flag of their own are"]
    page += ["`--set a.b=c`, with the names of the run's `config.json`."]
    for verb in ("", *VERBS):
        command = [sys.executable, "-m", "monge", *verb.split(), "--help"]
        settings = {"COLUMNS": "92", "NO_COLOR": "1", "TERM": "dumb"}
        shown = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | settings
        )
        page += ["", f"## monge {verb}".rstrip(), "", "```text", shown.stdout.strip(), "```"]
    return "\n".join(page)


def on_page_markdown(markdown, page, config, files):
    """Links to the repository's examples become links to their copies in the book."""
    up = "../" * (page.file.src_uri.count("/") + 1)
    return markdown.replace(f"]({up}examples/", f"]({up[3:]}examples/")


def on_page_content(content, page, config, files):
    """Formulas, which arithmatex has marked, as MathML."""

    def formula(match: re.Match) -> str:
        kind, latex = match.group(1), html.unescape(match.group(2))
        display = "block" if kind == "div" else "inline"
        return convert(latex.strip()[2:-2], display=display)

    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', formula, content, flags=re.DOTALL)
