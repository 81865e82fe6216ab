"""The configuration of a run, as frozen dataclasses without torch.

`Config` is what a person asked for, `Settled` what the run found; `config.json` holds both.
"""

from monge.config.asked import CUSTOM, PLANE, Config, override
from monge.config.schema import Column, Schema
from monge.config.settings import DATA, PUBLISHED, DataConfig, NetworkConfig, TrainingConfig
from monge.config.settled import Settled
from monge.config.stored import from_json, read_config, read_sealed, to_json

__all__ = [
    "CUSTOM",
    "DATA",
    "PLANE",
    "PUBLISHED",
    "Column",
    "Config",
    "DataConfig",
    "NetworkConfig",
    "Schema",
    "Settled",
    "TrainingConfig",
    "from_json",
    "override",
    "read_config",
    "read_sealed",
    "to_json",
]
