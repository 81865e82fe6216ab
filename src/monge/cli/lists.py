"""The verbs that list what there is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipes:
    """List the recipes."""

    def run(self) -> None:
        from monge.recipes import RECIPES, published

        for row in RECIPES.values():
            print(f"{', '.join([row.name, *row.aliases]):19} {row.line}")
        for name in published():
            print(f"{name:19} {_line(name)}")
        print(f"{'PACKAGE.MODULE:NAME':19} a recipe of your own")


def _line(name: str) -> str:
    """The line of another package's recipe, or why it cannot be used."""
    from monge.recipes import find

    try:
        return find(name).line
    except ValueError as error:
        return f"cannot be used: {error}"


@dataclass(frozen=True)
class Data:
    """List the data sets that are known by name."""

    def run(self) -> None:
        from monge.config import DATA

        for name, line in DATA.items():
            print(f"{name:19} {line}")
        print(
            f"{'PATH':19} folder, .zip or .tar of images, folder of idx files or clouds, .npy, …"
        )
        print(f"{'hf:DATASET':19} folder of save_to_disk, or a name on the hub of Hugging Face")
