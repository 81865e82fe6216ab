"""Shared by the verbs: types of flags, the flags of runs, and printing."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from monge._core.visible import visible

Number = Annotated[int, arg(aliases=["-n"])]
# flags that leave the configuration as it is when they are not given
Int = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
Float = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
Place = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class OfRun:
    """Flags for the runs that a verb opens, their data and the device."""

    data: Text = None
    """Name or path of the data of the run; by default where they were last."""
    data_changed: bool = False
    """Continue although the data differ from those of the run; outputs record how."""
    trust_data: bool = False
    """Open the data that a run names, although this account has not sealed the run."""
    device: Text = None
    """Device of the networks: cpu (default), auto, cuda, cuda:1, … or mps."""
    model: Text = None
    """PACKAGE.MODULE:NAME of the model, for a run fitted to a model of your own: a class, function
    or object."""

    def open(self, path: Path) -> Any:
        """The run in a directory."""
        from monge.runs import Run

        return Run(
            path,
            self.model,
            data=self.data,
            data_changed=self.data_changed,
            trust_data=self.trust_data,
            device=self.device or "cpu",
        )


def tell(text: object) -> None:
    """Prints a text in one line, the control characters of names in it as escapes."""
    print(visible(str(text)))


def first() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"
