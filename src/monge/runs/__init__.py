from monge.runs.run import Run, load, read_config

__all__ = ["Run", "load", "read_config"]
