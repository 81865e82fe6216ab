"""The version of monge."""

__version__ = "0.2.0"
