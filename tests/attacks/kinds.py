"""The kinds of malformed input, by name: each module of this package that has a `FUZZ` or more."""

from attacks.fuzzing import Fuzz

KINDS: dict[str, Fuzz] = {fuzz.name: fuzz for fuzz in ()}
