from monge.builders.parts import Parts, build

__all__ = ["Parts", "build"]
