"""Names of a package that are imported when they are first used, as its stub lists them."""

import importlib
from collections.abc import Callable
from typing import Any


def attach(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from its stub.

    Args:
        package: its `__name__`.
        file: its `__file__`, beside which the stub lies, with lines `from module import name as
            name`, or `from . import name as name` for modules of the package.
    """
    homes: dict[str, tuple[str, str | None]] = {}
    with open(f"{file.removesuffix('.py')}.pyi", encoding="utf-8") as stub:
        for line in stub:
            if line.startswith("from "):
                _, module, _, name, *_ = line.split()
                homes[name] = (f"{package}.{name}", None) if module == "." else (module, name)

    def getattribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = homes[name]
        imported = importlib.import_module(module)
        return imported if attribute is None else getattr(imported, attribute)

    names = sorted([*homes, "__version__"])
    return getattribute, lambda: names, sorted(homes)
