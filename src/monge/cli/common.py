"""What the verbs share: the types of their flags, and which process speaks."""

import os
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

Number = Annotated[int, arg(aliases=["-n"])]
# flags that leave the configuration as it is when they are not given
Int = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
Float = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
Place = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]


def first() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"
