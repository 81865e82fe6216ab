"""Tab completion: the scripts that tyro writes for shells, and what positional arguments are."""

from collections.abc import Sequence

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


def completed(script: str, recipes: Sequence[str]) -> str:
    """tyro's script, which completes commands, flags and their values, with names of recipes
    behind `train` and names of files for all other positional arguments."""
    positional = f"""\
    if current_word_index > 0 and not current_word.startswith('-'):
        recipes = {[*recipes]}
        if words[0] != 'train' or current_word_index > 1:
            recipes = []
        return [one for one in recipes if one.startswith(current_word)] or ['{FILES}']

"""
    script = script.replace("    # Generate completions.\n", f"{positional}    # Otherwise\n")
    # tyro's own list would take a name with blanks for several: readline knows better
    script = script.replace('COMPREPLY=($(compgen -f -- "$cur"))', "COMPREPLY=()")
    script = script.replace("complete -F", "complete -o default -F")
    return script.replace(" %% ", " % ")  # as argparse would have it
