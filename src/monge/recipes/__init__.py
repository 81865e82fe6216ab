"""Recipes: named methods of the literature, described without torch.

`monge.builders` makes their models.
"""

from typing import Any

from monge._core.references import is_reference, resolve
from monge._core.spelling import meant
from monge.recipes.recipe import Recipe
from monge.recipes.rows import ROWS

__all__ = ["GROUP", "RECIPES", "Recipe", "canonical", "find", "names", "published"]

RECIPES: dict[str, Recipe] = {row.name: row for row in ROWS}
"""The recipes of monge itself."""
GROUP = "monge.recipes"
"""The entry-point group in which other packages give their recipes names."""
_ALIASES = {alias: row.name for row in ROWS for alias in row.aliases}


def find(name: str, beside: str | None = None) -> Recipe:
    """The recipe that a name, an alias, an entry point or `module:name` stands for.

    Arguments:
        name: what a person wrote, or a run has stored.
        beside: a folder in which a module may lie besides Python's path; see
            `monge._core.references.resolve`.

    Raises:
        ValueError: for a name that stands for none.
    """
    if not isinstance(name, str):
        raise ValueError(
            f"`recipe` must be a name or package.module:name, got {name!r}: a recipe of your own "
            "is named by where it can be imported from"
        )
    name = _ALIASES.get(name, name)
    if name in RECIPES:
        return RECIPES[name]
    if is_reference(name):
        found = resolve(name, "recipe", beside=beside)
    elif (entry := published().get(name)) is not None:
        found = resolve(entry.value, "recipe")
    else:
        if near := meant(name, [*names(), *published()]):
            raise ValueError(f"`recipe` {name!r} is unknown{near}")
        raise ValueError(
            f"`recipe` must be one of {', '.join(names())}, or package.module:name, got {name!r}"
        )
    if not isinstance(found, Recipe):
        raise ValueError(
            f"`recipe` {name!r} is a {type(found).__name__}: give a monge.recipes.Recipe"
        )
    return found


def canonical(name: str) -> str:
    """A name, with an alias replaced by what it stands for."""
    return _ALIASES.get(name, name) if isinstance(name, str) else name


def published() -> dict[str, Any]:
    """The entry points of the recipes that installed packages add, by name."""
    import importlib.metadata  # ten milliseconds, which the help of most verbs can do without

    return {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}


def names() -> list[str]:
    """The names and aliases of the recipes of monge itself."""
    return [*RECIPES, *_ALIASES]
