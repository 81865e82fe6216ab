"""The verbs that list what there is."""

from dataclasses import dataclass

from monge.config import DATA
from monge.recipes import ALIASES, RECIPES


@dataclass(frozen=True)
class Recipes:
    """List the recipes."""

    def run(self) -> None:
        others = {name: [a for a, r in ALIASES.items() if r == name] for name in RECIPES}
        for name, line in RECIPES.items():
            print(f"{', '.join([name, *others[name]]):19} {line}")


@dataclass(frozen=True)
class Data:
    """List the data sets that are known by name."""

    def run(self) -> None:
        for name, line in DATA.items():
            print(f"{name:19} {line}")
        print(
            f"{'PATH':19} folder, .zip or .tar of images, folder of idx files or clouds, .npy, …"
        )
        print(f"{'hf:DATASET':19} folder of save_to_disk, or a name on the hub of Hugging Face")
