"""Tab completion: the scripts that tyro writes for shells, and what positional arguments are."""

import ast
import re
from collections.abc import Mapping, Sequence

SHELLS = ("bash", "zsh", "fish")
FILES = "__TYRO_COMPLETE_FILES__"
"""What the Python program inside a script prints to have the shell complete names of files."""


def shell_of(argv: Sequence[str]) -> str | None:
    """The shell whose script is to be printed, or written to a file; None where none is.

    Raises:
        ValueError: for a shell that is not known, or none.
    """
    flag = argv[0].replace("_", "-") if argv else ""
    if flag not in ("--tyro-print-completion", "--tyro-write-completion"):
        return None
    shell = argv[1] if len(argv) > 1 else ""
    if shell not in SHELLS:
        raise ValueError(f"`{flag}` must be one of {', '.join(SHELLS)}, got {shell!r}")
    if flag == "--tyro-write-completion" and len(argv) < 3:
        raise ValueError(f"`{flag}` {shell} has no file to write: give its name behind the shell")
    return shell


def options(script: str) -> list[dict[str, object]]:
    """The flags of a command without subcommands, as tyro's script holds them."""
    written = re.search(r"^COMPLETION_SPEC = (.*)$", script, re.MULTILINE)
    assert written is not None, "tyro's script has no list of flags"
    return ast.literal_eval(written[1])["options"]


def completed(script: str, recipes: Mapping[str, Sequence[dict[str, object]]]) -> str:
    """tyro's script, which completes commands, flags and their values, with the recipes behind
    `train`, the flags of each, and names of files for all other positional arguments."""
    known = f"""\
TRAIN = COMPLETION_SPEC['subcommands']['train']
for recipe, options in {dict(recipes)}.items():
    options = {{'options': TRAIN['options'] + options, 'subcommands': {{}}, 'description': recipe}}
    TRAIN['subcommands'][recipe] = options

import sys
"""
    positional = f"""\
    if current_word_index > 0 and not current_word.startswith('-'):
        recipes = current_spec['subcommands']
        return [one for one in recipes if one.startswith(current_word)] or ['{FILES}']

"""
    script = script.replace("import sys\n", known, 1)
    script = script.replace("    # Generate completions.\n", f"{positional}    # Otherwise\n")
    # tyro's own list would take a name with blanks for several: readline knows better
    script = script.replace('COMPREPLY=($(compgen -f -- "$cur"))', "COMPREPLY=()")
    script = script.replace("complete -F", "complete -o default -F")
    return script.replace(" %% ", " % ")  # as argparse would have it
